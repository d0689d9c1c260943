#include "registry/half.h"

#include <stdio.h>
#include <stdlib.h>

#include "registry/registry.h"
#include "registry/synchronous.h"

static const char TABLES[] =
    "select count(*), count(*) filter (where c.relname = 'schema_migration')"
    " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    " where c.relkind in ('r', 'S') and n.nspname not like 'pg\\_%'"
    " and n.nspname <> 'information_schema'";

static const char HALF[] =
    "select (select coalesce(max(version), 0) from schema_migration),"
    " (select last_value from registry_change_revision_seq),"
    " greatest((select last_value - case when is_called then 0 else 1 end from stream_id_seq),"
    " (select max(stream_id) from tenant)), (select count(*) from tenant)";

static PGresult *query(PGconn *connection, const char *sql, char *ret_error) {
    PGresult *result = PQexec(connection, sql);
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        return result;
    snprintf(ret_error, REGISTRY_ERROR_SIZE, "PostgreSQL: %.450s", PQerrorMessage(connection));
    PQclear(result);
    return NULL;
}

static int64_t number(const PGresult *result, int column) {
    return strtoll(PQgetvalue(result, 0, column), NULL, 10);
}

static int read_half(PGconn *connection, struct registry_half *ret_half, char *ret_error) {
    struct registry_half half = {0};
    PGresult *tables = query(connection, TABLES, ret_error);
    if (!tables)
        return DG_ERR_INTERNAL;
    half.is_empty = number(tables, 0) == 0;
    bool has_schema = number(tables, 1) > 0;
    PQclear(tables);
    PGresult *result = has_schema ? query(connection, HALF, ret_error) : NULL;
    if (has_schema && !result)
        return DG_ERR_INTERNAL;
    if (result) {
        half.schema_version = (int32_t)number(result, 0);
        half.revision = number(result, 1);
        half.last_stream_id = number(result, 2);
        half.tenant_count = number(result, 3);
        PQclear(result);
    }
    *ret_half = half;
    return 0;
}

int registry_read_half(const char *conninfo, const char *password, struct registry_half *ret_half,
                       char *ret_error) {
    PGconn *connection;
    int err = synchronous_connect(conninfo, password, &connection, ret_error);
    if (err < 0)
        return err;
    err = read_half(connection, ret_half, ret_error);
    PQfinish(connection);
    return err;
}
