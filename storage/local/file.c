/*
 * Durable file work on top of the sys table. No format of its own. Rules: loop on short writes,
 * retry EINTR, never retry a failed sync (the kernel forgets the error after reporting it once).
 */
#include "storage/local/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/sys.h"

_Static_assert(ENOSPC == 28 && EDQUOT == 122, "errno_is_no_room()");
_Static_assert(ENFILE == 23 && EMFILE == 24, "errno_is_no_descriptor()");

void storage_die(const char *what, const char *path, int error) {
    LOG_ERROR("storage.failed", log_text("call", what), log_text("path", path),
              log_text("why", strerror(error)),
              log_text("effect", "the process ends; nothing more is acknowledged"));
    _exit(DG_EXIT_STORAGE);
}

int file_open(const char *path, int flags) {
    int fd;
    do
        fd = sys.open(path, flags | O_CLOEXEC, 0640);
    while (fd < 0 && errno == EINTR);
    if (fd < 0 && errno == ENOMEM)
        errno = ENFILE;
    return fd;
}

void file_close(int fd) {
    if (fd >= 0)
        sys.close(fd);
}

int file_write(int fd, const void *data, size_t size, off_t position) {
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t written = sys.pwrite(fd, at, size, position);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : EIO;
        at += written;
        size -= (size_t)written;
        position += written;
    }
    return 0;
}

ssize_t file_read(int fd, void *ret_data, size_t size, off_t position) {
    uint8_t *at = ret_data;
    size_t got = 0;
    while (got < size) {
        ssize_t count = sys.pread(fd, at + got, size - got, position + (off_t)got);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -1;
        if (count == 0)
            break;
        got += (size_t)count;
    }
    return (ssize_t)got;
}

int file_sync_data(int fd) {
    return sys.fdatasync(fd) == 0 ? 0 : errno;
}

int file_sync_directory(const char *path) {
    int fd = file_open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno;
    int error = sys.fsync(fd) == 0 ? 0 : errno;
    file_close(fd);
    return error;
}

int file_make_directory(const char *path, bool *ret_created) {
    if (sys.mkdir(path, 0750) == 0) {
        *ret_created = true;
        return 0;
    }
    if (errno != EEXIST)
        return errno;
    *ret_created = false;
    return 0;
}

static int write_temporary(const char *path, const void *data, size_t size) {
    int fd = file_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0)
        return errno;
    int error = file_write(fd, data, size, 0);
    if (error == 0 && sys.fsync(fd) != 0)
        error = errno;
    file_close(fd);
    return error;
}

int file_replace(const char *directory, const char *name, const void *data, size_t size) {
    char path[STORE_PATH_SIZE], temporary[STORE_PATH_SIZE];
    int length = snprintf(path, sizeof(path), "%s/%s", directory, name);
    int temporary_length = snprintf(temporary, sizeof(temporary), "%s/%s.new", directory, name);
    dg_assert(length > 0 && temporary_length < (int)sizeof(temporary));
    int directory_fd = file_open(directory, O_RDONLY | O_DIRECTORY);
    if (directory_fd < 0)
        return errno;
    int error = write_temporary(temporary, data, size);
    if (error == 0 && sys.rename(temporary, path) != 0)
        error = errno;
    if (error == 0 && sys.fsync(directory_fd) != 0)
        error = errno;
    file_close(directory_fd);
    return error;
}

int file_load(const char *path, size_t size_max, uint8_t **ret_data, size_t *ret_size) {
    int fd = file_open(path, O_RDONLY);
    if (fd < 0)
        return errno == ENOENT ? DG_ERR_NOT_FOUND : DG_ERR_IO;
    struct stat status;
    uint8_t *data = NULL;
    int err = sys.fstat(fd, &status) == 0 ? 0 : DG_ERR_IO;
    if (err == 0 && (uint64_t)status.st_size > size_max)
        err = DG_ERR_CORRUPT;
    size_t size = err == 0 ? (size_t)status.st_size : 0;
    if (err == 0 && !(data = malloc(size + 1)))
        err = DG_ERR_NO_MEMORY;
    if (err == 0 && file_read(fd, data, size, 0) != (ssize_t)size)
        err = DG_ERR_IO;
    file_close(fd);
    if (err < 0) {
        free(data);
        return err;
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}
