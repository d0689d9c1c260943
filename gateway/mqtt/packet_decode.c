/* Fixed header and the packets that a client sends, but for CONNECT. */
#include "gateway/mqtt/packet_fault.h"

enum { FRAME_LENGTH_BYTES_MAX = 4 }; /* MQTT5 2.1.4, 1.5.5 */

int mqtt_packet_frame(const uint8_t *data, size_t size, uint32_t max_packet_bytes,
                      size_t *ret_header_size) {
    uint32_t length = 0;
    for (unsigned i = 0; i < FRAME_LENGTH_BYTES_MAX; i++) {
        if (size < i + 2)
            return 0;
        uint8_t byte = data[i + 1];
        length |= (uint32_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        size_t header_size = i + 2;
        if (header_size + length > max_packet_bytes)
            return DG_ERR_TOO_LARGE;
        if (header_size + length > size)
            return 0;
        *ret_header_size = header_size;
        return (int)(header_size + length);
    }
    return DG_ERR_MALFORMED;
}

/* ---- PUBLISH -----------------------------------------------------------------------------------
 */

enum publish_flag { PUBLISH_RETAIN = 0x01, PUBLISH_DUP = 0x08 };

/* UTF-8 and wildcards in one pass; emptiness is judged with the properties. */
static int decode_topic(struct mqtt_decoder *d, struct slice *ret_topic) {
    int err = mqtt_decode_binary(d, ret_topic);
    if (err < 0)
        return err;
    switch (mqtt_topic_scan(*ret_topic)) {
    case TOPIC_PLAIN:
        return 0;
    case TOPIC_WILDCARD:
        return mqtt_refuse(d, FAULT_TOPIC_WILDCARD);
    case TOPIC_NOT_UTF8:
        break;
    }
    bool null = memchr(ret_topic->data, 0, ret_topic->size) != NULL;
    return mqtt_refuse(d, null ? FAULT_UTF8_NULL : FAULT_UTF8);
}

static int decode_packet_id(struct mqtt_decoder *d, uint16_t *ret_packet_id) {
    uint16_t packet_id = reader_u16(&d->in);
    if (d->in.failed)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    if (packet_id == 0)
        return mqtt_refuse(d, FAULT_PACKET_ID_ZERO);
    *ret_packet_id = packet_id;
    return 0;
}

static int decode_publish_properties(struct mqtt_decoder *d, struct slice topic,
                                     struct mqtt_publish *ret_publish) {
    /* Most devices send none: one zero byte. */
    if (reader_left(&d->in) > 0 && *d->in.at == 0 && topic.size > 0) {
        d->in.at++;
        ret_publish->properties = (struct mqtt_properties){0};
        return 0;
    }
    struct mqtt_properties properties;
    int err = mqtt_decode_properties(d, MQTT_PUBLISH, &properties);
    if (err < 0)
        return err;
    if (mqtt_has(&properties, MQTT_PROPERTY_SUBSCRIPTION_ID))
        return mqtt_refuse(d, FAULT_SUBSCRIPTION_ID_SENT);
    if (topic.size == 0 && !mqtt_has(&properties, MQTT_PROPERTY_TOPIC_ALIAS))
        return mqtt_refuse(d, FAULT_TOPIC_EMPTY);
    ret_publish->properties = properties;
    return 0;
}

int mqtt_publish_decode(enum mqtt_version version, uint8_t first_byte, struct slice body,
                        struct mqtt_publish *ret_publish, struct mqtt_fault *fault) {
    struct mqtt_decoder d = {
        .in = reader_make(body.data, body.size), .version = version, .fault = fault};
    uint8_t qos = first_byte >> 1 & 3;
    if (qos == 3)
        return mqtt_refuse(&d, FAULT_PUBLISH_QOS_3);
    if (qos == 0 && (first_byte & PUBLISH_DUP))
        return mqtt_refuse(&d, FAULT_PUBLISH_DUP);
    struct slice topic;
    uint16_t packet_id = 0;
    int err = decode_topic(&d, &topic);
    if (err == 0 && qos > 0)
        err = decode_packet_id(&d, &packet_id);
    if (err < 0)
        return err;
    /* The last step that can fail writes the properties, so a failure leaves the output alone. */
    if (version == MQTT_VERSION_5) {
        err = decode_publish_properties(&d, topic, ret_publish);
        if (err < 0)
            return err;
    } else {
        if (topic.size == 0)
            return mqtt_refuse(&d, FAULT_TOPIC_EMPTY);
        ret_publish->properties = (struct mqtt_properties){0};
    }
    ret_publish->dup = first_byte & PUBLISH_DUP;
    ret_publish->retain = first_byte & PUBLISH_RETAIN;
    ret_publish->qos = qos;
    ret_publish->packet_id = packet_id;
    ret_publish->topic = topic;
    ret_publish->payload = slice_make(d.in.at, reader_left(&d.in));
    return 0;
}

/* ---- SUBSCRIBE, UNSUBSCRIBE
 * ---------------------------------------------------------------------- */

enum subscription_option { /* MQTT5 3.8.3.1 */
                           OPTION_QOS = 0x03,
                           OPTION_NO_LOCAL = 0x04,
                           OPTION_RETAIN_HANDLING = 0x30,
                           OPTION_RESERVED = 0xC0,
                           OPTION_RESERVED_3_1_1 = 0xFC,
};

static int decode_filter(struct mqtt_decoder *d, struct slice *ret_filter, bool *ret_shared) {
    struct slice filter;
    int err = mqtt_decode_text(d, &filter);
    if (err < 0)
        return err;
    enum mqtt_fault_id id = mqtt_filter_fault(filter);
    *ret_shared = false;
    if (id == MQTT_FAULT_COUNT && d->version == MQTT_VERSION_5)
        id = mqtt_share_fault(filter, ret_shared);
    if (id != MQTT_FAULT_COUNT)
        return mqtt_refuse(d, id);
    *ret_filter = filter;
    return 0;
}

static int check_options(const struct mqtt_decoder *d, uint8_t options, bool shared) {
    bool version_3 = d->version == MQTT_VERSION_3_1_1;
    if (options & (version_3 ? OPTION_RESERVED_3_1_1 : OPTION_RESERVED))
        return mqtt_refuse(d, FAULT_OPTIONS_RESERVED);
    if ((options & OPTION_QOS) == OPTION_QOS) {
        int err = mqtt_refuse(d, FAULT_OPTIONS_QOS_3);
        return version_3 ? DG_ERR_MALFORMED : err; /* MQTT3 3.8.3-4 calls it malformed */
    }
    if ((options & OPTION_RETAIN_HANDLING) == OPTION_RETAIN_HANDLING)
        return mqtt_refuse(d, FAULT_OPTIONS_RETAIN);
    if (shared && (options & OPTION_NO_LOCAL))
        return mqtt_refuse(d, FAULT_SHARE_NO_LOCAL);
    return 0;
}

static int decode_subscription(struct mqtt_decoder *d, struct mqtt_subscription *ret_subscription) {
    struct slice filter;
    bool shared;
    int err = decode_filter(d, &filter, &shared);
    if (err < 0)
        return err;
    uint8_t options = reader_u8(&d->in);
    if (d->in.failed)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    err = check_options(d, options, shared);
    if (err < 0)
        return err;
    *ret_subscription = (struct mqtt_subscription){
        .filter = filter, .qos = options & OPTION_QOS, .options = options};
    return 0;
}

static int decode_id_and_properties(struct mqtt_decoder *d, enum mqtt_type type,
                                    uint16_t *ret_packet_id,
                                    struct mqtt_properties *ret_properties) {
    int err = decode_packet_id(d, ret_packet_id);
    if (err == 0 && d->version == MQTT_VERSION_5)
        err = mqtt_decode_properties(d, type, ret_properties);
    return err;
}

static int decode_subscribe(struct mqtt_decoder *d, struct mqtt_subscribe *ret_subscribe) {
    struct mqtt_subscribe s = {0};
    int err = decode_id_and_properties(d, MQTT_SUBSCRIBE, &s.packet_id, &s.properties);
    if (err < 0)
        return err;
    for (; reader_left(&d->in) > 0; s.filter_count++) {
        if (s.filter_count == LIMIT_MQTT_SUBSCRIPTIONS)
            return mqtt_refuse(d, FAULT_FILTER_COUNT);
        err = decode_subscription(d, &s.filters[s.filter_count]);
        if (err < 0)
            return err;
    }
    if (s.filter_count == 0)
        return mqtt_refuse(d, FAULT_FILTER_NONE);
    *ret_subscribe = s;
    return 0;
}

static int decode_unsubscribe(struct mqtt_decoder *d, struct mqtt_unsubscribe *ret_unsubscribe) {
    struct mqtt_unsubscribe u = {0};
    int err = decode_id_and_properties(d, MQTT_UNSUBSCRIBE, &u.packet_id, &u.properties);
    if (err < 0)
        return err;
    bool shared;
    for (; reader_left(&d->in) > 0; u.filter_count++) {
        if (u.filter_count == LIMIT_MQTT_SUBSCRIPTIONS)
            return mqtt_refuse(d, FAULT_FILTER_COUNT);
        err = decode_filter(d, &u.filters[u.filter_count], &shared);
        if (err < 0)
            return err;
    }
    if (u.filter_count == 0)
        return mqtt_refuse(d, FAULT_FILTER_NONE_UNSUB);
    *ret_unsubscribe = u;
    return 0;
}

/* ---- PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT, AUTH
 * --------------------------------------------- */

static bool is_one_of(uint8_t reason, const uint8_t *reasons, size_t count) {
    return memchr(reasons, reason, count) != NULL;
}

/* Reason codes that a client may send. */
static const uint8_t ack_reasons[] = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99};
static const uint8_t release_reasons[] = {0x00, 0x92};
static const uint8_t disconnect_reasons[] = {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90,
                                             0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99};
static const uint8_t auth_reasons[] = {0x18, 0x19};

struct reason_row {
    const uint8_t *reasons;
    size_t count;
    enum mqtt_fault_id fault;
};

static const struct reason_row reason_rows[MQTT_AUTH + 1] = {
    [MQTT_PUBACK] = {ack_reasons, sizeof ack_reasons, FAULT_ACK_REASON},
    [MQTT_PUBREC] = {ack_reasons, sizeof ack_reasons, FAULT_ACK_REASON},
    [MQTT_PUBREL] = {release_reasons, sizeof release_reasons, FAULT_RELEASE_REASON},
    [MQTT_PUBCOMP] = {release_reasons, sizeof release_reasons, FAULT_RELEASE_REASON},
    [MQTT_DISCONNECT] = {disconnect_reasons, sizeof disconnect_reasons, FAULT_DISCONNECT_REASON},
    [MQTT_AUTH] = {auth_reasons, sizeof auth_reasons, FAULT_AUTH_REASON},
};

/* Reason code and properties, each of which may be left out (MQTT5 3.4.2.1, 3.4.2.2.1, 3.14.2.1).
 */
static int decode_reason(struct mqtt_decoder *d, enum mqtt_type type, struct mqtt_ack *ack) {
    if (reader_left(&d->in) > 0)
        ack->reason = reader_u8(&d->in);
    const struct reason_row *row = &reason_rows[type];
    if (!is_one_of(ack->reason, row->reasons, row->count))
        return mqtt_refuse(d, row->fault);
    if (reader_left(&d->in) > 0) {
        int err = mqtt_decode_properties(d, type, &ack->properties);
        if (err < 0)
            return err;
    }
    return reader_left(&d->in) > 0 ? mqtt_refuse(d, FAULT_TRAILING) : 0;
}

static int decode_ack(struct mqtt_decoder *d, enum mqtt_type type, struct mqtt_ack *ret_ack) {
    struct mqtt_ack ack = {0};
    if (reader_left(&d->in) < 2)
        return mqtt_refuse(d, FAULT_ACK_LENGTH);
    int err = decode_packet_id(d, &ack.packet_id);
    if (err < 0)
        return err;
    if (d->version == MQTT_VERSION_5)
        err = decode_reason(d, type, &ack);
    else if (reader_left(&d->in) > 0)
        err = mqtt_refuse(d, FAULT_ACK_LENGTH);
    if (err == 0)
        *ret_ack = ack;
    return err;
}

static int decode_disconnect(struct mqtt_decoder *d, struct mqtt_ack *ret_ack) {
    struct mqtt_ack ack = {0};
    int err = 0;
    if (d->version == MQTT_VERSION_5)
        err = decode_reason(d, MQTT_DISCONNECT, &ack);
    else if (reader_left(&d->in) > 0)
        err = mqtt_refuse(d, FAULT_DISCONNECT_LENGTH);
    if (err == 0)
        *ret_ack = ack;
    return err;
}

/* Reason and properties may only be left out together, and with Success, which is the server's
 * (MQTT5 3.15.2.1); the method is required (3.15.2.2.2). */
static int decode_auth(struct mqtt_decoder *d, struct mqtt_ack *ret_ack) {
    struct mqtt_ack ack = {0};
    if (reader_left(&d->in) == 1)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    int err = decode_reason(d, MQTT_AUTH, &ack);
    if (err < 0)
        return err;
    if (!mqtt_has(&ack.properties, MQTT_PROPERTY_AUTH_METHOD))
        return mqtt_refuse(d, FAULT_AUTH_METHOD_MISSING);
    *ret_ack = ack;
    return 0;
}

/* ---- any packet --------------------------------------------------------------------------------
 */

/* Fixed header flags of a type other than PUBLISH (MQTT5 2.1.3). */
static uint8_t required_flags(enum mqtt_type type) {
    bool two = type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;
    return two ? 0x2 : 0x0;
}

static int check_type(const struct mqtt_decoder *d, uint8_t first_byte) {
    enum mqtt_type type = (enum mqtt_type)(first_byte >> 4);
    if (type == 0 || (type == MQTT_AUTH && d->version == MQTT_VERSION_3_1_1))
        return mqtt_refuse(d, FAULT_TYPE_RESERVED);
    if (type != MQTT_PUBLISH && (first_byte & 0x0f) != required_flags(type))
        return mqtt_refuse(d, FAULT_FLAGS);
    return 0;
}

static int decode_body(struct mqtt_decoder *d, enum mqtt_type type, struct mqtt_packet *packet) {
    switch (type) {
    case MQTT_CONNECT:
        return mqtt_decode_connect(d, &packet->connect);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return decode_ack(d, type, &packet->ack);
    case MQTT_SUBSCRIBE:
        return decode_subscribe(d, &packet->subscribe);
    case MQTT_UNSUBSCRIBE:
        return decode_unsubscribe(d, &packet->unsubscribe);
    case MQTT_PINGREQ:
        return reader_left(&d->in) > 0 ? mqtt_refuse(d, FAULT_PINGREQ_LENGTH) : 0;
    case MQTT_DISCONNECT:
        return decode_disconnect(d, &packet->ack);
    case MQTT_AUTH:
        return decode_auth(d, &packet->ack);
    default:
        return mqtt_refuse(d, FAULT_TYPE_OF_SERVER);
    }
}

int mqtt_packet_decode(enum mqtt_version version, uint8_t first_byte, struct slice body,
                       struct mqtt_packet *ret_packet, struct mqtt_fault *fault) {
    struct mqtt_decoder d = {
        .in = reader_make(body.data, body.size), .version = version, .fault = fault};
    enum mqtt_type type = (enum mqtt_type)(first_byte >> 4);
    int err = check_type(&d, first_byte);
    if (err < 0)
        return err;
    if (type == MQTT_PUBLISH)
        err = mqtt_publish_decode(version, first_byte, body, &ret_packet->publish, fault);
    else
        err = decode_body(&d, type, ret_packet);
    if (err == 0)
        ret_packet->type = type;
    return err;
}
