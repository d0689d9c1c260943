/*
 * Groups that nobody uses: their offsets are forgotten after a time, which passes over restarts.
 *
 * Each group that has offsets has a stamp beside them, durable: when it was last in use, that is,
 * had members or committed. It is renewed while the group is in use, not more often than the
 * interval below, and counted as newer by that interval, so that nothing is forgotten early. A
 * group without a stamp (one that an older release stored) gets one when it is seen. A group must
 * also have been idle for a while since this process saw it: its consumers may have been away
 * because we were.
 */
#include "gateway/kafka/group_internal.h"

enum {
    INTERVAL_MS_MAX = 3600 * 1000,
    INTERVALS = 4,
    IDLE_MS_MAX = 3600 * 1000,
    LOOK_MS_MIN = 1000
};

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t interval_of(uint64_t retention_ms) {
    return retention_ms == 0 ? INTERVAL_MS_MAX : least(retention_ms / INTERVALS, INTERVAL_MS_MAX);
}

static struct group_request *make_request(const struct group *group,
                                          enum group_operation operation) {
    struct group_request *request = group_request_new(operation);
    if (!request)
        return NULL;
    request->tenant_key = group->tenant_key;
    if (group_keep(request, group_name(group), &request->group))
        return request;
    group_request_free(request);
    return NULL;
}

/* Without memory: the next time. */
static void store_stamp(struct group *group, int64_t wall_ms) {
    struct group_request *request = make_request(group, GROUP_STAMP);
    struct group_offset *offset = request ? group_take(request, sizeof(*offset)) : NULL;
    if (!offset) {
        group_request_free(request);
        return;
    }
    *offset = (struct group_offset){.stream_id = GROUP_STAMP_STREAM, .offset = wall_ms};
    request->offsets = offset;
    request->offset_count = 1;
    group->is_used = false;
    group_store(group, request);
}

static void forget_all(struct group *group) {
    struct group_request *request = make_request(group, GROUP_EXPIRE);
    if (request && group_list_deletions(group, request))
        group_store(group, request);
    else
        group_request_free(request);
}

static bool needs_stamp(const struct group *group, int64_t wall_ms, uint64_t retention_ms) {
    int64_t age_ms = wall_ms - group->stamp_ms;
    if (!group->offsets || group->storing)
        return false;
    return group->stamp_ms == 0 ||
           (group->is_used && (age_ms < 0 || (uint64_t)age_ms >= interval_of(retention_ms)));
}

static bool is_outdated(const struct group *group, uint64_t now_ms, int64_t wall_ms,
                        uint64_t retention_ms) {
    int64_t age_ms = wall_ms - group->stamp_ms;
    if (group->member_count > 0 || group->pending || group->storing || group->stamp_ms == 0)
        return false;
    if (!group->offsets)
        return true; /* the stamp alone is left of it */
    return !group->is_used && retention_ms > 0 && age_ms >= 0 &&
           (uint64_t)age_ms >= retention_ms + interval_of(retention_ms) &&
           now_ms - group->idle_since_ms >= least(retention_ms, IDLE_MS_MAX);
}

uint64_t group_keep_time(struct group *group, uint64_t now_ms, int64_t wall_ms,
                         uint64_t retention_ms) {
    uint64_t look_ms = interval_of(retention_ms);
    bool has_offsets = group->offsets || group->stamp_ms != 0;
    if (group->member_count > 0)
        group->is_used = true;
    if (group->is_used || group->idle_since_ms == 0)
        group->idle_since_ms = now_ms;
    if (needs_stamp(group, wall_ms, retention_ms))
        store_stamp(group, wall_ms);
    else if (is_outdated(group, now_ms, wall_ms, retention_ms))
        forget_all(group);
    return has_offsets ? now_ms + (look_ms > LOOK_MS_MIN ? look_ms : LOOK_MS_MIN) : UINT64_MAX;
}
