/*
 * The QoS 1 and 2 publishes of one session that are submitted and not yet acknowledged, in the
 * order in which they came. Completions may arrive in any order; acknowledgements leave in this one
 * (MQTT5 4.6.0-2). A table exists only while something is in flight and comes from a pool of its
 * worker.
 *
 * A publish is known by its sequence number, which names its place in the ring; packet identifiers
 * are found through chains of sequence numbers that need no unlinking: a number older than the
 * oldest entry ends the chain.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { INFLIGHT_SIZES = 13, INFLIGHT_FIRST_CAPACITY = 16, INFLIGHT_POOLED_MAX = 256 };

struct inflight_entry {
    uint32_t arrived_us; /* low bits of the monotonic clock */
    uint32_t older;      /* sequence number of the next older entry of the same chain */
    uint16_t packet_id;
    int8_t err; /* why nothing was stored, once done */
    bool done : 1;
    bool exactly_once : 1; /* QoS 2: PUBREC answers it */
};

struct inflight {
    union {
        struct inflight *next_free; /* in the pool */
        int64_t *offsets;           /* of the entries' events, in use; NULL: nobody wants them */
    };
    uint32_t capacity;     /* a power of two */
    uint32_t oldest, next; /* sequence numbers; wrap */
    uint32_t exactly_once_count;
    uint32_t *chains; /* newest sequence number per packet id, capacity of them */
    struct inflight_entry entries[];
};

struct inflight_pool {
    struct inflight *free[INFLIGHT_SIZES];
    unsigned free_count[INFLIGHT_SIZES];
};

void inflight_pool_free(struct inflight_pool *pool);

static inline uint32_t inflight_count(const struct inflight *table) {
    return table ? table->next - table->oldest : 0;
}

/* Makes room for one more; *table may be NULL. 0 or DG_ERR_NO_MEMORY. At most 65,535 entries (the
 * packet identifiers) are ever asked for. */
DG_NODISCARD int inflight_reserve(struct inflight_pool *pool, struct inflight **table);

/* After that: offsets of this table's events are kept from now on. 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int inflight_reserve_offsets(struct inflight *table);

/* Of these, the QoS 2 ones. */
static inline uint32_t inflight_exactly_once_count(const struct inflight *table) {
    return table ? table->exactly_once_count : 0;
}

/* Adds after inflight_reserve(); returns the sequence number. */
uint32_t inflight_push(struct inflight *table, uint16_t packet_id, bool exactly_once,
                       uint32_t arrived_us);

/* The entry of this packet identifier while it waits, or NULL. table may be NULL. */
const struct inflight_entry *inflight_find(const struct inflight *table, uint16_t packet_id);

/* An entry's sequence number, of which only the lowest bits are known: 17 at least. */
static inline uint32_t inflight_whole(const struct inflight *table, uint64_t low, unsigned bits) {
    return table->oldest + (((uint32_t)low - table->oldest) & ((1u << bits) - 1));
}

/* The publish of this sequence number is done. */
void inflight_complete(struct inflight *table, uint32_t sequence, int err);

/* ... and is, or was, stored there; -1: nobody knows. Nothing when offsets are not kept. */
static inline void inflight_set_offset(struct inflight *table, uint32_t sequence, int64_t offset) {
    if (__builtin_expect(!!table->offsets, 0))
        table->offsets[sequence & (table->capacity - 1)] = offset;
}

/* Its event is in another partition than the session's: no offset is told. Set before it is done.
 */
enum { INFLIGHT_ELSEWHERE = -2 };
static inline void inflight_set_place(struct inflight *table, uint32_t sequence, int64_t offset) {
    if (__builtin_expect(!!table->offsets, 0) &&
        table->offsets[sequence & (table->capacity - 1)] != INFLIGHT_ELSEWHERE)
        inflight_set_offset(table, sequence, offset);
}

/* The oldest entry if it is done, else NULL; removed by inflight_drop_oldest(). */
const struct inflight_entry *inflight_oldest_done(const struct inflight *table);
static inline int64_t inflight_oldest_offset(const struct inflight *table) {
    return table->offsets ? table->offsets[table->oldest & (table->capacity - 1)] : -1;
}
void inflight_drop_oldest(struct inflight *table);

/* Gives the table back whatever is in it. *table may be NULL and is NULL afterwards. */
void inflight_release(struct inflight_pool *pool, struct inflight **table);
