/* The prepared statements, numbered. The rows are in statements_table.h and nowhere else. */
#pragma once

enum registry_statement {
#define STATEMENT(id, parameter_count, sql) STATEMENT_##id,
#include "registry/statements_table.h"
#undef STATEMENT
    STATEMENT_COUNT
};
