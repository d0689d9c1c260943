/* Worker, connection, listener and TLS against real sockets, with a line protocol of a few words.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/transport/wheel.h"
#include "tests/unit/gateway/loopback.h"

enum { FILE_BYTES = 700 * 1000, PAUSE_MS = 200 };

/* ---- the protocol ---- */

struct word_session {
    bool paused;
};

static atomic_int opened, closed, last_error, released, drained;
static int extent_fd = -1;
static uint8_t extent_bytes[FILE_BYTES];
static _Atomic uint64_t last_id;

void stream_extent_release(struct stream_extent *extent) {
    atomic_fetch_add(&released, 1);
}

static uint64_t now_ms(struct connection *c) {
    return c->worker->now_ns / 1000000u;
}

static int word_open(struct connection *c) {
    c->session = calloc(1, sizeof(struct word_session));
    atomic_fetch_add(&opened, 1);
    atomic_store(&last_id, connection_id(c));
    return 0;
}

static void write_text(struct connection *c, const char *text) {
    connection_write(c, text, strlen(text));
}

static void write_extents(struct connection *c, bool memory) {
    write_text(c, "head");
    struct stream_extent extent = {.memory = memory ? extent_bytes : NULL,
                                   .fd = memory ? -1 : extent_fd,
                                   .size_bytes = FILE_BYTES};
    connection_write_extent(c, &extent);
    write_text(c, "tail\n");
}

static void write_many(struct connection *c, size_t size) {
    static const char pattern[1000];
    for (; size >= sizeof(pattern); size -= sizeof(pattern))
        connection_write(c, pattern, sizeof(pattern));
}

static void write_certificate_sizes(struct connection *c) {
    uint8_t *der = NULL;
    size_t size = 0, leaf = 0;
    char text[64];
    int err = connection_peer_certificates(c, &der, &size, &leaf);
    snprintf(text, sizeof(text), "%d %zu %d\n", err, size - leaf, leaf > 100);
    write_text(c, text);
    free(der);
}

static ssize_t do_word(struct connection *c, const char *word, size_t size) {
    struct word_session *session = c->session;
    if (size > 5 && memcmp(word, "echo ", 5) == 0)
        connection_write(c, word + 5, size - 5);
    else if (strncmp(word, "pause\n", size) == 0) {
        connection_pause(c);
        session->paused = true;
        connection_set_deadline(c, now_ms(c) + PAUSE_MS);
    } else if (strncmp(word, "close\n", size) == 0) {
        write_text(c, "bye\n");
        connection_close(c, DG_ERR_ADMINISTRATIVE);
        write_text(c, "never\n");
    } else if (strncmp(word, "error\n", size) == 0)
        return DG_ERR_PROTOCOL;
    else if (strncmp(word, "file\n", size) == 0)
        write_extents(c, false);
    else if (strncmp(word, "memory\n", size) == 0)
        write_extents(c, true);
    else if (strncmp(word, "many\n", size) == 0)
        write_many(c, 900 * 1000);
    else if (strncmp(word, "toomuch\n", size) == 0)
        write_many(c, 2 * LIMIT_OUTPUT_BYTES);
    else if (strncmp(word, "raise\n", size) == 0)
        c->input_limit_bytes = 256 * 1024;
    else if (strncmp(word, "deadline\n", size) == 0)
        connection_set_deadline(c, now_ms(c) + PAUSE_MS);
    else if (strncmp(word, "certificate\n", size) == 0)
        write_certificate_sizes(c);
    return 0;
}

static ssize_t word_receive(struct connection *c, const uint8_t *data, size_t size) {
    struct word_session *session = c->session;
    size_t used = 0;
    const uint8_t *end;
    while (!session->paused && (end = memchr(data + used, '\n', size - used))) {
        size_t length = (size_t)(end - (data + used)) + 1;
        ssize_t err = do_word(c, (const char *)data + used, length);
        if (err < 0)
            return err;
        used += length;
    }
    return (ssize_t)used;
}

static void word_drained(struct connection *c) {
    atomic_fetch_add(&drained, 1);
}

static uint64_t word_deadline(struct connection *c, uint64_t now) {
    struct word_session *session = c->session;
    if (!session->paused) {
        write_text(c, "late\n");
        return 0;
    }
    session->paused = false;
    connection_resume(c);
    return now + 3600 * 1000;
}

static void word_closed(struct connection *c, int err) {
    free(c->session);
    atomic_store(&last_error, err);
    atomic_fetch_add(&closed, 1);
}

static const struct connection_protocol word_protocol = {.name = "mqtt",
                                                         .open = word_open,
                                                         .receive = word_receive,
                                                         .drained = word_drained,
                                                         .deadline = word_deadline,
                                                         .closed = word_closed};
static const struct connection_listener plain = {.name = "words", .protocol = &word_protocol};
static const struct connection_listener secure = {
    .name = "words", .protocol = &word_protocol, .tls = true};

/* ---- the frame of each test ---- */

static struct loopback loopback;
static char directory[] = "/tmp/dg-transport-XXXXXX";

static void wait_for(atomic_int *counter, int value) {
    for (int i = 0; i < LOOPBACK_WAIT_MS && atomic_load(counter) < value; i++)
        usleep(1000);
    cr_assert_geq(atomic_load(counter), value);
}

static void set_up(void) {
    signal(SIGPIPE, SIG_IGN);
    cr_assert(mkdtemp(directory));
    char path[64];
    snprintf(path, sizeof(path), "%s/file", directory);
    extent_fd = open(path, O_RDWR | O_CREAT, 0600);
    for (size_t i = 0; i < FILE_BYTES; i++)
        extent_bytes[i] = (uint8_t)(i * 7 >> 3);
    cr_assert_eq(write(extent_fd, extent_bytes, FILE_BYTES), FILE_BYTES);
    static const char *const overrides[] = {"tls.handshake_timeout=300ms", NULL};
    loopback_start(&loopback, 1, NULL, overrides);
}

static void install_certificate(const char *name) {
    loopback_write_certificate(directory, name, 30);
    struct tls_files *files = loopback_load_tls(directory, name);
    cr_assert_gt(tls_expiry(files), 0);
    cr_assert_eq(tls_install(loopback.workers[0], files), 0);
    tls_release(files);
}

static void tear_down(void) {
    loopback_stop(&loopback);
    cr_expect_eq(atomic_load(&opened), atomic_load(&closed));
    cr_expect_eq(metric_read(METRIC_CONNECTIONS_OPEN_MQTT), 0);
    close(extent_fd);
    char command[96];
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    cr_expect_eq(system(command), 0);
    loopback_check_leaks();
}

TestSuite(transport, .init = set_up, .fini = tear_down, .timeout = 60);

static const int VERSIONS[] = {0, TLS1_2_VERSION, TLS1_3_VERSION};

/* Plain text for version 0. */
static void connect_with(struct client *client, int version) {
    client_connect(client, &loopback, version ? &secure : &plain);
    if (version)
        cr_assert(client_handshake(client, version, NULL, NULL));
}

static void expect_text(struct client *client, const char *text) {
    char got[256] = "";
    size_t size = strlen(text);
    cr_assert_lt(size, sizeof(got));
    cr_expect_eq(client_read(client, got, size), size);
    cr_expect_str_eq(got, text);
}

static void send_text(struct client *client, const char *text) {
    cr_expect(client_send(client, text, strlen(text)));
}

/* ---- the tests ---- */

Test(transport, conversations_in_plain_text_and_tls) {
    static const struct {
        const char *send;
        size_t step; /* bytes per send */
        const char *expect;
    } cases[] = {
        {"echo a\n", 100, "a\n"},
        {"echo a\necho b\necho c\n", 100, "a\nb\nc\n"},
        {"echo in pieces\necho and on\n", 1, "in pieces\nand on\n"},
        {"echo x\npause\necho y\necho z\n", 100, "x\ny\nz\n"},
        {"pause\npause\npause\necho y\n", 7, "y\n"},
    };
    install_certificate("server");
    for (unsigned v = 0; v < 3; v++) {
        struct client client;
        connect_with(&client, VERSIONS[v]);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            size_t size = strlen(cases[i].send), step = cases[i].step;
            for (size_t at = 0; at < size; at += step)
                client_send(&client, cases[i].send + at, size - at < step ? size - at : step);
            expect_text(&client, cases[i].expect);
        }
        client_close(&client);
        wait_for(&closed, (int)v + 1);
        cr_expect_eq(atomic_load(&last_error), DG_ERR_CLOSED);
    }
}

/* close_notify in one flight with the last bytes, the socket left open. */
Test(transport, an_end_inside_tls_is_found) {
    install_certificate("server");
    for (unsigned v = 1; v < 3; v++)
        for (int paused = 0; paused < 2; paused++) {
            int before = atomic_load(&closed);
            struct client client;
            connect_with(&client, VERSIONS[v]);
            send_text(&client, paused ? "pause\necho a\n" : "echo a\n");
            SSL_shutdown(client.ssl);
            wait_for(&closed, before + 1);
            cr_expect_eq(atomic_load(&last_error), DG_ERR_CLOSED);
            client_close(&client);
        }
}

/* The last read ends within the last record: the rest of it is inside OpenSSL, the socket empty. */
Test(transport, the_rest_of_a_record_is_read_without_a_wake_up) {
    install_certificate("server");
    char line[1000], last[1000];
    memset(line, 'n', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    memcpy(last, line, sizeof(last));
    memcpy(last + sizeof(last) - 11, "\necho done\n", 11);
    unsigned whole = LIMIT_BEFORE_LOGIN_BYTES / sizeof(line);
    for (unsigned v = 1; v < 3; v++) {
        struct client client;
        connect_with(&client, VERSIONS[v]);
        send_text(&client, "pause\n");
        usleep(20000);
        for (unsigned i = 0; i < whole; i++)
            client_send(&client, line, sizeof(line));
        client_send(&client, last, sizeof(last));
        expect_text(&client, "done\n");
        client_close(&client);
    }
}

/* Many records at once, more than one turn may read. */
Test(transport, a_flood_inside_tls_is_read_to_its_end) {
    install_certificate("server");
    static char lines[2 * 1000 * 1000];
    for (size_t at = 0; at < sizeof(lines); at += 1000) {
        memset(lines + at, 'n', 999);
        lines[at + 999] = '\n';
    }
    for (unsigned v = 0; v < 3; v++) {
        struct client client;
        connect_with(&client, VERSIONS[v]);
        send_text(&client, "raise\n");
        client_send(&client, lines, sizeof(lines));
        send_text(&client, "echo done\n");
        expect_text(&client, "done\n");
        client_close(&client);
    }
}

Test(transport, closing_from_inside_receive) {
    static const struct {
        const char *send;
        const char *expect;
        int err;
    } cases[] = {
        {"echo a\nclose\necho b\n", "a\nbye\n", DG_ERR_ADMINISTRATIVE},
        {"echo a\nerror\necho b\n", "a\n", DG_ERR_PROTOCOL},
        {"deadline\n", "late\n", DG_ERR_KEEP_ALIVE},
    };
    install_certificate("server");
    int count = 0;
    for (unsigned v = 0; v < 3; v++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct client client;
            connect_with(&client, VERSIONS[v]);
            send_text(&client, cases[i].send);
            expect_text(&client, cases[i].expect);
            cr_expect(client_at_end(&client));
            wait_for(&closed, ++count);
            cr_expect_eq(atomic_load(&last_error), cases[i].err);
            client_close(&client);
        }
}

Test(transport, input_limit_closes) {
    struct client client;
    connect_with(&client, 0);
    static char junk[2 * LIMIT_BEFORE_LOGIN_BYTES];
    memset(junk, 'x', sizeof(junk));
    client_send(&client, junk, sizeof(junk));
    wait_for(&closed, 1);
    cr_expect_eq(atomic_load(&last_error), DG_ERR_LIMIT);
    client_close(&client);
}

Test(transport, a_long_rest_grows_in_its_own_buffer) {
    install_certificate("server");
    static char line[60 * 1024];
    static char got[sizeof(line)];
    memset(line, 'x', sizeof(line));
    memcpy(line, "echo ", 5);
    line[sizeof(line) - 1] = '\n';
    for (unsigned v = 0; v < 3; v++) {
        struct client client;
        connect_with(&client, VERSIONS[v]);
        for (unsigned round = 0; round < 3; round++) {
            for (size_t at = 0; at < sizeof(line); at += 6000) {
                size_t left = sizeof(line) - at;
                client_send(&client, line + at, left < 6000 ? left : 6000);
                usleep(500);
            }
            cr_expect_eq(client_read(&client, got, sizeof(line) - 5), sizeof(line) - 5);
            cr_expect_eq(got[sizeof(line) - 6], '\n');
        }
        client_close(&client);
    }
}

Test(transport, extents_and_backpressure) {
    install_certificate("server");
    static const char *const words[] = {"file\n", "memory\n"};
    static uint8_t got[FILE_BYTES];
    int expected = 0;
    for (unsigned v = 0; v < 3; v++)
        for (unsigned w = 0; w < 2; w++) {
            struct client client;
            connect_with(&client, VERSIONS[v]);
            send_text(&client, words[w]);
            send_text(&client, words[w]);
            usleep(20000); /* the socket fills and the rest waits */
            for (unsigned round = 0; round < 2; round++) {
                expect_text(&client, "head");
                cr_expect_eq(client_read(&client, got, FILE_BYTES), FILE_BYTES);
                cr_expect_eq(memcmp(got, extent_bytes, FILE_BYTES), 0);
                expect_text(&client, "tail\n");
            }
            send_text(&client, "echo done\n");
            expect_text(&client, "done\n");
            wait_for(&released, expected += 2);
            client_close(&client);
        }
    wait_for(&drained, 6);
}

Test(transport, an_extent_of_a_closed_connection_is_released) {
    struct client client;
    connect_with(&client, 0);
    send_text(&client, "file\n");
    expect_text(&client, "head");
    client_close(&client);
    wait_for(&closed, 1);
    wait_for(&released, 1);
}

Test(transport, output_is_limited) {
    static uint8_t got[900 * 1000];
    struct client client;
    connect_with(&client, 0);
    send_text(&client, "many\n");
    cr_expect_eq(client_read(&client, got, sizeof(got)), sizeof(got));
    send_text(&client, "toomuch\n");
    wait_for(&closed, 1);
    cr_expect_eq(atomic_load(&last_error), DG_ERR_LIMIT);
    client_close(&client);
}

Test(transport, a_client_that_does_not_read_is_not_waited_for) {
    struct client client;
    connect_with(&client, 0);
    send_text(&client, "many\nclose\n");
    usleep(500 * 1000);
    cr_expect_eq(atomic_load(&closed), 0);
    wait_for(&closed, 1); /* after the linger time */
    cr_expect_eq(atomic_load(&last_error), DG_ERR_ADMINISTRATIVE);
    client_close(&client);
}

static void find_by_id(struct worker *worker, void *context) {
    bool *found = context;
    *found = connection_find(worker, atomic_load(&last_id)) != NULL;
}

Test(transport, ids_die_with_their_connection) {
    struct client first, second;
    bool found = false;
    connect_with(&first, 0);
    wait_for(&opened, 1);
    uint64_t id = atomic_load(&last_id);
    loopback_run(loopback.workers[0], find_by_id, &found);
    cr_expect(found);
    client_close(&first);
    wait_for(&closed, 1);
    loopback_run(loopback.workers[0], find_by_id, &found);
    cr_expect_not(found);
    connect_with(&second, 0);
    wait_for(&opened, 2);
    cr_expect_neq(atomic_load(&last_id), id);
    client_close(&second);
}

Test(transport, client_certificates) {
    install_certificate("server");
    loopback_write_certificate(directory, "device", -1); /* expired: the registry's business */
    char certificate[64], key[64];
    snprintf(certificate, sizeof(certificate), "%s/device.pem", directory);
    snprintf(key, sizeof(key), "%s/device.key", directory);
    for (unsigned v = 0; v < 3; v++) {
        struct client client;
        client_connect(&client, &loopback, VERSIONS[v] ? &secure : &plain);
        if (VERSIONS[v])
            cr_assert(client_handshake(&client, VERSIONS[v], certificate, key));
        send_text(&client, "certificate\n");
        expect_text(&client, VERSIONS[v] ? "0 0 1\n" : "-33 0 0\n");
        client_close(&client);
    }
}

Test(transport, handshakes_that_fail) {
    struct client client;
    client_connect(&client, &loopback, &secure); /* no certificate installed yet */
    cr_expect(client_at_end(&client));
    client_close(&client);
    install_certificate("server");
    client_connect(&client, &loopback, &secure);
    send_text(&client, "GET / HTTP/1.1\r\n\r\n");
    uint8_t alert[64];
    client_read(&client, alert, sizeof(alert));
    client_close(&client);
    client_connect(&client, &loopback, &secure);
    cr_expect_not(client_handshake(&client, TLS1_1_VERSION, NULL, NULL));
    client_close(&client);
    client_connect(&client, &loopback, &secure); /* says nothing: the deadline */
    cr_expect(client_at_end(&client));
    client_close(&client);
    cr_expect_eq(atomic_load(&opened), 0);
    cr_expect_eq(metric_read(METRIC_TLS_HANDSHAKES_FAILED), 2);
}

Test(transport, new_certificates_for_new_connections) {
    install_certificate("server");
    struct client old, new;
    connect_with(&old, TLS1_3_VERSION);
    install_certificate("other");
    connect_with(&new, TLS1_3_VERSION);
    X509 *seen_old = SSL_get0_peer_certificate(old.ssl);
    X509 *seen_new = SSL_get0_peer_certificate(new.ssl);
    cr_expect_neq(X509_cmp(seen_old, seen_new), 0);
    send_text(&old, "echo still here\n");
    expect_text(&old, "still here\n");
    client_close(&old);
    client_close(&new);
}

Test(transport, certificate_files_that_do_not_fit) {
    loopback_write_certificate(directory, "one", 30);
    loopback_write_certificate(directory, "two", 30);
    char one[64], two[64], error[TLS_ERROR_SIZE] = "";
    snprintf(one, sizeof(one), "%s/one.pem", directory);
    snprintf(two, sizeof(two), "%s/two.key", directory);
    char missing[] = "/nonexistent.pem", none[] = "";
    const struct config cases[] = {
        {.tls_certificate_file = one, .tls_key_file = two},
        {.tls_certificate_file = one, .tls_key_file = none},
        {.tls_certificate_file = missing, .tls_key_file = two},
        {.tls_certificate_file = two, .tls_key_file = two},
    };
    struct tls_files *files = (void *)1;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(tls_load(&cases[i], &files, error), DG_ERR_INVALID);
        cr_expect_gt(strlen(error), 10);
    }
    const struct config empty = {.tls_certificate_file = none};
    cr_expect_eq(tls_load(&empty, &files, error), 0);
    cr_expect_null(files);
}

Test(transport, two_chains_side_by_side) {
    loopback_write_certificate(directory, "ecdsa", 30);
    loopback_write_chain(directory, "rsa", 20, true, NULL);
    char paths[4][64], error[TLS_ERROR_SIZE];
    static const char *const names[] = {"ecdsa.pem", "ecdsa.key", "rsa.pem", "rsa.key"};
    for (unsigned i = 0; i < 4; i++)
        snprintf(paths[i], sizeof(paths[i]), "%s/%s", directory, names[i]);
    const struct config config = {.tls_certificate_file = paths[0],
                                  .tls_key_file = paths[1],
                                  .tls_rsa_certificate_file = paths[2],
                                  .tls_rsa_key_file = paths[3]};
    struct tls_files *files = NULL;
    cr_assert_eq(tls_load(&config, &files, error), 0);
    cr_expect_lt(tls_expiry(files), time(NULL) + 21 * 86400); /* the earlier of the two */
    cr_assert_eq(tls_install(loopback.workers[0], files), 0);
    tls_release(files);
    static const struct {
        const char *ciphers;
        int type;
    } cases[] = {{"ECDHE-ECDSA-AES128-GCM-SHA256", EVP_PKEY_EC},
                 {"ECDHE-RSA-AES128-GCM-SHA256", EVP_PKEY_RSA},
                 {"ECDHE-RSA-AES128-SHA", 0},
                 {"AES128-GCM-SHA256", 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client client;
        client_connect(&client, &loopback, &secure);
        client_prepare(&client, TLS1_2_VERSION);
        SSL_set_cipher_list(client.ssl, cases[i].ciphers);
        cr_expect_eq(SSL_connect(client.ssl) == 1, cases[i].type != 0, "case %zu", i);
        X509 *seen = SSL_get0_peer_certificate(client.ssl);
        cr_expect_eq(seen ? EVP_PKEY_base_id(X509_get0_pubkey(seen)) : 0, cases[i].type);
        client_close(&client);
    }
}

/* A client's chain is there after a resumption too, or there is none. */
Test(transport, resumption_keeps_what_the_registry_judges) {
    install_certificate("server");
    loopback_write_certificate(directory, "issuer", 30);
    loopback_write_chain(directory, "leaf", 30, false, NULL);
    loopback_write_chain(directory, "chain", 30, false, "issuer");
    static const struct {
        const char *name;
        bool resumes;
        const char *expect;
    } cases[] = {{NULL, true, "-33 "}, {"leaf", true, "0 0 1"}, {"chain", false, "0 "}};
    for (unsigned v = 1; v < 3; v++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            char certificate[64], key[64], first[64] = "", second[64] = "";
            snprintf(certificate, sizeof(certificate), "%s/%s.pem", directory, cases[i].name);
            snprintf(key, sizeof(key), "%s/%s.key", directory, cases[i].name);
            const char *path = cases[i].name ? certificate : NULL;
            struct client client;
            client_connect(&client, &loopback, &secure);
            cr_assert(client_handshake(&client, VERSIONS[v], path, key));
            send_text(&client, "certificate\n");
            client_read(&client, first, 6);
            SSL_SESSION *session = SSL_get1_session(client.ssl);
            client_close(&client);
            client_connect(&client, &loopback, &secure);
            client_prepare(&client, VERSIONS[v]);
            if (path) {
                SSL_use_certificate_chain_file(client.ssl, certificate);
                SSL_use_PrivateKey_file(client.ssl, key, SSL_FILETYPE_PEM);
            }
            SSL_set_session(client.ssl, session);
            cr_assert_eq(SSL_connect(client.ssl), 1);
            cr_expect_eq(SSL_session_reused(client.ssl), cases[i].resumes, "%u %zu", v, i);
            send_text(&client, "certificate\n");
            client_read(&client, second, 6);
            cr_expect_str_eq(first, second);
            cr_expect_eq(strncmp(first, cases[i].expect, strlen(cases[i].expect)), 0, "%s", first);
            SSL_SESSION_free(session);
            client_close(&client);
        }
}

/* ---- the wheel ---- */

static struct wheel wheel;
static struct connection timed[3];
static unsigned expiries[3];
static uint64_t rearm_ms;

static void on_expired(struct connection *c) {
    expiries[c - timed]++;
    wheel_set(&wheel, &timed[2], 0, 0); /* whoever expires takes number 2 off */
    if (rearm_ms)
        wheel_set(&wheel, c, rearm_ms, 0);
}

Test(transport, wheel) {
    static const struct {
        uint64_t set_ms, moved_ms; /* 0: not moved */
        uint64_t rearm_ms;
        uint64_t quiet_until_ms, by_ms;
        unsigned times;
    } cases[] = {
        {1050, 0, 0, 1049, 1200, 1},
        {1050, 5000, 0, 4999, 5200, 1},           /* moved later without being touched */
        {5000, 1050, 0, 1049, 1200, 1},           /* and earlier */
        {900, 0, 0, 1000, 1200, 1},               /* already past */
        {1001 + 500000, 0, 0, 501000, 501300, 1}, /* several revolutions */
        {1050, 0, 1450, 1449, 1600, 2},
        {1050, 0, 0, 0, 9000000, 1}, /* the loop slept for hours */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        wheel = (struct wheel){0};
        memset(timed, 0, sizeof(timed));
        memset(expiries, 0, sizeof(expiries));
        rearm_ms = cases[i].rearm_ms;
        wheel_set(&wheel, &timed[2], cases[i].set_ms, 1000);
        wheel_set(&wheel, &timed[0], cases[i].set_ms, 1000);
        wheel_set(&wheel, &timed[1], 400000000, 1000);
        if (cases[i].moved_ms)
            wheel_set(&wheel, &timed[0], cases[i].moved_ms, 1000);
        wheel_set(&wheel, &timed[2], cases[i].moved_ms ? 0 : cases[i].set_ms, 1000);
        for (uint64_t now = 1000; now <= cases[i].quiet_until_ms; now += 7)
            wheel_advance(&wheel, now, on_expired);
        cr_expect_eq(expiries[0], cases[i].times - 1, "case %zu", i);
        rearm_ms = 0;
        wheel_advance(&wheel, cases[i].by_ms, on_expired);
        cr_expect_eq(expiries[0], cases[i].times, "case %zu", i);
        cr_expect_eq(expiries[1], 0);
        cr_expect_eq(wheel.count, 1);
    }
}

/* ---- listeners ---- */

static int connect_to(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Without descriptors the peer is told so at once, and accepting resumes later. */
static void expect_pause(struct event_base *base, struct listener_set *set, uint16_t port) {
    struct client first = {.fd = connect_to(port)}, second = {.fd = connect_to(port)};
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    int next = dup(0);
    close(next);
    none.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &none);
    event_base_loop(base, EVLOOP_ONCE);
    cr_expect(client_at_end(&first));
    cr_expect_eq(event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
    cr_expect_eq(metric_read(METRIC_CONNECTIONS_REFUSED), 1);
    setrlimit(RLIMIT_NOFILE, &before);
    event_base_loop(base, EVLOOP_ONCE); /* the pause ends */
    event_base_loop(base, EVLOOP_ONCE);
    send_text(&second, "echo again\n");
    expect_text(&second, "again\n");
    client_close(&first);
    client_close(&second);
}

/* Connections leave descriptors to the stream: the last ones are refused while files still open. */
static void expect_reserve(struct event_base *base) {
    enum { LIMIT = 400, TRIES = 300 };
    struct rlimit before, small;
    getrlimit(RLIMIT_NOFILE, &before);
    small = before;
    small.rlim_cur = LIMIT;
    setrlimit(RLIMIT_NOFILE, &small);
    struct listener_set *set = NULL;
    char error[CONFIG_ERROR_SIZE] = "";
    cr_assert_eq(listener_set_create(base, loopback.workers, 1, &set), 0);
    cr_assert_eq(listener_set_bind(set, "127.0.0.1:0", &plain, error), 0, "%s", error);
    setrlimit(RLIMIT_NOFILE, &before); /* this process holds the clients' ends too */
    int64_t refused = metric_read(METRIC_CONNECTIONS_REFUSED);
    struct client clients[TRIES];
    unsigned tries = 0;
    for (; tries < TRIES && metric_read(METRIC_CONNECTIONS_REFUSED) == refused; tries++) {
        clients[tries] = (struct client){.fd = connect_to(listener_set_port(set, &plain))};
        event_base_loop(base, EVLOOP_ONCE);
    }
    cr_expect_lt(tries, TRIES, "nobody was refused");
    cr_expect(client_at_end(&clients[tries - 1]));
    int file = open("/dev/null", O_RDONLY);
    cr_expect_lt(file, LIMIT);
    close(file);
    while (tries > 0)
        client_close(&clients[--tries]);
    listener_set_free(set);
}

/* Who still sends after we closed is not answered with a reset that could overtake our last words.
 */
static void expect_linger(struct event_base *base, uint16_t port) {
    struct client client = {.fd = connect_to(port)};
    event_base_loop(base, EVLOOP_ONCE);
    send_text(&client, "close\n");
    wait_for(&closed, 1);
    for (unsigned i = 0; i < 5; i++) {
        send_text(&client, "still talking\n");
        usleep(5000);
    }
    expect_text(&client, "bye\n");
    cr_expect(client_at_end(&client));
    client_close(&client);
}

static void describe_peer(struct worker *worker, void *context) {
    struct connection *c = connection_find(worker, atomic_load(&last_id));
    connection_format_peer(c, context);
    cr_expect(connection_peer_is_loopback(c));
    cr_expect_not(connection_is_encrypted(c));
}

Test(transport, listening) {
    struct event_base *base = event_base_new();
    struct listener_set *set = NULL;
    char error[CONFIG_ERROR_SIZE] = "";
    cr_assert_eq(listener_set_create(base, loopback.workers, 1, &set), 0);
    static const char *const wrong[] = {"1883",       "localhost:1883", "::1:1883",
                                        "127.0.0.1:", "127.0.0.1:port", "[127.0.0.1]:1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        cr_expect_eq(listener_set_bind(set, wrong[i], &plain, error), DG_ERR_INVALID, "%s",
                     wrong[i]);
    cr_expect_eq(listener_set_bind(set, "", &plain, error), 0);
    cr_expect_eq(listener_set_port(set, &plain), 0);
    cr_assert_eq(listener_set_bind(set, "127.0.0.1:0", &plain, error), 0, "%s", error);
    uint16_t port = listener_set_port(set, &plain);
    cr_assert_neq(port, 0);
    char taken[32];
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", port);
    cr_expect_eq(listener_set_bind(set, taken, &secure, error), DG_ERR_IO);
    struct client client = {.fd = connect_to(port)};
    event_base_loop(base, EVLOOP_ONCE);
    send_text(&client, "echo hello\n");
    expect_text(&client, "hello\n");
    char peer[CONNECTION_PEER_TEXT_SIZE] = "";
    loopback_run(loopback.workers[0], describe_peer, peer);
    cr_expect_eq(strncmp(peer, "127.0.0.1:", 10), 0);
    expect_linger(base, port);
    expect_pause(base, set, port);
    expect_reserve(base);
    listener_set_close(set);
    client_close(&client);
    listener_set_free(set);
    event_base_free(base);
}
