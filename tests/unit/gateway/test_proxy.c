/* The PROXY protocol: its header, and connections from a listed proxy before and behind it. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/metrics.h"
#include "gateway/transport/proxy.h"
#include "gateway/transport/transport.h"
#include "tests/unit/gateway/loopback.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define TCP4 "\x21\x11"
#define TCP6 "\x21\x21"
#define V4_ADDRESSES "\xc0\0\2\7\xc0\0\2\1\x14\3\7\x5b" /* 192.0.2.7:5123 to 192.0.2.1:1883 */
#define V6_ADDRESSES \
    "\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\7\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\1\x14\3\7\x5b"

void stream_extent_release(struct stream_extent *extent) {
    cr_assert(false, "no extent is written here");
}

/* ---- the header alone ---- */

struct bytes {
    uint8_t data[4096];
    size_t size;
};

static void add(struct bytes *bytes, const void *data, size_t size) {
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static struct bytes header_of(const char *command, const void *body, size_t size) {
    struct bytes bytes = {.size = 0};
    uint8_t length[2] = {(uint8_t)(size >> 8), (uint8_t)size};
    add(&bytes, SIGNATURE, 12);
    add(&bytes, command, 2);
    add(&bytes, length, 2);
    add(&bytes, body, size);
    return bytes;
}

struct header_case {
    const char *command, *body;
    size_t body_size;
    const char *peer; /* NULL: nobody is named; "": refused */
    const char *why;  /* words of it */
};

#define BODY(text) text, sizeof(text) - 1
static const struct header_case header_cases[] = {
    {TCP4, BODY(V4_ADDRESSES), "192.0.2.7:5123", NULL},
    {TCP6, BODY(V6_ADDRESSES), "[2001:db8::7]:5123", NULL},
    {TCP4, BODY(V4_ADDRESSES "\4\0\3abc\x20\0\0"), "192.0.2.7:5123", NULL},
    {"\x20\0", BODY(""), NULL, NULL},
    {"\x20\x11", BODY(V4_ADDRESSES), NULL, NULL},
    {"\x20\xff", BODY("x"), NULL, NULL},
    {"\x21\0", BODY("anything"), NULL, NULL},
    {"\x11\x11", BODY(V4_ADDRESSES), "", "version or command"},
    {"\x22\x11", BODY(V4_ADDRESSES), "", "version or command"},
    {"\x21\x12", BODY(V4_ADDRESSES), "", "not of TCP"},
    {"\x21\x31", BODY(V4_ADDRESSES), "", "not of TCP"},
    {TCP4, BODY(""), "", "too short"},
    {TCP4, BODY("\xc0\0\2\7\xc0\0\2\1\x14\3\7"), "", "too short"},
    {TCP6, BODY(V4_ADDRESSES), "", "too short"},
    {TCP4, BODY(V4_ADDRESSES "\4"), "", "cut off"},
    {TCP4, BODY(V4_ADDRESSES "\4\0\4abc"), "", "cut off"},
    {TCP4, BODY(V4_ADDRESSES "\3\0\3abc"), "", "checksum"},
    {TCP4, BODY(V4_ADDRESSES "\3\0\4\0\0\0\0"), "", "checksum"},
};

static ssize_t decode(const struct bytes *bytes, size_t size, struct proxy_header *ret_header,
                      const char **ret_why) {
    uint8_t *exact = malloc(size + 1);
    memcpy(exact, bytes->data, size);
    ssize_t result = proxy_decode(exact, size, ret_header, ret_why);
    free(exact);
    return result;
}

static void expect_peer(const struct proxy_header *header, const char *peer, size_t number) {
    char text[CONNECTION_PEER_TEXT_SIZE];
    struct connection c = {.peer_address = header->address, .peer_port = header->port};
    connection_format_peer(&c, text);
    cr_expect_eq(header->names_client, peer != NULL, "case %zu", number);
    if (peer)
        cr_expect_str_eq(text, peer, "case %zu", number);
}

Test(header, cases) {
    for (size_t i = 0; i < COUNT_OF(header_cases); i++) {
        const struct header_case *row = &header_cases[i];
        struct bytes bytes = header_of(row->command, row->body, row->body_size);
        struct proxy_header header;
        const char *why = "";
        ssize_t result = decode(&bytes, bytes.size, &header, &why);
        if (row->why) {
            cr_expect_eq(result, DG_ERR_MALFORMED, "case %zu: %zd", i, result);
            cr_expect(strstr(why, row->why), "case %zu: %s", i, why);
            continue;
        }
        cr_expect_eq(result, 0, "case %zu: %zd %s", i, result, why);
        expect_peer(&header, row->peer, i);
    }
}

Test(header, nothing_behind_it_is_asked_for) {
    struct bytes bytes = header_of(TCP4, BODY(V4_ADDRESSES "\4\0\3abc"));
    for (size_t size = 0; size < bytes.size; size++) {
        struct proxy_header header;
        const char *why = "";
        ssize_t wanted = decode(&bytes, size, &header, &why);
        cr_expect(wanted > 0 && size + (size_t)wanted <= bytes.size, "%zu: %zd", size, wanted);
    }
}

Test(header, what_is_no_header) {
    static const struct {
        const char *data, *why;
        size_t size;
    } cases[] = {
        {"PROXY TCP4 192.0.2.7 192.0.2.1 5123 1883\r\n", "of version 1", 42},
        {"PROXY ", "of version 1", 6},
        {"PROXIES", "sent no PROXY", 7},
        {"\x10", "sent no PROXY", 1},
        {"\r\n\r\n\0\r\nQUIX", "sent no PROXY", 11},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct proxy_header header;
        const char *why = "";
        struct bytes bytes = {.size = 0};
        add(&bytes, cases[i].data, cases[i].size);
        cr_expect_eq(decode(&bytes, bytes.size, &header, &why), DG_ERR_MALFORMED, "case %zu", i);
        cr_expect(strstr(why, cases[i].why), "case %zu: %s", i, why);
    }
    struct proxy_header header;
    const char *why = "";
    struct bytes begun = {.data = "PROX", .size = 4};
    cr_expect_eq(decode(&begun, begun.size, &header, &why), 2);
}

Test(header, length_is_limited) {
    static const uint8_t body[LIMIT_PROXY_HEADER_BYTES];
    struct proxy_header header;
    const char *why = "";
    struct bytes most = header_of("\x20\0", body, LIMIT_PROXY_HEADER_BYTES - 16);
    cr_expect_eq(decode(&most, most.size, &header, &why), 0);
    struct bytes beyond = header_of("\x20\0", body, LIMIT_PROXY_HEADER_BYTES - 15);
    cr_expect_eq(decode(&beyond, 16, &header, &why), DG_ERR_MALFORMED, "before any more is read");
}

Test(header, checksum) {
    struct bytes bytes = header_of(TCP4, BODY(V4_ADDRESSES "\3\0\4\0\0\0\0\4\0\1x"));
    uint32_t crc = crc32c_update(0, bytes.data, bytes.size);
    for (unsigned i = 0; i < 4; i++)
        bytes.data[16 + 12 + 3 + i] = (uint8_t)(crc >> (24 - 8 * i));
    struct proxy_header header;
    const char *why = "";
    cr_expect_eq(decode(&bytes, bytes.size, &header, &why), 0, "%s", why);
    bytes.data[16] ^= 1;
    cr_expect_eq(decode(&bytes, bytes.size, &header, &why), DG_ERR_MALFORMED);
}

/* ---- connections: a protocol that tells its peer who it is, at each byte ---- */

static int tell_open(struct connection *c) {
    c->session = c;
    return 0;
}

static ssize_t tell_receive(struct connection *c, const uint8_t *data, size_t size) {
    char text[CONNECTION_PEER_TEXT_SIZE + 16];
    connection_format_peer(c, text);
    snprintf(text + strlen(text), 16, " %d%d\n", connection_peer_is_loopback(c),
             connection_may_carry_secrets(c));
    connection_write(c, text, strlen(text));
    return (ssize_t)size;
}

static void tell_closed(struct connection *c, int err) {
}

static const struct connection_protocol tell = {
    .name = "tell", .open = tell_open, .receive = tell_receive, .closed = tell_closed};
static const struct connection_listener plain = {.name = "plain", .protocol = &tell};
static const struct connection_listener secure = {.name = "tls", .protocol = &tell, .tls = true};

static struct loopback loopback;
static char directory[] = "/tmp/dg-proxy-XXXXXX";

/* The peer of a socket pair has the address "::". */
static void start(const char *sources, const char *timeout) {
    char first[64], second[64];
    snprintf(first, sizeof(first), "server.proxy_sources=%s", sources);
    snprintf(second, sizeof(second), "mqtt.connect_timeout=%s", timeout);
    const char *const overrides[] = {first, second, "security.unknown_connections=2", NULL};
    signal(SIGPIPE, SIG_IGN);
    cr_assert(mkdtemp(directory));
    loopback_start(&loopback, 1, NULL, overrides);
    loopback_write_certificate(directory, "server", 30);
    struct tls_files *files = loopback_load_tls(directory, "server");
    cr_assert_eq(tls_install(loopback.workers[0], files), 0);
    tls_release(files);
}

static void set_up(void) {
    start("10.0.0.0/8, ::/128", "1m");
}

static void set_up_impatient(void) {
    start("::/128", "300ms");
}

static void set_up_strangers(void) {
    start("10.0.0.0/8", "1m");
}

static void tear_down(void) {
    loopback_stop(&loopback);
    char command[96];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_expect_eq(system(command), 0);
    loopback_check_leaks();
}

TestSuite(proxy, .init = set_up, .fini = tear_down, .timeout = 60);
TestSuite(proxy_late, .init = set_up_impatient, .fini = tear_down, .timeout = 60);
TestSuite(proxy_stranger, .init = set_up_strangers, .fini = tear_down, .timeout = 60);

static void expect_told(struct client *client, const char *expected) {
    char got[96] = "";
    cr_expect(client_send(client, "x", 1));
    cr_expect_eq(client_read(client, got, strlen(expected)), strlen(expected));
    cr_expect_str_eq(got, expected);
}

static struct client connect_with(const struct connection_listener *listener,
                                  const struct bytes *bytes, size_t piece) {
    struct client client;
    client_connect(&client, &loopback, listener);
    for (size_t at = 0; at < bytes->size; at += piece) {
        size_t left = bytes->size - at;
        client_send(&client, bytes->data + at, left < piece ? left : piece);
    }
    return client;
}

Test(proxy, the_client_is_who_the_header_names) {
    static const struct {
        const char *command, *body, *peer;
        size_t size;
    } cases[] = {
        {TCP4, V4_ADDRESSES, "192.0.2.7:5123 00\n", 12},
        {TCP6, V6_ADDRESSES, "[2001:db8::7]:5123 00\n", 36},
        {"\x20\0", "", "[::]:0 00\n", 0},
        {"\x21\0", "", "[::]:0 00\n", 0},
        /* loopback, though not ours: whoever sits there gets no more trust than the proxy */
        {TCP4, "\x7f\0\0\1\xc0\0\2\1\x14\3\7\x5b", "[::]:0 00\n", 12},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct bytes bytes = header_of(cases[i].command, cases[i].body, cases[i].size);
        for (size_t piece = 1; piece <= bytes.size; piece += bytes.size - 1) {
            struct client client = connect_with(&plain, &bytes, piece);
            expect_told(&client, cases[i].peer);
            client_close(&client);
        }
    }
}

Test(proxy, tls_begins_behind_the_header) {
    struct bytes bytes = header_of(TCP4, BODY(V4_ADDRESSES));
    struct client client = connect_with(&secure, &bytes, bytes.size);
    cr_assert(client_handshake(&client, TLS1_3_VERSION, NULL, NULL));
    expect_told(&client, "192.0.2.7:5123 01\n");
    client_close(&client);
}

Test(proxy, a_listed_source_without_a_header_is_closed) {
    static const struct bytes cases[] = {
        {.data = "x", .size = 1},
        {.data = "PROXY TCP4 192.0.2.7 192.0.2.1 5123 1883\r\n", .size = 42},
        {.data = SIGNATURE "\x21\x11\xff\xff", .size = 16},
    };
    int64_t before = metric_read(METRIC_PROXY_HEADERS_REFUSED);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct client client = connect_with(i == 0 ? &secure : &plain, &cases[i], 100);
        cr_expect(client_at_end(&client), "case %zu", i);
        client_close(&client);
    }
    cr_expect_eq(metric_read(METRIC_PROXY_HEADERS_REFUSED) - before, 3);
}

/* HAProxy's checks do this when they are not told to speak the protocol. */
Test(proxy, an_end_before_the_header_is_no_refusal) {
    int64_t before = metric_read(METRIC_PROXY_HEADERS_REFUSED);
    struct client client;
    client_connect(&client, &loopback, &plain);
    client_close(&client);
    for (int i = 0; i < LOOPBACK_WAIT_MS && atomic_load(&loopback.workers[0]->load) > 0; i++)
        usleep(1000);
    cr_expect_eq(atomic_load(&loopback.workers[0]->load), 0);
    cr_expect_eq(metric_read(METRIC_PROXY_HEADERS_REFUSED), before);
}

Test(proxy, connections_are_counted_for_the_client) {
    struct bytes bytes = header_of(TCP4, BODY(V4_ADDRESSES));
    struct bytes other = header_of(TCP6, BODY(V6_ADDRESSES));
    struct client clients[3], elsewhere;
    for (unsigned i = 0; i < 2; i++) {
        clients[i] = connect_with(&plain, &bytes, bytes.size);
        expect_told(&clients[i], "192.0.2.7:5123 00\n");
    }
    clients[2] = connect_with(&plain, &bytes, bytes.size);
    cr_expect(client_at_end(&clients[2]), "one more than the source may have");
    elsewhere = connect_with(&plain, &other, other.size);
    expect_told(&elsewhere, "[2001:db8::7]:5123 00\n");
    client_close(&elsewhere);
    for (unsigned i = 0; i < 3; i++)
        client_close(&clients[i]);
}

static void measure(struct worker *worker, void *context) {
    const struct connection_pool *pool = worker->connections;
    size_t *most = context;
    for (uint32_t i = 0; i < CONNECTION_SLAB_SIZE; i++) {
        const struct connection *c = connection_slot(pool, i);
        if (connection_has(c, CONNECTION_LIVE) && c->input && c->input->capacity > *most)
            *most = c->input->capacity;
    }
}

Test(proxy_late, a_late_header_is_closed_and_holds_little) {
    static const uint8_t body[LIMIT_PROXY_HEADER_BYTES];
    struct bytes bytes = header_of("\x20\0", body, LIMIT_PROXY_HEADER_BYTES - 16);
    int64_t before = metric_read(METRIC_PROXY_HEADERS_REFUSED);
    bytes.size--;
    struct client silent, slow = connect_with(&plain, &bytes, bytes.size);
    size_t most = 0;
    loopback_run(loopback.workers[0], measure, &most);
    cr_expect_leq(most, 2 * LIMIT_PROXY_HEADER_BYTES);
    client_connect(&silent, &loopback, &secure);
    cr_expect(client_at_end(&slow) && client_at_end(&silent));
    cr_expect_eq(metric_read(METRIC_PROXY_HEADERS_REFUSED) - before, 2);
    client_close(&slow);
    client_close(&silent);
}

/* Nobody but a listed proxy is believed: to others' protocol the header is what it is, bytes. */
Test(proxy_stranger, the_header_of_a_stranger_is_data) {
    struct bytes bytes = header_of(TCP4, BODY(V4_ADDRESSES));
    struct client client = connect_with(&plain, &bytes, bytes.size);
    char got[16] = "";
    cr_expect_eq(client_read(&client, got, 10), 10);
    cr_expect_str_eq(got, "[::]:0 00\n");
    client_close(&client);
    client = connect_with(&secure, &bytes, bytes.size);
    cr_expect(client_at_end(&client));
    client_close(&client);
}
