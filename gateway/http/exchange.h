/*
 * What the files of http/ share: a connection's HTTP state and the exchange in progress. Worker's
 * thread only.
 */
#pragma once

#include "gateway/http/http.h"
#include "gateway/http/http_parse.h"
#include "gateway/http/target.h"

struct http_session {
    struct http_exchange *exchange; /* NULL between requests */
    bool begun;                     /* bytes of a head have come */
    bool receiving;                 /* inside receive(): no need to pause or resume */
    bool ended;                     /* no further request will be read */
};

struct http_exchange {
    struct connection *connection;
    const struct http_route *route;
    enum http_method method;
    bool handling;   /* begin or the handler was called: an answer is owed */
    bool begun;      /* begin has welcomed the body */
    bool keep_alive; /* the peer wants it */
    bool head_only;  /* HEAD */
    bool chunked;
    uint64_t body_expected; /* without chunks */
    struct buffer body;
    struct http_chunks chunks;
    struct buffer headers; /* added by the handler, ready to send */
    bool own_cache_control;
    size_t bytes_size;
    void *context;
    void (*free_context)(void *);
    struct http_target target;
    struct http_head head;
    /* The head as received, then a copy of its target that is decoded in place. */
    uint8_t bytes[];
};

static inline bool http_body_complete(const struct http_exchange *x) {
    return x->chunked ? x->chunks.complete : buffer_size(&x->body) == x->body_expected;
}

/* ---- http.c ---- */
/* The answer is queued: the exchange ends, the connection closes or takes the next request. */
void http_end_exchange(struct http_exchange *x, bool close);
/* Frees what HTTP kept of a connection that has become a WebSocket. */
void http_free_session(struct http_session *session);
/* Answers a request that has no exchange, or not a whole one, and closes. */
void http_refuse(struct connection *c, unsigned status, int err, const char *detail);

/* ---- route.c ---- */
/* The route of this method and path, or NULL; then *ret_allowed says which methods the path has, as
 * a bit per enum http_method. HEAD is served by GET's route. */
const struct http_route *http_route_find(const struct http_routes *routes,
                                         const struct http_target *target, enum http_method method,
                                         unsigned *ret_allowed);
/* Which segment the pattern calls by this name, or -1. */
int http_route_parameter(const struct http_route *route, const char *name);
/* The name of a method, and back (HTTP_METHOD_COUNT for one we do not have). */
const char *http_method_name(enum http_method method);
enum http_method http_method_parse(struct slice name);

/* ---- response.c ---- */
struct http_answer {
    unsigned status;
    const char *content_type; /* NULL without a body */
    struct slice body;
    struct slice headers; /* whole lines */
    bool head_only, close, own_cache_control;
};
void http_write_answer(struct connection *c, const struct http_answer *answer);
/* Appends a problem of RFC 9457. err 0: about:blank with the status's own title. */
int http_format_problem(struct buffer *out, unsigned status, int err, const char *detail);
const char *http_status_text(unsigned status);

/* ---- upgrade.c ---- */
/* The WebSocket row of this path, or NULL. */
const struct http_websocket *http_websocket_find(const struct http_routes *routes,
                                                 struct slice path);
/* Answers the handshake; on success the connection speaks the row's protocol and the exchange and
 * the session are gone. */
void http_upgrade(struct http_exchange *x, const struct http_websocket *row);
