/*
 * A quota per second as a bucket (GCRA): `due_ns` is when all that was used would have been used up
 * at the allowed rate. Being at most a second ahead of the clock is free; more is over the quota,
 * for as long as it takes the clock to catch up. So a second's worth is the burst, and what is
 * larger than that is let through and paid for afterwards. What is more than LIMIT_BUCKET_DEBT_MS
 * ahead is forgiven.
 *
 * Time comes in as an argument. Any thread: counting is atomic and waits for nobody.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct bucket {
    _Atomic uint64_t due_ns;
};

/* Counts amount (0: looks only). How long the bucket is over its quota, ns; 0: it is not, or there
 * is none (per_second 0). */
uint64_t bucket_charge(struct bucket *bucket, uint64_t amount, uint64_t per_second,
                       uint64_t now_ns);

/* Forgives what is over the quota, for a rate that has changed. */
void bucket_forgive(struct bucket *bucket, uint64_t now_ns);

/* All that was used is used up: it is as a new one. */
static inline bool bucket_is_settled(const struct bucket *bucket, uint64_t now_ns) {
    return atomic_load_explicit(&bucket->due_ns, memory_order_relaxed) <= now_ns;
}
