#include "gateway/session/inflight.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

static unsigned size_of(uint32_t capacity) {
    return (unsigned)__builtin_ctz(capacity / INFLIGHT_FIRST_CAPACITY);
}

static void table_reset(struct inflight *table) {
    table->oldest = 0;
    table->next = 0;
    table->exactly_once_count = 0;
    /* Numbers before the first entry: empty chains. */
    memset(table->chains, 0xFF, table->capacity * sizeof(*table->chains));
}

static struct inflight *table_take(struct inflight_pool *pool, uint32_t capacity) {
    unsigned size = size_of(capacity);
    dg_assert(size < INFLIGHT_SIZES);
    struct inflight *table = pool->free[size];
    if (table) {
        pool->free[size] = table->next_free;
        pool->free_count[size]--;
    } else {
        size_t entries = capacity * sizeof(table->entries[0]);
        table = malloc(sizeof(*table) + entries + capacity * sizeof(*table->chains));
        if (!table)
            return NULL;
        table->capacity = capacity;
        table->chains = (uint32_t *)(void *)((uint8_t *)table->entries + entries);
    }
    table->offsets = NULL;
    table_reset(table);
    return table;
}

static void table_give_back(struct inflight_pool *pool, struct inflight *table) {
    unsigned size = size_of(table->capacity);
    free(table->offsets);
    /* Few large tables are worth keeping: the bytes pooled per size stay about the same. */
    if (pool->free_count[size] > (unsigned)INFLIGHT_POOLED_MAX >> (size < 8 ? size : 8)) {
        free(table);
        return;
    }
    table->next_free = pool->free[size];
    pool->free[size] = table;
    pool->free_count[size]++;
}

void inflight_pool_free(struct inflight_pool *pool) {
    for (unsigned size = 0; size < INFLIGHT_SIZES; size++) {
        while (pool->free[size]) {
            struct inflight *table = pool->free[size];
            pool->free[size] = table->next_free;
            free(table);
        }
        pool->free_count[size] = 0;
    }
}

static struct inflight_entry *entry_at(const struct inflight *table, uint32_t sequence) {
    /* Not const: the caller's table decides. */
    return &((struct inflight *)(uintptr_t)table)->entries[sequence & (table->capacity - 1)];
}

static void link_entry(struct inflight *table, uint32_t sequence) {
    struct inflight_entry *entry = entry_at(table, sequence);
    uint32_t *chain = &table->chains[entry->packet_id & (table->capacity - 1)];
    entry->older = *chain;
    *chain = sequence;
}

static int table_grow(struct inflight_pool *pool, struct inflight **table) {
    struct inflight *bigger = table_take(pool, (*table)->capacity * 2);
    if (!bigger)
        return DG_ERR_NO_MEMORY;
    if ((*table)->offsets && inflight_reserve_offsets(bigger) < 0) {
        table_give_back(pool, bigger);
        return DG_ERR_NO_MEMORY;
    }
    bigger->oldest = (*table)->oldest;
    bigger->next = (*table)->next;
    bigger->exactly_once_count = (*table)->exactly_once_count;
    for (uint32_t i = 0; i < bigger->capacity; i++)
        bigger->chains[i] = bigger->oldest - 1;
    for (uint32_t sequence = bigger->oldest; sequence != bigger->next; sequence++) {
        *entry_at(bigger, sequence) = *entry_at(*table, sequence);
        link_entry(bigger, sequence);
        if ((*table)->offsets)
            inflight_set_offset(bigger, sequence,
                                (*table)->offsets[sequence & ((*table)->capacity - 1)]);
    }
    table_give_back(pool, *table);
    *table = bigger;
    return 0;
}

int inflight_reserve_offsets(struct inflight *table) {
    if (!table->offsets)
        table->offsets = malloc(table->capacity * sizeof(*table->offsets));
    return table->offsets ? 0 : DG_ERR_NO_MEMORY;
}

int inflight_reserve(struct inflight_pool *pool, struct inflight **table) {
    if (!*table) {
        *table = table_take(pool, INFLIGHT_FIRST_CAPACITY);
        return *table ? 0 : DG_ERR_NO_MEMORY;
    }
    if (inflight_count(*table) < (*table)->capacity)
        return 0;
    return table_grow(pool, table);
}

uint32_t inflight_push(struct inflight *table, uint16_t packet_id, bool exactly_once,
                       uint32_t arrived_us) {
    dg_assert(inflight_count(table) < table->capacity);
    uint32_t sequence = table->next++;
    *entry_at(table, sequence) = (struct inflight_entry){
        .arrived_us = arrived_us, .packet_id = packet_id, .exactly_once = exactly_once};
    link_entry(table, sequence);
    table->exactly_once_count += exactly_once;
    return sequence;
}

const struct inflight_entry *inflight_find(const struct inflight *table, uint16_t packet_id) {
    if (!table)
        return NULL;
    uint32_t below = inflight_count(table); /* each step must be older than the one before */
    uint32_t sequence = table->chains[packet_id & (table->capacity - 1)];
    while (sequence - table->oldest < below) {
        const struct inflight_entry *entry = entry_at(table, sequence);
        if (entry->packet_id == packet_id)
            return entry;
        below = sequence - table->oldest;
        sequence = entry->older;
    }
    return NULL;
}

void inflight_complete(struct inflight *table, uint32_t sequence, int err) {
    dg_assert(table && sequence - table->oldest < inflight_count(table));
    struct inflight_entry *entry = entry_at(table, sequence);
    dg_assert(!entry->done);
    entry->done = true;
    entry->err = (int8_t)err;
}

const struct inflight_entry *inflight_oldest_done(const struct inflight *table) {
    if (inflight_count(table) == 0)
        return NULL;
    const struct inflight_entry *entry = entry_at(table, table->oldest);
    return entry->done ? entry : NULL;
}

void inflight_drop_oldest(struct inflight *table) {
    table->exactly_once_count -= entry_at(table, table->oldest)->exactly_once;
    table->oldest++;
}

void inflight_release(struct inflight_pool *pool, struct inflight **table) {
    if (*table)
        table_give_back(pool, *table);
    *table = NULL;
}
