/* Lag and distance to the log start, and the survey that goes round the groups in steps. */
#include <stdio.h>

#include "gateway/kafka/group_lag.h"
#include "group_recorder.h"

TestSuite(kafka_group_lag, .fini = check_leaks);

Test(kafka_group_lag, of_a_partition) {
    static const struct {
        int64_t committed, log_start, end;
        int64_t records, distance;
        uint32_t overtaken;
    } cases[] = {
        {0, 0, 0, 0, GROUP_LAG_NO_DISTANCE, 0},  /* empty */
        {5, 0, 9, 4, 5, 0},                      /* behind */
        {9, 0, 9, 0, GROUP_LAG_NO_DISTANCE, 0},  /* at the end: nothing to lose */
        {5, 5, 9, 4, 0, 0},                      /* retention is at its heels */
        {5, 7, 9, 4, -2, 1},                     /* two records too late */
        {5, 9, 9, 4, -4, 1},                     /* nothing is kept at all */
        {9, 9, 9, 0, GROUP_LAG_NO_DISTANCE, 0},  /* ... but it had read everything */
        {20, 3, 9, 0, GROUP_LAG_NO_DISTANCE, 0}, /* beyond the end: no negative lag */
    };
    struct group_lag sum = group_lag_none();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct group_bounds bounds = {cases[i].log_start, cases[i].end};
        struct group_lag lag = group_lag_of(cases[i].committed, &bounds);
        cr_expect_eq(lag.records, cases[i].records, "case %zu", i);
        cr_expect_eq(lag.distance, cases[i].distance, "case %zu", i);
        cr_expect_eq(lag.overtaken, cases[i].overtaken, "case %zu", i);
        group_lag_add(&sum, &lag);
    }
    cr_expect_eq(sum.records, 16);
    cr_expect_eq(sum.distance, -4, "the least");
    cr_expect_eq(sum.overtaken, 2);
    cr_expect_eq(sum.partitions, 8);
}

enum { GROUPS = 10, PARTITIONS = 5, END = 100 };

static void commit(struct recorder *r, const char *group, int64_t offset) {
    struct group_request *request =
        make(r, GROUP_COMMIT, &(struct said){.group = group, .generation = -1});
    request->offsets = group_take(request, PARTITIONS * sizeof(*request->offsets));
    for (uint32_t i = 0; i < PARTITIONS; i++)
        request->offsets[request->offset_count++] =
            (struct group_offset){.stream_id = 3, .partition = i, .offset = offset};
    cr_assert_eq(answer(r, send(r, request))->offsets[0].error, 0);
}

/* What a survey saw. */
struct seen {
    unsigned bounds, groups;
    int64_t log_start, end; /* 0: END */
    char names[GROUPS * 2][8];
    struct group_lag lag; /* of the last, as is the next */
    uint32_t told;
};

static void see_bounds(void *context, uint64_t stream_id, uint32_t partition,
                       struct group_bounds *ret_bounds) {
    struct seen *seen = context;
    seen->bounds++;
    cr_assert_eq(stream_id, 3);
    *ret_bounds = (struct group_bounds){seen->log_start, seen->end ? seen->end : END};
}

static void see_group(void *context, const struct group_measured *group) {
    struct seen *seen = context;
    snprintf(seen->names[seen->groups++], sizeof(seen->names[0]), "%.*s", (int)group->name.size,
             (const char *)group->name.data);
    seen->told = *group->overtaken_told;
    seen->lag = group->lag;
    *group->overtaken_told = group->lag.overtaken;
}

static bool survey(struct recorder *r, unsigned budget, struct seen *seen) {
    return groups_survey(r->groups, budget, &(struct group_surveyor){seen, see_bounds, see_group},
                         r->now_ms);
}

Test(kafka_group_lag, a_round_in_steps_meets_each_group_once) {
    struct recorder *r = recorder_begin();
    char name[8];
    for (unsigned i = 0; i < GROUPS; i++) {
        snprintf(name, sizeof(name), "g%u", i);
        commit(r, name, 90);
    }
    struct seen seen = {0};
    unsigned steps = 1;
    for (; !survey(r, 2 * PARTITIONS, &seen); steps++)
        cr_assert_lt(steps, 20);
    cr_expect_eq(steps, GROUPS / 2);
    cr_assert_eq(seen.groups, GROUPS);
    cr_expect_eq(seen.bounds, 2 * GROUPS * PARTITIONS, "measured, and marked once");
    for (unsigned i = 0; i < GROUPS; i++) {
        snprintf(name, sizeof(name), "g%u", i);
        cr_expect_str_eq(seen.names[i], name);
    }
    cr_expect_eq(seen.lag.records, 10 * PARTITIONS);
    cr_expect_eq(seen.lag.distance, 90);
    seen = (struct seen){.log_start = 95};
    cr_expect(survey(r, UINT32_MAX, &seen));
    cr_expect_eq(seen.lag.overtaken, PARTITIONS);
    cr_expect_eq(seen.told, 0);
    const struct group_request *listed = answer(r, ask(r, GROUP_LIST, 0));
    cr_assert_eq(listed->item_count, GROUPS);
    cr_expect_eq(listed->items[0].lag.overtaken, PARTITIONS, "as of the last survey");
    cr_expect_eq(listed->items[0].member_count, 0);
    seen = (struct seen){.log_start = 95};
    cr_expect(survey(r, UINT32_MAX, &seen));
    cr_expect_eq(seen.told, PARTITIONS, "no news");
    seen = (struct seen){.log_start = 90};
    cr_expect(survey(r, UINT32_MAX, &seen));
    cr_expect_eq(seen.told, 0, "it has caught up: the next time is news again");
    recorder_end(r);
}

/* A group that the survey would meet next goes: the round goes on behind it. */
Test(kafka_group_lag, groups_come_and_go_in_the_middle_of_a_round) {
    struct recorder *r = recorder_begin();
    struct seen seen = {0};
    commit(r, "a", 1);
    commit(r, "b", 1);
    commit(r, "c", 1);
    cr_assert(!survey(r, 1, &seen));
    cr_assert_eq(error_of(r, GROUP_DELETE, .group = "b"), 0);
    commit(r, "d", 1);
    while (!survey(r, 1, &seen))
        ;
    cr_assert_eq(seen.groups, 3);
    cr_expect_str_eq(seen.names[0], "a");
    cr_expect_str_eq(seen.names[1], "c");
    cr_expect_str_eq(seen.names[2], "d");
    cr_assert(!survey(r, 1, &seen));
    cr_assert_eq(error_of(r, GROUP_DELETE, .group = "c"), 0);
    cr_assert_eq(error_of(r, GROUP_DELETE, .group = "d"), 0);
    cr_expect(survey(r, 1, &seen), "the last of the round has gone");
    recorder_end(r);
}

/* Nothing committed, nothing measured. */
Test(kafka_group_lag, members_alone_have_no_lag) {
    struct recorder *r = recorder_begin();
    struct seen seen = {0};
    cr_expect(survey(r, 1, &seen));
    form_stable(r, 2, false);
    cr_expect(survey(r, UINT32_MAX, &seen));
    cr_expect_eq(seen.groups, 0);
    const struct group_request *listed = answer(r, ask(r, GROUP_LIST, 0));
    cr_assert_eq(listed->item_count, 1);
    cr_expect_eq(listed->items[0].member_count, 2);
    cr_expect_eq(listed->items[0].lag.partitions, 0);
    cr_expect_eq(listed->items[0].lag.distance, GROUP_LAG_NO_DISTANCE);
    recorder_end(r);
}

/* For how long a group has been behind: what was written before has been read. */
Test(kafka_group_lag, time) {
    static const struct {
        unsigned after_ms;
        int64_t committed, end;
        uint64_t behind_ms;
    } steps[] = {
        {0, 40, 50, 0},       /* since when is not known: from now on */
        {1000, 40, 60, 1000}, /* stands still */
        {1000, 45, 70, 2000}, /* moves, but has not read the 50 of the first look */
        {1000, 50, 80, 3000}, /* has: what is 3 s old is read, and 80 is the next mark */
        {1000, 79, 90, 4000}, /* not the last of it */
        {1000, 80, 95, 2000}, /* what was there 2 s ago */
        {500, 95, 95, 0},     /* all */
        {500, 95, 95, 0},     {500, 95, 96, 500}, /* behind again, since the last look */
    };
    struct recorder *r = recorder_begin();
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct seen seen = {.end = steps[i].end};
        r->now_ms += steps[i].after_ms;
        commit(r, "g", steps[i].committed);
        cr_assert(survey(r, UINT32_MAX, &seen));
        cr_expect_eq(seen.lag.behind_ms, steps[i].behind_ms, "step %zu: %lu", i,
                     (unsigned long)seen.lag.behind_ms);
    }
    recorder_end(r);
}
