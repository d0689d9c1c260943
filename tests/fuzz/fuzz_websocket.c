/*
 * The client's side of a WebSocket through the whole transport: an upgraded connection on a socket
 * pair, the worker's loop turned by hand. The first byte says in how large pieces the rest is sent.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/assert.h"
#include "gateway/http/http.h"

static struct worker *worker;
static unsigned closed;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void stream_extent_release(struct stream_extent *extent) {
}

static int echo_open(struct connection *c) {
    return 0;
}

static ssize_t echo_receive(struct connection *c, const uint8_t *data, size_t size) {
    connection_write(c, data, size & ~(size_t)1);
    return (ssize_t)(size & ~(size_t)1);
}

static void echo_closed(struct connection *c, int err) {
    closed++;
}

static const struct connection_protocol echo = {
    .name = "mqtt", .open = echo_open, .receive = echo_receive, .closed = echo_closed};

/* Instead of the handshake: the connection begins upgraded. */
static int upgrade_open(struct connection *c) {
    return 0;
}

static ssize_t upgrade_receive(struct connection *c, const uint8_t *data, size_t size) {
    int err = connection_upgrade_websocket(c, &echo);
    return err < 0 ? err : 1;
}

static const struct connection_protocol upgrade = {
    .name = "http", .open = upgrade_open, .receive = upgrade_receive, .closed = echo_closed};
static const struct connection_listener listener = {.name = "fuzz", .protocol = &upgrade};

static void turn(void) {
    event_base_loop(worker->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    worker_refresh_time(worker);
    for (unsigned i = 0; i < worker->turn_hook_count; i++)
        worker->turn_hooks[i].run(worker->turn_hooks[i].context);
}

static void set_up(void) {
    static char none[] = "";
    static struct config config = {.server_proxy_sources = none};
    int err = worker_create(0, &config, &worker);
    dg_assert(err == 0);
    err = connection_pool_create(worker);
    dg_assert(err == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2];
    if (!worker)
        set_up();
    if (size == 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) != 0)
        return 0;
    closed = 0;
    connection_hand_over(worker, pair[1], &listener);
    turn();
    size_t step = (size_t)data[0] + 1;
    for (size_t at = 0; at < size; at += step) {
        if (send(pair[0], data + at, size - at < step ? size - at : step, MSG_NOSIGNAL) < 0)
            break;
        turn();
    }
    close(pair[0]);
    for (unsigned i = 0; i < 100 && atomic_load(&worker->load) > 0; i++)
        turn();
    dg_assert(atomic_load(&worker->load) == 0 && closed == 1);
    return 0;
}
