/*
 * The load generator: many MQTT connections from one thread, with a fixed window of unacknowledged
 * publishes each. It speaks through the gateway's own codec and measures another process.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/command.h"

/* Latencies, ns; 32 steps per power of two, so within 3 %. */
enum { HISTOGRAM_STEPS = 32, HISTOGRAM_POWERS = 40 };
struct histogram {
    uint64_t count[HISTOGRAM_STEPS * HISTOGRAM_POWERS];
    uint64_t total;
};
void histogram_add(struct histogram *h, uint64_t ns);
uint64_t histogram_quantile(const struct histogram *h, double quantile);

struct bench_options {
    struct cli_run *run;
    const char *host, *port, *ca_file;
    bool tls, mqtt5, idle;
    int64_t connections, qos, size_bytes, window, rate, duration_ms, warmup_ms, server_pid;
};

/* User and key of each connection; NULL entries: anonymous. */
struct bench_device {
    char *user, *key;
};

/* Reads --devices-file, or provisions devices through the API and writes it. NULL on failure. */
struct bench_device *bench_devices_load(const struct bench_options *options);

struct bench;

enum bench_state { BENCH_CONNECTING, BENCH_TLS, BENCH_CONNACK, BENCH_READY, BENCH_FAILED };

struct bench_connection {
    struct bench *bench;
    int fd;
    SSL *tls;
    enum bench_state state;
    uint16_t next_id;    /* of the next publish, 1 to window, round robin */
    uint16_t free_slots; /* publishes that may be sent now */
    bool want_write;
    uint32_t out_at, out_size; /* of the output buffer */
    uint32_t in_size;
    uint8_t *out, *in;
    uint64_t *sent_ns; /* per packet id */
    uint64_t due_ns;   /* with a rate: when the next publish is due */
};

struct bench {
    struct bench_options options;
    struct bench_device *devices;
    struct bench_connection *connections;
    SSL_CTX *tls;
    int epoll;
    uint8_t *packet; /* the encoded PUBLISH; the packet id is patched in */
    uint32_t packet_size, packet_id_at, out_capacity;
    uint64_t ready, failed, sent, acknowledged;
    uint64_t interval_ns; /* between publishes of one connection; 0: as fast as possible */
    bool publishing, measuring;
    struct histogram latency;
    char failure[256]; /* the first one */
};

/* Opens connection number index to the gateway and begins its CONNECT. */
bool bench_connection_open(struct bench *bench, unsigned index);
/* Handles readiness; false when the connection failed. */
bool bench_connection_ready(struct bench_connection *c, uint32_t events, uint64_t now_ns);
/* Fills the window (or sends what is due) and flushes. */
bool bench_connection_publish(struct bench_connection *c, uint64_t now_ns);
void bench_connection_close(struct bench_connection *c);
