/* The pool of batch memory. Nothing on disk. */
#include "storage/local/chunk.h"

#include <stdlib.h>

#include "common/assert.h"

/* The first ones are for a single event: with many partitions few batches get a second one, and
 * what the batches take of the placer's backlog decides how often their tails must be written. */
static const uint32_t class_bytes[CHUNK_CLASS_COUNT] = {
    1024, 2048, 4096, 16384, 65536, 262144, LIMIT_UNIT_BYTES};

static unsigned class_for(uint32_t size) {
    dg_assert(size <= LIMIT_UNIT_BYTES);
    unsigned size_class = 0;
    while (class_bytes[size_class] < size)
        size_class++;
    return size_class;
}

void chunk_pool_init(struct chunk_pool *pool) {
    *pool = (struct chunk_pool){0};
    pthread_mutex_init(&pool->mutex, NULL);
}

void chunk_pool_free(struct chunk_pool *pool) {
    for (unsigned i = 0; i < CHUNK_CLASS_COUNT; i++) {
        struct chunk *chunk = pool->free[i];
        while (chunk) {
            struct chunk *next = chunk->next;
            free(chunk);
            chunk = next;
        }
    }
    pthread_mutex_destroy(&pool->mutex);
}

static void release_hold(struct hold *hold) {
    chunk_release((struct chunk *)(void *)hold);
}

static struct chunk *chunk_create(struct chunk_pool *pool, unsigned size_class) {
    struct chunk *chunk = malloc(sizeof(*chunk) + class_bytes[size_class]);
    if (!chunk)
        return NULL;
    chunk->hold.release = release_hold;
    chunk->pool = pool;
    chunk->size_class = (uint8_t)size_class;
    chunk->capacity = class_bytes[size_class];
    chunk->data = (uint8_t *)(chunk + 1);
    return chunk;
}

struct chunk *chunk_take(struct chunk_pool *pool, uint32_t size) {
    unsigned size_class = class_for(size);
    pthread_mutex_lock(&pool->mutex);
    struct chunk *chunk = pool->free[size_class];
    if (chunk) {
        pool->free[size_class] = chunk->next;
        pool->free_bytes -= chunk->capacity;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (!chunk && !(chunk = chunk_create(pool, size_class)))
        return NULL;
    chunk->next = NULL;
    chunk->segment = NULL;
    chunk->size_bytes = 0;
    atomic_init(&chunk->references, 1);
    return chunk;
}

void chunk_reference(struct chunk *chunk) {
    unsigned before = atomic_fetch_add_explicit(&chunk->references, 1, memory_order_relaxed);
    dg_assert(before > 0);
}

void chunk_release(struct chunk *chunk) {
    if (!chunk)
        return;
    unsigned before = atomic_fetch_sub_explicit(&chunk->references, 1, memory_order_acq_rel);
    dg_assert(before > 0);
    if (before > 1)
        return;
    struct chunk_pool *pool = chunk->pool;
    pthread_mutex_lock(&pool->mutex);
    bool keep = pool->free_bytes + chunk->capacity <= LIMIT_CHUNK_POOL_FREE_BYTES;
    if (keep) {
        chunk->next = pool->free[chunk->size_class];
        pool->free[chunk->size_class] = chunk;
        pool->free_bytes += chunk->capacity;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (!keep)
        free(chunk);
}
