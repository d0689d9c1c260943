/* Look-ups by time: exact, compared with looking at every record. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <unistd.h>

#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "storage/record.h"
#include "support.h"

TestSuite(find, .fini = check_leaks);

enum { STREAM_ID = 7, RECORDS_MAX = 1000 };

static int64_t times_ms[RECORDS_MAX]; /* as stored, by offset */
static int64_t count;
static unsigned one_time_batches, compressed_batches;

static void take_times(const uint8_t *bytes, size_t size) {
    struct reader r = reader_make(bytes, size);
    while (reader_left(&r) > 0) {
        struct record_batch batch;
        cr_assert_eq(record_batch_read(&r, true, &batch), 0);
        one_time_batches += (batch.attributes & RECORD_LOG_APPEND_TIME) != 0;
        struct slice expanded;
        uint8_t *owned;
        cr_assert_eq(record_batch_expand(&batch, &expanded, &owned), 0);
        compressed_batches += owned != NULL;
        struct reader records = reader_make(expanded.data, expanded.size);
        for (uint32_t i = 0; i < batch.record_count; i++) {
            struct record record;
            cr_assert_eq(record_read(&batch, &records, &record), 0);
            times_ms[record.offset] = record.timestamp_ms;
            count = record.offset + 1;
        }
        free(owned);
    }
}

static void read_times(struct test_store *store, int64_t from) {
    struct stream_extent extent;
    count = from;
    for (;;) {
        cr_assert_eq(stream_read(store->stream, STREAM_ID, 0, count, 1 << 18, NULL, &extent), 0);
        if (extent.size_bytes == 0)
            return;
        uint8_t *bytes = malloc(extent.size_bytes);
        if (extent.memory)
            memcpy(bytes, extent.memory, extent.size_bytes);
        else
            cr_assert_eq(pread(extent.fd, bytes, extent.size_bytes, extent.position),
                         (ssize_t)extent.size_bytes);
        take_times(bytes, extent.size_bytes);
        free(bytes);
        stream_extent_release(&extent);
    }
}

static void expect_found(struct test_store *store, int64_t log_start, int64_t wanted_ms) {
    int64_t expected = log_start, offset = -1, found_ms = -1;
    while (expected < count && times_ms[expected] < wanted_ms)
        expected++;
    int err = stream_find_time(store->stream, STREAM_ID, 0, wanted_ms, NULL, &offset, &found_ms);
    cr_expect_eq(err, expected < count ? 0 : DG_ERR_NOT_FOUND, "time %d", (int)wanted_ms);
    if (err == 0)
        cr_expect(offset == expected && found_ms == times_ms[expected],
                  "time %d: offset %d, not %d", (int)wanted_ms, (int)offset, (int)expected);
}

static void expect_all_found(struct test_store *store, int64_t log_start) {
    for (int64_t ms = times_ms[log_start] - 2; ms <= times_ms[count - 1] + 1; ms++)
        expect_found(store, log_start, ms);
    expect_found(store, log_start, INT64_MIN);
    expect_found(store, log_start, INT64_MAX);
    int64_t offset = -1, last_ms = -1;
    cr_assert_eq(stream_find_last(store->stream, STREAM_ID, 0, &offset, &last_ms), 0);
    cr_expect(offset == count - 1 && last_ms == times_ms[count - 1]);
}

/* Several batches per segment and per index step; equal times across their borders; gaps; batches
 * behind the partition's time, which are stored with one time. */
static void append_mixed(struct test_store *store, unsigned batches) {
    for (unsigned batch = 0; batch < batches; batch++) {
        int64_t base_ms = 10000 + batch / 3 * 10;
        if (batch % 5 == 4)
            base_ms -= 25;
        for (int64_t i = 0; i < 4; i++)
            cr_assert_eq(test_append(store, STREAM_ID, 0, batch * 4u + (unsigned)i, 3000,
                                     base_ms + i * (batch % 4)),
                         0);
        test_store_settle(store);
    }
}

Test(find, is_exact_in_memory_and_in_files_and_across_segments) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 200000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_mixed(&store, 60);
    for (unsigned round = 0; round < 2; round++) {
        read_times(&store, 0);
        cr_assert_eq(count, 240);
        cr_expect(one_time_batches >= 5);
        cr_expect(test_file_size(&store, test_segment_name(STREAM_ID, 0, 64)) > 0);
        expect_all_found(&store, 0);
        test_store_close(&store);
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    }
    test_store_close(&store);
    test_store_remove(&store);
}

/* Batches of all codecs side by side, as after changes of the configuration. */
Test(find, is_exact_in_compressed_batches) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 200000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_mixed(&store, 20);
    for (unsigned round = 0; round < 2; round++) {
        store.options.compression = round == 0 ? COMPRESSION_LZ4 : COMPRESSION_ZSTD;
        stream_reconfigure(store.stream, &store.options);
        append_mixed(&store, 20);
    }
    for (unsigned round = 0; round < 2; round++) {
        compressed_batches = 0;
        read_times(&store, 0);
        cr_assert_eq(count, 240);
        cr_expect_eq(compressed_batches, 40);
        expect_all_found(&store, 0);
        test_store_close(&store);
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    }
    test_store_close(&store);
    test_store_remove(&store);
}

static void move_log_start(struct test_store *store, int64_t start) {
    struct log_start_key key = {.stream_id = STREAM_ID};
    cr_assert_eq(test_mutate(store, STATE_LOG_START, slice_make(&key, LOG_START_KEY_SIZE),
                             slice_make(&start, sizeof(start))),
                 0);
    test_store_settle(store);
}

Test(find, nothing_before_the_log_start) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 200000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_mixed(&store, 40);
    read_times(&store, 0);
    for (int64_t start = 1; start < 160; start += 37) { /* within batches and segments */
        move_log_start(&store, start);
        expect_all_found(&store, start);
    }
    int64_t offset, ms;
    move_log_start(&store, 160);
    cr_expect_eq(stream_find_time(store.stream, STREAM_ID, 0, 0, NULL, &offset, &ms),
                 DG_ERR_NOT_FOUND);
    cr_expect_eq(stream_find_last(store.stream, STREAM_ID, 0, &offset, &ms), DG_ERR_NOT_FOUND);
    cr_expect_eq(stream_find_time(store.stream, STREAM_ID, 9, 0, NULL, &offset, &ms),
                 DG_ERR_NOT_FOUND);
    cr_expect_eq(stream_find_last(store.stream, STREAM_ID, 9, &offset, &ms), DG_ERR_NOT_FOUND);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(find, damage_is_reported) {
    struct test_store store;
    int64_t offset, ms;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_mixed(&store, 8);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 0), 5000);
    cr_expect_eq(stream_find_time(store.stream, STREAM_ID, 0, 10001, NULL, &offset, &ms),
                 DG_ERR_CORRUPT);
    test_store_close(&store);
    test_store_remove(&store);
}
