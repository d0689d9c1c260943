/*
 * Placement (protocol clause 9). A batch's place was fixed when it was committed, so placing is
 * nothing but a write of the tail's oldest run at its position; it may be repeated, and a crash in
 * between is repaired by the journal. A failed write ends the process: the journal still has the
 * batch, and recovery will place it.
 */
#include "storage/local/placer.h"

#include <errno.h>
#include <time.h>

#include "common/assert.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "storage/local/engine.h"

enum {
    PLACER_RUN_BYTES = 256 * 1024, /* large enough to write at once */
    PLACER_AGE_MS = 100,           /* a small tail waits so long */
    PLACER_PARTS_MAX = 256,        /* batches in one write */
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
    struct iovec parts[PLACER_PARTS_MAX];
    int count;
    uint32_t position;
    uint32_t bytes;
    struct segment *before; /* when this is the segment's first run: the one that is complete now */
};

static struct segment *segment_before(const struct partition *partition,
                                      const struct segment *segment) {
    return segment->base_offset > 0 ? partition_segment_at(partition, segment->base_offset - 1)
                                    : NULL;
}

/* The oldest batches that lie one behind the other in one segment. */
static bool collect_run(struct partition *partition, struct run *run) {
    pthread_mutex_lock(&partition->mutex);
    struct chunk *chunk = partition->tail_first;
    if (chunk) {
        run->segment = chunk->segment;
        run->position = chunk->position;
        run->count = 0;
        run->bytes = 0;
    }
    bool found = chunk != NULL;
    for (; chunk && chunk->segment == run->segment && run->count < PLACER_PARTS_MAX;
         chunk = chunk->next) {
        run->parts[run->count++] =
            (struct iovec){.iov_base = chunk->data, .iov_len = chunk->size_bytes};
        run->bytes += chunk->size_bytes;
    }
    run->before = found && run->position == 0 ? segment_before(partition, run->segment) : NULL;
    pthread_mutex_unlock(&partition->mutex);
    return found;
}

/* The run is in the file: readers go there from now on, its memory goes back. */
static uint64_t drop_run(struct partition *partition, int count, const struct run *run) {
    pthread_mutex_lock(&partition->mutex);
    struct chunk *first = partition->tail_first, *chunk = first;
    for (int i = 0; i < count; i++)
        chunk = chunk->next;
    partition->tail_first = chunk;
    if (!chunk)
        partition->tail_last = NULL;
    partition->tail_bytes -= run->bytes;
    run->segment->placed_bytes = run->position + run->bytes;
    pthread_mutex_unlock(&partition->mutex);
    uint64_t capacity = 0;
    for (int i = 0; i < count; i++) {
        struct chunk *next = first->next;
        capacity += first->capacity;
        chunk_release(first);
        first = next;
    }
    return capacity;
}

static void write_run(struct run *run) {
    int fd = segment_pin(run->segment);
    int error = fd < 0 ? errno : file_write_parts(fd, run->parts, run->count, run->position);
    if (error) {
        char path[STORE_PATH_SIZE];
        segment_path(run->segment, path, sizeof(path));
        storage_die("pwrite", path, error);
    }
    segment_mark_dirty(run->segment);
    segment_unpin(run->segment);
}

static void place_tail(struct stream *stream, struct partition *partition) {
    struct placer *placer = &stream->placer;
    struct run run;
    while (collect_run(partition, &run)) {
        int count = run.count; /* the parts change while they are written */
        dg_assert(run.position == run.segment->placed_bytes);
        if (run.before) /* not removed: retention waits until its successor has been written */
            segment_trim(run.before, run.before->placed_bytes);
        write_run(&run);
        uint64_t capacity = drop_run(partition, count, &run);
        atomic_fetch_sub_explicit(&placer->backlog_bytes, capacity, memory_order_relaxed);
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
    bool large = partition->tail_bytes >= PLACER_RUN_BYTES;
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
    ret_deadline->tv_nsec += PLACER_AGE_MS * 1000000L;
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
    if (pthread_create(&placer->thread, NULL, run_placer, stream) != 0)
        return DG_ERR_NO_MEMORY;
    placer->is_running = true;
    return 0;
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
