/* The engine as its users see it: append, read, reopen, limits. */
#include <criterion/criterion.h>

#include "support.h"

TestSuite(store);

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
