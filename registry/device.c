/*
 * Where something for a device goes: its keys and its stream. From the cache where it is known and
 * changes are being heard, else from PostgreSQL; a device that goes a moment later is noticed where
 * the effect happens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "registry/directory.h"

struct device_lookup {
    struct postgres_query query;
    struct registry_device_query *asked;
};

static void reply(struct registry_device_query *query, int err) {
    query->err = err;
    query->mail.deliver = query->reply;
    mailbox_post(query->reply_to, &query->mail);
}

static bool is_in_scope(const struct registry_device_query *query, int64_t tenant_key) {
    return query->scope_tenant_key == 0 || query->scope_tenant_key == tenant_key;
}

/* The columns of COMMAND_DEVICE. */
enum { COLUMN_TENANT_KEY, COLUMN_STREAM_ID, COLUMN_DEVICE_KEY, COLUMN_PARTITION };

static int64_t number_at(const PGresult *result, int column) {
    return strtoll(PQgetvalue(result, 0, column), NULL, 10);
}

static void device_found(struct postgres_query *query, int err, const PGresult *result,
                         const char *detail) {
    struct device_lookup *lookup = (struct device_lookup *)(void *)query;
    struct registry_device_query *asked = lookup->asked;
    free(lookup);
    if (err == 0 && PQntuples(result) == 0)
        err = DG_ERR_NOT_FOUND;
    if (err == 0) {
        asked->tenant_key = number_at(result, COLUMN_TENANT_KEY);
        asked->stream_id = number_at(result, COLUMN_STREAM_ID);
        asked->device_key = number_at(result, COLUMN_DEVICE_KEY);
        asked->partition = (uint32_t)number_at(result, COLUMN_PARTITION);
    }
    reply(asked, err);
}

static void look_up(struct registry *registry, struct registry_device_query *query) {
    char scope[24];
    snprintf(scope, sizeof(scope), "%lld", (long long)query->scope_tenant_key);
    struct device_lookup *lookup = calloc(1, sizeof(*lookup));
    if (!lookup) {
        reply(query, DG_ERR_NO_MEMORY);
        return;
    }
    *lookup = (struct device_lookup){
        .query = {.statement = STATEMENT_COMMAND_DEVICE, .done = device_found}, .asked = query};
    postgres_send(registry->queries, &lookup->query, 3,
                  (const char *[]){query->tenant, query->device,
                                   query->scope_tenant_key != 0 ? scope : NULL});
}

static void device_begin(struct registry *registry, struct registry_device_query *query) {
    const struct cache_device *device =
        changes_are_heard(registry)
            ? cache_find_device(&registry->cache, query->tenant, query->device)
            : NULL;
    const struct cache_tenant *tenant =
        device ? cache_find_tenant(&registry->cache, device->tenant_key) : NULL;
    metric_add(tenant ? METRIC_REGISTRY_CACHE_HITS : METRIC_REGISTRY_CACHE_MISSES, 1);
    if (!tenant) {
        look_up(registry, query);
        return;
    }
    query->tenant_key = tenant->key;
    query->stream_id = tenant->stream_id;
    query->device_key = device->key;
    query->partition = device->partition;
    reply(query, is_in_scope(query, tenant->key) ? 0 : DG_ERR_NOT_FOUND);
}

static void deliver_device_query(struct mail *mail, void *receiver) {
    device_begin(receiver, (struct registry_device_query *)(void *)mail);
}

void registry_find_device(struct registry *registry, struct registry_device_query *query) {
    query->reply = query->mail.deliver;
    query->mail.deliver = deliver_device_query;
    mailbox_post(&registry->mailbox, &query->mail);
}
