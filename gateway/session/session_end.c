/* How a session ends: farewell to the device, will, disconnected event, release of the claim. */
#include <stdio.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/tenants.h"

enum { PRESENCE_PAYLOAD_SIZE = 4096, REASON_TEXT_SIZE = 96, USE_ANOTHER_SERVER = 0x9C };

/* ---- presence ---- */

static uint8_t end_reason_code(const struct session *session) {
    if (session->end_err == 0)
        return session->end_reason;
    return dg_err_row(session->end_err)->mqtt5_reason;
}

/* Whole milliseconds, now. */
static uint64_t duration_ms(const struct session *session) {
    return session_now_ms(session) - session->connected_ms;
}

void session_format_id(const struct session *session, char *ret_text) {
    snprintf(ret_text, SESSION_ID_TEXT_SIZE, "%ss%u", session->shared->prefix, session->number);
}

static const struct session_takeover *takeover_of(const struct session *session, bool connected) {
    bool may_be = connected || session->end_err == DG_ERR_TAKEN_OVER;
    return may_be ? session->shared->effects->takeover(session) : NULL;
}

static const char *presence_reason(const struct session *session, bool connected,
                                   const struct session_takeover *takeover, char *text) {
    if (connected)
        return takeover ? "taken over" : "connected";
    if (takeover) {
        snprintf(text, REASON_TEXT_SIZE, "taken over by %s", takeover->new_peer);
        return text;
    }
    return session->end_err < 0 ? dg_err_text(session->end_err) : "disconnected by the device";
}

static int append_presence(struct session *session, bool connected) {
    if (!session->shared->config->events_presence)
        return 0;
    char peer[SESSION_PEER_TEXT_SIZE] = "";
    char session_id[SESSION_ID_TEXT_SIZE], reason[REASON_TEXT_SIZE];
    uint8_t payload[PRESENCE_PAYLOAD_SIZE];
    struct writer w = writer_make(payload, sizeof(payload));
    session->shared->effects->format_peer(session, peer);
    session_format_id(session, session_id);
    const struct session_takeover *takeover = takeover_of(session, connected);
    struct event_presence presence = {
        .connected = connected,
        .reason = presence_reason(session, connected, takeover, reason),
        .reason_code = connected ? 0 : end_reason_code(session),
        .client_id = session_client_id(session),
        .protocol = session_is_mqtt5(session) ? "mqtt5" : "mqtt3.1.1",
        .peer = slice_from_string(peer),
        .session_id = slice_from_string(session_id),
        .duration_ms = connected ? 0 : duration_ms(session),
        .credential_key = session->credential_key,
    };
    if (connected && takeover) {
        presence.previous_peer = slice_from_string(takeover->old_peer);
        presence.previous_session_id = slice_from_string(takeover->old_session_id);
    }
    int err = event_write_presence(&presence, &w);
    if (err < 0)
        return err;
    struct device_event event = {
        .type = connected ? EVENT_DEVICE_CONNECTED : EVENT_DEVICE_DISCONNECTED,
        .protocol = presence.protocol,
        .content_type = slice_from_string("application/json"),
        .payload = slice_make(payload, writer_size(&w)),
        .received_ms = session->shared->wall_ms,
    };
    return session_append(session, &event, NULL, session_tag_make(SESSION_TAG_OWN, 0, 0));
}

int session_append_connected(struct session *session) {
    int err = append_presence(session, true);
    if (err == 0)
        session->flags |= SESSION_PRESENT;
    else if (err == DG_ERR_PRESSURE)
        session->flags |= SESSION_PAUSED_STREAM;
    return err;
}

/* ---- farewell ---- */

/* Where the device is to go when this gateway stops (MQTT5 4.11); empty: nowhere. */
static struct slice server_reference(const struct session *session, int err) {
    bool redirects = err == DG_ERR_SHUTTING_DOWN && session_is_mqtt5(session);
    return slice_from_string(redirects ? session->shared->config->mqtt_server_reference : "");
}

static uint8_t farewell_reason(const struct session *session, int err, enum mqtt_type packet,
                               struct slice reference) {
    if (!session_is_mqtt5(session))
        return dg_err_row(err)->mqtt3_connack;
    return reference.size > 0 ? USE_ANOTHER_SERVER : session_reason(err, packet);
}

static void write_farewell(struct session *session, struct writer *w, int err, struct slice text) {
    struct slice reference = server_reference(session, err);
    if (session->state == SESSION_CONNECTED) {
        if (session_is_mqtt5(session))
            mqtt_write_disconnect(w, farewell_reason(session, err, MQTT_DISCONNECT, reference),
                                  text, reference);
        return;
    }
    struct mqtt_connack connack = {
        .reason = farewell_reason(session, err, MQTT_CONNACK, reference),
        .server_reference = reference,
        .maximum_qos = -1,
        .reason_string = session_is_mqtt5(session) ? text : slice_make(NULL, 0),
        .wildcard_available = true, /* these say nothing when true */
        .subscription_id_available = true,
        .shared_available = true,
        .retain_available = true,
    };
    if (connack.reason != 0)
        mqtt_write_connack(w, session->version, &connack);
}

/* Tells the device why, as far as its protocol version and state have words for it. */
static void say_farewell(struct session *session, const struct session_end *end) {
    if (end->err == 0 || end->err == DG_ERR_CLOSED || session->version == 0 ||
        !(session->flags & SESSION_LINKED))
        return;
    struct slice texts[] = {slice_from_string(end->text ? end->text : dg_err_text(end->err)), {0}};
    for (unsigned i = 0; i < 2; i++) {
        uint8_t bytes[1024];
        struct writer w = writer_make(bytes, sizeof(bytes));
        write_farewell(session, &w, end->err, texts[i]);
        if ((!w.failed && writer_size(&w) == 0) || session_send(session, &w))
            return;
    }
}

/* ---- the end ---- */

void session_end(struct session *session, const struct session_end *end) {
    if (session->state == SESSION_CLOSED)
        return;
    enum session_state before = session->state;
    bool connected = before == SESSION_CONNECTED;
    say_farewell(session, end);
    session_note_end(session, end, before);
    session->state = SESSION_CLOSED;
    session->end_err = (int8_t)end->err;
    if (connected)
        metric_add(METRIC_DEVICES_CONNECTED, -1);
    session_will_end(session, connected, end->err);
    session_state_end(session);
    inflight_release(&session->shared->inflight_pool, &session->inflight);
    aliases_free(&session->aliases);
    admission_free(session->admission, session);
    session->admission = NULL;
    if (session->flags & SESSION_ENTERED)
        tenant_leave(session->tenant);
    session->flags &= ~(uint32_t)SESSION_ENTERED;
    if (session->flags & SESSION_LINKED)
        session->shared->effects->close(session, end);
    session_settle(session);
}

void session_fault(struct session *session, int err, const char *clause, const char *text) {
    metric_add(METRIC_MQTT_MALFORMED, 1);
    session_end(session, &(struct session_end){.err = err, .clause = clause, .text = text});
}

/* True when done, or refused for good; false when the stream is under pressure. */
static bool is_through(struct session *session, int err) {
    if (err != DG_ERR_PRESSURE)
        return true;
    session->flags |= SESSION_PAUSED_STREAM;
    return false;
}

void session_settle(struct session *session) {
    if (session->flags & (SESSION_FINISHED | SESSION_PAUSED_STREAM))
        return;
    if (session->flags & SESSION_SAVING) /* its record must not be written after the will's */
        return;
    if (!is_through(session, session_will_settle(session)))
        return;
    if (session->flags & SESSION_PRESENT) {
        if (!is_through(session, append_presence(session, false)))
            return;
        session->flags &= ~(uint32_t)SESSION_PRESENT;
    }
    if (!is_through(session, session_save_end(session)))
        return;
    if (session->outstanding > 0 || session->flags & SESSION_CLAIM_ASKED)
        return;
    session_let_go(session);
    if (session->flags & SESSION_CLAIM_HELD) {
        session->flags &= ~(uint32_t)SESSION_CLAIM_HELD;
        session->shared->effects->release(session);
    }
    session->flags |= SESSION_FINISHED;
    session->shared->effects->finished(session);
}
