/*
 * How far something long has come, on standard error: nothing in the first two seconds; then, on a
 * terminal a line that changes, else a line every ten seconds. One thread.
 */
#pragma once

#include <stdint.h>

struct progress {
    const char *what; /* "verified" */
    uint64_t total_bytes;
    uint64_t done_bytes;
    uint64_t began_ms, shown_ms;
    int is_terminal;
};

struct progress progress_begin(const char *what, uint64_t total_bytes);
/* So many bytes more. */
void progress_add(struct progress *progress, uint64_t bytes);
/* Clears the terminal's line. */
void progress_end(struct progress *progress);

/* Bytes in all files below a directory; 0 when it cannot be read. */
uint64_t progress_measure(const char *directory);
