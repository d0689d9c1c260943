/* The ring of commit groups: what is valid, what is torn, what is media damage. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/journal.h"
#include "storage/local/segment.h"
#include "support.h"

TestSuite(journal, .fini = check_leaks);

enum { RING_BYTES = 64 * 1024, GROUP_MAX = RING_BYTES / 4 };

static const uint8_t secret[FORMAT_SECRET_SIZE] = "a store's secret";
static struct test_store store; /* its directory only */
static struct journal journal;

static void open_journal(void) {
    cr_assert_eq(journal_open(&journal, store.directory, RING_BYTES, secret), 0);
}

static void make_journal(void) {
    test_store_init(&store);
    cr_assert_eq(journal_create(store.directory, RING_BYTES), 0);
    open_journal();
}

static void end_journal(void) {
    journal_close(&journal);
    test_store_remove(&store);
}

/* A group of so many blocks, with one unit whose payload tells its number. Returns its LSN. */
static uint64_t write_group(uint8_t number, uint32_t blocks) {
    static uint8_t payload[GROUP_MAX];
    memset(payload, number, sizeof(payload));
    struct unit unit = {
        .stream_id = number,
        .mutations = payload,
        .mutation_count = 1,
        .mutation_bytes = blocks * FORMAT_BLOCK -
                          (uint32_t)(sizeof(struct format_group) + sizeof(struct format_unit)),
    };
    journal_begin(&journal);
    journal_add(&journal, &unit);
    cr_assert_eq(journal_group_bytes(&journal), blocks * FORMAT_BLOCK);
    cr_assert(journal_has_room(&journal, blocks * FORMAT_BLOCK));
    return journal_write(&journal, 1000 + number);
}

/* Reads from (lsn, crc) on; *lsn and *crc are then those behind the last valid group. */
static unsigned read_groups(uint64_t *lsn, uint32_t *crc, uint8_t first_number) {
    struct journal_group group;
    unsigned count = 0;
    while (journal_read(&journal, *lsn, *crc, &group) == 0) {
        struct format_unit unit;
        cr_assert(group.lsn >= *lsn && group.unit_count == 1);
        memcpy(&unit, group.payload.data, sizeof(unit));
        cr_expect_eq(unit.stream_id, first_number + count);
        cr_expect_eq(group.payload.data[group.payload.size - 1], first_number + count);
        cr_expect_eq(group.wall_ms, 1000u + first_number + count);
        *lsn = group.next_lsn;
        *crc = group.crc;
        count++;
    }
    return count;
}

static unsigned count_groups(void) {
    uint64_t lsn = 0;
    uint32_t crc = 0;
    return read_groups(&lsn, &crc, 0);
}

static int find_later(uint64_t lsn, uint64_t expected) {
    uint64_t found = UINT64_MAX;
    int err = journal_find_later(&journal, lsn, &found);
    if (err == 0)
        cr_expect_eq(found, expected, "%llu", (unsigned long long)found);
    return err;
}

Test(journal, groups_come_back_in_order) {
    make_journal();
    cr_expect_eq(count_groups(), 0);
    cr_expect_eq(find_later(0, 0), DG_ERR_NOT_FOUND);
    cr_expect_eq(write_group(0, 1), 0);
    cr_expect_eq(write_group(1, 3), FORMAT_BLOCK);
    cr_expect_eq(write_group(2, 1), 4 * FORMAT_BLOCK);
    cr_expect_eq(journal.head_lsn, 5 * FORMAT_BLOCK);
    journal_close(&journal);
    open_journal();
    uint64_t lsn = 0;
    uint32_t crc = 0;
    cr_expect_eq(read_groups(&lsn, &crc, 0), 3);
    cr_expect_eq(lsn, 5 * FORMAT_BLOCK);
    end_journal();
}

static uint8_t file_byte_at_end_of_group(uint32_t blocks) {
    uint8_t byte;
    test_file_read(&store, "journal", blocks * FORMAT_BLOCK - 1, &byte, 1);
    return byte;
}

/* Batches, their CRC combined and not read again; several units; padding of the last block. */
Test(journal, units_lie_one_behind_the_other) {
    struct chunk_pool pool;
    struct batch batch = {0};
    struct segment segment = {.base_offset = 40, .created_ms = 9};
    make_journal();
    chunk_pool_init(&pool);
    struct stream_record record = {.timestamp_ms = 5, .value = slice_from_string("value")};
    cr_assert_eq(batch_append(&batch, &pool, 0, &record), 0);
    batch_seal(&batch);
    batch_place(&batch, 42, 7, 0); /* the header changes after the body's CRC was made */
    uint8_t mutations[] = "mutations";
    struct unit both = {.stream_id = 1,
                        .partition_number = 2,
                        .batch = batch,
                        .segment = &segment,
                        .position = 99,
                        .mutations = mutations,
                        .mutation_count = 1,
                        .mutation_bytes = sizeof(mutations)};
    struct unit none = {
        .stream_id = 3, .mutations = mutations, .mutation_count = 1, .mutation_bytes = 1};
    journal_begin(&journal);
    journal_add(&journal, &both);
    journal_add(&journal, &none);
    memset(journal.buffer + journal.filled_bytes, 0xff, FORMAT_BLOCK); /* of an earlier group */
    journal_write(&journal, 1);
    cr_expect_eq(file_byte_at_end_of_group(1), 0);
    struct journal_group group;
    cr_assert_eq(journal_read(&journal, 0, 0, &group), 0);
    cr_expect_eq(group.unit_count, 2);
    cr_expect_eq(group.payload.size, unit_bytes(&both) + unit_bytes(&none));
    struct format_unit header;
    memcpy(&header, group.payload.data, sizeof(header));
    cr_expect(header.stream_id == 1 && header.partition == 2 && header.segment_base == 40 &&
              header.segment_position == 99 && header.record_count == 1 &&
              header.batch_bytes == batch.size_bytes && header.segment_created_ms == 9);
    cr_expect_eq(memcmp(group.payload.data + sizeof(header), batch.chunk->data, batch.size_bytes),
                 0);
    memcpy(&header, group.payload.data + unit_bytes(&both), sizeof(header));
    cr_expect(header.stream_id == 3 && header.batch_bytes == 0 && header.segment_base == -1 &&
              header.mutation_bytes == 1);
    chunk_release(batch.chunk);
    chunk_pool_free(&pool);
    end_journal();
}

Test(journal, a_group_takes_no_more_than_a_quarter_of_the_ring) {
    static uint8_t bytes[GROUP_MAX];
    make_journal();
    cr_expect_eq(journal_group_max(&journal), GROUP_MAX);
    uint32_t fits =
        GROUP_MAX - (uint32_t)(sizeof(struct format_group) + sizeof(struct format_unit));
    struct unit unit = {.mutations = bytes, .mutation_count = 1, .mutation_bytes = fits + 1};
    journal_begin(&journal);
    cr_expect_not(journal_fits(&journal, &unit));
    unit.mutation_bytes = fits;
    cr_expect(journal_fits(&journal, &unit));
    journal_add(&journal, &unit);
    cr_expect_eq(journal.unit_count, 1);
    end_journal();
}

/* Any changed byte makes the group invalid, but for the zeros behind the payload. */
Test(journal, a_changed_byte_makes_a_group_invalid) {
    make_journal();
    write_group(0, 1);
    write_group(1, 1);
    uint32_t used = FORMAT_BLOCK + 200; /* header, unit and some of the payload of group 1 */
    for (uint32_t at = FORMAT_BLOCK; at < used; at++) {
        test_file_flip(&store, "journal", at);
        cr_expect_eq(count_groups(), 1, "byte %u", at - FORMAT_BLOCK);
        test_file_flip(&store, "journal", at);
    }
    cr_expect_eq(count_groups(), 2);
    end_journal();
}

Test(journal, a_group_belongs_to_its_place_and_its_predecessor) {
    struct journal_group group;
    make_journal();
    write_group(0, 1);
    uint32_t crc = journal.previous_crc;
    write_group(1, 1);
    cr_expect_eq(journal_read(&journal, FORMAT_BLOCK, crc, &group), 0);
    cr_expect_eq(journal_read(&journal, FORMAT_BLOCK, crc ^ 1, &group), DG_ERR_NOT_FOUND);
    cr_expect_eq(journal_read(&journal, FORMAT_BLOCK, 0, &group), DG_ERR_NOT_FOUND);
    cr_expect_eq(journal_read(&journal, FORMAT_BLOCK + RING_BYTES, crc, &group), DG_ERR_NOT_FOUND,
                 "of the lap before");
    uint8_t block[FORMAT_BLOCK]; /* a block that lies where another should */
    test_file_read(&store, "journal", FORMAT_BLOCK, block, sizeof(block));
    test_file_write(&store, "journal", 5 * FORMAT_BLOCK, block, sizeof(block));
    cr_expect_eq(journal_read(&journal, 5 * FORMAT_BLOCK, crc, &group), DG_ERR_NOT_FOUND);
    cr_expect_eq(find_later(2 * FORMAT_BLOCK, 0), DG_ERR_NOT_FOUND);
    end_journal();
}

Test(journal, groups_of_another_store_are_none) {
    static const uint8_t other[FORMAT_SECRET_SIZE] = "another store's";
    make_journal();
    write_group(0, 1);
    write_group(1, 1);
    journal_close(&journal);
    cr_assert_eq(journal_open(&journal, store.directory, RING_BYTES, other), 0);
    cr_expect_eq(count_groups(), 0);
    cr_expect_eq(find_later(0, 0), DG_ERR_NOT_FOUND);
    end_journal();
}

/* A payload that holds a whole group, on a block of its own, is not found unless it knows the
 * secret. */
Test(journal, a_payload_cannot_look_like_a_group) {
    static const uint8_t guess[FORMAT_SECRET_SIZE] = "a stores' secret";
    for (unsigned knows = 0; knows < 2; knows++) {
        make_journal();
        memcpy(journal.secret, knows ? secret : guess, FORMAT_SECRET_SIZE);
        journal.head_lsn = 9 * FORMAT_BLOCK;
        write_group(9, 1); /* at block 9: the forged one */
        memcpy(journal.secret, secret, FORMAT_SECRET_SIZE);
        journal.head_lsn = 0;
        journal.previous_crc = 0;
        write_group(0, 1);
        cr_expect_eq(find_later(FORMAT_BLOCK, 9 * FORMAT_BLOCK), knows ? 0 : DG_ERR_NOT_FOUND);
        end_journal();
    }
}

/* Three blocks each: the sixth would not fit before the end of the ring of 16. */
Test(journal, a_group_that_does_not_fit_begins_at_the_start) {
    make_journal();
    for (uint8_t number = 0; number < 5; number++)
        cr_assert_eq(write_group(number, 3), number * 3 * FORMAT_BLOCK);
    uint64_t lsn = 3 * FORMAT_BLOCK;
    uint32_t crc = 0;
    struct journal_group group;
    cr_assert_eq(journal_read(&journal, 0, 0, &group), 0);
    crc = group.crc;
    cr_expect_not(journal_has_room(&journal, 3 * FORMAT_BLOCK));
    cr_expect(journal_has_room(&journal, FORMAT_BLOCK));
    atomic_store(&journal.tail_lsn, lsn);
    cr_expect(journal_has_room(&journal, 3 * FORMAT_BLOCK));
    cr_expect_not(journal_has_room(&journal, 4 * FORMAT_BLOCK));
    cr_expect_eq(write_group(5, 3), RING_BYTES);
    cr_expect_eq(read_groups(&lsn, &crc, 1), 5);
    cr_expect_eq(lsn, RING_BYTES + 3 * FORMAT_BLOCK);
    end_journal();
}

Test(journal, a_group_may_end_where_the_ring_ends) {
    make_journal();
    for (uint8_t number = 0; number < 4; number++)
        write_group(number, 4);
    cr_expect_eq(journal.head_lsn, RING_BYTES);
    cr_expect_not(journal_has_room(&journal, FORMAT_BLOCK), "full to the last block");
    cr_expect_eq(count_groups(), 4);
    atomic_store(&journal.tail_lsn, RING_BYTES);
    uint32_t crc = journal.previous_crc;
    cr_expect_eq(write_group(4, 2), RING_BYTES);
    uint64_t lsn = RING_BYTES;
    cr_expect_eq(read_groups(&lsn, &crc, 4), 1);
    end_journal();
}

Test(journal, a_valid_group_behind_an_invalid_one_is_media_damage) {
    make_journal();
    for (uint8_t number = 0; number < 4; number++)
        write_group(number, 2);
    test_file_flip(&store, "journal", 2 * FORMAT_BLOCK + 5000); /* of group 1 */
    uint64_t lsn = 0;
    uint32_t crc = 0;
    cr_expect_eq(read_groups(&lsn, &crc, 0), 1);
    cr_expect_eq(find_later(lsn, 4 * FORMAT_BLOCK), 0);
    test_file_flip(&store, "journal", 2 * FORMAT_BLOCK + 5000);
    test_file_flip(&store, "journal", 6 * FORMAT_BLOCK + 5000); /* of the last one: torn */
    lsn = crc = 0;
    cr_expect_eq(read_groups(&lsn, &crc, 0), 3);
    cr_expect_eq(find_later(lsn, 0), DG_ERR_NOT_FOUND);
    end_journal();
}

/* The damaged one is the last before the ring's end, the later one at its start. */
Test(journal, later_groups_are_found_behind_the_wrap_and_older_laps_are_not) {
    make_journal();
    for (uint8_t number = 0; number < 5; number++)
        write_group(number, 3);
    atomic_store(&journal.tail_lsn, 12 * FORMAT_BLOCK);
    uint32_t crc = journal.previous_crc;
    write_group(5, 3); /* at the ring's start */
    uint64_t lsn = 15 * FORMAT_BLOCK;
    cr_expect_eq(read_groups(&lsn, &crc, 5), 1);
    cr_expect_eq(find_later(RING_BYTES + 3 * FORMAT_BLOCK, 0), DG_ERR_NOT_FOUND,
                 "what lies there is of the lap before");
    test_file_flip(&store, "journal", 12 * FORMAT_BLOCK + 100);
    cr_expect_eq(find_later(12 * FORMAT_BLOCK, RING_BYTES), 0);
    end_journal();
}

Test(journal, clearing_reaches_both_places_where_a_torn_group_may_be) {
    static const uint64_t ends[] = {3 * FORMAT_BLOCK, RING_BYTES - FORMAT_BLOCK};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        uint8_t bytes[RING_BYTES];
        make_journal();
        memset(bytes, 0xee, sizeof(bytes));
        test_file_write(&store, "journal", 0, bytes, sizeof(bytes));
        journal_close(&journal);
        open_journal();
        atomic_store(&journal.tail_lsn, ends[i]); /* all of it is free */
        cr_assert_eq(journal_clear_after(&journal, ends[i]), 0);
        test_file_read(&store, "journal", 0, bytes, sizeof(bytes));
        for (uint32_t at = 0; at < RING_BYTES; at++) {
            bool in_place = at >= ends[i] && at < ends[i] + GROUP_MAX;
            bool at_start = ends[i] + GROUP_MAX > RING_BYTES && at < GROUP_MAX;
            cr_assert_eq(bytes[at], in_place || at_start ? 0 : 0xee, "%zu: %u", i, at);
        }
        end_journal();
    }
}

Test(journal, a_file_of_another_size_is_refused) {
    make_journal();
    journal_close(&journal);
    for (int64_t size = RING_BYTES - FORMAT_BLOCK; size <= RING_BYTES + FORMAT_BLOCK;
         size += 2 * FORMAT_BLOCK) {
        test_file_resize(&store, "journal", size);
        cr_expect_eq(journal_open(&journal, store.directory, RING_BYTES, secret), DG_ERR_CORRUPT);
        journal_close(&journal);
    }
    test_file_remove(&store, "journal");
    cr_expect_eq(journal_open(&journal, store.directory, RING_BYTES, secret), DG_ERR_IO);
    end_journal();
}

/* ---- failing calls ------------------------------------------------------------------------------
 */

static struct sys_table real;
static unsigned syncs;

static int open_without_direct(const char *path, int flags, mode_t mode) {
    if (flags & O_DIRECT) {
        errno = EINVAL;
        return -1;
    }
    return real.open(path, flags, mode);
}

static int counting_fdatasync(int fd) {
    syncs++;
    return real.fdatasync(fd);
}

static int failing_fdatasync(int fd) {
    errno = EIO;
    return -1;
}

static ssize_t failing_pwrite(int fd, const void *data, size_t size, off_t position) {
    errno = ENOSPC; /* cannot be: but also this is not tried again */
    return -1;
}

Test(journal, without_direct_writes_a_group_is_synced_before_it_counts) {
    real = sys;
    sys.open = open_without_direct;
    sys.fdatasync = counting_fdatasync;
    make_journal();
    cr_expect_not(journal.direct);
    syncs = 0;
    write_group(0, 1);
    write_group(1, 2);
    cr_expect_eq(syncs, 2);
    cr_expect_eq(count_groups(), 2);
    cr_expect_eq(journal_clear_after(&journal, 0), 0);
    cr_expect_eq(syncs, 3);
    end_journal();
}

static void write_one(void *context) {
    write_group(0, 1);
}

Test(journal, a_failed_write_or_sync_ends_the_process) {
    real = sys;
    sys.open = open_without_direct;
    make_journal();
    sys.fdatasync = failing_fdatasync;
    cr_expect_eq(test_exit_code(write_one, NULL), DG_EXIT_STORAGE);
    sys.fdatasync = real.fdatasync;
    sys.pwrite = failing_pwrite;
    cr_expect_eq(test_exit_code(write_one, NULL), DG_EXIT_STORAGE);
    sys = real;
    cr_expect_eq(test_exit_code(write_one, NULL), 0);
    end_journal();
}
