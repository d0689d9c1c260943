#include "session_recorder.h"

#include "gateway/session/reason.h"

TestSuite(session, .fini = check_leaks);

/* ---- packet type x state ---- */

struct packet_case {
    const char *name;
    uint8_t bytes[16];
    uint8_t size;
    bool allowed[2]; /* by version, when connected */
};

static const struct packet_case packet_cases[] = {
    {"CONNECT", {0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 0}, 14, {false, false}},
    {"CONNACK", {0x20, 2, 0, 0}, 4, {false, false}},
    {"PUBLISH", {0x30, 4, 0, 1, 't', 'x'}, 6, {true, false}}, /* 5: 'x' is no property length */
    {"PUBACK", {0x40, 2, 0, 1}, 4, {true, true}},
    {"PUBREC", {0x50, 2, 0, 1}, 4, {true, true}},
    {"PUBREL", {0x62, 2, 0, 1}, 4, {true, true}},
    {"PUBCOMP", {0x70, 2, 0, 1}, 4, {true, true}},
    {"SUBSCRIBE", {0x82, 6, 0, 1, 0, 1, 'a', 0}, 8, {true, false}},
    {"SUBSCRIBE 5", {0x82, 7, 0, 1, 0, 0, 1, 'a', 0}, 9, {false, true}},
    {"SUBACK", {0x90, 3, 0, 1, 0}, 5, {false, false}},
    {"UNSUBSCRIBE", {0xA2, 5, 0, 1, 0, 1, 'a'}, 7, {true, false}},
    {"UNSUBSCRIBE 5", {0xA2, 6, 0, 1, 0, 0, 1, 'a'}, 8, {false, true}},
    {"UNSUBACK", {0xB0, 2, 0, 1}, 4, {false, false}},
    {"PINGREQ", {0xC0, 0}, 2, {true, true}},
    {"PINGRESP", {0xD0, 0}, 2, {false, false}},
    {"AUTH", {0xF0, 0}, 2, {false, false}},
    {"reserved", {0x00, 0}, 2, {false, false}},
};
enum { PACKET_CASES = sizeof(packet_cases) / sizeof(packet_cases[0]) };

Test(session, packets_before_connect) {
    for (unsigned i = 1; i < PACKET_CASES; i++) {
        struct recorder *r = recorder_create();
        feed(r, packet_cases[i].bytes, packet_cases[i].size);
        cr_assert_eq(r->close_count, 1, "%s", packet_cases[i].name);
        cr_assert_eq(r->sent_size, 0, "%s", packet_cases[i].name);
        cr_assert_eq(r->event_count, 0);
        cr_assert_not_null(r->end.clause);
        recorder_free(r);
    }
}

Test(session, packets_wait_for_login_and_claim) {
    EACH_VERSION(version) {
        for (unsigned i = 0; i < PACKET_CASES; i++) {
            struct recorder *r = recorder_create();
            feed_connect(r, version);
            cr_assert_eq(r->session.state, SESSION_AUTHENTICATING);
            cr_assert_eq(session_receive(&r->session, packet_cases[i].bytes, packet_cases[i].size),
                         0);
            log_in(r);
            cr_assert_eq(r->session.state, SESSION_CLAIMING);
            cr_assert_eq(session_receive(&r->session, packet_cases[i].bytes, packet_cases[i].size),
                         0);
            cr_assert_eq(r->close_count, 0);
            recorder_free(r);
        }
    }
}

Test(session, packets_when_connected) {
    EACH_VERSION(version) {
        for (unsigned i = 0; i < PACKET_CASES; i++) {
            struct recorder *r = connected(version);
            feed(r, packet_cases[i].bytes, packet_cases[i].size);
            bool allowed = packet_cases[i].allowed[version == MQTT_VERSION_5];
            cr_assert_eq(r->close_count, !allowed, "%s in version %d", packet_cases[i].name,
                         version);
            if (!allowed) {
                cr_assert_not_null(r->end.clause, "%s", packet_cases[i].name);
                cr_assert_eq(r->sent_size > 0, version == MQTT_VERSION_5);
            }
            recorder_free(r);
        }
    }
}

Test(session, nothing_is_read_after_the_end) {
    struct recorder *r = connected(MQTT_VERSION_5);
    session_stop(&r->session, DG_ERR_ADMINISTRATIVE, NULL);
    forget_sent(r);
    unsigned events = r->event_count;
    feed_publish(r, 1, false, 1, "t", "x");
    cr_assert_eq(r->event_count, events);
    cr_assert_eq(r->sent_size, 0);
    cr_assert_eq(r->close_count, 1);
    recorder_free(r);
}

Test(session, malformed_is_counted_and_answered) {
    static const uint8_t reserved_flags[] = {0xC1, 0};
    static const uint8_t five_bytes[] = {0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01};
    static const uint8_t padded[] = {0xC0, 0x80, 0x00}, reserved_type[] = {0x00, 0};
    int64_t before = metric_read(METRIC_MQTT_MALFORMED);
    struct recorder *r = connected(MQTT_VERSION_5);
    feed(r, reserved_flags, sizeof(reserved_flags));
    cr_assert_eq(r->sent[0], 0xE0);
    cr_assert_eq(r->sent[2], 0x81);
    recorder_free(r);
    r = connected(MQTT_VERSION_5);
    feed(r, five_bytes, sizeof(five_bytes));
    cr_assert_eq(r->sent[2], 0x81);
    recorder_free(r);
    r = connected(MQTT_VERSION_5);
    feed(r, padded, sizeof(padded));
    cr_assert_eq(r->sent[2], 0x81);
    recorder_free(r);
    r = connected(MQTT_VERSION_5);
    feed(r, reserved_type, sizeof(reserved_type));
    cr_assert_eq(r->sent[2], 0x81);
    recorder_free(r);
    r = connected(MQTT_VERSION_3_1_1);
    feed(r, padded, sizeof(padded));
    cr_assert_eq(r->close_count, 0); /* 3.1.1 does not forbid it */
    recorder_free(r);
    cr_assert_eq(metric_read(METRIC_MQTT_MALFORMED) - before, 4);
}

Test(session, packet_over_the_announced_size) {
    struct recorder *r = connected(MQTT_VERSION_5);
    static const uint8_t large[] = {0x30, 0xFF, 0xFF, 0xFF, 0x7F};
    feed(r, large, sizeof(large));
    cr_assert_eq(r->sent[0], 0xE0);
    cr_assert_eq(r->sent[2], 0x95);
    recorder_free(r);
}

/* ---- CONNECT ---- */

Test(session, connack_announces_what_is_served) {
    struct recorder *r = recorder_create();
    feed_connect(r, MQTT_VERSION_3_1_1);
    cr_assert_eq(r->login_count, 1);
    cr_assert_str_eq(r->login_device, "dev1");
    cr_assert_str_eq(r->login_tenant, "acme");
    cr_assert_str_eq(r->login_secret, "secret");
    cr_assert_eq(r->sent_size, 0);
    log_in(r);
    cr_assert_eq(r->claim_count, 1);
    cr_assert_eq(r->sent_size, 0);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_sent(r, 0x20, 2, 0, 0);
    recorder_free(r);

    r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_eq(r->sent[0], 0x20);
    cr_assert_eq(r->sent[3], 0);
    static const uint8_t maximum_qos[] = {0x24, 1}, receive_maximum[] = {0x21, 0, 8};
    cr_assert_null(memmem(r->sent, r->sent_size, maximum_qos, sizeof(maximum_qos))); /* 2 */
    static const uint8_t alias_maximum[] = {0x22, 0, LIMIT_MQTT_TOPIC_ALIASES};
    cr_assert_not_null(memmem(r->sent, r->sent_size, alias_maximum, sizeof(alias_maximum)));
    cr_assert_not_null(memmem(r->sent, r->sent_size, receive_maximum, sizeof(receive_maximum)));
    recorder_free(r);
}

struct connect_case {
    const char *name;
    uint8_t bytes[96];
    uint8_t size;
    uint8_t answer[2]; /* flags byte and code of CONNACK; 0xFF: none is sent */
};
#define CONNECT_HEAD(length, level, flags) \
    0x10, length, 0, 4, 'M', 'Q', 'T', 'T', level, flags, 0, 60

static const struct connect_case connect_cases[] = {
    {"3.1.1 empty id, no clean session", {CONNECT_HEAD(12, 4, 0), 0, 0}, 14, {0, 2}},
    {"level 3", {CONNECT_HEAD(12, 3, 2), 0, 0}, 14, {0, 1}},
    {"level 6", {CONNECT_HEAD(13, 6, 2), 0, 0, 0}, 15, {0, 0x84}},
    {"reserved flag", {CONNECT_HEAD(12, 4, 3), 0, 0}, 14, {0xFF}},
    {"5 reserved flag", {CONNECT_HEAD(13, 5, 3), 0, 0, 0}, 15, {0, 0x81}},
    {"5 method", {CONNECT_HEAD(17, 5, 2), 4, 0x15, 0, 1, 'm', 0, 0}, 19, {0, 0x8C}},
    {"5 truncated", {CONNECT_HEAD(12, 5, 2), 0, 0}, 14, {0, 0x81}},
};

Test(session, connect_refusals) {
    for (unsigned i = 0; i < sizeof(connect_cases) / sizeof(connect_cases[0]); i++) {
        const struct connect_case *c = &connect_cases[i];
        struct recorder *r = recorder_create();
        feed(r, c->bytes, c->size);
        cr_assert_eq(r->close_count, 1, "%s", c->name);
        cr_assert_eq(r->login_count, 0, "%s", c->name);
        cr_assert_eq(r->event_count, 0, "%s", c->name);
        if (c->answer[0] == 0xFF)
            cr_assert_eq(r->sent_size, 0, "%s", c->name);
        else
            cr_assert(r->sent_size >= 4 && r->sent[0] == 0x20 && r->sent[2] == c->answer[0] &&
                          r->sent[3] == c->answer[1],
                      "%s: %02x %02x", c->name, r->sent[2], r->sent[3]);
        recorder_free(r);
    }
}

struct login_case {
    int err;
    uint8_t code3, code5;
};

Test(session, login_results) {
    static const struct login_case cases[] = {
        {DG_ERR_BAD_CREDENTIALS, 4, 0x86}, {DG_ERR_DISABLED, 5, 0x8A},
        {DG_ERR_UNAVAILABLE, 3, 0x88},     {DG_ERR_BUSY, 3, 0x89},
        {DG_ERR_NOT_AUTHORIZED, 5, 0x87},
    };
    EACH_VERSION(version) {
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct recorder *r = recorder_create();
            feed_connect(r, version);
            session_login_done(&r->session, cases[i].err, NULL);
            cr_assert_eq(r->sent[0], 0x20);
            cr_assert_eq(r->sent[3], version == MQTT_VERSION_5 ? cases[i].code5 : cases[i].code3);
            cr_assert_eq(r->close_count, 1);
            cr_assert_eq(r->finished_count, 1);
            cr_assert_eq(r->event_count + r->claim_count + r->release_count, 0);
            recorder_free(r);
        }
    }
}

Test(session, a_principal_is_no_device) {
    struct recorder *r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    struct registry_identity identity = identity_of("");
    identity.device_key = 0;
    session_login_done(&r->session, 0, &identity);
    cr_assert_eq(r->sent[3], 0x86);
    recorder_free(r);
}

Test(session, passwords_over_plain_text) {
    EACH_VERSION(version) {
        struct recorder *r = recorder_create();
        r->session.flags &= ~(uint32_t)SESSION_PASSWORDS_ALLOWED;
        feed_connect(r, version);
        cr_assert_eq(r->login_count, 0);
        cr_assert_eq(r->sent[3], version == MQTT_VERSION_5 ? 0x87 : 5);
        if (version == MQTT_VERSION_5)
            cr_assert_not_null(memmem(r->sent, r->sent_size, "plain text", 10));
        recorder_free(r);
    }
}

static void feed_bare_connect(struct recorder *r, enum mqtt_version version, const char *user) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, version, true, 0, slice_make(NULL, 0),
                       user ? slice_from_string(user) : slice_make(NULL, 0), slice_make(NULL, 0));
    feed(r, bytes, writer_size(&w));
}

Test(session, certificates) {
    struct recorder *r = recorder_create();
    r->login_err = DG_ERR_NOT_FOUND; /* there is none */
    feed_bare_connect(r, MQTT_VERSION_5, NULL);
    cr_assert_eq(r->login.kind, REGISTRY_LOGIN_DEVICE_CERTIFICATE);
    cr_assert_eq(r->sent[3], 0x87);
    recorder_free(r);

    static const struct {
        const char *user, *device, *tenant;
    } cases[] = {{NULL, "", ""}, {"dev1", "dev1", ""}, {"dev1@acme", "dev1", "acme"}};
    for (unsigned i = 0; i < 3; i++) {
        r = recorder_create();
        r->session.flags &= ~(uint32_t)SESSION_PASSWORDS_ALLOWED;
        feed_bare_connect(r, MQTT_VERSION_3_1_1, cases[i].user);
        cr_assert_eq(r->session.state, SESSION_AUTHENTICATING);
        cr_assert_str_eq(r->login_device, cases[i].device);
        cr_assert_str_eq(r->login_tenant, cases[i].tenant);
        recorder_free(r);
    }
}

Test(session, assigned_client_id_and_server_keep_alive) {
    struct recorder *r = recorder_create();
    feed_bare_connect(r, MQTT_VERSION_5, "dev1");
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_not_null(memmem(r->sent, r->sent_size, "\x12\x00\x0agw1-1-0-s0", 13));
    cr_assert_not_null(memmem(r->sent, r->sent_size, "\x13\x04\xb0", 3)); /* 1200 s */
    cr_assert(slice_equals_string(session_client_id(&r->session), "gw1-1-0-s0"));
    recorder_free(r);

    r = recorder_create(); /* 3.1.1 cannot tell it: MQTT3 3.1.3-6 */
    feed_bare_connect(r, MQTT_VERSION_3_1_1, "dev1");
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_sent(r, 0x20, 2, 0, 0);
    cr_assert(slice_equals_string(session_client_id(&r->session), "gw1-1-0-s0"));
    recorder_free(r);
}

Test(session, small_packets_only) {
    static const uint8_t tiny[] = {CONNECT_HEAD(32, 5, 0xC2),
                                   5,
                                   0x27,
                                   0,
                                   0,
                                   0,
                                   8,
                                   0,
                                   0,
                                   0,
                                   4,
                                   'd',
                                   'e',
                                   'v',
                                   '1',
                                   0,
                                   6,
                                   's',
                                   'e',
                                   'c',
                                   'r',
                                   'e',
                                   't'};
    struct recorder *r = recorder_create();
    uint8_t bytes[64];
    memcpy(bytes, tiny, sizeof(tiny));
    bytes[1] = sizeof(tiny) - 2;
    feed(r, bytes, sizeof(tiny));
    cr_assert_eq(r->session.peer_packet_bytes, 8);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    /* No CONNACK fits but one without properties. */
    cr_assert_eq(r->close_count, 1);
    cr_assert_leq(r->sent_size, 8);
    recorder_free(r);
}

/* ---- presence ---- */

Test(session, presence_frames_the_data) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        cr_assert_eq(r->event_count, 1);
        cr_assert_eq(r->events[0].type, EVENT_DEVICE_CONNECTED);
        cr_assert_not_null(strstr(r->events[0].payload, "client-1"));
        cr_assert_not_null(strstr(r->events[0].payload, "192.0.2.7:5123"));
        feed_publish(r, 0, false, 0, "t", "x");
        advance(r, 1500);
        static const uint8_t disconnect[] = {0xE0, 0};
        feed(r, disconnect, 2);
        cr_assert_eq(r->event_count, 3);
        cr_assert_eq(r->events[1].type, EVENT_TELEMETRY);
        cr_assert_eq(r->events[2].type, EVENT_DEVICE_DISCONNECTED);
        cr_assert_not_null(strstr(r->events[2].payload, "1500"));
        cr_assert_eq(r->sent_size, 0);
        cr_assert_eq(r->end.err, 0);
        recorder_free(r);
    }
}

Test(session, presence_may_be_off) {
    struct recorder *r = recorder_create();
    r->config->events_presence = false;
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    session_stop(&r->session, DG_ERR_ADMINISTRATIVE, NULL);
    cr_assert_eq(r->event_count, 0);
    cr_assert_eq(r->release_count, 1);
    recorder_free(r);
}

Test(session, presence_waits_under_pressure) {
    struct recorder *r = recorder_create();
    r->append_err = DG_ERR_PRESSURE;
    feed_connect(r, MQTT_VERSION_3_1_1);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_eq(r->session.state, SESSION_CLAIMING);
    cr_assert_eq(r->sent_size, 0);
    r->append_err = 0;
    session_ready(&r->session);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    cr_assert_sent(r, 0x20, 2, 0, 0);

    r->append_err = DG_ERR_PRESSURE;
    session_unlinked(&r->session, DG_ERR_CLOSED);
    session_append_done(&r->session, r->events[0].tag, 0);
    cr_assert_eq(r->release_count, 0);
    r->append_err = 0;
    session_ready(&r->session);
    cr_assert_eq(r->events[1].type, EVENT_DEVICE_DISCONNECTED);
    cr_assert_eq(r->release_count, 0); /* not durable yet */
    session_append_done(&r->session, r->events[1].tag, 0);
    cr_assert_eq(r->release_count, 1);
    cr_assert_eq(r->finished_count, 1);
    session_free(&r->session);
    session_shared_free(&r->shared);
    config_free(r->config);
    free(r);
}

/* ---- claims ---- */

Test(session, take_over_releases_after_the_last_event_is_durable) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_publish(r, 1, false, 1, "t", "x");
        session_stop(&r->session, DG_ERR_TAKEN_OVER, NULL);
        if (version == MQTT_VERSION_5)
            cr_assert(r->sent[0] == 0xE0 && r->sent[2] == 0x8E);
        else
            cr_assert_eq(r->sent_size, 0);
        cr_assert_eq(r->event_count, 3);
        cr_assert_eq(r->events[2].type, EVENT_DEVICE_DISCONNECTED);
        for (unsigned i = 0; i < 3; i++) {
            cr_assert_eq(r->release_count, 0);
            session_append_done(&r->session, r->events[i].tag, 0);
        }
        cr_assert_eq(r->release_count, 1);
        recorder_free(r);
    }
}

Test(session, gone_while_claiming) {
    struct recorder *r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_assert_eq(r->finished_count, 0);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_eq(r->release_count, 1);
    cr_assert_eq(r->finished_count, 1);
    cr_assert_eq(r->event_count, 0);
    recorder_free(r);
}

Test(session, claim_refused) {
    struct recorder *r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_claim_done(&r->session, DG_ERR_BUSY, NULL, true);
    cr_assert_eq(r->sent[3], 0x89);
    cr_assert_eq(r->release_count, 0);
    recorder_free(r);
}

/* ---- will ---- */

static struct recorder *connected_with_will(enum mqtt_version version, const char *topic) {
    struct recorder *r = recorder_create();
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    writer_u8(&w, 0x10);
    writer_u8(&w, 0);
    writer_bytes(&w, "\0\4MQTT", 6);
    writer_u8(&w, (uint8_t)version);
    writer_u8(&w, 0xC2 | 0x04 | 0x08); /* will QoS 1 */
    writer_u16(&w, 60);
    if (version == MQTT_VERSION_5)
        writer_u8(&w, 0);
    writer_bytes(&w, "\0\1c", 3);
    if (version == MQTT_VERSION_5)
        writer_bytes(&w, "\6\3\0\3txt", 7); /* content type */
    writer_u16(&w, (uint16_t)strlen(topic));
    writer_string(&w, topic);
    writer_bytes(&w, "\0\4gone\0\4dev1\0\6secret", 20);
    bytes[1] = (uint8_t)(writer_size(&w) - 2);
    feed(r, bytes, writer_size(&w));
    memset(bytes, 0xEE, sizeof(bytes)); /* the will was copied */
    cr_assert_eq(r->session.state, SESSION_AUTHENTICATING);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    return r;
}

enum will_end {
    BY_LOSS,
    BY_KEEP_ALIVE,
    BY_FAULT,
    BY_GOODBYE,
    BY_GOODBYE_WITH_WILL,
    BY_TAKE_OVER,
    BY_DISABLING,
    BY_ADMINISTRATOR
};

static void end_by(struct recorder *r, enum will_end how) {
    static const uint8_t goodbye[] = {0xE0, 0}, with_will[] = {0xE0, 1, 4}, fault[] = {0xC1, 0};
    if (how == BY_LOSS)
        session_unlinked(&r->session, DG_ERR_CLOSED);
    else if (how == BY_KEEP_ALIVE) {
        advance(r, 90000);
        cr_assert_eq(session_deadline(&r->session), 0);
    } else if (how == BY_FAULT)
        feed(r, fault, sizeof(fault));
    else if (how == BY_GOODBYE)
        feed(r, goodbye, sizeof(goodbye));
    else if (how == BY_GOODBYE_WITH_WILL)
        feed(r, with_will, sizeof(with_will));
    else
        session_stop(&r->session,
                     how == BY_TAKE_OVER   ? DG_ERR_TAKEN_OVER
                     : how == BY_DISABLING ? DG_ERR_DISABLED
                                           : DG_ERR_ADMINISTRATIVE,
                     NULL);
}

Test(session, will_rules) {
    static const bool published[] = {
        [BY_LOSS] = true,       [BY_KEEP_ALIVE] = true,        [BY_FAULT] = true,
        [BY_GOODBYE] = false,   [BY_GOODBYE_WITH_WILL] = true, [BY_TAKE_OVER] = true,
        [BY_DISABLING] = false, [BY_ADMINISTRATOR] = false,
    };
    EACH_VERSION(version) {
        for (unsigned how = BY_LOSS; how <= BY_ADMINISTRATOR; how++) {
            if (how == BY_GOODBYE_WITH_WILL && version == MQTT_VERSION_3_1_1)
                continue;
            struct recorder *r = connected_with_will(version, "$dg/events/lost");
            cr_assert_eq(r->session.state, SESSION_CONNECTED);
            end_by(r, how);
            cr_assert_eq(r->event_count, published[how] ? 3 : 2, "how %u", how);
            if (published[how]) {
                cr_assert_eq(r->events[1].type, EVENT_EVENT);
                cr_assert_str_eq(r->events[1].subject, "lost");
                cr_assert_str_eq(r->events[1].payload, "gone");
                cr_assert_eq(r->events[1].qos, 1);
            }
            cr_assert_eq(r->events[r->event_count - 1].type, EVENT_DEVICE_DISCONNECTED);
            recorder_free(r);
        }
    }
}

Test(session, will_topic_is_authorized_before_connack) {
    EACH_VERSION(version) {
        struct recorder *r = connected_with_will(version, "$SYS/x");
        cr_assert_eq(r->sent[0], 0x20);
        cr_assert_eq(r->sent[3], version == MQTT_VERSION_5 ? 0x87 : 5);
        cr_assert_eq(r->event_count, 0);
        recorder_free(r);
    }
}

/* ---- ends ---- */

Test(session, keep_alive) {
    struct recorder *r = connected(MQTT_VERSION_5);
    static const uint8_t ping[] = {0xC0, 0};
    cr_assert_eq(r->deadline_ms, START_MS + 90000);
    advance(r, 80000);
    feed(r, ping, 2);
    forget_sent(r);
    advance(r, 10000);
    cr_assert_eq(session_deadline(&r->session), START_MS + 170000);
    advance(r, 80000);
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->sent[2], 0x8D);
    cr_assert_eq(r->end.err, DG_ERR_KEEP_ALIVE);
    recorder_free(r);
}

/* MQTT5 3.1.2-22 speaks of packets: bytes of one that never ends keep nothing alive. */
Test(session, keep_alive_counts_packets) {
    struct recorder *r = connected(MQTT_VERSION_5);
    static const uint8_t drip[] = {0x30, 100, 0, 1, 't', 0};
    for (size_t size = 1; size <= sizeof(drip); size++) {
        advance(r, 14000);
        cr_assert_eq(session_receive(&r->session, drip, size), 0);
    }
    cr_assert_eq(session_deadline(&r->session), START_MS + 90000);
    advance(r, 6000);
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->end.err, DG_ERR_KEEP_ALIVE);
    recorder_free(r);
}

Test(session, no_connect_in_time) {
    struct recorder *r = recorder_create();
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->close_count, 1);
    cr_assert_eq(r->sent_size, 0);
    recorder_free(r);
}

Test(session, credential_expires) {
    struct recorder *r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    struct registry_identity identity = identity_of("dev1");
    identity.valid_until_ms = r->shared.wall_ms + 5000;
    session_login_done(&r->session, 0, &identity);
    session_claim_done(&r->session, 0, NULL, true);
    forget_sent(r);
    cr_assert_eq(r->deadline_ms, START_MS + 5000);
    advance(r, 5000);
    feed_publish(r, 1, false, 1, "t", "x"); /* even before the deadline is looked at */
    cr_assert_eq(r->event_count, 1);
    forget_sent(r);
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->sent[2], 0x87);
    recorder_free(r);
}

Test(session, expiry_rule_of_disconnect) {
    static const uint8_t bytes[] = {0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9};
    struct recorder *r = connected(MQTT_VERSION_5); /* no session expiry in CONNECT */
    feed(r, bytes, sizeof(bytes));
    cr_assert(r->sent[0] == 0xE0 && r->sent[2] == 0x82);
    recorder_free(r);
}

Test(session, revocation) {
    struct recorder *r = connected(MQTT_VERSION_5);
    struct registry_revocation *change = calloc(1, sizeof(*change));
    static const struct {
        int64_t tenant, device, credential, kept;
        bool ends;
    } cases[] = {
        {7, 42, 0, 0, true},  {7, 42, 0, 99, false}, {7, 0, 0, 0, true},    {8, 0, 0, 0, false},
        {7, 41, 0, 0, false}, {7, 0, 99, 0, true},   {7, 42, 98, 0, false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        *change = (struct registry_revocation){.tenant_key = cases[i].tenant,
                                               .device_key = cases[i].device,
                                               .credential_key = cases[i].credential,
                                               .kept_count = cases[i].kept != 0,
                                               .kept = {cases[i].kept}};
        cr_assert_eq(session_is_revoked(&r->session, change), cases[i].ends, "case %u", i);
    }
    session_stop(&r->session, DG_ERR_DISABLED, NULL);
    cr_assert_eq(r->sent[2], 0x98);
    cr_assert(!session_is_revoked(&r->session, change));
    free(change);
    recorder_free(r);
}

Test(session, draining) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, "t", "x");
    session_drain(&r->session);
    session_drain(&r->session);
    cr_assert_eq(r->close_count, 0);
    session_append_done(&r->session, r->events[1].tag, 0);
    cr_assert(r->sent[0] == 0x40 && r->sent[4] == 0xE0 && r->sent[6] == 0x8B);
    cr_assert_eq(r->close_count, 1);
    recorder_free(r);
    r = recorder_create();
    feed_connect(r, MQTT_VERSION_5);
    session_drain(&r->session);
    cr_assert_eq(r->sent[3], 0x88);
    recorder_free(r);
}

Test(session, every_error_has_a_reason_that_its_packet_may_carry) {
    static const enum mqtt_type packets[] = {MQTT_CONNACK, MQTT_PUBACK, MQTT_SUBACK,
                                             MQTT_DISCONNECT};
    static const char *const allowed[] = {
        "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8A\x8C\x90\x95\x97\x99\x9A\x9B\x9C\x9D\x9F",
        "\x80\x83\x87\x90\x91\x97\x99",
        "\x80\x83\x87\x8F\x91\x97\x9E\xA1\xA2",
        "\x80\x81\x82\x83\x87\x89\x8B\x8D\x8E\x8F\x90\x93\x94\x95\x96\x97\x98\x99\x9A\x9B\x9C\x9D"
        "\x9E"
        "\x9F\xA0\xA1\xA2",
    };
    for (int err = DG_ERR_INTERNAL; err < 0; err++)
        for (unsigned i = 0; i < 4; i++)
            cr_assert_not_null(strchr(allowed[i], session_reason(err, packets[i])),
                               "%d in %u: %02x", err, i, session_reason(err, packets[i]));
}

Test(session, an_idle_session_is_small) {
    cr_assert_leq(sizeof(struct session), 216, "%zu", sizeof(struct session)); /* malloc: 224 */
}
