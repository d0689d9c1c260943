/*
 * The way in: socket, TLS, WebSocket, protocol. Bytes land in the worker's read buffer and are
 * parsed there. A short rest of the last read is copied in front of the next one, so that the
 * protocol always sees one run; a long rest (part of a large packet) grows in a buffer of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/transport/transport.h"

enum {
    REST_COPIED_BYTES_MAX = 16 * 1024, /* longer rests are not copied to the read buffer again */
    REST_GROW_BYTES = 64 * 1024,
    SHORT_RECORD_BYTES = 8 * 1024,
};

void connection_free_input(struct connection *c) {
    if (!c->input)
        return;
    buffer_free(c->input);
    free(c->input);
    c->input = NULL;
}

struct buffer *connection_input(struct connection *c) {
    if (!c->input)
        c->input = calloc(1, sizeof(*c->input));
    if (c->input)
        c->input->is_secret = connection_has(c, CONNECTION_SECRETS);
    return c->input;
}

static size_t kept_size(const struct connection *c) {
    return c->input ? buffer_size(c->input) : 0;
}

static ssize_t socket_read(struct connection *c, uint8_t *data, size_t size) {
    for (;;) {
        ssize_t count = recv(c->fd, data, size, 0);
        if (count > 0)
            return count;
        if (count == 0)
            return DG_ERR_CLOSED;
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return DG_ERR_CLOSED;
    }
}

static bool may_offer(const struct connection *c) {
    return (c->flags & (CONNECTION_OPENED | CONNECTION_PAUSED | CONNECTION_CLOSING)) ==
           CONNECTION_OPENED;
}

/* Offers bytes to the protocol; how many it used. An error closes the connection and uses all. */
static size_t offer(struct connection *c, const uint8_t *data, size_t size) {
    if (size == 0 || !may_offer(c))
        return 0;
    ssize_t used = c->protocol->receive(c, data, size);
    if (used < 0) {
        connection_close(c, (int)used);
        return size;
    }
    dg_assert((size_t)used <= size);
    return (size_t)used;
}

/* Makes the rest the connection's own. The caller keeps reads within the limit, so passing it means
 * that the protocol waits for more than it may have. */
static void keep_rest(struct connection *c, const uint8_t *data, size_t size) {
    if (size == 0 || connection_has(c, CONNECTION_CLOSING))
        return;
    struct buffer *input = connection_input(c);
    int err = input ? buffer_append(input, data, size, c->input_limit_bytes) : DG_ERR_NO_MEMORY;
    if (err < 0)
        connection_close(c, err);
    else if (kept_size(c) >= c->input_limit_bytes && !connection_has(c, CONNECTION_PAUSED))
        connection_close(c, DG_ERR_LIMIT);
}

static void consume_kept(struct connection *c, size_t count) {
    buffer_consume(c->input, count);
    if (buffer_size(c->input) == 0)
        connection_free_input(c);
}

static void offer_kept(struct connection *c);

/* What came before a broken or closing frame still counts: it is offered first. */
static void unwrap_and_offer(struct connection *c, const uint8_t *raw, size_t size) {
    int err = websocket_unwrap(c, raw, size);
    offer_kept(c);
    if (err < 0)
        connection_close(c, err);
}

/* Offers the kept rest in place. */
static void offer_kept(struct connection *c) {
    if (!c->input || !may_offer(c))
        return;
    struct websocket *before = c->websocket;
    struct slice all = buffer_slice(c->input);
    size_t used = offer(c, all.data, all.size);
    if (c->websocket == before) {
        consume_kept(c, used);
        if (kept_size(c) >= c->input_limit_bytes && may_offer(c))
            connection_close(c, DG_ERR_LIMIT);
        return;
    }
    /* Upgraded within receive(): what follows the request is frames, not yet unwrapped. */
    struct buffer *raw = c->input;
    c->input = NULL;
    unwrap_and_offer(c, all.data + used, all.size - used);
    buffer_free(raw);
    free(raw);
}

/* A run in the worker's read buffer: offer it, keep the rest. */
static void offer_run(struct connection *c, const uint8_t *data, size_t size) {
    struct websocket *before = c->websocket;
    size_t used = offer(c, data, size);
    if (c->websocket == before) {
        keep_rest(c, data + used, size - used);
        return;
    }
    unwrap_and_offer(c, data + used, size - used);
}

/* How much the next read may bring without passing what the connection may keep. */
static size_t read_allowance(const struct connection *c, size_t room) {
    size_t kept = kept_size(c);
    size_t left = c->input_limit_bytes > kept ? c->input_limit_bytes - kept : 0;
    return left < room ? left : room;
}

/* The next turn reads on, whatever epoll says. */
static void read_again(struct connection *c) {
    connection_set(c, CONNECTION_AGAIN);
    connection_mark_dirty(c);
}

/* TLS hands out a record at a time; several are gathered so that the protocol sees one run. After a
 * short record with nothing behind it epoll knows better than one more read. What epoll cannot see
 * is left to the next turn: records inside OpenSSL, and an end of the stream behind these bytes. */
static ssize_t read_encrypted_run(struct connection *c, uint8_t *data, size_t size) {
    size_t total = 0;
    bool pending = true;
    while (total < size) {
        ssize_t count = tls_session_read(c, data + total, size - total);
        if (count <= 0 && total == 0)
            return count;
        if (count < 0)
            read_again(c);
        pending = count > 0 && tls_session_has_pending(c);
        if (count <= 0)
            break;
        total += (size_t)count;
        if (!pending && count < SHORT_RECORD_BYTES)
            break;
    }
    if (total == size && pending)
        read_again(c);
    return (ssize_t)total;
}

static ssize_t read_run(struct connection *c, uint8_t *data, size_t size) {
    ssize_t count = c->tls ? read_encrypted_run(c, data, size) : socket_read(c, data, size);
    if (count > 0)
        metric_add(METRIC_RECEIVED_BYTES, count);
    return count;
}

/* The worker's buffer is everybody's: what may hold a secret does not stay there. */
static void wipe_read_buffer(struct worker *worker, bool had_secrets, size_t size) {
    if (had_secrets)
        explicit_bzero(worker->read_buffer, size);
}

static ssize_t read_websocket(struct connection *c) {
    bool has_secrets = connection_has(c, CONNECTION_SECRETS);
    size_t room = read_allowance(c, LIMIT_READ_BUFFER_BYTES);
    ssize_t count = read_run(c, c->worker->read_buffer, room);
    if (count <= 0)
        return count;
    unwrap_and_offer(c, c->worker->read_buffer, (size_t)count);
    wipe_read_buffer(c->worker, has_secrets, (size_t)count);
    return count;
}

/* The kept rest is long: read behind it. */
static ssize_t read_to_kept(struct connection *c) {
    size_t room = read_allowance(c, REST_GROW_BYTES);
    int err = buffer_reserve(c->input, room, c->input_limit_bytes);
    if (err < 0)
        return err;
    ssize_t count = read_run(c, c->input->data + c->input->end, room);
    if (count <= 0)
        return count;
    c->input->end += (size_t)count;
    offer_kept(c);
    return count;
}

static ssize_t read_in_place(struct connection *c) {
    uint8_t *start = c->worker->read_buffer;
    bool has_secrets = connection_has(c, CONNECTION_SECRETS);
    size_t kept = kept_size(c);
    size_t room = read_allowance(c, LIMIT_READ_BUFFER_BYTES - kept);
    ssize_t count = read_run(c, start + kept, room);
    if (count <= 0)
        return count;
    if (kept > 0)
        memcpy(start, c->input->data + c->input->start, kept);
    connection_free_input(c);
    offer_run(c, start, kept + (size_t)count);
    wipe_read_buffer(c->worker, has_secrets, kept + (size_t)count);
    return count;
}

static ssize_t read_once(struct connection *c) {
    if (read_allowance(c, 1) == 0)
        return DG_ERR_LIMIT;
    if (c->websocket)
        return read_websocket(c);
    return kept_size(c) > REST_COPIED_BYTES_MAX ? read_to_kept(c) : read_in_place(c);
}

/* Closed by the peer or broken: nothing more can be sent either (a half-close counts as a close).
 */
static void end_of_input(struct connection *c, int err) {
    connection_set(c, CONNECTION_ABRUPT);
    connection_close(c, err);
}

/* A bounded number of reads, then the others have their turn. */
static void read_some(struct connection *c) {
    size_t total = 0;
    for (unsigned reads = 0; reads < CONNECTION_TURN_READS && may_offer(c); reads++) {
        ssize_t count = read_once(c);
        if (count < 0)
            end_of_input(c, (int)count);
        if (count <= 0)
            return;
        total += (size_t)count;
        if ((size_t)count < LIMIT_READ_BUFFER_BYTES / 2 || total >= CONNECTION_TURN_BYTES)
            return; /* drained, most likely; epoll knows better than one more read */
    }
}

void connection_receive(struct connection *c) {
    bool again = connection_has(c, CONNECTION_AGAIN);
    connection_clear(c, CONNECTION_AGAIN);
    if (!may_offer(c)) {
        connection_arm(c, false, connection_has(c, CONNECTION_WRITE_ARMED));
        return;
    }
    if (again)
        offer_kept(c);
    read_some(c);
}
