/*
 * A map from registry keys (device, tenant) to one word: open addressing, 16 bytes a slot, so that
 * a million devices cost megabytes and not hundreds of them. Key 0 does not exist in the registry
 * and marks a free slot. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct device_map_slot {
    int64_t key;
    uint64_t value;
};

struct device_map {
    struct device_map_slot *slots; /* capacity is a power of two, or NULL while empty */
    uint32_t capacity;
    uint32_t count;
};

/* Makes room for one more key, so that the following device_map_set() cannot fail.
 * 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int device_map_reserve(struct device_map *map);

/* Adds or replaces. key is not 0. Room was reserved, or the key is known to be there. */
void device_map_set(struct device_map *map, int64_t key, uint64_t value);

/* False when the key is not there. */
bool device_map_get(const struct device_map *map, int64_t key, uint64_t *ret_value);
void device_map_remove(struct device_map *map, int64_t key);
void device_map_free(struct device_map *map);
