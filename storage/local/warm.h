/* A small pool that reads cold ranges into the page cache so that no worker waits for the disk. */
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

struct warm_job {
    struct partition *partition;
    struct watch *watch; /* told when it is done */
    int64_t offset;
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

/* False: the queue is full; the caller reads by itself. */
bool warm_request(struct warm_pool *pool, const struct warm_job *job);

/* Forgets the watcher's jobs; waits for one that is being done. */
void warm_forget(struct warm_pool *pool, const struct stream_watcher *watcher);
