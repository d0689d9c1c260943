/* Appenders: what is taken, what is refused at once, when to go on. */
#include <criterion/criterion.h>

#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/sys.h"
#include "storage/local/appender.h"
#include "storage/local/engine.h"
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
    struct stream_mutation mutation = {.name_space = STATE_SESSION,
                                       .key = slice_make(key, key_size),
                                       .value = slice_make(value, size)};
    return stream_mutate(store.appender, STREAM_ID, 0, &mutation);
}

static int get(const char *key, uint8_t *ret_value, size_t *ret_size) {
    return state_get(&store.stream->state, STATE_SESSION, slice_from_string(key), ret_value, 1,
                     ret_size);
}

Test(appender, mutations_go_with_their_unit) {
    static uint8_t bytes[UNIT_MUTATION_ROOM];
    uint8_t value;
    size_t size;
    open_store();
    cr_expect_eq(mutate(bytes, LIMIT_MUTATION_KEY_BYTES + 1, "v", 1), DG_ERR_TOO_LARGE);
    cr_expect_eq(mutate("k", 1, bytes, sizeof(bytes) - 8), DG_ERR_TOO_LARGE);
    cr_expect_eq(mutate("large", 5, bytes, sizeof(bytes) - 8 - 5), 0, "all the room there is");
    cr_expect_eq(mutate("more", 4, "v", 1), DG_ERR_PRESSURE);
    cr_assert_eq(test_append(&store, STREAM_ID, 0, 0, 900000, 1), 0, "a full batch beside it");
    cr_expect_eq(get("large", &value, &size), DG_ERR_NOT_FOUND, "not before it is durable");
    test_store_settle(&store);
    cr_assert_eq(get("large", &value, &size), 0);
    cr_expect_eq(size, sizeof(bytes) - 8 - 5);
    cr_expect_eq(get("more", &value, &size), DG_ERR_NOT_FOUND);
    cr_expect_eq(mutate("more", 4, "v", 1), 0);
    cr_assert_eq(test_append(&store, STREAM_ID, 0, 1, 10, 1), 0);
    test_store_settle(&store);
    cr_expect(get("more", &value, &size) == 0 && size == 1 && value == 'v');
    close_store();
}

static bool is_idle(void) {
    struct committer *committer = &store.stream->committer;
    pthread_mutex_lock(&committer->mutex);
    bool idle = committer->is_idle;
    pthread_mutex_unlock(&committer->mutex);
    return idle;
}

/* While it waits for the committer, and when the committer's mail to it is on the way. */
Test(appender, may_be_freed_while_it_waits) {
    struct stream_mutation mutation = {.name_space = STATE_SESSION, .key = slice_from_string("k")};
    for (unsigned on_the_way = 0; on_the_way < 2; on_the_way++) {
        struct stream_appender *other;
        open_store();
        test_append_each(&store, STREAM_ID, 0, 0, 1, 10);
        while (!is_idle())
            sched_yield();
        hold_journal_writes();
        cr_assert_eq(stream_appender_create(store.stream, &store.mailbox, NULL, NULL, NULL, &other),
                     0);
        cr_assert_eq(test_append(&store, STREAM_ID, 0, 1, 10, 1), 0);
        stream_appender_turn(store.appender);
        sem_wait(&entered);
        cr_assert_eq(stream_mutate(other, STREAM_ID, 0, &mutation), 0);
        stream_appender_turn(other);
        if (!on_the_way)
            stream_appender_free(other);
        sem_post(&may_go_on);
        while (!is_idle())
            sched_yield();
        if (on_the_way)
            stream_appender_free(other);
        test_append_each(&store, STREAM_ID, 0, 2, 3, 10);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 3);
        sys = real;
        close_store();
    }
    stream_appender_free(NULL);
}
