/* PUBLISH, SUBSCRIBE and their answers. */
#include "session_recorder.h"

TestSuite(session_publish, .fini = check_leaks);

/* ---- PUBLISH ---- */

Test(session_publish, qos1_is_acknowledged_when_durable_and_in_order) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_publish(r, 1, false, 0x1234, "a/b", "one");
        feed_publish(r, 1, false, 2, "$dg/events/alarm", "two");
        feed_publish(r, 1, false, 3, "c", "three");
        cr_assert_eq(r->event_count, 4);
        cr_assert_str_eq(r->events[1].subject, "a/b");
        cr_assert_eq(r->events[2].type, EVENT_EVENT);
        cr_assert_str_eq(r->events[2].subject, "alarm");
        cr_assert_eq(r->sent_size, 0);
        /* different partitions: the third is done first */
        session_append_done(&r->session, r->events[3].tag, 0);
        cr_assert_eq(r->sent_size, 0);
        session_append_done(&r->session, r->events[1].tag, 0);
        cr_assert_sent(r, 0x40, 2, 0x12, 0x34);
        forget_sent(r);
        session_append_done(&r->session, r->events[2].tag, 0);
        cr_assert_sent(r, 0x40, 2, 0, 2, 0x40, 2, 0, 3);
        cr_assert_null(r->session.inflight);
        session_append_done(&r->session, r->events[0].tag, 0);
        cr_assert_eq(r->session.outstanding, 0);
        recorder_free(r);
    }
}

Test(session_publish, a_refusal_waits_for_its_turn) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, "a", "one");
    feed_publish(r, 1, false, 2, "$SYS/x", "refused");
    feed_publish(r, 1, false, 3, "a", "three");
    cr_assert_eq(r->sent_size, 0);
    session_append_done(&r->session, r->events[2].tag, 0);
    cr_assert_eq(r->sent_size, 0);
    session_append_done(&r->session, r->events[1].tag, 0);
    cr_assert_eq(r->sent[3], 1);
    cr_assert_eq(r->sent[4], 0x40);
    cr_assert_eq(r->sent[7], 2);
    cr_assert_eq(r->sent[8], 0x87);
    cr_assert_eq(r->sent[r->sent_size - 1], 3);
    cr_assert_null(r->session.inflight);
    recorder_free(r);
}

Test(session_publish, resend_of_what_waits_joins_it) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_publish(r, 1, false, 7, "t", "x");
        feed_publish(r, 1, true, 7, "t", "x");
        cr_assert_eq(r->event_count, 2);
        complete_all(r, 1);
        cr_assert_sent(r, 0x40, 2, 0, 7);
        forget_sent(r);
        feed_publish(r, 1, true, 7, "t", "new"); /* acknowledged: the identifier is free again */
        cr_assert_eq(r->event_count, 3);
        feed_publish(r, 1, false, 7, "t", "x"); /* in use */
        cr_assert_eq(r->close_count, 1);
        recorder_free(r);
    }
}

Test(session_publish, receive_maximum) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        for (uint16_t id = 1; id <= 8; id++)
            feed_publish(r, 1, false, id, "t", "x");
        cr_assert_eq(r->close_count, 0);
        feed_publish(r, 0, false, 0, "t", "x"); /* does not count */
        feed_publish(r, 1, false, 9, "t", "x");
        if (version == MQTT_VERSION_5) {
            cr_assert_eq(r->sent[2], 0x93);
            cr_assert_eq(r->close_count, 1);
        } else {
            cr_assert_eq(r->close_count, 0);
            cr_assert(r->session.flags & SESSION_PAUSED_WINDOW);
            cr_assert_eq(r->event_count, 10);
            unsigned resumed = r->resume_count;
            session_append_done(&r->session, r->events[1].tag, 0);
            cr_assert_eq(r->resume_count, resumed + 1);
            feed_publish(r, 1, false, 9, "t", "x");
            cr_assert_eq(r->event_count, 11);
        }
        recorder_free(r);
    }
}

Test(session_publish, a_wide_window) {
    struct recorder *r = recorder_create();
    r->config->mqtt_receive_maximum = 65535;
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    forget_sent(r);
    for (unsigned round = 0; round < 5; round++) {
        unsigned from = r->event_count;
        for (uint16_t id = 1; id <= 300; id++)
            feed_publish(r, 1, false, (uint16_t)(id * 211), "t", "x");
        feed_publish(r, 1, true, 211, "t", "x");
        cr_assert_eq(r->event_count, from + 300);
        for (unsigned i = r->event_count; i-- > from;)
            session_append_done(&r->session, r->events[i].tag, 0);
        cr_assert_eq(r->sent_size, 1200u * (round + 1));
    }
    recorder_free(r);
}

struct refused_topic {
    const char *topic;
    uint8_t reason;
};

Test(session_publish, topics_that_are_refused) {
    static const struct refused_topic cases[] = {
        {"$SYS/x", 0x87},
        {"$dg/nonsense", 0x87},
        {"1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", 0x90},
    };
    EACH_VERSION(version) {
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct recorder *r = connected(version);
            feed_publish(r, 1, false, 1, cases[i].topic, "x");
            cr_assert_eq(r->event_count, r->close_count ? 2 : 1, "%s", cases[i].topic);
            if (version == MQTT_VERSION_5)
                cr_assert(r->sent[0] == 0x40 && r->sent[4] == cases[i].reason && !r->close_count,
                          "%s: %02x", cases[i].topic, r->sent[4]);
            else
                cr_assert(r->close_count == 1 && r->sent_size == 0, "%s", cases[i].topic);
            recorder_free(r);
            r = connected(version);
            feed_publish(r, 0, false, 0, cases[i].topic, "x");
            cr_assert_eq(r->close_count, 1); /* QoS 0 has no other way to hear of it */
            recorder_free(r);
        }
    }
}

static void feed_alias(struct recorder *r, const char *topic, uint16_t alias) {
    uint8_t bytes[128];
    const uint8_t property[] = {0x23, (uint8_t)(alias >> 8), (uint8_t)alias};
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_publish(&w, MQTT_VERSION_5, false, 0, false, slice_from_string(topic), 0,
                       slice_make(property, sizeof(property)), slice_from_string("x"));
    feed(r, bytes, writer_size(&w));
}

Test(session_publish, topic_aliases) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_alias(r, "first", 1);
    feed_alias(r, "last", LIMIT_MQTT_TOPIC_ALIASES);
    feed_alias(r, "", 1);
    feed_alias(r, "replaced", 1);
    feed_alias(r, "", 1);
    feed_alias(r, "", LIMIT_MQTT_TOPIC_ALIASES);
    static const char *const subjects[] = {"first",    "last",     "first",
                                           "replaced", "replaced", "last"};
    cr_assert_eq(r->event_count, 7);
    for (unsigned i = 0; i < 6; i++)
        cr_assert_str_eq(r->events[i + 1].subject, subjects[i]);
    feed_alias(r, "", 2); /* was never set */
    cr_assert_eq(r->end.err, DG_ERR_PROTOCOL);
    recorder_free(r);
    r = connected(MQTT_VERSION_5);
    feed_alias(r, "t", LIMIT_MQTT_TOPIC_ALIASES + 1);
    cr_assert_eq(r->sent[2], 0x94);
    recorder_free(r);
}

/* An alias stands for a topic, not for the right to publish there. */
Test(session_publish, alias_of_a_topic_that_is_refused) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_alias(r, "$SYS/x", 1);
    cr_assert_eq(r->end.err, DG_ERR_NOT_AUTHORIZED);
    recorder_free(r);
}

Test(session_publish, pressure_pauses_and_the_same_publish_is_offered_again) {
    EACH_VERSION(version) {
        for (uint8_t qos = 0; qos < 2; qos++) {
            struct recorder *r = connected(version);
            uint8_t bytes[64];
            struct writer w = writer_make(bytes, sizeof(bytes));
            mqtt_write_publish(&w, version, false, qos, false, slice_from_string("t"), 5,
                               slice_make(NULL, 0), slice_from_string("x"));
            r->append_err = DG_ERR_PRESSURE;
            unsigned paused = r->pause_count, resumed = r->resume_count;
            cr_assert_eq(session_receive(&r->session, bytes, writer_size(&w)), 0);
            cr_assert_eq(r->pause_count, paused + 1);
            advance(r, 3600000); /* it is we who do not listen: no keep alive */
            cr_assert_gt(session_deadline(&r->session), 0);
            r->append_err = 0;
            session_ready(&r->session);
            cr_assert_eq(r->resume_count, resumed + 1);
            cr_assert_eq(session_receive(&r->session, bytes, writer_size(&w)), writer_size(&w));
            cr_assert_eq(r->event_count, 2);
            cr_assert_eq(r->close_count, 0);
            recorder_free(r);
        }
    }
}

Test(session_publish, storage_full_in_5_is_told) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 1, false, 1, "t", "x");
    feed_publish(r, 1, false, 2, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert(r->sent[0] == 0x40 && r->sent[3] == 1 && r->sent[4] == 0x97);
    cr_assert_gt(r->sent_size, 6); /* with a reason string */
    forget_sent(r);
    session_append_done(&r->session, r->events[2].tag, 0);
    cr_assert_sent(r, 0x40, 2, 0, 2);
    cr_assert_eq(r->close_count, 0);
    recorder_free(r);
}

Test(session_publish, storage_full_in_3_withholds) {
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    feed_publish(r, 1, false, 1, "t", "x");
    feed_publish(r, 1, false, 2, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    session_append_done(&r->session, r->events[2].tag, 0);
    cr_assert_eq(r->sent_size, 0);
    static const uint8_t ping[] = {0xC0, 0};
    feed(r, ping, 2);
    cr_assert_sent(r, 0xD0, 0);
    unsigned events = r->event_count;
    feed_publish(r, 1, false, 3, "t", "x"); /* would overtake the first */
    cr_assert_eq(r->event_count, events);
    cr_assert_eq(r->close_count, 0);
    cr_assert_leq(r->deadline_ms, START_MS + LIMIT_MQTT_WITHHELD_MS);
    advance(r, LIMIT_MQTT_WITHHELD_MS);
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->end.err, DG_ERR_STORAGE_FULL);
    recorder_free(r);

    r = connected(MQTT_VERSION_3_1_1);
    feed_publish(r, 1, false, 1, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    for (uint16_t id = 2; id < 2 + LIMIT_MQTT_WITHHELD_PUBLISHES; id++)
        feed_publish(r, 1, false, id, "t", "x");
    cr_assert_eq(r->close_count, 0);
    feed_publish(r, 1, false, 1000, "t", "x");
    cr_assert_eq(r->close_count, 1);
    recorder_free(r);
}

Test(session_publish, qos0_that_was_dropped_is_counted) {
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    int64_t before = metric_read(METRIC_MQTT_QOS0_DROPPED);
    feed_publish(r, 0, false, 0, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(metric_read(METRIC_MQTT_QOS0_DROPPED), before + 1);
    cr_assert_eq(r->close_count, 0);
    recorder_free(r);
}

/* ---- SUBSCRIBE ---- */

Test(session_publish, subscriptions) {
    static const struct {
        const char *filter;
        uint8_t qos, code3, code5;
    } cases[] = {
        {"$dg/commands/#", 2, 2, 2},   {"$dg/state/desired", 0, 0, 0}, {"#", 1, 0x80, 0xA2},
        {"$share/g/a", 1, 0x80, 0x9E}, {"a/b", 1, 0x80, 0x87},
    };
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            uint8_t bytes[128];
            struct writer w = writer_make(bytes, sizeof(bytes));
            struct mqtt_subscription wanted = {.filter = slice_from_string(cases[i].filter),
                                               .qos = cases[i].qos,
                                               .options = cases[i].qos};
            mqtt_write_subscribe(&w, version, 9, &wanted, 1);
            forget_sent(r);
            feed(r, bytes, writer_size(&w));
            cr_assert_eq(r->sent[0], 0x90);
            cr_assert_eq(r->sent[r->sent_size - 1],
                         version == MQTT_VERSION_5 ? cases[i].code5 : cases[i].code3, "%s: %02x",
                         cases[i].filter, r->sent[r->sent_size - 1]);
        }
        recorder_free(r);
    }
}

Test(session_publish, unsubscribe) {
    struct recorder *r = connected(MQTT_VERSION_5);
    static const uint8_t subscribe[] = {0x82, 23,  0,   1,   0,   0,   17,  '$', 'd',
                                        'g',  '/', 's', 't', 'a', 't', 'e', '/', 'd',
                                        'e',  's', 'i', 'r', 'e', 'd', 1};
    static const uint8_t unsubscribe[] = {0xA2, 25,  0,   2,   0,   0,   17,  '$', 'd',
                                          'g',  '/', 's', 't', 'a', 't', 'e', '/', 'd',
                                          'e',  's', 'i', 'r', 'e', 'd', 0,   1,   'x'};
    feed(r, subscribe, sizeof(subscribe));
    cr_assert_sent(r, 0x90, 4, 0, 1, 0, 1);
    forget_sent(r);
    feed(r, unsubscribe, sizeof(unsubscribe));
    cr_assert_sent(r, 0xB0, 5, 0, 2, 0, 0, 0x11);
    recorder_free(r);
}

Test(session_publish, pubrel_of_nothing) {
    static const uint8_t pubrel[] = {0x62, 2, 0, 9};
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    feed(r, pubrel, sizeof(pubrel));
    cr_assert_sent(r, 0x70, 2, 0, 9);
    recorder_free(r);
    r = connected(MQTT_VERSION_5);
    feed(r, pubrel, sizeof(pubrel));
    cr_assert(r->sent[0] == 0x70 && r->sent[3] == 9 && r->sent[4] == 0x92);
    recorder_free(r);
}
