/* Partitions: when a segment is rolled, how times are kept from going back, look-ups. */
#include <criterion/criterion.h>

#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/record.h"
#include "support.h"

TestSuite(partition, .fini = check_leaks);

enum { STREAM_ID = 7 };

static struct test_store store;

static struct partition *partition_of(uint32_t number) {
    return partition_find(&store.stream->partitions, STREAM_ID, number);
}

static void open_store(uint64_t segment_size_bytes) {
    test_store_init(&store);
    store.options.segment_size_bytes = segment_size_bytes;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

static void close_store(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

Test(partition, map_has_one_object_for_each_key) {
    struct partition_map map;
    partition_map_init(&map);
    cr_expect_null(partition_find(&map, 1, 2));
    struct partition *partition = partition_obtain(&map, 1, 2);
    cr_assert_not_null(partition);
    cr_expect_eq(partition_obtain(&map, 1, 2), partition);
    cr_expect_eq(partition_find(&map, 1, 2), partition);
    cr_expect_neq(partition_obtain(&map, 2, 1), partition);
    cr_expect_neq(partition_obtain(&map, 1, 3), partition);
    cr_expect_not(atomic_load(&partition->exists));
    partition_map_free(&map);
}

Test(partition, segment_at_is_the_last_that_begins_at_or_before) {
    static const struct {
        int64_t offset;
        int index;
    } cases[] = {{0, -1}, {9, -1}, {10, 0}, {19, 0}, {20, 1}, {39, 1}, {40, 2}, {1000, 2}};
    struct partition_map map;
    struct segment_files files;
    partition_map_init(&map);
    segment_files_init(&files, "");
    struct partition *partition = partition_obtain(&map, 1, 0);
    cr_expect_null(partition_segment_at(partition, 0));
    for (int64_t base = 10; base <= 40; base *= 2)
        cr_assert(partition_list_segment(partition, segment_create(&files, 1, 0, base, 1)));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct segment *found = partition_segment_at(partition, cases[i].offset);
        cr_expect_eq(found, cases[i].index < 0 ? NULL : partition->segments[cases[i].index],
                     "case %zu", i);
    }
    partition_map_free(&map);
    segment_files_free(&files);
}

Test(partition, a_segment_is_rolled_before_it_gets_too_large) {
    open_store(50000);
    test_append_each(&store, STREAM_ID, 0, 0, 9, 11000);
    struct partition *partition = partition_of(0);
    cr_assert_eq(partition->segment_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect_eq(partition->segments[i]->base_offset, i * 4);
        cr_expect(partition->segments[i]->end_bytes <= 50000);
        cr_expect_eq(partition->segments[i]->sealed, i < 2);
    }
    test_append_each(&store, STREAM_ID, 0, 9, 11, 90000); /* larger than a segment: alone in one */
    cr_assert_eq(partition->segment_count, 5);
    cr_expect_eq(partition->segments[4]->base_offset, 10);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 11);
    close_store();
}

Test(partition, a_segment_is_rolled_when_it_is_old) {
    open_store(1 << 22);
    test_append_each(&store, STREAM_ID, 0, 0, 2, 100);
    struct partition *partition = partition_of(0);
    partition->write_segment->created_ms += 1000 * 1000; /* the clock went back */
    test_append_each(&store, STREAM_ID, 0, 2, 3, 100);
    cr_expect_eq(partition->segment_count, 1);
    partition->write_segment->created_ms -= 1000 * 1000 + store.options.segment_age_ms + 1;
    test_append_each(&store, STREAM_ID, 0, 3, 4, 100);
    cr_assert_eq(partition->segment_count, 2);
    cr_expect_eq(partition->segments[1]->base_offset, 3);
    cr_expect(partition->segments[0]->sealed && partition->segments[0]->sealed_ms > 0);
    test_append_each(&store, STREAM_ID, 0, 4, 5, 100);
    cr_expect_eq(partition->segment_count, 2);
    close_store();
}

static int64_t time_of(int64_t offset) {
    struct stream_extent extent;
    struct record_batch batch;
    struct record record;
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, offset, 1, NULL, &extent), 0);
    struct reader r = reader_make(extent.memory, extent.size_bytes);
    cr_assert_eq(record_batch_read(&r, true, &batch), 0);
    struct reader records = reader_make(batch.records.data, batch.records.size);
    cr_assert_eq(record_read(&batch, &records, &record), 0);
    stream_extent_release(&extent);
    return record.timestamp_ms;
}

/* The partition's time is that of its last batch; it survives a restart. */
Test(partition, times_never_go_back) {
    static const int64_t given[] = {1000, 500, 2000, 1999, -5, 2001, INT64_MIN},
                         stored[] = {1000, 1000, 2000, 2000, 2000, 2001, 2001};
    open_store(1 << 22);
    for (size_t i = 0; i < COUNT_OF(given); i++) {
        if (i == 4) {
            test_store_close(&store);
            cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
        }
        cr_assert_eq(test_append(&store, STREAM_ID, 0, i, 10, given[i]), 0);
        test_store_settle(&store);
        cr_expect_eq(time_of((int64_t)i), stored[i], "record %zu", i);
    }
    close_store();
}
