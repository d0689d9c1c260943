/* Consumer groups that nobody uses: when their offsets are forgotten, also over restarts. */
#include <stdio.h>

#include "group_recorder.h"

TestSuite(kafka_group_retention, .fini = check_leaks);

#define HOUR_MS UINT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)

static struct recorder *begin(uint64_t retention_ms) {
    struct recorder *r = recorder_begin();
    r->retention_ms = retention_ms;
    return r;
}

static int16_t commit(struct recorder *r, const struct said *said) {
    struct group_request *request = make(r, GROUP_COMMIT, said);
    request->offsets = group_take(request, sizeof(*request->offsets));
    request->offset_count = 1;
    request->offsets[0] = (struct group_offset){.stream_id = 3, .offset = 5};
    return answer(r, send(r, request))->offsets[0].error;
}

static void commit_alone(struct recorder *r) {
    cr_assert_eq(commit(r, &(struct said){.generation = -1}), 0);
}

/* As a start finds it. */
static void restore(struct recorder *r, uint64_t stream_id, int64_t offset) {
    struct group_offset stored = {.stream_id = stream_id, .offset = offset};
    cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &stored), 0);
}

static bool exists(struct recorder *r) {
    return describe(r)->state != GROUP_DEAD;
}

static int64_t wall_ms(const struct recorder *r) {
    return WALL_MS + (int64_t)r->now_ms;
}

Test(kafka_group_retention, an_idle_group_is_forgotten) {
    struct recorder *r = begin(7 * DAY_MS);
    commit_alone(r);
    advance(r, 7 * DAY_MS);
    cr_expect(exists(r));
    advance(r, 4 * HOUR_MS);
    cr_expect(!exists(r));
    commit_alone(r); /* the name is free */
    cr_expect(exists(r));
    recorder_end(r);
}

Test(kafka_group_retention, a_group_that_commits_is_not) {
    struct recorder *r = begin(7 * DAY_MS);
    for (unsigned day = 0; day < 30; day++) {
        commit_alone(r);
        advance(r, DAY_MS);
        cr_assert(exists(r), "day %u", day);
    }
    advance(r, 7 * DAY_MS);
    cr_expect(!exists(r));
    recorder_end(r);
}

/* Members that only read keep what they committed. */
Test(kafka_group_retention, a_group_with_members_is_not) {
    enum { RETENTION_MS = 100000 };
    struct recorder *r = begin(RETENTION_MS);
    struct formed f = form_stable(r, 1, false);
    cr_assert_eq(commit(r, &(struct said){.member = f.ids[0], .generation = f.generation}), 0);
    for (unsigned i = 0; i < 80; i++) {
        advance(r, SESSION_MS / 2);
        cr_assert_eq(error_of(r, GROUP_HEARTBEAT, .member = f.ids[0], .generation = f.generation),
                     0);
    }
    leave(r, f.ids[0], NULL);
    cr_expect(exists(r));
    advance(r, RETENTION_MS - 1);
    cr_expect(exists(r));
    advance(r, RETENTION_MS);
    cr_expect(!exists(r));
    recorder_end(r);
}

/* Time passes while the gateway is down; but its consumers get an hour to come back. */
Test(kafka_group_retention, over_a_restart) {
    static const struct {
        uint64_t age_ms, stays_ms, gone_ms;
    } cases[] = {
        {8 * DAY_MS, HOUR_MS - 1, 3 * HOUR_MS},
        {6 * DAY_MS, DAY_MS - 1, DAY_MS + 4 * HOUR_MS},
        {0, 7 * DAY_MS - 1, 7 * DAY_MS + 4 * HOUR_MS},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = begin(7 * DAY_MS);
        restore(r, 3, 5);
        restore(r, 0, wall_ms(r) - (int64_t)cases[i].age_ms);
        advance(r, cases[i].stays_ms);
        cr_expect(exists(r), "%zu", i);
        advance(r, cases[i].gone_ms - cases[i].stays_ms);
        cr_expect(!exists(r), "%zu", i);
        recorder_end(r);
    }
}

/* What an older release stored says nothing of when: it is as if it had been used just now. */
Test(kafka_group_retention, a_group_without_a_stamp) {
    struct recorder *r = begin(7 * DAY_MS);
    restore(r, 3, 5);
    advance(r, 7 * DAY_MS - HOUR_MS);
    cr_expect(exists(r));
    advance(r, 6 * HOUR_MS);
    cr_expect(!exists(r));
    recorder_end(r);
}

Test(kafka_group_retention, for_ever) {
    struct recorder *r = begin(0);
    commit_alone(r);
    advance(r, 400 * DAY_MS);
    cr_expect(exists(r));
    recorder_end(r);
}

/* A stamp of the future: the clock was wrong then or is now. */
Test(kafka_group_retention, a_clock_that_went_back) {
    struct recorder *r = begin(7 * DAY_MS);
    restore(r, 3, 5);
    restore(r, 0, wall_ms(r) + (int64_t)(300 * DAY_MS));
    advance(r, 30 * DAY_MS);
    cr_expect(exists(r));
    commit_alone(r); /* a new stamp */
    advance(r, 8 * DAY_MS);
    cr_expect(!exists(r));
    recorder_end(r);
}

Test(kafka_group_retention, what_could_not_be_stored_is_tried_again) {
    struct recorder *r = begin(7 * DAY_MS);
    commit_alone(r);
    advance(r, DAY_MS);
    r->store_err = DG_ERR_STORAGE_FULL;
    advance(r, 20 * DAY_MS);
    cr_expect(exists(r));
    r->store_err = 0;
    advance(r, 2 * HOUR_MS);
    cr_expect(!exists(r));
    recorder_end(r);
}

/* One stamp for a while, whatever is committed; the last trace of a group goes with its offsets. */
Test(kafka_group_retention, what_is_stored) {
    struct recorder *r = begin(7 * DAY_MS);
    commit_alone(r);
    r->hold_stores = true;
    advance(r, 1);
    cr_assert_eq(r->store_count, 1);
    cr_expect_eq(r->stores[0]->operation, GROUP_STAMP);
    cr_expect_eq(r->stores[0]->offset_count, 1);
    cr_expect_eq(r->stores[0]->offsets[0].stream_id, 0);
    cr_expect_eq(r->stores[0]->offsets[0].offset, WALL_MS + START_MS);
    finish_store(r, 0);
    r->hold_stores = false;
    for (unsigned i = 0; i < 20; i++) {
        commit_alone(r);
        advance(r, 60000);
    }
    r->hold_stores = true;
    advance(r, 2 * HOUR_MS); /* it was used since the last one */
    cr_assert_eq(r->store_count, 1);
    cr_expect_eq(r->stores[0]->operation, GROUP_STAMP);
    finish_store(r, 0);
    uint64_t deleting = ask(r, GROUP_DELETE, 0);
    cr_assert_eq(r->store_count, 1);
    cr_expect_eq(r->stores[0]->offset_count, 2); /* the offset and the stamp */
    finish_store(r, 0);
    cr_expect_eq(answer(r, deleting)->error, 0);
    cr_expect(!exists(r));
    recorder_end(r);
}

Test(kafka_group_retention, a_stamp_that_is_left_alone_goes) {
    struct recorder *r = begin(7 * DAY_MS);
    restore(r, 0, wall_ms(r));
    advance(r, 2);
    cr_expect(!exists(r));
    recorder_end(r);
}
