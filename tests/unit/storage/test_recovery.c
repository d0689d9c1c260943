/* What recovery makes of what a crash or a bad disk leaves. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/local/format.h"
#include "support.h"

TestSuite(recovery);

enum { STREAM_ID = 7, EXIT_AT_WRITE = 42 };

static void append(struct test_store *store, uint32_t partition, uint64_t number,
                   uint32_t padding) {
    cr_assert_eq(test_append(store, STREAM_ID, partition, number, padding, 1000), 0);
    test_store_settle(store);
}

/* The process ends in its next write, before anything of it reaches the file. */
static ssize_t ending_pwrite(int fd, const void *data, size_t size, off_t position) {
    _exit(EXIT_AT_WRITE);
}

/* Runs life in a process of its own, which must end by ending_pwrite(). */
static void run_until_write(struct test_store *store, void (*life)(struct test_store *store)) {
    pid_t child = fork();
    if (child == 0) {
        if (test_store_open(store) < 0)
            _exit(1);
        life(store);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_AT_WRITE);
}

static void roll_and_end(struct test_store *store) {
    append(store, 5, 0, 100000);
    append(store, 5, 1, 100000);
    sys.pwrite = ending_pwrite;
    append(store, 5, 2, 100000); /* creates the next segment, whose base is 2 */
}

/* A segment file of a group that never was must not stand between later ones. */
Test(recovery, leaves_no_file_of_a_roll_that_was_not_committed) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 256 * 1024;
    run_until_write(&store, roll_and_end);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_assert_eq(test_read_all(&store, STREAM_ID, 5, 0, 0), 2);
    append(&store, 5, 2, 1000);   /* fits in the first segment */
    append(&store, 5, 3, 100000); /* the next one begins at 3 */
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_assert_eq(test_read_all(&store, STREAM_ID, 5, 0, 0), 4);
    test_store_close(&store);
    test_store_remove(&store);
}
