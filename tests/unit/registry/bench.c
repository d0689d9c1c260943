#include "tests/unit/registry/bench.h"

#include <libpq-fe.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/clock.h"
#include "registry/migrate.h"

unsigned check_failures;

void bench_server(struct bench *b, const char *action) {
    char command[512];
    snprintf(command, sizeof(command), "'%s' %s '%s' >/dev/null", b->script, action, b->directory);
    dg_assert(system(command) == 0);
}

static void make_master(struct bench *b) {
    static const char text[] = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    char error[REGISTRY_ERROR_SIZE];
    snprintf(b->master_file, sizeof(b->master_file), "%s/master", b->directory);
    FILE *file = fopen(b->master_file, "w");
    dg_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
    dg_assert(chmod(b->master_file, 0600) == 0);
    dg_assert(credential_master_load(b->master_file, &b->master, error) == 0);
}

void bench_start(struct bench *b, const char *script) {
    *b = (struct bench){.script = script};
    snprintf(b->directory, sizeof(b->directory), "/tmp/duragate-registry-XXXXXX");
    dg_assert(mkdtemp(b->directory));
    snprintf(b->conninfo, sizeof(b->conninfo), "host=%s dbname=postgres user=postgres",
             b->directory);
    make_master(b);
    bench_server(b, "start");
    dg_assert(mailbox_init(&b->mailbox, b) == 0);
}

void bench_stop(struct bench *b) {
    bench_server(b, "stop");
    mailbox_free(&b->mailbox);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", b->directory);
    dg_assert(system(command) == 0);
}

static void deliver_revocation(struct mail *mail, void *receiver) {
    struct bench *b = receiver;
    struct registry_revocation *revocation = (struct registry_revocation *)(void *)mail;
    if (b->revocation_count < BENCH_REVOCATIONS_MAX)
        b->revocations[b->revocation_count++] = *revocation;
    free(revocation);
}

/* The last one of each kind is kept. */
static void deliver_update(struct mail *mail, void *receiver) {
    struct bench *b = receiver;
    struct registry_update *update = (struct registry_update *)(void *)mail;
    if (update->tenant_key == 0)
        b->missed_count++;
    else if (update->device_key != 0)
        memcpy(b->group, update->group, sizeof(b->group));
    else
        b->quota = update->policy->quota;
    b->update_count += update->tenant_key != 0;
    registry_update_free(update);
}

void bench_open(struct bench *b) {
    struct registry_options options = {
        .conninfo = b->conninfo,
        .password = "",
        .query_timeout_ms = BENCH_TIMEOUT_MS,
        .cache_devices_max = 1000,
        .master_key_file = b->master_file,
    };
    char error[REGISTRY_ERROR_SIZE] = "";
    int err = registry_open(&options, &b->registry, error);
    CHECK(err == 0, "%s", error);
    CHECK(registry_listen(b->registry, &b->mailbox,
                          &(struct registry_receiver){.revoked = deliver_revocation,
                                                      .updated = deliver_update}) == 0);
}

static pid_t read_postmaster(const struct bench *b) {
    char path[128];
    int pid = 0;
    snprintf(path, sizeof(path), "%s/data/postmaster.pid", b->directory);
    FILE *file = fopen(path, "r");
    dg_assert(file && fscanf(file, "%d", &pid) == 1 && pid > 1);
    fclose(file);
    return pid;
}

void bench_signal(struct bench *b, int signal_number) {
    pid_t postmaster = read_postmaster(b);
    char path[64];
    int child;
    kill(postmaster, signal_number); /* first: it starts no more children */
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", postmaster, postmaster);
    FILE *file = fopen(path, "r");
    dg_assert(file);
    while (fscanf(file, "%d", &child) == 1)
        kill(child, signal_number);
    fclose(file);
}

const char *bench_sql(const char *conninfo, const char *format, ...) {
    static char value[256];
    char sql[8192];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    dg_assert(size < (int)sizeof(sql));
    PGconn *connection = PQconnectdb(conninfo);
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    CHECK(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, "%s: %s", sql,
          PQerrorMessage(connection));
    snprintf(value, sizeof(value), "%s",
             status == PGRES_TUPLES_OK && PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    PQfinish(connection);
    return value;
}

/* ---- waiting ---- */

static bool step(struct bench *b, uint64_t until_ms) {
    uint64_t now_ms = clock_monotonic_ms();
    struct pollfd fd = {.fd = mailbox_fd(&b->mailbox), .events = POLLIN};
    if (now_ms < until_ms)
        poll(&fd, 1, (int)(until_ms - now_ms));
    mailbox_drain(&b->mailbox);
    return clock_monotonic_ms() < until_ms;
}

void bench_wait(struct bench *b, const bool *flag, unsigned ms) {
    uint64_t until_ms = clock_monotonic_ms() + ms;
    while (!*flag && step(b, until_ms))
        ;
}

void bench_run(struct bench *b, unsigned ms) {
    static const bool never;
    bench_wait(b, &never, ms);
}

bool bench_wait_up(struct bench *b, bool up, unsigned ms) {
    const char *why;
    uint64_t until_ms = clock_monotonic_ms() + ms;
    while (registry_is_up(b->registry, &why) != up)
        if (clock_monotonic_ms() >= until_ms)
            return false;
        else
            usleep(2000);
    return true;
}

static const struct registry_revocation *find_revocation(const struct bench *b, int64_t device_key,
                                                         int64_t credential_key) {
    for (unsigned i = 0; i < b->revocation_count; i++)
        if (b->revocations[i].device_key == device_key &&
            b->revocations[i].credential_key == credential_key)
            return &b->revocations[i];
    return NULL;
}

const struct registry_revocation *bench_wait_revocation(struct bench *b, int64_t device_key,
                                                        int64_t credential_key) {
    uint64_t until_ms = clock_monotonic_ms() + 1000;
    const struct registry_revocation *found;
    while (!(found = find_revocation(b, device_key, credential_key)) && step(b, until_ms))
        ;
    return found;
}

/* ---- asking ---- */

struct answer {
    bool done;
    int err;
    struct registry_identity identity;
    struct registry_request *request;
};

static void deliver_login(struct mail *mail, void *receiver) {
    struct bench *b = receiver;
    struct registry_login *login = (struct registry_login *)(void *)mail;
    struct answer *answer = (struct answer *)(uintptr_t)login->owner;
    b->answers++;
    if (answer) {
        answer->done = true;
        answer->err = login->err;
        answer->identity = login->identity;
        answer->identity.policy = NULL; /* goes with the login */
        if (login->identity.policy)
            b->quota = login->identity.policy->quota;
    }
    registry_login_free(login);
}

static void choose_peer(struct bench *b, uint8_t *ret_address) {
    static const uint8_t none[16];
    memcpy(ret_address, b->peer, sizeof(b->peer));
    if (memcmp(b->peer, none, sizeof(none)) == 0)
        memcpy(ret_address, &(uint32_t){++b->peer_count}, sizeof(uint32_t));
}

static int run_login(struct bench *b, struct registry_login *login,
                     struct registry_identity *ret_identity) {
    struct answer answer = {0};
    login->mail.deliver = deliver_login;
    login->reply_to = &b->mailbox;
    login->owner = (uintptr_t)&answer;
    choose_peer(b, login->peer_address);
    if (b->host)
        strcpy(login->host, b->host);
    registry_login(b->registry, login);
    bench_wait(b, &answer.done, 20000);
    dg_assert(answer.done);
    if (ret_identity)
        *ret_identity = answer.identity;
    return answer.err;
}

int bench_login(struct bench *b, enum registry_login_kind kind, const char *tenant,
                const char *name, struct slice secret, size_t leaf_size,
                struct registry_identity *ret_identity) {
    struct registry_login *login =
        registry_login_new(kind, slice_from_string(tenant), slice_from_string(name), secret);
    dg_assert(login);
    login->leaf_size_bytes = leaf_size;
    return run_login(b, login, ret_identity);
}

/* The client's side of SCRAM, about any text. */
int bench_login_scram(struct bench *b, const char *name, const char *secret,
                      struct registry_identity *ret_identity) {
    static const char text[] = "n=user,r=a,r=ab,s=c,i=4096,c=biws,r=ab";
    struct registry_login *login =
        registry_login_new(REGISTRY_LOGIN_PRINCIPAL_SCRAM, slice_make(NULL, 0),
                           slice_from_string(name), slice_from_string(text));
    dg_assert(login);
    uint8_t salt[SCRAM_SALT_SIZE], salted[32], stored[32], mac[32];
    scram_keys_salt(registry_master(b->registry), slice_from_string(name), salt);
    PKCS5_PBKDF2_HMAC(secret, (int)strlen(secret), salt, sizeof(salt), SCRAM_ITERATIONS,
                      EVP_sha256(), sizeof(salted), salted);
    HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Client Key", 10, login->proof, NULL);
    SHA256(login->proof, 32, stored);
    HMAC(EVP_sha256(), stored, 32, (const uint8_t *)text, strlen(text), mac, NULL);
    for (unsigned i = 0; i < 32; i++)
        login->proof[i] ^= mac[i];
    return run_login(b, login, ret_identity);
}

int bench_login_secret(struct bench *b, const char *tenant, const char *name, const char *secret,
                       struct registry_identity *ret_identity) {
    return bench_login(b, REGISTRY_LOGIN_DEVICE_SECRET, tenant, name, slice_from_string(secret), 0,
                       ret_identity);
}

static void deliver_request(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    ((struct answer *)(uintptr_t)request->owner)->done = true;
}

static struct registry_request *execute(struct bench *b, int64_t account,
                                        enum registry_statement statement, va_list values) {
    struct registry_request *request = registry_request_new(statement);
    struct answer answer = {0};
    const char *value;
    while ((value = va_arg(values, const char *)) != BENCH_END)
        dg_assert(registry_request_add(request, value ? slice_from_string(value)
                                                      : slice_make(NULL, 0)) == 0);
    request->mail.deliver = deliver_request;
    request->reply_to = &b->mailbox;
    request->owner = (uintptr_t)&answer;
    request->account = account;
    request->scope_tenant_key = b->scope_tenant_key;
    registry_execute(b->registry, request);
    bench_wait(b, &answer.done, 20000);
    dg_assert(answer.done);
    return request;
}

struct registry_request *bench_execute_as(struct bench *b, int64_t account,
                                          enum registry_statement statement, ...) {
    va_list values;
    va_start(values, statement);
    struct registry_request *request = execute(b, account, statement, values);
    va_end(values);
    return request;
}

struct registry_request *bench_execute(struct bench *b, enum registry_statement statement, ...) {
    va_list values;
    va_start(values, statement);
    struct registry_request *request = execute(b, 0, statement, values);
    va_end(values);
    return request;
}
