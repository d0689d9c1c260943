/*
 * Brings the schema of the registry to what this binary knows. The migrations are
 * schemas/NNNN_*.sql, built into the binary. Synchronous: for the command line and the start of the
 * process, never for a thread that serves.
 */
#pragma once

#include "common/err.h"

/*
 * Applies what is missing, in order, each in a transaction of its own, one process at a time (an
 * advisory lock; waits up to a minute for it). progress, if not NULL, hears one line per migration.
 * Fails with a sentence for people in ret_error (REGISTRY_ERROR_SIZE bytes): DG_ERR_UNAVAILABLE
 * without a connection, DG_ERR_UNSUPPORTED_VERSION when the database is newer than the binary can
 * run on (by one is no failure and no work), DG_ERR_CORRUPT when a migration that was applied has
 * been changed since, DG_ERR_INTERNAL when PostgreSQL refuses one.
 */
DG_NODISCARD int registry_migrate(const char *conninfo, const char *password,
                                  void (*progress)(void *context, const char *text), void *context,
                                  char *ret_error);
