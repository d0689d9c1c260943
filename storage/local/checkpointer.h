/*
 * The checkpointer: one thread that frees the journal. It also lets go of old segments and notices
 * that space has come back.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct stream;

/* The wall clock as retention may use it. */
struct retention_clock {
    uint64_t wall_ms, monotonic_ms; /* as last read; 0: never */
    uint64_t held_until_ms;         /* monotonic */
};

/* Now in wall time, or 0 while the clock is not to be trusted: for RETENTION_HOLD_MS after it was
 * set forward by more than RETENTION_STEP_MS. *ret_step_ms: that step, when it has just happened,
 * else 0. */
enum { RETENTION_STEP_MS = 60 * 1000, RETENTION_HOLD_MS = 60 * 60 * 1000 };
uint64_t retention_clock_read(struct retention_clock *clock, uint64_t wall_ms,
                              uint64_t monotonic_ms, uint64_t *ret_step_ms);

struct checkpointer {
    pthread_t thread;
    bool is_running;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    bool wanted;
    bool is_stopping;
    bool is_asked;          /* by a file, and there was no checkpoint since; its thread only */
    atomic_bool has_failed; /* the last try found no room */
    struct retention_clock clock;
};

void checkpointer_init(struct checkpointer *checkpointer);
void checkpointer_free(struct checkpointer *checkpointer);
int checkpointer_start(struct stream *stream);
void checkpointer_stop(struct stream *stream);

/* A backup asks for a checkpoint by making the first file, which is renamed to the second when it
 * is begun; neither is there when it is done. */
#define CHECKPOINT_WANTED "checkpoint.wanted"
#define CHECKPOINT_TAKING "checkpoint.taking"

/* Any thread. */
void checkpointer_request(struct checkpointer *checkpointer);

/* Places and syncs everything durable now, writes a checkpoint and frees the journal before it.
 * DG_ERR_STORAGE_FULL when there is no room for it, or no descriptor: the old one stays.
 * Checkpointer's thread, or the opening and closing one. */
int checkpoint_take(struct stream *stream);

/* Retention (retention.c), checkpointer's thread: asks for new log starts (now_ms 0: not by age);
 * removes segments below
 * the log start that a checkpoint has made durable. */
void retention_request(struct stream *stream, uint64_t now_ms);
void retention_remove(struct stream *stream);
