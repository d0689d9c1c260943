/*
 * Azure IoT Hub's names: user names, topics with property bags, and filters of a stranger, and the
 * topic made of what a back end says. The first line is a device id, which many functions are told;
 * what the others are, their first byte says.
 */
#include "common/assert.h"
#include "gateway/dialect/iothub.h"
#include "gateway/mqtt/packet.h"

static bool is_inside(struct slice part, struct slice whole) {
    return part.size == 0 ||
           (part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void check_bag(struct slice bag) {
    static uint8_t room[IOTHUB_HEADER_BYTES];
    const struct iothub_facts facts = {.auth_method = slice_from_string("sas"), .generation = 1};
    struct writer w = writer_make(room, sizeof(room));
    struct slice content_type, key, value;
    if (iothub_read_bag(bag, &facts, &w, &content_type) < 0)
        return;
    dg_assert(!w.failed && content_type.size <= bag.size);
    unsigned vouched = 0;
    struct slice rest = slice_make(room, writer_size(&w));
    while (mqtt_user_property_next(&rest, &key, &value))
        if (slice_equals_string(key, "ce_iothubauthmethod"))
            vouched++;
    dg_assert(vouched == 1 && rest.size == 0); /* nobody else can say so */
}

static void check_topic(struct slice text, struct slice device) {
    struct iothub_topic topic;
    if (iothub_classify_topic(text, device, &topic) < 0)
        return;
    dg_assert(is_inside(topic.path, text) && is_inside(topic.bag, text));
    dg_assert(is_inside(topic.request_id, text) && is_inside(topic.status, text));
    dg_assert(topic.kind == IOTHUB_TELEMETRY || topic.request_id.size > 0);
    check_bag(topic.bag);
}

/* The text as properties: written, it has no '/' in the bag, and it can be read again. */
static void check_message(struct slice text, struct slice device) {
    uint8_t section[2 * LIMIT_IOTHUB_TOPIC_BYTES];
    static uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES];
    struct writer properties = writer_make(section, sizeof(section));
    size_t half = text.size / 2;
    writer_u8(&properties, 0x26);
    writer_u16(&properties, (uint16_t)half);
    writer_bytes(&properties, text.data, half);
    writer_u16(&properties, (uint16_t)(text.size - half));
    writer_bytes(&properties, text.data + half, text.size - half);
    if (properties.failed || device.size > LIMIT_DEVICE_ID_BYTES)
        return;
    struct writer w = writer_make(room, sizeof(room));
    iothub_write_message_topic(
        &w, &(struct iothub_message){.device = device,
                                     .id = slice_from_string("c1"),
                                     .properties = slice_make(section, writer_size(&properties))});
    if (w.failed)
        return;
    size_t prefix = strlen("devices//messages/devicebound/") + device.size;
    struct slice bag = slice_skip(slice_make(room, writer_size(&w)), prefix);
    dg_assert(memchr(bag.data, '/', bag.size) == NULL && memchr(bag.data, '#', bag.size) == NULL);
    check_bag(bag);
}

static void take(struct slice line, struct slice device) {
    struct slice host, model_id;
    unsigned status;
    if (line.size == 0)
        return;
    struct slice text = slice_skip(line, 1);
    if (line.data[0] == 'u' && iothub_user_host(text, &host) &&
        iothub_check_user(text, device, &model_id) == 0)
        dg_assert(is_inside(host, text) && is_inside(model_id, text));
    else if (line.data[0] == 'f')
        (void)!iothub_find_filter(text, device);
    else if (line.data[0] == 's')
        (void)!iothub_read_status(text, &status);
    else if (line.data[0] == 'm')
        check_message(text, device);
    else
        check_topic(text, device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice rest = slice_make(data, size), device = slice_make(NULL, 0);
    for (bool is_first = true; rest.size > 0; is_first = false) {
        const uint8_t *end = memchr(rest.data, '\n', rest.size);
        size_t line = end ? (size_t)(end - rest.data) : rest.size;
        if (is_first)
            device = slice_make(rest.data, line);
        else
            take(slice_make(rest.data, line), device);
        rest = slice_skip(rest, end ? line + 1 : line);
    }
    return 0;
}
