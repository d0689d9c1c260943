/*
 * Every call on files fails once, in turn: a child writes a fixed load and its n-th pwrite,
 * fdatasync, fsync, ftruncate, rename, open-for-creation, mkdir or fallocate answers an error, for
 * n = 1, 2, ... until a child ends without having met it; then its n-th unlink, while retention
 * removes segments; then each ninth pread or preadv2, while it starts again and reads everything
 * back. After each: the child has ended as the rules say (DG_EXIT_STORAGE, or a refused start, or
 * for a full disk it has gone on, or a reader was told), and a new process finds every acknowledged
 * record in order.
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

enum { PARTITIONS = 3, STREAM_ID = 7, ROUNDS = 24, EXIT_REFUSED = 3, EXIT_TOLD = 4 };

/* Which calls fail. */
enum kind { WRITES, UNLINKS, READS };

struct shared {
    int64_t acked_end[PARTITIONS];
    bool met; /* the failing call was reached */
};

static struct shared *shared;
static struct sys_table real;
static atomic_uint calls;
static unsigned fail_at;
static int fail_with;
static enum kind fail_kind;

static bool fails(enum kind kind) {
    if (kind != fail_kind || atomic_fetch_add(&calls, 1) + 1 != fail_at)
        return false;
    shared->met = true;
    errno = fail_with;
    return true;
}

static ssize_t failing_pwrite(int fd, const void *data, size_t size, off_t position) {
    return fails(WRITES) ? -1 : real.pwrite(fd, data, size, position);
}
static int failing_fdatasync(int fd) {
    return fails(WRITES) ? -1 : real.fdatasync(fd);
}
static int failing_fsync(int fd) {
    return fails(WRITES) ? -1 : real.fsync(fd);
}
static int failing_ftruncate(int fd, off_t size) {
    return fails(WRITES) ? -1 : real.ftruncate(fd, size);
}
static int failing_rename(const char *from, const char *to) {
    return fails(WRITES) ? -1 : real.rename(from, to);
}
static int failing_mkdir(const char *path, mode_t mode) {
    return fails(WRITES) ? -1 : real.mkdir(path, mode);
}
static int failing_fallocate(int fd, int mode, off_t position, off_t size) {
    return fails(WRITES) ? -1 : real.fallocate(fd, mode, position, size);
}
static int failing_open(const char *path, int flags, mode_t mode) {
    return (flags & O_CREAT) && fails(WRITES) ? -1 : real.open(path, flags, mode);
}

static int failing_unlink(const char *path) {
    return fails(UNLINKS) ? -1 : real.unlink(path);
}
static ssize_t failing_pread(int fd, void *data, size_t size, off_t position) {
    return fails(READS) ? -1 : real.pread(fd, data, size, position);
}
static ssize_t failing_preadv2(int fd, const struct iovec *parts, int count, off_t position,
                               int flags) {
    return fails(READS) ? -1 : real.preadv2(fd, parts, count, position, flags);
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
    sys.unlink = failing_unlink;
    sys.pread = failing_pread;
    sys.preadv2 = failing_preadv2;
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

/* Until retention has removed what it should, or the unlink has failed and ended the process. */
static void wait_for_retention(struct test_store *store) {
    store->options.retention_bytes = 2 * 1024 * 1024;
    stream_reconfigure(store->stream, &store->options);
    for (unsigned i = 0; i < PARTITIONS; i++) {
        struct stream_offsets offsets = {.size_bytes = UINT64_MAX};
        for (unsigned waits = 0; waits < 500 && offsets.size_bytes > 3 * 1024 * 1024; waits++) {
            usleep(10000);
            stream_offsets(store->stream, STREAM_ID, i, &offsets);
        }
    }
    usleep(100000); /* the last unlink is on its way */
}

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
}

/* Reads as a worker does: to the end, or to an error. */
static int read_patiently(struct test_store *store, struct stream_watcher *watcher,
                          uint32_t partition) {
    struct stream_extent extent = {.size_bytes = 1};
    int64_t offset = 0;
    for (; extent.size_bytes > 0; offset = extent.next_offset) {
        int err;
        while ((err = stream_read(store->stream, STREAM_ID, partition, offset, 256 * 1024, watcher,
                                  &extent)) == DG_ERR_COLD) {
            struct pollfd wait = {.fd = mailbox_fd(&store->mailbox), .events = POLLIN};
            if (poll(&wait, 1, 10000) != 1)
                _exit(1); /* nobody is told */
            mailbox_drain(&store->mailbox);
        }
        if (err < 0)
            return err;
        stream_extent_release(&extent);
    }
    if (offset < shared->acked_end[partition])
        _exit(1);
    return 0;
}

static void read_back(struct test_store *store) {
    struct stream_watcher *watcher;
    int64_t offset, found_ms;
    bool told = false;
    if (stream_watcher_create(store->stream, &store->mailbox, on_advanced, NULL, &watcher) < 0)
        _exit(1);
    for (unsigned i = 0; i < PARTITIONS; i++) {
        told = read_patiently(store, watcher, i) < 0 || told;
        int err = stream_find_time(store->stream, STREAM_ID, i, 1040, NULL, &offset, &found_ms);
        if (err == 0 && (offset != 40 || found_ms != 1040))
            _exit(1);
        told = err < 0 || told;
    }
    stream_watcher_free(watcher);
    if (told) {
        test_store_close(store);
        _exit(EXIT_TOLD);
    }
}

static void open_or_exit(struct test_store *store) {
    if (test_store_open(store) < 0)
        _exit(EXIT_REFUSED);
}

static void run_child(struct test_store *store, unsigned n, int error) {
    fail_at = n;
    fail_with = error;
    install();
    store->done = on_ack;
    if (!freopen("/dev/null", "w", stderr))
        _exit(1);
    open_or_exit(store);
    write_load(store);
    if (fail_kind == UNLINKS)
        wait_for_retention(store);
    if (fail_kind == READS) {
        test_store_close(store);
        open_or_exit(store);
        read_back(store);
    }
    test_store_close(store);
    _exit(0);
}

static bool check(struct test_store *store, unsigned n, int status) {
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    bool good = code == 0 || code == EXIT_REFUSED || code == DG_EXIT_STORAGE ||
                (code == EXIT_TOLD && fail_kind == READS);
    if (fail_kind != READS && fail_with != ENOSPC && shared->met && code == 0)
        good = false; /* it has gone on as if nothing had happened; a read may be tried again */
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
               test_read_all(store, STREAM_ID, i, offsets.log_start, 0) ==
                   offsets.durable_end - offsets.log_start;
    }
    test_store_close(store);
    if (!good)
        fprintf(stderr, "call %u: an acknowledged record is missing\n", n);
    return good;
}

/* Returns the number of calls tried, or 0 after a failure. */
static unsigned run_loop(enum kind kind, int error, unsigned step) {
    fail_kind = kind;
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

/* One row a run, so that they can go side by side. */
static const struct row {
    const char *name;
    enum kind kind;
    int error;
    unsigned step;
} rows[] = {
    {"writes-eio", WRITES, EIO, 1},
    {"writes-enospc", WRITES, ENOSPC, 1},
    {"unlinks", UNLINKS, EIO, 1},
    {"reads", READS, EIO, 9},
};

int main(int argument_count, char **arguments) {
    unsigned step = argument_count > 2 ? (unsigned)atoi(arguments[2]) : 1;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (argument_count < 2 || strcmp(arguments[1], rows[i].name) != 0)
            continue;
        unsigned calls_met = run_loop(rows[i].kind, rows[i].error, rows[i].step * step);
        if (calls_met > 0)
            printf("%s: of %u calls every %u. failed; nothing acknowledged was lost\n",
                   rows[i].name, calls_met, rows[i].step * step);
        return calls_met > 0 ? 0 : 1;
    }
    fprintf(stderr, "usage: write_errors writes-eio|writes-enospc|unlinks|reads [STEP]\n");
    return 64;
}
