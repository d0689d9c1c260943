/*
 * A segment file holds the record batches of one partition, byte for byte as Kafka sends them, from
 * the base offset in its name on, without gaps:
 *
 *     <directory>/<stream id>/<partition>/<20-digit base offset>.log
 *
 * Space is reserved beyond the end of the file in extents before a group that needs it is
 * committed; the file's size is what has been placed, rounded up to a block of 4 KiB while the
 * segment grows: it is written in whole blocks past the page cache, and the last one is written
 * again, with the same bytes in front, when it grows. A complete segment is cut to its exact size.
 * Valid: a run of valid batches with consecutive offsets.
 *
 * Recovery: the newest segment's last block, up to the length in the checkpoint, is written back
 * from the checkpoint (its rewriting may have been torn), later segments are removed, the journal's
 * batches are written again, and what is behind them is cut off. Nothing before the block in which
 * the checkpoint's length lies is ever written again.
 */
#include "storage/local/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "common/sys.h"
#include "storage/local/format.h"

/* Between two looks whether there is a descriptor again. */
enum { DESCRIPTOR_WAIT_US = 10 * 1000 };

enum { EXTENT_MIN_BYTES = 64 * 1024, EXTENT_MAX_BYTES = 8 * 1024 * 1024 };

/* Of few descriptors half: the rest is for connections. */
static unsigned descriptors_max(void) {
    struct rlimit limit;
    bool few =
        getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 < LIMIT_SEGMENT_DESCRIPTORS;
    return few ? (unsigned)limit.rlim_cur / 2 : LIMIT_SEGMENT_DESCRIPTORS;
}

void segment_files_init(struct segment_files *files, const char *directory) {
    *files = (struct segment_files){.directory = directory, .open_max = descriptors_max()};
    pthread_mutex_init(&files->mutex, NULL);
    pthread_cond_init(&files->synced, NULL);
}

void segment_files_free(struct segment_files *files) {
    pthread_mutex_destroy(&files->mutex);
    pthread_cond_destroy(&files->synced);
}

static void release_hold(struct hold *hold) {
    segment_unpin((struct segment *)(void *)hold);
}

struct segment *segment_create(struct segment_files *files, uint64_t stream_id, uint32_t partition,
                               int64_t base_offset, uint64_t created_ms) {
    struct segment *segment = calloc(1, sizeof(*segment));
    if (!segment)
        return NULL;
    segment->hold.release = release_hold;
    segment->files = files;
    segment->stream_id = stream_id;
    segment->partition = partition;
    segment->base_offset = base_offset;
    segment->created_ms = created_ms;
    segment->fd = segment->direct_fd = -1;
    return segment;
}

/* Depth 0: the store; 1: the stream's directory; 2: the partition's; 3: the file. */
static void path_at(const struct segment *segment, int depth, char *ret_path, size_t size) {
    const char *root = segment->files->directory;
    int length;
    if (depth == 0)
        length = snprintf(ret_path, size, "%s", root);
    else if (depth == 1)
        length = snprintf(ret_path, size, "%s/%" PRIu64, root, segment->stream_id);
    else if (depth == 2)
        length = snprintf(ret_path, size, "%s/%" PRIu64 "/%" PRIu32, root, segment->stream_id,
                          segment->partition);
    else
        length = snprintf(ret_path, size, "%s/%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log", root,
                          segment->stream_id, segment->partition, segment->base_offset);
    dg_assert(length > 0 && (size_t)length < size);
}

void segment_path(const struct segment *segment, char *ret_path, size_t size) {
    path_at(segment, 3, ret_path, size);
}

/* ---- the table of open files: mutex held --------------------------------------------------------
 */

static void unlink_use(struct segment_files *files, struct segment *segment) {
    *(segment->newer ? &segment->newer->older : &files->newest) = segment->older;
    *(segment->older ? &segment->older->newer : &files->oldest) = segment->newer;
    segment->newer = segment->older = NULL;
}

static void link_newest(struct segment_files *files, struct segment *segment) {
    segment->older = files->newest;
    segment->newer = NULL;
    *(files->newest ? &files->newest->newer : &files->oldest) = segment;
    files->newest = segment;
}

static void close_locked(struct segment_files *files, struct segment *segment) {
    if (segment->fd < 0)
        return;
    unlink_use(files, segment);
    file_close(segment->fd);
    file_close(segment->direct_fd);
    files->open_count -= segment->direct_fd >= 0 ? 2 : 1;
    segment->fd = segment->direct_fd = -1;
}

static void close_unused(struct segment_files *files) {
    struct segment *segment = files->oldest;
    while (segment && files->open_count > files->open_max) {
        struct segment *newer = segment->newer;
        if (segment->pins == 0)
            close_locked(files, segment);
        segment = newer;
    }
}

/* Makes way for another file. False: all are in use. */
static bool close_oldest_unused(struct segment_files *files) {
    struct segment *segment = files->oldest;
    while (segment && segment->pins > 0)
        segment = segment->newer;
    if (segment)
        close_locked(files, segment);
    return segment != NULL;
}

static int open_locked(struct segment_files *files, struct segment *segment, int flags) {
    if (segment->fd >= 0) {
        unlink_use(files, segment);
        link_newest(files, segment);
        return 0;
    }
    char path[STORE_PATH_SIZE];
    segment_path(segment, path, sizeof(path));
    int fd;
    do
        fd = file_open(path, O_RDWR | flags);
    while (fd < 0 && errno_is_no_descriptor(errno) && close_oldest_unused(files));
    if (fd < 0)
        return errno;
    segment->fd = fd;
    files->open_count++;
    link_newest(files, segment);
    segment->pins++; /* not itself */
    close_unused(files);
    segment->pins--;
    return 0;
}

static void unpin_locked(struct segment *segment) {
    dg_assert(segment->pins > 0);
    segment->pins--;
    if (segment->pins == 0 && segment->removed)
        close_locked(segment->files, segment);
}

/* Frees a removed segment after its last pin; the mutex is not held any more. */
static void free_if_gone(struct segment *segment, bool gone) {
    if (!gone)
        return;
    index_free(&segment->index);
    free(segment);
}

/* ---- files --------------------------------------------------------------------------------------
 */

void segment_free(struct segment *segment) {
    if (!segment)
        return;
    pthread_mutex_lock(&segment->files->mutex);
    close_locked(segment->files, segment);
    pthread_mutex_unlock(&segment->files->mutex);
    index_free(&segment->index);
    free(segment);
}

/* Not a failure: the unit is refused, others go on. */
static bool is_refusal(struct segment *segment, int error) {
    if (errno_is_no_descriptor(error))
        atomic_store(&segment->files->lacks_descriptors, true);
    return errno_is_no_room(error) || errno_is_no_descriptor(error);
}

static int make_directories(const struct segment *segment, char *path, size_t size) {
    int error = 0;
    for (int depth = 1; depth <= 2 && error == 0; depth++) {
        bool created;
        path_at(segment, depth, path, size);
        error = file_make_directory(path, &created);
    }
    return error;
}

int segment_create_file(struct segment *segment) {
    char path[STORE_PATH_SIZE];
    int error = make_directories(segment, path, sizeof(path));
    pthread_mutex_lock(&segment->files->mutex);
    if (error == 0) {
        segment_path(segment, path, sizeof(path));
        error = open_locked(segment->files, segment, O_CREAT);
    }
    segment->is_new = true;
    pthread_mutex_unlock(&segment->files->mutex);
    if (is_refusal(segment, error))
        return DG_ERR_STORAGE_FULL;
    if (error != 0)
        storage_die("create", path, error);
    return 0;
}

static bool has_room(int fd, uint64_t wanted, uint64_t reserve) {
    struct statvfs status;
    if (sys.fstatvfs(fd, &status) != 0)
        return true; /* fallocate() will tell */
    uint64_t available = (uint64_t)status.f_bavail * status.f_frsize;
    return available >= wanted && available - wanted >= reserve;
}

/* Reserves [from, to) beyond the end of the file. 0 or an errno. */
static int allocate(int fd, uint64_t from, uint64_t to) {
    int result;
    do
        result = sys.fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
    while (result != 0 && errno == EINTR);
    if (result == 0 || errno == EOPNOTSUPP)
        return 0; /* without support the check of free space is all there is */
    return errno;
}

int segment_reserve(struct segment *segment, uint64_t end_bytes, uint64_t size_max) {
    if (end_bytes <= segment->allocated_bytes)
        return 0;
    uint64_t extent = segment->allocated_bytes; /* double it */
    if (extent < EXTENT_MIN_BYTES)
        extent = EXTENT_MIN_BYTES;
    if (extent > EXTENT_MAX_BYTES)
        extent = EXTENT_MAX_BYTES;
    uint64_t to = segment->allocated_bytes + extent;
    if (to > size_max)
        to = size_max;
    if (to < end_bytes)
        to = end_bytes;
    to = (to + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
    int fd = segment_pin(segment);
    int error = fd < 0 ? errno : 0;
    if (error == 0 &&
        !has_room(fd, to - segment->allocated_bytes,
                  atomic_load_explicit(&segment->files->reserve_bytes, memory_order_relaxed)))
        error = ENOSPC;
    if (error == 0)
        error = allocate(fd, segment->allocated_bytes, to);
    if (fd >= 0)
        segment_unpin(segment);
    if (error == 0) {
        segment->allocated_bytes = to;
        return 0;
    }
    if (is_refusal(segment, error))
        return DG_ERR_STORAGE_FULL;
    char path[STORE_PATH_SIZE];
    segment_path(segment, path, sizeof(path));
    storage_die("fallocate", path, error);
}

int segment_pin(struct segment *segment) {
    pthread_mutex_lock(&segment->files->mutex);
    int error = open_locked(segment->files, segment, 0);
    int fd = segment->fd;
    if (error == 0)
        segment->pins++;
    pthread_mutex_unlock(&segment->files->mutex);
    errno = error;
    return error == 0 ? fd : -1;
}

void segment_hold(struct segment *segment) {
    pthread_mutex_lock(&segment->files->mutex);
    segment->pins++;
    pthread_mutex_unlock(&segment->files->mutex);
}

int segment_pin_held(struct segment *segment) {
    int fd = segment_pin(segment);
    int error = errno;
    segment_unpin(segment);
    errno = error;
    return fd;
}

void segment_unpin(struct segment *segment) {
    struct segment_files *files = segment->files;
    pthread_mutex_lock(&files->mutex);
    unpin_locked(segment);
    close_unused(files);
    bool gone = segment->removed && segment->pins == 0;
    pthread_mutex_unlock(&files->mutex);
    free_if_gone(segment, gone);
}

static bool sync_oldest(struct segment_files *files);

/* For what has to be done: lets go of a segment that is only open because it is not synced, or
 * waits for a descriptor. -1 and errno for other reasons. Who may sync: see the header. */
static int pin_waiting(struct segment *segment) {
    int fd;
    while ((fd = segment_pin(segment)) < 0 && errno_is_no_descriptor(errno))
        if (!sync_oldest(segment->files))
            usleep(DESCRIPTOR_WAIT_US);
    return fd;
}

void segment_read(struct segment *segment, void *ret_data, uint32_t size, uint32_t position) {
    int fd = pin_waiting(segment);
    ssize_t count = fd < 0 ? -1 : file_read(fd, ret_data, size, position);
    if (count != (ssize_t)size) {
        char path[STORE_PATH_SIZE];
        int error = count < 0 ? errno : EIO;
        segment_path(segment, path, sizeof(path));
        storage_die("pread", path, error);
    }
    segment_unpin(segment);
}

/* Only the placer opens it, and the segment is pinned: closing waits. */
static int open_direct(struct segment *segment) {
    char path[STORE_PATH_SIZE];
    if (segment->direct_fd != -1)
        return segment->direct_fd;
    segment_path(segment, path, sizeof(path));
    int fd = file_open(path, O_WRONLY | O_DIRECT);
    if (fd < 0 && errno != EINVAL)
        return -1; /* no descriptor is left: this time through the page cache */
    pthread_mutex_lock(&segment->files->mutex);
    segment->direct_fd = fd >= 0 ? fd : -2;
    segment->files->open_count += fd >= 0;
    pthread_mutex_unlock(&segment->files->mutex);
    return fd;
}

void segment_write_blocks(struct segment *segment, const void *data, uint32_t size,
                          uint32_t position) {
    dg_assert(position % FORMAT_BLOCK == 0 && size % FORMAT_BLOCK == 0);
    int fd = pin_waiting(segment);
    int error = fd < 0 ? errno : 0;
    if (error == 0) {
        int direct = open_direct(segment);
        error = file_write(direct >= 0 ? direct : fd, data, size, position);
    }
    if (error) {
        char path[STORE_PATH_SIZE];
        segment_path(segment, path, sizeof(path));
        storage_die("pwrite", path, error);
    }
    segment_mark_dirty(segment);
    segment_unpin(segment);
}

void segment_mark_new(struct segment *segment) {
    struct segment_files *files = segment->files;
    pthread_mutex_lock(&files->mutex);
    bool is_new = segment->is_new;
    pthread_mutex_unlock(&files->mutex);
    if (!is_new)
        return;
    if (pin_waiting(segment) < 0) {
        char path[STORE_PATH_SIZE];
        int error = errno;
        segment_path(segment, path, sizeof(path));
        storage_die("open", path, error);
    }
    segment_mark_dirty(segment);
    segment_unpin(segment);
}

void segment_mark_dirty(struct segment *segment) {
    struct segment_files *files = segment->files;
    pthread_mutex_lock(&files->mutex);
    if (!segment->dirty) {
        segment->dirty = true;
        segment->pins++;
        segment->dirty_next = NULL;
        *(files->dirty_last ? &files->dirty_last->dirty_next : &files->dirty) = segment;
        files->dirty_last = segment;
        files->dirty_count++;
    }
    pthread_mutex_unlock(&files->mutex);
}

static void sync_directory(struct segment_files *files, const char *path) {
    int error;
    while (errno_is_no_descriptor(error = file_sync_directory(path))) {
        pthread_mutex_lock(&files->mutex);
        bool closed = close_oldest_unused(files);
        pthread_mutex_unlock(&files->mutex);
        if (!closed)
            usleep(DESCRIPTOR_WAIT_US);
    }
    if (error)
        storage_die("fsync", path, error);
}

static void sync_new_directories(struct segment_files *files, uint64_t stream_id,
                                 uint32_t partition) {
    const struct segment place = {.files = files, .stream_id = stream_id, .partition = partition};
    char path[STORE_PATH_SIZE];
    for (int depth = 2; depth >= 0; depth--) {
        path_at(&place, depth, path, sizeof(path));
        sync_directory(files, path);
    }
}

/* The segment was dirty, is out of the list and still pinned by its dirt: unpinned first, so that
 * its descriptor can be closed for that of a directory. */
static void sync_taken(struct segment *segment, bool is_new) {
    int error = file_sync_data(segment->fd);
    if (error) {
        char path[STORE_PATH_SIZE];
        segment_path(segment, path, sizeof(path));
        storage_die("fdatasync", path, error);
    }
    struct segment_files *files = segment->files;
    uint64_t stream_id = segment->stream_id;
    uint32_t partition = segment->partition;
    segment_unpin(segment); /* may be gone after this */
    if (is_new)
        sync_new_directories(files, stream_id, partition);
    pthread_mutex_lock(&files->mutex);
    files->syncs_done++;
    pthread_cond_broadcast(&files->synced);
    pthread_mutex_unlock(&files->mutex);
}

/* Takes a segment out of the dirty list (NULL: the oldest). */
static struct segment *take_dirty(struct segment_files *files, struct segment *wanted,
                                  bool *ret_is_new) {
    pthread_mutex_lock(&files->mutex);
    struct segment *before = NULL, *segment = files->dirty;
    for (; segment && wanted && segment != wanted; segment = segment->dirty_next)
        before = segment;
    if (segment) {
        *(before ? &before->dirty_next : &files->dirty) = segment->dirty_next;
        if (files->dirty_last == segment)
            files->dirty_last = before;
        files->dirty_count--;
        files->syncs_begun++;
        segment->dirty = false; /* a later write makes it dirty again */
        *ret_is_new = segment->is_new;
        segment->is_new = false;
    }
    pthread_mutex_unlock(&files->mutex);
    return segment;
}

/* False: none is dirty. */
static bool sync_oldest(struct segment_files *files) {
    bool is_new;
    struct segment *segment = take_dirty(files, NULL, &is_new);
    if (segment)
        sync_taken(segment, is_new);
    return segment != NULL;
}

void segment_sync(struct segment *segment) {
    bool is_new;
    if (take_dirty(segment->files, segment, &is_new))
        sync_taken(segment, is_new);
}

void segment_files_sync(struct segment_files *files) {
    pthread_mutex_lock(&files->mutex);
    unsigned left = files->dirty_count; /* what the placer writes meanwhile is not asked for */
    pthread_mutex_unlock(&files->mutex);
    while (left-- > 0 && sync_oldest(files))
        ;
    pthread_mutex_lock(&files->mutex);
    uint64_t begun = files->syncs_begun;
    while (files->syncs_done < begun)
        pthread_cond_wait(&files->synced, &files->mutex);
    pthread_mutex_unlock(&files->mutex);
}

bool segment_files_crowded(struct segment_files *files) {
    pthread_mutex_lock(&files->mutex);
    bool crowded = files->open_count > files->open_max;
    pthread_mutex_unlock(&files->mutex);
    return crowded;
}

void segment_trim(struct segment *segment, uint32_t size) {
    int fd = pin_waiting(segment);
    int error = fd < 0 ? errno : 0;
    if (error == 0 && sys.ftruncate(fd, size) != 0)
        error = errno;
    if (error) {
        char path[STORE_PATH_SIZE];
        segment_path(segment, path, sizeof(path));
        storage_die("ftruncate", path, error);
    }
    segment_mark_dirty(segment);
    segment_unpin(segment);
}

void segment_remove(struct segment *segment) {
    char path[STORE_PATH_SIZE];
    segment_path(segment, path, sizeof(path));
    if (sys.unlink(path) != 0 && errno != ENOENT)
        storage_die("unlink", path, errno);
    struct segment_files *files = segment->files;
    pthread_mutex_lock(&files->mutex);
    segment->removed = true;
    if (segment->pins == 0)
        close_locked(files, segment);
    bool gone = segment->pins == 0;
    pthread_mutex_unlock(&files->mutex);
    free_if_gone(segment, gone);
}
