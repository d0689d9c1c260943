/*
 * A checkpoint that is changed while no gateway has the store: for restore and repair. Loaded,
 * changed in memory, and written in the old one's place, whole or not at all. One thread.
 */
#pragma once

#include "storage/local/checkpoint.h"
#include "storage/local/epoch.h"

struct draft_partition {
    struct format_partition row;
    const uint8_t *last_block; /* format_last_block_bytes() of the row */
    uint8_t *own_block;        /* last_block when it was changed; owned */
};

struct draft {
    struct checkpoint loaded;
    struct draft_partition *partitions; /* owned */
    uint32_t partition_count;
    struct epoch_table epochs;
};

/* Errors of checkpoint_load(); DG_ERR_MALFORMED, DG_ERR_NO_MEMORY. */
DG_NODISCARD int draft_load(const char *directory, const uint8_t *secret, struct draft *ret_draft);
void draft_free(struct draft *draft);

/* All partitions live on in a new epoch. DG_ERR_NO_MEMORY. */
DG_NODISCARD int draft_raise_epoch(struct draft *draft, int32_t epoch);

/* The partition ends in the segment, at the position and offset given; block is the segment's last
 * one up to there. What the journal has for it is discarded. DG_ERR_NO_MEMORY. */
struct draft_end {
    int64_t segment_base;
    uint64_t segment_created_ms;
    uint32_t segment_position;
    int64_t next_offset;
};
DG_NODISCARD int draft_cut(struct draft_partition *partition, const struct draft_end *end,
                           const uint8_t *block, uint64_t discard_lsn);

/* Replaces directory/checkpoint; it carries this secret from then on. 0 or an errno. */
DG_NODISCARD int draft_save(const struct draft *draft, const char *directory,
                            const uint8_t *secret);
