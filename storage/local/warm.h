/*
 * A small pool that reads cold ranges into the page cache so that no worker waits for the disk.
 * What was read is found there by the reader that asks again; what could not be read it is told by
 * the watch.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { WARM_THREADS = 2, WARM_QUEUE_MAX = 1024 };

struct partition;
struct stream;
struct stream_watcher;
struct watch;

struct warm_want {
    enum { WARM_NOTHING, WARM_RANGE, WARM_TIME } kind;
    int64_t at; /* WARM_RANGE: offset; WARM_TIME: what stream_find_time() reads to find it */
};

struct warm_job {
    struct partition *partition;
    struct watch *watch; /* told when it is done */
    struct warm_want want;
    uint32_t size_bytes;
};

struct warm_pool {
    pthread_t threads[WARM_THREADS];
    unsigned thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t idle;
    struct warm_job jobs[WARM_QUEUE_MAX]; /* ring */
    const struct stream_watcher *current[WARM_THREADS];
    unsigned slots_taken;
    unsigned first, count;
    bool is_stopping;
};

void warm_pool_init(struct warm_pool *pool);
void warm_pool_free(struct warm_pool *pool);
int warm_pool_start(struct stream *stream);
void warm_pool_stop(struct stream *stream);

/* DG_ERR_COLD: in hand, the watch will fire. DG_ERR_BUSY: the queue is full. Another error: the
 * disk was asked a moment ago, and this came of it. Never 0. Watcher's thread. */
DG_NODISCARD int warm_request(struct warm_pool *pool, const struct warm_job *job);

/* Forgets the watcher's jobs; waits for one that is being done. */
void warm_forget(struct warm_pool *pool, const struct stream_watcher *watcher);
