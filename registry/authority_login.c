/*
 * A certificate signed by a tenant's authority. The authority is found by the issuer's name among
 * those that the certificate's chain names; its tenant and the leaf's common name say which device
 * it is. A user name that says otherwise is refused, and so is a certificate without a user name
 * that authorities of two tenants vouch for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
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

/* Certificate alone, and two tenants have an authority for it: whose device it is cannot be said.
 */
static void refuse_ambiguous(struct registry *registry, struct registry_login *login,
                             const struct authority_match *match,
                             const struct x509_client *client) {
    unsigned hidden;
    if (log_sample(&registry->authority_lines, clock_monotonic_ms(), &hidden))
        LOG_WARN("registry.ambiguous_authority", log_text("tenant", match->authority->tenant),
                 log_int("authority", match->authority->credential_key),
                 log_text("other_tenant", match->other->tenant),
                 log_int("other_authority", match->other->credential_key),
                 log_text("device", client->common_name), log_int("suppressed", hidden),
                 log_text("why", "both tenants have an authority that signed this certificate; the "
                                 "device must give the user name device@tenant"));
    login_reply(login, DG_ERR_NOT_AUTHORIZED);
}

static void refuse_many(struct registry *registry, struct registry_login *login,
                        const struct x509_client *client) {
    unsigned hidden;
    if (log_sample(&registry->authority_lines, clock_monotonic_ms(), &hidden))
        LOG_WARN("registry.many_authorities", log_text("device", client->common_name),
                 log_int("suppressed", hidden),
                 log_text("why", "too many authorities bear the name of this certificate's issuer; "
                                 "the device must give the user name device@tenant"));
    login_reply(login, DG_ERR_NOT_AUTHORIZED);
}

static void settle(struct registry *registry, struct authority_query *q, bool is_cut) {
    struct registry_login *login = q->login;
    struct authority_match match;
    char tenant[sizeof(login->tenant)];
    memcpy(tenant, login->tenant, sizeof(tenant));
    switch (authorities_find(&registry->authorities, tenant, &q->client, login->secret,
                             clock_wall_ms(), &match)) {
    case AUTHORITY_FOUND:
        continue_as(registry, login, match.authority, &q->client);
        return; /* the answer is kept */
    case AUTHORITY_AMBIGUOUS:
        refuse_ambiguous(registry, login, &match, &q->client);
        break;
    case AUTHORITY_UNKNOWN:
        login_reply(login, DG_ERR_NO_MEMORY);
        break;
    case AUTHORITY_NONE:
        if (is_cut)
            refuse_many(registry, login, &q->client);
        else
            login_refuse(registry, login);
        break;
    }
    authorities_forget(&registry->authorities, tenant, &q->client);
}

static void authorities_found(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail) {
    struct authority_query *q = (struct authority_query *)(void *)query;
    struct registry *registry = q->registry;
    if (err < 0) {
        login_reply(q->login, login_lookup_error(err));
    } else if (q->epoch != registry->credential_epoch) {
        login_again(registry, q->login); /* one that was read may be gone by now */
    } else {
        authorities_store(&registry->authorities, q->login->tenant, &q->client, result);
        settle(registry, q, PQntuples(result) >= LIMIT_AUTHORITIES_PER_LOGIN);
    }
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
    struct authority_match match;
    bool known = names_agree(login, client) &&
                 authorities_find(&registry->authorities, login->tenant, client, login->secret,
                                  clock_wall_ms(), &match) == AUTHORITY_FOUND;
    if (known)
        continue_as(registry, login, match.authority, client);
    return known;
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
    char most[8];
    snprintf(most, sizeof(most), "%d", LIMIT_AUTHORITIES_PER_LOGIN);
    postgres_send(registry->queries, &q->query, 3,
                  (const char *[]){login->tenant[0] ? login->tenant : NULL, issuers, most});
}
