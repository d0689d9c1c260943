#include "common/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* open() is variadic and cannot stand in the table itself. */
static int open_with_mode(const char *path, int flags, mode_t mode) {
    return open(path, flags, mode);
}

struct sys_table sys = {
    .open = open_with_mode,
    .close = close,
    .pread = pread,
    .pwrite = pwrite,
    .preadv2 = preadv2,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .fallocate = fallocate,
    .ftruncate = ftruncate,
    .fstat = fstat,
    .fstatvfs = fstatvfs,
    .fadvise = posix_fadvise,
    .rename = rename,
    .link = link,
    .unlink = unlink,
    .mkdir = mkdir,
};
