/*
 * The checkpoint: what recovery starts from.
 *
 *     struct format_checkpoint
 *     struct format_partition ...
 *     for each partition, in the same order: what is in its newest segment's last, partly filled
 *         block (segment_position modulo FORMAT_BLOCK bytes)
 *     state entries: struct format_state, key, value
 *     CRC-32C of all before
 *
 * Valid: magic, version, store secret, total length and CRC agree. Written as a temporary file,
 * synced, renamed, directory synced; so there is always one whole checkpoint. Order of work: the
 * snapshot as of LSN C is taken first, everything below C is placed and synced, then the file is
 * written, and only then the journal below C is free.
 *
 * Why the last blocks: the placer writes such a block again, as a whole, when the segment grows. If
 * the power fails in that write the block is lost, with bytes below the checkpoint's position that
 * the journal does not have any more. Recovery writes them back from here.
 */
#include "storage/local/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/crc32c.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "storage/local/engine.h"

/* Whatever the committer accepts has room: a group may go past the limit of the state, and an entry
 * is larger than its mutation by the LSN. */
_Static_assert(sizeof(struct format_checkpoint) + sizeof(uint32_t) +
                       LIMIT_PARTITIONS * (sizeof(struct format_partition) + FORMAT_BLOCK) +
                       LIMIT_STATE_BYTES + 2 * LIMIT_GROUP_BYTES <=
                   LIMIT_CHECKPOINT_BYTES,
               "a checkpoint that is written can be read");

static const char CHECKPOINT_MAGIC[8] = {'D', 'G', 'C', 'H', 'E', 'C', 'K', '1'};

/* ---- writing ------------------------------------------------------------------------------------
 */

static void write_partition(struct writer *w, struct partition *partition) {
    const struct partition_applied *applied = &partition->applied;
    struct format_partition row = {
        .stream_id = partition->key.stream_id,
        .partition = partition->key.number,
        .segment_position = applied->segment_bytes,
        .log_start = atomic_load(&partition->log_start),
        .next_offset = applied->next_offset,
        .last_ms = applied->last_ms,
        .segment_base = applied->segment_base,
        .segment_created_ms = applied->segment_created_ms,
    };
    partition->log_start_checkpointed = row.log_start;
    writer_bytes(w, &row, sizeof(row));
}

/* A segment the row speaks of is there: only the checkpointer, whose thread this is, removes any.
 */
static struct segment *find_segment(struct partition *partition, int64_t base) {
    pthread_mutex_lock(&partition->mutex);
    struct segment *segment = partition_segment_at(partition, base);
    pthread_mutex_unlock(&partition->mutex);
    dg_assert(segment && segment->base_offset == base);
    return segment;
}

/* From memory, or when the placer is already beyond that block from the file: the bytes before the
 * row's position do not change any more. */
static void read_last_block(struct partition *partition, const struct format_partition *row,
                            uint8_t *ret_block) {
    if (partition_copy_last_block(partition, row->segment_base, row->segment_position, ret_block))
        return;
    uint32_t size = format_last_block_bytes(row);
    struct segment *segment = find_segment(partition, row->segment_base);
    segment_read(segment, ret_block, size, row->segment_position - size);
}

/* Placer and files have been flushed. */
static void fill_last_blocks(struct stream *stream, uint8_t *data) {
    struct format_checkpoint header;
    memcpy(&header, data, sizeof(header));
    uint8_t *rows = data + sizeof(header);
    uint8_t *block = rows + (size_t)header.partition_count * sizeof(struct format_partition);
    for (uint32_t i = 0; i < header.partition_count; i++) {
        struct format_partition row;
        memcpy(&row, rows + i * sizeof(row), sizeof(row));
        uint32_t size = format_last_block_bytes(&row);
        if (size > 0)
            read_last_block(partition_find(&stream->partitions, row.stream_id, row.partition), &row,
                            block);
        block += size;
    }
}

/* A newest segment that is still empty has to be there, too, when the checkpoint speaks of it. */
static void mark_empty_segments(struct stream *stream, const uint8_t *data) {
    struct format_checkpoint header;
    memcpy(&header, data, sizeof(header));
    for (uint32_t i = 0; i < header.partition_count; i++) {
        struct format_partition row;
        memcpy(&row, data + sizeof(header) + i * sizeof(row), sizeof(row));
        if (row.segment_position == 0)
            segment_mark_new(
                find_segment(partition_find(&stream->partitions, row.stream_id, row.partition),
                             row.segment_base));
    }
}

static uint64_t last_blocks_bytes(const struct stream *stream) {
    const struct partition *partition, *next;
    uint64_t bytes = 0;
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        bytes += partition->applied.segment_bytes % FORMAT_BLOCK;
    }
    return bytes;
}

static uint32_t write_partitions(struct stream *stream, struct writer *w) {
    struct partition *partition, *next;
    uint32_t count = 0;
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        if (partition->applied.segment_base < 0)
            continue; /* no record yet */
        write_partition(w, partition);
        count++;
    }
    return count;
}

/* The snapshot as of the last applied group, with room for the last blocks and the CRC; apply,
 * partitions and state locks are held. */
static uint8_t *encode_locked(struct stream *stream, size_t *ret_size, uint64_t *ret_lsn) {
    uint64_t blocks = last_blocks_bytes(stream);
    size_t room =
        sizeof(struct format_checkpoint) + 4 + stream->state.bytes + blocks +
        (size_t)HASH_COUNT(stream->partitions.partitions) * sizeof(struct format_partition);
    uint8_t *data = malloc(room);
    if (!data)
        return NULL;
    struct writer w = writer_make(data, room);
    writer_reserve(&w, sizeof(struct format_checkpoint));
    struct format_checkpoint header = {
        .version = FORMAT_VERSION,
        .previous_crc = stream->committer.applied_crc,
        .lsn = stream->committer.applied_lsn,
        .partition_count = write_partitions(stream, &w),
        .state_count = stream->state.count,
        .wall_ms = (uint64_t)clock_wall_ms(),
    };
    writer_reserve(&w, blocks);
    state_write(&stream->state, &w);
    memcpy(header.magic, CHECKPOINT_MAGIC, sizeof(header.magic));
    memcpy(header.secret, stream->secret, sizeof(header.secret));
    header.total_bytes = writer_size(&w) + 4;
    memcpy(data, &header, sizeof(header));
    writer_reserve(&w, 4);
    dg_assert(!w.failed && header.total_bytes <= LIMIT_CHECKPOINT_BYTES);
    *ret_size = writer_size(&w);
    *ret_lsn = header.lsn;
    return data;
}

static uint8_t *encode(struct stream *stream, size_t *ret_size, uint64_t *ret_lsn) {
    pthread_mutex_lock(&stream->committer.apply_mutex);
    pthread_rwlock_rdlock(&stream->partitions.lock);
    pthread_mutex_lock(&stream->state.mutex);
    uint8_t *data = encode_locked(stream, ret_size, ret_lsn);
    pthread_mutex_unlock(&stream->state.mutex);
    pthread_rwlock_unlock(&stream->partitions.lock);
    pthread_mutex_unlock(&stream->committer.apply_mutex);
    return data;
}

int checkpoint_take(struct stream *stream) {
    size_t size;
    uint64_t lsn;
    uint8_t *data = encode(stream, &size, &lsn);
    if (!data)
        return DG_ERR_NO_MEMORY;
    placer_flush(&stream->placer);
    mark_empty_segments(stream, data);
    segment_files_sync(&stream->files);
    fill_last_blocks(stream, data);
    uint32_t crc = crc32c_update(0, data, size - 4);
    memcpy(data + size - 4, &crc, sizeof(crc));
    int error = file_replace(stream->directory, "checkpoint", data, size);
    free(data);
    if (errno_is_no_room(error) || errno_is_no_descriptor(error))
        return DG_ERR_STORAGE_FULL;
    if (error)
        storage_die("write", "checkpoint", error);
    atomic_store_explicit(&stream->journal.tail_lsn, lsn, memory_order_release);
    metric_add(METRIC_CHECKPOINTS, 1);
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

static bool is_valid(const struct checkpoint *checkpoint, const uint8_t *secret) {
    const struct format_checkpoint *header = &checkpoint->header;
    size_t size = checkpoint->size_bytes;
    uint32_t crc;
    if (size < sizeof(*header) + 4)
        return false;
    memcpy(&crc, checkpoint->data + size - 4, sizeof(crc));
    return memcmp(header->magic, CHECKPOINT_MAGIC, sizeof(header->magic)) == 0 &&
           header->version == FORMAT_VERSION && header->total_bytes == size &&
           memcmp(header->secret, secret, FORMAT_SECRET_SIZE) == 0 &&
           crc32c_update(0, checkpoint->data, size - 4) == crc &&
           header->partition_count <=
               (size - sizeof(*header) - 4) / sizeof(struct format_partition);
}

/* The three parts of a checkpoint that is as long as it says. */
static int split(struct checkpoint *checkpoint) {
    struct reader r = reader_make(checkpoint->data, checkpoint->size_bytes - 4);
    reader_take(&r, sizeof(checkpoint->header));
    size_t rows = checkpoint->header.partition_count * sizeof(struct format_partition), blocks = 0;
    checkpoint->partitions = reader_make(reader_take(&r, rows), rows);
    struct reader walk = checkpoint->partitions;
    struct format_partition row;
    while (reader_left(&walk) > 0) {
        memcpy(&row, reader_take(&walk, sizeof(row)), sizeof(row));
        blocks += format_last_block_bytes(&row);
    }
    checkpoint->blocks = reader_make(reader_take(&r, blocks), r.failed ? 0 : blocks);
    checkpoint->state = r;
    checkpoint->state_left = checkpoint->header.state_count;
    return r.failed ? DG_ERR_CORRUPT : 0;
}

int checkpoint_load(const char *directory, const uint8_t *secret,
                    struct checkpoint *ret_checkpoint) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/checkpoint", directory);
    struct checkpoint checkpoint = {0};
    int err = file_load(path, LIMIT_CHECKPOINT_BYTES, &checkpoint.data, &checkpoint.size_bytes);
    if (err < 0)
        return err;
    if (checkpoint.size_bytes >= sizeof(checkpoint.header))
        memcpy(&checkpoint.header, checkpoint.data, sizeof(checkpoint.header));
    if (!is_valid(&checkpoint, secret) || split(&checkpoint) < 0) {
        checkpoint_free(&checkpoint);
        return DG_ERR_CORRUPT;
    }
    *ret_checkpoint = checkpoint;
    return 0;
}

void checkpoint_free(struct checkpoint *checkpoint) {
    free(checkpoint->data);
    checkpoint->data = NULL;
}

int checkpoint_next_partition(struct checkpoint *checkpoint,
                              struct format_partition *ret_partition) {
    if (reader_left(&checkpoint->partitions) == 0)
        return DG_ERR_NOT_FOUND;
    const uint8_t *at = reader_take(&checkpoint->partitions, sizeof(*ret_partition));
    if (!at)
        return DG_ERR_MALFORMED;
    memcpy(ret_partition, at, sizeof(*ret_partition));
    checkpoint->last_block =
        reader_take(&checkpoint->blocks, format_last_block_bytes(ret_partition));
    return checkpoint->last_block ? 0 : DG_ERR_MALFORMED;
}

int checkpoint_next_state(struct checkpoint *checkpoint, uint64_t *ret_lsn,
                          struct stream_mutation *ret_mutation) {
    if (checkpoint->state_left == 0)
        return reader_left(&checkpoint->state) == 0 ? DG_ERR_NOT_FOUND : DG_ERR_MALFORMED;
    checkpoint->state_left--;
    const uint8_t *at = reader_take(&checkpoint->state, sizeof(*ret_lsn));
    if (!at)
        return DG_ERR_MALFORMED;
    memcpy(ret_lsn, at, sizeof(*ret_lsn));
    return mutation_read(&checkpoint->state, ret_mutation);
}
