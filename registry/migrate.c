#include "registry/migrate.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry/migrations.h"
#include "registry/registry.h"
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

/* Compares what the database says was applied with what the binary holds. */
static int check_applied(struct migrate *m, const PGresult *result, unsigned *ret_count) {
    char text[REGISTRY_ERROR_SIZE];
    for (int row = 0; row < PQntuples(result); row++) {
        const char *version = PQgetvalue(result, row, 0), *name = PQgetvalue(result, row, 1);
        if ((unsigned)row >= migration_count) {
            snprintf(text, sizeof(text),
                     "the database has migration %s (%.100s), which this duragate does not know: "
                     "install the newer release that made it",
                     version, name);
            return refuse(m, DG_ERR_UNSUPPORTED_VERSION, text);
        }
        if (atoi(version) != migrations[row].version ||
            strcmp(PQgetvalue(result, row, 2), migrations[row].checksum) != 0) {
            snprintf(
                text, sizeof(text),
                "migration %s (%.100s) was applied in another form than this duragate has: use "
                "the release that applied it, or start with an empty database",
                version, name);
            return refuse(m, DG_ERR_CORRUPT, text);
        }
    }
    *ret_count = (unsigned)PQntuples(result);
    return 0;
}

static int read_applied(struct migrate *m, unsigned *ret_count) {
    PGresult *result =
        PQexec(m->connection, "select version, name, checksum from schema_migration order by 1");
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
    unsigned missing = migration_count - applied;
    for (; err == 0 && applied < migration_count; applied++)
        err = apply(m, &migrations[applied]);
    if (err == 0 && missing == 0 && m->progress)
        m->progress(m->context, "the schema is up to date");
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
