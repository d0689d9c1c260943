/*
 * A disk that forgets: replaces the sys table by one that works on real files and knows, beside
 * them, what a power cut would leave. A write is volatile until fdatasync() or fsync(), unless the
 * descriptor is O_DSYNC; a directory entry until the directory's fsync(). At the cut a random
 * subset of the volatile sectors, sizes and entries has reached the disk, the write in progress
 * among them; the result is written out as a directory of its own.
 *
 * Sectors of 512 bytes are written whole or not at all. One of 4 KiB may also be spoiled: neither
 * old nor new, what was in it before and was not being changed included.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct disk_options {
    const char *live;  /* the store's directory, existing */
    const char *image; /* a directory that does not exist: what the cut leaves */
    uint64_t cut_at;   /* which changing call the power fails in; 0: never */
    uint64_t seed;
    unsigned sector_bytes; /* 512 or 4096 */
    bool lies;             /* syncs do nothing: the control run */
};

/* Loads live as what is on disk, and replaces the sys table. */
void disk_start(const struct disk_options *options);

/* Changing calls so far. */
uint64_t disk_calls(void);

enum { DISK_EXIT_CUT = 99 }; /* the process ends with this at the cut */
