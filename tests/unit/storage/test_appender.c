/* Appenders: what is taken, what is refused at once, when to go on. */
#include <criterion/criterion.h>

#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "storage/record.h"
#include "support.h"

TestSuite(appender, .fini = check_leaks);

enum { STREAM_ID = 7 };

static struct test_store store;

static void open_store(void) {
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

static void close_store(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

Test(appender, refuses_what_can_never_be_stored) {
    open_store();
    struct stream_record record = {.timestamp_ms = 1, .key = slice_from_string("k")};
    uint64_t overhead = batch_record_bound(&record) + RECORD_BATCH_HEADER_SIZE;
    uint8_t *value = calloc(1, UNIT_BATCH_MAX);
    struct stream_ticket ticket = {.owner = 1};
    record.value = slice_make(value, UNIT_BATCH_MAX - overhead + 1);
    cr_expect_eq(stream_append(store.appender, STREAM_ID, 0, &record, ticket), DG_ERR_TOO_LARGE);
    record.value.size--;
    cr_expect_eq(
        stream_append(store.appender, STREAM_ID, LIMIT_PARTITIONS_PER_STREAM, &record, ticket),
        DG_ERR_INVALID);
    cr_expect_eq(stream_appender_pending(store.appender), 0);
    cr_expect_eq(
        stream_append(store.appender, STREAM_ID, LIMIT_PARTITIONS_PER_STREAM - 1, &record, ticket),
        0);
    cr_expect_eq(stream_appender_pending(store.appender), 1);
    test_store_settle(&store);
    cr_expect(store.acked == 1 && store.refused == 0);
    free(value);
    close_store();
}

static sem_t entered, may_go_on;
static int journal_fd;
static struct sys_table real;

static ssize_t held_pwrite(int fd, const void *data, size_t size, off_t position) {
    if (fd == journal_fd) {
        sem_post(&entered);
        sem_wait(&may_go_on);
        sem_post(&may_go_on); /* from now on all of them */
    }
    return real.pwrite(fd, data, size, position);
}

static void hold_journal_writes(void) {
    sem_init(&entered, 0, 0);
    sem_init(&may_go_on, 0, 0);
    journal_fd = store.stream->journal.fd;
    real = sys;
    sys.pwrite = held_pwrite;
}

Test(appender, takes_a_bounded_amount_and_says_when_to_go_on) {
    open_store();
    hold_journal_writes();
    uint64_t number = 0;
    int err;
    while ((err = test_append(&store, STREAM_ID, 0, number, 500000, 1)) == 0)
        number++;
    cr_expect_eq(err, DG_ERR_PRESSURE);
    cr_expect(number * 500000 <= LIMIT_APPENDER_BYTES &&
              (number + 2) * 500000 > LIMIT_APPENDER_BYTES);
    cr_expect_eq(stream_appender_pending(store.appender), number, "nothing was taken");
    cr_expect_eq(test_append(&store, STREAM_ID, 1, 0, 500000, 1), DG_ERR_PRESSURE);
    test_store_turn(&store);
    cr_expect(store.ready == 0 && store.acked == 0);
    sem_post(&may_go_on);
    test_store_settle(&store);
    cr_expect_eq(store.ready, 1, "once, however often it was refused");
    cr_expect_eq(store.acked, number);
    cr_expect_eq(test_append(&store, STREAM_ID, 0, number, 500000, 1), 0);
    test_store_settle(&store);
    cr_expect_eq(store.ready, 1);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number + 1);
    close_store();
}

/* Records of one turn and partition are one batch: it stays open until the turn ends. */
Test(appender, a_turn_makes_one_batch_per_partition) {
    struct stream_extent extent;
    open_store();
    for (uint64_t number = 0; number < 100; number++)
        for (uint32_t partition = 0; partition < 3; partition++)
            cr_assert_eq(test_append(&store, STREAM_ID, partition, number, 20, 1), 0);
    test_store_settle(&store);
    for (uint32_t partition = 0; partition < 3; partition++) {
        cr_assert_eq(stream_read(store.stream, STREAM_ID, partition, 0, 1, NULL, &extent), 0);
        cr_expect_eq(extent.next_offset, 100);
        stream_extent_release(&extent);
        cr_expect_eq(test_read_all(&store, STREAM_ID, partition, 0, 0), 100);
    }
    close_store();
}

static int mutate(const void *key, size_t key_size, const void *value, size_t size) {
    return test_mutate(&store, STREAM_STATE_SESSION, slice_make(key, key_size),
                       slice_make(value, size));
}

static int get(const char *key, uint8_t *ret_value, size_t *ret_size) {
    return test_get(&store.stream->state, STREAM_STATE_SESSION, slice_from_string(key), ret_value,
                    1, ret_size);
}

Test(appender, mutations_are_durable_with_their_ticket) {
    static uint8_t bytes[STREAM_MUTATIONS_BYTES];
    uint8_t value;
    size_t size;
    open_store();
    cr_expect_eq(mutate(bytes, LIMIT_MUTATION_KEY_BYTES + 1, "v", 1), DG_ERR_TOO_LARGE);
    cr_expect_eq(mutate("k", 1, bytes, sizeof(bytes) - 8), DG_ERR_TOO_LARGE);
    cr_expect_eq(mutate("large", 5, bytes, sizeof(bytes) - 8 - 5), 0, "all the room there is");
    cr_expect_eq(stream_appender_pending(store.appender), 1);
    cr_expect_eq(get("large", &value, &size), DG_ERR_NOT_FOUND, "not before it is durable");
    for (unsigned i = 0; i < 40; i++) /* more than one unit holds */
        cr_expect_eq(mutate("many", 4, bytes, sizeof(bytes) - 8 - 4 - i), 0);
    cr_expect_eq(mutate("more", 4, "v", 1), 0);
    test_store_settle(&store);
    cr_expect_eq(store.acked, 42);
    cr_expect_eq(store.last_offset, -1, "no record, no offset");
    cr_assert_eq(get("large", &value, &size), 0);
    cr_expect_eq(size, sizeof(bytes) - 8 - 5);
    cr_assert_eq(get("many", &value, &size), 0);
    cr_expect_eq(size, sizeof(bytes) - 8 - 4 - 39, "the last one counts");
    cr_expect(get("more", &value, &size) == 0 && size == 1 && value == 'v');
    cr_expect_eq(test_forget(&store, STREAM_STATE_SESSION, slice_from_string("more")), 0);
    test_store_settle(&store);
    cr_expect_eq(get("more", &value, &size), DG_ERR_NOT_FOUND);
    close_store();
}

/* All of them or none, and no more is taken than may be in flight. */
Test(appender, mutations_wait_for_room) {
    static uint8_t bytes[STREAM_MUTATIONS_BYTES];
    unsigned taken = 0;
    open_store();
    while (mutate("k", 1, bytes, 60000) == 0)
        cr_assert_lt(++taken, 2u * LIMIT_APPENDER_BYTES / 60000);
    cr_expect_eq(mutate("k", 1, bytes, 60000), DG_ERR_PRESSURE);
    test_store_settle(&store);
    cr_expect_eq(store.ready, 1);
    cr_expect_eq(store.acked, taken);
    cr_expect_eq(mutate("k", 1, bytes, 60000), 0);
    test_store_settle(&store);
    close_store();
}

/* ---- records with state ---- */

/* A record of partition p; its offset is to be found under key, before the letter. */
static int append_known(uint32_t partition, const char *key, char letter) {
    char value[9] = "--------";
    value[8] = letter;
    struct stream_mutation mutations[] = {
        {.name_space = STREAM_STATE_SESSION,
         .key = slice_from_string("last"),
         .value = slice_from_string(key)},
        {.name_space = STREAM_STATE_QOS2,
         .takes_offset = true,
         .key = slice_from_string(key),
         .value = slice_make(value, sizeof(value))},
    };
    struct stream_record record = {.timestamp_ms = 1000, .key = slice_from_string(key)};
    return stream_append_with(store.appender, STREAM_ID, partition, &record, mutations, 2,
                              (struct stream_ticket){.owner = 1});
}

static void expect_known(const char *key, int64_t offset, char letter) {
    uint8_t value[9];
    size_t size;
    int64_t found;
    cr_assert_eq(test_get(&store.stream->state, STREAM_STATE_QOS2, slice_from_string(key), value,
                          sizeof(value), &size),
                 0, "%s", key);
    memcpy(&found, value, sizeof(found));
    cr_expect(size == 9 && found == offset && value[8] == (uint8_t)letter, "%s: offset %d", key,
              (int)found);
}

/* Several records of a batch, of two partitions, and after a restart. */
Test(appender, state_comes_with_its_record) {
    open_store();
    for (unsigned round = 0; round < 2; round++) {
        cr_assert_eq(append_known(0, round ? "d" : "a", 'x'), 0);
        cr_assert_eq(append_known(1, round ? "e" : "b", 'y'), 0);
        cr_assert_eq(append_known(0, round ? "f" : "c", 'z'), 0);
        cr_expect_eq(stream_appender_pending(store.appender), 3, "one ticket for both");
        test_store_settle(&store);
    }
    cr_expect(store.acked == 6 && store.refused == 0);
    for (unsigned round = 0; round < 2; round++) {
        expect_known("a", 0, 'x');
        expect_known("b", 0, 'y');
        expect_known("c", 1, 'z');
        expect_known("d", 2, 'x');
        expect_known("e", 1, 'y');
        expect_known("f", 3, 'z');
        test_store_close(&store);
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    }
    close_store();
}

Test(appender, state_and_record_share_the_room_of_a_unit) {
    static uint8_t bytes[UNIT_BATCH_MAX];
    open_store();
    struct stream_record record = {.timestamp_ms = 1, .key = slice_from_string("k")};
    struct stream_mutation mutation = {.name_space = STREAM_STATE_SESSION,
                                       .key = slice_from_string("k"),
                                       .value = slice_make(bytes, 1000)};
    uint64_t overhead = batch_record_bound(&record) + RECORD_BATCH_HEADER_SIZE + 8 + 1 + 1000;
    struct stream_ticket ticket = {.owner = 1};
    record.value = slice_make(bytes, UNIT_BATCH_MAX - overhead + 1);
    cr_expect_eq(stream_append_with(store.appender, STREAM_ID, 0, &record, &mutation, 1, ticket),
                 DG_ERR_TOO_LARGE);
    record.value.size--;
    for (unsigned i = 0; i < 3; i++)
        cr_expect_eq(
            stream_append_with(store.appender, STREAM_ID, 0, &record, &mutation, 1, ticket), 0);
    mutation.value = slice_make(bytes, STREAM_MUTATIONS_BYTES);
    record.value.size = 1;
    cr_expect_eq(stream_append_with(store.appender, STREAM_ID, 0, &record, &mutation, 1, ticket),
                 DG_ERR_TOO_LARGE);
    test_store_settle(&store);
    cr_expect(store.acked == 3 && store.last_offset == 2);
    close_store();
}
