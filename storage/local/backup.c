/*
 * What makes it consistent: the checkpoint is read first; a segment that it calls complete does not
 * change any more, and the newest one does not change before the checkpoint's position, but for its
 * last block, which is the checkpoint's own. Only retention takes files away, and what it takes
 * lies before a log start that a later checkpoint knows: then the backup's log start moves along.
 */
#include "storage/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/checkpointer.h"
#include "storage/local/copy.h"
#include "storage/local/draft.h"
#include "storage/local/scan.h"
#include "storage/local/store.h"

enum { POLL_MS = 50 };

struct backup {
    const struct storage_backup_options *options;
    char *error;
    struct format_store store;
    struct draft draft;
    struct copy_rate rate;
    bool before_is_same; /* the backup before is of the same store and epoch */
};

static int fail(struct backup *backup, int error, const char *what) {
    snprintf(backup->error, STORAGE_BACKUP_ERROR_SIZE, "%.350s: %s", what, strerror(error));
    return errno_is_no_room(error) ? DG_ERR_STORAGE_FULL : DG_ERR_IO;
}

/* ---- a checkpoint of now ------------------------------------------------------------------------
 */

static bool is_open(const char *directory) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/lock", directory);
    int fd = file_open(path, O_RDONLY);
    bool open = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0;
    file_close(fd); /* lets go of the lock */
    return open;
}

static bool exists(const char *directory, const char *name) {
    char path[STORE_PATH_SIZE];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return stat(path, &status) == 0;
}

/* False: there was none in time. */
static bool ask_for_checkpoint(const struct storage_backup_options *options) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/" CHECKPOINT_WANTED, options->store);
    int fd = file_open(path, O_WRONLY | O_CREAT);
    if (fd < 0)
        return false;
    file_close(fd);
    uint64_t until_ms = clock_monotonic_ms() + options->wait_ms;
    bool waiting = true;
    while (waiting && clock_monotonic_ms() < until_ms) {
        usleep(POLL_MS * 1000);
        waiting =
            exists(options->store, CHECKPOINT_WANTED) || exists(options->store, CHECKPOINT_TAKING);
    }
    if (waiting)
        sys.unlink(path);
    return !waiting;
}

/* ---- segments -----------------------------------------------------------------------------------
 */

struct check {
    const struct backup *backup;
    const char *path;
    int64_t next_offset;
    bool is_damaged;
};

static const char *check_batch(void *context, const struct record_batch *batch) {
    struct check *check = context;
    bool follows = batch->base_offset == check->next_offset;
    check->next_offset = batch->base_offset + batch->last_offset_delta + 1;
    return follows ? NULL : "a batch does not follow the one before";
}

static void check_damage(void *context, uint64_t position, const char *what) {
    struct check *check = context;
    const struct storage_backup_options *options = check->backup->options;
    if (!check->is_damaged) /* the first says enough; verify says all */
        options->damage(options->context, check->path, what);
    check->is_damaged = true;
}

/* A damaged store is backed up as it is, and told of: what is good in it is worth keeping. */
static void check_segment(const struct backup *backup, const char *path, int64_t base) {
    struct check check = {.backup = backup, .path = path, .next_offset = base};
    const struct scan_visitor visitor = {
        .batch = check_batch, .damage = check_damage, .context = &check};
    scan_segment(path, &(struct scan_range){.limit_bytes = UINT64_MAX}, &visitor);
}

struct paths {
    char store[STORE_PATH_SIZE], target[STORE_PATH_SIZE], before[STORE_PATH_SIZE];
};

static void make_names(const struct backup *backup, const struct format_partition *row,
                       int64_t base, struct storage_backup_file *ret_file, struct paths *ret) {
    const struct storage_backup_options *options = backup->options;
    char *name = ret_file->name;
    snprintf(name, sizeof(ret_file->name), "%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log",
             row->stream_id, row->partition, base);
    snprintf(ret->store, sizeof(ret->store), "%s/%s", options->store, name);
    snprintf(ret->target, sizeof(ret->target), "%s/%s", options->target, name);
    snprintf(ret->before, sizeof(ret->before), "%s/%s", options->before ? options->before : "",
             name);
}

/* ENOENT when the store does not have it (any more). */
static int take_complete(struct backup *backup, const struct paths *paths, int64_t base,
                         struct storage_backup_file *file) {
    const struct storage_backup_options *options = backup->options;
    struct stat status;
    if (stat(paths->store, &status) != 0)
        return errno;
    file->size_bytes = (uint64_t)status.st_size;
    file->way = STORAGE_BACKUP_KEPT;
    if (backup->before_is_same &&
        options->was_there(options->context, file->name, file->size_bytes, &file->crc) &&
        sys.link(paths->before, paths->target) == 0) {
        if (options->before_is_damaged)
            check_segment(backup, paths->target, base);
        return 0;
    }
    struct copy_source source = {.path = paths->store, .size_bytes = file->size_bytes};
    file->way = STORAGE_BACKUP_LINKED;
    int error = sys.link(paths->store, paths->target) == 0 ? 0 : errno;
    if (error == 0) {
        error = copy_check(&backup->rate, paths->target, file->size_bytes, &file->crc);
    } else if (error != ENOENT) { /* another file system, or no right to: fs.protected_hardlinks */
        file->way = STORAGE_BACKUP_COPIED;
        error = copy_file(&backup->rate, &source, paths->target, &file->crc);
    }
    if (error == 0)
        check_segment(backup, paths->target, base);
    return error;
}

static int take_newest(struct backup *backup, const struct paths *paths,
                       const struct draft_partition *partition, struct storage_backup_file *file) {
    const struct format_partition *row = &partition->row;
    struct copy_source source = {
        .path = paths->store,
        .size_bytes = row->segment_position,
        .tail_at = row->segment_position - format_last_block_bytes(row),
        .tail = partition->last_block,
    };
    file->size_bytes = row->segment_position;
    file->way = STORAGE_BACKUP_COPIED;
    int error = copy_file(&backup->rate, &source, paths->target, &file->crc);
    if (error == 0)
        check_segment(backup, paths->target, row->segment_base);
    return error;
}

static int take_segment(struct backup *backup, const struct draft_partition *partition,
                        int64_t base) {
    const struct format_partition *row = &partition->row;
    struct storage_backup_file file = {0};
    struct paths paths;
    make_names(backup, row, base, &file, &paths);
    int error = copy_make_parents(backup->options->target, file.name);
    if (error == 0)
        error = base == row->segment_base ? take_newest(backup, &paths, partition, &file)
                                          : take_complete(backup, &paths, base, &file);
    if (error == 0)
        backup->options->file(backup->options->context, &file);
    return error;
}

/* ---- a partition --------------------------------------------------------------------------------
 */

/* Retention may have gone on since the checkpoint. */
static int64_t log_start_now(struct backup *backup, const struct format_partition *wanted) {
    struct checkpoint checkpoint;
    struct format_partition row;
    int64_t log_start = wanted->log_start;
    if (checkpoint_load(backup->options->store, backup->store.secret, &checkpoint) < 0)
        return log_start;
    while (checkpoint_next_partition(&checkpoint, &row) == 0)
        if (row.stream_id == wanted->stream_id && row.partition == wanted->partition)
            log_start = row.log_start;
    checkpoint_free(&checkpoint);
    return log_start;
}

/* A complete segment is not there: the backup's partition begins behind it. */
static void pass_over(struct backup *backup, struct format_partition *row, const char *path,
                      int64_t next_base) {
    if (log_start_now(backup, row) < next_base)
        backup->options->damage(backup->options->context, path, "it is missing");
    if (row->log_start < next_base)
        row->log_start = next_base;
}

/* The newest segment is not there. If retention has taken it, all that the checkpoint knew has
 * expired: the backup's partition is empty, and goes on at the same offset. */
static int end_empty(struct backup *backup, struct draft_partition *partition, const char *path) {
    struct format_partition *row = &partition->row;
    struct storage_backup_file file = {.way = STORAGE_BACKUP_COPIED};
    struct paths paths;
    if (log_start_now(backup, row) < row->next_offset) {
        backup->options->damage(backup->options->context, path, "the newest segment is missing");
        return 0;
    }
    row->log_start = row->segment_base = row->next_offset;
    row->segment_position = 0;
    make_names(backup, row, row->segment_base, &file, &paths);
    int error = copy_make_parents(backup->options->target, file.name);
    int fd = error == 0 ? file_open(paths.target, O_WRONLY | O_CREAT) : -1;
    if (error == 0 && (fd < 0 || sys.fsync(fd) != 0))
        error = errno;
    file_close(fd);
    if (error != 0)
        return fail(backup, error, path);
    backup->options->file(backup->options->context, &file);
    return 0;
}

static int take_newest_or_end(struct backup *backup, struct draft_partition *partition,
                              const char *path) {
    int error = take_segment(backup, partition, partition->row.segment_base);
    if (error == ENOENT)
        return end_empty(backup, partition, path);
    return error == 0 ? 0 : fail(backup, error, path);
}

/* The newest first, since retention begins with the oldest: so there is no gap between what was
 * taken. */
static int take_files(struct backup *backup, struct draft_partition *partition, const char *path,
                      const int64_t *bases, uint32_t count) {
    struct format_partition *row = &partition->row;
    int err = take_newest_or_end(backup, partition, path);
    while (count > 0 && bases[count - 1] >= row->segment_base)
        count--;
    int64_t next = row->segment_base;
    for (; err == 0 && count > 0 && next > row->log_start; next = bases[--count]) {
        int error = take_segment(backup, partition, bases[count - 1]);
        if (error == ENOENT)
            pass_over(backup, row, path, next);
        else if (error != 0)
            err = fail(backup, error, path);
    }
    if (err == 0 && next > row->log_start)
        pass_over(backup, row, path, next);
    return err;
}

static int take_partition(struct backup *backup, struct draft_partition *partition) {
    char path[STORE_PATH_SIZE];
    const struct format_partition *row = &partition->row;
    int64_t *bases;
    uint32_t count;
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, backup->options->store, row->stream_id,
             row->partition);
    int err = scan_directory(path, &bases, &count);
    if (err < 0)
        return fail(backup, err == DG_ERR_IO ? errno : ENOMEM, path);
    err = take_files(backup, partition, path, bases, count);
    free(bases);
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, backup->options->target, row->stream_id,
             row->partition);
    int error = err == 0 ? file_sync_directory(path) : 0;
    if (error != 0)
        return fail(backup, error, path);
    struct storage_backup_partition told = {.stream_id = row->stream_id,
                                            .partition = row->partition,
                                            .log_start = row->log_start,
                                            .end = row->next_offset};
    if (err == 0)
        backup->options->partition(backup->options->context, &told);
    return err;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

/* A repair that cuts keeps the store's secret; what is written then in the place of what was cut
 * may be as long, under the same name. */
static bool is_of_same(const struct backup *backup) {
    const char *directory = backup->options->before;
    struct format_store before;
    struct draft draft;
    if (store_read_format(directory, &before) < 0 ||
        memcmp(before.secret, backup->store.secret, FORMAT_SECRET_SIZE) != 0 ||
        draft_load(directory, before.secret, &draft) < 0)
        return false;
    bool same = draft.epochs.current == backup->draft.epochs.current;
    draft_free(&draft);
    return same;
}

static int load(struct backup *backup) {
    const char *store = backup->options->store;
    int err = store_read_format(store, &backup->store);
    if (err == 0)
        err = draft_load(store, backup->store.secret, &backup->draft);
    if (err < 0)
        snprintf(backup->error, STORAGE_BACKUP_ERROR_SIZE, "%.350s is no store, or is damaged: %s",
                 store, dg_err_text(err));
    backup->before_is_same = err == 0 && backup->options->before && is_of_same(backup);
    return err;
}

static int write_rest(struct backup *backup) {
    const char *target = backup->options->target;
    for (uint32_t i = 0; i < backup->draft.partition_count; i++)
        backup->draft.partitions[i].row.discard_lsn = 0; /* there is no journal */
    int error = draft_save(&backup->draft, target, backup->store.secret);
    if (error == 0)
        error = store_write_format(target, &backup->store);
    return error == 0 ? 0 : fail(backup, error, target);
}

static int run(struct backup *backup) {
    bool created;
    int error = file_make_directory(backup->options->target, &created);
    if (error != 0)
        return fail(backup, error, backup->options->target);
    int err = load(backup);
    for (uint32_t i = 0; err == 0 && i < backup->draft.partition_count; i++)
        err = take_partition(backup, &backup->draft.partitions[i]);
    return err == 0 ? write_rest(backup) : err;
}

int storage_backup(const struct storage_backup_options *options,
                   struct storage_backup_summary *ret_summary, char *ret_error) {
    struct backup backup = {
        .options = options,
        .error = ret_error,
        .rate = {.bytes_per_second = options->rate_bytes,
                 .reserve_bytes = options->reserve_bytes,
                 .progress = options->progress,
                 .context = options->context},
    };
    ret_error[0] = '\0';
    bool is_running = is_open(options->store);
    bool is_late = is_running && !ask_for_checkpoint(options);
    int err = run(&backup);
    if (err == 0)
        *ret_summary = (struct storage_backup_summary){
            .lsn = backup.draft.loaded.header.lsn,
            .checkpoint_ms = backup.draft.loaded.header.wall_ms,
            .version = backup.store.version,
            .fingerprint = crc32c_update(0, backup.store.secret, FORMAT_SECRET_SIZE),
            .epoch = backup.draft.epochs.current,
            .is_running = is_running,
            .is_late = is_late,
        };
    draft_free(&backup.draft);
    return err;
}

int storage_last_stream(const char *directory, uint64_t *ret_stream_id) {
    struct format_store store;
    struct draft draft;
    int err = store_read_format(directory, &store);
    if (err == 0)
        err = draft_load(directory, store.secret, &draft);
    if (err < 0)
        return err;
    *ret_stream_id = 0;
    for (uint32_t i = 0; i < draft.partition_count; i++)
        if (draft.partitions[i].row.stream_id > *ret_stream_id)
            *ret_stream_id = draft.partitions[i].row.stream_id;
    draft_free(&draft);
    return 0;
}
