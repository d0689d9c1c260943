/* QoS 2: PUBLISH, PUBREC, PUBREL, PUBCOMP. */
#include "session_recorder.h"

TestSuite(session_release, .fini = check_leaks);

static void feed_pubrel(struct recorder *r, uint16_t id) {
    const uint8_t bytes[] = {0x62, 2, (uint8_t)(id >> 8), (uint8_t)id};
    feed(r, bytes, sizeof(bytes));
}

Test(session_release, publish_is_received_when_durable_and_complete_when_released) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        feed_publish(r, 2, false, 0x1234, "a/b", "one");
        cr_assert_eq(r->event_count, 2);
        cr_assert_eq(r->events[1].qos, 2);
        cr_assert_eq(r->sent_size, 0);
        session_append_done(&r->session, r->events[1].tag, 0);
        cr_assert_sent(r, 0x50, 2, 0x12, 0x34);
        forget_sent(r);
        feed_pubrel(r, 0x1234);
        cr_assert_sent(r, 0x70, 2, 0x12, 0x34);
        forget_sent(r);
        feed_publish(r, 2, false, 0x1234, "a/b", "another"); /* the identifier is free again */
        cr_assert_eq(r->event_count, 3);
        recorder_free(r);
    }
}

Test(session_release, what_was_received_is_not_stored_again) {
    EACH_VERSION(version) {
        for (unsigned dup = 0; dup < 2; dup++) {
            struct recorder *r = connected(version);
            int64_t before = metric_read(METRIC_MQTT_QOS2_REPEATED);
            feed_publish(r, 2, false, 7, "t", "x");
            feed_publish(r, 2, dup, 7, "t", "x"); /* joins */
            cr_assert_eq(r->sent_size, 0);
            session_append_done(&r->session, r->events[1].tag, 0);
            cr_assert_sent(r, 0x50, 2, 0, 7);
            forget_sent(r);
            feed_publish(r, 2, dup, 7, "t", "x");
            cr_assert_sent(r, 0x50, 2, 0, 7);
            cr_assert_eq(r->event_count, 2);
            cr_assert_eq(metric_read(METRIC_MQTT_QOS2_REPEATED), before + 2);
            forget_sent(r);
            feed_pubrel(r, 7);
            feed_pubrel(r, 7);
            if (version == MQTT_VERSION_5)
                cr_assert_sent(r, 0x70, 2, 0, 7, 0x70, 3, 0, 7, 0x92);
            else
                cr_assert_sent(r, 0x70, 2, 0, 7, 0x70, 2, 0, 7);
            cr_assert_eq(r->close_count, 0);
            recorder_free(r);
        }
    }
}

Test(session_release, answers_leave_in_order) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 2, false, 1, "t", "x");
    session_append_done(&r->session, r->events[1].tag, 0);
    forget_sent(r);
    feed_publish(r, 1, false, 2, "t", "x");
    feed_publish(r, 2, true, 1, "t", "x"); /* after the PUBACK of 2 */
    feed_publish(r, 2, true, 1, "t", "x");
    feed_publish(r, 2, false, 3, "t", "x");
    session_append_done(&r->session, r->events[3].tag, 0);
    cr_assert_eq(r->sent_size, 0);
    session_append_done(&r->session, r->events[2].tag, 0);
    cr_assert_sent(r, 0x40, 2, 0, 2, 0x50, 2, 0, 1, 0x50, 2, 0, 3);
    cr_assert_eq(r->event_count, 4);
    recorder_free(r);
}

Test(session_release, an_identifier_has_one_quality) {
    EACH_VERSION(version) {
        for (unsigned durable = 0; durable < 2; durable++) {
            struct recorder *r = connected(version);
            feed_publish(r, 2, false, 7, "t", "x");
            if (durable)
                session_append_done(&r->session, r->events[1].tag, 0);
            feed_publish(r, 1, true, 7, "t", "x");
            cr_assert_eq(r->end.err, DG_ERR_PACKET_ID_IN_USE);
            cr_assert_eq(r->event_count, 3, "the disconnected event");
            recorder_free(r);
        }
        struct recorder *r = connected(version);
        feed_publish(r, 1, false, 7, "t", "x");
        feed_publish(r, 2, true, 7, "t", "x");
        cr_assert_eq(r->end.err, DG_ERR_PACKET_ID_IN_USE);
        recorder_free(r);
    }
}

Test(session_release, release_before_it_was_received) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 2, false, 7, "t", "x");
    feed_pubrel(r, 7);
    cr_assert_eq(r->end.err, DG_ERR_PROTOCOL);
    recorder_free(r);
}

Test(session_release, receive_maximum_counts_until_complete) {
    struct recorder *r = connected(MQTT_VERSION_5);
    for (uint16_t id = 1; id <= 8; id++)
        feed_publish(r, id % 2 ? 2 : 1, false, id, "t", "x");
    complete_all(r, 1);
    for (uint16_t id = 11; id <= 14; id++) /* four are not released */
        feed_publish(r, 1, false, id, "t", "x");
    cr_assert_eq(r->close_count, 0);
    feed_pubrel(r, 1);
    feed_publish(r, 2, false, 15, "t", "x");
    cr_assert_eq(r->close_count, 0);
    feed_publish(r, 0, false, 0, "t", "x");
    feed_publish(r, 1, false, 16, "t", "x");
    cr_assert_eq(r->end.err, DG_ERR_RECEIVE_MAXIMUM);
    recorder_free(r);
}

Test(session_release, version_3_reads_on_for_releases) {
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    for (uint16_t id = 1; id <= 8; id++)
        feed_publish(r, 2, false, id, "t", "x");
    feed_publish(r, 2, false, 9, "t", "x");
    cr_assert(r->session.flags & SESSION_PAUSED_WINDOW);
    complete_all(r, 1);
    cr_assert_eq(r->session.flags & SESSION_PAUSED_WINDOW, 0);
    feed_publish(r, 2, false, 9, "t", "x");
    cr_assert_eq(r->event_count, 10);
    feed_pubrel(r, 1);
    cr_assert_eq(r->close_count, 0);
    recorder_free(r);

    r = connected(MQTT_VERSION_3_1_1);
    complete_all(r, 0);
    for (uint16_t id = 1; id <= LIMIT_MQTT_UNRELEASED; id++) {
        r->event_count = 0;
        r->sent_size = 0;
        feed_publish(r, 2, false, id, "t", "x");
        complete_all(r, 0);
    }
    cr_assert_eq(r->close_count, 0);
    feed_publish(r, 2, false, LIMIT_MQTT_UNRELEASED + 1, "t", "x");
    cr_assert_eq(r->end.err, DG_ERR_RECEIVE_MAXIMUM);
    recorder_free(r);
}

Test(session_release, a_refusal_ends_the_identifier) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_publish(r, 2, false, 1, "$SYS/x", "x");
    cr_assert(r->sent[0] == 0x50 && r->sent[3] == 1 && r->sent[4] == 0x87);
    forget_sent(r);
    feed_publish(r, 2, false, 1, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert(r->sent[0] == 0x50 && r->sent[3] == 1 && r->sent[4] == 0x97);
    forget_sent(r);
    feed_publish(r, 2, false, 1, "t", "x"); /* a new message */
    cr_assert_eq(r->event_count, 3);
    session_append_done(&r->session, r->events[2].tag, 0);
    cr_assert_sent(r, 0x50, 2, 0, 1);
    recorder_free(r);

    r = connected(MQTT_VERSION_3_1_1); /* has no such word: withheld */
    feed_publish(r, 2, false, 1, "t", "x");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->sent_size, 0);
    cr_assert(r->session.flags & SESSION_WITHHOLDING);
    recorder_free(r);
}

Test(session_release, pressure_leaves_nothing_behind) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        r->append_err = DG_ERR_PRESSURE;
        feed_publish(r, 2, false, 5, "t", "x");
        cr_assert_null(r->session.kept->identities);
        r->append_err = 0;
        session_ready(&r->session);
        feed_publish(r, 2, false, 5, "t", "x");
        cr_assert_eq(r->event_count, 2);
        recorder_free(r);
    }
}

/* ---- the table ---- */

Test(session_release, identities_against_a_plain_array) {
    static uint8_t model[65536];
    struct identities *table = NULL;
    unsigned seed = 3, count = 0;
    for (unsigned step = 0; step < 200000; step++) {
        seed = seed * 1664525u + 1013904223u;
        uint16_t id = (uint16_t)(1 + (seed >> 8) % (step < 100000 ? 60000 : 64));
        cr_assert_eq(identities_get(table, id), model[id]);
        if (seed >> 28 < 9) {
            cr_assert_eq(identities_reserve(&table), 0);
            count += model[id] == 0;
            model[id] = 1 + (seed >> 24) % 3;
            identities_set(table, id, model[id]);
        } else {
            count -= model[id] != 0;
            model[id] = 0;
            identities_remove(&table, id);
        }
        cr_assert_eq(identities_count(table), count);
    }
    for (unsigned id = 1; id < 65536; id++)
        identities_remove(&table, (uint16_t)id);
    cr_assert_null(table);
}
