/* Walking files of a store: used by recovery and verification. Any thread. */
#pragma once

#include <stdint.h>

#include "storage/record.h"

/* Base offsets of the segment files in a partition's directory, ascending; the caller frees.
 * DG_ERR_IO and errno. */
DG_NODISCARD int scan_directory(const char *path, int64_t **ret_bases, uint32_t *ret_count);

struct scan_visitor {
    /* A good batch: its CRC holds. NULL, or what is wrong with its place. */
    const char *(*batch)(void *context, const struct record_batch *batch);
    /* What is wrong at a position of the file. The scan goes on with the next good batch. */
    void (*damage)(void *context, uint64_t position, const char *what);
    void (*progress)(void *context, uint64_t read_bytes); /* since the last call; NULL: nobody */
    void *context;
};

/* A segment as recovery would leave it: up to limit_bytes (UINT64_MAX: all of it), the part of a
 * block at the end from last_block, whatever the file has there (NULL: from the file). */
struct scan_range {
    uint64_t limit_bytes;
    const uint8_t *last_block;
};

/* Reads a segment file's batches up to the limit or its end, checking CRCs; returns how far it
 * came. */
uint64_t scan_segment(const char *path, const struct scan_range *range,
                      const struct scan_visitor *visitor);
