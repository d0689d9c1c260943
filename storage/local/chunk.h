/*
 * Memory of record batches: pooled, counted references, a few sizes. A batch is built in a chunk by
 * its worker, copied once into the commit group, and stays in the same chunk as the partition's
 * tail until the placer has written it and the last reader has let go.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"

struct partition;
struct segment;
struct chunk_pool;

/* What stream_extent.hold points to: the first member of whatever is held. */
struct hold {
    void (*release)(struct hold *hold);
};

struct chunk {
    struct hold hold;
    struct chunk_pool *pool;
    struct chunk *next; /* free list */
    atomic_uint references;
    uint8_t size_class;
    uint32_t capacity;
    uint8_t *data;
    /* As a batch of a tail; set by the committer before it is published, then constant. */
    struct segment *segment;
    uint32_t position; /* in the segment */
    uint32_t size_bytes;
    int64_t base_offset;
    int64_t next_offset;
    struct partition *partition;
    struct chunk *retained_next; /* placer: placed, kept for readers that are close behind */
};

enum { CHUNK_CLASS_COUNT = 7 };

struct chunk_pool {
    pthread_mutex_t mutex;
    struct chunk *free[CHUNK_CLASS_COUNT];
    uint64_t free_bytes;
};

void chunk_pool_init(struct chunk_pool *pool);
void chunk_pool_free(struct chunk_pool *pool);

/* A chunk for at least size bytes (<= LIMIT_UNIT_BYTES) with one reference; NULL: out of memory. */
struct chunk *chunk_take(struct chunk_pool *pool, uint32_t size);

void chunk_reference(struct chunk *chunk);
void chunk_release(struct chunk *chunk); /* any thread; accepts NULL */
