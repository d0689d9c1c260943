/*
 * Reading (protocol clause 17). What is durable but not yet placed is served from the tail's
 * chunks, one batch per extent; the rest from the segment files, as descriptor and position for
 * sendfile. A worker never waits for the disk: bytes are probed with RWF_NOWAIT, and a range that
 * is not in the page cache is left to the warm pool.
 */
#include "storage/local/read.h"

#include "common/assert.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/walk.h"
#include "storage/local/watch.h"

enum { PROBE_STEP_BYTES = 32 * 1024 };

/* ---- locating -----------------------------------------------------------------------------------
 */

struct search {
    struct segment *segment;
    int fd;
    uint32_t position;  /* of a batch at or before the wanted one */
    uint32_t end;       /* how far batches are known behind it */
    int64_t end_offset; /* of the batch there */
};

static void use_hint(const struct partition *partition, const struct segment *segment,
                     int64_t offset, uint32_t *ret_position) {
    for (unsigned i = 0; i < READ_HINT_COUNT; i++) {
        const struct read_hint *hint = &partition->hints[i];
        if (hint->offset == offset && hint->segment_base == segment->base_offset && offset > 0)
            *ret_position = hint->position;
    }
}

/* Offset behind the last batch of the segment that is in the file; mutex held. */
static int64_t placed_next(const struct partition *partition, const struct segment *segment) {
    const struct chunk *unplaced = tail_unplaced(&partition->tail);
    if (unplaced && unplaced->segment == segment)
        return unplaced->base_offset;
    return walk_segment_end(partition, segment);
}

/* A starting position in the stretch of the index that has offset; mutex held. DG_ERR_COLD: none
 * has. DG_ERR_OFFSET_OUT_OF_RANGE: retention was faster, the segment may be out of the table. */
static int find_start(const struct partition *partition, int64_t offset, struct search *search) {
    struct segment *segment = search->segment;
    const struct index *index = &segment->index;
    if (offset < atomic_load(&partition->log_start))
        return DG_ERR_OFFSET_OUT_OF_RANGE;
    segment->index.is_used = true;
    const struct index_entry *entry = index_find_offset(index, offset);
    search->position = entry ? entry->position : 0;
    search->end = segment->placed_bytes;
    search->end_offset = placed_next(partition, segment);
    if (index->from > 0 && offset >= walk_indexed_from(partition, segment)) {
        if (search->position < index->from)
            search->position = index->from;
    } else if (index->from > 0) {
        search->end = index->covered;
        search->end_offset = index_covered_offset(index, segment->base_offset);
        if (offset >= search->end_offset)
            return DG_ERR_COLD;
    }
    use_hint(partition, segment, offset, &search->position);
    return 0;
}

/* Segment, pin and a starting position. DG_ERR_COLD: pinned, but the index has to be made first. */
static int begin_search(struct partition *partition, int64_t offset, struct search *search) {
    pthread_mutex_lock(&partition->mutex);
    struct segment *segment = partition_segment_at(partition, offset);
    int err = segment ? 0 : DG_ERR_OFFSET_OUT_OF_RANGE;
    if (err == 0) {
        segment_hold(segment);
        search->segment = segment;
        err = find_start(partition, offset, search);
    }
    pthread_mutex_unlock(&partition->mutex);
    if (segment && (search->fd = segment_pin_held(segment)) < 0) {
        search->segment = NULL;
        err = DG_ERR_IO;
    }
    return err;
}

/* Makes the index as far as the search needs it. */
static int make_index(struct partition *partition, int64_t offset, struct search *search) {
    int err = DG_ERR_COLD;
    while (err == DG_ERR_COLD) {
        err = walk_on(partition, search->segment);
        if (err < 0)
            break;
        pthread_mutex_lock(&partition->mutex);
        err = find_start(partition, offset, search);
        pthread_mutex_unlock(&partition->mutex);
    }
    return err;
}

/* Steps from batch to batch to the one with offset. */
static int walk_to(struct search *search, int64_t offset, bool may_wait,
                   struct batch_place *ret_place) {
    for (;;) {
        struct batch_place place;
        int err = walk_header(search->fd, search->position, search->end, may_wait, &place);
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
    uint32_t left = search->end - search->position;
    uint32_t limit = search->position + (max_bytes < left ? max_bytes : left);
    range->size_bytes = first->size_bytes;
    range->next_offset = first->next_offset;
    if (limit == search->end) {
        range->size_bytes = left;
        range->next_offset = search->end_offset;
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
    if (err == DG_ERR_COLD && may_wait)
        err = make_index(partition, offset, &search);
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
    struct chunk *chunk = tail_find(&partition->tail, offset);
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
        if (walk_read(range->fd, &byte, 1, at, false) < 0)
            return false;
    return walk_read(range->fd, &byte, 1, end - 1, false) == 0;
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
    struct watch *watch = watch_obtain(watcher, partition);
    struct warm_job job = {.partition = partition,
                           .watch = watch,
                           .want = {.kind = WARM_RANGE, .at = offset},
                           .size_bytes = max_bytes};
    int err = watch ? warm_request(&stream->warm, &job) : DG_ERR_BUSY;
    if (err == DG_ERR_BUSY)
        err = read_file(partition, offset, max_bytes, true, ret_extent);
    return err;
}

int read_extent(struct partition *partition, int64_t offset, uint32_t max_bytes, bool may_wait,
                struct stream_extent *ret_extent) {
    int64_t end = atomic_load(&partition->durable_end);
    if (offset < atomic_load(&partition->log_start) || offset > end)
        return DG_ERR_OFFSET_OUT_OF_RANGE;
    if (offset == end) {
        *ret_extent = (struct stream_extent){.fd = -1, .next_offset = offset};
        return 0;
    }
    if (read_tail(partition, offset, ret_extent))
        return 0;
    return read_file(partition, offset, max_bytes, may_wait, ret_extent);
}

int stream_read(struct stream *stream, uint64_t stream_id, uint32_t number, int64_t offset,
                uint32_t max_bytes, struct stream_watcher *watcher,
                struct stream_extent *ret_extent) {
    struct partition *partition = partition_find(&stream->partitions, stream_id, number);
    if (!partition && offset != 0)
        return DG_ERR_OFFSET_OUT_OF_RANGE;
    if (!partition) {
        *ret_extent = (struct stream_extent){.fd = -1};
        return 0;
    }
    int err = read_extent(partition, offset, max_bytes, watcher == NULL, ret_extent);
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
