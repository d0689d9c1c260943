/* Producer sequences over MQTT. */
#include <stdio.h>

#include "session_recorder.h"

TestSuite(session_sequence, .fini = check_leaks);

/* A publish that names its sequence: as a property, or in its topic. */
static void feed_sequenced(struct recorder *r, uint8_t qos, uint16_t id, const char *sequence,
                           bool in_topic) {
    uint8_t bytes[512], section[256];
    char topic[128];
    struct writer w = writer_make(bytes, sizeof(bytes));
    struct writer properties = writer_make(section, sizeof(section));
    snprintf(topic, sizeof(topic), in_topic ? "a/b/$seq/%s" : "a/b", sequence);
    if (!in_topic) {
        writer_u8(&properties, 0x26);
        writer_u16(&properties, 6);
        writer_bytes(&properties, "dg-seq", 6);
        writer_u16(&properties, (uint16_t)strlen(sequence));
        writer_bytes(&properties, sequence, strlen(sequence));
    }
    mqtt_write_publish(&w, r->session.version, false, qos, false, slice_from_string(topic), id,
                       slice_make(section, writer_size(&properties)), slice_from_string("x"));
    cr_assert(!w.failed);
    feed(r, bytes, writer_size(&w));
}

#define EACH_WAY(version, in_topic) \
    EACH_VERSION(version)           \
    for (int in_topic = version == MQTT_VERSION_5 ? 0 : 1; in_topic < 2; in_topic++)

static const struct recorded_event *last_event(const struct recorder *r) {
    return &r->events[r->event_count - 1];
}

static void complete_last(struct recorder *r, int err) {
    session_append_done(&r->session, last_event(r)->tag, err);
}

Test(session_sequence, stored_once_and_acknowledged_twice) {
    EACH_WAY(version, in_topic) {
        struct recorder *r = connected(version);
        int64_t before = metric_read(METRIC_SEQUENCES_REPEATED);
        feed_sequenced(r, 1, 1, "p:1:1", in_topic);
        cr_assert_eq(r->event_count, 2);
        cr_assert_str_eq(last_event(r)->subject, "a/b");
        cr_assert_str_eq(last_event(r)->id, "p:1:1");
        cr_assert_eq(r->mutation_count, 1);
        cr_assert_eq(r->mutations[0].name_space, STREAM_STATE_PRODUCER);
        cr_assert_eq(r->mutations[0].with_event, 1);
        cr_assert_eq(r->sent_size, 0);
        complete_last(r, 0);
        cr_assert_sent(r, 0x40, 2, 0, 1);
        forget_sent(r);
        feed_sequenced(r, 1, 2, "p:1:1", in_topic);
        cr_assert_sent(r, 0x40, 2, 0, 2);
        cr_assert_eq(r->event_count, 2);
        cr_assert_eq(metric_read(METRIC_SEQUENCES_REPEATED), before + 1);
        recorder_free(r);
    }
}

Test(session_sequence, who_comes_while_it_is_on_its_way_waits) {
    EACH_WAY(version, in_topic) {
        for (int err = 0; err >= DG_ERR_STORAGE_FULL; err += DG_ERR_STORAGE_FULL) {
            struct recorder *r = connected(version);
            feed_sequenced(r, 1, 1, "p:1:1", in_topic);
            feed_sequenced(r, 1, 2, "p:1:1", in_topic);
            cr_assert(r->session.flags & SESSION_PAUSED_WINDOW);
            cr_assert_eq(r->pause_count, 2); /* one while it logged in */
            complete_last(r, err);
            forget_sent(r);
            cr_assert(!(r->session.flags & SESSION_PAUSED));
            feed_sequenced(r, 1, 2, "p:1:1", in_topic); /* as it is offered again */
            if (err == 0)
                cr_assert_sent(r, 0x40, 2, 0, 2);
            else if (version == MQTT_VERSION_5)
                cr_assert_eq(r->event_count, 3, "the first was refused, so it is stored");
            else
                cr_assert_eq(r->event_count, 2, "3.1.1: withheld");
            recorder_free(r);
        }
    }
}

Test(session_sequence, refused_and_sent_again) {
    struct recorder *r = connected(MQTT_VERSION_5);
    feed_sequenced(r, 1, 1, "p:1:1", false);
    feed_sequenced(r, 1, 2, "p:1:2", false);
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    session_append_done(&r->session, r->events[2].tag, 0);
    feed_sequenced(r, 1, 1, "p:1:1", false);
    cr_assert_eq(r->event_count, 4);
    complete_last(r, 0);
    forget_sent(r);
    feed_sequenced(r, 1, 1, "p:1:1", false);
    feed_sequenced(r, 1, 2, "p:1:2", false);
    cr_assert_sent(r, 0x40, 2, 0, 1, 0x40, 2, 0, 2);
    cr_assert_eq(r->event_count, 4);
    recorder_free(r);
}

Test(session_sequence, pressure_leaves_nothing_behind) {
    EACH_WAY(version, in_topic) {
        struct recorder *r = connected(version);
        r->append_err = DG_ERR_PRESSURE;
        feed_sequenced(r, 1, 1, "p:1:1", in_topic);
        cr_assert_null(r->session.producers);
        r->append_err = 0;
        session_ready(&r->session);
        feed_sequenced(r, 1, 1, "p:1:1", in_topic);
        cr_assert_eq(r->event_count, 2);
        recorder_free(r);
    }
}

Test(session_sequence, every_quality_of_service) {
    EACH_WAY(version, in_topic) {
        struct recorder *r = connected(version);
        feed_sequenced(r, 0, 0, "p:1:1", in_topic);
        complete_last(r, 0);
        feed_sequenced(r, 0, 0, "p:1:1", in_topic);
        cr_assert_eq(r->sent_size, 0);
        feed_sequenced(r, 2, 9, "p:1:1", in_topic);
        cr_assert_sent(r, 0x50, 2, 0, 9);
        forget_sent(r);
        const uint8_t pubrel[] = {0x62, 2, 0, 9};
        feed(r, pubrel, sizeof(pubrel));
        cr_assert_sent(r, 0x70, 2, 0, 9);
        forget_sent(r);
        feed_sequenced(r, 2, 9, "p:1:2", in_topic);
        complete_last(r, 0);
        cr_assert_sent(r, 0x50, 2, 0, 9);
        forget_sent(r);
        feed_sequenced(r, 1, 3, "p:1:2", in_topic);
        cr_assert_sent(r, 0x40, 2, 0, 3);
        cr_assert_eq(r->event_count, 3);
        recorder_free(r);
    }
}

Test(session_sequence, what_is_not_valid_is_refused) {
    static const struct {
        const char *text;
        int err;
        uint8_t reason;
    } rows[] = {
        {"p:1", DG_ERR_SEQUENCE, 0x83},
        {"", DG_ERR_SEQUENCE, 0x83},
        {"p:1:872", DG_ERR_SEQUENCE_WINDOW, 0x83},
        {"p:0:1001", DG_ERR_PRODUCER_EPOCH, 0x83},
        {"fifth:1:1", DG_ERR_PRODUCERS, 0x97},
    };
    EACH_WAY(version, in_topic) {
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct recorder *r = connected(version);
            static const char *const stored[] = {"p:1:1000", "q:1:1", "r:1:1", "s:1:1"};
            for (unsigned k = 0; k < 4; k++) {
                feed_sequenced(r, 1, 1, stored[k], in_topic);
                complete_last(r, 0);
            }
            forget_sent(r);
            unsigned events = r->event_count;
            feed_sequenced(r, 1, 7, rows[i].text, in_topic);
            if (in_topic && rows[i].text[0] == '\0')
                cr_assert_eq(r->end.err, version == 5 ? 0 : DG_ERR_SEQUENCE);
            else if (version != MQTT_VERSION_5)
                cr_assert_eq(r->end.err, rows[i].err, "%s", rows[i].text);
            if (version == MQTT_VERSION_5) {
                cr_assert(r->sent[0] == 0x40 && r->sent[4] == rows[i].reason, "%s", rows[i].text);
                cr_assert_eq(r->event_count, events);
            }
            recorder_free(r);
        }
    }
}

Test(session_sequence, said_twice) {
    struct recorder *r = connected(MQTT_VERSION_5);
    static const uint8_t section[] = {0x26, 0, 6, 'd', 'g', '-', 's', 'e',
                                      'q',  0, 5, 'p', ':', '1', ':', '1'};
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_publish(&w, MQTT_VERSION_5, false, 1, false, slice_from_string("a/$seq/p:1:1"), 1,
                       slice_make(section, sizeof(section)), slice_from_string("x"));
    feed(r, bytes, writer_size(&w));
    cr_assert(r->sent[0] == 0x40 && r->sent[4] == 0x83);
    recorder_free(r);
}

/* Only as the last two levels; what it leaves of the topic is what is authorised. */
Test(session_sequence, topics) {
    static const struct {
        const char *topic, *subject; /* NULL: refused */
    } rows[] = {
        {"a/$seq/p:1:1", "a"},
        {"$dg/events/door/$seq/p:1:1", "door"},
        {"a/$seq/p:1:1/b", "a/$seq/p:1:1/b"},
        {"a/$sequence/p:1:1", "a/$sequence/p:1:1"},
        {"a/$seq", "a/$seq"},
        {"/$seq/p:1:1", NULL},
        {"$seq/p:1:1", NULL},
        {"$SYS/a/$seq/p:1:1", NULL},
        {"a/$seq/", NULL},
        {"$dg/events/$seq/p:1:1", NULL},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct recorder *r = connected(MQTT_VERSION_3_1_1);
        feed_publish(r, 1, false, 1, rows[i].topic, "x");
        if (rows[i].subject)
            cr_assert_str_eq(last_event(r)->subject, rows[i].subject);
        else
            cr_assert_lt(r->end.err, 0, "%s", rows[i].topic);
        recorder_free(r);
    }
}

/* The device's, whatever its sessions. */
Test(session_sequence, outlives_the_connection) {
    EACH_WAY(version, in_topic) {
        struct recorder *r = connected(version);
        feed_sequenced(r, 1, 1, "p:1:1", in_topic);
        feed_sequenced(r, 1, 2, "p:1:2", in_topic);
        unsigned last = r->event_count;
        session_unlinked(&r->session, DG_ERR_CLOSED);
        session_append_done(&r->session, r->events[last - 2].tag, 0);
        cr_assert_eq(r->release_count, 0);
        session_append_done(&r->session, r->events[last - 1].tag, DG_ERR_STORAGE_FULL);
        session_append_done(&r->session, r->events[0].tag, 0);    /* connected */
        session_append_done(&r->session, r->events[last].tag, 0); /* disconnected */
        cr_assert_eq(r->release_count, 1);
        struct producer *producers = r->producers;
        r->producers = NULL;
        recorder_free(r);

        r = recorder_create();
        feed_connect(r, version);
        log_in(r);
        r->session.producers = producers;
        session_claim_done(&r->session, 0, NULL, true);
        forget_sent(r);
        feed_sequenced(r, 1, 1, "p:1:1", in_topic);
        cr_assert_sent(r, 0x40, 2, 0, 1);
        cr_assert_eq(r->event_count, 1);
        feed_sequenced(r, 1, 2, "p:1:2", in_topic);
        cr_assert_eq(r->event_count, 2, "it had been refused");
        recorder_free(r);
    }
}
