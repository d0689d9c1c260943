/*
 * What devices, groups and tenants have used of their quotas, over all workers and connections.
 *
 * An entry is found under a lock when somebody begins to use it, and outlives its last user for as
 * long as something used is not used up again: coming anew is no way out. Counting is atomic and
 * waits for nobody. Time comes in as an argument.
 *
 * One ledger for all workers, by counted references. Any thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/bucket.h"
#include "common/err.h"
#include "common/hash.h"
#include "common/slice.h"

#include <uthash.h>

enum quota_kind {
    QUOTA_DEVICE,
    QUOTA_GROUP,
    QUOTA_TENANT,
    QUOTA_KINDS,
    QUOTA_SHARE = QUOTA_KINDS /* no quota, but somebody may wait for it: share.h */
};
enum quota_unit { QUOTA_MESSAGES, QUOTA_BYTES, QUOTA_UNITS };
/* What becomes of a publish that is over a quota. */
enum quota_outcome { QUOTA_WAITED, QUOTA_REFUSED, QUOTA_DROPPED, QUOTA_OUTCOMES };

struct quota_ledger;

/* What only a tenant's entry has. The counters only rise; an entry with some stays. */
struct quota_tenant {
    struct quota_entry *next; /* of all tenants', the newest first; the ledger's, under its lock */
    _Atomic uint64_t connections;
    _Atomic uint64_t outcomes[QUOTA_KINDS][QUOTA_OUTCOMES];
    _Atomic uint64_t connections_refused;
};

struct quota_entry {
    UT_hash_handle hh; /* this and the next three: the ledger's, under its lock */
    unsigned users;
    bool is_idle;
    struct quota_entry *older, *newer; /* among those without users */
    struct bucket units[QUOTA_UNITS];
    struct quota_tenant *tenant; /* NULL: of a device or group */
    uint8_t key_size;
    uint8_t key[]; /* the kind, a number, a name */
};

/* One reference; NULL: out of memory. */
struct quota_ledger *quota_ledger_create(void);
struct quota_ledger *quota_ledger_share(struct quota_ledger *ledger);
/* Accepts NULL. Every entry has been left before the last reference goes. */
void quota_ledger_release(struct quota_ledger *ledger);

/* The entry of a device (key: the registry's; no name), a group (its tenant's key and its name) or
 * a tenant (key and name), with one more user. NULL: out of memory. */
struct quota_entry *quota_ledger_take(struct quota_ledger *ledger, enum quota_kind kind,
                                      int64_t key, struct slice name, uint64_t now_ns);
/* Accepts NULL. */
void quota_ledger_leave(struct quota_ledger *ledger, struct quota_entry *entry);

/* Publishes what tenants' quotas did as metrics; tenants beyond LIMIT_METRIC_TENANTS are summed up
 * as "other". One thread at a time. */
void quota_ledger_publish(struct quota_ledger *ledger);
