/*
 * Certificates and the SSL_CTX made of them. Each worker has a context of its own (OpenSSL 3.0
 * locks inside it); the ticket keys are common, so a device may resume on any worker.
 */
#include "gateway/transport/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/random.h"
#include "gateway/transport/transport.h"

enum {
    TLS_CHAINS_MAX = 2, /* P-256 and RSA side by side */
    TICKET_KEY_BYTES = 80,
    TICKET_LIFETIME_SECONDS = 7200,
    CLIENT_CHAIN_BYTES_MAX = 32 * 1024,
};

struct tls_chain {
    X509 *leaf;
    STACK_OF(X509) * rest;
    EVP_PKEY *key;
};

struct tls_files {
    atomic_uint references;
    unsigned chain_count;
    struct tls_chain chains[TLS_CHAINS_MAX];
    uint8_t ticket_keys[TICKET_KEY_BYTES];
};

/* ---- reading ---- */

/* An encrypted key must not make the gateway ask a terminal. */
static int refuse_password(char *text, int size, int writing, void *context) {
    return -1;
}

static int complain(char *ret_error, const char *path, const char *what) {
    unsigned long error = ERR_peek_last_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;
    snprintf(ret_error, TLS_ERROR_SIZE, "%s: %s%s%s", path, what, reason ? ": " : "",
             reason ? reason : "");
    return DG_ERR_INVALID;
}

static int read_certificates(BIO *file, struct tls_chain *chain) {
    chain->leaf = PEM_read_bio_X509(file, NULL, refuse_password, NULL);
    chain->rest = sk_X509_new_null();
    if (!chain->leaf || !chain->rest)
        return DG_ERR_INVALID;
    X509 *next;
    while ((next = PEM_read_bio_X509(file, NULL, refuse_password, NULL)))
        if (!sk_X509_push(chain->rest, next)) {
            X509_free(next);
            return DG_ERR_NO_MEMORY;
        }
    bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (ended)
        ERR_clear_error();
    return ended ? 0 : DG_ERR_INVALID;
}

static int load_chain(struct tls_chain *chain, const char *certificate_path, const char *key_path,
                      char *ret_error) {
    ERR_clear_error();
    BIO *file = BIO_new_file(certificate_path, "r");
    int err = file ? read_certificates(file, chain) : DG_ERR_INVALID;
    BIO_free(file);
    if (err < 0)
        return complain(ret_error, certificate_path, "not a readable PEM certificate chain");
    file = BIO_new_file(key_path, "r");
    chain->key = file ? PEM_read_bio_PrivateKey(file, NULL, refuse_password, NULL) : NULL;
    BIO_free(file);
    if (!chain->key)
        return complain(ret_error, key_path, "not a readable PEM private key without a password");
    if (X509_check_private_key(chain->leaf, chain->key) != 1)
        return complain(ret_error, key_path, "does not belong to the certificate");
    if (X509_cmp_current_time(X509_get0_notAfter(chain->leaf)) < 0)
        LOG_WARN("tls.expired", log_text("certificate", certificate_path));
    return 0;
}

static bool is_set(const char *text) {
    return text && text[0] != '\0';
}

/* A chain whose two files are named, nothing when neither is. */
static int load_pair(struct tls_files *files, const char *certificate_path, const char *key_path,
                     char *ret_error) {
    if (!is_set(certificate_path) && !is_set(key_path))
        return 0;
    if (!is_set(certificate_path) || !is_set(key_path)) {
        snprintf(ret_error, TLS_ERROR_SIZE, "TLS: a certificate file and a key file go together");
        return DG_ERR_INVALID;
    }
    return load_chain(&files->chains[files->chain_count++], certificate_path, key_path, ret_error);
}

void tls_release(struct tls_files *files) {
    if (!files || atomic_fetch_sub(&files->references, 1) != 1)
        return;
    for (unsigned i = 0; i < files->chain_count; i++) {
        X509_free(files->chains[i].leaf);
        sk_X509_pop_free(files->chains[i].rest, X509_free);
        EVP_PKEY_free(files->chains[i].key);
    }
    OPENSSL_cleanse(files, sizeof(*files));
    free(files);
}

int tls_load(const struct config *config, struct tls_files **ret_files, char *ret_error) {
    struct tls_files *files = calloc(1, sizeof(*files));
    if (!files)
        return DG_ERR_NO_MEMORY;
    atomic_init(&files->references, 1);
    random_bytes(files->ticket_keys, sizeof(files->ticket_keys));
    int err = load_pair(files, config->tls_certificate_file, config->tls_key_file, ret_error);
    if (err == 0)
        err =
            load_pair(files, config->tls_rsa_certificate_file, config->tls_rsa_key_file, ret_error);
    if (err < 0 || files->chain_count == 0) {
        tls_release(files);
        files = NULL;
    }
    if (err == 0)
        *ret_files = files;
    return err;
}

int64_t tls_expiry(const struct tls_files *files) {
    int64_t earliest = INT64_MAX;
    for (unsigned i = 0; i < files->chain_count; i++) {
        struct tm parts;
        if (ASN1_TIME_to_tm(X509_get0_notAfter(files->chains[i].leaf), &parts) != 1)
            continue;
        int64_t expiry = timegm(&parts);
        earliest = expiry < earliest ? expiry : earliest;
    }
    return earliest;
}

/* ---- the context ---- */

/* Possession of the key is what the handshake proves; whose it is, the registry decides. */
static int accept_any_certificate(X509_STORE_CTX *store, void *context) {
    return 1;
}

/* The protocol is known by the port; a client that insists on ALPN gets its own name back. */
static int select_alpn(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_size,
                       const unsigned char *offered, unsigned offered_size, void *context) {
    static const unsigned char known[] = "\x04mqtt\x08http/1.1";
    unsigned char *name;
    int result =
        SSL_select_next_proto(&name, ret_size, known, sizeof(known) - 1, offered, offered_size);
    *ret_name = name;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static const unsigned char CHAIN_MARK[] = "chain";

/* A ticket carries the client's leaf certificate but not the rest of its chain. */
static int on_make_ticket(SSL *ssl, void *context) {
    if (sk_X509_num(SSL_get_peer_cert_chain(ssl)) > 0)
        SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), CHAIN_MARK, sizeof(CHAIN_MARK));
    return 1;
}

/* A client that sent a longer chain hands it over again: without it nobody could judge the leaf. */
static SSL_TICKET_RETURN on_use_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                       size_t name_size, SSL_TICKET_STATUS status, void *context) {
    void *mark = NULL;
    size_t size = 0;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    SSL_SESSION_get0_ticket_appdata(session, &mark, &size);
    if (size > 0)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

static void set_tickets(SSL_CTX *context, const struct tls_files *files) {
    static const unsigned char name[] = "duragate";
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_timeout(context, TICKET_LIFETIME_SECONDS);
    uint8_t keys[TICKET_KEY_BYTES];
    memcpy(keys, files->ticket_keys, sizeof(keys));
    SSL_CTX_set_tlsext_ticket_keys(context, keys, sizeof(keys));
    OPENSSL_cleanse(keys, sizeof(keys));
    /* Without a name of its own OpenSSL refuses to resume what asked for a client certificate. */
    SSL_CTX_set_session_id_context(context, name, sizeof(name) - 1);
    SSL_CTX_set_session_ticket_cb(context, on_make_ticket, on_use_ticket, NULL);
}

/* AEAD only. CCM comes last: it is slow here, and all that the smallest devices have (RFC 7925). */
static bool set_ciphers(SSL_CTX *context) {
    return SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:+AESCCM8") ==
               1 &&
           SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
                                             "TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256:"
                                             "TLS_AES_128_CCM_8_SHA256") == 1;
}

static bool set_algorithms(SSL_CTX *context) {
    char groups[] = "X25519:P-256:P-384"; /* the macro behind takes no constant */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 && set_ciphers(context) &&
           SSL_CTX_set1_groups_list(context, groups) == 1;
}

static SSL_CTX *create_context(const struct tls_files *files) {
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context)
        return NULL;
    bool ok = set_algorithms(context);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_max_cert_list(context, CLIENT_CHAIN_BYTES_MAX);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(context, accept_any_certificate, NULL);
    SSL_CTX_set_alpn_select_cb(context, select_alpn, NULL);
    set_tickets(context, files);
    for (unsigned i = 0; ok && i < files->chain_count; i++) {
        const struct tls_chain *chain = &files->chains[i];
        ok = SSL_CTX_use_cert_and_key(context, chain->leaf, chain->key, chain->rest, 1) == 1;
    }
    if (ok)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* ---- handing it to a worker ---- */

struct install {
    struct mail mail;
    SSL_CTX *context;
};

/* Connections hold their own reference to the context they began with. */
static void on_install(struct mail *mail, void *receiver) {
    struct connection_pool *pool = ((struct worker *)receiver)->connections;
    struct install *install = (struct install *)mail;
    SSL_CTX_free(pool->tls_context);
    pool->tls_context = install->context;
    free(install);
}

int tls_install(struct worker *worker, struct tls_files *files) {
    struct install *install = malloc(sizeof(*install));
    SSL_CTX *context = create_context(files);
    if (!install || !context) {
        free(install);
        SSL_CTX_free(context);
        return install ? DG_ERR_TLS : DG_ERR_NO_MEMORY;
    }
    *install = (struct install){.mail.deliver = on_install, .context = context};
    mailbox_post(&worker->mailbox, &install->mail);
    return 0;
}
