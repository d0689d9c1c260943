/* Walking files of a store: used by recovery and verification. Any thread. */
#pragma once

#include "storage/record.h"

/* Base offsets of the segment files in a partition's directory, ascending; the caller frees.
 * DG_ERR_IO and errno. */
DG_NODISCARD int scan_directory(const char *path, int64_t **ret_bases, uint32_t *ret_count);

struct scan_result {
    uint64_t position; /* end of the last good batch */
    const char *what;  /* is wrong there */
};

/* NULL to go on, or what is wrong with the batch. */
typedef const char *scan_batch_fn(void *context, const struct record_batch *batch);

/* Reads a segment file's batches up to limit_bytes (UINT64_MAX: its end), checking CRCs.
 * DG_ERR_CORRUPT, DG_ERR_IO, DG_ERR_NO_MEMORY; ret_result is set in every case. */
DG_NODISCARD int scan_segment(const char *path, uint64_t limit_bytes, scan_batch_fn *visit,
                              void *context, struct scan_result *ret_result);
