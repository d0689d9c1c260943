/*
 * One TLS session on a connection's socket. The session is the SSL object itself (struct
 * tls_session is only a name for it): an idle TLS connection has no room for more.
 *
 * OpenSSL's error queue belongs to the thread, so it is cleared before every call: an old entry
 * would make SSL_get_error() blame this connection for another's failure.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

#include "gateway/transport/transport.h"

static SSL *session_ssl(const struct connection *c) {
    return (SSL *)c->tls;
}

int tls_session_create(struct connection *c) {
    SSL_CTX *context = c->worker->connections->tls_context;
    if (!context)
        return DG_ERR_UNAVAILABLE;
    ERR_clear_error();
    SSL *ssl = SSL_new(context);
    if (!ssl)
        return DG_ERR_NO_MEMORY;
    if (SSL_set_fd(ssl, c->fd) != 1) {
        SSL_free(ssl);
        return DG_ERR_NO_MEMORY;
    }
    SSL_set_accept_state(ssl);
    c->tls = (struct tls_session *)ssl;
    return 0;
}

/* 0 when the socket must become ready first (events armed for it), else the error. */
static int wait_or_fail(struct connection *c, int result) {
    int error = SSL_get_error(session_ssl(c), result);
    bool reading = connection_has(c, CONNECTION_READ_ARMED);
    switch (error) {
    case SSL_ERROR_WANT_READ:
        return 0;
    case SSL_ERROR_WANT_WRITE:
        connection_arm(c, reading, true);
        return 0;
    case SSL_ERROR_ZERO_RETURN:
        return DG_ERR_CLOSED;
    case SSL_ERROR_SYSCALL:
        connection_set(c, CONNECTION_ABRUPT);
        return DG_ERR_CLOSED;
    default:
        connection_set(c, CONNECTION_ABRUPT);
        return DG_ERR_TLS;
    }
}

int tls_session_handshake(struct connection *c) {
    ERR_clear_error();
    int result = SSL_do_handshake(session_ssl(c));
    if (result == 1)
        return 1;
    int err = wait_or_fail(c, result);
    return err;
}

ssize_t tls_session_read(struct connection *c, uint8_t *data, size_t size) {
    ERR_clear_error();
    size_t count = 0;
    int result = SSL_read_ex(session_ssl(c), data, size, &count);
    return result == 1 ? (ssize_t)count : wait_or_fail(c, result);
}

ssize_t tls_session_write(struct connection *c, const uint8_t *data, size_t size) {
    ERR_clear_error();
    size_t count = 0;
    int result = SSL_write_ex(session_ssl(c), data, size, &count);
    return result == 1 ? (ssize_t)count : wait_or_fail(c, result);
}

bool tls_session_has_pending(const struct connection *c) {
    return SSL_has_pending(session_ssl(c)) == 1;
}

void tls_session_shutdown(struct connection *c) {
    if (!c->tls || !SSL_is_init_finished(session_ssl(c)))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(session_ssl(c)); /* once; the peer's answer is not awaited */
}

void tls_session_free(struct connection *c) {
    SSL_free(session_ssl(c));
    c->tls = NULL;
}

/* ---- the client's certificates ---- */

static int append_der(X509 *certificate, uint8_t **der, size_t *size) {
    int length = i2d_X509(certificate, NULL);
    if (length <= 0)
        return DG_ERR_TLS;
    uint8_t *grown = realloc(*der, *size + (size_t)length);
    if (!grown)
        return DG_ERR_NO_MEMORY;
    *der = grown;
    unsigned char *at = grown + *size;
    *size += (size_t)i2d_X509(certificate, &at);
    return 0;
}

/* On the server OpenSSL's chain leaves the leaf out. */
int connection_peer_certificates(struct connection *c, uint8_t **ret_der, size_t *ret_size,
                                 size_t *ret_leaf_size) {
    X509 *leaf = c->tls ? SSL_get0_peer_certificate(session_ssl(c)) : NULL;
    if (!leaf)
        return DG_ERR_NOT_FOUND;
    uint8_t *der = NULL;
    size_t size = 0;
    int err = append_der(leaf, &der, &size);
    size_t leaf_size = size;
    STACK_OF(X509) *rest = SSL_get_peer_cert_chain(session_ssl(c));
    for (int i = 0; err == 0 && i < sk_X509_num(rest); i++)
        err = append_der(sk_X509_value(rest, i), &der, &size);
    if (err < 0) {
        free(der);
        return err;
    }
    *ret_der = der;
    *ret_size = size;
    *ret_leaf_size = leaf_size;
    return 0;
}
