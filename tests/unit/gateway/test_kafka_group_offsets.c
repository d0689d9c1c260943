/* Consumer groups: committed offsets, what administrators ask, and hostile requests. */
#include <stdio.h>

#include "group_recorder.h"

TestSuite(kafka_group_offsets, .fini = check_leaks);

static struct group_request *with_offset(struct group_request *request, uint64_t stream,
                                         uint32_t partition, int64_t offset, const char *metadata) {
    if (!request->offsets)
        request->offsets = group_take(request, 8 * sizeof(*request->offsets));
    struct group_offset *to = &request->offsets[request->offset_count++];
    to->stream_id = stream;
    to->partition = partition;
    to->offset = offset;
    to->epoch = 7;
    keep(request, text(metadata), &to->metadata);
    return request;
}

static uint64_t ask_commit(struct recorder *r, const struct said *said, int64_t offset) {
    return send(r, with_offset(make(r, GROUP_COMMIT, said), 3, 0, offset, "note"));
}

/* The error of a commit to partition 0 of stream 3. */
#define commit(r, offset_, ...) \
    answer(r, ask_commit(r, &(struct said){__VA_ARGS__}, offset_))->offsets[0].error

static const struct group_offset *read_one(struct recorder *r, const struct said *said,
                                           uint32_t partition) {
    const struct group_request *read =
        answer(r, send(r, with_offset(make(r, GROUP_READ_OFFSETS, said), 3, partition, 0, NULL)));
    cr_assert_eq(read->error, 0);
    cr_assert_eq(read->offsets[0].error, 0);
    return &read->offsets[0];
}

static int64_t stored(struct recorder *r, uint32_t partition) {
    return read_one(r, &(struct said){0}, partition)->offset;
}

/* ---- OffsetCommit ---- */

Test(kafka_group_offsets, a_consumer_that_assigns_itself) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(commit(r, 5, .generation = -1), 0);
    cr_assert_state(r, GROUP_EMPTY);
    cr_assert(is(describe(r)->protocol_type, ""));
    cr_assert_eq(commit(r, 6, .generation = -1, .instance = "i"), 0);
    cr_assert_eq(stored(r, 0), 6);
    cr_assert_eq(read_one(r, &(struct said){0}, 0)->epoch, 7);
    cr_assert(is(read_one(r, &(struct said){0}, 0)->metadata, "note"));
    struct formed f = form_stable(r, 1, false);
    cr_assert_eq(commit(r, 7, .generation = -1), KAFKA_ERROR_UNKNOWN_MEMBER, "it has members");
    leave(r, f.ids[0], NULL);
    cr_assert_eq(commit(r, 8, .generation = -1), 0);
    cr_assert_eq(stored(r, 0), 8);
    recorder_end(r);
}

Test(kafka_group_offsets, who_may_commit) {
    struct slice stranger = text("stranger");
    struct recorder *r = recorder_begin();
    cr_assert_eq(commit(r, 1, .member = stranger, .generation = 1), KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(answer(r, ask(r, GROUP_LIST, 0))->item_count, 0);
    struct formed f = form_completing(r, 2, false);
    cr_assert_eq(commit(r, 1, .member = f.ids[0], .generation = 1), KAFKA_ERROR_REBALANCE);
    ask(r, GROUP_SYNC, .member = f.ids[0], .generation = 1);
    cr_assert_eq(commit(r, 2, .member = f.ids[0], .generation = 0), 22);
    cr_assert_eq(commit(r, 2, .member = f.ids[0], .generation = -1), 22);
    cr_assert_eq(commit(r, 2, .member = stranger, .generation = 1), 25);
    cr_assert_eq(commit(r, 2, .member = f.ids[0], .generation = 1, .instance = "i"), 25);
    cr_assert_eq(stored(r, 0), -1);
    cr_assert_eq(commit(r, 3, .member = f.ids[1], .generation = 1), 0);
    cr_assert_eq(stored(r, 0), 3);
    /* In its revoke callback a client commits while the round has begun. */
    ask(r, GROUP_JOIN, .member = f.ids[0]);
    cr_assert_state(r, GROUP_PREPARING);
    cr_assert_eq(commit(r, 4, .member = f.ids[1], .generation = 1), 0);
    cr_assert_eq(stored(r, 0), 4);
    ask(r, GROUP_JOIN, .member = f.ids[1]);
    cr_assert_eq(commit(r, 5, .member = f.ids[1], .generation = 1), 22);
    recorder_end(r);
}

/* -1 says that there is none, and the lag of others has no number. */
Test(kafka_group_offsets, offsets_below_zero_are_refused) {
    static const int64_t offsets[] = {-1, -2, INT64_MIN};
    struct recorder *r = recorder_begin();
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(commit(r, offsets[i], .generation = -1), KAFKA_ERROR_INVALID_REQUEST);
        cr_assert_state(r, GROUP_DEAD);
        struct group_offset old = {.stream_id = 3, .offset = offsets[i]};
        cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &old), 0);
        cr_assert_state(r, GROUP_DEAD); /* what an older release took */
    }
    cr_assert_eq(commit(r, 0, .generation = -1), 0);
    cr_assert_eq(commit(r, INT64_MAX, .generation = -1), 0);
    recorder_end(r);
}

/* One commit to partition 0 of stream 3 with so much metadata. */
static int16_t commit_metadata(struct recorder *r, int64_t tenant, const char *group, size_t size) {
    static char metadata[LIMIT_KAFKA_OFFSET_METADATA_BYTES + 1];
    memset(metadata, 'm', size);
    metadata[size] = '\0';
    struct said said = {.tenant = tenant, .group = group, .generation = -1};
    return answer(r, send(r, with_offset(make(r, GROUP_COMMIT, &said), 3, 0, 1, metadata)))
        ->offsets[0]
        .error;
}

Test(kafka_group_offsets, a_tenant_has_room_for_so_much_metadata) {
    enum { MUCH = LIMIT_KAFKA_OFFSET_METADATA_BYTES };
    struct recorder *r = recorder_begin();
    static char metadata[MUCH];
    unsigned kept = LIMIT_KAFKA_TENANT_OFFSET_BYTES / MUCH;
    for (uint32_t i = 0; i < kept; i++) {
        char group[16];
        snprintf(group, sizeof(group), "g%u", i % 10);
        struct group_offset offset = {
            .stream_id = 4, .partition = i, .offset = 1, .metadata = slice_make(metadata, MUCH)};
        cr_assert_eq(group_restore_offset(r->groups, 1, text(group), &offset), 0);
    }
    cr_assert_eq(commit_metadata(r, 1, "g", 0), KAFKA_ERROR_POLICY_VIOLATION);
    struct group_offset small = {.stream_id = 3, .offset = 1};
    cr_assert_eq(group_restore_offset(r->groups, 1, text("g"), &small), 0);
    cr_assert_eq(commit_metadata(r, 1, "g", 0), 0, "it takes no more than before");
    cr_assert_eq(commit_metadata(r, 1, "g", 1), KAFKA_ERROR_OFFSET_METADATA_TOO_LARGE);
    cr_assert_eq(commit_metadata(r, 2, "g", MUCH), 0, "another tenant");
    cr_assert_eq(error_of(r, GROUP_DELETE, .tenant = 1, .group = "g0"), 0);
    cr_assert_eq(commit_metadata(r, 1, "g", 1), 0);
    recorder_end(r);
}

Test(kafka_group_offsets, a_request_has_so_much_memory) {
    struct group_request *request = group_request_new(GROUP_DESCRIBE);
    cr_assert(group_take(request, 1));
    cr_assert_null(group_take(request, LIMIT_KAFKA_GROUP_REQUEST_BYTES));
    cr_assert(group_take(request, LIMIT_KAFKA_GROUP_REQUEST_BYTES / 2));
    cr_assert_null(group_take(request, LIMIT_KAFKA_GROUP_REQUEST_BYTES / 2));
    cr_assert(group_take(request, 1), "a little still");
    group_request_free(request);
}

Test(kafka_group_offsets, an_offset_is_there_when_it_is_durable) {
    struct recorder *r = recorder_begin();
    r->hold_stores = true;
    uint64_t first = ask_commit(r, &(struct said){.generation = -1}, 1);
    cr_assert(waits(r, first));
    cr_assert_eq(stored(r, 0), -1);
    uint64_t second = ask_commit(r, &(struct said){.generation = -1}, 2);
    finish_store(r, 0);
    cr_assert_eq(answer(r, first)->offsets[0].error, 0);
    cr_assert_eq(stored(r, 0), 1);
    finish_store(r, DG_ERR_IO);
    cr_assert_eq(answer(r, second)->offsets[0].error, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    cr_assert_eq(stored(r, 0), 1);
    recorder_end(r);

    /* The member is gone, and so would be the group, were nothing on its way. */
    r = recorder_begin();
    struct formed f = form_stable(r, 1, false);
    r->hold_stores = true;
    uint64_t last = ask_commit(r, &(struct said){.member = f.ids[0], .generation = 1}, 3);
    leave(r, f.ids[0], NULL);
    advance(r, 1);
    cr_assert_state(r, GROUP_EMPTY);
    finish_store(r, DG_ERR_IO);
    cr_assert_eq(answer(r, last)->offsets[0].error, KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    cr_assert_state(r, GROUP_DEAD);
    recorder_end(r);
}

Test(kafka_group_offsets, each_partition_has_its_own_error) {
    char long_note[LIMIT_KAFKA_OFFSET_METADATA_BYTES + 2] = {0};
    memset(long_note, 'x', sizeof(long_note) - 1);
    struct recorder *r = recorder_begin();
    struct group_request *request = make(r, GROUP_COMMIT, &(struct said){.generation = -1});
    with_offset(request, 3, 0, 10, long_note);
    with_offset(request, 3, 1, 11, long_note + 1);
    with_offset(request, 3, 2, 12, NULL);
    with_offset(request, 3, 3, 13, NULL)->offsets[3].error = KAFKA_ERROR_UNKNOWN_TOPIC;
    const struct group_request *done = answer(r, send(r, request));
    cr_assert_eq(done->error, 0);
    cr_assert_eq(done->offsets[0].error, KAFKA_ERROR_OFFSET_METADATA_TOO_LARGE);
    cr_assert_eq(done->offsets[1].error, 0);
    cr_assert_eq(done->offsets[2].error, 0);
    cr_assert_eq(done->offsets[3].error, KAFKA_ERROR_UNKNOWN_TOPIC, "the asker's stays");
    cr_assert_eq(stored(r, 0), -1);
    cr_assert_eq(stored(r, 1), 11);
    cr_assert_eq(stored(r, 2), 12);
    cr_assert_eq(stored(r, 3), -1);
    recorder_end(r);
    /* Nothing is stored: nothing is left. */
    r = recorder_begin();
    request =
        with_offset(make(r, GROUP_COMMIT, &(struct said){.generation = -1}), 3, 0, 1, long_note);
    cr_assert_eq(answer(r, send(r, request))->offsets[0].error, 12);
    cr_assert_state(r, GROUP_DEAD);
    recorder_end(r);
}

Test(kafka_group_offsets, room_for_so_many_and_always_for_those_that_are_there) {
    struct recorder *r = recorder_begin();
    for (uint32_t i = 0; i < LIMIT_KAFKA_GROUP_OFFSETS - 2; i++) {
        struct group_offset offset = {.stream_id = 3, .partition = i, .offset = i};
        cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &offset), 0);
    }
    struct group_request *request = make(r, GROUP_COMMIT, &(struct said){.generation = -1});
    for (uint32_t i = 0; i < 4; i++)
        with_offset(request, 9, i, 100 + i, NULL);
    for (uint32_t i = 0; i < 4; i++)
        with_offset(request, 3, i, 200 + i, NULL);
    const struct group_request *done = answer(r, send(r, request));
    for (uint32_t i = 0; i < 8; i++) {
        bool is_refused = i == 2 || i == 3;
        cr_assert_eq(done->offsets[i].error, is_refused ? KAFKA_ERROR_POLICY_VIOLATION : 0, "%u",
                     i);
    }
    cr_assert_eq(stored(r, 3), 203);
    cr_assert_eq(commit(r, 300, .generation = -1), 0, "full");
    recorder_end(r);
    /* More than that from a store that had a higher limit. */
    r = recorder_begin();
    for (uint32_t i = 0; i < LIMIT_KAFKA_GROUP_OFFSETS + 2; i++) {
        struct group_offset offset = {.stream_id = 3, .partition = i, .offset = i};
        cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &offset), 0);
    }
    request = with_offset(make(r, GROUP_COMMIT, &(struct said){.generation = -1}), 9, 0, 1, NULL);
    cr_assert_eq(answer(r, send(r, request))->offsets[0].error, KAFKA_ERROR_POLICY_VIOLATION);
    recorder_end(r);
}

/* ---- OffsetFetch ---- */

Test(kafka_group_offsets, reading) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(stored(r, 0), -1, "no such group");
    cr_assert_eq(read_one(r, &(struct said){0}, 0)->epoch, -1);
    struct group_request *request =
        make(r, GROUP_COMMIT, &(struct said){.generation = -1, .tenant = 1});
    with_offset(with_offset(request, 3, 0, 10, "a"), 4, 5, 20, NULL);
    answer(r, send(r, request));
    cr_assert_eq(stored(r, 0), -1, "another tenant's");
    cr_assert_eq(read_one(r, &(struct said){.tenant = 1}, 0)->offset, 10);
    cr_assert_eq(read_one(r, &(struct said){.tenant = 1}, 1)->offset, -1);
    for (int64_t tenant = 0; tenant < 2; tenant++) {
        request = make(r, GROUP_READ_OFFSETS, &(struct said){.tenant = tenant});
        request->wants_all_offsets = true;
        const struct group_request *all = answer(r, send(r, request));
        cr_assert_eq(all->error, 0);
        cr_assert_eq(all->offset_count, tenant == 1 ? 2 : 0);
        for (uint32_t i = 0; i < all->offset_count; i++)
            cr_assert_eq(all->offsets[i].offset, all->offsets[i].stream_id == 3 ? 10 : 20);
    }
    recorder_end(r);
}

Test(kafka_group_offsets, restored) {
    struct recorder *r = recorder_begin();
    struct group_offset offset = {
        .stream_id = 3, .partition = 1, .offset = 9, .epoch = 2, .metadata = text("m")};
    cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &offset), 0);
    offset.offset = 10;
    cr_assert_eq(group_restore_offset(r->groups, 0, text("g"), &offset), 0);
    cr_assert_eq(stored(r, 1), 10);
    cr_assert_state(r, GROUP_EMPTY);
    char name[LIMIT_KAFKA_GROUP_NAME_BYTES + 2] = {0};
    memset(name, 'x', sizeof(name) - 1);
    cr_assert_eq(group_restore_offset(r->groups, 0, text(name), &offset), DG_ERR_CORRUPT);
    cr_assert_eq(group_restore_offset(r->groups, 0, text(name + 1), &offset), 0);
    recorder_end(r);
}

/* ---- OffsetDelete, DeleteGroups ---- */

static const struct group_request *delete_offset(struct recorder *r, const char *topic) {
    struct group_request *request =
        with_offset(make(r, GROUP_DELETE_OFFSETS, &(struct said){0}), 3, 0, 0, NULL);
    keep(request, text(topic), &request->offsets[0].topic);
    return answer(r, send(r, request));
}

static struct slice join_as(struct recorder *r, const char *type, struct slice metadata) {
    struct group_request *request = make(r, GROUP_JOIN, &(struct said){.version = 3, .type = type});
    request->items = group_take(request, sizeof(*request->items));
    request->item_count = 1;
    keep(request, text("range"), &request->items[0].id);
    keep(request, metadata, &request->items[0].bytes);
    uint64_t ticket = send(r, request);
    cr_assert(!waits(r, ticket) || slice_equals_string(metadata, "") ||
              describe(r)->state == GROUP_PREPARING);
    advance(r, INITIAL_DELAY_MS);
    return answer(r, ticket)->member;
}

Test(kafka_group_offsets, what_nobody_subscribes_to_can_be_forgotten) {
    static const char two_topics[] = "\0\1\0\0\0\2\0\1a\0\3tel\xff\xff\xff\xff";
    static const char endless[] = "\0\1\xff\xff\xff\xff\0\1a\0\0\0\0";
    static const char cut[] = "\0\1\0\0\0\1\0\5tel";
    const struct {
        const char *type;
        struct slice metadata;
        const char *topic;
        int16_t error;
    } cases[] = {
        {"consumer", {(const uint8_t *)two_topics, sizeof(two_topics) - 1}, "tel", 86},
        {"consumer", {(const uint8_t *)two_topics, sizeof(two_topics) - 1}, "a", 86},
        {"consumer", {(const uint8_t *)two_topics, sizeof(two_topics) - 1}, "te", 0},
        {"consumer", {(const uint8_t *)two_topics, sizeof(two_topics) - 1}, "telx", 0},
        {"consumer", {(const uint8_t *)endless, sizeof(endless) - 1}, "b", 86},
        {"consumer", {(const uint8_t *)cut, sizeof(cut) - 1}, "tel", 86},
        {"consumer", {NULL, 0}, "tel", 86},
        {"connect", {(const uint8_t *)two_topics, sizeof(two_topics) - 1}, "te", 68},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_begin();
        cr_assert_eq(delete_offset(r, "tel")->error, KAFKA_ERROR_GROUP_NOT_FOUND);
        cr_assert_eq(commit(r, 5, .generation = -1), 0);
        struct slice id = join_as(r, cases[i].type, cases[i].metadata);
        cr_assert_eq(delete_offset(r, cases[i].topic)->offsets[0].error, cases[i].error, "%u", i);
        cr_assert_eq(stored(r, 0), cases[i].error ? 5 : -1);
        leave(r, id, NULL);
        if (cases[i].error) {
            r->store_err = DG_ERR_IO;
            cr_assert_eq(delete_offset(r, cases[i].topic)->offsets[0].error, 15);
            cr_assert_eq(stored(r, 0), 5);
            r->store_err = 0;
            cr_assert_eq(delete_offset(r, cases[i].topic)->offsets[0].error, 0, "no member");
        }
        advance(r, 1); /* when it was in use is forgotten as well */
        cr_assert_state(r, GROUP_DEAD);
        recorder_end(r);
    }
    /* Before the first round is over nobody knows what will be read. */
    struct recorder *r = recorder_begin();
    cr_assert_eq(commit(r, 5, .generation = -1), 0);
    ask(r, GROUP_JOIN, .version = 3);
    cr_assert_eq(delete_offset(r, "tel")->offsets[0].error, KAFKA_ERROR_GROUP_SUBSCRIBED);
    recorder_end(r);
}

Test(kafka_group_offsets, deleting_a_group) {
    struct recorder *r = recorder_begin();
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), KAFKA_ERROR_GROUP_NOT_FOUND);
    struct formed f = form_stable(r, 1, false);
    cr_assert_eq(commit(r, 5, .member = f.ids[0], .generation = 1), 0);
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), KAFKA_ERROR_NON_EMPTY_GROUP);
    leave(r, f.ids[0], NULL);
    cr_assert_state(r, GROUP_EMPTY);
    struct slice pending = answer(r, ask(r, GROUP_JOIN, 0))->member;
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), KAFKA_ERROR_NON_EMPTY_GROUP, "one is on its way");
    leave(r, pending, NULL);
    cr_assert_eq(error_of(r, GROUP_DELETE, .tenant = 1), KAFKA_ERROR_GROUP_NOT_FOUND);
    r->store_err = DG_ERR_IO;
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    cr_assert_eq(stored(r, 0), 5);
    r->store_err = 0;
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), 0);
    cr_assert_state(r, GROUP_DEAD);
    cr_assert_eq(stored(r, 0), -1);
    cr_assert_eq(error_of(r, GROUP_DELETE, 0), KAFKA_ERROR_GROUP_NOT_FOUND);
    recorder_end(r);
}

/* A commit is on its way when the group is deleted: what is stored is stored in that order, so the
 * deletion names it too, or the next start would find it. */
Test(kafka_group_offsets, deleting_a_group_while_it_commits) {
    static const int errors[] = {0, DG_ERR_IO};
    for (unsigned i = 0; i < 2; i++) {
        struct recorder *r = recorder_begin();
        cr_assert_eq(commit(r, 5, .generation = -1), 0);
        r->hold_stores = true;
        struct group_request *request = make(r, GROUP_COMMIT, &(struct said){.generation = -1});
        with_offset(request, 3, 0, 6, NULL);
        with_offset(request, 3, 1, 6, NULL);
        uint64_t committing = send(r, request), deleting = ask(r, GROUP_DELETE, 0);
        cr_assert(waits(r, committing) && waits(r, deleting));
        cr_assert_eq(r->store_count, 2);
        const struct group_request *deletion = r->stores[1];
        cr_assert_eq(deletion->offset_count, 2);
        for (uint32_t p = 0; p < 2; p++)
            cr_expect(deletion->offsets[p].is_delete && deletion->offsets[p].stream_id == 3 &&
                      deletion->offsets[p].partition == p);
        finish_store(r, errors[i]);
        finish_store(r, 0);
        cr_assert_eq(answer(r, deleting)->error, 0);
        cr_assert_state(r, GROUP_DEAD);
        recorder_end(r);
    }
    /* The first commit of all: there is nothing yet but what is on its way. */
    struct recorder *r = recorder_begin();
    r->hold_stores = true;
    uint64_t committing = ask_commit(r, &(struct said){.generation = -1}, 6);
    uint64_t deleting = ask(r, GROUP_DELETE, 0);
    uint64_t after = ask_commit(r, &(struct said){.generation = -1}, 7);
    cr_assert(waits(r, deleting));
    finish_store(r, 0);
    finish_store(r, 0);
    finish_store(r, 0);
    cr_assert_eq(answer(r, committing)->offsets[0].error, 0);
    cr_assert_eq(answer(r, deleting)->error, 0);
    cr_assert_eq(answer(r, after)->offsets[0].error, 0);
    cr_assert_eq(stored(r, 0), 7); /* what came later stands */
    recorder_end(r);
}

Test(kafka_group_offsets, forgetting_an_offset_while_it_is_committed) {
    struct recorder *r = recorder_begin();
    r->hold_stores = true;
    uint64_t committing = ask_commit(r, &(struct said){.generation = -1}, 6);
    uint64_t forgetting =
        send(r, with_offset(make(r, GROUP_DELETE_OFFSETS, &(struct said){0}), 3, 0, 0, NULL));
    cr_assert_eq(r->store_count, 2);
    cr_assert(r->stores[1]->offsets[0].is_delete);
    finish_store(r, 0);
    cr_assert_eq(answer(r, committing)->offsets[0].error, 0);
    cr_assert_eq(stored(r, 0), 6);
    finish_store(r, 0);
    cr_assert_eq(answer(r, forgetting)->offsets[0].error, 0);
    cr_assert_eq(stored(r, 0), -1);
    recorder_end(r);
}

/* A large commit is stored in pieces: what was stored is not called failed. */
Test(kafka_group_offsets, a_piece_that_could_not_be_stored) {
    struct recorder *r = recorder_begin();
    r->hold_stores = true;
    struct group_request *request = make(r, GROUP_COMMIT, &(struct said){.generation = -1});
    for (uint32_t p = 0; p < 3; p++)
        with_offset(request, 3, p, 6, NULL);
    uint64_t ticket = send(r, request);
    group_fail_offsets(r->stores[0], 1, 2);
    finish_store(r, 0);
    cr_assert_eq(answer(r, ticket)->error, 0);
    for (uint32_t p = 0; p < 3; p++) {
        cr_expect_eq(answer(r, ticket)->offsets[p].error,
                     p == 1 ? KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE : 0);
        cr_expect_eq(stored(r, p), p == 1 ? -1 : 6);
    }
    recorder_end(r);
}

/* ---- what administrators ask ---- */

Test(kafka_group_offsets, describing) {
    struct recorder *r = recorder_begin();
    cr_assert_state(r, GROUP_DEAD);
    cr_assert_eq(describe(r)->error, 0);
    struct formed f = form_completing(r, 2, true);
    cr_assert_state(r, GROUP_COMPLETING);
    ask(r, GROUP_SYNC, .member = f.ids[0], .generation = 1, .items = "a0 a1", .to = f.ids);
    const struct group_request *group = describe(r);
    cr_assert_eq(group->state, GROUP_STABLE);
    cr_assert(is(group->protocol_type, "consumer"));
    cr_assert(is(group->protocol, "range"));
    cr_assert_eq(group->item_count, 2);
    cr_assert(slice_equals(group->items[1].id, f.ids[1]));
    cr_assert(is(group->items[1].instance, "i1"));
    cr_assert(is(group->items[1].bytes, "m"));
    cr_assert(is(group->items[1].assignment, "a1"));
    cr_assert(is(group->items[1].client_id, "client"));
    cr_assert(is(group->items[1].client_host, "/192.0.2.1"));
    ask(r, GROUP_JOIN, .member = f.ids[0]);
    cr_assert_state(r, GROUP_PREPARING);
    cr_assert(is(describe(r)->protocol, ""));
    const char *const names[] = {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable",
                                 "Dead"};
    for (unsigned i = 0; i <= GROUP_DEAD; i++)
        cr_assert_str_eq(group_state_names[i], names[i]);
    recorder_end(r);
}

Test(kafka_group_offsets, tenants_do_not_see_each_other) {
    struct recorder *r = recorder_begin();
    uint64_t mine = ask(r, GROUP_JOIN, .version = 3, .tenant = 1);
    uint64_t theirs = ask(r, GROUP_JOIN, .version = 3, .tenant = 2, .type = "connect");
    ask(r, GROUP_JOIN, .version = 3, .tenant = 2, .group = "h");
    advance(r, INITIAL_DELAY_MS);
    cr_assert_eq(answer(r, mine)->item_count, 1);
    cr_assert_eq(answer(r, theirs)->item_count, 1);
    struct slice id = answer(r, mine)->member;
    const enum group_operation operations[] = {GROUP_HEARTBEAT, GROUP_SYNC, GROUP_JOIN};
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(error_of(r, operations[i], .member = id, .generation = 1, .tenant = 2,
                              .type = "connect"),
                     KAFKA_ERROR_UNKNOWN_MEMBER);
    cr_assert_eq(commit(r, 1, .member = id, .generation = 1, .tenant = 2), 25);
    const struct group_request *list = answer(r, ask(r, GROUP_LIST, .tenant = 1, .group = ""));
    cr_assert_eq(list->item_count, 1);
    cr_assert(is(list->items[0].id, "g"));
    cr_assert(is(list->items[0].bytes, "consumer"));
    cr_assert_eq(list->items[0].state, GROUP_COMPLETING);
    cr_assert_eq(answer(r, ask(r, GROUP_LIST, .tenant = 2))->item_count, 2);
    cr_assert_eq(answer(r, ask(r, GROUP_LIST, .tenant = 3))->item_count, 0);
    recorder_end(r);
}

Test(kafka_group_offsets, a_worker_has_room_for_so_many_groups) {
    struct recorder *r = recorder_begin();
    char name[16];
    /* What was stored comes back all the same: perhaps there were more workers. */
    for (unsigned i = 0; i < LIMIT_KAFKA_GROUPS + 5; i++) {
        struct group_offset offset = {.stream_id = 3};
        snprintf(name, sizeof(name), "g%u", i);
        cr_assert_eq(group_restore_offset(r->groups, i % 100, text(name), &offset), 0);
    }
    cr_assert_eq(error_of(r, GROUP_JOIN, 0), KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    cr_assert_eq(commit(r, 1, .generation = -1), KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
    cr_assert_eq(commit(r, 1, .generation = -1, .group = "g77", .tenant = 77), 0);
    recorder_end(r);
}

/* ... and a tenant for fewer, so that it cannot take all. */
Test(kafka_group_offsets, a_tenant_has_room_for_so_many_groups) {
    struct recorder *r = recorder_begin();
    char name[16];
    for (unsigned i = 0; i < LIMIT_KAFKA_GROUPS_OF_TENANT; i++) {
        snprintf(name, sizeof(name), "g%u", i);
        cr_assert_eq(commit(r, 1, .generation = -1, .group = name, .tenant = 1), 0);
    }
    cr_assert_eq(commit(r, 1, .generation = -1, .tenant = 1), KAFKA_ERROR_POLICY_VIOLATION);
    cr_assert_eq(error_of(r, GROUP_JOIN, .tenant = 1), KAFKA_ERROR_POLICY_VIOLATION);
    cr_assert_eq(commit(r, 2, .generation = -1, .group = "g0", .tenant = 1), 0);
    cr_assert_eq(commit(r, 1, .generation = -1, .tenant = 2), 0);
    cr_assert_eq(error_of(r, GROUP_DELETE, .group = "g0", .tenant = 1), 0);
    cr_assert_eq(commit(r, 1, .generation = -1, .tenant = 1), 0);
    recorder_end(r);
}

/* ---- hostile requests ---- */

/* Names with a NUL are names like others. */
Test(kafka_group_offsets, nul_bytes_in_names) {
    struct recorder *r = recorder_begin();
    uint64_t tickets[3];
    static const uint8_t type[] = "con\0nect", protocol[] = "ra\0nge";
    for (unsigned i = 0; i < 3; i++) {
        struct group_request *request = make(r, GROUP_JOIN, &(struct said){.version = 3});
        request->protocol_type = slice_make(type, i == 2 ? 3 : sizeof(type) - 1);
        request->items = group_take(request, sizeof(*request->items));
        request->item_count = 1;
        request->items[0].id = slice_make(protocol, sizeof(protocol) - 1);
        request->items[0].bytes = slice_make("m\0m", 3);
        request->client_id = slice_make("c\0c", 3);
        tickets[i] = send(r, request);
    }
    cr_assert_eq(answer(r, tickets[2])->error, 23, "not a prefix of it");
    advance(r, INITIAL_DELAY_MS);
    const struct group_request *first = answer(r, tickets[0]);
    cr_assert_eq(first->protocol_type.size, sizeof(type) - 1);
    cr_assert_eq(first->protocol.size, sizeof(protocol) - 1);
    cr_assert_eq(first->items[1].bytes.size, 3);
    cr_assert(slice_starts_with(first->member, "c-"));
    struct group_request *sync = make(r, GROUP_SYNC, &(struct said){0});
    sync->member = first->member;
    sync->generation = 1;
    sync->protocol = first->protocol;
    sync->protocol_type = first->protocol_type;
    cr_assert_eq(answer(r, send(r, sync))->error, 0);
    recorder_end(r);
}

/* A member id is text also where the client id is cut. */
Test(kafka_group_offsets, client_ids_of_any_bytes) {
    for (unsigned size = 0; size < 2 * LIMIT_KAFKA_CLIENT_ID_BYTES; size++) {
        struct recorder *r = recorder_begin();
        uint8_t bytes[2 * LIMIT_KAFKA_CLIENT_ID_BYTES];
        for (unsigned i = 0; i < size; i++)
            bytes[i] = (uint8_t) "\xe2\x82\xac"[i % 3];
        struct group_request *request = make(r, GROUP_JOIN, &(struct said){0});
        request->client_id = slice_make(size > 0 ? bytes : NULL, size);
        put_items(request, "range=m", NULL);
        struct slice id = answer(r, send(r, request))->member;
        size_t most = size < LIMIT_KAFKA_CLIENT_ID_BYTES ? size : LIMIT_KAFKA_CLIENT_ID_BYTES;
        cr_assert_eq(id.size, most / 3 * 3 + 33);
        cr_assert_eq(id.data[most / 3 * 3], '-');
        recorder_end(r);
    }
}

/* ---- requests of random bytes and empty slices in every field, in any order ---- */

struct chance {
    uint64_t state;
    struct slice ids[16]; /* that were given out, and an empty one */
    unsigned id_count;
};

static unsigned below(struct chance *c, unsigned bound) {
    c->state = c->state * 6364136223846793005 + 1442695040888963407;
    return (unsigned)(c->state >> 33) % bound;
}

static struct slice any_word(struct chance *c) {
    static const char words[] = "\0gi\0\1\0\0\0\1\0consumer\xff";
    unsigned start = below(c, sizeof(words));
    return below(c, 8) == 0 ? (struct slice){0}
                            : slice_make(words + start, below(c, sizeof(words) - start));
}

static struct slice word_or(struct chance *c, const char *usual) {
    return below(c, 4) == 0 ? any_word(c) : text(usual);
}

static struct slice any_id(struct chance *c) {
    return below(c, 4) == 0 ? any_word(c) : c->ids[below(c, c->id_count)];
}

static struct group_request *any_request(struct recorder *r, struct chance *c) {
    struct group_request *request = group_request_new(below(c, GROUP_DELETE + 1));
    request->owner = r->ticket_count++;
    request->version = (int16_t)below(c, 10);
    request->group = word_or(c, "g");
    request->member = any_id(c);
    request->instance = word_or(c, NULL);
    request->client_id = any_word(c);
    request->protocol_type = word_or(c, "consumer");
    request->protocol = word_or(c, NULL);
    request->generation = (int32_t)below(c, 6) - 1;
    request->session_timeout_ms = below(c, 8) == 0 ? INT32_MIN : 1000 + (int)below(c, 3000);
    request->rebalance_timeout_ms = below(c, 8) == 0 ? INT32_MAX : (int)below(c, 3000);
    request->item_count = below(c, 4);
    request->items = group_take(request, 4 * sizeof(*request->items));
    for (unsigned i = 0; i < request->item_count; i++) {
        request->items[i].id = below(c, 2) == 0 ? any_id(c) : word_or(c, "range");
        request->items[i].bytes = any_word(c);
        request->items[i].instance = word_or(c, NULL);
    }
    request->offset_count = below(c, 4);
    request->offsets = group_take(request, 4 * sizeof(*request->offsets));
    for (unsigned i = 0; i < request->offset_count; i++) {
        request->offsets[i].partition = below(c, 3);
        request->offsets[i].metadata = any_word(c);
        request->offsets[i].topic = any_word(c);
    }
    request->wants_all_offsets = below(c, 2) == 0;
    return request;
}

Test(kafka_group_offsets, any_bytes_anywhere) {
    struct chance c = {.state = 42};
    unsigned joined = 0;
    for (unsigned run = 0; run < 50; run++) {
        struct recorder *r = recorder_begin();
        c.id_count = 1;
        for (unsigned i = 0; i < 400; i++) {
            uint64_t ticket = send(r, any_request(r, &c));
            if (!waits(r, ticket) && answer(r, ticket)->operation == GROUP_JOIN &&
                answer(r, ticket)->member.size > 20 && c.id_count < 16)
                c.ids[c.id_count++] = answer(r, ticket)->member;
            if (below(&c, 4) == 0)
                advance(r, below(&c, 2000));
        }
        advance(r, 3 * LIMIT_KAFKA_SESSION_MS_MAX);
        for (uint64_t i = 0; i < r->ticket_count; i++) {
            cr_assert(!waits(r, i), "run %u: no answer to %lu", run, (unsigned long)i);
            joined += answer(r, i)->operation == GROUP_JOIN && answer(r, i)->error == 0;
        }
        recorder_end(r);
    }
    cr_assert_gt(joined, 50, "it does happen that one is in");
}
