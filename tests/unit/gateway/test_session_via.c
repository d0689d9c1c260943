/* Gateway devices and topic maps: whose events are stored, and what becomes of those that may not
 * be. */
#include <stdio.h>

#include "gateway/session/authorize.h"
#include "gateway/session/tenants.h"
#include "session_recorder.h"

TestSuite(session_via, .fini = check_leaks);

enum { CHILD_KEY = 1001 };

/* What the registry says of the child that was asked for. */
static void answer(struct recorder *r, int err, const char *via) {
    struct registry_child_query found = {.tenant_key = 7,
                                         .err = err,
                                         .device_key = CHILD_KEY,
                                         .partition = 11,
                                         .via = err == 0 ? strdup(via) : NULL};
    strcpy(found.child, r->child);
    strcpy(found.group, "meters");
    cr_assert_eq(children_store(&r->shared.children, &found, r->shared.now_ns / 1000000), 0);
    free(found.via);
    session_child_done(&r->session);
}

/* The endpoint offers again what the session did not take. */
static void feed_via(struct recorder *r, uint8_t qos, uint16_t id, const char *topic, int err,
                     const char *via) {
    unsigned asked = r->find_child_count;
    feed_publish(r, qos, false, id, topic, "x");
    if (r->find_child_count == asked)
        return;
    cr_assert(r->session.flags & SESSION_PAUSED_CHILD);
    answer(r, err, via);
    cr_assert(!(r->session.flags & SESSION_PAUSED_CHILD));
    feed_publish(r, qos, false, id, topic, "x");
}

static const struct recorded_event *last(const struct recorder *r) {
    return &r->events[r->event_count - 1];
}

Test(session_via, the_event_is_the_childs) {
    EACH_VERSION(version) {
        for (uint8_t qos = 0; qos <= 2; qos++) {
            struct recorder *r = connected(version);
            feed_via(r, qos, 1, "$dg/via/s1/a/b", 0, "gw0 dev1 ");
            cr_assert_str_eq(r->child, "s1");
            cr_assert_eq(r->event_count, 2);
            cr_assert_str_eq(last(r)->child, "s1");
            cr_assert_str_eq(last(r)->via, "dev1");
            cr_assert_str_eq(last(r)->subject, "a/b");
            cr_assert_eq(last(r)->partition, 11);
            cr_assert_eq(last(r)->type, EVENT_TELEMETRY);
            cr_assert_eq(r->sent_size, 0);
            feed_via(r, qos, 2, "$dg/via/s1/$dg/events/door", 0, "");
            cr_assert_eq(r->find_child_count, 1);
            cr_assert_eq(last(r)->type, EVENT_EVENT);
            cr_assert_str_eq(last(r)->subject, "door");
            complete_all(r, 1);
            cr_assert_eq(r->sent_size, qos == 0 ? 0u : 8u);
            cr_assert(qos == 0 || r->sent[0] == (qos == 1 ? 0x40 : 0x50));
            feed_via(r, qos, 3, "own", 0, "");
            cr_assert_str_eq(last(r)->child, "");
            cr_assert_str_eq(last(r)->via, "");
            recorder_free(r);
        }
    }
}

static void expect_quarantined(const struct recorder *r, unsigned count, const char *topic) {
    cr_assert_eq(r->event_count, count);
    cr_assert(last(r)->quarantined);
    cr_assert_str_eq(last(r)->child, "", "it is the gateway's own");
    cr_assert_str_eq(last(r)->subject, topic);
}

static const struct {
    const char *child;
    int err;
    const char *via;
} strangers[] = {{"unknown", DG_ERR_VIA, ""},
                 {"nobodys", 0, ""},
                 {"others", 0, "gw0 dev11 dev "},
                 {"me", 0, "me "}};
enum { STRANGER_COUNT = sizeof(strangers) / sizeof(strangers[0]) };

/* MQTT 5 is told, nothing is stored; QoS 0 cannot be. */
Test(session_via, mqtt5_may_not_speak_for) {
    for (unsigned i = 0; i < STRANGER_COUNT; i++) {
        struct recorder *r = connected(MQTT_VERSION_5);
        char topic[64];
        snprintf(topic, sizeof(topic), "$dg/via/%s/a", strangers[i].child);
        feed_via(r, 1, 1, topic, strangers[i].err, strangers[i].via);
        cr_assert(r->sent[0] == 0x40 && r->sent[4] == 0x87, "%s", topic);
        forget_sent(r);
        feed_via(r, 2, 2, topic, strangers[i].err, strangers[i].via);
        cr_assert_eq(r->find_child_count, 1, "%s: a no is believed for a moment", topic);
        cr_assert(r->sent[0] == 0x50 && r->sent[4] == 0x87, "%s", topic);
        cr_assert_eq(r->event_count, 1);
        feed_via(r, 0, 0, topic, strangers[i].err, strangers[i].via);
        expect_quarantined(r, 2, topic);
        cr_assert_eq(r->close_count, 0);
        advance(r, LIMIT_CHILD_REFUSED_MS);
        feed_via(r, 1, 3, topic, 0, "dev1 ");
        cr_assert_eq(r->find_child_count, 2);
        cr_assert_str_eq(last(r)->child, strangers[i].child);
        recorder_free(r);
    }
}

/* Stored, though elsewhere: 3.1.1 has no word for it. */
Test(session_via, mqtt311_may_not_speak_for) {
    for (unsigned i = 0; i < STRANGER_COUNT; i++) {
        struct recorder *r = connected(MQTT_VERSION_3_1_1);
        char topic[64];
        snprintf(topic, sizeof(topic), "$dg/via/%s/a", strangers[i].child);
        for (uint8_t qos = 0; qos <= 2; qos++) {
            feed_via(r, qos, qos, topic, strangers[i].err, strangers[i].via);
            expect_quarantined(r, qos + 2u, topic);
        }
        cr_assert_eq(r->sent_size, 0);
        complete_all(r, 1);
        cr_assert_sent(r, 0x40, 2, 0, 1, 0x50, 2, 0, 2);
        forget_sent(r);
        feed(r, "\x62\x02\x00\x02", 4);
        cr_assert_sent(r, 0x70, 2, 0, 2);
        cr_assert_eq(r->close_count, 0);
        recorder_free(r);
    }
}

Test(session_via, a_refusal_waits_for_its_turn) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_publish(r, 1, false, 1, "own", "x");
        feed_via(r, 1, 2, "$dg/via/s1/a", DG_ERR_VIA, "");
        cr_assert_eq(r->sent_size, 0);
        complete_all(r, 1);
        cr_assert_eq(r->sent[3], 1);
        cr_assert_eq(r->sent[4], 0x40);
        recorder_free(r);
    }
}

/* Later may be another matter: 3.1.1 gets no ack, so that its device sends it again. */
Test(session_via, the_registry_does_not_know) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_via(r, 0, 0, "$dg/via/s1/a", DG_ERR_BUSY, "");
        feed_via(r, 1, 1, "$dg/via/s1/a", DG_ERR_BUSY, "");
        cr_assert_eq(r->event_count, 1);
        if (version == MQTT_VERSION_5) {
            cr_assert_eq(r->sent[0], 0x40);
            cr_assert_eq(r->sent[4], 0x80);
        } else {
            cr_assert_eq(r->sent_size, 0);
            advance(r, LIMIT_MQTT_WITHHELD_MS);
            cr_assert_eq(session_deadline(&r->session), 0);
            cr_assert_eq(r->end.err, DG_ERR_UNAVAILABLE);
        }
        recorder_free(r);
    }
}

/* A refusal has a reason string in front. */
static void expect_granted(const struct recorder *r, uint8_t first, uint8_t second) {
    cr_assert(r->sent_size > 7 || second < 0x80);
    cr_assert_eq(r->sent[0], 0x90);
    cr_assert_eq(r->sent[r->sent_size - 2], first);
    cr_assert_eq(r->sent[r->sent_size - 1], second);
}

static void feed_subscribe_both(struct recorder *r, const char *first, const char *second) {
    uint8_t bytes[256];
    struct slice filters[] = {slice_from_string(first), slice_from_string(second)};
    struct writer w = writer_make(bytes, sizeof(bytes));
    writer_u8(&w, 0x82);
    writer_u8(&w, (uint8_t)(2 + 1 + 2 * 3 + filters[0].size + filters[1].size));
    writer_u16(&w, 9);
    writer_u8(&w, 0);
    for (unsigned i = 0; i < 2; i++) {
        writer_u16(&w, (uint16_t)filters[i].size);
        writer_slice(&w, filters[i]);
        writer_u8(&w, 1);
    }
    feed(r, bytes, writer_size(&w));
}

static void feed_subscribe(struct recorder *r, const char *filter) {
    feed_subscribe_both(r, "$dg/commands/#", filter);
}

Test(session_via, nobody_has_memory_to_ask) {
    struct recorder *r = connected(MQTT_VERSION_5);
    r->find_child_err = DG_ERR_NO_MEMORY;
    feed_publish(r, 1, false, 1, "$dg/via/s1/a", "x");
    cr_assert_eq(r->sent[4], 0x97);
    forget_sent(r);
    feed_subscribe(r, "$dg/via/s1/commands/#");
    expect_granted(r, 1, 0x80);
    recorder_free(r);
}

Test(session_via, a_change_is_heard) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_via(r, 1, 1, "$dg/via/s1/a", 0, "dev1 ");
    children_forget(&r->shared.children, CHILD_KEY + 1);
    feed_via(r, 1, 2, "$dg/via/s1/a", 0, "dev1 ");
    cr_assert_eq(r->find_child_count, 1);
    children_forget(&r->shared.children, CHILD_KEY);
    feed_via(r, 1, 3, "$dg/via/s1/a", 0, "gw2 ");
    cr_assert_eq(r->find_child_count, 2);
    cr_assert_eq(r->event_count, 3);
    recorder_free(r);
}

Test(session_via, topics_that_are_refused) {
    static const char *const topics[] = {
        "$dg/via/s1", "$dg/via/s1/", "$dg/via//a", "$dg/via/s1/$SYS/x", "$dg/via/s1/$dg/via/s2/a",
    };
    for (unsigned i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) {
        struct recorder *r = connected(MQTT_VERSION_5);
        feed_publish(r, 1, false, 1, topics[i], "x");
        cr_assert_eq(r->find_child_count, 0, "%s", topics[i]);
        cr_assert(r->sent[0] == 0x40 && r->sent[4] >= 0x80, "%s", topics[i]);
        recorder_free(r);
    }
}

Test(session_via, ends_while_it_asks) {
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    feed_publish(r, 1, false, 1, "$dg/via/s1/a", "x");
    cr_assert(r->session.flags & SESSION_PAUSED_CHILD);
    session_stop(&r->session, DG_ERR_TAKEN_OVER, NULL);
    unsigned resumed = r->resume_count;
    answer(r, 0, "dev1 ");
    cr_assert_eq(r->resume_count, resumed);
    recorder_free(r);
}

/* A will is the device's own: none is left for a child. */
Test(session_via, no_will_for_a_child) {
    struct recorder *r = connected(MQTT_VERSION_5);
    struct session_permit permit;
    cr_assert_eq(
        session_may(&r->session, SESSION_LEAVE_WILL, slice_from_string("$dg/via/s1/a"), &permit),
        DG_ERR_NOT_AUTHORIZED);
    recorder_free(r);
}

Test(session_via, subscribing_for_a_child) {
    static const struct {
        const char *via;
        uint8_t reason;
    } cases[] = {{"dev1 ", 1}, {"gw2 ", 0x87}};
    static const char *const filters[] = {"$dg/via/s1/commands/#", "$dg/via/s1/state/desired"};
    for (unsigned i = 0; i < 4; i++) {
        struct recorder *r = connected(MQTT_VERSION_5);
        feed_subscribe(r, filters[i / 2]);
        cr_assert_eq(r->sent_size, 0);
        cr_assert_null(r->session.kept);
        answer(r, 0, cases[i % 2].via);
        feed_subscribe(r, filters[i / 2]);
        cr_assert_eq(r->find_child_count, 1);
        expect_granted(r, 1, cases[i % 2].reason);
        recorder_free(r);
    }
}

/* A no is believed for less long than the next answer takes: each is asked for twice at most. */
Test(session_via, subscribing_while_the_registry_is_slow) {
    struct recorder *r = connected(MQTT_VERSION_5);
    for (unsigned packet = 1; packet <= 2; packet++) {
        for (unsigned i = 0; i < 4; i++) {
            feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
            cr_assert(r->session.flags & SESSION_PAUSED_CHILD);
            advance(r, LIMIT_CHILD_REFUSED_MS);
            answer(r, DG_ERR_VIA, "");
        }
        feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
        cr_assert_eq(r->find_child_count, 4 * packet);
        expect_granted(r, 0x80, 0x87);
        forget_sent(r);
        advance(r, LIMIT_CHILD_REFUSED_MS);
    }
    recorder_free(r);
}

/* The gateway hears of a change of the first while it asks for the second. */
Test(session_via, a_change_is_heard_while_subscribing) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
    answer(r, 0, "dev1 ");
    feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
    children_forget(&r->shared.children, CHILD_KEY);
    answer(r, DG_ERR_VIA, "");
    feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
    answer(r, 0, "dev1 ");
    feed_subscribe_both(r, "$dg/via/s1/commands/#", "$dg/via/s2/commands/#");
    cr_assert_eq(r->find_child_count, 3);
    expect_granted(r, 1, 0x87);
    recorder_free(r);
}

/* ---- topic maps ---- */

static void set_policy(struct recorder *r, int64_t version, const char *text) {
    struct registry_policy *policy;
    char detail[256];
    cr_assert_eq(registry_policy_parse(slice_make(NULL, 0), slice_from_string(text), version,
                                       REGISTRY_POLICY_STRICT, &policy, detail, sizeof(detail)),
                 0, "%s", detail);
    tenant_update(&r->shared, 7, policy);
    registry_policy_release(policy);
}

static const char map_text[] =
    "{\"topic_map\": {\"in\": [{\"pattern\": \"legacy/+/alarm\", \"kind\": \"event\"},"
    "{\"pattern\": \"nodes/{device}/up/#\", \"kind\": \"via\"},"
    "{\"pattern\": \"nodes/{device}/alarm\", \"kind\": \"event\"},"
    "{\"pattern\": \"{device}/#\", \"kind\": \"via\"}],"
    "\"out\": {\"command\": \"cmd/{id}/{name}\", \"via_command\": \"nodes/{device}/cmd/{id}\"}}}";

Test(session_via, a_map_gives_topics_their_meaning) {
    static const struct {
        const char *topic, *child, *subject;
        enum event_type type;
    } cases[] = {
        {"legacy/7/alarm", "", "legacy/7/alarm", EVENT_EVENT},
        {"nodes/s1/up/a/b", "s1", "a/b", EVENT_TELEMETRY},
        {"nodes/s1/up/legacy/7/alarm", "s1", "legacy/7/alarm", EVENT_EVENT},
        {"nodes/s1/up/nodes/s2/up/a", "s1", "nodes/s2/up/a", EVENT_TELEMETRY},
        {"nodes/s1/up/$dg/events/door", "s1", "door", EVENT_EVENT},
        {"nodes/s1/alarm", "s1", "nodes/s1/alarm", EVENT_EVENT},
        {"s1/x/y", "s1", "x/y", EVENT_TELEMETRY},
        {"own", "", "own", EVENT_TELEMETRY},
        {"$dg/events/door", "", "door", EVENT_EVENT},
        {"$dg/via/s1/legacy/7/alarm", "s1", "legacy/7/alarm", EVENT_EVENT},
    };
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_via(r, 0, 0, "legacy/7/alarm", 0, "");
    cr_assert_eq(last(r)->type, EVENT_TELEMETRY);
    set_policy(r, 1, map_text);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned before = r->event_count;
        feed_via(r, 0, 0, cases[i].topic, 0, "dev1 ");
        cr_assert_eq(r->event_count, before + 1, "%s", cases[i].topic);
        cr_expect_str_eq(last(r)->child, cases[i].child, "%s", cases[i].topic);
        cr_expect_str_eq(last(r)->subject, cases[i].subject, "%s", cases[i].topic);
        cr_expect_eq(last(r)->type, cases[i].type, "%s", cases[i].topic);
    }
    set_policy(r, 2, "{}");
    feed_via(r, 0, 0, "legacy/7/alarm", 0, "");
    cr_assert_eq(last(r)->type, EVENT_TELEMETRY);
    recorder_free(r);
}

Test(session_via, a_map_has_filters_of_its_own) {
    static const struct {
        const char *filter;
        int err;
        const char *child;
    } cases[] = {
        {"cmd/+/+", 0, ""},
        {"cmd/#", 0, ""},
        {"$dg/commands/#", 0, ""},
        {"nodes/s1/cmd/+", 0, "s1"},
        {"$dg/via/s1/commands/#", 0, "s1"},
        {"nodes/+/cmd/+", DG_ERR_WILDCARD, ""},
        {"#", DG_ERR_WILDCARD, ""},
        {"own", DG_ERR_NOT_AUTHORIZED, ""},
        {"$share/g/cmd/+/+", DG_ERR_SHARED_SUBSCRIPTION, ""},
    };
    struct recorder *r = connected(MQTT_VERSION_5);
    struct session_permit permit;
    cr_assert_eq(session_may(&r->session, SESSION_SUBSCRIBE, slice_from_string("cmd/#"), &permit),
                 DG_ERR_WILDCARD);
    set_policy(r, 1, map_text);
    feed_via(r, 0, 0, "$dg/via/s1/a", 0, "dev1 ");
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice filter = slice_from_string(cases[i].filter);
        permit = (struct session_permit){.child = NULL};
        cr_expect_eq(session_may(&r->session, SESSION_SUBSCRIBE, filter, &permit), cases[i].err,
                     "%s", cases[i].filter);
        cr_expect(slice_equals_string(permit.child_name, cases[i].child), "%s", cases[i].filter);
        cr_expect_eq(permit.child != NULL, permit.child_name.size > 0, "%s", cases[i].filter);
    }
    recorder_free(r);
}

/* The child's own quota holds, whoever speaks for it; another child and the gateway go on. */
Test(session_via, quota_of_the_child) {
    static const char rules[] =
        "{\"groups\": {\"meters\": {\"device_quota\": {\"messages_per_second\": 2}}}}";
    struct registry_policy *policy;
    char detail[128] = "";
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        cr_assert_eq(registry_policy_parse((struct slice){0}, slice_from_string(rules), 9,
                                           REGISTRY_POLICY_STRICT, &policy, detail, sizeof(detail)),
                     0, "%s", detail);
        tenant_update(&r->shared, 7, policy);
        registry_policy_release(policy);
        uint16_t id = 1;
        for (; id < 20 && !(r->session.flags & SESSION_PAUSED_QUOTA); id++)
            feed_via(r, 1, id, "$dg/via/s1/a", 0, "dev1 ");
        cr_assert(id > 2 && id < 10, "%u", id);
        unsigned stored = r->event_count;
        advance(r, 600);
        session_deadline(&r->session);
        cr_assert(!(r->session.flags & SESSION_PAUSED_QUOTA));
        feed_via(r, 1, id, "$dg/via/s1/a", 0, "dev1 ");
        cr_assert_eq(r->event_count, stored + 1);
        recorder_free(r);
    }
}

/* ---- delivered for a child ---- */

static unsigned back_count;
static int back_err;

static void on_back(struct outbox_message *message) {
    back_count++;
    back_err = message->outcome == OUTBOX_DROPPED ? message->err : 0;
    outbox_message_free_parts(message);
    free(message);
}

static int deliver_to_child(struct recorder *r, int64_t child_key) {
    struct outbox_message *message = calloc(1, sizeof(*message));
    *message = (struct outbox_message){.finished = on_back,
                                       .expires_ms = UINT64_MAX,
                                       .device_key = child_key,
                                       .kind = OUTBOX_COMMAND,
                                       .topic = slice_from_string("$dg/commands/c9/x"),
                                       .payload = malloc(1),
                                       .qos = 2,
                                       .wants_reply = true};
    int err = session_deliver(&r->session, message);
    if (err < 0) {
        outbox_message_free_parts(message);
        free(message);
    }
    return err;
}

static void feed_via_subscribe(struct recorder *r, const char *filter, bool is_subscribe) {
    uint8_t bytes[128] = {is_subscribe ? 0x82 : 0xA2};
    struct writer w = writer_make(bytes + 2, sizeof(bytes) - 2);
    writer_bytes(&w, "\0\1", 2);
    if (r->session.version == MQTT_VERSION_5)
        writer_u8(&w, 0);
    writer_u16(&w, (uint16_t)strlen(filter));
    writer_bytes(&w, filter, strlen(filter));
    if (is_subscribe)
        writer_u8(&w, 1);
    bytes[1] = (uint8_t)writer_size(&w);
    feed(r, bytes, 2u + bytes[1]);
    if (r->session.flags & SESSION_PAUSED_CHILD) {
        answer(r, 0, "dev1 ");
        feed(r, bytes, 2u + bytes[1]);
    }
}

static bool sent_text(const struct recorder *r, const char *text) {
    return memmem(r->sent, r->sent_size, text, strlen(text)) != NULL;
}

Test(session_via, messages_to_a_child) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        back_count = 0;
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), DG_ERR_NOT_FOUND);
        feed_via_subscribe(r, "$dg/via/s1/commands/#", true);
        cr_assert_eq(r->receives_count, 1);
        cr_assert_eq(r->received_key, CHILD_KEY);
        forget_sent(r);
        cr_assert_eq(deliver_to_child(r, CHILD_KEY + 1), DG_ERR_NOT_FOUND, "another one");
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), 0);
        cr_assert(sent_text(r, "$dg/via/s1/commands/c9/x"));
        cr_assert_eq(sent_text(r, "$dg/via/s1/$dg/replies/c9/200"), version == MQTT_VERSION_5);
        feed_via_subscribe(r, "$dg/via/s1/commands/#", false);
        cr_assert_eq(r->receives_no_more_count, 1);
        cr_assert_eq(r->received_key, CHILD_KEY);
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), DG_ERR_NOT_FOUND);
        cr_assert_eq(back_count, 0, "what was sent is not taken back");
        session_recall(&r->session, CHILD_KEY);
        cr_assert_eq(back_count, 1);
        cr_assert_eq(back_err, DG_ERR_TAKEN_OVER);
        recorder_free(r);
    }
}

/* Whether it may be spoken for is asked where the effect happens. */
Test(session_via, messages_to_a_child_that_was_taken_away) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        back_count = 0;
        feed_via_subscribe(r, "$dg/via/s1/commands/#", true);
        children_forget(&r->shared.children, CHILD_KEY);
        unsigned asked = r->find_child_count;
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), DG_ERR_PRESSURE, "in a moment");
        cr_assert_eq(r->find_child_count, asked + 1);
        answer(r, 0, "dev1 ");
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), 0);
        children_forget(&r->shared.children, CHILD_KEY);
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), DG_ERR_PRESSURE);
        answer(r, 0, "dev2 ");
        cr_assert_eq(deliver_to_child(r, CHILD_KEY), DG_ERR_NOT_FOUND);
        cr_assert_eq(back_count, 0);
        recorder_free(r);
    }
}
