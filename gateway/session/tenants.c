#include "gateway/session/tenants.h"

#include <stdlib.h>

#include "common/assert.h"

static struct session_tenant *tenant_create(struct session_shared *shared,
                                            const struct registry_identity *identity) {
    size_t name_size = strnlen(identity->tenant, LIMIT_TENANT_BYTES);
    if (device_map_reserve(&shared->tenants) < 0)
        return NULL;
    struct session_tenant *tenant = malloc(sizeof(*tenant) + name_size);
    if (!tenant)
        return NULL;
    tenant->key = identity->tenant_key;
    tenant->events_stream = registry_stream(identity->tenant_stream_id, STREAM_EVENTS);
    tenant->quarantine_stream = registry_stream(identity->tenant_stream_id, STREAM_QUARANTINE);
    tenant->policy = NULL;
    tenant->users = 0;
    tenant->name_size = (uint8_t)name_size;
    memcpy(tenant->name, identity->tenant, name_size);
    device_map_set(&shared->tenants, tenant->key, (uintptr_t)tenant);
    return tenant;
}

static void set_policy(struct session_tenant *tenant, struct registry_policy *policy) {
    if (!policy || (tenant->policy && tenant->policy->version >= policy->version))
        return;
    registry_policy_release(tenant->policy);
    tenant->policy = registry_policy_keep(policy);
}

void tenant_update(struct session_shared *shared, int64_t tenant_key,
                   struct registry_policy *policy) {
    uint64_t value;
    if (device_map_get(&shared->tenants, tenant_key, &value))
        set_policy((struct session_tenant *)(uintptr_t)value, policy);
}

struct session_tenant *tenant_take(struct session_shared *shared,
                                   const struct registry_identity *identity) {
    uint64_t value;
    struct session_tenant *tenant = NULL;
    if (device_map_get(&shared->tenants, identity->tenant_key, &value))
        tenant = (struct session_tenant *)(uintptr_t)value;
    else
        tenant = tenant_create(shared, identity);
    if (!tenant)
        return NULL;
    set_policy(tenant, identity->policy);
    tenant->users++;
    return tenant;
}

void tenant_release(struct session_shared *shared, struct session_tenant *tenant) {
    if (!tenant)
        return;
    dg_assert(tenant->users > 0);
    if (--tenant->users > 0)
        return;
    device_map_remove(&shared->tenants, tenant->key);
    registry_policy_release(tenant->policy);
    free(tenant);
}
