/* Checks of `duragate migrate` and of which schemas a gateway runs on. */
#pragma once

#include "tests/unit/registry/bench.h"

/* On an empty database, which is up to date afterwards. */
void schema_check_migrations(struct bench *b);
/* Without an open registry; leaves the schema as it was. */
void schema_check_fit(struct bench *b);
