#include "common/bucket.h"

#include "common/assert.h"
#include "common/limits.h"

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

uint64_t bucket_charge(struct bucket *bucket, uint64_t amount, uint64_t per_second,
                       uint64_t now_ns) {
    if (per_second == 0)
        return 0;
    dg_assert(amount < UINT64_MAX / NS_PER_S);
    uint64_t cost_ns = amount * NS_PER_S / per_second, next_ns;
    uint64_t due_ns = atomic_load(&bucket->due_ns);
    do {
        uint64_t most_ns = now_ns + NS_PER_S + LIMIT_BUCKET_DEBT_MS * NS_PER_MS;
        next_ns = (due_ns > now_ns ? due_ns : now_ns) + cost_ns;
        next_ns = next_ns < most_ns ? next_ns : most_ns;
    } while (amount > 0 && !atomic_compare_exchange_weak(&bucket->due_ns, &due_ns, next_ns));
    return next_ns > now_ns + NS_PER_S ? next_ns - now_ns - NS_PER_S : 0;
}

void bucket_forgive(struct bucket *bucket, uint64_t now_ns) {
    uint64_t due_ns = atomic_load(&bucket->due_ns), most_ns = now_ns + NS_PER_S;
    while (due_ns > most_ns && !atomic_compare_exchange_weak(&bucket->due_ns, &due_ns, most_ns))
        ;
}
