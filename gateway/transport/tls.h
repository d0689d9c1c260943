/*
 * TLS by OpenSSL 3 on the socket (SSL_set_fd). One SSL_CTX per worker, built from the same files;
 * TLS 1.2 and 1.3 with AEAD ciphers (GCM, ChaCha20, at last CCM), X25519 then P-256, one ticket, no
 * renegotiation, no compression. A client certificate is asked for and its possession proven, but
 * never required or judged here: the registry decides who it is.
 */
#pragma once

#include "common/config.h"
#include "common/err.h"
#include "gateway/loop/worker.h"

struct tls_files; /* checked certificate and key pairs, shared by the workers */

enum { TLS_ERROR_SIZE = 512 };

/* Reads and checks the files that the configuration names (key matches certificate, not expired:
 * a warning). ret_files is NULL when none is configured. Main thread. */
DG_NODISCARD int tls_load(const struct config *config, struct tls_files **ret_files,
                          char *ret_error);

/* When the server certificate expires, seconds since 1970. */
int64_t tls_expiry(const struct tls_files *files);

/* Main thread: makes this worker use these files for new connections, by message; connections that
 * exist keep what they began with. After connection_pool_create(). Takes what it needs of the
 * files; the caller's reference stays the caller's and ends with tls_release(). DG_ERR_TLS, and
 * nothing changes, when OpenSSL refuses the files. */
DG_NODISCARD int tls_install(struct worker *worker, struct tls_files *files);
void tls_release(struct tls_files *files);
