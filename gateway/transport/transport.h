/*
 * What the files of transport/ share and nobody else sees: the per-worker pool, the flags of a
 * connection, and the layers between socket and protocol. Worker's thread only, unless noted.
 *
 * Byte counts of the layers: > 0 bytes moved, 0 not now (the socket would block), < 0 enum dg_err
 * (DG_ERR_CLOSED: end of the stream).
 */
#pragma once

#include <event2/event_struct.h>
#include <openssl/ssl.h>

#include "common/log.h"
#include "gateway/transport/arrival.h"
#include "gateway/transport/connection.h"
#include "gateway/transport/wheel.h"

enum connection_flag {
    CONNECTION_LIVE = 1 << 0,      /* the slot is in use */
    CONNECTION_OPENED = 1 << 1,    /* open() succeeded and closed() is still owed */
    CONNECTION_HANDSHAKE = 1 << 2, /* TLS is not done */
    CONNECTION_PAUSED = 1 << 3,    /* by the protocol */
    CONNECTION_CLOSING = 1 << 4,   /* no more input, no more output is taken */
    CONNECTION_DIRTY = 1 << 5,     /* on the dirty list: the turn's end looks at it */
    CONNECTION_AGAIN = 1 << 6,     /* input is waiting that epoll does not know of */
    CONNECTION_WRITE_ARMED = 1 << 7,
    CONNECTION_READ_ARMED = 1 << 8,
    CONNECTION_ABRUPT = 1 << 9,     /* unsent output is dropped after one try */
    CONNECTION_LINGERING = 1 << 10, /* closed() was called; waiting for the peer's end */
    CONNECTION_SILENT = 1 << 11,    /* in a line: no byte has come ... */
    CONNECTION_SHAKING = 1 << 12,   /* ... or some have, and TLS is not done */
    CONNECTION_UNKNOWN = 1 << 13,   /* counted for its source */
    CONNECTION_SECRETS = 1 << 14,   /* input may hold passwords or keys: it is wiped */
    CONNECTION_PROXY = 1 << 15,     /* it owes the header of server.proxy_sources */
};

enum {
    CONNECTION_SLAB_SIZE = 256,
    CONNECTION_LINGER_MS = 2000,
    CONNECTION_TURN_BYTES = 512 * 1024, /* read or written by one connection per turn */
    CONNECTION_TURN_READS = 4,
    TURN_EXTENT_BYTES = 512 * 1024, /* of the stream, written by all: some 0.2 ms, for the same */
    HANDSHAKE_STEPS_PER_TURN = 32,  /* at some 0.2 ms each; acknowledgements must not wait longer */
    OUTPUT_CHUNK_BYTES = 4096,
    OUTPUT_FREE_CHUNKS_MAX = 1024,
    TLS_COPY_BYTES = 64 * 1024,
};

struct output_part;

struct connection_pool {
    struct worker *worker;
    struct connection **slabs;
    unsigned slab_count, live_count;
    struct arrivals arrivals;
    struct log_sample proxy_refusals;
    unsigned handshake_steps;     /* of this turn */
    struct connection *free_list; /* linked by dirty_next */
    struct connection *dirty;
    struct connection *deferred, *deferred_last; /* dirty too: first at the next turn's end */
    size_t extent_bytes;                         /* of this turn */
    struct event again_timer, wheel_timer;
    struct wheel wheel;
    struct output_part *free_chunks;
    unsigned free_chunk_count;
    SSL_CTX *tls_context; /* NULL until tls_install() */
    uint8_t tls_copy[TLS_COPY_BYTES];
};

static inline uint64_t connection_now_ms(const struct connection *c) {
    return c->worker->now_ns / 1000000u;
}
static inline bool connection_has(const struct connection *c, unsigned flags) {
    return (c->flags & flags) != 0;
}
static inline void connection_set(struct connection *c, unsigned flags) {
    c->flags = (uint16_t)(c->flags | flags);
}
static inline void connection_clear(struct connection *c, unsigned flags) {
    c->flags = (uint16_t)(c->flags & ~flags);
}

/* ---- connection.c ---- */
struct connection *connection_slot(const struct connection_pool *pool, uint32_t index);
/* The turn's end will flush, close or read on. */
void connection_mark_dirty(struct connection *c);
/* The same, before all that are marked dirty and behind those that were put off before: the turn
 * has written enough of the stream. */
void connection_defer(struct connection *c);
/* Brings the registered events in line with the flags. A failure closes the connection. */
void connection_arm(struct connection *c, bool read, bool write);
/* Counts the connection under another protocol's gauge; amount 1 or -1. */
void connection_count(const struct connection_protocol *protocol, int amount);

/* ---- proxy_arrival.c ---- */
/* The peer is a listed proxy: its header comes first. */
bool proxy_is_awaited(const struct connection *c);
/* Reads as much of the header as is there. 1: the client it names is the peer now, 0: not yet all
 * of it, < 0 the end or a header that is refused. */
int proxy_receive(struct connection *c);
/* Counts and logs what is wrong with the header; the caller closes. */
void proxy_refuse(struct connection *c, const char *why);

/* ---- input.c ---- */
/* The socket is readable, or there may be bytes in TLS or in the kept rest. */
void connection_receive(struct connection *c);
/* The kept rest, with a buffer for it if there is none yet; NULL when memory is out. */
struct buffer *connection_input(struct connection *c);
/* Frees the kept rest. */
void connection_free_input(struct connection *c);

/* ---- output.c ---- */
/* Sends what the kernel takes. 1: all gone; 0: some is left (events armed, or dirty again for
 * fairness); < 0 error. */
int connection_flush(struct connection *c);
void connection_free_output(struct connection *c);
void output_free_chunks(struct connection_pool *pool);
/* Bytes that are already framed (WebSocket control frames): queued behind all written so far. */
void connection_write_raw(struct connection *c, const void *data, size_t size);

/* ---- tls_session.c ---- */
/* The worker has a certificate: attaches a new session to the connection. */
DG_NODISCARD int tls_session_create(struct connection *c);
/* 1: done, 0: not yet (events armed), < 0 failed. */
int tls_session_handshake(struct connection *c);
ssize_t tls_session_read(struct connection *c, uint8_t *data, size_t size);
ssize_t tls_session_write(struct connection *c, const uint8_t *data, size_t size);
/* Bytes wait inside OpenSSL, where epoll does not see them. */
bool tls_session_has_pending(const struct connection *c);
/* Sends close_notify if the peer takes it at once. */
void tls_session_shutdown(struct connection *c);
void tls_session_free(struct connection *c);

/* ---- websocket.c ---- */
/* Unwraps raw bytes and appends the payload to connection->input. 0 or < 0. */
int websocket_unwrap(struct connection *c, const uint8_t *data, size_t size);
/* Queues a close frame with the code that fits err. */
void websocket_close(struct connection *c, int err);
void websocket_free(struct connection *c);
