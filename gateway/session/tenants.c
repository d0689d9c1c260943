#include "gateway/session/tenants.h"

#include <stdlib.h>

#include "common/assert.h"

/* ---- quotas ---- */

static void set_group_quota(struct session_shared *shared, const struct session_tenant *tenant,
                            struct quota_line *line) {
    const struct registry_group *group =
        registry_policy_group(tenant->policy, slice_make(line->name, line->name_size));
    quota_line_set(line, group ? &group->quota : NULL, shared->now_ns);
}

struct quota_line *tenant_group_take(struct session_shared *shared, struct session_tenant *tenant,
                                     struct slice name) {
    struct quota_line *line = tenant->groups;
    while (line && !slice_equals(slice_make(line->name, line->name_size), name))
        line = line->next;
    if (!line) {
        line = quota_line_create(shared, QUOTA_GROUP, tenant->key, name);
        if (!line)
            return NULL;
        line->next = tenant->groups;
        tenant->groups = line;
        set_group_quota(shared, tenant, line);
    }
    line->users++;
    return line;
}

void tenant_group_release(struct session_shared *shared, struct session_tenant *tenant,
                          struct quota_line *line) {
    if (!line || --line->users > 0)
        return;
    struct quota_line **at = &tenant->groups;
    while (*at != line)
        at = &(*at)->next;
    *at = line->next;
    quota_line_free(shared, line);
}

int tenant_enter(struct session_tenant *tenant) {
    struct quota_tenant *used = tenant->line->meter.entry->tenant;
    uint64_t most = tenant->policy ? tenant->policy->quota.connections : 0;
    if (atomic_fetch_add(&used->connections, 1) < most || most == 0)
        return 0;
    atomic_fetch_sub(&used->connections, 1);
    atomic_fetch_add(&used->connections_refused, 1);
    return DG_ERR_QUOTA;
}

void tenant_leave(struct session_tenant *tenant) {
    atomic_fetch_sub(&tenant->line->meter.entry->tenant->connections, 1);
}

/* ---- life ---- */

static struct session_tenant *tenant_create(struct session_shared *shared,
                                            const struct registry_identity *identity) {
    size_t name_size = strnlen(identity->tenant, LIMIT_TENANT_BYTES);
    if (device_map_reserve(&shared->tenants) < 0)
        return NULL;
    struct session_tenant *tenant = malloc(sizeof(*tenant) + name_size);
    struct quota_line *line = quota_line_create(shared, QUOTA_TENANT, identity->tenant_key,
                                                slice_make(identity->tenant, name_size));
    struct quota_line *share =
        quota_line_create(shared, QUOTA_SHARE, identity->tenant_key, slice_make(NULL, 0));
    if (!tenant || !line || !share) {
        free(tenant);
        quota_line_free(shared, line);
        quota_line_free(shared, share);
        return NULL;
    }
    tenant->line = line;
    tenant->share = share;
    tenant->outstanding = 0;
    tenant->groups = NULL;
    tenant->key = identity->tenant_key;
    tenant->events_stream = registry_stream(identity->tenant_stream_id, STREAM_EVENTS);
    tenant->stream_id = identity->tenant_stream_id;
    tenant->quarantine_stream = registry_stream(identity->tenant_stream_id, STREAM_QUARANTINE);
    tenant->policy = NULL;
    tenant->topics = NULL;
    tenant->users = 0;
    tenant->name_size = (uint8_t)name_size;
    memcpy(tenant->name, identity->tenant, name_size);
    device_map_set(&shared->tenants, tenant->key, (uintptr_t)tenant);
    return tenant;
}

static void set_policy(struct session_shared *shared, struct session_tenant *tenant,
                       struct registry_policy *policy) {
    if (!policy || (tenant->policy && tenant->policy->version >= policy->version))
        return;
    registry_policy_release(tenant->policy);
    tenant->policy = registry_policy_keep(policy);
    quota_line_set(tenant->line, &policy->quota, shared->now_ns);
    for (struct quota_line *line = tenant->groups; line; line = line->next)
        set_group_quota(shared, tenant, line);
    tenant->topics = policy->topic_map;
}

void tenant_update(struct session_shared *shared, int64_t tenant_key,
                   struct registry_policy *policy) {
    uint64_t value;
    if (device_map_get(&shared->tenants, tenant_key, &value))
        set_policy(shared, (struct session_tenant *)(uintptr_t)value, policy);
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
    set_policy(shared, tenant, identity->policy);
    tenant->users++;
    return tenant;
}

uint32_t tenant_users(const struct session_shared *shared, int64_t tenant_key) {
    uint64_t value;
    bool is_here = device_map_get(&shared->tenants, tenant_key, &value);
    return is_here ? ((const struct session_tenant *)(uintptr_t)value)->users : 0;
}

void tenant_release(struct session_shared *shared, struct session_tenant *tenant) {
    if (!tenant)
        return;
    dg_assert(tenant->users > 0);
    if (--tenant->users > 0)
        return;
    device_map_remove(&shared->tenants, tenant->key);
    registry_policy_release(tenant->policy);
    quota_line_free(shared, tenant->line);
    quota_line_free(shared, tenant->share);
    free(tenant);
}
