/* org.apache.kafka.common.utils.Utils.murmur2: words are read little-endian. */
#include "common/murmur2.h"

static const uint32_t SEED = 0x9747b28c;
static const uint32_t MULTIPLIER = 0x5bd1e995;

static uint32_t mix_word(uint32_t hash, uint32_t word) {
    word *= MULTIPLIER;
    word ^= word >> 24;
    word *= MULTIPLIER;
    return (hash * MULTIPLIER) ^ word;
}

static uint32_t load_little_endian(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

int32_t murmur2_kafka(const void *data, size_t size) {
    const uint8_t *at = data;
    uint32_t hash = SEED ^ (uint32_t)size;
    size_t left = size;
    for (; left >= 4; left -= 4, at += 4)
        hash = mix_word(hash, load_little_endian(at));
    if (left > 0) {
        uint32_t tail = 0;
        for (size_t i = 0; i < left; i++)
            tail |= (uint32_t)at[i] << (8 * i);
        hash = (hash ^ tail) * MULTIPLIER;
    }
    hash ^= hash >> 13;
    hash *= MULTIPLIER;
    hash ^= hash >> 15;
    return (int32_t)hash;
}
