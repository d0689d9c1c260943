/* The table of groups, requests and their memory, and what needs no more than a member. */
#include "gateway/kafka/group.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/kafka/group_internal.h"

const char *const group_state_names[] = {
    [GROUP_EMPTY] = "Empty",
    [GROUP_PREPARING] = "PreparingRebalance",
    [GROUP_COMPLETING] = "CompletingRebalance",
    [GROUP_STABLE] = "Stable",
    [GROUP_DEAD] = "Dead",
};

/* ---- requests ---- */

struct group_chunk {
    struct group_chunk *next;
    size_t used, size;
    uint8_t bytes[];
};

struct group_request *group_request_new(enum group_operation operation) {
    struct group_request *request = calloc(1, sizeof(*request));
    if (request)
        request->operation = operation;
    return request;
}

void group_request_free(struct group_request *request) {
    if (!request)
        return;
    while (request->chunks) {
        struct group_chunk *chunk = request->chunks;
        request->chunks = chunk->next;
        free(chunk);
    }
    free(request);
}

void *group_take(struct group_request *request, size_t size) {
    enum { CHUNK_BYTES = 1024, ALIGNMENT = 16 };
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct group_chunk *chunk = request->chunks;
    if (!chunk || chunk->size - chunk->used < size) {
        size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        bool fits = room <= LIMIT_KAFKA_GROUP_REQUEST_BYTES - request->taken_bytes;
        chunk = fits ? calloc(1, sizeof(*chunk) + room) : NULL;
        if (!chunk)
            return NULL;
        request->taken_bytes += room;
        chunk->size = room;
        chunk->next = request->chunks;
        request->chunks = chunk;
    }
    void *at = chunk->bytes + chunk->used;
    chunk->used += size;
    return at;
}

bool group_keep(struct group_request *request, struct slice bytes, struct slice *ret_slice) {
    if (!bytes.data) {
        *ret_slice = bytes;
        return true;
    }
    uint8_t *copy = group_take(request, bytes.size > 0 ? bytes.size : 1);
    if (!copy)
        return false;
    if (bytes.size > 0)
        memcpy(copy, bytes.data, bytes.size);
    *ret_slice = slice_make(copy, bytes.size);
    return true;
}

void group_answer(struct groups *groups, struct group_request *request, int16_t error) {
    request->error = error;
    groups->effects->answer(groups->context, request);
}

bool group_text_set(struct group_text **text, struct slice value) {
    struct group_text *copy = malloc(sizeof(*copy) + value.size);
    if (!copy)
        return false;
    copy->size = value.size;
    if (value.size > 0)
        memcpy(copy->bytes, value.data, value.size);
    free(*text);
    *text = copy;
    return true;
}

/* ---- the table ---- */

struct groups *groups_create(const struct group_effects *effects, void *context,
                             uint64_t initial_delay_ms) {
    struct groups *groups = calloc(1, sizeof(*groups));
    if (!groups)
        return NULL;
    groups->effects = effects;
    groups->context = context;
    groups->initial_delay_ms = initial_delay_ms;
    return groups;
}

static size_t make_key(int64_t tenant_key, struct slice name, uint8_t *ret_key) {
    memcpy(ret_key, &tenant_key, sizeof(tenant_key));
    if (name.size > 0)
        memcpy(ret_key + sizeof(tenant_key), name.data, name.size);
    return sizeof(tenant_key) + name.size;
}

struct group *group_find(struct groups *groups, int64_t tenant_key, struct slice name) {
    uint8_t key[sizeof(int64_t) + LIMIT_KAFKA_GROUP_NAME_BYTES];
    struct group *group;
    if (name.size > LIMIT_KAFKA_GROUP_NAME_BYTES)
        return NULL;
    size_t size = make_key(tenant_key, name, key);
    HASH_FIND(hh, groups->all, key, size, group);
    return group;
}

static struct group_tenant *find_tenant(const struct groups *groups, int64_t tenant_key) {
    struct group_tenant *tenant;
    HASH_FIND(hh, groups->tenants, &tenant_key, sizeof(tenant_key), tenant);
    return tenant;
}

unsigned group_count_of_tenant(const struct groups *groups, int64_t tenant_key) {
    const struct group_tenant *tenant = find_tenant(groups, tenant_key);
    return tenant ? tenant->group_count : 0;
}

int16_t group_obtain(struct groups *groups, int64_t tenant_key, struct slice name,
                     struct group **ret_group) {
    struct group *group = group_find(groups, tenant_key, name);
    if (!group && group_count_of_tenant(groups, tenant_key) >= LIMIT_KAFKA_GROUPS_OF_TENANT)
        return KAFKA_ERROR_POLICY_VIOLATION;
    if (!group && HASH_COUNT(groups->all) < LIMIT_KAFKA_GROUPS)
        group = group_make(groups, tenant_key, name);
    if (!group)
        return KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
    *ret_group = group;
    return 0;
}

static struct group_tenant *count_group(struct groups *groups, int64_t tenant_key) {
    struct group_tenant *tenant = find_tenant(groups, tenant_key);
    if (!tenant && (tenant = calloc(1, sizeof(*tenant)))) {
        tenant->tenant_key = tenant_key;
        HASH_ADD(hh, groups->tenants, tenant_key, sizeof(tenant->tenant_key), tenant);
    }
    if (tenant)
        tenant->group_count++;
    return tenant;
}

static void discount_group(struct groups *groups, struct group_tenant *tenant) {
    if (--tenant->group_count > 0)
        return;
    HASH_DEL(groups->tenants, tenant);
    free(tenant);
}

struct group *group_make(struct groups *groups, int64_t tenant_key, struct slice name) {
    dg_assert(name.size <= LIMIT_KAFKA_GROUP_NAME_BYTES);
    struct group *group = calloc(1, sizeof(*group) + sizeof(int64_t) + name.size);
    if (!group || !(group->tenant = count_group(groups, tenant_key))) {
        free(group);
        return NULL;
    }
    group->groups = groups;
    group->tenant_key = tenant_key;
    group->lag = group_lag_none();
    group->key_size = make_key(tenant_key, name, group->key);
    HASH_ADD(hh, groups->all, key, group->key_size, group);
    return group;
}

static void free_group(struct group *group) {
    group_leaves_survey(group);
    HASH_DEL(group->groups->all, group);
    group_offsets_free(group);
    discount_group(group->groups, group->tenant);
    struct group_pending *pending, *next;
    HASH_ITER(hh, group->pending, pending, next) {
        HASH_DEL(group->pending, pending);
        free(pending);
    }
    free(group->protocol_type);
    free(group->protocol);
    free(group);
}

bool group_drop_if_gone(struct group *group) {
    if (group->member_count > 0 || group->pending || group->offsets || group->storing ||
        group->stamp_ms != 0)
        return false;
    free_group(group);
    return true;
}

void groups_free(struct groups *groups) {
    if (!groups)
        return;
    struct group *group, *next;
    HASH_ITER(hh, groups->all, group, next) {
        while (group->members) {
            group_request_free(group->members->waiting);
            group->members->waiting = NULL;
            group_member_remove(group->members);
        }
        free_group(group);
    }
    free(groups);
}

uint64_t groups_tick(struct groups *groups, uint64_t now_ms, int64_t wall_ms,
                     uint64_t retention_ms) {
    uint64_t soonest_ms = UINT64_MAX;
    struct group *group, *next;
    HASH_ITER(hh, groups->all, group, next) {
        /* it may be gone after this */
        uint64_t at_ms = group_tick(group, now_ms, wall_ms, retention_ms);
        if (at_ms < soonest_ms)
            soonest_ms = at_ms;
    }
    return soonest_ms;
}

/* ---- heartbeats and leaving ---- */

static void heartbeat(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    struct group_member *member = NULL;
    int16_t error = KAFKA_ERROR_UNKNOWN_MEMBER;
    if (group)
        error = group_member_check(group, request->member, request->instance, &member);
    if (error == 0 && request->generation != group->generation)
        error = KAFKA_ERROR_ILLEGAL_GENERATION;
    if (error == 0) {
        group_member_touch(member, now_ms);
        error = group->state == GROUP_PREPARING ? KAFKA_ERROR_REBALANCE : 0;
    }
    group_answer(groups, request, error);
}

/* A static member may leave by its instance alone. */
static int16_t leave_one(struct group *group, const struct group_item *item) {
    struct group_member *member = NULL;
    if (!group)
        return KAFKA_ERROR_UNKNOWN_MEMBER;
    if (group_pending_remove(group, item->id))
        return 0;
    if (item->instance.data && item->id.size == 0)
        member = group_member_by_instance(group, item->instance);
    int16_t error = member ? 0 : group_member_check(group, item->id, item->instance, &member);
    if (error == 0)
        group_member_remove(member);
    return error;
}

static void leave(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    unsigned before = group ? group->member_count : 0;
    for (uint32_t i = 0; i < request->item_count; i++)
        request->items[i].error = leave_one(group, &request->items[i]);
    group_answer(groups, request, 0);
    if (!group)
        return;
    if (group->member_count < before)
        group_after_removal(group, now_ms);
    else
        group_settle(group, now_ms);
}

/* ---- dispatch ---- */

static bool names_a_group(const struct group_request *request) {
    return request->operation == GROUP_LIST ||
           (request->group.size > 0 && request->group.size <= LIMIT_KAFKA_GROUP_NAME_BYTES);
}

void group_handle(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    if (!names_a_group(request)) {
        group_answer(groups, request, KAFKA_ERROR_INVALID_GROUP);
        return;
    }
    switch (request->operation) {
    case GROUP_JOIN:
        group_join(groups, request, now_ms);
        break;
    case GROUP_SYNC:
        group_sync(groups, request, now_ms);
        break;
    case GROUP_HEARTBEAT:
        heartbeat(groups, request, now_ms);
        break;
    case GROUP_LEAVE:
        leave(groups, request, now_ms);
        break;
    case GROUP_COMMIT:
        group_commit(groups, request, now_ms);
        break;
    case GROUP_READ_OFFSETS:
        group_read_offsets(groups, request);
        break;
    case GROUP_DELETE_OFFSETS:
        group_delete_offsets(groups, request);
        break;
    case GROUP_DESCRIBE:
        group_describe(groups, request);
        break;
    case GROUP_LIST:
        group_list(groups, request);
        break;
    case GROUP_DELETE:
        group_delete(groups, request);
        break;
    case GROUP_STAMP:
    case GROUP_EXPIRE:
        dg_assert(false); /* nobody asks for these */
    }
}
