/* The MQTT codec: framing and every packet type in both versions. Input: version, then packets. */
#include <stdlib.h>

#include "gateway/mqtt/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds)
        abort();
}

static void check_inside(struct slice part, struct slice whole) {
    if (part.size > 0)
        check(part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void check_properties(const struct mqtt_properties *p, struct slice body) {
    const struct slice texts[] = {
        p->raw,         p->content_type, p->response_topic, p->correlation_data,
        p->auth_method, p->auth_data,    p->reason_string,  p->server_reference};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_inside(texts[i], body);
    struct slice cursor = p->raw, key, value;
    uint32_t count = 0;
    for (; mqtt_user_property_next(&cursor, &key, &value); count++) {
        check_inside(key, p->raw);
        check_inside(value, p->raw);
    }
    check(count == p->user_count && count <= LIMIT_MQTT_PROPERTIES);
    check(p->present == 0 || p->raw.size > 0);
}

static void check_connect(const struct mqtt_connect *c, struct slice body) {
    const struct slice texts[] = {c->client_id, c->user_name, c->password, c->will_topic,
                                  c->will_payload};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        check_inside(texts[i], body);
    check_properties(&c->properties, body);
    check_properties(&c->will_properties, body);
    check(c->will_qos <= 2 && (c->has_will || (c->will_qos == 0 && !c->will_retain)));
    check(c->client_id.size <= LIMIT_CLIENT_ID_BYTES);
}

/* What was decoded, written again, is what was read. */
static void check_publish(enum mqtt_version version, const struct mqtt_publish *p,
                          struct slice packet, struct slice body) {
    check_inside(p->topic, body);
    check_inside(p->payload, body);
    check_properties(&p->properties, body);
    check((p->qos == 0) == (p->packet_id == 0));
    size_t room_size = packet.size + 16;
    uint8_t *room = malloc(room_size);
    struct writer w = writer_make(room, room_size);
    mqtt_write_publish(&w, version, p->dup, p->qos, p->retain, p->topic, p->packet_id,
                       p->properties.raw, p->payload);
    check(!w.failed && w.start[0] == packet.data[0] && writer_size(&w) >= body.size);
    check(memcmp(w.at - body.size, body.data, body.size) == 0);
    w = writer_make(room, p->properties.raw.size);
    mqtt_write_properties(&w, &p->properties); /* maybe in another order */
    check(!w.failed && writer_size(&w) == p->properties.raw.size);
    free(room);
}

static void check_ack(enum mqtt_version version, const struct mqtt_packet *packet) {
    uint8_t room[4096];
    struct writer w = writer_make(room, sizeof room);
    mqtt_write_ack(&w, version, packet->type, packet->ack.packet_id, packet->ack.reason,
                   packet->ack.properties.reason_string);
    if (w.failed)
        return;
    size_t header_size;
    int size = mqtt_packet_frame(room, writer_size(&w), sizeof room, &header_size);
    check(size > 0 && (size_t)size == writer_size(&w));
    struct mqtt_packet again;
    struct mqtt_fault fault;
    struct slice body = slice_make(room + header_size, (size_t)size - header_size);
    check(mqtt_packet_decode(version, room[0], body, &again, &fault) == 0);
    check(again.ack.packet_id == packet->ack.packet_id && again.ack.reason == packet->ack.reason);
}

static void check_packet(enum mqtt_version version, const struct mqtt_packet *p,
                         struct slice packet, struct slice body) {
    switch (p->type) {
    case MQTT_CONNECT:
        check_connect(&p->connect, body);
        break;
    case MQTT_PUBLISH:
        check_publish(version, &p->publish, packet, body);
        break;
    case MQTT_SUBSCRIBE:
        check(p->subscribe.filter_count > 0 && p->subscribe.packet_id != 0);
        for (unsigned i = 0; i < p->subscribe.filter_count; i++)
            check_inside(p->subscribe.filters[i].filter, body);
        check_properties(&p->subscribe.properties, body);
        break;
    case MQTT_UNSUBSCRIBE:
        check(p->unsubscribe.filter_count > 0 && p->unsubscribe.packet_id != 0);
        for (unsigned i = 0; i < p->unsubscribe.filter_count; i++)
            check_inside(p->unsubscribe.filters[i], body);
        check_properties(&p->unsubscribe.properties, body);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        check_ack(version, p);
        check_properties(&p->ack.properties, body);
        break;
    case MQTT_DISCONNECT:
    case MQTT_AUTH:
        check_properties(&p->ack.properties, body);
        break;
    default:
        check(p->type == MQTT_PINGREQ);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    enum mqtt_version version = data[0] & 1 ? MQTT_VERSION_5 : MQTT_VERSION_3_1_1;
    for (size_t at = 1; at < size;) {
        size_t header_size = 0;
        int packet_size = mqtt_packet_frame(data + at, size - at, 64 * 1024, &header_size);
        if (packet_size <= 0)
            break;
        struct slice packet = slice_make(data + at, (size_t)packet_size);
        struct slice body = slice_skip(packet, header_size);
        struct mqtt_packet decoded;
        struct mqtt_fault fault = {0};
        int err = mqtt_packet_decode(version, data[at], body, &decoded, &fault);
        check(err <= 0 && (err < 0) == (fault.clause != NULL && fault.text != NULL));
        if (err == 0)
            check_packet(version, &decoded, packet, body);
        at += (size_t)packet_size;
    }
    (void)mqtt_topic_name_is_valid(slice_make(data, size));
    (void)mqtt_topic_filter_is_valid(slice_make(data, size));
    return 0;
}
