/*
 * Rounds: who joins, when a round ends, and whose assignment is whose. What the states mean stands
 * in group.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/utf8.h"
#include "gateway/kafka/group_internal.h"

enum { FIRST_VERSION_ASKING_FOR_AN_ID = 4, FIRST_VERSION_SKIPPING_ASSIGNMENT = 9 };

static uint64_t longest_rebalance_ms(const struct group *group) {
    int32_t longest = 0;
    for (const struct group_member *m = group->members; m; m = group_member_next(m))
        if (m->profile->rebalance_timeout_ms > longest)
            longest = m->profile->rebalance_timeout_ms;
    return (uint64_t)longest;
}

/* ---- the answer to a join ---- */

static bool list_members(const struct group *group, struct group_request *answer) {
    answer->items = group_take(answer, group->member_count * sizeof(*answer->items));
    if (!answer->items)
        return false;
    answer->item_count = group->member_count;
    struct group_item *item = answer->items;
    for (const struct group_member *m = group->members; m; m = group_member_next(m), item++)
        if (!group_keep(answer, group_member_id(m), &item->id) ||
            !group_keep(answer, m->profile->instance, &item->instance) ||
            !group_keep(answer, group_member_metadata(m), &item->bytes))
            return false;
    return true;
}

static bool fill_join(const struct group_member *member, struct group_request *answer,
                      struct slice leader, bool with_members) {
    const struct group *group = member->group;
    answer->generation = group->generation;
    answer->item_count = 0;
    return group_keep(answer, group_text_slice(group->protocol_type), &answer->protocol_type) &&
           group_keep(answer, group_text_slice(group->protocol), &answer->protocol) &&
           group_keep(answer, leader, &answer->leader) &&
           group_keep(answer, group_member_id(member), &answer->member) &&
           (!with_members || list_members(group, answer));
}

/* Answers the member's join that waits with the round that is over. */
static void answer_join(struct group_member *member, uint64_t now_ms) {
    const struct group *group = member->group;
    bool filled =
        fill_join(member, member->waiting, group_member_id(group->leader), group->leader == member);
    group_member_answer(member, filled ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE, now_ms);
}

/* ---- rounds ---- */

static bool waits_for(const struct group_member *member, enum group_operation operation) {
    return member->waiting && member->waiting->operation == operation;
}

static void begin_round(struct group *group, uint64_t now_ms) {
    for (struct group_member *m = group->members; m; m = group_member_next(m))
        if (waits_for(m, GROUP_SYNC))
            group_member_answer(m, KAFKA_ERROR_REBALANCE, now_ms);
    bool was_empty = group->state == GROUP_EMPTY;
    group->delay_end_ms = was_empty ? now_ms + group->groups->initial_delay_ms : 0;
    group->deadline_ms = now_ms + longest_rebalance_ms(group);
    group->state = GROUP_PREPARING;
}

static void become_empty(struct group *group) {
    group->state = GROUP_EMPTY;
    group->generation++;
    group->leader = NULL;
    free(group->protocol);
    group->protocol = NULL;
}

/* Drops those who did not join in time; static members stay until their session ends. */
static void drop_missing(struct group *group) {
    struct group_member *next;
    for (struct group_member *m = group->members; m; m = next) {
        next = group_member_next(m);
        if (!m->waiting && !m->profile->instance.data)
            group_member_remove(m);
    }
}

static struct group_member *first_waiting(const struct group *group) {
    struct group_member *m = group->members;
    while (m && !m->waiting)
        m = group_member_next(m);
    return m;
}

/* Everybody has joined, or the time is over. */
static void end_round(struct group *group, uint64_t now_ms) {
    drop_missing(group);
    if (group->member_count == 0) {
        become_empty(group);
        return;
    }
    struct group_member *joined = first_waiting(group);
    if (!joined) { /* static members that are away: as long as their sessions last */
        group->deadline_ms = now_ms + longest_rebalance_ms(group);
        return;
    }
    if (!group->leader->waiting)
        group->leader = joined;
    if (!group_text_set(&group->protocol, group_choose_protocol(group))) {
        group->deadline_ms = now_ms + 1000; /* no memory: a moment later perhaps */
        return;
    }
    group->generation++;
    group->state = GROUP_COMPLETING;
    group->deadline_ms = now_ms + longest_rebalance_ms(group);
    for (struct group_member *m = group->members; m; m = group_member_next(m)) {
        m->has_synced = !m->waiting; /* who is away is not waited for */
        free(m->assignment);
        m->assignment = NULL;
        if (m->waiting)
            answer_join(m, now_ms);
    }
}

static void end_round_if_complete(struct group *group, uint64_t now_ms) {
    if (group->state != GROUP_PREPARING || group->pending || now_ms < group->delay_end_ms)
        return;
    for (const struct group_member *m = group->members; m; m = group_member_next(m))
        if (!m->waiting)
            return;
    end_round(group, now_ms);
}

bool group_settle(struct group *group, uint64_t now_ms) {
    if (group->state == GROUP_PREPARING && group->member_count == 0)
        become_empty(group);
    end_round_if_complete(group, now_ms);
    return !group_drop_if_gone(group);
}

bool group_after_removal(struct group *group, uint64_t now_ms) {
    if (group->state == GROUP_COMPLETING || group->state == GROUP_STABLE)
        begin_round(group, now_ms);
    return group_settle(group, now_ms);
}

/* ---- JoinGroup ---- */

/* The join waits for the round's end; it begins one if none is under way. */
static void wait_for_round(struct group_member *member, struct group_request *request,
                           uint64_t now_ms) {
    struct group *group = member->group;
    group_member_keep(member, request, KAFKA_ERROR_REBALANCE);
    if (group->state != GROUP_PREPARING)
        begin_round(group, now_ms);
    else if (group->deadline_ms < now_ms + (uint64_t)member->profile->rebalance_timeout_ms &&
             group->delay_end_ms > 0)
        group->deadline_ms = now_ms + (uint64_t)member->profile->rebalance_timeout_ms;
    end_round_if_complete(group, now_ms);
}

/* Ids that nobody guesses, since who knows one can speak for the member. They are text, or clients
 * whose strings are would not send back what they got. */
static bool make_member_id(struct groups *groups, struct group_request *request,
                           struct slice *ret_id) {
    char text[LIMIT_KAFKA_CLIENT_ID_BYTES + 40];
    struct slice prefix = request->instance.data ? request->instance : request->client_id;
    size_t size = 0, more;
    while ((more = utf8_character_size(prefix.data + size, prefix.size - size)) > 0 &&
           size + more <= LIMIT_KAFKA_CLIENT_ID_BYTES)
        size += more;
    int length = snprintf(text, sizeof(text), "%.*s-%016llx%016llx", (int)size,
                          size > 0 ? (const char *)prefix.data : "",
                          (unsigned long long)groups->effects->random(groups->context),
                          (unsigned long long)groups->effects->random(groups->context));
    return group_keep(request, slice_make(text, (size_t)length), ret_id);
}

static void add_member(struct group *group, struct slice id, struct group_request *request,
                       uint64_t now_ms) {
    struct groups *groups = group->groups;
    struct group_member *member = NULL;
    if (group->member_count > 0 || group_text_set(&group->protocol_type, request->protocol_type))
        member = group_member_add(group, id, request);
    if (!member) {
        group_answer(groups, request, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
        group_settle(group, now_ms);
        return;
    }
    group_member_touch(member, now_ms);
    wait_for_round(member, request, now_ms);
}

/* A static member came back without its id: the new id takes the place over (KIP-345). */
static void replace_static(struct group_member *member, struct slice id,
                           struct group_request *request, uint64_t now_ms) {
    struct group *group = member->group;
    bool unchanged = group->state == GROUP_STABLE && group_member_wants_the_same(member, request);
    struct slice old_id;
    if (!group_keep(request, group_member_id(member), &old_id) ||
        !group_member_renew(member, id, request)) {
        group_answer(group->groups, request, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    group_member_touch(member, now_ms);
    if (!unchanged) {
        group_member_keep(member, request, KAFKA_ERROR_FENCED_INSTANCE);
        if (group->state != GROUP_PREPARING)
            begin_round(group, now_ms);
        end_round_if_complete(group, now_ms);
        return;
    }
    /* No round: it must not assign, for the others would not hear of it. */
    bool leads = group->leader == member;
    bool can_skip = request->version >= FIRST_VERSION_SKIPPING_ASSIGNMENT;
    struct slice leader = leads && !can_skip ? old_id : group_member_id(group->leader);
    bool filled = fill_join(member, request, leader, leads && can_skip);
    request->skip_assignment = leads && can_skip;
    group_answer(group->groups, request, filled ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
}

static void join_unknown(struct group *group, struct group_request *request, uint64_t now_ms) {
    struct groups *groups = group->groups;
    struct group_member *same_instance =
        request->instance.data ? group_member_by_instance(group, request->instance) : NULL;
    struct slice id;
    int16_t error = group_check_join(group, request, same_instance);
    if (error == 0 && !make_member_id(groups, request, &id))
        error = KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
    if (error == 0) {
        bool must_ask =
            request->version >= FIRST_VERSION_ASKING_FOR_AN_ID && !request->instance.data;
        if (same_instance) {
            replace_static(same_instance, id, request, now_ms);
            return;
        }
        if (!must_ask) {
            add_member(group, id, request, now_ms);
            return;
        }
        request->member = id;
        error = group_pending_add(group, id, now_ms + (uint64_t)request->session_timeout_ms)
                    ? KAFKA_ERROR_MEMBER_ID_REQUIRED
                    : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
    }
    group_answer(groups, request, error);
    group_drop_if_gone(group);
}

/* A known member joins again: that is a new round, unless nothing changed for the others. */
static void rejoin(struct group_member *member, struct group_request *request, uint64_t now_ms) {
    struct group *group = member->group;
    bool agrees = group_member_agrees(member, request);
    if (!group_member_renew(member, group_member_id(member), request)) {
        group_answer(group->groups, request, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    group_member_touch(member, now_ms);
    bool as_before = agrees && (group->state == GROUP_COMPLETING ||
                                (group->state == GROUP_STABLE && group->leader != member));
    if (!as_before) {
        wait_for_round(member, request, now_ms);
        return;
    }
    group_member_keep(member, request, KAFKA_ERROR_REBALANCE);
    if (group->state == GROUP_COMPLETING)
        member->has_synced = false; /* what it asked for before it has no use for now */
    answer_join(member, now_ms);
}

static void join_known(struct group *group, struct group_request *request, uint64_t now_ms) {
    struct groups *groups = group->groups;
    struct group_member *member = NULL;
    bool is_pending = !request->instance.data && group_pending_remove(group, request->member);
    int16_t error =
        is_pending ? 0 : group_member_check(group, request->member, request->instance, &member);
    if (error == 0)
        error = group_check_join(group, request, member);
    if (error != 0) {
        group_answer(groups, request, error);
        group_settle(group, now_ms); /* an id less may be what the round waited for */
        return;
    }
    if (is_pending)
        add_member(group, request->member, request, now_ms);
    else
        rejoin(member, request, now_ms);
}

/* Version 0 says none and means the session's. It may be shorter than that: static members that are
 * away for long shall not make the others wait. */
static int32_t bounded_rebalance_ms(const struct group_request *request) {
    int32_t ms = request->rebalance_timeout_ms;
    if (ms <= 0)
        return request->session_timeout_ms;
    if (ms < LIMIT_KAFKA_SESSION_MS_MIN)
        return LIMIT_KAFKA_SESSION_MS_MIN;
    return ms < LIMIT_KAFKA_SESSION_MS_MAX ? ms : LIMIT_KAFKA_SESSION_MS_MAX;
}

void group_join(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    bool is_new = request->member.size == 0;
    if (request->session_timeout_ms < LIMIT_KAFKA_SESSION_MS_MIN ||
        request->session_timeout_ms > LIMIT_KAFKA_SESSION_MS_MAX) {
        group_answer(groups, request, KAFKA_ERROR_INVALID_SESSION_TIMEOUT);
        return;
    }
    request->rebalance_timeout_ms = bounded_rebalance_ms(request);
    struct group *group = group_find(groups, request->tenant_key, request->group);
    int16_t error = group ? 0 : KAFKA_ERROR_UNKNOWN_MEMBER;
    if (is_new)
        error = group_obtain(groups, request->tenant_key, request->group, &group);
    if (error != 0)
        group_answer(groups, request, error);
    else if (is_new)
        join_unknown(group, request, now_ms);
    else
        join_known(group, request, now_ms);
}

/* ---- SyncGroup ---- */

static bool assign(struct group *group, const struct group_request *request) {
    for (uint32_t i = 0; i < request->item_count; i++) {
        struct group_member *member = group_member_find(group, request->items[i].id);
        if (member && !group_text_set(&member->assignment, request->items[i].bytes))
            return false;
    }
    return true;
}

static bool fill_sync(const struct group_member *member, struct group_request *answer) {
    const struct group *group = member->group;
    return group_keep(answer, group_text_slice(group->protocol_type), &answer->protocol_type) &&
           group_keep(answer, group_text_slice(group->protocol), &answer->protocol) &&
           group_keep(answer, group_text_slice(member->assignment), &answer->assignment);
}

static void answer_sync(struct group_member *member, uint64_t now_ms) {
    bool filled = fill_sync(member, member->waiting);
    group_member_answer(member, filled ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE, now_ms);
}

static void take_assignment(struct group_member *leader, uint64_t now_ms) {
    struct group *group = leader->group;
    if (!assign(group, leader->waiting)) {
        leader->has_synced = false;
        group_member_answer(leader, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE, now_ms);
        return;
    }
    group->state = GROUP_STABLE;
    for (struct group_member *m = group->members; m; m = group_member_next(m))
        if (waits_for(m, GROUP_SYNC))
            answer_sync(m, now_ms);
}

static bool contradicts(struct slice said, const struct group_text *known) {
    return said.data && !slice_equals(said, group_text_slice(known));
}

static int16_t check_sync(const struct group *group, const struct group_request *request,
                          struct group_member **ret_member) {
    if (!group)
        return KAFKA_ERROR_UNKNOWN_MEMBER;
    int16_t error = group_member_check(group, request->member, request->instance, ret_member);
    if (error != 0)
        return error;
    if (request->generation != group->generation)
        return KAFKA_ERROR_ILLEGAL_GENERATION;
    if (contradicts(request->protocol_type, group->protocol_type) ||
        (group->protocol && contradicts(request->protocol, group->protocol)))
        return KAFKA_ERROR_INCONSISTENT_PROTOCOL;
    return group->state == GROUP_PREPARING ? KAFKA_ERROR_REBALANCE : 0;
}

void group_sync(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    struct group_member *member = NULL;
    int16_t error = check_sync(group, request, &member);
    if (error != 0) {
        group_answer(groups, request, error);
        return;
    }
    group_member_keep(member, request, KAFKA_ERROR_REBALANCE);
    member->has_synced = true;
    if (group->state == GROUP_STABLE)
        answer_sync(member, now_ms);
    else if (group->leader == member)
        take_assignment(member, now_ms);
}

/* ---- time ---- */

static void expire_pending(struct group *group, uint64_t now_ms) {
    struct group_pending *pending, *next;
    HASH_ITER(hh, group->pending, pending, next) {
        if (pending->expires_ms > now_ms)
            continue;
        HASH_DEL(group->pending, pending);
        free(pending);
    }
}

static bool awaits_syncs(const struct group *group) {
    return group->state == GROUP_COMPLETING || group->state == GROUP_STABLE;
}

/* Sessions that have run out, and those who joined and never asked for their assignment. */
static bool expire_members(struct group *group, uint64_t now_ms) {
    bool any = false;
    bool late = awaits_syncs(group) && now_ms >= group->deadline_ms;
    struct group_member *next;
    for (struct group_member *m = group->members; m; m = next) {
        next = group_member_next(m);
        if (m->waiting || (m->expires_ms > now_ms && !(late && !m->has_synced)))
            continue;
        group_member_remove(m);
        any = true;
    }
    return any;
}

static uint64_t sooner(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t next_deadline(const struct group *group) {
    uint64_t at_ms = UINT64_MAX;
    const struct group_pending *pending, *next;
    HASH_ITER(hh, group->pending, pending, next) {
        at_ms = sooner(at_ms, pending->expires_ms);
    }
    for (const struct group_member *m = group->members; m; m = group_member_next(m)) {
        if (!m->waiting)
            at_ms = sooner(at_ms, m->expires_ms);
        if (!m->has_synced && awaits_syncs(group))
            at_ms = sooner(at_ms, group->deadline_ms);
    }
    if (group->state == GROUP_PREPARING)
        at_ms = sooner(at_ms, group->deadline_ms);
    if (group->state == GROUP_PREPARING && group->delay_end_ms > 0)
        at_ms = sooner(at_ms, group->delay_end_ms);
    return at_ms;
}

uint64_t group_tick(struct group *group, uint64_t now_ms, int64_t wall_ms, uint64_t retention_ms) {
    expire_pending(group, now_ms);
    if (expire_members(group, now_ms) && !group_after_removal(group, now_ms))
        return UINT64_MAX;
    if (group->state == GROUP_PREPARING && now_ms >= group->delay_end_ms)
        group->delay_end_ms = 0;
    if (group->state == GROUP_PREPARING && now_ms >= group->deadline_ms)
        end_round(group, now_ms);
    if (!group_settle(group, now_ms))
        return UINT64_MAX;
    uint64_t at_ms = next_deadline(group);
    return sooner(at_ms, group_keep_time(group, now_ms, wall_ms, retention_ms));
}
