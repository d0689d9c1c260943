/* Reading what a store holds after a restart: how much at once, what waits for the disk and what
 * must not, and what a reader is told about damage. */
#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdio.h>

#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/read.h"
#include "support.h"

TestSuite(reading, .timeout = 60);

enum { STREAM_ID = 7, KIB = 1024 };

static struct test_store store;

static void open_store(void) {
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

/* Each record is durable, and a batch of its own, before the next one is appended. */
static void append(uint64_t first, unsigned count, uint32_t padding) {
    for (uint64_t i = first; i < first + count; i++) {
        cr_assert_eq(test_append(&store, STREAM_ID, 0, i, padding, 1000 + (int64_t)i), 0);
        test_store_settle(&store);
    }
}

static void reopen(void) {
    test_store_close(&store);
    open_store();
}

static void finish(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- how much a read gives ---- */

static unsigned count_reads(int64_t offset) {
    struct stream_extent extent;
    for (unsigned reads = 0;; reads++) {
        cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, offset, 256 * KIB, NULL, &extent), 0);
        if (extent.size_bytes == 0)
            return reads;
        offset = extent.next_offset;
        stream_extent_release(&extent);
    }
}

/* The index is not there after a restart; without one a read finds no further than one batch. */
Test(reading, a_restart_does_not_make_reads_one_batch_each) {
    test_store_init(&store);
    open_store();
    append(0, 1000, 1000); /* 1 MB: 4 or 5 reads */
    reopen();
    cr_expect_lt(count_reads(0), 8);
    cr_expect_lt(count_reads(0), 8); /* by hints */
    cr_expect_lt(count_reads(1), 8);
    append(1000, 100, 1000); /* behind what was there at the start: not in the index before it */
    placer_flush(&store.stream->placer);
    cr_expect_lt(count_reads(500), 120);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 1100);
    finish();
}

/* What the warm pool does for a reader that asks for 128 KiB. */
Test(reading, warming_goes_by_the_range_asked_for) {
    test_store_init(&store);
    open_store();
    append(0, 300, 1000);
    reopen();
    struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    struct file_range range;
    cr_assert_eq(read_locate(partition, 0, 128 * KIB, true, &range), 0);
    cr_expect_gt(range.size_bytes, 90 * KIB);
    segment_unpin(range.segment);
    finish();
}

/* A reader is not kept waiting for the index of a whole large segment. */
Test(reading, the_index_is_made_as_far_as_it_is_needed) {
    test_store_init(&store);
    store.options.segment_size_bytes = 64 * KIB * KIB;
    open_store();
    append(0, 80, 500 * KIB); /* 40 MB */
    reopen();
    const struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    const struct index *index = &partition->segments[0]->index;
    struct stream_extent extent;
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 3, 256 * KIB, NULL, &extent), 0);
    stream_extent_release(&extent);
    cr_expect_gt(index->covered, 0);
    cr_expect_lt(index->covered, 20 * KIB * KIB);
    cr_expect_gt(index->from, 0);
    append(80, 4, 500 * KIB); /* a stretch of its own behind the gap */
    placer_flush(&store.stream->placer);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 70, 0), 14);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 84);
    cr_expect_eq(index->from, 0);
    finish();
}
