/*
 * Who is it. A device or principal is found in the cache, else in PostgreSQL; then its credentials
 * are tried. Whatever is wrong with the name or the secret has one answer, after the same work;
 * only a right credential learns that the device is disabled.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "registry/directory.h"
#include "registry/sas.h"
#include "registry/x509.h"

/* How long a row that was read for a login that did not match is believed, or that there is none.
 */
enum { FRESH_MS = 1000 };
enum { ATTEMPTS_MAX = 5, FOREIGN_LOG_MS = 60000 };
enum { HUB_SKEW_MS = 5 * 60 * 1000 }; /* IoT Hub's clients and their clocks */

struct login_query {
    struct postgres_query query;
    struct registry *registry;
    struct registry_login *login;     /* the first of those that wait for the row */
    uint64_t epoch, credential_epoch; /* the registry's, when the question was sent */
    int64_t credential_key;           /* login_as_device(): what was right already */
    int64_t valid_until_ms;
};

void login_reply(struct registry_login *login, int err) {
    login->err = err;
    login->mail.deliver = login->reply;
    mailbox_post(login->reply_to, &login->mail);
}

int login_lookup_error(int err) {
    if (err == DG_ERR_INVALID)
        return DG_ERR_BAD_CREDENTIALS;
    return err == DG_ERR_SHUTTING_DOWN || err == DG_ERR_BUSY ? err : DG_ERR_UNAVAILABLE;
}

void login_refuse(struct registry *registry, struct registry_login *login) {
    login_reply(login,
                login->freshness == LOGIN_STALE ? DG_ERR_UNAVAILABLE : DG_ERR_BAD_CREDENTIALS);
}

void login_again(struct registry *registry, struct registry_login *login) {
    if (++login->attempts < ATTEMPTS_MAX)
        login_begin(registry, login);
    else
        login_reply(login, DG_ERR_UNAVAILABLE);
}

/* ---- is it still so? ---- */

static struct login_query *make_query(struct registry *registry, struct registry_login *login,
                                      enum registry_statement statement) {
    struct login_query *q = calloc(1, sizeof(*q));
    if (!q) {
        login_reply(login, DG_ERR_NO_MEMORY);
        return NULL;
    }
    q->query.statement = statement;
    q->registry = registry;
    q->login = login;
    q->epoch = registry->epoch;
    q->credential_epoch = registry->credential_epoch;
    return q;
}

static void send_device_query(struct login_query *q, void (*done)(struct postgres_query *, int,
                                                                  const PGresult *, const char *)) {
    q->query.done = done;
    q->registry->device_lookups++;
    postgres_send(q->registry->queries, &q->query, 2,
                  (const char *[]){q->login->tenant, q->login->name});
}

static void send_principal_query(struct login_query *q,
                                 void (*done)(struct postgres_query *, int, const PGresult *,
                                              const char *)) {
    q->query.done = done;
    postgres_send(q->registry->queries, &q->query, 1, (const char *[]){q->login->name});
}

static void device_read_again(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail);
static void principal_read_again(struct postgres_query *query, int err, const PGresult *result,
                                 const char *detail);

static bool is_principal(const struct registry_login *login) {
    return login->kind == REGISTRY_LOGIN_PRINCIPAL ||
           login->kind == REGISTRY_LOGIN_PRINCIPAL_SCRAM ||
           login->kind == REGISTRY_LOGIN_ACCESS_POLICY;
}

static enum registry_statement login_statement(const struct registry_login *login) {
    return login->kind == REGISTRY_LOGIN_ACCESS_POLICY ? STATEMENT_LOGIN_ACCESS_POLICY
           : is_principal(login)                       ? STATEMENT_LOGIN_PRINCIPAL
                                                       : STATEMENT_LOGIN_DEVICE;
}

/* Before a secret is called wrong: whether the login may go on, its freshness decided. Otherwise it
 * waits for the row and then goes on by itself. The others are those of the row in the cache. */
static bool is_fresh(struct registry *registry, struct registry_login *login, uint64_t read_ms,
                     uint64_t read_again_ms, struct login_query **reading) {
    if (login->freshness != LOGIN_UNSURE)
        return true;
    bool recent = clock_monotonic_ms() - read_again_ms < FRESH_MS;
    bool answered = read_ms >= read_again_ms;
    if (read_ms >= login->began_ms || (recent && answered && changes_are_heard(registry)))
        login->freshness = LOGIN_SURE;
    else if (recent || !postgres_is_ready(registry->queries))
        login->freshness = LOGIN_STALE;
    if (login->freshness != LOGIN_UNSURE)
        return true;
    if (*reading) {
        login->next = (*reading)->login;
        (*reading)->login = login;
        return false;
    }
    struct login_query *q = make_query(registry, login, login_statement(login));
    if (!q)
        return false;
    *reading = q;
    if (is_principal(login))
        send_principal_query(q, principal_read_again);
    else
        send_device_query(q, device_read_again);
    return false;
}

/* Who is not in the cache has just been asked for, or a moment ago. */
static bool is_fresh_device(struct registry *registry, struct registry_login *login,
                            struct cache_device *device) {
    if (device)
        return is_fresh(registry, login, device->read_ms, device->read_again_ms, &device->reading);
    if (login->freshness == LOGIN_UNSURE)
        login->freshness = LOGIN_SURE;
    return true;
}

/* ---- a right credential ---- */

static void fill_device(struct registry *registry, struct registry_login *login,
                        const struct cache_device *device, int64_t credential_key,
                        int64_t valid_until_ms) {
    const struct cache_tenant *tenant = cache_find_tenant(&registry->cache, device->tenant_key);
    struct registry_identity *identity = &login->identity;
    const char *id = strchr(device->name, '/') + 1;
    *identity = (struct registry_identity){
        .tenant_key = tenant->key,
        .tenant_stream_id = tenant->stream_id,
        .partition_count = tenant->partition_count,
        .device_key = device->key,
        .partition = device->partition,
        .credential_key = credential_key,
        .valid_until_ms = valid_until_ms,
    };
    memcpy(identity->tenant, tenant->name, sizeof(identity->tenant));
    memcpy(identity->device, id, strlen(id) + 1);
    memcpy(identity->group, device->group, sizeof(identity->group));
    identity->policy = registry_policy_keep(tenant->policy);
}

void login_accept(struct registry *registry, struct registry_login *login,
                  const struct cache_device *device, int64_t credential_key,
                  int64_t valid_until_ms) {
    const struct cache_tenant *tenant = cache_find_tenant(&registry->cache, device->tenant_key);
    if (!tenant || !tenant->enabled || !device->enabled) {
        login_reply(login, DG_ERR_DISABLED);
        return;
    }
    fill_device(registry, login, device, credential_key, valid_until_ms);
    login_reply(login, 0);
}

/* ---- trying a device's credentials ---- */

static int64_t earlier(int64_t a_ms, int64_t b_ms) {
    return a_ms == 0 || (b_ms != 0 && b_ms < a_ms) ? b_ms : a_ms;
}

static bool matches_key(const struct cache_credential *credential, const uint8_t *hash) {
    return credential->secret_size == CREDENTIAL_HASH_SIZE &&
           CRYPTO_memcmp(credential->secret, hash, CREDENTIAL_HASH_SIZE) == 0;
}

/* ---- secrets ---- */

/* A secret that is not right, as far as we can see. What another master key made cannot be judged:
 * that is the gateway's fault, not the caller's. */
void login_refuse_secret(struct registry *registry, struct registry_login *login, bool is_foreign) {
    uint64_t now_ms = clock_monotonic_ms();
    if (is_foreign && (registry->foreign_logged_ms == 0 ||
                       now_ms - registry->foreign_logged_ms > FOREIGN_LOG_MS)) {
        registry->foreign_logged_ms = now_ms;
        LOG_ERROR("registry.other_master_key", log_text("master_key", registry->master.id),
                  log_text("tenant", login->tenant), log_text("name", login->name),
                  log_text("why", "credentials in PostgreSQL were made with another master key"));
    }
    if (is_foreign)
        login_reply(login, DG_ERR_UNAVAILABLE);
    else
        login_refuse(registry, login);
}

static bool has_foreign(const struct cache_device *device, enum cache_kind kind, int64_t now_ms) {
    for (unsigned i = 0; device && i < device->credential_count; i++) {
        const struct cache_credential *c = &device->credentials[i];
        if (c->kind == kind && c->is_foreign && login_is_current(c, now_ms))
            return true;
    }
    return false;
}

static bool matches_sas(const struct registry *registry, const struct cache_credential *credential,
                        const struct sas_token *token) {
    struct credential_keys keys;
    if (credential_open_keys(&registry->master,
                             slice_make(credential->secret, credential->secret_size), &keys) < 0)
        return false;
    enum sas_signature primary = sas_is_signed_by(token, credential_key(&keys, 0));
    enum sas_signature secondary = sas_is_signed_by(token, credential_key(&keys, 1));
    OPENSSL_cleanse(&keys, sizeof(keys));
    if (primary == SAS_SIGNED_REENCODED || secondary == SAS_SIGNED_REENCODED)
        LOG_DEBUG("registry.token_reencoded", log_int("credential", credential->key),
                  log_text("why", "the resource of the SAS token was signed in another encoding"));
    return primary != SAS_NOT_SIGNED || secondary != SAS_NOT_SIGNED;
}

/* Whether the token is for what is used with it. */
static bool is_for(const struct sas_token *token, const struct registry_login *login) {
    char resource[LIMIT_HOST_BYTES + LIMIT_DEVICE_ID_BYTES + 16];
    if (!login->host[0])
        return sas_names_device(token, login->name);
    snprintf(resource, sizeof(resource), "%s/devices/%s", login->host, login->name);
    return sas_covers(token, slice_from_string(resource));
}

static void try_token(struct registry *registry, struct registry_login *login,
                      struct cache_device *device, int64_t now_ms) {
    struct sas_token token = {.expiry_ms = 0};
    int64_t skew_ms = login->host[0] ? HUB_SKEW_MS : 0;
    bool readable = sas_parse(login->secret, &token) == 0 && token.expiry_ms + skew_ms > now_ms &&
                    is_for(&token, login);
    /* One that only the skew lets in has so much longer. */
    int64_t until_ms = token.expiry_ms > now_ms ? token.expiry_ms : token.expiry_ms + skew_ms;
    for (unsigned i = 0; readable && device && i < device->credential_count; i++) {
        const struct cache_credential *c = &device->credentials[i];
        if (c->kind == CACHE_SAS && login_is_current(c, now_ms) &&
            matches_sas(registry, c, &token)) {
            login_accept(registry, login, device, c->key, earlier(c->not_after_ms, until_ms));
            return;
        }
    }
    if (is_fresh_device(registry, login, device))
        login_refuse_secret(registry, login, readable && has_foreign(device, CACHE_SAS, now_ms));
}

static void try_secret(struct registry *registry, struct registry_login *login,
                       struct cache_device *device, int64_t now_ms) {
    uint8_t hash[CREDENTIAL_HASH_SIZE], verified[CREDENTIAL_HASH_SIZE];
    const struct cache_credential *found = NULL;
    credential_hash_key(&registry->master, (const char *)login->secret.data, login->secret.size,
                        hash);
    login_hash_verified(registry, login->secret, verified);
    for (unsigned i = 0; device && i < device->credential_count && !found; i++) {
        const struct cache_credential *c = &device->credentials[i];
        if (!login_is_current(c, now_ms))
            continue;
        if (c->kind == CACHE_KEY && matches_key(c, hash))
            found = c;
        if (c->kind == CACHE_PASSWORD && c->has_verified &&
            CRYPTO_memcmp(c->verified, verified, sizeof(verified)) == 0)
            found = c;
    }
    if (found)
        login_accept(registry, login, device, found->key, found->not_after_ms);
    else if (is_fresh_device(registry, login, device))
        login_try_password(registry, login, device, has_foreign(device, CACHE_KEY, now_ms));
}

/* ---- certificates ---- */

static const struct cache_credential *find_thumbprint(const struct cache_device *device,
                                                      const struct x509_client *client,
                                                      int64_t now_ms) {
    for (unsigned i = 0; i < device->credential_count; i++) {
        const struct cache_credential *c = &device->credentials[i];
        if (c->kind == CACHE_X509 && login_is_current(c, now_ms) &&
            (strcmp(c->thumbprint, client->sha256) == 0 ||
             strcmp(c->thumbprint, client->sha1) == 0))
            return c;
    }
    return NULL;
}

static void try_certificate(struct registry *registry, struct registry_login *login,
                            struct cache_device *device, int64_t now_ms) {
    struct x509_client client;
    if (x509_describe(login->secret, login->leaf_size_bytes, &client) < 0) {
        login_reply(login, DG_ERR_BAD_CREDENTIALS);
        return;
    }
    const struct cache_credential *pinned =
        device ? find_thumbprint(device, &client, now_ms) : NULL;
    bool in_time = now_ms >= client.not_before_ms && now_ms < client.not_after_ms;
    if (pinned && in_time)
        login_accept(registry, login, device, pinned->key,
                     earlier(pinned->not_after_ms, client.not_after_ms));
    else if (pinned)
        login_reply(login, DG_ERR_BAD_CREDENTIALS); /* expired, whatever we may not know */
    else if (!login_with_known_authority(registry, login, &client) &&
             is_fresh_device(registry, login, device))
        login_with_authority(registry, login, &client);
}

/* device NULL: the same work for an unknown name. */
static void try_device(struct registry *registry, struct registry_login *login,
                       struct cache_device *device) {
    int64_t now_ms = clock_wall_ms();
    if (login->kind == REGISTRY_LOGIN_DEVICE_CERTIFICATE)
        try_certificate(registry, login, device, now_ms);
    else if (sas_is_token(login->secret))
        try_token(registry, login, device, now_ms);
    else
        try_secret(registry, login, device, now_ms);
}

/* ---- finding the device ---- */

static void device_found(struct postgres_query *query, int err, const PGresult *result,
                         const char *detail) {
    struct login_query *q = (struct login_query *)(void *)query;
    struct registry *registry = q->registry;
    registry->device_lookups--;
    bool exists = err == 0 && PQntuples(result) > 0;
    if (err == 0 && !exists && q->epoch == registry->epoch)
        cache_store_unknown(&registry->cache, q->login->tenant, q->login->name,
                            postgres_asked_ms(query) + FRESH_MS);
    struct cache_device *device =
        exists ? cache_store_device(&registry->cache, result, postgres_asked_ms(query)) : NULL;
    if (err < 0)
        login_reply(q->login, login_lookup_error(err));
    else if (exists && !device)
        login_reply(q->login, DG_ERR_NO_MEMORY);
    else
        try_device(registry, q->login, device);
    free(q);
}

/* Takes the logins that waited off the query, one after the other. */
static struct registry_login *next_waiting(struct login_query *q, int err) {
    struct registry_login *login = q->login;
    if (login) {
        q->login = login->next;
        login->next = NULL;
        login->freshness = err == 0 ? LOGIN_SURE : LOGIN_STALE;
    }
    return login;
}

/* A device that is gone stays in the cache until its change has been heard: then its connections
 * end. */
static void device_read_again(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail) {
    struct login_query *q = (struct login_query *)(void *)query;
    struct registry *registry = q->registry;
    struct registry_login *login = q->login;
    struct cache_device *device = cache_find_device(&registry->cache, login->tenant, login->name);
    bool gone = err == 0 && PQntuples(result) == 0;
    registry->device_lookups--;
    if (device && device->reading == q)
        device->reading = NULL;
    if (err == 0 && !gone)
        device = cache_store_device(&registry->cache, result, postgres_asked_ms(query));
    if (err == 0 && !gone && !device)
        err = DG_ERR_NO_MEMORY;
    if (device)
        device->read_again_ms = postgres_asked_ms(query);
    if (device && gone)
        device->read_ms = device->read_again_ms;
    while ((login = next_waiting(q, err)))
        if (err == DG_ERR_SHUTTING_DOWN)
            login_reply(login, err);
        else
            try_device(registry, login,
                       gone ? NULL
                            : cache_find_device(&registry->cache, login->tenant, login->name));
    free(q);
}

static void begin_device(struct registry *registry, struct registry_login *login) {
    struct cache_device *device = cache_find_device(&registry->cache, login->tenant, login->name);
    metric_add(device ? METRIC_REGISTRY_CACHE_HITS : METRIC_REGISTRY_CACHE_MISSES, 1);
    bool nameless = !login->name[0] || !login->tenant[0]; /* a certificate alone */
    bool unknown =
        changes_are_heard(registry) &&
        cache_is_unknown(&registry->cache, login->tenant, login->name, clock_monotonic_ms());
    if (device || nameless || unknown) {
        try_device(registry, login, device);
        return;
    }
    struct login_query *q = make_query(registry, login, STATEMENT_LOGIN_DEVICE);
    if (q)
        send_device_query(q, device_found);
}

/* An authority of the tenant says who it is; of some devices that is not enough. */
static void accept_vouched(struct registry *registry, struct registry_login *login,
                           struct cache_device *device, int64_t credential_key,
                           int64_t valid_until_ms) {
    if (!device->refuses_authorities)
        login_accept(registry, login, device, credential_key, valid_until_ms);
    else if (is_fresh_device(registry, login, device))
        login_refuse(registry, login);
}

static void device_found_as(struct postgres_query *query, int err, const PGresult *result,
                            const char *detail) {
    struct login_query *q = (struct login_query *)(void *)query;
    struct registry *registry = q->registry;
    registry->device_lookups--;
    bool exists = err == 0 && PQntuples(result) > 0;
    struct cache_device *device =
        exists ? cache_store_device(&registry->cache, result, postgres_asked_ms(query)) : NULL;
    if (exists && !device)
        err = DG_ERR_NO_MEMORY;
    if (err == 0 && q->credential_epoch != registry->credential_epoch)
        login_again(registry, q->login); /* the authority may be gone */
    else if (device)
        accept_vouched(registry, q->login, device, q->credential_key, q->valid_until_ms);
    else
        login_reply(q->login, err < 0 ? login_lookup_error(err) : DG_ERR_BAD_CREDENTIALS);
    free(q);
}

void login_as_device(struct registry *registry, struct registry_login *login,
                     int64_t credential_key, int64_t valid_until_ms) {
    struct cache_device *device = cache_find_device(&registry->cache, login->tenant, login->name);
    metric_add(device ? METRIC_REGISTRY_CACHE_HITS : METRIC_REGISTRY_CACHE_MISSES, 1);
    if (device) {
        accept_vouched(registry, login, device, credential_key, valid_until_ms);
        return;
    }
    struct login_query *q = make_query(registry, login, STATEMENT_LOGIN_DEVICE);
    if (!q)
        return;
    q->credential_key = credential_key;
    q->valid_until_ms = valid_until_ms;
    send_device_query(q, device_found_as);
}

/* ---- principals ---- */

static bool has_secret(const struct registry *registry, const struct registry_login *login,
                       const struct cache_principal *principal) {
    uint8_t hash[CREDENTIAL_HASH_SIZE];
    credential_hash_key(&registry->master, (const char *)login->secret.data, login->secret.size,
                        hash);
    return CRYPTO_memcmp(hash, principal->secret, sizeof(hash)) == 0;
}

/* The same work also where there is nothing that the proof could be compared with. */
static bool has_proof(const struct registry *registry, struct registry_login *login,
                      const struct cache_principal *principal) {
    struct scram_keys keys = {0};
    bool known = scram_keys_open(&registry->master,
                                 slice_make(principal->sealed, principal->sealed_size), &keys) == 0;
    bool right = scram_keys_check(&keys, login->secret, login->proof, login->signature);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return known && right;
}

/* A token that one of the policy's keys signed and that has not expired. The same work also where
 * there are no keys. */
static bool has_token(const struct registry *registry, const struct registry_login *login,
                      const struct cache_principal *principal, int64_t *ret_until_ms) {
    struct credential_keys keys = {.keys = {{.size_bytes = CREDENTIAL_PAIR_KEY_SIZE},
                                            {.size_bytes = CREDENTIAL_PAIR_KEY_SIZE}}};
    struct sas_token token;
    if (sas_parse(login->secret, &token) < 0)
        return false;
    bool known =
        credential_open_keys(&registry->master,
                             slice_make(principal->sealed, principal->sealed_size), &keys) == 0;
    enum sas_signature primary = sas_is_signed_by(&token, credential_key(&keys, 0));
    enum sas_signature secondary = sas_is_signed_by(&token, credential_key(&keys, 1));
    OPENSSL_cleanse(&keys, sizeof(keys));
    *ret_until_ms = token.expiry_ms + HUB_SKEW_MS;
    return known && (primary != SAS_NOT_SIGNED || secondary != SAS_NOT_SIGNED) &&
           *ret_until_ms > clock_wall_ms();
}

/* What is kept of an API key proves nothing for an access policy, nor the other way round. */
static bool is_proven(const struct registry *registry, struct registry_login *login,
                      const struct cache_principal *principal, int64_t *ret_until_ms) {
    bool right = login->kind == REGISTRY_LOGIN_PRINCIPAL ? has_secret(registry, login, principal)
                 : login->kind == REGISTRY_LOGIN_PRINCIPAL_SCRAM
                     ? has_proof(registry, login, principal)
                     : has_token(registry, login, principal, ret_until_ms);
    return right && principal->is_policy == (login->kind == REGISTRY_LOGIN_ACCESS_POLICY);
}

/* Strangers can cause it, if they guess the key's id. */
static void say_no_scram(struct registry *registry, const struct registry_login *login) {
    unsigned suppressed;
    if (log_sample(&registry->scram_lines, clock_monotonic_ms(), &suppressed))
        LOG_WARN("registry.key_without_scram", log_text("key", login->name),
                 log_text("why", "this API key was made before SCRAM was offered: make a new one, "
                                 "or let its client use PLAIN"),
                 log_int("suppressed", suppressed));
}

static void try_principal(struct registry *registry, struct registry_login *login,
                          struct cache_principal *principal) {
    static const struct cache_principal nobody;
    const struct cache_principal *p = principal ? principal : &nobody;
    int64_t until_ms = p->not_after_ms;
    bool right = is_proven(registry, login, p, &until_ms) && principal;
    bool in_time = p->not_after_ms == 0 || clock_wall_ms() < p->not_after_ms;
    if (!right || !in_time) {
        if (principal && !is_fresh(registry, login, principal->read_ms, principal->read_again_ms,
                                   &principal->reading))
            return;
        if (principal && login->kind == REGISTRY_LOGIN_PRINCIPAL_SCRAM &&
            principal->sealed_size == 0)
            say_no_scram(registry, login);
        login_refuse_secret(registry, login, p->is_foreign && in_time);
        return;
    }
    login->identity = (struct registry_identity){
        .roles = p->roles, .credential_key = p->credential_key, .valid_until_ms = until_ms};
    const struct cache_tenant *tenant = cache_find_tenant(&registry->cache, p->tenant_key);
    if (p->tenant_key != 0 && (!tenant || !tenant->enabled)) {
        login_reply(login, DG_ERR_DISABLED);
        return;
    }
    if (tenant) {
        login->identity.tenant_key = tenant->key;
        login->identity.tenant_stream_id = tenant->stream_id;
        login->identity.partition_count = tenant->partition_count;
        memcpy(login->identity.tenant, tenant->name, sizeof(tenant->name));
    }
    login_reply(login, 0);
}

static void principal_found(struct postgres_query *query, int err, const PGresult *result,
                            const char *detail) {
    struct login_query *q = (struct login_query *)(void *)query;
    struct registry *registry = q->registry;
    bool current = err == 0 && q->credential_epoch == registry->credential_epoch;
    bool exists = current && PQntuples(result) > 0;
    struct cache_principal *principal =
        current ? cache_store_principal(&registry->cache, q->login->name, result,
                                        postgres_asked_ms(query))
                : NULL;
    if (err < 0)
        login_reply(q->login, login_lookup_error(err));
    else if (!current)
        login_again(registry, q->login);
    else if (exists && !principal)
        login_reply(q->login, DG_ERR_NO_MEMORY);
    else
        try_principal(registry, q->login, principal);
    free(q);
}

/* Connections made under other roles or another end are told by the change, which must still see
 * that there is a difference. */
static struct cache_principal *replace_principal(struct registry *registry,
                                                 const struct cache_principal *old,
                                                 const PGresult *result,
                                                 const struct login_query *q) {
    struct cache_principal was = old ? *old : (struct cache_principal){.credential_key = 0};
    struct cache_principal *now = cache_store_principal(&registry->cache, q->login->name, result,
                                                        postgres_asked_ms(&q->query));
    bool known = now && now->credential_key == was.credential_key;
    if (known)
        now->is_unheard =
            was.is_unheard || now->roles != was.roles || now->not_after_ms != was.not_after_ms;
    OPENSSL_cleanse(&was, sizeof(was));
    return now;
}

/* One that is gone stays in the cache until its change has been heard, as a device does. */
static void principal_read_again(struct postgres_query *query, int err, const PGresult *result,
                                 const char *detail) {
    struct login_query *q = (struct login_query *)(void *)query;
    struct registry *registry = q->registry;
    struct registry_login *login = q->login;
    struct cache_principal *principal = cache_find_principal(&registry->cache, login->name);
    bool current = err == 0 && q->credential_epoch == registry->credential_epoch;
    bool gone = current && PQntuples(result) == 0;
    if (principal && principal->reading == q)
        principal->reading = NULL;
    if (current && !gone && !(principal = replace_principal(registry, principal, result, q)))
        err = DG_ERR_NO_MEMORY;
    if (principal)
        principal->read_again_ms = postgres_asked_ms(query);
    if (principal && gone)
        principal->read_ms = principal->read_again_ms;
    while ((login = next_waiting(q, err)))
        if (err == DG_ERR_SHUTTING_DOWN)
            login_reply(login, err);
        else if (err == 0 && !current)
            login_again(registry, login);
        else
            try_principal(registry, login,
                          gone ? NULL : cache_find_principal(&registry->cache, login->name));
    free(q);
}

static void begin_principal(struct registry *registry, struct registry_login *login) {
    struct cache_principal *principal = cache_find_principal(&registry->cache, login->name);
    if (principal) {
        try_principal(registry, login, principal);
        return;
    }
    struct login_query *q = make_query(registry, login, login_statement(login));
    if (q)
        send_principal_query(q, principal_found);
}

void login_begin(struct registry *registry, struct registry_login *login) {
    if (is_principal(login))
        begin_principal(registry, login);
    else
        begin_device(registry, login);
}
