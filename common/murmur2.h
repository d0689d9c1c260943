/*
 * Kafka's default partitioner hash (murmur2, seed 0x9747b28c), result as Java's int made positive
 * (& 0x7fffffff) is murmur2_partition(). Not for hash tables: it has no secret seed.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int32_t murmur2_kafka(const void *data, size_t size);

static inline uint32_t murmur2_partition(const void *key, size_t size, uint32_t partition_count) {
    return ((uint32_t)murmur2_kafka(key, size) & 0x7fffffffu) % partition_count;
}
