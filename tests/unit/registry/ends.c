#include "tests/unit/registry/ends.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/registry/logins.h"

enum { DEVICES = 20000 };

static void add_tenant(struct bench *b, const char *name, unsigned devices) {
    bench_sql(b->conninfo, "insert into tenant (name) values ('%s')", name);
    bench_sql(b->conninfo,
              "with made as (insert into device (tenant_key, device_id, partition)"
              " select tenant_key, 'd' || i, 1 from tenant, generate_series(1, %u) i"
              " where name = '%s' returning device_key)"
              " insert into credential (device_key, name, kind, thumbprint)"
              " select device_key, 'c', 'x509', repeat('a', 64) from made",
              devices, name);
}

static long long number(struct bench *b, const char *sql) {
    return atoll(bench_sql(b->conninfo, "%s", sql));
}

static const char *delete_tenant(struct bench *b, const char *name) {
    static char outcome[32];
    struct registry_request *r = bench_execute(b, STATEMENT_TENANT_DELETE, name, NULL, BENCH_END);
    const char *word = r->row_count == 1 ? registry_value(r, 0, 0) : NULL;
    snprintf(outcome, sizeof(outcome), "%s", word ? word : dg_err_text(r->err));
    registry_request_free(r);
    return outcome;
}

static bool exists(struct bench *b, const char *tenant, const char *device) {
    struct registry_request *r = bench_execute(b, STATEMENT_DEVICE_GET, tenant, device, BENCH_END);
    CHECK(r->err == 0, "%s", dg_err_text(r->err));
    bool found = r->row_count == 1;
    registry_request_free(r);
    return found;
}

static bool wait_collected(struct bench *b, int64_t tenant_key, unsigned ms) {
    for (uint64_t until_ms = clock_monotonic_ms() + ms; clock_monotonic_ms() < until_ms;) {
        if (atoll(bench_sql(b->conninfo, "select count(*) from device where tenant_key = %lld",
                            (long long)tenant_key)) == 0)
            return true;
        bench_run(b, 50);
    }
    return false;
}

/* Deleted at once, out of reach at once, its name free at once; the devices go by and by. */
void ends_check_big_tenant(struct bench *b) {
    add_tenant(b, "big", DEVICES);
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'known', 1 from tenant where name = 'big'");
    logins_add_key(b, "known", "key", "secret-of-the-first-known", NULL);
    bench_run(b, 300);
    int64_t key = number(b, "select tenant_key from tenant where name = 'big'");
    CHECK(bench_login_secret(b, "big", "known", "secret-of-the-first-known", NULL) == 0);
    long long before = number(b, "select max(revision) from registry_change");
    b->revocation_count = 0;
    const char *outcome = delete_tenant(b, "big");
    CHECK(strcmp(outcome, "deleted") == 0, "%s", outcome);
    const struct registry_revocation *told = bench_wait_revocation(b, 0, 0);
    CHECK(told && told->tenant_key == key && told->err == DG_ERR_ADMINISTRATIVE);
    CHECK(bench_login_secret(b, "big", "known", "secret-of-the-first-known", NULL) ==
          DG_ERR_BAD_CREDENTIALS);
    CHECK(!exists(b, "big", "d1"));
    /* The same names again, while the old devices are being removed. */
    bench_sql(b->conninfo, "insert into tenant (name) values ('big')");
    CHECK(!exists(b, "big", "d1"));
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'known', 1 from tenant where name = 'big'");
    bench_sql(b->conninfo,
              "insert into credential (device_key, name, kind, thumbprint)"
              " select device_key, 'c', 'x509', repeat('b', 64) from device d join tenant t"
              " using (tenant_key) where t.name = 'big' and d.device_id = 'known'");
    bench_run(b, 300);
    CHECK(exists(b, "big", "known"));
    CHECK(bench_login_secret(b, "big", "known", "secret-of-the-first-known", NULL) ==
          DG_ERR_BAD_CREDENTIALS);
    CHECK(wait_collected(b, key, 30000));
    CHECK(number(b, "select max(revision) from registry_change") - before < 20,
          "nothing is announced of what is collected");
    CHECK(exists(b, "big", "known"));
    CHECK(number(b, "select count(*) from credential where thumbprint = repeat('a', 64)") == 0);
    CHECK(strcmp(delete_tenant(b, "big"), "deleted") == 0);
}

/* What one gateway has begun another one ends, and the mark goes in the end. */
void ends_check_restart(struct bench *b) {
    add_tenant(b, "half", DEVICES);
    int64_t key = number(b, "select tenant_key from tenant where name = 'half'");
    CHECK(strcmp(delete_tenant(b, "half"), "deleted") == 0);
    registry_close(b->registry);
    mailbox_drain(&b->mailbox);
    CHECK(!wait_collected(b, key, 100), "too quick to show anything");
    /* A statement that began before the deletion. */
    bench_sql(b->conninfo,
              "insert into device (tenant_key, device_id, partition)"
              " values (%lld, 'late', 1)",
              (long long)key);
    bench_sql(b->conninfo, "update tenant_gone set gone_at = now() - interval '1 hour'");
    bench_open(b);
    CHECK(bench_wait_up(b, true, 5000));
    CHECK(wait_collected(b, key, 30000));
    for (unsigned i = 0; i < 100 && number(b, "select count(*) from tenant_gone") > 0; i++)
        bench_run(b, 50);
    CHECK(number(b, "select count(*) from tenant_gone") == 0);
}

static long long version_of(struct bench *b, const char *device) {
    return atoll(
        bench_sql(b->conninfo, "select version from device where device_id = '%s'", device));
}

static const char *put_device(struct bench *b, const char *metadata, long long precondition) {
    static char outcome[32];
    char text[48];
    snprintf(text, sizeof(text), "{999999999,%lld}", precondition);
    struct registry_request *r =
        bench_execute(b, STATEMENT_DEVICE_PUT, "acme", "again", "true", NULL, "{}", metadata, "{}",
                      precondition ? text : NULL, "7", BENCH_END);
    const char *word = r->row_count == 1 ? registry_value(r, 0, 0) : NULL;
    snprintf(outcome, sizeof(outcome), "%s", word ? word : dg_err_text(r->err));
    registry_request_free(r);
    return outcome;
}

/* A version is never seen again, also after the name was made again. */
void ends_check_versions(struct bench *b) {
    CHECK(strcmp(put_device(b, "{}", 0), "created") == 0);
    long long first = version_of(b, "again");
    CHECK(strcmp(put_device(b, "{}", 0), "replaced") == 0 && version_of(b, "again") == first,
          "what changes nothing is no new version");
    CHECK(strcmp(put_device(b, "{\"a\": 1}", first), "replaced") == 0);
    long long second = version_of(b, "again");
    CHECK(second > first);
    CHECK(strcmp(put_device(b, "{}", first), "precondition") == 0);
    bench_sql(b->conninfo, "delete from device where device_id = 'again'");
    for (unsigned i = 0; i < 3; i++) {
        CHECK(strcmp(put_device(b, i % 2 ? "{}" : "{\"a\": 1}", 0), i ? "replaced" : "created") ==
              0);
        CHECK(version_of(b, "again") > second);
        CHECK(strcmp(put_device(b, "{\"b\": 1}", first), "precondition") == 0);
        CHECK(strcmp(put_device(b, "{\"b\": 1}", second), "precondition") == 0);
    }
}

/* ---- scope ---- */

static unsigned rows_of(struct registry_request *r) {
    CHECK(r->err == 0, "statement %d: %s", (int)r->statement, dg_err_text(r->err));
    unsigned rows = r->row_count;
    registry_request_free(r);
    return rows;
}

/* How many of the statements that name the tenant find it. */
static unsigned count_reached(struct bench *b) {
    unsigned reached = rows_of(bench_execute(b, STATEMENT_TENANT_GET, "reuse", BENCH_END));
    reached += rows_of(
        bench_execute(b, STATEMENT_DEVICE_LIST, "reuse", NULL, "9", "9999", NULL, NULL, BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_DEVICE_PUT, "reuse", "d", "true", NULL, "{}",
                                     "{}", "{}", NULL, "7", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_DEVICE_GET, "reuse", "there", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_CREDENTIAL_PUT, "reuse", "there", "c", NULL, NULL,
                                     NULL, "key", "\\x00", NULL, "k1", "8", BENCH_END));
    reached +=
        rows_of(bench_execute(b, STATEMENT_CREDENTIAL_GET, "reuse", "there", "c", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_CREDENTIAL_LIST, "reuse", "there", NULL, "9",
                                     "9999", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_CREDENTIAL_UPDATE, "reuse", "there", "c", NULL,
                                     NULL, NULL, BENCH_END));
    reached += rows_of(
        bench_execute(b, STATEMENT_CREDENTIAL_DELETE, "reuse", "there", "c", NULL, BENCH_END));
    reached +=
        rows_of(bench_execute(b, STATEMENT_AUTHORITY_LIST, "reuse", NULL, "9", "9999", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_AUTHORITY_GET, "reuse", "ca", BENCH_END));
    reached +=
        rows_of(bench_execute(b, STATEMENT_API_KEY_LIST, "reuse", NULL, "9", "9999", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_API_KEY_CREATE, "reuse", "new-key", "1", "", NULL,
                                     "\\x00", "\\x00", "k1", "9", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_API_KEY_GET, "reuse", "new-key", BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_API_KEY_UPDATE, "reuse", "new-key", "1", "", NULL,
                                     NULL, BENCH_END));
    reached +=
        rows_of(bench_execute(b, STATEMENT_API_KEY_DELETE, "reuse", "new-key", NULL, BENCH_END));
    reached +=
        rows_of(bench_execute(b, STATEMENT_AUTHORITY_DELETE, "reuse", "ca", NULL, BENCH_END));
    reached += rows_of(bench_execute(b, STATEMENT_DEVICE_DELETE, "reuse", "d", NULL, BENCH_END));
    return reached;
}

static int64_t make_reuse(struct bench *b) {
    bench_sql(b->conninfo, "insert into tenant (name) values ('reuse')");
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'there', 1 from tenant where name = 'reuse'");
    bench_sql(b->conninfo,
              "insert into certificate_authority (tenant_key, name, certificate, fingerprint,"
              " subject_hash) select tenant_key, 'ca', 'pem', 'reuse-' || tenant_key, 'x'"
              " from tenant where name = 'reuse'");
    return number(b, "select tenant_key from tenant where name = 'reuse'");
}

/* A principal's requests reach its tenant, not another one that has the same name by now. */
void ends_check_scope(struct bench *b) {
    enum { STATEMENTS = 18 };
    int64_t old = make_reuse(b);
    b->scope_tenant_key = old;
    CHECK(count_reached(b) == STATEMENTS);
    bench_sql(b->conninfo, "delete from tenant where name = 'reuse'");
    int64_t fresh = make_reuse(b);
    CHECK(old != fresh);
    unsigned reached = count_reached(b);
    CHECK(reached == 0, "%u statements act on the other tenant", reached);
    struct registry_request *r =
        bench_execute(b, STATEMENT_TENANT_LIST, "reuse", NULL, "9", "9999", NULL, NULL, BENCH_END);
    CHECK(r->err == 0 && r->row_count == 1 && !registry_value(r, 0, 0), "an empty page");
    registry_request_free(r);
    r = bench_execute(b, STATEMENT_API_KEY_LIST, NULL, NULL, "9", "9999", BENCH_END);
    CHECK(r->err == 0 && r->row_count == 0, "a tenant is never the platform");
    registry_request_free(r);
    b->scope_tenant_key = fresh;
    CHECK(count_reached(b) == STATEMENTS);
    b->scope_tenant_key = 0;
    bench_sql(b->conninfo, "delete from tenant where name = 'reuse'");
}
