/* Control packets to bytes: what a server sends, and what the load generator and tests need. */
#include "gateway/mqtt/packet.h"

/* Room for the properties that the server itself makes; a longer reason string fails the writer. */
enum { OWN_PROPERTIES_BYTES = 2048 };

enum property_id { /* MQTT5 2.2.2.2, those that are written here */
                   ID_SESSION_EXPIRY = 0x11,
                   ID_ASSIGNED_CLIENT_ID = 0x12,
                   ID_SERVER_KEEP_ALIVE = 0x13,
                   ID_SERVER_REFERENCE = 0x1C,
                   ID_REASON_STRING = 0x1F,
                   ID_RECEIVE_MAXIMUM = 0x21,
                   ID_TOPIC_ALIAS_MAXIMUM = 0x22,
                   ID_MAXIMUM_QOS = 0x24,
                   ID_RETAIN_AVAILABLE = 0x25,
                   ID_USER = 0x26,
                   ID_MAXIMUM_PACKET_SIZE = 0x27,
                   ID_WILDCARD_AVAILABLE = 0x28,
                   ID_SUBSCRIPTION_ID_AVAILABLE = 0x29,
                   ID_SHARED_AVAILABLE = 0x2A,
};

enum { VARINT_MAX = 268435455 }; /* MQTT5 1.5.5 */

static size_t varint_size(size_t value) {
    return value < 128 ? 1 : value < 16384 ? 2 : value < 2097152 ? 3 : 4;
}

static void write_varint(struct writer *w, size_t value) {
    if (value > VARINT_MAX)
        w->failed = true;
    writer_uvarint(w, value);
}

static void write_text(struct writer *w, struct slice text) {
    if (text.size > UINT16_MAX)
        w->failed = true;
    writer_u16(w, (uint16_t)text.size);
    writer_slice(w, text);
}

static void write_header(struct writer *w, enum mqtt_type type, uint8_t flags, size_t body_size) {
    writer_u8(w, (uint8_t)(type << 4 | flags));
    write_varint(w, body_size);
}

static void write_property_u8(struct writer *w, enum property_id id, uint8_t value) {
    writer_u8(w, (uint8_t)id);
    writer_u8(w, value);
}

static void write_property_u16(struct writer *w, enum property_id id, uint16_t value) {
    writer_u8(w, (uint8_t)id);
    writer_u16(w, value);
}

static void write_property_u32(struct writer *w, enum property_id id, uint32_t value) {
    writer_u8(w, (uint8_t)id);
    writer_u32(w, value);
}

/* Nothing when empty. */
static void write_property_text(struct writer *w, enum property_id id, struct slice text) {
    if (text.size == 0)
        return;
    writer_u8(w, (uint8_t)id);
    write_text(w, text);
}

static struct slice written(struct writer *w, const struct writer *part) {
    if (part->failed)
        w->failed = true;
    return slice_make(part->start, writer_size(part));
}

static size_t section_size(struct slice properties) {
    return varint_size(properties.size) + properties.size;
}

static void write_section(struct writer *w, struct slice properties) {
    write_varint(w, properties.size);
    writer_slice(w, properties);
}

/* ---- CONNACK (MQTT5 3.2) -----------------------------------------------------------------------
 */

static void write_connack_properties(struct writer *w, const struct mqtt_connack *c) {
    if (c->has_session_expiry)
        write_property_u32(w, ID_SESSION_EXPIRY, c->session_expiry_s);
    if (c->receive_maximum > 0)
        write_property_u16(w, ID_RECEIVE_MAXIMUM, c->receive_maximum);
    if (c->maximum_qos == 0 || c->maximum_qos == 1) /* 2 is said by silence (MQTT5 3.2.2.3.4) */
        write_property_u8(w, ID_MAXIMUM_QOS, (uint8_t)c->maximum_qos);
    if (!c->retain_available)
        write_property_u8(w, ID_RETAIN_AVAILABLE, 0);
    if (c->maximum_packet_size > 0)
        write_property_u32(w, ID_MAXIMUM_PACKET_SIZE, c->maximum_packet_size);
    write_property_text(w, ID_ASSIGNED_CLIENT_ID, c->assigned_client_id);
    if (c->topic_alias_maximum > 0)
        write_property_u16(w, ID_TOPIC_ALIAS_MAXIMUM, c->topic_alias_maximum);
    write_property_text(w, ID_SERVER_REFERENCE, c->server_reference);
    write_property_text(w, ID_REASON_STRING, c->reason_string);
    if (!c->wildcard_available)
        write_property_u8(w, ID_WILDCARD_AVAILABLE, 0);
    if (!c->subscription_id_available)
        write_property_u8(w, ID_SUBSCRIPTION_ID_AVAILABLE, 0);
    if (!c->shared_available)
        write_property_u8(w, ID_SHARED_AVAILABLE, 0);
    if (c->server_keep_alive_s > 0)
        write_property_u16(w, ID_SERVER_KEEP_ALIVE, c->server_keep_alive_s);
}

void mqtt_write_connack(struct writer *w, enum mqtt_version version, const struct mqtt_connack *c) {
    if (version == MQTT_VERSION_3_1_1) {
        write_header(w, MQTT_CONNACK, 0, 2);
        writer_u8(w, c->session_present);
        writer_u8(w, c->reason);
        return;
    }
    uint8_t room[OWN_PROPERTIES_BYTES];
    struct writer part = writer_make(room, sizeof room);
    write_connack_properties(&part, c);
    struct slice properties = written(w, &part);
    write_header(w, MQTT_CONNACK, 0, 2 + section_size(properties));
    writer_u8(w, c->session_present);
    writer_u8(w, c->reason);
    write_section(w, properties);
}

/* ---- acknowledgements, PINGRESP, DISCONNECT
 * ------------------------------------------------------ */

static size_t text_property_size(struct slice text) {
    return text.size == 0 ? 0 : 3 + text.size;
}

static void write_reason_section(struct writer *w, struct slice reason_string) {
    write_varint(w, text_property_size(reason_string));
    write_property_text(w, ID_REASON_STRING, reason_string);
}

void mqtt_write_ack(struct writer *w, enum mqtt_version version, enum mqtt_type type,
                    uint16_t packet_id, uint8_t reason, struct slice reason_string) {
    uint8_t flags = type == MQTT_PUBREL ? 2 : 0;
    if (version == MQTT_VERSION_3_1_1 || (reason == 0 && reason_string.size == 0)) {
        uint8_t bytes[4] = {(uint8_t)(type << 4 | flags), 2, (uint8_t)(packet_id >> 8),
                            (uint8_t)packet_id};
        writer_bytes(w, bytes, sizeof bytes);
        return;
    }
    size_t section = text_property_size(reason_string);
    size_t body_size = section == 0 ? 3 : 3 + varint_size(section) + section;
    write_header(w, type, flags, body_size);
    writer_u16(w, packet_id);
    writer_u8(w, reason);
    if (section > 0)
        write_reason_section(w, reason_string);
}

void mqtt_write_ack_properties(struct writer *w, enum mqtt_type type, uint16_t packet_id,
                               uint8_t reason, struct slice properties) {
    write_header(w, type, type == MQTT_PUBREL ? 2 : 0, 3 + section_size(properties));
    writer_u16(w, packet_id);
    writer_u8(w, reason);
    write_section(w, properties);
}

void mqtt_write_user_property(struct writer *w, struct slice name, struct slice value) {
    writer_u8(w, ID_USER);
    write_text(w, name);
    write_text(w, value);
}

void mqtt_write_suback(struct writer *w, enum mqtt_version version, enum mqtt_type type,
                       uint16_t packet_id, const uint8_t *reasons, unsigned reason_count,
                       struct slice reason_string) {
    bool version_5 = version == MQTT_VERSION_5;
    if (!version_5 && type == MQTT_UNSUBACK)
        reason_count = 0; /* MQTT3 3.11.3: no payload */
    size_t section = text_property_size(reason_string);
    size_t body_size = 2 + (version_5 ? varint_size(section) + section : 0) + reason_count;
    write_header(w, type, 0, body_size);
    writer_u16(w, packet_id);
    if (version_5)
        write_reason_section(w, reason_string);
    writer_bytes(w, reasons, reason_count);
}

void mqtt_write_pingresp(struct writer *w) {
    write_header(w, MQTT_PINGRESP, 0, 0);
}

void mqtt_write_disconnect(struct writer *w, uint8_t reason, struct slice reason_string,
                           struct slice server_reference) {
    size_t section = text_property_size(reason_string) + text_property_size(server_reference);
    if (section == 0) {
        write_header(w, MQTT_DISCONNECT, 0, reason == 0 ? 0 : 1);
        if (reason != 0)
            writer_u8(w, reason);
        return;
    }
    write_header(w, MQTT_DISCONNECT, 0, 1 + varint_size(section) + section);
    writer_u8(w, reason);
    write_varint(w, section);
    write_property_text(w, ID_SERVER_REFERENCE, server_reference);
    write_property_text(w, ID_REASON_STRING, reason_string);
}

/* ---- PUBLISH, CONNECT, SUBSCRIBE
 * ----------------------------------------------------------------- */

void mqtt_write_publish_head(struct writer *w, enum mqtt_version version, bool dup, uint8_t qos,
                             bool retain, struct slice topic, uint16_t packet_id,
                             struct slice properties, size_t payload_size) {
    bool version_5 = version == MQTT_VERSION_5;
    uint8_t flags = (uint8_t)((dup ? 8 : 0) | qos << 1 | (retain ? 1 : 0));
    size_t body_size = 2 + topic.size + (qos > 0 ? 2 : 0) +
                       (version_5 ? section_size(properties) : 0) + payload_size;
    write_header(w, MQTT_PUBLISH, flags, body_size);
    write_text(w, topic);
    if (qos > 0)
        writer_u16(w, packet_id);
    if (version_5)
        write_section(w, properties);
}

void mqtt_write_publish(struct writer *w, enum mqtt_version version, bool dup, uint8_t qos,
                        bool retain, struct slice topic, uint16_t packet_id,
                        struct slice properties, struct slice payload) {
    mqtt_write_publish_head(w, version, dup, qos, retain, topic, packet_id, properties,
                            payload.size);
    writer_slice(w, payload);
}

void mqtt_write_connect(struct writer *w, enum mqtt_version version, bool clean_start,
                        uint16_t keep_alive_s, struct slice client_id, struct slice user_name,
                        struct slice password) {
    bool has_user_name = user_name.data != NULL, has_password = password.data != NULL;
    bool version_5 = version == MQTT_VERSION_5;
    size_t body_size = 10 + (version_5 ? 1 : 0) + 2 + client_id.size +
                       (has_user_name ? 2 + user_name.size : 0) +
                       (has_password ? 2 + password.size : 0);
    write_header(w, MQTT_CONNECT, 0, body_size);
    write_text(w, slice_from_string("MQTT"));
    writer_u8(w, (uint8_t)version);
    writer_u8(w, (uint8_t)((has_user_name ? 0x80 : 0) | (has_password ? 0x40 : 0) |
                           (clean_start ? 0x02 : 0)));
    writer_u16(w, keep_alive_s);
    if (version_5)
        write_section(w, slice_make(NULL, 0));
    write_text(w, client_id);
    if (has_user_name)
        write_text(w, user_name);
    if (has_password)
        write_text(w, password);
}

void mqtt_write_subscribe(struct writer *w, enum mqtt_version version, uint16_t packet_id,
                          const struct mqtt_subscription *filters, unsigned filter_count) {
    bool version_5 = version == MQTT_VERSION_5;
    size_t body_size = 2 + (version_5 ? 1 : 0);
    for (unsigned i = 0; i < filter_count; i++)
        body_size += 2 + filters[i].filter.size + 1;
    write_header(w, MQTT_SUBSCRIBE, 2, body_size);
    writer_u16(w, packet_id);
    if (version_5)
        write_section(w, slice_make(NULL, 0));
    for (unsigned i = 0; i < filter_count; i++) {
        write_text(w, filters[i].filter);
        writer_u8(w, filters[i].options);
    }
}
