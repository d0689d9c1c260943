/* Checks of the registry with a PostgreSQL that is slow for some. */
#pragma once

#include "tests/unit/registry/bench.h"

void pressure_check_slow_logins(struct bench *b);
void pressure_check_slow_requests(struct bench *b);
void pressure_check_frozen_requests(struct bench *b);
void pressure_check_timeout(struct bench *b);
