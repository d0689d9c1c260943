/* Messages to the device as packets: QoS, properties, redelivery; and its replies. */
#include "gateway/session/authorize.h"
#include "session_recorder.h"

TestSuite(session_deliver, .fini = check_leaks);

enum { HOUR_S = 3600 };

static unsigned finished_count;
static struct outbox_message finished;
static unsigned reply_status;
static char reply_payload[64];

static void on_finished(struct outbox_message *message) {
    finished = *message;
    finished_count++;
    if (message->reply) {
        reply_status = message->reply->status;
        copy_text(reply_payload, sizeof(reply_payload), message->reply->payload);
    }
    outbox_message_free_parts(message);
    free(message);
}

static const uint8_t content_type[] = {0x03, 0, 1, 'j'};

static struct outbox_message *message_of(const struct recorder *r, const char *payload) {
    struct outbox_message *message = calloc(1, sizeof(*message));
    message->finished = on_finished;
    message->expires_ms = r->shared.now_ns / 1000000 + 10000;
    message->topic = slice_from_string("$dg/commands/7/x");
    message->properties = slice_make(content_type, sizeof(content_type));
    message->payload_size = (uint32_t)strlen(payload);
    message->payload = (uint8_t *)strdup(payload);
    message->qos = 2;
    strcpy(message->reply_id, "7");
    return message;
}

static void deliver(struct recorder *r, const char *payload) {
    forget_sent(r);
    cr_assert_eq(session_deliver(&r->session, message_of(r, payload)), 0);
}

static void refused_delivery(struct recorder *r, int err) {
    struct outbox_message *message = message_of(r, "p");
    forget_sent(r);
    cr_assert_eq(session_deliver(&r->session, message), err);
    cr_assert_eq(r->sent_size, 0);
    outbox_message_free_parts(message);
    free(message);
}

static void subscribe(struct recorder *r, uint8_t qos, uint32_t id) {
    uint8_t bytes[64] = {0x82, 0, 0, 1};
    struct writer w = writer_make(bytes + 4, sizeof(bytes) - 4);
    if (r->session.version == MQTT_VERSION_5) {
        writer_u8(&w, id ? 2 : 0);
        if (id)
            writer_bytes(&w, (uint8_t[]){0x0B, (uint8_t)id}, 2);
    }
    writer_bytes(&w, "\0\x0e$dg/commands/#", 16);
    writer_u8(&w, qos);
    bytes[1] = (uint8_t)(2 + writer_size(&w));
    feed(r, bytes, 2u + bytes[1]);
    if (r->session.flags & SESSION_SAVING) { /* durable: offered again */
        session_append_done(&r->session, r->mutations[r->mutation_count - 1].tag, 0);
        feed(r, bytes, 2u + bytes[1]);
    }
    cr_assert_eq(r->sent[r->sent_size - 1], qos);
    forget_sent(r);
}

static void feed_ack(struct recorder *r, enum mqtt_type type, uint16_t id, uint8_t reason) {
    uint8_t bytes[16];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_ack(&w, r->session.version, type, id, reason, slice_make(NULL, 0));
    forget_sent(r);
    feed(r, bytes, writer_size(&w));
}

/* How many PUBLISH packets were sent; DUP of the first one. */
static unsigned count_publishes(const struct recorder *r, bool *ret_dup) {
    unsigned count = 0;
    for (size_t at = 0; at < r->sent_size; at += 2u + r->sent[at + 1]) {
        cr_assert_lt(r->sent[at + 1], 128);
        if (r->sent[at] >> 4 != MQTT_PUBLISH)
            continue;
        if (ret_dup && count == 0)
            *ret_dup = r->sent[at] & 8;
        count++;
    }
    return count;
}

#define TOPIC 0, 16, '$', 'd', 'g', '/', 'c', 'o', 'm', 'm', 'a', 'n', 'd', 's', '/', '7', '/', 'x'

Test(session_deliver, bytes) {
    struct recorder *r = connected(MQTT_VERSION_3_1_1);
    refused_delivery(r, DG_ERR_NOT_FOUND);
    subscribe(r, 0, 0);
    deliver(r, "hi");
    cr_assert_sent(r, 0x30, 20, TOPIC, 'h', 'i');
    subscribe(r, 1, 0);
    deliver(r, "");
    cr_assert_sent(r, 0x32, 20, TOPIC, 0, 1);
    subscribe(r, 2, 0);
    deliver(r, "hi");
    cr_assert_sent(r, 0x34, 22, TOPIC, 0, 2, 'h', 'i');
    recorder_free(r);
    cr_assert_eq(finished_count, 3);
    cr_assert(finished.outcome == OUTBOX_DROPPED && finished.err == DG_ERR_CLOSED);
}

Test(session_deliver, properties) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 1, 5);
    struct outbox_message *message = message_of(r, "hi");
    message->expires_ms -= 7001; /* what is left is rounded up */
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_assert_sent(r, 0x32, 34, TOPIC, 0, 1, 11, 0x02, 0, 0, 0, 3, 0x0B, 5, 0x03, 0, 1, 'j', 'h',
                   'i');
    message = message_of(r, "hi");
    message->expires_ms = UINT64_MAX;
    forget_sent(r);
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_assert_sent(r, 0x32, 29, TOPIC, 0, 2, 6, 0x0B, 5, 0x03, 0, 1, 'j', 'h', 'i');
    recorder_free(r);
}

Test(session_deliver, message_may_ask_for_less_than_the_subscription) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 2, 0);
    struct outbox_message *message = message_of(r, "hi");
    message->qos = 1;
    cr_assert_eq(session_deliver(&r->session, message), 0);
    cr_assert_eq(r->sent[0], 0x32);
    recorder_free(r);
}

static void deliver_recurring(struct recorder *r, const char *topic) {
    struct outbox_message *message = message_of(r, "p");
    message->topic = slice_from_string(topic);
    message->topic_recurs = true;
    message->properties = slice_make(NULL, 0);
    message->expires_ms = UINT64_MAX;
    forget_sent(r);
    cr_assert_eq(session_deliver(&r->session, message), 0);
}

/* MQTT5 3.3.2.3.4 */
Test(session_deliver, topic_aliases) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 0, 0);
    deliver_recurring(r, "$dg/commands/a");
    cr_assert_sent(r, 0x30, 18, 0, 14, '$', 'd', 'g', '/', 'c', 'o', 'm', 'm', 'a', 'n', 'd', 's',
                   '/', 'a', 0, 'p');
    r->session.peer_alias_maximum = 1;
    r->session.peer_packet_bytes = 22;
    deliver_recurring(r, "$dg/commands/a");
    cr_assert_eq(r->sent_size, 0, "not sent, so the device has not heard of the alias");
    r->session.peer_packet_bytes = 23;
    deliver_recurring(r, "$dg/commands/a");
    cr_assert_sent(r, 0x30, 21, 0, 14, '$', 'd', 'g', '/', 'c', 'o', 'm', 'm', 'a', 'n', 'd', 's',
                   '/', 'a', 3, 0x23, 0, 1, 'p');
    deliver_recurring(r, "$dg/commands/a");
    cr_assert_sent(r, 0x30, 7, 0, 0, 3, 0x23, 0, 1, 'p');
    deliver_recurring(r, "$dg/commands/b"); /* no second one */
    cr_assert_eq(r->sent[1], 18);
    r->session.peer_packet_bytes = UINT32_MAX;
    deliver(r, "p");
    cr_assert_eq(r->sent[3], 16, "a topic of its own");
    recorder_free(r);
}

/* MQTT5 3.1.2-24 */
Test(session_deliver, packet_that_the_device_does_not_take) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 1, 0);
    r->session.peer_packet_bytes = 33;
    deliver(r, "hi");
    cr_assert_eq(r->sent_size, 0);
    cr_assert(finished.outcome == OUTBOX_DROPPED && finished.err == DG_ERR_TOO_LARGE);
    r->session.peer_packet_bytes = 34;
    deliver(r, "hi");
    cr_assert_eq(r->sent_size, 34);
    recorder_free(r);
}

Test(session_deliver, exactly_once) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 2, 0);
    deliver(r, "hi");
    feed_ack(r, MQTT_PUBREC, 1, 0);
    cr_assert_sent(r, 0x62, 2, 0, 1);
    feed_ack(r, MQTT_PUBREC, 1, 0);
    cr_assert_sent(r, 0x62, 2, 0, 1);
    feed_ack(r, MQTT_PUBCOMP, 1, 0);
    cr_assert_eq(r->sent_size, 0);
    deliver(r, "hi");
    feed_ack(r, MQTT_PUBREC, 2, 0x97);
    cr_assert_eq(r->sent_size, 0, "no PUBREL after an error");
    cr_assert(finished.outcome == OUTBOX_REFUSED && finished.reason == 0x97);
    recorder_free(r);
}

Test(session_deliver, identifiers_not_in_use) {
    EACH_VERSION(version) {
        struct recorder *r = connected(version);
        int64_t before = metric_read(METRIC_ACKS_UNEXPECTED);
        feed_ack(r, MQTT_PUBACK, 9, 0);
        feed_ack(r, MQTT_PUBCOMP, 9, 0);
        cr_assert_eq(r->sent_size, 0);
        feed_ack(r, MQTT_PUBREC, 9, 0);
        if (version == MQTT_VERSION_5)
            cr_assert_sent(r, 0x62, 3, 0, 9, 0x92);
        else
            cr_assert_sent(r, 0x62, 2, 0, 9);
        cr_assert_eq(metric_read(METRIC_ACKS_UNEXPECTED), before + 3);
        subscribe(r, 1, 0);
        deliver(r, "hi");
        feed_ack(r, MQTT_PUBREC, 1, 0);
        cr_assert_eq(r->end.err, DG_ERR_PROTOCOL);
        recorder_free(r);
    }
}

Test(session_deliver, receive_maximum_of_the_device) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 1, 0);
    r->session.peer_receive_maximum = 2;
    for (unsigned i = 0; i < 4; i++)
        deliver(r, "hi");
    cr_assert_eq(r->sent_size, 0);
    feed_ack(r, MQTT_PUBACK, 1, 0);
    cr_assert_eq(count_publishes(r, NULL), 1);
    feed_ack(r, MQTT_PUBACK, 2, 0x99); /* a refusal opens the window too */
    cr_assert_eq(count_publishes(r, NULL), 1);
    recorder_free(r);
}

/* The session goes on in another connection. */
static struct recorder *resumed(struct recorder *from, enum mqtt_version version) {
    session_unlinked(&from->session, DG_ERR_CLOSED);
    while (from->session.outstanding > 0)
        session_append_done(&from->session, 1ull << 63, 0);
    struct session_kept *kept = from->kept;
    from->kept = NULL;
    struct recorder *r = recorder_create();
    uint8_t bytes[64];
    static const uint8_t keep3[] = {0x10, 26, 0, 4, 'M', 'Q', 'T', 'T', 4, 0xC0, 0, 60};
    static const uint8_t keep5[] = {0x10, 32, 0,  4, 'M',  'Q', 'T', 'T', 5,
                                    0xC0, 0,  60, 5, 0x11, 0,   0,   14,  16};
    struct writer w = writer_make(bytes, sizeof(bytes));
    if (version == MQTT_VERSION_5)
        writer_bytes(&w, keep5, sizeof(keep5));
    else
        writer_bytes(&w, keep3, sizeof(keep3));
    writer_bytes(&w, "\0\1c\0\11dev1@acme\0\1x", 17);
    bytes[1] = (uint8_t)(writer_size(&w) - 2);
    feed(r, bytes, writer_size(&w));
    log_in(r);
    session_claim_done(&r->session, 0, kept, true);
    if (kept)
        session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    recorder_free(from);
    return r;
}

static struct recorder *keeping(enum mqtt_version version) {
    struct recorder *none = recorder_create();
    struct session_kept *kept = kept_new(77);
    kept->expiry_s = HOUR_S;
    kept->disconnected_ms = none->shared.wall_ms;
    none->kept = kept;
    return resumed(none, version);
}

Test(session_deliver, again_on_another_connection) {
    EACH_VERSION(version) {
        for (uint8_t qos = 0; qos <= 2; qos++) {
            struct recorder *r = keeping(version);
            bool dup = false;
            finished_count = 0;
            forget_sent(r);
            subscribe(r, qos, 0);
            deliver(r, "one");
            deliver(r, "two");
            if (qos == 2)
                feed_ack(r, MQTT_PUBREC, 1, 0);
            r = resumed(r, version);
            cr_assert_eq(count_publishes(r, &dup), qos == 0 ? 0u : qos == 1 ? 2u : 1u);
            cr_assert_eq(dup, qos > 0);
            cr_assert_eq(finished_count, 0, "replies are still awaited");
            if (qos == 2) { /* behind CONNACK, before what is sent again */
                const uint8_t pubrel[] = {0x62, 2, 0, 1};
                cr_assert_eq(memcmp(r->sent + 2 + r->sent[1], pubrel, 4), 0);
            }
            recorder_free(r);
        }
    }
}

Test(session_deliver, over_while_there_was_no_connection) {
    struct recorder *r = keeping(MQTT_VERSION_5);
    forget_sent(r);
    subscribe(r, 1, 0);
    struct outbox_message *message = message_of(r, "old");
    message->expires_ms = r->shared.now_ns / 1000000 + 1;
    cr_assert_eq(session_deliver(&r->session, message), 0);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    while (r->session.outstanding > 0)
        session_append_done(&r->session, 1ull << 63, 0);
    r->kept->outbox->first->message->expires_ms = 1;
    r = resumed(r, MQTT_VERSION_5);
    cr_assert_eq(count_publishes(r, NULL), 0);
    cr_assert(finished.outcome == OUTBOX_DROPPED && finished.err == DG_ERR_TIMEOUT);
    recorder_free(r);
}

/* ---- replies ---- */

Test(session_deliver, replies) {
    EACH_VERSION(version) {
        for (uint8_t qos = 0; qos <= 2; qos++) {
            struct recorder *r = connected(version);
            subscribe(r, 1, 0);
            deliver(r, "hi");
            forget_sent(r);
            finished_count = 0;
            feed_publish(r, qos, false, 3, "$dg/replies/7/404", "gone");
            cr_assert_eq(finished_count, 1);
            cr_assert(reply_status == 404 && strcmp(reply_payload, "gone") == 0);
            if (qos == 0)
                cr_assert_eq(r->sent_size, 0);
            else
                cr_assert_sent(r, qos == 1 ? 0x40 : 0x50, 2, 0, 3);
            if (qos == 2) {
                feed_publish(r, 2, true, 3, "$dg/replies/7/404", "gone"); /* again: PUBREC */
                feed_ack(r, MQTT_PUBREL, 3, 0);
                cr_assert_sent(r, 0x70, 2, 0, 3);
            }
            cr_assert_eq(r->event_count, 1, "no event but the connection's");
            recorder_free(r);
        }
    }
}

Test(session_deliver, replies_that_nobody_waits_for) {
    static const char *const topics[] = {"$dg/replies/8/200", "$dg/replies/7/20",
                                         "$dg/replies/7/0200", "$dg/replies/7/2x0",
                                         "$dg/replies/7/099"};
    EACH_VERSION(version) {
        for (unsigned i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) {
            struct recorder *r = connected(version);
            int64_t before = metric_read(METRIC_REPLIES_UNEXPECTED);
            subscribe(r, 1, 0);
            deliver(r, "hi");
            finished_count = 0;
            for (uint8_t qos = 0; qos <= 2; qos++) {
                forget_sent(r);
                feed_publish(r, qos, false, qos, topics[i], "x");
                cr_assert_eq(r->sent_size > 0, qos > 0);
                if (qos > 0 && version == MQTT_VERSION_5)
                    cr_assert_geq(r->sent[4], 0x80);
                else if (qos > 0)
                    cr_assert_sent(r, qos == 1 ? 0x40 : 0x50, 2, 0, qos);
            }
            cr_assert_eq(metric_read(METRIC_REPLIES_UNEXPECTED), before + 3);
            cr_assert_eq(finished_count, 0);
            cr_assert_eq(r->close_count, 0, "never fatal");
            recorder_free(r);
        }
    }
}

Test(session_deliver, reply_as_will_is_refused) {
    struct session_permit permit;
    struct recorder *r = connected(MQTT_VERSION_5);
    cr_assert_eq(session_may(&r->session, SESSION_LEAVE_WILL,
                             slice_from_string("$dg/replies/7/200"), &permit),
                 DG_ERR_NOT_AUTHORIZED);
    recorder_free(r);
}

Test(session_deliver, what_nobody_waits_for_goes) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 1, 0);
    deliver(r, "hi");
    feed_ack(r, MQTT_PUBACK, 1, 0);
    advance(r, 11000);
    cr_assert_neq(session_deadline(&r->session), 0);
    cr_assert_null(r->session.kept->outbox);
    cr_assert(finished.outcome == OUTBOX_DROPPED && finished.err == DG_ERR_TIMEOUT);
    recorder_free(r);
}

Test(session_deliver, what_nobody_waits_for_makes_room) {
    struct recorder *r = connected(MQTT_VERSION_5);
    subscribe(r, 1, 0);
    for (uint16_t id = 1; id <= LIMIT_OUTBOX_MESSAGES; id++) {
        deliver(r, "hi");
        feed_ack(r, MQTT_PUBACK, id, 0);
    }
    refused_delivery(r, DG_ERR_LIMIT);
    advance(r, 11000);
    deliver(r, "hi");
    cr_assert_eq(finished_count, LIMIT_OUTBOX_MESSAGES);
    recorder_free(r);
}
