/* Certificates made on the spot, P-256. Freed with X509_free() and EVP_PKEY_free(). */
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_certificate {
    X509 *certificate;
    EVP_PKEY *key;
};

/* issuer NULL: self-signed. Valid from now - 1 h until now + until_s. */
struct test_certificate test_certificate_make(const char *common_name, bool is_ca, long until_s,
                                              const struct test_certificate *issuer);
void test_certificate_free(struct test_certificate *c);
/* The DER of leaf, then of more if not NULL; returns the size, ret_leaf_size that of the leaf. */
size_t test_certificate_chain(const struct test_certificate *leaf,
                              const struct test_certificate *more, uint8_t *ret_bytes, size_t room,
                              size_t *ret_leaf_size);
/* NUL-terminated PEM, to be freed. */
char *test_certificate_pem(const struct test_certificate *c);
/* Lower-case hexadecimal of the digest of the DER. */
void test_certificate_thumbprint(const struct test_certificate *c, const EVP_MD *digest,
                                 char *ret_text);
