/*
 * Who may have the slow password function run, and how often. Each source address (an IPv6 /64) and
 * each device name has a bucket that a failure fills and time empties; one bucket more for each
 * source lets in devices that did not fail, from an address where others do (behind one NAT).
 *
 * The table is of one size and nothing is allocated: a bucket that finds no room takes the place of
 * the emptiest of its few neighbours. Whether a device exists makes no difference. Pure.
 */
#pragma once

#include <stdint.h>

#include "common/limits.h"

struct attempts_bucket {
    uint64_t hash; /* of what it is for; seeded, so nobody outside can aim at one */
    uint64_t at_ms;
    uint32_t level; /* thousandths, at at_ms */
};

struct attempts {
    struct attempts_bucket buckets[LIMIT_ATTEMPTS_BUCKETS];
};

enum attempts_verdict {
    ATTEMPTS_CLEAN,   /* the source or the device did not fail lately */
    ATTEMPTS_FAILING, /* both did, within their budgets */
    ATTEMPTS_REFUSED,
};

/* Counts one attempt, as if it failed. peer: an IPv6 address, or a mapped IPv4 address. */
enum attempts_verdict attempts_take(struct attempts *attempts, const uint8_t peer[16],
                                    const char *tenant, const char *device, uint64_t now_ms);

/* It did not fail: the secret was right, or nobody looked. */
void attempts_give_back(struct attempts *attempts, const uint8_t peer[16], const char *tenant,
                        const char *device, uint64_t now_ms);
