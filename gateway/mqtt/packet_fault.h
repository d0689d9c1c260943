/*
 * Private to the codec: every reason for which a packet is refused, in one table: the error, the
 * clause of MQTT 5.0, the clause of MQTT 3.1.1 (the same rule where both have it), words for
 * people.
 *
 * MALFORMED is what the specification calls malformed or what cannot be parsed; PROTOCOL what it
 * calls a protocol error, or data that parses but is not allowed (MQTT5 1.2, 4.13).
 */
#pragma once

#include "gateway/mqtt/packet.h"

/* clang-format off */
/* X(name, error, clause of MQTT 5.0, clause of MQTT 3.1.1, text) */
#define MQTT_FAULTS(X) \
    X(FAULT_TYPE_RESERVED, DG_ERR_MALFORMED, "MQTT5 2.1.2", "MQTT3 2.2.1", \
      "reserved packet type") \
    X(FAULT_TYPE_OF_SERVER, DG_ERR_PROTOCOL, "MQTT5 2.1.2", "MQTT3 2.2.1", \
      "packet type that only a server sends") \
    X(FAULT_FLAGS, DG_ERR_MALFORMED, "MQTT5 2.1.3-1", "MQTT3 2.2.2-2", \
      "reserved fixed header flags") \
    X(FAULT_TRUNCATED, DG_ERR_MALFORMED, "MQTT5 1.2", "MQTT3 4.8.0-1", \
      "packet ends inside a field") \
    X(FAULT_TRAILING, DG_ERR_MALFORMED, "MQTT5 1.2", "MQTT3 4.8.0-1", \
      "bytes after the last field") \
    X(FAULT_UTF8, DG_ERR_MALFORMED, "MQTT5 1.5.4-1", "MQTT3 1.5.3-1", \
      "text is not UTF-8") \
    X(FAULT_UTF8_NULL, DG_ERR_MALFORMED, "MQTT5 1.5.4-2", "MQTT3 1.5.3-2", \
      "text contains U+0000") \
    X(FAULT_PACKET_ID_ZERO, DG_ERR_PROTOCOL, "MQTT5 2.2.1-3", "MQTT3 2.3.1-1", \
      "packet identifier 0") \
    X(FAULT_PROPERTY_LENGTH, DG_ERR_MALFORMED, "MQTT5 2.2.2.1", "MQTT5 2.2.2.1", \
      "property length not valid") \
    X(FAULT_PROPERTY_UNKNOWN, DG_ERR_MALFORMED, "MQTT5 2.2.2.2", "MQTT5 2.2.2.2", \
      "unknown property") \
    X(FAULT_PROPERTY_VALUE, DG_ERR_MALFORMED, "MQTT5 2.2.2.2", "MQTT5 2.2.2.2", \
      "property value ends early or is not of its type") \
    X(FAULT_PROPERTY_BYTES, DG_ERR_LIMIT, "limit", "limit", \
      "too many bytes of properties") \
    X(FAULT_PROPERTY_COUNT, DG_ERR_LIMIT, "limit", "limit", \
      "too many user properties") \
    X(FAULT_PROTOCOL_NAME, DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-1", "MQTT3 3.1.2-1", \
      "protocol name is not MQTT") \
    X(FAULT_PROTOCOL_LEVEL, DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-2", "MQTT3 3.1.2-2", \
      "protocol level is neither 4 nor 5") \
    X(FAULT_CONNECT_RESERVED, DG_ERR_MALFORMED, "MQTT5 3.1.2-3", "MQTT3 3.1.2-3", \
      "reserved connect flag") \
    X(FAULT_WILL_QOS_WITHOUT, DG_ERR_MALFORMED, "MQTT5 3.1.2-11", "MQTT3 3.1.2-13", \
      "will QoS without a will") \
    X(FAULT_WILL_QOS_3, DG_ERR_MALFORMED, "MQTT5 3.1.2-12", "MQTT3 3.1.2-14", \
      "will QoS 3") \
    X(FAULT_WILL_RETAIN_WITHOUT, DG_ERR_MALFORMED, "MQTT5 3.1.2-13", "MQTT3 3.1.2-15", \
      "will retain without a will") \
    X(FAULT_WILL_TOPIC_EMPTY, DG_ERR_PROTOCOL, "MQTT5 4.7.3-1", "MQTT3 4.7.3-1", \
      "empty will topic") \
    X(FAULT_WILL_TOPIC_WILDCARD, DG_ERR_PROTOCOL, "MQTT5 4.7.0-1", "MQTT3 4.7.1-1", \
      "wildcard in the will topic") \
    X(FAULT_PASSWORD_ALONE, DG_ERR_MALFORMED, "MQTT3 3.1.2-22", "MQTT3 3.1.2-22", \
      "password without user name") \
    X(FAULT_CLIENT_ID_SIZE, DG_ERR_CLIENT_ID, "MQTT5 3.1.3-8", "MQTT3 3.1.3-9", \
      "client identifier too long") \
    X(FAULT_USER_NAME_SIZE, DG_ERR_BAD_CREDENTIALS, "limit", "limit", \
      "user name too long") \
    X(FAULT_PASSWORD_SIZE, DG_ERR_BAD_CREDENTIALS, "limit", "limit", \
      "password too long") \
    X(FAULT_AUTH_DATA_ALONE, DG_ERR_PROTOCOL, "MQTT5 3.1.2.11.10", "MQTT5 3.1.2.11.10", \
      "authentication data without a method") \
    X(FAULT_AUTH_METHOD_MISSING, DG_ERR_PROTOCOL, "MQTT5 3.15.2.2.2", "MQTT5 3.15.2.2.2", \
      "AUTH without an authentication method") \
    X(FAULT_PUBLISH_QOS_3, DG_ERR_MALFORMED, "MQTT5 3.3.1-4", "MQTT3 3.3.1-4", \
      "QoS 3") \
    X(FAULT_PUBLISH_DUP, DG_ERR_MALFORMED, "MQTT5 3.3.1-2", "MQTT3 3.3.1-2", \
      "DUP with QoS 0") \
    X(FAULT_TOPIC_EMPTY, DG_ERR_PROTOCOL, "MQTT5 3.3.2.1", "MQTT3 4.7.3-1", \
      "empty topic name") \
    X(FAULT_TOPIC_WILDCARD, DG_ERR_PROTOCOL, "MQTT5 3.3.2-2", "MQTT3 3.3.2-2", \
      "wildcard in the topic name") \
    X(FAULT_SUBSCRIPTION_ID_SENT, DG_ERR_PROTOCOL, "MQTT5 3.3.4-6", "MQTT5 3.3.4-6", \
      "subscription identifier in a client's PUBLISH") \
    X(FAULT_ACK_LENGTH, DG_ERR_MALFORMED, "MQTT5 3.4.2", "MQTT3 3.4.1", \
      "acknowledgement of the wrong length") \
    X(FAULT_ACK_REASON, DG_ERR_PROTOCOL, "MQTT5 3.4.2-1", "MQTT5 3.4.2-1", \
      "reason code not of this packet") \
    X(FAULT_RELEASE_REASON, DG_ERR_PROTOCOL, "MQTT5 3.6.2-1", "MQTT5 3.6.2-1", \
      "reason code not of this packet") \
    X(FAULT_FILTER_NONE, DG_ERR_PROTOCOL, "MQTT5 3.8.3-2", "MQTT3 3.8.3-3", \
      "SUBSCRIBE without a topic filter") \
    X(FAULT_FILTER_NONE_UNSUB, DG_ERR_PROTOCOL, "MQTT5 3.10.3-2", "MQTT3 3.10.3-2", \
      "UNSUBSCRIBE without a topic filter") \
    X(FAULT_FILTER_COUNT, DG_ERR_LIMIT, "limit", "limit", \
      "too many topic filters") \
    X(FAULT_FILTER_EMPTY, DG_ERR_PROTOCOL, "MQTT5 4.7.3-1", "MQTT3 4.7.3-1", \
      "empty topic filter") \
    X(FAULT_FILTER_MULTI_LEVEL, DG_ERR_PROTOCOL, "MQTT5 4.7.1-1", "MQTT3 4.7.1-2", \
      "'#' not alone in the last level") \
    X(FAULT_FILTER_SINGLE_LEVEL, DG_ERR_PROTOCOL, "MQTT5 4.7.1-2", "MQTT3 4.7.1-3", \
      "'+' not alone in its level") \
    X(FAULT_SHARE_NAME, DG_ERR_PROTOCOL, "MQTT5 4.8.2-1", "MQTT5 4.8.2-1", \
      "shared subscription without a name or filter") \
    X(FAULT_SHARE_NAME_WILDCARD, DG_ERR_PROTOCOL, "MQTT5 4.8.2-2", "MQTT5 4.8.2-2", \
      "wildcard in a share name") \
    X(FAULT_SHARE_NO_LOCAL, DG_ERR_PROTOCOL, "MQTT5 3.8.3-4", "MQTT5 3.8.3-4", \
      "No Local on a shared subscription") \
    X(FAULT_OPTIONS_RESERVED, DG_ERR_MALFORMED, "MQTT5 3.8.3-5", "MQTT3 3.8.3-4", \
      "reserved subscription option bits") \
    X(FAULT_OPTIONS_QOS_3, DG_ERR_PROTOCOL, "MQTT5 3.8.3.1", "MQTT3 3.8.3-4", \
      "subscription with QoS 3") \
    X(FAULT_OPTIONS_RETAIN, DG_ERR_PROTOCOL, "MQTT5 3.8.3.1", "MQTT5 3.8.3.1", \
      "retain handling 3") \
    X(FAULT_PINGREQ_LENGTH, DG_ERR_MALFORMED, "MQTT5 3.12.1", "MQTT3 3.12.1", \
      "PINGREQ with a body") \
    X(FAULT_DISCONNECT_LENGTH, DG_ERR_MALFORMED, "MQTT5 3.14.1", "MQTT3 3.14.1", \
      "DISCONNECT with a body") \
    X(FAULT_DISCONNECT_REASON, DG_ERR_PROTOCOL, "MQTT5 3.14.2-1", "MQTT5 3.14.2-1", \
      "reason code not of a client's DISCONNECT") \
    X(FAULT_AUTH_REASON, DG_ERR_PROTOCOL, "MQTT5 3.15.2-1", "MQTT5 3.15.2-1", \
      "reason code not of a client's AUTH")
/* clang-format on */

enum mqtt_fault_id {
#define X(name, ...) name,
    MQTT_FAULTS(X)
#undef X
        MQTT_FAULT_COUNT
};

/* What a decoding function carries along. */
struct mqtt_decoder {
    struct reader in;
    enum mqtt_version version;
    struct mqtt_fault *fault;
};

/* Fills in d->fault and returns the row's error. */
__attribute__((cold)) int mqtt_refuse(const struct mqtt_decoder *d, enum mqtt_fault_id id);

/* Two-byte length and UTF-8 text (MQTT5 1.5.4); the same with any bytes (1.5.6). */
DG_NODISCARD int mqtt_decode_text(struct mqtt_decoder *d, struct slice *ret_text);
DG_NODISCARD int mqtt_decode_binary(struct mqtt_decoder *d, struct slice *ret_data);

/* A property section with its length, as packet (the bit of a packet's mask: 0 is the will) may
 * carry it. ret_properties is written only on success; absent values are 0 or empty. */
DG_NODISCARD int mqtt_decode_properties(struct mqtt_decoder *d, unsigned packet,
                                        struct mqtt_properties *ret_properties);

DG_NODISCARD int mqtt_decode_connect(struct mqtt_decoder *d, struct mqtt_connect *ret_connect);

/* What a topic's bytes are, found in one pass. */
enum topic_bytes { TOPIC_PLAIN, TOPIC_WILDCARD, TOPIC_NOT_UTF8 };
enum topic_bytes mqtt_topic_scan(struct slice topic);

/* The rule a filter breaks, or MQTT_FAULT_COUNT. Text is known to be UTF-8. */
enum mqtt_fault_id mqtt_filter_fault(struct slice filter);
/* The same for "$share/..." in MQTT 5 (4.8.2); sets *ret_shared. */
enum mqtt_fault_id mqtt_share_fault(struct slice filter, bool *ret_shared);
