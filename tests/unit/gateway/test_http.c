/* HTTP over real connections: hostile requests, routing, bodies, answers that come later. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/http/http.h"
#include "gateway/http/http_parse.h"
#include "gateway/http/target.h"
#include "tests/unit/gateway/loopback.h"

void stream_extent_release(struct stream_extent *extent) {
    cr_assert(false, "no extent is written here");
}

/* ---- routes ---- */

static atomic_int contexts_freed;

static void free_context(void *context) {
    free(context);
    atomic_fetch_add(&contexts_freed, 1);
}

static void handle_hello(struct http_exchange *x, const struct http_route *route) {
    http_add_header(x, "X-Fine", "yes");
    http_add_header(x, "X-Split", "a\r\nX-Forged: 1");
    http_respond(x, 200, "text/plain", slice_from_string("hello"));
}

static void handle_device(struct http_exchange *x, const struct http_route *route) {
    struct slice tenant = http_path_parameter(x, "tenant");
    struct slice device = http_path_parameter(x, "device");
    struct slice query = slice_from_string("-");
    char text[512];
    http_query_parameter(x, "q", &query);
    cr_expect_eq(http_path_parameter(x, "nothing").size, 0);
    int size = snprintf(text, sizeof(text), "[%.*s|%.*s|%.*s]", (int)tenant.size, tenant.data,
                        (int)device.size, device.data, (int)query.size, query.data);
    http_respond(x, 200, "text/plain", slice_make(text, (size_t)size));
}

static void handle_exact(struct http_exchange *x, const struct http_route *route) {
    http_respond(x, 200, "text/plain", slice_from_string("exact"));
}

static void handle_echo(struct http_exchange *x, const struct http_route *route) {
    http_respond(x, 201, "application/octet-stream", http_request_body(x));
}

static void handle_cut(struct http_exchange *x, const struct http_route *route) {
    http_respond_problem(x, DG_ERR_INVALID, "/\xc3\xa9\xc3: \xff\xe2\x82: why");
}
static void handle_problem(struct http_exchange *x, const struct http_route *route) {
    http_respond_problem(x, DG_ERR_TOO_LARGE, "a \"quoted\"\nthing");
}

static void handle_empty(struct http_exchange *x, const struct http_route *route) {
    http_respond(x, 204, NULL, slice_make(NULL, 0));
}

struct later {
    struct worker *worker;
    uint64_t exchange;
    struct event *timer;
};

static void answer_later(evutil_socket_t fd, short what, void *context) {
    struct later *later = context;
    struct http_exchange *x = http_find(later->worker, later->exchange);
    if (x)
        http_respond(x, 200, "text/plain", slice_from_string("later"));
    event_free(later->timer);
    free(later);
}

static void handle_later(struct http_exchange *x, const struct http_route *route) {
    struct later *later = calloc(1, sizeof(*later));
    later->worker = http_worker(x);
    later->exchange = http_exchange_id(x);
    later->timer = evtimer_new(later->worker->base, answer_later, later);
    static const struct timeval pause = {0, 50000};
    evtimer_add(later->timer, &pause);
    http_set_context(x, malloc(8), free_context);
}

static void handle_never(struct http_exchange *x, const struct http_route *route) {
    http_set_context(x, malloc(8), free_context);
}

/* A route that looks at the head before it takes the body: X-Key is now, later, never or wrong. */
static void continue_later(evutil_socket_t fd, short what, void *context) {
    struct later *later = context;
    struct http_exchange *x = http_find(later->worker, later->exchange);
    if (x)
        http_continue(x);
    event_free(later->timer);
    free(later);
}

static void begin_guarded(struct http_exchange *x, const struct http_route *route) {
    struct slice key = slice_from_string("none");
    http_request_header(x, "X-Key", &key);
    cr_expect_eq(http_request_body(x).size, 0, "nothing was read yet");
    if (slice_equals_string(key, "now")) {
        http_continue(x);
    } else if (slice_equals_string(key, "later")) {
        struct later *later = calloc(1, sizeof(*later));
        later->worker = http_worker(x);
        later->exchange = http_exchange_id(x);
        later->timer = evtimer_new(later->worker->base, continue_later, later);
        static const struct timeval pause = {0, 50000};
        evtimer_add(later->timer, &pause);
    } else if (!slice_equals_string(key, "never")) {
        http_respond_problem(x, DG_ERR_BAD_CREDENTIALS, NULL);
    }
}

static const struct http_route first_table[] = {
    {HTTP_METHOD_GET, "/hello", 0, handle_hello, NULL},
    {HTTP_METHOD_GET, "/v1/tenants/{tenant}/devices/{device}", 0, handle_device, NULL},
    {HTTP_METHOD_GET, "/v1/tenants/{tenant}/devices/query", 0, handle_exact, NULL},
    {HTTP_METHOD_DELETE, "/v1/tenants/{tenant}/devices/{device}", 0, handle_device, NULL},
    {0},
};
static const struct http_route second_table[] = {
    {HTTP_METHOD_POST, "/echo", 200000, handle_echo, NULL},
    {HTTP_METHOD_PUT, "/small", 5, handle_echo, NULL},
    {HTTP_METHOD_GET, "/problem", 0, handle_problem, NULL},
    {HTTP_METHOD_GET, "/cut", 0, handle_cut, NULL},
    {HTTP_METHOD_GET, "/empty", 0, handle_empty, NULL},
    {HTTP_METHOD_GET, "/later", 0, handle_later, NULL},
    {HTTP_METHOD_GET, "/never", 0, handle_never, NULL},
    {HTTP_METHOD_POST, "/guarded", 200000, handle_echo, NULL, begin_guarded},
    {0},
};
static const struct http_route *const tables[] = {first_table, second_table, NULL};
static const struct http_routes routes = {.tables = tables};
static const struct connection_listener listener = {
    .name = "http", .protocol = &http_protocol, .context = &routes};

/* ---- frame ---- */

static struct loopback loopback;

static void set_up(void) {
    static const char *const overrides[] = {"management.request_timeout=300ms", NULL};
    signal(SIGPIPE, SIG_IGN);
    loopback_start(&loopback, 1, http_worker_start, overrides);
}

static void tear_down(void) {
    loopback_stop(&loopback);
    loopback_check_leaks();
}

TestSuite(http, .init = set_up, .fini = tear_down, .timeout = 60);

/* Sends, reads until the connection ends; the text received. */
static const char *converse(const char *request, size_t size, size_t step) {
    static char text[512 * 1024];
    struct client client;
    client_connect(&client, &loopback, &listener);
    for (size_t at = 0; at < size; at += step)
        if (!client_send(&client, request + at, size - at < step ? size - at : step))
            break;
    size_t got = client_read(&client, text, sizeof(text) - 1);
    text[got] = '\0';
    client_close(&client);
    return text;
}

#define HOST "Host: h\r\n"
#define CLOSE "Connection: close\r\n"
#define CHUNKED "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
#define GOOD "GET /hello HTTP/1.1\r\n" HOST CLOSE "\r\n"

struct request_case {
    const char *request;
    const char *expect[3]; /* found in this order */
    const char *absent;
};

static void check(const struct request_case *c, size_t step) {
    const char *text = converse(c->request, strlen(c->request), step);
    const char *at = text;
    for (unsigned i = 0; i < 3 && c->expect[i]; i++) {
        at = strstr(at, c->expect[i]);
        cr_assert(at, "'%s' to '%s' lacks '%s'", text, c->request, c->expect[i]);
        at++;
    }
    if (c->absent)
        cr_expect_null(strstr(text, c->absent), "'%s' to '%s'", text, c->request);
}

static void check_all(const struct request_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        check(&cases[i], 100000);
        check(&cases[i], 7);
    }
}

/* ---- tests ---- */

Test(http, requests_and_answers) {
    static const struct request_case cases[] = {
        {GOOD, {"HTTP/1.1 200 OK\r\n", "X-Fine: yes\r\n", "\r\n\r\nhello"}, "Forged"},
        {GOOD, {"Date: ", "nosniff", "no-store"}, NULL},
        {"\r\n" GOOD, {"HTTP/1.1 200 "}, NULL},
        {"HEAD /hello HTTP/1.1\r\n" HOST CLOSE "\r\n",
         {"200 OK", "Content-Length: 5\r\n"},
         "\r\n\r\nh"},
        {"GET /hello HTTP/1.0\r\n\r\n", {"200 OK", "Connection: close", "hello"}, NULL},
        {"GET http://other/hello HTTP/1.1\r\n" HOST CLOSE "\r\n", {"200 OK"}, NULL},
        {"GET /hello HTTP/1.1\r\n" HOST "\r\n" GOOD, {"hello", "200 OK", "hello"}, NULL},
        {"GET /v1/tenants/acme/devices/d%20%c3%bc?x=1&q=a%2Fb+c HTTP/1.1\r\n" HOST CLOSE "\r\n",
         {"[acme|d \xc3\xbc|a/b c]"},
         NULL},
        {"GET /v1/tenants/acme/devices/query HTTP/1.1\r\n" HOST CLOSE "\r\n", {"exact"}, NULL},
        {"GET /empty HTTP/1.1\r\n" HOST CLOSE "\r\n", {"204 No Content"}, "Content-Length"},
        {"GET /problem HTTP/1.1\r\n" HOST CLOSE "\r\n",
         {"413 ", "application/problem+json",
          "{\"type\":\"/problems/too-large\",\"title\":\"too large\",\"status\":413,"
          "\"detail\":\"a \\\"quoted\\\"\\u000athing\"}"},
         NULL},
        {"GET /cut HTTP/1.1\r\n" HOST CLOSE "\r\n",
         {"422 ", "\"detail\":\"/\xc3\xa9: : why\""},
         NULL},
        {"POST /echo HTTP/1.1\r\n" HOST CLOSE "Content-Length: 5\r\n\r\nabcde",
         {"201 Created", "\r\n\r\nabcde"},
         NULL},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde" GOOD,
         {"201 Created", "\r\n\r\nabcde", "hello"},
         NULL},
        {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
         "3\r\nabc\r\n0A\r\n0123456789\r\n00\r\n\r\n" GOOD,
         {"201 Created", "\r\n\r\nabc0123456789", "hello"},
         NULL},
        {"GET /later HTTP/1.1\r\n" HOST "\r\n"
         "GET /later HTTP/1.1\r\n" HOST "\r\n" GOOD,
         {"later", "later", "hello"},
         NULL},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
    cr_expect_eq(atomic_load(&contexts_freed), 4);
}

static const struct request_case HOSTILE_REQUESTS[] = {
    {"\x16\x03\x01\x02", {"400 Bad"}, NULL},
    {"GET /hello HTTP/1.1\n" HOST "\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST "\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\n\nGET", {"400 Bad"}, NULL},
    {"GET /hello HTTP/1.1\r\nHost : h\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n Host: h\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST HOST "\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST "a\rb: c\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST "a: b\x01\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/1.1\r\n" HOST ": b\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET  /hello HTTP/1.1\r\n" HOST "\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello  HTTP/1.1\r\n" HOST "\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello\r\n" HOST "\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET hello HTTP/1.1\r\n" HOST "\r\n" GOOD, {"400 Bad"}, "hello"},
    {"GET /hello HTTP/2.0\r\n" HOST "\r\n" GOOD, {"505 "}, "hello"},
    {"GET /hello HTTP/1.2\r\n" HOST "\r\n" GOOD, {"505 "}, "hello"},
    {"BREW /hello HTTP/1.1\r\n" HOST "\r\n" GOOD, {"501 "}, "hello"},
    {"TRACE /hello HTTP/1.1\r\n" HOST "\r\n" GOOD, {"501 "}, "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
     "0\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n" GOOD,
     {"HTTP/1.1 "},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n" GOOD,
     {"501 "},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n\r\n" GOOD,
     {"HTTP/1.1 "},
     "hello"},
    {"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1,1\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 200001\r\n\r\n",
     {"413 ", "at most 200000 bytes"},
     NULL},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nx\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
     {"400 Bad"},
     NULL},
    {CHUNKED "FFFFFFFF\r\n", {"413 "}, NULL},
    {CHUNKED "3;x=y\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3;x\ny\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3;\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3 \r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\rXabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "+3\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "0x3\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "\r\n3\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "000000003\r\nabc\r\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabcXX0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\rX0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\n0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc0\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\nA: b\n\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\n\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\n\r\n" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\n\rX" GOOD, {"400 Bad"}, "hello"},
    {CHUNKED "3\r\nabc\r\n0\r\nXX" GOOD, {"400 Bad"}, "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n" GOOD,
     {"400 Bad"},
     "hello"},
    {"PUT /small HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n" GOOD,
     {"413 "},
     "hello"},
    {"POST /echo HTTP/1.1\r\n" HOST "Expect: coffee\r\nContent-Length: 1\r\n\r\na", {"417 "}, NULL},
    {"GET /nothing HTTP/1.1\r\n" HOST CLOSE "\r\n", {"404 ", "/problems/not-found"}, NULL},
    {"POST /nothing HTTP/1.1\r\n" HOST "Content-Length: 50\r\n\r\n" GOOD, {"404 "}, "hello"},
    {"GET /hello/ HTTP/1.1\r\n" HOST CLOSE "\r\n", {"404 "}, NULL},
    {"GET //hello HTTP/1.1\r\n" HOST CLOSE "\r\n", {"404 "}, NULL},
    {"GET /v1/tenants//devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"404 "}, NULL},
    {"PUT /hello HTTP/1.1\r\n" HOST CLOSE "\r\n", {"405 ", "Allow: GET, HEAD\r\n"}, NULL},
    {"PUT /v1/tenants/a/devices/b HTTP/1.1\r\n" HOST CLOSE "\r\n",
     {"405 ", "Allow: GET, DELETE, HEAD\r\n"},
     NULL},
    {"OPTIONS /echo HTTP/1.1\r\n" HOST CLOSE "\r\n", {"405 ", "Allow: POST\r\n"}, NULL},
    {"GET /v1/tenants/a%00b/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /v1/tenants/a%2Fb/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n",
     {"400 ", "\"detail\":\"the target is malformed, or a part of its path"},
     NULL},
    {"GET /v1/tenants/a%5Cb/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /v1/tenants/%2e%2E/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /v1/tenants/%252e/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"[%2e|d|-]"}, NULL},
    {"GET /v1/tenants/a%/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /v1/tenants/a%4/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /v1/tenants/a%ff/devices/d HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /hello?a=%0d%0a HTTP/1.1\r\n" HOST CLOSE "\r\n", {"400 "}, NULL},
    {"GET /1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7 HTTP/1.1\r\n" HOST CLOSE "\r\n", {"414 "}, NULL},
};

Test(http, hostile_requests) {
    check_all(HOSTILE_REQUESTS, sizeof(HOSTILE_REQUESTS) / sizeof(HOSTILE_REQUESTS[0]));
}

/* Repeats a piece between a beginning and an end. */
static const char *repeat(const char *begin, const char *piece, unsigned count, const char *end) {
    static char text[400 * 1024];
    char *at = stpcpy(text, begin);
    for (unsigned i = 0; i < count; i++)
        at = stpcpy(at, piece);
    stpcpy(at, end);
    return text;
}

Test(http, sizes) {
    static const struct {
        const char *begin, *piece;
        unsigned count;
        const char *end, *expect;
    } cases[] = {
        {"GET /hello?", "aaaa", 1000, " HTTP/1.1\r\n" HOST CLOSE "\r\n", "200 OK"},
        {"GET /hello?", "aaaa", 1024, " HTTP/1.1\r\n" HOST CLOSE "\r\n", "414 "},
        {"GET /hello?", "aaaa", 5000, " HTTP/1.1\r\n" HOST CLOSE "\r\n", "414 "},
        {"GET /hello HTTP/1.1\r\n" HOST CLOSE, "a: b\r\n", 62, "\r\n", "200 OK"},
        {"GET /hello HTTP/1.1\r\n" HOST CLOSE, "a: b\r\n", 63, "\r\n", "431 "},
        {"GET /hello HTTP/1.1\r\n" HOST CLOSE "a: ", "bbbb", 4000, "\r\n\r\n", "200 OK"},
        {"GET /hello HTTP/1.1\r\n" HOST CLOSE "a: ", "bbbb", 4096, "\r\n\r\n", "431 "},
        {"GET /hello HTTP/1.1\r\n" HOST CLOSE "a: ", "bbbb", 40000, "\r\n\r\n", "431 "},
        {"GET /hello?", "a&", 16, " HTTP/1.1\r\n" HOST CLOSE "\r\n", "200 OK"},
        {"GET /hello?", "a&", 17, " HTTP/1.1\r\n" HOST CLOSE "\r\n", "414 "},
        {"POST /echo HTTP/1.1\r\n" HOST CLOSE "Content-Length: 200000\r\n\r\n", "abcd", 50000, "",
         "201 Created"},
        {"POST /echo HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding: chunked\r\n\r\n30d40\r\n", "abcd",
         50000, "\r\n0\r\n\r\n", "201 Created"},
        {"POST /echo HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding: chunked\r\n\r\n30d41\r\n", "abcd",
         50010, "\r\n0\r\n\r\n", "413 "},
        {"POST /echo HTTP/1.1\r\n" HOST CLOSE "Transfer-Encoding: chunked\r\n\r\n",
         "00000001\r\na\r\n", 30000, "0\r\n\r\n", "201 Created"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *request = repeat(cases[i].begin, cases[i].piece, cases[i].count, cases[i].end);
        const char *text = converse(request, strlen(request), 100000);
        cr_expect(strstr(text, cases[i].expect), "case %zu: %.300s", i, text);
    }
}

Test(http, continue_is_granted_when_the_body_is_welcome) {
    static const char head[] =
        "POST /echo HTTP/1.1\r\n" HOST CLOSE "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    char text[1024];
    struct client client;
    client_connect(&client, &loopback, &listener);
    client_send(&client, head, sizeof(head) - 1);
    cr_expect_eq(client_read(&client, text, 25), 25);
    cr_expect_eq(memcmp(text, "HTTP/1.1 100 Continue\r\n\r\n", 25), 0);
    client_send(&client, "abc", 3);
    text[client_read(&client, text, sizeof(text) - 1)] = '\0';
    cr_expect(strstr(text, "201 Created"));
    cr_expect(strstr(text, "\r\n\r\nabc"));
    client_close(&client);
}

#define GUARDED(key, more) "POST /guarded HTTP/1.1\r\n" HOST "X-Key: " key "\r\n" more "\r\n"

Test(http, the_head_is_judged_before_the_body) {
    static const struct request_case cases[] = {
        {GUARDED("now", "Content-Length: 3\r\n") "abc" GOOD,
         {"201 ", "\r\n\r\nabc", "hello"},
         "100 "},
        {GUARDED("later", "Content-Length: 3\r\n") "abc" GOOD,
         {"201 ", "\r\n\r\nabc", "hello"},
         NULL},
        {GUARDED("later", "Transfer-Encoding: chunked\r\n") "3\r\nabc\r\n0\r\n\r\n" GOOD,
         {"201 ", "\r\n\r\nabc", "hello"},
         NULL},
        {GUARDED("later", "") GOOD, {"201 ", "hello"}, NULL},
        {GUARDED("later", "") GUARDED("now", "") GUARDED("later", CLOSE),
         {"201 ", "201 ", "201 "},
         NULL},
        {GUARDED("wrong", "") GOOD, {"401 ", "hello"}, NULL},
        {GUARDED("wrong", "Content-Length: 3\r\n") "abc" GOOD, {"401 "}, "hello"},
        {GUARDED("wrong", "Transfer-Encoding: chunked\r\n") "3\r\nabc\r\n0\r\n\r\n" GOOD,
         {"401 "},
         "hello"},
        {GUARDED("wrong", "Content-Length: 3\r\nExpect: 100-continue\r\n"), {"401 "}, "100 "},
        {GUARDED("later", "Expect: coffee\r\nContent-Length: 1\r\n") "a" GOOD, {"417 "}, "hello"},
        {GUARDED("later", "Transfer-Encoding: chunked\r\n") "x" GOOD, {"400 "}, "hello"},
    };
    check_all(cases, sizeof(cases) / sizeof(cases[0]));
    const char *large =
        repeat(GUARDED("later", CLOSE "Content-Length: 180000\r\n"), "abcd", 45000, "");
    cr_expect(strstr(converse(large, strlen(large), 100000), "201 Created"));
}

Test(http, continue_is_granted_when_the_head_was_judged) {
    static const char head[] =
        GUARDED("later", CLOSE "Expect: 100-continue\r\nContent-Length: 3\r\n");
    char text[1024];
    struct client client;
    client_connect(&client, &loopback, &listener);
    client_send(&client, head, sizeof(head) - 1);
    usleep(20000);
    cr_expect_lt(recv(client.fd, text, 1, MSG_DONTWAIT), 0, "not before");
    cr_expect_eq(client_read(&client, text, 25), 25);
    cr_expect_eq(memcmp(text, "HTTP/1.1 100 Continue\r\n\r\n", 25), 0);
    client_send(&client, "abc", 3);
    text[client_read(&client, text, sizeof(text) - 1)] = '\0';
    cr_expect(strstr(text, "\r\n\r\nabc"));
    client_close(&client);
}

/* What a peer may park before it is judged is what fits into one read. */
Test(http, an_unjudged_body_is_not_read) {
    static const char head[] = GUARDED("never", "Content-Length: 190000\r\n");
    static char body[190000];
    struct client client;
    client_connect(&client, &loopback, &listener);
    int64_t before = metric_read(METRIC_RECEIVED_BYTES);
    client_send(&client, head, sizeof(head) - 1);
    usleep(20000);
    cr_expect_gt(send(client.fd, body, sizeof(body), MSG_DONTWAIT), LIMIT_BEFORE_LOGIN_BYTES);
    usleep(100000);
    cr_expect_leq(metric_read(METRIC_RECEIVED_BYTES) - before, LIMIT_BEFORE_LOGIN_BYTES);
    char text[32] = "";
    client_read(&client, text, 12);
    cr_expect_str_eq(text, "HTTP/1.1 504");
    client_close(&client);
}

static void find_secret(struct worker *worker, void *context) {
    *(bool *)context = memmem(worker->read_buffer, LIMIT_READ_BUFFER_BYTES, "TOPSECRET", 9);
}

/* Keys and bodies do not stay behind in the buffer that all connections share. */
Test(http, the_read_buffer_is_wiped) {
    static const char request[] =
        "POST /echo HTTP/1.1\r\n" HOST "Authorization: Bearer a.TOPSECRET\r\n"
        "Content-Length: 18\r\n\r\nTOPSECRETTOPSECRET";
    static const size_t first_part[] = {sizeof(request) - 1, 60, sizeof(request) - 5, 20};
    for (unsigned i = 0; i < sizeof(first_part) / sizeof(first_part[0]); i++) {
        struct client client;
        char text[12];
        bool found = true;
        client_connect(&client, &loopback, &listener);
        client_send(&client, request, first_part[i]);
        usleep(20000);
        loopback_run(loopback.workers[0], find_secret, &found);
        cr_expect_not(found, "case %u, after the first part", i);
        client_send(&client, request + first_part[i], sizeof(request) - 1 - first_part[i]);
        cr_expect_eq(client_read(&client, text, 12), 12);
        loopback_run(loopback.workers[0], find_secret, &found);
        cr_expect_not(found, "case %u", i);
        client_close(&client);
    }
}

Test(http, deadlines) {
    static const struct {
        const char *send;
        const char *expect;
    } cases[] = {
        {"", ""},                      /* never says anything */
        {"GET /hel", "HTTP/1.1 408 "}, /* half a head */
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nab", "HTTP/1.1 408 "},
        {"GET /never HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 504 "}, /* the handler forgot */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = converse(cases[i].send, strlen(cases[i].send), 1000);
        cr_expect_eq(strncmp(text, cases[i].expect, strlen(cases[i].expect)), 0, "%s", text);
        cr_expect(cases[i].expect[0] || !text[0]);
    }
    cr_expect_eq(atomic_load(&contexts_freed), 1);
}

Test(http, dripping_does_not_extend_the_deadline) {
    struct client client;
    client_connect(&client, &loopback, &listener);
    char text[32] = "";
    unsigned sent = 0;
    for (; sent < 40 && recv(client.fd, text, 12, MSG_DONTWAIT) <= 0; sent++) {
        client_send(&client, "G", 1);
        usleep(30000);
    }
    cr_expect_lt(sent, 30);
    cr_expect_str_eq(text, "HTTP/1.1 408");
    client_close(&client);
}

Test(http, a_peer_that_leaves_frees_its_exchange) {
    struct client client;
    client_connect(&client, &loopback, &listener);
    static const char request[] = "GET /never HTTP/1.1\r\n" HOST "\r\n";
    client_send(&client, request, sizeof(request) - 1);
    client_close(&client);
    for (int i = 0; i < 2000 && atomic_load(&contexts_freed) == 0; i++)
        usleep(1000);
    cr_expect_eq(atomic_load(&contexts_freed), 1);
}
