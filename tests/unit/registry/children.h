/* Devices behind gateway devices: who may speak for them, and what changes. */
#pragma once

#include "tests/unit/registry/bench.h"

void children_check(struct bench *b);
