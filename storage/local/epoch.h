/*
 * Epochs of the store: which stretch of a partition was written in which life of it. An epoch
 * begins when the end of the stream was taken back (a restore, a repair that cuts), since offsets
 * are then given to other records than before. Kafka's leader epoch.
 *
 * A table is filled at opening, or by an offline tool, and does not change while the store is
 * served: any thread may read it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "storage/local/partition.h"
#include "storage/local/state.h"

/* Entries of the engine's own namespace in the checkpoint:
 *
 *     key "epoch"                           the store's epoch u32
 *     key stream id u64, partition u32      history: epoch u32, first offset i64; ascending
 *
 * A partition with a history and nothing before its first entry began in epoch 0. One without a
 * history began in the store's epoch: every rise gives each partition that exists an entry. */
enum { STATE_EPOCH = 5, EPOCH_KEY_SIZE = 12, EPOCH_ENTRY_SIZE = 12, EPOCH_HISTORY_MAX = 64 };

struct epoch_entry {
    int32_t epoch;
    int64_t first_offset;
};

struct epoch_history; /* of one partition */

struct epoch_table {
    int32_t current;
    struct epoch_history *histories;
};

void epoch_table_free(struct epoch_table *table);

/* Takes an entry of the namespace. DG_ERR_CORRUPT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int epoch_table_load(struct epoch_table *table, struct slice key, struct slice value);

/* The partition, whose end is next_offset, lives on in `epoch`, which is the store's next; to be
 * called for each that exists, then table->current is set. A full history loses its oldest entry.
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int epoch_table_raise(struct epoch_table *table, const struct partition_key *key,
                                   int32_t epoch, int64_t next_offset);

/* The end of an epoch that is older than the current one: the last epoch of the partition that is
 * not later, and where the next one begins. */
void epoch_table_end(const struct epoch_table *table, const struct partition_key *key,
                     int32_t epoch, int32_t *ret_epoch, int64_t *ret_end);

/* Calls visit for each entry that epoch_table_load() would take. */
void epoch_table_visit(const struct epoch_table *table, stream_state_fn *visit, void *context);
