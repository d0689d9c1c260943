/* Those who have not shown who they are: sources, silent connections, handshakes, deadlines. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/transport/transport.h"
#include "tests/unit/gateway/loopback.h"

enum { MOST = 5, DESCRIPTORS = 2 * (LIMIT_TLS_SILENT_PER_WORKER + 200) };

void stream_extent_release(struct stream_extent *extent) {
    cr_assert(false, "no extent is written here");
}

/* ---- a protocol that answers each byte, and takes 'k' for a login ---- */

static int echo_open(struct connection *c) {
    c->session = c;
    return 0;
}

static ssize_t echo_receive(struct connection *c, const uint8_t *data, size_t size) {
    if (memchr(data, 'k', size))
        connection_set_known(c);
    connection_write(c, data, size);
    return (ssize_t)size;
}

static void echo_closed(struct connection *c, int err) {
}

static const struct connection_protocol echo = {
    .name = "echo", .open = echo_open, .receive = echo_receive, .closed = echo_closed};
static const struct connection_listener plain = {.name = "plain", .protocol = &echo};
static const struct connection_listener secure = {.name = "tls", .protocol = &echo, .tls = true};

/* ---- frame ---- */

static struct loopback loopback;
static char directory[] = "/tmp/dg-arrival-XXXXXX";

static void set_up(void) {
    static const char *const overrides[] = {"security.unknown_connections=5",
                                            "tls.handshake_timeout=20s", NULL};
    struct rlimit descriptors = {DESCRIPTORS + 100, DESCRIPTORS + 100};
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &descriptors), 0);
    cr_assert(mkdtemp(directory));
    loopback_start(&loopback, 1, NULL, overrides);
    loopback_write_certificate(directory, "server", 30);
    struct tls_files *files = loopback_load_tls(directory, "server");
    cr_assert_eq(tls_install(loopback.workers[0], files), 0);
    tls_release(files);
}

static void tear_down(void) {
    loopback_stop(&loopback);
    char command[96];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_expect_eq(system(command), 0);
    loopback_check_leaks();
}

TestSuite(arrival, .init = set_up, .fini = tear_down, .timeout = 120);

static bool wait_metric(enum metric_id metric, int64_t value) {
    for (int i = 0; i < LOOPBACK_WAIT_MS && metric_read(metric) < value; i++)
        usleep(1000);
    return metric_read(metric) >= value;
}

static bool answers(struct client *client, const char *byte) {
    char got = 0;
    return client_send(client, byte, 1) && client_read(client, &got, 1) == 1 && got == *byte;
}

/* ---- sources ---- */

static struct in6_addr address(const char *text) {
    struct in6_addr parsed;
    cr_assert_eq(inet_pton(AF_INET6, text, &parsed), 1, "%s", text);
    return parsed;
}

Test(arrival, what_one_source_is) {
    static const struct {
        const char *first, *second;
        bool is_same;
    } cases[] = {
        {"::ffff:192.0.2.1", "::ffff:192.0.2.1", true},
        {"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
        {"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
        {"2001:db8::1", "2001:db8:0:1::1", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sources sources = {0};
        struct in6_addr first = address(cases[i].first), second = address(cases[i].second);
        cr_expect(sources_add(&sources, &first, 2) && sources_add(&sources, &first, 2));
        cr_expect_eq(sources_add(&sources, &second, 2), !cases[i].is_same, "case %u", i);
        sources_remove(&sources, &first);
        cr_expect(sources_add(&sources, &second, 2), "case %u: room again", i);
        sources_remove(&sources, &second);
        sources_remove(&sources, &first);
        if (!cases[i].is_same)
            sources_remove(&sources, &second);
        cr_expect_null(sources.by_prefix, "case %u: nothing is left behind", i);
    }
    static const char *const uncounted[] = {"::1", "::", "::ffff:127.0.0.1", "::ffff:127.9.9.9"};
    for (unsigned i = 0; i < sizeof(uncounted) / sizeof(uncounted[0]); i++) {
        struct in6_addr local = address(uncounted[i]);
        cr_expect_not(sources_count(&local), "%s", uncounted[i]);
    }
    struct in6_addr far = address("::ffff:128.0.0.1");
    cr_expect(sources_count(&far));
}

/* An address of this machine that is not loopback, or false. */
static bool find_own_address(struct sockaddr_in *ret_address) {
    struct ifaddrs *all, *i;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (i = all; i && !found; i = i->ifa_next) {
        found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET && (i->ifa_flags & IFF_UP) &&
                !(i->ifa_flags & IFF_LOOPBACK);
        if (found)
            memcpy(ret_address, i->ifa_addr, sizeof(*ret_address));
    }
    freeifaddrs(all);
    return found;
}

static int listen_on(struct sockaddr_in *own) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof(*own);
    own->sin_port = 0;
    cr_assert_eq(bind(fd, (struct sockaddr *)own, size), 0);
    cr_assert_eq(listen(fd, 64), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)own, &size), 0);
    return fd;
}

static struct client connect_from(int listening, const struct sockaddr_in *own) {
    struct timeval limit = {LOOPBACK_WAIT_MS / 1000, 0};
    struct client client = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    cr_assert_eq(connect(client.fd, (const struct sockaddr *)own, sizeof(*own)), 0);
    int accepted = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert_geq(accepted, 0);
    connection_hand_over(loopback.workers[0], accepted, &plain);
    return client;
}

Test(arrival, one_source_has_so_many_unknown_connections) {
    struct sockaddr_in own;
    if (!find_own_address(&own))
        cr_skip_test("this machine has only loopback");
    int listening = listen_on(&own);
    struct client clients[MOST + 1];
    for (unsigned i = 0; i < MOST; i++) {
        clients[i] = connect_from(listening, &own);
        cr_expect(answers(&clients[i], "u"), "%u", i);
    }
    clients[MOST] = connect_from(listening, &own);
    cr_expect(client_at_end(&clients[MOST]), "one too many");
    cr_expect_eq(metric_read(METRIC_SOURCES_LIMITED), 1);
    client_close(&clients[MOST]);
    cr_expect(answers(&clients[0], "k"), "this one has logged in");
    clients[MOST] = connect_from(listening, &own);
    cr_expect(answers(&clients[MOST], "u"), "so there is room for another");
    client_close(&clients[1]);
    usleep(50000);
    clients[1] = connect_from(listening, &own);
    cr_expect(answers(&clients[1], "u"), "one has gone");
    struct client local;
    client_connect(&local, &loopback, &plain);
    cr_expect(answers(&local, "u"), "others do not notice");
    client_close(&local);
    for (unsigned i = 0; i <= MOST; i++)
        client_close(&clients[i]);
    close(listening);
}

/* ---- secrets ---- */

static void find_word(struct worker *worker, void *context) {
    const char **word = context;
    if (!memmem(worker->read_buffer, LIMIT_READ_BUFFER_BYTES, *word, strlen(*word)))
        *word = NULL;
}

static bool buffer_has(struct client *client, const char *word) {
    char got[16];
    size_t size = strlen(word);
    cr_expect(client_send(client, word, size) && client_read(client, got, size) == size);
    loopback_run(loopback.workers[0], find_word, &word);
    return word;
}

/* What comes before the login is wiped; what comes after it costs nothing more. */
Test(arrival, input_is_wiped_until_the_login) {
    struct client client;
    client_connect(&client, &loopback, &plain);
    cr_expect_not(buffer_has(&client, "SECRET-ONE"));
    cr_expect_not(buffer_has(&client, "SECRET-TWO"));
    cr_expect(answers(&client, "k"));
    cr_expect(buffer_has(&client, "TELEMETRY"));
    client_close(&client);
}

/* ---- TLS ---- */

static bool tls_works(void) {
    struct client client;
    client_connect(&client, &loopback, &secure);
    bool works = client_handshake(&client, TLS1_3_VERSION, NULL, NULL) && answers(&client, "x");
    client_close(&client);
    return works;
}

/* Silent connections, however many, keep nobody out. */
Test(arrival, silent_connections_give_way) {
    enum { COUNT = LIMIT_TLS_SILENT_PER_WORKER + 50 };
    struct client *clients = calloc(COUNT, sizeof(*clients));
    for (unsigned i = 0; i < COUNT; i++)
        client_connect(&clients[i], &loopback, &secure);
    cr_expect(wait_metric(METRIC_CONNECTIONS_EVICTED, 50));
    cr_expect(client_at_end(&clients[0]), "the oldest one went");
    cr_expect(client_at_end(&clients[49]));
    cr_expect(tls_works());
    cr_expect(client_handshake(&clients[COUNT - 1], TLS1_2_VERSION, NULL, NULL), "also of them");
    cr_expect(answers(&clients[COUNT - 1], "x"));
    for (unsigned i = 0; i < COUNT; i++)
        client_close(&clients[i]);
    free(clients);
}

/* Those who begin and do not go on give way when they have had their time. */
Test(arrival, stalled_handshakes_give_way) {
    enum { COUNT = LIMIT_TLS_HANDSHAKES_PER_WORKER };
    struct client *clients = calloc(COUNT, sizeof(*clients));
    for (unsigned i = 0; i < COUNT; i++) {
        client_connect(&clients[i], &loopback, &secure);
        cr_expect(client_send(&clients[i], "\x16", 1));
    }
    bool works = false;
    for (unsigned i = 0; i < 100 && !works; i++) {
        works = tls_works();
        usleep(100000);
    }
    cr_expect(works);
    cr_expect_gt(metric_read(METRIC_CONNECTIONS_REFUSED), 0);
    cr_expect_gt(metric_read(METRIC_CONNECTIONS_EVICTED), 0);
    for (unsigned i = 0; i < COUNT; i++)
        client_close(&clients[i]);
    free(clients);
}
