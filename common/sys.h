/*
 * The system calls that touch durable state, through a table that tests replace to make any of them
 * fail, stall or lie. Everything under storage/ calls these and nothing else. Set before threads
 * start; read-only afterwards.
 */
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

struct sys_table {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *data, size_t size, off_t position);
    ssize_t (*pwrite)(int fd, const void *data, size_t size, off_t position);
    ssize_t (*preadv2)(int fd, const struct iovec *parts, int count, off_t position, int flags);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*fallocate)(int fd, int mode, off_t position, off_t size);
    int (*ftruncate)(int fd, off_t size);
    int (*fstat)(int fd, struct stat *ret_stat);
    int (*fstatvfs)(int fd, struct statvfs *ret_status);
    int (*fadvise)(int fd, off_t position, off_t size, int advice);
    int (*rename)(const char *from, const char *to);
    int (*link)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
};

extern struct sys_table sys;
