/*
 * How far a consumer group is behind, and how near retention has come to it. Where partitions stand
 * is an argument: pure. One worker's thread.
 *
 * Only partitions with a committed offset count: where a consumer without one would begin is its
 * own affair.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/slice.h"

/* Of a partition: the first record that is kept, and one past the last. */
struct group_bounds {
    int64_t log_start, end;
};

#define GROUP_LAG_NO_DISTANCE INT64_MAX

/* Zeroed at first, but for distance. */
struct group_lag {
    int64_t records; /* written and not committed, over all partitions; removed ones too */
    /* From the log start to the committed offset, the least of the partitions where something is
     * left to read. Negative: so many records were removed unread. */
    int64_t distance;
    uint32_t partitions; /* with a committed offset */
    uint32_t overtaken;  /* ... below the log start: retention was faster than the group */
    /* Of a group: what was written so long ago has all been read. Counted since the gateway
     * started, and not finer than surveys and commits come; 0 when nothing is left to read. */
    uint64_t behind_ms;
};

static inline struct group_lag group_lag_none(void) {
    return (struct group_lag){.distance = GROUP_LAG_NO_DISTANCE};
}

/* Of one partition. */
static inline struct group_lag group_lag_of(int64_t committed, const struct group_bounds *bounds) {
    int64_t records = bounds->end > committed ? bounds->end - committed : 0;
    return (struct group_lag){
        .records = records,
        .distance = records > 0 ? committed - bounds->log_start : GROUP_LAG_NO_DISTANCE,
        .partitions = 1,
        .overtaken = committed < bounds->log_start,
    };
}

static inline void group_lag_add(struct group_lag *sum, const struct group_lag *more) {
    sum->records += more->records;
    sum->distance = more->distance < sum->distance ? more->distance : sum->distance;
    sum->partitions += more->partitions;
    sum->overtaken += more->overtaken;
    sum->behind_ms = more->behind_ms > sum->behind_ms ? more->behind_ms : sum->behind_ms;
}

/* A group as a survey met it. */
struct group_measured {
    int64_t tenant_key;
    struct slice name;
    struct group_lag lag;
    uint32_t *overtaken_told; /* how many were told of before; the surveyor's, 0 at first; never
                               * more than there are now */
};

struct group_surveyor {
    void *context;
    void (*bounds)(void *context, uint64_t stream_id, uint32_t partition,
                   struct group_bounds *ret_bounds);
    /* Called for each group that has committed offsets. */
    void (*measured)(void *context, const struct group_measured *group);
};

struct groups;

/* Measures groups until about `budget` offsets were looked at, or all groups since the round began:
 * then it returns true, and the next call begins a new round. A group is never split. */
bool groups_survey(struct groups *groups, unsigned budget, const struct group_surveyor *surveyor,
                   uint64_t now_ms);
