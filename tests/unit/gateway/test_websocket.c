/* WebSocket: the handshake's cases, frames of all shapes, control frames, closing. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/http/http.h"
#include "tests/unit/gateway/loopback.h"

enum { EXTENT_BYTES = 100000 };

static uint8_t extent_bytes[EXTENT_BYTES];

void stream_extent_release(struct stream_extent *extent) {
}

/* ---- what is spoken inside: bytes come back in pairs, 'x' closes, 'e' brings an extent ---- */

static atomic_int closed, last_error;

static int pair_open(struct connection *c) {
    connection_set_deadline(c, 0);
    c->input_limit_bytes = 400 * 1024;
    return 0;
}

static ssize_t pair_receive(struct connection *c, const uint8_t *data, size_t size) {
    size_t used = size & ~(size_t)1;
    if (used > 0 && data[0] == 'x') {
        connection_write(c, "bye!", 4);
        connection_close(c, DG_ERR_ADMINISTRATIVE);
        return (ssize_t)used;
    }
    connection_write(c, data, used);
    if (used > 0 && data[0] == 'e') {
        struct stream_extent extent = {
            .memory = extent_bytes, .fd = -1, .size_bytes = EXTENT_BYTES};
        connection_write_extent(c, &extent);
    }
    return (ssize_t)used;
}

static void pair_closed(struct connection *c, int err) {
    atomic_store(&last_error, err);
    atomic_fetch_add(&closed, 1);
}

static const struct connection_protocol pair_protocol = {
    .name = "mqtt", .open = pair_open, .receive = pair_receive, .closed = pair_closed};
static const struct http_websocket websockets[] = {{"/mqtt", "mqtt", &pair_protocol}, {0}};
static const struct http_route no_routes[] = {{0}};
static const struct http_route *const tables[] = {no_routes, NULL};
static const struct http_routes routes = {.tables = tables, .websockets = websockets};
static const struct connection_listener listener = {
    .name = "https", .protocol = &http_protocol, .context = &routes};
static const struct connection_listener secure = {
    .name = "https", .protocol = &http_protocol, .context = &routes, .tls = true};

/* ---- frame of the tests ---- */

static struct loopback loopback;

static void set_up(void) {
    signal(SIGPIPE, SIG_IGN);
    loopback_start(&loopback, 1, http_worker_start, NULL);
}

static void tear_down(void) {
    loopback_stop(&loopback);
    cr_expect_eq(metric_read(METRIC_CONNECTIONS_OPEN_MQTT), 0);
    cr_expect_eq(metric_read(METRIC_CONNECTIONS_OPEN_HTTP), 0);
    loopback_check_leaks();
}

TestSuite(websocket, .init = set_up, .fini = tear_down, .timeout = 60);

#define LINE "GET /mqtt HTTP/1.1\r\nHost: h\r\n"
#define UPGRADE "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define SUBPROTOCOL "Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n"
#define HANDSHAKE LINE UPGRADE VERSION KEY SUBPROTOCOL "\r\n"

static const char ACCEPTED[] = "HTTP/1.1 101 Switching Protocols\r\n"
                               "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                               "Sec-WebSocket-Protocol: mqtt\r\n\r\n";

static void expect_bytes(struct client *client, const void *bytes, size_t size) {
    static uint8_t got[300 * 1024];
    cr_assert_leq(size, sizeof(got));
    cr_assert_eq(client_read(client, got, size), size);
    cr_expect_eq(memcmp(got, bytes, size), 0);
}

static void connect_websocket(struct client *client) {
    client_connect(client, &loopback, &listener);
    client_send(client, HANDSHAKE, sizeof(HANDSHAKE) - 1);
    expect_bytes(client, ACCEPTED, sizeof(ACCEPTED) - 1);
}

/* A masked frame of a client; the size. */
static size_t make_frame(uint8_t *out, uint8_t first, const void *payload, size_t size) {
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t at = 0;
    out[at++] = first;
    if (size < 126) {
        out[at++] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        out[at++] = 0x80 | 126;
        out[at++] = (uint8_t)(size >> 8);
        out[at++] = (uint8_t)size;
    } else {
        out[at++] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            out[at++] = (uint8_t)(size >> shift);
    }
    memcpy(out + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        out[at++] = (uint8_t)(((const uint8_t *)payload)[i] ^ mask[i % 4]);
    return at;
}

static void send_frame(struct client *client, uint8_t first, const void *payload, size_t size) {
    static uint8_t frame[400 * 1024];
    client_send(client, frame, make_frame(frame, first, payload, size));
}

/* ---- tests ---- */

Test(websocket, handshakes) {
    static const struct {
        const char *request;
        const char *expect;
    } cases[] = {
        {HANDSHAKE, "HTTP/1.1 101 "},
        {"GET /mqtt?x=y HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY SUBPROTOCOL "\r\n",
         "HTTP/1.1 101 "},
        {LINE "\r\n", "HTTP/1.1 426 "},
        {LINE UPGRADE "Sec-WebSocket-Version: 8\r\n" KEY SUBPROTOCOL "\r\n", "HTTP/1.1 426 "},
        {LINE "Connection: Upgrade\r\nUpgrade: h2c\r\n" VERSION KEY SUBPROTOCOL "\r\n",
         "HTTP/1.1 426 "},
        {LINE UPGRADE VERSION SUBPROTOCOL "\r\n", "HTTP/1.1 400 "},
        {LINE UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n" SUBPROTOCOL "\r\n",
         "HTTP/1.1 400 "},
        {LINE UPGRADE VERSION KEY "\r\n", "HTTP/1.1 400 "},
        {LINE UPGRADE VERSION KEY "Sec-WebSocket-Protocol: amqp\r\n\r\n", "HTTP/1.1 400 "},
        {LINE UPGRADE VERSION KEY SUBPROTOCOL "Content-Length: 3\r\n\r\nabc", "HTTP/1.1 400 "},
        {"POST /mqtt HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY SUBPROTOCOL "\r\n",
         "HTTP/1.1 405 "},
        {"GET /other HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY SUBPROTOCOL "\r\n",
         "HTTP/1.1 404 "},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;
        char text[14] = "";
        client_connect(&client, &loopback, &listener);
        client_send(&client, cases[i].request, strlen(cases[i].request));
        client_read(&client, text, 13);
        cr_expect_str_eq(text, cases[i].expect, "case %zu: %s", i, text);
        client_close(&client);
    }
}

Test(websocket, frames_of_all_sizes) {
    static const size_t sizes[] = {2, 4, 124, 126, 128, 65534, 65536, 200000};
    static uint8_t payload[200000], head[10];
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)('A' + i % 20);
    struct client client;
    connect_websocket(&client);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        send_frame(&client, 0x82, payload, sizes[i]);
        for (size_t got = 0; got < sizes[i];) { /* a large one comes back in several frames */
            cr_assert_eq(client_read(&client, head, 2), 2);
            cr_assert_eq(head[0], 0x82);
            size_t size = head[1], width = size == 126 ? 2 : size == 127 ? 8 : 0;
            client_read(&client, head, width);
            for (size_t b = 0, value = 0; b < width; b++)
                size = value = value << 8 | head[b];
            cr_assert(width == 0   ? size < 126
                      : width == 2 ? size >= 126 && size < 65536
                                   : size >= 65536);
            expect_bytes(&client, payload + got, size);
            got += size;
        }
    }
    client_close(&client);
}

Test(websocket, fragments_packets_across_frames_and_pings_between) {
    struct client client;
    uint8_t frames[256];
    size_t size = 0;
    connect_websocket(&client);
    size += make_frame(frames + size, 0x02, "a", 1); /* binary, not final */
    size += make_frame(frames + size, 0x89, "ping", 4);
    size += make_frame(frames + size, 0x00, "bc", 2); /* continuation */
    size += make_frame(frames + size, 0x80, "", 0);   /* final, empty */
    size += make_frame(frames + size, 0x82, "d", 1);  /* the pair "cd" spans two messages */
    size += make_frame(frames + size, 0x8a, "", 0);   /* an unasked pong is ignored */
    for (size_t step = 1; step <= 64; step *= 8) {
        for (size_t at = 0; at < size; at += step) {
            client_send(&client, frames + at, size - at < step ? size - at : step);
            usleep(200);
        }
        uint8_t got[16];
        size_t want = 4 + 2 + (step == 64 ? 6 : 8); /* pong, and "abcd" in one frame or two */
        cr_expect_eq(client_read(&client, got, want), want);
        cr_expect(memmem(got, want, "\x8a\x04ping", 6));
    }
    client_close(&client);
}

Test(websocket, broken_frames) {
    static const struct {
        const char *bytes;
        size_t size;
        uint16_t code;
        int err;
    } cases[] = {
        {"\x82\x02"
         "ab",
         4, 1002, DG_ERR_PROTOCOL}, /* not masked */
        {"\x81\x82\0\0\0\0"
         "ab",
         8, 1003, DG_ERR_PROTOCOL}, /* text */
        {"\xc2\x82\0\0\0\0"
         "ab",
         8, 1002, DG_ERR_PROTOCOL}, /* RSV1 */
        {"\x83\x82\0\0\0\0"
         "ab",
         8, 1002, DG_ERR_PROTOCOL}, /* reserved opcode */
        {"\x80\x82\0\0\0\0"
         "ab",
         8, 1002, DG_ERR_PROTOCOL}, /* continues nothing */
        {"\x09\x82\0\0\0\0"
         "ab",
         8, 1002, DG_ERR_PROTOCOL},                                         /* fragmented ping */
        {"\x89\xfe\0\x7e\0\0\0\0", 8, 1002, DG_ERR_PROTOCOL},               /* ping of 126 bytes */
        {"\x82\xff\0\0\0\0\x10\0\0\0\0\0\0\0x", 15, 1009, DG_ERR_PROTOCOL}, /* 256 MB */
        {"\x88\x82\0\0\0\0\x03\xe8", 8, 1000, DG_ERR_CLOSED},               /* a polite end */
        {"\x88\x80\0\0\0\0", 6, 0, DG_ERR_CLOSED},                          /* without a code */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;
        connect_websocket(&client);
        client_send(&client, cases[i].bytes, cases[i].size);
        uint8_t got[4] = {0};
        size_t want = cases[i].code ? 4 : 2;
        cr_expect_eq(client_read(&client, got, want), want, "case %zu", i);
        cr_expect_eq(got[0], 0x88, "case %zu", i);
        cr_expect_eq(got[2] << 8 | got[3], cases[i].code, "case %zu: %d", i, got[2] << 8 | got[3]);
        cr_expect(client_at_end(&client));
        client_close(&client);
        for (int wait = 0; wait < 3000 && atomic_load(&closed) <= (int)i; wait++)
            usleep(1000);
        cr_expect_eq(atomic_load(&last_error), cases[i].err, "case %zu", i);
    }
}

/* What a pong carries is the peer's, also when it looks like a close. */
Test(websocket, pong_before_a_protocol_error) {
    struct client client;
    connect_websocket(&client);
    send_frame(&client, 0x89, "\x88\0", 2);
    expect_bytes(&client, "\x8a\x02\x88\0", 4);
    send_frame(&client, 0x89, "", 0);
    expect_bytes(&client, "\x8a\0", 2);
    send_frame(&client, 0x09, "x", 1);
    expect_bytes(&client, "\x88\x02\x03\xea", 4);
    cr_expect(client_at_end(&client));
    client_close(&client);
}

Test(websocket, what_came_before_a_close_is_heard) {
    struct client client;
    uint8_t frames[64];
    connect_websocket(&client);
    size_t size = make_frame(frames, 0x82, "ab", 2);
    size += make_frame(frames + size, 0x88, "\x03\xe8", 2);
    client_send(&client, frames, size);
    uint8_t got[8];
    cr_expect_eq(client_read(&client, got, 4), 4);
    cr_expect_eq(got[0], 0x88);
    client_close(&client);
}

Test(websocket, closing_from_inside_sends_a_close_frame) {
    struct client client;
    connect_websocket(&client);
    send_frame(&client, 0x82, "xx", 2);
    expect_bytes(&client,
                 "\x82\x04"
                 "bye!\x88\x02\x03\xe9",
                 10);
    cr_expect(client_at_end(&client));
    client_close(&client);
}

Test(websocket, bytes_behind_the_handshake_and_tls) {
    char directory[] = "/tmp/dg-websocket-XXXXXX";
    cr_assert(mkdtemp(directory));
    loopback_write_certificate(directory, "server", 30);
    struct tls_files *files = loopback_load_tls(directory, "server");
    cr_assert_eq(tls_install(loopback.workers[0], files), 0);
    tls_release(files);
    for (int encrypted = 0; encrypted < 2; encrypted++) {
        struct client client;
        static uint8_t all[1024];
        size_t size = sizeof(HANDSHAKE) - 1;
        memcpy(all, HANDSHAKE, size);
        size += make_frame(all + size, 0x82, "ee", 2);
        client_connect(&client, &loopback, encrypted ? &secure : &listener);
        if (encrypted)
            cr_assert(client_handshake(&client, TLS1_3_VERSION, NULL, NULL));
        client_send(&client, all, size);
        expect_bytes(&client, ACCEPTED, sizeof(ACCEPTED) - 1);
        expect_bytes(&client,
                     "\x82\x7f\0\0\0\0\0\x01\x86\xa2"
                     "ee",
                     12);
        expect_bytes(&client, extent_bytes, EXTENT_BYTES);
        client_close(&client);
    }
    char command[96];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_expect_eq(system(command), 0);
}

Test(websocket, a_peer_that_pings_and_never_reads_is_closed) {
    struct client client;
    static uint8_t pings[1310 * 100];
    uint8_t payload[125] = {0};
    size_t size = 0;
    while (size + 131 <= sizeof(pings))
        size += make_frame(pings + size, 0x89, payload, sizeof(payload));
    connect_websocket(&client);
    for (int i = 0; i < 200 && client_send(&client, pings, size); i++) {
    }
    for (int wait = 0; wait < 5000 && atomic_load(&closed) == 0; wait++)
        usleep(1000);
    cr_expect_eq(atomic_load(&last_error), DG_ERR_LIMIT);
    client_close(&client);
}
