/* Watchers: notifications from partitions to workers. Nothing on disk. */
#include "storage/local/watch.h"

#include <stdlib.h>

#include "common/clock.h"
#include "storage/local/engine.h"

/* What could not be read is not tried again for so long: whoever asks meanwhile is told the same.
 */
enum { FAILED_KEEP_MS = 1000 };

static void watcher_destroy(struct stream_watcher *watcher) {
    pthread_mutex_destroy(&watcher->mutex);
    free(watcher);
}

/* The queue is taken one at a time: a watch that fires again meanwhile queues itself anew. */
static struct watch *pop_queue(struct stream_watcher *watcher) {
    pthread_mutex_lock(&watcher->mutex);
    struct watch *watch = watcher->queue_first;
    if (watch) {
        watcher->queue_first = watch->queue_next;
        if (!watcher->queue_first)
            watcher->queue_last = NULL;
        watch->is_queued = false;
    } else {
        watcher->is_posted = false;
    }
    pthread_mutex_unlock(&watcher->mutex);
    return watch;
}

static void deliver(struct mail *mail, void *receiver) {
    struct stream_watcher *watcher = (struct stream_watcher *)(void *)mail;
    if (watcher->is_dead) {
        watcher_destroy(watcher);
        return;
    }
    struct watch *watch;
    while ((watch = pop_queue(watcher)))
        watcher->advanced(watcher->context, watch->partition->key.stream_id,
                          watch->partition->key.number);
}

int stream_watcher_create(struct stream *stream, struct mailbox *mailbox,
                          stream_advanced_fn *advanced, void *context,
                          struct stream_watcher **ret_watcher) {
    struct stream_watcher *watcher = calloc(1, sizeof(*watcher));
    if (!watcher)
        return DG_ERR_NO_MEMORY;
    watcher->mail.deliver = deliver;
    watcher->stream = stream;
    watcher->mailbox = mailbox;
    watcher->advanced = advanced;
    watcher->context = context;
    pthread_mutex_init(&watcher->mutex, NULL);
    *ret_watcher = watcher;
    return 0;
}

static void disarm(struct watch *watch) {
    struct partition *partition = watch->partition;
    pthread_mutex_lock(&partition->mutex);
    struct watch **link = &partition->watches;
    while (*link && *link != watch)
        link = &(*link)->armed_next;
    if (*link)
        *link = watch->armed_next;
    pthread_mutex_unlock(&partition->mutex);
}

void stream_watcher_free(struct stream_watcher *watcher) {
    if (!watcher)
        return;
    struct watch *watch, *next;
    warm_forget(&watcher->stream->warm, watcher);
    HASH_ITER(hh, watcher->watches, watch, next) {
        disarm(watch); /* after this nobody fires it */
    }
    pthread_mutex_lock(&watcher->mutex);
    watcher->queue_first = watcher->queue_last = NULL;
    bool was_posted = watcher->is_posted;
    pthread_mutex_unlock(&watcher->mutex);
    HASH_ITER(hh, watcher->watches, watch, next) {
        HASH_DEL(watcher->watches, watch);
        free(watch);
    }
    if (was_posted)
        watcher->is_dead = true;
    else
        watcher_destroy(watcher);
}

struct watch *watch_obtain(struct stream_watcher *watcher, struct partition *partition) {
    struct watch *watch;
    HASH_FIND_PTR(watcher->watches, &partition, watch);
    if (watch)
        return watch;
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    watch->partition = partition;
    watch->watcher = watcher;
    HASH_ADD_PTR(watcher->watches, partition, watch);
    return watch;
}

void watch_fire(struct watch *watch) {
    struct stream_watcher *watcher = watch->watcher;
    pthread_mutex_lock(&watcher->mutex);
    if (!watch->is_queued) {
        watch->is_queued = true;
        watch->queue_next = NULL;
        *(watcher->queue_last ? &watcher->queue_last->queue_next : &watcher->queue_first) = watch;
        watcher->queue_last = watch;
    }
    bool post = !watcher->is_posted;
    watcher->is_posted = true;
    pthread_mutex_unlock(&watcher->mutex);
    if (post)
        mailbox_post(watcher->mailbox, &watcher->mail);
}

void watch_fire_all(struct partition *partition) {
    struct watch *watch = partition->watches;
    partition->watches = NULL;
    while (watch) {
        struct watch *next = watch->armed_next;
        watch->is_armed = false;
        watch_fire(watch);
        watch = next;
    }
}

void stream_watch(struct stream_watcher *watcher, uint64_t stream_id, uint32_t number) {
    struct partition *partition = partition_obtain(&watcher->stream->partitions, stream_id, number);
    struct watch *watch = partition ? watch_obtain(watcher, partition) : NULL;
    if (!watch)
        return; /* out of memory: the reader's own time-out still brings it back */
    pthread_mutex_lock(&partition->mutex);
    if (!watch->is_armed) {
        watch->is_armed = true;
        watch->armed_next = partition->watches;
        partition->watches = watch;
    }
    pthread_mutex_unlock(&partition->mutex);
}

/* ---- cold reads ---------------------------------------------------------------------------------
 */

static bool is_same(const struct warm_want *a, const struct warm_want *b) {
    return a->kind == b->kind && a->at == b->at;
}

int watch_begin_warming(struct watch *watch, const struct warm_want *want) {
    int err = 0;
    pthread_mutex_lock(&watch->watcher->mutex);
    if (is_same(&watch->failed, want) && clock_monotonic_ms() - watch->failed_ms < FAILED_KEEP_MS)
        err = watch->failed_err;
    else if (is_same(&watch->warming, want))
        err = DG_ERR_COLD;
    else
        watch->warming = *want;
    pthread_mutex_unlock(&watch->watcher->mutex);
    return err;
}

void watch_end_warming(struct watch *watch, const struct warm_want *want, int err) {
    pthread_mutex_lock(&watch->watcher->mutex);
    if (is_same(&watch->warming, want))
        watch->warming.kind = WARM_NOTHING;
    if (err < 0) {
        watch->failed = *want;
        watch->failed_err = err;
        watch->failed_ms = clock_monotonic_ms();
    } else if (is_same(&watch->failed, want)) {
        watch->failed.kind = WARM_NOTHING;
    }
    pthread_mutex_unlock(&watch->watcher->mutex);
}
