#include "storage/local/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/file.h"

enum { STEP_BYTES = 256 * 1024, PAUSE_MS_MAX = 1000 };

/* Sleeps as long as the bytes so far are ahead of the rate. */
static void keep_rate(struct copy_rate *rate, uint64_t bytes) {
    rate->bytes += bytes;
    if (rate->progress)
        rate->progress(rate->context, bytes);
    if (rate->bytes_per_second == 0)
        return;
    uint64_t now_ms = clock_monotonic_ms();
    if (rate->began_ms == 0)
        rate->began_ms = now_ms;
    uint64_t due_ms = rate->bytes * 1000 / rate->bytes_per_second,
             gone_ms = now_ms - rate->began_ms;
    if (due_ms > gone_ms) {
        uint64_t pause_ms = due_ms - gone_ms;
        usleep((useconds_t)(pause_ms < PAUSE_MS_MAX ? pause_ms : PAUSE_MS_MAX) * 1000);
    }
}

static bool has_room(const struct copy_rate *rate, int fd, uint64_t wanted) {
    struct statvfs status;
    if (rate->reserve_bytes == 0 || sys.fstatvfs(fd, &status) != 0)
        return true;
    uint64_t available = (uint64_t)status.f_bavail * status.f_frsize;
    return available >= wanted && available - wanted >= rate->reserve_bytes;
}

static int read_step(const struct copy_source *source, int fd, uint64_t at, uint8_t *buffer,
                     size_t size) {
    uint64_t from_file = at < source->tail_at ? source->tail_at - at : 0;
    if (from_file > size || !source->tail)
        from_file = size;
    ssize_t count = from_file > 0 ? file_read(fd, buffer, from_file, (off_t)at) : 0;
    if (count < 0)
        return errno;
    if ((uint64_t)count < from_file)
        return ENODATA;
    if (size > from_file)
        memcpy(buffer + from_file, source->tail + (at + from_file - source->tail_at),
               size - from_file);
    return 0;
}

/* to: -1: nowhere. */
static int transfer(struct copy_rate *rate, const struct copy_source *source, int from, int to,
                    uint32_t *ret_crc) {
    uint8_t *buffer = malloc(STEP_BYTES);
    int error = buffer ? 0 : ENOMEM;
    uint32_t crc = 0;
    for (uint64_t at = 0; error == 0 && at < source->size_bytes;) {
        uint64_t left = source->size_bytes - at;
        size_t size = left < STEP_BYTES ? left : STEP_BYTES;
        error = read_step(source, from, at, buffer, size);
        if (error == 0 && to >= 0)
            error = has_room(rate, to, size) ? file_write(to, buffer, size, (off_t)at) : ENOSPC;
        if (error == 0) {
            crc = crc32c_update(crc, buffer, size);
            sys.fadvise(from, (off_t)at, (off_t)size, POSIX_FADV_DONTNEED);
            keep_rate(rate, size);
        }
        at += size;
    }
    free(buffer);
    if (error == 0)
        *ret_crc = crc;
    return error;
}

int copy_check(struct copy_rate *rate, const char *path, uint64_t size_bytes, uint32_t *ret_crc) {
    struct copy_source source = {.path = path, .size_bytes = size_bytes};
    int fd = file_open(path, O_RDONLY);
    if (fd < 0)
        return errno;
    int error = transfer(rate, &source, fd, -1, ret_crc);
    file_close(fd);
    return error;
}

/* By when a segment was written last retention counts its age. Where a file system takes no times
 * it is kept for longer. */
static void copy_times(int from, int to) {
    struct stat status;
    if (sys.fstat(from, &status) == 0)
        futimens(to, (struct timespec[]){status.st_atim, status.st_mtim});
}

int copy_file(struct copy_rate *rate, const struct copy_source *source, const char *path,
              uint32_t *ret_crc) {
    int from = file_open(source->path, O_RDONLY);
    if (from < 0)
        return errno;
    int to = file_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    int error = to < 0 ? errno : transfer(rate, source, from, to, ret_crc);
    if (error == 0)
        copy_times(from, to);
    if (error == 0 && sys.fsync(to) != 0)
        error = errno;
    if (error == 0)
        sys.fadvise(to, 0, 0, POSIX_FADV_DONTNEED);
    file_close(to);
    file_close(from);
    return error;
}

int copy_make_parents(const char *root, const char *name) {
    char path[STORE_PATH_SIZE];
    int error = 0;
    for (const char *slash = strchr(name, '/'); slash && error == 0;
         slash = strchr(slash + 1, '/')) {
        bool created;
        snprintf(path, sizeof(path), "%s/%.*s", root, (int)(slash - name), name);
        error = file_make_directory(path, &created);
        if (error == 0 && created) {
            *strrchr(path, '/') = '\0';
            error = file_sync_directory(path);
        }
    }
    return error;
}
