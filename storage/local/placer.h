/*
 * The placer: one thread that writes durable batches from the partitions' tails to their segments,
 * off the commit path: large runs when enough has gathered, whatever there is when asked to flush
 * or when it has waited PLACER_AGE_MS. The amount that waits is bounded: the committer waits beyond
 * it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PLACER_RUN_CHUNKS = 4096 }; /* at most, in one write */

struct chunk;
struct partition;
struct stream;

struct placer {
    pthread_t thread;
    bool is_running;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t flushed;
    struct partition *first, *last; /* with a tail */
    uint32_t count;
    bool wants_pass; /* some partition has a large run */
    bool is_stopping;
    uint64_t flush_requested, flush_done;
    atomic_ullong backlog_bytes; /* chunk capacities, not in a segment yet */
    /* Placer's thread only. */
    uint8_t *staging; /* aligned: what one write takes */
    struct chunk *run[PLACER_RUN_CHUNKS];
    struct chunk *retained_first, *retained_last;
    uint64_t retained_bytes;
};

void placer_init(struct placer *placer);
void placer_free(struct placer *placer);
int placer_start(struct stream *stream);
void placer_stop(struct stream *stream);

/* Committer: the partition's tail has grown. */
void placer_add(struct placer *placer, struct partition *partition, uint32_t capacity_bytes,
                uint64_t tail_bytes);

/* Any thread but the placer's: returns when every batch durable now is in its segment file. */
void placer_flush(struct placer *placer);

/* Durable but unplaced memory is over its limit. */
bool placer_is_full(const struct placer *placer);
