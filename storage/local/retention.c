/*
 * Retention (protocol clause 12), by whole sealed segments. The new log start is a mutation in the
 * journal; when it has been applied a checkpoint is taken, and only after that the files go. A
 * reader of a removed segment keeps its descriptor until it lets go of the extent. A crash in
 * between leaves files below the log start, which the next checkpoint's pass removes.
 *
 * Ages are of the wall clock. One that is set forward would make everything old at once, so after
 * such a step nothing goes by age for a while, in which it can be set right.
 *
 * Nothing is appended to an idle partition, so its newest segment would never be sealed: when that
 * is older than segments get and its last batch older than what is kept, the log start becomes the
 * partition's end, and the committer begins an empty segment there.
 */
#include "storage/local/checkpointer.h"

#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "storage/local/engine.h"

uint64_t retention_clock_read(struct retention_clock *clock, uint64_t wall_ms,
                              uint64_t monotonic_ms, uint64_t *ret_step_ms) {
    uint64_t expected_ms = clock->wall_ms + (monotonic_ms - clock->monotonic_ms);
    bool is_step = clock->wall_ms > 0 && wall_ms > expected_ms + RETENTION_STEP_MS;
    *ret_step_ms = is_step ? wall_ms - expected_ms : 0;
    if (is_step)
        clock->held_until_ms = monotonic_ms + RETENTION_HOLD_MS;
    clock->wall_ms = wall_ms;
    clock->monotonic_ms = monotonic_ms;
    return monotonic_ms < clock->held_until_ms ? 0 : wall_ms;
}

static bool is_over(uint64_t now_ms, uint64_t since_ms, uint64_t age_max_ms) {
    return now_ms > since_ms && now_ms - since_ms > age_max_ms;
}

static bool has_expired(const struct stream *stream, const struct segment *segment,
                        uint64_t bytes_with_it, uint64_t now_ms) {
    uint64_t bytes_max = atomic_load(&stream->retention_bytes);
    uint64_t age_max_ms = atomic_load(&stream->retention_ms);
    bool too_much = bytes_max > 0 && bytes_with_it - segment->end_bytes >= bytes_max;
    bool too_old = age_max_ms > 0 && is_over(now_ms, segment->sealed_ms, age_max_ms);
    return too_much || too_old;
}

/* The newest segment, and all before it have expired. */
static bool newest_has_expired(const struct stream *stream, const struct segment *segment,
                               uint64_t now_ms) {
    uint64_t age_max_ms = atomic_load(&stream->retention_ms);
    return age_max_ms > 0 && segment->end_bytes > 0 &&
           is_over(now_ms, segment->sealed_ms, age_max_ms) &&
           is_over(now_ms, segment->created_ms, atomic_load(&stream->segment_age_ms));
}

/* The log start the partition should have. */
static int64_t wanted_start(struct stream *stream, struct partition *partition, uint64_t now_ms) {
    pthread_mutex_lock(&partition->mutex);
    int64_t start = atomic_load(&partition->log_start);
    uint64_t bytes = (uint64_t)atomic_load(&partition->size_bytes);
    uint32_t i = 0;
    for (; i + 1 < partition->segment_count; i++) {
        const struct segment *segment = partition->segments[i];
        const struct segment *next = partition->segments[i + 1];
        if (!segment->sealed || !has_expired(stream, segment, bytes, now_ms))
            break;
        bytes -= segment->end_bytes;
        if (next->base_offset > start)
            start = next->base_offset;
    }
    if (i + 1 == partition->segment_count &&
        newest_has_expired(stream, partition->segments[i], now_ms))
        start = atomic_load(&partition->durable_end);
    pthread_mutex_unlock(&partition->mutex);
    return start;
}

/* Committer's thread. Applied: a checkpoint makes the removal possible. Refused, because there is
 * no room in the journal: the next tick tries again. */
static void complete_request(struct unit *unit) {
    struct stream *stream = unit->context;
    if (unit->err < 0)
        atomic_store(&unit->partition->log_start_requested,
                     atomic_load(&unit->partition->log_start));
    else
        checkpointer_request(&stream->checkpointer);
    free(unit->mutations);
    free(unit);
}

static void request_start(struct stream *stream, struct partition *partition, int64_t start) {
    struct log_start_key key = {.stream_id = partition->key.stream_id,
                                .partition = partition->key.number};
    struct stream_mutation mutation = {
        .name_space = STATE_LOG_START,
        .key = slice_make(&key, LOG_START_KEY_SIZE),
        .value = slice_make(&start, sizeof(start)),
    };
    uint32_t size = mutation_size(&mutation);
    struct unit *unit = calloc(1, sizeof(*unit));
    uint8_t *bytes = malloc(size);
    if (!unit || !bytes) {
        free(unit);
        free(bytes);
        return; /* the next tick tries again */
    }
    struct writer w = writer_make(bytes, size);
    mutation_write(&w, &mutation);
    unit->context = stream;
    unit->stream_id = partition->key.stream_id;
    unit->partition_number = partition->key.number;
    unit->partition = partition;
    unit->complete = complete_request;
    unit->log_start = start;
    unit->mutations = bytes;
    unit->mutation_bytes = size;
    unit->mutation_count = 1;
    atomic_store(&partition->log_start_requested, start);
    if (!committer_submit(&stream->committer, unit, unit, NULL)) {
        free(bytes);
        free(unit);
    }
}

void retention_request(struct stream *stream, uint64_t now_ms) {
    struct partition *partition, *next;
    pthread_rwlock_rdlock(&stream->partitions.lock);
    HASH_ITER(hh, stream->partitions.partitions, partition, next) {
        int64_t start = wanted_start(stream, partition, now_ms);
        if (start > atomic_load(&partition->log_start) &&
            start > atomic_load(&partition->log_start_requested))
            request_start(stream, partition, start);
    }
    pthread_rwlock_unlock(&stream->partitions.lock);
}

/* The placer has written all of a segment and does not come back to cut it. */
static bool is_placed(const struct segment *segment, const struct segment *next) {
    return next->placed_bytes > 0 ||
           (next->end_bytes == 0 && segment->placed_bytes == segment->end_bytes);
}

/* Takes the oldest segment out of the partition if it lies below the log start on disk. */
static struct segment *take_expired(struct partition *partition) {
    struct segment *expired = NULL;
    pthread_mutex_lock(&partition->mutex);
    if (partition->segment_count > 1 && is_placed(partition->segments[0], partition->segments[1]) &&
        partition->segments[1]->base_offset <= partition->log_start_checkpointed) {
        expired = partition->segments[0];
        partition->segment_count--;
        memmove(partition->segments, partition->segments + 1,
                partition->segment_count * sizeof(struct segment *));
        atomic_fetch_sub(&partition->size_bytes, (int64_t)expired->end_bytes);
    }
    pthread_mutex_unlock(&partition->mutex);
    return expired;
}

void retention_remove(struct stream *stream) {
    struct segment *segment;
    unsigned count;
    struct partition **list = partition_map_list(&stream->partitions, &count);
    for (unsigned i = 0; i < count; i++)
        while ((segment = take_expired(list[i]))) {
            metric_add(METRIC_STORED_BYTES, -(int64_t)segment->end_bytes);
            segment_remove(segment);
        }
    free(list);
}
