#include "common/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/random.h"

static uint64_t seed;

/* Before main(), so no thread can hash with another seed. */
__attribute__((constructor)) static void draw_seed(void) {
    seed = random_u64();
}

uint64_t hash_bytes(const void *data, size_t size) {
    return XXH3_64bits_withSeed(data, size, seed);
}
