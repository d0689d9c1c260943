#include "registry/x509.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void hex(const uint8_t *data, size_t size, char *ret_text) {
    for (size_t i = 0; i < size; i++)
        sprintf(ret_text + 2 * i, "%02x", data[i]);
}

static int64_t time_ms(const ASN1_TIME *time) {
    struct tm parts;
    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) * 1000 : 0;
}

/* Exactly one CN, without a NUL inside. */
static void read_common_name(X509 *leaf, char *ret_name) {
    X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return;
    unsigned char *text = NULL;
    int size =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (size > 0 && size < X509_NAME_SIZE && !memchr(text, 0, (size_t)size))
        memcpy(ret_name, text, (size_t)size);
    OPENSSL_free(text);
}

static X509 *next_certificate(struct slice *chain) {
    const unsigned char *at = chain->data;
    X509 *certificate = chain->size ? d2i_X509(NULL, &at, (long)chain->size) : NULL;
    if (certificate)
        *chain = slice_skip(*chain, (size_t)(at - chain->data));
    return certificate;
}

static void read_leaf(X509 *leaf, struct x509_client *client) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size;
    if (X509_digest(leaf, EVP_sha256(), digest, &size) == 1)
        hex(digest, size, client->sha256);
    if (X509_digest(leaf, EVP_sha1(), digest, &size) == 1)
        hex(digest, size, client->sha1);
    read_common_name(leaf, client->common_name);
    client->not_before_ms = time_ms(X509_get0_notBefore(leaf));
    client->not_after_ms = time_ms(X509_get0_notAfter(leaf));
}

int x509_describe(struct slice chain, size_t leaf_size, struct x509_client *ret) {
    struct x509_client client = {0};
    struct slice rest = chain;
    X509 *certificate;
    for (bool first = true; (certificate = next_certificate(&rest)); first = false) {
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned size;
        if (first)
            read_leaf(certificate, &client);
        if (client.issuer_count < X509_ISSUERS_MAX &&
            X509_NAME_digest(X509_get_issuer_name(certificate), EVP_sha256(), digest, &size) == 1)
            hex(digest, size, client.issuers[client.issuer_count++]);
        X509_free(certificate);
    }
    if (client.issuer_count == 0 || leaf_size == 0 || leaf_size > chain.size)
        return DG_ERR_MALFORMED;
    *ret = client;
    return 0;
}

X509 *x509_read_pem(const char *pem) {
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return certificate;
}

/* ---- chains ---- */

struct x509_chain {
    X509 *leaf;
    STACK_OF(X509) * between;
};

struct x509_chain *x509_chain_read(struct slice bytes) {
    struct x509_chain *chain = calloc(1, sizeof(*chain));
    X509 *more;
    if (!chain)
        return NULL;
    chain->leaf = next_certificate(&bytes);
    chain->between = sk_X509_new_null();
    while (chain->leaf && chain->between && (more = next_certificate(&bytes)))
        if (sk_X509_num(chain->between) >= X509_ISSUERS_MAX || !sk_X509_push(chain->between, more))
            X509_free(more);
    if (chain->leaf && chain->between)
        return chain;
    x509_chain_free(chain);
    return NULL;
}

void x509_chain_free(struct x509_chain *chain) {
    if (!chain)
        return;
    sk_X509_pop_free(chain->between, X509_free);
    X509_free(chain->leaf);
    free(chain);
}

static bool is_signed_by(X509 *certificate, X509 *authority) {
    EVP_PKEY *key = X509_get0_pubkey(authority);
    return key && X509_check_issued(authority, certificate) == X509_V_OK &&
           X509_verify(certificate, key) == 1;
}

/* Anybody can make an authority of the same name; this sorts it out before the chain is built. */
static bool is_related(const struct x509_chain *chain, X509 *authority) {
    if (is_signed_by(chain->leaf, authority))
        return true;
    for (int i = 0; i < sk_X509_num(chain->between); i++)
        if (is_signed_by(sk_X509_value(chain->between, i), authority))
            return true;
    return false;
}

bool x509_chain_is_good(const struct x509_chain *chain, X509 *authority, int64_t now_ms) {
    if (!is_related(chain, authority))
        return false;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    bool good = store && context && X509_STORE_add_cert(store, authority) == 1 &&
                X509_STORE_CTX_init(context, store, chain->leaf, chain->between) == 1;
    if (good) {
        X509_VERIFY_PARAM *parameters = X509_STORE_CTX_get0_param(context);
        X509_VERIFY_PARAM_set_purpose(parameters, X509_PURPOSE_SSL_CLIENT);
        X509_VERIFY_PARAM_set_time(parameters, (time_t)(now_ms / 1000));
        X509_VERIFY_PARAM_set_depth(parameters, X509_ISSUERS_MAX);
        /* A tenant may register an intermediate authority. */
        X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_PARTIAL_CHAIN);
        good = X509_verify_cert(context) == 1;
    }
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return good;
}

/* ---- proof of an authority's key ---- */

int x509_check_proof(const char *authority_pem, const char *proof_pem, int64_t now_ms,
                     char *ret_common_name) {
    X509 *authority = x509_read_pem(authority_pem), *proof = x509_read_pem(proof_pem);
    char name[X509_NAME_SIZE] = "";
    if (authority && proof && is_signed_by(proof, authority) &&
        now_ms >= time_ms(X509_get0_notBefore(proof)) &&
        now_ms < time_ms(X509_get0_notAfter(proof)))
        read_common_name(proof, name);
    X509_free(authority);
    X509_free(proof);
    if (!name[0])
        return DG_ERR_INVALID;
    memcpy(ret_common_name, name, sizeof(name));
    return 0;
}
