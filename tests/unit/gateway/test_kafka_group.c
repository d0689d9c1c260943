/* Consumer groups: who is in, rounds, and time. Versions are those of JoinGroup. */
#include "group_recorder.h"

TestSuite(kafka_group, .fini = check_leaks);

static bool lists(const struct group_request *answer, struct slice id, const char *metadata) {
    for (uint32_t i = 0; i < answer->item_count; i++)
        if (slice_equals(answer->items[i].id, id))
            return is(answer->items[i].bytes, metadata);
    return false;
}

static int16_t beat(struct recorder *r, struct slice member, int32_t generation) {
    return error_of(r, GROUP_HEARTBEAT, .member = member, .generation = generation);
}

static uint64_t sync_with(struct recorder *r, struct slice member, int32_t generation) {
    return ask(r, GROUP_SYNC, .member = member, .generation = generation);
}

/* ---- joining ---- */

Test(kafka_group, a_new_member_must_ask_for_its_id_first) {
    for (int16_t version = 4; version <= 9; version++) {
        struct recorder *r = recorder_begin();
        struct group_request *first = answer(r, ask(r, GROUP_JOIN, .version = version));
        cr_assert_eq(first->error, KAFKA_ERROR_MEMBER_ID_REQUIRED);
        cr_assert(slice_starts_with(first->member, "client-"));
        cr_assert_eq(describe(r)->item_count, 0, "not a member yet");
        uint64_t second = ask(r, GROUP_JOIN, .version = version, .member = first->member);
        cr_assert(waits(r, second));
        advance(r, INITIAL_DELAY_MS);
        cr_assert_eq(answer(r, second)->error, 0);
        cr_assert(slice_equals(answer(r, second)->member, first->member));
        cr_assert(slice_equals(answer(r, second)->leader, first->member));
        recorder_end(r);
    }
    for (int16_t version = 1; version <= 3; version++) {
        struct recorder *r = recorder_begin();
        cr_assert(waits(r, ask(r, GROUP_JOIN, .version = version)));
        recorder_end(r);
    }
}

Test(kafka_group, an_id_that_was_given_out_runs_out) {
    struct recorder *r = recorder_begin();
    struct slice id = answer(r, ask(r, GROUP_JOIN, 0))->member;
    advance(r, SESSION_MS - 1);
    cr_assert_state(r, GROUP_EMPTY);
    advance(r, 1);
    cr_assert_state(r, GROUP_DEAD);
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = id), KAFKA_ERROR_UNKNOWN_MEMBER);
    recorder_end(r);

    /* A round waits for it no longer than that. */
    r = recorder_begin();
    uint64_t member = ask(r, GROUP_JOIN, .version = 3);
    ask(r, GROUP_JOIN, .version = 5);
    advance(r, SESSION_MS - 1);
    cr_assert(waits(r, member));
    advance(r, 1);
    cr_assert_eq(answer(r, member)->error, 0);
    recorder_end(r);
}

Test(kafka_group, of_very_many_ids_the_oldest_is_forgotten) {
    struct recorder *r = recorder_begin();
    struct slice oldest = answer(r, ask(r, GROUP_JOIN, 0))->member;
    struct slice second = answer(r, ask(r, GROUP_JOIN, 0))->member;
    for (unsigned i = 2; i <= LIMIT_KAFKA_GROUP_MEMBERS; i++)
        cr_assert_eq(error_of(r, GROUP_JOIN, 0), KAFKA_ERROR_MEMBER_ID_REQUIRED);
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = oldest), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert(waits(r, ask(r, GROUP_JOIN, .member = second)));
    recorder_end(r);
}

Test(kafka_group, what_a_join_may_not_say) {
    char long_name[LIMIT_KAFKA_GROUP_NAME_BYTES + 2] = {0};
    memset(long_name, 'x', sizeof(long_name) - 1);
    const char *many = "a b c d e f g h i j k l m n o p";
    const char *too_many = "a b c d e f g h i j k l m n o p q";
    const struct {
        struct said said;
        int16_t error;
    } cases[] = {
        {{.version = 3, .session_ms = LIMIT_KAFKA_SESSION_MS_MIN - 1}, 26},
        {{.version = 3, .session_ms = LIMIT_KAFKA_SESSION_MS_MAX + 1}, 26},
        {{.version = 3, .session_ms = -1}, 26},
        {{.version = 3, .session_ms = LIMIT_KAFKA_SESSION_MS_MIN}, -1},
        {{.version = 3, .session_ms = LIMIT_KAFKA_SESSION_MS_MAX}, -1},
        {{.version = 3, .rebalance_ms = INT32_MAX}, -1},
        {{.version = 3, .type = ""}, 23},
        {{.version = 3, .items = ""}, 23},
        {{.version = 3, .items = many}, -1},
        {{.version = 3, .items = too_many}, 23},
        {{.version = 3, .group = ""}, 24},
        {{.version = 3, .group = long_name}, 24},
        {{.version = 3, .group = long_name + 1}, -1},
        {{.version = 3, .member = {(const uint8_t *)"?", 1}}, 25},
        {{.version = 5, .member = {(const uint8_t *)"?", 1}, .instance = "i"}, 25},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_begin();
        uint64_t ticket = send_said(r, GROUP_JOIN, &cases[i].said);
        cr_assert_eq(waits(r, ticket), cases[i].error == -1, "case %u", i);
        if (cases[i].error != -1) {
            cr_assert_eq(answer(r, ticket)->error, cases[i].error, "case %u", i);
            cr_assert_eq(answer(r, ask(r, GROUP_LIST, 0))->item_count, 0, "case %u leaves", i);
        }
        recorder_end(r);
    }
}

Test(kafka_group, many_that_start_need_one_round) {
    struct recorder *r = recorder_begin();
    uint64_t tickets[4];
    for (unsigned i = 0; i < 4; i++) {
        tickets[i] = ask(r, GROUP_JOIN, .version = 3);
        advance(r, INITIAL_DELAY_MS / 4 - 1);
    }
    cr_assert(waits(r, tickets[0]));
    advance(r, 4);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(answer(r, tickets[i])->error, 0);
        cr_assert_eq(answer(r, tickets[i])->generation, 1);
    }
    recorder_end(r);
}

/* ---- leader and protocol ---- */

Test(kafka_group, the_first_leads_and_alone_is_told_the_members) {
    struct recorder *r = recorder_begin();
    uint64_t a = ask(r, GROUP_JOIN, .version = 3, .items = "range=A");
    uint64_t b = ask(r, GROUP_JOIN, .version = 5, .instance = "ib", .items = "range=B");
    advance(r, INITIAL_DELAY_MS);
    const struct group_request *first = answer(r, a), *second = answer(r, b);
    cr_assert(slice_equals(first->leader, first->member));
    cr_assert(slice_equals(second->leader, first->member));
    cr_assert_eq(first->item_count, 2);
    cr_assert_eq(second->item_count, 0);
    cr_assert(lists(first, first->member, "A"));
    cr_assert(lists(first, second->member, "B"));
    cr_assert_null(first->items[0].instance.data);
    cr_assert(is(first->items[1].instance, "ib"));
    cr_assert(is(first->protocol_type, "consumer"));
    cr_assert(is(second->protocol, "range"));
    recorder_end(r);
}

Test(kafka_group, the_protocol_that_most_prefer_of_those_all_support) {
    const struct {
        const char *lists[3];
        const char *chosen;
    } cases[] = {
        {{"a b", "a b", "b a"}, "a"},       {{"a b", "b a", "b a"}, "b"},
        {{"c a b", "b a", "b a"}, "b"},     {{"x a", "y a", "z a"}, "a"},
        {{"a b", "a b c", "c b"}, "b"},     {{"x b a", "b x a", "a b"}, "b"},
        {{"a b c", "b c a", "c a b"}, "a"}, {{"a a b", "b a", "b"}, "b"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_begin();
        uint64_t tickets[3];
        for (unsigned m = 0; m < 3; m++)
            tickets[m] = ask(r, GROUP_JOIN, .version = 3, .items = cases[i].lists[m]);
        advance(r, INITIAL_DELAY_MS);
        for (unsigned m = 0; m < 3; m++)
            cr_assert(is(answer(r, tickets[m])->protocol, cases[i].chosen), "case %u", i);
        recorder_end(r);
    }
}

Test(kafka_group, other_types_and_protocols_are_refused) {
    for (int16_t version = 3; version <= 5;
         version += 2) { /* at once, and when it asks for an id */
        struct recorder *r = recorder_begin();
        uint64_t a = ask(r, GROUP_JOIN, .version = 3, .items = "a b");
        cr_assert_eq(error_of(r, GROUP_JOIN, .version = version, .items = "c d"), 23);
        cr_assert_eq(error_of(r, GROUP_JOIN, .version = version, .type = "connect", .items = "a"),
                     23);
        cr_assert(waits(r, ask(r, GROUP_JOIN, .version = 3, .items = "c b")));
        cr_assert_eq(error_of(r, GROUP_JOIN, .version = version, .items = "a"), 23, "not b");
        advance(r, INITIAL_DELAY_MS);
        /* Of a member too; it stays what it was. */
        struct slice id = answer(r, a)->member;
        cr_assert_eq(error_of(r, GROUP_JOIN, .member = id, .items = "a"), 23);
        cr_assert_eq(error_of(r, GROUP_JOIN, .member = id, .items = "b", .type = "connect"), 23);
        cr_assert_eq(beat(r, id, 1), 0);
        recorder_end(r);
    }
    /* One that is alone may say something else, but not be something else. */
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 1, false);
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = f.ids[0], .type = "connect"), 23);
    cr_assert(
        is(answer(r, ask(r, GROUP_JOIN, .member = f.ids[0], .items = "other"))->protocol, "other"));
    recorder_end(r);
}

Test(kafka_group, a_group_has_room_for_so_many) {
    struct recorder *r = recorder_begin();
    for (unsigned i = 0; i < LIMIT_KAFKA_GROUP_MEMBERS - 1; i++)
        cr_assert(waits(r, ask(r, GROUP_JOIN, .version = 3)));
    struct slice spare = answer(r, ask(r, GROUP_JOIN, .version = 5))->member;
    cr_assert(waits(r, ask(r, GROUP_JOIN, .version = 3)));
    cr_assert_eq(error_of(r, GROUP_JOIN, .version = 3), KAFKA_ERROR_GROUP_FULL);
    cr_assert_eq(error_of(r, GROUP_JOIN, .version = 5), KAFKA_ERROR_GROUP_FULL);
    cr_assert_eq(error_of(r, GROUP_JOIN, .version = 5, .instance = "i"), KAFKA_ERROR_GROUP_FULL);
    cr_assert_state(r, GROUP_PREPARING);
    advance(r, INITIAL_DELAY_MS);
    cr_assert_state(r, GROUP_PREPARING); /* of the id that was given out */
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = spare), KAFKA_ERROR_GROUP_FULL);
    cr_assert_state(r, GROUP_COMPLETING);
    recorder_end(r);
}

Test(kafka_group, a_group_has_room_for_so_much_metadata) {
    enum { SIZE = 900 * 1024 };
    struct recorder *r = recorder_begin();
    char *items = malloc(SIZE + 8);
    memcpy(items, "range=", 6);
    memset(items + 6, 'm', SIZE);
    items[SIZE + 6] = '\0';
    unsigned count = LIMIT_KAFKA_GROUP_METADATA_BYTES / (SIZE + 5);
    uint64_t ticket = 0;
    for (unsigned i = 0; i < count; i++)
        cr_assert(waits(r, ticket = ask(r, GROUP_JOIN, .version = 3, .items = items)));
    cr_assert_eq(error_of(r, GROUP_JOIN, .version = 3, .items = items), KAFKA_ERROR_GROUP_FULL);
    advance(r, INITIAL_DELAY_MS);
    struct slice id = answer(r, ticket)->member;
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = id, .items = items), 0, "its own counts once");
    cr_assert_eq(leave(r, id, NULL), 0);
    cr_assert(waits(r, ask(r, GROUP_JOIN, .version = 3, .items = items)), "what it had is free");
    free(items);
    recorder_end(r);
}

/* ---- rejoining ---- */

Test(kafka_group, who_begins_a_round_by_joining_again) {
    const struct {
        unsigned who;
        const char *items;
        bool begins;
    } cases[] = {
        {0, "range=m", true},  /* the leader, always */
        {1, "range=m", false}, /* a follower with nothing new */
        {1, "range=n", true},
        {1, "range=m x=y", true},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_begin();
        struct formed f = form_stable(r, 2, false);
        struct slice who = f.ids[cases[i].who];
        uint64_t ticket = ask(r, GROUP_JOIN, .member = who, .items = cases[i].items);
        cr_assert_eq(waits(r, ticket), cases[i].begins, "case %u", i);
        cr_assert_eq(beat(r, f.ids[1 - cases[i].who], 1), cases[i].begins ? 27 : 0);
        if (!cases[i].begins) {
            const struct group_request *same = answer(r, ticket);
            cr_assert_eq(same->error, 0);
            cr_assert_eq(same->generation, 1);
            cr_assert(slice_equals(same->leader, f.ids[0]));
            cr_assert_eq(same->item_count, 0);
            cr_assert(is(answer(r, sync_with(r, who, 1))->assignment, "a1"), "it still has it");
        } else {
            uint64_t other = ask(r, GROUP_JOIN, .member = f.ids[1 - cases[i].who]);
            cr_assert_eq(answer(r, ticket)->generation, 2, "no delay: nobody is missing");
            cr_assert_eq(answer(r, other)->generation, 2);
            cr_assert(slice_equals(answer(r, other)->leader, f.ids[0]));
        }
        recorder_end(r);
    }
}

Test(kafka_group, a_join_whose_answer_was_lost_is_answered_again) {
    for (unsigned who = 0; who < 2; who++) {
        struct recorder *r = recorder_begin();
        struct formed f = form_completing(r, 2, false);
        const struct group_request *again = answer(r, ask(r, GROUP_JOIN, .member = f.ids[who]));
        cr_assert_eq(again->error, 0);
        cr_assert_eq(again->generation, 1);
        cr_assert_eq(again->item_count, who == 0 ? 2 : 0);
        cr_assert(waits(r, ask(r, GROUP_JOIN, .member = f.ids[who], .items = "range=new")));
        cr_assert_state(r, GROUP_PREPARING);
        recorder_end(r);
    }
    /* While the round lasts the newer request is the one that is answered. */
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 2, false);
    uint64_t older = ask(r, GROUP_JOIN, .member = f.ids[0]);
    uint64_t newer = ask(r, GROUP_JOIN, .member = f.ids[0]);
    cr_assert_eq(answer(r, older)->error, KAFKA_ERROR_REBALANCE);
    ask(r, GROUP_JOIN, .member = f.ids[1]);
    cr_assert_eq(answer(r, newer)->error, 0);
    recorder_end(r);
}

/* ---- heartbeats and syncs in each state ---- */

static const struct slice stranger = {(const uint8_t *)"stranger", 8};

Test(kafka_group, heartbeats) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(beat(r, stranger, 0), KAFKA_ERROR_UNKNOWN_MEMBER, "no such group");
    struct formed f = form_completing(r, 2, false);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(beat(r, f.ids[i], 1), 0);
        cr_assert_eq(beat(r, f.ids[i], 0), KAFKA_ERROR_ILLEGAL_GENERATION);
        cr_assert_eq(beat(r, f.ids[i], 2), KAFKA_ERROR_ILLEGAL_GENERATION);
    }
    cr_assert_eq(beat(r, stranger, 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(beat(r, (struct slice){0}, 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    ask(r, GROUP_SYNC, .member = f.ids[0], .generation = 1);
    cr_assert_state(r, GROUP_STABLE);
    cr_assert_eq(beat(r, f.ids[1], 1), 0);
    cr_assert_eq(beat(r, f.ids[1], 2), KAFKA_ERROR_ILLEGAL_GENERATION);
    ask(r, GROUP_JOIN, .member = f.ids[0]);
    cr_assert_state(r, GROUP_PREPARING);
    cr_assert_eq(beat(r, f.ids[0], 1), KAFKA_ERROR_REBALANCE);
    cr_assert_eq(beat(r, f.ids[1], 1), KAFKA_ERROR_REBALANCE);
    cr_assert_eq(beat(r, f.ids[1], 2), KAFKA_ERROR_ILLEGAL_GENERATION);
    cr_assert_eq(beat(r, stranger, 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    recorder_end(r);
}

Test(kafka_group, syncs) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = stranger), KAFKA_ERROR_UNKNOWN_MEMBER);
    struct formed f = form_completing(r, 3, false);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = stranger, .generation = 1), 25);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[1], .generation = 0), 22);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[1], .generation = 1, .type = "connect"),
                 23);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[1], .generation = 1, .protocol = "rang"),
                 23);
    /* Before the leader's they wait; a newer one takes the place. */
    uint64_t older = sync_with(r, f.ids[1], 1);
    uint64_t second = ask(r, GROUP_SYNC, .member = f.ids[1], .generation = 1, .type = "consumer",
                          .protocol = "range");
    cr_assert_eq(answer(r, older)->error, KAFKA_ERROR_REBALANCE);
    cr_assert(waits(r, second));
    /* Whom the leader forgot has an empty one; whom it made up is nobody. */
    struct slice to[] = {f.ids[0], stranger, f.ids[1]};
    const struct group_request *first =
        answer(r, ask(r, GROUP_SYNC, .member = f.ids[0], .generation = 1, .items = "for0 s for1",
                      .to = to));
    cr_assert(is(first->assignment, "for0"));
    cr_assert(is(answer(r, second)->assignment, "for1"));
    cr_assert(is(answer(r, second)->protocol, "range"));
    cr_assert(is(answer(r, second)->protocol_type, "consumer"));
    const struct group_request *third = answer(r, sync_with(r, f.ids[2], 1));
    cr_assert_eq(third->error, 0);
    cr_assert_eq(third->assignment.size, 0);
    cr_assert(is(answer(r, sync_with(r, f.ids[1], 1))->assignment, "for1"), "again when stable");
    ask(r, GROUP_JOIN, .member = f.ids[0]);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[1], .generation = 1), 27);
    recorder_end(r);
}

Test(kafka_group, whom_the_leader_forgets_has_nothing_not_what_it_had) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 2, false);
    ask(r, GROUP_JOIN, .member = f.ids[0]);
    ask(r, GROUP_JOIN, .member = f.ids[1]);
    ask(r, GROUP_SYNC, .member = f.ids[0], .generation = 2, .items = "b0", .to = f.ids);
    const struct group_request *second = answer(r, sync_with(r, f.ids[1], 2));
    cr_assert_eq(second->error, 0);
    cr_assert_eq(second->assignment.size, 0);
    recorder_end(r);
}

Test(kafka_group, a_round_that_begins_ends_the_syncs_that_wait) {
    struct recorder *r = recorder_begin();
    struct formed f = form_completing(r, 3, false);
    uint64_t sync = sync_with(r, f.ids[1], 1);
    cr_assert(waits(r, sync));
    ask(r, GROUP_JOIN, .version = 3);
    cr_assert_eq(answer(r, sync)->error, KAFKA_ERROR_REBALANCE);
    recorder_end(r);
}

/* ---- who comes too late ---- */

Test(kafka_group, who_does_not_join_in_time_is_dropped) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 3, false);
    uint64_t two = ask(r, GROUP_JOIN, .member = f.ids[2], .items = "range=2");
    for (unsigned i = 0; i < 4; i++) { /* the others beat on, but do not join */
        advance(r, SESSION_MS / 2 - 1);
        cr_assert_eq(beat(r, f.ids[0], 1), 27);
        cr_assert_eq(beat(r, f.ids[1], 1), 27);
        cr_assert(waits(r, two));
    }
    advance(r, 4);
    cr_assert_eq(answer(r, two)->generation, 2);
    cr_assert(slice_equals(answer(r, two)->leader, f.ids[2]), "the leader was late");
    cr_assert_eq(answer(r, two)->item_count, 1);
    cr_assert_eq(beat(r, f.ids[0], 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    recorder_end(r);
}

Test(kafka_group, the_longest_time_out_counts) {
    struct recorder *r = recorder_begin();
    uint64_t a = ask(r, GROUP_JOIN, .version = 3, .rebalance_ms = 5 * SESSION_MS);
    uint64_t b = ask(r, GROUP_JOIN, .version = 3);
    advance(r, INITIAL_DELAY_MS);
    struct slice ids[] = {answer(r, a)->member, answer(r, b)->member};
    uint64_t again = ask(r, GROUP_JOIN, .member = ids[1], .items = "range=x");
    for (unsigned i = 0; i < 9; i++) {
        advance(r, SESSION_MS / 2);
        beat(r, ids[0], 1);
        cr_assert(waits(r, again));
    }
    advance(r, SESSION_MS / 2);
    cr_assert_eq(answer(r, again)->item_count, 1);
    recorder_end(r);
}

/* How long a round waits for a member that does not come. */
Test(kafka_group, time_outs_of_a_round_have_bounds) {
    const struct {
        int32_t session_ms, rebalance_ms, waits_ms;
    } cases[] = {
        {10000, 20000, 20000},
        {10000, 4000, 4000},
        {10000, 1, LIMIT_KAFKA_SESSION_MS_MIN},
        {10000, -1, 10000}, /* version 0 */
        {10000, INT32_MIN, 10000},
        {10000, INT32_MAX, LIMIT_KAFKA_SESSION_MS_MAX},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_begin();
        uint64_t a = ask(r, GROUP_JOIN, .version = 3, .session_ms = cases[i].session_ms,
                         .rebalance_ms = cases[i].rebalance_ms);
        uint64_t b = ask(r, GROUP_JOIN, .version = 3, .rebalance_ms = 1);
        advance(r, INITIAL_DELAY_MS);
        struct slice ids[] = {answer(r, a)->member, answer(r, b)->member};
        uint64_t again =
            ask(r, GROUP_JOIN, .member = ids[0], .items = "range=n",
                .session_ms = cases[i].session_ms, .rebalance_ms = cases[i].rebalance_ms);
        for (int32_t ms = 0; ms < cases[i].waits_ms; ms += 1000) {
            beat(r, ids[1], 1);
            cr_assert(waits(r, again), "case %u, %d ms", i, ms);
            advance(r, 1000);
        }
        cr_assert_eq(answer(r, again)->item_count, 1, "case %u", i);
        recorder_end(r);
    }
}

Test(kafka_group, who_never_syncs_is_dropped) {
    for (unsigned late = 0; late < 3; late++) { /* the leader, a follower, one after the leader */
        struct recorder *r = recorder_begin();
        struct formed f = form_completing(r, 2, false);
        unsigned lazy = late > 0, diligent = 1 - lazy;
        uint64_t sync = sync_with(r, f.ids[diligent], 1);
        if (late == 1) /* it asks, but loses interest */
            ask(r, GROUP_SYNC, .member = f.ids[1], .generation = 0);
        for (unsigned i = 0; i < 3; i++) {
            advance(r, SESSION_MS / 2);
            cr_assert_eq(beat(r, f.ids[lazy], 1), 0);
            cr_assert_eq(beat(r, f.ids[diligent], 1), 0);
            cr_assert_eq(waits(r, sync), late == 0);
        }
        advance(r, SESSION_MS / 2);
        cr_assert_eq(beat(r, f.ids[lazy], 1), KAFKA_ERROR_UNKNOWN_MEMBER);
        cr_assert_eq(beat(r, f.ids[diligent], 1), KAFKA_ERROR_REBALANCE);
        cr_assert_eq(answer(r, sync)->error, late == 0 ? KAFKA_ERROR_REBALANCE : 0);
        recorder_end(r);
    }
}

Test(kafka_group, who_joins_again_must_sync_again) {
    struct recorder *r = recorder_begin();
    struct formed f = form_completing(r, 2, false);
    uint64_t sync = sync_with(r, f.ids[1], 1);
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = f.ids[1]), 0);
    cr_assert_eq(answer(r, sync)->error, KAFKA_ERROR_REBALANCE);
    cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[0], .generation = 1), 0);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(beat(r, f.ids[1], 1), 0);
        cr_assert_eq(beat(r, f.ids[0], 1), 0);
        advance(r, SESSION_MS / 2);
    }
    cr_assert_eq(beat(r, f.ids[1], 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    recorder_end(r);
}

/* ---- leaving and expiry ---- */

Test(kafka_group, leaving) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(leave(r, stranger, NULL), KAFKA_ERROR_UNKNOWN_MEMBER, "no such group");
    struct formed f = form_stable(r, 3, true);
    cr_assert_eq(leave(r, stranger, NULL), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(leave(r, (struct slice){0}, "nobody"), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(leave(r, (struct slice){0}, NULL), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(leave(r, f.ids[0], "i1"), KAFKA_ERROR_FENCED_INSTANCE);
    cr_assert_state(r, GROUP_STABLE);
    cr_assert_eq(leave(r, f.ids[0], "i0"), 0);
    cr_assert_state(r, GROUP_PREPARING);
    cr_assert_eq(leave(r, f.ids[0], "i0"), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(leave(r, (struct slice){0}, "i1"), 0, "by instance alone");
    uint64_t last = ask(r, GROUP_JOIN, .member = f.ids[2], .instance = "i2");
    cr_assert_eq(answer(r, last)->generation, 2);
    cr_assert_eq(leave(r, f.ids[2], NULL), 0, "by id alone");
    cr_assert_state(r, GROUP_DEAD);
    recorder_end(r);
}

Test(kafka_group, leaving_while_others_wait) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 3, false);
    uint64_t two = ask(r, GROUP_JOIN, .member = f.ids[2], .items = "range=n");
    uint64_t one = ask(r, GROUP_JOIN, .member = f.ids[1]);
    cr_assert_eq(leave(r, f.ids[1], NULL), 0);
    cr_assert_eq(answer(r, one)->error, KAFKA_ERROR_UNKNOWN_MEMBER, "its own join is over");
    cr_assert(waits(r, two));
    cr_assert_eq(leave(r, f.ids[0], NULL), 0);
    cr_assert_eq(answer(r, two)->error, 0, "it was the last that was missed");
    cr_assert(slice_equals(answer(r, two)->leader, f.ids[2]));
    recorder_end(r);

    r = recorder_begin(); /* the leader, whose assignment is awaited */
    f = form_completing(r, 2, false);
    uint64_t sync = sync_with(r, f.ids[1], 1);
    leave(r, f.ids[0], NULL);
    cr_assert_eq(answer(r, sync)->error, KAFKA_ERROR_REBALANCE);
    recorder_end(r);

    r = recorder_begin(); /* an id that was only given out */
    uint64_t join = ask(r, GROUP_JOIN, .version = 3);
    struct slice pending = answer(r, ask(r, GROUP_JOIN, 0))->member;
    advance(r, INITIAL_DELAY_MS);
    cr_assert(waits(r, join));
    cr_assert_eq(leave(r, pending, NULL), 0);
    cr_assert_eq(answer(r, join)->error, 0);
    cr_assert_eq(error_of(r, GROUP_JOIN, .member = pending), KAFKA_ERROR_UNKNOWN_MEMBER);
    recorder_end(r);
}

Test(kafka_group, several_leave_with_one_request) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 3, false);
    struct group_request *request = make(r, GROUP_LEAVE, &(struct said){0});
    struct slice ids[] = {f.ids[0], stranger, f.ids[2]};
    put_items(request, "x y z", ids);
    const struct group_request *left = answer(r, send(r, request));
    cr_assert_eq(left->items[0].error, 0);
    cr_assert_eq(left->items[1].error, KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(left->items[2].error, 0);
    cr_assert_eq(answer(r, ask(r, GROUP_JOIN, .member = f.ids[1]))->generation, 2, "one round");
    recorder_end(r);
}

Test(kafka_group, sessions_end) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 2, false);
    advance(r, SESSION_MS - 1);
    cr_assert_eq(beat(r, f.ids[0], 1), 0);
    advance(r, 1);
    cr_assert_eq(beat(r, f.ids[1], 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(beat(r, f.ids[0], 1), KAFKA_ERROR_REBALANCE);
    advance(r, SESSION_MS);
    cr_assert_state(r, GROUP_DEAD);
    recorder_end(r);

    /* What counts as a heartbeat, and what does not. */
    for (unsigned i = 0; i < 5; i++) {
        r = recorder_begin();
        f = form_stable(r, 2, false);
        advance(r, SESSION_MS - 1);
        if (i == 0)
            ask(r, GROUP_SYNC, .member = f.ids[1], .generation = 1);
        else if (i == 1)
            ask(r, GROUP_JOIN, .member = f.ids[1]);
        else if (i == 2)
            ask(r, GROUP_COMMIT, .member = f.ids[1], .generation = 1);
        else
            ask(r, i == 3 ? GROUP_HEARTBEAT : GROUP_COMMIT, .member = f.ids[1], .generation = 7);
        beat(r, f.ids[0], 1);
        advance(r, 2);
        cr_assert_eq(describe(r)->item_count, i < 3 ? 2 : 1, "case %u", i);
        recorder_end(r);
    }

    /* Who waits does not run out. */
    r = recorder_begin();
    f = form_completing(r, 2, false);
    sync_with(r, f.ids[1], 1);
    for (unsigned i = 0; i < 3; i++) {
        advance(r, SESSION_MS / 2);
        beat(r, f.ids[0], 1);
    }
    cr_assert_eq(describe(r)->item_count, 2);
    recorder_end(r);
}

/* One event is one round, also when it falls on the end of another. */
Test(kafka_group, a_session_that_ends_with_the_round) {
    struct recorder *r = recorder_begin();
    uint64_t a = ask(r, GROUP_JOIN, .version = 3, .rebalance_ms = SESSION_MS);
    uint64_t b = ask(r, GROUP_JOIN, .version = 3, .rebalance_ms = SESSION_MS);
    advance(r, INITIAL_DELAY_MS);
    struct slice ids[] = {answer(r, a)->member, answer(r, b)->member};
    beat(r, ids[1], 1);
    a = ask(r, GROUP_JOIN, .member = ids[0], .items = "range=n", .rebalance_ms = SESSION_MS);
    advance(r, SESSION_MS);
    cr_assert_eq(answer(r, a)->generation, 2);
    cr_assert_state(r, GROUP_COMPLETING);
    recorder_end(r);
}
