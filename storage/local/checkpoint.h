/* The checkpoint file: writing a snapshot and reading it back. */
#pragma once

#include "storage/local/format.h"
#include "storage/local/state.h"

struct checkpoint {
    uint8_t *data; /* owned */
    size_t size_bytes;
    struct format_checkpoint header;
    struct reader partitions; /* header.partition_count struct format_partition */
    struct reader blocks;     /* format_last_block_bytes() of each of them */
    struct reader state;      /* header.state_count state entries */
    uint32_t state_left;
    const uint8_t *last_block; /* of the partition read last */
};

/* DG_ERR_NOT_FOUND: no file; DG_ERR_CORRUPT: not valid. */
DG_NODISCARD int checkpoint_load(const char *directory, const uint8_t *secret,
                                 struct checkpoint *ret_checkpoint);
void checkpoint_free(struct checkpoint *checkpoint);

/* DG_ERR_NOT_FOUND: that was all; DG_ERR_MALFORMED. */
DG_NODISCARD int checkpoint_next_partition(struct checkpoint *checkpoint,
                                           struct format_partition *ret_partition);
DG_NODISCARD int checkpoint_next_state(struct checkpoint *checkpoint, uint64_t *ret_lsn,
                                       struct stream_mutation *ret_mutation);
