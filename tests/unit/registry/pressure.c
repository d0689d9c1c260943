#include "tests/unit/registry/pressure.h"

#include <libpq-fe.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/clock.h"

enum { ACCOUNT_SLOW = 7, ACCOUNT_OTHER = 8, TOTAL_MS = BENCH_TIMEOUT_MS * 5 / 4 };

/* Statements that read the table wait for as long as this connection is open. */
static PGconn *lock_table(struct bench *b, const char *table) {
    char sql[128];
    PGconn *holder = PQconnectdb(b->conninfo);
    snprintf(sql, sizeof(sql), "begin; lock table %s in access exclusive mode", table);
    PGresult *result = PQexec(holder, sql);
    CHECK(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQerrorMessage(holder));
    PQclear(result);
    return holder;
}

/* ---- many at once ---- */

enum { OUTCOMES = 64 };

/* How often each error came back, by -err, and when the last one did. */
static struct outcomes {
    unsigned count, by_error[OUTCOMES];
    uint64_t last_ms;
} outcomes;

static void count_outcome(int err) {
    outcomes.count++;
    outcomes.by_error[-err % OUTCOMES]++;
    outcomes.last_ms = clock_monotonic_ms();
}

static unsigned outcome(int err) {
    return outcomes.by_error[-err % OUTCOMES];
}

static void deliver_login(struct mail *mail, void *receiver) {
    struct registry_login *login = (struct registry_login *)(void *)mail;
    count_outcome(login->err);
    registry_login_free(login);
}

static void deliver_request(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    count_outcome(request->err);
    registry_request_free(request);
}

static void send_logins(struct bench *b, const char *prefix, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        struct registry_login *login = registry_login_new(
            REGISTRY_LOGIN_DEVICE_SECRET, slice_from_string("acme"), slice_from_string(name),
            slice_from_string("a-secret-of-the-form-that-is-generated-00000"));
        dg_assert(login);
        login->mail.deliver = deliver_login;
        login->reply_to = &b->mailbox;
        registry_login(b->registry, login);
    }
}

static void send_requests(struct bench *b, int64_t account, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct registry_request *request = registry_request_new(STATEMENT_AUTHORITY_GET);
        dg_assert(request && registry_request_add(request, slice_from_string("acme")) == 0 &&
                  registry_request_add(request, slice_from_string("none")) == 0);
        request->mail.deliver = deliver_request;
        request->reply_to = &b->mailbox;
        request->account = account;
        registry_execute(b->registry, request);
    }
}

static void wait_outcomes(struct bench *b, unsigned count, unsigned ms) {
    for (uint64_t until_ms = clock_monotonic_ms() + ms;
         outcomes.count < count && clock_monotonic_ms() < until_ms;)
        bench_run(b, 5);
    CHECK(outcomes.count == count, "%u of %u came back", outcomes.count, count);
}

static bool is_up(struct bench *b) {
    const char *why;
    return registry_is_up(b->registry, &why);
}

/* ---- checks ---- */

/* A line of look-ups that each take nearly as long as one may: the connection is not at fault. */
void pressure_check_slow_logins(struct bench *b) {
    enum { COUNT = 300 };
    outcomes = (struct outcomes){0};
    PGconn *holder = lock_table(b, "device");
    uint64_t start_ms = clock_monotonic_ms();
    send_logins(b, "slow", COUNT);
    wait_outcomes(b, COUNT, 5000);
    uint64_t took_ms = outcomes.last_ms - start_ms;
    CHECK(took_ms < TOTAL_MS + 200, "%d ms", (int)took_ms);
    CHECK(outcome(DG_ERR_UNAVAILABLE) + outcome(DG_ERR_BUSY) == COUNT);
    CHECK(outcome(DG_ERR_BUSY) > 0, "what was never sent says so");
    bench_run(b, 2 * BENCH_TIMEOUT_MS);
    CHECK(is_up(b), "one slow statement after the other is not a dead server");
    PQfinish(holder);
    outcomes = (struct outcomes){0};
    send_logins(b, "quick", 10);
    wait_outcomes(b, 10, 60 * BENCH_TIMEOUT_MS);
    CHECK(outcome(DG_ERR_BAD_CREDENTIALS) > 0 || outcome(DG_ERR_UNAVAILABLE) > 0);
    CHECK(is_up(b));
}

/* Slow requests of one account leave room for another's, and do not cost a connection. */
void pressure_check_slow_requests(struct bench *b) {
    enum { COUNT = LIMIT_REGISTRY_ACCOUNT_REQUESTS + 9 };
    outcomes = (struct outcomes){0};
    PGconn *holder = lock_table(b, "certificate_authority");
    uint64_t start_ms = clock_monotonic_ms();
    send_requests(b, ACCOUNT_SLOW, COUNT);
    bench_run(b, 50);
    CHECK(outcome(DG_ERR_LIMIT) == 9, "%u", outcome(DG_ERR_LIMIT));
    for (unsigned i = 0; i < 20; i++) {
        uint64_t asked_ms = clock_monotonic_ms();
        struct registry_request *r =
            bench_execute_as(b, ACCOUNT_OTHER, STATEMENT_TENANT_GET, "acme", BENCH_END);
        CHECK(r->err == 0, "%s", dg_err_text(r->err));
        CHECK(clock_monotonic_ms() - asked_ms < 200, "another account does not wait");
        registry_request_free(r);
        bench_run(b, 20);
    }
    wait_outcomes(b, COUNT, 5000);
    CHECK(outcomes.last_ms - start_ms < TOTAL_MS + 200);
    CHECK(outcome(DG_ERR_TIMEOUT) >= 2 && outcome(DG_ERR_UNAVAILABLE) == 0, "%u timed out, %u lost",
          outcome(DG_ERR_TIMEOUT), outcome(DG_ERR_UNAVAILABLE));
    PQfinish(holder);
    bench_run(b, 100);
    outcomes = (struct outcomes){0};
    send_requests(b, ACCOUNT_SLOW, LIMIT_REGISTRY_ACCOUNT_REQUESTS);
    wait_outcomes(b, LIMIT_REGISTRY_ACCOUNT_REQUESTS, 5000);
    CHECK(outcome(0) == LIMIT_REGISTRY_ACCOUNT_REQUESTS, "all counts are back to nothing");
    outcomes = (struct outcomes){0};
    for (int64_t account = 100; account < 130; account++)
        send_requests(b, account, LIMIT_REGISTRY_ACCOUNT_REQUESTS);
    wait_outcomes(b, 30 * LIMIT_REGISTRY_ACCOUNT_REQUESTS, 5000);
    CHECK(outcome(0) + outcome(DG_ERR_BUSY) == outcomes.count &&
              outcome(0) >= LIMIT_REGISTRY_REQUESTS,
          "%u ended well", outcome(0));
}

/* However the statements were spread over the connections, an answer comes in time. */
void pressure_check_frozen_requests(struct bench *b) {
    outcomes = (struct outcomes){0};
    bench_signal(b, SIGSTOP);
    uint64_t start_ms = clock_monotonic_ms();
    send_requests(b, ACCOUNT_SLOW, LIMIT_REGISTRY_ACCOUNT_REQUESTS);
    send_requests(b, ACCOUNT_OTHER, LIMIT_REGISTRY_ACCOUNT_REQUESTS);
    wait_outcomes(b, 2 * LIMIT_REGISTRY_ACCOUNT_REQUESTS, 5000);
    uint64_t took_ms = outcomes.last_ms - start_ms;
    CHECK(took_ms < TOTAL_MS + 200, "%d ms", (int)took_ms);
    CHECK(outcome(0) == 0);
    bench_signal(b, SIGCONT);
    CHECK(bench_wait_up(b, true, 15000));
    for (unsigned i = 0; i < 100; i++) {
        struct registry_request *r =
            bench_execute_as(b, ACCOUNT_OTHER, STATEMENT_TENANT_GET, "acme", BENCH_END);
        int err = r->err;
        registry_request_free(r);
        if (err == 0)
            return;
        bench_run(b, 100);
    }
    CHECK(false, "requests find the server again");
}

/* A new deadline holds without a restart, in PostgreSQL too. */
void pressure_check_timeout(struct bench *b) {
    struct registry_request *r;
    PGconn *holder = lock_table(b, "certificate_authority");
    CHECK(registry_reconfigure(b->registry, 4 * BENCH_TIMEOUT_MS) == 0);
    uint64_t start_ms = clock_monotonic_ms();
    r = bench_execute(b, STATEMENT_AUTHORITY_GET, "acme", "none", BENCH_END);
    uint64_t took_ms = clock_monotonic_ms() - start_ms;
    CHECK(r->err == DG_ERR_TIMEOUT && took_ms > 3 * BENCH_TIMEOUT_MS, "%s after %d ms",
          dg_err_text(r->err), (int)took_ms);
    registry_request_free(r);
    CHECK(registry_reconfigure(b->registry, BENCH_TIMEOUT_MS) == 0);
    start_ms = clock_monotonic_ms();
    r = bench_execute(b, STATEMENT_AUTHORITY_GET, "acme", "none", BENCH_END);
    took_ms = clock_monotonic_ms() - start_ms;
    CHECK(r->err == DG_ERR_TIMEOUT && took_ms < BENCH_TIMEOUT_MS, "%s after %d ms",
          dg_err_text(r->err), (int)took_ms);
    registry_request_free(r);
    PQfinish(holder);
    CHECK(is_up(b));
}
