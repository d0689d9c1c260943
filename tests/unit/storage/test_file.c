/* File work on the replaceable system calls: short, interrupted and failing ones. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/local/file.h"
#include "support.h"

TestSuite(file, .fini = check_leaks);

static struct sys_table real;
static unsigned calls;

/* Every other call is interrupted, the others do a few bytes only. */
static ssize_t short_pwrite(int fd, const void *data, size_t size, off_t position) {
    if (calls++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return real.pwrite(fd, data, size < 7 ? size : 7, position);
}

static ssize_t short_pread(int fd, void *data, size_t size, off_t position) {
    if (calls++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return real.pread(fd, data, size < 5 ? size : 5, position);
}

static int interrupted_open(const char *path, int flags, mode_t mode) {
    if (calls++ < 3) {
        errno = EINTR;
        return -1;
    }
    return real.open(path, flags, mode);
}

static void path_in(const struct test_store *store, const char *name, char *ret_path, size_t size) {
    snprintf(ret_path, size, "%s/%s", store->directory, name);
}

Test(file, goes_on_after_short_and_interrupted_calls) {
    struct test_store store;
    char path[512], back[64] = {0};
    static const char text[] = "what is written in pieces comes back whole";
    test_store_init(&store);
    path_in(&store, "file", path, sizeof(path));
    real = sys;
    sys.open = interrupted_open;
    int fd = file_open(path, O_RDWR | O_CREAT);
    cr_assert(fd >= 0 && calls == 4);
    cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    sys.pwrite = short_pwrite;
    sys.pread = short_pread;
    calls = 0;
    cr_assert_eq(file_write(fd, text, sizeof(text), 3), 0);
    calls = 0;
    cr_expect_eq(file_read(fd, back, sizeof(text), 3), (ssize_t)sizeof(text));
    cr_expect_str_eq(back, text);
    cr_expect_eq(file_read(fd, back, sizeof(back), sizeof(text)), 3, "up to the end of the file");
    cr_expect_eq(file_read(fd, back, sizeof(back), 1000), 0);
    file_close(fd);
    file_close(-1);
    test_store_remove(&store);
}

static int failing;

static ssize_t failing_pwrite(int fd, const void *data, size_t size, off_t position) {
    errno = failing;
    return failing ? -1 : 0; /* a write of nothing must not go on for ever */
}

static ssize_t failing_pread(int fd, void *data, size_t size, off_t position) {
    errno = EIO;
    return -1;
}

static int failing_fsync(int fd) {
    calls++;
    errno = failing;
    return -1;
}

static int failing_rename(const char *from, const char *to) {
    errno = failing;
    return -1;
}

Test(file, reports_the_error_of_a_call) {
    uint8_t byte = 0;
    real = sys;
    sys.pwrite = failing_pwrite;
    failing = ENOSPC;
    cr_expect_eq(file_write(0, &byte, 1, 0), ENOSPC);
    failing = 0;
    cr_expect_eq(file_write(0, &byte, 1, 0), EIO);
    sys.pread = failing_pread;
    cr_expect_eq(file_read(0, &byte, 1, 0), -1);
    sys.fdatasync = failing_fsync;
    failing = EIO;
    cr_expect_eq(file_sync_data(0), EIO);
    cr_expect_eq(calls, 1, "a failed sync is never tried again");
    cr_expect(errno_is_no_room(ENOSPC) && errno_is_no_room(EDQUOT) && !errno_is_no_room(EIO) &&
              !errno_is_no_room(0));
}

static void expect_content(const struct test_store *store, const char *name, const char *text) {
    char path[512];
    uint8_t *data;
    size_t size;
    path_in(store, name, path, sizeof(path));
    cr_assert_eq(file_load(path, 100, &data, &size), 0);
    cr_expect(slice_equals_string(slice_make(data, size), text), "%.*s", (int)size, data);
    free(data);
}

/* Each step of replacing fails in turn; the old content stays. */
Test(file, replace_is_all_or_nothing) {
    struct test_store store;
    test_store_init(&store);
    cr_assert_eq(file_replace(store.directory, "name", "first", 5), 0);
    cr_assert_eq(file_replace(store.directory, "name", "second", 6), 0);
    expect_content(&store, "name", "second");
    cr_expect_eq(test_file_size(&store, "name.new"), -1);
    real = sys;
    for (unsigned step = 0; step < 3; step++) {
        failing = step == 0 ? ENOSPC : step == 1 ? EIO : EDQUOT;
        sys.pwrite = step == 0 ? failing_pwrite : real.pwrite;
        sys.fsync = step == 1 ? failing_fsync : real.fsync;
        sys.rename = step == 2 ? failing_rename : real.rename;
        cr_expect_eq(file_replace(store.directory, "name", "third", 5), failing, "step %u", step);
        expect_content(&store, "name", "second");
    }
    sys = real;
    cr_assert_eq(file_replace(store.directory, "name", "fourth", 6), 0);
    expect_content(&store, "name", "fourth");
    test_store_remove(&store);
}

static unsigned order;
static unsigned file_synced, renamed, directory_synced;

static int noting_fsync(int fd) {
    struct stat status;
    fstat(fd, &status);
    *(S_ISDIR(status.st_mode) ? &directory_synced : &file_synced) = ++order;
    return real.fsync(fd);
}

static int noting_rename(const char *from, const char *to) {
    renamed = ++order;
    return real.rename(from, to);
}

Test(file, replace_syncs_file_before_and_directory_after_the_rename) {
    struct test_store store;
    test_store_init(&store);
    real = sys;
    sys.fsync = noting_fsync;
    sys.rename = noting_rename;
    cr_assert_eq(file_replace(store.directory, "name", "text", 4), 0);
    cr_expect(file_synced == 1 && renamed == 2 && directory_synced == 3);
    test_store_remove(&store);
}

Test(file, load_has_a_limit) {
    struct test_store store;
    char path[512];
    uint8_t *data;
    size_t size;
    test_store_init(&store);
    path_in(&store, "name", path, sizeof(path));
    cr_expect_eq(file_load(path, 10, &data, &size), DG_ERR_NOT_FOUND);
    test_file_write(&store, "name", 0, "0123456789", 10);
    cr_expect_eq(file_load(path, 9, &data, &size), DG_ERR_CORRUPT);
    cr_assert_eq(file_load(path, 10, &data, &size), 0);
    cr_expect_eq(size, 10);
    free(data);
    sys.pread = failing_pread;
    cr_expect_eq(file_load(path, 10, &data, &size), DG_ERR_IO);
    test_store_remove(&store);
}

Test(file, make_directory_says_whether_it_was_there) {
    struct test_store store;
    char path[512];
    bool created = false;
    test_store_init(&store);
    path_in(&store, "inner", path, sizeof(path));
    cr_expect(file_make_directory(path, &created) == 0 && created);
    cr_expect(file_make_directory(path, &created) == 0 && !created);
    path_in(&store, "no/such", path, sizeof(path));
    cr_expect_eq(file_make_directory(path, &created), ENOENT);
    cr_expect_eq(file_sync_directory(path), ENOENT);
    test_store_remove(&store);
}

static void die(void *context) {
    storage_die("fsync", "some/path", EIO);
}

Test(file, a_storage_failure_ends_the_process_with_its_own_code) {
    cr_expect_eq(test_exit_code(die, NULL), DG_EXIT_STORAGE);
}
