/* Backup of a store that is open and being written to, and restore from it. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/backup.h"
#include "storage/local/engine.h"
#include "storage/repair.h"
#include "support.h"

TestSuite(backup, .fini = check_leaks);

enum { STREAM_ID = 7, FILES_MAX = 32 };

struct kept {
    struct storage_backup_file files[FILES_MAX];
    unsigned file_count, ways[3], damages;
    struct storage_backup_partition partitions[4];
    unsigned partition_count;
    const struct kept *before;
    void (*meanwhile)(void); /* when the first partition is done */
    struct test_store target;
    struct storage_backup_summary summary;
};

static bool was_there(void *context, const char *name, uint64_t size_bytes, uint32_t *ret_crc) {
    struct kept *kept = context;
    for (unsigned i = 0; kept->before && i < kept->before->file_count; i++) {
        const struct storage_backup_file *file = &kept->before->files[i];
        if (strcmp(file->name, name) != 0 || file->size_bytes != size_bytes)
            continue;
        *ret_crc = file->crc;
        return true;
    }
    return false;
}

static void on_file(void *context, const struct storage_backup_file *file) {
    struct kept *kept = context;
    cr_assert(kept->file_count < FILES_MAX);
    kept->files[kept->file_count++] = *file;
    kept->ways[file->way]++;
}

static void on_partition(void *context, const struct storage_backup_partition *partition) {
    struct kept *kept = context;
    kept->partitions[kept->partition_count++] = *partition;
    if (kept->partition_count == 1 && kept->meanwhile)
        kept->meanwhile();
}

static void on_damage(void *context, const char *path, const char *what) {
    ((struct kept *)context)->damages++;
}

static char error[STORAGE_BACKUP_ERROR_SIZE];

static int back_up(const struct test_store *store, struct kept *kept, uint64_t reserve_bytes) {
    test_store_init(&kept->target);
    struct storage_backup_options options = {
        .store = store->directory,
        .target = kept->target.directory,
        .before = kept->before ? kept->before->target.directory : NULL,
        .before_is_damaged = kept->before && kept->before->damages > 0,
        .reserve_bytes = reserve_bytes,
        .wait_ms = 20000,
        .context = kept,
        .was_there = was_there,
        .file = on_file,
        .partition = on_partition,
        .damage = on_damage,
    };
    return storage_backup(&options, &kept->summary, error);
}

static int restore(const struct kept *kept, struct test_store *ret_store, int32_t epoch_min,
                   int32_t *ret_epoch) {
    test_store_init(ret_store);
    struct storage_restore_options options = {
        .backup = kept->target.directory,
        .store = ret_store->directory,
        .files = kept->files,
        .file_count = kept->file_count,
        .epoch_min = epoch_min,
    };
    return storage_restore(&options, ret_epoch, error);
}

/* Open: partition 0 in three segments, partition 1 in one, and an entry of state. */
static void make_store(struct test_store *store) {
    test_store_init(store);
    store->options.segment_size_bytes = 60000;
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    test_append_each(store, STREAM_ID, 0, 0, 13, 11000);
    test_append_each(store, STREAM_ID, 1, 0, 3, 100);
    cr_assert_eq(test_mutate(store, STREAM_STATE_CONSUMER, slice_from_string("group"),
                             slice_from_string("12")),
                 0);
    test_store_settle(store);
}

static void expect_restored(const struct kept *kept, int64_t from, int64_t count, int32_t epoch) {
    struct test_store store;
    int32_t found;
    int64_t end;
    uint8_t value[8];
    size_t size;
    cr_assert_eq(restore(kept, &store, epoch, &found), 0, "%s", error);
    cr_expect_eq(found, epoch);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(stream_epoch(store.stream), epoch);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, from, 0), count);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 1, 0, 0), 3);
    cr_assert_eq(stream_epoch_end(store.stream, STREAM_ID, 0, 0, &found, &end), 0);
    cr_expect_eq(end, from + count);
    cr_assert_eq(test_get(&store.stream->state, STREAM_STATE_CONSUMER, slice_from_string("group"),
                          value, sizeof(value), &size),
                 0);
    test_append_each(&store, STREAM_ID, 0, (uint64_t)(from + count), (uint64_t)(from + count) + 3,
                     100);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(backup, of_an_open_store_has_what_was_durable_before) {
    struct test_store store;
    struct kept kept = {0};
    make_store(&store);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    test_append_each(&store, STREAM_ID, 0, 13, 16, 100); /* not in it */
    cr_expect(kept.summary.is_running && !kept.summary.is_late);
    cr_expect_eq(kept.summary.epoch, 0);
    cr_expect(kept.damages == 0 && kept.partition_count == 2 && kept.file_count == 4);
    cr_expect(kept.ways[STORAGE_BACKUP_LINKED] == 2 && kept.ways[STORAGE_BACKUP_COPIED] == 2);
    cr_expect(kept.partitions[0].end + kept.partitions[1].end == 16);
    expect_restored(&kept, 0, 13, 1);
    expect_restored(&kept, 0, 13, 77); /* the same once more: another epoch */
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 16);
    cr_expect_eq(test_file_size(&store, "checkpoint.taking"), -1);
    uint64_t last;
    cr_expect_eq(storage_last_stream(kept.target.directory, &last), 0);
    cr_expect_eq(last, STREAM_ID);
    test_store_close(&store);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

Test(backup, links_what_the_one_before_has) {
    struct test_store store;
    struct kept first = {0}, second = {.before = &first};
    make_store(&store);
    cr_assert_eq(back_up(&store, &first, 0), 0, "%s", error);
    test_append_each(&store, STREAM_ID, 0, 13, 16, 11000);
    test_store_close(&store);
    cr_assert_eq(back_up(&store, &second, 0), 0, "%s", error);
    cr_expect(!second.summary.is_running);
    cr_expect_eq(second.ways[STORAGE_BACKUP_KEPT], 2);
    test_store_remove(&first.target); /* a link needs no first one */
    expect_restored(&second, 0, 16, 1);
    test_store_remove(&second.target);
    test_store_remove(&store);
}

/* Files of the same name in another store, or a restored one, are other files. */
Test(backup, links_nothing_of_another_store) {
    struct test_store store, restored;
    int32_t epoch;
    struct kept first = {0}, second = {.before = &first};
    make_store(&store);
    test_store_close(&store);
    cr_assert_eq(back_up(&store, &first, 0), 0, "%s", error);
    cr_assert_eq(restore(&first, &restored, 5, &epoch), 0, "%s", error);
    cr_assert_eq(back_up(&restored, &second, 0), 0, "%s", error);
    cr_expect_eq(second.ways[STORAGE_BACKUP_KEPT], 0);
    cr_expect_eq(second.summary.epoch, 5);
    test_store_remove(&first.target);
    test_store_remove(&second.target);
    test_store_remove(&restored);
    test_store_remove(&store);
}

Test(backup, tells_of_damage_and_keeps_the_rest) {
    struct test_store store;
    struct kept kept = {0};
    char removed[512];
    make_store(&store);
    test_store_close(&store);
    snprintf(removed, sizeof(removed), "%s/%s", store.directory,
             test_segment_name(STREAM_ID, 0, 0));
    unlink(removed);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 5), 100);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    cr_expect_eq(kept.damages, 2);
    for (unsigned i = 0; i < kept.partition_count; i++)
        if (kept.partitions[i].partition == 0)
            cr_expect_eq(kept.partitions[i].log_start, 5);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

Test(backup, without_room_it_ends_and_the_store_goes_on) {
    struct test_store store;
    struct kept kept = {0};
    make_store(&store);
    cr_expect_eq(back_up(&store, &kept, UINT64_MAX / 2), DG_ERR_STORAGE_FULL);
    test_append_each(&store, STREAM_ID, 0, 13, 16, 100);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 16);
    test_store_close(&store);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

Test(backup, what_has_changed_is_not_restored) {
    struct test_store store, restored;
    struct kept kept = {0};
    int32_t epoch;
    make_store(&store);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    test_store_close(&store);
    test_file_flip(&kept.target, test_segment_name(STREAM_ID, 0, 5), 77);
    cr_expect_eq(restore(&kept, &restored, 1, &epoch), DG_ERR_CORRUPT);
    cr_expect_eq(test_store_open(&restored), DG_ERR_INVALID, "half a restore is no store");
    test_file_flip(&kept.target, test_segment_name(STREAM_ID, 0, 5), 77);
    test_store_remove(&restored);
    expect_restored(&kept, 0, 13, 1);
    struct storage_restore_options options = {.backup = kept.target.directory,
                                              .store = store.directory,
                                              .files = kept.files,
                                              .file_count = kept.file_count};
    cr_expect_eq(storage_restore(&options, &epoch, error), DG_ERR_EXISTS);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

/* ---- what a slow backup meets -------------------------------------------------------------------
 */

static struct test_store running;

/* The store's checkpointer has done what the backup asked for; the test plays it from here on. */
static void expire_partition_1(void) {
    checkpointer_stop(running.stream);
    test_append_each(&running, STREAM_ID, 1, 3, 13, 11000);
    running.options.retention_bytes = 1;
    stream_reconfigure(running.stream, &running.options);
    placer_flush(&running.stream->placer);
    retention_request(running.stream, 0);
    test_append_each(&running, STREAM_ID, 2, 0, 1, 1); /* behind the request */
    cr_assert_eq(checkpoint_take(running.stream), 0);
    retention_remove(running.stream);
    cr_assert_eq(test_file_size(&running, test_segment_name(STREAM_ID, 1, 0)), -1);
}

/* A partition that does not keep for as long as the backup takes. */
Test(backup, of_a_partition_that_has_expired_meanwhile_is_empty_at_its_end) {
    struct kept kept = {.meanwhile = expire_partition_1};
    struct test_store restored;
    struct stream_offsets offsets;
    int32_t epoch;
    make_store(&running);
    cr_assert_eq(back_up(&running, &kept, 0), 0, "%s", error);
    cr_expect_eq(kept.damages, 0);
    cr_assert_eq(restore(&kept, &restored, 1, &epoch), 0, "%s", error);
    cr_assert_eq(test_store_open(&restored), 0, "%s", restored.error);
    cr_expect_eq(test_read_all(&restored, STREAM_ID, 0, 0, 0), 13);
    stream_offsets(restored.stream, STREAM_ID, 1, &offsets);
    cr_expect(offsets.log_start == 3 && offsets.durable_end == 3, "%ld to %ld", offsets.log_start,
              offsets.durable_end);
    test_append_each(&restored, STREAM_ID, 1, 3, 5, 100);
    cr_expect_eq(test_read_all(&restored, STREAM_ID, 1, 3, 0), 2);
    test_store_close(&restored);
    test_store_close(&running);
    test_store_remove(&restored);
    test_store_remove(&kept.target);
    test_store_remove(&running);
}

Test(backup, tells_of_a_newest_segment_that_is_missing) {
    struct test_store store;
    struct kept kept = {0};
    make_store(&store);
    test_store_close(&store);
    test_file_remove(&store, test_segment_name(STREAM_ID, 0, 10));
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    cr_expect_eq(kept.damages, 1);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

Test(backup, tells_of_damage_each_time) {
    struct test_store store;
    struct kept first = {0}, second = {.before = &first};
    make_store(&store);
    test_store_close(&store);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 5), 100);
    cr_assert_eq(back_up(&store, &first, 0), 0, "%s", error);
    cr_assert_eq(back_up(&store, &second, 0), 0, "%s", error);
    cr_expect(first.damages == 1 && second.damages == 1, "%u, then %u", first.damages,
              second.damages);
    test_store_remove(&first.target);
    test_store_remove(&second.target);
    test_store_remove(&store);
}

static void on_action(void *context, bool loses, const char *text) {
}

/* A repair takes the last record of partition 1 away; another of the same size takes its place. */
static void replace_last_record(struct test_store *store) {
    struct storage_repair_options options = {.apply = true, .accept_loss = true};
    struct storage_repair_report report = {.action = on_action};
    char why[STORAGE_REPAIR_ERROR_SIZE];
    int64_t size = test_file_size(store, test_segment_name(STREAM_ID, 1, 0));
    test_file_flip(store, test_segment_name(STREAM_ID, 1, 0), size * 3 / 4);
    cr_assert_eq(storage_repair(store->directory, &options, &report, why), 0, "%s", why);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    cr_assert_eq(test_append(store, STREAM_ID, 1, 7, 11000, 1), 0);
    test_store_settle(store);
}

/* The segment is as long as it was, and complete now. */
Test(backup, links_nothing_from_before_a_repair_that_cut) {
    struct test_store store, restored;
    struct kept first = {0}, second = {.before = &first};
    int32_t epoch;
    test_store_init(&store);
    store.options.segment_size_bytes = 24000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_append_each(&store, STREAM_ID, 1, 0, 2, 11000);
    test_store_close(&store);
    cr_assert_eq(back_up(&store, &first, 0), 0, "%s", error);
    replace_last_record(&store);
    cr_assert_eq(test_append(&store, STREAM_ID, 1, 8, 11000, 1), 0);
    test_store_close(&store);
    cr_assert_eq(back_up(&store, &second, 0), 0, "%s", error);
    cr_assert_eq(restore(&second, &restored, 9, &epoch), 0, "%s", error);
    cr_assert_eq(test_store_open(&restored), 0, "%s", restored.error);
    cr_expect_eq(test_read_all(&restored, STREAM_ID, 1, 1, 6), 2, "7 and 8 came after the repair");
    test_store_close(&restored);
    test_store_remove(&restored);
    test_store_remove(&first.target);
    test_store_remove(&second.target);
    test_store_remove(&store);
}

/* ---- who asks, and when it was written ----------------------------------------------------------
 */

static struct sys_table real;

static int open_not_wanted(const char *path, int flags, mode_t mode) {
    bool is_wanted = strstr(path, CHECKPOINT_WANTED) && (flags & O_ACCMODE) == O_RDONLY;
    errno = EACCES;
    return is_wanted ? -1 : real.open(path, flags, mode);
}

/* The gateway's user may not read what root has made. */
Test(backup, by_another_user_gets_its_checkpoint) {
    struct test_store store;
    struct kept kept = {0};
    real = sys;
    sys.open = open_not_wanted;
    make_store(&store);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    cr_expect(kept.summary.is_running && !kept.summary.is_late);
    test_store_close(&store);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

static time_t written_at(const struct test_store *store, const char *name) {
    char path[512];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", store->directory, name);
    cr_assert_eq(stat(path, &status), 0);
    return status.st_mtim.tv_sec;
}

/* By it retention counts the age of a segment. */
Test(backup, keeps_when_a_segment_was_written) {
    static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    struct test_store store, restored;
    struct kept kept = {0};
    int32_t epoch;
    char path[512];
    make_store(&store);
    test_store_close(&store);
    snprintf(path, sizeof(path), "%s/%s", store.directory, test_segment_name(STREAM_ID, 0, 5));
    cr_assert_eq(utimensat(AT_FDCWD, path, long_ago, 0), 0);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    cr_assert_eq(restore(&kept, &restored, 1, &epoch), 0, "%s", error);
    cr_expect_eq(written_at(&restored, test_segment_name(STREAM_ID, 0, 5)), 1000);
    test_store_remove(&restored);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}

/* A gateway that is started while a restore begins. */
static struct test_store restoring;

static int open_and_start(const char *path, int flags, mode_t mode) {
    static bool done;
    if (!done && strstr(path, "/checkpoint")) { /* the backup's: the directory was empty before */
        done = true;
        cr_expect_eq(test_store_open(&restoring), DG_ERR_BUSY);
    }
    return real.open(path, flags, mode);
}

Test(backup, no_gateway_begins_in_a_directory_that_is_restored_into) {
    struct test_store store;
    struct kept kept = {0};
    int32_t epoch;
    make_store(&store);
    test_store_close(&store);
    cr_assert_eq(back_up(&store, &kept, 0), 0, "%s", error);
    test_store_init(&restoring);
    struct storage_restore_options options = {.backup = kept.target.directory,
                                              .store = restoring.directory,
                                              .files = kept.files,
                                              .file_count = kept.file_count};
    real = sys;
    sys.open = open_and_start;
    cr_expect_eq(storage_restore(&options, &epoch, error), 0, "%s", error);
    cr_assert_eq(test_store_open(&restoring), 0, "%s", restoring.error);
    cr_expect_eq(test_read_all(&restoring, STREAM_ID, 0, 0, 0), 13);
    test_store_close(&restoring);
    test_store_remove(&restoring);
    test_store_remove(&kept.target);
    test_store_remove(&store);
}
