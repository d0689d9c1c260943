/*
 * HTTP/1.1 on the shared transport: parsing, limits, routing, responses. Wire only: what a route
 * does belongs to whoever registers it (gateway/main.c brings provisioning's routes here).
 *
 * One exchange is in progress per connection; pipelined requests wait. A handler answers at once or
 * later, always on the worker that owns the connection, and exactly once.
 */
#pragma once

#include "common/err.h"
#include "common/slice.h"
#include "gateway/transport/connection.h"

enum http_method {
    HTTP_METHOD_GET,
    HTTP_METHOD_PUT,
    HTTP_METHOD_POST,
    HTTP_METHOD_PATCH,
    HTTP_METHOD_DELETE,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_OPTIONS,
    HTTP_METHOD_COUNT
};

enum { HTTP_PATH_PARAMETERS_MAX = 6 };

struct http_exchange;

struct http_route {
    enum http_method method;
    const char *pattern; /* "/v1/tenants/{tenant}/devices/{device}"; a parameter is one segment */
    uint32_t body_limit_bytes;
    void (*handle)(struct http_exchange *exchange, const struct http_route *route);
    const void *context; /* the registrant's own row */
    /* When the head is whole: answers, or calls http_continue(), now or later. Until then no byte
     * of the body is read. NULL: the body is welcome. */
    void (*begin)(struct http_exchange *exchange, const struct http_route *route);
};

/* The routes of one kind of listener: connection_listener.context of an HTTP listener. */
struct http_routes {
    const struct http_route *const *tables; /* NULL-terminated list of tables ... */
    /* ... each ended by a row whose pattern is NULL */
    /* WebSocket: path -> protocol after the upgrade, NULL-terminated by path; NULL for none */
    const struct http_websocket {
        const char *path;
        const char *subprotocol; /* "mqtt"; required of the client */
        const struct connection_protocol *protocol;
    } * websockets;
};

extern const struct connection_protocol http_protocol;

/* ---- request, valid until the response ---- */
struct worker *http_worker(struct http_exchange *x);
/* An id for messages to other threads; http_find() gives the exchange back, or NULL when the peer
 * has gone (then nothing needs to be answered). */
uint64_t http_exchange_id(struct http_exchange *x);
struct http_exchange *http_find(struct worker *worker, uint64_t exchange_id);

struct slice http_path_parameter(struct http_exchange *x, const char *name); /* percent-decoded */
/* Decoded value of a query parameter; false when absent. */
bool http_query_parameter(struct http_exchange *x, const char *name, struct slice *ret_value);
/* The name of the parameter with this number, from 0 on; false when there are no more. */
bool http_query_name(struct http_exchange *x, unsigned number, struct slice *ret_name);
/* Header value, name compared without case; false when absent. */
bool http_request_header(struct http_exchange *x, const char *name, struct slice *ret_value);
/* How often the request has this field. */
unsigned http_request_header_count(struct http_exchange *x, const char *name);
struct slice http_request_body(struct http_exchange *x);
struct slice http_request_target(struct http_exchange *x);
enum http_method http_request_method(struct http_exchange *x);
struct connection *http_connection(struct http_exchange *x);
/* The registrant's own data for the time of the exchange; freed with free_fn when it ends. */
void http_set_context(struct http_exchange *x, void *context, void (*free_fn)(void *));
void *http_context(struct http_exchange *x);

/* For a route's begin: the body is welcome, and handle is called when it is whole, maybe at once;
 * the exchange may have ended on return. */
void http_continue(struct http_exchange *x);

/* ---- response ---- */
/* Adds a header before http_respond(); name and value are copied; CR and LF are refused. */
void http_add_header(struct http_exchange *x, const char *name, const char *value);
/* Ends the exchange. body may be empty; content_type NULL when it is. HEAD sends no body. Head and
 * body together stay below LIMIT_OUTPUT_BYTES, or the connection closes: long lists come in pages.
 */
void http_respond(struct http_exchange *x, unsigned status, const char *content_type,
                  struct slice body);
/* RFC 9457 problem from the error table: {"type","title","status","detail"}. */
void http_respond_problem(struct http_exchange *x, int err, const char *detail);

/* Per-worker state; before worker_start(). */
DG_NODISCARD int http_worker_start(struct worker *worker);
