/* What recovery makes of what a crash or a bad disk leaves. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "support.h"

TestSuite(recovery, .fini = check_leaks);

enum { STREAM_ID = 7, EXIT_AT_WRITE = 42 };

static void append(struct test_store *store, uint32_t partition, uint64_t number,
                   uint32_t padding) {
    cr_assert_eq(test_append(store, STREAM_ID, partition, number, padding, 1000), 0);
    test_store_settle(store);
}

/* The process ends in its next write, before anything of it reaches the file. */
static ssize_t ending_pwrite(int fd, const void *data, size_t size, off_t position) {
    _exit(EXIT_AT_WRITE);
}

/* Runs life in a process of its own, which must end by ending_pwrite(). */
static void run_until_write(struct test_store *store, void (*life)(struct test_store *store)) {
    pid_t child = fork();
    if (child == 0) {
        if (test_store_open(store) < 0)
            _exit(1);
        life(store);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_AT_WRITE);
}

static void roll_and_end(struct test_store *store) {
    append(store, 5, 0, 100000);
    append(store, 5, 1, 100000);
    sys.pwrite = ending_pwrite;
    append(store, 5, 2, 100000); /* creates the next segment, whose base is 2 */
}

/* A segment file of a group that never was must not stand between later ones. */
Test(recovery, leaves_no_file_of_a_roll_that_was_not_committed) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 256 * 1024;
    run_until_write(&store, roll_and_end);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_assert_eq(test_read_all(&store, STREAM_ID, 5, 0, 0), 2);
    append(&store, 5, 2, 1000);   /* fits in the first segment */
    append(&store, 5, 3, 100000); /* the next one begins at 3 */
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_assert_eq(test_read_all(&store, STREAM_ID, 5, 0, 0), 4);
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- after a crash: a copy of the files of a store that is still open --------------------------
 */

/* Opens a store, lets life work on it, and leaves in *ret_copy what a crash would have left. */
static void crash(struct test_store *ret_copy, uint64_t segment_size_bytes,
                  void (*life)(struct test_store *store)) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = segment_size_bytes;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    life(&store);
    test_store_copy(&store, ret_copy);
    test_store_close(&store);
    test_store_remove(&store);
}

static void reopen(struct test_store *store) {
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
}

/* Refused with this in the message, and every byte as before. */
static void expect_refused(struct test_store *store, int err, const char *why) {
    uint32_t before = test_store_digest(store);
    cr_expect_eq(test_store_open(store), err);
    cr_expect_not_null(strstr(store->error, why), "%s", store->error);
    cr_expect_eq(test_store_digest(store), before, "the files have changed");
}

static void remove_partition(const struct test_store *store, uint32_t partition) {
    char name[512];
    for (int64_t base = 0; base < 100; base++)
        if (test_file_size(store, test_segment_name(STREAM_ID, partition, base)) >= 0)
            test_file_remove(store, test_segment_name(STREAM_ID, partition, base));
    snprintf(name, sizeof(name), "%s/%d/%u", store->directory, STREAM_ID, partition);
    cr_assert_eq(rmdir(name), 0);
}

/* Each a group of one block. */
static void append_ten(struct test_store *store) {
    test_append_each(store, STREAM_ID, 0, 0, 10, 100);
}

Test(recovery, replays_into_a_partition_that_has_no_file_yet) {
    struct test_store store;
    crash(&store, 1 << 22, append_ten);
    remove_partition(&store, 0); /* the directory entry was not synced */
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 10);
    test_append_each(&store, STREAM_ID, 0, 10, 12, 100);
    cr_expect_eq(store.last_offset, 11);
    test_store_close(&store);
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 12);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(recovery, may_itself_be_interrupted_and_repeated) {
    struct test_store store, again;
    crash(&store, 1 << 22, append_ten);
    for (unsigned round = 0; round < 2; round++) {
        test_store_copy(&store, &again);
        /* The batches of another attempt, or nothing, lie where the journal's will be written. */
        test_file_resize(&again, test_segment_name(STREAM_ID, 0, 0), round * 1000);
        reopen(&again);
        cr_expect_eq(test_read_all(&again, STREAM_ID, 0, 0, 0), 10);
        test_store_close(&again);
        test_store_remove(&again);
    }
    test_store_remove(&store);
}

Test(recovery, clears_the_torn_last_group) {
    struct test_store store;
    uint8_t block[FORMAT_BLOCK], zeros[FORMAT_BLOCK] = {0};
    crash(&store, 1 << 22, append_ten);
    test_file_flip(&store, "journal", 9 * FORMAT_BLOCK + 150);
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 9);
    test_file_read(&store, "journal", 9 * FORMAT_BLOCK, block, sizeof(block));
    cr_expect_eq(memcmp(block, zeros, sizeof(block)), 0, "it could come back to life");
    test_append_each(&store, STREAM_ID, 0, 9, 10, 50);
    cr_expect_eq(store.last_offset, 9);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 10);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(recovery, refuses_a_damaged_group_in_the_middle) {
    struct test_store store;
    crash(&store, 1 << 22, append_ten);
    for (unsigned group = 0; group < 9; group += 4) {
        test_file_flip(&store, "journal", group * FORMAT_BLOCK + 150);
        expect_refused(&store, DG_ERR_CORRUPT, "the journal is damaged at position");
        test_file_flip(&store, "journal", group * FORMAT_BLOCK + 150);
    }
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 10);
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- segments against the checkpoint ------------------------------------------------------------
 */

static void make_closed(struct test_store *store, unsigned records, uint32_t padding,
                        uint64_t segment_size_bytes) {
    test_store_init(store);
    store->options.segment_size_bytes = segment_size_bytes;
    reopen(store);
    test_append_each(store, STREAM_ID, 0, 0, records, padding);
    test_store_close(store);
}

Test(recovery, cuts_what_the_newest_segment_has_too_much) {
    static uint8_t garbage[100000];
    struct test_store store;
    make_closed(&store, 10, 100, 1 << 22);
    const char *name = test_segment_name(STREAM_ID, 0, 0);
    int64_t size = test_file_size(&store, name);
    memset(garbage, 0x5a, sizeof(garbage));
    test_file_write(&store, name, size, garbage, sizeof(garbage));
    test_file_write(&store, "7/0/00000000000000000010.log", 0, garbage, 100);
    test_file_write(&store, "7/0/00000000000000000099.log", 0, garbage, 100);
    reopen(&store);
    cr_expect_eq(test_file_size(&store, "7/0/00000000000000000010.log"), -1);
    cr_expect_eq(test_file_size(&store, "7/0/00000000000000000099.log"), -1);
    cr_expect(test_file_size(&store, name) <= size);
    test_append_each(&store, STREAM_ID, 0, 10, 20, 100);
    test_store_close(&store);
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 20);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(recovery, refuses_a_newest_segment_that_is_too_short_or_missing) {
    struct test_store store;
    make_closed(&store, 10, 1000, 1 << 22);
    const char *name = test_segment_name(STREAM_ID, 0, 0);
    test_file_resize(&store, name, 10 * 1000);
    expect_refused(&store, DG_ERR_CORRUPT, "the checkpoint says");
    test_file_remove(&store, name);
    expect_refused(&store, DG_ERR_CORRUPT, "is missing");
    char directory[512];
    snprintf(directory, sizeof(directory), "%s/7/0", store.directory);
    cr_assert_eq(rmdir(directory), 0);
    expect_refused(&store, DG_ERR_CORRUPT, "7/0");
    test_store_remove(&store);
}

Test(recovery, refuses_a_store_without_a_checkpoint_it_can_believe) {
    struct test_store store;
    make_closed(&store, 10, 100, 1 << 22);
    test_file_flip(&store, "checkpoint", 70);
    expect_refused(&store, DG_ERR_CORRUPT, "checkpoint");
    test_file_remove(&store, "checkpoint");
    expect_refused(&store, DG_ERR_CORRUPT, "checkpoint");
    test_store_remove(&store);
}

/* With a CRC that holds, but an entry that is cut off: there is a reason for people in any case. */
Test(recovery, refuses_malformed_state_and_says_why) {
    struct test_store store;
    uint8_t bytes[512];
    make_closed(&store, 1, 100, 1 << 22);
    size_t size = (size_t)test_file_size(&store, "checkpoint") + 8;
    cr_assert(size < sizeof(bytes));
    test_file_read(&store, "checkpoint", 0, bytes, size - 8);
    memset(bytes + size - 12, 0, 8); /* an LSN and nothing more */
    struct format_checkpoint header;
    memcpy(&header, bytes, sizeof(header));
    header.total_bytes = size;
    header.state_count = 1;
    memcpy(bytes, &header, sizeof(header));
    uint32_t crc = crc32c_update(0, bytes, size - 4);
    memcpy(bytes + size - 4, &crc, sizeof(crc));
    test_file_write(&store, "checkpoint", 0, bytes, size);
    snprintf(store.error, sizeof(store.error), "%s", "of an earlier call");
    expect_refused(&store, DG_ERR_CORRUPT, store.directory);
    test_store_remove(&store);
}

/* ---- what the journal's groups do ---------------------------------------------------------------
 */

static void roll_three_times(struct test_store *store) {
    test_append_each(store, STREAM_ID, 0, 0, 8, 100000); /* two in a segment */
    test_append_each(store, STREAM_ID, 3, 0, 1, 100);
}

Test(recovery, replays_rolls_and_new_partitions) {
    static const int64_t bases[] = {0, 2, 4, 6};
    enum { AS_WRITTEN, WITHOUT_FILES, LONGER, WAYS };
    for (unsigned way = 0; way < WAYS; way++) {
        struct test_store store;
        crash(&store, 220000, roll_three_times);
        if (way == WITHOUT_FILES) {
            remove_partition(&store, 0);
            remove_partition(&store, 3);
        } else if (way == LONGER) { /* what an unsynced write may have left */
            test_file_resize(&store, test_segment_name(STREAM_ID, 0, 2), 300000);
        }
        reopen(&store);
        const struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
        cr_assert_eq(partition->segment_count, COUNT_OF(bases));
        for (size_t i = 0; i < COUNT_OF(bases); i++) {
            cr_expect_eq(partition->segments[i]->sealed, i < 3);
            int64_t more = test_file_size(&store, test_segment_name(STREAM_ID, 0, bases[i])) -
                           partition->segments[i]->end_bytes;
            cr_expect(more == 0 || (i == 3 && more > 0 && more < FORMAT_BLOCK), "%d", (int)more);
        }
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 8);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 3, 0, 0), 1);
        test_append_each(&store, STREAM_ID, 0, 8, 9, 100000);
        cr_expect_eq(test_file_size(&store, test_segment_name(STREAM_ID, 0, 7)), -1);
        test_store_close(&store);
        reopen(&store);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 9);
        test_store_close(&store);
        test_store_remove(&store);
    }
}

static void mutate(struct test_store *store, uint8_t name_space, const void *key, size_t key_size,
                   const void *value, size_t size) {
    int err =
        value ? test_mutate(store, name_space, slice_make(key, key_size), slice_make(value, size))
              : test_forget(store, name_space, slice_make(key, key_size));
    cr_assert_eq(err, 0);
}

/* Log start 4, then an older one again; a state entry set and one deleted. */
static void mutate_some(struct test_store *store) {
    struct log_start_key key = {.stream_id = STREAM_ID};
    test_append_each(store, STREAM_ID, 0, 0, 6, 100);
    for (int64_t start = 4; start >= 2; start -= 2) {
        mutate(store, STATE_LOG_START, &key, LOG_START_KEY_SIZE, &start, sizeof(start));
        mutate(store, STREAM_STATE_QOS2, "kept", 4, &start, sizeof(start));
        if (start == 4)
            mutate(store, STREAM_STATE_QOS2, "gone", 4, "x", 1);
        else
            mutate(store, STREAM_STATE_QOS2, "gone", 4, NULL, 0);
        test_append_each(store, STREAM_ID, 0, start == 4 ? 6 : 7, start == 4 ? 7 : 8, 100);
    }
}

static void expect_mutated(struct test_store *store) {
    struct stream_offsets offsets;
    uint8_t value[8];
    int64_t two = 2;
    size_t size;
    stream_offsets(store->stream, STREAM_ID, 0, &offsets);
    cr_expect_eq(offsets.log_start, 4);
    cr_expect_eq(offsets.durable_end, 8);
    cr_assert_eq(test_get(&store->stream->state, STREAM_STATE_QOS2, slice_from_string("kept"),
                          value, sizeof(value), &size),
                 0);
    cr_expect(size == 8 && memcmp(value, &two, 8) == 0);
    cr_expect_eq(test_get(&store->stream->state, STREAM_STATE_QOS2, slice_from_string("gone"),
                          value, sizeof(value), &size),
                 DG_ERR_NOT_FOUND);
}

Test(recovery, replays_mutations_and_keeps_them_in_the_next_checkpoint) {
    struct test_store store;
    crash(&store, 1 << 22, mutate_some);
    for (unsigned round = 0; round < 2; round++) { /* from the journal, from the checkpoint */
        reopen(&store);
        expect_mutated(&store);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 4, 0), 4);
        test_store_close(&store);
    }
    test_store_remove(&store);
}

static struct sys_table real;

static ssize_t full_pwrite(int fd, const void *data, size_t size, off_t position) {
    errno = ENOSPC;
    return -1;
}

static int full_open(const char *path, int flags, mode_t mode) {
    if (flags & O_CREAT && strstr(path, ".log")) {
        errno = ENOSPC;
        return -1;
    }
    return real.open(path, flags, mode);
}

Test(recovery, without_room_the_start_is_refused_and_may_be_repeated) {
    struct test_store store;
    crash(&store, 1 << 22, append_ten);
    remove_partition(&store, 0);
    real = sys;
    sys.open = full_open;
    cr_expect_eq(test_store_open(&store), DG_ERR_STORAGE_FULL);
    cr_expect_not_null(strstr(store.error, "no room"), "%s", store.error);
    sys = real;
    sys.pwrite = full_pwrite;
    cr_expect_eq(test_store_open(&store), DG_ERR_STORAGE_FULL);
    sys = real;
    reopen(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 10);
    test_store_close(&store);
    test_store_remove(&store);
}
