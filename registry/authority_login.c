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
    uint64_t epoch; /* of registry->credential_epoch, when the question was sent */
    struct x509_client client;
};

static bool names_agree(const struct registry_login *login, const struct x509_client *client) {
    return client->common_name[0] &&
           (!login->name[0] || strcmp(login->name, client->common_name) == 0);
}

/* The authority said yes: now it is any device of its tenant whose id is the common name. */
static void continue_as(struct registry *registry, struct registry_login *login,
                        const struct authority *authority, const struct x509_client *client) {
    if (!names_agree(login, client)) {
        login_refuse(registry, login);
        return;
    }
    snprintf(login->tenant, sizeof(login->tenant), "%s", authority->tenant);
    snprintf(login->name, sizeof(login->name), "%s", client->common_name);
    login_as_device(registry, login, authority->credential_key, client->not_after_ms);
}

static void authorities_found(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail) {
    struct authority_query *q = (struct authority_query *)(void *)query;
    struct registry *registry = q->registry;
    struct registry_login *login = q->login;
    if (err == 0)
        authorities_store(&registry->authorities, result);
    const struct authority *authority =
        err == 0 ? authorities_find(&registry->authorities, login->tenant, &q->client,
                                    login->secret, clock_wall_ms())
                 : NULL;
    bool outdated = err == 0 && q->epoch != registry->credential_epoch;
    if (outdated)
        authorities_clear(&registry->authorities); /* one that was read may be gone by now */
    if (outdated)
        login_again(registry, login);
    else if (authority)
        continue_as(registry, login, authority, &q->client);
    else if (err < 0)
        login_reply(login, login_lookup_error(err));
    else
        login_refuse(registry, login);
    free(q);
}

static void write_issuers(const struct x509_client *client, char *ret_text, size_t room) {
    size_t size = 0;
    for (unsigned i = 0; i < client->issuer_count; i++) /* hexadecimal: nothing to escape */
        size += (size_t)snprintf(ret_text + size, room - size, "%c%s", i ? ',' : '{',
                                 client->issuers[i]);
    snprintf(ret_text + size, room - size, "}");
}

bool login_with_known_authority(struct registry *registry, struct registry_login *login,
                                const struct x509_client *client) {
    const struct authority *known = names_agree(login, client)
                                        ? authorities_find(&registry->authorities, login->tenant,
                                                           client, login->secret, clock_wall_ms())
                                        : NULL;
    if (known)
        continue_as(registry, login, known, client);
    return known != NULL;
}

void login_with_authority(struct registry *registry, struct registry_login *login,
                          const struct x509_client *client) {
    struct authority_query *q = calloc(1, sizeof(*q));
    if (!q) {
        login_reply(login, DG_ERR_NO_MEMORY);
        return;
    }
    q->registry = registry;
    q->login = login;
    q->client = *client;
    q->epoch = registry->credential_epoch;
    q->query.statement = STATEMENT_LOGIN_AUTHORITIES;
    q->query.done = authorities_found;
    char issuers[X509_ISSUERS_MAX * (CREDENTIAL_HEX_SIZE + 1) + 3];
    write_issuers(client, issuers, sizeof(issuers));
    postgres_send(registry->queries, &q->query, 2,
                  (const char *[]){login->tenant[0] ? login->tenant : NULL, issuers});
}
