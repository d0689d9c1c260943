/* Members of a group: what they support, their time, and what of theirs waits. */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/kafka/group_internal.h"

static bool same(struct slice a, struct slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* ---- finding ---- */

struct group_member *group_member_find(const struct group *group, struct slice id) {
    for (struct group_member *m = group->members; m; m = m->next)
        if (same(m->id, id))
            return m;
    return NULL;
}

struct group_member *group_member_by_instance(const struct group *group, struct slice instance) {
    for (struct group_member *m = group->members; m; m = m->next)
        if (m->profile->instance.data && same(m->profile->instance, instance))
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

static struct group_request *make_profile(struct slice id, const struct group_request *join) {
    struct group_request *profile = group_request_new(GROUP_JOIN);
    if (!profile)
        return NULL;
    profile->session_timeout_ms = join->session_timeout_ms;
    profile->rebalance_timeout_ms = join->rebalance_timeout_ms;
    if (group_keep(profile, id, &profile->member) &&
        group_keep(profile, join->instance, &profile->instance) &&
        group_keep(profile, join->client_id, &profile->client_id) &&
        group_keep(profile, join->client_host, &profile->client_host) && copy_items(profile, join))
        return profile;
    group_request_free(profile);
    return NULL;
}

struct group_member *group_member_add(struct group *group, struct slice id,
                                      const struct group_request *join) {
    struct group_member *member = calloc(1, sizeof(*member));
    struct group_request *profile = member ? make_profile(id, join) : NULL;
    if (!profile) {
        free(member);
        return NULL;
    }
    member->group = group;
    member->profile = profile;
    member->id = profile->member;
    struct group_member **link = &group->members;
    while (*link)
        link = &(*link)->next;
    *link = member;
    group->member_count++;
    if (!group->leader)
        group->leader = member;
    return member;
}

/* The assignment stays: it lives in the profile, so it is carried over. */
bool group_member_renew(struct group_member *member, struct slice id,
                        const struct group_request *join) {
    struct group_request *profile = make_profile(id, join);
    struct slice assignment = {0};
    if (profile && !group_keep(profile, member->assignment, &assignment)) {
        group_request_free(profile);
        profile = NULL;
    }
    if (!profile)
        return false;
    group_request_free(member->profile);
    member->profile = profile;
    member->id = profile->member;
    member->assignment = assignment;
    return true;
}

bool group_member_agrees(const struct group_member *member, const struct group_request *join) {
    const struct group_request *known = member->profile;
    if (known->item_count != join->item_count)
        return false;
    for (uint32_t i = 0; i < known->item_count; i++)
        if (!same(known->items[i].id, join->items[i].id) ||
            !same(known->items[i].bytes, join->items[i].bytes))
            return false;
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
    struct group_member **link = &group->members;
    while (*link != member)
        link = &(*link)->next;
    *link = member->next;
    group->member_count--;
    if (group->leader == member)
        group->leader = group->members;
    if (member->waiting)
        group_answer(group->groups, member->waiting, KAFKA_ERROR_UNKNOWN_MEMBER);
    group_request_free(member->profile);
    free(member);
}

/* ---- protocols ---- */

static const struct group_item *find_protocol(const struct group_request *join, struct slice name) {
    for (uint32_t i = 0; i < join->item_count; i++)
        if (same(join->items[i].id, name))
            return &join->items[i];
    return NULL;
}

static bool all_support(const struct group *group, struct slice name,
                        const struct group_member *but) {
    for (const struct group_member *m = group->members; m; m = m->next)
        if (m != but && !find_protocol(m->profile, name))
            return false;
    return true;
}

bool group_fits(const struct group *group, const struct group_request *join,
                const struct group_member *replaced) {
    unsigned others = group->member_count - (replaced ? 1 : 0);
    if (join->item_count == 0 || join->protocol_type.size == 0)
        return false;
    if (others > 0 && !slice_equals_string(join->protocol_type, group->protocol_type))
        return false;
    for (uint32_t i = 0; i < join->item_count; i++)
        if (all_support(group, join->items[i].id, replaced))
            return true;
    return false;
}

/* Each member votes for the first of its own list that all support. */
struct slice group_choose_protocol(const struct group *group) {
    struct slice best = {0};
    unsigned best_votes = 0;
    const struct group_request *candidates = group->members ? group->members->profile : NULL;
    for (uint32_t i = 0; candidates && i < candidates->item_count; i++) {
        struct slice name = candidates->items[i].id;
        unsigned votes = 0;
        if (!all_support(group, name, NULL))
            continue;
        for (const struct group_member *m = group->members; m; m = m->next) {
            uint32_t first = 0;
            while (!all_support(group, m->profile->items[first].id, NULL))
                first++;
            votes += same(m->profile->items[first].id, name);
        }
        if (votes > best_votes) {
            best = name;
            best_votes = votes;
        }
    }
    return best;
}

struct slice group_member_metadata(const struct group_member *member) {
    const char *chosen = member->group->protocol;
    const struct group_item *protocol =
        chosen ? find_protocol(member->profile, slice_from_string(chosen)) : NULL;
    return protocol ? protocol->bytes : (struct slice){0};
}

/* ---- ids given out ---- */

bool group_pending_add(struct group *group, struct slice id, uint64_t expires_ms) {
    struct group_pending *pending = malloc(sizeof(*pending) + id.size);
    if (!pending)
        return false;
    pending->expires_ms = expires_ms;
    pending->size = id.size;
    memcpy(pending->id, id.data, id.size);
    pending->next = group->pending;
    group->pending = pending;
    return true;
}

bool group_pending_remove(struct group *group, struct slice id) {
    struct group_pending **link = &group->pending;
    while (*link && !same(slice_make((*link)->id, (*link)->size), id))
        link = &(*link)->next;
    struct group_pending *found = *link;
    if (!found)
        return false;
    *link = found->next;
    free(found);
    return true;
}
