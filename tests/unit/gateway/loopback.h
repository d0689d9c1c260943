/*
 * For tests of the transport and what stands on it: real workers, and a client of a few lines that
 * speaks plain text or TLS over a socket pair. Every wait ends after LOOPBACK_WAIT_MS.
 */
#pragma once

#include <openssl/ssl.h>

#include "gateway/transport/connection.h"
#include "gateway/transport/listener.h"
#include "gateway/transport/tls.h"

enum { LOOPBACK_WAIT_MS = 10000, LOOPBACK_WORKERS_MAX = 2 };

struct loopback {
    struct config *config;
    struct worker *workers[LOOPBACK_WORKERS_MAX];
    unsigned worker_count;
};

/* Workers with a pool; before_start may add state to each of them, overrides ("section.key=value",
 * NULL-terminated) change the configuration; both may be NULL. Aborts on failure. */
void loopback_start(struct loopback *loopback, unsigned worker_count,
                    int (*before_start)(struct worker *worker), const char *const *overrides);
void loopback_stop(struct loopback *loopback);
/* At the end of a suite under AddressSanitizer: aborts when memory leaked. */
void loopback_check_leaks(void);
/* Runs a function on the worker's thread and waits for it. */
void loopback_run(struct worker *worker, void (*run)(struct worker *worker, void *context),
                  void *context);

/* A fresh P-256 key with a self-signed certificate, as PEM files under `directory`. */
void loopback_write_certificate(const char *directory, const char *name, int days);
/* The same with an RSA key, or with issuer's certificate behind the leaf (NULL: self-signed). */
void loopback_write_chain(const char *directory, const char *name, int days, bool rsa,
                          const char *issuer);
/* Reads <directory>/<name>.pem and .key through tls_load(). */
struct tls_files *loopback_load_tls(const char *directory, const char *name);

struct client {
    int fd;
    SSL_CTX *context;
    SSL *ssl; /* NULL: plain text */
};

/* The other end of a socket pair given to the worker with the fewest connections. */
void client_connect(struct client *client, struct loopback *loopback,
                    const struct connection_listener *listener);
/* A TLS client of the given version on the connection, before its handshake. */
void client_prepare(struct client *client, int version);
/* Handshake of the given TLS version; certificate_path NULL for none. False when it failed. */
bool client_handshake(struct client *client, int version, const char *certificate_path,
                      const char *key_path);
bool client_send(struct client *client, const void *data, size_t size);
/* Reads until size bytes came, the end, or the time-out; how many. */
size_t client_read(struct client *client, void *data, size_t size);
/* True when the next thing is the end of the stream (or a reset). */
bool client_at_end(struct client *client);
void client_close(struct client *client);
