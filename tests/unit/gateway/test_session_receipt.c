/* Receipts: partition and offset on PUBACK and PUBREC. */
#include <stdio.h>

#include "session_recorder.h"

TestSuite(session_receipt, .fini = check_leaks);

static const uint8_t asked[] = {0x26, 0,   11,  'd', 'g', '-', 'r', 'e', 'c',
                                'e',  'i', 'p', 't', 's', 0,   1,   '1'};

/* A session that outlives the connection, with these properties beside. */
static struct recorder *connected_with(const uint8_t *properties, size_t size) {
    struct recorder *r = recorder_create();
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    writer_bytes(&w, "\x10\0\0\4MQTT\5\xC0\0\x3C", 12);
    writer_u8(&w, (uint8_t)(5 + size));
    writer_bytes(&w, "\x11\0\0\1\0", 5); /* session expiry */
    writer_bytes(&w, properties, size);
    writer_bytes(&w, "\0\1c\0\11dev1@acme\0\6secret", 22);
    bytes[1] = (uint8_t)(writer_size(&w) - 2);
    feed(r, bytes, writer_size(&w));
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    forget_sent(r);
    return r;
}

static struct recorder *with_receipts(void) {
    return connected_with(asked, sizeof(asked));
}

static void durable_at(struct recorder *r, unsigned event, int64_t offset) {
    r->shared.done_offset = offset;
    session_append_done(&r->session, r->events[event].tag, 0);
}

/* Checks one acknowledgement at the front of what was sent, and takes it away. */
static void expect_answer(struct recorder *r, enum mqtt_type type, uint16_t id,
                          const char *offset) {
    size_t header_size;
    struct mqtt_packet packet;
    struct mqtt_fault fault;
    struct slice key, value;
    int size = mqtt_packet_frame(r->sent, r->sent_size, 1000, &header_size);
    cr_assert_gt(size, 0);
    uint8_t first = (uint8_t)(MQTT_PUBACK << 4); /* what a server sends is no client's PUBREC */
    cr_assert_eq(r->sent[0] >> 4, type);
    cr_assert_eq(mqtt_packet_decode(MQTT_VERSION_5, first,
                                    slice_make(r->sent + header_size, (size_t)size - header_size),
                                    &packet, &fault),
                 0);
    cr_assert_eq(packet.ack.packet_id, id);
    cr_assert_eq(packet.ack.reason, 0);
    cr_assert_eq(packet.ack.properties.user_count, offset ? 2 : 0);
    struct slice cursor = packet.ack.properties.raw;
    if (offset) {
        cr_assert(mqtt_user_property_next(&cursor, &key, &value));
        cr_assert(slice_equals_string(key, "dg-partition") && slice_equals_string(value, "5"));
        cr_assert(mqtt_user_property_next(&cursor, &key, &value));
        cr_assert(slice_equals_string(key, "dg-offset") && slice_equals_string(value, offset));
    }
    r->sent_size -= (size_t)size;
    memmove(r->sent, r->sent + size, r->sent_size);
}

Test(session_receipt, says_where_the_event_is) {
    struct recorder *r = with_receipts();
    feed_publish(r, 1, false, 1, "t", "x");
    feed_publish(r, 2, false, 2, "t", "x");
    durable_at(r, 1, 0);
    durable_at(r, 2, INT64_MAX);
    expect_answer(r, MQTT_PUBACK, 1, "0");
    expect_answer(r, MQTT_PUBREC, 2, "9223372036854775807");
    cr_assert_eq(r->sent_size, 0);
    recorder_free(r);
}

Test(session_receipt, whatever_the_order_and_the_number) {
    struct recorder *r = with_receipts();
    r->session.receive_maximum = 1000;
    for (uint16_t id = 1; id <= 100; id++)
        feed_publish(r, 1, false, id, "t", "x");
    for (unsigned event = 100; event >= 1; event--)
        durable_at(r, event, event * 10);
    for (uint16_t id = 1; id <= 100; id++) {
        char offset[8];
        sprintf(offset, "%u", id * 10);
        expect_answer(r, MQTT_PUBACK, id, offset);
    }
    recorder_free(r);
}

/* What is not known is not said. */
Test(session_receipt, of_what_was_stored_before) {
    struct recorder *r = with_receipts();
    feed_publish(r, 2, false, 7, "t", "x");
    durable_at(r, 1, 30);
    expect_answer(r, MQTT_PUBREC, 7, "30");
    feed_publish(r, 1, false, 8, "t", "x");
    r->known_offset = 30;
    feed_publish(r, 2, true, 7, "t", "x"); /* after the PUBACK of 8 */
    r->known_offset = -1;
    durable_at(r, 2, 31);
    expect_answer(r, MQTT_PUBACK, 8, "31");
    expect_answer(r, MQTT_PUBREC, 7, "30");
    feed_publish(r, 2, true, 7, "t", "x");
    expect_answer(r, MQTT_PUBREC, 7, NULL);
    feed_publish(r, 1, false, 9, "t/$seq/p:1:1", "x");
    durable_at(r, 3, 32);
    expect_answer(r, MQTT_PUBACK, 9, "32");
    feed_publish(r, 1, false, 9, "t/$seq/p:1:1", "x");
    expect_answer(r, MQTT_PUBACK, 9, NULL);
    recorder_free(r);
}

Test(session_receipt, refusals_have_none) {
    struct recorder *r = with_receipts();
    feed_publish(r, 1, false, 1, "t", "x");
    r->shared.done_offset = -1;
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert(r->sent[0] == 0x40 && r->sent[4] == 0x97);
    recorder_free(r);
}

Test(session_receipt, only_who_asked_and_takes_them) {
    static const uint8_t other[] = {0x26, 0,   11,  'd', 'g', '-', 'r', 'e', 'c',
                                    'e',  'i', 'p', 't', 's', 0,   1,   '0'};
    static const uint8_t no_information[] = {0x17, 0,   0x26, 0,   11,  'd', 'g', '-', 'r', 'e',
                                             'c',  'e', 'i',  'p', 't', 's', 0,   1,   '1'};
    static const uint8_t small[] = {0x27, 0,   0,   0,   30,  0x26, 0,   11,  'd', 'g', '-',
                                    'r',  'e', 'c', 'e', 'i', 'p',  't', 's', 0,   1,   '1'};
    const struct {
        const uint8_t *properties;
        size_t size;
    } rows[] = {{other, sizeof(other)},
                {NULL, 0},
                {no_information, sizeof(no_information)}, /* MQTT5 3.1.2-29 */
                {small, sizeof(small)}};                  /* MQTT5 3.4.2-3 */
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct recorder *r = connected_with(rows[i].properties, rows[i].size);
        feed_publish(r, 1, false, 1, "t", "x");
        durable_at(r, 1, 7);
        cr_assert_sent(r, 0x40, 2, 0, 1);
        recorder_free(r);
    }
}
