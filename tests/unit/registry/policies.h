/* What a tenant asks of its devices' traffic, on its way to those who are connected. */
#pragma once

#include "tests/unit/registry/bench.h"

void policies_check(struct bench *b);
