#include "gateway/session/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/share.h"

static session_handler on_pingreq, on_disconnect, on_auth;

/* Packet type x state. An empty field is a protocol error (MQTT5 3.1.0-1, 3.1.0-2, 4.13). In the
 * states between, input waits. PUBLISH, the hot path, is not decoded into a struct mqtt_packet. */
static session_handler *const handlers[SESSION_STATE_COUNT][MQTT_AUTH + 1] = {
    [SESSION_WAIT_CONNECT] =
        {
            [MQTT_CONNECT] = session_on_connect,
        },
    [SESSION_CONNECTED] =
        {
            [MQTT_PUBACK] = session_on_puback,
            [MQTT_PUBREC] = session_on_pubrec,
            [MQTT_PUBREL] = session_on_pubrel,
            [MQTT_PUBCOMP] = session_on_pubcomp,
            [MQTT_SUBSCRIBE] = session_on_subscribe,
            [MQTT_UNSUBSCRIBE] = session_on_unsubscribe,
            [MQTT_PINGREQ] = on_pingreq,
            [MQTT_DISCONNECT] = on_disconnect,
            [MQTT_AUTH] = on_auth,
        },
};

/* ---- shared part ---- */

void session_shared_init(struct session_shared *shared, const struct session_effects *effects,
                         const struct config *config, const char *prefix) {
    *shared = (struct session_shared){
        .effects = effects, .config = config, .quotas = quota_ledger_create()};
    snprintf(shared->prefix, sizeof(shared->prefix), "%.47s", prefix);
}

void session_shared_join(struct session_shared *shared, const struct session_shared *other) {
    quota_ledger_release(shared->quotas);
    shared->quotas = other->quotas ? quota_ledger_share(other->quotas) : NULL;
}

void session_shared_turn(struct session_shared *shared) {
    if (shared->latency_count == 0)
        return;
    metric_observe(METRIC_ACK_LATENCY, shared->latency_ns, shared->latency_count);
    shared->latency_count = 0;
}

void session_shared_free(struct session_shared *shared) {
    session_shared_turn(shared);
    inflight_pool_free(&shared->inflight_pool);
    dg_assert(shared->tenants.count == 0);
    device_map_free(&shared->tenants);
    quota_ledger_release(shared->quotas);
    children_free(&shared->children);
}

/* ---- life ---- */

void session_init(struct session *session, struct session_shared *shared, uint64_t id,
                  bool passwords_allowed) {
    *session = (struct session){
        .shared = shared,
        .id = id,
        .state = SESSION_WAIT_CONNECT,
        .flags = SESSION_LINKED | (passwords_allowed ? SESSION_PASSWORDS_ALLOWED : 0u),
        .max_packet_bytes = LIMIT_MQTT_CONNECT_BYTES,
        .peer_packet_bytes = UINT32_MAX,
        .input_ms = shared->now_ns / 1000000,
        .number = shared->next_number++,
    };
}

void session_free(struct session *session) {
    dg_assert(session->flags & SESSION_FINISHED);
    dg_assert(session->outstanding == 0 && !(session->flags & SESSION_LINKED));
    inflight_release(&session->shared->inflight_pool, &session->inflight);
    aliases_free(&session->aliases);
    session_will_drop(session);
    admission_free(session->admission, session);
    tenant_release(session->shared, session->tenant);
    kept_free(session->kept);
    kept_free(session->former);
    producers_free(session->producers);
    free(session->names);
    session->kept = session->former = NULL;
    session->producers = NULL;
    session->names = NULL;
    session->admission = NULL;
    session->tenant = NULL;
}

struct slice session_tenant_name(const struct session *session) {
    if (!session->tenant)
        return slice_make(NULL, 0);
    return slice_make(session->tenant->name, session->tenant->name_size);
}

void session_source(const struct session *session, const struct device_event *event,
                    struct event_source *ret_source) {
    bool quarantined = event->quarantine_reason.size > 0, behind = event->child.size > 0;
    *ret_source = (struct event_source){
        .tenant = session_tenant_name(session),
        .device = behind ? event->child : session_device(session),
        .partition = behind ? event->child_partition : session->partition,
        .stream_id =
            quarantined ? session->tenant->quarantine_stream : session->tenant->events_stream,
    };
}

/* ---- small effects ---- */

bool session_send(struct session *session, const struct writer *w) {
    if (w->failed || writer_size(w) > session->peer_packet_bytes)
        return false;
    session->shared->effects->send(session, w->start, writer_size(w));
    return true;
}

void session_pause(struct session *session, enum session_flag why) {
    bool paused = session->flags & SESSION_PAUSED;
    session->flags |= why;
    if (!paused && session->flags & SESSION_LINKED)
        session->shared->effects->pause(session);
}

void session_unpause(struct session *session, enum session_flag why) {
    if (!(session->flags & (uint32_t)why))
        return;
    session->flags &= ~(uint32_t)why;
    if (!(session->flags & SESSION_PAUSED) && session->flags & SESSION_LINKED &&
        session->state != SESSION_CLOSED)
        session->shared->effects->resume(session);
}

int session_append(struct session *session, const struct device_event *event,
                   const struct stream_mutation *with, uint64_t tag) {
    return session_append_all(session, event, with, with ? 1 : 0, tag);
}

int session_append_all(struct session *session, const struct device_event *event,
                       const struct stream_mutation *with, unsigned count, uint64_t tag) {
    unsigned code = share_code(event);
    int err =
        session->shared->effects->append(session, event, with, count, share_to_tag(tag, code));
    if (err == 0)
        share_take(session, code);
    if (__builtin_expect(err == 0 && event->quarantine_reason.size > 0, 0))
        session_note(session, FLIGHT_QUARANTINED, DG_ERR_PAYLOAD_FORMAT, event->quarantine_reason);
    return err;
}

int session_mutate(struct session *session, const struct stream_mutation *mutation, uint64_t tag) {
    int err = session->shared->effects->mutate(session, mutation, share_to_tag(tag, 0));
    if (err == 0)
        share_take(session, 0);
    return err;
}

/* ---- bytes ---- */

/* Whether it can be read comes before whether it may be there: 0x81 and 0x82 tell these apart. */
static bool handle_packet(struct session *session, uint8_t first_byte, struct slice body) {
    struct mqtt_packet packet;
    struct mqtt_fault fault = {0};
    int err = mqtt_packet_decode(session->version, first_byte, body, &packet, &fault);
    session_handler *handler = handlers[session->state][first_byte >> 4];
    if (err == 0 && handler)
        return handler(session, &packet);
    if (err == 0)
        session_fault(session, DG_ERR_PROTOCOL, "MQTT5 4.13.1", "packet not allowed in this state");
    else if (session->state == SESSION_WAIT_CONNECT)
        session_connect_undecodable(session, body, err, &fault);
    else
        session_fault(session, err, fault.clause, fault.text);
    return true;
}

static bool is_mqtt5_packet(const struct session *session, struct slice body) {
    if (session->state == SESSION_WAIT_CONNECT)
        return session_connect_level(body) == MQTT_VERSION_5;
    return session_is_mqtt5(session);
}

/* True when the packet was dealt with, false when it is to be offered again. */
static bool handle_bytes(struct session *session, const uint8_t *data, size_t size,
                         size_t header_size) {
    struct slice body = slice_make(data + header_size, size - header_size);
    if (__builtin_expect(!mqtt_header_is_minimal(size, header_size), 0) &&
        is_mqtt5_packet(session, body)) {
        session_fault(session, DG_ERR_MALFORMED, "MQTT5 1.5.5-1", "remaining length too long");
        return true;
    }
    if (session->state == SESSION_CONNECTED && data[0] >> 4 == MQTT_PUBLISH)
        return session_publish(session, data[0], body);
    return handle_packet(session, data[0], body);
}

static bool takes_input(const struct session *session) {
    return (session->state == SESSION_WAIT_CONNECT || session->state == SESSION_CONNECTED) &&
           !(session->flags & SESSION_PAUSED);
}

size_t session_receive(struct session *session, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (used < size && takes_input(session)) {
        const uint8_t *at = data + used;
        if (session->state == SESSION_WAIT_CONNECT && at[0] >> 4 != MQTT_CONNECT) {
            session_fault(session, DG_ERR_PROTOCOL, "MQTT5 3.1.0-1", "first packet not CONNECT");
            break;
        }
        size_t header_size;
        int frame = mqtt_packet_frame(at, size - used, session->max_packet_bytes, &header_size);
        if (frame < 0)
            session_fault(session, frame,
                          frame == DG_ERR_TOO_LARGE ? "MQTT5 3.2.2.3.6" : "MQTT5 2.1.4",
                          frame == DG_ERR_TOO_LARGE ? "packet too large" : "remaining length");
        if (frame > 0)
            session->input_ms = session_now_ms(session); /* a packet, not a byte: MQTT5 3.1.2-22 */
        if (frame <= 0 || !handle_bytes(session, at, (size_t)frame, header_size))
            break;
        used += (size_t)frame;
    }
    return session->state == SESSION_CLOSED ? size : used;
}

/* ---- packets without a file of their own ---- */

static bool on_pingreq(struct session *session, const struct mqtt_packet *packet) {
    uint8_t bytes[8];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_pingresp(&w);
    session_send(session, &w);
    return true;
}

static bool on_disconnect(struct session *session, const struct mqtt_packet *packet) {
    const struct mqtt_properties *properties = &packet->ack.properties;
    bool mqtt5 = session_is_mqtt5(session);
    if (mqtt5 && session->flags & SESSION_EXPIRY_ZERO &&
        mqtt_has(properties, MQTT_PROPERTY_SESSION_EXPIRY) && properties->session_expiry_s != 0) {
        session_fault(session, DG_ERR_PROTOCOL, "MQTT5 3.14.2.2.2",
                      "session expiry in DISCONNECT though CONNECT had none");
        return true;
    }
    if (mqtt5 && mqtt_has(properties, MQTT_PROPERTY_SESSION_EXPIRY))
        session->expiry_s = session_cap_expiry(session, properties->session_expiry_s);
    session->end_reason = mqtt5 ? packet->ack.reason : 0;
    if (session->end_reason == 0)
        session_will_drop(session); /* MQTT5 3.14.4-3 */
    session_end(session, &(struct session_end){.text = "disconnected by the device"});
    return true;
}

/* CONNECT had no authentication method (it would have been refused), so there is nothing to go on
 * with. 0x8C cannot be said in a DISCONNECT. */
static bool on_auth(struct session *session, const struct mqtt_packet *packet) {
    session_fault(session, DG_ERR_BAD_AUTH_METHOD, "MQTT5 4.12.0-7", "AUTH without a method");
    return true;
}

/* ---- other inputs ---- */

void session_ready(struct session *session) {
    session->flags &= ~(uint32_t)SESSION_PAUSED_STREAM;
    if (session->state == SESSION_CLOSED)
        session_settle(session);
    else if (session->state == SESSION_CLAIMING)
        session_connect_finish(session);
    else if (!(session->flags & SESSION_PAUSED))
        session->shared->effects->resume(session);
}

void session_stop(struct session *session, int err, const char *text) {
    session_end(session, &(struct session_end){.err = err, .text = text});
}

void session_evict(struct session *session, const char *by_peer) {
    session_note(session, FLIGHT_TAKEN_OVER, DG_ERR_TAKEN_OVER, slice_from_string(by_peer));
    session_stop(session, DG_ERR_TAKEN_OVER, NULL);
}

void session_drain(struct session *session) {
    if (session->state == SESSION_CONNECTED && inflight_count(session->inflight) > 0 &&
        !(session->flags & SESSION_WITHHOLDING))
        session_pause(session, SESSION_PAUSED_DRAIN);
    else
        session_stop(session, DG_ERR_SHUTTING_DOWN, NULL);
}

void session_unlinked(struct session *session, int err) {
    session->flags &= ~(uint32_t)SESSION_LINKED;
    session->link = NULL;
    session_stop(session, err < 0 ? err : DG_ERR_CLOSED, NULL);
}

void session_update_quotas(struct session *session, struct slice group) {
    if (session->state == SESSION_CLOSED || !session->tenant)
        return;
    int err = admission_set(&session->admission, session, session->device_key, group);
    if (err < 0)
        session_stop(session, err, NULL);
}

bool session_is_revoked(const struct session *session,
                        const struct registry_revocation *revocation) {
    if (session->state == SESSION_CLOSED || !session->tenant)
        return false;
    if (revocation->tenant_key != session->tenant->key ||
        (revocation->device_key != 0 && revocation->device_key != session->device_key))
        return false;
    if (revocation->credential_key != 0)
        return revocation->credential_key == session->credential_key;
    for (unsigned i = 0; i < revocation->kept_count; i++)
        if (revocation->kept[i] == session->credential_key)
            return false;
    return true;
}

/* ---- deadlines ---- */

static uint64_t keep_alive_limit_ms(const struct session *session) {
    return (uint64_t)session->keep_alive_s * 1500; /* MQTT5 3.1.2-22 */
}

static uint64_t withheld_end_ms(const struct session *session) {
    return session->connected_ms + session->withheld_ms + LIMIT_MQTT_WITHHELD_MS;
}

uint64_t session_next_deadline(const struct session *session) {
    uint64_t now_ms = session_now_ms(session);
    uint64_t next = session->input_ms + keep_alive_limit_ms(session);
    if (session->valid_until_ms != 0) {
        /* The wall clock may jump: look again within a minute. */
        int64_t left_ms = session->valid_until_ms - session->shared->wall_ms;
        uint64_t step_ms = left_ms < 60000 ? (uint64_t)(left_ms > 0 ? left_ms : 1) : 60000;
        next = now_ms + step_ms < next ? now_ms + step_ms : next;
    }
    if (session->flags & SESSION_WITHHOLDING && withheld_end_ms(session) < next)
        next = withheld_end_ms(session);
    if (session->flags & SESSION_PAUSED_QUOTA && session->admission->until_ms < next)
        next = session->admission->until_ms;
    return next;
}

static uint64_t connected_deadline(struct session *session) {
    uint64_t now_ms = session_now_ms(session);
    session_deliver_expire(session);
    session_deliver_wake_children(session); /* what the registry could not say */
    if (session->flags & SESSION_PAUSED)
        session->input_ms = now_ms; /* it is we who do not listen */
    if (session->flags & SESSION_PAUSED_QUOTA && now_ms >= session->admission->until_ms)
        admission_expire(session->admission);
    if (session->valid_until_ms != 0 && session->shared->wall_ms >= session->valid_until_ms)
        session_stop(session, DG_ERR_NOT_AUTHORIZED, "the credential has expired");
    else if (session->flags & SESSION_WITHHOLDING && now_ms >= withheld_end_ms(session))
        session_stop(session, session->end_err, NULL);
    else if (now_ms - session->input_ms >= keep_alive_limit_ms(session))
        session_stop(session, DG_ERR_KEEP_ALIVE, NULL);
    else
        return session_next_deadline(session);
    return 0;
}

uint64_t session_deadline(struct session *session) {
    if (session->state == SESSION_CONNECTED)
        return connected_deadline(session);
    session_stop(session, DG_ERR_TIMEOUT, "not connected in time");
    return 0;
}
