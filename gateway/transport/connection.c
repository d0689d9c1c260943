/*
 * Life of a connection: handed over, TLS, open, events, close, free. Reading is in input.c, writing
 * in output.c.
 *
 * Nothing is freed while callbacks run. Whatever needs attention is put on the worker's dirty list;
 * the turn's end walks it once: flush, then close what is done. What is still dirty afterwards
 * keeps the loop awake through the again timer, which also lets connections read on that have input
 * epoll does not know of.
 */
#include "gateway/transport/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/transport/transport.h"

_Static_assert(sizeof(struct connection) <= 280, "an idle connection must stay small");

struct hand_over {
    struct mail mail;
    const struct connection_listener *listener;
    int fd;
};

/* ---- the pool ---- */

struct connection *connection_slot(const struct connection_pool *pool, uint32_t index) {
    return &pool->slabs[index / CONNECTION_SLAB_SIZE][index % CONNECTION_SLAB_SIZE];
}

static int grow_pool(struct connection_pool *pool) {
    if (pool->slab_count >= LIMIT_CONNECTIONS_PER_WORKER / CONNECTION_SLAB_SIZE)
        return DG_ERR_LIMIT;
    struct connection **slabs =
        realloc(pool->slabs, (pool->slab_count + 1) * sizeof(struct connection *));
    if (!slabs)
        return DG_ERR_NO_MEMORY;
    pool->slabs = slabs;
    struct connection *slab = calloc(CONNECTION_SLAB_SIZE, sizeof(*slab));
    if (!slab)
        return DG_ERR_NO_MEMORY;
    uint32_t first = pool->slab_count * CONNECTION_SLAB_SIZE;
    slabs[pool->slab_count++] = slab;
    for (unsigned i = CONNECTION_SLAB_SIZE; i-- > 0;) {
        slab[i].index = first + i;
        slab[i].generation = 1; /* so that no id is 0 */
        slab[i].dirty_next = pool->free_list;
        pool->free_list = &slab[i];
    }
    return 0;
}

static struct connection *take_slot(struct connection_pool *pool) {
    if (!pool->free_list && grow_pool(pool) < 0)
        return NULL;
    struct connection *c = pool->free_list;
    pool->free_list = c->dirty_next;
    pool->live_count++;
    uint32_t index = c->index, generation = c->generation;
    *c = (struct connection){.index = index, .generation = generation, .flags = CONNECTION_LIVE};
    return c;
}

static void give_slot_back(struct connection_pool *pool, struct connection *c) {
    dg_assert(!connection_has(c, CONNECTION_DIRTY));
    c->flags = 0;
    if (++c->generation == 0)
        c->generation = 1;
    c->dirty_next = pool->free_list;
    pool->free_list = c;
    pool->live_count--;
}

struct connection *connection_find(struct worker *worker, uint64_t id) {
    const struct connection_pool *pool = worker->connections;
    uint64_t index = id >> 32;
    if (index >= (uint64_t)pool->slab_count * CONNECTION_SLAB_SIZE)
        return NULL;
    struct connection *c = connection_slot(pool, (uint32_t)index);
    return c->generation == (uint32_t)id && connection_has(c, CONNECTION_OPENED) ? c : NULL;
}

void connection_mark_dirty(struct connection *c) {
    if (connection_has(c, CONNECTION_DIRTY))
        return;
    connection_set(c, CONNECTION_DIRTY);
    c->dirty_next = c->worker->connections->dirty;
    c->worker->connections->dirty = c;
}

void connection_defer(struct connection *c) {
    struct connection_pool *pool = c->worker->connections;
    if (connection_has(c, CONNECTION_DIRTY))
        return;
    connection_set(c, CONNECTION_DIRTY);
    c->dirty_next = NULL;
    *(pool->deferred ? &pool->deferred_last->dirty_next : &pool->deferred) = c;
    pool->deferred_last = c;
}

void connection_count(const struct connection_protocol *protocol, int amount) {
    static const struct {
        const char *name;
        enum metric_id metric;
    } gauges[] = {{"mqtt", METRIC_CONNECTIONS_OPEN_MQTT},
                  {"kafka", METRIC_CONNECTIONS_OPEN_KAFKA},
                  {"http", METRIC_CONNECTIONS_OPEN_HTTP}};
    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
        if (strcmp(gauges[i].name, protocol->name) == 0)
            metric_add(gauges[i].metric, amount);
}

/* ---- closing ---- */

static void free_connection(struct connection *c) {
    struct connection_pool *pool = c->worker->connections;
    if (event_initialized(&c->event))
        event_del(&c->event);
    wheel_set(&pool->wheel, c, 0, 0);
    arrival_leave(c);
    arrival_forget(c);
    tls_session_free(c);
    websocket_free(c);
    connection_free_output(c);
    connection_free_input(c);
    close(c->fd);
    atomic_fetch_sub_explicit(&c->worker->load, 1, memory_order_relaxed);
    give_slot_back(pool, c);
}

static void call_closed(struct connection *c) {
    if (!connection_has(c, CONNECTION_OPENED))
        return;
    connection_clear(c, CONNECTION_OPENED);
    connection_count(c->protocol, -1);
    c->protocol->closed(c, c->close_err);
}

/* The peer may still be sending. Closing now would answer that with a reset, which can destroy our
 * last words on their way; so our side is shut, and its end is awaited for a moment. */
static bool begin_linger(struct connection *c) {
    if (connection_has(c, CONNECTION_ABRUPT | CONNECTION_HANDSHAKE))
        return false;
    tls_session_shutdown(c);
    if (shutdown(c->fd, SHUT_WR) < 0)
        return false;
    connection_set(c, CONNECTION_LINGERING);
    connection_free_input(c);
    connection_set_deadline(c, connection_now_ms(c) + CONNECTION_LINGER_MS);
    connection_arm(c, true, false);
    return !connection_has(c, CONNECTION_ABRUPT);
}

static void finish_close(struct connection *c) {
    if (connection_has(c, CONNECTION_DIRTY))
        return; /* marked again meanwhile: the next turn's end frees it, off the list */
    call_closed(c);
    if (!begin_linger(c))
        free_connection(c);
}

void connection_close(struct connection *c, int err) {
    if (connection_has(c, CONNECTION_CLOSING))
        return;
    if (c->websocket && !connection_has(c, CONNECTION_ABRUPT))
        websocket_close(c, err);
    connection_set(c, CONNECTION_CLOSING);
    c->close_err = (int16_t)err;
    connection_set_deadline(c, connection_now_ms(c) + CONNECTION_LINGER_MS);
    connection_mark_dirty(c);
}

/* While lingering: what comes is dropped; the end, an error or too much of it ends the wait. */
static void drop_input(struct connection *c) {
    ssize_t count = recv(c->fd, c->worker->read_buffer, LIMIT_READ_BUFFER_BYTES, MSG_DONTWAIT);
    if (count > 0 && c->input_limit_bytes > (size_t)count) {
        c->input_limit_bytes -= (uint32_t)count;
        return;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    connection_set(c, CONNECTION_ABRUPT);
    connection_mark_dirty(c);
}

/* ---- events ---- */

static void on_event(evutil_socket_t fd, short what, void *context);

void connection_arm(struct connection *c, bool read, bool write) {
    unsigned wanted = (read ? CONNECTION_READ_ARMED : 0u) | (write ? CONNECTION_WRITE_ARMED : 0u);
    unsigned both = CONNECTION_READ_ARMED | CONNECTION_WRITE_ARMED;
    if ((c->flags & both) == wanted)
        return;
    if (connection_has(c, both))
        event_del(&c->event);
    connection_clear(c, both);
    connection_set(c, wanted);
    if (wanted == 0)
        return;
    short events = (short)(EV_PERSIST | (read ? EV_READ : 0) | (write ? EV_WRITE : 0));
    event_assign(&c->event, c->worker->base, c->fd, events, on_event, c);
    if (event_add(&c->event, NULL) < 0) {
        connection_clear(c, both);
        connection_set(c, CONNECTION_ABRUPT);
        connection_close(c, DG_ERR_IO);
    }
}

static void open_protocol(struct connection *c) {
    int err = c->protocol->open(c);
    if (err < 0) {
        connection_close(c, err);
        return;
    }
    connection_set(c, CONNECTION_OPENED);
    connection_count(c->protocol, 1);
}

/* The first byte: from here on it costs something. */
static bool begin_handshake(struct connection *c) {
    int err = arrival_begin_handshake(c) ? tls_session_create(c) : DG_ERR_LIMIT;
    if (err == DG_ERR_LIMIT)
        metric_add(METRIC_CONNECTIONS_REFUSED, 1);
    if (err < 0) {
        connection_set(c, CONNECTION_ABRUPT);
        connection_close(c, err);
    }
    return err == 0;
}

/* In a storm of reconnecting devices the others still have their turns: what is over the budget
 * stays readable and comes up again. */
static void continue_handshake(struct connection *c) {
    if (connection_has(c, CONNECTION_SILENT) && !begin_handshake(c))
        return;
    if (c->worker->connections->handshake_steps++ >= HANDSHAKE_STEPS_PER_TURN)
        return;
    int result = tls_session_handshake(c);
    if (result == 0)
        return;
    connection_clear(c, CONNECTION_HANDSHAKE);
    arrival_leave(c);
    metric_add(result < 0 ? METRIC_TLS_HANDSHAKES_FAILED : METRIC_TLS_HANDSHAKES, 1);
    if (result < 0) {
        connection_close(c, result);
        return;
    }
    connection_set_deadline(c, 0);
    connection_arm(c, true, false);
    open_protocol(c);
    connection_receive(c); /* the client's first bytes may be inside OpenSSL already */
}

/* TLS, or the protocol itself. */
static void begin_layers(struct connection *c) {
    if (!c->listener->tls) {
        open_protocol(c);
        return;
    }
    connection_set(c, CONNECTION_HANDSHAKE);
    arrival_begin_silence(c);
    connection_set_deadline(c, connection_now_ms(c) + c->worker->config->tls_handshake_timeout);
}

static bool admit_peer(struct connection *c) {
    bool admitted = arrival_admit(c);
    if (!admitted)
        metric_add(METRIC_SOURCES_LIMITED, 1);
    return admitted;
}

/* What the client itself sends may be there already: it stays readable, for the next turn. */
static void continue_proxy(struct connection *c) {
    int result = proxy_receive(c);
    if (result == 0)
        return;
    connection_clear(c, CONNECTION_PROXY);
    if (result > 0 && !admit_peer(c)) {
        metric_add(METRIC_CONNECTIONS_REFUSED, 1);
        result = DG_ERR_LIMIT;
    }
    if (result < 0) {
        connection_set(c, CONNECTION_ABRUPT);
        connection_close(c, result);
        return;
    }
    connection_set_deadline(c, 0);
    begin_layers(c);
}

static void on_event(evutil_socket_t fd, short what, void *context) {
    struct connection *c = context;
    worker_refresh_time(c->worker);
    if (connection_has(c, CONNECTION_LINGERING)) {
        drop_input(c);
        return;
    }
    if (connection_has(c, CONNECTION_PROXY)) {
        if (!connection_has(c, CONNECTION_CLOSING))
            continue_proxy(c);
        return;
    }
    if (connection_has(c, CONNECTION_HANDSHAKE) && !connection_has(c, CONNECTION_CLOSING)) {
        continue_handshake(c);
        return;
    }
    /* Also after a read when no room is awaited: a TLS write may have waited for bytes to read. */
    if ((what & EV_WRITE) || (c->output && !connection_has(c, CONNECTION_WRITE_ARMED)))
        connection_mark_dirty(c);
    if (what & EV_READ)
        connection_receive(c);
}

static void on_deadline(struct connection *c) {
    if (connection_has(c, CONNECTION_CLOSING)) {
        connection_set(c, CONNECTION_ABRUPT);
        connection_mark_dirty(c);
        return;
    }
    if (connection_has(c, CONNECTION_PROXY))
        proxy_refuse(c, "its PROXY protocol header was not complete within mqtt.connect_timeout");
    if (connection_has(c, CONNECTION_HANDSHAKE | CONNECTION_PROXY)) {
        connection_set(c, CONNECTION_ABRUPT);
        connection_close(c, DG_ERR_TIMEOUT);
        return;
    }
    uint64_t next = c->protocol->deadline ? c->protocol->deadline(c, connection_now_ms(c)) : 0;
    if (connection_has(c, CONNECTION_CLOSING))
        return;
    if (next == 0)
        connection_close(c, DG_ERR_KEEP_ALIVE);
    else
        connection_set_deadline(c, next);
}

static void on_wheel_timer(evutil_socket_t fd, short what, void *context) {
    struct connection_pool *pool = context;
    worker_refresh_time(pool->worker);
    wheel_advance(&pool->wheel, pool->worker->now_ns / 1000000u, on_deadline);
    if (pool->wheel.count == 0)
        event_del(&pool->wheel_timer);
}

static void receive_again(struct connection *list) {
    for (struct connection *c = list; c; c = c->dirty_next)
        if (connection_has(c, CONNECTION_AGAIN) && !connection_has(c, CONNECTION_CLOSING))
            connection_receive(c);
}

/* Connections only join the lists in front while they are walked; they leave them at the turn's
 * end. */
static void on_again(evutil_socket_t fd, short what, void *context) {
    struct connection_pool *pool = context;
    worker_refresh_time(pool->worker);
    receive_again(pool->deferred);
    receive_again(pool->dirty);
}

static void end_turn_of(struct connection *c) {
    if (connection_has(c, CONNECTION_LINGERING)) {
        if (connection_has(c, CONNECTION_ABRUPT))
            free_connection(c);
        return;
    }
    bool had_output = c->output != NULL;
    int flushed = connection_has(c, CONNECTION_HANDSHAKE) ? 1 : connection_flush(c);
    if (flushed < 0) {
        connection_set(c, CONNECTION_ABRUPT);
        connection_close(c, flushed);
    }
    if (connection_has(c, CONNECTION_CLOSING)) {
        if (flushed != 0 || connection_has(c, CONNECTION_ABRUPT))
            finish_close(c);
        return;
    }
    if (flushed == 1 && connection_has(c, CONNECTION_WRITE_ARMED))
        connection_arm(c, connection_has(c, CONNECTION_READ_ARMED), false);
    if (flushed == 1 && had_output && c->protocol->drained)
        c->protocol->drained(c);
    if (connection_has(c, CONNECTION_AGAIN))
        connection_mark_dirty(c);
}

static void end_turn_of_all(struct connection *list) {
    while (list) {
        struct connection *c = list;
        list = c->dirty_next;
        connection_clear(c, CONNECTION_DIRTY);
        end_turn_of(c);
    }
}

/* The pool's turn hook. */
static void end_turn(void *context) {
    struct connection_pool *pool = context;
    struct connection *deferred = pool->deferred, *dirty = pool->dirty;
    pool->handshake_steps = 0;
    pool->extent_bytes = 0;
    pool->dirty = pool->deferred = NULL;
    end_turn_of_all(deferred);
    end_turn_of_all(dirty);
    if (pool->dirty || pool->deferred) {
        static const struct timeval at_once = {0, 0};
        evtimer_add(&pool->again_timer, &at_once);
    }
}

/* ---- accepting ---- */

static void set_peer(struct connection *c) {
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    if (getpeername(c->fd, (struct sockaddr *)&address, &size) < 0)
        return;
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
        c->peer_address = v6->sin6_addr;
        c->peer_port = ntohs(v6->sin6_port);
    } else if (address.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
        c->peer_address.s6_addr[10] = c->peer_address.s6_addr[11] = 0xff;
        memcpy(&c->peer_address.s6_addr[12], &v4->sin_addr, sizeof(v4->sin_addr));
        c->peer_port = ntohs(v4->sin_port);
    }
}

static void begin_connection(struct connection *c) {
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    connection_arm(c, true, false);
    if (connection_has(c, CONNECTION_PROXY))
        connection_set_deadline(c, connection_now_ms(c) + c->worker->config->mqtt_connect_timeout);
    else
        begin_layers(c);
}

static struct connection *admit(struct worker *worker, const struct connection_listener *listener,
                                int fd) {
    struct connection *c = worker->stopping ? NULL : take_slot(worker->connections);
    if (!c)
        return NULL;
    c->worker = worker;
    c->listener = listener;
    c->protocol = listener->protocol;
    c->fd = fd;
    c->input_limit_bytes = LIMIT_BEFORE_LOGIN_BYTES;
    c->accepted_low_ms = (uint32_t)connection_now_ms(c);
    connection_set(c, CONNECTION_SECRETS);
    set_peer(c);
    if (proxy_is_awaited(c)) {
        connection_set(c, CONNECTION_PROXY);
        return c;
    }
    if (admit_peer(c))
        return c;
    give_slot_back(worker->connections, c);
    return NULL;
}

static void on_hand_over(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct hand_over *hand_over = (struct hand_over *)mail;
    const struct connection_listener *listener = hand_over->listener;
    int fd = hand_over->fd;
    free(hand_over);
    struct connection *c = admit(worker, listener, fd);
    if (!c) {
        metric_add(METRIC_CONNECTIONS_REFUSED, 1);
        atomic_fetch_sub_explicit(&worker->load, 1, memory_order_relaxed);
        close(fd);
        return;
    }
    begin_connection(c);
}

void connection_hand_over(struct worker *worker, int fd,
                          const struct connection_listener *listener) {
    struct hand_over *hand_over = malloc(sizeof(*hand_over));
    if (!hand_over) {
        metric_add(METRIC_CONNECTIONS_REFUSED, 1);
        close(fd);
        return;
    }
    *hand_over = (struct hand_over){.mail.deliver = on_hand_over, .listener = listener, .fd = fd};
    atomic_fetch_add_explicit(&worker->load, 1, memory_order_relaxed);
    mailbox_post(&worker->mailbox, &hand_over->mail);
}

/* ---- the pool's life ---- */

int connection_pool_create(struct worker *worker) {
    struct connection_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return DG_ERR_NO_MEMORY;
    pool->worker = worker;
    evtimer_assign(&pool->again_timer, worker->base, on_again, pool);
    event_assign(&pool->wheel_timer, worker->base, -1, EV_PERSIST, on_wheel_timer, pool);
    worker->connections = pool;
    worker_add_turn_hook(worker, end_turn, pool);
    return 0;
}

static void for_each_live(struct connection_pool *pool, void (*visit)(struct connection *, int),
                          int err) {
    uint32_t count = pool->slab_count * CONNECTION_SLAB_SIZE;
    for (uint32_t i = 0; i < count; i++)
        if (connection_has(connection_slot(pool, i), CONNECTION_LIVE))
            visit(connection_slot(pool, i), err);
}

static void close_at_once(struct connection *c, int err) {
    connection_close(c, err);
    connection_set(c, CONNECTION_ABRUPT);
    connection_mark_dirty(c);
}

void connection_pool_close_all(struct worker *worker, int err) {
    for_each_live(worker->connections, close_at_once, err);
}

static void discard(struct connection *c, int err) {
    if (!connection_has(c, CONNECTION_CLOSING))
        c->close_err = (int16_t)err;
    connection_set(c, CONNECTION_CLOSING);
    call_closed(c);
    connection_clear(c, CONNECTION_DIRTY);
    free_connection(c);
}

void connection_pool_free(struct worker *worker) {
    struct connection_pool *pool = worker->connections;
    if (!pool)
        return;
    for_each_live(pool, discard, DG_ERR_SHUTTING_DOWN);
    event_del(&pool->again_timer);
    event_del(&pool->wheel_timer);
    for (unsigned i = 0; i < pool->slab_count; i++)
        free(pool->slabs[i]);
    free(pool->slabs);
    output_free_chunks(pool);
    SSL_CTX_free(pool->tls_context);
    free(pool);
    worker->connections = NULL;
}

/* ---- small public functions ---- */

void connection_pause(struct connection *c) {
    connection_set(c, CONNECTION_PAUSED);
}

void connection_resume(struct connection *c) {
    if (!connection_has(c, CONNECTION_PAUSED))
        return;
    connection_clear(c, CONNECTION_PAUSED);
    if (connection_has(c, CONNECTION_CLOSING))
        return;
    connection_arm(c, true, connection_has(c, CONNECTION_WRITE_ARMED));
    if (c->input || c->tls) { /* TLS: bytes or an end that OpenSSL has seen already */
        connection_set(c, CONNECTION_AGAIN);
        connection_mark_dirty(c);
    }
}

bool connection_peer_is_gone(const struct connection *c) {
    struct pollfd end = {.fd = c->fd, .events = POLLRDHUP};
    return connection_has(c, CONNECTION_CLOSING) || poll(&end, 1, 0) > 0;
}

void connection_set_deadline(struct connection *c, uint64_t deadline_ms) {
    struct connection_pool *pool = c->worker->connections;
    bool was_empty = pool->wheel.count == 0;
    wheel_set(&pool->wheel, c, deadline_ms, connection_now_ms(c));
    if (was_empty && pool->wheel.count > 0) {
        static const struct timeval slot = {0, WHEEL_SLOT_MS * 1000};
        event_add(&pool->wheel_timer, &slot);
    }
}

bool connection_peer_is_loopback(const struct connection *c) {
    if (IN6_IS_ADDR_V4MAPPED(&c->peer_address))
        return c->peer_address.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&c->peer_address);
}

bool connection_is_encrypted(const struct connection *c) {
    return c->tls != NULL;
}

bool connection_may_carry_secrets(const struct connection *c) {
    return connection_is_encrypted(c) || connection_peer_is_loopback(c) ||
           c->worker->config->security_allow_plaintext_passwords;
}

void connection_format_peer(const struct connection *c, char *ret_text) {
    char address[INET6_ADDRSTRLEN] = "?";
    bool v4 = IN6_IS_ADDR_V4MAPPED(&c->peer_address);
    if (v4)
        inet_ntop(AF_INET, &c->peer_address.s6_addr[12], address, sizeof(address));
    else
        inet_ntop(AF_INET6, &c->peer_address, address, sizeof(address));
    snprintf(ret_text, CONNECTION_PEER_TEXT_SIZE, v4 ? "%s:%u" : "[%s]:%u", address, c->peer_port);
}
