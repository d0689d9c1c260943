/* Reading what a store holds after a restart: how much at once, what waits for the disk and what
 * must not, and what a reader is told about damage. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/read.h"
#include "storage/local/walk.h"
#include "storage/local/watch.h"
#include "storage/verify.h"
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

static uint32_t index_entries(const struct partition *partition) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < partition->segment_count; i++)
        count += partition->segments[i]->index.count;
    return count;
}

/* Memory for the index of what nobody reads is given back, and nothing is read wrongly after. */
Test(reading, an_index_that_is_not_used_goes) {
    test_store_init(&store);
    store.options.segment_size_bytes = 1024 * KIB;
    open_store();
    append(0, 300, 12000); /* 3.6 MB in 4 segments */
    placer_flush(&store.stream->placer);
    const struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    uint32_t entries = index_entries(partition);
    cr_assert_gt(entries, 80);
    walk_forget_indexes(store.stream, 1024 * KIB); /* there is room for them */
    cr_expect_eq(index_entries(partition), entries);
    walk_forget_indexes(store.stream, 0);
    cr_expect_eq(index_entries(partition), 0);
    append(300, 5, 12000); /* the newest one goes on with a stretch of its own */
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 305);
    struct file_range range;
    cr_assert_eq(read_locate(partition_find(&store.stream->partitions, STREAM_ID, 0), 10, 64 * KIB,
                             true, &range),
                 0);
    segment_unpin(range.segment);
    walk_forget_indexes(store.stream, 0);
    cr_expect_gt(index_entries(partition), 0, "that of the first segment has just been used");
    walk_forget_indexes(store.stream, 0);
    placer_flush(&store.stream->placer);
    walk_forget_indexes(store.stream, 0);
    cr_expect_eq(index_entries(partition), 0);
    for (int64_t i = 0; i < 305; i += 61) {
        int64_t offset = -1, found_ms;
        cr_expect_eq(
            stream_find_time(store.stream, STREAM_ID, 0, 1000 + i, NULL, &offset, &found_ms), 0);
        cr_expect_eq(offset, i);
    }
    finish();
}

/* ---- the tail ---- */

/* From a reader that keeps up to one that the memory just still has; and behind it the file. */
Test(reading, a_long_tail_is_not_walked) {
    test_store_init(&store);
    store.options.journal_size_bytes = 64 * KIB * KIB;
    open_store();
    append(0, 6000, 200);
    placer_flush(&store.stream->placer);
    append(6000, 2000, 200); /* a part is in the file, and kept */
    struct stream_extent extent;
    for (int64_t offset = 7999; offset >= 0; offset -= 7) {
        cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, offset, 64 * KIB, NULL, &extent), 0);
        cr_assert(extent.memory);
        cr_assert_eq(extent.next_offset, offset + 1);
        stream_extent_release(&extent);
    }
    uint64_t started_ns = clock_monotonic_ns();
    for (int64_t i = 0; i < 1000; i++) {
        cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 7000 + i, 64 * KIB, NULL, &extent), 0);
        stream_extent_release(&extent);
    }
    /* Walked, it takes 76 us each; 20 leave room for sanitizers and a busy machine. */
    cr_expect_lt((clock_monotonic_ns() - started_ns) / 1000, 20000);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 8000);
    finish();
}

/* ---- what could not be read ---- */

static struct sys_table real_sys;

static ssize_t unreadable(int fd, void *data, size_t size, off_t position) {
    errno = EIO;
    return -1;
}

/* What RWF_NOWAIT says of a page that is not in memory. */
static ssize_t never_in_memory(int fd, const struct iovec *parts, int count, off_t position,
                               int flags) {
    errno = EAGAIN;
    return -1;
}

static struct worker {
    struct mailbox mailbox;
    struct stream_watcher *watcher;
    unsigned told;
} worker;

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    worker.told++;
}

static void start_worker(void) {
    cr_assert_eq(mailbox_init(&worker.mailbox, NULL), 0);
    cr_assert_eq(
        stream_watcher_create(store.stream, &worker.mailbox, on_advanced, NULL, &worker.watcher),
        0);
}

static void stop_worker(void) {
    stream_watcher_free(worker.watcher);
    mailbox_drain(&worker.mailbox);
    mailbox_free(&worker.mailbox);
}

/* Waits until the watcher is told; false when nobody does. */
static bool wait_until_told(void) {
    struct pollfd wait = {.fd = mailbox_fd(&worker.mailbox), .events = POLLIN};
    for (worker.told = 0; worker.told == 0;) {
        if (poll(&wait, 1, 5000) != 1)
            return false;
        mailbox_drain(&worker.mailbox);
    }
    return true;
}

/* Reads as a worker does: tries again whenever it is told that the range is in memory now. */
static int read_patiently(int64_t offset, struct stream_extent *ret_extent) {
    int err = DG_ERR_COLD;
    for (unsigned rounds = 0; rounds < 10 && err == DG_ERR_COLD; rounds++) {
        err = stream_read(store.stream, STREAM_ID, 0, offset, 64 * KIB, worker.watcher, ret_extent);
        if (err == DG_ERR_COLD)
            cr_assert(wait_until_told());
    }
    return err;
}

static void write_to_segment(int64_t base, off_t position, const void *bytes, size_t size) {
    char path[512];
    snprintf(path, sizeof(path), "%s/7/0/%020" PRId64 ".log", store.directory, base);
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && pwrite(fd, bytes, size, position) == (ssize_t)size);
    close(fd);
}

/* Position of the batch with this offset, when all have the same size. */
static off_t batch_position(int64_t base, unsigned count, int64_t offset) {
    const struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    return partition->segments[0]->end_bytes / count * (offset - base);
}

/* The records before the damaged batch are given; there the reader is told, as often as it asks. */
Test(reading, damage_is_told_where_it_begins) {
    test_store_init(&store);
    open_store();
    append(10, 80, 1000); /* as many digits in each key: batches of one size */
    placer_flush(&store.stream->placer);
    off_t position = batch_position(0, 80, 50);
    test_store_close(&store);
    write_to_segment(0, position + 16, "\xff", 1); /* the batch's magic */
    open_store();
    start_worker();
    struct stream_extent extent = {0};
    int64_t offset = 0;
    while (offset < 50) {
        cr_assert_eq(read_patiently(offset, &extent), 0, "at %" PRId64, offset);
        offset = extent.next_offset;
        stream_extent_release(&extent);
    }
    cr_expect_eq(offset, 50);
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(read_patiently(50, &extent), DG_ERR_CORRUPT);
    cr_expect_eq(read_patiently(60, &extent), DG_ERR_CORRUPT);
    stop_worker();
    finish();
}

Test(reading, an_unreadable_sector_is_told_and_tried_again) {
    test_store_init(&store);
    open_store();
    append(0, 20, 1000);
    reopen();
    start_worker();
    real_sys = sys;
    sys.pread = unreadable;
    sys.preadv2 = never_in_memory;
    struct stream_extent extent = {0};
    cr_expect_eq(read_patiently(10, &extent), DG_ERR_IO);
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 0, 10, 64 * KIB, worker.watcher, &extent),
                 DG_ERR_IO, "the disk is not asked again at once");
    sys = real_sys;
    usleep(1100000);
    cr_expect_eq(read_patiently(10, &extent), 0, "it was not for ever");
    stream_extent_release(&extent);
    stop_worker();
    finish();
}

/* Several readers of one place, or one that asks again and again, are one request to the disk. */
Test(reading, one_cold_range_is_warmed_once) {
    test_store_init(&store);
    open_store();
    append(0, 20, 1000);
    reopen();
    start_worker();
    struct warm_pool *pool = &store.stream->warm;
    pthread_mutex_lock(&pool->mutex); /* they cannot begin */
    struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    struct warm_job job = {.partition = partition,
                           .watch = watch_obtain(worker.watcher, partition),
                           .want = {.kind = WARM_RANGE, .at = 10}};
    cr_expect_eq(watch_begin_warming(job.watch, &job.want), 0);
    cr_expect_eq(warm_request(pool, &job), DG_ERR_COLD); /* does not take the mutex */
    pthread_mutex_unlock(&pool->mutex);
    stop_worker();
    finish();
}

/* ---- look-ups by time ---- */

static atomic_ullong bytes_read;
static pthread_t worker_thread;

static ssize_t count_bytes(int fd, void *data, size_t size, off_t position) {
    ssize_t count = real_sys.pread(fd, data, size, position);
    if (count > 0 && pthread_equal(pthread_self(), worker_thread))
        atomic_fetch_add(&bytes_read, (uint64_t)count);
    return count;
}

static int find_patiently(int64_t wanted_ms, int64_t *ret_offset, int64_t *ret_ms) {
    int err = DG_ERR_COLD;
    for (unsigned rounds = 0; rounds < 10 && err == DG_ERR_COLD; rounds++) {
        err = stream_find_time(store.stream, STREAM_ID, 0, wanted_ms, worker.watcher, ret_offset,
                               ret_ms);
        if (err == DG_ERR_COLD)
            cr_assert(wait_until_told());
    }
    return err;
}

/* Record i has the time 1000 + i. What the worker's thread reads itself, it reads without waiting.
 */
Test(reading, a_look_up_by_time_leaves_the_disk_to_the_pool) {
    test_store_init(&store);
    store.options.segment_size_bytes = 1024 * KIB;
    open_store();
    append(0, 300, 12000); /* 3.6 MB in 4 segments */
    reopen();
    start_worker();
    worker_thread = pthread_self();
    real_sys = sys;
    sys.pread = count_bytes;
    for (int64_t i = -1; i <= 300; i += 43) {
        int64_t offset = -1, found_ms = -1, expected = i < 0 ? 0 : i;
        int err = find_patiently(1000 + i, &offset, &found_ms);
        cr_expect_eq(err, i == 300 ? DG_ERR_NOT_FOUND : 0, "%s", dg_err_text(err));
        if (err == 0) {
            cr_expect_eq(offset, expected);
            cr_expect_eq(found_ms, 1000 + expected);
        }
    }
    cr_expect_eq(bytes_read, 0);
    sys = real_sys;
    stop_worker();
    finish();
}

/* The first record of all needs no index. */
Test(reading, a_look_up_of_the_oldest_time_reads_next_to_nothing) {
    test_store_init(&store);
    open_store();
    append(0, 300, 12000);
    reopen();
    worker_thread = pthread_self();
    real_sys = sys;
    sys.pread = count_bytes;
    int64_t offset = -1, found_ms = -1;
    cr_assert_eq(stream_find_time(store.stream, STREAM_ID, 0, 0, NULL, &offset, &found_ms), 0);
    cr_expect_eq(offset, 0);
    cr_expect_eq(found_ms, 1000);
    cr_expect_leq(bytes_read, 1024);
    sys = real_sys;
    finish();
}

/* All records of an idle partition are gone, and its newest segment has none yet. */
Test(reading, a_look_up_by_time_passes_over_an_empty_segment) {
    int64_t offset = -1, found_ms = -1;
    struct stream_offsets offsets = {.durable_end = -1};
    test_store_init(&store);
    store.options.segment_age_ms = store.options.retention_ms = 500;
    open_store();
    append(0, 5, 100);
    for (unsigned i = 0; i < 100 && offsets.log_start != offsets.durable_end; i++) {
        usleep(50000);
        stream_offsets(store.stream, STREAM_ID, 0, &offsets);
    }
    cr_assert_eq(offsets.log_start, 5);
    struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    cr_expect_eq(find_time(partition, 0, true, &offset, &found_ms), DG_ERR_NOT_FOUND);
    append(5, 1, 100);
    cr_expect_eq(find_time(partition, 0, true, &offset, &found_ms), 0);
    cr_expect_eq(offset, 5);
    finish();
}

/* ---- what is missing ---- */

/* Five records in each segment: bases 0, 5, 10, 15. */
static void make_segments(void) {
    test_store_init(&store);
    store.options.segment_size_bytes = 1024 * KIB;
    open_store();
    append(0, 20, 200000);
    test_store_close(&store);
}

static void segment_name(int64_t base, char *ret_path, size_t size) {
    snprintf(ret_path, size, "%s/7/0/%020" PRId64 ".log", store.directory, base);
}

/* Reads on from an offset as far as it can be read; returns where that ends and why. */
static int64_t read_on(int64_t offset, int *ret_err) {
    struct stream_extent extent;
    for (;;) {
        *ret_err = stream_read(store.stream, STREAM_ID, 0, offset, 4096 * KIB, NULL, &extent);
        if (*ret_err < 0 || extent.size_bytes == 0)
            return offset;
        offset = extent.next_offset;
        stream_extent_release(&extent);
    }
}

static void check_gap(int64_t from, int64_t to) {
    int err;
    open_store();
    cr_expect_eq(read_on(0, &err), from);
    cr_expect_eq(err, DG_ERR_CORRUPT, "%s", dg_err_text(err));
    cr_expect_eq(read_on(from, &err), from, "not skipped at the second try either");
    cr_expect_eq(read_on(to, &err), 20, "what lies behind is given");
    cr_expect_eq(err, 0);
    finish();
}

Test(reading, a_missing_segment_is_not_skipped_in_silence) {
    char path[512];
    make_segments();
    segment_name(5, path, sizeof(path));
    cr_assert_eq(unlink(path), 0);
    check_gap(5, 10);
}

Test(reading, a_cut_segment_is_not_skipped_in_silence) {
    char path[512];
    make_segments();
    segment_name(5, path, sizeof(path));
    cr_assert_eq(truncate(path, 500000), 0); /* in its third batch */
    check_gap(7, 10);
}

Test(reading, a_segment_cut_between_batches_is_not_skipped_in_silence) {
    char path[512];
    struct stat status;
    make_segments();
    segment_name(5, path, sizeof(path));
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(truncate(path, status.st_size / 5 * 2), 0);
    check_gap(7, 10);
}

static unsigned damages;

static void on_journal(void *context, const struct storage_journal_report *journal) {
}
static void on_partition(void *context, const struct storage_partition_report *partition) {
}
static void on_damage(void *context, const char *path, uint64_t position, const char *what) {
    damages++;
}

static int verify(char *ret_error) {
    struct storage_report report = {on_journal, on_partition, on_damage, NULL};
    damages = 0;
    return storage_verify(store.directory, &report, ret_error);
}

Test(reading, verification_sees_that_a_segment_is_missing) {
    for (int64_t base = 0; base < 20; base += 5) {
        char path[512], error[STORAGE_ERROR_SIZE];
        make_segments();
        cr_expect_eq(verify(error), 0, "%s", error);
        segment_name(base, path, sizeof(path));
        cr_assert_eq(unlink(path), 0);
        cr_expect_eq(verify(error), DG_ERR_CORRUPT, "%" PRId64, base);
        cr_expect_eq(damages, 1);
        test_store_remove(&store);
    }
}

/* ---- looking into a store that nobody has open ---- */

Test(reading, a_store_in_use_is_not_looked_into) {
    char error[STORAGE_ERROR_SIZE];
    const struct storage_dump_filter filter = {0};
    test_store_init(&store);
    open_store();
    append(0, 5, 100);
    cr_expect_eq(verify(error), DG_ERR_BUSY);
    cr_expect(strstr(error, "in use"), "%s", error);
    cr_expect_eq(storage_dump(store.directory, &filter, NULL, NULL, error), DG_ERR_BUSY);
    test_store_close(&store);
    cr_expect_eq(verify(error), 0, "%s", error);
    test_store_remove(&store);
}

static bool dumped[100];

static void note_record(void *context, uint64_t stream_id, uint32_t partition,
                        const struct record *record) {
    cr_assert_lt(record->offset, 100);
    dumped[record->offset] = true;
}

/* One batch is lost, whatever of it is damaged. */
Test(reading, a_dump_goes_on_behind_damage) {
    enum { RECORDS = 80, BAD = 50 };
    static const struct {
        const char *what;
        off_t at; /* in the batch */
        const char *bytes;
        size_t size;
    } cases[] = {{"the body", 200, "damaged", 7},
                 {"the magic", 16, "\xff", 1},
                 {"the length", 8, "\0\0\0\x01", 4},
                 {"a length beyond the file", 8, "\0\x0f\xff\xff", 4},
                 {"the whole header", 0, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char error[STORAGE_ERROR_SIZE];
        const struct storage_dump_filter filter = {0};
        test_store_init(&store);
        open_store();
        append(10, RECORDS, 1000); /* as many digits in each key: batches of one size */
        placer_flush(&store.stream->placer);
        off_t position = batch_position(0, RECORDS, BAD);
        test_store_close(&store);
        write_to_segment(0, position + cases[i].at, cases[i].bytes, cases[i].size);
        memset(dumped, 0, sizeof(dumped));
        cr_expect_eq(storage_dump(store.directory, &filter, note_record, NULL, error),
                     DG_ERR_CORRUPT);
        for (unsigned offset = 0; offset < RECORDS; offset++)
            cr_expect_eq(dumped[offset], offset != BAD, "%s: %u", cases[i].what, offset);
        cr_expect_eq(verify(error), DG_ERR_CORRUPT);
        cr_expect_eq(damages, 1, "%s", cases[i].what);
        test_store_remove(&store);
    }
}
