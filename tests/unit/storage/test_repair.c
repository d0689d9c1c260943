/* Repair: what it says, what it changes, and that it never loses silently. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "storage/local/format.h"
#include "storage/repair.h"
#include "storage/verify.h"
#include "support.h"

TestSuite(repair, .fini = check_leaks);

enum { STREAM_ID = 7 };

struct told {
    unsigned actions, losses;
    char text[4][512];
};

static void on_action(void *context, bool loses, const char *text) {
    struct told *told = context;
    if (told->actions < COUNT_OF(told->text))
        snprintf(told->text[told->actions], sizeof(told->text[0]), "%s", text);
    told->actions++;
    told->losses += loses;
}

static char error[STORAGE_REPAIR_ERROR_SIZE];

static int repair(const struct test_store *store, bool apply, bool accept_loss,
                  struct told *ret_told) {
    *ret_told = (struct told){0};
    struct storage_repair_options options = {.apply = apply, .accept_loss = accept_loss};
    struct storage_repair_report report = {.action = on_action, .context = ret_told};
    return storage_repair(store->directory, &options, &report, error);
}

static void on_journal(void *context, const struct storage_journal_report *journal) {
}

static void on_partition(void *context, const struct storage_partition_report *partition) {
}

static void on_damage(void *context, const char *path, uint64_t position, const char *what) {
}

static void expect_whole(const struct test_store *store) {
    struct storage_report report = {
        .journal = on_journal, .partition = on_partition, .damage = on_damage};
    cr_expect_eq(storage_verify(store->directory, &report, error), 0, "%s", error);
}

/* Partition 0: segments of four records from 0, 4 and 8 on, twelve in the checkpoint, three more
 * only in the journal; partition 1: three in the checkpoint, partition 2: two in the journal. */
static void make_crashed(struct test_store *ret_crashed) {
    struct test_store store;
    test_store_init(&store);
    store.options.segment_size_bytes = 60000;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_append_each(&store, STREAM_ID, 0, 0, 12, 11000);
    test_append_each(&store, STREAM_ID, 1, 0, 3, 100);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_append_each(&store, STREAM_ID, 0, 12, 15, 100);
    test_append_each(&store, STREAM_ID, 2, 0, 2, 100);
    test_store_copy(&store, ret_crashed);
    test_store_close(&store);
    test_store_remove(&store);
}

static void expect_records(struct test_store *store, uint32_t partition, int64_t from,
                           int64_t count) {
    struct stream_offsets offsets;
    stream_offsets(store->stream, STREAM_ID, partition, &offsets);
    cr_expect_eq(offsets.log_start, from, "partition %u: %ld", partition, offsets.log_start);
    cr_expect_eq(test_read_all(store, STREAM_ID, partition, from, 0), count);
}

/* What there is of the three partitions now, and that it can be written to. */
static void expect_store(struct test_store *store, int64_t from, int64_t count, int32_t epoch) {
    expect_whole(store);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    cr_expect_eq(stream_epoch(store->stream), epoch);
    expect_records(store, 0, from, count);
    expect_records(store, 1, 0, 3);
    test_append_each(store, STREAM_ID, 0, (uint64_t)(from + count), (uint64_t)(from + count) + 2,
                     100);
    expect_records(store, 0, from, count + 2);
    test_store_close(store);
}

Test(repair, a_whole_store_needs_none) {
    struct told told;
    struct test_store store;
    make_crashed(&store);
    uint32_t before = test_store_digest(&store);
    cr_expect_eq(repair(&store, false, false, &told), 0, "%s", error);
    cr_expect_eq(told.actions, 0, "%s", told.text[0]);
    cr_expect_eq(test_store_digest(&store), before);
    cr_expect_eq(repair(&store, true, true, &told), 0, "%s", error);
    expect_store(&store, 0, 15, 0);
    test_store_remove(&store);
}

Test(repair, what_loses_nothing_needs_no_consent) {
    struct told told;
    struct test_store store;
    make_crashed(&store);
    const char *newest = test_segment_name(STREAM_ID, 1, 0);
    test_file_flip(&store, newest, 10);
    test_file_write(&store, "checkpoint.new", 0, "x", 1);
    uint32_t before = test_store_digest(&store);
    cr_expect_eq(repair(&store, false, false, &told), 0, "%s", error);
    cr_expect(told.actions == 2 && told.losses == 0, "%s", told.text[0]);
    cr_expect_not_null(strstr(told.text[0], "written back from the checkpoint"));
    cr_expect_eq(test_store_digest(&store), before, "it was only said");
    cr_expect_eq(repair(&store, true, false, &told), 0, "%s", error);
    cr_expect_eq(test_file_size(&store, "checkpoint.new"), -1);
    expect_store(&store, 0, 15, 0);
    test_store_remove(&store);
}

/* Damage of the file at the position; what is lost is told, only taken with consent, then done. */
static void expect_loss(const char *name, int64_t position, const char *text, int64_t from,
                        int64_t count, int32_t epoch) {
    struct told told;
    struct test_store store;
    make_crashed(&store);
    if (position < 0)
        test_file_remove(&store, name);
    else
        test_file_flip(&store, name, position);
    uint32_t before = test_store_digest(&store);
    for (unsigned apply = 0; apply < 2; apply++) {
        cr_expect_eq(repair(&store, apply > 0, false, &told), DG_ERR_PRECONDITION, "%s", error);
        cr_expect_eq(told.losses, 1);
        cr_expect_not_null(strstr(told.text[0], text), "'%s'", told.text[0]);
        cr_expect_eq(test_store_digest(&store), before, "not without consent");
    }
    cr_expect_eq(repair(&store, false, true, &told), 0, "%s", error);
    cr_expect_eq(test_store_digest(&store), before, "it was only said");
    cr_expect_eq(repair(&store, true, true, &told), 0, "%s", error);
    expect_store(&store, from, count, epoch);
    cr_expect_eq(repair(&store, false, false, &told), 0, "%s", error);
    test_store_remove(&store);
}

Test(repair, damage_in_an_older_segment_moves_the_log_start) {
    expect_loss(test_segment_name(STREAM_ID, 0, 0), 100, "offsets 0 to 4 are lost", 5, 10, 0);
}

Test(repair, a_missing_older_segment_moves_the_log_start) {
    expect_loss(test_segment_name(STREAM_ID, 0, 5), -1, "offsets 0 to 9 are lost", 10, 5, 0);
}

Test(repair, damage_in_the_newest_segment_ends_the_partition) {
    expect_loss(test_segment_name(STREAM_ID, 0, 10), 11200, "offsets 11 to 14 are lost", 0, 11, 1);
}

Test(repair, a_missing_newest_segment_ends_the_partition) {
    expect_loss(test_segment_name(STREAM_ID, 0, 10), -1, "offsets 10 to 14 are lost", 0, 10, 1);
}

Test(repair, consumers_of_what_was_cut_learn_it_by_the_epoch) {
    struct told told;
    int32_t epoch;
    int64_t end;
    struct test_store store;
    make_crashed(&store);
    test_file_flip(&store, test_segment_name(STREAM_ID, 0, 10), 11200);
    cr_assert_eq(repair(&store, true, true, &told), 0, "%s", error);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    static const int64_t ends[] = {11, 3, 2}; /* also of what only the journal had */
    for (uint32_t partition = 0; partition < 3; partition++) {
        cr_assert_eq(stream_epoch_end(store.stream, STREAM_ID, partition, 0, &epoch, &end), 0);
        cr_expect(epoch == 0 && end == ends[partition], "%u: %d %ld", partition, epoch, end);
    }
    test_store_close(&store);
    test_store_remove(&store);
}

Test(repair, a_damaged_journal_ends_before_the_damage) {
    struct told told;
    struct test_store store;
    make_crashed(&store);
    /* groups of one block each: the second of partition 0 behind the checkpoint */
    uint8_t group[8];
    int64_t position = 0, found = 0;
    for (; found < 17; position += FORMAT_BLOCK) {
        test_file_read(&store, "journal", position, group, sizeof(group));
        found += memcmp(group, "DGGROUP1", sizeof(group)) == 0;
    }
    test_file_flip(&store, "journal", position - FORMAT_BLOCK + 80);
    cr_expect_eq(test_store_open(&store), DG_ERR_CORRUPT);
    cr_expect_eq(repair(&store, true, false, &told), DG_ERR_PRECONDITION);
    cr_expect_eq(repair(&store, true, true, &told), 0, "%s", error);
    cr_expect(told.losses == 1 && strstr(told.text[0], "journal"), "%s", told.text[0]);
    expect_store(&store, 0, 13, 1);
    test_store_remove(&store);
}

Test(repair, what_it_cannot_do_it_says) {
    struct told told;
    struct test_store store;
    make_crashed(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_expect_eq(repair(&store, true, true, &told), DG_ERR_BUSY);
    test_store_close(&store);
    test_file_flip(&store, "checkpoint", 100);
    cr_expect_eq(repair(&store, true, true, &told), DG_ERR_CORRUPT);
    cr_expect_not_null(strstr(error, "restore a backup"), "%s", error);
    test_store_remove(&store);
}

/* ---- killed in the middle -----------------------------------------------------------------------
 */

static struct sys_table real;
static unsigned calls_left;

static void count_call(void) {
    if (calls_left-- == 0)
        raise(SIGKILL);
}

static ssize_t counted_pwrite(int fd, const void *data, size_t size, off_t position) {
    count_call();
    return real.pwrite(fd, data, size, position);
}

static int counted_rename(const char *from, const char *to) {
    count_call();
    return real.rename(from, to);
}

static int counted_unlink(const char *path) {
    count_call();
    return real.unlink(path);
}

static int counted_fsync(int fd) {
    count_call();
    return real.fsync(fd);
}

static void repair_counted(void *context) {
    struct told told;
    real = sys;
    sys.pwrite = counted_pwrite;
    sys.rename = counted_rename;
    sys.unlink = counted_unlink;
    sys.fsync = counted_fsync;
    if (repair(context, true, true, &told) < 0)
        _Exit(1);
    _Exit(0);
}

/* Wherever it ends, running it again comes to the same store. */
Test(repair, killed_anywhere_it_can_be_run_again) {
    struct test_store crashed, store;
    struct told told;
    make_crashed(&crashed);
    test_file_flip(&crashed, test_segment_name(STREAM_ID, 0, 0), 100);
    test_file_flip(&crashed, test_segment_name(STREAM_ID, 0, 10), 11200);
    int code = -1;
    unsigned kills = 0;
    for (; code != 0; kills++) {
        test_store_copy(&crashed, &store);
        calls_left = kills;
        code = test_exit_code(repair_counted, &store);
        cr_assert(code == 0 || code == 128 + SIGKILL, "%d", code);
        cr_assert_eq(repair(&store, true, true, &told), 0, "%u: %s", kills, error);
        cr_assert_eq(test_store_open(&store), 0, "%u: %s", kills, store.error);
        cr_assert_geq(stream_epoch(store.stream), 1);
        expect_records(&store, 0, 5, 6);
        expect_records(&store, 1, 0, 3);
        test_store_close(&store);
        expect_whole(&store);
        test_store_remove(&store);
    }
    cr_expect_gt(kills, 10, "%u", kills);
    test_store_remove(&crashed);
}
