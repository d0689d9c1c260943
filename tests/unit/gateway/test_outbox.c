/* Messages to a device: windows, acknowledgements in any order, and that each message comes back
 * exactly once. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/session/outbox.h"
#include "leaks.h"

TestSuite(outbox, .fini = check_leaks);

enum { NOW = 1000, LATER = 5000, DEVICE = 3 };

static unsigned finished_count;
static struct outbox_message *last; /* the newest that came back; freed with the next one */

static void forget_last(void) {
    if (last)
        outbox_message_free_parts(last);
    free(last);
    last = NULL;
}

static void on_finished(struct outbox_message *message) {
    finished_count++;
    forget_last();
    last = message;
}

static struct outbox_message *message_of(size_t payload_size, const char *reply_id,
                                         uint64_t expires_ms) {
    struct outbox_message *message = calloc(1, sizeof(*message));
    message->finished = on_finished;
    message->device_key = DEVICE;
    message->topic = slice_from_string("$dg/commands/1/x");
    message->payload = malloc(payload_size + 1);
    message->payload_size = (uint32_t)payload_size;
    message->expires_ms = expires_ms;
    strcpy(message->reply_id, reply_id);
    return message;
}

static void add(struct outbox **outbox, uint8_t qos, const char *reply_id) {
    cr_assert_eq(outbox_add(outbox, message_of(10, reply_id, LATER), qos, 0), 0);
}

/* Sends all that the window allows; how many. */
static unsigned send_all(struct outbox **outbox, uint16_t receive_maximum, uint16_t *id) {
    struct outbox_entry *entry;
    unsigned count = 0;
    for (; (entry = outbox_next(*outbox, receive_maximum)); count++) {
        if (entry->qos > 0 && entry->packet_id == 0)
            entry->packet_id = *id = outbox_choose_packet_id(*outbox, *id);
        if (outbox_is_due(outbox, entry, NOW))
            outbox_sent(outbox, entry);
    }
    return count;
}

static void expect_last(unsigned count, enum outbox_outcome outcome, int err) {
    cr_assert_eq(finished_count, count);
    cr_assert_eq(last->outcome, outcome);
    cr_assert_eq(last->err, err);
}

Test(outbox, acknowledgement_is_the_end_without_a_reply) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    add(&outbox, 0, "");
    cr_assert_eq(send_all(&outbox, 10, &id), 1);
    expect_last(1, OUTBOX_SENT, 0);
    cr_assert_null(outbox);
    add(&outbox, 1, "");
    add(&outbox, 2, "");
    cr_assert_eq(send_all(&outbox, 10, &id), 2);
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 1, 0x10), 0);
    expect_last(2, OUTBOX_ACKNOWLEDGED, 0);
    cr_assert_null(last->payload, "the device has it");
    cr_assert_eq(outbox_acknowledged(&outbox, 2, 2, 0), 0);
    expect_last(3, OUTBOX_ACKNOWLEDGED, 0);
    cr_assert_not_null(outbox, "PUBCOMP is to come");
    cr_assert_eq(outbox_acknowledged(&outbox, 2, 2, 0), 0, "PUBREC again");
    cr_assert_eq(outbox_completed(&outbox, 2), 0);
    cr_assert_null(outbox);
    cr_assert_eq(finished_count, 3);
    forget_last();
}

Test(outbox, refused) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    for (uint8_t qos = 1; qos <= 2; qos++) {
        add(&outbox, qos, "r");
        send_all(&outbox, 10, &id);
        cr_assert_eq(outbox_acknowledged(&outbox, qos, id, 0x87), 0);
        expect_last(qos, OUTBOX_REFUSED, DG_ERR_DEVICE_REFUSED);
        cr_assert_eq(last->reason, 0x87);
        cr_assert_null(outbox);
    }
    forget_last();
}

Test(outbox, identifiers_that_do_not_fit) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 1, 0), DG_ERR_PACKET_ID_NOT_FOUND);
    cr_assert_eq(outbox_completed(&outbox, 1), DG_ERR_PACKET_ID_NOT_FOUND);
    add(&outbox, 1, "");
    add(&outbox, 2, "");
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 1, 0), DG_ERR_PACKET_ID_NOT_FOUND, "not sent");
    send_all(&outbox, 10, &id);
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 0, 0), DG_ERR_PACKET_ID_NOT_FOUND);
    cr_assert_eq(outbox_acknowledged(&outbox, 2, 1, 0), DG_ERR_PROTOCOL, "PUBREC of QoS 1");
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 2, 0), DG_ERR_PROTOCOL, "PUBACK of QoS 2");
    cr_assert_eq(outbox_completed(&outbox, 2), DG_ERR_PROTOCOL, "before PUBREC");
    outbox_free(&outbox, DG_ERR_CLOSED);
    expect_last(2, OUTBOX_DROPPED, DG_ERR_CLOSED);
    forget_last();
}

Test(outbox, window) {
    struct outbox *outbox = NULL;
    uint16_t id = UINT16_MAX - 1; /* and identifiers wrap past 0 */
    for (unsigned i = 0; i < 4; i++)
        add(&outbox, 2, "");
    cr_assert_eq(send_all(&outbox, 2, &id), 2);
    cr_assert_eq(id, 1);
    cr_assert_eq(outbox_acknowledged(&outbox, 2, UINT16_MAX, 0), 0);
    cr_assert_eq(send_all(&outbox, 2, &id), 0, "QoS 2 counts until PUBCOMP (MQTT5 4.9)");
    cr_assert_eq(outbox_completed(&outbox, UINT16_MAX), 0);
    cr_assert_eq(send_all(&outbox, 2, &id), 1);
    outbox_free(&outbox, DG_ERR_CLOSED);
    cr_assert_eq(finished_count, 4);

    for (unsigned i = 0; i < LIMIT_OUTBOX_MESSAGES; i++)
        add(&outbox, 1, "");
    struct outbox_message *more = message_of(1, "", LATER);
    cr_assert_eq(outbox_add(&outbox, more, 1, 0), DG_ERR_LIMIT);
    cr_assert_eq(send_all(&outbox, UINT16_MAX, &id), LIMIT_OUTBOX_INFLIGHT);
    outbox_free(&outbox, DG_ERR_CLOSED);

    enum { LARGE = 100 * 1024 };
    for (unsigned i = 0; i < LIMIT_OUTBOX_BYTES / LARGE; i++)
        cr_assert_eq(outbox_add(&outbox, message_of(LARGE, "", LATER), 1, 0), 0);
    more->payload_size = LARGE;
    cr_assert_eq(outbox_add(&outbox, more, 1, 0), DG_ERR_LIMIT);
    cr_assert_eq(send_all(&outbox, UINT16_MAX, &id), LIMIT_OUTBOX_INFLIGHT_BYTES / LARGE + 1);
    outbox_free(&outbox, DG_ERR_CLOSED);
    outbox_message_free_parts(more);
    free(more);
    forget_last();
}

Test(outbox, identifiers_in_use_are_not_given_again) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    add(&outbox, 1, "");
    send_all(&outbox, 9, &id);
    cr_assert_eq(outbox_choose_packet_id(outbox, 0), 2);
    cr_assert_eq(outbox_choose_packet_id(outbox, UINT16_MAX), 2);
    outbox_free(&outbox, DG_ERR_CLOSED);
    forget_last();
}

static struct outbox_reply *reply_of(unsigned status) {
    struct outbox_reply *reply = calloc(1, sizeof(*reply));
    reply->status = status;
    return reply;
}

/* Before and after the acknowledgement, for each QoS. */
Test(outbox, replies) {
    for (uint8_t qos = 0; qos <= 2; qos++) {
        for (unsigned steps = 0; steps <= qos; steps++) { /* that come before the reply */
            struct outbox *outbox = NULL;
            uint16_t id = 0;
            struct slice name = slice_from_string("abc");
            finished_count = 0;
            add(&outbox, qos, "abc");
            cr_assert_null(outbox_find_reply(outbox, DEVICE, name, NOW), "not sent");
            send_all(&outbox, 9, &id);
            for (unsigned step = 0; step < 2; step++) {
                if (step == 1) {
                    cr_assert_null(
                        outbox_find_reply(outbox, DEVICE, slice_from_string("abcd"), NOW));
                    cr_assert_null(outbox_find_reply(outbox, DEVICE, slice_from_string(""), NOW));
                    cr_assert_null(outbox_find_reply(outbox, DEVICE, name, LATER), "over");
                    struct outbox_message *message = outbox_find_reply(outbox, DEVICE, name, NOW);
                    cr_assert_not_null(message);
                    outbox_replied(&outbox, message, reply_of(201));
                    expect_last(1, OUTBOX_REPLIED, 0);
                    cr_assert_eq(last->reply->status, 201);
                    cr_assert_null(outbox_find_reply(outbox, DEVICE, name, NOW), "only once");
                }
                if (qos > 0 && (step == 1) == (steps < 1))
                    cr_assert_eq(outbox_acknowledged(&outbox, qos, id, 0), 0);
                if (qos == 2 && (step == 1) == (steps < 2))
                    cr_assert_eq(outbox_completed(&outbox, id), 0);
            }
            cr_assert_eq(finished_count, 1);
            cr_assert_null(outbox, "QoS %u, %u", qos, steps);
        }
    }
    forget_last();
}

Test(outbox, another_connection) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    for (unsigned i = 0; i < 4; i++)
        add(&outbox, i < 2 ? 2 : 1, "abc");
    send_all(&outbox, 3, &id); /* the last one is not sent */
    cr_assert_eq(outbox_acknowledged(&outbox, 2, 1, 0), 0);
    outbox_resume(outbox);
    cr_assert_eq(outbox->first->state, OUTBOX_RECEIVED, "PUBREL, not PUBLISH");
    struct outbox_entry *entry = outbox_next(outbox, 9);
    cr_assert_eq(entry->packet_id, 2, "in the same order");
    cr_assert_eq(send_all(&outbox, 9, &id), 3);
    cr_assert_eq(id, 4);
    outbox_free(&outbox, DG_ERR_CLOSED);
    forget_last();
}

/* What was replied to and then lost its acknowledgement is not sent again. */
Test(outbox, another_connection_after_the_reply) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    for (uint8_t qos = 1; qos <= 2; qos++) {
        add(&outbox, qos, qos == 1 ? "one" : "two");
        send_all(&outbox, 9, &id);
        outbox_replied(
            &outbox,
            outbox_find_reply(outbox, DEVICE, slice_from_string(qos == 1 ? "one" : "two"), NOW),
            reply_of(200));
    }
    outbox_resume(outbox);
    cr_assert(!outbox_is_due(&outbox, outbox_next(outbox, 9), NOW));
    cr_assert_eq(outbox->count, 1);
    cr_assert(!outbox_is_due(&outbox, outbox_next(outbox, 9), NOW));
    cr_assert_eq(outbox->first->state, OUTBOX_RECEIVED);
    cr_assert_eq(outbox_completed(&outbox, id), 0);
    cr_assert_null(outbox);
    forget_last();
}

Test(outbox, time) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    cr_assert_eq(outbox_add(&outbox, message_of(1, "", NOW), 1, 0), 0);
    cr_assert(!outbox_is_due(&outbox, outbox_next(outbox, 9), NOW), "over before it was sent");
    expect_last(1, OUTBOX_DROPPED, DG_ERR_TIMEOUT);
    cr_assert_null(outbox);
    for (unsigned i = 0; i < 3; i++)
        add(&outbox, 1, "abc");
    send_all(&outbox, 2, &id);
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 1, 0), 0);
    outbox_expire(&outbox, LATER - 1);
    cr_assert_eq(outbox->count, 3);
    outbox_expire(&outbox, LATER); /* the awaited and the waiting one */
    cr_assert_eq(outbox->count, 1);
    cr_assert_eq(outbox_acknowledged(&outbox, 1, 2, 0), 0, "its identifier was in use");
    outbox_expire(&outbox, LATER);
    cr_assert_null(outbox);
    expect_last(4, OUTBOX_DROPPED, DG_ERR_TIMEOUT);
    forget_last();
}

/* Commands of one device come back, however far they are; what else is there stays. */
Test(outbox, recall) {
    struct outbox *outbox = NULL;
    uint16_t id = 0;
    for (unsigned i = 0; i < 4; i++) {
        struct outbox_message *message = message_of(1, "", LATER);
        message->kind = i == 3 ? OUTBOX_CALL : OUTBOX_COMMAND;
        message->device_key = i == 1 ? DEVICE + 1 : DEVICE;
        cr_assert_eq(outbox_add(&outbox, message, 1, 0), 0);
    }
    cr_assert_eq(send_all(&outbox, 1, &id), 1);
    outbox_recall(&outbox, DEVICE);
    expect_last(2, OUTBOX_DROPPED, DG_ERR_TAKEN_OVER);
    cr_assert_eq(outbox->count, 3); /* the device's window has the one that was sent */
    cr_assert_null(outbox_next(outbox, 1));
    cr_assert_eq(outbox_acknowledged(&outbox, 1, id, 0), 0);
    cr_assert_eq(outbox->count, 2);
    outbox_recall(&outbox, DEVICE + 1);
    cr_assert_eq(outbox->count, 1);
    cr_assert_eq(outbox->first->message->kind, OUTBOX_CALL);
    outbox_free(&outbox, DG_ERR_CLOSED);
    outbox_recall(&outbox, DEVICE);
    forget_last();
}
