/*
 * The certificate authorities seen so far, so that devices whose certificates they signed can log
 * in while PostgreSQL is away. Kept in sets, each the whole answer for one name of an authority,
 * within one tenant or over all of them: only a whole answer can say that no second tenant has an
 * authority for the same certificate. All are forgotten when any changes. Registry thread only.
 */
#pragma once

#include <libpq-fe.h>
#include <stdint.h>

#include "common/limits.h"
#include "registry/x509.h"

struct authority {
    struct authority *next; /* another of the same name */
    int64_t credential_key;
    char tenant[LIMIT_TENANT_BYTES + 1];
    X509 *certificate; /* owned */
};

struct authorities {
    struct authority_set *sets;
    unsigned count; /* sets and authorities */
};

enum authority_verdict {
    AUTHORITY_FOUND,
    AUTHORITY_NONE,      /* none of those that there are */
    AUTHORITY_AMBIGUOUS, /* of two tenants, and no tenant was named */
    AUTHORITY_UNKNOWN,   /* a set is not here: PostgreSQL must be asked */
};

struct authority_match {
    const struct authority *authority, *other; /* other: of another tenant, when ambiguous */
};

/* Keeps the answer of LOGIN_AUTHORITIES to this tenant ("" for all) and the client's issuers. What
 * there is no memory for is not kept at all. */
void authorities_store(struct authorities *authorities, const char *tenant,
                       const struct x509_client *client, const PGresult *result);
/* Forgets it: strangers must not fill the memory with names of no authority. */
void authorities_forget(struct authorities *authorities, const char *tenant,
                        const struct x509_client *client);

/* The authority, of this tenant unless tenant is "", that the chain leads to. */
enum authority_verdict authorities_find(const struct authorities *authorities, const char *tenant,
                                        const struct x509_client *client, struct slice chain,
                                        int64_t now_ms, struct authority_match *ret_match);

void authorities_clear(struct authorities *authorities);
