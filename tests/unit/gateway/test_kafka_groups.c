/* Consumer groups through the wire: who waits, who is woken, and offsets that are durable. The
 * rules themselves are test_kafka_group.c's. */
#include <criterion/criterion.h>
#include <unistd.h>

#include "common/metrics.h"
#include "gateway/kafka/beyond.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_groups, .fini = loopback_check_leaks);

static struct kafka_server server;
static struct kafka_client client, other;

static void put_bytes(struct kafka_client *c, const char *text) {
    writer_u32(&c->request, (uint32_t)strlen(text));
    writer_string(&c->request, text);
}

static struct slice take_text(struct kafka_client *c) {
    return reader_slice(&c->answer, reader_u16(&c->answer));
}

Test(kafka_groups, the_coordinator_is_here) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    for (uint8_t key_type = 0; key_type < 2; key_type++) {
        kafka_begin(&client, KAFKA_FIND_COORDINATOR, 1);
        kafka_put_text(&client, "group");
        writer_u8(&client.request, key_type);
        kafka_call_server(&client);
        reader_u32(&client.answer);
        uint16_t error = reader_u16(&client.answer);
        cr_expect_eq(error, key_type == 0 ? 0 : KAFKA_ERROR_INVALID_REQUEST);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* JoinGroup version 0, with one protocol. */
static void send_join(struct kafka_client *c, const char *group, struct slice member) {
    kafka_begin(c, KAFKA_JOIN_GROUP, 0);
    kafka_put_text(c, group);
    writer_u32(&c->request, 10000);
    writer_u16(&c->request, (uint16_t)member.size);
    writer_slice(&c->request, member);
    kafka_put_text(c, "consumer");
    writer_u32(&c->request, 1);
    kafka_put_text(c, "range");
    put_bytes(c, "metadata");
    kafka_send(c);
}

struct joined {
    uint32_t generation;
    char member[256];
    bool leads;
    uint32_t members;
};

static uint16_t take_join(struct kafka_client *c, struct joined *ret) {
    cr_assert(kafka_receive(c));
    uint16_t error = reader_u16(&c->answer);
    ret->generation = reader_u32(&c->answer);
    take_text(c);
    struct slice leader = take_text(c), member = take_text(c);
    snprintf(ret->member, sizeof(ret->member), "%.*s", (int)member.size, (const char *)member.data);
    ret->leads = slice_equals(leader, member);
    ret->members = reader_u32(&c->answer);
    return error;
}

static void send_sync(struct kafka_client *c, const char *group, const struct joined *joined,
                      const struct joined *to, unsigned count) {
    kafka_begin(c, KAFKA_SYNC_GROUP, 0);
    kafka_put_text(c, group);
    writer_u32(&c->request, joined->generation);
    kafka_put_text(c, joined->member);
    writer_u32(&c->request, count);
    for (unsigned i = 0; i < count; i++) {
        kafka_put_text(c, to[i].member);
        put_bytes(c, to[i].member); /* everybody is assigned its own name */
    }
    kafka_send(c);
}

static void expect_assignment(struct kafka_client *c, const struct joined *joined) {
    cr_assert(kafka_receive(c));
    cr_expect_eq(reader_u16(&c->answer), 0);
    struct slice assignment = reader_slice(&c->answer, reader_u32(&c->answer));
    cr_expect(slice_equals_string(assignment, joined->member));
}

static uint16_t heartbeat(struct kafka_client *c, const char *group, const struct joined *joined) {
    kafka_begin(c, KAFKA_HEARTBEAT, 0);
    kafka_put_text(c, group);
    writer_u32(&c->request, joined->generation);
    kafka_put_text(c, joined->member);
    kafka_call_server(c);
    return reader_u16(&c->answer);
}

/* Two members: joins and syncs wait for each other, and a connection that goes away while its
 * request waits takes nothing with it. */
Test(kafka_groups, two_members_share) {
    struct joined joined[2];
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_enter(&other, &server, "reader");
    send_join(&client, "g", slice_make("", 0));
    send_join(&other, "g", slice_make("", 0));
    cr_assert_eq(take_join(&client, &joined[0]), 0);
    cr_assert_eq(take_join(&other, &joined[1]), 0);
    cr_expect_eq(joined[0].generation, joined[1].generation);
    cr_assert_eq(joined[0].leads + joined[1].leads, 1);
    struct kafka_client *leader = joined[0].leads ? &client : &other;
    struct kafka_client *follower = joined[0].leads ? &other : &client;
    const struct joined *led = joined[0].leads ? &joined[1] : &joined[0];
    const struct joined *leads = joined[0].leads ? &joined[0] : &joined[1];
    cr_expect_eq(leads->members, 2);
    cr_expect_eq(led->members, 0);
    send_sync(follower, "g", led, NULL, 0);
    send_sync(leader, "g", leads, joined, 2);
    expect_assignment(leader, leads);
    expect_assignment(follower, led);
    cr_expect_eq(heartbeat(&client, "g", &joined[0]), 0);
    cr_expect_eq(heartbeat(&client, "other", &joined[0]), KAFKA_ERROR_UNKNOWN_MEMBER);
    /* the leader joins again and goes: the follower is told of a new round */
    send_join(leader, "g", slice_from_string(leads->member));
    cr_expect_eq(heartbeat(follower, "g", led), KAFKA_ERROR_REBALANCE);
    kafka_disconnect(leader);
    kafka_disconnect(follower);
    kafka_server_stop(&server);
}

/* ---- offsets ---- */

/* OffsetCommit version 2 of one partition, by nobody in particular. */
static uint16_t commit(struct kafka_client *c, const char *group, const char *topic, int64_t offset,
                       const char *metadata) {
    kafka_begin(c, KAFKA_OFFSET_COMMIT, 2);
    kafka_put_text(c, group);
    writer_u32(&c->request, UINT32_MAX);
    kafka_put_text(c, "");
    writer_u64(&c->request, UINT64_MAX);
    writer_u32(&c->request, 1);
    kafka_put_text(c, topic);
    writer_u32(&c->request, 1);
    writer_u32(&c->request, 2);
    writer_u64(&c->request, (uint64_t)offset);
    kafka_put_text(c, metadata);
    kafka_call_server(c);
    reader_u32(&c->answer);
    take_text(c);
    reader_u32(&c->answer);
    cr_assert_eq(reader_u32(&c->answer), 2);
    return reader_u16(&c->answer);
}

/* OffsetFetch version 2 of all that the group has: "topic/partition=offset(metadata) ". */
static void read_all(struct kafka_client *c, const char *group, char *ret_text, size_t size) {
    kafka_begin(c, KAFKA_OFFSET_FETCH, 2);
    kafka_put_text(c, group);
    writer_u32(&c->request, UINT32_MAX);
    kafka_call_server(c);
    size_t at = 0;
    ret_text[0] = '\0';
    for (uint32_t topics = reader_u32(&c->answer); topics > 0; topics--) {
        struct slice topic = take_text(c);
        for (uint32_t count = reader_u32(&c->answer); count > 0; count--) {
            uint32_t partition = reader_u32(&c->answer);
            int64_t offset = (int64_t)reader_u64(&c->answer);
            struct slice metadata = take_text(c);
            cr_expect_eq(reader_u16(&c->answer), 0);
            at += (size_t)snprintf(ret_text + at, size - at, "%.*s/%u=%lld(%.*s) ", (int)topic.size,
                                   (const char *)topic.data, partition, (long long)offset,
                                   (int)metadata.size, (const char *)metadata.data);
        }
    }
    cr_expect_eq(reader_u16(&c->answer), 0);
}

Test(kafka_groups, offsets_are_kept_for_their_tenant) {
    char text[512];
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_enter(&other, &server, "beta-reader");
    cr_expect_eq(commit(&client, "g", "acme.events", 41, ""), 0);
    cr_expect_eq(commit(&client, "g", "acme.events", 42, "note"), 0);
    cr_expect_eq(commit(&client, "g", "acme.commands", 7, ""), 0);
    cr_expect_eq(commit(&client, "g", "beta.events", 1, ""), KAFKA_ERROR_NOT_AUTHORIZED);
    read_all(&client, "g", text, sizeof(text));
    cr_expect_str_eq(text, "acme.events/2=42(note) acme.commands/2=7() ");
    read_all(&client, "h", text, sizeof(text));
    cr_expect_str_eq(text, "");
    read_all(&other, "g", text, sizeof(text)); /* the same name, another tenant's group */
    cr_expect_str_eq(text, "");
    kafka_disconnect(&client);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}

static void count_entry(void *context, struct slice key, struct slice value) {
    ++*(unsigned *)context;
}

/* Offsets, and when their groups were last in use. */
static void wait_for_entries(unsigned count) {
    for (unsigned seen = 0; seen != count;) {
        seen = 0;
        stream_visit_state(server.stream, STREAM_STATE_CONSUMER, count_entry, &seen);
        usleep(10000);
    }
}

/* As after a restore: what was committed may lie beyond what is there. */
Test(kafka_groups, offsets_beyond_the_end_are_found) {
    kafka_server_start(&server, NULL);
    kafka_server_append(&server, STREAM_EVENTS, 2, 5, 20, 1000);
    kafka_enter(&client, &server, "reader");
    cr_expect_eq(commit(&client, "g", "acme.events", 5, ""), 0);
    cr_expect_eq(kafka_find_offsets_beyond(server.stream), 0);
    cr_expect_eq(commit(&client, "g", "acme.events", 6, ""), 0);
    cr_expect_eq(commit(&client, "h", "acme.commands", 1, ""), 0);
    wait_for_entries(4);
    cr_expect_eq(kafka_find_offsets_beyond(server.stream), 2);
    cr_expect_eq(metric_read(METRIC_KAFKA_OFFSETS_BEYOND), 2);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- roles ---- */

/* What each request for a group comes to: FindCoordinator, Heartbeat, OffsetCommit, OffsetFetch,
 * DescribeGroups, DeleteGroups. */
static uint16_t find_coordinator(struct kafka_client *c, const char *group) {
    kafka_begin(c, KAFKA_FIND_COORDINATOR, 1);
    kafka_put_text(c, group);
    writer_u8(&c->request, 0);
    kafka_call_server(c);
    reader_u32(&c->answer);
    return reader_u16(&c->answer);
}

static uint16_t fetch_offsets(struct kafka_client *c, const char *group) {
    kafka_begin(c, KAFKA_OFFSET_FETCH, 2);
    kafka_put_text(c, group);
    writer_u32(&c->request, 0);
    kafka_call_server(c);
    cr_assert_eq(reader_u32(&c->answer), 0);
    return reader_u16(&c->answer);
}

static uint16_t ask_for_one(struct kafka_client *c, int api, const char *group) {
    kafka_begin(c, api, api == KAFKA_DELETE_GROUPS ? 1 : 0);
    writer_u32(&c->request, 1);
    kafka_put_text(c, group);
    kafka_call_server(c);
    if (api == KAFKA_DELETE_GROUPS)
        reader_u32(&c->answer);
    cr_assert_eq(reader_u32(&c->answer), 1);
    if (api == KAFKA_DELETE_GROUPS)
        take_text(c);
    return reader_u16(&c->answer);
}

static unsigned list_groups(struct kafka_client *c) {
    kafka_begin(c, KAFKA_LIST_GROUPS, 0);
    kafka_call_server(c);
    cr_assert_eq(reader_u16(&c->answer), 0);
    return reader_u32(&c->answer);
}

/* Groups whose name begins with "audit." are the auditors', all others the consumers'. */
Test(kafka_groups, roles_and_groups) {
    static const struct {
        const char *user, *group;
        bool allowed;
    } cases[] = {
        {"reader", "workers", true},      {"reader", "audit.siem", false},
        {"reader", "audit", true},        {"auditor", "workers", false},
        {"auditor", "audit", false},      {"auditor", "audit.siem", true},
        {"platform", "workers", true},    {"platform", "audit.siem", true},
        {"beta-reader", "workers", true},
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool allowed = cases[i].allowed;
        const char *group = cases[i].group;
        struct joined nobody = {.member = "nobody"};
        struct joined joined;
        uint16_t refused = KAFKA_ERROR_GROUP_NOT_AUTHORIZED;
        kafka_enter(&client, &server, cases[i].user);
        cr_expect_eq(find_coordinator(&client, group), allowed ? 0 : refused);
        cr_expect_eq(heartbeat(&client, group, &nobody),
                     allowed ? KAFKA_ERROR_UNKNOWN_MEMBER : refused);
        cr_expect_eq(fetch_offsets(&client, group), allowed ? 0 : refused);
        cr_expect_eq(ask_for_one(&client, KAFKA_DESCRIBE_GROUPS, group), allowed ? 0 : refused);
        cr_expect_eq(ask_for_one(&client, KAFKA_DELETE_GROUPS, group),
                     allowed ? KAFKA_ERROR_GROUP_NOT_FOUND : refused);
        if (!allowed) {
            send_join(&client, group, slice_make("", 0));
            cr_expect_eq(take_join(&client, &joined), refused);
            cr_expect_eq(commit(&client, group, "acme.events", 1, ""), refused);
        }
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

/* Within its groups a key commits what it may read, and lists what is its own. */
Test(kafka_groups, commits_of_topics_that_a_key_may_not_read) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_enter(&other, &server, "auditor");
    cr_expect_eq(commit(&client, "workers", "acme.events", 1, ""), 0);
    cr_expect_eq(commit(&client, "workers", "acme.audit", 1, ""), KAFKA_ERROR_NOT_AUTHORIZED);
    cr_expect_eq(commit(&client, "workers", "beta.events", 1, ""), KAFKA_ERROR_NOT_AUTHORIZED);
    cr_expect_eq(commit(&client, "workers", "acme.nope", 1, ""), KAFKA_ERROR_UNKNOWN_TOPIC);
    cr_expect_eq(commit(&other, "audit.siem", "acme.audit", 1, ""), 0);
    cr_expect_eq(commit(&other, "audit.siem", "acme.events", 1, ""), KAFKA_ERROR_NOT_AUTHORIZED);
    cr_expect_eq(list_groups(&client), 1);
    cr_expect_eq(list_groups(&other), 1);
    kafka_disconnect(&client);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}

Test(kafka_groups, commits_of_partitions_that_there_are_not) {
    static const int32_t partitions[] = {0, KAFKA_TEST_PARTITIONS - 1, KAFKA_TEST_PARTITIONS, -1,
                                         INT32_MAX};
    static const uint16_t errors[] = {0, 0, 3, 3, 3};
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_begin(&client, KAFKA_OFFSET_COMMIT, 2);
    kafka_put_text(&client, "g");
    writer_u32(&client.request, UINT32_MAX);
    kafka_put_text(&client, "");
    writer_u64(&client.request, UINT64_MAX);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 5);
    for (unsigned i = 0; i < 5; i++) {
        writer_u32(&client.request, (uint32_t)partitions[i]);
        writer_u64(&client.request, 10);
        kafka_put_text(&client, "");
    }
    kafka_call_server(&client);
    reader_u32(&client.answer);
    take_text(&client);
    cr_assert_eq(reader_u32(&client.answer), 5);
    for (unsigned i = 0; i < 5; i++) {
        cr_expect_eq((int32_t)reader_u32(&client.answer), partitions[i]);
        cr_expect_eq(reader_u16(&client.answer), errors[i], "%d", partitions[i]);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- more than one message may ask for ---- */

Test(kafka_groups, several_groups_in_one_message) {
    static const char *const names[] = {"a", "audit.b", "c", "a"};
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    cr_expect_eq(commit(&client, "c", "acme.events", 5, ""), 0);
    kafka_begin(&client, KAFKA_DESCRIBE_GROUPS, 0);
    writer_u32(&client.request, 4);
    for (unsigned i = 0; i < 4; i++)
        kafka_put_text(&client, names[i]);
    kafka_call_server(&client);
    cr_assert_eq(reader_u32(&client.answer), 4);
    for (unsigned i = 0; i < 4; i++) {
        cr_expect_eq(reader_u16(&client.answer), i == 1 ? KAFKA_ERROR_GROUP_NOT_AUTHORIZED : 0);
        cr_expect(slice_equals_string(take_text(&client), names[i]));
        cr_expect(slice_equals_string(take_text(&client), i == 2 ? "Empty" : "Dead"));
        take_text(&client);
        take_text(&client);
        cr_expect_eq(reader_u32(&client.answer), 0);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka_groups, more_may_not_leave_than_can_be_in) {
    kafka_server_start(&server, NULL);
    for (unsigned more = 0; more < 2; more++) {
        kafka_enter(&client, &server, "reader");
        kafka_begin(&client, KAFKA_LEAVE_GROUP, 3);
        kafka_put_text(&client, "group");
        writer_u32(&client.request, LIMIT_KAFKA_GROUP_MEMBERS + more);
        for (unsigned i = 0; i < LIMIT_KAFKA_GROUP_MEMBERS + more; i++) {
            kafka_put_text(&client, "");
            kafka_put_text(&client, "instance");
        }
        kafka_send(&client);
        cr_expect_eq(kafka_receive(&client), more == 0);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}
