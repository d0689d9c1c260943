/*
 * Watchers: who wants to hear that a partition moved. A watch joins one watcher and one partition
 * and lives as long as the watcher; armed watches hang on the partition, fired ones in the
 * watcher's queue. Locks: partition.mutex, then watcher.mutex.
 */
#pragma once

#include "common/hash.h"

#include <pthread.h>
#include <uthash.h>

#include "storage/local/warm.h"
#include "storage/stream.h"

struct partition;

struct watch {
    UT_hash_handle hh;           /* of the watcher's map; watcher's thread */
    struct partition *partition; /* the key */
    struct stream_watcher *watcher;
    struct watch *armed_next; /* partition's mutex */
    bool is_armed;
    struct watch *queue_next; /* watcher's mutex */
    bool is_queued;
    /* Cold reads; watcher's mutex. */
    struct warm_want warming; /* the last one handed to the pool, until it is done */
    struct warm_want failed;  /* the last one that could not be read, */
    int failed_err;           /* ... why, */
    uint64_t failed_ms;       /* ... and when */
};

struct stream_watcher {
    struct mail mail;
    struct stream *stream;
    struct mailbox *mailbox;
    stream_advanced_fn *advanced;
    void *context;
    struct watch *watches; /* watcher's thread */
    pthread_mutex_t mutex;
    struct watch *queue_first, *queue_last;
    bool is_posted;
    bool is_dead; /* freed while its mail was on the way: the delivery frees it */
};

/* Watcher's thread. NULL: out of memory. */
struct watch *watch_obtain(struct stream_watcher *watcher, struct partition *partition);

/* Tells all who watch the partition and disarms them; partition's mutex held. */
void watch_fire_all(struct partition *partition);

/* Tells one; any thread. */
void watch_fire(struct watch *watch);

/* A cold read is to be handed to the pool: 0. DG_ERR_COLD: it is there already, the watch will
 * fire. Another error: the disk has just been asked for it and this came of it. */
DG_NODISCARD int watch_begin_warming(struct watch *watch, const struct warm_want *want);
/* It is done, or (watch_fire() does not follow) was not taken; any thread. */
void watch_end_warming(struct watch *watch, const struct warm_want *want, int err);
