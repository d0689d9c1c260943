/* PUBLISH in, PUBACK or PUBREC out (MQTT5 3.3 to 3.5, 4.3, 4.9). The hot path. */
#include <stdio.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "common/utf8.h"
#include "gateway/session/quarantine.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/share.h"

/* ---- answering ---- */

static void send_answer(struct session *session, const struct inflight_entry *entry, uint8_t reason,
                        struct slice reason_string) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_ack(&w, session->version, entry->exactly_once ? MQTT_PUBREC : MQTT_PUBACK,
                   entry->packet_id, reason, reason_string);
    if (session_send(session, &w) || reason_string.size == 0)
        return;
    send_answer(session, entry, reason, slice_make(NULL, 0)); /* MQTT5 3.4.2-2, 3.5.2-2 */
}

static void observe_latency(struct session *session, uint32_t arrived_us) {
    struct session_shared *shared = session->shared;
    uint64_t latency_ns = (uint64_t)(session_now_us(session) - arrived_us) * 1000;
    if (latency_ns != shared->latency_ns)
        session_shared_turn(shared);
    shared->latency_ns = latency_ns;
    shared->latency_count++;
}

static void refuse(struct session *session, const struct inflight_entry *entry) {
    char text[ADMISSION_TEXT_SIZE];
    const char *why = dg_err_text(entry->err);
    if (entry->err == DG_ERR_QUOTA && session->admission) {
        admission_format(session->admission, text);
        why = text;
    }
    const char *more = session_take_why(session, entry->packet_id);
    if (more)
        why = more;
    metric_add(METRIC_MQTT_PUBLISH_REFUSED, !quarantine_is_reason(entry->err));
    send_answer(session, entry, session_reason(entry->err, MQTT_PUBACK),
                session_reason_string(session, why));
}

/* offset: of the event; -1: not known. */
static void acknowledge(struct session *session, const struct inflight_entry *entry,
                        int64_t offset) {
    if (__builtin_expect(entry->err < 0, 0)) {
        refuse(session, entry);
        return;
    }
    enum mqtt_type type = entry->exactly_once ? MQTT_PUBREC : MQTT_PUBACK;
    const uint8_t answer[4] = {(uint8_t)(type << 4), 2, (uint8_t)(entry->packet_id >> 8),
                               (uint8_t)entry->packet_id};
    if (__builtin_expect(!(session->flags & SESSION_RECEIPTS), 1) ||
        !session_send_receipt(session, type, entry->packet_id, offset))
        session->shared->effects->send(session, answer, sizeof(answer));
    observe_latency(session, entry->arrived_us);
}

void session_answer_in_turn(struct session *session, const struct mqtt_publish *publish, int err,
                            int64_t offset) {
    const struct inflight_entry entry = {.arrived_us = session_now_us(session),
                                         .packet_id = publish->packet_id,
                                         .err = (int8_t)err,
                                         .done = true,
                                         .exactly_once = publish->qos == 2};
    if (inflight_count(session->inflight) == 0 ||
        inflight_reserve(&session->shared->inflight_pool, &session->inflight) < 0) {
        acknowledge(session, &entry, offset);
        return;
    }
    uint32_t sequence =
        inflight_push(session->inflight, entry.packet_id, entry.exactly_once, entry.arrived_us);
    inflight_set_offset(session->inflight, sequence, offset);
    inflight_complete(session->inflight, sequence, err);
}

/* ---- refusing ---- */

/* MQTT 3.1.1 cannot refuse a publish: its ack and all behind it stay away, pings are answered, then
 * the connection ends and the device sends it again (DESIGN: what an outcome looks like). */
static void begin_withholding(struct session *session, int err) {
    if (session->flags & SESSION_WITHHOLDING)
        return;
    session->end_err = (int16_t)err; /* unless it ends otherwise */
    session->flags |= SESSION_WITHHOLDING;
    session->withheld_ms = (uint32_t)(session_now_ms(session) - session->connected_ms);
    metric_add(METRIC_MQTT_PUBLISH_REFUSED, 1);
    session_note_refused(session, FLIGHT_WITHHELD, err, slice_make(NULL, 0));
    session_unpause(session, SESSION_PAUSED_WINDOW);
    session->shared->effects->set_deadline(session, session_next_deadline(session));
}

/* The connection stays: QoS 0 is dropped, MQTT 5 is told, 3.1.1 gets no ack and sends it again. */
static void refuse_and_stay(struct session *session, const struct mqtt_publish *publish, int err) {
    if (publish->qos == 0) {
        session_note_dropped(session, err);
    } else if (session_is_mqtt5(session)) {
        session_note_refused(session, FLIGHT_PUBLISH_REFUSED, err, publish->topic);
        session_answer_in_turn(session, publish, err, -1);
    } else {
        begin_withholding(session, err);
    }
}

/* A publish that will never be stored: MQTT 5 says so in the ack, QoS 0 and 3.1.1 have no ack that
 * could (MQTT 3.1.1 3.3.5-2), so the connection ends. */
static void refuse_publish(struct session *session, const struct mqtt_publish *publish, int err) {
    /* Of a device behind this one, which is nothing to the others behind it: it may not be spoken
     * for, or nobody could look it up, and later that may be another matter. So may be a report of
     * state for which there is no room now. */
    if (err == DG_ERR_VIA || err == DG_ERR_UNAVAILABLE || err == DG_ERR_BUSY) {
        metric_add(METRIC_MQTT_VIA_REFUSED, err != DG_ERR_BUSY);
        refuse_and_stay(session, publish, err);
        return;
    }
    session_note_refused(session, FLIGHT_PUBLISH_REFUSED, err, publish->topic);
    if (session_is_mqtt5(session) && publish->qos > 0) {
        session_answer_in_turn(session, publish, err, -1);
        return;
    }
    metric_add(METRIC_MQTT_PUBLISH_REFUSED, 1);
    session_stop(session, err, NULL);
}

static bool fault(struct session *session, int err, const char *clause, const char *text) {
    session_fault(session, err, clause, text);
    return false;
}

/* Sets an alias, or puts the topic in its place (MQTT5 3.3.2.3.4). False: the session has ended. */
static bool resolve_alias(struct session *session, struct mqtt_publish *publish) {
    uint32_t alias = publish->properties.topic_alias;
    if (alias > LIMIT_MQTT_TOPIC_ALIASES)
        return fault(session, DG_ERR_TOPIC_ALIAS, "MQTT5 3.3.2-9", "topic alias over the maximum");
    if (publish->topic.size == 0)
        publish->topic = aliases_get(session->aliases, (uint16_t)alias);
    else if (publish->topic.size <= LIMIT_MQTT_TOPIC_BYTES &&
             aliases_set(&session->aliases, (uint16_t)alias, publish->topic) < 0)
        session_stop(session, DG_ERR_NO_MEMORY, NULL);
    if (publish->topic.size == 0)
        return fault(session, DG_ERR_PROTOCOL, "MQTT5 3.3.2.3.4", "topic alias was not set");
    return session->state != SESSION_CLOSED;
}

/* ---- storing ---- */

enum {
    CHILD_ID_SIZE = LIMIT_DEVICE_ID_BYTES + LIMIT_PRODUCER_ID_BYTES + 35
}; /* two numbers more */

/* The event is the child's own but for who brought it. A sequence is the speaker's, whose name
 * makes the id unique among those of the child. */
static void speak_for(const struct session *session, const struct child *child,
                      struct device_event *event, char id[CHILD_ID_SIZE]) {
    struct slice via = session_device(session);
    if (event->id.size > 0) {
        int size = snprintf(id, CHILD_ID_SIZE, "%.*s/%.*s", (int)via.size, (const char *)via.data,
                            (int)event->id.size, (const char *)event->id.data);
        event->id = slice_make(id, (size_t)size);
    }
    event->child = slice_make(child->name, child->name_size);
    event->child_partition = child->partition;
    event->via = via;
}

/* What is appended with a publish of QoS 2. A PUBREC that refuses ends the exchange: there is
 * nothing to remember (MQTT5 4.3.3). */
static unsigned put_identity(struct session *session, const struct mqtt_publish *publish,
                             const struct session_permit *permit, int verdict,
                             struct stream_mutation *mutation, uint8_t *key) {
    static const uint8_t elsewhere[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    if (publish->qos != 2 || verdict < 0 ||
        !session_identity_write(session, publish->packet_id, mutation, key))
        return 0;
    if (permit->child) { /* an offset would be taken for one of the session's partition */
        mutation->takes_offset = false;
        mutation->value = slice_make(elsewhere, sizeof(elsewhere));
    }
    return 1;
}

uint64_t session_publish_tag(const struct session *session, const struct mqtt_publish *publish) {
    static const enum session_tag kinds[] = {SESSION_TAG_QOS0, SESSION_TAG_QOS1, SESSION_TAG_QOS2};
    return session_tag_make(kinds[publish->qos], publish->packet_id,
                            publish->qos > 0 ? session->inflight->next : 0);
}

/* change: of its sequence, or NULL. */
static int append_publish(struct session *session, const struct mqtt_publish *publish,
                          const struct session_permit *permit, struct slice id,
                          struct producers_change *change) {
    const struct session_shared *shared = session->shared;
    const struct mqtt_properties *properties = &publish->properties;
    char child_id[CHILD_ID_SIZE];
    struct device_event event = {
        .type = permit->event_type,
        .protocol = session_is_mqtt5(session) ? "mqtt5" : "mqtt3.1.1",
        .qos = publish->qos,
        .retain = publish->retain,
        .id = id,
        .subject = permit->subject,
        .payload = publish->payload,
        .received_ms = shared->wall_ms,
        .device_time_window_ms = shared->config->events_device_time_window,
    };
    if (properties->present != 0) {
        event.content_type = properties->content_type;
        event.user_properties = properties->raw;
        event.user_property_count = properties->user_count;
        event.response_topic = properties->response_topic;
        event.correlation_data = properties->correlation_data;
        event.message_expiry_s = properties->message_expiry_s;
        event.payload_is_utf8 = properties->payload_format == 1;
    }
    if (__builtin_expect(permit->headers.size > 0, 0)) {
        event.headers = permit->headers;
        event.content_type = permit->content_type;
    }
    if (__builtin_expect(permit->child != NULL, 0))
        speak_for(session, permit->child, &event, child_id);
    struct quarantine_finding finding;
    int verdict = 0;
    if (__builtin_expect(permit->refused < 0, 0))
        quarantine_refused(&event, permit->refused);
    else
        verdict = quarantine_judge(session, &event, permit->topic, &finding);
    if (publish->qos == 0 || !session_is_mqtt5(session))
        verdict = 0; /* there is no word for it: stored, though elsewhere */
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    struct stream_mutation identity;
    uint64_t tag = session_tag_with(session_publish_tag(session, publish), verdict);
    if (__builtin_expect(change == NULL, 1))
        return session_append_all(session, &event, &identity,
                                  put_identity(session, publish, permit, verdict, &identity, key),
                                  tag);
    change->count +=
        put_identity(session, publish, permit, verdict, &change->mutations[change->count], key);
    return session_append_all(session, &event, change->mutations, change->count,
                              tag | session_sequence_tag(change));
}

/* As session_publish(). */
bool session_not_stored(struct session *session, const struct mqtt_publish *publish, int err) {
    if (inflight_count(session->inflight) == 0)
        inflight_release(&session->shared->inflight_pool, &session->inflight);
    if (session->kept)
        identities_remove(&session->kept->identities,
                          publish->packet_id); /* frees an empty table */
    producers_cancel(&session->producers);
    if (err == DG_ERR_PRESSURE) {
        session_pause(session, SESSION_PAUSED_STREAM);
        return false;
    }
    refuse_publish(session, publish, err);
    return true;
}

/* Room for what is to be remembered of a publish until it is answered. */
int session_reserve_answer(struct session *session, const struct mqtt_publish *publish) {
    if (publish->qos == 0)
        return 0;
    int err = inflight_reserve(&session->shared->inflight_pool, &session->inflight);
    if (__builtin_expect(err == 0 && session->flags & SESSION_RECEIPTS, 0))
        err = inflight_reserve_offsets(session->inflight);
    return err == 0 && publish->qos == 2 ? session_identity_reserve(session) : err;
}

static void remember(struct session *session, const struct mqtt_publish *publish,
                     const struct session_permit *permit) {
    if (publish->qos == 0)
        return;
    uint32_t sequence = inflight_push(session->inflight, publish->packet_id, publish->qos == 2,
                                      session_now_us(session));
    inflight_set_offset(session->inflight, sequence, permit->child ? INFLIGHT_ELSEWHERE : -1);
    if (publish->qos == 2)
        identities_set(session->kept->identities, publish->packet_id, IDENTITY_SUBMITTED);
}

void session_await_answer(struct session *session, const struct mqtt_publish *publish) {
    static const struct session_permit own;
    remember(session, publish, &own);
    share_take(session, 0);
}

/* MQTT5 3.3.2.3.2: what a device calls text, readers may take for it. */
static int check_payload(const struct mqtt_publish *publish) {
    if (__builtin_expect(publish->properties.payload_format != 1, 1))
        return 0;
    bool is_text = utf8_is_text(publish->payload.data, publish->payload.size);
    return is_text ? 0 : DG_ERR_PAYLOAD_FORMAT;
}

/* For a device behind this one that it may not speak for, or a report that is none, and no ack can
 * say so (QoS 0, 3.1.1): it is stored all the same, as this one's own, in the quarantine stream.
 * Changes err to 0 then. */
static void put_aside(struct session *session, const struct mqtt_publish *publish, int *err,
                      struct session_permit *permit) {
    bool is_ours = *err == DG_ERR_VIA || *err == DG_ERR_STATE_DOCUMENT || *err == DG_ERR_STATE_SIZE;
    if (!is_ours || (publish->qos > 0 && session_is_mqtt5(session)))
        return;
    metric_add(METRIC_MQTT_VIA_REFUSED, *err == DG_ERR_VIA);
    session_note_refused(session, FLIGHT_PUBLISH_REFUSED, *err, publish->topic);
    *permit = (struct session_permit){.event_type = EVENT_TELEMETRY,
                                      .topic = publish->topic,
                                      .subject = publish->topic,
                                      .refused = *err};
    *err = 0;
}

/* What counts of a publish: registry/policy.h. */
static size_t quota_bytes(const struct mqtt_publish *publish) {
    return publish->topic.size + publish->payload.size;
}

/* 3.1.1, after a refusal: nothing more is stored, or it would overtake what was refused. */
static void withhold(struct session *session, const struct mqtt_publish *publish) {
    if (publish->qos == 0)
        session_note_dropped(session, session->end_err);
    else if (++session->withheld_count > LIMIT_MQTT_WITHHELD_PUBLISHES)
        session_stop(session, session->end_err, NULL);
}

static uint64_t may_wait_ms(const struct mqtt_publish *publish) {
    return publish->qos > 0 ? LIMIT_QUOTA_WAIT_MS : LIMIT_QUOTA_WAIT_QOS0_MS;
}

/* As admission_ask(). */
static int ask(struct session *session, const struct mqtt_publish *publish) {
    if (share_tenant_is_used(session) && admission_wait_for_share(session))
        return DG_ERR_PRESSURE;
    if (!session->admission)
        return 0;
    return admission_ask(session->admission, may_wait_ms(publish));
}

/* err: of ask(). As session_publish(). */
static bool over_quota(struct session *session, const struct mqtt_publish *publish, int err) {
    if (err == DG_ERR_PRESSURE) {
        session_pause(session, SESSION_PAUSED_QUOTA);
        session->shared->effects->set_deadline(session, session_next_deadline(session));
        return false;
    }
    admission_count_refused(session->admission, publish->qos == 0);
    refuse_and_stay(session, publish, err);
    if (session->flags & SESSION_WITHHOLDING)
        withhold(session, publish);
    return true;
}

static void count_publish(struct session *session, const struct mqtt_publish *publish,
                          const struct session_permit *permit) {
    static const enum metric_id counters[] = {METRIC_MQTT_PUBLISH_QOS0, METRIC_MQTT_PUBLISH_QOS1,
                                              METRIC_MQTT_PUBLISH_QOS2};
    if (__builtin_expect(session->admission != NULL, 0))
        admission_charge(session->admission, quota_bytes(publish));
    if (__builtin_expect(permit->child != NULL, 0))
        admission_charge_child(session, permit->child, quota_bytes(publish));
    session->published++;
    metric_add(counters[publish->qos], 1);
}

/* Its sequence is stored: answered again, as a new publish would be. */
static bool answer_stored(struct session *session, const struct mqtt_publish *publish) {
    int err = publish->qos == 2 ? session_identity_reserve(session) : 0;
    if (err < 0)
        return session_not_stored(session, publish, err);
    if (publish->qos == 2)
        identities_set(session->kept->identities, publish->packet_id, IDENTITY_STORED);
    if (publish->qos > 0)
        session_answer_in_turn(session, publish, 0, -1);
    metric_add(METRIC_SEQUENCES_REPEATED, 1);
    return true;
}

/* Apart, since it has a large frame that the hot path shall not. */
__attribute__((noinline)) static bool store_sequence(struct session *session,
                                                     const struct mqtt_publish *publish,
                                                     const struct session_permit *permit,
                                                     const struct producer_sequence *sequence) {
    struct producers_change change;
    int err = producers_judge(session->producers, sequence, session->shared->wall_ms);
    if (err == PRODUCERS_STORED)
        return answer_stored(session, publish);
    if (err == PRODUCERS_WAIT) { /* until an acknowledgement leaves: something is on the way */
        session_pause(session, SESSION_PAUSED_WINDOW);
        return false;
    }
    if (err == PRODUCERS_NEW)
        err = session_reserve_answer(session, publish);
    if (err == 0)
        err = session_sequence_prepare(session, sequence, &change);
    if (err == 0)
        err = append_publish(session, publish, permit, sequence->text, &change);
    if (err < 0)
        return session_not_stored(session, publish, err);
    producers_submit(&change, sequence, session->shared->wall_ms);
    remember(session, publish, permit);
    count_publish(session, publish, permit);
    return true;
}

/* A report of state has no sequence: said twice, it is the same. */
static bool store_report(struct session *session, const struct mqtt_publish *publish,
                         const struct session_permit *permit) {
    int err = session_reserve_answer(session, publish);
    if (err == 0)
        err = session_report(session, publish, permit, session_publish_tag(session, publish));
    if (err < 0)
        return session_not_stored(session, publish, err);
    remember(session, publish, permit);
    count_publish(session, publish, permit);
    return true;
}

/* Most have none. */
static bool may_have_sequence(const struct mqtt_publish *publish) {
    return publish->properties.user_count > 0 ||
           (publish->topic.size > 0 && memchr(publish->topic.data, '$', publish->topic.size));
}

static bool store_plain(struct session *session, const struct mqtt_publish *publish,
                        const struct session_permit *permit, int err) {
    if (err == 0)
        err = session_reserve_answer(session, publish);
    if (err == 0)
        err = append_publish(session, publish, permit, slice_make(NULL, 0), NULL);
    if (__builtin_expect(err < 0, 0))
        return session_not_stored(session, publish, err);
    remember(session, publish, permit);
    count_publish(session, publish, permit);
    return true;
}

/* Apart for its frame. */
__attribute__((noinline)) static bool store_iothub(struct session *session,
                                                   const struct mqtt_publish *publish) {
    uint8_t room[IOTHUB_HEADER_BYTES];
    struct session_permit permit;
    int err = publish->qos > 1 ? DG_ERR_QOS_NOT_SUPPORTED
                               : session_may(session, SESSION_PUBLISH, publish->topic, &permit);
    if (err == 0 && permit.is_reply)
        return session_reply(session, publish, &permit);
    if (err == 0 && permit.twin != SESSION_TWIN_NONE) {
        count_publish(session, publish, &permit);
        return session_iothub_twin(session, publish, &permit);
    }
    if (err == 0)
        err = session_iothub_translate(session, publish, &permit, room);
    return store_plain(session, publish, &permit, err);
}

static bool store(struct session *session, struct mqtt_publish *publish) {
    struct session_permit permit;
    struct producer_sequence sequence = {.sequence = 0};
    int err = 0;
    if (__builtin_expect(session_is_iothub(session), 0))
        return store_iothub(session, publish);
    if (may_have_sequence(publish))
        err = session_sequence_take(publish, &sequence);
    if (err == 0)
        err = session_may(session, SESSION_PUBLISH, publish->topic, &permit);
    if (__builtin_expect(err == SESSION_ASK, 0)) {
        err = session_ask_child(session, permit.child_name);
        if (err == 0)
            return false;
    }
    if (err == 0 && __builtin_expect(permit.event_type == EVENT_STATE_REPORTED, 0))
        err = session_report_check(session, publish);
    put_aside(session, publish, &err, &permit);
    if (err == 0 && __builtin_expect(permit.is_reply, 0))
        return session_reply(session, publish, &permit);
    if (err == 0)
        err = check_payload(publish);
    if (__builtin_expect(err == 0 && permit.child != NULL, 0)) {
        int over = admission_ask_child(session, permit.child, may_wait_ms(publish));
        if (over == DG_ERR_PRESSURE || over == DG_ERR_QUOTA)
            return over_quota(session, publish, over);
        err = over;
    }
    if (__builtin_expect(err == 0 && permit.event_type == EVENT_STATE_REPORTED, 0))
        return store_report(session, publish, &permit);
    if (__builtin_expect(err == 0 && sequence.sequence != 0, 0))
        return store_sequence(session, publish, &permit, &sequence);
    return store_plain(session, publish, &permit, err);
}

static void in_use(struct session *session) {
    session_fault(session, DG_ERR_PACKET_ID_IN_USE, "MQTT5 2.2.1-3", "packet identifier in use");
}

/* An identifier that is in use: a resend of what still waits joins its ticket, one of QoS 2 whose
 * event is stored is answered again (the storage protocol, 13). Anything else breaks MQTT5 2.2.1-3;
 * of QoS 2, that is not said by the DUP flag (MQTT5 4.3.3-10). True when the publish is dealt with.
 */
static bool is_repeat(struct session *session, const struct mqtt_publish *publish) {
    bool exactly_once = publish->qos == 2;
    const struct inflight_entry *waiting = inflight_find(session->inflight, publish->packet_id);
    enum identity_state known = identities_get(session_identities(session), publish->packet_id);
    if (!waiting && known == IDENTITY_UNKNOWN)
        return false;
    if (waiting ? exactly_once != waiting->exactly_once || (!exactly_once && !publish->dup)
                : !exactly_once || known == IDENTITY_RELEASED)
        in_use(session);
    else if (exactly_once)
        metric_add(METRIC_MQTT_QOS2_REPEATED, 1);
    if (!waiting && session->state == SESSION_CONNECTED)
        session_answer_in_turn(session, publish, 0,
                               session_identity_offset(session, publish->packet_id));
    return true;
}

/* The receive maximum: QoS 1 until PUBACK, QoS 2 until PUBCOMP (MQTT5 4.9). 3.1.1 has no such
 * limit: reading stops, but not for what only the device's PUBREL can end. */
static bool has_window(struct session *session) {
    const struct inflight *inflight = session->inflight;
    uint32_t unreleased = identities_count(session_identities(session));
    if (session_is_mqtt5(session)) {
        uint32_t waiting = inflight_count(inflight) - inflight_exactly_once_count(inflight);
        if (waiting + unreleased < session->receive_maximum)
            return true;
        return fault(session, DG_ERR_RECEIVE_MAXIMUM, "MQTT5 3.3.4-9", "receive maximum");
    }
    bool unreleased_full = unreleased >= LIMIT_MQTT_UNRELEASED;
    if (inflight_count(inflight) < session->receive_maximum && !unreleased_full)
        return true;
    if (session->outstanding == 0)
        session_stop(session, DG_ERR_RECEIVE_MAXIMUM, "too many QoS 2 messages without PUBREL");
    else
        session_pause(session, SESSION_PAUSED_WINDOW);
    return false;
}

int session_find_child(struct session *session, struct slice name) {
    int err = session->shared->effects->find_child(session, name);
    if (err == 0 && session->kept)
        session->kept->children_asked++;
    return err;
}

int session_ask_child(struct session *session, struct slice name) {
    int err = session_find_child(session, name);
    if (err == 0)
        session_pause(session, SESSION_PAUSED_CHILD);
    return err;
}

void session_child_done(struct session *session) {
    if (session->kept && session->kept->children_asked > 0)
        session->kept->children_asked--;
    session_deliver_wake_children(session);
    session_unpause(session, SESSION_PAUSED_CHILD);
    session_state_listen(session);
}

bool session_publish(struct session *session, uint8_t first_byte, struct slice body) {
    struct mqtt_publish publish;
    struct mqtt_fault why = {0};
    int err = mqtt_publish_decode(session->version, first_byte, body, &publish, &why);
    if (__builtin_expect(err < 0, 0)) {
        session_fault(session, err, why.clause, why.text);
        return true;
    }
    if (__builtin_expect(mqtt_has(&publish.properties, MQTT_PROPERTY_TOPIC_ALIAS), 0) &&
        !resolve_alias(session, &publish))
        return true;
    if (publish.qos > 0 && is_repeat(session, &publish))
        return true;
    if (__builtin_expect(session->flags & SESSION_WITHHOLDING, 0)) {
        withhold(session, &publish);
        return true;
    }
    if (publish.qos > 0 && !has_window(session))
        return session->state == SESSION_CLOSED;
    if (__builtin_expect(share_session_is_used(session), 0)) {
        session_pause(session, SESSION_PAUSED_SHARE);
        return false;
    }
    if (__builtin_expect(session->admission || share_tenant_is_used(session), 0)) {
        err = ask(session, &publish);
        if (err < 0)
            return over_quota(session, &publish, err);
    }
    return store(session, &publish);
}

/* ---- durable ---- */

/* In the order in which they came (MQTT5 4.6.0-2). */
static void acknowledge_done(struct session *session) {
    const struct inflight_entry *entry;
    while ((entry = inflight_oldest_done(session->inflight))) {
        if (entry->err < 0 && !session_is_mqtt5(session)) {
            begin_withholding(session, entry->err);
            return;
        }
        acknowledge(session, entry, inflight_oldest_offset(session->inflight));
        inflight_drop_oldest(session->inflight);
    }
    if (inflight_count(session->inflight) == 0)
        inflight_release(&session->shared->inflight_pool, &session->inflight);
    session_unpause(session, SESSION_PAUSED_WINDOW);
    if (!session->inflight && session->flags & SESSION_PAUSED_DRAIN)
        session_stop(session, DG_ERR_SHUTTING_DOWN, NULL);
}

void session_append_done(struct session *session, uint64_t tag, int err) {
    enum session_tag kind = session_tag_kind(tag);
    share_give(session, share_of_tag(tag));
    if (session->flags & SESSION_PAUSED_SHARE && share_session_may_resume(session))
        session_unpause(session, SESSION_PAUSED_SHARE);
    session_sequence_settle(session, tag, err);
    if (err == 0)
        err = session_tag_err(tag);
    if (kind == SESSION_TAG_QOS0 && err < 0)
        session_note_dropped(session, err);
    if (kind == SESSION_TAG_QOS2)
        session_identity_settle(session, (uint16_t)(tag >> 32), err);
    if (kind == SESSION_TAG_RELEASED)
        session_identity_released(session, (uint16_t)(tag >> 32), err);
    if (kind == SESSION_TAG_WILL && err < 0)
        session->flags &= ~(uint32_t)SESSION_END_SAVED; /* the end is written by itself */
    if (kind == SESSION_TAG_SAVED) {
        session_saved(session, err);
    } else if (session->state == SESSION_CLOSED) {
        session_settle(session);
    } else if (kind == SESSION_TAG_QOS1 || kind == SESSION_TAG_QOS2) {
        if (__builtin_expect(err < 0, 0) && session_is_mqtt5(session) && !quarantine_is_reason(err))
            session_note_refused(session, FLIGHT_PUBLISH_REFUSED, err, slice_make(NULL, 0));
        uint32_t sequence = inflight_whole(session->inflight, tag, SESSION_TAG_SEQUENCE_BITS);
        inflight_set_place(session->inflight, sequence, session->shared->done_offset);
        inflight_complete(session->inflight, sequence, err);
        acknowledge_done(session);
    } else if (session->outstanding == 0) {
        session_unpause(session, SESSION_PAUSED_WINDOW);
    }
}
