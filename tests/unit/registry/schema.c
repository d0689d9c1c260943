#include "tests/unit/registry/schema.h"

#include <string.h>

#include "registry/migrate.h"
#include "registry/migrations.h"

enum { WAIT_MS = 10000 };

/* Migrations that do not exist yet: what a later release would do, as far as the rule lets it. */
static const char LATER[] = "alter table device add column later_%d text not null default 'x';"
                            "create table later_%d (id bigint);"
                            "insert into schema_migration values (%d, '%04d_later', 'x')";
static const char BACK[] = "alter table device drop column later_%d; drop table later_%d;"
                           "delete from schema_migration where version = %d";

static void count_line(void *context, const char *text) {
    ++*(unsigned *)context;
}

static int migrate(const struct bench *b, unsigned *lines, char *ret_error) {
    return registry_migrate(b->conninfo, "", count_line, lines, ret_error);
}

/* The registry on an empty database, on one without the last migration, on one two ahead ... is
 * refused with a sentence that holds `says`; healed by what `heal` is, it comes up by itself. */
static void expect_refused(struct bench *b, const char *says, void (*heal)(struct bench *b)) {
    char error[REGISTRY_ERROR_SIZE] = "";
    const char *why = "";
    bench_open(b);
    int err = registry_check_schema(b->registry, WAIT_MS, error);
    CHECK(err == DG_ERR_UNSUPPORTED_VERSION && strstr(error, says), "%s: %d '%s'", says, err,
          error);
    CHECK(!registry_is_up(b->registry, &why) && why[0], "'%s'", why);
    CHECK(bench_login_secret(b, "acme", "keyed", "x", NULL) == DG_ERR_UNAVAILABLE);
    heal(b);
    CHECK(bench_wait_up(b, true, WAIT_MS));
    CHECK(registry_check_schema(b->registry, WAIT_MS, error) == 0);
    registry_close(b->registry);
}

static void heal_by_migration(struct bench *b) {
    char error[REGISTRY_ERROR_SIZE] = "";
    unsigned lines = 0;
    CHECK(migrate(b, &lines, error) == 0, "%s", error);
    CHECK(lines >= 1);
}

void schema_check_migrations(struct bench *b) {
    char error[REGISTRY_ERROR_SIZE] = "";
    unsigned lines = 0;
    expect_refused(b, "has schema 0, this duragate needs", heal_by_migration);
    CHECK(migrate(b, &lines, error) == 0 && lines == 1, "%s", error);
    bench_sql(b->conninfo, "insert into schema_migration values (9999, '9999_later', 'x')");
    CHECK(migrate(b, &lines, error) == DG_ERR_UNSUPPORTED_VERSION && strstr(error, "newer release"),
          "%s", error);
    bench_sql(b->conninfo, "delete from schema_migration where version = 9999");
    bench_sql(b->conninfo, "update schema_migration set checksum = 'x' || checksum");
    CHECK(migrate(b, &lines, error) == DG_ERR_CORRUPT && strstr(error, "another form"), "%s",
          error);
    bench_sql(b->conninfo, "update schema_migration set checksum = substr(checksum, 2)");
    CHECK(registry_migrate("host=/nowhere dbname=x", "", NULL, NULL, error) == DG_ERR_UNAVAILABLE,
          "%s", error);
}

static void add_later(struct bench *b, int version) {
    bench_sql(b->conninfo, LATER, version, version, version, version);
}

static void take_later(struct bench *b, int version) {
    bench_sql(b->conninfo, BACK, version, version, version);
}

static void heal_by_going_back(struct bench *b) {
    take_later(b, (int)migration_count + 2);
}

/* The row only: what the last migration made stays, so that it can be put back. */
static void heal_row(struct bench *b) {
    const struct migration *last = &migrations[migration_count - 1];
    bench_sql(b->conninfo, "insert into schema_migration values (%d, '%s', '%s')", last->version,
              last->name, last->checksum);
}

static void heal_checksum(struct bench *b) {
    bench_sql(b->conninfo, "update schema_migration set checksum = substr(checksum, 2)"
                           " where version = 1");
}

/* One ahead is what a rolling upgrade looks like from the old gateway; it may start anew there. */
static void check_one_ahead(struct bench *b) {
    char error[REGISTRY_ERROR_SIZE] = "";
    unsigned lines = 0;
    CHECK(migrate(b, &lines, error) == 0 && lines == 1, "nothing to do: %s", error);
    bench_open(b);
    CHECK(registry_check_schema(b->registry, WAIT_MS, error) == 0, "%s", error);
    CHECK(bench_wait_up(b, true, WAIT_MS));
    struct registry_request *r = bench_execute(b, STATEMENT_TENANT_PUT, "ahead", "4", "true", "{}",
                                               "{}", "{}", NULL, BENCH_END);
    CHECK(r->err == 0, "%s", dg_err_text(r->err));
    registry_request_free(r);
    bench_sql(b->conninfo, "delete from tenant where name = 'ahead'");
    registry_close(b->registry);
}

void schema_check_fit(struct bench *b) {
    int own = (int)migration_count;
    bench_sql(b->conninfo, "delete from schema_migration where version = %d", own);
    expect_refused(b, "run duragate migrate", heal_row);
    add_later(b, own + 1);
    check_one_ahead(b);
    add_later(b, own + 2);
    expect_refused(b, "install the newer release", heal_by_going_back);
    take_later(b, own + 1);
    bench_sql(b->conninfo, "update schema_migration set checksum = 'x' || checksum"
                           " where version = 1");
    expect_refused(b, "migration 1 was applied in another form", heal_checksum);
}
