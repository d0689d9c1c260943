/* Event building from a device's MQTT 5 PUBLISH body. Input: event type, then the body. Checks that
 * headers parse, and that no header for which the gateway answers is the device's. */
#include <stdlib.h>
#include <strings.h>

#include "common/reader.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/packet.h"
#include "storage/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char OWN_SOURCE[] = "/tenants/acme/devices/dev1";

static void check(bool holds) {
    if (!holds)
        abort();
}

static bool begins_with(struct slice text, const char *prefix) {
    size_t size = strlen(prefix);
    return text.size >= size && strncasecmp((const char *)text.data, prefix, size) == 0;
}

/* Keys of the gateway come once each. */
static bool is_ours(struct slice key) {
    return begins_with(key, "ce_") || slice_equals_string(key, "content-type");
}

static void check_headers(const struct stream_record *record) {
    struct slice keys[256];
    unsigned count = 0, sources = 0, content_types = 0;
    struct reader r = reader_make(record->headers[0].iov_base, record->headers[0].iov_len);
    for (; reader_left(&r) > 0; count++) {
        struct slice key, value;
        check(record_header_read(&r, &key, &value) == 0 && count < 256);
        keys[count] = key;
        check(!begins_with(key, "ce-") && !begins_with(key, "cloudevents"));
        check(!begins_with(key, "ce_") || memcmp(key.data, "ce_", 3) == 0);
        for (unsigned i = 0; i < count && is_ours(key); i++)
            check(!slice_equals(key, keys[i]));
        if (slice_equals_string(key, "ce_source"))
            sources += slice_equals_string(value, OWN_SOURCE);
        if (slice_equals_string(key, "content-type"))
            content_types += !begins_with(value, "application/cloudevents");
    }
    check(count == record->header_count && sources == 1 && content_types == 1);
    check(slice_equals_string(keys[0], "ce_specversion") &&
          slice_equals_string(keys[1], "ce_type"));
}

static void check_presence(struct slice client_id) {
    char text[4096];
    struct writer w = writer_make(text, sizeof text);
    if (client_id.size > LIMIT_CLIENT_ID_BYTES)
        client_id.size = LIMIT_CLIENT_ID_BYTES;
    struct event_presence presence = {.reason = "closed by the peer",
                                      .client_id = client_id,
                                      .protocol = "mqtt5",
                                      .peer = slice_from_string("192.0.2.7:5123"),
                                      .session_id = slice_from_string("s1")};
    check(event_write_presence(&presence, &w) == 0);
    for (size_t i = 0; i < writer_size(&w); i++)
        check((uint8_t)text[i] >= 0x20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct event_scratch scratch;
    static struct event_counter counter = {.prefix = "gw1-1-0-", .prefix_size = 8};
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    if (size == 0)
        return 0;
    if (mqtt_publish_decode(MQTT_VERSION_5, 0x30, slice_make(data + 1, size - 1), &publish,
                            &fault) < 0)
        return 0;
    struct device_event event = {
        .type = (enum event_type)(data[0] % EVENT_TYPE_COUNT),
        .protocol = "mqtt5",
        .subject = publish.topic,
        .content_type = publish.properties.content_type,
        .user_properties = publish.properties.raw,
        .user_property_count = publish.properties.user_count,
        .payload = publish.payload,
        .received_ms = 1795525323456,
        .device_time_window_ms = 604800000,
        .response_topic = publish.properties.response_topic,
        .correlation_data = publish.properties.correlation_data,
        .message_expiry_s = publish.properties.message_expiry_s,
    };
    struct event_source source = {.tenant = slice_from_string("acme"),
                                  .device = slice_from_string("dev1")};
    struct stream_record record;
    int err = event_build(&event, &source, &counter, &scratch, &record);
    check(err == 0 || err == DG_ERR_PROTOCOL || err == DG_ERR_TOO_LARGE);
    if (err == 0) {
        check(record.value.size == publish.payload.size && record.value.data != NULL);
        check_headers(&record);
    }
    check_presence(publish.payload);
    return 0;
}
