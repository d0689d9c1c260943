/* Members of a group: what they support, their time, and what of theirs waits. */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/kafka/group_internal.h"

/* ---- finding ---- */

struct group_member *group_member_find(const struct group *group, struct slice id) {
    struct group_member *member = NULL;
    if (id.size > 0)
        HASH_FIND(hh, group->members, id.data, id.size, member);
    return member;
}

struct group_member *group_member_by_instance(const struct group *group, struct slice instance) {
    for (struct group_member *m = group->members; m; m = group_member_next(m))
        if (m->profile->instance.data && slice_equals(m->profile->instance, instance))
            return m;
    return NULL;
}

int16_t group_member_check(const struct group *group, struct slice id, struct slice instance,
                           struct group_member **ret_member) {
    struct group_member *member = group_member_find(group, id);
    if (instance.data) {
        struct group_member *owner = group_member_by_instance(group, instance);
        if (owner && owner != member)
            return KAFKA_ERROR_FENCED_INSTANCE;
        if (!owner)
            return KAFKA_ERROR_UNKNOWN_MEMBER;
    }
    if (!member)
        return KAFKA_ERROR_UNKNOWN_MEMBER;
    *ret_member = member;
    return 0;
}

/* ---- profiles ---- */

static bool copy_items(struct group_request *to, const struct group_request *from) {
    to->items = group_take(to, (size_t)from->item_count * sizeof(*to->items) + 1);
    if (!to->items)
        return false;
    to->item_count = from->item_count;
    for (uint32_t i = 0; i < from->item_count; i++)
        if (!group_keep(to, from->items[i].id, &to->items[i].id) ||
            !group_keep(to, from->items[i].bytes, &to->items[i].bytes))
            return false;
    return true;
}

static size_t metadata_bytes(const struct group_request *join) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < join->item_count; i++)
        bytes += join->items[i].id.size + join->items[i].bytes.size;
    return bytes;
}

static struct group_request *make_profile(const struct group_request *join) {
    struct group_request *profile = group_request_new(GROUP_JOIN);
    if (!profile)
        return NULL;
    profile->session_timeout_ms = join->session_timeout_ms;
    profile->rebalance_timeout_ms = join->rebalance_timeout_ms;
    if (group_keep(profile, join->instance, &profile->instance) &&
        group_keep(profile, join->client_id, &profile->client_id) &&
        group_keep(profile, join->client_host, &profile->client_host) && copy_items(profile, join))
        return profile;
    group_request_free(profile);
    return NULL;
}

static void hash_member(struct group *group, struct group_member *member) {
    HASH_ADD_KEYPTR(hh, group->members, member->id->bytes, member->id->size, member);
}

struct group_member *group_member_add(struct group *group, struct slice id,
                                      const struct group_request *join) {
    struct group_member *member = calloc(1, sizeof(*member));
    struct group_request *profile = member ? make_profile(join) : NULL;
    dg_assert(id.size > 0 && !group_member_find(group, id));
    if (!profile || !group_text_set(&member->id, id)) {
        group_request_free(profile);
        free(member);
        return NULL;
    }
    member->group = group;
    member->profile = profile;
    hash_member(group, member);
    group->member_count++;
    group->metadata_bytes += metadata_bytes(profile);
    if (!group->leader)
        group->leader = member;
    return member;
}

bool group_member_renew(struct group_member *member, struct slice id,
                        const struct group_request *join) {
    struct group *group = member->group;
    struct group_request *profile = make_profile(join);
    struct group_text *new_id = NULL;
    bool is_renamed = !slice_equals(id, group_member_id(member));
    if (!profile || (is_renamed && !group_text_set(&new_id, id))) {
        group_request_free(profile);
        return false;
    }
    if (is_renamed) {
        HASH_DEL(group->members, member);
        free(member->id);
        member->id = new_id;
        hash_member(group, member);
    }
    group->metadata_bytes += metadata_bytes(profile);
    group->metadata_bytes -= metadata_bytes(member->profile);
    group_request_free(member->profile);
    member->profile = profile;
    return true;
}

bool group_member_agrees(const struct group_member *member, const struct group_request *join) {
    const struct group_request *known = member->profile;
    if (known->item_count != join->item_count)
        return false;
    for (uint32_t i = 0; i < known->item_count; i++)
        if (!slice_equals(known->items[i].id, join->items[i].id) ||
            !slice_equals(known->items[i].bytes, join->items[i].bytes))
            return false;
    return true;
}

/* What else a consumer says (what it owns, since which generation) is new at each start. But what
 * it was about to give back others wait for, and now it does not know. */
bool group_member_wants_the_same(const struct group_member *member,
                                 const struct group_request *join) {
    const struct group_request *known = member->profile;
    bool is_consumer =
        slice_equals_string(group_text_slice(member->group->protocol_type), "consumer");
    if (known->item_count != join->item_count)
        return false;
    for (uint32_t i = 0; i < known->item_count; i++) {
        struct slice before = group_subscription(known->items[i].bytes);
        struct slice topics = group_subscription(join->items[i].bytes);
        bool is_served = is_consumer && before.data && topics.data &&
                         slice_equals(before, topics) &&
                         group_has_nothing_to_give_back(known->items[i].bytes,
                                                        group_text_slice(member->assignment));
        if (!slice_equals(known->items[i].id, join->items[i].id) ||
            (!is_served && !slice_equals(known->items[i].bytes, join->items[i].bytes)))
            return false;
    }
    return true;
}

/* ---- time and answers ---- */

void group_member_touch(struct group_member *member, uint64_t now_ms) {
    member->expires_ms = now_ms + (uint64_t)member->profile->session_timeout_ms;
}

void group_member_keep(struct group_member *member, struct group_request *request, int16_t error) {
    struct group_request *before = member->waiting;
    member->waiting = request;
    if (before)
        group_answer(member->group->groups, before, error);
}

void group_member_answer(struct group_member *member, int16_t error, uint64_t now_ms) {
    struct group_request *request = member->waiting;
    group_member_touch(member, now_ms);
    member->waiting = NULL;
    if (request)
        group_answer(member->group->groups, request, error);
}

void group_member_remove(struct group_member *member) {
    struct group *group = member->group;
    HASH_DEL(group->members, member);
    group->member_count--;
    group->metadata_bytes -= metadata_bytes(member->profile);
    if (group->leader == member)
        group->leader = group->members;
    if (member->waiting)
        group_answer(group->groups, member->waiting, KAFKA_ERROR_UNKNOWN_MEMBER);
    group_request_free(member->profile);
    free(member->id);
    free(member->assignment);
    free(member);
}

/* ---- protocols ---- */

static const struct group_item *find_protocol(const struct group_request *join, struct slice name) {
    for (uint32_t i = 0; i < join->item_count; i++)
        if (slice_equals(join->items[i].id, name))
            return &join->items[i];
    return NULL;
}

static bool all_support(const struct group *group, struct slice name,
                        const struct group_member *but) {
    for (const struct group_member *m = group->members; m; m = group_member_next(m))
        if (m != but && !find_protocol(m->profile, name))
            return false;
    return true;
}

static bool has_common_protocol(const struct group *group, const struct group_request *join,
                                const struct group_member *replaced) {
    for (uint32_t i = 0; i < join->item_count; i++)
        if (all_support(group, join->items[i].id, replaced))
            return true;
    return false;
}

int16_t group_check_join(const struct group *group, const struct group_request *join,
                         const struct group_member *replaced) {
    struct slice type = group_text_slice(group->protocol_type);
    size_t bytes = group->metadata_bytes + metadata_bytes(join);
    if (replaced)
        bytes -= metadata_bytes(replaced->profile);
    if (join->protocol_type.size == 0 || join->item_count > LIMIT_KAFKA_GROUP_PROTOCOLS ||
        (group->member_count > 0 && !slice_equals(join->protocol_type, type)) ||
        !has_common_protocol(group, join, replaced))
        return KAFKA_ERROR_INCONSISTENT_PROTOCOL;
    if ((!replaced && group->member_count >= LIMIT_KAFKA_GROUP_MEMBERS) ||
        bytes > LIMIT_KAFKA_GROUP_METADATA_BYTES)
        return KAFKA_ERROR_GROUP_FULL;
    return 0;
}

/* Each member votes for the first of its own list that all support. All members have one in common,
 * for nobody joins without. */
struct slice group_choose_protocol(const struct group *group) {
    struct slice common[LIMIT_KAFKA_GROUP_PROTOCOLS];
    unsigned votes[LIMIT_KAFKA_GROUP_PROTOCOLS] = {0};
    uint32_t count = 0, best = 0;
    const struct group_request *first = group->members->profile;
    for (uint32_t i = 0; i < first->item_count; i++)
        if (all_support(group, first->items[i].id, NULL))
            common[count++] = first->items[i].id;
    dg_assert(count > 0);
    for (const struct group_member *m = group->members; m; m = group_member_next(m)) {
        uint32_t choice = count;
        for (uint32_t i = 0; choice == count; i++)
            for (choice = 0; choice < count; choice++)
                if (slice_equals(m->profile->items[i].id, common[choice]))
                    break;
        votes[choice]++;
    }
    for (uint32_t i = 1; i < count; i++)
        if (votes[i] > votes[best])
            best = i;
    return common[best];
}

struct slice group_member_metadata(const struct group_member *member) {
    const struct group_text *chosen = member->group->protocol;
    const struct group_item *protocol =
        chosen ? find_protocol(member->profile, group_text_slice(chosen)) : NULL;
    return protocol ? protocol->bytes : (struct slice){0};
}

/* ---- ids given out ---- */

static void forget_pending(struct group *group, struct group_pending *pending) {
    HASH_DEL(group->pending, pending);
    free(pending);
}

bool group_pending_add(struct group *group, struct slice id, uint64_t expires_ms) {
    struct group_pending *pending = malloc(sizeof(*pending) + id.size);
    if (!pending)
        return false;
    if (HASH_COUNT(group->pending) >= LIMIT_KAFKA_GROUP_MEMBERS)
        forget_pending(group, group->pending);
    pending->expires_ms = expires_ms;
    memcpy(pending->id, id.data, id.size);
    HASH_ADD(hh, group->pending, id, id.size, pending);
    return true;
}

bool group_pending_remove(struct group *group, struct slice id) {
    struct group_pending *pending = NULL;
    if (id.size > 0)
        HASH_FIND(hh, group->pending, id.data, id.size, pending);
    if (pending)
        forget_pending(group, pending);
    return pending;
}
