/* What a session tells the flight recorder. */
#include <stdio.h>

#include "gateway/session/session_internal.h"

static void record(struct session *session, enum flight_kind kind, int err, uint8_t reason_code,
                   struct slice detail) {
    struct session_shared *shared = session->shared;
    char peer[SESSION_PEER_TEXT_SIZE] = "";
    shared->effects->format_peer(session, peer);
    flight_record(shared->flight,
                  &(struct flight_note){
                      .at_ms = shared->wall_ms,
                      .key = session->device_key ? session->device_key : shared->claimed_key,
                      .kind = kind,
                      .err = err,
                      .reason_code = reason_code,
                      .peer = slice_from_string(peer),
                      .detail = detail,
                  });
}

void session_note(struct session *session, enum flight_kind kind, int err, struct slice detail) {
    record(session, kind, err, err < 0 ? dg_err_row(err)->mqtt5_reason : 0, detail);
}

void session_note_refused(struct session *session, enum flight_kind kind, int err,
                          struct slice topic) {
    session->refused += session->refused < UINT16_MAX;
    session_note(session, kind, err, topic);
}

void session_note_dropped(struct session *session, int err) {
    session->dropped++;
    session_note(session, FLIGHT_DROPPED, err, slice_make(NULL, 0));
}

/* ---- the end ---- */

static enum flight_kind end_kind(const struct session *session, const struct session_end *end,
                                 enum session_state before) {
    if (before == SESSION_AUTHENTICATING && !end->text && !session->device_key)
        return FLIGHT_LOGIN_REFUSED; /* it is the registry's word */
    if (before != SESSION_CONNECTED)
        return FLIGHT_CONNECT_REFUSED;
    switch (end->err) {
    case 0:
        return FLIGHT_DISCONNECTED;
    case DG_ERR_CLOSED:
    case DG_ERR_TLS:
    case DG_ERR_IO:
        return FLIGHT_LOST;
    case DG_ERR_KEEP_ALIVE:
        return FLIGHT_KEEP_ALIVE;
    default:
        return end->clause ? FLIGHT_PROTOCOL_ERROR : FLIGHT_ENDED;
    }
}

/* A take-over is told by who knows the newcomer's address; a connection that went away before it
 * was a device's is nobody's business. */
void session_note_end(struct session *session, const struct session_end *end,
                      enum session_state before) {
    bool is_gone = end->err == 0 || end->err == DG_ERR_CLOSED;
    if (end->err == DG_ERR_TAKEN_OVER || (before != SESSION_CONNECTED && is_gone))
        return;
    char detail[FLIGHT_TEXT_BYTES + 1];
    int size = snprintf(detail, sizeof(detail), "%s%s%s", end->clause ? end->clause : "",
                        end->clause ? ": " : "", end->err < 0 && end->text ? end->text : "");
    size = size < (int)sizeof(detail) ? size : (int)sizeof(detail) - 1;
    uint8_t reason = end->err < 0 ? dg_err_row(end->err)->mqtt5_reason : session->end_reason;
    record(session, end_kind(session, end, before), end->err, reason,
           slice_make(detail, (size_t)size));
}
