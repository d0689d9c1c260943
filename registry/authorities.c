#include "registry/authorities.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"

#include <uthash.h>

struct authority_set {
    char name[LIMIT_TENANT_BYTES + 1 + CREDENTIAL_HEX_SIZE]; /* tenant or nothing, '/', subject */
    struct authority *first;
    UT_hash_handle hh;
};

enum { COLUMN_KEY, COLUMN_TENANT, COLUMN_CERTIFICATE, COLUMN_SUBJECT };

static struct authority_set *find_set(const struct authorities *authorities, const char *tenant,
                                      const char *subject) {
    char name[sizeof(((struct authority_set *)0)->name)];
    struct authority_set *set;
    snprintf(name, sizeof(name), "%s/%s", tenant, subject);
    HASH_FIND_STR(authorities->sets, name, set);
    return set;
}

static struct authority_set *add_set(struct authorities *authorities, const char *tenant,
                                     const char *subject) {
    struct authority_set *set = calloc(1, sizeof(*set));
    if (!set)
        return NULL;
    snprintf(set->name, sizeof(set->name), "%s/%s", tenant, subject);
    HASH_ADD_STR(authorities->sets, name, set);
    authorities->count++;
    return set;
}

static void free_set(struct authorities *authorities, struct authority_set *set) {
    while (set->first) {
        struct authority *authority = set->first;
        set->first = authority->next;
        X509_free(authority->certificate);
        free(authority);
        authorities->count--;
    }
    HASH_DEL(authorities->sets, set);
    authorities->count--;
    free(set);
}

/* False when memory is out. A certificate that cannot be read signs nothing. */
static bool add_row(struct authorities *authorities, struct authority_set *set,
                    const PGresult *result, int row) {
    struct authority *authority = calloc(1, sizeof(*authority));
    if (!authority)
        return false;
    authority->certificate = x509_read_pem(PQgetvalue(result, row, COLUMN_CERTIFICATE));
    if (!authority->certificate) {
        free(authority);
        return true;
    }
    authority->credential_key = strtoll(PQgetvalue(result, row, COLUMN_KEY), NULL, 10);
    snprintf(authority->tenant, sizeof(authority->tenant), "%s",
             PQgetvalue(result, row, COLUMN_TENANT));
    authority->next = set->first;
    set->first = authority;
    authorities->count++;
    return true;
}

static bool store_set(struct authorities *authorities, const char *tenant, const char *subject,
                      const PGresult *result) {
    struct authority_set *set = find_set(authorities, tenant, subject);
    if (set)
        return true; /* of the same answer, or as old as the last change */
    set = add_set(authorities, tenant, subject);
    for (int row = 0; set && row < PQntuples(result); row++)
        if (strcmp(PQgetvalue(result, row, COLUMN_SUBJECT), subject) == 0 &&
            !add_row(authorities, set, result, row))
            return false;
    return set != NULL;
}

void authorities_store(struct authorities *authorities, const char *tenant,
                       const struct x509_client *client, const PGresult *result) {
    if (authorities->count + client->issuer_count + (unsigned)PQntuples(result) >
        LIMIT_REGISTRY_AUTHORITIES)
        authorities_clear(authorities);
    bool stored = true;
    for (unsigned i = 0; stored && i < client->issuer_count; i++)
        stored = store_set(authorities, tenant, client->issuers[i], result);
    if (!stored)
        authorities_forget(authorities, tenant, client);
}

void authorities_forget(struct authorities *authorities, const char *tenant,
                        const struct x509_client *client) {
    for (unsigned i = 0; i < client->issuer_count; i++) {
        struct authority_set *set = find_set(authorities, tenant, client->issuers[i]);
        if (set)
            free_set(authorities, set);
    }
}

/* Looks through one set; true when there is no need to look further. */
static bool find_in_set(const struct authority_set *set, bool any_tenant,
                        const struct x509_chain *chain, int64_t now_ms,
                        struct authority_match *match) {
    for (const struct authority *a = set->first; a; a = a->next) {
        if (match->authority && strcmp(match->authority->tenant, a->tenant) == 0)
            continue;
        if (!x509_chain_is_good(chain, a->certificate, now_ms))
            continue;
        if (match->authority) {
            match->other = a;
            return true;
        }
        match->authority = a;
        if (!any_tenant)
            return true;
    }
    return false;
}

enum authority_verdict authorities_find(const struct authorities *authorities, const char *tenant,
                                        const struct x509_client *client, struct slice chain,
                                        int64_t now_ms, struct authority_match *ret_match) {
    *ret_match = (struct authority_match){0};
    for (unsigned i = 0; i < client->issuer_count; i++)
        if (!find_set(authorities, tenant, client->issuers[i]))
            return AUTHORITY_UNKNOWN;
    struct x509_chain *read = x509_chain_read(chain);
    if (!read)
        return AUTHORITY_UNKNOWN;
    bool done = false;
    for (unsigned i = 0; !done && i < client->issuer_count; i++)
        done = find_in_set(find_set(authorities, tenant, client->issuers[i]), !tenant[0], read,
                           now_ms, ret_match);
    x509_chain_free(read);
    return ret_match->other       ? AUTHORITY_AMBIGUOUS
           : ret_match->authority ? AUTHORITY_FOUND
                                  : AUTHORITY_NONE;
}

void authorities_clear(struct authorities *authorities) {
    struct authority_set *set, *next;
    HASH_ITER(hh, authorities->sets, set, next) {
        free_set(authorities, set);
    }
}
