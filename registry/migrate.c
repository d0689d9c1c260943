#include "registry/migrate.h"

#include <libpq-fe.h>
#include <stdio.h>

#include "registry/migrations.h"
#include "registry/registry.h"
#include "registry/schema.h"
#include "registry/synchronous.h"

/* Any number that nobody else takes in this database. */
#define MIGRATE_LOCK "4445474155"

struct migrate {
    PGconn *connection;
    void (*progress)(void *context, const char *text);
    void *context;
    char *ret_error;
};

static int refuse(struct migrate *m, int err, const char *text) {
    snprintf(m->ret_error, REGISTRY_ERROR_SIZE, "%s", text);
    return err;
}

static int run(struct migrate *m, const char *what, const char *sql) {
    PGresult *result = PQexec(m->connection, sql);
    ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return 0;
    snprintf(m->ret_error, REGISTRY_ERROR_SIZE, "migration %s: %.400s", what,
             PQerrorMessage(m->connection));
    return DG_ERR_INTERNAL;
}

/* What the database says was applied; a schema that is older than ours is what we are here for. */
static int check_applied(struct migrate *m, const PGresult *result, unsigned *ret_count) {
    int version;
    enum schema_fit fit = schema_judge(result, &version);
    *ret_count = (unsigned)PQntuples(result);
    if (fit == SCHEMA_FITS || fit == SCHEMA_OLDER)
        return 0;
    schema_describe(fit, version, m->ret_error, REGISTRY_ERROR_SIZE);
    return fit == SCHEMA_NEWER ? DG_ERR_UNSUPPORTED_VERSION : DG_ERR_CORRUPT;
}

static int read_applied(struct migrate *m, unsigned *ret_count) {
    PGresult *result = PQexec(m->connection, SCHEMA_SQL);
    int err = PQresultStatus(result) == PGRES_TUPLES_OK
                  ? check_applied(m, result, ret_count)
                  : refuse(m, DG_ERR_INTERNAL, PQerrorMessage(m->connection));
    PQclear(result);
    return err;
}

static int record(struct migrate *m, const struct migration *migration) {
    char version[16];
    snprintf(version, sizeof(version), "%d", migration->version);
    const char *values[] = {version, migration->name, migration->checksum};
    PGresult *result = PQexecParams(
        m->connection, "insert into schema_migration (version, name, checksum) values ($1, $2, $3)",
        3, NULL, values, NULL, NULL, 0);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return done ? 0 : refuse(m, DG_ERR_INTERNAL, PQerrorMessage(m->connection));
}

static int apply(struct migrate *m, const struct migration *migration) {
    int err = run(m, migration->name, "begin");
    if (err == 0)
        err = run(m, migration->name, migration->sql);
    if (err == 0)
        err = record(m, migration);
    if (err == 0)
        err = run(m, migration->name, "commit");
    if (err == 0 && m->progress) {
        char line[160];
        snprintf(line, sizeof(line), "applied %.140s", migration->name);
        m->progress(m->context, line);
    }
    return err;
}

static int apply_missing(struct migrate *m) {
    unsigned applied = 0;
    int err = run(m, "lock",
                  "set client_min_messages = warning; set lock_timeout = '60s';"
                  " select pg_advisory_lock(" MIGRATE_LOCK ");"
                  " create table if not exists schema_migration (version integer primary key,"
                  " name text not null, checksum text not null,"
                  " applied_at timestamptz not null default now())");
    if (err == 0)
        err = read_applied(m, &applied);
    if (err == 0 && applied >= migration_count && m->progress)
        m->progress(m->context, applied > migration_count
                                    ? "the schema is that of the next release, which this one runs "
                                      "on: nothing to do"
                                    : "the schema is up to date");
    for (; err == 0 && applied < migration_count; applied++)
        err = apply(m, &migrations[applied]);
    return err;
}

int registry_migrate(const char *conninfo, const char *password,
                     void (*progress)(void *context, const char *text), void *context,
                     char *ret_error) {
    struct migrate m = {.progress = progress, .context = context, .ret_error = ret_error};
    int err = synchronous_connect(conninfo, password, &m.connection, ret_error);
    if (err == 0)
        err = apply_missing(&m);
    PQfinish(m.connection); /* releases the lock, and rolls back what is not committed */
    return err;
}
