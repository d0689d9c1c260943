/* What the cache knows may be outdated: then a right secret is never called wrong. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "registry/admin.h"
#include "tests/unit/registry/logins.h"

/* Stops or continues the server's end of the connection that hears of changes. */
static void signal_changes(struct bench *b, int signal_number) {
    static int pid;
    if (signal_number == SIGSTOP)
        pid = atoi(bench_sql(b->conninfo, "select pid from pg_stat_activity where query like"
                                          " '%%registry_change%%' and pid <> pg_backend_pid()"
                                          " and application_name = 'duragate'"
                                          " order by backend_start desc limit 1"));
    CHECK(pid > 1 && kill(pid, signal_number) == 0);
}

static void create_principal(struct bench *b, const char *key_id, bool replace, char *ret_secret) {
    char error[REGISTRY_ERROR_SIZE] = "";
    struct registry_admin_key key = {
        .key_id = key_id, .roles = REGISTRY_ROLE_READER, .replace = replace};
    CHECK(registry_admin_create_key(b->conninfo, "", b->master_file, &key, ret_secret, error) == 0,
          "%s", error);
}

static void check_unheard(struct bench *b) {
    char first[REGISTRY_SECRET_SIZE], second[REGISTRY_SECRET_SIZE];
    create_principal(b, "stale", false, first);
    bench_run(b, 200);
    CHECK(bench_login_secret(b, "acme", "stale", "first-secret-of-the-stale-000001", NULL) == 0);
    CHECK(logins_try_principal(b, "stale", first, NULL) == 0);
    CHECK(bench_login_secret(b, "acme", "later", "x", NULL) == DG_ERR_BAD_CREDENTIALS);
    bench_run(b, 1200); /* that there is no such device is believed for a second */
    CHECK(bench_login_secret(b, "acme", "stale", "first-secret-of-the-stale-000001", NULL) == 0);
    signal_changes(b, SIGSTOP);
    logins_add_key(b, "stale", "second", "second-secret-of-the-stale-00001", NULL);
    create_principal(b, "stale", true, second);
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'later', 1 from tenant where name = 'acme'");
    logins_add_key(b, "later", "key", "secret-of-the-later-000000000001", NULL);
    int err = bench_login_secret(b, "acme", "stale", "second-secret-of-the-stale-00001", NULL);
    CHECK(err == 0, "a key that was not heard of: %s", dg_err_text(err));
    err = logins_try_principal(b, "stale", second, NULL);
    CHECK(err == 0, "an API key that was not heard of: %s", dg_err_text(err));
    err = bench_login_secret(b, "acme", "later", "secret-of-the-later-000000000001", NULL);
    CHECK(err == 0, "a device that was not heard of: %s", dg_err_text(err));
    CHECK(bench_login_secret(b, "acme", "stale", "another-secret-of-the-stale-0001", NULL) ==
          DG_ERR_BAD_CREDENTIALS);
    signal_changes(b, SIGCONT);
    CHECK(bench_wait_up(b, true, 15000));
}

/* Many who are wrong about one device ask PostgreSQL about it once a second. */
static void check_rate(struct bench *b) {
    enum { COUNT = 200 };
    bench_run(b, 1200);
    int64_t before = metric_read(METRIC_REGISTRY_QUERIES);
    uint64_t start_ms = clock_monotonic_ms();
    for (unsigned i = 0; i < COUNT; i++)
        CHECK(bench_login_secret(b, "acme", "stale", "another-secret-of-the-stale-0001", NULL) ==
              DG_ERR_BAD_CREDENTIALS);
    int64_t sent = metric_read(METRIC_REGISTRY_QUERIES) - before;
    int64_t seconds = (int64_t)(clock_monotonic_ms() - start_ms) / 1000 + 1;
    CHECK(sent <= 3 * seconds + 2, "%d statements in %d s", (int)sent, (int)seconds);
}

static void check_down(struct bench *b) {
    char secret[REGISTRY_SECRET_SIZE];
    create_principal(b, "stale", true, secret);
    bench_run(b, 300);
    CHECK(bench_login_secret(b, "acme", "stale", "first-secret-of-the-stale-000001", NULL) == 0);
    CHECK(logins_try_principal(b, "stale", secret, NULL) == 0);
    bench_server(b, "stop");
    CHECK(bench_wait_up(b, false, 5000));
    CHECK(bench_login_secret(b, "acme", "stale", "first-secret-of-the-stale-000001", NULL) == 0);
    CHECK(logins_try_principal(b, "stale", secret, NULL) == 0);
    static const char *const wrong[] = {
        "another-secret-of-the-stale-0001", "a password of a person",
        "SharedAccessSignature sr=x%2Fdevices%2Fstale&sig=AAAA&se=1"};
    for (unsigned i = 0; i < 2 * sizeof(wrong) / sizeof(wrong[0]); i++) {
        int err = bench_login_secret(b, "acme", "stale", wrong[i / 2], NULL);
        CHECK(err == DG_ERR_UNAVAILABLE, "%s: %s", wrong[i / 2], dg_err_text(err));
    }
    int err = logins_try_principal(b, "stale", "another", NULL);
    CHECK(err == DG_ERR_UNAVAILABLE, "%s", dg_err_text(err));
    bench_server(b, "start");
    CHECK(bench_wait_up(b, true, 15000));
    CHECK(bench_login_secret(b, "acme", "stale", wrong[0], NULL) == DG_ERR_BAD_CREDENTIALS);
}

void logins_check_stale(struct bench *b) {
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'stale', 1 from tenant where name = 'acme'");
    logins_add_key(b, "stale", "first", "first-secret-of-the-stale-000001", NULL);
    check_unheard(b);
    check_rate(b);
    check_down(b);
}
