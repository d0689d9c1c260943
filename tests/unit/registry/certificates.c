#include "tests/unit/registry/certificates.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

static void add_extension(X509 *certificate, int nid, const char *value) {
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    dg_assert(extension && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

struct test_certificate test_certificate_make(const char *common_name, bool is_ca, long until_s,
                                              const struct test_certificate *issuer) {
    static long serial;
    struct test_certificate c = {.certificate = X509_new(), .key = EVP_EC_gen("P-256")};
    dg_assert(c.certificate && c.key);
    X509_set_version(c.certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c.certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(c.certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(c.certificate), until_s);
    X509_set_pubkey(c.certificate, c.key);
    X509_NAME *name = X509_get_subject_name(c.certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1,
                               -1, 0);
    X509_set_issuer_name(c.certificate, issuer ? X509_get_subject_name(issuer->certificate) : name);
    if (is_ca) {
        add_extension(c.certificate, NID_basic_constraints, "critical,CA:TRUE");
        add_extension(c.certificate, NID_key_usage, "critical,keyCertSign");
    }
    dg_assert(X509_sign(c.certificate, issuer ? issuer->key : c.key, EVP_sha256()) > 0);
    return c;
}

void test_certificate_free(struct test_certificate *c) {
    X509_free(c->certificate);
    EVP_PKEY_free(c->key);
}

size_t test_certificate_chain(const struct test_certificate *leaf,
                              const struct test_certificate *more, uint8_t *ret_bytes, size_t room,
                              size_t *ret_leaf_size) {
    uint8_t *at = ret_bytes;
    dg_assert((size_t)i2d_X509(leaf->certificate, NULL) +
                  (more ? (size_t)i2d_X509(more->certificate, NULL) : 0) <=
              room);
    *ret_leaf_size = (size_t)i2d_X509(leaf->certificate, &at);
    if (more)
        i2d_X509(more->certificate, &at);
    return (size_t)(at - ret_bytes);
}

char *test_certificate_pem(const struct test_certificate *c) {
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    dg_assert(bio && PEM_write_bio_X509(bio, c->certificate) == 1);
    long size = BIO_get_mem_data(bio, &data);
    char *text = strndup(data, (size_t)size);
    BIO_free(bio);
    return text;
}

void test_certificate_thumbprint(const struct test_certificate *c, const EVP_MD *digest,
                                 char *ret_text) {
    uint8_t bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    X509_digest(c->certificate, digest, bytes, &size);
    for (unsigned i = 0; i < size; i++)
        sprintf(ret_text + 2 * i, "%02x", bytes[i]);
}
