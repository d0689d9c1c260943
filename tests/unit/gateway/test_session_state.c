/* Reports of state and their acknowledgements; who listens to desired state. */
#include "gateway/session/authorize.h"
#include "gateway/session/tenants.h"
#include "session_recorder.h"

TestSuite(session_state, .fini = check_leaks);

static const char reported[] = "$dg/state/reported";
enum { DEVICE_KEY = 42, CHILD_KEY = 1001 };

static void answered(struct recorder *r, int err, const char *why) {
    session_twin_answered(&r->session, &(struct twin_answer){.owner = r->session.id,
                                                             .tag = r->ask.tag,
                                                             .err = err,
                                                             .version = 2,
                                                             .why = slice_from_string(why)});
}

static void answer_child(struct recorder *r, int err, const char *via) {
    struct registry_child_query found = {.tenant_key = 7,
                                         .err = err,
                                         .device_key = CHILD_KEY,
                                         .partition = 11,
                                         .via = err == 0 ? strdup(via) : NULL};
    strcpy(found.child, r->child);
    cr_assert_eq(children_store(&r->shared.children, &found, r->shared.now_ns / 1000000), 0);
    free(found.via);
    session_child_done(&r->session);
}

/* ---- reports ---- */

Test(session_state, a_report_is_acknowledged_when_the_home_has_answered) {
    EACH_VERSION(version) {
        for (uint8_t qos = 0; qos <= 2; qos++) {
            struct recorder *r = connected(version);
            int64_t key = r->session.device_key;
            feed_publish(r, qos, false, qos ? 9 : 0, reported, "{\"a\":1}");
            cr_assert_eq(r->ask_count, 1);
            cr_assert_eq(r->ask.device_key, key);
            cr_assert_str_eq(r->ask.device, "dev1");
            cr_assert_str_eq(r->ask.patch, "{\"a\":1}");
            cr_assert_eq(r->ask.identity_size, 0, "the session ends with its connection");
            cr_assert_eq(r->event_count, 1, "it is no event of the session's");
            cr_assert_eq(r->sent_size, 0);
            cr_assert_gt(r->session.outstanding, 0);
            answered(r, 0, "");
            cr_assert_eq(r->session.outstanding, 1, "the connected event's");
            if (qos == 1)
                cr_assert_sent(r, 0x40, 2, 0, 9);
            if (qos == 2) {
                cr_assert_sent(r, 0x50, 2, 0, 9);
                forget_sent(r);
                feed(r, "\x62\x02\x00\x09", 4);
                cr_assert_sent(r, 0x70, 2, 0, 9);
            }
            recorder_free(r);
        }
    }
}

Test(session_state, acknowledgements_keep_their_order) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, reported, "{}");
    feed_publish(r, 1, false, 2, "telemetry", "x");
    complete_all(r, 1);
    cr_assert_eq(r->sent_size, 0);
    answered(r, 0, "");
    cr_assert_sent(r, 0x40, 2, 0, 1, 0x40, 2, 0, 2);
    recorder_free(r);
}

/* PUBACK: identifier, reason, properties with a reason string. */
static void expect_refused(struct recorder *r, uint8_t reason, const char *text) {
    size_t size = strlen(text);
    cr_assert_eq(r->sent_size, 9 + size, "%zu", r->sent_size);
    cr_assert_eq(r->sent[0], 0x40);
    cr_assert_eq(r->sent[4], reason);
    cr_assert_eq(memcmp(r->sent + 9, text, size), 0, "%.*s", (int)(r->sent_size - 9), r->sent + 9);
    cr_assert_eq(r->close_count, 0);
}

Test(session_state, mqtt5_is_told_what_is_wrong) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, reported, "{\"a\":{\"b.\":1}}");
    cr_assert_eq(r->ask_count, 0);
    expect_refused(r, 0x99, "/a: a name has no control characters, '.', '$' or space");
    forget_sent(r);
    feed_publish(r, 1, false, 2, reported, "{}");
    answered(r, DG_ERR_STATE_SIZE, "too many bytes");
    expect_refused(r, 0x97, "too many bytes");
    forget_sent(r);
    feed_publish(r, 1, false, 3, reported, "{}");
    answered(r, DG_ERR_UNAVAILABLE, "");
    expect_refused(r, 0x80, "server unavailable, try again");
    recorder_free(r);
}

Test(session_state, a_reason_is_told_once_and_to_whom_it_concerns) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, reported, "{}"); /* waits */
    struct recorded_ask first = r->ask;
    feed_publish(r, 1, false, 2, reported, "[1]");
    feed_publish(r, 1, false, 3, reported, "[2]");
    cr_assert_eq(r->sent_size, 0);
    r->ask = first;
    answered(r, 0, "");
    cr_assert_eq(memcmp(r->sent, "\x40\2\0\1", 4), 0);
    cr_assert(memmem(r->sent, r->sent_size, "not a merge patch", 17), "of 2, the general words");
    cr_assert(memmem(r->sent, r->sent_size, "must be a JSON object", 21), "of 3, its own");
    recorder_free(r);
}

/* Stored, though elsewhere. */
Test(session_state, what_has_no_word_is_put_aside) {
    static const struct {
        enum mqtt_version version;
        uint8_t qos;
    } cases[] = {{MQTT_VERSION_3_1_1, 0},
                 {MQTT_VERSION_3_1_1, 1},
                 {MQTT_VERSION_3_1_1, 2},
                 {MQTT_VERSION_5, 0}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = connected(cases[i].version);
        feed_publish(r, cases[i].qos, false, cases[i].qos, reported, "nonsense");
        cr_assert_eq(r->ask_count, 0);
        cr_assert_eq(r->event_count, 2);
        cr_assert(r->events[1].quarantined);
        cr_assert_eq(r->events[1].type, EVENT_TELEMETRY);
        cr_assert_str_eq(r->events[1].subject, reported);
        complete_all(r, 1);
        cr_assert_eq(r->sent_size, cases[i].qos ? 4u : 0u);
        cr_assert_eq(r->close_count, 0);
        recorder_free(r);
    }
}

Test(session_state, nobody_has_room_for_it) {
    struct recorder *r = connected(MQTT_VERSION_5);
    r->ask_err = DG_ERR_BUSY;
    feed_publish(r, 0, false, 0, reported, "{}");
    cr_assert_eq(r->session.dropped, 1);
    feed_publish(r, 1, false, 1, reported, "{}");
    expect_refused(r, 0x80, "server busy, try again");
    recorder_free(r);
    r = connected(MQTT_VERSION_3_1_1);
    r->ask_err = DG_ERR_BUSY;
    feed_publish(r, 1, false, 1, reported, "{}");
    cr_assert_eq(r->sent_size, 0);
    cr_assert(r->session.flags & SESSION_WITHHOLDING);
    recorder_free(r);
}

Test(session_state, a_session_waits_for_its_reports) {
    struct recorder *r = connected(MQTT_VERSION_5);
    complete_all(r, 0);
    feed_publish(r, 1, false, 1, reported, "{}");
    session_stop(&r->session, DG_ERR_ADMINISTRATIVE, NULL);
    complete_all(r, 1);
    cr_assert_eq(r->finished_count, 0);
    answered(r, 0, "");
    cr_assert_eq(r->finished_count, 1);
    recorder_free(r);
}

Test(session_state, a_report_of_a_child) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, "$dg/via/s1/$dg/state/reported", "{}");
    cr_assert_eq(r->ask_count, 0);
    answer_child(r, 0, "dev1 ");
    feed_publish(r, 1, false, 1, "$dg/via/s1/$dg/state/reported", "{}");
    cr_assert_eq(r->ask.device_key, CHILD_KEY);
    cr_assert_str_eq(r->ask.device, "s1");
    answered(r, 0, "");
    recorder_free(r);
}

Test(session_state, a_will_is_no_report) {
    struct recorder *r = connected(MQTT_VERSION_5);
    struct session_permit permit;
    cr_assert_eq(session_may(&r->session, SESSION_LEAVE_WILL, slice_from_string(reported), &permit),
                 DG_ERR_NOT_AUTHORIZED);
    recorder_free(r);
}

/* ---- listening ---- */

static void feed_filter(struct recorder *r, uint8_t first_byte, const char *filter) {
    uint8_t bytes[128] = {first_byte, 0, 0, 1};
    struct writer w = writer_make(bytes + 4, sizeof(bytes) - 4);
    if (r->session.version == MQTT_VERSION_5)
        writer_u8(&w, 0);
    writer_u16(&w, (uint16_t)strlen(filter));
    writer_string(&w, filter);
    if (first_byte == 0x82)
        writer_u8(&w, 1);
    cr_assert(!w.failed);
    bytes[1] = (uint8_t)(2 + writer_size(&w));
    feed(r, bytes, 2u + bytes[1]);
}

static void subscribe(struct recorder *r, const char *filter) {
    feed_filter(r, 0x82, filter);
}

static void unsubscribe(struct recorder *r, const char *filter) {
    feed_filter(r, 0xA2, filter);
}

static void expect_told(struct recorder *r, const char *format) {
    char expected[128];
    snprintf(expected, sizeof(expected), format, (long long)r->session.device_key,
             (long long)r->session.device_key);
    cr_assert_str_eq(r->told, expected);
    r->told[0] = '\0';
}

Test(session_state, whoever_subscribes_listens) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        subscribe(r, "$dg/commands/#");
        expect_told(r, "");
        subscribe(r, "$dg/state/desired");
        expect_told(r, "+%lld ");
        subscribe(r, "$dg/commands/#");
        expect_told(r, "");
        subscribe(r, "$dg/state/desired"); /* as anew */
        expect_told(r, "+%lld ");
        unsubscribe(r, "$dg/state/desired");
        expect_told(r, "-%lld ");
        unsubscribe(r, "$dg/state/desired");
        subscribe(r, "$dg/state/desired");
        session_stop(&r->session, DG_ERR_ADMINISTRATIVE, NULL);
        expect_told(r, "+%lld -%lld ");
        recorder_free(r);
    }
}

Test(session_state, who_goes_on_listens_again) {
    struct recorder *r = recorder_create();
    struct session_kept *kept = kept_new(1);
    cr_assert_not_null(kept_subscribe(kept, slice_from_string("$dg/state/desired"), 1));
    kept->subscriptions->told_key = 5; /* of an earlier connection */
    kept->disconnected_ms = r->shared.wall_ms;
    kept->expiry_s = 3600;
    uint8_t bytes[128];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, MQTT_VERSION_3_1_1, false, 60, slice_from_string("client-1"),
                       slice_from_string("dev1@acme"), slice_from_string("secret"));
    feed(r, bytes, writer_size(&w));
    log_in(r);
    session_claim_done(&r->session, 0, kept, true);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    expect_told(r, "+%lld ");
    feed_publish(r, 2, false, 9, reported, "{}");
    cr_assert_eq(r->ask.identity_size, KEPT_IDENTITY_KEY_BYTES, "it outlives the connection");
    answered(r, 0, "");
    recorder_free(r);
}

Test(session_state, without_memory_it_is_tried_with_the_next_packet) {
    struct recorder *r = connected(MQTT_VERSION_5);
    r->listen_err = DG_ERR_NO_MEMORY;
    subscribe(r, "$dg/state/desired");
    expect_told(r, "");
    r->listen_err = 0;
    subscribe(r, "$dg/commands/#");
    expect_told(r, "+%lld ");
    recorder_free(r);
}

static struct outbox_message message = {.qos = 1, .expires_ms = UINT64_MAX};

static int deliver(struct recorder *r, const char *topic) {
    message.topic = slice_from_string(topic);
    return session_deliver(&r->session, &message);
}

static void on_finished(struct outbox_message *unused) {
}

Test(session_state, a_gateway_listens_for_its_children) {
    static const char topic[] = "$dg/via/s1/state/desired";
    struct recorder *r = connected(MQTT_VERSION_5);
    message.finished = on_finished;
    subscribe(r, topic);
    answer_child(r, 0, "dev1 ");
    subscribe(r, topic); /* the endpoint offers it again */
    expect_told(r, "+1001:s1 ");
    cr_assert_eq(deliver(r, topic), 0);
    cr_assert_eq(deliver(r, "$dg/state/desired"), DG_ERR_NOT_FOUND);
    /* Its device has changed: it is looked up again before anything more is delivered. */
    children_forget(&r->shared.children, CHILD_KEY);
    unsigned asked = r->find_child_count;
    cr_assert_eq(deliver(r, topic), DG_ERR_NOT_FOUND);
    cr_assert_eq(r->find_child_count, asked + 1);
    answer_child(r, 0, "gw2 dev1 ");
    expect_told(r, "+1001:s1 ");
    cr_assert_eq(deliver(r, topic), 0);
    children_forget(&r->shared.children, CHILD_KEY);
    cr_assert_eq(deliver(r, topic), DG_ERR_NOT_FOUND);
    answer_child(r, 0, "gw2 ");
    expect_told(r, "");
    cr_assert_eq(deliver(r, topic), DG_ERR_NOT_FOUND);
    recorder_free(r);
}

static struct topic_map *map_of(const char *own, const char *behind) {
    struct topic_map *map = topic_map_new();
    const char *why;
    cr_assert_eq(topic_map_set_out(map, TOPIC_OUT_STATE_DESIRED, slice_from_string(own), &why), 0);
    cr_assert_eq(
        topic_map_set_out(map, TOPIC_OUT_VIA_STATE_DESIRED, slice_from_string(behind), &why), 0);
    return map;
}

Test(session_state, topics_of_the_tenants_map) {
    struct recorder *r = connected(MQTT_VERSION_5);
    struct topic_map *map = map_of("config", "nodes/{device}/config");
    r->session.tenant->topics = map;
    message.finished = on_finished;
    subscribe(r, "config");
    expect_told(r, "+%lld ");
    forget_sent(r);
    cr_assert_eq(deliver(r, "$dg/state/desired"), 0);
    cr_assert_eq(memcmp(r->sent + 2, "\0\6config", 8), 0);
    subscribe(r, "nodes/s1/config");
    answer_child(r, 0, "dev1 ");
    subscribe(r, "nodes/s1/config");
    expect_told(r, "+1001:s1 ");
    forget_sent(r);
    cr_assert_eq(deliver(r, "$dg/via/s1/state/desired"), 0);
    cr_assert_eq(memcmp(r->sent + 2, "\0\17nodes/s1/config", 17), 0);
    r->session.tenant->topics = NULL;
    recorder_free(r);
    topic_map_free(map);
}
