/*
 * What the tests against a PostgreSQL of their own share: the server, SQL behind the gateway's
 * back, and a caller that asks the registry and waits for the answer. One thread, like a worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "registry/credential.h"
#include "registry/registry.h"

enum { BENCH_TIMEOUT_MS = 500, BENCH_REVOCATIONS_MAX = 256 };

struct bench {
    const char *script; /* tests/postgres */
    char directory[64];
    char conninfo[160];
    char master_file[96];
    struct credential_master master;
    struct registry *registry;
    struct mailbox mailbox;
    uint8_t peer[16]; /* where logins come from; zero: each from an address of its own */
    uint32_t peer_count;
    const char *host;         /* of logins: IoT Hub's; NULL: none */
    int64_t scope_tenant_key; /* of the requests made; 0: the platform's */
    unsigned answers;         /* logins and requests that came back */
    unsigned revocation_count;
    struct registry_revocation revocations[BENCH_REVOCATIONS_MAX];
    unsigned update_count, missed_count;
    struct registry_quota quota; /* of the tenant whose policy changed last */
    char group[LIMIT_GROUP_NAME_BYTES + 1];
};

extern unsigned check_failures;
#define CHECK(condition, ...)                                                       \
    do {                                                                            \
        if (!(condition)) {                                                         \
            check_failures++;                                                       \
            fprintf(stderr, "%s:%d: not so: %s; ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, " " __VA_ARGS__);                                       \
            fputc('\n', stderr);                                                    \
        }                                                                           \
    } while (0)

void bench_start(struct bench *b, const char *script);
void bench_stop(struct bench *b);
void bench_open(struct bench *b);
void bench_server(struct bench *b, const char *action); /* start or stop */
/* SIGSTOP or SIGCONT to the server and each of its processes. */
void bench_signal(struct bench *b, int signal_number);
/* Waits until registry_is_up() says so; false after the time. */
bool bench_wait_up(struct bench *b, bool up, unsigned ms);

/* Runs SQL of printf's form on a connection of its own; the first value as text (static), or "". */
const char *bench_sql(const char *conninfo, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Asks and waits; ret_identity may be NULL. */
int bench_login(struct bench *b, enum registry_login_kind kind, const char *tenant,
                const char *name, struct slice secret, size_t leaf_size,
                struct registry_identity *ret_identity);
int bench_login_scram(struct bench *b, const char *name, const char *secret,
                      struct registry_identity *ret_identity);
int bench_login_secret(struct bench *b, const char *tenant, const char *name, const char *secret,
                       struct registry_identity *ret_identity);
/* Parameters are strings, ended by BENCH_END; NULL is SQL NULL. Frees with registry_request_free.
 */
#define BENCH_END ((const char *)-1)
struct registry_request *bench_execute(struct bench *b, enum registry_statement statement, ...);
struct registry_request *bench_execute_as(struct bench *b, int64_t account,
                                          enum registry_statement statement, ...);
/* Delivers what comes in for this long. */
void bench_run(struct bench *b, unsigned ms);
/* Waits up to a second for a revocation of this device or, else, credential; NULL when none came.
 */
const struct registry_revocation *bench_wait_revocation(struct bench *b, int64_t device_key,
                                                        int64_t credential_key);
/* Waits until *flag is true, at most ms. */
void bench_wait(struct bench *b, const bool *flag, unsigned ms);
