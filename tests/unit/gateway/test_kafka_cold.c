/* Reading from the disk, and from one that fails: what a consumer is told, and that its worker does
 * not wait. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/sys.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_cold, .fini = loopback_check_leaks);

enum { BATCHES = 60, RECORDS = 10, SIZE = 40000, MIB = 1 << 20 };

static struct kafka_server server;
static struct kafka_client client, other;
static struct sys_table real_sys;

/* Batch i has the times 1000 * (i + 1) and on. More than memory keeps: the first ones are in their
 * file only. */
static void start(void) {
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < BATCHES; i++)
        kafka_server_append(&server, STREAM_EVENTS, 2, RECORDS, SIZE, 1000 * (i + 1));
    kafka_enter(&client, &server, "reader");
    real_sys = sys;
}

static void stop(void) {
    sys = real_sys;
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

static struct kafka_fetched fetch(int64_t offset) {
    struct kafka_fetched got;
    kafka_begin_fetch(&client, "acme.events", 20000, 1, 50 * MIB,
                      (struct kafka_asked[]){{2, offset, 3 * MIB}}, 1);
    kafka_call_server(&client);
    kafka_take_fetch(&client, &got, 1);
    return got;
}

static int16_t look_up(struct kafka_client *c, int64_t asked_ms, int64_t *ret_offset) {
    int64_t found_ms;
    kafka_begin_list_offsets(c, "acme.events", 2, asked_ms);
    kafka_call_server(c);
    return kafka_take_list_offsets(c, 2, &found_ms, ret_offset);
}

static ssize_t unreadable(int fd, void *data, size_t size, off_t position) {
    errno = EIO;
    return -1;
}
/* What RWF_NOWAIT says of a page that is not in memory. */
static ssize_t never_in_memory(int fd, const struct iovec *parts, int count, off_t position,
                               int flags) {
    errno = EAGAIN;
    return -1;
}

/* A code and no silence, and the connection goes on with what can be read. */
Test(kafka_cold, a_disk_that_cannot_be_read) {
    start();
    sys.pread = unreadable;
    sys.preadv2 = never_in_memory;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t start_ms = clock_monotonic_ms();
        struct kafka_fetched got = fetch(5);
        cr_assert_eq(got.error, KAFKA_ERROR_STORAGE);
        cr_assert_eq(got.high_watermark, BATCHES * RECORDS);
        cr_assert_lt(clock_monotonic_ms() - start_ms, 5000);
    }
    struct kafka_fetched got = fetch((BATCHES - 1) * RECORDS);
    cr_assert_eq(got.error, 0);
    cr_assert_gt(got.records.size, RECORDS * SIZE);
    stop();
}

static atomic_bool is_warm;

/* Nothing is in memory before the pool's threads have read it. */
static ssize_t read_warms(int fd, void *data, size_t size, off_t position) {
    if (!atomic_load(&is_warm))
        usleep(300000);
    atomic_store(&is_warm, true);
    return real_sys.pread(fd, data, size, position);
}
static ssize_t in_memory_when_warm(int fd, const struct iovec *parts, int count, off_t position,
                                   int flags) {
    if (atomic_load(&is_warm))
        return real_sys.preadv2(fd, parts, count, position, flags & ~RWF_NOWAIT);
    errno = EAGAIN;
    return -1;
}

/* The worker goes on with others meanwhile, and what was sent behind it is answered behind it. */
Test(kafka_cold, a_look_up_by_time_waits_for_the_disk_without_the_worker) {
    int64_t found_ms, found;
    start();
    kafka_enter(&other, &server, "reader");
    sys.pread = read_warms;
    sys.preadv2 = in_memory_when_warm;
    kafka_begin_list_offsets(&client, "acme.events", 2, 3005);
    kafka_send(&client);
    kafka_begin_list_offsets(&client, "acme.events", 2, -1);
    kafka_send(&client);
    cr_assert_eq(look_up(&other, -2, &found), 0);
    cr_expect(!atomic_load(&is_warm), "the worker has waited for the disk");
    cr_assert(kafka_receive(&client));
    cr_assert_eq(kafka_take_list_offsets(&client, 2, &found_ms, &found), 0);
    cr_expect_eq(found_ms, 3005);
    cr_expect_eq(found, 25);
    cr_assert(kafka_receive(&client));
    cr_assert_eq(kafka_take_list_offsets(&client, 2, &found_ms, &found), 0);
    cr_expect_eq(found, BATCHES * RECORDS);
    kafka_disconnect(&other);
    stop();
}

Test(kafka_cold, a_look_up_by_time_that_cannot_be_read) {
    int64_t found;
    start();
    sys.pread = unreadable;
    sys.preadv2 = never_in_memory;
    cr_expect_eq(look_up(&client, 3005, &found), KAFKA_ERROR_STORAGE);
    cr_expect_eq(look_up(&client, 1000 * BATCHES, &found), 0); /* in memory */
    cr_expect_eq(found, (BATCHES - 1) * RECORDS);
    stop();
}

/* A consumer that goes away while it waits, and a worker that ends meanwhile. */
Test(kafka_cold, leaving_while_a_look_up_waits) {
    start();
    sys.pread = read_warms;
    sys.preadv2 = in_memory_when_warm;
    kafka_begin_list_offsets(&client, "acme.events", 2, 3005);
    kafka_send(&client);
    kafka_enter(&other, &server, "reader");
    kafka_begin_list_offsets(&other, "acme.events", 2, 4005);
    kafka_send(&other);
    usleep(50000);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
    cr_assert(!kafka_receive(&other));
    kafka_disconnect(&other);
    sys = real_sys;
}
