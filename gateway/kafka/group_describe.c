/* What administrators' tools ask: which groups there are, and who is in one. */
#include "gateway/kafka/group_internal.h"

static bool describe_member(const struct group_member *member, struct group_request *answer,
                            struct group_item *item) {
    return group_keep(answer, group_member_id(member), &item->id) &&
           group_keep(answer, member->profile->instance, &item->instance) &&
           group_keep(answer, group_member_metadata(member), &item->bytes) &&
           group_keep(answer, group_text_slice(member->assignment), &item->assignment) &&
           group_keep(answer, member->profile->client_id, &item->client_id) &&
           group_keep(answer, member->profile->client_host, &item->client_host);
}

/* The protocol says "", not null, where there is none. */
static struct slice or_empty(const struct group_text *text) {
    return text ? group_text_slice(text) : slice_from_string("");
}

static bool describe(const struct group *group, struct group_request *answer) {
    bool has_protocol = group->state == GROUP_STABLE || group->state == GROUP_COMPLETING;
    answer->state = group->state;
    answer->lag = group->lag;
    answer->items = group_take(answer, group->member_count * sizeof(*answer->items) + 1);
    if (!answer->items ||
        !group_keep(answer, or_empty(group->protocol_type), &answer->protocol_type) ||
        !group_keep(answer, or_empty(has_protocol ? group->protocol : NULL), &answer->protocol))
        return false;
    answer->item_count = 0;
    for (const struct group_member *m = group->members; m; m = group_member_next(m))
        if (!describe_member(m, answer, &answer->items[answer->item_count++]))
            return false;
    return true;
}

/* A group that does not exist is "Dead". */
void group_describe(struct groups *groups, struct group_request *request) {
    const struct group *group = group_find(groups, request->tenant_key, request->group);
    request->state = GROUP_DEAD;
    bool described = !group || describe(group, request);
    group_answer(groups, request, described ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
}

static bool list_group(const struct group *group, struct group_request *answer,
                       struct group_item *item) {
    item->state = group->state;
    item->member_count = group->member_count;
    item->lag = group->lag;
    return group_keep(answer, group_name(group), &item->id) &&
           group_keep(answer, or_empty(group->protocol_type), &item->bytes);
}

/* The tenant's groups: name, and in bytes the protocol type. */
void group_list(struct groups *groups, struct group_request *request) {
    struct group *group, *next;
    bool listed = true;
    unsigned count = group_count_of_tenant(groups, request->tenant_key);
    request->items = group_take(request, count * sizeof(*request->items) + 1);
    request->item_count = 0;
    HASH_ITER(hh, groups->all, group, next) {
        if (listed && request->items && group->tenant_key == request->tenant_key)
            listed = list_group(group, request, &request->items[request->item_count++]);
    }
    listed = listed && request->items;
    group_answer(groups, request, listed ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
}
