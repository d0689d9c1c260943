/*
 * MQTT 3.1.1 and 5.0 control packets: bytes to structs and back. Pure: no socket, clock or heap.
 * Decoded slices point into the caller's bytes. Every length is checked before it is used; anything
 * the specification calls malformed is DG_ERR_MALFORMED, anything it calls a protocol error
 * DG_ERR_PROTOCOL, and the violated clause is named for the log.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/reader.h"
#include "common/writer.h"

enum mqtt_version { MQTT_VERSION_3_1_1 = 4, MQTT_VERSION_5 = 5 };

enum mqtt_type { /* MQTT5 2.1.2 */
                 MQTT_CONNECT = 1,
                 MQTT_CONNACK,
                 MQTT_PUBLISH,
                 MQTT_PUBACK,
                 MQTT_PUBREC,
                 MQTT_PUBREL,
                 MQTT_PUBCOMP,
                 MQTT_SUBSCRIBE,
                 MQTT_SUBACK,
                 MQTT_UNSUBSCRIBE,
                 MQTT_UNSUBACK,
                 MQTT_PINGREQ,
                 MQTT_PINGRESP,
                 MQTT_DISCONNECT,
                 MQTT_AUTH,
};

/* One row per property of MQTT5 2.2.2.2: PROPERTY(name, identifier, type, packets that may carry
 * it, may repeat). Packets are a mask of 1 << enum mqtt_type; bit 0 is the will. */
enum mqtt_property {
    MQTT_PROPERTY_PAYLOAD_FORMAT,
    MQTT_PROPERTY_MESSAGE_EXPIRY,
    MQTT_PROPERTY_CONTENT_TYPE,
    MQTT_PROPERTY_RESPONSE_TOPIC,
    MQTT_PROPERTY_CORRELATION_DATA,
    MQTT_PROPERTY_SUBSCRIPTION_ID,
    MQTT_PROPERTY_SESSION_EXPIRY,
    MQTT_PROPERTY_ASSIGNED_CLIENT_ID,
    MQTT_PROPERTY_SERVER_KEEP_ALIVE,
    MQTT_PROPERTY_AUTH_METHOD,
    MQTT_PROPERTY_AUTH_DATA,
    MQTT_PROPERTY_REQUEST_PROBLEM,
    MQTT_PROPERTY_WILL_DELAY,
    MQTT_PROPERTY_REQUEST_RESPONSE,
    MQTT_PROPERTY_RESPONSE_INFORMATION,
    MQTT_PROPERTY_SERVER_REFERENCE,
    MQTT_PROPERTY_REASON_STRING,
    MQTT_PROPERTY_RECEIVE_MAXIMUM,
    MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM,
    MQTT_PROPERTY_TOPIC_ALIAS,
    MQTT_PROPERTY_MAXIMUM_QOS,
    MQTT_PROPERTY_RETAIN_AVAILABLE,
    MQTT_PROPERTY_USER,
    MQTT_PROPERTY_MAXIMUM_PACKET_SIZE,
    MQTT_PROPERTY_WILDCARD_AVAILABLE,
    MQTT_PROPERTY_SUBSCRIPTION_ID_AVAILABLE,
    MQTT_PROPERTY_SHARED_AVAILABLE,
    MQTT_PROPERTY_COUNT
};

/* Decoded properties: which are present, numbers and strings by enum, user properties in place. */
struct mqtt_properties {
    uint32_t present; /* 1 << enum mqtt_property */
    uint32_t user_count;
    struct slice raw; /* the whole property section, checked; walk with mqtt_user_property_next */
    /* 0 or empty unless present (which is not always the default of the specification: see
     * mqtt_has); numbers of 1, 2, 4 bytes and variable integers; text or binary */
    uint32_t payload_format, message_expiry_s, subscription_id, session_expiry_s, request_problem,
        will_delay_s, request_response, receive_maximum, topic_alias_maximum, topic_alias,
        maximum_packet_size;
    struct slice content_type, response_topic, correlation_data, auth_method, auth_data,
        reason_string, server_reference;
};

static inline bool mqtt_has(const struct mqtt_properties *p, enum mqtt_property property) {
    return (p->present >> property) & 1;
}

/* Walks user properties: *cursor starts as p->raw. False at the end. */
bool mqtt_user_property_next(struct slice *cursor, struct slice *ret_key, struct slice *ret_value);
/* The value of a text among the properties of a section; empty: there is none. */
struct slice mqtt_find_text(struct slice section, enum mqtt_property property);

struct mqtt_connect {
    enum mqtt_version version;
    bool clean_start;
    uint16_t keep_alive_s;
    struct slice client_id;
    bool has_user_name, has_password;
    struct slice user_name, password;
    struct mqtt_properties properties;
    bool has_will;
    uint8_t will_qos;
    bool will_retain;
    struct slice will_topic, will_payload;
    struct mqtt_properties will_properties;
};

struct mqtt_publish {
    bool dup, retain;
    uint8_t qos;
    uint16_t packet_id; /* 0 for QoS 0 */
    struct slice topic; /* may be empty in MQTT 5 with a topic alias */
    struct mqtt_properties properties;
    struct slice payload;
};

struct mqtt_subscription {
    struct slice filter;
    uint8_t qos;
    uint8_t options; /* the whole byte, checked */
};

struct mqtt_subscribe {
    uint16_t packet_id;
    struct mqtt_properties properties;
    unsigned filter_count;
    struct mqtt_subscription filters[LIMIT_MQTT_SUBSCRIPTIONS];
};

struct mqtt_unsubscribe {
    uint16_t packet_id;
    struct mqtt_properties properties;
    unsigned filter_count;
    struct slice filters[LIMIT_MQTT_SUBSCRIPTIONS];
};

/* PUBACK, PUBREC, PUBREL, PUBCOMP; DISCONNECT and AUTH use reason and properties only. */
struct mqtt_ack {
    uint16_t packet_id;
    uint8_t reason;
    struct mqtt_properties properties;
};

struct mqtt_packet {
    enum mqtt_type type;
    union {
        struct mqtt_connect connect;
        struct mqtt_publish publish;
        struct mqtt_subscribe subscribe;
        struct mqtt_unsubscribe unsubscribe;
        struct mqtt_ack ack;
    };
};

/* Why a packet was refused: the clause, and a few words. Static text. */
struct mqtt_fault {
    const char *clause; /* "MQTT5 3.3.2-2" */
    const char *text;
};

/*
 * Looks at the fixed header (MQTT5 2.1). Returns the size of the whole packet when all of it is
 * there, 0 when more bytes are needed, or DG_ERR_MALFORMED (5-byte remaining length),
 * DG_ERR_TOO_LARGE (over max_packet_bytes; known before the body arrives). ret_header_size: where
 * the body begins. A remaining length padded with zero bytes is taken: MQTT 3.1.1 does not forbid
 * it. MQTT 5 does (1.5.5-1): ask mqtt_header_is_minimal() once the version is known.
 */
DG_NODISCARD int mqtt_packet_frame(const uint8_t *data, size_t size, uint32_t max_packet_bytes,
                                   size_t *ret_header_size);

/* MQTT5 1.5.5-1: the remaining length was written in as few bytes as possible. */
static inline bool mqtt_header_is_minimal(size_t packet_size, size_t header_size) {
    size_t length = packet_size - header_size;
    return header_size == (length < 128 ? 2u : length < 16384 ? 3u : length < 2097152 ? 4u : 5u);
}

/*
 * Decodes one whole packet a client may send. first_byte is the fixed header's; body what follows
 * the remaining length. version is ignored for CONNECT (it brings its own). A server-to-client type
 * is DG_ERR_PROTOCOL. fault is filled in on failure.
 * Topics and filters are checked against the specification; the product's own limits (bytes,
 * levels) are the dialect's, since the IoT Hub one allows longer topics.
 */
DG_NODISCARD int mqtt_packet_decode(enum mqtt_version version, uint8_t first_byte,
                                    struct slice body, struct mqtt_packet *ret_packet,
                                    struct mqtt_fault *fault);

/* The hot path of the above: PUBLISH only. */
DG_NODISCARD int mqtt_publish_decode(enum mqtt_version version, uint8_t first_byte,
                                     struct slice body, struct mqtt_publish *ret_publish,
                                     struct mqtt_fault *fault);

/* What the server announces and answers. Writers fail (w->failed) when out of room. */
struct mqtt_connack {
    bool session_present;
    uint8_t reason; /* MQTT 5 reason code, or 3.1.1 return code */
    /* MQTT 5 only; 0 / empty: not sent */
    uint32_t session_expiry_s;
    bool has_session_expiry;
    uint16_t receive_maximum;
    int maximum_qos; /* -1: not sent (2) */
    uint32_t maximum_packet_size;
    struct slice assigned_client_id;
    uint16_t topic_alias_maximum;
    struct slice reason_string, server_reference;
    bool wildcard_available, subscription_id_available, shared_available, retain_available;
    uint16_t server_keep_alive_s; /* 0: not sent */
};
void mqtt_write_connack(struct writer *w, enum mqtt_version version, const struct mqtt_connack *c);
/* PUBACK, PUBREC, PUBREL, PUBCOMP; the short form when reason is 0 and reason_string empty. */
void mqtt_write_ack(struct writer *w, enum mqtt_version version, enum mqtt_type type,
                    uint16_t packet_id, uint8_t reason, struct slice reason_string);
/* The same of MQTT 5 with properties: an encoded section without its length. */
void mqtt_write_ack_properties(struct writer *w, enum mqtt_type type, uint16_t packet_id,
                               uint8_t reason, struct slice properties);
/* One user property of such a section. */
void mqtt_write_user_property(struct writer *w, struct slice name, struct slice value);
/* SUBACK and UNSUBACK (3.1.1 UNSUBACK carries no codes). */
void mqtt_write_suback(struct writer *w, enum mqtt_version version, enum mqtt_type type,
                       uint16_t packet_id, const uint8_t *reasons, unsigned reason_count,
                       struct slice reason_string);
void mqtt_write_pingresp(struct writer *w);
/* MQTT 5. server_reference: with reason 0x9C or 0x9D only (MQTT5 4.11); empty: none. */
void mqtt_write_disconnect(struct writer *w, uint8_t reason, struct slice reason_string,
                           struct slice server_reference);

/* The properties that are present, as a section without its length; of USER all pairs that raw
 * holds. */
void mqtt_write_properties(struct writer *w, const struct mqtt_properties *properties);

/* A PUBLISH up to its payload, which is to follow. */
void mqtt_write_publish_head(struct writer *w, enum mqtt_version version, bool dup, uint8_t qos,
                             bool retain, struct slice topic, uint16_t packet_id,
                             struct slice properties, size_t payload_size);
/* A PUBLISH to a device, or by the load generator. properties: already encoded section without its
 * length, or empty. */
void mqtt_write_publish(struct writer *w, enum mqtt_version version, bool dup, uint8_t qos,
                        bool retain, struct slice topic, uint16_t packet_id,
                        struct slice properties, struct slice payload);
/* A client's CONNECT and SUBSCRIBE, for the load generator and tests. A user name or password whose
 * data is NULL is left out. */
void mqtt_write_connect(struct writer *w, enum mqtt_version version, bool clean_start,
                        uint16_t keep_alive_s, struct slice client_id, struct slice user_name,
                        struct slice password);
void mqtt_write_subscribe(struct writer *w, enum mqtt_version version, uint16_t packet_id,
                          const struct mqtt_subscription *filters, unsigned filter_count);

/* Levels of a topic: separators and one more. */
unsigned mqtt_topic_level_count(struct slice topic);

/* Topic Name rules: not empty, no wildcard, no NUL, UTF-8, at most LIMIT_MQTT_TOPIC_LEVELS levels
 * and the size limit (MQTT5 4.7). Filter rules likewise with wildcards in their places. */
bool mqtt_topic_name_is_valid(struct slice topic);
bool mqtt_topic_filter_is_valid(struct slice filter);
/* Whether a valid topic name fits a valid filter (MQTT5 4.7). A filter that begins with a wildcard
 * fits no topic that begins with '$' (4.7.2-1). */
bool mqtt_topic_matches(struct slice filter, struct slice topic);
