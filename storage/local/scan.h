/* Walking files of a store: used by recovery and verification. Any thread. */
#pragma once

#include "storage/record.h"

/* Base offsets of the segment files in a partition's directory, ascending; the caller frees.
 * DG_ERR_IO and errno. */
DG_NODISCARD int scan_directory(const char *path, int64_t **ret_bases, uint32_t *ret_count);

struct scan_visitor {
    /* A good batch: its CRC holds. NULL, or what is wrong with its place. */
    const char *(*batch)(void *context, const struct record_batch *batch);
    /* What is wrong at a position of the file. The scan goes on with the next good batch. */
    void (*damage)(void *context, uint64_t position, const char *what);
    void *context;
};

/* Reads a segment file's batches up to limit_bytes or its end, checking CRCs; returns how far it
 * came. */
uint64_t scan_segment(const char *path, uint64_t limit_bytes, const struct scan_visitor *visitor);
