/*
 * The protocol of an HTTP listener: head, body, handler, answer, next request.
 *
 * One deadline covers a request from its first byte to the end of its answer; a second request of
 * the same connection starts a new one. An answer given before the whole body was read ends the
 * connection, since the rest of it would be read as a request.
 */
#include "gateway/http/http.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "gateway/http/exchange.h"

static struct http_session *session_of(const struct connection *c) {
    return c->session;
}

static const struct http_routes *routes_of(const struct connection *c) {
    return c->listener->context;
}

static uint64_t request_deadline(const struct connection *c) {
    const struct config *config = c->worker->config;
    return c->worker->now_ns / 1000000u + config->management_request_timeout;
}

/* ---- the end of an exchange ---- */

static void free_exchange(struct http_exchange *x) {
    if (x->free_context)
        x->free_context(x->context);
    buffer_free(&x->body);
    buffer_free(&x->headers);
    explicit_bzero(x->bytes, x->bytes_size); /* an Authorization, perhaps */
    free(x);
}

void http_free_session(struct http_session *session) {
    if (session->exchange)
        free_exchange(session->exchange);
    free(session);
}

void http_end_exchange(struct http_exchange *x, bool close) {
    struct connection *c = x->connection;
    struct http_session *session = session_of(c);
    session->exchange = NULL;
    session->begun = false;
    free_exchange(x);
    if (close) {
        session->ended = true;
        connection_close(c, 0);
        return;
    }
    connection_set_deadline(c, request_deadline(c));
    if (!session->receiving)
        connection_resume(c);
}

void http_refuse(struct connection *c, unsigned status, int err, const char *detail) {
    struct buffer body = {0};
    struct http_answer answer = {.status = status, .close = true};
    if (http_format_problem(&body, status, 0, detail) == 0) {
        answer.content_type = "application/problem+json";
        answer.body = buffer_slice(&body);
    }
    http_write_answer(c, &answer);
    buffer_free(&body);
    session_of(c)->ended = true;
    connection_close(c, err);
}

/* ---- dispatch ---- */

static void respond_status(struct http_exchange *x, unsigned status) {
    struct buffer body = {0};
    if (http_format_problem(&body, status, 0, NULL) < 0)
        buffer_free(&body);
    http_respond(x, status, "application/problem+json", buffer_slice(&body));
    buffer_free(&body);
}

static void respond_not_allowed(struct http_exchange *x, unsigned allowed) {
    char list[128] = "";
    for (unsigned method = 0; method < HTTP_METHOD_COUNT; method++) {
        if (!(allowed & 1u << method))
            continue;
        if (list[0])
            strcat(list, ", ");
        strcat(list, http_method_name(method));
    }
    http_add_header(x, "Allow", list);
    respond_status(x, 405);
}

/* Whether the request goes on: its route is known and its body may come. Otherwise it was answered.
 */
static bool find_route(struct http_exchange *x) {
    unsigned allowed = 0;
    x->route = http_route_find(routes_of(x->connection), &x->target, x->method, &allowed);
    x->handling = true; /* an answer may be given from here on */
    if (!x->route && allowed) {
        respond_not_allowed(x, allowed);
        return false;
    }
    if (!x->route) {
        http_respond_problem(x, DG_ERR_NOT_FOUND, NULL);
        return false;
    }
    if (x->body_expected > x->route->body_limit_bytes) {
        char detail[64];
        snprintf(detail, sizeof(detail), "the body may have at most %zu bytes here",
                 (size_t)x->route->body_limit_bytes);
        http_respond_problem(x, DG_ERR_TOO_LARGE, detail);
        return false;
    }
    x->handling = false;
    return true;
}

/* Expect: 100-continue is granted once the body is known to be welcome, unless it comes already;
 * anything else one may expect is refused (RFC 9110 10.1.1). */
static bool meet_expectation(struct http_exchange *x, bool body_follows) {
    struct slice value;
    if (!http_request_header(x, "Expect", &value))
        return true;
    if (!http_name_equals(value, "100-continue")) {
        x->handling = true;
        respond_status(x, 417);
        return false;
    }
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!body_follows && !http_body_complete(x))
        connection_write(x->connection, go_on, sizeof(go_on) - 1);
    return true;
}

static void dispatch(struct http_exchange *x) {
    x->handling = true;
    x->route->handle(x, x->route);
}

static void take_in_body(struct http_exchange *x, bool body_follows) {
    if (x->chunked)
        http_chunks_begin(&x->chunks, &x->body, x->route->body_limit_bytes);
    if (meet_expectation(x, body_follows) && http_body_complete(x))
        dispatch(x);
}

void http_continue(struct http_exchange *x) {
    struct connection *c = x->connection;
    struct http_session *session = session_of(c);
    dg_assert(x->handling && !x->begun);
    x->begun = true;
    x->handling = false;
    take_in_body(x, c->input != NULL);
    if (session->exchange == x && !x->handling && !session->receiving)
        connection_resume(c); /* the body may come */
}

/* ---- the head ---- */

static unsigned status_of_head_error(int err) {
    switch (err) {
    case DG_ERR_LIMIT:
        return 431;
    case DG_ERR_TOO_LARGE:
        return 414;
    default:
        return dg_err_row(err)->http_status;
    }
}

/* The exchange with its own copy of the head. */
static struct http_exchange *create_exchange(struct connection *c, const uint8_t *data, size_t size,
                                             const struct http_head *head) {
    struct http_exchange *x = malloc(sizeof(*x) + size + head->target.size);
    if (!x)
        return NULL;
    memset(x, 0, offsetof(struct http_exchange, head));
    x->bytes_size = size + head->target.size;
    x->body.is_secret = true;
    memcpy(x->bytes, data, size);
    memcpy(x->bytes + size, data + head->target.at, head->target.size);
    x->head = *head;
    x->connection = c;
    x->method = http_method_parse(http_span_slice(x->bytes, head->method));
    x->keep_alive = head->keep_alive;
    x->head_only = x->method == HTTP_METHOD_HEAD;
    x->chunked = head->chunked;
    x->body_expected = head->content_length;
    return x;
}

static const char target_malformed[] =
    "the target is malformed, or a part of its path is '.' or '..' or contains '/', '\\', a "
    "control "
    "character or what is not UTF-8, escaped or not: such names have no path here";

static void begin_request(struct http_exchange *x, size_t head_size, bool body_follows) {
    struct connection *c = x->connection;
    struct slice raw = http_span_slice(x->bytes, x->head.target);
    int err = x->method == HTTP_METHOD_COUNT
                  ? DG_ERR_NOT_SUPPORTED
                  : http_target_parse(raw, x->bytes + head_size, &x->target);
    if (err < 0) {
        http_refuse(c, err == DG_ERR_LIMIT ? 414 : dg_err_row(err)->http_status, err,
                    err == DG_ERR_MALFORMED ? target_malformed : NULL);
        return;
    }
    const struct http_websocket *websocket = http_websocket_find(routes_of(c), x->target.path);
    if (websocket) {
        x->handling = true;
        http_upgrade(x, websocket);
        return;
    }
    if (!find_route(x))
        return;
    if (!x->route->begin) {
        take_in_body(x, body_follows);
        return;
    }
    x->handling = true; /* input waits for begin's verdict */
    x->route->begin(x, x->route);
}

/* Bytes used of the run, 0 while the head is not whole. */
static size_t take_head(struct connection *c, const uint8_t *data, size_t size) {
    struct http_session *session = session_of(c);
    if (!session->begun && size >= 2 && memcmp(data, "\r\n", 2) == 0) {
        session->begun = true; /* one empty line before a request is forgiven (RFC 9112 2.2) */
        return 2;
    }
    if (!session->begun && data[0] != '\r') {
        session->begun = true;
        connection_set_deadline(c, request_deadline(c));
    }
    if (size == 1 && data[0] == '\r')
        return 0;
    ssize_t head_size = http_parse_find_head(data, size);
    if (head_size == 0)
        return 0;
    struct http_head head;
    int err = head_size < 0 ? (int)head_size : http_parse_head(data, (size_t)head_size, &head);
    struct http_exchange *x = err < 0 ? NULL : create_exchange(c, data, (size_t)head_size, &head);
    if (!x) {
        http_refuse(c, err < 0 ? status_of_head_error(err) : 503, err < 0 ? err : DG_ERR_NO_MEMORY,
                    NULL);
        return size;
    }
    session->exchange = x;
    begin_request(x, (size_t)head_size, size > (size_t)head_size);
    return (size_t)head_size;
}

/* ---- the body ---- */

/* Bytes used, or a negative error. */
static ssize_t take_body(struct http_exchange *x, const uint8_t *data, size_t size) {
    if (x->chunked)
        return http_chunks_decode(&x->chunks, data, size);
    uint64_t left = x->body_expected - buffer_size(&x->body);
    size_t count = left < size ? (size_t)left : size;
    int err = buffer_append(&x->body, data, count, (size_t)x->body_expected);
    return err < 0 ? err : (ssize_t)count;
}

static size_t continue_body(struct http_exchange *x, const uint8_t *data, size_t size) {
    ssize_t used = take_body(x, data, size);
    if (used < 0) {
        http_refuse(x->connection, dg_err_row((int)used)->http_status, (int)used, NULL);
        return size;
    }
    if (http_body_complete(x))
        dispatch(x);
    return (size_t)used;
}

/* ---- the protocol ---- */

static int http_open(struct connection *c) {
    struct http_session *session = calloc(1, sizeof(*session));
    if (!session)
        return DG_ERR_NO_MEMORY;
    c->session = session;
    connection_set_deadline(c, request_deadline(c));
    return 0;
}

static ssize_t http_receive(struct connection *c, const uint8_t *data, size_t size) {
    struct http_session *session = session_of(c);
    size_t used = 0;
    session->receiving = true;
    while (used < size) {
        struct http_exchange *x = session->exchange;
        size_t step =
            x ? continue_body(x, data + used, size - used) : take_head(c, data + used, size - used);
        used += step;
        if (c->websocket)
            return (ssize_t)used; /* the session has gone */
        if (session->ended)
            return (ssize_t)size;
        if (session->exchange && session->exchange->handling) {
            connection_pause(c); /* pipelined requests wait for this one's answer */
            break;
        }
        if (step == 0)
            break;
    }
    session->receiving = false;
    return (ssize_t)used;
}

static uint64_t http_deadline(struct connection *c, uint64_t now_ms) {
    struct http_session *session = session_of(c);
    struct http_exchange *x = session->exchange;
    if (x && x->handling) {
        x->keep_alive = false;
        http_respond_problem(x, DG_ERR_TIMEOUT, NULL);
    } else if (x || session->begun) {
        http_refuse(c, 408, DG_ERR_TIMEOUT, NULL);
    }
    return 0;
}

static void http_closed(struct connection *c, int err) {
    http_free_session(session_of(c));
    c->session = NULL;
}

const struct connection_protocol http_protocol = {.name = "http",
                                                  .has_secrets = true,
                                                  .open = http_open,
                                                  .receive = http_receive,
                                                  .deadline = http_deadline,
                                                  .closed = http_closed};

int http_worker_start(struct worker *worker) {
    http_parse_setup();
    return 0;
}

/* ---- what a handler asks for ---- */

struct worker *http_worker(struct http_exchange *x) {
    return x->connection->worker;
}

/* One exchange at a time, and a connection whose exchange timed out takes no other: its own id is
 * enough. */
uint64_t http_exchange_id(struct http_exchange *x) {
    return connection_id(x->connection);
}

struct http_exchange *http_find(struct worker *worker, uint64_t exchange_id) {
    struct connection *c = connection_find(worker, exchange_id);
    if (!c || c->protocol != &http_protocol)
        return NULL;
    struct http_exchange *x = session_of(c)->exchange;
    return x && x->handling ? x : NULL;
}

struct slice http_path_parameter(struct http_exchange *x, const char *name) {
    int segment = http_route_parameter(x->route, name);
    return segment < 0 ? slice_make(NULL, 0) : x->target.segments[segment];
}

bool http_query_parameter(struct http_exchange *x, const char *name, struct slice *ret_value) {
    for (unsigned i = 0; i < x->target.parameter_count; i++)
        if (slice_equals_string(x->target.parameters[i].name, name)) {
            *ret_value = x->target.parameters[i].value;
            return true;
        }
    return false;
}

bool http_query_name(struct http_exchange *x, unsigned number, struct slice *ret_name) {
    bool is_there = number < x->target.parameter_count;
    if (is_there)
        *ret_name = x->target.parameters[number].name;
    return is_there;
}

bool http_request_header(struct http_exchange *x, const char *name, struct slice *ret_value) {
    for (unsigned i = 0; i < x->head.field_count; i++)
        if (http_name_equals(http_span_slice(x->bytes, x->head.fields[i].name), name)) {
            *ret_value = http_span_slice(x->bytes, x->head.fields[i].value);
            return true;
        }
    return false;
}

unsigned http_request_header_count(struct http_exchange *x, const char *name) {
    unsigned count = 0;
    for (unsigned i = 0; i < x->head.field_count; i++)
        count += http_name_equals(http_span_slice(x->bytes, x->head.fields[i].name), name);
    return count;
}

struct slice http_request_body(struct http_exchange *x) {
    return buffer_slice(&x->body);
}

struct slice http_request_target(struct http_exchange *x) {
    return http_span_slice(x->bytes, x->head.target);
}

enum http_method http_request_method(struct http_exchange *x) {
    return x->method;
}

struct connection *http_connection(struct http_exchange *x) {
    return x->connection;
}

void http_set_context(struct http_exchange *x, void *context, void (*free_fn)(void *)) {
    if (x->free_context)
        x->free_context(x->context);
    x->context = context;
    x->free_context = free_fn;
}

void *http_context(struct http_exchange *x) {
    return x->context;
}
