/*
 * MQTT 5 properties (MQTT5 2.2.2): one table drives decoding. An identifier that is unknown or not
 * of the packet, and a value that is not of its type, is malformed (2.2.2.2); a second occurrence
 * and a value that the property's own section forbids is a protocol error.
 */
#include "gateway/mqtt/packet_properties.h"

#include "gateway/mqtt/packet_fault.h"

#define PACKET(type) (1u << MQTT_##type)
#define WILL 1u
#define ACKS (PACKET(PUBACK) | PACKET(PUBREC) | PACKET(PUBREL) | PACKET(PUBCOMP))
#define REASONS \
    (PACKET(CONNACK) | ACKS | PACKET(SUBACK) | PACKET(UNSUBACK) | PACKET(DISCONNECT) | PACKET(AUTH))
#define EVERYWHERE \
    (WILL | PACKET(CONNECT) | PACKET(PUBLISH) | PACKET(SUBSCRIBE) | PACKET(UNSUBSCRIBE) | REASONS)
#define MESSAGE (PACKET(PUBLISH) | WILL)
#define GREETING (PACKET(CONNECT) | PACKET(CONNACK))
#define AT(field) offsetof(struct mqtt_properties, field)
/* Properties that only a server sends are known, so that they are refused as not of the packet. */
#define NOWHERE 0

/* clang-format off */
/* X(name, identifier, type, rule, field, clause, packets, packets in which it may repeat) */
#define PROPERTIES(X) \
    X(PAYLOAD_FORMAT, 0x01, BYTE, BOOLEAN, AT(payload_format), "3.3.2.3.2", MESSAGE, 0) \
    X(MESSAGE_EXPIRY, 0x02, U32, ANY, AT(message_expiry_s), "3.3.2.3.3", MESSAGE, 0) \
    X(CONTENT_TYPE, 0x03, TEXT, ANY, AT(content_type), "3.3.2.3.9", MESSAGE, 0) \
    X(RESPONSE_TOPIC, 0x08, TEXT, TOPIC, AT(response_topic), "3.3.2.3.5", MESSAGE, 0) \
    X(CORRELATION_DATA, 0x09, BINARY, ANY, AT(correlation_data), "3.3.2.3.6", MESSAGE, 0) \
    X(SUBSCRIPTION_ID, 0x0B, VARINT, NOT_ZERO, AT(subscription_id), "3.8.2.1.2", \
      PACKET(PUBLISH) | PACKET(SUBSCRIBE), PACKET(PUBLISH)) \
    X(SESSION_EXPIRY, 0x11, U32, ANY, AT(session_expiry_s), "3.1.2.11.2", \
      GREETING | PACKET(DISCONNECT), 0) \
    X(ASSIGNED_CLIENT_ID, 0x12, TEXT, ANY, NOWHERE, "3.2.2.3.7", PACKET(CONNACK), 0) \
    X(SERVER_KEEP_ALIVE, 0x13, U16, ANY, NOWHERE, "3.2.2.3.14", PACKET(CONNACK), 0) \
    X(AUTH_METHOD, 0x15, TEXT, ANY, AT(auth_method), "3.1.2.11.9", GREETING | PACKET(AUTH), 0) \
    X(AUTH_DATA, 0x16, BINARY, ANY, AT(auth_data), "3.1.2.11.10", GREETING | PACKET(AUTH), 0) \
    X(REQUEST_PROBLEM, 0x17, BYTE, BOOLEAN, AT(request_problem), "3.1.2.11.7", \
      PACKET(CONNECT), 0) \
    X(WILL_DELAY, 0x18, U32, ANY, AT(will_delay_s), "3.1.3.2.2", WILL, 0) \
    X(REQUEST_RESPONSE, 0x19, BYTE, BOOLEAN, AT(request_response), "3.1.2.11.6", \
      PACKET(CONNECT), 0) \
    X(RESPONSE_INFORMATION, 0x1A, TEXT, ANY, NOWHERE, "3.2.2.3.15", PACKET(CONNACK), 0) \
    X(SERVER_REFERENCE, 0x1C, TEXT, ANY, AT(server_reference), "3.14.2.2.5", \
      PACKET(CONNACK) | PACKET(DISCONNECT), 0) \
    X(REASON_STRING, 0x1F, TEXT, ANY, AT(reason_string), "3.4.2.2.2", REASONS, 0) \
    X(RECEIVE_MAXIMUM, 0x21, U16, NOT_ZERO, AT(receive_maximum), "3.1.2.11.3", GREETING, 0) \
    X(TOPIC_ALIAS_MAXIMUM, 0x22, U16, ANY, AT(topic_alias_maximum), "3.1.2.11.5", GREETING, 0) \
    X(TOPIC_ALIAS, 0x23, U16, ALIAS, AT(topic_alias), "3.3.2.3.4", PACKET(PUBLISH), 0) \
    X(MAXIMUM_QOS, 0x24, BYTE, BOOLEAN, NOWHERE, "3.2.2.3.4", PACKET(CONNACK), 0) \
    X(RETAIN_AVAILABLE, 0x25, BYTE, BOOLEAN, NOWHERE, "3.2.2.3.5", PACKET(CONNACK), 0) \
    X(USER, 0x26, PAIR, ANY, NOWHERE, "3.1.2.11.8", EVERYWHERE, EVERYWHERE) \
    X(MAXIMUM_PACKET_SIZE, 0x27, U32, NOT_ZERO, AT(maximum_packet_size), "3.1.2.11.4", \
      GREETING, 0) \
    X(WILDCARD_AVAILABLE, 0x28, BYTE, BOOLEAN, NOWHERE, "3.2.2.3.11", PACKET(CONNACK), 0) \
    X(SUBSCRIPTION_ID_AVAILABLE, 0x29, BYTE, BOOLEAN, NOWHERE, "3.2.2.3.12", PACKET(CONNACK), 0) \
    X(SHARED_AVAILABLE, 0x2A, BYTE, BOOLEAN, NOWHERE, "3.2.2.3.13", PACKET(CONNACK), 0)

#define ROW(name_, id_, type_, rule_, field_, clause_, packets_, repeats_)                         \
    [MQTT_PROPERTY_##name_] = {.name = #name_, .id = id_, .type = PROPERTY_##type_,                \
        .rule = RULE_##rule_, .offset = field_, .packets = packets_, .repeats = repeats_,          \
        .clause = "MQTT5 " clause_, .foreign = "property not of this packet: " #name_,             \
        .twice = "property given twice: " #name_, .value = "property value not allowed: " #name_},
#define ID(name_, id_, ...) [id_] = MQTT_PROPERTY_##name_ + 1,
/* clang-format on */

const struct mqtt_property_row mqtt_property_rows[MQTT_PROPERTY_COUNT] = {PROPERTIES(ROW)};

/* Identifier to row, plus one; 0: unknown. */
static const uint8_t row_by_id[MQTT_PROPERTY_ID_MAX + 1] = {PROPERTIES(ID)};

/* One property's value, before it is stored. */
struct value {
    uint32_t number;
    struct slice text; /* of a pair: the key */
};

/* At most four bytes, as few as possible (MQTT5 1.5.5-1). False when not valid. */
static bool read_varint(struct reader *in, uint32_t *ret_value) {
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        uint8_t byte = reader_u8(in);
        value |= (uint32_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (in->failed || (byte == 0 && shift > 0))
                return false;
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static int read_value(struct mqtt_decoder *d, const struct mqtt_property_row *row,
                      struct value *ret_value) {
    bool complete = true;
    struct slice second;
    int err = 0;
    switch ((enum mqtt_property_type)row->type) {
    case PROPERTY_BYTE:
        ret_value->number = reader_u8(&d->in);
        break;
    case PROPERTY_U16:
        ret_value->number = reader_u16(&d->in);
        break;
    case PROPERTY_U32:
        ret_value->number = reader_u32(&d->in);
        break;
    case PROPERTY_VARINT:
        complete = read_varint(&d->in, &ret_value->number);
        break;
    case PROPERTY_TEXT:
        return mqtt_decode_text(d, &ret_value->text);
    case PROPERTY_BINARY:
        return mqtt_decode_binary(d, &ret_value->text);
    case PROPERTY_PAIR:
        err = mqtt_decode_text(d, &ret_value->text);
        return err < 0 ? err : mqtt_decode_text(d, &second);
    }
    return complete && !d->in.failed ? 0 : mqtt_refuse(d, FAULT_PROPERTY_VALUE);
}

__attribute__((cold)) static int refuse_property(const struct mqtt_decoder *d, int err,
                                                 const char *clause, const char *text) {
    d->fault->clause = clause;
    d->fault->text = text;
    return err;
}

static int check_rule(const struct mqtt_decoder *d, const struct mqtt_property_row *row,
                      const struct value *value) {
    bool allowed = true;
    int err = DG_ERR_PROTOCOL;
    switch ((enum mqtt_property_rule)row->rule) {
    case RULE_ANY:
        break;
    case RULE_BOOLEAN:
        allowed = value->number <= 1;
        break;
    case RULE_NOT_ZERO:
        allowed = value->number != 0;
        break;
    case RULE_ALIAS: /* MQTT5 3.3.2-8; the reason code has a name of its own, 0x94 */
        allowed = value->number != 0;
        err = DG_ERR_TOPIC_ALIAS;
        break;
    case RULE_TOPIC: /* MQTT5 3.3.2-14, 4.7.3-1 */
        allowed = value->text.size > 0 && mqtt_topic_scan(value->text) == TOPIC_PLAIN;
        break;
    }
    return allowed ? 0 : refuse_property(d, err, row->clause, row->value);
}

static void store_value(struct mqtt_properties *properties, const struct mqtt_property_row *row,
                        const struct value *value) {
    uint8_t *at = (uint8_t *)properties + row->offset;
    if (row->type == PROPERTY_PAIR)
        properties->user_count++;
    else if (row->offset == NOWHERE)
        return;
    else if (row->type == PROPERTY_TEXT || row->type == PROPERTY_BINARY)
        memcpy(at, &value->text, sizeof value->text);
    else
        memcpy(at, &value->number, sizeof value->number);
}

static int decode_property(struct mqtt_decoder *d, unsigned packet,
                           struct mqtt_properties *properties) {
    /* Every identifier is below 0x80: a longer one is unknown (MQTT5 2.2.2.2). */
    uint8_t id = reader_u8(&d->in);
    unsigned row_number = id <= MQTT_PROPERTY_ID_MAX ? row_by_id[id] : 0;
    if (row_number == 0)
        return mqtt_refuse(d, FAULT_PROPERTY_UNKNOWN);
    enum mqtt_property property = (enum mqtt_property)(row_number - 1);
    const struct mqtt_property_row *row = &mqtt_property_rows[property];
    if (!(row->packets >> packet & 1))
        return refuse_property(d, DG_ERR_MALFORMED, "MQTT5 2.2.2.2", row->foreign);
    if (mqtt_has(properties, property) && !(row->repeats >> packet & 1))
        return refuse_property(d, DG_ERR_PROTOCOL, row->clause, row->twice);
    struct value value = {0};
    int err = read_value(d, row, &value);
    if (err == 0)
        err = check_rule(d, row, &value);
    if (err < 0)
        return err;
    properties->present |= 1u << property;
    store_value(properties, row, &value);
    if (properties->user_count > LIMIT_MQTT_PROPERTIES)
        return mqtt_refuse(d, FAULT_PROPERTY_COUNT);
    return 0;
}

int mqtt_decode_properties(struct mqtt_decoder *d, unsigned packet,
                           struct mqtt_properties *ret_properties) {
    uint32_t size;
    if (!read_varint(&d->in, &size) || size > reader_left(&d->in))
        return mqtt_refuse(d, FAULT_PROPERTY_LENGTH);
    if (size > LIMIT_MQTT_PROPERTY_BYTES)
        return mqtt_refuse(d, FAULT_PROPERTY_BYTES);
    struct mqtt_properties properties = {.raw = reader_slice(&d->in, size)};
    struct mqtt_decoder section = {
        .in = reader_make(properties.raw.data, size), .version = d->version, .fault = d->fault};
    while (reader_left(&section.in) > 0) {
        int err = decode_property(&section, packet, &properties);
        if (err < 0)
            return err;
    }
    *ret_properties = properties;
    return 0;
}

static struct slice take_text(struct reader *in) {
    uint16_t size = reader_u16(in);
    return reader_slice(in, size);
}

/* Steps over a value of a checked section. */
static void skip_value(struct reader *in, enum mqtt_property_type type) {
    static const uint8_t sizes[] = {[PROPERTY_BYTE] = 1, [PROPERTY_U16] = 2, [PROPERTY_U32] = 4};
    uint32_t ignored;
    if (type == PROPERTY_PAIR)
        (void)take_text(in);
    if (type == PROPERTY_TEXT || type == PROPERTY_BINARY || type == PROPERTY_PAIR)
        (void)take_text(in);
    else if (type == PROPERTY_VARINT)
        (void)read_varint(in, &ignored);
    else
        (void)reader_take(in, sizes[type]);
}

bool mqtt_user_property_next(struct slice *cursor, struct slice *ret_key, struct slice *ret_value) {
    if (cursor->size == 0) /* no section at all: no bytes to point at */
        return false;
    struct reader in = reader_make(cursor->data, cursor->size);
    while (reader_left(&in) > 0) {
        uint8_t id = reader_u8(&in);
        unsigned row_number = id <= MQTT_PROPERTY_ID_MAX ? row_by_id[id] : 0;
        if (row_number == 0)
            return false;
        if (mqtt_property_rows[row_number - 1].type != PROPERTY_PAIR) {
            skip_value(&in, mqtt_property_rows[row_number - 1].type);
            continue;
        }
        struct slice key = take_text(&in);
        struct slice value = take_text(&in);
        if (in.failed)
            return false;
        *ret_key = key;
        *ret_value = value;
        *cursor = slice_make(in.at, reader_left(&in));
        return true;
    }
    return false;
}

struct slice mqtt_find_text(struct slice section, enum mqtt_property property) {
    struct reader in = reader_make(section.data, section.size);
    while (section.size > 0 && reader_left(&in) > 0) {
        uint8_t id = reader_u8(&in);
        unsigned row_number = id <= MQTT_PROPERTY_ID_MAX ? row_by_id[id] : 0;
        if (row_number == 0)
            break;
        if (row_number == property + 1u)
            return take_text(&in);
        skip_value(&in, mqtt_property_rows[row_number - 1].type);
    }
    return slice_make(NULL, 0);
}

/* ---- writing ---- */

static void write_text(struct writer *w, struct slice text) {
    if (text.size > UINT16_MAX)
        w->failed = true;
    writer_u16(w, (uint16_t)text.size);
    writer_slice(w, text);
}

static void write_users(struct writer *w, const struct mqtt_property_row *row, struct slice raw) {
    struct slice key, value;
    while (mqtt_user_property_next(&raw, &key, &value)) {
        writer_u8(w, row->id);
        write_text(w, key);
        write_text(w, value);
    }
}

static void write_number(struct writer *w, const struct mqtt_property_row *row, uint32_t number) {
    writer_u8(w, row->id);
    if (row->type == PROPERTY_BYTE)
        writer_u8(w, (uint8_t)number);
    else if (row->type == PROPERTY_U16)
        writer_u16(w, (uint16_t)number);
    else if (row->type == PROPERTY_U32)
        writer_u32(w, number);
    else
        writer_uvarint(w, number);
}

void mqtt_write_properties(struct writer *w, const struct mqtt_properties *properties) {
    for (unsigned i = 0; i < MQTT_PROPERTY_COUNT; i++) {
        const struct mqtt_property_row *row = &mqtt_property_rows[i];
        const uint8_t *at = (const uint8_t *)properties + row->offset;
        uint32_t number;
        struct slice text;
        if (!mqtt_has(properties, (enum mqtt_property)i))
            continue;
        if (row->type == PROPERTY_PAIR) {
            write_users(w, row, properties->raw);
        } else if (row->type == PROPERTY_TEXT || row->type == PROPERTY_BINARY) {
            memcpy(&text, at, sizeof(text));
            writer_u8(w, row->id);
            write_text(w, text);
        } else {
            memcpy(&number, at, sizeof(number));
            write_number(w, row, number);
        }
    }
}
