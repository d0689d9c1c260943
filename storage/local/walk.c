/* Walking segments by their batches' headers; the format is described in segment.c. */
#include "storage/local/walk.h"

#include <errno.h>
#include <stdlib.h>

#include "common/reader.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/record.h"

enum {
    WALK_READ_BYTES = 256 * 1024,
    WALK_STEP_BYTES = 16 * 1024 * 1024, /* a reader waits for so much, not for the whole segment */
};

int walk_read(int fd, void *ret_data, size_t size, uint32_t position, bool may_wait) {
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

int walk_header(int fd, uint32_t position, uint32_t end, bool may_wait,
                struct batch_place *ret_place) {
    uint8_t header[RECORD_BATCH_HEADER_SIZE];
    if (end - position <= RECORD_BATCH_HEADER_SIZE)
        return DG_ERR_CORRUPT;
    int err = walk_read(fd, header, sizeof(header), position, may_wait);
    return err < 0 ? err : parse_header(header, end - position, ret_place);
}

/* ---- index --------------------------------------------------------------------------------------
 */

int64_t walk_segment_end(const struct partition *partition, const struct segment *segment) {
    for (uint32_t i = partition->segment_count; i > 1; i--)
        if (partition->segments[i - 2] == segment)
            return partition->segments[i - 1]->base_offset;
    return atomic_load_explicit(&partition->durable_end, memory_order_relaxed);
}

int64_t walk_indexed_from(const struct partition *partition, const struct segment *segment) {
    return segment->end_bytes > segment->index.from ? segment->index.from_offset
                                                    : walk_segment_end(partition, segment);
}

/* One walk: what is known at its begin and found on the way. */
struct walk {
    int fd;
    uint32_t start;
    uint32_t from; /* where the index has the batches again */
    int64_t from_offset;
    uint32_t position;
    int64_t next_offset;
    struct index found;
};

static int walk_step(struct walk *walk, uint8_t *buffer) {
    uint32_t buffered_from = 0, buffered_to = 0;
    while (walk->position < walk->from && walk->position - walk->start < WALK_STEP_BYTES) {
        uint32_t left = walk->from - walk->position;
        if (walk->position + RECORD_BATCH_HEADER_SIZE > buffered_to) {
            uint32_t size = left < WALK_READ_BYTES ? left : WALK_READ_BYTES;
            if (size <= RECORD_BATCH_HEADER_SIZE)
                return DG_ERR_CORRUPT;
            int err = walk_read(walk->fd, buffer, size, walk->position, true);
            if (err < 0)
                return err;
            buffered_from = walk->position;
            buffered_to = walk->position + size;
        }
        struct batch_place place;
        int err = parse_header(buffer + (walk->position - buffered_from), left, &place);
        if (err < 0)
            return err;
        if (place.base_offset != walk->next_offset)
            return DG_ERR_CORRUPT;
        index_add(&walk->found, place.base_offset, place.first_ms, walk->position);
        walk->position += place.size_bytes;
        walk->next_offset = place.next_offset;
    }
    return 0;
}

int walk_on(struct partition *partition, struct segment *segment) {
    struct walk walk = {.fd = segment->fd};
    pthread_mutex_lock(&partition->mutex);
    walk.start = walk.position = segment->index.covered;
    walk.next_offset = index_covered_offset(&segment->index, segment->base_offset);
    walk.from = segment->index.from;
    walk.from_offset = walk_indexed_from(partition, segment);
    pthread_mutex_unlock(&partition->mutex);
    if (walk.from == 0)
        return 0; /* another thread was faster */
    if (walk.start == walk.from)
        return DG_ERR_CORRUPT; /* something is missing behind its last batch */
    uint8_t *buffer = malloc(WALK_READ_BYTES);
    if (!buffer)
        return DG_ERR_NO_MEMORY;
    int err = walk_step(&walk, buffer);
    free(buffer);
    if (err < 0 && walk.position > walk.start)
        err = 0; /* what was found is good; the next step meets the error */
    pthread_mutex_lock(&partition->mutex);
    bool is_next = segment->index.from == walk.from && segment->index.covered == walk.start;
    if (err == 0 && is_next &&
        !index_cover(&segment->index, &walk.found, walk.position, walk.next_offset,
                     walk.from_offset))
        err = DG_ERR_NO_MEMORY;
    pthread_mutex_unlock(&partition->mutex);
    index_free(&walk.found);
    return err;
}

/* ---- forgetting ---------------------------------------------------------------------------------
 */

static uint64_t index_bytes(const struct segment *segment) {
    return segment->index.capacity * sizeof(struct index_entry);
}

/* Frees the index of a segment that has all its batches in the file: from is at its end then, as
 * after a restart. Mutex held. Returns the bytes it had. */
static uint64_t forget_index(struct segment *segment) {
    uint64_t bytes = index_bytes(segment);
    bool keep = segment->index.is_used || segment->placed_bytes != segment->end_bytes;
    segment->index.is_used = false;
    if (keep || bytes == 0)
        return 0;
    index_free(&segment->index);
    segment->index.from = segment->end_bytes;
    return bytes;
}

void walk_forget_indexes(struct stream *stream, uint64_t limit_bytes) {
    unsigned count;
    struct partition **list = partition_map_list(&stream->partitions, &count);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        pthread_mutex_lock(&list[i]->mutex);
        for (uint32_t s = 0; s < list[i]->segment_count; s++)
            bytes += index_bytes(list[i]->segments[s]);
        pthread_mutex_unlock(&list[i]->mutex);
    }
    for (unsigned i = 0; i < count && bytes > limit_bytes; i++) {
        pthread_mutex_lock(&list[i]->mutex);
        for (uint32_t s = 0; s < list[i]->segment_count && bytes > limit_bytes; s++)
            bytes -= forget_index(list[i]->segments[s]);
        pthread_mutex_unlock(&list[i]->mutex);
    }
    free(list);
}
