/*
 * A certificate signed by a tenant's authority. The authority is found by the issuer's name among
 * those that the certificate's chain names; its tenant and the leaf's common name say which device
 * it is. A user name that says otherwise is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "registry/directory.h"
#include "registry/x509.h"

struct authority_query {
    struct postgres_query query;
    struct registry *registry;
    struct registry_login *login;
    struct slice chain;
    struct x509_client client;
    int64_t credential_key;
};

static void device_found(struct postgres_query *query, int err, const PGresult *result,
                         const char *detail) {
    struct authority_query *q = (struct authority_query *)(void *)query;
    const struct cache_device *device =
        err == 0 ? cache_store_device(&q->registry->cache, result) : NULL;
    if (device)
        login_accept(q->registry, q->login, device, q->credential_key, q->client.not_after_ms);
    else
        login_reply(q->login, err < 0 ? DG_ERR_UNAVAILABLE : DG_ERR_BAD_CREDENTIALS);
    free(q);
}

static void find_device(struct authority_query *q, const char *tenant) {
    bool other = (q->login->tenant[0] && strcmp(q->login->tenant, tenant) != 0) ||
                 (q->login->name[0] && strcmp(q->login->name, q->client.common_name) != 0);
    if (other || !q->client.common_name[0]) {
        login_reply(q->login, DG_ERR_BAD_CREDENTIALS);
        free(q);
        return;
    }
    const struct cache_device *device =
        cache_find_device(&q->registry->cache, tenant, q->client.common_name);
    if (device) {
        login_accept(q->registry, q->login, device, q->credential_key, q->client.not_after_ms);
        free(q);
        return;
    }
    q->query.statement = STATEMENT_LOGIN_DEVICE;
    q->query.done = device_found;
    snprintf(q->login->tenant, sizeof(q->login->tenant), "%s", tenant);
    postgres_send(q->registry->queries, &q->query, 2,
                  (const char *[]){q->login->tenant, q->client.common_name});
}

static void authorities_found(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail) {
    struct authority_query *q = (struct authority_query *)(void *)query;
    for (int row = 0; err == 0 && row < PQntuples(result); row++) {
        if (!x509_chain_is_good(q->chain, PQgetvalue(result, row, 2), clock_wall_ms()))
            continue;
        q->credential_key = strtoll(PQgetvalue(result, row, 0), NULL, 10);
        find_device(q, PQgetvalue(result, row, 1));
        return;
    }
    login_reply(q->login, err < 0 ? DG_ERR_UNAVAILABLE : DG_ERR_BAD_CREDENTIALS);
    free(q);
}

void login_with_authority(struct registry *registry, struct registry_login *login,
                          struct slice chain) {
    struct authority_query *q = calloc(1, sizeof(*q));
    if (!q || x509_describe(chain, login->leaf_size_bytes, &q->client) < 0) {
        free(q);
        login_reply(login, q ? DG_ERR_BAD_CREDENTIALS : DG_ERR_NO_MEMORY);
        return;
    }
    q->registry = registry;
    q->login = login;
    q->chain = chain;
    q->query.statement = STATEMENT_LOGIN_AUTHORITIES;
    q->query.done = authorities_found;
    char issuers[X509_ISSUERS_MAX * (CREDENTIAL_HEX_SIZE + 1) + 3] = "{";
    for (unsigned i = 0; i < q->client.issuer_count; i++) {
        strcat(issuers, i ? "," : "");
        strcat(issuers, q->client.issuers[i]); /* hexadecimal: nothing to escape */
    }
    strcat(issuers, "}");
    postgres_send(registry->queries, &q->query, 2,
                  (const char *[]){login->tenant[0] ? login->tenant : NULL, issuers});
}
