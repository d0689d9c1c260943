/* Walking segment directories and files. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/sys.h"
#include "storage/local/scan.h"
#include "support.h"

TestSuite(scan, .fini = check_leaks);

Test(scan, directory_takes_only_segment_names_in_order) {
    static const char *const names[] = {
        "00000000000000000300.log",  "00000000000000000000.log",  "00000000000000000020.log",
        "0000000000000000000.log",   "000000000000000000001.log", "-0000000000000000001.log",
        "+0000000000000000001.log",  "00000000000000000x01.log",  "00000000000000000001.tmp",
        "00000000000000000001.log~", "99999999999999999999.log",  "notes"};
    struct test_store store;
    int64_t *bases;
    uint32_t count;
    test_store_init(&store);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        test_file_write(&store, names[i], 0, "", 0);
    cr_assert_eq(scan_directory(store.directory, &bases, &count), 0);
    cr_assert_eq(count, 3);
    cr_expect(bases[0] == 0 && bases[1] == 20 && bases[2] == 300);
    free(bases);
    test_store_remove(&store);
    cr_expect_eq(scan_directory(store.directory, &bases, &count), DG_ERR_IO);
    cr_expect_eq(errno, ENOENT);
}

struct visited {
    unsigned batches;
    unsigned wrong_at;
    unsigned damages;
    uint64_t position; /* of the last damage */
    const char *what;
};

static const char *visit(void *context, const struct record_batch *batch) {
    struct visited *visited = context;
    visited->batches++;
    return batch->base_offset == visited->wrong_at ? "not this one" : NULL;
}

static void on_damage(void *context, uint64_t position, const char *what) {
    struct visited *visited = context;
    visited->damages++;
    visited->position = position;
    visited->what = what;
}

static char path[512];

/* 40 batches of about 60 kB: more than the scan's buffer. */
static void make_segment(struct test_store *store) {
    test_store_init(store);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    test_append_each(store, 7, 0, 0, 40, 60000);
    test_store_close(store);
    snprintf(path, sizeof(path), "%s/%s", store->directory, test_segment_name(7, 0, 0));
}

static ssize_t failing_pread(int fd, void *data, size_t size, off_t position) {
    errno = EIO;
    return -1;
}

static uint64_t scan(uint64_t limit_bytes, unsigned wrong_at, struct visited *ret_visited) {
    *ret_visited = (struct visited){.wrong_at = wrong_at};
    const struct scan_visitor visitor = {
        .batch = visit, .damage = on_damage, .context = ret_visited};
    return scan_segment(path, &(struct scan_range){.limit_bytes = limit_bytes}, &visitor);
}

static unsigned reads;
static ssize_t (*real_pread)(int fd, void *data, size_t size, off_t position);

static ssize_t counting_pread(int fd, void *data, size_t size, off_t position) {
    reads++;
    return real_pread(fd, data, size, position);
}

Test(scan, segment_says_where_and_what) {
    struct test_store store;
    struct visited visited;
    make_segment(&store);
    uint64_t size = (uint64_t)test_file_size(&store, test_segment_name(7, 0, 0));
    /* The newest segment of a closed store ends with a block's padding. */
    cr_expect_eq(scan(UINT64_MAX, UINT32_MAX, &visited), size);
    uint64_t end = visited.position;
    cr_assert(end > 40 * 60000 && size - end < 4096);
    cr_expect(visited.batches == 40 && visited.damages == 1);
    real_pread = sys.pread;
    sys.pread = counting_pread;
    cr_expect_eq(scan(end, UINT32_MAX, &visited), end);
    cr_expect(visited.batches == 40 && visited.damages == 0);
    cr_expect_leq(reads, 4, "%u", reads); /* not again for each batch near the end */
    sys.pread = real_pread;
    test_file_resize(&store, test_segment_name(7, 0, 0), (int64_t)end);
    cr_expect_eq(scan(UINT64_MAX, UINT32_MAX, &visited), end);
    cr_expect(visited.batches == 40 && visited.damages == 0);
    cr_expect_eq(scan(end, 7, &visited), end);
    cr_expect_str_eq(visited.what, "not this one");
    cr_expect(visited.batches == 40 && visited.damages == 1);
    uint64_t seventh = visited.position;
    test_file_flip(&store, test_segment_name(7, 0, 0), (int64_t)seventh + 1000);
    cr_expect_eq(scan(end, UINT32_MAX, &visited), end);
    cr_expect(visited.position == seventh && visited.batches == 39 && visited.damages == 1);
    scan(seventh - 1, UINT32_MAX, &visited); /* a limit in the middle of a batch */
    cr_expect(visited.batches == 6 && visited.damages == 1);
    sys.pread = failing_pread;
    cr_expect_eq(scan(end, UINT32_MAX, &visited), 0);
    cr_expect_str_eq(visited.what, "read error");
    test_store_remove(&store);
    scan(end, UINT32_MAX, &visited);
    cr_expect_str_eq(visited.what, "cannot be read");
}
