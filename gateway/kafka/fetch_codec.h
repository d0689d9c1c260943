/*
 * What of an answer's batches an old consumer cannot read: zstd came with version 10 of Fetch
 * (KIP-110). Reads the headers of batches that are in memory or warm; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "storage/stream.h"

enum { KAFKA_FETCH_WITH_ZSTD = 10 };

/* 0; DG_ERR_CODEC: a batch of the extent is compressed with zstd; DG_ERR_CORRUPT, DG_ERR_IO. */
DG_NODISCARD int kafka_extent_check_codec(const struct stream_extent *extent);
