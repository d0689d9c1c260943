/*
 * What each API key uses of the endpoint, over all workers: connections, requests, fetched bytes.
 *
 * An account is found under a lock when a connection logs in and lives at least as long as its
 * connections; counting is atomic (common/bucket.h), so that no worker waits for another. Time
 * comes in as an argument.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/bucket.h"
#include "common/err.h"
#include "common/hash.h"

#include <uthash.h>

struct kafka_ledger;

struct kafka_account {
    UT_hash_handle hh; /* the ledger's */
    int64_t credential_key;
    uint64_t connections; /* the ledger's, under its lock */
    struct bucket requests, fetched_bytes;
};

/* One reference; NULL: out of memory. */
struct kafka_ledger *kafka_ledger_create(void);
struct kafka_ledger *kafka_ledger_share(struct kafka_ledger *ledger);
/* Accepts NULL. With the last reference it goes; all accounts have been left by then. */
void kafka_ledger_release(struct kafka_ledger *ledger);

/* One more connection of this key; connections_max 0: no limit. DG_ERR_LIMIT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int kafka_ledger_enter(struct kafka_ledger *ledger, int64_t credential_key,
                                    uint64_t connections_max, uint64_t now_ns,
                                    struct kafka_account **ret_account);
void kafka_ledger_leave(struct kafka_ledger *ledger, struct kafka_account *account);
