/*
 * The embedded engine as a whole: opening, closing, condition. On-disk parts: format.h.
 *
 * Opening: lock, format, journal, recovery; then the placer starts, a checkpoint is taken if there
 * is room for it, what a torn last group left is cleared, and only then the committer starts.
 * Closing goes backwards: committer (commits what it has), checkpointer, a last checkpoint, placer.
 */
#include "storage/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "storage/local/engine.h"
#include "storage/local/recovery.h"
#include "storage/local/store.h"

void stream_set_full(struct stream *stream, bool is_full) {
    atomic_store_explicit(&stream->is_full, is_full, memory_order_relaxed);
    metric_set(METRIC_STORAGE_FULL, is_full);
}

void stream_reconfigure(struct stream *stream, const struct stream_options *options) {
    uint64_t segment_size = options->segment_size_bytes;
    if (segment_size > INT32_MAX)
        segment_size = INT32_MAX;
    atomic_store(&stream->segment_size_bytes, segment_size);
    atomic_store(&stream->segment_age_ms, options->segment_age_ms);
    atomic_store(&stream->retention_bytes, options->retention_bytes);
    atomic_store(&stream->retention_ms, options->retention_ms);
    atomic_store(&stream->files.reserve_bytes, options->reserve_bytes);
    atomic_store(&stream->codec, options->compression);
}

static struct stream *stream_create(const struct stream_options *options) {
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->lock_fd = -1;
    stream->journal.fd = -1;
    snprintf(stream->directory, sizeof(stream->directory), "%s", options->directory);
    chunk_pool_init(&stream->chunks);
    segment_files_init(&stream->files, stream->directory);
    partition_map_init(&stream->partitions);
    state_map_init(&stream->state);
    committer_init(&stream->committer);
    placer_init(&stream->placer);
    checkpointer_init(&stream->checkpointer);
    warm_pool_init(&stream->warm);
    stream_reconfigure(stream, options);
    return stream;
}

static void stream_destroy(struct stream *stream) {
    placer_stop(stream);
    warm_pool_stop(stream);
    partition_map_free(&stream->partitions);
    segment_files_free(&stream->files);
    chunk_pool_free(&stream->chunks);
    state_map_free(&stream->state);
    epoch_table_free(&stream->epochs);
    committer_free(&stream->committer);
    placer_free(&stream->placer);
    checkpointer_free(&stream->checkpointer);
    warm_pool_free(&stream->warm);
    journal_close(&stream->journal);
    file_close(stream->lock_fd);
    free(stream);
}

static int check_options(const struct stream_options *options, char *ret_error) {
    if (strlen(options->directory) < sizeof(((struct stream *)0)->directory) &&
        options->journal_size_bytes >= 4 * LIMIT_UNIT_BYTES + 4 * FORMAT_BLOCK &&
        options->segment_size_bytes > 0)
        return 0;
    snprintf(ret_error, STREAM_ERROR_SIZE,
             "the journal must have at least 5 MiB, segments a size, the directory a shorter name");
    return DG_ERR_INVALID;
}

static int open_files(struct stream *stream, const struct stream_options *options,
                      char *ret_error) {
    struct format_store store;
    int err = store_open(options, &stream->lock_fd, &store, ret_error);
    if (err < 0)
        return err;
    memcpy(stream->secret, store.secret, FORMAT_SECRET_SIZE);
    err = journal_open(&stream->journal, stream->directory, store.journal_size_bytes, store.secret);
    if (err < 0) {
        snprintf(ret_error, STREAM_ERROR_SIZE, "%.300s/journal: %s", stream->directory,
                 dg_err_text(err));
        return err;
    }
    return recovery_run(stream, ret_error);
}

/* Without room for it the old one and the journal have everything: what is stored can be read, and
 * the checkpointer goes on trying. */
static int take_first_checkpoint(struct stream *stream) {
    int err = checkpoint_take(stream);
    if (err != DG_ERR_STORAGE_FULL)
        return err;
    atomic_store(&stream->checkpointer.has_failed, true);
    stream_set_full(stream, true);
    return 0;
}

static int start(struct stream *stream, char *ret_error) {
    int err = placer_start(stream);
    if (err == 0)
        err = warm_pool_start(stream);
    if (err == 0)
        err = take_first_checkpoint(stream);
    if (err == 0 && journal_clear_after(&stream->journal, stream->journal.head_lsn) != 0)
        err = DG_ERR_IO;
    if (err == 0)
        err = checkpointer_start(stream);
    if (err == 0)
        err = committer_start(stream);
    if (err < 0)
        snprintf(ret_error, STREAM_ERROR_SIZE, "%.300s: %s", stream->directory, dg_err_text(err));
    return err;
}

static int open_stream(const struct stream_options *options, struct stream **ret_stream,
                       char *ret_error) {
    int err = check_options(options, ret_error);
    if (err < 0)
        return err;
    struct stream *stream = stream_create(options);
    if (!stream)
        return DG_ERR_NO_MEMORY;
    err = open_files(stream, options, ret_error);
    if (err == 0)
        err = start(stream, ret_error);
    if (err < 0) {
        checkpointer_stop(stream);
        stream_destroy(stream);
        return err;
    }
    metric_set(METRIC_STREAM_EPOCH, stream->epochs.current);
    *ret_stream = stream;
    return 0;
}

int stream_open(const struct stream_options *options, struct stream **ret_stream, char *ret_error) {
    ret_error[0] = '\0';
    int err = open_stream(options, ret_stream, ret_error);
    if (err < 0 && ret_error[0] == '\0')
        snprintf(ret_error, STREAM_ERROR_SIZE, "%.300s: %s", options->directory, dg_err_text(err));
    return err;
}

void stream_close(struct stream *stream) {
    if (!stream)
        return;
    committer_stop(stream);
    checkpointer_stop(stream);
    int err = checkpoint_take(stream);
    (void)err; /* no room: the journal still has everything */
    struct partition *partition, *next;
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        metric_add(METRIC_STORED_BYTES, -atomic_load(&partition->size_bytes));
    }
    stream_destroy(stream);
}

void stream_offsets(struct stream *stream, uint64_t stream_id, uint32_t number,
                    struct stream_offsets *ret_offsets) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    *ret_offsets = (struct stream_offsets){0};
    if (!partition)
        return;
    ret_offsets->log_start = atomic_load_explicit(&partition->log_start, memory_order_acquire);
    ret_offsets->durable_end = atomic_load_explicit(&partition->durable_end, memory_order_acquire);
    ret_offsets->size_bytes = (uint64_t)atomic_load(&partition->size_bytes);
    ret_offsets->appended_bytes = atomic_load(&partition->appended_bytes);
}

int32_t stream_epoch(const struct stream *stream) {
    return stream->epochs.current;
}

struct slice stream_secret(const struct stream *stream) {
    return slice_make(stream->secret, sizeof(stream->secret));
}

int stream_epoch_end(struct stream *stream, uint64_t stream_id, uint32_t number, int32_t epoch,
                     int32_t *ret_epoch, int64_t *ret_end) {
    struct partition_key key = {.stream_id = stream_id, .number = number};
    struct stream_offsets offsets;
    if (epoch < 0 || epoch > stream->epochs.current)
        return DG_ERR_NOT_FOUND;
    if (epoch < stream->epochs.current) {
        epoch_table_end(&stream->epochs, &key, epoch, ret_epoch, ret_end);
        return 0;
    }
    stream_offsets(stream, stream_id, number, &offsets);
    *ret_epoch = epoch;
    *ret_end = offsets.durable_end;
    return 0;
}

void stream_health(struct stream *stream, struct stream_health *ret_health) {
    pthread_mutex_lock(&stream->committer.apply_mutex);
    uint64_t applied = stream->committer.applied_lsn;
    pthread_mutex_unlock(&stream->committer.apply_mutex);
    uint64_t tail = atomic_load(&stream->journal.tail_lsn);
    *ret_health = (struct stream_health){
        .storage_full = atomic_load(&stream->is_full),
        .checkpoint_lag_bytes = applied > tail ? applied - tail : 0,
        .journal_size_bytes = stream->journal.size_bytes,
    };
}

void stream_visit_state(struct stream *stream, enum stream_namespace name_space,
                        stream_state_fn *visit, void *context) {
    state_visit(&stream->state, (uint8_t)name_space, visit, context);
}

int stream_find_state(struct stream *stream, enum stream_namespace name_space, struct slice key,
                      void *ret_value, size_t room) {
    return state_find(&stream->state, (uint8_t)name_space, key, ret_value, room);
}

/* ---- visiting -----------------------------------------------------------------------------------
 */

static int compare_partitions(const void *a, const void *b) {
    const struct partition *const *x = a, *const *y = b;
    if ((*x)->key.stream_id != (*y)->key.stream_id)
        return (*x)->key.stream_id < (*y)->key.stream_id ? -1 : 1;
    return (*x)->key.number < (*y)->key.number ? -1 : (*x)->key.number > (*y)->key.number;
}

void stream_visit_partitions(struct stream *stream, stream_visit_fn *visit, void *context) {
    struct partition *partition, *next;
    pthread_rwlock_rdlock(&stream->partitions.lock);
    unsigned count = 0, room = HASH_COUNT(stream->partitions.partitions);
    struct partition **list = calloc((size_t)room + 1, sizeof(struct partition *));
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        if (list && atomic_load(&partition->exists))
            list[count++] = partition;
    }
    pthread_rwlock_unlock(&stream->partitions.lock);
    if (list)
        qsort(list, count, sizeof(struct partition *), compare_partitions);
    for (unsigned i = 0; i < count; i++) {
        struct stream_offsets offsets;
        stream_offsets(stream, list[i]->key.stream_id, list[i]->key.number, &offsets);
        visit(context, list[i]->key.stream_id, list[i]->key.number, &offsets);
    }
    free(list);
}
