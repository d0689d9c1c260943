#include "gateway/session/identities.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/hash.h"

enum { IDENTITIES_FIRST_CAPACITY = 16 };

static uint32_t home_of(const struct identities *table, uint16_t packet_id) {
    return (uint32_t)hash_bytes(&packet_id, sizeof(packet_id)) & (table->capacity - 1);
}

/* The identifier's slot, or the free one where it would go. There is always a free one. */
static uint32_t find_slot(const struct identities *table, uint16_t packet_id) {
    uint32_t at = home_of(table, packet_id);
    while (table->slots[at].packet_id != 0 && table->slots[at].packet_id != packet_id)
        at = (at + 1) & (table->capacity - 1);
    return at;
}

int identities_reserve(struct identities **table) {
    struct identities *old = *table;
    if (old && (old->count + 1) * 4 <= old->capacity * 3)
        return 0;
    uint32_t capacity = old ? old->capacity * 2 : IDENTITIES_FIRST_CAPACITY;
    struct identities *bigger = calloc(1, sizeof(*bigger) + capacity * sizeof(bigger->slots[0]));
    if (!bigger)
        return DG_ERR_NO_MEMORY;
    bigger->capacity = capacity;
    for (uint32_t i = 0; old && i < old->capacity; i++)
        if (old->slots[i].packet_id != 0)
            identities_set(bigger, old->slots[i].packet_id, old->slots[i].state);
    free(old);
    *table = bigger;
    return 0;
}

void identities_set(struct identities *table, uint16_t packet_id, enum identity_state state) {
    dg_assert(packet_id != 0 && state != IDENTITY_UNKNOWN);
    struct identity *slot = &table->slots[find_slot(table, packet_id)];
    table->count += slot->packet_id == 0;
    dg_assert(table->count < table->capacity);
    *slot = (struct identity){.packet_id = packet_id, .state = (uint8_t)state};
}

enum identity_state identities_get(const struct identities *table, uint16_t packet_id) {
    if (!table || packet_id == 0)
        return IDENTITY_UNKNOWN;
    return table->slots[find_slot(table, packet_id)].state; /* of a free slot: unknown */
}

/* Closes the gap: moves back every later entry of the run that may stand in the hole. */
static void close_gap(struct identities *table, uint32_t hole) {
    uint32_t mask = table->capacity - 1;
    for (uint32_t at = (hole + 1) & mask; table->slots[at].packet_id != 0; at = (at + 1) & mask) {
        uint32_t home = home_of(table, table->slots[at].packet_id);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole] = (struct identity){0};
    table->count--;
}

void identities_remove(struct identities **table, uint16_t packet_id) {
    if (!*table)
        return;
    uint32_t at = find_slot(*table, packet_id);
    if (packet_id != 0 && (*table)->slots[at].packet_id != 0)
        close_gap(*table, at);
    if ((*table)->count == 0) {
        free(*table);
        *table = NULL;
    }
}
