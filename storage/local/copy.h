/* Copying and checking whole files at a limited rate: for backup and restore. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct copy_rate {
    uint64_t bytes_per_second; /* 0: no limit */
    uint64_t began_ms, bytes;
    uint64_t reserve_bytes; /* left free where is written */
    void (*progress)(void *context, uint64_t read_bytes);
    void *context;
};

/* Of a file, from its beginning: so many bytes, of which those from tail_at on are tail (NULL: all
 * are the file's). */
struct copy_source {
    const char *path;
    uint64_t size_bytes;
    uint64_t tail_at;
    const uint8_t *tail;
};

/* Makes the file at path, with the source's times, synced; its directory is not. 0 or an errno
 * (ENODATA: the source is shorter; ENOSPC also for the reserve). */
DG_NODISCARD int copy_file(struct copy_rate *rate, const struct copy_source *source,
                           const char *path, uint32_t *ret_crc);
/* Reads only. */
DG_NODISCARD int copy_check(struct copy_rate *rate, const char *path, uint64_t size_bytes,
                            uint32_t *ret_crc);

/* Creates the directories of a file's name below root and syncs what was made. 0 or an errno. */
DG_NODISCARD int copy_make_parents(const char *root, const char *name);
