/* What the turns of a worker have for readers of the log is shared, and bounded. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/transport/transport.h"
#include "tests/unit/gateway/loopback.h"

/* A socket takes some 100 KB at once, so all readers together several times a turn's share. */
enum { EXTENT_BYTES = 600 * 1000, READERS = 40 };

static int extent_fd = -1;
static atomic_bool held, holding;
static atomic_int released;
static _Atomic int64_t most_bytes;

void stream_extent_release(struct stream_extent *extent) {
    atomic_fetch_add(&released, 1);
}

static int reader_open(struct connection *c) {
    return 0;
}

static ssize_t reader_receive(struct connection *c, const uint8_t *data, size_t size) {
    struct stream_extent extent = {.fd = extent_fd, .size_bytes = EXTENT_BYTES};
    connection_write_extent(c, &extent);
    return (ssize_t)size;
}

static void reader_closed(struct connection *c, int err) {
}

static const struct connection_protocol reader = {
    .name = "kafka", .open = reader_open, .receive = reader_receive, .closed = reader_closed};
static const struct connection_listener listener = {.name = "kafka", .protocol = &reader};

/* At the end of each turn, before its output is written: what the turn before has written. While
 * held the worker stays here, so that what comes in meanwhile is one turn's. */
static void look(void *context) {
    static int64_t before;
    int64_t now = metric_read(METRIC_SENT_BYTES);
    if (now - before > atomic_load(&most_bytes))
        atomic_store(&most_bytes, now - before);
    before = now;
    while (atomic_load(&held)) {
        atomic_store(&holding, true);
        usleep(1000);
    }
}

static int add_look(struct worker *worker) {
    worker_add_turn_hook(worker, look, NULL);
    return 0;
}

static void nothing(struct worker *worker, void *context) {
}

static void read_all(struct client *client) {
    static uint8_t got[EXTENT_BYTES];
    cr_expect_eq(client_read(client, got, EXTENT_BYTES), EXTENT_BYTES);
    client_close(client);
}

Test(sharing, readers_share_what_a_turn_has, .timeout = 60) {
    static struct loopback loopback;
    static struct client clients[READERS];
    signal(SIGPIPE, SIG_IGN);
    extent_fd = memfd_create("extent", MFD_CLOEXEC);
    cr_assert(extent_fd >= 0 && ftruncate(extent_fd, EXTENT_BYTES) == 0);
    loopback_start(&loopback, 1, add_look, NULL);
    for (unsigned i = 0; i < READERS; i++)
        client_connect(&clients[i], &loopback, &listener);
    loopback_run(loopback.workers[0], nothing, NULL);
    atomic_store(&held, true);
    cr_assert(client_send(&clients[0], "x", 1));
    while (!atomic_load(&holding))
        usleep(1000);
    for (unsigned i = 1; i < READERS; i++)
        cr_assert(client_send(&clients[i], "x", 1));
    atomic_store(&held, false);
    for (unsigned i = 0; i < READERS; i++) /* each gets all of it, whoever is slow */
        read_all(&clients[READERS - 1 - i]);
    loopback_stop(&loopback); /* who has read the last byte may be ahead of the release */
    cr_expect_eq(atomic_load(&released), READERS);
    cr_expect_leq(atomic_load(&most_bytes), TURN_EXTENT_BYTES + LIMIT_FETCH_TURN_BYTES);
    close(extent_fd);
    loopback_check_leaks();
}
