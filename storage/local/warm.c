/* Warming cold ranges: a few threads that wait for the disk in the workers' place. */
#include "storage/local/warm.h"

#include <fcntl.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "common/sys.h"
#include "common/thread.h"
#include "storage/local/engine.h"
#include "storage/local/read.h"
#include "storage/local/walk.h"
#include "storage/local/watch.h"

enum { WARM_READ_BYTES = 256 * 1024, WARM_MAX_BYTES = 1024 * 1024 };

void warm_pool_init(struct warm_pool *pool) {
    *pool = (struct warm_pool){0};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->idle, NULL);
}

void warm_pool_free(struct warm_pool *pool) {
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->idle);
}

static bool enqueue(struct warm_pool *pool, const struct warm_job *job) {
    pthread_mutex_lock(&pool->mutex);
    bool taken = pool->count < WARM_QUEUE_MAX && !pool->is_stopping;
    if (taken)
        pool->jobs[(pool->first + pool->count++) % WARM_QUEUE_MAX] = *job;
    pthread_mutex_unlock(&pool->mutex);
    if (taken)
        pthread_cond_signal(&pool->work);
    return taken;
}

int warm_request(struct warm_pool *pool, const struct warm_job *job) {
    int err = watch_begin_warming(job->watch, &job->want);
    if (err < 0)
        return err;
    metric_add(METRIC_KAFKA_COLD_READS, 1);
    if (enqueue(pool, job))
        return DG_ERR_COLD;
    watch_end_warming(job->watch, &job->want, 0);
    return DG_ERR_BUSY;
}

static bool is_busy_for(const struct warm_pool *pool, const struct stream_watcher *watcher) {
    for (unsigned i = 0; i < WARM_THREADS; i++)
        if (pool->current[i] == watcher)
            return true;
    return false;
}

void warm_forget(struct warm_pool *pool, const struct stream_watcher *watcher) {
    pthread_mutex_lock(&pool->mutex);
    unsigned kept = 0;
    for (unsigned i = 0; i < pool->count; i++) {
        struct warm_job job = pool->jobs[(pool->first + i) % WARM_QUEUE_MAX];
        if (job.watch->watcher != watcher)
            pool->jobs[(pool->first + kept++) % WARM_QUEUE_MAX] = job;
    }
    pool->count = kept;
    while (is_busy_for(pool, watcher))
        pthread_cond_wait(&pool->idle, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static int warm_range(const struct warm_job *job, uint8_t *buffer) {
    struct file_range range;
    int err = read_locate(job->partition, job->want.at, job->size_bytes, true, &range);
    if (err < 0)
        return err;
    uint32_t size = range.size_bytes < WARM_MAX_BYTES ? range.size_bytes : WARM_MAX_BYTES;
    sys.fadvise(range.fd, range.position, size, POSIX_FADV_WILLNEED);
    for (uint32_t done = 0; done < size && err == 0; done += WARM_READ_BYTES) {
        uint32_t step = size - done < WARM_READ_BYTES ? size - done : WARM_READ_BYTES;
        err = walk_read(range.fd, buffer, step, range.position + done, true);
    }
    segment_unpin(range.segment);
    return err;
}

static int warm_what(const struct warm_job *job, uint8_t *buffer) {
    int64_t offset, found_ms;
    if (job->want.kind == WARM_RANGE)
        return warm_range(job, buffer);
    int err = find_time(job->partition, job->want.at, true, &offset, &found_ms);
    return err == DG_ERR_NOT_FOUND ? 0 : err;
}

static unsigned own_slot(struct warm_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    unsigned slot = pool->slots_taken++;
    pthread_mutex_unlock(&pool->mutex);
    return slot;
}

static bool take_job(struct warm_pool *pool, unsigned slot, struct warm_job *ret_job) {
    pthread_mutex_lock(&pool->mutex);
    pool->current[slot] = NULL;
    pthread_cond_broadcast(&pool->idle);
    while (pool->count == 0 && !pool->is_stopping)
        pthread_cond_wait(&pool->work, &pool->mutex);
    bool found = pool->count > 0 && !pool->is_stopping;
    if (found) {
        *ret_job = pool->jobs[pool->first];
        pool->first = (pool->first + 1) % WARM_QUEUE_MAX;
        pool->count--;
        pool->current[slot] = ret_job->watch->watcher;
    }
    pthread_mutex_unlock(&pool->mutex);
    return found;
}

static void *run_warm(void *context) {
    struct stream *stream = context;
    struct warm_job job;
    unsigned slot = own_slot(&stream->warm);
    uint8_t *buffer = malloc(WARM_READ_BYTES);
    while (take_job(&stream->warm, slot, &job)) {
        watch_end_warming(job.watch, &job.want,
                          buffer ? warm_what(&job, buffer) : DG_ERR_NO_MEMORY);
        watch_fire(job.watch);
    }
    free(buffer);
    return NULL;
}

int warm_pool_start(struct stream *stream) {
    struct warm_pool *pool = &stream->warm;
    for (unsigned i = 0; i < WARM_THREADS; i++) {
        int err = thread_start(&pool->threads[i], "cold reads", run_warm, stream);
        if (err < 0)
            return err;
        pool->thread_count++;
    }
    return 0;
}

void warm_pool_stop(struct stream *stream) {
    struct warm_pool *pool = &stream->warm;
    pthread_mutex_lock(&pool->mutex);
    pool->is_stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pool->thread_count = 0;
}
