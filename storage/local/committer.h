/*
 * The committer: one thread that takes units from all workers in one FIFO, writes them as a group,
 * and publishes what became durable. At most one written but unsynced group exists; the next forms
 * while it syncs. Nothing on this path sleeps or polls.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "storage/local/unit.h"

struct stream;

/* A worker that holds open batches and wants to hear when the committer is free, or, if others keep
 * that from happening, after two groups. */
struct committer_waiter {
    struct committer_waiter *next;
    uint64_t since; /* groups taken when it began to wait, or last submitted something */
    struct mailbox *mailbox;
    struct mail mail;
};

struct committer {
    pthread_t thread;
    bool is_running;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* the inbox has something, or stopping */
    pthread_cond_t room; /* a checkpoint freed journal; the placer made progress */
    struct unit *inbox_first, *inbox_last;
    struct committer_waiter *waiters;
    uint64_t takes; /* times the inbox was taken */
    bool is_idle;
    bool is_stopping;
    pthread_mutex_t apply_mutex; /* published state as of one group: see partition.h */
    uint64_t applied_lsn;        /* next LSN after the last applied group */
    uint32_t applied_crc;
};

void committer_init(struct committer *committer);
void committer_free(struct committer *committer);
DG_NODISCARD int committer_start(struct stream *stream);

/* Commits what is in the inbox, then ends the thread. */
void committer_stop(struct stream *stream);

/* Any thread: a chain linked by next. The submitter's waiter (NULL: none) begins to wait anew.
 * False: stopping, nothing taken. */
bool committer_submit(struct committer *committer, struct unit *first, struct unit *last,
                      struct committer_waiter *waiter);

/* True when nothing is being written or waiting; else the waiter's mail follows (once). */
bool committer_is_free_or_wait(struct committer *committer, struct committer_waiter *waiter);

/* Takes the waiter back; false when its mail is already on the way. */
bool committer_forget(struct committer *committer, struct committer_waiter *waiter);

/* Any thread: look again for room. */
void committer_wake(struct committer *committer);
