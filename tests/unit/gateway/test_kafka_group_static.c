/* Consumer groups: static members (KIP-345, KIP-814). */
#include "common/writer.h"
#include "gateway/kafka/group_internal.h"
#include "group_recorder.h"

TestSuite(kafka_group_static, .fini = check_leaks);

static int16_t beat_at(struct recorder *r, struct slice member, const char *instance,
                       int32_t generation) {
    return error_of(r, GROUP_HEARTBEAT, .member = member, .instance = instance,
                    .generation = generation);
}

static int16_t beat(struct recorder *r, struct slice member, const char *instance) {
    return beat_at(r, member, instance, 1);
}

Test(kafka_group_static, a_static_member_needs_no_id_first) {
    struct recorder *r = recorder_begin();
    uint64_t ticket = ask(r, GROUP_JOIN, .version = 9, .instance = "i0");
    advance(r, INITIAL_DELAY_MS);
    cr_assert_eq(answer(r, ticket)->error, 0);
    cr_assert(slice_starts_with(answer(r, ticket)->member, "i0-"));
    recorder_end(r);
}

/* A follower that starts again: the same place under a new id, and nobody else hears of it. */
Test(kafka_group_static, a_restart_is_no_round) {
    for (int16_t version = 5; version <= 9; version++) {
        struct recorder *r = recorder_begin();
        struct formed f = form_stable(r, 2, true);
        const struct group_request *back =
            answer(r, ask(r, GROUP_JOIN, .version = version, .instance = "i1"));
        cr_assert_eq(back->error, 0);
        cr_assert_eq(back->generation, 1);
        cr_assert(!slice_equals(back->member, f.ids[1]));
        cr_assert(slice_equals(back->leader, f.ids[0]));
        cr_assert_eq(back->item_count, 0);
        cr_assert(!back->skip_assignment);
        cr_assert_state(r, GROUP_STABLE);
        cr_assert_eq(beat(r, f.ids[0], "i0"), 0);
        cr_assert(is(
            answer(r, ask(r, GROUP_SYNC, .member = back->member, .instance = "i1", .generation = 1))
                ->assignment,
            "a1"));
        cr_assert_eq(beat(r, back->member, "i1"), 0);
        /* The old id is fenced wherever it shows itself with the instance, and unknown without. */
        const enum group_operation operations[] = {GROUP_HEARTBEAT, GROUP_SYNC, GROUP_JOIN};
        for (unsigned i = 0; i < 3; i++) {
            cr_assert_eq(
                error_of(r, operations[i], .member = f.ids[1], .instance = "i1", .generation = 1),
                KAFKA_ERROR_FENCED_INSTANCE);
            cr_assert_eq(error_of(r, operations[i], .member = f.ids[1], .generation = 1),
                         KAFKA_ERROR_UNKNOWN_MEMBER);
        }
        struct group_request *commit = make(
            r, GROUP_COMMIT, &(struct said){.member = f.ids[1], .instance = "i1", .generation = 1});
        commit->offsets = group_take(commit, sizeof(*commit->offsets));
        commit->offset_count = 1;
        cr_assert_eq(answer(r, send(r, commit))->offsets[0].error, KAFKA_ERROR_FENCED_INSTANCE);
        cr_assert_eq(leave(r, f.ids[1], "i1"), KAFKA_ERROR_FENCED_INSTANCE);
        cr_assert_eq(describe(r)->item_count, 2);
        recorder_end(r);
    }
}

/* The leader must not assign then: nobody would fetch it. */
Test(kafka_group_static, a_leader_that_starts_again_does_not_assign) {
    for (int16_t version = 5; version <= 9; version++) {
        struct recorder *r = recorder_begin();
        struct formed f = form_stable(r, 2, true);
        const struct group_request *back =
            answer(r, ask(r, GROUP_JOIN, .version = version, .instance = "i0"));
        cr_assert_eq(back->error, 0);
        cr_assert_eq(back->generation, 1);
        cr_assert_eq(back->skip_assignment, version >= 9);
        cr_assert_eq(back->item_count, version >= 9 ? 2 : 0);
        cr_assert(slice_equals(back->leader, version >= 9 ? back->member : f.ids[0]));
        cr_assert(is(
            answer(r, ask(r, GROUP_SYNC, .member = back->member, .instance = "i0", .generation = 1))
                ->assignment,
            "a0"));
        /* It leads all the same: when it joins again, that is a round. */
        cr_assert(waits(r, ask(r, GROUP_JOIN, .member = back->member, .instance = "i0")));
        recorder_end(r);
    }
}

/* ---- consumers that come back with something else to say ---- */

/* Topic "t" with a partition for each digit. */
static void write_partitions(struct writer *to, const char *digits) {
    writer_u32(to, 1);
    writer_u16(to, 1);
    writer_u8(to, 't');
    writer_u32(to, (uint32_t)strlen(digits));
    for (; *digits; digits++)
        writer_u32(to, (uint32_t)(*digits - '0'));
}

/* A subscription to one topic; owned NULL: of version 0, which does not say. */
static struct slice subscription(uint8_t *bytes, const char *topic, const char *owned,
                                 const char *user_data) {
    struct writer to = writer_make(bytes, 256);
    writer_u16(&to, owned ? 3 : 0);
    writer_u32(&to, 1);
    writer_u16(&to, (uint16_t)strlen(topic));
    writer_bytes(&to, topic, strlen(topic));
    writer_u32(&to, user_data ? (uint32_t)strlen(user_data) : UINT32_MAX);
    writer_bytes(&to, user_data, user_data ? strlen(user_data) : 0);
    if (owned)
        write_partitions(&to, owned);
    writer_u32(&to, 5); /* generation and more */
    return slice_make(bytes, writer_size(&to));
}

static struct slice assignment(uint8_t *bytes, const char *digits) {
    struct writer to = writer_make(bytes, 256);
    writer_u16(&to, 1);
    write_partitions(&to, digits);
    writer_u32(&to, UINT32_MAX);
    return slice_make(bytes, writer_size(&to));
}

static uint64_t subscribe(struct recorder *r, const char *type, struct slice member,
                          const char *instance, struct slice metadata) {
    struct group_request *request =
        make(r, GROUP_JOIN, &(struct said){.type = type, .instance = instance, .member = member});
    request->items = group_take(request, sizeof(*request->items));
    request->item_count = 1;
    keep(request, text("range"), &request->items[0].id);
    keep(request, metadata, &request->items[0].bytes);
    return send(r, request);
}

/* i0 and i1 have joined; i1 said `metadata` and is given `given`. */
static void form_consumers(struct recorder *r, const char *type, struct slice metadata,
                           struct slice given, struct slice *ret_ids) {
    uint64_t a = subscribe(r, type, (struct slice){0}, "i0", metadata);
    uint64_t b = subscribe(r, type, (struct slice){0}, "i1", metadata);
    advance(r, INITIAL_DELAY_MS);
    ret_ids[0] = answer(r, a)->member;
    ret_ids[1] = answer(r, b)->member;
    struct group_request *sync =
        make(r, GROUP_SYNC, &(struct said){.member = ret_ids[0], .generation = 1});
    put_items(sync, "x", &ret_ids[1]);
    sync->items[0].bytes = given;
    answer(r, send(r, sync));
}

Test(kafka_group_static, what_a_consumer_must_have_a_round_for) {
    const struct {
        const char *type, *owned, *given, *topic, *owns_now;
        bool is_round;
    } cases[] = {
        {"consumer", "", "123", "tel", "", false},
        {"consumer", "13", "123", "tel", "", false}, /* what it owned it has still */
        {"consumer", "31", "123", "tel", "", false},
        {"consumer", NULL, "123", "tel", NULL, false},
        {"consumer", NULL, "123", "tel", "", false}, /* a newer version of the client */
        {"consumer", "14", "123", "tel", "", true},  /* it should give 4 back, and does not know */
        {"consumer", "1", "", "tel", "", true},
        {"consumer", "13", "123", "tem", "", true},
        {"consumer", "13", "123", "tel2", "", true},
        {"consumer", "13", "123", "te", "", true},
        {"connect", "13", "123", "tel", "13", false},
        {"connect", "13", "123", "tel", "", true}, /* who knows what that means */
    };
    const unsigned count = sizeof(cases) / sizeof(cases[0]);
    for (unsigned n = 0; n < 3 * count; n++) {
        const char *user_data = n < count ? "usr" : n < 2 * count ? "" : NULL;
        unsigned i = n % count;
        struct recorder *r = recorder_begin();
        uint8_t before[256], given[256], now[256];
        struct slice ids[2];
        form_consumers(r, cases[i].type, subscription(before, "tel", cases[i].owned, user_data),
                       assignment(given, cases[i].given), ids);
        uint64_t back = subscribe(r, cases[i].type, (struct slice){0}, "i1",
                                  subscription(now, cases[i].topic, cases[i].owns_now, user_data));
        cr_assert_eq(waits(r, back), cases[i].is_round, "case %u", i);
        cr_assert_state(r, cases[i].is_round ? GROUP_PREPARING : GROUP_STABLE);
        recorder_end(r);
    }
    /* A member that is there says what it owns with its own id: that is a round, as ever. */
    struct recorder *r = recorder_begin();
    uint8_t before[256], given[256], now[256];
    struct slice ids[2];
    form_consumers(r, "consumer", subscription(before, "tel", "", NULL), assignment(given, "1"),
                   ids);
    cr_assert(
        waits(r, subscribe(r, "consumer", ids[1], "i1", subscription(now, "tel", "1", NULL))));
    recorder_end(r);
}

/* Bytes that are cut anywhere, or changed, are a round at worst. */
Test(kafka_group_static, consumers_that_speak_nonsense) {
    unsigned rounds = 0, others = 0;
    for (unsigned cut = 0; cut < 60; cut++) {
        for (unsigned change = 0; change < 3; change++) {
            struct recorder *r = recorder_begin();
            uint8_t before[256], given[256], now[256];
            struct slice ids[2];
            struct slice metadata = subscription(before, "tel", "13", "usr");
            struct slice gives = assignment(given, "123");
            if (change == 0 && cut < metadata.size)
                metadata.size = cut;
            else if (change == 1)
                before[cut] ^= 0xff;
            else if (cut < gives.size)
                given[cut] ^= 0x80;
            form_consumers(r, "consumer", metadata, gives, ids);
            uint64_t back = subscribe(r, "consumer", (struct slice){0}, "i1",
                                      subscription(now, "tel", "", NULL));
            rounds += waits(r, back);
            others += !waits(r, back);
            recorder_end(r);
        }
    }
    cr_assert_gt(rounds, 50);
    cr_assert_gt(others, 5);
}

/* Each of very many partitions would be looked up in very many. */
Test(kafka_group_static, a_consumer_of_very_many_partitions) {
    enum { COUNT = 20000 };
    struct recorder *r = recorder_begin();
    uint8_t *bytes = calloc(2, 64 + COUNT * 4), *given = bytes + 64 + COUNT * 4, now[256];
    struct writer to = writer_make(bytes, 64 + COUNT * 4);
    struct writer gives = writer_make(given, 64 + COUNT * 4);
    writer_u16(&to, 1);
    writer_u32(&to, 1); /* a topic without a name */
    writer_u16(&to, 0);
    writer_u32(&to, UINT32_MAX);
    writer_u16(&gives, 1);
    for (unsigned i = 0; i < 2; i++) {
        struct writer *list = i == 0 ? &to : &gives;
        writer_u32(list, 1);
        writer_u16(list, 0);
        writer_u32(list, COUNT);
        for (uint32_t p = 0; p < COUNT; p++)
            writer_u32(list, p);
    }
    struct slice ids[2], metadata = slice_make(bytes, writer_size(&to));
    form_consumers(r, "consumer", metadata, slice_make(given, writer_size(&gives)), ids);
    cr_assert(waits(
        r, subscribe(r, "consumer", (struct slice){0}, "i1", subscription(now, "", "", NULL))));
    free(bytes);
    recorder_end(r);
}

/* ---- replaced in other states ---- */

Test(kafka_group_static, replaced_while_its_join_waits) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 2, true);
    uint64_t old = ask(r, GROUP_JOIN, .member = f.ids[1], .instance = "i1", .items = "range=n");
    cr_assert_state(r, GROUP_PREPARING);
    uint64_t newer = ask(r, GROUP_JOIN, .instance = "i1", .items = "range=n");
    cr_assert_eq(answer(r, old)->error, KAFKA_ERROR_FENCED_INSTANCE);
    cr_assert(waits(r, newer));
    uint64_t first = ask(r, GROUP_JOIN, .member = f.ids[0], .instance = "i0");
    cr_assert_eq(answer(r, newer)->generation, 2);
    cr_assert_eq(answer(r, first)->item_count, 2);
    cr_assert(slice_equals(answer(r, first)->items[1].id, answer(r, newer)->member) ||
              slice_equals(answer(r, first)->items[0].id, answer(r, newer)->member));
    recorder_end(r);
}

/* The leader may have assigned to the old id already: the new one would get nothing. */
Test(kafka_group_static, replaced_while_the_assignment_is_awaited) {
    struct recorder *r = recorder_begin();
    struct formed f = form_completing(r, 3, true);
    uint64_t sync1 = ask(r, GROUP_SYNC, .member = f.ids[1], .generation = 1);
    uint64_t sync2 = ask(r, GROUP_SYNC, .member = f.ids[2], .generation = 1);
    uint64_t newer = ask(r, GROUP_JOIN, .instance = "i1");
    cr_assert_eq(answer(r, sync2)->error, KAFKA_ERROR_REBALANCE);
    cr_assert_eq(answer(r, sync1)->error, KAFKA_ERROR_FENCED_INSTANCE);
    cr_assert_state(r, GROUP_PREPARING);
    ask(r, GROUP_JOIN, .member = f.ids[0], .instance = "i0");
    ask(r, GROUP_JOIN, .member = f.ids[2], .instance = "i2");
    cr_assert_eq(answer(r, newer)->generation, 2);
    recorder_end(r);
}

Test(kafka_group_static, away_for_a_whole_round) {
    struct recorder *r = recorder_begin();
    const char *const names[] = {"i0", "i1", "i2"};
    uint64_t tickets[3];
    struct slice ids[3];
    for (unsigned i = 0; i < 3; i++) /* its session is longer than a round */
        tickets[i] = ask(r, GROUP_JOIN, .instance = names[i], .session_ms = 30000,
                         .rebalance_ms = 30000 - 1);
    advance(r, INITIAL_DELAY_MS);
    for (unsigned i = 0; i < 3; i++)
        ids[i] = answer(r, tickets[i])->member;
    ask(r, GROUP_SYNC, .member = ids[0], .generation = 1, .items = "a0 a1 a2", .to = ids);
    advance(r, 15000);
    cr_assert_eq(beat(r, ids[1], "i1"), 0);
    uint64_t joins[] = {ask(r, GROUP_JOIN, .member = ids[0], .instance = "i0", .session_ms = 1000,
                            .rebalance_ms = 1000),
                        ask(r, GROUP_JOIN, .member = ids[2], .instance = "i2", .session_ms = 1000,
                            .rebalance_ms = 1000)};
    advance(r, 16000);
    cr_assert(waits(r, joins[0]), "the longest time-out is i1's");
    cr_assert_eq(beat(r, ids[1], "i1"), KAFKA_ERROR_REBALANCE);
    advance(r, 14001);
    /* The round ends without it, but it is still a member. */
    cr_assert_eq(answer(r, joins[0])->generation, 2);
    cr_assert_eq(answer(r, joins[0])->item_count, 3);
    cr_assert_eq(
        error_of(r, GROUP_SYNC, .member = ids[0], .generation = 2, .items = "b0 b1 b2", .to = ids),
        0);
    cr_assert_state(r, GROUP_STABLE);
    ask(r, GROUP_SYNC, .member = ids[2], .generation = 2);
    /* Its heartbeat tells it; it joins under its id and has what it was given. */
    cr_assert_eq(beat(r, ids[1], "i1"), KAFKA_ERROR_ILLEGAL_GENERATION);
    const struct group_request *back =
        answer(r, ask(r, GROUP_JOIN, .member = ids[1], .instance = "i1"));
    cr_assert_eq(back->generation, 2);
    cr_assert(
        is(answer(r, ask(r, GROUP_SYNC, .member = ids[1], .generation = 2))->assignment, "b1"));
    recorder_end(r);
}

/* What it is given in each of them takes the place of what it was given before. */
Test(kafka_group_static, away_for_many_rounds) {
    struct recorder *r = recorder_begin();
    struct slice ids[2];
    uint64_t tickets[] = {ask(r, GROUP_JOIN, .instance = "i0", .rebalance_ms = 1000),
                          ask(r, GROUP_JOIN, .instance = "i1", .rebalance_ms = 1000)};
    advance(r, INITIAL_DELAY_MS);
    for (unsigned i = 0; i < 2; i++)
        ids[i] = answer(r, tickets[i])->member;
    struct group *group = group_find(r->groups, 0, text("g"));
    size_t before = group_member_by_instance(group, text("i1"))->profile->taken_bytes;
    ask(r, GROUP_SYNC, .member = ids[0], .generation = 1, .items = "a0 a1", .to = ids);
    for (int32_t round = 2; round < 200; round++) {
        uint64_t join =
            ask(r, GROUP_JOIN, .member = ids[0], .instance = "i0", .rebalance_ms = 1000);
        advance(r, 1000);
        cr_assert_eq(answer(r, join)->generation, round);
        cr_assert_eq(beat_at(r, ids[1], "i1", round), 0);
        ask(r, GROUP_SYNC, .member = ids[0], .generation = round, .items = "b0 b1", .to = ids);
    }
    cr_assert_eq(group_member_by_instance(group, text("i1"))->profile->taken_bytes, before);
    cr_assert(
        is(answer(r, ask(r, GROUP_SYNC, .member = ids[1], .instance = "i1", .generation = 199))
               ->assignment,
           "b1"));
    recorder_end(r);
}

/* The leader too: then one that has come leads. And who stays away is kept as long as its session
 * lasts, though it does not ask for what it was given. */
Test(kafka_group_static, a_leader_that_is_away) {
    struct recorder *r = recorder_begin();
    uint64_t tickets[2];
    struct slice ids[2];
    tickets[0] = ask(r, GROUP_JOIN, .instance = "i0", .session_ms = 60000, .rebalance_ms = 60000);
    tickets[1] = ask(r, GROUP_JOIN, .instance = "i1", .session_ms = 1000, .rebalance_ms = 1000);
    advance(r, INITIAL_DELAY_MS);
    for (unsigned i = 0; i < 2; i++)
        ids[i] = answer(r, tickets[i])->member;
    ask(r, GROUP_SYNC, .member = ids[0], .generation = 1, .items = "a0 a1", .to = ids);
    ask(r, GROUP_JOIN, .member = ids[0], .instance = "i0", .session_ms = 200000,
        .rebalance_ms = 1000);
    ask(r, GROUP_JOIN, .member = ids[1], .instance = "i1", .session_ms = 1000);
    cr_assert_state(r, GROUP_COMPLETING);
    ask(r, GROUP_SYNC, .member = ids[0], .generation = 2, .items = "a0 a1", .to = ids);
    uint64_t back = ask(r, GROUP_JOIN, .member = ids[1], .instance = "i1", .items = "range=new",
                        .session_ms = 1000, .rebalance_ms = 1000);
    advance(r, 200000 - 1000);
    cr_assert_eq(answer(r, back)->generation, 3);
    cr_assert(slice_equals(answer(r, back)->leader, ids[1]));
    cr_assert_eq(answer(r, back)->item_count, 2);
    cr_assert_eq(describe(r)->item_count, 1, "i1 did not beat since, i0 is still in");
    cr_assert(slice_equals(describe(r)->items[0].id, ids[0]));
    advance(r, 1000);
    cr_assert_state(r, GROUP_DEAD);
    recorder_end(r);
}

Test(kafka_group_static, its_session_ends_all_the_same) {
    struct recorder *r = recorder_begin();
    struct formed f = form_stable(r, 2, true);
    advance(r, SESSION_MS - 1);
    beat(r, f.ids[0], "i0");
    advance(r, 1);
    cr_assert_eq(beat(r, f.ids[0], "i0"), KAFKA_ERROR_REBALANCE);
    cr_assert_eq(describe(r)->item_count, 1);
    /* Then it is a new member. */
    uint64_t back = ask(r, GROUP_JOIN, .instance = "i1");
    uint64_t first = ask(r, GROUP_JOIN, .member = f.ids[0], .instance = "i0");
    cr_assert_eq(answer(r, back)->generation, 2);
    cr_assert_eq(answer(r, first)->item_count, 2);
    recorder_end(r);
}

/* All are away when the round's time is over: it goes on until they come or run out. */
Test(kafka_group_static, nobody_comes_to_the_round) {
    struct recorder *r = recorder_begin();
    struct slice ids[2];
    uint64_t tickets[2];
    tickets[0] = ask(r, GROUP_JOIN, .instance = "i0", .session_ms = 1000, .rebalance_ms = 1000);
    tickets[1] = ask(r, GROUP_JOIN, .instance = "i1", .session_ms = 60000, .rebalance_ms = 1000);
    advance(r, INITIAL_DELAY_MS);
    for (unsigned i = 0; i < 2; i++)
        ids[i] = answer(r, tickets[i])->member;
    ask(r, GROUP_SYNC, .member = ids[0], .generation = 1, .items = "a0 a1", .to = ids);
    ask(r, GROUP_SYNC, .member = ids[1], .generation = 1);
    advance(r, 1000); /* i0 runs out */
    cr_assert_state(r, GROUP_PREPARING);
    advance(r, 58000);
    cr_assert_state(r, GROUP_PREPARING);
    uint64_t back = ask(r, GROUP_JOIN, .member = ids[1], .instance = "i1");
    cr_assert_eq(answer(r, back)->generation, 2);
    cr_assert(slice_equals(answer(r, back)->leader, ids[1]));
    recorder_end(r);
}
