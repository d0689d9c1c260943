/*
 * How much one Fetch answers: min_bytes, max_bytes and each partition's own limit as arithmetic.
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kafka_budget {
    int64_t limit_bytes; /* of the whole answer */
    int64_t min_bytes;   /* fewer wait; never more than the limit, or it would wait in vain */
    int64_t taken_bytes;
};

struct kafka_budget kafka_budget_make(int32_t min_bytes, int32_t max_bytes);

/* How much to read next, of a partition that may bring so much more. 0: there is no room left. At
 * least 1 while nothing was taken: the first partition that has anything gives one whole batch,
 * whatever the limits, or a big batch would stall its reader for ever (KIP-74). */
uint32_t kafka_budget_room(const struct kafka_budget *budget, int64_t partition_max_bytes);

/* Takes a run of whole batches that was read with `room`; false when it does not fit. */
bool kafka_budget_take(struct kafka_budget *budget, uint32_t room, uint32_t size_bytes);

/* True when there is enough to answer without waiting. */
bool kafka_budget_is_met(const struct kafka_budget *budget);
