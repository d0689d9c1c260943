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

static void send_pubcomp(struct session *session, uint16_t packet_id, int err) {
    uint8_t bytes[16];
    struct writer w = writer_make(bytes, sizeof(bytes));
    uint8_t reason = err < 0 && session_is_mqtt5(session) ? dg_err_row(err)->mqtt5_reason : 0;
    mqtt_write_ack(&w, session->version, MQTT_PUBCOMP, packet_id, reason, slice_make(NULL, 0));
    session_send(session, &w);
}

bool session_on_pubrel(struct session *session, const struct mqtt_packet *packet) {
    uint16_t packet_id = packet->ack.packet_id;
    if (inflight_find(session->inflight, packet_id)) {
        session_fault(session, DG_ERR_PROTOCOL, "MQTT5 4.3.3-4", "PUBREL before PUBREC");
        return true;
    }
    if (identities_get(session_identities(session), packet_id) == IDENTITY_UNKNOWN) {
        send_pubcomp(session, packet_id, DG_ERR_PACKET_ID_NOT_FOUND);
        return true;
    }
    identities_remove(&session->kept->identities, packet_id);
    send_pubcomp(session, packet_id, 0);
    return true;
}
