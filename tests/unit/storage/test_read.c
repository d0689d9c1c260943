/* Reading: from memory, from files, across segments; whole batches; cold ranges. */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "storage/record.h"
#include "support.h"

TestSuite(read, .fini = check_leaks);

enum { STREAM_ID = 7, PER_BATCH = 10 };

/* Batches of ten records of about a kilobyte. */
static void append_batches(struct test_store *store, unsigned from, unsigned to) {
    for (unsigned batch = from; batch < to; batch++) {
        for (unsigned i = 0; i < PER_BATCH; i++)
            cr_assert_eq(test_append(store, STREAM_ID, 0, batch * PER_BATCH + i, 1000, 1000), 0);
        test_store_settle(store);
    }
}

static void open_with(struct test_store *store, unsigned batches, uint64_t segment_size_bytes) {
    test_store_init(store);
    store->options.segment_size_bytes = segment_size_bytes;
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    append_batches(store, 0, batches);
}

static void reopen(struct test_store *store) {
    test_store_close(store);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
}

static void end(struct test_store *store) {
    test_store_close(store);
    test_store_remove(store);
}

static int read_at(struct test_store *store, int64_t offset, uint32_t max_bytes,
                   struct stream_extent *ret_extent) {
    return stream_read(store->stream, STREAM_ID, 0, offset, max_bytes, NULL, ret_extent);
}

static const uint8_t *bytes_of(const struct stream_extent *extent, uint8_t **ret_owned) {
    *ret_owned = NULL;
    if (extent->memory)
        return extent->memory;
    *ret_owned = malloc(extent->size_bytes);
    cr_assert_eq(pread(extent->fd, *ret_owned, extent->size_bytes, extent->position),
                 (ssize_t)extent->size_bytes);
    return *ret_owned;
}

/* Whole batches, the first one with offset in it, not more than asked for unless it is one. */
static void expect_extent(struct test_store *store, int64_t offset, uint32_t max_bytes) {
    struct stream_extent extent;
    cr_assert_eq(read_at(store, offset, max_bytes, &extent), 0);
    uint8_t *owned;
    struct reader r = reader_make(bytes_of(&extent, &owned), extent.size_bytes);
    int64_t next = offset / PER_BATCH * PER_BATCH;
    unsigned count = 0;
    for (; reader_left(&r) > 0; count++) {
        struct record_batch batch;
        cr_assert_eq(record_batch_read(&r, true, &batch), 0);
        cr_assert_eq(batch.base_offset, next);
        next += batch.record_count;
    }
    cr_expect_eq(extent.next_offset, next);
    cr_expect(count >= 1 && (count == 1 || extent.size_bytes <= max_bytes),
              "%u batches, %u bytes of %u at %d", count, extent.size_bytes, max_bytes, (int)offset);
    free(owned);
    stream_extent_release(&extent);
    cr_expect(extent.hold == NULL && extent.memory == NULL && extent.fd == -1);
}

static void expect_extents(struct test_store *store, int64_t records) {
    static const uint32_t max_bytes[] = {0, 1, 15000, 40000, 256 * 1024, UINT32_MAX};
    for (int64_t offset = 0; offset < records; offset += 7)
        for (size_t i = 0; i < COUNT_OF(max_bytes); i++)
            expect_extent(store, offset, max_bytes[i]);
}

Test(read, what_is_new_comes_from_memory) {
    struct test_store store;
    struct stream_extent extent;
    open_with(&store, 20, 1 << 22);
    expect_extents(&store, 200);
    cr_assert_eq(read_at(&store, 199, 1, &extent), 0);
    cr_expect_not_null(extent.memory);
    cr_expect_eq(extent.fd, -1);
    stream_extent_release(&extent);
    cr_assert_eq(read_at(&store, 200, 1, &extent), 0);
    cr_expect(extent.size_bytes == 0 && extent.next_offset == 200 && extent.hold == NULL);
    stream_extent_release(&extent);
    end(&store);
}

Test(read, what_is_old_comes_from_the_file) {
    struct test_store store;
    struct stream_extent extent;
    open_with(&store, 60, 1 << 22);
    reopen(&store);
    cr_assert_eq(read_at(&store, 0, UINT32_MAX, &extent), 0);
    cr_expect(extent.memory == NULL && extent.fd >= 0 && extent.position == 0);
    cr_expect_eq(extent.next_offset, 600);
    stream_extent_release(&extent);
    expect_extents(&store, 600);
    append_batches(&store, 60, 63); /* file, then memory */
    expect_extents(&store, 630);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 630);
    end(&store);
}

Test(read, goes_from_segment_to_segment) {
    struct test_store store;
    open_with(&store, 60, 100000); /* nine batches each */
    for (unsigned round = 0; round < 2; round++) {
        cr_expect(test_file_size(&store, test_segment_name(STREAM_ID, 0, 90)) > 0);
        expect_extents(&store, 600);
        for (int64_t from = 0; from < 600; from += 45)
            cr_expect_eq(test_read_all(&store, STREAM_ID, 0, from, 0), 600 - from);
        reopen(&store);
    }
    end(&store);
}

Test(read, outside_of_the_log_is_out_of_range) {
    struct test_store store;
    struct stream_extent extent;
    open_with(&store, 3, 1 << 22);
    struct log_start_key key = {.stream_id = STREAM_ID};
    int64_t start = 15;
    cr_assert_eq(test_mutate(&store, STATE_LOG_START, slice_make(&key, LOG_START_KEY_SIZE),
                             slice_make(&start, sizeof(start))),
                 0);
    append_batches(&store, 3, 4);
    static const struct {
        int64_t offset;
        int err;
    } cases[] = {{INT64_MIN, DG_ERR_OFFSET_OUT_OF_RANGE},
                 {-1, DG_ERR_OFFSET_OUT_OF_RANGE},
                 {0, DG_ERR_OFFSET_OUT_OF_RANGE},
                 {14, DG_ERR_OFFSET_OUT_OF_RANGE},
                 {15, 0},
                 {40, 0},
                 {41, DG_ERR_OFFSET_OUT_OF_RANGE},
                 {INT64_MAX, DG_ERR_OFFSET_OUT_OF_RANGE}};
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            int err = read_at(&store, cases[i].offset, 1, &extent);
            cr_expect_eq(err, cases[i].err, "case %zu", i);
            if (err == 0)
                stream_extent_release(&extent);
        }
        reopen(&store);
    }
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 99, 0, 1, NULL, &extent), 0);
    cr_expect_eq(extent.size_bytes, 0, "a partition without records is empty");
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 99, 1, 1, NULL, &extent),
                 DG_ERR_OFFSET_OUT_OF_RANGE);
    end(&store);
}

Test(read, a_damaged_header_is_reported_and_not_followed) {
    struct test_store store;
    struct stream_extent extent;
    open_with(&store, 60, 1 << 22);
    reopen(&store);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 0), 16); /* magic of the first batch */
    cr_expect_eq(read_at(&store, 300, 1, &extent), DG_ERR_CORRUPT);
    cr_expect_eq(read_at(&store, 0, 1, &extent), DG_ERR_CORRUPT);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 0), 16);
    cr_expect_eq(read_at(&store, 300, 1, &extent), 0);
    stream_extent_release(&extent);
    end(&store);
}

/* ---- cold ranges --------------------------------------------------------------------------------
 */

static struct sys_table real;
static atomic_bool is_warm;
static atomic_uint cold_calls;

static ssize_t cold_preadv2(int fd, const struct iovec *parts, int count, off_t position,
                            int flags) {
    if (atomic_load(&is_warm))
        return real.preadv2(fd, parts, count, position, 0);
    atomic_fetch_add(&cold_calls, 1);
    errno = EAGAIN;
    return -1;
}

/* Whoever waits for the disk brings the page in. */
static ssize_t warming_pread(int fd, void *data, size_t size, off_t position) {
    ssize_t count = real.pread(fd, data, size, position);
    if (size > 100000)
        atomic_store(&is_warm, true);
    return count;
}

static unsigned told;

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    cr_expect(stream_id == STREAM_ID && partition == 0);
    told++;
}

static void wait_until_told(struct test_store *store) {
    for (unsigned i = 0; i < 10 && told == 0; i++) {
        struct pollfd wait = {.fd = mailbox_fd(&store->mailbox), .events = POLLIN};
        poll(&wait, 1, 1000);
        mailbox_drain(&store->mailbox);
    }
    cr_assert_eq(told, 1);
    told = 0;
}

Test(read, a_cold_range_is_warmed_by_others_and_its_reader_told) {
    struct test_store store;
    struct stream_watcher *watcher;
    struct stream_extent extent;
    open_with(&store, 60, 1 << 22);
    test_store_close(&store);
    real = sys;
    sys.preadv2 = cold_preadv2;
    sys.pread = warming_pread;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    atomic_store(&is_warm, false); /* opening reads, too */
    cr_assert_eq(stream_watcher_create(store.stream, &store.mailbox, on_advanced, NULL, &watcher),
                 0);
    /* In the middle: first the index has to be built. */
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 300, 1 << 18, watcher, &extent),
                 DG_ERR_COLD);
    wait_until_told(&store);
    cr_assert(atomic_load(&is_warm));
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 300, 1 << 18, watcher, &extent), 0);
    cr_expect(extent.fd >= 0 && extent.next_offset > 300);
    stream_extent_release(&extent);
    atomic_store(&is_warm, false);
    atomic_store(&cold_calls, 0);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 0, 1 << 18, watcher, &extent),
                 DG_ERR_COLD);
    cr_expect(atomic_load(&cold_calls) > 0);
    wait_until_told(&store);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 0, 1 << 18, watcher, &extent), 0);
    stream_extent_release(&extent);
    stream_watcher_free(watcher);
    end(&store);
}

Test(read, without_a_watcher_the_caller_waits_for_the_disk) {
    struct test_store store;
    struct stream_extent extent;
    open_with(&store, 60, 1 << 22);
    reopen(&store);
    real = sys;
    sys.preadv2 = cold_preadv2;
    cr_assert_eq(read_at(&store, 300, 1 << 18, &extent), 0);
    cr_expect(extent.fd >= 0);
    stream_extent_release(&extent);
    end(&store);
}

static sem_t warming;

static ssize_t slow_pread(int fd, void *data, size_t size, off_t position) {
    sem_post(&warming);
    usleep(20000);
    return real.pread(fd, data, size, position);
}

/* A watcher may go while its range waits to be warmed, and while it is. */
Test(read, a_reader_that_leaves_is_not_told) {
    struct test_store store;
    struct stream_watcher *watcher;
    struct stream_extent extent;
    open_with(&store, 60, 1 << 22);
    reopen(&store);
    sem_init(&warming, 0, 0);
    real = sys;
    sys.preadv2 = cold_preadv2;
    sys.pread = slow_pread;
    cr_assert_eq(stream_watcher_create(store.stream, &store.mailbox, on_advanced, NULL, &watcher),
                 0);
    for (int64_t offset = 0; offset < 600; offset += 50)
        cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, offset, 1 << 18, watcher, &extent),
                     DG_ERR_COLD);
    sem_wait(&warming);
    stream_watcher_free(watcher);
    sys = real;
    mailbox_drain(&store.mailbox);
    cr_expect_eq(told, 0);
    end(&store);
}
