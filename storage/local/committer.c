/*
 * The commit path (protocol clauses 4 to 8). For each group, in inbox order:
 *
 *   1. wait until the journal has room for it and the placer is not behind;
 *   2. assign offsets, times and places; a unit without room is refused, nothing of it written;
 *   3. one aligned, synced write; any error ends the process;
 *   4. publish: state, durable ends, tails, readers' wake-ups, the placer; give the units back.
 *
 * Publishing stands before the units' return so that whoever sees an acknowledgement can read the
 * record at once; it is a few microseconds.
 */
#include "storage/local/committer.h"

#include <errno.h>
#include <string.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/thread.h"
#include "storage/local/engine.h"
#include "storage/local/watch.h"

void committer_init(struct committer *committer) {
    *committer = (struct committer){0};
    pthread_mutex_init(&committer->mutex, NULL);
    pthread_mutex_init(&committer->apply_mutex, NULL);
    pthread_cond_init(&committer->work, NULL);
    pthread_cond_init(&committer->room, NULL);
}

void committer_free(struct committer *committer) {
    pthread_mutex_destroy(&committer->mutex);
    pthread_mutex_destroy(&committer->apply_mutex);
    pthread_cond_destroy(&committer->work);
    pthread_cond_destroy(&committer->room);
}

/* ---- inbox --------------------------------------------------------------------------------------
 */

bool committer_submit(struct committer *committer, struct unit *first, struct unit *last,
                      struct committer_waiter *waiter) {
    last->next = NULL;
    pthread_mutex_lock(&committer->mutex);
    if (waiter)
        waiter->since = committer->takes;
    bool taken = !committer->is_stopping;
    if (taken) {
        *(committer->inbox_last ? &committer->inbox_last->next : &committer->inbox_first) = first;
        committer->inbox_last = last;
    }
    bool wake = taken && committer->is_idle;
    committer->is_idle = committer->is_idle && !taken;
    pthread_mutex_unlock(&committer->mutex);
    if (wake)
        pthread_cond_signal(&committer->work);
    return taken;
}

bool committer_is_free_or_wait(struct committer *committer, struct committer_waiter *waiter) {
    pthread_mutex_lock(&committer->mutex);
    bool is_free = committer->is_idle;
    if (!is_free) {
        waiter->since = committer->takes;
        waiter->next = committer->waiters;
        committer->waiters = waiter;
    }
    pthread_mutex_unlock(&committer->mutex);
    return is_free;
}

bool committer_forget(struct committer *committer, struct committer_waiter *waiter) {
    pthread_mutex_lock(&committer->mutex);
    struct committer_waiter **link = &committer->waiters;
    while (*link && *link != waiter)
        link = &(*link)->next;
    bool found = *link != NULL;
    if (found)
        *link = waiter->next;
    pthread_mutex_unlock(&committer->mutex);
    return found;
}

void committer_wake(struct committer *committer) {
    pthread_mutex_lock(&committer->mutex);
    pthread_cond_broadcast(&committer->room);
    pthread_mutex_unlock(&committer->mutex);
}

static void post_waiters(struct committer_waiter *waiter) {
    while (waiter) {
        struct committer_waiter *next = waiter->next;
        mailbox_post(waiter->mailbox, &waiter->mail); /* may be gone after this */
        waiter = next;
    }
}

/* Takes those out who have waited through two groups; mutex held. */
static struct committer_waiter *take_patient(struct committer *committer) {
    struct committer_waiter **link = &committer->waiters, *patient = NULL;
    while (*link) {
        struct committer_waiter *waiter = *link;
        if (committer->takes - waiter->since < 2) {
            link = &waiter->next;
            continue;
        }
        *link = waiter->next;
        waiter->next = patient;
        patient = waiter;
    }
    return patient;
}

/* Everything that waits; sleeps when there is nothing. NULL: stopping and done. */
static struct unit *take_inbox(struct committer *committer) {
    pthread_mutex_lock(&committer->mutex);
    while (!committer->inbox_first && !committer->is_stopping) {
        committer->is_idle = true;
        struct committer_waiter *waiters = committer->waiters;
        committer->waiters = NULL;
        if (waiters) {
            pthread_mutex_unlock(&committer->mutex);
            post_waiters(waiters);
            pthread_mutex_lock(&committer->mutex);
        } else {
            pthread_cond_wait(&committer->work, &committer->mutex);
        }
    }
    committer->is_idle = false;
    committer->takes++;
    struct unit *units = committer->inbox_first;
    committer->inbox_first = committer->inbox_last = NULL;
    struct committer_waiter *patient = take_patient(committer);
    pthread_mutex_unlock(&committer->mutex);
    post_waiters(patient);
    return units;
}

/* ---- forming a group ----------------------------------------------------------------------------
 */

static uint32_t bytes_wanted(const struct stream *stream, const struct unit *unit) {
    uint64_t bytes = sizeof(struct format_group);
    uint32_t max = journal_group_max(&stream->journal);
    for (; unit && bytes < max; unit = unit->next)
        bytes += unit_bytes(unit);
    bytes = (bytes + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
    return bytes < max ? (uint32_t)bytes : max;
}

/* DG_ERR_STORAGE_FULL when the journal is full and the disk has no room for a checkpoint either. */
static int wait_for_room(struct stream *stream, uint32_t bytes) {
    struct committer *committer = &stream->committer;
    int err = 0;
    if (journal_has_room(&stream->journal, bytes) && !placer_is_full(&stream->placer))
        return 0;
    pthread_mutex_lock(&committer->mutex);
    for (;;) {
        bool has_room = journal_has_room(&stream->journal, bytes);
        if (has_room && !placer_is_full(&stream->placer))
            break;
        if (!has_room && atomic_load(&stream->checkpointer.has_failed)) {
            err = DG_ERR_STORAGE_FULL;
            break;
        }
        if (!has_room)
            checkpointer_request(&stream->checkpointer);
        pthread_cond_wait(&committer->room, &committer->mutex);
    }
    pthread_mutex_unlock(&committer->mutex);
    return err;
}

static void refuse(struct stream *stream, struct unit *unit, int err) {
    unit->err = err;
    unit->base_offset = -1;
    if (err == DG_ERR_STORAGE_FULL)
        stream_set_full(stream, true);
    if (atomic_exchange(&stream->files.lacks_descriptors, false))
        checkpointer_request(&stream->checkpointer);
    metric_add(METRIC_EVENTS_REFUSED, unit->batch.record_count);
}

static int assign(struct stream *stream, struct unit *unit, int room_err, uint64_t now_ms) {
    unit->err = 0;
    unit->base_offset = -1;
    if (room_err == 0 && !state_has_room(&stream->state, unit->mutations, unit->mutation_bytes))
        room_err = DG_ERR_STORAGE_FULL;
    if (room_err < 0)
        return room_err;
    if (unit->log_start > 0)
        return partition_assign_log_start(unit->partition, stream, unit, now_ms);
    if (unit->batch.record_count == 0)
        return 0;
    return partition_assign(unit->partition, stream, unit, now_ms);
}

/* Puts units into the group until it is full. Returns the first that did not go in. */
static struct unit *form_group(struct stream *stream, struct unit *units, uint64_t now_ms) {
    struct journal *journal = &stream->journal;
    int room_err = wait_for_room(stream, bytes_wanted(stream, units));
    journal_begin(journal);
    for (struct unit *unit = units; unit; unit = unit->next) {
        if (!journal_fits(journal, unit))
            return unit;
        int err = assign(stream, unit, room_err, now_ms);
        if (err < 0) {
            refuse(stream, unit, err);
            continue;
        }
        journal_add(journal, unit);
    }
    return NULL;
}

/* ---- publishing ---------------------------------------------------------------------------------
 */

static void apply_log_start(struct stream *stream, const struct stream_mutation *mutation) {
    struct log_start_key key;
    int64_t log_start;
    dg_assert(mutation->key.size == LOG_START_KEY_SIZE && mutation->value.size == 8);
    memcpy(&key, mutation->key.data, LOG_START_KEY_SIZE);
    memcpy(&log_start, mutation->value.data, sizeof(log_start));
    struct partition *partition = partition_find(&stream->partitions, key.stream_id, key.partition);
    if (!partition)
        return;
    pthread_mutex_lock(&partition->mutex);
    if (log_start > atomic_load(&partition->log_start))
        atomic_store(&partition->log_start, log_start);
    watch_fire_all(partition);
    pthread_mutex_unlock(&partition->mutex);
}

static void apply_mutations(struct stream *stream, const struct unit *unit, uint64_t lsn) {
    struct reader r = reader_make(unit->mutations, unit->mutation_bytes);
    for (uint32_t i = 0; i < unit->mutation_count; i++) {
        struct stream_mutation mutation;
        int err = mutation_read(&r, &mutation);
        dg_assert(err == 0);
        if (mutation.name_space == STATE_LOG_START)
            apply_log_start(stream, &mutation);
        else if (state_apply(&stream->state, lsn, &mutation) < 0)
            storage_die("malloc", "state", ENOMEM); /* durable but not applied: start over */
    }
}

static void apply_unit(struct stream *stream, struct unit *unit, uint64_t lsn, uint64_t now_ms) {
    apply_mutations(stream, unit, lsn);
    if (unit->batch.record_count == 0) {
        if (unit_segment(unit))
            partition_apply_roll(unit->partition, unit->segment, now_ms);
        return;
    }
    uint32_t capacity = unit->batch.chunk->capacity;
    uint64_t tail_bytes = partition_apply(unit->partition, unit, now_ms);
    placer_add(&stream->placer, unit->partition, capacity, tail_bytes);
}

/* Returns the number of records that became durable. */
static uint64_t apply_group(struct stream *stream, struct unit *first, const struct unit *end,
                            uint64_t lsn, uint64_t now_ms) {
    struct committer *committer = &stream->committer;
    uint64_t records = 0;
    pthread_mutex_lock(&committer->apply_mutex);
    for (struct unit *unit = first; unit != end; unit = unit->next) {
        if (unit->err < 0)
            continue;
        apply_unit(stream, unit, lsn, now_ms);
        records += unit->batch.record_count;
    }
    committer->applied_lsn = stream->journal.head_lsn;
    committer->applied_crc = stream->journal.previous_crc;
    pthread_mutex_unlock(&committer->apply_mutex);
    return records;
}

static void complete_group(struct unit *first, const struct unit *end) {
    while (first != end) {
        struct unit *next = first->next; /* the unit is its owner's after complete() */
        first->complete(first);
        first = next;
    }
}

static void count_group(struct stream *stream, uint64_t events) {
    metric_observe(METRIC_COMMIT_BYTES, journal_group_bytes(&stream->journal), 1);
    metric_observe(METRIC_COMMIT_EVENTS, events, 1);
    metric_add(METRIC_EVENTS_STORED, (int64_t)events);
    uint64_t tail = atomic_load_explicit(&stream->journal.tail_lsn, memory_order_relaxed);
    uint64_t lag = stream->journal.head_lsn - tail;
    metric_set(METRIC_CHECKPOINT_LAG_BYTES, (int64_t)lag);
    metric_set(METRIC_JOURNAL_FREE_BYTES, (int64_t)(stream->journal.size_bytes - lag));
    if (lag > stream->journal.size_bytes / 2)
        checkpointer_request(&stream->checkpointer);
}

/* Commits one group from the front of units; returns the rest. */
static struct unit *commit_group(struct stream *stream, struct unit *units) {
    uint64_t now_ms = (uint64_t)clock_wall_ms();
    struct unit *rest = form_group(stream, units, now_ms);
    if (stream->journal.unit_count > 0) {
        uint64_t started_ns = clock_monotonic_ns();
        uint64_t lsn = journal_write(&stream->journal, now_ms);
        metric_observe(METRIC_COMMIT_LATENCY, clock_monotonic_ns() - started_ns, 1);
        count_group(stream, apply_group(stream, units, rest, lsn, now_ms));
    }
    complete_group(units, rest);
    return rest;
}

static void *run(void *context) {
    struct stream *stream = context;
    struct unit *units;
    while ((units = take_inbox(&stream->committer)))
        while (units)
            units = commit_group(stream, units);
    return NULL;
}

int committer_start(struct stream *stream) {
    struct committer *committer = &stream->committer;
    int err = thread_start(&committer->thread, "committer", run, stream);
    committer->is_running = err == 0;
    return err;
}

void committer_stop(struct stream *stream) {
    struct committer *committer = &stream->committer;
    if (!committer->is_running)
        return;
    pthread_mutex_lock(&committer->mutex);
    committer->is_stopping = true;
    pthread_cond_broadcast(&committer->work);
    pthread_mutex_unlock(&committer->mutex);
    pthread_join(committer->thread, NULL);
    committer->is_running = false;
}
