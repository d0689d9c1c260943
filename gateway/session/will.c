#include "gateway/session/will.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/reader.h"
#include "common/writer.h"
#include "gateway/session/authorize.h"

enum {
    QOS_MASK = 3,
    FLAGS = QOS_MASK | WILL_RETAIN | WILL_MQTT5 | WILL_PAYLOAD_UTF8 | WILL_IOTHUB
};

static void write_part(struct writer *w, struct slice part) {
    writer_u16(w, (uint16_t)part.size);
    writer_slice(w, part);
    if (part.size > UINT16_MAX)
        w->failed = true;
}

static void write_content(struct writer *w, const struct will_content *c) {
    writer_u8(w, (uint8_t)(c->qos | c->flags));
    writer_u32(w, c->delay_s);
    writer_u32(w, c->message_expiry_s);
    writer_u8(w, (uint8_t)c->user_property_count);
    writer_u64(w, (uint64_t)c->tenant_key);
    writer_u64(w, (uint64_t)c->credential_key);
    writer_u64(w, (uint64_t)c->valid_until_ms);
    writer_u64(w, c->source.stream_id);
    writer_u32(w, c->source.partition);
    const struct slice parts[] = {c->source.tenant,   c->source.device,  c->topic,
                                  c->content_type,    c->response_topic, c->correlation_data,
                                  c->user_properties, c->payload};
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        write_part(w, parts[i]);
}

static struct slice read_part(struct reader *r) {
    return reader_slice(r, reader_u16(r));
}

static int read_content(struct slice bytes, struct will_content *ret_content) {
    struct reader r = reader_make(bytes.data, bytes.size);
    struct will_content c = {0};
    uint8_t flags = reader_u8(&r);
    c.qos = flags & QOS_MASK;
    c.flags = flags & (uint8_t)~QOS_MASK;
    c.delay_s = reader_u32(&r);
    c.message_expiry_s = reader_u32(&r);
    c.user_property_count = reader_u8(&r);
    c.tenant_key = (int64_t)reader_u64(&r);
    c.credential_key = (int64_t)reader_u64(&r);
    c.valid_until_ms = (int64_t)reader_u64(&r);
    c.source.stream_id = reader_u64(&r);
    c.source.partition = reader_u32(&r);
    struct slice *const parts[] = {&c.source.tenant,   &c.source.device,  &c.topic,
                                   &c.content_type,    &c.response_topic, &c.correlation_data,
                                   &c.user_properties, &c.payload};
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        *parts[i] = read_part(&r);
    bool is_valid = !r.failed && reader_left(&r) == 0 && bytes.size <= WILL_BYTES && c.qos <= 2 &&
                    !(flags & ~FLAGS) && c.topic.size > 0 &&
                    c.source.tenant.size <= LIMIT_TENANT_BYTES &&
                    c.source.device.size <= LIMIT_DEVICE_ID_BYTES &&
                    c.source.partition < LIMIT_PARTITIONS_PER_STREAM;
    if (!is_valid)
        return DG_ERR_MALFORMED;
    *ret_content = c;
    return 0;
}

static int copy_bytes(struct slice bytes, struct session_will **ret_will) {
    struct session_will *will = malloc(sizeof(*will) + bytes.size);
    if (!will)
        return DG_ERR_NO_MEMORY;
    *will = (struct session_will){.size_bytes = (uint16_t)bytes.size};
    memcpy(will->bytes, bytes.data, bytes.size);
    *ret_will = will;
    return 0;
}

int will_create(const struct will_content *content, struct session_will **ret_will) {
    uint8_t bytes[WILL_BYTES];
    struct writer w = writer_make(bytes, sizeof(bytes));
    write_content(&w, content);
    return w.failed ? DG_ERR_TOO_LARGE : copy_bytes(slice_make(bytes, writer_size(&w)), ret_will);
}

int will_decode(struct slice bytes, struct session_will **ret_will) {
    struct will_content content;
    int err = read_content(bytes, &content);
    return err < 0 ? err : copy_bytes(bytes, ret_will);
}

void will_read(const struct session_will *will, struct will_content *ret_content) {
    int err = read_content(will_bytes(will), ret_content);
    dg_assert(err == 0);
}

int64_t will_due_ms(const struct session_will *will, int64_t disconnected_ms, uint32_t expiry_s) {
    struct will_content content;
    will_read(will, &content);
    uint32_t after_s = content.delay_s < expiry_s ? content.delay_s : expiry_s;
    return disconnected_ms + (int64_t)after_s * 1000;
}

int will_event(const struct will_content *content, const struct topic_map *topics, int64_t wall_ms,
               uint64_t device_time_window_ms, struct device_event *ret_event) {
    struct session_permit permit;
    if (content->valid_until_ms != 0 && wall_ms >= content->valid_until_ms)
        return DG_ERR_NOT_AUTHORIZED;
    bool is_iothub = content->flags & WILL_IOTHUB;
    permit = (struct session_permit){.event_type = EVENT_TELEMETRY, .subject = content->topic};
    int err = is_iothub ? 0 : authorize_topic(topics, content->topic, &permit);
    if (err < 0)
        return err;
    *ret_event = (struct device_event){
        .type = permit.event_type,
        .protocol = content->flags & WILL_MQTT5 ? "mqtt5" : "mqtt3.1.1",
        .qos = content->qos,
        .retain = content->flags & WILL_RETAIN,
        .payload_is_utf8 = content->flags & WILL_PAYLOAD_UTF8,
        .subject = permit.subject,
        .content_type = content->content_type,
        .user_properties = is_iothub ? slice_make(NULL, 0) : content->user_properties,
        .headers = is_iothub ? content->user_properties : slice_make(NULL, 0),
        .user_property_count = content->user_property_count,
        .payload = content->payload,
        .received_ms = wall_ms,
        .device_time_window_ms = device_time_window_ms,
        .response_topic = content->response_topic,
        .correlation_data = content->correlation_data,
        .message_expiry_s = content->message_expiry_s,
    };
    return 0;
}
