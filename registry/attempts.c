#include "registry/attempts.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/hash.h"

enum { WAYS = 4, UNIT = 1000, OLD_MS = 60000 }; /* by then any bucket has emptied */
enum bucket_kind { BUCKET_SOURCE, BUCKET_DEVICE, BUCKET_RESERVE };

_Static_assert(LIMIT_ATTEMPTS_BUCKETS % WAYS == 0, "whole neighbourhoods");

static const struct {
    uint32_t room;     /* failures at a time */
    uint32_t empty_ms; /* one is forgotten in this time */
} kinds[] = {
    [BUCKET_SOURCE] = {LIMIT_ATTEMPTS_OF_SOURCE, LIMIT_ATTEMPTS_OF_SOURCE_MS},
    [BUCKET_DEVICE] = {LIMIT_ATTEMPTS_OF_DEVICE, LIMIT_ATTEMPTS_OF_DEVICE_MS},
    [BUCKET_RESERVE] = {LIMIT_ATTEMPTS_OF_RESERVE, LIMIT_ATTEMPTS_OF_RESERVE_MS},
};

static void drain(struct attempts_bucket *bucket, enum bucket_kind kind, uint64_t now_ms) {
    uint64_t passed_ms = now_ms - bucket->at_ms;
    uint64_t drained = passed_ms * UNIT / kinds[kind].empty_ms;
    if (drained == 0 && bucket->level > 0)
        return; /* keeps the time that has not counted yet */
    bucket->level = drained >= bucket->level ? 0 : bucket->level - (uint32_t)drained;
    bucket->at_ms = now_ms;
}

static struct attempts_bucket *find(struct attempts *attempts, enum bucket_kind kind, uint64_t hash,
                                    uint64_t now_ms) {
    struct attempts_bucket *first =
        &attempts->buckets[hash % (LIMIT_ATTEMPTS_BUCKETS / WAYS) * WAYS];
    struct attempts_bucket *emptiest = first;
    for (unsigned i = 0; i < WAYS; i++) {
        if (first[i].hash == hash) {
            drain(&first[i], kind, now_ms);
            return &first[i];
        }
        if (now_ms - first[i].at_ms > OLD_MS)
            first[i].level = 0;
        if (first[i].level < emptiest->level)
            emptiest = &first[i];
    }
    *emptiest = (struct attempts_bucket){.hash = hash, .at_ms = now_ms};
    return emptiest;
}

static struct attempts_bucket *find_source(struct attempts *attempts, enum bucket_kind kind,
                                           const uint8_t peer[16], uint64_t now_ms) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    uint8_t key[17] = {(uint8_t)kind};
    memcpy(key + 1, peer, memcmp(peer, mapped, sizeof(mapped)) == 0 ? 16 : 8);
    return find(attempts, kind, hash_bytes(key, sizeof(key)), now_ms);
}

static struct attempts_bucket *find_device(struct attempts *attempts, const char *tenant,
                                           const char *device, uint64_t now_ms) {
    char key[LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + 4];
    int size = snprintf(key, sizeof(key), "%c%s/%s", BUCKET_DEVICE, tenant, device);
    return find(attempts, BUCKET_DEVICE, hash_bytes(key, (size_t)size), now_ms);
}

static bool has_room(const struct attempts_bucket *bucket, enum bucket_kind kind) {
    return bucket->level + UNIT <= kinds[kind].room * UNIT;
}

/* The three may be neighbours: a bucket is found again after another was, not kept. */
enum attempts_verdict attempts_take(struct attempts *attempts, const uint8_t peer[16],
                                    const char *tenant, const char *device, uint64_t now_ms) {
    const struct attempts_bucket *source = find_source(attempts, BUCKET_SOURCE, peer, now_ms);
    bool source_clean = source->level < UNIT, source_room = has_room(source, BUCKET_SOURCE);
    const struct attempts_bucket *named = find_device(attempts, tenant, device, now_ms);
    bool device_clean = named->level < UNIT, device_room = has_room(named, BUCKET_DEVICE);
    if (!source_room && device_clean) {
        struct attempts_bucket *reserve = find_source(attempts, BUCKET_RESERVE, peer, now_ms);
        if (!has_room(reserve, BUCKET_RESERVE))
            return ATTEMPTS_REFUSED;
        reserve->level += UNIT;
    } else if (!source_room || !(device_room || source_clean)) {
        return ATTEMPTS_REFUSED;
    } else {
        find_source(attempts, BUCKET_SOURCE, peer, now_ms)->level += UNIT;
    }
    struct attempts_bucket *charged = find_device(attempts, tenant, device, now_ms);
    if (has_room(charged, BUCKET_DEVICE))
        charged->level += UNIT;
    return source_clean || device_clean ? ATTEMPTS_CLEAN : ATTEMPTS_FAILING;
}

static void give(struct attempts_bucket *bucket) {
    bucket->level = bucket->level > UNIT ? bucket->level - UNIT : 0;
}

void attempts_give_back(struct attempts *attempts, const uint8_t peer[16], const char *tenant,
                        const char *device, uint64_t now_ms) {
    give(find_source(attempts, BUCKET_SOURCE, peer, now_ms));
    give(find_device(attempts, tenant, device, now_ms));
}
