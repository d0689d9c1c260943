/*
 * A quota as one worker uses it. What a device uses is counted in the ledger at once. A group's and
 * a tenant's is taken from the ledger in leases, each some milliseconds' worth, so that the workers
 * that share it do not meet at every message: each has at most one lease that is not used up.
 *
 * Pure: time comes in as an argument. One worker's thread, but for the ledger.
 */
#pragma once

#include "gateway/session/quota_ledger.h"
#include "registry/policy.h"

/* A quota and what this worker has taken of it. */
struct quota_meter {
    struct quota_entry *entry; /* NULL: no quota */
    uint64_t per_second[QUOTA_UNITS];
    uint64_t leased[QUOTA_UNITS]; /* taken from the entry and not used */
};

/* How long the meter is over its quota, ns, and which unit is; 0: it is not. */
uint64_t quota_meter_wait(const struct quota_meter *meter, uint64_t now_ns,
                          enum quota_unit *ret_unit);
/* lease: takes some more than is used. */
void quota_meter_charge(struct quota_meter *meter, const uint64_t amounts[QUOTA_UNITS], bool lease,
                        uint64_t now_ns);
/* The quota is this one from now on: what is owed at another rate is forgiven, and leases of it go
 * back. */
void quota_meter_set(struct quota_meter *meter, const struct registry_quota *quota,
                     uint64_t now_ns);
