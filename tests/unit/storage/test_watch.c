/* Watchers: told once per arming, by a new end and by a new log start. */
#include <criterion/criterion.h>

#include <sched.h>

#include "storage/local/engine.h"
#include "storage/local/state.h"
#include "support.h"

TestSuite(watch, .fini = check_leaks);

enum { STREAM_ID = 7 };

struct told {
    unsigned count;
    uint32_t last_partition;
    struct stream_watcher *rearms; /* arms this again from inside, when set */
};

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    struct told *told = context;
    cr_expect_eq(stream_id, STREAM_ID);
    told->count++;
    told->last_partition = partition;
    if (told->rearms)
        stream_watch(told->rearms, stream_id, partition);
}

static struct test_store store;

static void open_store(void) {
    test_store_init(&store);
    cr_assert_eq(test_store_open(&store), 0, "%s", store.error);
}

static void close_store(void) {
    test_store_close(&store);
    test_store_remove(&store);
}

static struct stream_watcher *create(struct told *told) {
    struct stream_watcher *watcher;
    cr_assert_eq(stream_watcher_create(store.stream, &store.mailbox, on_advanced, told, &watcher),
                 0);
    return watcher;
}

/* When its tickets are back, its watchers' mail has been delivered: it was posted before. */
static void append(uint32_t partition) {
    cr_assert_eq(test_append(&store, STREAM_ID, partition, 0, 10, 1000), 0);
    test_store_settle(&store);
}

Test(watch, tells_once_for_each_arming) {
    struct told told = {0};
    open_store();
    struct stream_watcher *watcher = create(&told);
    append(0);
    cr_expect_eq(told.count, 0, "not armed");
    stream_watch(watcher, STREAM_ID, 0);
    stream_watch(watcher, STREAM_ID, 0);
    append(1);
    cr_expect_eq(told.count, 0, "another partition");
    append(0);
    cr_expect(told.count == 1 && told.last_partition == 0);
    append(0);
    cr_expect_eq(told.count, 1, "not armed any more");
    stream_watch(watcher, STREAM_ID, 0);
    append(0);
    cr_expect_eq(told.count, 2);
    told.rearms = watcher;
    stream_watch(watcher, STREAM_ID, 5); /* does not exist yet */
    for (unsigned i = 0; i < 5; i++)
        append(5);
    cr_expect(told.count == 7 && told.last_partition == 5);
    stream_watcher_free(watcher);
    close_store();
}

Test(watch, the_log_start_counts_too) {
    struct told told = {0};
    struct log_start_key key = {.stream_id = STREAM_ID};
    int64_t start = 1;
    struct stream_mutation mutation = {.name_space = STATE_LOG_START,
                                       .key = slice_make(&key, LOG_START_KEY_SIZE),
                                       .value = slice_make(&start, sizeof(start))};
    open_store();
    struct stream_watcher *watcher = create(&told);
    append(0);
    append(0);
    stream_watch(watcher, STREAM_ID, 0);
    cr_assert_eq(stream_mutate(store.appender, &mutation, 1, (struct stream_ticket){0}), 0);
    append(1);
    cr_expect(told.count == 1 && told.last_partition == 0);
    stream_watcher_free(watcher);
    close_store();
}

Test(watch, several_watchers_and_partitions) {
    enum { WATCHERS = 3, PARTITIONS = 20 };
    struct told told[WATCHERS] = {0};
    struct stream_watcher *watchers[WATCHERS];
    open_store();
    for (unsigned i = 0; i < WATCHERS; i++) {
        watchers[i] = create(&told[i]);
        for (uint32_t partition = 0; partition < PARTITIONS; partition += i + 1)
            stream_watch(watchers[i], STREAM_ID, partition);
    }
    for (uint32_t partition = 0; partition < PARTITIONS; partition++)
        cr_assert_eq(test_append(&store, STREAM_ID, partition, 0, 10, 1000), 0);
    test_store_settle(&store);
    cr_expect(told[0].count == 20 && told[1].count == 10 && told[2].count == 7);
    for (unsigned i = 0; i < WATCHERS; i++)
        stream_watcher_free(watchers[i]);
    close_store();
}

static bool is_idle(void) {
    struct committer *committer = &store.stream->committer;
    pthread_mutex_lock(&committer->mutex);
    bool idle = committer->is_idle;
    pthread_mutex_unlock(&committer->mutex);
    return idle;
}

static bool has_fired(void) {
    struct partition *partition = partition_find(&store.stream->partitions, STREAM_ID, 0);
    pthread_mutex_lock(&partition->mutex);
    bool fired = partition->watches == NULL;
    pthread_mutex_unlock(&partition->mutex);
    return fired;
}

/* The watchers' mail stays in the mailbox. */
static void append_and_wait_until_fired(void) {
    while (!is_idle())
        sched_yield();
    cr_assert_eq(test_append(&store, STREAM_ID, 0, 0, 10, 1000), 0);
    stream_appender_turn(store.appender);
    while (!has_fired())
        sched_yield();
}

/* Between firing and delivery, and while armed. */
Test(watch, may_be_freed_at_any_time) {
    struct told told = {0}, other = {0};
    open_store();
    struct stream_watcher *stays = create(&other);
    for (unsigned round = 0; round < 2; round++) {
        struct stream_watcher *watcher = create(&told);
        stream_watch(watcher, STREAM_ID, 0);
        stream_watch(stays, STREAM_ID, 0);
        stream_watch(watcher, STREAM_ID, 1);
        if (round == 1)
            append_and_wait_until_fired();
        stream_watcher_free(watcher);
        append(0);
        cr_expect_eq(told.count, 0);
        cr_expect_eq(other.count, round + 1);
    }
    stream_watcher_free(stays);
    stream_watcher_free(NULL);
    close_store();
}
