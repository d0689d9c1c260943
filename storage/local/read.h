/* Reading: shared by stream_read(), the warm pool and time look-ups. */
#pragma once

#include "storage/local/partition.h"
#include "storage/stream.h"

/* Where a read begins and ends in a segment file. */
struct file_range {
    struct segment *segment; /* pinned by the caller of read_locate() */
    int fd;
    uint32_t position;
    uint32_t size_bytes;
    int64_t next_offset;
};

/*
 * Finds the batch with offset in the files and how far a read of max_bytes goes; pins the segment.
 * With may_wait false DG_ERR_COLD where it would have to wait for the disk.
 */
DG_NODISCARD int read_locate(struct partition *partition, int64_t offset, uint32_t max_bytes,
                             bool may_wait, struct file_range *ret_range);

/* stream_read() of a partition, without the warm pool: with may_wait false DG_ERR_COLD. */
DG_NODISCARD int read_extent(struct partition *partition, int64_t offset, uint32_t max_bytes,
                             bool may_wait, struct stream_extent *ret_extent);

/* stream_find_time() of a partition, without the warm pool (find.c). */
DG_NODISCARD int find_time(struct partition *partition, int64_t wanted_ms, bool may_wait,
                           int64_t *ret_offset, int64_t *ret_timestamp_ms);
