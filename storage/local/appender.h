/* What the engine's own modules may do with an appender beyond storage/stream.h. */
#pragma once

#include "storage/local/state.h"
#include "storage/stream.h"

/*
 * Adds a mutation to the open unit of (stream, partition): it becomes durable together with the
 * records appended to that unit, or not at all. DG_ERR_PRESSURE: the unit is full of mutations, end
 * the turn first. DG_ERR_TOO_LARGE, DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int stream_mutate(struct stream_appender *appender, uint64_t stream_id,
                               uint32_t partition, const struct stream_mutation *mutation);
