/* The engine as its users see it: append, read, reopen, limits. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "storage/local/format.h"
#include "storage/local/store.h"
#include "support.h"

TestSuite(store, .fini = check_leaks);

static void append_many(struct test_store *store, uint32_t partitions, uint64_t from, uint64_t to,
                        uint32_t padding) {
    for (uint64_t number = from; number < to; number++)
        for (uint32_t partition = 0; partition < partitions; partition++) {
            int err;
            while ((err = test_append(store, 7, partition, number, padding,
                                      (int64_t)(1000 + number))) == DG_ERR_PRESSURE)
                test_store_settle(store);
            cr_assert_eq(err, 0);
        }
    test_store_settle(store);
}

Test(store, keeps_what_it_acknowledged) {
    struct test_store store;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    for (uint64_t number = 0; number < 50; number++) {
        cr_assert_eq(test_append(&store, 7, 3, number, 100, 1000 + (int64_t)number), 0);
        test_store_settle(&store);
        cr_assert_eq(store.last_offset, (int64_t)number);
    }
    cr_assert_eq(test_read_all(&store, 7, 3, 0, 0), 50);
    test_store_close(&store);
    for (unsigned round = 1; round <= 3; round++) {
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
        cr_assert_eq(test_read_all(&store, 7, 3, 0, 0), 50 * round);
        for (uint64_t number = 50 * round; number < 50 * round + 50; number++)
            cr_assert_eq(test_append(&store, 7, 3, number, 1000, 1000 + (int64_t)number), 0);
        test_store_settle(&store);
        cr_assert_eq(store.last_offset, 50 * round + 49);
        cr_assert_eq(test_read_all(&store, 7, 3, 0, 0), 50 * round + 50);
        cr_assert_eq(test_read_all(&store, 7, 3, 77, 0), 50 * round + 50 - 77);
        test_store_close(&store);
    }
    test_store_remove(&store);
}

Test(store, many_partitions_rolls_and_journal_wraps) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 300 * 1024;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_many(&store, 40, 0, 600, 1000);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    for (uint32_t partition = 0; partition < 40; partition++)
        cr_assert_eq(test_read_all(&store, 7, partition, 0, 0), 600);
    append_many(&store, 40, 600, 1200, 1000);
    for (uint32_t partition = 0; partition < 40; partition++)
        cr_assert_eq(test_read_all(&store, 7, partition, 0, 0), 1200);
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- what is not opened -------------------------------------------------------------------------
 */

static void expect_refused(struct test_store *store, int err, const char *why) {
    store->error[0] = '\0';
    uint32_t before = test_store_digest(store);
    cr_expect_eq(test_store_open(store), err, "%s", why);
    cr_expect_not_null(strstr(store->error, why), "'%s' says nothing of '%s'", store->error, why);
    cr_expect_eq(test_store_digest(store), before, "%s: the files have changed", why);
}

static void make_store(struct test_store *store) {
    test_store_init(store);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    append_many(store, 1, 0, 3, 100);
    test_store_close(store);
}

static void write_format(struct test_store *store, struct format_store *format) {
    format->crc = 0;
    format->crc = crc32c_update(0, format, sizeof(*format));
    test_file_write(store, "format", 0, format, sizeof(*format));
}

Test(store, format_file_is_checked) {
    struct test_store store;
    struct format_store format, changed;
    make_store(&store);
    cr_assert_eq(store_read_format(store.directory, &format), 0);
    cr_expect_eq(format.journal_size_bytes, TEST_JOURNAL_BYTES);
    changed = format;
    changed.version = FORMAT_VERSION_EPOCHS + 1;
    write_format(&store, &changed);
    expect_refused(&store, DG_ERR_UNSUPPORTED_VERSION, "start the release that wrote it");
    changed = format;
    changed.magic[7]++;
    write_format(&store, &changed);
    expect_refused(&store, DG_ERR_CORRUPT, "format");
    write_format(&store, &format);
    for (int64_t at = 12; at < (int64_t)sizeof(format); at++) {
        test_file_flip(&store, "format", at);
        cr_expect_eq(store_read_format(store.directory, &changed), DG_ERR_CORRUPT, "%d", (int)at);
        test_file_flip(&store, "format", at);
    }
    for (int64_t size = 0; size < (int64_t)sizeof(format); size += 9) {
        test_file_resize(&store, "format", size);
        cr_expect_eq(store_read_format(store.directory, &changed), DG_ERR_CORRUPT, "%d", (int)size);
    }
    test_file_remove(&store, "format");
    write_format(&store, &format);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(test_read_all(&store, 7, 0, 0, 0), 3);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(store, journal_of_another_size_is_refused) {
    struct test_store store;
    make_store(&store);
    store.options.journal_size_bytes = 2 * TEST_JOURNAL_BYTES;
    expect_refused(&store, DG_ERR_INVALID, "journal_size");
    store.options.journal_size_bytes = TEST_JOURNAL_BYTES;
    test_file_resize(&store, "journal", TEST_JOURNAL_BYTES - 4096);
    expect_refused(&store, DG_ERR_CORRUPT, "journal");
    test_file_remove(&store, "journal");
    expect_refused(&store, DG_ERR_IO, "journal");
    test_store_remove(&store);
}

Test(store, one_process_has_it) {
    struct test_store store, second;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    second = store;
    expect_refused(&second, DG_ERR_BUSY, "in use");
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "the lock is gone: %s", store.error);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(store, a_wrong_directory_never_becomes_one) {
    struct test_store store;
    test_store_init(&store);
    test_file_write(&store, "somebody's", 0, "text", 4);
    expect_refused(&store, DG_ERR_INVALID, "not a store");
    cr_expect_eq(test_file_size(&store, "journal"), -1);
    test_file_remove(&store, "somebody's");
    store.options.directory = "/proc/no-such-place";
    expect_refused(&store, DG_ERR_IO, "cannot use");
    test_store_remove(&store);
}

Test(store, an_interrupted_creation_is_begun_again) {
    static const char *const left_over[] = {"lock", "journal", "checkpoint", "format.new"};
    struct test_store store;
    test_store_init(&store);
    for (size_t i = 0; i < COUNT_OF(left_over); i++)
        test_file_write(&store, left_over[i], 0, "rubbish", 7);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    append_many(&store, 1, 0, 3, 100);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(test_read_all(&store, 7, 0, 0, 0), 3);
    test_store_close(&store);
    test_store_remove(&store);
}

Test(store, options_are_checked) {
    struct test_store store;
    char *long_path = malloc(8000);
    test_store_init(&store);
    store.options.journal_size_bytes = 4 * 1024 * 1024;
    expect_refused(&store, DG_ERR_INVALID, "5 MiB");
    store.options.journal_size_bytes = TEST_JOURNAL_BYTES;
    store.options.segment_size_bytes = 0;
    expect_refused(&store, DG_ERR_INVALID, "segments a size");
    store.options.segment_size_bytes = 1;
    memset(long_path, 'a', 8000);
    long_path[7999] = '\0';
    store.options.directory = long_path;
    expect_refused(&store, DG_ERR_INVALID, "shorter name");
    free(long_path);
    test_store_remove(&store);
}

struct visited {
    unsigned count;
    uint64_t last_stream;
    uint32_t last_partition;
    int64_t records;
};

static void visit(void *context, uint64_t stream_id, uint32_t partition,
                  const struct stream_offsets *offsets) {
    struct visited *visited = context;
    if (visited->count > 0)
        cr_expect(stream_id > visited->last_stream ||
                  (stream_id == visited->last_stream && partition > visited->last_partition));
    visited->count++;
    visited->last_stream = stream_id;
    visited->last_partition = partition;
    visited->records += offsets->durable_end;
}

Test(store, visits_partitions_that_have_records_in_order) {
    static const struct {
        uint64_t stream_id;
        uint32_t partition;
    } places[] = {{9, 1}, {7, 12}, {7, 3}, {8, 0}, {9, 0}};
    struct test_store store;
    struct stream_offsets offsets;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    stream_offsets(store.stream, 7, 99, &offsets);
    cr_expect(offsets.log_start == 0 && offsets.durable_end == 0 && offsets.size_bytes == 0);
    for (size_t i = 0; i < COUNT_OF(places); i++)
        test_append_each(&store, places[i].stream_id, places[i].partition, 0, i + 1, 10);
    struct visited visited = {0};
    stream_visit_partitions(store.stream, visit, &visited);
    cr_expect_eq(visited.count, COUNT_OF(places));
    cr_expect_eq(visited.records, 1 + 2 + 3 + 4 + 5);
    test_store_close(&store);
    test_store_remove(&store);
}
