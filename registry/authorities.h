/*
 * The certificate authorities seen so far, by the name of their subject, so that devices whose
 * certificates they signed can log in while PostgreSQL is away. All are forgotten when any changes.
 * Registry thread only.
 */
#pragma once

#include <libpq-fe.h>
#include <stdint.h>

#include "common/limits.h"
#include "registry/x509.h"

struct authority {
    struct authority *next; /* another of the same subject */
    int64_t credential_key;
    char tenant[LIMIT_TENANT_BYTES + 1];
    char certificate[]; /* PEM */
};

struct authorities {
    struct authority_subject *subjects;
    unsigned count;
};

/* Rows of LOGIN_AUTHORITIES. Those for which there is no memory are left out. */
void authorities_store(struct authorities *authorities, const PGresult *result);

/* The authority, of this tenant unless tenant is "", that the chain leads to. NULL when none is. */
const struct authority *authorities_find(const struct authorities *authorities, const char *tenant,
                                         const struct x509_client *client, struct slice chain,
                                         int64_t now_ms);

void authorities_clear(struct authorities *authorities);
