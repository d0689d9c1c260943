/*
 * The file of --env: lines of NAME=value, shell-quoted as deploy/up writes them (plain, '...',
 * $'...' or backslashes). Read as data, never executed. One per process.
 */
#pragma once

#include "cli/command.h"

/* Reads the file of --env; false with a message when it cannot be read. */
bool env_file_load(struct cli_run *run);

/* The value of a variable of that file, or NULL. Lives as long as the process. */
const char *env_file_find(const char *name);
