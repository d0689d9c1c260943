#include "gateway/kafka/group_lag.h"

#include "gateway/kafka/group_internal.h"

static void bounds_of(const struct group_stored_offset *stored,
                      const struct group_surveyor *surveyor, struct group_bounds *ret_bounds) {
    surveyor->bounds(surveyor->context, stored->key.stream_id, (uint32_t)stored->key.partition,
                     ret_bounds);
}

/* Marks where the partitions end, or a little later. */
static void mark(struct group *group, const struct group_surveyor *surveyor, uint64_t now_ms) {
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        struct group_bounds bounds;
        bounds_of(stored, surveyor, &bounds);
        stored->mark = bounds.end;
    }
    group->marked_ms = now_ms;
}

/* A group that has passed all its marks has read what was written before they were set. */
static uint64_t measure_time(struct group *group, bool is_at_end, bool has_passed,
                             const struct group_surveyor *surveyor, uint64_t now_ms) {
    if (is_at_end || group->marked_ms == 0)
        group->read_until_ms = now_ms;
    else if (has_passed)
        group->read_until_ms = group->marked_ms;
    if (is_at_end || has_passed || group->marked_ms == 0)
        mark(group, surveyor, now_ms);
    return now_ms - group->read_until_ms;
}

static unsigned measure(struct group *group, const struct group_surveyor *surveyor,
                        uint64_t now_ms) {
    struct group_measured measured = {.tenant_key = group->tenant_key,
                                      .name = group_name(group),
                                      .lag = group_lag_none(),
                                      .overtaken_told = &group->overtaken_told};
    bool has_passed = true;
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        struct group_bounds bounds;
        bounds_of(stored, surveyor, &bounds);
        struct group_lag one = group_lag_of(stored->offset, &bounds);
        group_lag_add(&measured.lag, &one);
        has_passed &= stored->offset >= stored->mark;
    }
    measured.lag.behind_ms =
        measure_time(group, measured.lag.records == 0, has_passed, surveyor, now_ms);
    group->lag = measured.lag;
    if (group->overtaken_told > measured.lag.overtaken)
        group->overtaken_told = measured.lag.overtaken;
    if (measured.lag.partitions > 0)
        surveyor->measured(surveyor->context, &measured);
    return measured.lag.partitions + 1;
}

bool groups_survey(struct groups *groups, unsigned budget, const struct group_surveyor *surveyor,
                   uint64_t now_ms) {
    unsigned looked_at = 0;
    if (!groups->is_surveying)
        groups->survey_next = groups->all;
    while (groups->survey_next && looked_at < budget) {
        struct group *group = groups->survey_next;
        groups->survey_next = group->hh.next;
        looked_at += measure(group, surveyor, now_ms);
    }
    groups->is_surveying = groups->survey_next != NULL;
    return !groups->is_surveying;
}

void group_leaves_survey(struct group *group) {
    if (group->groups->survey_next == group)
        group->groups->survey_next = group->hh.next;
}
