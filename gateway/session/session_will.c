/*
 * The will of a connection (MQTT5 3.1.2.5, 3.1.3.2; MQTT 3.1.1 3.1.2.5): taken from CONNECT, stored
 * when the connection or its session ends, or left to wait with the session that is kept.
 *
 * Of a durable session it is in the record from before CONNACK on. The event and the record without
 * it are one unit: a will is stored once, whenever the gateway is killed.
 */
#include <stdlib.h>

#include "common/utf8.h"
#include "gateway/session/quarantine.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/tenants.h"

/* ---- CONNECT ---- */

static void hold(struct session *session, struct session_will *will) {
    session->will = will;
    session->shared->will_bytes += will->size_bytes;
}

static struct session_will *let_go(struct session *session) {
    struct session_will *will = session->will;
    if (will)
        session->shared->will_bytes -= will->size_bytes;
    session->will = NULL;
    session->flags &= ~(uint32_t)SESSION_WILL_DUE;
    return will;
}

void session_will_drop(struct session *session) {
    free(let_go(session));
}

static int keep_content(struct session *session, const struct will_content *content) {
    struct session_will *will;
    if (session->shared->will_bytes >= LIMIT_WILLS_BYTES)
        return DG_ERR_LIMIT;
    int err = will_create(content, &will);
    if (err == 0)
        hold(session, will);
    return err;
}

int session_will_take(struct session *session, const struct mqtt_connect *connect) {
    const struct mqtt_properties *properties = &connect->will_properties;
    bool is_utf8 = properties->payload_format == 1;
    if (!connect->has_will)
        return 0;
    if (!session_is_iothub(session) && !mqtt_topic_name_is_valid(connect->will_topic))
        return DG_ERR_TOPIC_NAME;
    if (is_utf8 && !utf8_is_text(connect->will_payload.data, connect->will_payload.size))
        return DG_ERR_PAYLOAD_FORMAT;
    struct will_content content = {
        .qos = connect->will_qos,
        .flags = (uint8_t)((connect->will_retain ? WILL_RETAIN : 0) |
                           (connect->version == MQTT_VERSION_5 ? WILL_MQTT5 : 0) |
                           (is_utf8 ? WILL_PAYLOAD_UTF8 : 0)),
        .delay_s = properties->will_delay_s,
        .message_expiry_s = properties->message_expiry_s,
        .user_property_count = properties->user_count,
        .topic = connect->will_topic,
        .content_type = properties->content_type,
        .response_topic = properties->response_topic,
        .correlation_data = properties->correlation_data,
        .user_properties = properties->raw,
        .payload = connect->will_payload,
    };
    return keep_content(session, &content);
}

/* The topic obeys the same rule as a publish's. */
int session_will_own(struct session *session) {
    uint8_t room[IOTHUB_HEADER_BYTES];
    struct will_content content;
    struct session_permit permit;
    if (!session->will)
        return 0;
    will_read(session->will, &content);
    int err = session_may(session, SESSION_LEAVE_WILL, content.topic, &permit);
    if (err == 0 && session_is_iothub(session))
        err = session_iothub_own_will(session, &permit, &content, room);
    if (err < 0) /* MQTT 3.1.1 has one word for whatever is wrong with it */
        return session_is_mqtt5(session) ? err : DG_ERR_NOT_AUTHORIZED;
    content.tenant_key = session->tenant->key;
    content.credential_key = session->credential_key;
    content.valid_until_ms = session->valid_until_ms;
    session_source(session, &(struct device_event){0}, &content.source);
    struct session_will *anonymous = let_go(session);
    err = keep_content(session, &content);
    free(anonymous);
    return err;
}

/* ---- the end ---- */

/* Whom the registry sends away leaves no last words. */
static bool is_suppressed(int err) {
    return err == DG_ERR_DISABLED || err == DG_ERR_ADMINISTRATIVE;
}

void session_will_end(struct session *session, bool was_connected, int err) {
    if (!session->will)
        return;
    if (!was_connected || is_suppressed(err)) {
        session_will_drop(session);
        return;
    }
    session->flags |= SESSION_WILL_DUE;
    if (!(session->flags & SESSION_DURABLE))
        return;
    int64_t now_ms = session->shared->wall_ms;
    int64_t due_ms = will_due_ms(session->will, now_ms, session->expiry_s);
    if (due_ms <= now_ms)
        return;
    struct session_will *will = let_go(session);
    will->due.at_ms = due_ms;
    session->kept->will = will;
}

static int append_content(struct session *session, const struct will_content *content,
                          const struct stream_mutation *with, enum session_tag tag) {
    struct session_permit permit;
    struct device_event event;
    struct quarantine_finding finding;
    int err = session_may(session, SESSION_LEAVE_WILL, content->topic, &permit);
    if (err == 0)
        err = will_event(content, session->tenant->topics, session->shared->wall_ms,
                         session->shared->config->events_device_time_window, &event);
    if (err < 0)
        return err;
    (void)quarantine_judge(session, &event, content->topic, &finding);
    return session_append(session, &event, with, session_tag_make(tag, 0, 0));
}

int session_will_append(struct session *session, const struct session_will *will,
                        const struct stream_mutation *with, enum session_tag tag) {
    struct will_content content;
    will_read(will, &content);
    int err = append_content(session, &content, with, tag);
    if (err != DG_ERR_PRESSURE)
        session_note(session, err < 0 ? FLIGHT_WILL_REFUSED : FLIGHT_WILL_STORED, err,
                     content.topic);
    return err;
}

int session_will_settle(struct session *session) {
    struct kept_bytes bytes;
    struct stream_mutation mutation;
    if (!(session->flags & SESSION_WILL_DUE))
        return 0;
    const struct stream_mutation *with = session_end_mutation(session, &mutation, &bytes);
    int err = session_will_append(session, session->will, with, SESSION_TAG_WILL);
    if (err == DG_ERR_PRESSURE)
        return err;
    if (err == 0 && with)
        session->flags |= SESSION_END_SAVED;
    session_will_drop(session);
    return 0; /* also of one that may not be stored, or never could be */
}
