/*
 * One device event as Kafka record headers (CloudEvents 1.0 Kafka binding, binary mode). In order:
 *
 *   ce_specversion        1.0
 *   ce_type               the type's row below, or the device's own
 *   ce_source             /tenants/<tenant>/devices/<device>, percent-encoded
 *   ce_id                 the device's own, else its producer sequence, else counter prefix +
 *                         decimal counter
 *   ce_time               receive time, or the device's own if it lies in the window
 *   ce_subject            topic as published, or the device's own; left out when empty
 *   content-type          what the device says; application/octet-stream when it says nothing
 *   ce_protocol           mqtt3.1.1, mqtt5 ...
 *   ce_qos, ce_retain     of a publish; retain only when set ("true")
 *   ce_viadevice          the gateway device that published it, when that is not the source
 *   ce_recordedtime       receive time, when ce_time is the device's
 *   ce_devicetime         the device's time, when it lies outside the window
 *   ce_devicesource       the source a device gave, when it is not ce_source
 *   ce_devicetopic        topic as published, when the device gave a subject of its own
 *   ce_devicecontenttype  the content type a device gave, when it would make readers take the
 * payload for a whole CloudEvent (below) ce_quarantinereason, ce_quarantinerule: what kept the
 * event out of the events stream ce_traceparent        a user property of that name with a W3C
 * value ce_responsetopic, ce_payloadformat (utf-8), ce_correlationdata (base64), ce_expirytime (RFC
 * 3339): the MQTT 5 properties then the remaining user properties, in their order
 *
 * A device's own CloudEvent is an MQTT 5 publish whose user properties have specversion, id, source
 * and type. Its id, type, subject, time and valid extensions (as ce_<name>) are kept. The names of
 * the extensions above stay the gateway's, and types that begin with "duragate." too: such a type
 * is refused unless it is the one the event has anyway.
 *
 * Every other user property is copied as a plain header, so that none can imitate one that the
 * gateway answers for: a name that begins with "ce_", "ce-" or "cloudevents" or is "content-type",
 * compared without case, or is empty gets the prefix "user_".
 *
 * IoT Hub's clients have no user properties: what their property bags become (dialect/iothub.h)
 * comes as headers, with ce_iothub... for what the gateway answers for.
 *
 * A content type that begins with application/cloudevents would make readers take source and id
 * from the payload, where a device may write what it likes. It is replaced by application/json (its
 * JSON format) or application/octet-stream; the payload is never altered.
 */
#include "gateway/event/event.h"

#include <openssl/evp.h>
#include <strings.h>

#include "common/clock.h"
#include "gateway/event/event_internal.h"
#include "gateway/mqtt/packet.h"

_Static_assert((int)EVENT_TIME_SIZE == (int)CLOCK_RFC3339_SIZE,
               "the scratch holds one formatted time");

struct type_row {
    struct slice type;
    bool published; /* has QoS and retain */
    struct slice content_type;
};

#define TYPE(text, published_, content_type_)                           \
    {                                                                   \
        {(const uint8_t *)(text), sizeof(text) - 1}, published_, {      \
            (const uint8_t *)(content_type_), sizeof(content_type_) - 1 \
        }                                                               \
    }

static const struct type_row type_rows[EVENT_TYPE_COUNT] = {
    [EVENT_TELEMETRY] = TYPE("duragate.telemetry.v1", true, "application/octet-stream"),
    [EVENT_EVENT] = TYPE("duragate.event.v1", true, "application/octet-stream"),
    [EVENT_DEVICE_CONNECTED] = TYPE("duragate.device.connected.v1", false, "application/json"),
    [EVENT_DEVICE_DISCONNECTED] =
        TYPE("duragate.device.disconnected.v1", false, "application/json"),
    [EVENT_COMMAND_QUEUED] = TYPE("duragate.command.queued.v1", false, "application/json"),
    [EVENT_COMMAND_SENT] = TYPE("duragate.command.sent.v1", false, "application/json"),
    [EVENT_COMMAND_DELIVERED] = TYPE("duragate.command.delivered.v1", false, "application/json"),
    [EVENT_COMMAND_COMPLETED] = TYPE("duragate.command.completed.v1", false, "application/json"),
    [EVENT_COMMAND_REJECTED] = TYPE("duragate.command.rejected.v1", false, "application/json"),
    [EVENT_COMMAND_ABANDONED] = TYPE("duragate.command.abandoned.v1", false, "application/json"),
    [EVENT_COMMAND_EXPIRED] = TYPE("duragate.command.expired.v1", false, "application/json"),
    [EVENT_COMMAND_DEAD_LETTERED] =
        TYPE("duragate.command.dead_lettered.v1", false, "application/json"),
    [EVENT_COMMAND_CANCELLED] = TYPE("duragate.command.cancelled.v1", false, "application/json"),
    [EVENT_STATE_DESIRED] = TYPE("duragate.state.desired.v1", false, "application/json"),
    [EVENT_STATE_REPORTED] = TYPE("duragate.state.reported.v1", false, "application/json"),
};

/* Every attribute absent: most events. */
static const struct event_attributes no_attributes;

/* ---- ce_source
 * ----------------------------------------------------------------------------------- */

enum { SOURCE_BYTES = 18 + 3 * (LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES) };

/* Bytes of a path segment that stand for themselves (RFC 3986 3.3: unreserved and ':'). */
static const bool is_segment_byte[256] = {
    ['-'] = true, ['.'] = true,         ['_'] = true,         ['~'] = true,
    [':'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

static bool is_plain_segment(struct slice text) {
    bool plain = true;
    for (size_t i = 0; i < text.size; i++)
        plain &= is_segment_byte[text.data[i]];
    return plain;
}

static void write_segment(struct writer *w, struct slice text) {
    static const char hex[] = "0123456789ABCDEF";
    if (is_plain_segment(text)) {
        writer_slice(w, text);
        return;
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (is_segment_byte[byte]) {
            writer_u8(w, byte);
        } else {
            writer_u8(w, '%');
            writer_u8(w, (uint8_t)hex[byte >> 4]);
            writer_u8(w, (uint8_t)hex[byte & 15]);
        }
    }
}

/* Writes /tenants/<tenant>/devices/<device>; w fails when a name is over its limit. */
static void write_source(struct writer *w, const struct event_source *source) {
    writer_bytes(w, "/tenants/", 9);
    write_segment(w, source->tenant);
    writer_bytes(w, "/devices/", 9);
    write_segment(w, source->device);
}

/* ---- ce_id
 * --------------------------------------------------------------------------------------- */

enum { DECIMAL_BYTES = 20 }; /* of a 64-bit number */

/* Writes the number so that it ends before end. Returns where it begins. */
static char *write_decimal(char *end, uint64_t value) {
    do {
        *--end = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return end;
}

static void put_generated_id(struct event_headers *h, struct event_counter *counter) {
    char digits[DECIMAL_BYTES], text[sizeof counter->prefix + DECIMAL_BYTES];
    char *first = write_decimal(digits + sizeof digits, counter->next++);
    size_t digit_count = (size_t)(digits + sizeof digits - first);
    memcpy(text, counter->prefix, sizeof counter->prefix);
    memcpy(text + counter->prefix_size, first, digit_count);
    event_put(h, EVENT_TEXT("ce_id"), slice_make(text, counter->prefix_size + digit_count));
}

/* ---- times
 * --------------------------------------------------------------------------------------- */

static struct slice received_time(struct event_scratch *scratch, int64_t received_ms) {
    if (scratch->time_ms != received_ms || scratch->time[0] == '\0') {
        clock_format_rfc3339(received_ms, scratch->time);
        scratch->time_ms = received_ms;
    }
    return slice_make(scratch->time, EVENT_TIME_SIZE);
}

/* What the device's clock is worth. */
enum device_time { DEVICE_TIME_ABSENT, DEVICE_TIME_BELIEVED, DEVICE_TIME_OUTSIDE };

static int judge_device_time(const struct device_event *event, struct slice time,
                             enum device_time *ret_judgement) {
    *ret_judgement = DEVICE_TIME_ABSENT;
    if (time.data == NULL)
        return 0;
    int64_t device_ms;
    if (clock_parse_rfc3339((const char *)time.data, time.size, &device_ms) < 0)
        return DG_ERR_PROTOCOL;
    int64_t apart = device_ms - event->received_ms;
    uint64_t distance_ms = (uint64_t)(apart < 0 ? -apart : apart);
    *ret_judgement =
        distance_ms <= event->device_time_window_ms ? DEVICE_TIME_BELIEVED : DEVICE_TIME_OUTSIDE;
    return 0;
}

/* ---- content type
 * -------------------------------------------------------------------------------- */

static bool is_structured_mode(struct slice content_type) {
    static const char prefix[] = "application/cloudevents";
    while (content_type.size > 0 && (content_type.data[0] == ' ' || content_type.data[0] == '\t'))
        content_type = slice_skip(content_type, 1);
    return content_type.size >= sizeof prefix - 1 &&
           strncasecmp((const char *)content_type.data, prefix, sizeof prefix - 1) == 0;
}

/* ret_replaced: what the device said, when that cannot be the header. */
static struct slice choose_content_type(const struct device_event *event,
                                        const struct event_attributes *attributes,
                                        struct slice *ret_replaced) {
    struct slice said =
        event->content_type.size > 0 ? event->content_type : attributes->content_type;
    *ret_replaced = slice_make(NULL, 0);
    if (said.size == 0)
        return type_rows[event->type].content_type;
    if (!is_structured_mode(said))
        return said;
    *ret_replaced = said;
    bool json = memmem(said.data, said.size, "+json", 5) != NULL;
    return json ? EVENT_TEXT("application/json") : EVENT_TEXT("application/octet-stream");
}

/* ---- the headers
 * --------------------------------------------------------------------------------- */

static void put_if_present(struct event_headers *h, struct slice key, struct slice value) {
    if (value.size > 0)
        event_put(h, key, value);
}

/* A device's type: any but the gateway's own names. */
static int put_type(struct event_headers *h, struct slice own, struct slice device_type) {
    event_put(h, EVENT_TEXT("ce_specversion"), EVENT_TEXT("1.0"));
    if (device_type.data == NULL) {
        event_put(h, EVENT_TEXT("ce_type"), own);
        return 0;
    }
    if (slice_starts_with(device_type, "duragate.") && !slice_equals(device_type, own))
        return DG_ERR_PROTOCOL;
    event_put(h, EVENT_TEXT("ce_type"), device_type);
    return 0;
}

static void put_publish_flags(struct event_headers *h, const struct device_event *event) {
    char qos = (char)('0' + event->qos);
    event_put(h, EVENT_TEXT("ce_qos"), slice_make(&qos, 1));
    if (event->retain)
        event_put(h, EVENT_TEXT("ce_retain"), EVENT_TEXT("true"));
    if (event->via.size > 0)
        event_put(h, EVENT_TEXT("ce_viadevice"), event->via);
}

/* Base64 goes straight into the headers; EVP_EncodeBlock adds a NUL that is given back. */
static void put_correlation_data(struct event_headers *h, struct slice data) {
    static const char key[] = "ce_correlationdata";
    size_t encoded_size = (data.size + 2) / 3 * 4;
    h->count++;
    writer_varlong(&h->w, sizeof key - 1);
    writer_bytes(&h->w, key, sizeof key - 1);
    writer_varlong(&h->w, (int64_t)encoded_size);
    uint8_t *at = writer_reserve(&h->w, encoded_size + 1);
    if (at == NULL)
        return;
    EVP_EncodeBlock(at, data.data, (int)data.size);
    h->w.at--;
}

static void put_mqtt5(struct event_headers *h, const struct device_event *event) {
    put_if_present(h, EVENT_TEXT("ce_responsetopic"), event->response_topic);
    if (event->payload_is_utf8)
        event_put(h, EVENT_TEXT("ce_payloadformat"), EVENT_TEXT("utf-8"));
    if (event->correlation_data.size > 0)
        put_correlation_data(h, event->correlation_data);
    if (event->message_expiry_s > 0) {
        char text[CLOCK_RFC3339_SIZE];
        clock_format_rfc3339(event->received_ms + (int64_t)event->message_expiry_s * 1000, text);
        event_put(h, EVENT_TEXT("ce_expirytime"), slice_make(text, sizeof text));
    }
}

/* Up to content-type. */
static int put_attributes(struct event_headers *h, const struct device_event *event,
                          const struct event_attributes *own, struct slice source,
                          struct slice time, struct event_counter *counter) {
    int err = put_type(h, type_rows[event->type].type, own->type);
    if (err < 0)
        return err;
    event_put(h, EVENT_TEXT("ce_source"), source);
    if (own->id.data != NULL)
        event_put(h, EVENT_TEXT("ce_id"), own->id);
    else if (event->id.size > 0)
        event_put(h, EVENT_TEXT("ce_id"), event->id);
    else
        put_generated_id(h, counter);
    event_put(h, EVENT_TEXT("ce_time"), time);
    put_if_present(h, EVENT_TEXT("ce_subject"),
                   own->subject.data != NULL ? own->subject : event->subject);
    return 0;
}

/* What the device said and the gateway did not take over. */
static void put_device_words(struct event_headers *h, const struct device_event *event,
                             const struct event_attributes *own, struct slice source,
                             enum device_time device_time, struct slice received) {
    if (device_time == DEVICE_TIME_BELIEVED)
        event_put(h, EVENT_TEXT("ce_recordedtime"), received);
    else if (device_time == DEVICE_TIME_OUTSIDE)
        event_put(h, EVENT_TEXT("ce_devicetime"), own->time);
    if (own->source.data != NULL && !slice_equals(own->source, source))
        event_put(h, EVENT_TEXT("ce_devicesource"), own->source);
    if (own->subject.data != NULL)
        put_if_present(h, EVENT_TEXT("ce_devicetopic"), event->subject);
}

static void put_ready(struct event_headers *h, struct slice section) {
    struct slice key, value;
    while (mqtt_user_property_next(&section, &key, &value))
        event_put(h, key, value);
}

static int put_headers(struct event_headers *h, const struct device_event *event,
                       const struct event_attributes *own, struct slice source,
                       struct event_counter *counter, struct event_scratch *scratch) {
    enum device_time device_time;
    int err = judge_device_time(event, own->time, &device_time);
    if (err < 0)
        return err;
    struct slice received = received_time(scratch, event->received_ms);
    struct slice time = device_time == DEVICE_TIME_BELIEVED ? own->time : received;
    err = put_attributes(h, event, own, source, time, counter);
    if (err < 0)
        return err;
    struct slice replaced;
    event_put(h, EVENT_TEXT("content-type"), choose_content_type(event, own, &replaced));
    event_put(h, EVENT_TEXT("ce_protocol"), slice_from_string(event->protocol));
    if (type_rows[event->type].published)
        put_publish_flags(h, event);
    put_device_words(h, event, own, source, device_time, received);
    put_if_present(h, EVENT_TEXT("ce_devicecontenttype"), replaced);
    put_if_present(h, EVENT_TEXT("ce_quarantinereason"), event->quarantine_reason);
    put_if_present(h, EVENT_TEXT("ce_quarantinerule"), event->quarantine_rule);
    put_if_present(h, EVENT_TEXT("ce_traceparent"), own->traceparent);
    put_mqtt5(h, event);
    if (event->headers.size > 0)
        put_ready(h, event->headers);
    return event->user_property_count > 0 ? event_put_user_properties(event, own, h) : 0;
}

/* An empty payload is a value of no bytes, never null: null means deletion to Kafka. */
static struct slice record_value(struct slice payload) {
    return payload.size > 0 ? payload : EVENT_TEXT("");
}

int event_build(const struct device_event *event, const struct event_source *source,
                struct event_counter *counter, struct event_scratch *scratch,
                struct stream_record *ret_record) {
    if (event->payload.size > LIMIT_EVENT_PAYLOAD_BYTES)
        return DG_ERR_TOO_LARGE;
    const struct event_attributes *own = &no_attributes;
    struct event_attributes attributes;
    if (event->user_property_count > 0) {
        int err = event_read_attributes(event, &attributes);
        if (err < 0)
            return err;
        own = &attributes;
    }
    uint8_t source_text[SOURCE_BYTES];
    struct writer source_writer = writer_make(source_text, sizeof source_text);
    write_source(&source_writer, source);
    struct slice source_slice = slice_make(source_text, writer_size(&source_writer));
    struct event_headers h = {.w = writer_make(scratch->bytes, sizeof scratch->bytes)};
    int err = put_headers(&h, event, own, source_slice, counter, scratch);
    if (err < 0)
        return err;
    if (h.w.failed || source_writer.failed)
        return DG_ERR_TOO_LARGE;
    scratch->parts[0] = (struct iovec){scratch->bytes, writer_size(&h.w)};
    *ret_record = (struct stream_record){
        .timestamp_ms = event->received_ms,
        .key = source->device,
        .value = record_value(event->payload),
        .headers = scratch->parts,
        .header_parts = 1,
        .header_count = h.count,
    };
    return 0;
}
