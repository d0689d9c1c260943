/* The checkpoint file: what it says, that nothing broken is believed, that there is always one. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/checkpoint.h"
#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "storage/local/store.h"
#include "support.h"

TestSuite(checkpoint, .fini = check_leaks);

enum { PARTITIONS = 3, STATES = 5 };

static void mutate(struct test_store *store, const char *key, const char *value) {
    cr_assert_eq(
        test_mutate(store, STREAM_STATE_SESSION, slice_from_string(key), slice_from_string(value)),
        0);
}

/* Partitions 0, 10, 20 with 1, 2, 3 records; five state entries. */
static void make_store(struct test_store *store) {
    test_store_init(store);
    cr_assert_eq(test_store_open(store), 0, "%s", store->error);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        test_append_each(store, 7, i * 10, 0, i + 1, 100);
    for (unsigned i = 0; i < STATES; i++) {
        char key[2] = {(char)('a' + i), '\0'};
        mutate(store, key, "value");
    }
    test_store_settle(store);
    cr_assert_eq(test_append(store, 7, 0, 1, 100, 5000), 0);
    test_store_settle(store);
}

static int load(const struct test_store *store, struct checkpoint *ret_checkpoint) {
    struct format_store format;
    cr_assert_eq(store_read_format(store->directory, &format), 0);
    return checkpoint_load(store->directory, format.secret, ret_checkpoint);
}

Test(checkpoint, tells_partitions_and_state) {
    struct test_store store;
    struct checkpoint checkpoint;
    struct format_partition row;
    make_store(&store);
    struct stream *stream = store.stream;
    uint64_t head_lsn = stream->journal.head_lsn;
    uint32_t crc = stream->journal.previous_crc;
    test_store_close(&store);
    cr_assert_eq(load(&store, &checkpoint), 0);
    cr_expect_eq(checkpoint.header.lsn, head_lsn);
    cr_expect_eq(checkpoint.header.previous_crc, crc);
    cr_expect_eq(checkpoint.header.partition_count, PARTITIONS);
    cr_expect_eq(checkpoint.header.state_count, STATES);
    unsigned count = 0;
    for (; checkpoint_next_partition(&checkpoint, &row) == 0; count++) {
        int64_t records = row.partition == 0 ? 2 : row.partition / 10 + 1;
        cr_expect(row.stream_id == 7 && row.log_start == 0 && row.segment_base == 0);
        cr_expect_eq(row.next_offset, records, "partition %u", row.partition);
        cr_expect_eq(row.last_ms, row.partition == 0 ? 5000 : 999 + records);
        int64_t size = test_file_size(&store, test_segment_name(7, row.partition, 0));
        cr_expect(row.segment_position <= size && size - row.segment_position < FORMAT_BLOCK);
    }
    cr_expect_eq(count, PARTITIONS);
    uint64_t lsn;
    struct stream_mutation mutation;
    unsigned seen = 0;
    while (checkpoint_next_state(&checkpoint, &lsn, &mutation) == 0) {
        cr_expect(mutation.name_space == STREAM_STATE_SESSION && !mutation.is_delete &&
                  lsn < head_lsn);
        cr_expect(slice_equals_string(mutation.value, "value"));
        seen |= 1u << (mutation.key.data[0] - 'a');
    }
    cr_expect_eq(seen, (1u << STATES) - 1);
    cr_expect_eq(checkpoint_next_state(&checkpoint, &lsn, &mutation), DG_ERR_NOT_FOUND);
    checkpoint_free(&checkpoint);
    test_store_remove(&store);
}

Test(checkpoint, a_changed_cut_or_longer_file_is_refused) {
    struct test_store store;
    struct checkpoint checkpoint;
    make_store(&store);
    test_store_close(&store);
    int64_t size = test_file_size(&store, "checkpoint");
    cr_assert(size > 0 && size < 4096);
    for (int64_t at = 0; at < size; at++) {
        test_file_flip(&store, "checkpoint", at);
        cr_expect_eq(load(&store, &checkpoint), DG_ERR_CORRUPT, "byte %d", (int)at);
        test_file_flip(&store, "checkpoint", at);
    }
    cr_assert_eq(load(&store, &checkpoint), 0);
    checkpoint_free(&checkpoint);
    test_file_resize(&store, "checkpoint", size + 1);
    cr_expect_eq(load(&store, &checkpoint), DG_ERR_CORRUPT);
    for (int64_t cut = size - 1; cut >= 0; cut--) {
        test_file_resize(&store, "checkpoint", cut);
        cr_expect_eq(load(&store, &checkpoint), DG_ERR_CORRUPT, "%d bytes", (int)cut);
    }
    test_file_remove(&store, "checkpoint");
    cr_expect_eq(load(&store, &checkpoint), DG_ERR_NOT_FOUND);
    test_store_remove(&store);
}

/* With a CRC that holds: what the CRC cannot tell. */
Test(checkpoint, a_header_that_does_not_fit_is_refused) {
    static const struct {
        size_t at;
        uint8_t value;
    } cases[] = {
        {0, 'x'},
        {offsetof(struct format_checkpoint, version), FORMAT_VERSION + 1},
        {offsetof(struct format_checkpoint, secret), 0},
        {offsetof(struct format_checkpoint, total_bytes) + 4, 1},
        {offsetof(struct format_checkpoint, partition_count) + 3, 1},
    };
    struct test_store store;
    struct checkpoint checkpoint;
    uint8_t bytes[4096];
    make_store(&store);
    test_store_close(&store);
    size_t size = (size_t)test_file_size(&store, "checkpoint");
    cr_assert(size < sizeof(bytes));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        test_file_read(&store, "checkpoint", 0, bytes, size);
        uint8_t before = bytes[cases[i].at];
        bytes[cases[i].at] = before == cases[i].value ? before ^ 1 : cases[i].value;
        uint32_t crc = crc32c_update(0, bytes, size - 4);
        memcpy(bytes + size - 4, &crc, sizeof(crc));
        test_file_write(&store, "checkpoint", 0, bytes, size);
        cr_expect_eq(load(&store, &checkpoint), DG_ERR_CORRUPT, "case %zu", i);
        bytes[cases[i].at] = before;
        crc = crc32c_update(0, bytes, size - 4);
        memcpy(bytes + size - 4, &crc, sizeof(crc));
        test_file_write(&store, "checkpoint", 0, bytes, size);
    }
    cr_assert_eq(load(&store, &checkpoint), 0);
    checkpoint_free(&checkpoint);
    test_store_remove(&store);
}

static int failing;

static int failing_rename(const char *from, const char *to) {
    errno = failing;
    return -1;
}

static void take(void *context) {
    struct test_store *store = context;
    if (test_store_open(store) < 0)
        _exit(1);
    sys.rename = failing_rename;
    int err = checkpoint_take(store->stream);
    _exit(err == DG_ERR_STORAGE_FULL ? 100 : 101);
}

Test(checkpoint, without_room_the_old_one_stays) {
    struct test_store store;
    make_store(&store);
    struct stream *stream = store.stream;
    uint64_t tail = atomic_load(&stream->journal.tail_lsn);
    cr_assert_neq(stream->journal.head_lsn, tail);
    struct sys_table real = sys;
    failing = ENOSPC;
    sys.rename = failing_rename;
    cr_expect_eq(checkpoint_take(stream), DG_ERR_STORAGE_FULL);
    cr_expect_eq(atomic_load(&stream->journal.tail_lsn), tail, "the journal is not freed");
    struct checkpoint checkpoint;
    cr_assert_eq(load(&store, &checkpoint), 0);
    cr_expect_eq(checkpoint.header.lsn, tail);
    checkpoint_free(&checkpoint);
    sys = real;
    cr_expect_eq(checkpoint_take(stream), 0);
    cr_expect_eq(atomic_load(&stream->journal.tail_lsn), stream->journal.head_lsn);
    test_store_close(&store);
    cr_expect_eq(test_exit_code(take, &store), 100);
    failing = EIO;
    cr_expect_eq(test_exit_code(take, &store), DG_EXIT_STORAGE);
    test_store_remove(&store);
}

static struct stream *opened;
static bool synced_after_placing;
static int (*real_rename)(const char *from, const char *to);

/* The order of work: what the checkpoint covers is in the segments, and synced, before it counts.
 */
static int checking_rename(const char *from, const char *to) {
    struct partition *partition = partition_find(&opened->partitions, 7, 0);
    synced_after_placing = tail_unplaced(&partition->tail) == NULL && opened->files.dirty == NULL;
    return real_rename(from, to);
}

Test(checkpoint, comes_after_the_segments) {
    struct test_store store;
    make_store(&store);
    opened = store.stream;
    real_rename = sys.rename;
    sys.rename = checking_rename;
    cr_assert_eq(checkpoint_take(store.stream), 0);
    cr_expect(synced_after_placing);
    sys.rename = real_rename;
    test_store_close(&store);
    test_store_remove(&store);
}
