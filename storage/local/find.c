/*
 * Look-ups by time. Times never decrease within a partition, so the first record at or after a time
 * is exact: binary search over the segments' first batches, the sparse index, then batch by batch
 * and record by record. On a worker nothing of it waits for the disk: the warm pool then does the
 * same look-up, after which everything it touches is in memory.
 */
#include <stdlib.h>

#include "storage/local/engine.h"
#include "storage/local/read.h"
#include "storage/local/walk.h"
#include "storage/local/watch.h"
#include "storage/record.h"

enum { FIND_READ_BYTES = 64 * 1024 };

struct time_search {
    struct partition *partition;
    int64_t wanted_ms;
    bool may_wait;
    int64_t log_start;
    int64_t offset; /* found */
    int64_t timestamp_ms;
};

/* 0: found among these records of the batch; DG_ERR_NOT_FOUND. */
static int find_in_records(const struct record_batch *batch, struct slice bytes,
                           struct time_search *search) {
    struct reader records = reader_make(bytes.data, bytes.size);
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

static int find_in_batch(const struct record_batch *batch, struct time_search *search) {
    struct slice records;
    uint8_t *owned;
    int err = record_batch_expand(batch, &records, &owned);
    if (err < 0)
        return err == DG_ERR_MALFORMED ? DG_ERR_CORRUPT : err;
    err = find_in_records(batch, records, search);
    free(owned);
    return err;
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

static int find_in_extent(const struct stream_extent *extent, struct time_search *search) {
    if (extent->memory)
        return find_in_bytes(extent->memory, extent->size_bytes, search);
    uint8_t *bytes = malloc(extent->size_bytes);
    if (!bytes)
        return DG_ERR_NO_MEMORY;
    int err = walk_read(extent->fd, bytes, extent->size_bytes, (uint32_t)extent->position,
                        search->may_wait);
    if (err == 0)
        err = find_in_bytes(bytes, extent->size_bytes, search);
    free(bytes);
    return err;
}

/* Goes forward from an offset whose records are all early enough. */
static int find_from(struct time_search *search, int64_t offset) {
    int err = DG_ERR_NOT_FOUND;
    while (err == DG_ERR_NOT_FOUND) {
        struct stream_extent extent;
        err = read_extent(search->partition, offset, FIND_READ_BYTES, search->may_wait, &extent);
        if (err < 0)
            return err;
        if (extent.size_bytes == 0)
            return DG_ERR_NOT_FOUND;
        err = find_in_extent(&extent, search);
        offset = extent.next_offset;
        stream_extent_release(&extent);
    }
    return err;
}

/* The segment that begins at base, held; mutex held. */
static int hold_at(const struct partition *partition, int64_t base, struct segment **ret_segment) {
    struct segment *segment = partition_segment_at(partition, base);
    if (!segment || segment->base_offset != base)
        return DG_ERR_OFFSET_OUT_OF_RANGE; /* retention was faster */
    segment_hold(segment);
    *ret_segment = segment;
    return 0;
}

/* The first batch of a held segment; the hold ends. */
static int read_first(struct segment *segment, uint32_t placed, bool may_wait,
                      struct batch_place *ret_place) {
    int64_t base = segment->base_offset;
    int fd = segment_pin_held(segment);
    if (fd < 0)
        return DG_ERR_IO;
    int err = placed > 0 ? walk_header(fd, 0, placed, may_wait, ret_place)
                         : DG_ERR_NO_MEMORY; /* there was none for its first entry */
    segment_unpin(segment);
    return err == 0 && ret_place->base_offset != base ? DG_ERR_CORRUPT : err;
}

/* Time of the first record of the segment that begins at base: from the index or the file. */
static int first_time(const struct time_search *search, int64_t base, int64_t *ret_ms) {
    struct partition *partition = search->partition;
    struct segment *segment = NULL;
    struct batch_place place = {0};
    pthread_mutex_lock(&partition->mutex);
    int err = hold_at(partition, base, &segment);
    const struct index *index = segment ? &segment->index : NULL;
    bool is_indexed = index && index->count > 0 && index->entries[0].position == 0;
    if (is_indexed)
        place.first_ms = index->entries[0].first_ms;
    uint32_t placed = segment ? segment->placed_bytes : 0;
    pthread_mutex_unlock(&partition->mutex);
    if (err < 0)
        return err;
    if (is_indexed) {
        segment_unpin(segment);
    } else {
        err = read_first(segment, placed, search->may_wait, &place);
    }
    if (err == 0)
        *ret_ms = place.first_ms;
    return err;
}

/* Of those that have a record: the newest one may be empty. */
static int copy_bases(struct partition *partition, int64_t **ret_bases, uint32_t *ret_count) {
    pthread_mutex_lock(&partition->mutex);
    uint32_t count = partition->segment_count;
    if (count > 0 && partition->segments[count - 1]->end_bytes == 0)
        count--;
    int64_t *bases = calloc((size_t)count + 1, sizeof(*bases));
    for (uint32_t i = 0; bases && i < count; i++)
        bases[i] = partition->segments[i]->base_offset;
    pthread_mutex_unlock(&partition->mutex);
    *ret_bases = bases;
    *ret_count = count;
    return bases ? 0 : DG_ERR_NO_MEMORY;
}

/* Base of the last segment that begins before the wanted time or the log start. DG_ERR_NOT_FOUND:
 * none does; then the first record of all is the one, if there is any. */
static int find_segment(struct time_search *search, int64_t *ret_base) {
    int64_t *bases;
    uint32_t count;
    int err = copy_bases(search->partition, &bases, &count);
    uint32_t low = 0, high = err == 0 ? count : 0;
    while (err == 0 && low < high) {
        uint32_t middle = low + (high - low) / 2;
        int64_t first_ms = 0;
        if (bases[middle] >= search->log_start)
            err = first_time(search, bases[middle], &first_ms);
        bool is_below = bases[middle] < search->log_start || err == DG_ERR_OFFSET_OUT_OF_RANGE;
        if (is_below)
            err = 0;
        if (is_below || first_ms < search->wanted_ms) {
            low = middle + 1;
        } else {
            high = middle;
            search->offset = bases[middle];
            search->timestamp_ms = first_ms;
        }
    }
    if (err == 0 && low == 0)
        err = DG_ERR_NOT_FOUND;
    else if (err == 0)
        *ret_base = bases[low - 1];
    free(bases);
    return err;
}

/* Offset of the last indexed batch before the wanted time. DG_ERR_COLD: a later one may not be in
 * the index yet. Mutex held. */
static int ask_index(struct segment *segment, int64_t wanted_ms, int64_t *ret_offset) {
    const struct index *index = &segment->index;
    segment->index.is_used = true;
    const struct index_entry *entry = index_find_time(index, wanted_ms);
    const struct index_entry *next = entry ? entry + 1 : index->entries;
    bool has_next = next < index->entries + index->count;
    *ret_offset = entry ? entry->offset : segment->base_offset;
    if (index->from == 0 || (entry && entry->position >= index->from))
        return 0;
    return has_next && next->position < index->covered ? 0 : DG_ERR_COLD;
}

/* Offset of an indexed batch before the wanted time, in the segment that begins at base. */
static int find_in_index(const struct time_search *search, int64_t base, int64_t *ret_offset) {
    struct partition *partition = search->partition;
    struct segment *segment = NULL;
    int64_t offset = base;
    pthread_mutex_lock(&partition->mutex);
    int err = hold_at(partition, base, &segment);
    if (err == 0)
        err = ask_index(segment, search->wanted_ms, &offset);
    pthread_mutex_unlock(&partition->mutex);
    if (segment && segment_pin_held(segment) < 0)
        return DG_ERR_IO;
    while (err == DG_ERR_COLD && search->may_wait) {
        if (walk_on(partition, segment) < 0) {
            err =
                0; /* whoever reads on from there meets what the index could not go past, or not */
            break;
        }
        pthread_mutex_lock(&partition->mutex);
        err = ask_index(segment, search->wanted_ms, &offset);
        pthread_mutex_unlock(&partition->mutex);
    }
    if (segment)
        segment_unpin(segment);
    if (err == 0)
        *ret_offset = offset > search->log_start ? offset : search->log_start;
    return err;
}

int find_time(struct partition *partition, int64_t wanted_ms, bool may_wait, int64_t *ret_offset,
              int64_t *ret_timestamp_ms) {
    struct time_search search = {.partition = partition,
                                 .wanted_ms = wanted_ms,
                                 .may_wait = may_wait,
                                 .log_start = atomic_load(&partition->log_start),
                                 .offset = -1};
    int64_t base = 0, offset = 0;
    int err = find_segment(&search, &base);
    bool is_first = err == DG_ERR_NOT_FOUND && search.offset >= 0;
    if (err == 0)
        err = find_in_index(&search, base, &offset);
    if (err == 0)
        err = find_from(&search, offset);
    if (err < 0 && !is_first)
        return err;
    *ret_offset = search.offset;
    *ret_timestamp_ms = search.timestamp_ms;
    return 0;
}

int stream_find_time(struct stream *stream, uint64_t stream_id, uint32_t number,
                     int64_t timestamp_ms, struct stream_watcher *watcher, int64_t *ret_offset,
                     int64_t *ret_timestamp_ms) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    int64_t last, last_ms;
    if (!partition || stream_find_last(stream, stream_id, number, &last, &last_ms) < 0 ||
        last_ms < timestamp_ms)
        return DG_ERR_NOT_FOUND;
    int err = find_time(partition, timestamp_ms, watcher == NULL, ret_offset, ret_timestamp_ms);
    if (err != DG_ERR_COLD || !watcher)
        return err;
    struct warm_job job = {.partition = partition,
                           .watch = watch_obtain(watcher, partition),
                           .want = {.kind = WARM_TIME, .at = timestamp_ms}};
    return job.watch ? warm_request(&stream->warm, &job) : DG_ERR_NO_MEMORY;
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
