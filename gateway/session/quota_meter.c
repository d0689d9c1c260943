#include "gateway/session/quota_meter.h"

enum { LEASES_PER_SECOND = 200 };
#define LEASE_MAX 1000000000ull

uint64_t quota_meter_wait(const struct quota_meter *meter, uint64_t now_ns,
                          enum quota_unit *ret_unit) {
    uint64_t longest_ns = 0;
    for (unsigned unit = 0; meter->entry && unit < QUOTA_UNITS; unit++) {
        if (meter->leased[unit] > 0)
            continue;
        uint64_t wait_ns =
            bucket_charge(&meter->entry->units[unit], 0, meter->per_second[unit], now_ns);
        if (wait_ns <= longest_ns)
            continue;
        longest_ns = wait_ns;
        *ret_unit = (enum quota_unit)unit;
    }
    return longest_ns;
}

static uint64_t lease_of(uint64_t per_second) {
    uint64_t lease = per_second / LEASES_PER_SECOND;
    return lease < LEASE_MAX ? lease : LEASE_MAX;
}

void quota_meter_charge(struct quota_meter *meter, const uint64_t amounts[QUOTA_UNITS], bool lease,
                        uint64_t now_ns) {
    for (unsigned unit = 0; meter->entry && unit < QUOTA_UNITS; unit++) {
        uint64_t per_second = meter->per_second[unit];
        if (per_second == 0)
            continue;
        if (meter->leased[unit] < amounts[unit]) {
            uint64_t taken = amounts[unit] - meter->leased[unit];
            if (lease && taken < lease_of(per_second))
                taken = lease_of(per_second);
            bucket_charge(&meter->entry->units[unit], taken, per_second, now_ns);
            meter->leased[unit] += taken;
        }
        meter->leased[unit] -= amounts[unit];
    }
}

void quota_meter_set(struct quota_meter *meter, const struct registry_quota *quota,
                     uint64_t now_ns) {
    const uint64_t per_second[QUOTA_UNITS] = {
        [QUOTA_MESSAGES] = quota->messages_per_second, [QUOTA_BYTES] = quota->bytes_per_second};
    for (unsigned unit = 0; meter->entry && unit < QUOTA_UNITS; unit++) {
        if (meter->per_second[unit] == per_second[unit])
            continue;
        if (meter->per_second[unit] != 0)
            bucket_forgive(&meter->entry->units[unit], now_ns);
        meter->per_second[unit] = per_second[unit];
        meter->leased[unit] = 0;
    }
}
