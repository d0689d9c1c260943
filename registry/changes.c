/*
 * Hearing what changed. registry_change has a row for each change, in the order in which changes
 * became visible; NOTIFY only says "look". The changes connection reads the rows behind the last
 * revision on every notification and once a second, which also notices a server that is frozen.
 *
 * A changed device is read again, its cache entry replaced, and every worker told which of its
 * credentials still stand. That goes in batches: the next rows are read when the look-ups of these
 * have ended. A row counts as applied only when its look-up succeeded; if any failed, reading goes
 * back to before the first of them and tries again with the timer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "registry/directory.h"

enum { INTERVAL_S = 1, HEARD_MS = 2500, TRIM_EVERY = 60, REVISION_NONE = -1 };

struct change_query {
    struct postgres_query query;
    struct registry *registry;
    int64_t revision_before; /* where to go back to if this look-up fails */
    int64_t tenant_key, device_key;
    bool narrows;
    struct registry_revocation *revocation;
};

static void read_changes(struct registry *registry);
static void read_stale(struct registry *registry);

static int condition_without_queries(struct registry *registry) {
    int version;
    enum schema_fit schema = postgres_schema(registry->queries, &version);
    return schema == SCHEMA_OLDER     ? REGISTRY_OLD_SCHEMA
           : schema == SCHEMA_NEWER   ? REGISTRY_NEW_SCHEMA
           : schema == SCHEMA_CHANGED ? REGISTRY_OTHER_SCHEMA
                                      : REGISTRY_NO_QUERIES;
}

void changes_update_condition(struct registry *registry) {
    bool queries = postgres_is_ready(registry->queries) && requests_are_taken(registry);
    bool changes = postgres_is_ready(registry->changes) && registry->synced;
    int condition = !queries   ? condition_without_queries(registry)
                    : !changes ? REGISTRY_NO_CHANGES
                               : REGISTRY_UP;
    if (atomic_exchange(&registry->condition, condition) != condition)
        metric_set(METRIC_REGISTRY_UP, condition == REGISTRY_UP);
}

bool changes_are_heard(const struct registry *registry) {
    return registry->synced && clock_monotonic_ms() - registry->heard_ms < HEARD_MS;
}

/* ---- telling the workers ---- */

static void tell_workers(struct registry *registry, const struct registry_revocation *what) {
    for (const struct registry_listener *l = atomic_load(&registry->listeners); l; l = l->next) {
        struct registry_revocation *copy = malloc(sizeof(*copy));
        if (!copy) {
            /* A revocation that is not delivered would leave a connection open: stop instead. */
            LOG_ERROR("registry.revocation_lost", log_text("why", "out of memory"));
            abort();
        }
        *copy = *what;
        copy->mail.deliver = l->receiver.revoked;
        mailbox_post(l->mailbox, &copy->mail);
    }
}

/* Connections that do not hear of it go on under what was: stop instead, as above. */
static void tell_update(struct registry *registry, const struct registry_update *what) {
    for (const struct registry_listener *l = atomic_load(&registry->listeners); l; l = l->next) {
        struct registry_update *copy = malloc(sizeof(*copy));
        if (!copy) {
            LOG_ERROR("registry.update_lost", log_text("why", "out of memory"));
            abort();
        }
        *copy = *what;
        copy->policy = registry_policy_keep(what->policy);
        copy->mail.deliver = l->receiver.updated;
        mailbox_post(l->mailbox, &copy->mail);
    }
}

const char *const changes_channels[] = {
    [REGISTRY_CHANNEL_CHANGES] = "duragate_registry",
    [REGISTRY_CHANNEL_COMMANDS] = "duragate_command",
    [REGISTRY_CHANNEL_TWINS] = "duragate_twin",
    [REGISTRY_CHANNEL_COUNT] = NULL,
};

/* What is lost here is found later: rows are the truth, and are looked at now and then. */
static void tell_notice(struct registry *registry, enum registry_channel channel,
                        const char *text) {
    for (const struct registry_listener *l = atomic_load(&registry->listeners); l; l = l->next) {
        struct registry_notice *copy =
            l->receiver.noticed ? malloc(sizeof(*copy) + strlen(text) + 1) : NULL;
        if (!copy)
            continue;
        copy->channel = channel;
        strcpy(copy->text, text);
        copy->mail.deliver = l->receiver.noticed;
        mailbox_post(l->mailbox, &copy->mail);
    }
}

static struct change_query *
make_query(struct registry *registry, int64_t revision_before, enum registry_statement statement,
           void (*done)(struct postgres_query *, int, const PGresult *, const char *)) {
    struct change_query *q = calloc(1, sizeof(*q));
    if (!q) {
        LOG_ERROR("registry.change_lost", log_text("why", "out of memory"));
        abort();
    }
    q->registry = registry;
    q->revision_before = revision_before;
    q->query.statement = statement;
    q->query.done = done;
    return q;
}

/* ---- batches ---- */

static void go_back(struct change_query *q) {
    if (q->revision_before < q->registry->retry_revision)
        q->registry->retry_revision = q->revision_before;
}

static void drop_stale(struct registry *registry) {
    free(registry->stale);
    registry->stale = NULL;
    registry->stale_count = registry->stale_next = 0;
}

/* Begins what end_lookup() ends; also keeps a batch open while its rows are walked through, since a
 * look-up may fail at once. */
static void begin_lookup(struct registry *registry) {
    registry->lookups++;
}

static void end_lookup(struct registry *registry) {
    if (--registry->lookups > 0)
        return;
    if (registry->retry_revision != INT64_MAX) {
        registry->revision = registry->retry_revision;
        registry->retry_revision = INT64_MAX;
        registry->synced = false;
        drop_stale(registry);
        changes_update_condition(registry);
    } else if (registry->stale) {
        read_stale(registry);
    } else {
        read_changes(registry);
    }
}

static void send_lookup(struct change_query *q, unsigned count, const char *const *parameters) {
    q->query.is_urgent = true;
    begin_lookup(q->registry);
    postgres_send(q->registry->queries, &q->query, count, parameters);
}

/* ---- a device ---- */

/* Certificates of the tenant's authorities stay good whatever the device's own credentials are. */
static void authorities_found(struct postgres_query *query, int err, const PGresult *result,
                              const char *detail) {
    struct change_query *q = (struct change_query *)(void *)query;
    struct registry *registry = q->registry;
    for (int row = 0; err == 0 && row < PQntuples(result) && row < LIMIT_AUTHORITIES_PER_TENANT;
         row++)
        q->revocation->kept[q->revocation->kept_count++] =
            strtoll(PQgetvalue(result, row, 0), NULL, 10);
    if (err < 0)
        go_back(q);
    else
        tell_workers(registry, q->revocation);
    free(q->revocation);
    free(q);
    end_lookup(registry);
}

static void keep_current(struct change_query *q, const struct cache_device *device) {
    struct registry_revocation *revocation = malloc(sizeof(*revocation));
    if (!revocation)
        abort();
    *revocation = (struct registry_revocation){
        .tenant_key = device->tenant_key, .device_key = device->key, .err = DG_ERR_ADMINISTRATIVE};
    for (unsigned i = 0; i < device->credential_count && i < LIMIT_CREDENTIALS_PER_DEVICE; i++)
        revocation->kept[revocation->kept_count++] = device->credentials[i].key;
    if (device->refuses_authorities) {
        tell_workers(q->registry, revocation);
        free(revocation);
        return;
    }
    char tenant_key[24], most[24];
    snprintf(tenant_key, sizeof(tenant_key), "%lld", (long long)device->tenant_key);
    snprintf(most, sizeof(most), "%d", LIMIT_AUTHORITIES_PER_TENANT);
    struct change_query *next =
        make_query(q->registry, q->revision_before, STATEMENT_AUTHORITY_KEYS, authorities_found);
    next->revocation = revocation;
    send_lookup(next, 2, (const char *[]){tenant_key, most});
}

static void replace_device(struct change_query *q, const PGresult *result) {
    struct registry *registry = q->registry;
    struct cache_device *old = cache_find_device_by_key(&registry->cache, q->device_key);
    bool exists = PQntuples(result) > 0;
    struct registry_update update = {.device_key = q->device_key};
    if (old)
        memcpy(update.group, old->group, sizeof(update.group));
    if (old) /* a credential that went with its device does not say whose it was */
        q->tenant_key = old->tenant_key;
    if (old && !exists)
        cache_remove_device(&registry->cache, old);
    const struct cache_device *device =
        exists ? cache_store_device(&registry->cache, result, postgres_asked_ms(&q->query)) : NULL;
    if (device && (!old || strcmp(update.group, device->group) != 0)) {
        update.tenant_key = device->tenant_key;
        memcpy(update.group, device->group, sizeof(update.group));
        tell_update(registry, &update);
    }
    if (!q->narrows)
        return;
    if (device && device->enabled) {
        keep_current(q, device);
    } else {
        struct registry_revocation revocation = {.tenant_key = q->tenant_key,
                                                 .device_key = q->device_key,
                                                 .err = exists ? DG_ERR_DISABLED
                                                               : DG_ERR_ADMINISTRATIVE};
        tell_workers(registry, &revocation);
    }
}

static void device_read(struct postgres_query *query, int err, const PGresult *result,
                        const char *detail) {
    struct change_query *q = (struct change_query *)(void *)query;
    struct registry *registry = q->registry;
    if (err < 0)
        go_back(q);
    else
        replace_device(q, result);
    free(q);
    end_lookup(registry);
}

/* A device that is not in the cache has no connection, unless the cache was ever too small or its
 * look-up is under way right now; ours is answered after that one. */
static void apply_device(struct registry *registry, int64_t revision_before, int64_t tenant_key,
                         int64_t device_key, bool narrows) {
    if (!cache_find_device_by_key(&registry->cache, device_key) &&
        !(narrows && registry->cache.has_evicted) && registry->device_lookups == 0)
        return;
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)device_key);
    struct change_query *q =
        make_query(registry, revision_before, STATEMENT_LOGIN_DEVICE_BY_KEY, device_read);
    q->tenant_key = tenant_key;
    q->device_key = device_key;
    q->narrows = narrows;
    send_lookup(q, 1, (const char *[]){text});
}

/* ---- a tenant ---- */

static void tenant_read(struct postgres_query *query, int err, const PGresult *result,
                        const char *detail) {
    struct change_query *q = (struct change_query *)(void *)query;
    struct registry *registry = q->registry;
    bool exists = err == 0 && PQntuples(result) > 0;
    struct cache_tenant *tenant =
        exists ? cache_store_tenant(&registry->cache, result, 0, 0) : NULL;
    if (tenant && cache_store_policy(tenant, result, 0, 5) && tenant->policy)
        tell_update(registry,
                    &(struct registry_update){.tenant_key = tenant->key, .policy = tenant->policy});
    if (err == 0 && !exists) { /* nothing is announced of the devices that went with it */
        cache_remove_tenant(&registry->cache, q->tenant_key);
        cache_remove_devices_of(&registry->cache, q->tenant_key);
        collect_soon(registry);
    }
    if (err < 0)
        go_back(q);
    else if (!tenant || !tenant->enabled)
        tell_workers(registry, &(struct registry_revocation){
                                   .tenant_key = q->tenant_key,
                                   .err = exists ? DG_ERR_DISABLED : DG_ERR_ADMINISTRATIVE});
    free(q);
    end_lookup(registry);
}

static void apply_tenant(struct registry *registry, int64_t revision_before, int64_t tenant_key) {
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)tenant_key);
    struct change_query *q =
        make_query(registry, revision_before, STATEMENT_LOGIN_TENANTS, tenant_read);
    q->tenant_key = tenant_key;
    send_lookup(q, 2, (const char *[]){NULL, text});
}

/* ---- reading ---- */

/* The columns of CHANGES. */
enum change_column {
    COLUMN_REVISION,
    COLUMN_TENANT,
    COLUMN_DEVICE,
    COLUMN_CREDENTIAL,
    COLUMN_NARROWS,
    COLUMN_IS_AUTHORITY, /* the credential is an authority that is still there */
    COLUMN_ROLES,        /* of the API key that is still there */
    COLUMN_NOT_AFTER,
};

static int64_t number_at(const PGresult *result, int row, int column) {
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static bool is_same_principal(const struct cache_principal *principal, const PGresult *result,
                              int row) {
    return principal && !principal->is_unheard && !PQgetisnull(result, row, COLUMN_ROLES) &&
           principal->roles == (uint32_t)number_at(result, row, COLUMN_ROLES) &&
           principal->not_after_ms == number_at(result, row, COLUMN_NOT_AFTER);
}

/* An API key or an authority. One that is still there as it was ends nothing. */
static void apply_credential(struct registry *registry, const PGresult *result, int row) {
    int64_t key = number_at(result, row, COLUMN_CREDENTIAL);
    struct cache_principal *principal = cache_find_principal_by_key(&registry->cache, key);
    bool is_authority = PQgetvalue(result, row, COLUMN_IS_AUTHORITY)[0] == 't';
    registry->credential_epoch++;
    if (!is_authority && is_same_principal(principal, result, row))
        return;
    if (principal)
        cache_remove_principal(&registry->cache, principal);
    authorities_clear(&registry->authorities);
    if (!is_authority && PQgetvalue(result, row, COLUMN_NARROWS)[0] == 't')
        tell_workers(registry, &(struct registry_revocation){
                                   .tenant_key = number_at(result, row, COLUMN_TENANT),
                                   .credential_key = key,
                                   .err = DG_ERR_ADMINISTRATIVE});
}

static void apply_change(struct registry *registry, const PGresult *result, int row) {
    int64_t tenant_key = number_at(result, row, COLUMN_TENANT);
    int64_t device_key = number_at(result, row, COLUMN_DEVICE);
    bool narrows = PQgetvalue(result, row, COLUMN_NARROWS)[0] == 't';
    registry->revision = number_at(result, row, COLUMN_REVISION);
    registry->epoch++;
    cache_clear_unknown(&registry->cache);
    if (device_key != 0)
        apply_device(registry, registry->revision - 1, tenant_key, device_key, narrows);
    else if (!PQgetisnull(result, row, COLUMN_CREDENTIAL) &&
             number_at(result, row, COLUMN_CREDENTIAL) != 0)
        apply_credential(registry, result, row);
    else if (narrows)
        apply_tenant(registry, registry->revision - 1, tenant_key);
}

static void changes_read(struct postgres_query *query, int err, const PGresult *result,
                         const char *detail) {
    struct change_query *q = (struct change_query *)(void *)query;
    struct registry *registry = q->registry;
    uint64_t asked_ms = postgres_asked_ms(query);
    free(q);
    registry->reading_changes = false;
    if (err < 0 || !postgres_is_ready(registry->queries))
        return; /* the rows are read again when both connections are there */
    registry->heard_ms = asked_ms;
    int rows = PQntuples(result);
    if (rows == 0 && !registry->synced) {
        registry->synced = true;
        changes_update_condition(registry);
    }
    if (rows == 0)
        return;
    begin_lookup(registry);
    for (int row = 0; row < rows; row++)
        apply_change(registry, result, row);
    end_lookup(registry); /* reads on when all has been looked up */
}

/* A batch of what is to be read again. */
static void read_stale(struct registry *registry) {
    begin_lookup(registry);
    while (registry->stale_next < registry->stale_count &&
           registry->lookups <= LIMIT_REGISTRY_CHANGES && registry->retry_revision == INT64_MAX) {
        const struct registry_stale *stale = &registry->stale[registry->stale_next++];
        if (stale->device_key)
            apply_device(registry, REVISION_NONE, stale->tenant_key, stale->device_key, true);
        else
            apply_tenant(registry, REVISION_NONE, stale->tenant_key);
    }
    if (registry->stale_next == registry->stale_count)
        drop_stale(registry);
    end_lookup(registry);
}

/* Numbers, not pointers: the cache changes while they are worked off. */
static void list_stale(struct registry *registry) {
    const struct cache *cache = &registry->cache;
    size_t most = HASH_COUNT(cache->tenants) + cache->device_count;
    drop_stale(registry);
    registry->stale = calloc(most + 1, sizeof(*registry->stale));
    if (!registry->stale) {
        LOG_ERROR("registry.change_lost", log_text("why", "out of memory"));
        abort();
    }
    for (const struct cache_tenant *t = cache->tenants; t; t = t->hh.next)
        registry->stale[registry->stale_count++].tenant_key = t->key;
    for (const struct cache_device *d = cache->newest; d; d = d->older)
        registry->stale[registry->stale_count++] =
            (struct registry_stale){.tenant_key = d->tenant_key, .device_key = d->key};
}

/* Everything known is read again. */
static void refresh(struct registry *registry) {
    registry->epoch++;
    registry->credential_epoch++;
    cache_clear_unknown(&registry->cache);
    authorities_clear(&registry->authorities);
    tell_update(registry, &(struct registry_update){.tenant_key = 0});
    while (registry->cache.principals) {
        struct cache_principal *principal = registry->cache.principals;
        tell_workers(registry,
                     &(struct registry_revocation){.tenant_key = principal->tenant_key,
                                                   .credential_key = principal->credential_key,
                                                   .err = DG_ERR_ADMINISTRATIVE});
        cache_remove_principal(&registry->cache, principal);
    }
    list_stale(registry);
    read_stale(registry); /* then changes are read on */
}

/* Rows older than what we know may have been trimmed while we were away: then nothing in the cache
 * can be trusted, and every connection must prove itself anew. */
static void range_read(struct postgres_query *query, int err, const PGresult *result,
                       const char *detail) {
    struct change_query *q = (struct change_query *)(void *)query;
    struct registry *registry = q->registry;
    free(q);
    registry->reading_changes = false;
    if (err < 0 || !postgres_is_ready(registry->queries))
        return;
    int64_t first = number_at(result, 0, 0), newest = number_at(result, 0, 1);
    bool missed = registry->revision != REVISION_NONE &&
                  (first > registry->revision + 1 || newest < registry->revision);
    registry->range_known = true;
    if (missed)
        LOG_WARN("registry.resync", log_text("why", "changes were missed; all is read again"));
    if (missed || registry->revision == REVISION_NONE) {
        registry->revision = newest;
        refresh(registry);
        return;
    }
    read_changes(registry);
}

static void read_changes(struct registry *registry) {
    if (registry->reading_changes || registry->lookups > 0 || !postgres_is_ready(registry->changes))
        return;
    registry->reading_changes = true;
    if (!registry->range_known || registry->revision == REVISION_NONE) {
        struct change_query *q = make_query(registry, 0, STATEMENT_CHANGES_RANGE, range_read);
        postgres_send(registry->changes, &q->query, 0, NULL);
        return;
    }
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)registry->revision);
    struct change_query *q = make_query(registry, 0, STATEMENT_CHANGES, changes_read);
    postgres_send(registry->changes, &q->query, 1, (const char *[]){text});
}

void changes_ready(void *context) {
    struct registry *registry = context;
    registry->reading_changes = registry->range_known = registry->synced = false;
    read_changes(registry);
    for (int channel = REGISTRY_CHANNEL_CHANGES + 1; channel < REGISTRY_CHANNEL_COUNT; channel++)
        tell_notice(registry, (enum registry_channel)channel, "");
}

void changes_lost(void *context) {
    struct registry *registry = context;
    registry->synced = false;
    changes_update_condition(registry);
}

void changes_notified(void *context, const char *channel, const char *text) {
    for (int i = REGISTRY_CHANNEL_CHANGES + 1; i < REGISTRY_CHANNEL_COUNT; i++)
        if (strcmp(channel, changes_channels[i]) == 0) {
            tell_notice(context, (enum registry_channel)i, text);
            return;
        }
    read_changes(context);
}

static void trimmed(struct postgres_query *query, int err, const PGresult *result,
                    const char *detail) {
    free(query);
}

void changes_on_timer(evutil_socket_t fd, short what, void *context) {
    struct registry *registry = context;
    event_add(registry->change_timer, &(struct timeval){.tv_sec = INTERVAL_S});
    read_changes(registry);
    if (++registry->trims % TRIM_EVERY == 0 && postgres_is_ready(registry->changes)) {
        struct change_query *q = make_query(registry, 0, STATEMENT_CHANGES_TRIM, trimmed);
        postgres_send(registry->changes, &q->query, 0, NULL);
    }
}
