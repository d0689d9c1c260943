/* Quotas of API keys on a real worker: answers say how long a client is to wait, and its connection
 * is muted meanwhile. Nothing here depends on how long that takes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/metrics.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_quotas, .fini = loopback_check_leaks);

enum { MIB = 1 << 20, RECORD = 20000 };

static struct kafka_server server;
static struct kafka_client client, other, third;

static void start(const char *setting) {
    const char *const overrides[] = {"security.allow_plaintext_passwords=true", setting, NULL};
    kafka_server_start(&server, overrides);
}

/* A Fetch of partition 0 (version 11): its throttle time, and how many bytes it brought. */
static uint32_t fetch(struct kafka_client *c, int64_t offset, size_t *ret_size) {
    kafka_begin_fetch(c, "acme.events", 10000, 1, 16 * MIB,
                      (struct kafka_asked[]){{0, offset, 16 * MIB}}, 1);
    kafka_call_server(c);
    struct reader *r = &c->answer;
    uint32_t throttle_ms = reader_u32(r);
    reader_take(r, 2 + 4 + 4);
    reader_take(r, reader_u16(r));
    cr_assert_eq(reader_u32(r), 1);
    cr_assert_eq(reader_u32(r), 0);
    cr_assert_eq(reader_u16(r), 0);
    cr_assert_eq(reader_u64(r), 50); /* where the end is is always said */
    reader_take(r, 8 + 8 + 4 + 4);
    *ret_size = reader_u32(r);
    return throttle_ms;
}

Test(kafka_quotas, fetched_bytes) {
    start("kafka.quota_fetch_bytes_per_second=100KiB");
    for (unsigned i = 0; i < 50; i++)
        kafka_server_append(&server, STREAM_EVENTS, 0, 1, RECORD, 1000);
    kafka_enter(&client, &server, "reader");
    kafka_enter(&other, &server, "reader");
    size_t size, all = 0;
    unsigned throttled = 0;
    int64_t before = metric_read(METRIC_KAFKA_THROTTLED);
    for (unsigned i = 0; i < 6; i++) { /* the second answer is over it already */
        uint32_t throttle_ms = fetch(&client, 0, &size);
        cr_assert_leq(throttle_ms, LIMIT_KAFKA_THROTTLE_MS);
        cr_assert_lt(size, 200 * 1024, "an answer takes more than a second brings");
        throttled += throttle_ms > 0;
        all += size;
    }
    cr_expect_gt(throttled, 0);
    cr_expect_gt(all, 0);
    cr_expect_gt(metric_read(METRIC_KAFKA_THROTTLED), before);
    kafka_disconnect(&client);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}

/* A key's connections share its quota, and another key's have their own. */
Test(kafka_quotas, connections_share_a_quota) {
    start("kafka.quota_fetch_bytes_per_second=1KiB");
    for (unsigned i = 0; i < 50; i++)
        kafka_server_append(&server, STREAM_EVENTS, 0, 1, RECORD, 1000);
    size_t size;
    kafka_enter(&client, &server, "reader");
    cr_expect_gt(fetch(&client, 0, &size), 0); /* one whole batch, whatever the quota */
    cr_expect_gt(size, RECORD);
    kafka_disconnect(&client); /* coming anew is no way out */
    kafka_enter(&other, &server, "reader");
    cr_expect_gt(fetch(&other, 0, &size), 0);
    cr_expect_eq(size, 0);
    kafka_enter(&third, &server, "platform");
    fetch(&third, 0, &size);
    cr_expect_gt(size, RECORD);
    kafka_disconnect(&other);
    kafka_disconnect(&third);
    kafka_server_stop(&server);
}

/* Requests that were sent together are all answered, in order, some of them later. */
Test(kafka_quotas, requests) {
    enum { REQUESTS = 8 };
    start("kafka.quota_requests_per_second=4");
    kafka_enter(&client, &server, "reader");
    for (unsigned i = 0; i < REQUESTS; i++) {
        kafka_begin(&client, KAFKA_FIND_COORDINATOR, 1);
        kafka_put_text(&client, "group");
        writer_u8(&client.request, 0);
        kafka_send(&client);
    }
    unsigned throttled = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        cr_assert(kafka_receive(&client));
        uint32_t throttle_ms = reader_u32(&client.answer);
        cr_assert_leq(throttle_ms, LIMIT_KAFKA_THROTTLE_MS);
        cr_expect(i >= 3 || throttle_ms == 0);
        throttled += throttle_ms > 0;
        cr_assert_eq(reader_u16(&client.answer), 0);
    }
    cr_expect_gt(throttled, 0);
    kafka_begin(&client, KAFKA_HEARTBEAT, 0); /* a version that has no word for it */
    kafka_put_text(&client, "group");
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "member");
    kafka_call_server(&client);
    cr_expect_eq(reader_u16(&client.answer), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_expect_eq(reader_left(&client.answer), 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* A login by a token without a header, which has no answer that could say so. */
static void enter_raw(struct kafka_client *c) {
    static const char token[] = "\0reader\0secret";
    uint8_t bytes[64];
    struct writer frame = writer_make(bytes, sizeof(bytes));
    kafka_connect(c, &server);
    kafka_begin(c, KAFKA_SASL_HANDSHAKE, 0);
    kafka_put_text(c, "PLAIN");
    kafka_call_server(c);
    writer_u32(&frame, sizeof(token) - 1);
    writer_slice(&frame, slice_make(token, sizeof(token) - 1));
    cr_assert(client_send(&c->client, bytes, writer_size(&frame)));
}

/* A new connection of a key that is over its quota waits too, however it logs in. */
Test(kafka_quotas, a_new_connection_is_no_way_out) {
    start("kafka.quota_requests_per_second=1");
    kafka_enter(&client, &server, "reader");
    for (unsigned i = 0; i < 4; i++) {
        kafka_begin(&client, KAFKA_FIND_COORDINATOR, 0);
        kafka_put_text(&client, "group");
        kafka_call_server(&client);
    }
    int64_t before = metric_read(METRIC_KAFKA_THROTTLED), logins = metric_read(METRIC_LOGINS_OK);
    enter_raw(&other);
    uint8_t empty[4];
    cr_assert_eq(client_read(&other.client, empty, sizeof(empty)), sizeof(empty));
    cr_expect_eq(metric_read(METRIC_LOGINS_OK), logins + 1);
    cr_expect_gt(metric_read(METRIC_KAFKA_THROTTLED), before);
    kafka_disconnect(&client);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}

Test(kafka_quotas, connections_of_a_key) {
    start("kafka.connections_per_key=2");
    kafka_enter(&client, &server, "reader");
    kafka_enter(&other, &server, "reader");
    kafka_connect(&third, &server);
    cr_expect_eq(kafka_login(&third, "reader", "secret"),
                 -1000); /* not final: it shall come again */
    kafka_disconnect(&third);
    kafka_enter(&third, &server, "platform");
    kafka_disconnect(&third);
    kafka_disconnect(&client);
    int error = -1000;
    for (unsigned i = 0; i < 100 && error != 0; i++) { /* until the server has seen that it left */
        kafka_connect(&third, &server);
        error = kafka_login(&third, "reader", "secret");
        kafka_disconnect(&third);
    }
    cr_expect_eq(error, 0);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}
