#include "gateway/kafka/group_lag.h"

#include "gateway/kafka/group_internal.h"

static unsigned measure(struct group *group, const struct group_surveyor *surveyor) {
    struct group_measured measured = {.tenant_key = group->tenant_key,
                                      .name = group_name(group),
                                      .lag = group_lag_none(),
                                      .overtaken_told = &group->overtaken_told};
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        struct group_bounds bounds;
        surveyor->bounds(surveyor->context, stored->key.stream_id, (uint32_t)stored->key.partition,
                         &bounds);
        struct group_lag one = group_lag_of(stored->offset, &bounds);
        group_lag_add(&measured.lag, &one);
    }
    group->lag = measured.lag;
    if (group->overtaken_told > measured.lag.overtaken)
        group->overtaken_told = measured.lag.overtaken;
    if (measured.lag.partitions > 0)
        surveyor->measured(surveyor->context, &measured);
    return measured.lag.partitions + 1;
}

bool groups_survey(struct groups *groups, unsigned budget, const struct group_surveyor *surveyor) {
    unsigned looked_at = 0;
    if (!groups->is_surveying)
        groups->survey_next = groups->all;
    while (groups->survey_next && looked_at < budget) {
        struct group *group = groups->survey_next;
        groups->survey_next = group->hh.next;
        looked_at += measure(group, surveyor);
    }
    groups->is_surveying = groups->survey_next != NULL;
    return !groups->is_surveying;
}

void group_leaves_survey(struct group *group) {
    if (group->groups->survey_next == group)
        group->groups->survey_next = group->hh.next;
}
