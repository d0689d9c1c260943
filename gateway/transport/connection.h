/*
 * One connection: socket, optional TLS, optional WebSocket framing, and one protocol above them.
 * From a listed proxy, the header that names the client comes before all of it.
 *
 * It belongs to the worker that it was given to, for ever; every function here is called on that
 * worker's thread. Other threads name it by its id (index and generation), never by pointer. An
 * idle connection owns no buffer: bytes are read into the worker's buffer, parsed in place, and
 * only an incomplete rest is kept.
 *
 * Order of callbacks: open, then receive / drained / deadline in any order, then closed exactly
 * once. connection_close() defers: the object stays valid until the turn ends.
 */
#pragma once

#include <event2/event.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buffer.h"
#include "common/err.h"
#include "common/slice.h"
#include "gateway/loop/worker.h"
#include "storage/stream.h"

struct connection;
struct tls_session; /* transport/tls.c */
struct websocket;   /* transport/websocket.c */
struct connection_output;

struct connection_protocol {
    const char *name; /* "mqtt", "kafka", "http": metrics and log lines */
    /* A new connection, TLS done. Sets connection->session. 0, or an error that closes it (then
     * closed() is not called). */
    int (*open)(struct connection *connection);
    /*
     * Bytes received: everything unread so far. Returns how many were used (the rest is offered
     * again, with more behind it), or a negative enum dg_err, which closes the connection. While
     * reading is paused nothing is offered. The protocol bounds what it leaves unused: past
     * connection->input_limit_bytes the connection is closed.
     */
    ssize_t (*receive)(struct connection *connection, const uint8_t *data, size_t size);
    /* All output was handed to the kernel. May be NULL. */
    void (*drained)(struct connection *connection);
    /* The deadline passed. Returns the next one (monotonic ms), or 0 to close with
     * DG_ERR_KEEP_ALIVE; the protocol may also call connection_close() itself. */
    uint64_t (*deadline)(struct connection *connection, uint64_t now_ms);
    bool has_secrets; /* in every request, not only in a login: all input is wiped after use */
    /* Last call; err says why (DG_ERR_CLOSED: by the peer). Frees connection->session. */
    void (*closed)(struct connection *connection, int err);
    size_t output_limit_bytes; /* unsent; 0: LIMIT_OUTPUT_BYTES */
};

/* What the accepting socket says about its connections; immutable, outlives them. */
struct connection_listener {
    const char *name; /* "mqtt", "mqtts", "kafka", ...: log lines */
    const struct connection_protocol *protocol;
    bool tls;
    bool is_paced;       /* accepts no more in a second than listener_set_pace() says */
    const void *context; /* the protocol's own, e.g. the routes of this listener */
};

struct connection {
    struct event event;
    struct worker *worker;
    const struct connection_listener *listener;
    const struct connection_protocol *protocol;
    void *session; /* the protocol's */
    struct tls_session *tls;
    struct websocket *websocket;
    struct connection_output *output; /* NULL while nothing is unsent */
    struct buffer *input;             /* NULL while nothing is unparsed */
    uint32_t input_limit_bytes;       /* LIMIT_BEFORE_LOGIN_BYTES until the protocol raises it */
    uint32_t index, generation;
    uint32_t accepted_low_ms; /* connection_accepted_ms() */
    /* private to transport/ below */
    uint64_t deadline_ms;
    struct connection *wheel_next, **wheel_link;
    struct connection *dirty_next;
    int fd;
    int16_t close_err;
    uint16_t flags;
    struct in6_addr peer_address; /* IPv4 as mapped; the client that a listed proxy named */
    uint16_t peer_port;
    uint32_t arrival_before, arrival_behind; /* arrival.c */
};

/* When it was accepted, monotonic; right for 49 days. */
static inline uint64_t connection_accepted_ms(const struct connection *c) {
    uint64_t now_ms = c->worker->now_ns / 1000000u;
    return now_ms - (uint32_t)((uint32_t)now_ms - c->accepted_low_ms);
}

static inline uint64_t connection_id(const struct connection *c) {
    return (uint64_t)c->index << 32 | c->generation;
}

/* The live connection of this id, or NULL when it has gone. */
struct connection *connection_find(struct worker *worker, uint64_t id);

/* Creates the worker's pool and its turn hook (flush). Before worker_start(), and after every other
 * turn hook was added, so that what those write leaves in the same turn. */
DG_NODISCARD int connection_pool_create(struct worker *worker);
/* Worker's thread: closes all with err, sends what is pending if the peer takes it at once. */
void connection_pool_close_all(struct worker *worker, int err);
/* After the thread ended; worker_free() calls it. Harmless without a pool. */
void connection_pool_free(struct worker *worker);

/* Any thread: gives an accepted socket to a worker. Takes ownership of fd. */
void connection_hand_over(struct worker *worker, int fd,
                          const struct connection_listener *listener);

/* Queues bytes (copied); they leave when the turn ends. More unsent than LIMIT_OUTPUT_BYTES, or the
 * protocol's own limit, closes the connection with DG_ERR_LIMIT. */
void connection_write(struct connection *c, const void *data, size_t size);

/* Queues stored batches behind the bytes queued so far (sendfile in plain text). Takes over the
 * extent. Extents do not count towards LIMIT_OUTPUT_BYTES. */
void connection_write_extent(struct connection *c, struct stream_extent *extent);

/* Bytes queued and not yet taken by the kernel. */
size_t connection_unsent(const struct connection *c);

/* Stops and restarts offering input; bytes already read are kept and offered on resume (in the same
 * turn at the earliest after the caller returned). */
void connection_pause(struct connection *c);
void connection_resume(struct connection *c);

/* Whether the peer has closed its side, which nobody notices while input is paused; asks the
 * kernel.
 */
bool connection_peer_is_gone(const struct connection *c);

/* Closes: no more input, later writes are ignored, pending output is sent (for at most 2 s), then
 * closed(), at a turn's end. err is what closed() is told. */
void connection_close(struct connection *c, int err);

/* One deadline per connection, monotonic ms, 0 for none; coarse (100 ms). Cheap to move later:
 * store the last activity and answer from deadline(). */
void connection_set_deadline(struct connection *c, uint64_t deadline_ms);

/* The peer has shown who it is: it no longer counts among the unknown ones of its source, and what
 * it sends from now on is not wiped (unless the protocol has secrets throughout). */
void connection_set_known(struct connection *c);

/* Replaces the protocol after an HTTP upgrade; frames are unwrapped and wrapped from here on.
 * Leftover bytes of the HTTP layer are the caller's returned count. */
DG_NODISCARD int connection_upgrade_websocket(struct connection *c,
                                              const struct connection_protocol *protocol);

/* The client certificate chain the handshake proved possession of: leaf DER then the rest,
 * concatenated, malloc'd. DG_ERR_NOT_FOUND when there is none. */
DG_NODISCARD int connection_peer_certificates(struct connection *c, uint8_t **ret_der,
                                              size_t *ret_size, size_t *ret_leaf_size);

enum { CONNECTION_PEER_TEXT_SIZE = 64 };
/* "192.0.2.7:5123" or "[2001:db8::1]:5123", NUL-terminated. */
void connection_format_peer(const struct connection *c, char *ret_text);
/* True when the bytes never leave the machine: plain-text passwords are allowed then. */
bool connection_peer_is_loopback(const struct connection *c);
bool connection_is_encrypted(const struct connection *c);
/* Passwords and keys may come this way: encrypted, from this machine, or by explicit switch. */
bool connection_may_carry_secrets(const struct connection *c);
