/*
 * Client certificates whose possession TLS has proven: fingerprints, names, and chains up to a
 * tenant's own certificate authority. Pure.
 */
#pragma once

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

/* Whether the chain leads to this authority (PEM), is within its validity at now, and is good for a
 * TLS client. */
bool x509_chain_is_good(struct slice chain, const char *authority_pem, int64_t now_ms);
