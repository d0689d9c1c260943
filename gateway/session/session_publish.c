/* PUBLISH in, PUBACK out (MQTT5 3.3, 3.4, 4.3, 4.9). The hot path. */
#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/session/session_internal.h"

/* ---- refusing ---- */

static void send_puback(struct session *session, uint16_t packet_id, uint8_t reason,
                        struct slice reason_string) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_ack(&w, session->version, MQTT_PUBACK, packet_id, reason, reason_string);
    if (session_send(session, &w) || reason_string.size == 0)
        return;
    send_puback(session, packet_id, reason, slice_make(NULL, 0)); /* MQTT5 3.4.2-2 */
}

/* A publish that will never be stored: MQTT 5 says so in the ack, QoS 0 and 3.1.1 have no ack that
 * could (MQTT 3.1.1 3.3.5-2), so the connection ends. */
static void refuse_publish(struct session *session, const struct mqtt_publish *publish, int err) {
    bool has_ack = session_is_mqtt5(session) && publish->qos > 0;
    if (has_ack && inflight_count(session->inflight) > 0 &&
        inflight_reserve(&session->shared->inflight_pool, &session->inflight) == 0) {
        /* its turn comes after those that wait */
        inflight_complete(session->inflight,
                          inflight_push(session->inflight, publish->packet_id, 0), err);
        return;
    }
    metric_add(METRIC_MQTT_PUBLISH_REFUSED, 1);
    if (has_ack)
        send_puback(session, publish->packet_id, session_reason(err, MQTT_PUBACK),
                    session_reason_string(session, dg_err_text(err)));
    else
        session_stop(session, err, NULL);
}

static bool fault(struct session *session, int err, const char *clause, const char *text) {
    session_fault(session, err, clause, text);
    return false;
}

/* What CONNACK did not offer. */
static bool is_acceptable(struct session *session, const struct mqtt_publish *publish) {
    if (__builtin_expect(publish->qos > 1, 0))
        return fault(session, DG_ERR_QOS_NOT_SUPPORTED, "MQTT5 3.2.2-11",
                     "QoS 2 was not announced");
    if (__builtin_expect(mqtt_has(&publish->properties, MQTT_PROPERTY_TOPIC_ALIAS), 0))
        return fault(session, DG_ERR_TOPIC_ALIAS, "MQTT5 3.3.2-9", "topic alias over maximum 0");
    return true;
}

/* ---- storing ---- */

static int append_publish(struct session *session, const struct mqtt_publish *publish,
                          const struct session_permit *permit) {
    const struct session_shared *shared = session->shared;
    const struct mqtt_properties *properties = &publish->properties;
    struct device_event event = {
        .type = permit->event_type,
        .protocol = session_is_mqtt5(session) ? "mqtt5" : "mqtt3.1.1",
        .qos = publish->qos,
        .retain = publish->retain,
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
    }
    if (publish->qos == 0)
        return session_append(session, &event, session_tag_make(SESSION_TAG_QOS0, 0));
    return session_append(
        session, &event,
        session_tag_make(SESSION_TAG_QOS1, session->inflight ? session->inflight->next : 0));
}

/* As session_publish(). */
static bool not_stored(struct session *session, const struct mqtt_publish *publish, int err) {
    if (inflight_count(session->inflight) == 0)
        inflight_release(&session->shared->inflight_pool, &session->inflight);
    if (err == DG_ERR_PRESSURE) {
        session_pause(session, SESSION_PAUSED_STREAM);
        return false;
    }
    refuse_publish(session, publish, err);
    return true;
}

static bool store(struct session *session, const struct mqtt_publish *publish) {
    struct session_permit permit;
    int err = session_may(session, SESSION_PUBLISH, publish->topic, &permit);
    if (err == 0 && publish->qos > 0)
        err = inflight_reserve(&session->shared->inflight_pool, &session->inflight);
    if (err == 0)
        err = append_publish(session, publish, &permit);
    if (__builtin_expect(err < 0, 0))
        return not_stored(session, publish, err);
    if (publish->qos > 0)
        inflight_push(session->inflight, publish->packet_id, session_now_us(session));
    metric_add(publish->qos > 0 ? METRIC_MQTT_PUBLISH_QOS1 : METRIC_MQTT_PUBLISH_QOS0, 1);
    return true;
}

/* 3.1.1, after a refusal: nothing more is stored, or it would overtake what was refused. */
static void withhold(struct session *session, const struct mqtt_publish *publish) {
    if (publish->qos == 0)
        metric_add(METRIC_MQTT_QOS0_DROPPED, 1);
    else if (++session->withheld_count > LIMIT_MQTT_WITHHELD_PUBLISHES)
        session_stop(session, DG_ERR_STORAGE_FULL, NULL);
}

/* An identifier that is in use: a resend of what still waits joins its ticket (the storage
 * protocol, 13); anything else breaks MQTT5 2.2.1-3. */
static void repeat(struct session *session, const struct mqtt_publish *publish) {
    if (!publish->dup)
        session_fault(session, DG_ERR_PACKET_ID_IN_USE, "MQTT5 2.2.1-3",
                      "packet identifier in use");
}

bool session_publish(struct session *session, uint8_t first_byte, struct slice body) {
    struct mqtt_publish publish;
    struct mqtt_fault why = {0};
    int err = mqtt_publish_decode(session->version, first_byte, body, &publish, &why);
    if (__builtin_expect(err < 0, 0)) {
        session_fault(session, err, why.clause, why.text);
        return true;
    }
    if (!is_acceptable(session, &publish))
        return true;
    if (publish.qos > 0 && inflight_contains(session->inflight, publish.packet_id)) {
        repeat(session, &publish);
        return true;
    }
    if (__builtin_expect(session->flags & SESSION_WITHHOLDING, 0)) {
        withhold(session, &publish);
        return true;
    }
    if (publish.qos > 0 && inflight_count(session->inflight) >= session->receive_maximum) {
        if (session_is_mqtt5(session)) {
            session_fault(session, DG_ERR_RECEIVE_MAXIMUM, "MQTT5 3.3.4-9", "receive maximum");
            return true;
        }
        session_pause(session, SESSION_PAUSED_WINDOW); /* 3.1.1 has no such limit: reading stops */
        return false;
    }
    return store(session, &publish);
}

/* ---- durable ---- */

static void observe_latency(struct session *session, uint32_t arrived_us) {
    struct session_shared *shared = session->shared;
    uint64_t latency_ns = (uint64_t)(session_now_us(session) - arrived_us) * 1000;
    if (latency_ns != shared->latency_ns)
        session_shared_turn(shared);
    shared->latency_ns = latency_ns;
    shared->latency_count++;
}

static void acknowledge(struct session *session, const struct inflight_entry *entry) {
    if (__builtin_expect(entry->err < 0, 0)) {
        metric_add(METRIC_MQTT_PUBLISH_REFUSED, 1);
        send_puback(session, entry->packet_id, session_reason(entry->err, MQTT_PUBACK),
                    session_reason_string(session, dg_err_text(entry->err)));
        return;
    }
    const uint8_t puback[4] = {MQTT_PUBACK << 4, 2, (uint8_t)(entry->packet_id >> 8),
                               (uint8_t)entry->packet_id};
    session->shared->effects->send(session, puback, sizeof(puback));
    observe_latency(session, entry->arrived_us);
}

/* MQTT 3.1.1 cannot refuse a publish: its ack and all behind it stay away, pings are answered, then
 * the connection ends and the device sends it again (DESIGN: what an outcome looks like). */
static void begin_withholding(struct session *session) {
    if (session->flags & SESSION_WITHHOLDING)
        return;
    session->flags |= SESSION_WITHHOLDING;
    session->withheld_ms = (uint32_t)(session_now_ms(session) - session->connected_ms);
    metric_add(METRIC_MQTT_PUBLISH_REFUSED, 1);
    session_unpause(session, SESSION_PAUSED_WINDOW);
    session->shared->effects->set_deadline(session, session_next_deadline(session));
}

/* In the order in which they came (MQTT5 4.6.0-2). */
static void acknowledge_done(struct session *session) {
    const struct inflight_entry *entry;
    while ((entry = inflight_oldest_done(session->inflight))) {
        if (entry->err < 0 && !session_is_mqtt5(session)) {
            begin_withholding(session);
            return;
        }
        acknowledge(session, entry);
        inflight_drop_oldest(session->inflight);
    }
    if (inflight_count(session->inflight) == 0)
        inflight_release(&session->shared->inflight_pool, &session->inflight);
    session_unpause(session, SESSION_PAUSED_WINDOW);
    if (!session->inflight && session->flags & SESSION_PAUSED_DRAIN)
        session_stop(session, DG_ERR_SHUTTING_DOWN, NULL);
}

void session_append_done(struct session *session, uint64_t tag, int err) {
    dg_assert(session->outstanding > 0);
    session->outstanding--;
    enum session_tag kind = (enum session_tag)(tag >> 32);
    if (kind == SESSION_TAG_QOS0 && err < 0)
        metric_add(METRIC_MQTT_QOS0_DROPPED, 1);
    if (session->state == SESSION_CLOSED) {
        session_settle(session);
    } else if (kind == SESSION_TAG_QOS1) {
        inflight_complete(session->inflight, (uint32_t)tag, err);
        acknowledge_done(session);
    }
}
