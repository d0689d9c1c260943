/* The placer: what was committed lies in the segment, at its place, whatever the sizes. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/scan.h"
#include "support.h"

TestSuite(placer, .fini = check_leaks);

enum { STREAM_ID = 7 };

static struct test_store store;

static void open_store(uint64_t segment_size_bytes) {
    test_store_init(&store);
    store.options.segment_size_bytes = segment_size_bytes;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

static void reopen(void) {
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

static void close_store(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

static struct partition *partition_of(uint32_t number) {
    return partition_find(&store.stream->partitions, STREAM_ID, number);
}

static const char *visit(void *context, const struct record_batch *batch) {
    int64_t *next = context;
    if (batch->base_offset != *next)
        return "another offset";
    *next += batch->record_count;
    return NULL;
}

static void on_damage(void *context, uint64_t position, const char *what) {
    cr_expect(false, "at %d: %s", (int)position, what);
}

/* The file holds exactly the batches [base, end). */
static void expect_file(uint32_t partition, int64_t base, int64_t end, uint64_t bytes) {
    char path[512];
    int64_t next = base;
    const struct scan_visitor visitor = {.batch = visit, .damage = on_damage, .context = &next};
    snprintf(path, sizeof(path), "%s/%s", store.directory,
             test_segment_name(STREAM_ID, partition, base));
    cr_expect_eq(scan_segment(path, &(struct scan_range){.limit_bytes = bytes}, &visitor), bytes);
    cr_expect_eq(next, end);
}

Test(placer, a_flush_places_everything) {
    open_store(1 << 22);
    for (uint32_t number = 0; number < 20; number++)
        for (unsigned i = 0; i < 5; i++)
            cr_assert_eq(test_append(&store, STREAM_ID, number, i, 700 * number, 1000), 0);
    test_store_settle(&store);
    placer_flush(&store.stream->placer);
    cr_expect_eq(atomic_load(&store.stream->placer.backlog_bytes), 0);
    for (uint32_t number = 0; number < 20; number++) {
        struct partition *partition = partition_of(number);
        cr_expect_null(tail_unplaced(&partition->tail));
        cr_expect_eq(partition->tail.unplaced_bytes, 0);
        struct segment *segment = partition->segments[0];
        cr_expect_eq(segment->placed_bytes, segment->end_bytes);
        expect_file(number, 0, 5, segment->end_bytes);
    }
    close_store();
}

/* The block in which one run ends and the next begins is written twice. */
Test(placer, runs_may_end_anywhere_in_a_block) {
    open_store(1 << 22);
    uint64_t number = 0;
    for (uint32_t padding = 0; padding < 12000; padding += 397) {
        test_append_each(&store, STREAM_ID, 0, number, number + 1, padding);
        number++;
        placer_flush(&store.stream->placer);
        struct segment *segment = partition_of(0)->segments[0];
        cr_assert_eq(segment->placed_bytes, segment->end_bytes);
        expect_file(0, 0, (int64_t)number, segment->end_bytes);
        if (padding % 5 == 0)
            reopen(); /* what lies before is read back */
    }
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number);
    close_store();
}

/* More than one write takes; batches as large as they get. */
Test(placer, long_tails_are_written_in_several_runs) {
    open_store(64 << 20);
    for (uint64_t number = 0; number < 6; number++)
        cr_assert_eq(test_append(&store, STREAM_ID, 0, number, 900000, 1000), 0);
    test_store_settle(&store);
    placer_flush(&store.stream->placer);
    expect_file(0, 0, 6, partition_of(0)->segments[0]->end_bytes);
    close_store();
}

Test(placer, a_complete_segment_gets_its_exact_size) {
    open_store(50000);
    test_append_each(&store, STREAM_ID, 0, 0, 12, 11000);
    placer_flush(&store.stream->placer);
    struct partition *partition = partition_of(0);
    cr_assert_eq(partition->segment_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const struct segment *segment = partition->segments[i];
        cr_expect_eq(segment->base_offset, i * 4);
        expect_file(0, i * 4, i * 4 + 4, segment->end_bytes);
        int64_t size = test_file_size(&store, test_segment_name(STREAM_ID, 0, i * 4));
        if (i < 2)
            cr_expect_eq(size, segment->end_bytes);
        else
            cr_expect_eq(size, (segment->end_bytes + 4095) / 4096 * 4096);
    }
    close_store();
}

/* Placed batches stay in memory for close readers, up to a limit. */
Test(placer, keeps_the_newest_batches_in_memory) {
    enum { COUNT = LIMIT_PLACER_RETAINED_BYTES / LIMIT_UNIT_BYTES + 3, PADDING = 263000 };
    struct stream_extent extent;
    open_store(64 << 20);
    test_append_each(&store, STREAM_ID, 0, 0, COUNT, PADDING);
    placer_flush(&store.stream->placer);
    cr_expect(store.stream->placer.retained_bytes <= LIMIT_PLACER_RETAINED_BYTES);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 0, 1, NULL, &extent), 0);
    cr_expect_null(extent.memory);
    stream_extent_release(&extent);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 3, 1, NULL, &extent), 0);
    cr_expect_not_null(extent.memory);
    /* A reader that holds a batch keeps it, whatever follows. */
    test_append_each(&store, STREAM_ID, 0, COUNT, COUNT + 2, PADDING);
    placer_flush(&store.stream->placer);
    struct reader r = reader_make(extent.memory, extent.size_bytes);
    struct record_batch batch;
    cr_expect_eq(record_batch_read(&r, true, &batch), 0);
    stream_extent_release(&extent);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), COUNT + 2);
    close_store();
}

static struct sys_table real;
static int journal_fd;

static ssize_t failing_pwrite(int fd, const void *data, size_t size, off_t position) {
    if (fd == journal_fd)
        return real.pwrite(fd, data, size, position);
    errno = EIO;
    return -1;
}

static void place_and_fail(void *context) {
    if (test_store_open(&store) < 0)
        _exit(1);
    journal_fd = store.stream->journal.fd;
    sys.pwrite = failing_pwrite;
    test_append_each(&store, STREAM_ID, 0, 0, 3, 100);
    placer_flush(&store.stream->placer);
    _exit(2);
}

/* They are acknowledged: the journal still has them. */
Test(placer, a_failed_write_ends_the_process_and_loses_nothing) {
    test_store_init(&store);
    real = sys;
    cr_expect_eq(test_exit_code(place_and_fail, NULL), DG_EXIT_STORAGE);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 3);
    close_store();
}
