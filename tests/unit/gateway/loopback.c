#include "tests/unit/gateway/loopback.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                        \
        }                                                                   \
    } while (0)

void loopback_start(struct loopback *loopback, unsigned worker_count,
                    int (*before_start)(struct worker *worker), const char *const *overrides) {
    *loopback = (struct loopback){.worker_count = worker_count};
    char error[CONFIG_ERROR_SIZE];
    CHECK(config_load(NULL, NULL, overrides, &loopback->config, error) == 0);
    for (unsigned i = 0; i < worker_count; i++) {
        CHECK(worker_create(i, loopback->config, &loopback->workers[i]) == 0);
        CHECK(!before_start || before_start(loopback->workers[i]) == 0);
        CHECK(connection_pool_create(loopback->workers[i]) == 0);
    }
    for (unsigned i = 0; i < worker_count; i++)
        CHECK(worker_start(loopback->workers[i]) == 0);
}

void loopback_stop(struct loopback *loopback) {
    for (unsigned i = 0; i < loopback->worker_count; i++)
        worker_stop(loopback->workers[i]);
    for (unsigned i = 0; i < loopback->worker_count; i++) {
        worker_join(loopback->workers[i]);
        worker_free(loopback->workers[i]);
    }
    config_free(loopback->config);
}

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
void loopback_check_leaks(void) {
    if (__lsan_do_recoverable_leak_check())
        abort();
}
#else
void loopback_check_leaks(void) {
}
#endif

struct errand {
    struct mail mail;
    void (*run)(struct worker *worker, void *context);
    void *context;
    sem_t done;
};

static void deliver_errand(struct mail *mail, void *receiver) {
    struct errand *errand = (struct errand *)mail;
    errand->run(receiver, errand->context);
    sem_post(&errand->done);
}

void loopback_run(struct worker *worker, void (*run)(struct worker *worker, void *context),
                  void *context) {
    struct errand errand = {.mail.deliver = deliver_errand, .run = run, .context = context};
    sem_init(&errand.done, 0, 0);
    mailbox_post(&worker->mailbox, &errand.mail);
    while (sem_wait(&errand.done) != 0) {
    }
    sem_destroy(&errand.done);
}

/* ---- certificates ---- */

static X509 *make_certificate(EVP_PKEY *key, const char *name, int days) {
    X509 *x = X509_new();
    CHECK(x && X509_set_version(x, 2));
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), (long)days * 86400);
    X509_set_pubkey(x, key);
    X509_NAME *subject = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, subject);
    CHECK(X509_sign(x, key, EVP_sha256()));
    return x;
}

static void append_issuer(FILE *file, const char *directory, const char *issuer) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s.pem", directory, issuer);
    FILE *from = fopen(path, "r");
    X509 *x = from ? PEM_read_X509(from, NULL, NULL, NULL) : NULL;
    CHECK(x && PEM_write_X509(file, x));
    X509_free(x);
    fclose(from);
}

void loopback_write_certificate(const char *directory, const char *name, int days) {
    loopback_write_chain(directory, name, days, false, NULL);
}

void loopback_write_chain(const char *directory, const char *name, int days, bool rsa,
                          const char *issuer) {
    EVP_PKEY *key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    CHECK(key);
    X509 *x = make_certificate(key, name, days);
    char path[512];
    snprintf(path, sizeof(path), "%s/%s.pem", directory, name);
    FILE *file = fopen(path, "w");
    CHECK(file && PEM_write_X509(file, x));
    if (issuer)
        append_issuer(file, directory, issuer);
    fclose(file);
    snprintf(path, sizeof(path), "%s/%s.key", directory, name);
    file = fopen(path, "w");
    CHECK(file && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
    fclose(file);
    X509_free(x);
    EVP_PKEY_free(key);
}

struct tls_files *loopback_load_tls(const char *directory, const char *name) {
    char certificate[512], key[512], error[TLS_ERROR_SIZE];
    snprintf(certificate, sizeof(certificate), "%s/%s.pem", directory, name);
    snprintf(key, sizeof(key), "%s/%s.key", directory, name);
    struct config config = {.tls_certificate_file = certificate, .tls_key_file = key};
    struct tls_files *files = NULL;
    CHECK(tls_load(&config, &files, error) == 0 && files);
    return files;
}

/* ---- the client ---- */

void client_connect(struct client *client, struct loopback *loopback,
                    const struct connection_listener *listener) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    struct timeval limit = {LOOPBACK_WAIT_MS / 1000, 0};
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    evutil_make_socket_nonblocking(pair[1]);
    *client = (struct client){.fd = pair[0]};
    struct worker *worker = loopback->workers[0];
    for (unsigned i = 1; i < loopback->worker_count; i++)
        if (atomic_load(&loopback->workers[i]->load) < atomic_load(&worker->load))
            worker = loopback->workers[i];
    connection_hand_over(worker, pair[1], listener);
}

void client_prepare(struct client *client, int version) {
    client->context = SSL_CTX_new(TLS_client_method());
    CHECK(client->context);
    SSL_CTX_set_min_proto_version(client->context, version);
    SSL_CTX_set_max_proto_version(client->context, version);
    client->ssl = SSL_new(client->context);
    CHECK(client->ssl && SSL_set_fd(client->ssl, client->fd) == 1);
}

bool client_handshake(struct client *client, int version, const char *certificate_path,
                      const char *key_path) {
    client_prepare(client, version);
    if (certificate_path) {
        CHECK(SSL_use_certificate_chain_file(client->ssl, certificate_path) == 1);
        CHECK(SSL_use_PrivateKey_file(client->ssl, key_path, SSL_FILETYPE_PEM) == 1);
    }
    return SSL_connect(client->ssl) == 1;
}

bool client_send(struct client *client, const void *data, size_t size) {
    const uint8_t *at = data;
    while (size > 0) {
        ssize_t count = client->ssl ? SSL_write(client->ssl, at, (int)size)
                                    : send(client->fd, at, size, MSG_NOSIGNAL);
        if (count <= 0)
            return false;
        at += count;
        size -= (size_t)count;
    }
    return true;
}

size_t client_read(struct client *client, void *data, size_t size) {
    uint8_t *at = data;
    size_t total = 0;
    while (total < size) {
        ssize_t count = client->ssl ? SSL_read(client->ssl, at + total, (int)(size - total))
                                    : recv(client->fd, at + total, size - total, 0);
        if (count <= 0)
            break;
        total += (size_t)count;
    }
    return total;
}

bool client_at_end(struct client *client) {
    char byte;
    if (client->ssl)
        return SSL_read(client->ssl, &byte, 1) <= 0 &&
               SSL_get_error(client->ssl, -1) != SSL_ERROR_WANT_READ;
    ssize_t count = recv(client->fd, &byte, 1, 0);
    return count == 0 || (count < 0 && errno == ECONNRESET);
}

void client_close(struct client *client) {
    if (client->ssl && SSL_is_init_finished(client->ssl))
        SSL_shutdown(client->ssl); /* or OpenSSL would not resume the session */
    SSL_free(client->ssl);
    SSL_CTX_free(client->context);
    if (client->fd >= 0)
        close(client->fd);
    *client = (struct client){.fd = -1};
}
