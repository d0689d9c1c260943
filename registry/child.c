/*
 * Devices behind gateway devices: who may speak for them. From the cache when it says yes; a no is
 * only said after PostgreSQL was asked, since the cache may be a moment behind.
 */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "registry/directory.h"

enum { UNKNOWN_MS = 1000 };

struct child_lookup {
    struct postgres_query query;
    struct registry *registry;
    struct registry_child_query *asked;
    uint64_t epoch; /* the registry's, when the question was sent */
};

static void reply(struct registry_child_query *query, int err) {
    query->err = err;
    query->mail.deliver = query->reply;
    mailbox_post(query->reply_to, &query->mail);
}

static bool is_there(struct registry *registry, const struct registry_child_query *query,
                     const struct cache_device *device) {
    const struct cache_tenant *tenant =
        device ? cache_find_tenant(&registry->cache, device->tenant_key) : NULL;
    return tenant && tenant->key == query->tenant_key && tenant->enabled && device->enabled;
}

static void answer(struct registry *registry, struct registry_child_query *query,
                   const struct cache_device *device) {
    if (!is_there(registry, query, device)) {
        reply(query, DG_ERR_VIA);
        return;
    }
    query->via = strdup(device->via);
    if (!query->via) {
        reply(query, DG_ERR_NO_MEMORY);
        return;
    }
    query->device_key = device->key;
    query->partition = device->partition;
    memcpy(query->group, device->group, sizeof(query->group));
    reply(query, 0);
}

static void child_found(struct postgres_query *query, int err, const PGresult *result,
                        const char *detail) {
    struct child_lookup *lookup = (struct child_lookup *)(void *)query;
    struct registry *registry = lookup->registry;
    struct registry_child_query *asked = lookup->asked;
    registry->device_lookups--;
    bool exists = err == 0 && PQntuples(result) > 0;
    if (err == 0 && !exists && lookup->epoch == registry->epoch)
        cache_store_unknown(&registry->cache, asked->tenant, asked->child,
                            postgres_asked_ms(query) + UNKNOWN_MS);
    const struct cache_device *device =
        exists ? cache_store_device(&registry->cache, result, postgres_asked_ms(query)) : NULL;
    if (err < 0)
        reply(asked, err == DG_ERR_INVALID ? DG_ERR_VIA : DG_ERR_UNAVAILABLE);
    else if (exists && !device)
        reply(asked, DG_ERR_NO_MEMORY);
    else
        answer(registry, asked, device);
    free(lookup);
}

static void child_begin(struct registry *registry, struct registry_child_query *query) {
    const struct cache_device *device =
        cache_find_device(&registry->cache, query->tenant, query->child);
    bool unknown =
        !device && changes_are_heard(registry) &&
        cache_is_unknown(&registry->cache, query->tenant, query->child, clock_monotonic_ms());
    bool speaks = is_there(registry, query, device) &&
                  registry_is_listed(device->via, slice_from_string(query->gateway));
    metric_add(device ? METRIC_REGISTRY_CACHE_HITS : METRIC_REGISTRY_CACHE_MISSES, 1);
    if (speaks || unknown) {
        answer(registry, query, device);
        return;
    }
    struct child_lookup *lookup = calloc(1, sizeof(*lookup));
    if (!lookup) {
        reply(query, DG_ERR_NO_MEMORY);
        return;
    }
    *lookup = (struct child_lookup){
        .query = {.statement = STATEMENT_LOGIN_DEVICE, .done = child_found},
        .registry = registry,
        .asked = query,
        .epoch = registry->epoch,
    };
    registry->device_lookups++;
    postgres_send(registry->queries, &lookup->query, 2,
                  (const char *[]){query->tenant, query->child});
}

static void deliver_child_query(struct mail *mail, void *receiver) {
    child_begin(receiver, (struct registry_child_query *)(void *)mail);
}

void registry_find_child(struct registry *registry, struct registry_child_query *query) {
    query->reply = query->mail.deliver;
    query->mail.deliver = deliver_child_query;
    mailbox_post(&registry->mailbox, &query->mail);
}
