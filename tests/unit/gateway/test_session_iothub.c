/* Sessions of Azure IoT Hub's clients: who they are, what they may, what comes of it. */
#include "gateway/session/session_iothub.h"
#include "session_recorder.h"

TestSuite(session_iothub, .fini = check_leaks);

#define USER "Hub.Example.com/dev1/?api-version=2021-04-12&model-id=dtmi%3Ax%3B1"
#define TOKEN "SharedAccessSignature sr=hub.example.com%2Fdevices%2Fdev1&sig=x&se=1"
#define EVENTS "devices/dev1/messages/events"
#define MESSAGES "devices/dev1/messages/devicebound/#"
#define METHODS "$iothub/methods/POST/#"

static struct recorder *recorder_with_hosts(void) {
    struct recorder *r = recorder_create();
    free(r->config->iothub_hosts);
    r->config->iothub_hosts = strdup("other.example.com=t2, hub.example.com=acme");
    return r;
}

static void connect_as(struct recorder *r, enum mqtt_version version, bool clean, const char *user,
                       const char *client_id, const char *token) {
    uint8_t bytes[512];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, version, clean, 60, slice_from_string(client_id),
                       slice_from_string(user), slice_from_string(token));
    cr_assert(!w.failed);
    feed(r, bytes, writer_size(&w));
}

static struct recorder *connected_device(bool clean) {
    struct recorder *r = recorder_with_hosts();
    connect_as(r, MQTT_VERSION_3_1_1, clean, USER, "dev1", TOKEN);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    if (r->session.flags & SESSION_SAVING)
        session_append_done(&r->session, r->mutations[r->mutation_count - 1].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    complete_all(r, 0);
    r->event_count = 0;
    forget_sent(r);
    return r;
}

/* Bytes of a SUBSCRIBE to one filter; the SUBACK's code. */
static uint8_t subscribe(struct recorder *r, const char *filter, uint8_t qos) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    struct mqtt_subscription wanted = {
        .filter = slice_from_string(filter), .qos = qos, .options = qos};
    mqtt_write_subscribe(&w, MQTT_VERSION_3_1_1, 1, &wanted, 1);
    forget_sent(r);
    feed(r, bytes, writer_size(&w));
    if (r->session.flags & SESSION_SAVING) { /* durable: offered again */
        session_append_done(&r->session, r->mutations[r->mutation_count - 1].tag, 0);
        feed(r, bytes, writer_size(&w));
    }
    cr_assert_eq(r->sent_size, 5, "%zu", r->sent_size);
    uint8_t code = r->sent[4];
    forget_sent(r);
    return code;
}

Test(session_iothub, login) {
    struct recorder *r = recorder_with_hosts();
    connect_as(r, MQTT_VERSION_3_1_1, true, USER, "dev1", TOKEN);
    cr_assert_eq(r->login_count, 1);
    cr_expect_eq(r->login.kind, REGISTRY_LOGIN_DEVICE_SECRET);
    cr_expect_str_eq(r->login_device, "dev1");
    cr_expect_str_eq(r->login_tenant, "acme");
    cr_expect_str_eq(r->login_host, "hub.example.com");
    cr_expect_str_eq(r->login_secret, TOKEN);
    recorder_free(r);
}

/* Without a password the certificate counts, and an empty one is none. */
Test(session_iothub, login_with_a_certificate) {
    struct recorder *r = recorder_with_hosts();
    connect_as(r, MQTT_VERSION_3_1_1, true, "hub.example.com:8883/dev1", "dev1", "");
    cr_assert_eq(r->login_count, 1);
    cr_expect_eq(r->login.kind, REGISTRY_LOGIN_DEVICE_CERTIFICATE);
    cr_expect_str_eq(r->login_device, "dev1");
    cr_expect_str_eq(r->login_tenant, "acme");
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    complete_all(r, 0);
    r->event_count = 0;
    feed_publish(r, 0, false, 0, EVENTS "/", "x");
    cr_expect_str_eq(r->events[0].headers, "ce_iothubauthmethod=x509;ce_iothubgenerationid=42;");
    recorder_free(r);
}

Test(session_iothub, refused_connects) {
    static const struct {
        const char *user, *client, *token;
        enum mqtt_version version;
        uint8_t code;
    } cases[] = {
        {"nohub.example.com/dev1/?x", "dev1", TOKEN, MQTT_VERSION_3_1_1, 5},
        {USER, "dev2", TOKEN, MQTT_VERSION_3_1_1, 2},
        {USER, "", TOKEN, MQTT_VERSION_3_1_1, 2},
        {"hub.example.com/dev1/m1/?x", "dev1/m1", TOKEN, MQTT_VERSION_3_1_1, 2},
        {USER, "dev1", "a password", MQTT_VERSION_3_1_1, 4},
        {USER, "dev1", TOKEN, MQTT_VERSION_5, 0x84},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_with_hosts();
        connect_as(r, cases[i].version, true, cases[i].user, cases[i].client, cases[i].token);
        cr_expect_eq(r->login_count, 0, "row %u", i);
        cr_expect_eq(r->close_count, 1, "row %u", i);
        cr_assert_geq(r->sent_size, 4, "row %u", i);
        cr_expect(r->sent[0] == 0x20 && r->sent[3] == cases[i].code, "row %u: %u", i, r->sent[3]);
        recorder_free(r);
    }
}

/* IoT Hub's wider alphabet reaches that dialect only, whatever the registry says. */
Test(session_iothub, device_of_the_wider_alphabet) {
    for (unsigned native = 0; native < 2; native++) {
        struct recorder *r = recorder_with_hosts();
        struct registry_identity identity = identity_of("a@b");
        connect_as(r, MQTT_VERSION_3_1_1, true,
                   native ? "a@b@acme" : "hub.example.com/a@b/?api-version=2021-04-12", "a@b",
                   native ? "secret" : TOKEN);
        session_login_done(&r->session, 0, &identity);
        cr_expect_eq(r->claim_count, native ? 0 : 1);
        cr_expect_eq(r->close_count, native ? 1 : 0);
        if (native)
            cr_assert_sent(r, 0x20, 2, 0, 4);
        recorder_free(r);
    }
}

Test(session_iothub, keep_alive_is_capped) {
    struct recorder *r = recorder_with_hosts();
    uint8_t bytes[512];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, MQTT_VERSION_3_1_1, true, 0, slice_from_string("dev1"),
                       slice_from_string(USER), slice_from_string(TOKEN));
    feed(r, bytes, writer_size(&w));
    cr_expect_eq(r->session.keep_alive_s, 1177);
    recorder_free(r);
}

Test(session_iothub, telemetry) {
    struct recorder *r = connected_device(true);
    feed_publish(r, 1, false, 7, EVENTS "/%24.mid=m1&%24.ct=text%2Fplain&alarm=yes", "hot");
    cr_assert_eq(r->event_count, 1);
    cr_expect_eq(r->events[0].type, EVENT_TELEMETRY);
    cr_expect_str_eq(r->events[0].subject, EVENTS);
    cr_expect_str_eq(r->events[0].payload, "hot");
    cr_expect_str_eq(r->events[0].content_type, "text/plain");
    cr_expect_str_eq(r->events[0].headers,
                     "ce_iothubmessageid=m1;alarm=yes;ce_iothubauthmethod=sas;"
                     "ce_iothubgenerationid=42;ce_iothubmodelid=dtmi:x;1;");
    cr_expect_eq(r->sent_size, 0); /* not before it is durable */
    session_append_done(&r->session, r->events[0].tag, 0);
    cr_assert_sent(r, 0x40, 2, 0, 7);
    recorder_free(r);
}

/* MQTT 3.1.1 has no word for it: the connection ends, and nothing is stored. */
Test(session_iothub, refused_publishes) {
    static char large[LIMIT_IOTHUB_MESSAGE_BYTES];
    memset(large, 'x', sizeof(large) - 1);
    const struct {
        uint8_t qos;
        const char *topic, *payload;
    } cases[] = {
        {2, EVENTS "/", "x"},
        {1, "devices/dev2/messages/events/", "x"},
        {0, "sensors/temperature", "x"},
        {0, "$dg/events/x", "x"},
        {1, "$iothub/twin/GET/", ""},
        {1, EVENTS "/a=%FF", "x"},
        {1, EVENTS "/a=b", large},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = connected_device(true);
        uint8_t *bytes = malloc(sizeof(large) + 256);
        struct writer w = writer_make(bytes, sizeof(large) + 256);
        mqtt_write_publish(&w, MQTT_VERSION_3_1_1, false, cases[i].qos, false,
                           slice_from_string(cases[i].topic), 1, slice_make(NULL, 0),
                           slice_from_string(cases[i].payload));
        cr_assert(!w.failed);
        feed(r, bytes, writer_size(&w));
        free(bytes);
        cr_expect_eq(r->close_count, 1, "row %u", i);
        cr_expect(r->event_count == 0 || r->events[0].type != EVENT_TELEMETRY, "row %u", i);
        recorder_free(r);
    }
}

Test(session_iothub, filters) {
    struct recorder *r = connected_device(true);
    cr_expect_eq(subscribe(r, MESSAGES, 2), 1);
    cr_expect_eq(subscribe(r, METHODS, 0), 0);
    cr_expect_eq(subscribe(r, "$iothub/twin/res/#", 0), 0);
    cr_expect_eq(subscribe(r, "$iothub/twin/PATCH/properties/desired/#", 1), 1);
    cr_expect_eq(subscribe(r, "devices/dev2/messages/devicebound/#", 1), 0x80);
    cr_expect_eq(subscribe(r, "$dg/commands/#", 1), 0x80);
    cr_expect_eq(subscribe(r, "#", 1), 0x80);
    cr_expect_eq(r->filters_refused, 3);
    cr_expect_eq(r->session.state, SESSION_CONNECTED);
    recorder_free(r);
}

/* ---- what the device gets ---- */

static unsigned finished_count, reply_status;
static uint8_t finished_outcome;
static int finished_err;
static char reply_payload[64];

static void on_finished(struct outbox_message *message) {
    finished_count++;
    finished_outcome = message->outcome;
    finished_err = message->err;
    if (message->reply) {
        reply_status = message->reply->status;
        copy_text(reply_payload, sizeof(reply_payload), message->reply->payload);
    }
    outbox_message_free_parts(message);
    free(message);
}

static struct outbox_message *message_of(enum outbox_kind kind, const char *topic,
                                         const char *reply_id) {
    static const uint8_t properties[] = {0x03, 0, 1, 'j', 0x26, 0, 1, 'a', 0, 1, '/'};
    struct outbox_message *message = calloc(1, sizeof(*message));
    message->finished = on_finished;
    message->expires_ms = UINT64_MAX;
    message->topic = slice_from_string(topic);
    message->properties = slice_make(properties, sizeof(properties));
    message->payload = (uint8_t *)strdup("p");
    message->payload_size = 1;
    message->qos = 1;
    message->kind = (uint8_t)kind;
    message->wants_reply = kind == OUTBOX_CALL;
    strcpy(message->reply_id, reply_id);
    finished_count = 0;
    return message;
}

/* Topic of the one PUBLISH that was sent, and its first byte. */
static uint8_t sent_topic(const struct recorder *r, char *ret_topic, size_t room) {
    size_t header_size;
    int frame = mqtt_packet_frame(r->sent, r->sent_size, UINT32_MAX, &header_size);
    cr_assert(frame > 0 && (size_t)frame == r->sent_size);
    size_t size = (size_t)r->sent[header_size] << 8 | r->sent[header_size + 1];
    copy_text(ret_topic, room, slice_make(r->sent + header_size + 2, size));
    return r->sent[0];
}

Test(session_iothub, methods) {
    char topic[256];
    struct recorder *r = connected_device(true);
    struct outbox_message *message = message_of(OUTBOX_CALL, "$dg/commands/00aa/reboot", "00aa");
    subscribe(r, MESSAGES, 1);
    cr_assert_eq(session_deliver(&r->session, message), DG_ERR_NOT_FOUND);
    subscribe(r, METHODS, 1);
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_expect_eq(sent_topic(r, topic, sizeof(topic)), 0x30);
    cr_expect_str_eq(topic, "$iothub/methods/POST/reboot/?$rid=00aa");
    cr_expect_eq(r->sent[r->sent_size - 1], 'p');
    feed_publish(r, 1, false, 3, "$iothub/methods/res/1200/?$rid=00ab", "no");
    cr_expect_eq(finished_count, 0);
    forget_sent(r);
    feed_publish(r, 1, false, 4, "$iothub/methods/res/1200/?$rid=00aa", "{}");
    cr_assert_sent(r, 0x40, 2, 0, 4);
    cr_expect_eq(finished_count, 1);
    cr_expect_eq(finished_outcome, OUTBOX_REPLIED);
    cr_expect_eq(reply_status, 1200);
    cr_expect_str_eq(reply_payload, "{}");
    cr_expect_eq(r->session.state, SESSION_CONNECTED);
    recorder_free(r);
}

Test(session_iothub, messages_from_the_cloud) {
    char topic[512];
    struct recorder *r = connected_device(true);
    struct outbox_message *message = message_of(OUTBOX_COMMAND, "$dg/commands/c7/", "");
    subscribe(r, METHODS, 0);
    cr_assert_eq(session_deliver(&r->session, message), DG_ERR_NOT_FOUND);
    subscribe(r, MESSAGES, 1);
    message->expires_ms = r->shared.now_ns / 1000000 + 1000;
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_expect_eq(sent_topic(r, topic, sizeof(topic)), 0x32);
    cr_expect_str_eq(topic, "devices/dev1/messages/devicebound/%24.mid=c7"
                            "&%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound"
                            "&%24.exp=2023-11-14T22%3A13%3A21.000Z&%24.ct=j&a=%2F");
    cr_expect_eq(finished_count, 0);
    feed(r, (const uint8_t[]){0x40, 2, 0, 1}, 4);
    cr_expect_eq(finished_count, 1);
    cr_expect_eq(finished_outcome, OUTBOX_ACKNOWLEDGED);
    recorder_free(r);
}

/* A command that asks for a reply is a method; the reply goes to the queue. */
Test(session_iothub, commands_with_a_reply) {
    char topic[256];
    struct recorder *r = connected_device(true);
    struct outbox_message *message = message_of(OUTBOX_COMMAND, "$dg/commands/c7/reboot", "");
    message->wants_reply = true;
    message->payload_size = 0;
    subscribe(r, METHODS, 1);
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_expect_eq(sent_topic(r, topic, sizeof(topic)), 0x30);
    cr_expect(memcmp(r->sent + r->sent_size - 4, "null", 4) == 0, "its SDKs parse what they get");
    cr_expect_str_eq(topic, "$iothub/methods/POST/reboot/?$rid=c7");
    cr_expect_eq(finished_count, 1);
    cr_expect_eq(finished_outcome, OUTBOX_SENT);
    feed_publish(r, 0, false, 0, "$iothub/methods/res/500/?$rid=c7", "no");
    cr_expect_eq(r->reply_key, 7);
    cr_expect_eq(r->reply_status, 500);
    session_reply_done(&r->session, r->reply_tag, 0);
    recorder_free(r);
}

/* A session that a native connection had before may still hold what has no name here. */
Test(session_iothub, message_of_no_topic) {
    uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES];
    struct slice topic = slice_from_string("of another message");
    struct recorder *r = connected_device(true);
    struct outbox_message *message = message_of(OUTBOX_STATE, "$dg/state/desired", "");
    subscribe(r, MESSAGES, 1);
    cr_expect_null(session_iothub_choose(&r->session, message, &topic, room));
    cr_expect_eq(topic.size, 0u);
    on_finished(message);
    recorder_free(r);
}

/* What no topic has room for is dropped, and does not wait in front of others. */
Test(session_iothub, message_with_too_many_properties) {
    static uint8_t properties[LIMIT_IOTHUB_TOPIC_BYTES];
    struct writer w = writer_make(properties, sizeof(properties));
    writer_bytes(&w, (const uint8_t[]){0x26, 0, 1, 'a', 0x0F, 0xA0}, 6);
    memset(properties + 6, '/', 4000);
    struct recorder *r = connected_device(true);
    struct outbox_message *message = message_of(OUTBOX_COMMAND, "$dg/commands/c7/", "");
    message->properties = slice_make(properties, 4006);
    subscribe(r, MESSAGES, 1);
    cr_expect_eq(session_deliver(&r->session, message), 0);
    cr_expect_eq(r->sent_size, 0);
    cr_expect_eq(finished_count, 1);
    cr_expect_eq(finished_outcome, OUTBOX_DROPPED);
    cr_expect_eq(finished_err, DG_ERR_TOO_LARGE);
    recorder_free(r);
}

/* Node does not subscribe again when it has only renewed its token. */
Test(session_iothub, subscriptions_outlive_the_connection) {
    struct recorder *r = connected_device(false);
    cr_expect_eq(subscribe(r, MESSAGES, 1), 1);
    cr_expect_eq(subscribe(r, METHODS, 0), 0);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    complete_all(r, 0);
    while (r->session.outstanding > 0)
        session_append_done(&r->session, TAG_OF_NOTHING, 0);
    cr_assert_eq(r->finished_count, 1);
    cr_assert_not_null(r->kept);
    struct session_kept *kept = r->kept;
    r->kept = NULL;
    session_free(&r->session);
    session_init(&r->session, &r->shared, 2, true);
    r->finished_count = r->event_count = 0;
    connect_as(r, MQTT_VERSION_3_1_1, false, USER, "dev1", TOKEN);
    log_in(r);
    forget_sent(r);
    session_claim_done(&r->session, 0, kept, true);
    if (r->session.flags & SESSION_SAVING)
        session_append_done(&r->session, r->mutations[r->mutation_count - 1].tag, 0);
    cr_assert_sent(r, 0x20, 2, 1, 0);
    cr_expect_eq(session_deliver(&r->session, message_of(OUTBOX_COMMAND, "$dg/commands/c7/", "")),
                 0);
    cr_expect_eq(session_deliver(&r->session, message_of(OUTBOX_CALL, "$dg/commands/0a/x", "0a")),
                 0);
    recorder_free(r);
}

/* ---- the twin ---- */

static void answer_twin(struct recorder *r, int err, int64_t version, const char *document,
                        const char *why) {
    struct twin_answer answer = {.owner = r->session.id,
                                 .tag = r->ask.tag,
                                 .err = err,
                                 .version = version,
                                 .note = slice_from_string(r->ask.note),
                                 .document = slice_from_string(document),
                                 .why = slice_from_string(why)};
    forget_sent(r);
    session_twin_answered(&r->session, &answer);
}

/* Topic and payload of the first packet that was sent, which must be a PUBLISH of QoS 0. */
static void sent_publish(const struct recorder *r, char *ret_topic, char *ret_payload) {
    size_t header_size;
    int frame = mqtt_packet_frame(r->sent, r->sent_size, UINT32_MAX, &header_size);
    cr_assert(frame > 0 && r->sent[0] == 0x30, "%zu", r->sent_size);
    size_t size = (size_t)r->sent[header_size] << 8 | r->sent[header_size + 1];
    copy_text(ret_topic, 256, slice_make(r->sent + header_size + 2, size));
    copy_text(ret_payload, 512,
              slice_make(r->sent + header_size + 2 + size, (size_t)frame - header_size - 2 - size));
}

Test(session_iothub, twin_is_asked_for) {
    char topic[256], payload[512];
    struct recorder *r = connected_device(true);
    subscribe(r, "$iothub/twin/res/#", 0);
    feed_publish(r, 0, false, 0, "$iothub/twin/GET/?$rid=a%2f1", " ");
    cr_assert_eq(r->ask_count, 1);
    cr_expect_eq(r->ask.action, TWIN_GET);
    cr_expect_eq(r->ask.device_key, 42);
    cr_expect_str_eq(r->ask.note, "a%2f1");
    answer_twin(r, 0, 0, "{\"desired\":{},\"reported\":{}}", "");
    sent_publish(r, topic, payload);
    cr_expect_str_eq(topic, "$iothub/twin/res/200/?$rid=a%2f1");
    cr_expect_str_eq(payload, "{\"desired\":{},\"reported\":{}}");
    recorder_free(r);
}

/* The answer, and with QoS 1 then the acknowledgement, when it is durable. */
Test(session_iothub, state_is_reported) {
    char topic[256], payload[512];
    for (uint8_t qos = 0; qos < 2; qos++) {
        struct recorder *r = connected_device(true);
        subscribe(r, "$iothub/twin/res/#", 0);
        feed_publish(r, qos, false, 3, "$iothub/twin/PATCH/properties/reported/?$rid=7&$version=6",
                     qos == 0 ? "{\"a\":1}" : "{\"a\":1,\"$version\":3,\"$metadata\":{\"x\":1}}");
        cr_assert_eq(r->ask_count, 1);
        cr_expect_eq(r->ask.action, TWIN_REPORT);
        cr_expect_eq(r->ask.expected_version, 6);
        cr_expect_str_eq(r->ask.patch, "{\"a\":1}");
        cr_expect_eq(r->sent_size, 0);
        answer_twin(r, 0, 7, "", "");
        sent_publish(r, topic, payload);
        cr_expect_str_eq(topic, "$iothub/twin/res/204/?$rid=7&$version=7");
        cr_expect_str_eq(payload, "");
        cr_expect_eq(r->sent[r->sent_size - 4] == 0x40, qos == 1);
        recorder_free(r);
    }
}

/* In the body too, and the connection stays. */
Test(session_iothub, requests_that_fail) {
    static const struct {
        const char *query, *patch;
        int ask_err, err;
        const char *why, *topic, *body;
    } cases[] = {
        {"$rid=1", "[]", 0, 0, NULL, "$iothub/twin/res/400/?$rid=1", "{\"errorCode\":400004,"},
        {"$rid=1", "{\"a b\":1}", 0, 0, NULL, "$iothub/twin/res/400/?$rid=1",
         "{\"errorCode\":400004,"},
        {"$rid=1&$version=x", "{}", 0, 0, NULL, "$iothub/twin/res/400/?$rid=1",
         "{\"errorCode\":400004,"},
        {"$rid=1", "{}", DG_ERR_BUSY, 0, NULL, "$iothub/twin/res/429/?$rid=1",
         "{\"errorCode\":429001,"},
        {"$rid=1", "{}", 0, DG_ERR_PRECONDITION, "", "$iothub/twin/res/412/?$rid=1",
         "{\"errorCode\":412001,"},
        {"$rid=1", "{}", 0, DG_ERR_STATE_SIZE, "too \"large\"", "$iothub/twin/res/413/?$rid=1",
         "{\"errorCode\":413001,\"trackingId\":\"gw1-1-0-s0\",\"message\":\"too \\\"large\\\"\","
         "\"timestampUtc\":\"2023-11-14T22:13:20.000Z\"}"},
        {"$rid=1", "{}", 0, DG_ERR_UNAVAILABLE, "cut \xc3", "$iothub/twin/res/503/?$rid=1",
         "{\"errorCode\":503001,\"trackingId\":\"gw1-1-0-s0\",\"message\":\"server unavailable"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char topic[256], payload[512];
        struct recorder *r = connected_device(true);
        subscribe(r, "$iothub/twin/res/#", 0);
        r->ask_err = cases[i].ask_err;
        snprintf(topic, sizeof(topic), "$iothub/twin/PATCH/properties/reported/?%s",
                 cases[i].query);
        feed_publish(r, 1, false, 3, topic, cases[i].patch);
        cr_expect_eq(r->ask_count, cases[i].why ? 1 : 0, "row %u", i);
        if (cases[i].why)
            answer_twin(r, cases[i].err, 0, "", cases[i].why);
        sent_publish(r, topic, payload);
        cr_expect_str_eq(topic, cases[i].topic, "row %u", i);
        cr_expect_eq(strncmp(payload, cases[i].body, strlen(cases[i].body)), 0, "%s", payload);
        cr_expect_eq(r->sent[r->sent_size - 4], 0x40, "row %u", i);
        cr_expect_eq(r->session.state, SESSION_CONNECTED, "row %u", i);
        recorder_free(r);
    }
}

/* Who has not subscribed is not told, and is acknowledged. */
Test(session_iothub, answer_that_nobody_wants) {
    struct recorder *r = connected_device(true);
    feed_publish(r, 1, false, 3, "$iothub/twin/GET/?$rid=1", "");
    answer_twin(r, 0, 0, "{}", "");
    cr_assert_sent(r, 0x40, 2, 0, 3);
    recorder_free(r);
}

Test(session_iothub, answer_after_the_end) {
    struct recorder *r = connected_device(true);
    subscribe(r, "$iothub/twin/res/#", 0);
    feed_publish(r, 0, false, 0, "$iothub/twin/GET/?$rid=1", "");
    session_unlinked(&r->session, DG_ERR_CLOSED);
    answer_twin(r, 0, 0, "{}", "");
    cr_expect_eq(r->sent_size, 0);
    recorder_free(r);
}

Test(session_iothub, desired_state) {
    char topic[256], payload[512];
    struct recorder *r = connected_device(true);
    subscribe(r, "$iothub/twin/PATCH/properties/desired/#", 1);
    cr_expect_str_eq(r->told, "~42 ");
    struct outbox_message *message = message_of(OUTBOX_CALL, "$dg/state/desired/12", "");
    message->qos = 0;
    cr_assert_eq(session_deliver(&r->session, message), 0);
    sent_publish(r, topic, payload);
    cr_expect_str_eq(topic, "$iothub/twin/PATCH/properties/desired/?$version=12");
    cr_expect_str_eq(payload, "p");
    recorder_free(r);
}

/* ---- wills ---- */

static void connect_with_will(struct recorder *r, uint8_t flags, const char *topic) {
    uint8_t bytes[512], body[512];
    struct writer w = writer_make(body, sizeof(body));
    writer_bytes(&w, "\0\4MQTT\4", 7);
    writer_u8(&w, (uint8_t)(0xC6 | flags));
    writer_u16(&w, 60);
    const char *const parts[] = {"dev1", topic, "bye", USER, TOKEN};
    for (unsigned i = 0; i < 5; i++) {
        writer_u16(&w, (uint16_t)strlen(parts[i]));
        writer_string(&w, parts[i]);
    }
    struct writer packet = writer_make(bytes, sizeof(bytes));
    writer_u8(&packet, 0x10);
    writer_uvarint(&packet, writer_size(&w));
    writer_bytes(&packet, body, writer_size(&w));
    cr_assert(!w.failed && !packet.failed);
    feed(r, bytes, writer_size(&packet));
    log_in(r);
}

Test(session_iothub, will_is_telemetry) {
    struct recorder *r = recorder_with_hosts();
    connect_with_will(r, 0x28, EVENTS "/a=b&%24.ct=j"); /* QoS 1, retain */
    session_claim_done(&r->session, 0, NULL, true);
    complete_all(r, 0);
    r->event_count = 0;
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_assert_geq(r->event_count, 1);
    cr_expect_eq(r->events[0].type, EVENT_TELEMETRY);
    cr_expect_str_eq(r->events[0].subject, EVENTS);
    cr_expect_str_eq(r->events[0].payload, "bye");
    cr_expect_str_eq(r->events[0].content_type, "j");
    cr_expect_str_eq(r->events[0].headers,
                     "a=b;ce_iothubauthmethod=sas;ce_iothubgenerationid=42;"
                     "ce_iothubmodelid=dtmi:x;1;mqtt-retain=true;iothub-MessageType=Will;");
    recorder_free(r);
}

Test(session_iothub, refused_wills) {
    static const struct {
        uint8_t flags;
        const char *topic;
    } cases[] = {{0, "devices/dev2/messages/events/"},
                 {0, "$iothub/twin/GET/?$rid=1"},
                 {0, "lost"},
                 {0x10, EVENTS "/"}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = recorder_with_hosts();
        connect_with_will(r, cases[i].flags, cases[i].topic);
        cr_expect_eq(r->claim_count, 0, "row %u", i);
        cr_expect_eq(r->close_count, 1, "row %u", i);
        recorder_free(r);
    }
}
