/* Checks of what ends: tenants with all that is in them, and names that are used again. */
#pragma once

#include "tests/unit/registry/bench.h"

void ends_check_big_tenant(struct bench *b);
void ends_check_restart(struct bench *b);
void ends_check_versions(struct bench *b);
void ends_check_scope(struct bench *b);
