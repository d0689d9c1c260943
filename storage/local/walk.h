/*
 * Going through a segment file batch by batch, by their headers: to the batch with an offset, and
 * to make the part of the index that a restart has left behind. Any thread.
 */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct partition;
struct segment;
struct stream;

/* Reads without waiting (DG_ERR_COLD), or waits when it may. DG_ERR_IO; DG_ERR_CORRUPT when the
 * file ends before. */
DG_NODISCARD int walk_read(int fd, void *ret_data, size_t size, uint32_t position, bool may_wait);

struct batch_place {
    int64_t base_offset;
    int64_t next_offset;
    int64_t first_ms;
    uint32_t size_bytes;
};

/* The header of the batch at position, which ends at `end` at the latest. Errors of walk_read();
 * DG_ERR_CORRUPT: not a batch. */
DG_NODISCARD int walk_header(int fd, uint32_t position, uint32_t end, bool may_wait,
                             struct batch_place *ret_place);

/*
 * Goes on from where the index's first stretch ends, a good step, and adds what was found there.
 * The segment is pinned. DG_ERR_CORRUPT, DG_ERR_IO, DG_ERR_NO_MEMORY when it did not come any
 * further. Waits for the disk.
 */
DG_NODISCARD int walk_on(struct partition *partition, struct segment *segment);

/* When all indexes together are over the limit, frees those that were not used since the last call;
 * they are made again when they are needed. */
void walk_forget_indexes(struct stream *stream, uint64_t limit_bytes);

/* Offset of the first batch behind the segment; partition's mutex held. */
int64_t walk_segment_end(const struct partition *partition, const struct segment *segment);
/* Offset of the batch where the index's second stretch begins; partition's mutex held. */
int64_t walk_indexed_from(const struct partition *partition, const struct segment *segment);
