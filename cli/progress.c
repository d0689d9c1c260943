#include "cli/progress.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"

enum { QUIET_MS = 2000, TERMINAL_MS = 200, LINES_MS = 10000, DESCRIPTORS = 16 };

struct progress progress_begin(const char *what, uint64_t total_bytes) {
    return (struct progress){.what = what,
                             .total_bytes = total_bytes,
                             .began_ms = clock_monotonic_ms(),
                             .is_terminal = isatty(STDERR_FILENO)};
}

void progress_add(struct progress *progress, uint64_t bytes) {
    progress->done_bytes += bytes;
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t pause_ms = progress->is_terminal ? TERMINAL_MS : LINES_MS;
    if (now_ms - progress->began_ms < QUIET_MS ||
        (progress->shown_ms > 0 && now_ms - progress->shown_ms < pause_ms))
        return;
    progress->shown_ms = now_ms;
    fprintf(stderr, "%s%s %llu of %llu MiB%s", progress->is_terminal ? "\r" : "", progress->what,
            (unsigned long long)(progress->done_bytes >> 20),
            (unsigned long long)(progress->total_bytes >> 20), progress->is_terminal ? "" : "\n");
    fflush(stderr);
}

void progress_end(struct progress *progress) {
    if (progress->is_terminal && progress->shown_ms > 0)
        fprintf(stderr, "\r\033[K");
    progress->shown_ms = 0;
}

/* nftw() has no context. */
static uint64_t measured_bytes;

static int measure(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    if (kind == FTW_F)
        measured_bytes += (uint64_t)status->st_size;
    return 0;
}

uint64_t progress_measure(const char *directory) {
    measured_bytes = 0;
    return nftw(directory, measure, DESCRIPTORS, FTW_PHYS) == 0 ? measured_bytes : 0;
}
