/* The commit path: who waits for whom, what an acknowledgement means, what is refused. */
#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sys.h"
#include "storage/record.h"
#include "support.h"

TestSuite(commit);

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
    uint64_t number = 0, end_ms = clock_monotonic_ms() + 3000;
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
    cr_expect_eq(expected, 5, "%u in 3 s", expected);
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
