/*
 * Recovery (protocol clause 11), in two passes so that a damaged store is refused untouched:
 *
 *   1. read: the checkpoint; every valid group from its LSN on, checked but not applied; no valid
 *      later group behind the first invalid one; every partition's newest segment at least as long
 *      as the checkpoint says, and whether its last block is what the checkpoint says;
 *   2. change: write the last blocks back that are not (the power failed while the placer wrote
 *      them again), write the journal's batches to their recorded positions, apply its mutations,
 *      cut off what is behind the last batch, remove later segments, sync.
 *
 * Cutting comes last because it gives reserved space back, which the journal's batches may need on
 * a disk that is full by now. A segment that is as it should be is not touched and not synced: a
 * start after a clean stop costs one read per partition.
 *
 * Both are repeatable: a crash during recovery leaves checkpoint and journal as they were.
 */
#include "storage/local/recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/sys.h"
#include "storage/local/checkpoint.h"
#include "storage/local/engine.h"
#include "storage/local/scan.h"
#include "storage/record.h"

struct recovery {
    struct stream *stream;
    struct checkpoint checkpoint;
    uint64_t end_lsn;
    uint32_t end_crc;
    char *error; /* STREAM_ERROR_SIZE */
};

#define FAIL(recovery, err, ...) \
    (snprintf((recovery)->error, STREAM_ERROR_SIZE, __VA_ARGS__), (err))

/* ---- first pass: read ---------------------------------------------------------------------------
 */

static int check_journal(struct recovery *recovery) {
    struct journal *journal = &recovery->stream->journal;
    uint64_t lsn = recovery->checkpoint.header.lsn;
    uint32_t crc = recovery->checkpoint.header.previous_crc;
    struct journal_group group;
    int err;
    while ((err = journal_read(journal, lsn, crc, &group)) == 0) {
        lsn = group.next_lsn;
        crc = group.crc;
    }
    if (err != DG_ERR_NOT_FOUND)
        return FAIL(recovery, err, "cannot read the journal: %s", strerror(errno));
    recovery->end_lsn = lsn;
    recovery->end_crc = crc;
    uint64_t later;
    err = journal_find_later(journal, lsn, &later);
    if (err == DG_ERR_NOT_FOUND)
        return 0;
    if (err < 0)
        return FAIL(recovery, err, "cannot read the journal: %s", strerror(errno));
    return FAIL(recovery, DG_ERR_CORRUPT,
                "the journal is damaged at position %" PRIu64 " (LSN %" PRIu64
                "): a valid group follows at LSN %" PRIu64 "; nothing was changed",
                lsn % journal->size_bytes, lsn, later);
}

static int list_files(struct recovery *recovery, const struct format_partition *row,
                      int64_t **ret_bases, uint32_t *ret_count) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, recovery->stream->directory,
             row->stream_id, row->partition);
    int err = scan_directory(path, ret_bases, ret_count);
    if (err == DG_ERR_IO)
        return FAIL(recovery, DG_ERR_CORRUPT, "%.300s: %s", path, strerror(errno));
    return err;
}

/* What the placer was writing when the power failed may be neither the old nor the new block, or
 * not readable at all. */
static bool last_block_is_torn(const struct recovery *recovery, int fd,
                               const struct format_partition *row) {
    uint8_t found[FORMAT_BLOCK];
    uint32_t size = format_last_block_bytes(row);
    off_t start = row->segment_position - size;
    if (size == 0)
        return false;
    sys.fadvise(fd, start, FORMAT_BLOCK, POSIX_FADV_DONTNEED); /* memory is no proof */
    return file_read(fd, found, size, start) != (ssize_t)size ||
           memcmp(found, recovery->checkpoint.last_block, size) != 0;
}

/* A segment that the checkpoint knows: its length and when it was last written. */
static int load_segment(struct recovery *recovery, struct partition *partition,
                        const struct format_partition *row, int64_t base) {
    struct segment *segment =
        segment_create(&recovery->stream->files, row->stream_id, row->partition, base, 0);
    if (!segment || !partition_list_segment(partition, segment)) {
        segment_free(segment);
        return DG_ERR_NO_MEMORY;
    }
    char path[STORE_PATH_SIZE];
    segment_path(segment, path, sizeof(path));
    struct stat status;
    int fd = segment_pin(segment);
    if (fd < 0 || sys.fstat(fd, &status) != 0)
        return FAIL(recovery, DG_ERR_IO, "%.300s: %s", path, strerror(errno));
    bool newest = base == row->segment_base;
    segment->file_bytes = (uint64_t)status.st_size;
    segment->is_torn = newest && last_block_is_torn(recovery, fd, row);
    segment_unpin(segment);
    if ((newest && status.st_size < row->segment_position) || status.st_size > UINT32_MAX)
        return FAIL(recovery, DG_ERR_CORRUPT,
                    "%.300s has %lld bytes, the checkpoint says %" PRIu32 "; nothing was changed",
                    path, (long long)status.st_size, row->segment_position);
    segment->end_bytes = newest ? row->segment_position : (uint32_t)status.st_size;
    segment->placed_bytes = segment->end_bytes;
    segment->index.from = segment->end_bytes;
    segment->sealed = !newest;
    segment->sealed_ms =
        (uint64_t)status.st_mtim.tv_sec * 1000 + (uint64_t)status.st_mtim.tv_nsec / 1000000;
    segment->created_ms = newest ? row->segment_created_ms : segment->sealed_ms;
    atomic_fetch_add(&partition->size_bytes, segment->end_bytes);
    if (newest) {
        partition->write_segment = segment;
        partition->write_position = segment->end_bytes;
    }
    return 0;
}

static int missing(struct recovery *recovery, const struct format_partition *row, int64_t base) {
    return FAIL(recovery, DG_ERR_CORRUPT,
                "stream %" PRIu64 " partition %" PRIu32 ": the segment that holds offset %" PRId64
                " is missing; nothing was changed",
                row->stream_id, row->partition, base);
}

/* The one that holds the log start is there. Of those before it retention may have removed any;
 * what is missing behind it a reader of the segment before finds. */
static int load_segments(struct recovery *recovery, struct partition *partition,
                         const struct format_partition *row) {
    int64_t *bases;
    uint32_t count;
    int err = list_files(recovery, row, &bases, &count);
    if (err < 0)
        return err;
    if (count == 0 || bases[0] > row->log_start)
        err = missing(recovery, row, row->log_start);
    for (uint32_t i = 0; i < count && err == 0; i++)
        if (bases[i] <= row->segment_base)
            err = load_segment(recovery, partition, row, bases[i]);
    free(bases);
    if (err == 0 && !partition->write_segment)
        err = missing(recovery, row, row->segment_base);
    return err;
}

static int load_partition(struct recovery *recovery, const struct format_partition *row) {
    struct partition *partition =
        partition_obtain(&recovery->stream->partitions, row->stream_id, row->partition);
    if (!partition)
        return DG_ERR_NO_MEMORY;
    partition->next_offset = row->next_offset;
    partition->last_ms = row->last_ms;
    partition->discard_lsn = row->discard_lsn;
    atomic_store(&partition->log_start, row->log_start);
    atomic_store(&partition->exists, true);
    if (!partition_keep_last_block(partition, row->segment_base, row->segment_position,
                                   recovery->checkpoint.last_block))
        return DG_ERR_NO_MEMORY;
    return load_segments(recovery, partition, row);
}

static int load_checkpoint(struct recovery *recovery) {
    struct stream *stream = recovery->stream;
    int err = checkpoint_load(stream->directory, stream->secret, &recovery->checkpoint);
    if (err < 0)
        return FAIL(recovery, err == DG_ERR_NOT_FOUND ? DG_ERR_CORRUPT : err,
                    "%.300s/checkpoint: %s", stream->directory, dg_err_text(err));
    struct format_partition row;
    int read = 0;
    while (err == 0 && (read = checkpoint_next_partition(&recovery->checkpoint, &row)) == 0)
        err = load_partition(recovery, &row);
    struct stream_mutation mutation;
    uint64_t lsn;
    while (err == 0 && read != DG_ERR_MALFORMED &&
           (read = checkpoint_next_state(&recovery->checkpoint, &lsn, &mutation)) == 0) {
        err = state_apply(&stream->state, lsn, &mutation);
        if (err == 0 && mutation.name_space == STATE_EPOCH)
            err = epoch_table_load(&stream->epochs, mutation.key, mutation.value);
    }
    if (err == 0 && read == DG_ERR_MALFORMED)
        err = FAIL(recovery, DG_ERR_CORRUPT, "%.300s/checkpoint: malformed", stream->directory);
    return err;
}

/* ---- second pass: change ------------------------------------------------------------------------
 */

/* Changed segments must not keep more files open than there are descriptors. */
static void sync_if_crowded(struct segment *segment) {
    if (segment_files_crowded(segment->files))
        segment_sync(segment);
}

static int write_bytes(struct recovery *recovery, struct segment *segment, const void *data,
                       uint32_t size, uint32_t position) {
    int fd = segment_pin(segment);
    int error = fd < 0 ? errno : file_write(fd, data, size, position);
    if (fd >= 0) {
        segment_mark_dirty(segment);
        segment_unpin(segment);
    }
    if (error)
        return FAIL(recovery, errno_is_no_room(error) ? DG_ERR_STORAGE_FULL : DG_ERR_IO,
                    "cannot write a segment of stream %" PRIu64 ": %s", segment->stream_id,
                    strerror(error));
    if (segment->file_bytes < (uint64_t)position + size)
        segment->file_bytes = (uint64_t)position + size;
    sync_if_crowded(segment);
    return 0;
}

/* Whole, so that nothing of a block that cannot be read is asked for. */
static int restore_last_block(struct recovery *recovery, struct partition *partition) {
    struct segment *segment = partition->write_segment;
    if (!segment->is_torn)
        return 0;
    char path[STORE_PATH_SIZE];
    uint8_t block[FORMAT_BLOCK] = {0};
    bool kept =
        partition_copy_last_block(partition, segment->base_offset, segment->end_bytes, block);
    dg_assert(kept);
    segment_path(segment, path, sizeof(path));
    LOG_WARN("storage.block_restored", log_text("path", path),
             log_text("why", "the power failed while it was written"));
    return write_bytes(recovery, segment, block, sizeof(block),
                       segment->end_bytes / FORMAT_BLOCK * FORMAT_BLOCK);
}

/* Removes the partition's segment files behind its newest segment: those of a roll that was not
 * committed. */
static int remove_later(struct recovery *recovery, const struct partition *partition) {
    const struct partition_key *key = &partition->key;
    struct format_partition row = {.stream_id = key->stream_id, .partition = key->number};
    int64_t base = partition->write_segment->base_offset;
    int64_t *bases;
    uint32_t count;
    int err = list_files(recovery, &row, &bases, &count);
    if (err < 0)
        return err;
    for (uint32_t i = 0; i < count && err == 0; i++) {
        if (bases[i] <= base)
            continue;
        struct segment *later =
            segment_create(&recovery->stream->files, row.stream_id, row.partition, bases[i], 0);
        if (later)
            segment_remove(later);
        else
            err = DG_ERR_NO_MEMORY;
    }
    free(bases);
    return err;
}

/* After the journal's last batch: what lies behind it was never acknowledged. The last block may
 * stay whole, as while the segment grows. */
static int cut_off(struct recovery *recovery, struct partition *partition) {
    struct segment *newest = partition->write_segment;
    if (!newest)
        return 0;
    uint64_t blocks = ((uint64_t)newest->end_bytes + FORMAT_BLOCK - 1) / FORMAT_BLOCK;
    if (newest->file_bytes > blocks * FORMAT_BLOCK) {
        segment_trim(newest, newest->end_bytes);
        sync_if_crowded(newest);
    }
    return remove_later(recovery, partition);
}

static int stat_segment(struct segment *segment) {
    struct stat status;
    int fd = segment_pin(segment);
    if (fd < 0)
        return DG_ERR_IO;
    int err = sys.fstat(fd, &status) == 0 ? 0 : DG_ERR_IO;
    segment->file_bytes = err == 0 ? (uint64_t)status.st_size : 0;
    segment_unpin(segment);
    return err;
}

/* The file may be there, longer than what follows or shorter. */
static int replay_roll(struct recovery *recovery, struct partition *partition, int64_t base,
                       uint64_t created_ms, uint64_t wall_ms) {
    struct segment *segment = segment_create(&recovery->stream->files, partition->key.stream_id,
                                             partition->key.number, base, created_ms);
    if (!segment)
        return DG_ERR_NO_MEMORY;
    struct segment *before = partition->write_segment;
    if (before) { /* cut in any case: that makes a cut durable which an earlier recovery has made */
        before->sealed = true;
        before->sealed_ms = wall_ms;
        segment_trim(before, before->end_bytes);
        sync_if_crowded(before);
    }
    int err = segment_create_file(segment);
    if (err == 0)
        err = stat_segment(segment);
    if (err == 0 && !partition_list_segment(partition, segment))
        err = DG_ERR_NO_MEMORY;
    if (err < 0) {
        segment_free(segment);
        return err == DG_ERR_STORAGE_FULL
                   ? FAIL(recovery, err, "no room to write the journal's records to their segments")
                   : err;
    }
    partition->write_segment = segment;
    partition->write_position = 0;
    return 0;
}

/* What the next checkpoint has to hold; the bytes are about to be added at the end. */
static int keep_last_block(struct partition *partition, struct slice bytes) {
    uint8_t block[FORMAT_BLOCK];
    int64_t base = partition->write_segment->base_offset;
    uint32_t from = partition->write_position, end = from + (uint32_t)bytes.size;
    uint32_t start = end / FORMAT_BLOCK * FORMAT_BLOCK;
    uint32_t before = from > start ? from - start : 0;
    uint32_t added = end - start - before;
    if (before > 0 && !partition_copy_last_block(partition, base, from, block))
        return DG_ERR_NO_MEMORY;
    memcpy(block + before, bytes.data + (bytes.size - added), added);
    return partition_keep_last_block(partition, base, end, block) ? 0 : DG_ERR_NO_MEMORY;
}

static int replay_write(struct recovery *recovery, struct partition *partition,
                        struct slice bytes) {
    struct segment *segment = partition->write_segment;
    int err =
        write_bytes(recovery, segment, bytes.data, (uint32_t)bytes.size, partition->write_position);
    if (err == 0)
        err = keep_last_block(partition, bytes);
    if (err < 0)
        return err;
    partition->write_position += (uint32_t)bytes.size;
    segment->end_bytes = segment->placed_bytes = partition->write_position;
    segment->index.from = segment->end_bytes;
    atomic_fetch_add(&partition->size_bytes, (int64_t)bytes.size);
    return 0;
}

static int replay_batch(struct recovery *recovery, const struct format_unit *unit,
                        struct slice bytes, uint64_t wall_ms) {
    struct partition *partition =
        partition_obtain(&recovery->stream->partitions, unit->stream_id, unit->partition);
    if (!partition)
        return DG_ERR_NO_MEMORY;
    struct reader r = reader_make(bytes.data, bytes.size);
    struct record_batch batch;
    if (record_batch_read(&r, true, &batch) < 0 || reader_left(&r) != 0 ||
        batch.base_offset != partition->next_offset || batch.record_count != unit->record_count)
        return FAIL(recovery, DG_ERR_CORRUPT,
                    "the journal's batch for stream %" PRIu64 " partition %" PRIu32
                    " does not follow offset %" PRId64,
                    unit->stream_id, unit->partition, partition->next_offset);
    bool rolls =
        !partition->write_segment || partition->write_segment->base_offset != unit->segment_base;
    int err = rolls ? replay_roll(recovery, partition, unit->segment_base, unit->segment_created_ms,
                                  wall_ms)
                    : 0;
    if (err < 0)
        return err;
    if (partition->write_position != unit->segment_position)
        return FAIL(recovery, DG_ERR_CORRUPT,
                    "the journal places stream %" PRIu64 " partition %" PRIu32 " offset %" PRId64
                    " at %" PRIu32 ", not at the segment's end",
                    unit->stream_id, unit->partition, batch.base_offset, unit->segment_position);
    err = replay_write(recovery, partition, bytes);
    if (err < 0)
        return err;
    partition->next_offset += batch.record_count;
    partition->last_ms = batch.max_timestamp_ms;
    partition->write_segment->sealed_ms = wall_ms;
    atomic_store(&partition->exists, true);
    return 0;
}

/* An empty segment begins. */
static int replay_empty_segment(struct recovery *recovery, const struct format_unit *unit,
                                uint64_t wall_ms) {
    struct partition *partition =
        partition_find(&recovery->stream->partitions, unit->stream_id, unit->partition);
    if (!partition || partition->write_position == 0 ||
        partition->next_offset != unit->segment_base)
        return FAIL(recovery, DG_ERR_CORRUPT,
                    "the journal's new segment of stream %" PRIu64 " partition %" PRIu32
                    " does not follow the one before",
                    unit->stream_id, unit->partition);
    return replay_roll(recovery, partition, unit->segment_base, unit->segment_created_ms, wall_ms);
}

/* A repair cut the partition off before what the journal has for it. */
static bool is_discarded(struct stream *stream, uint64_t stream_id, uint32_t number, uint64_t lsn) {
    const struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    return partition && lsn < partition->discard_lsn;
}

static int replay_mutation(struct stream *stream, uint64_t lsn,
                           const struct stream_mutation *mutation) {
    if (mutation->name_space != STATE_LOG_START)
        return state_apply(&stream->state, lsn, mutation);
    struct log_start_key key = {0};
    int64_t start;
    if (mutation->key.size != LOG_START_KEY_SIZE || mutation->value.size != sizeof(start))
        return DG_ERR_CORRUPT;
    memcpy(&key, mutation->key.data, LOG_START_KEY_SIZE);
    memcpy(&start, mutation->value.data, sizeof(start));
    struct partition *partition = partition_find(&stream->partitions, key.stream_id, key.partition);
    if (partition && lsn >= partition->discard_lsn && start > atomic_load(&partition->log_start))
        atomic_store(&partition->log_start, start);
    return 0;
}

static int replay_unit(struct recovery *recovery, struct reader *r, uint64_t lsn,
                       uint64_t wall_ms) {
    struct format_unit unit = {0};
    const uint8_t *at = reader_take(r, sizeof(unit));
    if (at)
        memcpy(&unit, at, sizeof(unit));
    struct slice batch = reader_slice(r, unit.batch_bytes);
    struct slice mutations = reader_slice(r, unit.mutation_bytes);
    if (r->failed)
        return FAIL(recovery, DG_ERR_CORRUPT, "the group at LSN %" PRIu64 " is malformed", lsn);
    int err = 0;
    if (is_discarded(recovery->stream, unit.stream_id, unit.partition, lsn))
        err = 0;
    else if (batch.size > 0)
        err = replay_batch(recovery, &unit, batch, wall_ms);
    else if (unit.segment_base >= 0)
        err = replay_empty_segment(recovery, &unit, wall_ms);
    struct reader m = reader_make(mutations.data, mutations.size);
    for (uint32_t i = 0; i < unit.mutation_count && err == 0; i++) {
        struct stream_mutation mutation;
        err = mutation_read(&m, &mutation);
        if (err == 0)
            err = replay_mutation(recovery->stream, lsn, &mutation);
    }
    return err;
}

static int replay_journal(struct recovery *recovery) {
    struct journal *journal = &recovery->stream->journal;
    uint64_t lsn = recovery->checkpoint.header.lsn;
    uint32_t crc = recovery->checkpoint.header.previous_crc;
    struct journal_group group;
    int err = 0;
    while (err == 0 && lsn < recovery->end_lsn) {
        err = journal_read(journal, lsn, crc, &group);
        struct reader r = reader_make(group.payload.data, err == 0 ? group.payload.size : 0);
        for (uint32_t i = 0; err == 0 && i < group.unit_count; i++)
            err = replay_unit(recovery, &r, group.lsn, group.wall_ms);
        if (err == 0) {
            lsn = group.next_lsn;
            crc = group.crc;
        }
    }
    return err;
}

/* What committer, readers and the next checkpoint begin with. */
static void publish(struct stream *stream, struct partition *partition) {
    struct segment *segment = partition->write_segment;
    stream->partitions.used_count += segment != NULL;
    if (segment) /* whole blocks of what it holds have their space, and it is not asked for again */
        segment->allocated_bytes = segment->end_bytes / FORMAT_BLOCK * FORMAT_BLOCK;
    partition->applied = (struct partition_applied){
        .next_offset = partition->next_offset,
        .last_ms = partition->last_ms,
        .segment_base = segment ? segment->base_offset : -1,
        .segment_bytes = partition->write_position,
        .segment_created_ms = segment ? segment->created_ms : 0,
    };
    partition->last_durable_ms = partition->last_ms;
    atomic_store(&partition->log_start_requested, atomic_load(&partition->log_start));
    atomic_store(&partition->durable_end, partition->next_offset);
    metric_add(METRIC_STORED_BYTES, atomic_load(&partition->size_bytes));
}

int recovery_run(struct stream *stream, char *ret_error) {
    struct recovery recovery = {.stream = stream, .error = ret_error};
    struct partition *partition, *next;
    int err = load_checkpoint(&recovery);
    if (err == 0)
        err = check_journal(&recovery);
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        if (err == 0)
            err = restore_last_block(&recovery, partition);
    }
    if (err == 0)
        err = replay_journal(&recovery);
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        if (err == 0)
            err = cut_off(&recovery, partition);
    }
    if (err == 0) {
        segment_files_sync(&stream->files);
        HASH_ITER(hh, stream->partitions.partitions, partition, next) {
            publish(stream, partition);
        }
        stream->journal.head_lsn = recovery.end_lsn;
        stream->journal.previous_crc = recovery.end_crc;
        atomic_store(&stream->journal.tail_lsn, recovery.checkpoint.header.lsn);
        stream->committer.applied_lsn = recovery.end_lsn;
        stream->committer.applied_crc = recovery.end_crc;
    }
    checkpoint_free(&recovery.checkpoint);
    return err;
}
