/* Verification: a whole store is found whole, each kind of damage is named; dumping. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/local/format.h"
#include "storage/verify.h"
#include "support.h"

TestSuite(verify, .fini = check_leaks);

enum { STREAM_ID = 7 };

struct seen {
    struct storage_journal_report journal;
    struct storage_partition_report partitions[4];
    unsigned partition_count;
    unsigned damage_count;
    char path[512]; /* of the first damage */
    uint64_t position;
    char what[128];
};

static void on_journal(void *context, const struct storage_journal_report *journal) {
    ((struct seen *)context)->journal = *journal;
}

static void on_partition(void *context, const struct storage_partition_report *partition) {
    struct seen *seen = context;
    cr_assert(seen->partition_count < COUNT_OF(seen->partitions));
    seen->partitions[seen->partition_count++] = *partition;
}

static void on_damage(void *context, const char *path, uint64_t position, const char *what) {
    struct seen *seen = context;
    if (seen->damage_count++ > 0)
        return;
    snprintf(seen->path, sizeof(seen->path), "%s", path);
    snprintf(seen->what, sizeof(seen->what), "%s", what);
    seen->position = position;
}

static char error[STORAGE_ERROR_SIZE];

static int verify(const struct test_store *store, struct seen *ret_seen) {
    *ret_seen = (struct seen){0};
    struct storage_report report = {
        .journal = on_journal, .partition = on_partition, .damage = on_damage, .context = ret_seen};
    return storage_verify(store->directory, &report, error);
}

/* Partition 0: three segments of four records; partition 2: three records in a checkpoint, two only
 * in the journal of the copy that a crash would have left. */
static void make_stores(struct test_store *ret_closed, struct test_store *ret_crashed) {
    test_store_init(ret_closed);
    ret_closed->options.segment_size_bytes = 50000;
    cr_assert_eq(test_store_open(ret_closed), 0, "%s", ret_closed->error);
    test_append_each(ret_closed, STREAM_ID, 0, 0, 12, 11000);
    test_append_each(ret_closed, STREAM_ID, 2, 0, 3, 100);
    test_store_close(ret_closed);
    cr_assert_eq(test_store_open(ret_closed), 0, "%s", ret_closed->error);
    test_append_each(ret_closed, STREAM_ID, 2, 3, 5, 100);
    test_append_each(ret_closed, STREAM_ID, 3, 0, 1, 100);
    test_store_copy(ret_closed, ret_crashed);
    test_store_close(ret_closed);
}

static void remove_stores(struct test_store *closed, struct test_store *crashed) {
    test_store_remove(closed);
    test_store_remove(crashed);
}

Test(verify, a_whole_store_is_whole_and_stays_as_it_is) {
    struct test_store closed, crashed;
    struct seen seen;
    make_stores(&closed, &crashed);
    for (unsigned i = 0; i < 2; i++) {
        struct test_store *store = i == 0 ? &closed : &crashed;
        uint32_t before = test_store_digest(store);
        cr_expect_eq(verify(store, &seen), 0, "%s: %s", seen.path, seen.what);
        cr_expect_eq(test_store_digest(store), before);
        cr_assert_eq(seen.partition_count, 3);
        static const int64_t ends[] = {12, 5, 1};
        for (unsigned p = 0; p < 3; p++) {
            cr_expect_eq(seen.partitions[p].end, ends[p]);
            cr_expect_eq(seen.partitions[p].record_count + seen.partitions[p].journal_record_count,
                         ends[p]);
        }
        cr_expect_eq(seen.partitions[0].segment_count, 3);
        cr_expect_eq(seen.partitions[0].batch_count, 12);
        cr_expect(seen.partitions[0].size_bytes > 12 * 11000);
        cr_expect_eq(seen.partitions[1].journal_record_count, i == 0 ? 0 : 2);
        cr_expect_eq(seen.journal.group_count, i == 0 ? 0 : 3);
        cr_expect_eq(seen.journal.end_lsn - seen.journal.checkpoint_lsn,
                     seen.journal.group_count * FORMAT_BLOCK);
        cr_expect_eq(seen.journal.size_bytes, TEST_JOURNAL_BYTES);
    }
    remove_stores(&closed, &crashed);
}

/* The power failed while the newest segment's last block was written again: the checkpoint has it.
 * A byte before that block is damage all the same. */
Test(verify, a_torn_last_block_is_no_damage) {
    struct test_store closed, crashed;
    struct seen seen;
    make_stores(&closed, &crashed);
    const char *name = test_segment_name(STREAM_ID, 0, 8);
    int64_t end = test_file_size(&closed, name);
    cr_assert(end % FORMAT_BLOCK == 0 && end > 2 * FORMAT_BLOCK, "whole blocks while it grows");
    test_file_flip(&closed, name, end - 1);
    test_file_flip(&closed, name, end - FORMAT_BLOCK);
    cr_expect_eq(verify(&closed, &seen), 0, "%s: %s", seen.path, seen.what);
    cr_expect_eq(seen.partitions[0].record_count, 12);
    test_file_flip(&closed, name, end - FORMAT_BLOCK - 1);
    cr_expect_eq(verify(&closed, &seen), DG_ERR_CORRUPT);
    remove_stores(&closed, &crashed);
}

/* ---- damage -------------------------------------------------------------------------------------
 */

static void expect_damage(const struct test_store *store, const char *path, const char *what) {
    struct seen seen;
    cr_expect_eq(verify(store, &seen), DG_ERR_CORRUPT, "%s", what);
    cr_expect(seen.damage_count > 0, "%s: nothing reported", what);
    cr_expect_not_null(strstr(seen.path, path), "%s is not %s", seen.path, path);
    cr_expect_not_null(strstr(seen.what, what), "'%s' is not '%s'", seen.what, what);
}

static void expect_whole(const struct test_store *store) {
    struct seen seen;
    cr_assert_eq(verify(store, &seen), 0, "%s: %s", seen.path, seen.what);
}

static void flip_and_expect(const struct test_store *store, const char *name, int64_t position,
                            const char *what) {
    test_file_flip(store, name, position);
    expect_damage(store, name, what);
    test_file_flip(store, name, position);
    expect_whole(store);
}

Test(verify, damage_in_segments_is_named) {
    struct test_store store, crashed;
    make_stores(&store, &crashed);
    char name[128], bytes[50000];
    snprintf(name, sizeof(name), "%s", test_segment_name(STREAM_ID, 0, 4));
    int64_t size = test_file_size(&store, name);
    for (int64_t at = 8; at < size; at += 7919)
        flip_and_expect(&store, name, at, "the batch is not valid");
    flip_and_expect(&store, name, 7, "does not follow the one before"); /* base offset */
    test_file_read(&store, name, 0, bytes, (size_t)size);
    test_file_resize(&store, name, size - 1);
    expect_damage(&store, name, "the batch is not valid");
    test_file_resize(&store, name, size / 4); /* whole batches: less records */
    expect_damage(&store, test_segment_name(STREAM_ID, 0, 8), "does not follow the one before");
    test_file_write(&store, name, 0, bytes, (size_t)size);
    test_file_write(&store, name, size, "more", 4);
    expect_damage(&store, name, "the batch is not valid");
    test_file_remove(&store, name);
    expect_damage(&store, test_segment_name(STREAM_ID, 0, 8), "does not follow the one before");
    test_file_write(&store, name, 0, bytes, (size_t)size);
    expect_whole(&store);
    test_file_remove(&store, test_segment_name(STREAM_ID, 0, 8)); /* the newest */
    expect_damage(&store, "7/0", "do not end where the checkpoint says");
    remove_stores(&store, &crashed);
}

/* Nothing before it could tell: the log start does. */
Test(verify, a_missing_oldest_segment_is_named) {
    struct test_store store, crashed;
    make_stores(&store, &crashed);
    test_file_remove(&store, test_segment_name(STREAM_ID, 0, 0));
    expect_damage(&store, "7/0", "the log start is in no segment");
    remove_stores(&store, &crashed);
}

Test(verify, a_missing_partition_is_named) {
    struct test_store store, crashed;
    char from[512], to[512];
    make_stores(&store, &crashed);
    snprintf(from, sizeof(from), "%s/7/2", store.directory);
    snprintf(to, sizeof(to), "%s/7/gone", store.directory);
    cr_assert_eq(rename(from, to), 0);
    expect_damage(&store, "7/2", "the directory cannot be read");
    remove_stores(&store, &crashed);
}

Test(verify, damage_in_the_journal_is_named) {
    struct test_store closed, store;
    struct seen seen;
    make_stores(&closed, &store);
    cr_assert_eq(verify(&store, &seen), 0);
    int64_t at = (int64_t)(seen.journal.checkpoint_lsn % TEST_JOURNAL_BYTES);
    flip_and_expect(&store, "journal", at + 150, "is not valid, but a later one is");
    flip_and_expect(&store, "journal", at + FORMAT_BLOCK + 150, "is not valid, but a later one is");
    test_file_flip(&store, "journal", at + 2 * FORMAT_BLOCK + 150); /* torn: recovery clears it */
    cr_assert_eq(verify(&store, &seen), 0);
    cr_expect_eq(seen.journal.group_count, 2);
    cr_expect_eq(seen.partition_count, 2);
    remove_stores(&closed, &store);
}

Test(verify, without_format_or_checkpoint_it_says_so) {
    static const struct {
        const char *name;
        int64_t position;
        int err;
    } cases[] = {
        {"format", 20, DG_ERR_CORRUPT},
        {"format", 8, DG_ERR_UNSUPPORTED_VERSION},
        {"checkpoint", 70, DG_ERR_CORRUPT},
    };
    struct test_store store, crashed;
    struct seen seen;
    make_stores(&store, &crashed);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_file_flip(&store, cases[i].name, cases[i].position);
        cr_expect_eq(verify(&store, &seen), cases[i].err, "case %zu", i);
        cr_expect_not_null(strstr(error, cases[i].name), "%s", error);
        test_file_flip(&store, cases[i].name, cases[i].position);
    }
    test_file_resize(&store, "journal", TEST_JOURNAL_BYTES - FORMAT_BLOCK);
    cr_expect_eq(verify(&store, &seen), DG_ERR_CORRUPT, "it would not be opened");
    cr_expect_not_null(strstr(error, "journal"), "%s", error);
    test_file_remove(&store, "journal");
    cr_expect_eq(verify(&store, &seen), DG_ERR_IO);
    cr_expect_not_null(strstr(error, "journal"), "%s", error);
    test_file_remove(&store, "checkpoint");
    cr_expect_eq(verify(&store, &seen), DG_ERR_NOT_FOUND);
    remove_stores(&store, &crashed);
}

/* ---- dump ---------------------------------------------------------------------------------------
 */

struct dumped {
    unsigned count;
    uint64_t offsets; /* sum */
    uint32_t partitions;
};

static void on_record(void *context, uint64_t stream_id, uint32_t partition,
                      const struct record *record) {
    struct dumped *dumped = context;
    cr_expect_eq(stream_id, STREAM_ID);
    uint64_t number;
    memcpy(&number, record->value.data, sizeof(number));
    cr_expect_eq(number, record->offset);
    dumped->count++;
    dumped->offsets += (uint64_t)record->offset;
    dumped->partitions |= 1u << partition;
}

Test(verify, dump_lets_through_what_the_filter_says) {
    static const struct {
        struct storage_dump_filter filter;
        unsigned count;
        uint64_t offsets;
        uint32_t partitions;
    } cases[] = {
        {{0}, 18, 66 + 10, 1 | 4 | 8},
        {{.has_stream = true, .stream_id = STREAM_ID}, 18, 76, 1 | 4 | 8},
        {{.has_stream = true, .stream_id = 8}, 0, 0, 0},
        {{.has_partition = true, .partition = 2}, 5, 10, 4},
        {{.limit = 4}, 4, 6, 1},
        {{.has_partition = true, .partition = 2, .limit = 4}, 4, 6, 4},
        {{.limit = 13}, 13, 66, 1 | 4},
    };
    struct test_store closed, crashed;
    make_stores(&closed, &crashed);
    for (unsigned s = 0; s < 2; s++)
        for (size_t i = 0; i < COUNT_OF(cases); i++) {
            struct dumped dumped = {0};
            cr_expect_eq(storage_dump(s == 0 ? closed.directory : crashed.directory,
                                      &cases[i].filter, on_record, &dumped, error),
                         0, "case %zu: %s", i, error);
            cr_expect(dumped.count == cases[i].count && dumped.offsets == cases[i].offsets &&
                          dumped.partitions == cases[i].partitions,
                      "store %u case %zu: %u records, sum %d, partitions %x", s, i, dumped.count,
                      (int)dumped.offsets, dumped.partitions);
        }
    remove_stores(&closed, &crashed);
}

Test(verify, dump_passes_over_damage_and_says_so) {
    struct test_store store, crashed;
    struct storage_dump_filter filter = {0};
    struct dumped dumped = {0};
    make_stores(&store, &crashed);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 4), 100);
    cr_expect_eq(storage_dump(store.directory, &filter, on_record, &dumped, error), DG_ERR_CORRUPT);
    cr_expect_eq(dumped.count, 18 - 1, "%u", dumped.count); /* to the next good batch */
    remove_stores(&store, &crashed);
}
