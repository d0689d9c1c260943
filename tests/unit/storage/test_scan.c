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
    unsigned stop_at;
};

static const char *visit(void *context, const struct record_batch *batch) {
    struct visited *visited = context;
    if (visited->batches == visited->stop_at)
        return "enough";
    cr_expect_eq(batch->base_offset, visited->batches++);
    return NULL;
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

Test(scan, segment_says_where_and_what) {
    struct test_store store;
    struct scan_result result;
    make_segment(&store);
    uint64_t size = (uint64_t)test_file_size(&store, test_segment_name(7, 0, 0));
    struct visited visited = {.stop_at = UINT32_MAX};
    /* The newest segment of a closed store ends with a block's padding. */
    cr_expect_eq(scan_segment(path, size, visit, &visited, &result), DG_ERR_CORRUPT);
    uint64_t end = result.position;
    cr_assert(end > 40 * 60000 && size - end < 4096);
    cr_expect_eq(visited.batches, 40);
    visited.batches = 0;
    cr_expect_eq(scan_segment(path, end, visit, &visited, &result), 0);
    cr_expect(result.position == end && visited.batches == 40);
    test_file_resize(&store, test_segment_name(7, 0, 0), (int64_t)end);
    visited.batches = 0;
    cr_expect_eq(scan_segment(path, UINT64_MAX, visit, &visited, &result), 0);
    cr_expect(result.position == end && visited.batches == 40);
    visited = (struct visited){.stop_at = 7};
    cr_expect_eq(scan_segment(path, end, visit, &visited, &result), DG_ERR_CORRUPT);
    cr_expect_str_eq(result.what, "enough");
    uint64_t seventh = result.position;
    test_file_flip(&store, test_segment_name(7, 0, 0), (int64_t)seventh + 1000);
    visited = (struct visited){.stop_at = UINT32_MAX};
    cr_expect_eq(scan_segment(path, end, visit, &visited, &result), DG_ERR_CORRUPT);
    cr_expect(result.position == seventh && visited.batches == 7);
    cr_expect_eq(scan_segment(path, seventh - 1, visit, &(struct visited){.stop_at = 99}, &result),
                 DG_ERR_CORRUPT, "a limit in the middle of a batch");
    sys.pread = failing_pread;
    cr_expect_eq(scan_segment(path, end, visit, &visited, &result), DG_ERR_IO);
    cr_expect_str_eq(result.what, "read error");
    test_store_remove(&store);
    cr_expect_eq(scan_segment(path, end, visit, &visited, &result), DG_ERR_IO);
}
