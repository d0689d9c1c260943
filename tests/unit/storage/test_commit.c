/* The commit path: who waits for whom, what an acknowledgement means, what is refused. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sys.h"
#include "storage/local/engine.h"
#include "support.h"

TestSuite(commit, .fini = check_leaks);

enum { STREAM_ID = 7 };

static ssize_t (*real_pwrite)(int fd, const void *data, size_t size, off_t position);

static ssize_t slow_pwrite(int fd, const void *data, size_t size, off_t position) {
    usleep(5000);
    return real_pwrite(fd, data, size, position);
}

struct light {
    struct mailbox mailbox;
    struct stream_appender *appender;
    unsigned acked;
};

static void light_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct light *light = context;
    light->acked += err == 0;
}

static void light_ready(void *context) {
}

static void light_append(struct light *light) {
    struct stream_record record = {.timestamp_ms = 1, .value = slice_from_string("light")};
    cr_assert_eq(
        stream_append(light->appender, STREAM_ID, 1, &record, (struct stream_ticket){.owner = 1}),
        0);
}

/* A worker that always has units waiting must not keep another one's open batch from going. */
Test(commit, flood_of_one_worker_does_not_starve_another) {
    struct test_store store;
    struct light light = {0};
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    cr_assert_eq(mailbox_init(&light.mailbox, &light), 0);
    cr_assert_eq(stream_appender_create(store.stream, &light.mailbox, light_done, light_ready,
                                        &light, &light.appender),
                 0);
    real_pwrite = sys.pwrite;
    sys.pwrite = slow_pwrite;
    uint64_t number = 0, end_ms = clock_monotonic_ms() + 60000;
    unsigned expected = 0;
    while (clock_monotonic_ms() < end_ms && expected < 5) {
        while (test_append(&store, STREAM_ID, 0, number, 250000, 1) == 0)
            number++;
        if (light.acked == expected) {
            light_append(&light);
            expected++;
        }
        mailbox_drain(&light.mailbox);
        stream_appender_turn(light.appender);
        test_store_turn(&store);
        usleep(500);
    }
    cr_expect_eq(expected, 5, "only %u: it starves", expected);
    test_store_settle(&store);
    while (stream_appender_pending(light.appender) > 0) {
        stream_appender_turn(light.appender);
        usleep(1000);
        mailbox_drain(&light.mailbox);
    }
    stream_appender_free(light.appender);
    test_store_close(&store);
    mailbox_drain(&light.mailbox);
    mailbox_free(&light.mailbox);
    test_store_remove(&store);
}

/* ---- the order of work --------------------------------------------------------------------------
 */

static sem_t write_entered, write_may_go_on;
static int journal_fd;

static ssize_t held_pwrite(int fd, const void *data, size_t size, off_t position) {
    if (fd == journal_fd) {
        sem_post(&write_entered);
        sem_wait(&write_may_go_on);
    }
    return real_pwrite(fd, data, size, position);
}

static void hold_journal_writes(struct test_store *store) {
    sem_init(&write_entered, 0, 0);
    sem_init(&write_may_go_on, 0, 0);
    journal_fd = store->stream->journal.fd;
    real_pwrite = sys.pwrite;
    sys.pwrite = held_pwrite;
}

static int64_t durable_end(struct test_store *store, uint32_t partition) {
    struct stream_offsets offsets;
    stream_offsets(store->stream, STREAM_ID, partition, &offsets);
    return offsets.durable_end;
}

Test(commit, nothing_is_acknowledged_or_readable_before_it_is_durable) {
    struct test_store store;
    struct stream_extent extent;
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_append_each(&store, STREAM_ID, 0, 0, 1, 10);
    hold_journal_writes(&store);
    cr_assert_eq(test_append(&store, STREAM_ID, 0, 1, 10, 1), 0);
    while (sem_trywait(&write_entered) != 0)
        test_store_turn(&store);
    usleep(20000);
    test_store_turn(&store);
    cr_expect_eq(store.acked, 1);
    cr_expect_eq(durable_end(&store, 0), 1);
    cr_expect_eq(stream_read(store.stream, STREAM_ID, 0, 2, 1, NULL, &extent),
                 DG_ERR_OFFSET_OUT_OF_RANGE);
    cr_assert_eq(stream_read(store.stream, STREAM_ID, 0, 1, 1, NULL, &extent), 0);
    cr_expect_eq(extent.size_bytes, 0);
    sys.pwrite = real_pwrite;
    sem_post(&write_may_go_on);
    test_store_settle(&store);
    cr_expect(store.acked == 2 && durable_end(&store, 0) == 2);
    test_store_close(&store);
    test_store_remove(&store);
}

static uint64_t next_tag;

static void expect_in_order(void *context, const struct stream_ticket *ticket, int err,
                            int64_t offset) {
    cr_expect(err == 0 && ticket->tag == next_tag && offset == (int64_t)next_tag);
    next_tag++;
}

/* Units of one worker stay in order through full batches and several groups. */
Test(commit, offsets_follow_the_order_of_appending) {
    struct test_store store;
    test_store_init(&store);
    store.done = expect_in_order;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    uint64_t number = 0;
    for (uint32_t padding = 1; padding < 700000; padding = padding * 3 / 2 + 1)
        for (unsigned i = 0; i < 3; i++) {
            int err;
            while ((err = test_append(&store, STREAM_ID, 0, number, padding, 1)) == DG_ERR_PRESSURE)
                test_store_settle(&store);
            cr_assert_eq(err, 0);
            number++;
        }
    test_store_settle(&store);
    cr_expect_eq(next_tag, number);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number);
    test_store_close(&store);
    test_store_remove(&store);
}

/* ---- a full disk --------------------------------------------------------------------------------
 */

static struct sys_table real;
static atomic_bool is_full;
static atomic_ullong free_bytes; /* what the file system says it has */

static int full_fallocate(int fd, int mode, off_t position, off_t size) {
    if (!atomic_load(&is_full))
        return real.fallocate(fd, mode, position, size);
    errno = ENOSPC;
    return -1;
}

static int limited_fstatvfs(int fd, struct statvfs *ret_status) {
    int result = real.fstatvfs(fd, ret_status);
    ret_status->f_frsize = 1;
    ret_status->f_bavail = atomic_load(&free_bytes);
    return result;
}

static int full_open(const char *path, int flags, mode_t mode) {
    if (!atomic_load(&is_full) || !(flags & O_CREAT) || !strstr(path, ".log"))
        return real.open(path, flags, mode);
    errno = EMFILE;
    return -1;
}

static int full_rename(const char *from, const char *to) {
    if (!atomic_load(&is_full))
        return real.rename(from, to);
    errno = EDQUOT;
    return -1;
}

static bool says_full(struct test_store *store) {
    struct stream_health health;
    stream_health(store->stream, &health);
    return health.storage_full;
}

static int append_one(struct test_store *store, uint32_t partition, uint64_t number,
                      uint32_t padding) {
    store->last_err = 0;
    cr_assert_eq(test_append(store, STREAM_ID, partition, number, padding, 1000), 0);
    test_store_settle(store);
    return store->last_err;
}

/* A record of a partition whose segment has no room, and state that comes with it. */
static void expect_refused_with_its_state(struct test_store *store) {
    struct slice key = slice_from_string("state");
    struct stream_mutation mutation = {
        .name_space = STREAM_STATE_SESSION, .key = key, .value = key};
    struct stream_record record = {.timestamp_ms = 1000};
    uint8_t value;
    size_t size;
    cr_assert_eq(stream_append_with(store->appender, STREAM_ID, 1, &record, &mutation, 1,
                                    (struct stream_ticket){.owner = 1}),
                 0);
    test_store_settle(store);
    cr_expect_eq(store->last_err, DG_ERR_STORAGE_FULL);
    cr_expect_eq(test_get(&store->stream->state, STREAM_STATE_SESSION, key, &value, 1, &size),
                 DG_ERR_NOT_FOUND);
}

/* The ways in which room for a segment can be missing. */
Test(commit, without_room_in_a_segment_a_unit_is_refused_and_others_go_on) {
    real = sys;
    for (unsigned way = 0; way < 3; way++) {
        struct test_store store;
        test_store_init(&store);
        atomic_store(&free_bytes, 1ull << 40);
        sys.fallocate = way == 0 ? full_fallocate : real.fallocate;
        sys.fstatvfs = limited_fstatvfs;
        sys.open = way == 1 ? full_open : real.open;
        store.options.reserve_bytes = 1000 * 1000;
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
        cr_assert_eq(append_one(&store, 0, 0, 100), 0);
        atomic_store(&is_full, true);
        if (way == 2)
            atomic_store(&free_bytes, 1000 * 1000 + 1000); /* above the reserve, but not enough */
        cr_expect_eq(append_one(&store, 1, 0, 100), DG_ERR_STORAGE_FULL, "way %u", way);
        expect_refused_with_its_state(&store);
        cr_expect(says_full(&store) && durable_end(&store, 1) == 0);
        cr_expect_eq(append_one(&store, 0, 1, 100), 0, "its segment has room");
        if (way != 1)
            cr_expect_eq(append_one(&store, 0, 2, 100000), DG_ERR_STORAGE_FULL);
        cr_expect_eq(durable_end(&store, 0), 2);
        atomic_store(&is_full, false);
        atomic_store(&free_bytes, 1ull << 40);
        cr_expect_eq(append_one(&store, 1, 0, 100), 0);
        cr_expect_eq(store.last_offset, 0, "what was refused has taken no offset");
        cr_expect_not(says_full(&store));
        cr_expect_eq(append_one(&store, 0, 2, 100000), 0);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 3);
        test_store_close(&store);
        cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), 3);
        cr_expect_eq(test_read_all(&store, STREAM_ID, 1, 0, 0), 1);
        test_store_close(&store);
        test_store_remove(&store);
        sys = real;
    }
}

/* No room for a checkpoint: the journal fills up, then units are refused. */
Test(commit, a_full_journal_refuses_until_a_checkpoint_fits_again) {
    struct test_store store;
    test_store_init(&store);
    real = sys;
    sys.rename = full_rename;
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    atomic_store(&is_full, true);
    uint64_t number = 0;
    int err = 0;
    for (unsigned i = 0; i < 20 && err == 0; i++)
        if ((err = append_one(&store, 0, number, 900000)) == 0)
            number++;
    cr_assert_eq(err, DG_ERR_STORAGE_FULL);
    cr_expect(number >= 4 && says_full(&store));
    cr_expect_eq(append_one(&store, 0, number, 900000), DG_ERR_STORAGE_FULL);
    struct stream_health health;
    stream_health(store.stream, &health);
    cr_expect(health.checkpoint_lag_bytes > TEST_JOURNAL_BYTES - 1000000 &&
              health.journal_size_bytes == TEST_JOURNAL_BYTES);
    atomic_store(&is_full, false);
    checkpointer_request(&store.stream->checkpointer);
    for (unsigned i = 0; i < 1000 && append_one(&store, 0, number, 900000) < 0; i++)
        usleep(5000);
    cr_expect_eq(store.last_offset, (int64_t)number);
    cr_expect_eq(test_read_all(&store, STREAM_ID, 0, 0, 0), (int64_t)number + 1);
    test_store_close(&store);
    test_store_remove(&store);
}

/* What the newest segment has is not asked for again after a restart. */
Test(commit, a_restart_needs_no_room_for_what_is_stored) {
    struct test_store store;
    test_store_init(&store);
    real = sys;
    sys.fstatvfs = limited_fstatvfs;
    atomic_store(&free_bytes, 1ull << 40);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    test_append_each(&store, STREAM_ID, 0, 0, 4, 900000);
    test_store_close(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
    atomic_store(&free_bytes, 1000 * 1000); /* an extent ends with the segment */
    cr_expect_eq(append_one(&store, 0, 4, 1000), 0);
    test_store_close(&store);
    test_store_remove(&store);
}
