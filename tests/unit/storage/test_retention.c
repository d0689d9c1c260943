/* Retention: by size and by age, whole segments, the log start durable before a file goes. */
#include <criterion/criterion.h>

#include <unistd.h>

#include "storage/local/engine.h"
#include "support.h"

TestSuite(retention, .fini = check_leaks);

enum { STREAM_ID = 7, PER_SEGMENT = 4 };

static struct test_store store;

/* Segments of four records of 11 kB; the test plays the checkpointer. */
static void open_store(unsigned segments) {
    test_store_init(&store);
    store.options.segment_size_bytes = 50000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    checkpointer_stop(store.stream);
    test_append_each(&store, STREAM_ID, 0, 0, segments * PER_SEGMENT, 11000);
    placer_flush(&store.stream->placer);
}

static void close_store(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

static struct partition *partition_of(uint32_t number) {
    return partition_find(&store.stream->partitions, STREAM_ID, number);
}

static void keep(uint64_t bytes, uint64_t ms) {
    store.options.retention_bytes = bytes;
    store.options.retention_ms = ms;
    stream_reconfigure(store.stream, &store.options);
}

/* A tick of the checkpointer, without its checkpoint; the inbox of the committer is one FIFO, so
 * the request has been dealt with when a record behind it has. */
static void request(uint64_t now_ms) {
    retention_request(store.stream, now_ms);
    cr_assert_eq(test_append(&store, STREAM_ID, 1, 0, 1, 1), 0);
    test_store_settle(&store);
}

static int64_t log_start(void) {
    struct stream_offsets offsets;
    stream_offsets(store.stream, STREAM_ID, 0, &offsets);
    return offsets.log_start;
}

static unsigned count_files(void) {
    unsigned count = 0;
    for (int64_t base = 0; base < 100; base += PER_SEGMENT)
        count += test_file_size(&store, test_segment_name(STREAM_ID, 0, base)) >= 0;
    return count;
}

static uint64_t bytes_of_newest(unsigned segments) {
    const struct partition *partition = partition_of(0);
    uint64_t bytes = 0;
    for (unsigned i = 1; i <= segments; i++)
        bytes += partition->segments[partition->segment_count - i]->end_bytes;
    return bytes;
}

Test(retention, by_size) {
    open_store(5);
    static const struct {
        unsigned segments;
        unsigned more;
        int64_t log_start;
    } cases[] = {
        {5, 0, 0}, {4, 1, 0}, {4, 0, 4}, {2, 1, 8}, {2, 0, 12}, {4, 0, 12}, /* never back */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        keep(bytes_of_newest(cases[i].segments) + cases[i].more, 0);
        request(1);
        cr_expect_eq(log_start(), cases[i].log_start, "case %zu: %d", i, (int)log_start());
    }
    keep(1, 0);
    request(1);
    cr_expect_eq(log_start(), 16, "the newest segment stays");
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 16, 0), 4);
    close_store();
}

Test(retention, by_age_since_the_segment_was_complete) {
    open_store(4);
    struct partition *partition = partition_of(0);
    for (uint32_t i = 0; i < 3; i++)
        partition->segments[i]->sealed_ms = 10000 + i * 1000;
    static const struct {
        uint64_t now_ms;
        int64_t log_start;
    } cases[] = {
        {0, 0},     {10000, 0}, {10500, 0}, /* the clock may be anywhere */
        {10501, 4}, {11500, 4}, {11501, 8}, {UINT32_MAX, 12}, {0, 12},
    };
    keep(0, 500);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        request(cases[i].now_ms);
        cr_expect_eq(log_start(), cases[i].log_start, "case %zu", i);
    }
    close_store();
}

Test(retention, nothing_goes_without_a_limit) {
    open_store(4);
    request(UINT32_MAX);
    cr_expect_eq(log_start(), 0);
    close_store();
}

Test(retention, files_go_after_a_checkpoint_with_the_log_start) {
    open_store(4);
    struct stream_offsets offsets;
    keep(1, 0);
    request(1);
    cr_assert_eq(log_start(), 12);
    retention_remove(store.stream);
    cr_expect_eq(count_files(), 4, "the log start is only in the journal");
    uint64_t newest = partition_of(0)->segments[3]->end_bytes;
    cr_assert_eq(checkpoint_take(store.stream), 0);
    cr_expect_eq(count_files(), 4);
    retention_remove(store.stream);
    cr_expect_eq(count_files(), 1);
    cr_expect_eq(partition_of(0)->segment_count, 1);
    stream_offsets(store.stream, STREAM_ID, 0, &offsets);
    cr_expect_eq(offsets.size_bytes, newest);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(log_start(), 12);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 12, 0), 4);
    close_store();
}

/* A crash between checkpoint and unlink: the next pass removes the files. */
Test(retention, files_below_the_log_start_go_later) {
    open_store(4);
    keep(1, 0);
    request(1);
    test_store_close(&store); /* with a checkpoint */
    cr_assert_eq(count_files(), 4);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    checkpointer_stop(store.stream);
    cr_expect_eq(log_start(), 12);
    retention_remove(store.stream);
    cr_expect_eq(count_files(), 1);
    close_store();
}

Test(retention, a_reader_keeps_the_segment_it_holds) {
    struct stream_extent extent;
    uint8_t byte;
    open_store(3);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    checkpointer_stop(store.stream);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 0, 100, NULL, &extent), 0);
    cr_assert(extent.fd >= 0);
    keep(1, 0);
    request(1);
    cr_assert_eq(checkpoint_take(store.stream), 0);
    retention_remove(store.stream);
    cr_expect_eq(count_files(), 1);
    cr_expect_eq(pread(extent.fd, &byte, 1, extent.position), 1);
    stream_extent_release(&extent);
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 0, 0, 100, NULL, &extent),
                 DG_ERR_OFFSET_OUT_OF_RANGE);
    close_store();
}

static void fill_journal(void) {
    static const uint32_t paddings[] = {900000, 100000, 1000};
    atomic_store(&store.stream->checkpointer.has_failed, true); /* so nobody waits for one */
    for (size_t i = 0; i < COUNT_OF(paddings); i++)
        for (store.refused = 0; store.refused == 0;) {
            cr_assert_eq(test_append(&store, STREAM_ID, 1, 0, paddings[i], 1), 0);
            test_store_settle(&store);
        }
}

/* The journal was full when it was made. */
Test(retention, a_refused_request_is_made_again) {
    open_store(4);
    fill_journal();
    store.stream->checkpointer.wanted = false;
    keep(1, 0);
    request(1);
    cr_assert_eq(log_start(), 0);
    cr_expect_not(store.stream->checkpointer.wanted, "a checkpoint would not help");
    cr_assert_eq(checkpoint_take(store.stream), 0);
    request(1);
    cr_expect_eq(log_start(), 12);
    close_store();
}
