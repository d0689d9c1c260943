#include "registry/synchronous.h"

#include <stdio.h>
#include <string.h>

#include "registry/registry.h"

int synchronous_connect(const char *conninfo, const char *password, PGconn **ret_connection,
                        char *ret_error) {
    /* What comes first is overridden by the connection string; the password is not. */
    const char *names[] = {"connect_timeout", "application_name", "dbname", "password", NULL};
    const char *values[] = {"10", "duragate", conninfo, password, NULL};
    if (!password || !password[0])
        names[3] = NULL; /* as if not given: the string or a password file may have it */
    PGconn *connection = PQconnectdbParams(names, values, 1);
    if (PQstatus(connection) != CONNECTION_OK) {
        snprintf(ret_error, REGISTRY_ERROR_SIZE, "PostgreSQL: %.450s", PQerrorMessage(connection));
        ret_error[strcspn(ret_error, "\n")] = '\0';
        PQfinish(connection);
        return DG_ERR_UNAVAILABLE;
    }
    *ret_connection = connection;
    return 0;
}
