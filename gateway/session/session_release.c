/* The second half of QoS 2 (MQTT5 4.3.3): what is known of a message until the device releases it,
 * PUBREL in, PUBCOMP out. */
#include "common/assert.h"
#include "gateway/session/session_internal.h"

int session_identity_reserve(struct session *session) {
    int err = session_keep(session);
    return err < 0 ? err : identities_reserve(&session->kept->identities);
}

void session_identity_settle(struct session *session, uint16_t packet_id, int err) {
    dg_assert(identities_get(session_identities(session), packet_id) == IDENTITY_SUBMITTED);
    if (err < 0)
        identities_remove(&session->kept->identities, packet_id);
    else
        identities_set(session->kept->identities, packet_id, IDENTITY_STORED);
}

const struct stream_mutation *session_identity_write(const struct session *session,
                                                     uint16_t packet_id,
                                                     struct stream_mutation *mutation,
                                                     uint8_t key[KEPT_IDENTITY_KEY_BYTES]) {
    if (!(session->flags & SESSION_DURABLE))
        return NULL;
    *mutation =
        kept_identity_mutation(session->device_key, session->kept->epoch, packet_id, false, key);
    return mutation;
}

static void send_pubcomp(struct session *session, uint16_t packet_id, int err) {
    uint8_t bytes[16];
    struct writer w = writer_make(bytes, sizeof(bytes));
    uint8_t reason = err < 0 && session_is_mqtt5(session) ? dg_err_row(err)->mqtt5_reason : 0;
    mqtt_write_ack(&w, session->version, MQTT_PUBCOMP, packet_id, reason, slice_make(NULL, 0));
    session_send(session, &w);
}

void session_identity_released(struct session *session, uint16_t packet_id, int err) {
    bool open = session->state != SESSION_CLOSED;
    if (err == 0)
        identities_remove(&session->kept->identities, packet_id);
    else
        identities_set(session->kept->identities, packet_id, IDENTITY_STORED);
    if (open && err == 0)
        send_pubcomp(session, packet_id, 0);
    else if (open)
        session_stop(session, err, NULL); /* PUBCOMP has no word for it; PUBREL comes again */
}

/* As session_publish(). PUBCOMP follows when the identity is gone from the disk. */
static bool release(struct session *session, uint16_t packet_id) {
    if (!(session->flags & SESSION_DURABLE)) {
        identities_remove(&session->kept->identities, packet_id);
        send_pubcomp(session, packet_id, 0);
        return true;
    }
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    struct stream_mutation mutation =
        kept_identity_mutation(session->device_key, session->kept->epoch, packet_id, true, key);
    int err =
        session_mutate(session, &mutation, session_tag_make(SESSION_TAG_RELEASED, packet_id, 0));
    if (err == DG_ERR_PRESSURE) {
        session_pause(session, SESSION_PAUSED_STREAM);
        return false;
    }
    if (err < 0)
        session_stop(session, err, NULL);
    else
        identities_set(session->kept->identities, packet_id, IDENTITY_RELEASED);
    return true;
}

bool session_on_pubrel(struct session *session, const struct mqtt_packet *packet) {
    uint16_t packet_id = packet->ack.packet_id;
    enum identity_state known = identities_get(session_identities(session), packet_id);
    if (inflight_find(session->inflight, packet_id)) {
        session_fault(session, DG_ERR_PROTOCOL, "MQTT5 4.3.3-4", "PUBREL before PUBREC");
        return true;
    }
    if (known == IDENTITY_STORED)
        return release(session, packet_id);
    if (known == IDENTITY_UNKNOWN)
        send_pubcomp(session, packet_id, DG_ERR_PACKET_ID_NOT_FOUND);
    return true; /* else PUBCOMP is on its way */
}
