/*
 * Look-ups by time. Times never decrease within a partition, so the first record at or after a time
 * is exact: binary search over the segments' first batches, the sparse index, then batch by batch
 * and record by record.
 */
#include <stdlib.h>

#include "storage/local/engine.h"
#include "storage/local/read.h"
#include "storage/local/walk.h"
#include "storage/record.h"

enum { FIND_READ_BYTES = 64 * 1024 };

/* The bytes of an extent, wherever they are. NULL: memory is out or the disk failed. */
static const uint8_t *extent_bytes(const struct stream_extent *extent, uint8_t **ret_owned) {
    if (extent->memory)
        return extent->memory;
    uint8_t *bytes = malloc(extent->size_bytes);
    if (bytes && file_read(extent->fd, bytes, extent->size_bytes, (off_t)extent->position) !=
                     (ssize_t)extent->size_bytes) {
        free(bytes);
        bytes = NULL;
    }
    *ret_owned = bytes;
    return bytes;
}

struct time_search {
    int64_t wanted_ms;
    int64_t log_start;
    int64_t offset; /* found */
    int64_t timestamp_ms;
};

/* 0: found in this batch; DG_ERR_NOT_FOUND. */
static int find_in_batch(const struct record_batch *batch, struct time_search *search) {
    struct reader records = reader_make(batch->records.data, batch->records.size);
    for (uint32_t i = 0; i < batch->record_count; i++) {
        struct record record;
        int err = record_read(batch, &records, &record);
        if (err < 0)
            return err;
        if (record.timestamp_ms >= search->wanted_ms && record.offset >= search->log_start) {
            search->offset = record.offset;
            search->timestamp_ms = record.timestamp_ms;
            return 0;
        }
    }
    return DG_ERR_NOT_FOUND;
}

static int find_in_bytes(const uint8_t *bytes, size_t size, struct time_search *search) {
    struct reader r = reader_make(bytes, size);
    int err = DG_ERR_NOT_FOUND;
    while (err == DG_ERR_NOT_FOUND && reader_left(&r) > 0) {
        struct record_batch batch;
        if (record_batch_read(&r, true, &batch) < 0)
            return DG_ERR_CORRUPT;
        if (batch.max_timestamp_ms >= search->wanted_ms)
            err = find_in_batch(&batch, search);
    }
    return err;
}

/* Goes forward from an offset whose records are all early enough. */
static int find_from(struct stream *stream, const struct partition *partition, int64_t offset,
                     struct time_search *search) {
    for (;;) {
        struct stream_extent extent;
        int err = stream_read(stream, partition->key.stream_id, partition->key.number, offset,
                              FIND_READ_BYTES, NULL, &extent);
        if (err < 0)
            return err;
        if (extent.size_bytes == 0)
            return DG_ERR_NOT_FOUND;
        uint8_t *owned = NULL;
        const uint8_t *bytes = extent_bytes(&extent, &owned);
        err = bytes ? find_in_bytes(bytes, extent.size_bytes, search) : DG_ERR_IO;
        free(owned);
        offset = extent.next_offset;
        stream_extent_release(&extent);
        if (err != DG_ERR_NOT_FOUND)
            return err;
    }
}

/* Time of the first record of the segment that begins at offset. */
static int first_time(struct stream *stream, const struct partition *partition, int64_t offset,
                      int64_t *ret_ms) {
    struct stream_extent extent;
    struct record_batch batch;
    int err = stream_read(stream, partition->key.stream_id, partition->key.number, offset, 1, NULL,
                          &extent);
    if (err < 0)
        return err;
    uint8_t *owned = NULL;
    const uint8_t *bytes = extent_bytes(&extent, &owned);
    struct reader r = reader_make(bytes, bytes ? extent.size_bytes : 0);
    err = record_batch_read(&r, false, &batch);
    if (err == 0)
        *ret_ms = batch.attributes & RECORD_LOG_APPEND_TIME ? batch.max_timestamp_ms
                                                            : batch.base_timestamp_ms;
    free(owned);
    stream_extent_release(&extent);
    return err;
}

static int copy_bases(struct partition *partition, int64_t **ret_bases, uint32_t *ret_count) {
    pthread_mutex_lock(&partition->mutex);
    uint32_t count = partition->segment_count;
    int64_t *bases = calloc((size_t)count + 1, sizeof(*bases));
    for (uint32_t i = 0; bases && i < count; i++)
        bases[i] = partition->segments[i]->base_offset;
    pthread_mutex_unlock(&partition->mutex);
    *ret_bases = bases;
    *ret_count = count;
    return bases ? 0 : DG_ERR_NO_MEMORY;
}

/* Base of the last segment that begins before the wanted time (or the first one). */
static int find_segment(struct stream *stream, struct partition *partition,
                        const struct time_search *search, int64_t *ret_base) {
    int64_t *bases;
    uint32_t count;
    int err = copy_bases(partition, &bases, &count);
    uint32_t low = 0, high = err == 0 ? count : 0;
    while (err == 0 && low < high) {
        uint32_t middle = low + (high - low) / 2;
        int64_t first_ms = INT64_MIN; /* below the log start: early enough */
        if (bases[middle] >= search->log_start)
            err = first_time(stream, partition, bases[middle], &first_ms);
        if (err == DG_ERR_OFFSET_OUT_OF_RANGE)
            err = 0;
        if (first_ms < search->wanted_ms)
            low = middle + 1;
        else
            high = middle;
    }
    if (err == 0)
        *ret_base = low > 0 ? bases[low - 1] : count > 0 ? bases[0] : 0;
    free(bases);
    return err;
}

/* Offset of the last indexed batch before the wanted time. DG_ERR_COLD: a later one may not be in
 * the index yet. Mutex held. */
static int ask_index(const struct segment *segment, int64_t wanted_ms, int64_t *ret_offset) {
    const struct index *index = &segment->index;
    const struct index_entry *entry = index_find_time(index, wanted_ms);
    const struct index_entry *next = entry ? entry + 1 : index->entries;
    bool has_next = next < index->entries + index->count;
    *ret_offset = entry ? entry->offset : segment->base_offset;
    if (index->from == 0 || (entry && entry->position >= index->from))
        return 0;
    return has_next && next->position < index->covered ? 0 : DG_ERR_COLD;
}

/* Offset of an indexed batch before the wanted time, in the segment that begins at base. */
static int find_in_index(struct partition *partition, int64_t base,
                         const struct time_search *search, int64_t *ret_offset) {
    int64_t offset = base;
    pthread_mutex_lock(&partition->mutex);
    struct segment *segment = partition_segment_at(partition, base);
    int err = segment && segment_pin(segment) >= 0 ? 0 : DG_ERR_OFFSET_OUT_OF_RANGE;
    if (err == 0)
        err = ask_index(segment, search->wanted_ms, &offset);
    pthread_mutex_unlock(&partition->mutex);
    while (err == DG_ERR_COLD && walk_on(partition, segment) == 0) {
        pthread_mutex_lock(&partition->mutex);
        err = ask_index(segment, search->wanted_ms, &offset);
        pthread_mutex_unlock(&partition->mutex);
    }
    if (err == DG_ERR_OFFSET_OUT_OF_RANGE)
        return err;
    segment_unpin(segment);
    *ret_offset = offset > search->log_start ? offset : search->log_start;
    return 0; /* what the index could not go past is met, or not, by whoever reads on from there */
}

int stream_find_time(struct stream *stream, uint64_t stream_id, uint32_t number,
                     int64_t timestamp_ms, int64_t *ret_offset, int64_t *ret_timestamp_ms) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    if (!partition)
        return DG_ERR_NOT_FOUND;
    struct time_search search = {.wanted_ms = timestamp_ms,
                                 .log_start = atomic_load(&partition->log_start)};
    int64_t base = 0, offset = 0;
    if (search.log_start == atomic_load(&partition->durable_end))
        return DG_ERR_NOT_FOUND;
    int err = find_segment(stream, partition, &search, &base);
    if (err == 0)
        err = find_in_index(partition, base, &search, &offset);
    if (err == 0)
        err = find_from(stream, partition, offset, &search);
    if (err < 0)
        return err;
    *ret_offset = search.offset;
    *ret_timestamp_ms = search.timestamp_ms;
    return 0;
}

int stream_find_last(struct stream *stream, uint64_t stream_id, uint32_t number,
                     int64_t *ret_offset, int64_t *ret_timestamp_ms) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    if (!partition)
        return DG_ERR_NOT_FOUND;
    pthread_mutex_lock(&partition->mutex);
    int64_t end = atomic_load(&partition->durable_end);
    bool empty = end == atomic_load(&partition->log_start);
    int64_t last_ms = partition->last_durable_ms;
    pthread_mutex_unlock(&partition->mutex);
    if (empty)
        return DG_ERR_NOT_FOUND;
    *ret_offset = end - 1;
    *ret_timestamp_ms = last_ms;
    return 0;
}
