/*
 * Reading (protocol clause 17). What is durable but not yet placed is served from the tail's
 * chunks, one batch per extent; the rest from the segment files, as descriptor and position for
 * sendfile. A worker never waits for the disk: bytes are probed with RWF_NOWAIT, and a range that
 * is not in the page cache is left to the warm pool.
 */
#include "storage/local/read.h"

#include <errno.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/watch.h"
#include "storage/record.h"

enum { PROBE_STEP_BYTES = 32 * 1024, INDEX_READ_BYTES = 256 * 1024 };

/* Reads without waiting, or waits when it may. 0, DG_ERR_COLD, DG_ERR_IO; short is DG_ERR_CORRUPT.
 */
static int read_bytes(int fd, void *ret_data, size_t size, uint32_t position, bool may_wait) {
    ssize_t count;
    if (may_wait) {
        count = file_read(fd, ret_data, size, position);
    } else {
        struct iovec part = {.iov_base = ret_data, .iov_len = size};
        count = sys.preadv2(fd, &part, 1, position, RWF_NOWAIT);
        if (count < 0 && errno == EOPNOTSUPP)
            count = file_read(fd, ret_data, size, position);
        if ((count < 0 && errno == EAGAIN) || (count >= 0 && (size_t)count < size))
            return DG_ERR_COLD;
    }
    if (count < 0)
        return DG_ERR_IO;
    return (size_t)count == size ? 0 : DG_ERR_CORRUPT;
}

struct batch_place {
    int64_t base_offset;
    int64_t next_offset;
    int64_t first_ms;
    uint32_t size_bytes;
};

/* The batch header in 61 bytes of a file. */
static int parse_header(const uint8_t *bytes, uint32_t limit_bytes, struct batch_place *ret_place) {
    struct reader r = reader_make(bytes, RECORD_BATCH_HEADER_SIZE);
    int64_t base_offset = (int64_t)reader_u64(&r);
    uint32_t size_bytes = reader_u32(&r) + 12;
    reader_u32(&r);
    uint8_t magic = reader_u8(&r);
    reader_u32(&r);
    uint16_t attributes = reader_u16(&r);
    uint32_t last_delta = reader_u32(&r);
    int64_t base_ms = (int64_t)reader_u64(&r);
    int64_t max_ms = (int64_t)reader_u64(&r);
    if (magic != RECORD_MAGIC || size_bytes <= RECORD_BATCH_HEADER_SIZE ||
        size_bytes > limit_bytes || size_bytes > LIMIT_UNIT_BYTES || base_offset < 0 ||
        last_delta > INT32_MAX)
        return DG_ERR_CORRUPT;
    *ret_place = (struct batch_place){
        .base_offset = base_offset,
        .next_offset = base_offset + (int64_t)last_delta + 1,
        .first_ms = attributes & RECORD_LOG_APPEND_TIME ? max_ms : base_ms,
        .size_bytes = size_bytes,
    };
    return 0;
}

static int read_header(int fd, uint32_t position, uint32_t end, bool may_wait,
                       struct batch_place *ret_place) {
    uint8_t header[RECORD_BATCH_HEADER_SIZE];
    if (end - position <= RECORD_BATCH_HEADER_SIZE)
        return DG_ERR_CORRUPT;
    int err = read_bytes(fd, header, sizeof(header), position, may_wait);
    return err < 0 ? err : parse_header(header, end - position, ret_place);
}

/* ---- index --------------------------------------------------------------------------------------
 */

static int walk_segment(int fd, uint32_t end, uint8_t *buffer, struct index *index) {
    uint32_t position = 0, buffered_from = 0, buffered_to = 0;
    while (position < end) {
        if (position + RECORD_BATCH_HEADER_SIZE > buffered_to) {
            uint32_t size = end - position < INDEX_READ_BYTES ? end - position : INDEX_READ_BYTES;
            int err = read_bytes(fd, buffer, size, position, true);
            if (err < 0)
                return err;
            buffered_from = position;
            buffered_to = position + size;
            if (size <= RECORD_BATCH_HEADER_SIZE)
                return DG_ERR_CORRUPT;
        }
        struct batch_place place;
        int err = parse_header(buffer + (position - buffered_from), end - position, &place);
        if (err < 0)
            return err;
        index_add(index, place.base_offset, place.first_ms, position);
        position += place.size_bytes;
    }
    return 0;
}

int read_build_index(struct partition *partition, struct segment *segment) {
    pthread_mutex_lock(&partition->mutex);
    uint32_t from = segment->index.from;
    pthread_mutex_unlock(&partition->mutex);
    if (from == 0)
        return 0;
    uint8_t *buffer = malloc(INDEX_READ_BYTES);
    if (!buffer)
        return DG_ERR_NO_MEMORY;
    struct index before = {0};
    int err = walk_segment(segment->fd, from, buffer, &before);
    free(buffer);
    pthread_mutex_lock(&partition->mutex);
    if (err == 0 && segment->index.from == from)
        index_prepend(&segment->index, &before);
    else
        index_free(&before);
    pthread_mutex_unlock(&partition->mutex);
    return err;
}

/* ---- locating -----------------------------------------------------------------------------------
 */

struct search {
    struct segment *segment;
    int fd;
    uint32_t position; /* of a batch at or before the wanted one */
    uint32_t placed;
    int64_t placed_next; /* offset behind the last placed batch */
};

static bool use_hint(const struct partition *partition, const struct segment *segment,
                     int64_t offset, uint32_t *ret_position) {
    for (unsigned i = 0; i < READ_HINT_COUNT; i++) {
        const struct read_hint *hint = &partition->hints[i];
        if (hint->offset == offset && hint->segment_base == segment->base_offset && offset > 0) {
            *ret_position = hint->position;
            return true;
        }
    }
    return false;
}

/* Offset behind the last batch of the segment that is in the file; mutex held. */
static int64_t placed_next(const struct partition *partition, const struct segment *segment) {
    if (partition->place_first && partition->place_first->segment == segment)
        return partition->place_first->base_offset;
    for (uint32_t i = partition->segment_count; i > 1; i--)
        if (partition->segments[i - 2] == segment)
            return partition->segments[i - 1]->base_offset;
    return atomic_load_explicit(&partition->durable_end, memory_order_relaxed);
}

/* Segment, pin and a starting position. DG_ERR_COLD: the index has to be built first. */
static int begin_search(struct partition *partition, int64_t offset, struct search *search) {
    pthread_mutex_lock(&partition->mutex);
    struct segment *segment = partition_segment_at(partition, offset);
    int err =
        segment && offset >= atomic_load(&partition->log_start) ? 0 : DG_ERR_OFFSET_OUT_OF_RANGE;
    if (err == 0 && (search->fd = segment_pin(segment)) < 0)
        err = DG_ERR_IO;
    if (err == 0) {
        search->segment = segment;
        search->placed = segment->placed_bytes;
        search->placed_next = placed_next(partition, segment);
        search->position = 0;
        if (!use_hint(partition, segment, offset, &search->position)) {
            const struct index_entry *entry = index_find_offset(&segment->index, offset);
            if (entry)
                search->position = entry->position;
            else if (segment->index.from > 0 && offset > segment->base_offset)
                err = DG_ERR_COLD;
        }
    }
    pthread_mutex_unlock(&partition->mutex);
    return err;
}

/* Steps from batch to batch to the one with offset. */
static int walk_to(struct search *search, int64_t offset, bool may_wait,
                   struct batch_place *ret_place) {
    for (;;) {
        struct batch_place place;
        int err = read_header(search->fd, search->position, search->placed, may_wait, &place);
        if (err < 0)
            return err;
        if (place.base_offset > offset)
            return DG_ERR_CORRUPT;
        if (place.next_offset > offset) {
            *ret_place = place;
            return 0;
        }
        search->position += place.size_bytes;
    }
}

/* How far whole batches go within max_bytes: at least the first one. */
static void choose_end(struct partition *partition, const struct search *search,
                       const struct batch_place *first, uint32_t max_bytes,
                       struct file_range *range) {
    uint32_t limit = max_bytes < search->placed - search->position ? search->position + max_bytes
                                                                   : search->placed;
    range->size_bytes = first->size_bytes;
    range->next_offset = first->next_offset;
    if (limit == search->placed) {
        range->size_bytes = search->placed - search->position;
        range->next_offset = search->placed_next;
        return;
    }
    pthread_mutex_lock(&partition->mutex);
    const struct index_entry *entry = index_find_position(&search->segment->index, limit);
    if (entry && entry->position > search->position + first->size_bytes) {
        range->size_bytes = entry->position - search->position;
        range->next_offset = entry->offset;
    }
    pthread_mutex_unlock(&partition->mutex);
}

int read_locate(struct partition *partition, int64_t offset, uint32_t max_bytes, bool may_wait,
                struct file_range *ret_range) {
    struct search search = {0};
    struct batch_place first = {0};
    int err = begin_search(partition, offset, &search);
    if (err == DG_ERR_COLD && may_wait) {
        err = read_build_index(partition, search.segment);
        segment_unpin(search.segment);
        search.segment = NULL;
        if (err == 0)
            err = begin_search(partition, offset, &search);
    }
    if (err == 0)
        err = walk_to(&search, offset, may_wait, &first);
    if (err < 0) {
        if (search.segment)
            segment_unpin(search.segment);
        return err;
    }
    struct file_range range = {
        .segment = search.segment, .fd = search.fd, .position = search.position};
    choose_end(partition, &search, &first, max_bytes, &range);
    *ret_range = range;
    return 0;
}

/* ---- stream_read --------------------------------------------------------------------------------
 */

/* From the tail's memory, if offset is there. */
static bool read_tail(struct partition *partition, int64_t offset,
                      struct stream_extent *ret_extent) {
    pthread_mutex_lock(&partition->mutex);
    struct chunk *chunk = partition->tail_first;
    if (chunk && offset < chunk->base_offset)
        chunk = NULL;
    while (chunk && offset >= chunk->next_offset)
        chunk = chunk->next;
    if (chunk)
        chunk_reference(chunk);
    pthread_mutex_unlock(&partition->mutex);
    if (!chunk)
        return false;
    dg_assert(chunk->base_offset <= offset);
    *ret_extent = (struct stream_extent){
        .memory = chunk->data,
        .fd = -1,
        .size_bytes = chunk->size_bytes,
        .next_offset = chunk->next_offset,
        .hold = &chunk->hold,
    };
    return true;
}

static bool is_resident(const struct file_range *range) {
    uint8_t byte;
    uint32_t end = range->position + range->size_bytes;
    for (uint32_t at = range->position; at < end; at += PROBE_STEP_BYTES)
        if (read_bytes(range->fd, &byte, 1, at, false) < 0)
            return false;
    return read_bytes(range->fd, &byte, 1, end - 1, false) == 0;
}

static void remember(struct partition *partition, const struct file_range *range) {
    pthread_mutex_lock(&partition->mutex);
    partition->hints[partition->next_hint++ % READ_HINT_COUNT] = (struct read_hint){
        .segment_base = range->segment->base_offset,
        .offset = range->next_offset,
        .position = range->position + range->size_bytes,
    };
    pthread_mutex_unlock(&partition->mutex);
}

static int read_file(struct partition *partition, int64_t offset, uint32_t max_bytes, bool may_wait,
                     struct stream_extent *ret_extent) {
    struct file_range range;
    int err = read_locate(partition, offset, max_bytes, may_wait, &range);
    if (err < 0)
        return err;
    if (!may_wait && !is_resident(&range)) {
        segment_unpin(range.segment);
        return DG_ERR_COLD;
    }
    remember(partition, &range);
    *ret_extent = (struct stream_extent){
        .fd = range.fd,
        .position = range.position,
        .size_bytes = range.size_bytes,
        .next_offset = range.next_offset,
        .hold = &range.segment->hold,
    };
    return 0;
}

/* Hands a cold range to the warm pool; when that is full this thread waits for the disk itself. */
static int warm_or_wait(struct stream *stream, struct partition *partition, int64_t offset,
                        uint32_t max_bytes, struct stream_watcher *watcher,
                        struct stream_extent *ret_extent) {
    metric_add(METRIC_KAFKA_COLD_READS, 1);
    struct watch *watch = watch_obtain(watcher, partition);
    struct warm_job job = {
        .partition = partition, .watch = watch, .offset = offset, .size_bytes = max_bytes};
    if (watch && warm_request(&stream->warm, &job))
        return DG_ERR_COLD;
    return read_file(partition, offset, max_bytes, true, ret_extent);
}

int stream_read(struct stream *stream, uint64_t stream_id, uint32_t number, int64_t offset,
                uint32_t max_bytes, struct stream_watcher *watcher,
                struct stream_extent *ret_extent) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    int64_t end = partition ? atomic_load(&partition->durable_end) : 0;
    int64_t start = partition ? atomic_load(&partition->log_start) : 0;
    if (offset < start || offset > end)
        return DG_ERR_OFFSET_OUT_OF_RANGE;
    if (offset == end) {
        *ret_extent = (struct stream_extent){.fd = -1, .next_offset = offset};
        return 0;
    }
    if (read_tail(partition, offset, ret_extent))
        return 0;
    int err = read_file(partition, offset, max_bytes, watcher == NULL, ret_extent);
    if (err == DG_ERR_COLD && watcher)
        err = warm_or_wait(stream, partition, offset, max_bytes, watcher, ret_extent);
    return err;
}

void stream_extent_release(struct stream_extent *extent) {
    struct hold *hold = extent->hold;
    if (hold)
        hold->release(hold);
    extent->hold = NULL;
    extent->memory = NULL;
    extent->fd = -1;
}
