#include "registry/authorities.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#include <uthash.h>

struct authority_subject {
    char hash[CREDENTIAL_HEX_SIZE];
    struct authority *first;
    UT_hash_handle hh;
};

enum { COLUMN_KEY, COLUMN_TENANT, COLUMN_CERTIFICATE, COLUMN_SUBJECT };

static struct authority_subject *find_subject(const struct authorities *authorities,
                                              const char *hash) {
    struct authority_subject *subject;
    HASH_FIND_STR(authorities->subjects, hash, subject);
    return subject;
}

static struct authority_subject *add_subject(struct authorities *authorities, const char *hash) {
    struct authority_subject *subject = calloc(1, sizeof(*subject));
    if (!subject)
        return NULL;
    snprintf(subject->hash, sizeof(subject->hash), "%s", hash);
    HASH_ADD_STR(authorities->subjects, hash, subject);
    return subject;
}

static void store_row(struct authorities *authorities, const PGresult *result, int row) {
    const char *hash = PQgetvalue(result, row, COLUMN_SUBJECT);
    const char *certificate = PQgetvalue(result, row, COLUMN_CERTIFICATE);
    int64_t key = strtoll(PQgetvalue(result, row, COLUMN_KEY), NULL, 10);
    struct authority_subject *subject = find_subject(authorities, hash);
    for (const struct authority *a = subject ? subject->first : NULL; a; a = a->next)
        if (a->credential_key == key)
            return;
    if (authorities->count == LIMIT_REGISTRY_AUTHORITIES) {
        authorities_clear(authorities);
        subject = NULL;
    }
    struct authority *authority = malloc(sizeof(*authority) + strlen(certificate) + 1);
    if (!authority || (!subject && !(subject = add_subject(authorities, hash)))) {
        free(authority);
        return;
    }
    authority->credential_key = key;
    snprintf(authority->tenant, sizeof(authority->tenant), "%s",
             PQgetvalue(result, row, COLUMN_TENANT));
    memcpy(authority->certificate, certificate, strlen(certificate) + 1);
    authority->next = subject->first;
    subject->first = authority;
    authorities->count++;
}

void authorities_store(struct authorities *authorities, const PGresult *result) {
    for (int row = 0; row < PQntuples(result); row++)
        store_row(authorities, result, row);
}

const struct authority *authorities_find(const struct authorities *authorities, const char *tenant,
                                         const struct x509_client *client, struct slice chain,
                                         int64_t now_ms) {
    for (unsigned i = 0; i < client->issuer_count; i++) {
        const struct authority_subject *subject = find_subject(authorities, client->issuers[i]);
        for (const struct authority *a = subject ? subject->first : NULL; a; a = a->next)
            if ((!tenant[0] || strcmp(a->tenant, tenant) == 0) &&
                x509_chain_is_good(chain, a->certificate, now_ms))
                return a;
    }
    return NULL;
}

void authorities_clear(struct authorities *authorities) {
    struct authority_subject *subject, *next;
    HASH_ITER(hh, authorities->subjects, subject, next) {
        while (subject->first) {
            struct authority *authority = subject->first;
            subject->first = authority->next;
            free(authority);
        }
        HASH_DEL(authorities->subjects, subject);
        free(subject);
    }
    authorities->count = 0;
}
