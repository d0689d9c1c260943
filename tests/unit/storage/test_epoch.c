/* Epochs: what a history says, its form on disk, and a store whose epoch was raised offline. */
#include <criterion/criterion.h>

#include <string.h>
#include <unistd.h>

#include "storage/local/draft.h"
#include "storage/local/engine.h"
#include "storage/local/store.h"
#include "storage/record.h"
#include "support.h"

TestSuite(epoch, .fini = check_leaks);

static const struct partition_key key = {.stream_id = 7, .number = 3};

static void raise_to(struct epoch_table *table, int32_t epoch, int64_t next_offset) {
    cr_assert_eq(epoch_table_raise(table, &key, epoch, next_offset), 0);
    table->current = epoch;
}

static void expect_end(const struct epoch_table *table, int32_t asked, int32_t epoch, int64_t end) {
    int32_t found;
    int64_t found_end;
    epoch_table_end(table, &key, asked, &found, &found_end);
    cr_expect(found == epoch && found_end == end, "of %d: %d, %ld", asked, found, found_end);
}

Test(epoch, ends_where_the_next_one_begins) {
    struct epoch_table table = {0};
    raise_to(&table, 1, 100);
    raise_to(&table, 5, 150);
    expect_end(&table, 0, 0, 100);
    expect_end(&table, 1, 1, 150);
    expect_end(&table, 4, 1, 150);
    raise_to(&table, 9, 120); /* cut before where 5 began */
    expect_end(&table, 5, 1, 120);
    expect_end(&table, 1, 1, 120);
    expect_end(&table, 0, 0, 100);
    epoch_table_free(&table);
}

Test(epoch, a_partition_that_is_younger_has_nothing_of_the_older_ones) {
    struct epoch_table table = {.current = 4};
    expect_end(&table, 0, 0, 0);
    expect_end(&table, 3, 3, 0);
    raise_to(&table, 6, 80); /* it had begun in 4 */
    expect_end(&table, 3, 0, 0);
    expect_end(&table, 4, 4, 80);
    epoch_table_free(&table);
}

Test(epoch, a_long_history_loses_its_oldest_part) {
    struct epoch_table table = {0};
    for (int32_t epoch = 1; epoch <= EPOCH_HISTORY_MAX + 10; epoch++)
        raise_to(&table, epoch, epoch * 10);
    expect_end(&table, EPOCH_HISTORY_MAX, EPOCH_HISTORY_MAX, (EPOCH_HISTORY_MAX + 1) * 10);
    epoch_table_free(&table);
}

static void load_copy(void *context, struct slice entry_key, struct slice value) {
    cr_assert_eq(epoch_table_load(context, entry_key, value), 0);
}

Test(epoch, is_read_as_it_was_written) {
    struct epoch_table table = {0}, copy = {0};
    raise_to(&table, 2, 100);
    raise_to(&table, 1 << 30, 170);
    epoch_table_visit(&table, load_copy, &copy);
    cr_expect_eq(copy.current, 1 << 30);
    expect_end(&copy, 0, 0, 100);
    expect_end(&copy, 7, 2, 170);
    epoch_table_free(&table);
    epoch_table_free(&copy);
}

Test(epoch, what_is_not_a_history_is_refused) {
    struct epoch_table table = {0};
    uint8_t falling[2 * EPOCH_ENTRY_SIZE] = {5, [EPOCH_ENTRY_SIZE] = 5},
                        place[EPOCH_KEY_SIZE] = {0};
    const struct {
        struct slice key, value;
    } cases[] = {
        {slice_from_string("epoch"), slice_make(falling, 3)},
        {slice_from_string("epoch"), slice_make("\xff\xff\xff\xff", 4)},
        {slice_make(place, sizeof(place)), slice_make(falling, sizeof(falling))},
        {slice_make(place, sizeof(place)), slice_make(falling, 0)},
        {slice_make(place, sizeof(place)), slice_make(falling, 5)},
        {slice_make(place, 3), slice_make(falling, EPOCH_ENTRY_SIZE)},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(epoch_table_load(&table, cases[i].key, cases[i].value), DG_ERR_CORRUPT, "%zu",
                     i);
    epoch_table_free(&table);
}

/* ---- in a store ---------------------------------------------------------------------------------
 */

static void raise_store(const struct test_store *store, int32_t epoch) {
    struct format_store format;
    struct draft draft;
    cr_assert_eq(store_read_format(store->directory, &format), 0);
    cr_assert_eq(draft_load(store->directory, format.secret, &draft), 0);
    cr_assert_eq(draft_raise_epoch(&draft, epoch), 0);
    cr_assert_eq(draft_save(&draft, store->directory, format.secret), 0);
    draft_free(&draft);
}

static void expect_store_end(struct test_store *store, uint32_t partition, int32_t asked, int err,
                             int32_t epoch, int64_t end) {
    int32_t found = -1;
    int64_t found_end = -1;
    cr_expect_eq(stream_epoch_end(store->stream, 7, partition, asked, &found, &found_end), err);
    cr_expect(found == epoch && found_end == end, "of %u in %d: %d, %ld", partition, asked, found,
              found_end);
}

/* The bytes of a batch's header that hold it. */
static uint32_t batch_epoch(struct test_store *store, uint32_t partition, int64_t offset) {
    struct stream_extent extent;
    uint8_t header[16];
    uint32_t epoch;
    cr_assert_eq(stream_read(store->stream, 7, partition, offset, 1, NULL, &extent), 0);
    if (extent.memory)
        memcpy(header, extent.memory, sizeof(header));
    else
        cr_assert_eq(pread(extent.fd, header, sizeof(header), extent.position), sizeof(header));
    stream_extent_release(&extent);
    memcpy(&epoch, header + 12, sizeof(epoch));
    return __builtin_bswap32(epoch);
}

Test(epoch, of_a_store_that_was_raised_stands_in_its_batches_and_histories) {
    struct test_store store;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(stream_epoch(store.stream), 0);
    test_append_each(&store, 7, 0, 0, 10, 100);
    expect_store_end(&store, 0, 0, 0, 0, 10);
    expect_store_end(&store, 0, 1, DG_ERR_NOT_FOUND, -1, -1);
    test_store_close(&store);
    raise_store(&store, 3);
    for (unsigned i = 0; i < 2; i++) { /* also after a checkpoint of its own */
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
        cr_expect_eq(stream_epoch(store.stream), 3);
        expect_store_end(&store, 0, 0, 0, 0, 10);
        expect_store_end(&store, 0, 3, 0, 3, 10 + i);
        expect_store_end(&store, 1, 2, 0, 2, 0); /* not there yet */
        expect_store_end(&store, 0, -1, DG_ERR_NOT_FOUND, -1, -1);
        test_append_each(&store, 7, 0, 10 + i, 11 + i, 100);
        cr_expect_eq(batch_epoch(&store, 0, 9), 0);
        cr_expect_eq(batch_epoch(&store, 0, 10 + i), 3);
        test_store_close(&store);
    }
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(test_read_all(&store, 7, 0, 0, 0), 12);
    test_store_close(&store);
    test_store_remove(&store);
}
