/* CONNECT (MQTT5 3.1, MQTT3 3.1). */
#include "gateway/mqtt/packet_fault.h"

enum connect_flag { /* MQTT5 3.1.2.3 */
                    CONNECT_RESERVED = 0x01,
                    CONNECT_CLEAN_START = 0x02,
                    CONNECT_WILL = 0x04,
                    CONNECT_WILL_QOS = 0x18,
                    CONNECT_WILL_RETAIN = 0x20,
                    CONNECT_PASSWORD = 0x40,
                    CONNECT_USER_NAME = 0x80,
};

/* The level is looked at only behind the right name, and nothing else before both are right: other
 * versions have other packets. */
static int decode_protocol(struct mqtt_decoder *d) {
    struct slice name;
    int err = mqtt_decode_binary(d, &name);
    if (err < 0)
        return err;
    if (!slice_equals_string(name, "MQTT"))
        return mqtt_refuse(d, FAULT_PROTOCOL_NAME);
    uint8_t level = reader_u8(&d->in);
    if (d->in.failed)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    if (level != MQTT_VERSION_3_1_1 && level != MQTT_VERSION_5)
        return mqtt_refuse(d, FAULT_PROTOCOL_LEVEL);
    d->version = (enum mqtt_version)level;
    return 0;
}

static int check_flags(const struct mqtt_decoder *d, uint8_t flags) {
    if (flags & CONNECT_RESERVED)
        return mqtt_refuse(d, FAULT_CONNECT_RESERVED);
    if ((flags & CONNECT_WILL_QOS) == CONNECT_WILL_QOS)
        return mqtt_refuse(d, FAULT_WILL_QOS_3);
    if (!(flags & CONNECT_WILL) && (flags & CONNECT_WILL_QOS))
        return mqtt_refuse(d, FAULT_WILL_QOS_WITHOUT);
    if (!(flags & CONNECT_WILL) && (flags & CONNECT_WILL_RETAIN))
        return mqtt_refuse(d, FAULT_WILL_RETAIN_WITHOUT);
    /* MQTT 5 allows a password alone (MQTT5 3.1.2.9). */
    bool password_alone = (flags & CONNECT_PASSWORD) && !(flags & CONNECT_USER_NAME);
    if (password_alone && d->version == MQTT_VERSION_3_1_1)
        return mqtt_refuse(d, FAULT_PASSWORD_ALONE);
    return 0;
}

/* Protocol, flags, keep alive, properties (MQTT5 3.1.2). */
static int decode_head(struct mqtt_decoder *d, struct mqtt_connect *connect) {
    int err = decode_protocol(d);
    if (err < 0)
        return err;
    uint8_t flags = reader_u8(&d->in);
    connect->keep_alive_s = reader_u16(&d->in);
    if (d->in.failed)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    err = check_flags(d, flags);
    if (err < 0)
        return err;
    connect->version = d->version;
    connect->clean_start = flags & CONNECT_CLEAN_START;
    connect->has_will = flags & CONNECT_WILL;
    connect->will_qos = (flags & CONNECT_WILL_QOS) >> 3;
    connect->will_retain = flags & CONNECT_WILL_RETAIN;
    connect->has_user_name = flags & CONNECT_USER_NAME;
    connect->has_password = flags & CONNECT_PASSWORD;
    if (d->version == MQTT_VERSION_3_1_1)
        return 0;
    err = mqtt_decode_properties(d, MQTT_CONNECT, &connect->properties);
    if (err < 0)
        return err;
    if (mqtt_has(&connect->properties, MQTT_PROPERTY_AUTH_DATA) &&
        !mqtt_has(&connect->properties, MQTT_PROPERTY_AUTH_METHOD))
        return mqtt_refuse(d, FAULT_AUTH_DATA_ALONE);
    return 0;
}

static int decode_will(struct mqtt_decoder *d, struct mqtt_connect *connect) {
    int err = 0;
    if (d->version == MQTT_VERSION_5)
        err = mqtt_decode_properties(d, 0, &connect->will_properties);
    if (err == 0)
        err = mqtt_decode_text(d, &connect->will_topic);
    if (err < 0)
        return err;
    if (connect->will_topic.size == 0)
        return mqtt_refuse(d, FAULT_WILL_TOPIC_EMPTY);
    if (mqtt_topic_scan(connect->will_topic) != TOPIC_PLAIN)
        return mqtt_refuse(d, FAULT_WILL_TOPIC_WILDCARD);
    return mqtt_decode_binary(d, &connect->will_payload);
}

/* Fields in the order of MQTT5 3.1.3-1. */
static int decode_payload(struct mqtt_decoder *d, struct mqtt_connect *connect) {
    int err = mqtt_decode_text(d, &connect->client_id);
    if (err == 0 && connect->has_will)
        err = decode_will(d, connect);
    if (err == 0 && connect->has_user_name)
        err = mqtt_decode_text(d, &connect->user_name);
    if (err == 0 && connect->has_password)
        err = mqtt_decode_binary(d, &connect->password);
    if (err < 0)
        return err;
    if (reader_left(&d->in) > 0)
        return mqtt_refuse(d, FAULT_TRAILING);
    if (connect->client_id.size > LIMIT_CLIENT_ID_BYTES)
        return mqtt_refuse(d, FAULT_CLIENT_ID_SIZE);
    if (connect->user_name.size > LIMIT_USER_NAME_BYTES)
        return mqtt_refuse(d, FAULT_USER_NAME_SIZE);
    if (connect->password.size > LIMIT_PASSWORD_BYTES)
        return mqtt_refuse(d, FAULT_PASSWORD_SIZE);
    return 0;
}

int mqtt_decode_connect(struct mqtt_decoder *d, struct mqtt_connect *ret_connect) {
    struct mqtt_connect connect = {0};
    int err = decode_head(d, &connect);
    if (err == 0)
        err = decode_payload(d, &connect);
    if (err == 0)
        *ret_connect = connect;
    return err;
}
