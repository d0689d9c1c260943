/*
 * Streams and consumer groups over HTTP on a real worker, beside the Kafka endpoint: look-ups that
 * wait for the disk or longer than a request may, and metrics of more groups than have series.
 * What the routes say is tests/e2e/test_streams.py's.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/metrics.h"
#include "common/sys.h"
#include "provisioning/provisioning.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(streams, .fini = loopback_check_leaks);

enum { BATCHES = 60, RECORDS = 10, SIZE = 40000, ANSWER_SIZE = 65536 };

/* ---- the registry answers logins and names of tenants (kafka_support.c), nothing else ---- */

#define NOT_HERE cr_assert(false, "%s() is not for these tests", __func__)

void registry_execute(struct registry *registry, struct registry_request *request) {
    NOT_HERE;
}
struct registry_request *registry_request_new(enum registry_statement statement) {
    NOT_HERE;
    return NULL;
}
int registry_request_add(struct registry_request *request, struct slice value) {
    NOT_HERE;
    return DG_ERR_INTERNAL;
}
void registry_request_free(struct registry_request *request) {
    NOT_HERE;
}
void registry_hash_password(struct registry *registry, struct registry_password_hash *hash) {
    NOT_HERE;
}
void registry_password_hash_free(struct registry_password_hash *hash) {
    NOT_HERE;
}

/* ---- a server of both ---- */

static struct kafka_server server;
static struct kafka_client kafka;
static struct sys_table real_sys;

static bool is_ready(void *context, struct buffer *why) {
    return true;
}

static int start_http(struct worker *worker, struct stream *stream) {
    const struct provisioning_options options = {.health = {.ready = is_ready}};
    int err = http_worker_start(worker);
    return err == 0 ? provisioning_worker_start(worker, NULL, stream, &options) : err;
}

static void start(const char *const *overrides) {
    kafka_beside = (struct kafka_beside){start_http, provisioning_worker_free};
    kafka_server_start(&server, overrides);
    kafka_enter(&kafka, &server, "reader");
    real_sys = sys;
}

static void stop(void) {
    sys = real_sys;
    kafka_disconnect(&kafka);
    kafka_server_stop(&server);
}

/* ---- HTTP ---- */

static const struct http_route *const tables[] = {provisioning_routes,
                                                  provisioning_operations_routes, NULL};
static const struct http_routes routes = {.tables = tables};
static const struct connection_listener listener = {
    .name = "management", .protocol = &http_protocol, .context = &routes};

static void send_http(struct client *client, const char *method, const char *path,
                      const char *body) {
    char text[2048];
    client_connect(client, &server.loopback, &listener);
    int size = snprintf(text, sizeof(text),
                        "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer "
                        "reader.secret\r\nContent-Length: %zu\r\n\r\n%s",
                        method, path, strlen(body), body);
    cr_assert(client_send(client, text, (size_t)size));
}

/* The whole answer; valid until the next one. */
static const char *read_http(struct client *client) {
    static char answer[ANSWER_SIZE];
    answer[client_read(client, answer, sizeof(answer) - 1)] = '\0';
    client_close(client);
    return answer;
}

static const char *ask_http(const char *method, const char *path, const char *body) {
    struct client client;
    send_http(&client, method, path, body);
    return read_http(&client);
}

/* ---- groups ---- */

static void commit(const char *group, uint32_t partition, uint64_t offset) {
    kafka_begin(&kafka, KAFKA_OFFSET_COMMIT, 2);
    kafka_put_text(&kafka, group);
    writer_u32(&kafka.request, UINT32_MAX);
    kafka_put_text(&kafka, "");
    writer_u64(&kafka.request, UINT64_MAX);
    writer_u32(&kafka.request, 1);
    kafka_put_text(&kafka, "acme.events");
    writer_u32(&kafka.request, 1);
    writer_u32(&kafka.request, partition);
    writer_u64(&kafka.request, offset);
    kafka_put_text(&kafka, "");
    kafka_call_server(&kafka);
    reader_take(&kafka.answer, 4 + 2 + strlen("acme.events") + 4 + 4);
    cr_assert_eq(reader_u16(&kafka.answer), 0);
}

/* ---- cold look-ups ---- */

static atomic_bool is_warm, may_read;

/* Nothing is in memory before the pool's threads have read it. */
static ssize_t read_warms(int fd, void *data, size_t size, off_t position) {
    if (!atomic_load(&is_warm))
        usleep(300000);
    atomic_store(&is_warm, true);
    return real_sys.pread(fd, data, size, position);
}
static ssize_t read_when_allowed(int fd, void *data, size_t size, off_t position) {
    while (!atomic_load(&may_read))
        usleep(1000);
    atomic_store(&is_warm, true);
    return real_sys.pread(fd, data, size, position);
}
static ssize_t in_memory_when_warm(int fd, const struct iovec *parts, int count, off_t position,
                                   int flags) {
    if (atomic_load(&is_warm))
        return real_sys.preadv2(fd, parts, count, position, flags & ~RWF_NOWAIT);
    errno = EAGAIN;
    return -1;
}
static ssize_t unreadable(int fd, void *data, size_t size, off_t position) {
    errno = EIO;
    return -1;
}
static ssize_t never_in_memory(int fd, const struct iovec *parts, int count, off_t position,
                               int flags) {
    errno = EAGAIN;
    return -1;
}

/* Batch i has the times 1000 * (i + 1) and on. More than memory keeps: the first ones are in their
 * file only. */
static void start_cold(const char *const *overrides) {
    start(overrides);
    for (unsigned i = 0; i < BATCHES; i++)
        kafka_server_append(&server, STREAM_EVENTS, 2, RECORDS, SIZE, 1000 * (i + 1));
    commit("g", 2, 7);
}

static const char reset_path[] = "/v1/tenants/acme/consumer-groups/g/reset-offsets";
static const char reset_body[] = "{\"stream\":\"acme.events\",\"to\":\"1970-01-01T00:00:03.005Z\"}";

Test(streams, a_reset_waits_for_the_disk_without_the_worker) {
    struct client resetting;
    start_cold(NULL);
    sys.pread = read_warms;
    sys.preadv2 = in_memory_when_warm;
    send_http(&resetting, "POST", reset_path, reset_body);
    cr_expect(
        strstr(ask_http("GET", "/v1/tenants/acme/streams", ""), "\"end_offset_sum\":\"600\""));
    cr_expect(!atomic_load(&is_warm), "the worker has waited for the disk");
    const char *answer = read_http(&resetting);
    cr_expect(strstr(answer, "HTTP/1.1 200"), "%s", answer);
    cr_expect(strstr(answer, "{\"partition\":2,\"offset_before\":\"7\",\"offset\":\"25\"}"), "%s",
              answer);
    cr_expect(strstr(answer, "{\"partition\":0,\"offset_before\":null,\"offset\":\"0\"}"), "%s",
              answer);
    answer = ask_http("GET", "/v1/tenants/acme/consumer-groups/g", "");
    cr_expect(strstr(answer, "\"committed_offset\":\"25\""), "%s", answer);
    cr_expect(strstr(answer, "\"lag\":\"575\""), "%s", answer);
    stop();
}

/* Its time is over before the disk has been read: it is answered, and not thought of again. */
Test(streams, a_reset_that_waits_too_long) {
    static const char *const impatient[] = {"security.allow_plaintext_passwords=true",
                                            "management.request_timeout=200ms", NULL};
    start_cold(impatient);
    sys.pread = read_when_allowed;
    sys.preadv2 = in_memory_when_warm;
    const char *answer = ask_http("POST", reset_path, reset_body);
    cr_expect(strstr(answer, "HTTP/1.1 504"), "%s", answer);
    atomic_store(&may_read, true);
    while (!atomic_load(&is_warm))
        usleep(1000);
    answer = ask_http("GET", "/v1/tenants/acme/consumer-groups/g", "");
    cr_expect(strstr(answer, "\"committed_offset\":\"7\""), "%s", answer);
    answer = ask_http("POST", reset_path, reset_body);
    cr_expect(strstr(answer, "HTTP/1.1 200"), "%s", answer);
    stop();
}

Test(streams, a_disk_that_cannot_be_read_is_named) {
    start_cold(NULL);
    sys.pread = unreadable;
    sys.preadv2 = never_in_memory;
    const char *answer = ask_http("POST", reset_path, reset_body);
    cr_expect(strstr(answer, "HTTP/1.1 500"), "%s", answer);
    cr_expect(strstr(answer, "partition 2 cannot be read now"), "%s", answer);
    stop();
}

/* ---- metrics of very many groups ---- */

static unsigned count_in(const char *text, const char *part) {
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        count++;
    return count;
}

/* A scrape that has what is waited for; freed by the caller. */
static char *metrics_with(const char *part) {
    for (unsigned wait = 0; wait < 200; wait++) {
        struct buffer page = {0};
        cr_assert_eq(metrics_print(&page), 0);
        cr_assert_eq(buffer_append(&page, "", 1, SIZE_MAX / 2), 0);
        if (strstr((char *)page.data, part))
            return (char *)page.data;
        buffer_free(&page);
        usleep(50000);
    }
    cr_assert(false, "no %s", part);
    return NULL;
}

Test(streams, groups_beyond_the_limit_are_summed_up) {
    enum { GROUPS = LIMIT_METRIC_GROUPS_OF_TENANT + 20, BEHIND = 3 };
    char name[32], other[128];
    start(NULL);
    kafka_server_append(&server, STREAM_EVENTS, 0, BEHIND, 10, 1000);
    for (unsigned i = 0; i < GROUPS; i++) {
        snprintf(name, sizeof(name), "group-%u", i);
        commit(name, 0, 0);
    }
    snprintf(other, sizeof(other),
             "duragate_consumer_group_lag_records{tenant=\"acme\",group=\"other\"} %u\n",
             BEHIND * (GROUPS - (LIMIT_METRIC_GROUPS_OF_TENANT - 1)));
    char *page = metrics_with(other);
    cr_expect_eq(count_in(page, "\nduragate_consumer_group_lag_records{"),
                 LIMIT_METRIC_GROUPS_OF_TENANT);
    cr_expect(strstr(page, "duragate_consumer_group_lag_records{tenant=\"acme\",group=\"group-0\"} "
                           "3\n"));
    free(page);
    stop();
}
