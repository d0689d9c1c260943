/* What the files of the session share; nobody else includes it. */
#pragma once

#include "gateway/session/authorize.h"
#include "gateway/session/reason.h"
#include "gateway/session/session.h"

/* What a tag says, from above: the error that the device hears though its event is stored (a byte,
 * without its sign), its share (4 bits: share.h), the kind; of a publish that is answered its
 * packet identifier; of an event with a producer sequence one more than its ticket; the low bits of
 * the publish's sequence number. */
enum session_tag {
    SESSION_TAG_QOS1 = 1,
    SESSION_TAG_QOS2,
    SESSION_TAG_QOS0,
    SESSION_TAG_RELEASED, /* an identity is deleted */
    SESSION_TAG_SAVED,    /* the session's record, and somebody waits for it */
    SESSION_TAG_WILL,     /* with the record of the session's end */
    SESSION_TAG_OWN
};
enum {
    SESSION_TAG_SEQUENCE_BITS = 22,
    SESSION_TAG_TICKET_MASK = 2 * PRODUCERS_TICKET_MAX + 1,
};
_Static_assert(SESSION_TAG_TICKET_MASK >> (32 - SESSION_TAG_SEQUENCE_BITS) == 0, "both in 32 bits");
static inline uint64_t session_tag_make(enum session_tag kind, uint16_t packet_id,
                                        uint32_t sequence) {
    return (uint64_t)kind << 48 | (uint64_t)packet_id << 32 |
           (sequence & ((1u << SESSION_TAG_SEQUENCE_BITS) - 1));
}

static inline uint64_t session_tag_with(uint64_t tag, int err) {
    return tag | (uint64_t)(uint8_t)-err << 56;
}
static inline enum session_tag session_tag_kind(uint64_t tag) {
    return (enum session_tag)(tag >> 48 & 15);
}
static inline int session_tag_err(uint64_t tag) {
    return -(int)(tag >> 56);
}

static inline uint64_t session_now_ms(const struct session *session) {
    return session->shared->now_ns / 1000000;
}
static inline uint32_t session_now_us(const struct session *session) {
    return (uint32_t)(session->shared->now_ns / 1000);
}
static inline bool session_is_mqtt5(const struct session *session) {
    return session->version == MQTT_VERSION_5;
}

/* A reason string, unless the device asked for none on acknowledgements. */
static inline struct slice session_reason_string(const struct session *session, const char *text) {
    if (session->flags & SESSION_NO_PROBLEM_INFORMATION)
        return slice_make(NULL, 0);
    return slice_from_string(text);
}

/* Sends what was written; false (and nothing sent) when the device does not take packets so large
 * or the writer is out of room. */
bool session_send(struct session *session, const struct writer *w);

void session_pause(struct session *session, enum session_flag why);
void session_unpause(struct session *session, enum session_flag why);

/* As the effects, and counted as outstanding. */
DG_NODISCARD int session_append(struct session *session, const struct device_event *event,
                                const struct stream_mutation *with, uint64_t tag);
/* With any number of changes. */
DG_NODISCARD int session_append_all(struct session *session, const struct device_event *event,
                                    const struct stream_mutation *with, unsigned count,
                                    uint64_t tag);
DG_NODISCARD int session_mutate(struct session *session, const struct stream_mutation *mutation,
                                uint64_t tag);

/* Ends the session: farewell, will, disconnected event, claim. Again: nothing. */
void session_end(struct session *session, const struct session_end *end);
/* ... because of what the peer sent: counted. err MALFORMED, PROTOCOL or a more precise one. */
void session_fault(struct session *session, int err, const char *clause, const char *text);
/* What is left to do after the end; until nothing is. */
void session_settle(struct session *session);
/* Appends the connected event, if they are wanted. 0 or DG_ERR_PRESSURE or another. */
DG_NODISCARD int session_append_connected(struct session *session);

/* Next deadline of a connected session. */
uint64_t session_next_deadline(const struct session *session);

/* Protocol level in a CONNECT's body that may not be valid; 0 when it is not even there. */
uint8_t session_connect_level(struct slice body);
/* A CONNECT that could not be decoded: answered as far as its version is known. */
void session_connect_undecodable(struct session *session, struct slice body, int err,
                                 const struct mqtt_fault *fault);
/* Claim granted, or the stream takes records again: connected event, then CONNACK. */
void session_connect_finish(struct session *session);

/* The packet is dealt with; false: the stream or the window is full, offer it again. */
bool session_publish(struct session *session, uint8_t first_byte, struct slice body);

/* As the effect; counted until session_child_done(). */
DG_NODISCARD int session_find_child(struct session *session, struct slice name);
/* After session_may() answered SESSION_ASK: the packet is offered again when the registry has
 * answered (0). DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_ask_child(struct session *session, struct slice name);

/* Handlers of the table in session.c; as session_publish(). */
typedef bool session_handler(struct session *session, const struct mqtt_packet *packet);
session_handler session_on_connect, session_on_pubrel, session_on_subscribe, session_on_unsubscribe;
session_handler session_on_puback, session_on_pubrec, session_on_pubcomp;

/* Answers a publish of which nothing is to be stored, after those that wait. offset: of the event
 * that was, or -1. */
void session_answer_in_turn(struct session *session, const struct mqtt_publish *publish, int err,
                            int64_t offset);

/* For a publish that is stored elsewhere: room for what is remembered of it until it is answered;
 * then it is remembered, and counted as on its way; session_append_done() with the tag ends it. */
DG_NODISCARD int session_reserve_answer(struct session *session,
                                        const struct mqtt_publish *publish);
uint64_t session_publish_tag(const struct session *session, const struct mqtt_publish *publish);
void session_await_answer(struct session *session, const struct mqtt_publish *publish);
/* As session_publish(), for one that will not be stored. */
bool session_not_stored(struct session *session, const struct mqtt_publish *publish, int err);

/* ---- session_deliver.c, session_reply.c ---- */

/* The device goes on with a session: what waits for it and those behind it elsewhere may come. */
void session_deliver_wake(struct session *session);
/* ... for those behind it that nobody has been told of; the registry may be asked first. */
void session_deliver_wake_children(struct session *session);
/* A subscription is over. */
void session_deliver_sleep(struct session *session, struct session_subscription *subscription);

/* The subscription by which a message on a native topic comes; NULL: the device does not want it.
 */
struct session_subscription *session_find_receiver(const struct session *session,
                                                   struct slice native);
/* After CONNACK: what the session has for the device and what it has not acknowledged. */
void session_deliver_resume(struct session *session);
/* Now and then: what nobody waits for any more goes. */
void session_deliver_expire(struct session *session);
/* A publish that is a reply; as session_publish(). */
bool session_reply(struct session *session, const struct mqtt_publish *publish,
                   const struct session_permit *permit);

/* ---- session_state.c ---- */

/* Why a publish was refused, once; NULL: the error's text says all. Valid during the turn. */
const char *session_take_why(struct session *session, uint16_t packet_id);
/* Whether a publish is a report of state: 0, DG_ERR_STATE_DOCUMENT, DG_ERR_STATE_SIZE,
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_report_check(struct session *session, const struct mqtt_publish *publish);
/* Whose twin it is: the child's, or, NULL, the session's own. */
void session_state_target(const struct session *session, const struct child *child,
                          struct command_target *target);
/* As the effect: the twin's answer is what session_append_done() is to others. */
DG_NODISCARD int session_report(struct session *session, const struct mqtt_publish *publish,
                                const struct session_permit *permit, uint64_t tag);
/* Listens to the desired state that the subscriptions take, as far as it does not yet. */
void session_state_listen(struct session *session);
/* A connection goes on with these subscriptions. */
void session_state_resume(struct session *session);
void session_state_ignore(struct session *session, struct session_subscription *s);
void session_state_end(struct session *session);
/* Whether a message on a native topic, which comes by this subscription, may be given to the
 * session: 0, or DG_ERR_NOT_FOUND when it is of a device that it may not speak for. */
DG_NODISCARD int session_may_deliver(struct session *session, struct slice topic,
                                     struct session_subscription *s);

/* ---- session_note.c ---- */

/* For the flight recorder. detail is cut when it is long. */
void session_note(struct session *session, enum flight_kind kind, int err, struct slice detail);
/* How it ended, and in which state. */
void session_note_end(struct session *session, const struct session_end *end,
                      enum session_state before);
/* A publish was refused (err), counted with the device too. topic may be empty. */
void session_note_refused(struct session *session, enum flight_kind kind, int err,
                          struct slice topic);
/* A QoS 0 event was taken in and is not stored. */
void session_note_dropped(struct session *session, int err);
/* ---- session_sequence.c ---- */

/* What the device says of a publish, whose topic loses its suffix; ret_sequence->sequence 0: it
 * has none. 0 or DG_ERR_SEQUENCE. */
DG_NODISCARD int session_sequence_take(struct mqtt_publish *publish,
                                       struct producer_sequence *ret_sequence);
/* As producers_prepare(). */
DG_NODISCARD int session_sequence_prepare(struct session *session,
                                          const struct producer_sequence *sequence,
                                          struct producers_change *change);
/* What the tag of an append with a change has beside the rest. */
uint64_t session_sequence_tag(const struct producers_change *change);
/* A ticket came back; nothing when its tag has no such part. */
void session_sequence_settle(struct session *session, uint64_t tag, int err);

/* ---- session_receipt.c ---- */

/* What a CONNECT asks for. */
bool session_wants_receipts(const struct mqtt_properties *properties);
/* An acknowledgement with a receipt; false: nothing was sent, since the offset is not known (-1) or
 * the device does not take packets so large (MQTT5 3.4.2-3, 3.5.2-3). */
bool session_send_receipt(struct session *session, enum mqtt_type type, uint16_t packet_id,
                          int64_t offset);
/* Of a QoS 2 message that is stored; -1: not known, or nobody wants to. */
int64_t session_identity_offset(struct session *session, uint16_t packet_id);

/* ---- session_keep.c ---- */

/* What was asked for, within the configured maximum. */
uint32_t session_cap_expiry(const struct session *session, uint32_t asked_s);
/* Makes session->kept when there is none. 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_keep(struct session *session);
/* Before CONNACK: writes the session, or that the former one is over. 0: SESSION_OPENED, or
 * SESSION_SAVING until session_saved(). */
DG_NODISCARD int session_open(struct session *session);
/* Writes what a packet has changed; the packet is offered again when that is durable. True when it
 * is not, because the session has ended. */
bool session_save_change(struct session *session);
/* The ticket of either came back. */
void session_saved(struct session *session, int err);
/* The connection is over: writes since when, or that the session is over too. */
DG_NODISCARD int session_save_end(struct session *session);
/* Before the claim is released: what does not outlive the connection goes. */
void session_let_go(struct session *session);

/* What the latter writes, before it was written; else NULL. Points into bytes. */
const struct stream_mutation *session_end_mutation(struct session *session,
                                                   struct stream_mutation *mutation,
                                                   struct kept_bytes *bytes);

/* ---- session_will.c ---- */

/* Takes the will of a CONNECT, if it has one. DG_ERR_TOPIC_NAME, DG_ERR_PAYLOAD_FORMAT,
 * DG_ERR_LIMIT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_will_take(struct session *session, const struct mqtt_connect *connect);
/* Now it is known whose it is: as session_may(), or DG_ERR_NO_MEMORY, DG_ERR_LIMIT. */
DG_NODISCARD int session_will_own(struct session *session);
void session_will_drop(struct session *session);
/* The connection has ended: the will is due, waits with the session (MQTT5 3.1.3.2.2) or is no
 * more.
 */
void session_will_end(struct session *session, bool was_connected, int err);
/* Appends what is due. 0 or DG_ERR_PRESSURE. */
DG_NODISCARD int session_will_settle(struct session *session);
/* Appends a will as an event of this session's device. As session_may() and the effect. */
DG_NODISCARD int session_will_append(struct session *session, const struct session_will *will,
                                     const struct stream_mutation *with, enum session_tag tag);

/* ---- session_release.c ---- */

/* QoS 2 messages that are not released; NULL: none. */
static inline struct identities *session_identities(const struct session *session) {
    return session->kept ? session->kept->identities : NULL;
}
/* Room for one more. */
DG_NODISCARD int session_identity_reserve(struct session *session);
/* The change of state that is appended with a QoS 2 publish; NULL: none. Points into key. */
const struct stream_mutation *session_identity_write(const struct session *session,
                                                     uint16_t packet_id,
                                                     struct stream_mutation *mutation,
                                                     uint8_t key[KEPT_IDENTITY_KEY_BYTES]);
/* The deletion of an identity is durable, or was refused. */
void session_identity_released(struct session *session, uint16_t packet_id, int err);
/* The event of a QoS 2 publish is durable (err 0) or will never be. */
void session_identity_settle(struct session *session, uint16_t packet_id, int err);
