/*
 * Every changing call fails once, in turn: a child writes a fixed load and its n-th pwrite,
 * fdatasync, fsync, ftruncate, rename, open-for-creation, mkdir or fallocate answers an error, for
 * n = 1, 2, ... until a child ends without having met it. After each: the child has ended as the
 * rules say (DG_EXIT_STORAGE, or a refused start, or for a full disk it has gone on), and a new
 * process finds every acknowledged record in order.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/storage/support.h"
#include "common/sys.h"

enum { PARTITIONS = 3, STREAM_ID = 7, ROUNDS = 24, EXIT_REFUSED = 3 };

struct shared {
    int64_t acked_end[PARTITIONS];
    bool met; /* the failing call was reached */
};

static struct shared *shared;
static struct sys_table real;
static atomic_uint calls;
static unsigned fail_at;
static int fail_with;

static bool fails(void) {
    if (atomic_fetch_add(&calls, 1) + 1 != fail_at)
        return false;
    shared->met = true;
    errno = fail_with;
    return true;
}

static ssize_t failing_pwrite(int fd, const void *data, size_t size, off_t position) {
    return fails() ? -1 : real.pwrite(fd, data, size, position);
}
static int failing_fdatasync(int fd) {
    return fails() ? -1 : real.fdatasync(fd);
}
static int failing_fsync(int fd) {
    return fails() ? -1 : real.fsync(fd);
}
static int failing_ftruncate(int fd, off_t size) {
    return fails() ? -1 : real.ftruncate(fd, size);
}
static int failing_rename(const char *from, const char *to) {
    return fails() ? -1 : real.rename(from, to);
}
static int failing_mkdir(const char *path, mode_t mode) {
    return fails() ? -1 : real.mkdir(path, mode);
}
static int failing_fallocate(int fd, int mode, off_t position, off_t size) {
    return fails() ? -1 : real.fallocate(fd, mode, position, size);
}
static int failing_open(const char *path, int flags, mode_t mode) {
    return (flags & O_CREAT) && fails() ? -1 : real.open(path, flags, mode);
}

static void install(void) {
    real = sys;
    sys.pwrite = failing_pwrite;
    sys.fdatasync = failing_fdatasync;
    sys.fsync = failing_fsync;
    sys.ftruncate = failing_ftruncate;
    sys.rename = failing_rename;
    sys.mkdir = failing_mkdir;
    sys.fallocate = failing_fallocate;
    sys.open = failing_open;
}

static void on_ack(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    if (err == 0)
        shared->acked_end[ticket->owner] = offset + 1;
}

/* The record's number is its offset, so a refused one is sent again. */
static void write_load(struct test_store *store) {
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned partition = 0; partition < PARTITIONS; partition++) {
            int64_t next = shared->acked_end[partition];
            for (unsigned i = 0; i < 4; i++)
                if (test_append_for(store, STREAM_ID, partition, (uint64_t)(next + i), 70000,
                                    1000 + next, partition) < 0)
                    _exit(1);
        }
        test_store_settle(store);
    }
}

static void run_child(struct test_store *store, unsigned n, int error) {
    fail_at = n;
    fail_with = error;
    install();
    store->done = on_ack;
    if (!freopen("/dev/null", "w", stderr) || test_store_open(store) < 0)
        _exit(EXIT_REFUSED);
    write_load(store);
    test_store_close(store);
    _exit(0);
}

static bool check(struct test_store *store, unsigned n, int status) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    bool good = code == 0 || code == EXIT_REFUSED || code == DG_EXIT_STORAGE;
    if (fail_with != ENOSPC && shared->met && code == 0)
        good = false; /* it has gone on as if nothing had happened */
    int err = test_store_open(store);
    if (err < 0 || !good) {
        fprintf(stderr, "call %u: child ended with %d; open: %s %s\n", n, code, dg_err_text(err),
                store->error);
        return false;
    }
    for (unsigned i = 0; i < PARTITIONS && good; i++) {
        struct stream_offsets offsets;
        stream_offsets(store->stream, STREAM_ID, i, &offsets);
        good = offsets.durable_end >= shared->acked_end[i] &&
               test_read_all(store, STREAM_ID, i, 0, 0) == offsets.durable_end;
    }
    test_store_close(store);
    if (!good)
        fprintf(stderr, "call %u: an acknowledged record is missing\n", n);
    return good;
}

/* Returns the number of calls tried, or 0 after a failure. */
static unsigned run_loop(int error, unsigned step) {
    fail_with = error;
    for (unsigned n = 1;; n += step) {
        struct test_store store;
        test_store_init(&store);
        store.options.segment_size_bytes = 1024 * 1024;
        memset(shared, 0, sizeof(*shared));
        pid_t child = fork();
        if (child == 0)
            run_child(&store, n, error);
        int status;
        waitpid(child, &status, 0);
        bool good = check(&store, n, status);
        test_store_remove(&store);
        if (!good)
            return 0;
        if (!shared->met)
            return n;
    }
}

int main(int argument_count, char **arguments) {
    unsigned step = argument_count > 1 ? (unsigned)atoi(arguments[1]) : 1;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned tried = run_loop(EIO, step);
    unsigned tried_full = tried ? run_loop(ENOSPC, step) : 0;
    if (!tried_full)
        return 1;
    printf("each of %u calls failed with EIO and %u with ENOSPC; nothing acknowledged was lost\n",
           tried, tried_full);
    return 0;
}
