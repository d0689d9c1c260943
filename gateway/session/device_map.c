#include "gateway/session/device_map.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/hash.h"

enum { DEVICE_MAP_FIRST_CAPACITY = 64 };

static uint32_t home_of(const struct device_map *map, int64_t key) {
    return (uint32_t)hash_bytes(&key, sizeof(key)) & (map->capacity - 1);
}

/* The key's slot, or the free slot where it would go. There is always a free one. */
static uint32_t find_slot(const struct device_map *map, int64_t key) {
    uint32_t at = home_of(map, key);
    while (map->slots[at].key != 0 && map->slots[at].key != key)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

static int grow(struct device_map *map) {
    struct device_map bigger = {
        .capacity = map->capacity ? map->capacity * 2 : DEVICE_MAP_FIRST_CAPACITY,
        .count = map->count,
    };
    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return DG_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < map->capacity; i++)
        if (map->slots[i].key != 0)
            bigger.slots[find_slot(&bigger, map->slots[i].key)] = map->slots[i];
    free(map->slots);
    *map = bigger;
    return 0;
}

int device_map_reserve(struct device_map *map) {
    /* At most three quarters full: probes stay short and a free slot always ends them. */
    if ((uint64_t)(map->count + 1) * 4 <= (uint64_t)map->capacity * 3)
        return 0;
    return grow(map);
}

void device_map_set(struct device_map *map, int64_t key, uint64_t value) {
    dg_assert(key != 0 && map->capacity > 0);
    uint32_t at = find_slot(map, key);
    if (map->slots[at].key == 0) {
        map->slots[at].key = key;
        map->count++;
        dg_assert(map->count < map->capacity);
    }
    map->slots[at].value = value;
}

bool device_map_get(const struct device_map *map, int64_t key, uint64_t *ret_value) {
    if (map->count == 0 || key == 0)
        return false;
    uint32_t at = find_slot(map, key);
    if (map->slots[at].key == 0)
        return false;
    *ret_value = map->slots[at].value;
    return true;
}

void device_map_remove(struct device_map *map, int64_t key) {
    if (map->count == 0 || key == 0)
        return;
    uint32_t hole = find_slot(map, key);
    if (map->slots[hole].key == 0)
        return;
    /* Close the gap: move back every later entry of the run that may stand in the hole. */
    uint32_t mask = map->capacity - 1;
    for (uint32_t at = (hole + 1) & mask; map->slots[at].key != 0; at = (at + 1) & mask) {
        uint32_t home = home_of(map, map->slots[at].key);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            hole = at;
        }
    }
    map->slots[hole] = (struct device_map_slot){0};
    map->count--;
}

void device_map_free(struct device_map *map) {
    free(map->slots);
    *map = (struct device_map){0};
}
