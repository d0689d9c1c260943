/* A plain blocking connection, for the commands that are not the server. */
#pragma once

#include <libpq-fe.h>

#include "common/err.h"

/* Waits at most ten seconds. DG_ERR_UNAVAILABLE with a message (REGISTRY_ERROR_SIZE bytes). The
 * caller ends it with PQfinish(). */
DG_NODISCARD int synchronous_connect(const char *conninfo, const char *password,
                                     PGconn **ret_connection, char *ret_error);
