/*
 * Durable file work: the only code of the engine, with segment.c and journal.c, that calls the sys
 * table. A failure that could make an acknowledged record disappear ends the process here
 * (storage_die); a failure at opening time is returned. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

enum { STORE_PATH_SIZE = 4352 };

/* Logs one line and ends the process with DG_EXIT_STORAGE. error is an errno. */
_Noreturn void storage_die(const char *what, const char *path, int error);

/* Opens close-on-exec; retries EINTR. A descriptor, or -1 and errno (ENFILE also when the kernel
 * has no memory for one). */
int file_open(const char *path, int flags);
void file_close(int fd);

/* Writes all of it at position; short writes and EINTR go on. 0, or an errno. */
int file_write(int fd, const void *data, size_t size, off_t position);

/* Reads size bytes or up to the end of the file. The count, or -1 and errno. */
ssize_t file_read(int fd, void *ret_data, size_t size, off_t position);

/* 0 or an errno. */
int file_sync_data(int fd);
int file_sync_directory(const char *path);

/* Creates a directory unless it exists. 0 or an errno; *ret_created says which. */
int file_make_directory(const char *path, bool *ret_created);

/* Replaces directory/name by way of a temporary file: write, fsync, rename, fsync the directory.
 * 0 or an errno; on failure the old file is still there. Without a descriptor nothing is begun. */
int file_replace(const char *directory, const char *name, const void *data, size_t size);

/* Reads a whole file of at most size_max bytes into memory the caller frees. DG_ERR_NOT_FOUND,
 * DG_ERR_IO, DG_ERR_CORRUPT (too large), DG_ERR_NO_MEMORY. */
DG_NODISCARD int file_load(const char *path, size_t size_max, uint8_t **ret_data, size_t *ret_size);

static inline bool errno_is_no_room(int error) {
    /* ENOSPC 28, EDQUOT 122 */
    return error == 28 || error == 122;
}

/* Not a failure of the disk: there will be one again. */
static inline bool errno_is_no_descriptor(int error) {
    /* ENFILE 23, EMFILE 24 */
    return error == 23 || error == 24;
}
