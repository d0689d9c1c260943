/* What a start makes of an ordinary stop, a power cut, a full disk and few descriptors. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "support.h"

TestSuite(restart, .timeout = 60);

enum { STREAM_ID = 7 };

static void append(struct test_store *store, uint32_t partition, uint64_t number,
                   uint32_t padding) {
    cr_assert_eq(test_append(store, STREAM_ID, partition, number, padding, 1000), 0);
    test_store_settle(store);
}

static void open_store(struct test_store *store) {
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
}

static void segment_path_of(const struct test_store *store, uint32_t partition, int64_t base,
                            char *ret_path, size_t size) {
    snprintf(ret_path, size, "%s/%d/%" PRIu32 "/%020" PRId64 ".log", store->directory, STREAM_ID,
             partition, base);
}

/* ---- the last block -----------------------------------------------------------------------------
 */

static off_t file_size(const char *path) {
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    return status.st_size;
}

/* What a power cut makes of the physical sector that was being written. */
static void tear_block(const char *path, off_t position) {
    uint8_t garbage[FORMAT_BLOCK];
    memset(garbage, 0xee, sizeof(garbage));
    int fd = open(path, O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, garbage, sizeof(garbage), position / FORMAT_BLOCK * FORMAT_BLOCK),
                 FORMAT_BLOCK);
    close(fd);
}

/* The journal does not have these records any more. */
Test(restart, gives_back_a_torn_last_block) {
    static const uint32_t paddings[] = {10, 3000, 100, 8000, 1};
    struct test_store store;
    char path[512];
    test_store_init(&store);
    segment_path_of(&store, 0, 0, path, sizeof(path));
    uint64_t number = 0;
    for (size_t i = 0; i < sizeof(paddings) / sizeof(paddings[0]); i++) {
        open_store(&store);
        append(&store, 0, number++, paddings[i]);
        test_store_close(&store);
        tear_block(path, file_size(path) - 1);
        open_store(&store);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number);
        append(&store, 0, number++, 50);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number);
        test_store_close(&store);
    }
    test_store_remove(&store);
}

static atomic_uint renames_seen;
static struct sys_table real_sys;
static int counting_rename(const char *from, const char *to) {
    int result = real_sys.rename(from, to);
    atomic_fetch_add(&renames_seen, 1);
    return result;
}

static void take_checkpoint(struct test_store *store) {
    real_sys = sys;
    atomic_store(&renames_seen, 0);
    sys.rename = counting_rename;
    checkpointer_request(&store->stream->checkpointer);
    while (atomic_load(&renames_seen) == 0)
        usleep(1000);
    usleep(20000); /* the directory's sync */
    sys = real_sys;
}

/* A process that ends without a last checkpoint: its first records only a checkpoint covers, then
 * some that the journal has. */
static void live_and_end(struct test_store *store, uint64_t first, uint32_t padding) {
    pid_t child = fork();
    if (child == 0) {
        open_store(store);
        append(store, 0, first, 100);
        take_checkpoint(store);
        append(store, 0, first + 1, padding);
        append(store, 1, first / 2, padding); /* a partition that only the journal knows */
        placer_flush(&store->stream->placer);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ... and the journal's records are put behind what the checkpoint gives back, twice. */
Test(restart, gives_back_a_torn_block_that_has_grown_since_the_checkpoint) {
    static const uint32_t paddings[] = {50, 3900, 5000};
    for (size_t i = 0; i < sizeof(paddings) / sizeof(paddings[0]); i++) {
        struct test_store store;
        char path[512];
        test_store_init(&store);
        segment_path_of(&store, 0, 0, path, sizeof(path));
        live_and_end(&store, 0, paddings[i]);
        tear_block(path, 0);
        live_and_end(&store, 2, paddings[i]);
        tear_block(path, file_size(path) - 1);
        open_store(&store);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 4);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 1, 0, 0), 2);
        test_store_close(&store);
        test_store_remove(&store);
    }
}

/* The checkpoint's bytes come from the file when the placer is already further. */
Test(restart, checkpoint_has_the_block_that_the_placer_has_left) {
    struct test_store store;
    uint8_t kept[FORMAT_BLOCK];
    test_store_init(&store);
    open_store(&store);
    append(&store, 0, 0, 100);
    placer_flush(&store.stream->placer);
    struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    uint32_t end = partition->applied.segment_bytes;
    cr_expect(partition_copy_last_block(partition, 0, end, kept));
    cr_expect_not(partition_copy_last_block(partition, 0, end + 1, kept), "not placed");
    cr_expect_not(partition_copy_last_block(partition, 1, end, kept), "another segment");
    partition_keep_last_block(partition, 0, end + FORMAT_BLOCK, kept);
    cr_expect_not(partition_copy_last_block(partition, 0, end, kept), "another block");
    test_store_close(&store); /* takes a checkpoint */
    char path[512];
    segment_path_of(&store, 0, 0, path, sizeof(path));
    tear_block(path, 0);
    open_store(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 1);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(restart, refuses_another_format_and_says_which) {
    struct test_store store;
    char path[512];
    uint32_t version = 1; /* its checkpoints have no last blocks */
    test_store_init(&store);
    open_store(&store);
    test_store_close(&store);
    snprintf(path, sizeof(path), "%s/format", store.directory);
    int fd = open(path, O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, &version, sizeof(version), offsetof(struct format_store, version)),
                 sizeof(version));
    close(fd);
    cr_expect_eq(test_store_open(&store), DG_ERR_UNSUPPORTED_VERSION);
    cr_expect(strstr(store.error, "format 1; this version reads formats 2 and 3"), "%s",
              store.error);
    test_store_remove(&store);
}

/* ---- descriptors --------------------------------------------------------------------------------
 */

enum { DESCRIPTORS = 1024, MANY_PARTITIONS = DESCRIPTORS + 100 };

static void write_to_many(struct test_store *store) {
    for (uint32_t i = 0; i < MANY_PARTITIONS; i++) {
        uint64_t stream_id = STREAM_ID + i / LIMIT_PARTITIONS_PER_STREAM;
        while (test_append(store, stream_id, i % LIMIT_PARTITIONS_PER_STREAM, 0, 10, 1) < 0)
            test_store_settle(store);
    }
    test_store_settle(store);
}

static int count_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* A life in a process that has few descriptors; returns how it ends. */
static int live_with_few_descriptors(struct test_store *store, bool writes, bool ends) {
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = DESCRIPTORS, .rlim_max = DESCRIPTORS};
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || test_store_open(store) < 0)
            _exit(3);
        if (writes)
            write_to_many(store);
        if (ends)
            _exit(0);
        test_store_close(store);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* More partitions than descriptors: neither a clean start nor a replay holds one for each. */
Test(restart, opens_with_the_descriptors_it_was_written_with) {
    struct test_store store;
    test_store_init(&store);
    cr_assert_eq(live_with_few_descriptors(&store, true, true), 0);
    cr_expect_eq(live_with_few_descriptors(&store, false, false), 0, "after a crash");
    cr_expect_eq(live_with_few_descriptors(&store, false, false), 0, "after a clean stop");
    test_store_remove(&store);
}

/* Descriptors are what is limited: a segment that is written has two. */
Test(restart, counts_both_descriptors_of_a_written_segment) {
    struct test_store store;
    test_store_init(&store);
    open_store(&store);
    int before = count_descriptors();
    store.stream->files.open_max = 10;
    for (uint32_t partition = 0; partition < 40; partition++)
        append(&store, partition, 0, 100);
    placer_flush(&store.stream->placer);
    cr_expect_leq(count_descriptors() - before, 10 + 2);
    test_store_close(&store);
    test_store_remove(&store);
}

/* Connections have taken all descriptors, for a moment or for good: the engine waits or refuses and
 * makes do with its own, it does not end. */
static void take_all_descriptors(int ret_fds[2]) {
    int fd;
    ret_fds[0] = ret_fds[1] = -1;
    while ((fd = dup(0)) >= 0) {
        ret_fds[0] = ret_fds[0] < 0 ? fd : ret_fds[0];
        ret_fds[1] = fd;
    }
}

static void live_without_descriptors(struct test_store *store) {
    struct rlimit limit = {.rlim_cur = 200, .rlim_max = 200};
    int fds[2];
    open_store(store);
    for (uint32_t partition = 0; partition < 4; partition++)
        append(store, partition, 0, 100); /* new files, not synced */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    take_all_descriptors(fds);
    checkpointer_request(&store->stream->checkpointer);
    usleep(300000);
    for (uint64_t number = 1; number < 5; number++)
        for (uint32_t partition = 0; partition < 4; partition++)
            append(store, partition, number, 100);
    cr_assert_eq(store->acked, 20);
    append(store, 9, 0, 100); /* for a new file there may be none */
    uint64_t refused = store->refused;
    close(fds[1]);
    close(fds[1] - 1);
    for (unsigned i = 0; i < 100 && store->acked == 20; i++) {
        usleep(20000);
        append(store, 9, 0, 100);
    }
    cr_assert(store->acked == 21 && refused <= 1);
    for (int fd = fds[0]; fd < fds[1] - 1; fd++)
        close(fd);
    test_store_close(store);
}

Test(restart, lack_of_descriptors_does_not_end_the_process) {
    struct test_store store;
    test_store_init(&store);
    pid_t child = fork();
    if (child == 0) {
        live_without_descriptors(&store);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    open_store(&store);
    for (uint32_t partition = 0; partition < 4; partition++)
        cr_expect_eq(test_read_all(&store, STREAM_ID, partition, 0, 0), 5);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 9, 0, 0), 1);
    test_store_close(&store);
    test_store_remove(&store);
}

/* A start after a clean stop changes no segment: that would cost a sync for each. */
static atomic_uint truncations, data_syncs;
static int counting_ftruncate(int fd, off_t size) {
    atomic_fetch_add(&truncations, 1);
    return real_sys.ftruncate(fd, size);
}
static int counting_fdatasync(int fd) {
    atomic_fetch_add(&data_syncs, 1);
    return real_sys.fdatasync(fd);
}

Test(restart, clean_start_leaves_segments_alone) {
    struct test_store store;
    test_store_init(&store);
    for (unsigned life = 0; life < 2; life++) {
        real_sys = sys;
        if (life == 1) {
            sys.ftruncate = counting_ftruncate;
            sys.fdatasync = counting_fdatasync;
        }
        open_store(&store);
        sys = real_sys;
        for (uint32_t partition = 0; life == 0 && partition < 20; partition++)
            append(&store, partition, 0, 100);
        test_store_close(&store);
    }
    cr_expect_eq(atomic_load(&truncations), 0);
    cr_expect_eq(atomic_load(&data_syncs), 0);
    test_store_remove(&store);
}

/* ---- a full disk --------------------------------------------------------------------------------
 */

static atomic_bool is_full;
static int full_rename(const char *from, const char *to) {
    if (!atomic_load(&is_full))
        return real_sys.rename(from, to);
    errno = ENOSPC;
    return -1;
}

/* No checkpoint is written any more until is_full is cleared. */
static void fill_disk(void) {
    real_sys = sys;
    sys.rename = full_rename;
    atomic_store(&is_full, true);
}

/* Until the journal is full, to the last block. Returns how many records were acknowledged. */
static uint64_t fill_journal(struct test_store *store, uint32_t partition) {
    static const uint32_t paddings[] = {200000, 20000, 10};
    uint64_t number = 0;
    for (size_t i = 0; i < sizeof(paddings) / sizeof(paddings[0]); i++)
        for (store->acked = store->refused = 0; store->refused == 0; number += store->refused == 0)
            append(store, partition, number, paddings[i]);
    return number;
}

/* Journal and checkpoint are good, so it can be read, and what makes room can begin. What is
 * cleared after the journal's end must not be its beginning. */
Test(restart, opens_on_a_full_disk_with_a_full_journal) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 64 * 1024 * 1024;
    open_store(&store);
    fill_disk();
    int64_t count = (int64_t)fill_journal(&store, 0);
    test_store_close(&store);
    for (unsigned i = 0; i < 2; i++) {
        open_store(&store);
        struct stream_health health;
        stream_health(store.stream, &health);
        cr_expect(health.storage_full);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), count);
        store.refused = 0;
        append(&store, 0, (uint64_t)count, 100000);
        cr_expect_eq(store.refused, 1);
        test_store_close(&store);
    }
    open_store(&store);
    atomic_store(&is_full, false); /* room is back, and it goes on by itself */
    for (unsigned i = 0; i < 100 && atomic_load(&store.stream->checkpointer.has_failed); i++)
        usleep(50000);
    store.refused = 0;
    append(&store, 0, (uint64_t)count, 100000);
    cr_expect_eq(store.refused, 0);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), count + 1);
    test_store_close(&store);
    test_store_remove(&store);
}

/* Someone else may take space that is given back before the journal's batches are in it. */
Test(restart, gives_no_reserved_space_back_before_it_is_needed) {
    struct test_store store;
    test_store_init(&store);
    live_and_end(&store, 0, 100000);
    real_sys = sys;
    sys.ftruncate = counting_ftruncate;
    open_store(&store);
    sys = real_sys;
    cr_expect_eq(atomic_load(&truncations), 0);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 2);
    test_store_close(&store);
    test_store_remove(&store);
}

/* What a segment holds has its space; only what comes is asked for. */
static int little_free(int fd, struct statvfs *status) {
    *status = (struct statvfs){.f_frsize = 4096, .f_bavail = 512}; /* 2 MiB */
    return 0;
}

Test(restart, does_not_ask_for_a_segment_s_space_twice) {
    struct test_store store;
    test_store_init(&store);
    open_store(&store);
    for (uint64_t i = 0; i < 15; i++)
        append(&store, 0, i, 200000);
    test_store_close(&store);
    live_and_end(&store, 15, 900000); /* 15 in the checkpoint, 16 in the journal */
    real_sys = sys;
    sys.fstatvfs = little_free;
    open_store(&store);
    store.acked = 0;
    append(&store, 0, 17, 100);
    cr_expect_eq(store.acked, 1, "%s", dg_err_text(store.last_err));
    sys = real_sys;
    test_store_close(&store);
    test_store_remove(&store);
}

static int64_t log_start(const struct test_store *store) {
    struct stream_offsets offsets;
    stream_offsets(store->stream, STREAM_ID, 0, &offsets);
    return offsets.log_start;
}

/* A log start that was refused is asked for again: retention is what makes room. */
Test(restart, retention_goes_on_after_the_disk_was_full) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 1024 * 1024;
    open_store(&store);
    fill_disk();
    fill_journal(&store, 0);
    store.options.retention_bytes = 1024 * 1024;
    stream_reconfigure(store.stream, &store.options);
    usleep(1200000); /* two ticks: it is refused */
    cr_assert_eq(log_start(&store), 0);
    atomic_store(&is_full, false);
    for (unsigned i = 0; i < 60 && log_start(&store) == 0; i++)
        usleep(50000);
    cr_expect_gt(log_start(&store), 0, "3 s after room came back");
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- creation -----------------------------------------------------------------------------------
 */

static struct stat parent_status;
static atomic_bool parent_is_synced;
static int watching_fsync(int fd) {
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_dev == parent_status.st_dev &&
        status.st_ino == parent_status.st_ino)
        atomic_store(&parent_is_synced, true);
    return real_sys.fsync(fd);
}

Test(restart, a_new_store_s_own_name_is_durable) {
    struct test_store store;
    char parent[sizeof(store.directory)];
    test_store_init(&store);
    strcpy(parent, store.directory);
    cr_assert_eq(stat(parent, &parent_status), 0);
    strcat(store.directory, "/store");
    real_sys = sys;
    sys.fsync = watching_fsync;
    open_store(&store);
    cr_expect(atomic_load(&parent_is_synced));
    test_store_close(&store);
    strcpy(store.directory, parent);
    test_store_remove(&store);
}

/* ---- limits of a checkpoint ---------------------------------------------------------------------
 */

static bool store_state(struct test_store *store, unsigned key, bool is_delete) {
    char name[16], value[100] = {0};
    snprintf(name, sizeof(name), "%u", key);
    struct stream_mutation mutation = {.name_space = STREAM_STATE_CONSUMER,
                                       .is_delete = is_delete,
                                       .key = slice_from_string(name),
                                       .value = slice_make(value, is_delete ? 0 : sizeof(value))};
    store->refused = 0;
    cr_assert_eq(stream_mutate(store->appender, &mutation, 1, (struct stream_ticket){0}), 0);
    test_store_settle(store);
    cr_assert(store->refused == 0 || store->last_err == DG_ERR_STORAGE_FULL);
    return store->refused == 0;
}

/* What no checkpoint that can be read again has room for is refused before it is stored. */
Test(restart, state_that_a_checkpoint_cannot_hold_is_refused) {
    struct test_store store;
    test_store_init(&store);
    open_store(&store);
    store.stream->state.bytes_max = 1000;
    unsigned count = 0;
    while (count < 100 && store_state(&store, count, false))
        count++;
    cr_expect(count > 5 && count < 15, "%u", count);
    cr_expect_eq(store.stream->state.count, count);
    store.refused = 0;
    append(&store, 0, 0, 10);
    cr_expect_eq(store.refused, 0, "events without state go on");
    cr_expect(store_state(&store, 0, true), "what makes room is taken");
    cr_expect(store_state(&store, count, false));
    test_store_close(&store);
    test_store_remove(&store);
}

Test(restart, partitions_that_a_checkpoint_cannot_hold_are_refused) {
    struct test_store store;
    test_store_init(&store);
    for (unsigned life = 0; life < 2; life++) {
        open_store(&store);
        store.stream->partitions.used_max = 3;
        for (uint32_t partition = 0; partition < 5; partition++) {
            store.refused = 0;
            append(&store, partition, 0, 10);
            cr_expect_eq(store.refused, partition < 3 ? 0 : 1);
            cr_expect(store.refused == 0 || store.last_err == DG_ERR_STORAGE_FULL);
        }
        test_store_close(&store);
    }
    test_store_remove(&store);
}

/* ---- an idle partition --------------------------------------------------------------------------
 */

static unsigned count_segments(struct test_store *store) {
    struct partition *partition = partition_find(&store->stream->partitions, STREAM_ID, 0);
    pthread_mutex_lock(&partition->mutex);
    unsigned count = partition->segment_count;
    pthread_mutex_unlock(&partition->mutex);
    return count;
}

static void wait_until_empty(struct test_store *store, int64_t end) {
    for (unsigned i = 0; i < 100 && (log_start(store) < end || count_segments(store) > 1); i++)
        usleep(50000);
    cr_assert_eq(log_start(store), end);
    cr_assert_eq(count_segments(store), 1);
}

/* What is written once must not stay for ever; and the offsets go on. */
Test(restart, an_idle_partition_s_records_expire) {
    struct test_store store;
    char first[512], second[512];
    test_store_init(&store);
    segment_path_of(&store, 0, 0, first, sizeof(first));
    segment_path_of(&store, 0, 3, second, sizeof(second));
    store.options.segment_age_ms = store.options.retention_ms = 700;
    open_store(&store);
    for (uint64_t number = 0; number < 3; number++)
        append(&store, 0, number, 100);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 3);
    wait_until_empty(&store, 3);
    cr_expect_neq(access(first, F_OK), 0);
    cr_expect_eq(file_size(second), 0);
    struct stream_extent extent;
    int64_t offset, time_ms;
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 0, 3, 1000, NULL, &extent), 0);
    cr_expect_eq(extent.size_bytes, 0);
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 0, 2, 1000, NULL, &extent),
                 DG_ERR_OFFSET_OUT_OF_RANGE);
    cr_expect_eq(stream_find_time(store.stream, STREAM_ID, 0, 0, NULL, &offset, &time_ms),
                 DG_ERR_NOT_FOUND);
    cr_expect_eq(stream_find_last(store.stream, STREAM_ID, 0, &offset, &time_ms), DG_ERR_NOT_FOUND);
    test_store_close(&store);
    open_store(&store);
    cr_expect_eq(log_start(&store), 3);
    append(&store, 0, 3, 100);
    cr_expect_eq(store.last_offset, 3);
    test_store_close(&store);
    store.options.retention_ms = 0;
    open_store(&store);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 3, 0), 1);
    test_store_close(&store);
    test_store_remove(&store);
}

/* As retention asks for it, without a checkpoint; the process ends after more or nothing. */
static void expire_and_end(struct test_store *store, unsigned appended) {
    pid_t child = fork();
    if (child == 0) {
        open_store(store);
        append(store, 0, 0, 100);
        append(store, 0, 1, 100);
        checkpointer_stop(store->stream);
        store->options.retention_ms = 1;
        store->options.segment_age_ms = 1;
        stream_reconfigure(store->stream, &store->options);
        usleep(5000);
        retention_request(store->stream, (uint64_t)clock_wall_ms());
        while (log_start(store) < 2)
            usleep(1000);
        for (unsigned i = 0; i < appended; i++)
            append(store, 0, 2 + i, 5000);
        placer_flush(&store->stream->placer);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(restart, an_expired_partition_is_recovered_from_the_journal) {
    for (unsigned appended = 0; appended < 3; appended++) {
        struct test_store store;
        char first[512];
        test_store_init(&store);
        segment_path_of(&store, 0, 0, first, sizeof(first));
        expire_and_end(&store, appended);
        for (unsigned life = 0; life < 2; life++) {
            open_store(&store);
            cr_expect_eq(log_start(&store), 2);
            cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 2, 0), appended + life);
            append(&store, 0, 2 + appended + life, 10);
            cr_expect_eq(store.last_offset, 2 + appended + life);
            checkpointer_request(&store.stream->checkpointer);
            for (unsigned i = 0; i < 100 && access(first, F_OK) == 0; i++)
                usleep(20000);
            cr_expect_neq(access(first, F_OK), 0);
            test_store_close(&store);
        }
        test_store_remove(&store);
    }
}

/* ---- a clock that is set ------------------------------------------------------------------------
 */

Test(restart, nothing_expires_by_age_after_the_clock_was_set_forward) {
    enum { MINUTE = 60 * 1000, HOUR = 60 * MINUTE };
    static const struct {
        int64_t wall_ms, monotonic_ms; /* since the row before */
        bool is_held, is_step;
    } rows[] = {
        {0, 0, false, false},
        {500, 500, false, false},
        {2 * MINUTE, 2 * MINUTE, false, false}, /* a checkpoint took long */
        {-3 * HOUR, 500, false, false},         /* backward: things only get younger */
        {MINUTE, 500, false, false},            /* slewed, or little */
        {24 * HOUR, 500, true, true},
        {500, 500, true, false},
        {2 * MINUTE, 500, true, true}, /* again: an hour from here */
        {HOUR - 1, HOUR - 1, true, false},
        {500, 500, false, false},
    };
    struct retention_clock clock = {0};
    uint64_t wall_ms = 1700000000000, monotonic_ms = 1000, step_ms;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        wall_ms += (uint64_t)rows[i].wall_ms;
        monotonic_ms += (uint64_t)rows[i].monotonic_ms;
        uint64_t now_ms = retention_clock_read(&clock, wall_ms, monotonic_ms, &step_ms);
        cr_expect_eq(now_ms, rows[i].is_held ? 0 : wall_ms, "row %zu", i);
        cr_expect_eq(step_ms > 0, rows[i].is_step, "row %zu", i);
    }
}

Test(restart, no_time_is_no_age) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 1024 * 1024;
    open_store(&store);
    for (uint64_t i = 0; i < 10; i++)
        append(&store, 0, i, 200000);
    checkpointer_stop(store.stream);
    store.options.retention_ms = store.options.segment_age_ms = 1;
    stream_reconfigure(store.stream, &store.options);
    usleep(5000);
    retention_request(store.stream, 0);
    append(&store, 1, 0, 10); /* behind any request */
    cr_expect_eq(log_start(&store), 0);
    retention_request(store.stream, (uint64_t)clock_wall_ms());
    append(&store, 1, 1, 10);
    cr_expect_eq(log_start(&store), 10);
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- missing segments ---------------------------------------------------------------------------
 */

/* Four segments: bases 0, 5, 10, 15. */
static void make_segments(struct test_store *store) {
    test_store_init(store);
    store->options.segment_size_bytes = 1024 * 1024;
    open_store(store);
    for (uint64_t i = 0; i < 20; i++)
        append(store, 0, i, 200000);
    test_store_close(store);
}

static void remove_segment(const struct test_store *store, int64_t base) {
    char path[512];
    segment_path_of(store, 0, base, path, sizeof(path));
    cr_assert_eq(unlink(path), 0);
}

Test(restart, a_missing_first_segment_is_damage) {
    struct test_store store;
    make_segments(&store);
    remove_segment(&store, 0);
    cr_expect_eq(test_store_open(&store), DG_ERR_CORRUPT);
    cr_expect(strstr(store.error, "missing"), "%s", store.error);
    test_store_remove(&store);
}

/* Retention has removed some of the segments below the log start when the power failed; which of
 * the removals are on disk nobody knows. */
Test(restart, missing_segments_below_the_log_start_are_not) {
    static const bool gone[][2] = {{true, false}, {false, true}, {true, true}};
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        struct test_store store;
        make_segments(&store);
        open_store(&store);
        checkpointer_stop(store.stream);
        store.options.retention_bytes = 1100 * 1024;
        stream_reconfigure(store.stream, &store.options);
        retention_request(store.stream, 1);
        append(&store, 1, 0, 10); /* behind the request */
        cr_assert_eq(log_start(&store), 10);
        test_store_close(&store); /* with a checkpoint, without removing */
        for (unsigned j = 0; j < 2; j++)
            if (gone[i][j])
                remove_segment(&store, 5 * j);
        open_store(&store);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 10, 0), 10);
        checkpointer_request(&store.stream->checkpointer);
        for (unsigned j = 0; j < 100 && count_segments(&store) > 2; j++)
            usleep(20000);
        cr_expect_eq(count_segments(&store), 2);
        test_store_close(&store);
        test_store_remove(&store);
    }
}
