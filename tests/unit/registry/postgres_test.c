/*
 * The registry against a PostgreSQL of its own: postgres_test PATH-OF-tests/postgres [PARTS]. A
 * plain program: threads, a server and signals do not go well with a process per test.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/unit/registry/children.h"
#include "tests/unit/registry/ends.h"
#include "tests/unit/registry/logins.h"
#include "tests/unit/registry/policies.h"
#include "tests/unit/registry/pressure.h"
#include "tests/unit/registry/schema.h"

static void add_population(struct bench *b) {
    bench_sql(b->conninfo, "insert into tenant (name, enabled) values ('acme', true),"
                           " ('beta', true), ('shut', false)");
    bench_sql(b->conninfo,
              "insert into device (tenant_key, device_id, partition, enabled)"
              " select tenant_key, d.id, 3, d.id <> 'off' from tenant t join (values"
              " ('acme', 'keyed'), ('acme', 'off'), ('acme', 'token'), ('acme', 'hub'), ('acme', "
              "'human'), ('acme', "
              "'honest'),"
              " ('acme', 'pinned'), ('acme', 'signed'), ('beta', 'signed'), ('acme', 'frozen'),"
              " ('acme', 'rotated'), ('acme', 'gone'), ('shut', 'inside')) d (tenant, id)"
              " on t.name = d.tenant");
    logins_add_key(b, "inside", "key", "inside-secret", NULL);
}

static int64_t key_of(struct bench *b, const char *device) {
    return atoll(
        bench_sql(b->conninfo, "select device_key from device where device_id = '%s'", device));
}

static bool is_kept(const struct registry_revocation *revocation, long long credential_key) {
    for (unsigned i = 0; revocation && i < revocation->kept_count; i++)
        if (revocation->kept[i] == credential_key)
            return true;
    return false;
}

static void check_revocations(struct bench *b) {
    long long old = logins_add_key(b, "rotated", "old", "old-secret", NULL);
    long long fresh = logins_add_key(b, "rotated", "new", "new-secret", NULL);
    int64_t device_key = key_of(b, "rotated");
    const struct registry_revocation *told;
    CHECK(bench_login_secret(b, "acme", "rotated", "old-secret", NULL) == 0);
    CHECK(bench_login_secret(b, "acme", "rotated", "new-secret", NULL) == 0);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "delete from credential where credential_key = %lld", old);
    told = bench_wait_revocation(b, device_key, 0);
    CHECK(told && !is_kept(told, old) && is_kept(told, fresh) && told->tenant_key != 0);
    CHECK(bench_login_secret(b, "acme", "rotated", "old-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_secret(b, "acme", "rotated", "new-secret", NULL) == 0);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "update device set enabled = false where device_key = %lld",
              (long long)device_key);
    told = bench_wait_revocation(b, device_key, 0);
    CHECK(told && told->kept_count == 0 && told->err == DG_ERR_DISABLED);
    CHECK(bench_login_secret(b, "acme", "rotated", "new-secret", NULL) == DG_ERR_DISABLED);
    logins_add_key(b, "gone", "key", "gone-secret", NULL);
    CHECK(bench_login_secret(b, "acme", "gone", "gone-secret", NULL) == 0);
    device_key = key_of(b, "gone");
    b->revocation_count = 0;
    bench_sql(b->conninfo, "delete from device where device_id = 'gone'");
    told = bench_wait_revocation(b, device_key, 0);
    CHECK(told && told->kept_count == 0 && told->tenant_key != 0);
    CHECK(bench_login_secret(b, "acme", "gone", "gone-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
    /* Made a moment after it was asked for in vain. */
    CHECK(bench_login_secret(b, "acme", "sudden", "sudden-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition)"
                           " select tenant_key, 'sudden', 1 from tenant where name = 'acme'");
    logins_add_key(b, "sudden", "key", "sudden-secret", NULL);
    bench_run(b, 200);
    CHECK(bench_login_secret(b, "acme", "sudden", "sudden-secret", NULL) == 0);
}

static void check_tenant_end(struct bench *b) {
    long long key = logins_add_key(b, "signed", "key", "signed-secret", NULL);
    bench_run(b, 100);
    CHECK(key > 0 && bench_login_secret(b, "beta", "signed", "signed-secret", NULL) == 0);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "update tenant set enabled = false where name = 'beta'");
    const struct registry_revocation *told = bench_wait_revocation(b, 0, 0);
    CHECK(told && told->err == DG_ERR_DISABLED && told->tenant_key != 0);
    CHECK(bench_login_secret(b, "beta", "signed", "signed-secret", NULL) == DG_ERR_DISABLED);
    bench_sql(b->conninfo, "delete from tenant where name = 'beta'");
    bench_run(b, 300);
    CHECK(bench_login_secret(b, "beta", "signed", "signed-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
}

static void check_requests(struct bench *b) {
    struct registry_request *r = bench_execute(b, STATEMENT_TENANT_GET, "acme", BENCH_END);
    CHECK(r->err == 0 && r->row_count == 1 && r->column_count == 3);
    CHECK(r->row_count == 1 && strstr(registry_value(r, 0, 2), "acme"));
    registry_request_free(r);
    r = bench_execute(b, STATEMENT_TENANT_GET, "none", BENCH_END);
    CHECK(r->err == 0 && r->row_count == 0);
    registry_request_free(r);
    r = bench_execute(b, STATEMENT_TENANT_PUT, "No Name", NULL, "true", "{}", "{}", "{}", NULL,
                      BENCH_END);
    CHECK(r->err == DG_ERR_INVALID && r->detail, "%s", dg_err_text(r->err));
    registry_request_free(r);
    r = bench_execute(b, STATEMENT_TENANT_PUT, "gamma", "many", "true", "{}", "{}", "{}", NULL,
                      BENCH_END);
    CHECK(r->err == DG_ERR_INVALID && r->detail, "%s", dg_err_text(r->err));
    registry_request_free(r);
}

struct tenants_answer {
    bool done;
};

static void deliver_tenants(struct mail *mail, void *receiver) {
    struct registry_tenant_query *query = (struct registry_tenant_query *)(void *)mail;
    ((struct tenants_answer *)(uintptr_t)query->owner)->done = true;
}

static int count_tenants(struct bench *b, const char *name) {
    struct registry_tenant_query *query = calloc(1, sizeof(*query));
    struct tenants_answer answer = {false};
    query->mail.deliver = deliver_tenants;
    query->reply_to = &b->mailbox;
    query->owner = (uintptr_t)&answer;
    snprintf(query->tenant, sizeof(query->tenant), "%s", name);
    registry_find_tenants(b->registry, query);
    bench_wait(b, &answer.done, 5000);
    CHECK(answer.done);
    int count = query->err < 0 ? query->err : (int)query->tenant_count;
    CHECK(count <= 0 ||
          (query->tenants[0].stream_id > 0 && query->tenants[0].partition_count == 16));
    registry_tenant_query_free(query);
    return count;
}

static void check_tenants(struct bench *b) {
    CHECK(count_tenants(b, "acme") == 1);
    CHECK(count_tenants(b, "none") == 0);
    CHECK(count_tenants(b, "") == 3);
}

/* A server that stands still, but whose connections stay open. */
static void check_frozen(struct bench *b) {
    struct test_certificate ca = test_certificate_make("Frozen CA", true, 7200, NULL);
    struct test_certificate leaf = test_certificate_make("frozen", false, 3600, &ca);
    logins_add_authority(b, "acme", "frozen", &ca);
    logins_add_key(b, "frozen", "key", "frozen-secret", NULL);
    bench_run(b, 200);
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == 0);
    CHECK(logins_try_certificate(b, "", "", &leaf, NULL, NULL) == 0);
    bench_signal(b, SIGSTOP);
    uint64_t start_ms = clock_monotonic_ms();
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == 0);
    CHECK(clock_monotonic_ms() - start_ms < 300, "what is known does not wait");
    for (unsigned i = 0; i < 3; i++)
        CHECK(bench_login_secret(b, "acme", "frozen", "wrong-secret-for-the-frozen-0001", NULL) ==
                  DG_ERR_UNAVAILABLE,
              "%u", i);
    CHECK(bench_login_secret(b, "acme", "stranger", "x", NULL) == DG_ERR_UNAVAILABLE);
    uint64_t took_ms = clock_monotonic_ms() - start_ms;
    CHECK(took_ms < 4 * BENCH_TIMEOUT_MS, "%d ms", (int)took_ms);
    CHECK(bench_wait_up(b, false, 5000));
    start_ms = clock_monotonic_ms();
    CHECK(bench_login_secret(b, "acme", "stranger", "x", NULL) == DG_ERR_UNAVAILABLE);
    struct registry_request *r = bench_execute(b, STATEMENT_TENANT_GET, "acme", BENCH_END);
    CHECK(r->err == DG_ERR_UNAVAILABLE);
    registry_request_free(r);
    CHECK(clock_monotonic_ms() - start_ms < 200, "known to be down: an answer at once");
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == 0);
    CHECK(logins_try_certificate(b, "", "", &leaf, NULL, NULL) == 0);
    CHECK(count_tenants(b, "acme") == 1);
    bench_signal(b, SIGCONT);
    CHECK(bench_wait_up(b, true, 15000));
    CHECK(bench_login_secret(b, "acme", "stranger", "stranger-0000000000000000-secret", NULL) ==
          DG_ERR_BAD_CREDENTIALS);
    test_certificate_free(&ca);
    test_certificate_free(&leaf);
}

/* Moves the server's socket, so that we may change something before the registry is back. */
static void move_socket(struct bench *b, const char *from, const char *to) {
    char command[256];
    snprintf(command, sizeof(command), "cd '%s' && mkdir -p aside && mv '%s/.s.PGSQL.5432' '%s/'",
             b->directory, from, to);
    CHECK(system(command) == 0);
}

/* Starts the server out of the registry's reach. A registry that was quick enough to connect before
 * the socket moved has to lose the server once more. */
static void start_aside(struct bench *b) {
    enum { SETTLE_MS = 300, TRIES = 20 };
    for (unsigned i = 0; i < TRIES; i++) {
        bench_server(b, "start");
        move_socket(b, ".", "aside");
        if (!bench_wait_up(b, true, SETTLE_MS))
            return;
        move_socket(b, "aside", ".");
        bench_server(b, "stop");
        CHECK(bench_wait_up(b, false, 5000));
    }
    CHECK(false, "the registry connects faster than the socket moves");
}

static void check_restart(struct bench *b) {
    char conninfo[200];
    int64_t device_key = key_of(b, "frozen");
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == 0);
    bench_server(b, "stop");
    CHECK(bench_wait_up(b, false, 5000));
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == 0);
    b->revocation_count = 0;
    start_aside(b);
    snprintf(conninfo, sizeof(conninfo), "host=%s/aside dbname=postgres user=postgres",
             b->directory);
    bench_sql(conninfo, "delete from credential c using device d where d.device_key = c.device_key"
                        " and d.device_id = 'frozen'");
    move_socket(b, "aside", ".");
    CHECK(bench_wait_up(b, true, 15000));
    const struct registry_revocation *told = bench_wait_revocation(b, device_key, 0);
    CHECK(told, "what changed meanwhile is found");
    CHECK(bench_login_secret(b, "acme", "frozen", "frozen-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
    /* Rows that were trimmed before we came back: everything is read again. */
    CHECK(bench_login_secret(b, "acme", "keyed", "dated-secret", NULL) == 0);
    device_key = key_of(b, "keyed");
    bench_server(b, "stop");
    CHECK(bench_wait_up(b, false, 5000));
    unsigned missed = b->missed_count;
    b->revocation_count = 0;
    start_aside(b);
    bench_sql(conninfo, "delete from credential where name = 'dated';"
                        "delete from registry_change;"
                        "update device set tags = '{}' where device_id = 'off';"
                        "update device set tags = '{}' where device_id = 'off'");
    move_socket(b, "aside", ".");
    CHECK(bench_wait_up(b, true, 15000));
    CHECK(bench_wait_revocation(b, device_key, 0));
    CHECK(b->missed_count > missed);
    CHECK(bench_login_secret(b, "acme", "keyed", "dated-secret", NULL) == DG_ERR_BAD_CREDENTIALS);
}

static void deliver_counted(struct mail *mail, void *receiver) {
    struct bench *b = receiver;
    b->answers++;
    registry_login_free((struct registry_login *)(void *)mail);
}

static void send_strangers(struct bench *b, const char *prefix, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s-%u", prefix, i);
        struct registry_login *login =
            registry_login_new(REGISTRY_LOGIN_DEVICE_SECRET, slice_from_string("acme"),
                               slice_from_string(name), slice_from_string(i % 50 ? "k" : "kk"));
        login->mail.deliver = deliver_counted;
        login->reply_to = &b->mailbox;
        registry_login(b->registry, login);
    }
}

/* Strangers who log in faster than PostgreSQL can look them up cannot keep a revocation out. */
static void check_flood(struct bench *b) {
    enum { DEVICES = 50, ROUND = 10000 };
    char name[32], secret[40];
    bench_sql(b->conninfo,
              "insert into device (tenant_key, device_id, partition) select tenant_key,"
              " 'wet' || i, 1 from tenant, generate_series(0, %d) i where name = 'acme'",
              DEVICES - 1);
    for (unsigned i = 0; i < DEVICES; i++) {
        snprintf(name, sizeof(name), "wet%u", i);
        snprintf(secret, sizeof(secret), "secret-of-wet-%018u", i);
        logins_add_key(b, name, "key", secret, NULL);
        CHECK(bench_login_secret(b, "acme", name, secret, NULL) == 0);
    }
    b->answers = 0;
    for (unsigned i = 0; i < DEVICES; i++) {
        snprintf(name, sizeof(name), "flood-%u", i);
        send_strangers(b, name, ROUND);
        bench_run(b, 20); /* the look-ups are under way: as many as there may be */
        bench_sql(b->conninfo,
                  "delete from credential c using device d where d.device_key = c.device_key"
                  " and d.device_id = 'wet%u'",
                  i);
    }
    for (unsigned i = 0; i < 600 && b->answers < DEVICES * ROUND; i++)
        bench_run(b, 100);
    CHECK(b->answers == DEVICES * ROUND, "%u came back", b->answers);
    bench_run(b, 1500); /* what failed meanwhile is tried again every second */
    for (unsigned i = 0; i < DEVICES; i++) {
        snprintf(name, sizeof(name), "wet%u", i);
        snprintf(secret, sizeof(secret), "secret-of-wet-%018u", i);
        int err = bench_login_secret(b, "acme", name, secret, NULL);
        CHECK(err == DG_ERR_BAD_CREDENTIALS, "%s: %s", name, dg_err_text(err));
    }
}

/* Every login comes back, also those that are out when the registry ends. */
static void check_close(struct bench *b) {
    enum { COUNT = 2000 };
    b->answers = 0;
    send_strangers(b, "device", COUNT);
    registry_close(b->registry);
    mailbox_drain(&b->mailbox);
    CHECK(b->answers == COUNT, "%u came back", b->answers);
}

/* A login that comes before the first connection stands waits for it. */
static void check_start(struct bench *b) {
    bench_open(b);
    CHECK(bench_login_secret(b, "acme", "keyed", "first-secret-of-the-device-00001", NULL) == 0);
    registry_close(b->registry);
}

/* Started while there is no server at all. */
static void check_start_without_server(struct bench *b) {
    bench_server(b, "stop");
    bench_open(b);
    CHECK(bench_login_secret(b, "acme", "keyed", "x", NULL) == DG_ERR_UNAVAILABLE);
    bench_server(b, "start");
    CHECK(bench_wait_up(b, true, 15000));
    CHECK(bench_login_secret(b, "acme", "keyed", "first-secret-of-the-device-00001", NULL) == 0);
    registry_close(b->registry);
}

/* A registry older than the stream: numbers that the stream has data under are not given out. */
static void check_floor(struct bench *b) {
    static const int64_t floors[] = {700, 3}; /* the second one is no reason to go back */
    bench_sql(b->conninfo, "select setval('tenant_tenant_key_seq', 1, false)");
    for (unsigned i = 0; i < 2; i++) {
        struct registry_floor floor = {
            .stream_id = floors[i], .tenant_key = 1, .device_key = 9000000 * (1 - (int)i)};
        bench_open(b);
        if (i == 0) /* connections that stand already begin anew */
            CHECK(bench_wait_up(b, true, 5000));
        registry_set_floor(b->registry, &floor);
        bench_run(b, 50);
        CHECK(bench_wait_up(b, true, 5000));
        registry_close(b->registry);
        long long id = atoll(bench_sql(b->conninfo, "select nextval('stream_id_seq')"));
        CHECK(id == 701 + i, "%lld", id);
        id = atoll(bench_sql(b->conninfo, "select nextval('tenant_tenant_key_seq')"));
        CHECK(id == 2 + i, "%lld", id);
        id = atoll(bench_sql(b->conninfo, "select nextval('device_device_key_seq')"));
        CHECK(id == 9000001 + i, "%lld", id);
    }
}

int main(int argc, char **argv) {
    static struct bench b;
    if (argc < 2)
        return 64;
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    bench_start(&b, argv[1]);
    schema_check_migrations(&b);
    schema_check_fit(&b);
    add_population(&b);
    bench_open(&b);
    CHECK(bench_wait_up(&b, true, 5000));
    static const struct {
        const char *name;
        void (*check)(struct bench *b);
    } parts[] = {
        {"keys", logins_check_keys},
        {"tokens", logins_check_tokens},
        {"IoT Hub tokens", logins_check_hub_tokens},
        {"passwords", logins_check_passwords},
        {"a flood of passwords", logins_check_password_flood},
        {"pinned certificates", logins_check_pinned},
        {"authorities", logins_check_authorities},
        {"principals", logins_check_principals},
        {"access policies", logins_check_policies},
        {"old principals", logins_check_old_principals},
        {"another master key", logins_check_foreign},
        {"requests", check_requests},
        {"proofs of authorities", authorities_check_proofs},
        {"authorities of the same name", authorities_check_crowd},
        {"tenants", check_tenants},
        {"revocations", check_revocations},
        {"policies", policies_check},
        {"devices behind gateways", children_check},
        {"the end of a tenant", check_tenant_end},
        {"an outdated cache", logins_check_stale},
        {"a big tenant ends", ends_check_big_tenant},
        {"a tenant ends over a restart", ends_check_restart},
        {"versions", ends_check_versions},
        {"scope", ends_check_scope},
        {"slow logins", pressure_check_slow_logins},
        {"slow requests", pressure_check_slow_requests},
        {"requests to a frozen server", pressure_check_frozen_requests},
        {"another deadline", pressure_check_timeout},
        {"a frozen server", check_frozen},
        {"a restarted server", check_restart},
        {"a flood of strangers", check_flood},
        {"close", check_close},
        {"start", check_start},
        {"start without a server", check_start_without_server},
        {"numbers that the stream has", check_floor},
    };
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (argc > 2 && !strstr(argv[2], parts[i].name))
            continue;
        unsigned failures = check_failures;
        uint64_t start_ms = clock_monotonic_ms();
        parts[i].check(&b);
        printf("%s %s (%d ms)\n", check_failures == failures ? "ok    " : "FAILED", parts[i].name,
               (int)(clock_monotonic_ms() - start_ms));
        fflush(stdout);
    }
    bench_stop(&b);
    return check_failures == 0 ? 0 : 1;
}
