/*
 * Client certificates whose possession TLS has proven: fingerprints, names, and chains up to a
 * tenant's own certificate authority. Pure.
 */
#pragma once

#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "registry/credential.h"

enum { X509_ISSUERS_MAX = 8, X509_NAME_SIZE = 129 };

struct x509_client {
    char sha256[CREDENTIAL_HEX_SIZE], sha1[CREDENTIAL_HEX_SIZE];
    char common_name[X509_NAME_SIZE]; /* "" when there is none, or it is no plain text */
    int64_t not_before_ms, not_after_ms;
    unsigned issuer_count; /* of the leaf and of each certificate behind it */
    char issuers[X509_ISSUERS_MAX][CREDENTIAL_HEX_SIZE]; /* SHA-256 of the DER name */
};

/* chain: DER certificates one after the other, the leaf (leaf_size bytes) first. */
DG_NODISCARD int x509_describe(struct slice chain, size_t leaf_size, struct x509_client *ret);

/* NULL when it is no certificate, or memory is out. */
X509 *x509_read_pem(const char *pem);

/* A chain read once, to be checked against several authorities. NULL: unreadable, or no memory. */
struct x509_chain *x509_chain_read(struct slice chain);
void x509_chain_free(struct x509_chain *chain);

/* Whether the chain leads to this authority, is within its validity at now, and is good for a TLS
 * client. One that only bears the authority's name costs one check of a signature at most. */
bool x509_chain_is_good(const struct x509_chain *chain, X509 *authority, int64_t now_ms);

/* Whether somebody who holds the authority's key says so: proof is signed by it and valid now. Then
 * ret_common_name (X509_NAME_SIZE) is what it says. DG_ERR_INVALID otherwise. */
DG_NODISCARD int x509_check_proof(const char *authority_pem, const char *proof_pem, int64_t now_ms,
                                  char *ret_common_name);
