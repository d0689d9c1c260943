/*
 * Order: segments, journal, checkpoint, and last the format file, without which the directory is no
 * store. Nothing in the backup is changed.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/random.h"
#include "storage/backup.h"
#include "storage/local/copy.h"
#include "storage/local/draft.h"
#include "storage/local/journal.h"
#include "storage/local/store.h"

struct restore {
    const struct storage_restore_options *options;
    char *error;
    int lock_fd;
    struct format_store store;
    struct draft draft;
    struct copy_rate rate;
};

static int fail(struct restore *restore, int error, const char *what) {
    snprintf(restore->error, STORAGE_BACKUP_ERROR_SIZE, "%.350s: %s", what, strerror(error));
    return errno_is_no_room(error) ? DG_ERR_STORAGE_FULL : DG_ERR_IO;
}

static bool is_empty(const char *directory) {
    DIR *open = opendir(directory);
    bool empty = true;
    for (struct dirent *entry; open && (entry = readdir(open));)
        empty &= entry->d_name[0] == '.' || strcmp(entry->d_name, "lost+found") == 0 ||
                 strcmp(entry->d_name, "lock") == 0;
    if (open)
        closedir(open);
    return empty;
}

static int check_is_empty(struct restore *restore) {
    if (is_empty(restore->options->store))
        return 0;
    snprintf(restore->error, STORAGE_BACKUP_ERROR_SIZE,
             "%.350s is not empty: move what is there away first", restore->options->store);
    return DG_ERR_EXISTS;
}

/* Locked, so that no gateway makes a store of its own there meanwhile. Looked at before as well: a
 * directory that is something else gets no lock file. */
static int take_directory(struct restore *restore) {
    _Static_assert((int)STREAM_ERROR_SIZE <= (int)STORAGE_BACKUP_ERROR_SIZE, "its message fits");
    int err = check_is_empty(restore);
    if (err == 0)
        err = store_lock(restore->options->store, &restore->lock_fd, restore->error);
    return err == 0 ? check_is_empty(restore) : err;
}

static int prepare(struct restore *restore) {
    const char *backup = restore->options->backup;
    int err = take_directory(restore);
    if (err < 0)
        return err;
    err = store_read_format(backup, &restore->store);
    if (err == 0)
        err = draft_load(backup, restore->store.secret, &restore->draft);
    if (err < 0)
        snprintf(restore->error, STORAGE_BACKUP_ERROR_SIZE, "%.350s: %s", backup, dg_err_text(err));
    return err;
}

static int copy_segment(struct restore *restore, const struct storage_backup_file *file) {
    char from[STORE_PATH_SIZE], to[STORE_PATH_SIZE];
    snprintf(from, sizeof(from), "%s/%s", restore->options->backup, file->name);
    snprintf(to, sizeof(to), "%s/%s", restore->options->store, file->name);
    struct copy_source source = {.path = from, .size_bytes = file->size_bytes};
    uint32_t crc = 0;
    int error = copy_make_parents(restore->options->store, file->name);
    if (error == 0)
        error = copy_file(&restore->rate, &source, to, &crc);
    if (error == 0) {
        *strrchr(to, '/') = '\0';
        error = file_sync_directory(to);
    }
    if (error != 0 && error != ENODATA)
        return fail(restore, error, from);
    if (error == 0 && crc == file->crc)
        return 0;
    snprintf(restore->error, STORAGE_BACKUP_ERROR_SIZE,
             "%.350s is not what was backed up: use another backup", from);
    return DG_ERR_CORRUPT;
}

static int write_store(struct restore *restore, int32_t epoch) {
    const char *target = restore->options->store;
    struct format_store *store = &restore->store;
    int err = draft_raise_epoch(&restore->draft, epoch);
    if (err < 0)
        return fail(restore, ENOMEM, target);
    store->version = FORMAT_VERSION_EPOCHS;
    store->created_ms = (uint64_t)clock_wall_ms();
    random_bytes(store->secret, sizeof(store->secret));
    int error = journal_create(target, store->journal_size_bytes);
    if (error == 0)
        error = store_sync_name(target);
    if (error == 0)
        error = draft_save(&restore->draft, target, store->secret);
    if (error == 0)
        error = store_write_format(target, store);
    return error == 0 ? 0 : fail(restore, error, target);
}

static int run(struct restore *restore, int32_t *ret_epoch) {
    int err = prepare(restore);
    for (unsigned i = 0; err == 0 && i < restore->options->file_count; i++)
        err = copy_segment(restore, &restore->options->files[i]);
    if (err < 0)
        return err;
    int32_t epoch = restore->draft.epochs.current + 1;
    if (epoch < restore->options->epoch_min)
        epoch = restore->options->epoch_min;
    err = write_store(restore, epoch);
    if (err == 0)
        *ret_epoch = epoch;
    return err;
}

int storage_restore(const struct storage_restore_options *options, int32_t *ret_epoch,
                    char *ret_error) {
    struct restore restore = {
        .options = options,
        .error = ret_error,
        .lock_fd = -1,
        .rate = {.progress = options->progress, .context = options->context},
    };
    ret_error[0] = '\0';
    int err = run(&restore, ret_epoch);
    draft_free(&restore.draft);
    file_close(restore.lock_fd);
    return err;
}
