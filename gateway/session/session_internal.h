/* What the files of the session share; nobody else includes it. */
#pragma once

#include "gateway/session/authorize.h"
#include "gateway/session/reason.h"
#include "gateway/session/session.h"

/* Copied from CONNECT; slices point into bytes. */
struct session_will {
    uint8_t qos;
    bool retain;
    uint32_t message_expiry_s;
    uint32_t user_property_count;
    struct slice topic, payload, properties, content_type, response_topic, correlation_data;
    uint8_t bytes[];
};

/* What a tag says, from above: the kind; of a publish that is answered its packet identifier and
 * its sequence number. */
enum session_tag { SESSION_TAG_QOS1 = 1, SESSION_TAG_QOS2, SESSION_TAG_QOS0, SESSION_TAG_OWN };
static inline uint64_t session_tag_make(enum session_tag kind, uint16_t packet_id,
                                        uint32_t sequence) {
    return (uint64_t)kind << 48 | (uint64_t)packet_id << 32 | sequence;
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

/* Appends an event of this device and counts it as outstanding. As the effect. */
DG_NODISCARD int session_append(struct session *session, const struct device_event *event,
                                uint64_t tag);

/* Ends the session: farewell, will, disconnected event, claim. Again: nothing. */
void session_end(struct session *session, const struct session_end *end);
/* ... because of what the peer sent: counted. err MALFORMED, PROTOCOL or a more precise one. */
void session_fault(struct session *session, int err, const char *clause, const char *text);
/* What is left to do after the end; until nothing is. */
void session_settle(struct session *session);
/* Appends the connected event, if they are wanted. 0 or DG_ERR_PRESSURE or another. */
DG_NODISCARD int session_append_connected(struct session *session);
void session_will_drop(struct session *session);

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

/* Handlers of the table in session.c; as session_publish(). */
typedef bool session_handler(struct session *session, const struct mqtt_packet *packet);
session_handler session_on_connect, session_on_pubrel, session_on_subscribe, session_on_unsubscribe;

/* Makes session->kept when there is none. 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int session_keep(struct session *session);

/* QoS 2 messages that are not released; NULL: none. */
static inline struct identities *session_identities(const struct session *session) {
    return session->kept ? session->kept->identities : NULL;
}
/* Room for one more. */
DG_NODISCARD int session_identity_reserve(struct session *session);
/* The event of a QoS 2 publish is durable (err 0) or will never be. */
void session_identity_settle(struct session *session, uint16_t packet_id, int err);
