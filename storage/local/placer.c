/*
 * Placement (protocol clause 9). A batch's place was fixed when it was committed, so placing is
 * nothing but a write of the tail's oldest run at its position; it may be repeated, and a crash in
 * between is repaired by the journal. A failed write ends the process: the journal still has the
 * batch, and recovery will place it.
 */
#include "storage/local/placer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/assert.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "common/thread.h"
#include "storage/local/engine.h"

enum {
    PLACER_RUN_BYTES = 256 * 1024, /* large enough to write at once */
    STAGING_BYTES = 2 * 1024 * 1024,
    PLACER_AGE_MS = 2000, /* a small tail waits so long; each costs a write of its own */
};

void placer_init(struct placer *placer) {
    *placer = (struct placer){0};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&placer->mutex, NULL);
    pthread_cond_init(&placer->work, &monotonic);
    pthread_cond_init(&placer->flushed, NULL);
    pthread_condattr_destroy(&monotonic);
}

void placer_free(struct placer *placer) {
    pthread_mutex_destroy(&placer->mutex);
    pthread_cond_destroy(&placer->work);
    pthread_cond_destroy(&placer->flushed);
    free(placer->staging);
}

static uint64_t backlog(const struct placer *placer) {
    return atomic_load_explicit(&placer->backlog_bytes, memory_order_relaxed);
}

bool placer_is_full(const struct placer *placer) {
    return backlog(placer) > LIMIT_PLACER_BACKLOG_BYTES;
}

/* Too much memory in small tails: write them all. */
static bool is_crowded(const struct placer *placer) {
    return backlog(placer) > LIMIT_PLACER_BACKLOG_BYTES / 2;
}

/* ---- writing one partition's tail ---------------------------------------------------------------
 */

struct run {
    struct segment *segment;
    struct chunk **chunks; /* the placer's; in the tail as long as they are not placed */
    uint32_t count;
    uint32_t position;
    uint32_t bytes;
    struct segment *before; /* when this is the segment's first run: the one that is complete now */
};

static struct segment *segment_before(const struct partition *partition,
                                      const struct segment *segment) {
    return segment->base_offset > 0 ? partition_segment_at(partition, segment->base_offset - 1)
                                    : NULL;
}

/* The oldest unplaced batches that lie one behind the other in one segment. */
static bool collect_run(struct placer *placer, struct partition *partition, struct run *run) {
    *run = (struct run){.chunks = placer->run};
    pthread_mutex_lock(&partition->mutex);
    const struct tail *tail = &partition->tail;
    const struct chunk *first = tail_unplaced(tail);
    if (first) {
        run->segment = first->segment;
        run->position = first->position;
        run->before = first->position == 0 ? segment_before(partition, first->segment) : NULL;
    }
    for (uint64_t n = tail->place; n < tail->end && run->count < PLACER_RUN_CHUNKS; n++) {
        struct chunk *chunk = tail_at(tail, n);
        if (chunk->segment != run->segment ||
            run->bytes + chunk->size_bytes > STAGING_BYTES - 2 * FORMAT_BLOCK)
            break;
        run->chunks[run->count++] = chunk;
        run->bytes += chunk->size_bytes;
    }
    pthread_mutex_unlock(&partition->mutex);
    dg_assert(!first || run->count > 0);
    return first != NULL;
}

/* The bytes before position in its block: kept, or if memory was out for that read back. */
static void stage_block_start(struct partition *partition, const struct run *run, uint8_t *staging,
                              uint32_t start, uint32_t size) {
    if (size == 0)
        return;
    if (!partition_copy_last_block(partition, run->segment->base_offset, run->position, staging))
        segment_read(run->segment, staging, size, start);
}

static void write_run(struct placer *placer, struct partition *partition, const struct run *run) {
    uint8_t *staging = placer->staging;
    uint32_t start = run->position / FORMAT_BLOCK * FORMAT_BLOCK;
    uint32_t filled = run->position - start;
    stage_block_start(partition, run, staging, start, filled);
    for (uint32_t i = 0; i < run->count; i++) {
        const struct chunk *chunk = run->chunks[i];
        memcpy(staging + filled, chunk->data, chunk->size_bytes);
        filled += chunk->size_bytes;
    }
    uint32_t size = (filled + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
    memset(staging + filled, 0, size - filled);
    segment_write_blocks(run->segment, staging, size, start);
    uint32_t end = run->position + run->bytes;
    partition_keep_last_block(partition, run->segment->base_offset, end,
                              staging + (end / FORMAT_BLOCK * FORMAT_BLOCK - start));
}

/* Takes the oldest kept batch out of its partition's tail. */
static void release_oldest(struct placer *placer) {
    struct chunk *chunk = placer->retained_first;
    struct partition *partition = chunk->partition;
    placer->retained_first = chunk->retained_next;
    if (!placer->retained_first)
        placer->retained_last = NULL;
    placer->retained_bytes -= chunk->capacity;
    pthread_mutex_lock(&partition->mutex);
    const struct chunk *first = tail_take_first(&partition->tail);
    dg_assert(first == chunk);
    pthread_mutex_unlock(&partition->mutex);
    chunk_release(chunk);
}

static void retain(struct placer *placer, struct chunk *chunk) {
    chunk->retained_next = NULL;
    *(placer->retained_last ? &placer->retained_last->retained_next : &placer->retained_first) =
        chunk;
    placer->retained_last = chunk;
    placer->retained_bytes += chunk->capacity;
    atomic_fetch_sub_explicit(&placer->backlog_bytes, chunk->capacity, memory_order_relaxed);
}

/* The run is in the file. */
static void finish_run(struct placer *placer, struct partition *partition, const struct run *run) {
    pthread_mutex_lock(&partition->mutex);
    for (uint32_t i = 0; i < run->count; i++)
        retain(placer, run->chunks[i]);
    tail_place(&partition->tail, run->count, run->bytes);
    run->segment->placed_bytes = run->position + run->bytes;
    pthread_mutex_unlock(&partition->mutex);
    while (placer->retained_bytes > LIMIT_PLACER_RETAINED_BYTES)
        release_oldest(placer);
}

static void place_tail(struct stream *stream, struct partition *partition) {
    struct placer *placer = &stream->placer;
    struct run run;
    while (collect_run(placer, partition, &run)) {
        dg_assert(run.position == run.segment->placed_bytes);
        if (run.before) /* not removed: retention waits until its successor has been written, or
                          takes it while that is empty */
            segment_trim(run.before, run.before->placed_bytes);
        write_run(placer, partition, &run);
        finish_run(placer, partition, &run);
        metric_add(METRIC_STORED_BYTES, run.bytes);
        if (segment_files_crowded(&stream->files))
            segment_sync(run.segment); /* so that its descriptor can be closed */
    }
}

/* ---- passes -------------------------------------------------------------------------------------
 */

/* Mutex held. */
static void enqueue(struct placer *placer, struct partition *partition) {
    if (partition->place_queued)
        return;
    partition->place_queued = true;
    partition->place_next = NULL;
    *(placer->last ? &placer->last->place_next : &placer->first) = partition;
    placer->last = partition;
    placer->count++;
}

static struct partition *dequeue(struct placer *placer) {
    struct partition *partition = placer->first;
    if (!partition)
        return NULL;
    placer->first = partition->place_next;
    if (!placer->first)
        placer->last = NULL;
    partition->place_queued = false;
    placer->count--;
    return partition;
}

void placer_add(struct placer *placer, struct partition *partition, uint32_t capacity_bytes,
                uint64_t tail_bytes) {
    atomic_fetch_add_explicit(&placer->backlog_bytes, capacity_bytes, memory_order_relaxed);
    pthread_mutex_lock(&placer->mutex);
    bool wake = !placer->first;
    enqueue(placer, partition);
    if (!placer->wants_pass && (tail_bytes >= PLACER_RUN_BYTES || is_crowded(placer)))
        placer->wants_pass = wake = true;
    pthread_mutex_unlock(&placer->mutex);
    if (wake)
        pthread_cond_signal(&placer->work);
}

static bool has_large_run(struct partition *partition) {
    pthread_mutex_lock(&partition->mutex);
    bool large = partition->tail.unplaced_bytes >= PLACER_RUN_BYTES;
    pthread_mutex_unlock(&partition->mutex);
    return large;
}

/* Goes over the partitions queued now, once; mutex held, released while writing. */
static void make_pass(struct stream *stream, bool all) {
    struct placer *placer = &stream->placer;
    struct partition *partition;
    for (uint32_t left = placer->count; left > 0 && (partition = dequeue(placer)); left--) {
        pthread_mutex_unlock(&placer->mutex);
        bool place = all || is_crowded(placer) || has_large_run(partition);
        if (place)
            place_tail(stream, partition);
        pthread_mutex_lock(&placer->mutex);
        if (!place)
            enqueue(placer, partition);
    }
    metric_set(METRIC_PLACER_BACKLOG_BYTES, (int64_t)backlog(placer));
}

static void deadline_from_now(struct timespec *ret_deadline) {
    clock_gettime(CLOCK_MONOTONIC, ret_deadline);
    ret_deadline->tv_sec += PLACER_AGE_MS / 1000;
    ret_deadline->tv_nsec += PLACER_AGE_MS % 1000 * 1000000L;
    if (ret_deadline->tv_nsec >= 1000000000L) {
        ret_deadline->tv_sec++;
        ret_deadline->tv_nsec -= 1000000000L;
    }
}

/* Sleeps until there is something to write; mutex held. True: everything, old or asked for. */
static bool wait_for_work(struct placer *placer, struct timespec *deadline) {
    for (;;) {
        if (placer->is_stopping || placer->flush_done < placer->flush_requested)
            return true;
        if (placer->wants_pass)
            return false;
        if (!placer->first) {
            pthread_cond_wait(&placer->work, &placer->mutex);
            deadline_from_now(deadline);
        } else if (pthread_cond_timedwait(&placer->work, &placer->mutex, deadline) == ETIMEDOUT) {
            return true;
        }
    }
}

static void *run_placer(void *context) {
    struct stream *stream = context;
    struct placer *placer = &stream->placer;
    struct timespec deadline;
    deadline_from_now(&deadline);
    pthread_mutex_lock(&placer->mutex);
    bool stopping = false;
    while (!stopping) {
        bool all = wait_for_work(placer, &deadline);
        uint64_t target = placer->flush_requested;
        stopping = placer->is_stopping;
        placer->wants_pass = false;
        make_pass(stream, all);
        if (all) {
            deadline_from_now(&deadline);
            placer->flush_done = target;
            pthread_cond_broadcast(&placer->flushed);
        }
        pthread_mutex_unlock(&placer->mutex);
        committer_wake(&stream->committer);
        pthread_mutex_lock(&placer->mutex);
    }
    pthread_mutex_unlock(&placer->mutex);
    return NULL;
}

void placer_flush(struct placer *placer) {
    pthread_mutex_lock(&placer->mutex);
    uint64_t target = ++placer->flush_requested;
    pthread_cond_signal(&placer->work);
    while (placer->flush_done < target)
        pthread_cond_wait(&placer->flushed, &placer->mutex);
    pthread_mutex_unlock(&placer->mutex);
}

int placer_start(struct stream *stream) {
    struct placer *placer = &stream->placer;
    placer->staging = aligned_alloc(FORMAT_BLOCK, STAGING_BYTES);
    if (!placer->staging)
        return DG_ERR_NO_MEMORY;
    memset(placer->staging, 0, STAGING_BYTES);
    int err = thread_start(&placer->thread, "placer", run_placer, stream);
    placer->is_running = err == 0;
    return err;
}

void placer_stop(struct stream *stream) {
    struct placer *placer = &stream->placer;
    if (!placer->is_running)
        return;
    pthread_mutex_lock(&placer->mutex);
    placer->is_stopping = true;
    pthread_cond_signal(&placer->work);
    pthread_mutex_unlock(&placer->mutex);
    pthread_join(placer->thread, NULL);
    placer->is_running = false;
}
