/*
 * Two workers, connections handed over and echoed in plain text and TLS while certificates are
 * installed again and again. A plain program, so that it runs under ThreadSanitizer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/gateway/loopback.h"

enum { CLIENTS = 4, CONNECTIONS = 60, ROUNDS = 5, INSTALLS = 60 };

static struct loopback loopback;
static atomic_int opened, closed;

void stream_extent_release(struct stream_extent *extent) {
}

static void fail(const char *what) {
    fprintf(stderr, "transport_race: %s\n", what);
    exit(1);
}

static int echo_open(struct connection *c) {
    atomic_fetch_add(&opened, 1);
    connection_set_deadline(c, c->worker->now_ns / 1000000u + 60000);
    return 0;
}

static ssize_t echo_receive(struct connection *c, const uint8_t *data, size_t size) {
    connection_write(c, data, size);
    return (ssize_t)size;
}

static void echo_closed(struct connection *c, int err) {
    atomic_fetch_add(&closed, 1);
}

static const struct connection_protocol echo = {
    .name = "mqtt", .open = echo_open, .receive = echo_receive, .closed = echo_closed};
static const struct connection_listener kinds[] = {{.name = "plain", .protocol = &echo},
                                                   {.name = "tls", .protocol = &echo, .tls = true}};

static void *run_client(void *context) {
    unsigned number = *(unsigned *)context;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct client client;
        bool tls = (i + number) % 2;
        client_connect(&client, &loopback, &kinds[tls]);
        if (tls && !client_handshake(&client, TLS1_3_VERSION, NULL, NULL))
            fail("handshake");
        for (unsigned round = 0; round < ROUNDS; round++) {
            char sent[64], got[64];
            int size = snprintf(sent, sizeof(sent), "client %u, %u, %u", number, i, round);
            if (!client_send(&client, sent, (size_t)size) ||
                client_read(&client, got, (size_t)size) != (size_t)size ||
                memcmp(sent, got, (size_t)size) != 0)
                fail("echo");
        }
        client_close(&client);
    }
    return NULL;
}

static void install(const char *directory) {
    struct tls_files *files = loopback_load_tls(directory, "server");
    for (unsigned i = 0; i < loopback.worker_count; i++)
        if (tls_install(loopback.workers[i], files) < 0)
            fail("tls_install");
    tls_release(files);
}

int main(void) {
    char directory[] = "/tmp/dg-race-XXXXXX", command[96];
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(directory))
        fail("mkdtemp");
    loopback_write_certificate(directory, "server", 30);
    loopback_start(&loopback, 2, NULL, NULL);
    install(directory);
    pthread_t threads[CLIENTS];
    unsigned numbers[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, run_client, &numbers[i]) != 0)
            fail("pthread_create");
    }
    for (unsigned i = 0; i < INSTALLS; i++) {
        install(directory);
        usleep(5000);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    loopback_stop(&loopback);
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    if (system(command) != 0 || opened != CLIENTS * CONNECTIONS || opened != closed)
        fail("connections were lost");
    return 0;
}
