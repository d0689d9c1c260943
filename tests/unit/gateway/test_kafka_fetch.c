/* What a waiting Fetch costs, and when it has enough. */
#include <criterion/criterion.h>

#include "gateway/kafka/session.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_fetch, .fini = loopback_check_leaks);

enum { MIB = 1024 * 1024 };

static struct kafka_server server;
static struct kafka_client client;

/* ---- waits ---- */

static unsigned woken;

static struct kafka_wait_table table;

static void on_enough(struct kafka_session *session) {
    woken++;
    kafka_wait_clear(&table, session);
}

/* A commit to a partition is counted for each session that waits there, and wakes those that miss
 * nothing any more; bytes of all partitions of a session add up. */
Test(kafka_fetch, waits_count_bytes) {
    struct kafka_session sessions[3] = {
        {.missing_bytes = 100}, {.missing_bytes = 1000}, {.missing_bytes = 0}};
    for (unsigned i = 0; i < 3; i++)
        for (uint32_t partition = 0; partition < 2; partition++)
            cr_assert_eq(kafka_wait_add(&table, &sessions[i], 7, partition, 5000), 0);
    static const struct {
        uint32_t partition;
        uint64_t appended_bytes;
        unsigned woken;
    } steps[] = {
        {0, 5000, 1}, /* the third waits for a cold range: whatever happens wakes it */
        {0, 5060, 1}, {1, 5030, 1}, {1, 5040, 2}, /* 60 and 40 */
        {0, 5600, 2}, {1, 5399, 2}, {1, 5400, 3},
    };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        kafka_wait_count(&table, 7, steps[i].partition, steps[i].appended_bytes, on_enough);
        cr_expect_eq(woken, steps[i].woken, "step %zu: %u", i, woken);
    }
    kafka_wait_count(&table, 7, 3, 9999, on_enough);
    cr_expect_eq(woken, 3);
    cr_expect_not(kafka_wait_exists(&table, 7, 0) || kafka_wait_exists(&table, 7, 1));
}

/* ---- min_bytes ---- */

static void fetch(int32_t min_bytes, const struct kafka_asked *asked, unsigned count,
                  struct kafka_fetched *ret) {
    kafka_begin_fetch(&client, "acme.events", 25000, min_bytes, 16 * MIB, asked, count);
    kafka_call_server(&client);
    kafka_take_fetch(&client, ret, count);
}

/* One answer takes so many runs of a partition and no more: what is left behind it is not waited
 * for. The wait would outlast the client's patience, and the test with it. */
Test(kafka_fetch, many_small_batches_are_enough) {
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < 300; i++)
        kafka_server_append(&server, STREAM_EVENTS, 1, 1, 100, 1000);
    kafka_enter(&client, &server, "reader");
    struct kafka_fetched got[2];
    fetch(2 * MIB, (struct kafka_asked[]){{1, 0, MIB}}, 1, got);
    cr_expect(got[0].error == 0 && got[0].records.size > 0);
    /* the partition's own limit is reached */
    fetch(2 * MIB, (struct kafka_asked[]){{1, 0, 1000}, {0, 0, 1000}}, 2, got);
    cr_expect(got[0].records.size > 0 && got[0].records.size <= 1000);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- what may be asked ---- */

Test(kafka_fetch, a_partition_is_named_once) {
    kafka_server_start(&server, NULL);
    kafka_server_append(&server, STREAM_EVENTS, 1, 1, 100, 1000);
    kafka_enter(&client, &server, "reader");
    static const struct kafka_asked twice[] = {{1, 0, MIB}, {0, 0, MIB}, {1, 0, MIB}};
    kafka_begin_fetch(&client, "acme.events", 0, 1, MIB, twice, 3);
    kafka_send(&client);
    cr_expect(client_at_end(&client.client));
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- compressed batches ---- */

static int16_t fetch_with_version_4(int64_t offset, uint32_t *ret_size) {
    kafka_begin(&client, KAFKA_FETCH, 4);
    writer_u32(&client.request, UINT32_MAX);
    writer_u32(&client.request, 0);
    writer_u32(&client.request, 1);
    writer_u32(&client.request, MIB);
    writer_u8(&client.request, 0);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, 1);
    writer_u64(&client.request, (uint64_t)offset);
    writer_u32(&client.request, MIB);
    kafka_call_server(&client);
    struct reader *r = &client.answer;
    cr_assert_eq(reader_u32(r), 0); /* throttle */
    cr_assert_eq(reader_u32(r), 1);
    reader_take(r, reader_u16(r));
    cr_assert(reader_u32(r) == 1 && reader_u32(r) == 1);
    int16_t error = (int16_t)reader_u16(r);
    reader_take(r, 8 + 8);
    cr_assert_eq(reader_u32(r), UINT32_MAX); /* aborted: null */
    *ret_size = reader_u32(r);
    return error;
}

static void compress_with(enum compression codec) {
    struct stream_options options = {
        .segment_size_bytes = 4 * MIB, .segment_age_ms = 3600 * 1000, .compression = codec};
    stream_reconfigure(server.stream, &options);
}

/* KIP-110: who cannot know zstd gets an error, not bytes that look like damage; what comes before
 * it, and lz4, is given. */
Test(kafka_fetch, zstd_and_consumers_before_it) {
    kafka_server_start(&server, NULL);
    compress_with(COMPRESSION_LZ4);
    kafka_server_append(&server, STREAM_EVENTS, 1, 10, 400, 1000);
    compress_with(COMPRESSION_ZSTD);
    kafka_server_append(&server, STREAM_EVENTS, 1, 10, 400, 2000);
    kafka_enter(&client, &server, "reader");
    uint32_t size;
    cr_expect(fetch_with_version_4(0, &size) == 0 && size > 0);
    cr_expect_eq(fetch_with_version_4(10, &size), KAFKA_ERROR_UNSUPPORTED_COMPRESSION);
    cr_expect_leq((int32_t)size, 0);

    struct kafka_fetched got;
    kafka_begin_fetch(&client, "acme.events", 0, 1, MIB, (struct kafka_asked[]){{1, 0, MIB}}, 1);
    kafka_call_server(&client);
    kafka_take_fetch(&client, &got, 1);
    cr_expect(got.error == 0 && got.records.size > size);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}
