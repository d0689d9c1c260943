/* Device events as record headers: which headers, in which order, and what a device cannot fake. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>

#include "common/reader.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/packet.h"
#include "storage/record.h"

static const int64_t RECEIVED_MS = 1795525323456; /* 2026-11-24T13:02:03.456Z */

static struct event_scratch scratch;

static struct device_event plain_event(void) {
    return (struct device_event){
        .type = EVENT_TELEMETRY,
        .protocol = "mqtt5",
        .qos = 1,
        .subject = slice_from_string("plant/7/temp"),
        .payload = slice_from_string("21.5"),
        .received_ms = RECEIVED_MS,
        .device_time_window_ms = 3600000,
    };
}

static struct event_source plain_source(void) {
    return (struct event_source){.tenant = slice_from_string("acme"),
                                 .device = slice_from_string("dev:1")};
}

static struct event_counter plain_counter(void) {
    return (struct event_counter){.prefix = "gw1-ab-0-", .prefix_size = 9, .next = 41};
}

/* "key=value" lines, as the record has them. */
static void headers_text(const struct stream_record *record, char *ret_text, size_t size) {
    struct reader r = reader_make(record->headers[0].iov_base, record->headers[0].iov_len);
    size_t at = 0;
    unsigned count = 0;
    ret_text[0] = '\0';
    for (; reader_left(&r) > 0; count++) {
        struct slice key, value;
        cr_assert_eq(record_header_read(&r, &key, &value), 0);
        at += (size_t)snprintf(ret_text + at, size - at, "%.*s=%.*s\n", (int)key.size,
                               (const char *)key.data, (int)value.size, (const char *)value.data);
        cr_assert_lt(at, size);
    }
    cr_expect_eq(record->header_parts, 1);
    cr_expect_eq(record->header_count, count);
}

#define HEAD "ce_specversion=1.0\nce_type=duragate.telemetry.v1\n"
#define SOURCE "ce_source=/tenants/acme/devices/dev:1\n"
#define ID "ce_id=gw1-ab-0-41\n"
#define RECEIVED "2026-11-24T13:02:03.456Z"
#define TIME "ce_time=" RECEIVED "\n"
#define SUBJECT "ce_subject=plant/7/temp\n"
#define BYTES "content-type=application/octet-stream\n"
#define TAIL "ce_protocol=mqtt5\nce_qos=1\n"

Test(event, plain) {
    struct device_event event = plain_event();
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    char text[2048];
    cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
    headers_text(&record, text, sizeof text);
    cr_expect_str_eq(text, HEAD SOURCE ID TIME SUBJECT BYTES TAIL);
    cr_expect_eq(record.timestamp_ms, RECEIVED_MS);
    cr_expect(slice_equals_string(record.key, "dev:1"));
    cr_expect(slice_equals_string(record.value, "21.5"));
    cr_expect_eq(counter.next, 42);
}

/* "key=value;key=value" as an MQTT 5 property section. */
static uint32_t properties_of(const char *text, uint8_t *bytes, size_t size, struct slice *ret) {
    struct writer w = writer_make(bytes, size);
    uint32_t count = 0;
    for (const char *at = text; *at; count++) {
        const char *end = strchrnul(at, ';'), *equals = memchr(at, '=', (size_t)(end - at));
        cr_assert_not_null(equals);
        writer_u8(&w, 0x26);
        writer_u16(&w, (uint16_t)(equals - at));
        writer_bytes(&w, at, (size_t)(equals - at));
        writer_u16(&w, (uint16_t)(end - equals - 1));
        writer_bytes(&w, equals + 1, (size_t)(end - equals - 1));
        at = *end ? end + 1 : end;
    }
    cr_assert_not(w.failed);
    *ret = slice_make(bytes, writer_size(&w));
    return count;
}

/* The device's own, else what the caller knows, else a number. */
Test(event, whose_id) {
    struct device_event event = plain_event();
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    char text[2048];
    uint8_t bytes[256];
    event.id = slice_from_string("flash:1:7");
    cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
    headers_text(&record, text, sizeof text);
    cr_expect_str_eq(text, HEAD SOURCE "ce_id=flash:1:7\n" TIME SUBJECT BYTES TAIL);
    cr_expect_eq(counter.next, 41, "untouched");
    event.user_property_count = properties_of("specversion=1.0;id=i1;source=s;type=t", bytes,
                                              sizeof bytes, &event.user_properties);
    cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
    headers_text(&record, text, sizeof text);
    cr_expect_not_null(strstr(text, "ce_id=i1\n"));
}

Test(event, every_field) {
    struct device_event event = plain_event();
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    char text[2048];
    event.type = EVENT_EVENT;
    event.retain = true;
    event.qos = 0;
    event.subject = slice_make(NULL, 0);
    event.payload = slice_make(NULL, 0);
    event.content_type = slice_from_string("text/plain");
    event.response_topic = slice_from_string("r/t");
    event.correlation_data = slice_make("\0\xff\x10", 3);
    event.message_expiry_s = 60;
    event.via = slice_from_string("gw1");
    counter.next = UINT64_MAX;
    source.device = slice_from_string("a b%/\xc3\xa9");
    cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
    headers_text(&record, text, sizeof text);
    cr_expect_str_eq(text, "ce_specversion=1.0\nce_type=duragate.event.v1\n"
                           "ce_source=/tenants/acme/devices/a%20b%25%2F%C3%A9\n"
                           "ce_id=gw1-ab-0-18446744073709551615\n" TIME "content-type=text/plain\n"
                           "ce_protocol=mqtt5\nce_qos=0\nce_retain=true\n"
                           "ce_viadevice=gw1\nce_responsetopic=r/t\nce_correlationdata=AP8Q\n"
                           "ce_expirytime=2026-11-24T13:03:03.456Z\n");
    cr_expect_not_null(record.value.data); /* empty, not null */
    cr_expect_eq(record.value.size, 0);
}

/* The cached time follows the clock. */
Test(event, time_changes) {
    struct device_event event = plain_event();
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    char text[2048];
    const int64_t times[] = {0, 0, 1, RECEIVED_MS, RECEIVED_MS, RECEIVED_MS - 1};
    const char *const texts[] = {"1970-01-01T00:00:00.000Z",
                                 "1970-01-01T00:00:00.000Z",
                                 "1970-01-01T00:00:00.001Z",
                                 RECEIVED,
                                 RECEIVED,
                                 "2026-11-24T13:02:03.455Z"};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        event.received_ms = times[i];
        cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
        headers_text(&record, text, sizeof text);
        cr_expect_not_null(strstr(text, texts[i]));
    }
}

#define CE "specversion=1.0;id=i1;source=/tenants/acme/devices/dev:1;type=com.example.t"
#define CE_TYPE "ce_specversion=1.0\nce_type=com.example.t\n"
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static const struct {
    const char *properties, *content_type;
    int err;
    const char *headers;
} property_rows[] = {
    /* plain headers, and none that imitates */
    {"a=1;a=2", "", 0, HEAD SOURCE ID TIME SUBJECT BYTES TAIL "a=1\na=2\n"},
    {"ce_source=x;CE_ID=y;ce-type=z;CloudEvents_id=q;Content-Type=t;=e;ce=1;content-types=2", "", 0,
     HEAD SOURCE ID TIME SUBJECT BYTES TAIL
     "user_ce_source=x\nuser_CE_ID=y\nuser_ce-type=z\nuser_CloudEvents_id=q\n"
     "user_Content-Type=t\nuser_=e\nce=1\ncontent-types=2\n"},
    {"user_ce_id=1", "", 0, HEAD SOURCE ID TIME SUBJECT BYTES TAIL "user_ce_id=1\n"},
    /* three of four required attributes: no CloudEvent */
    {"specversion=1.0;id=i1;source=/s;time=x", "", 0,
     HEAD SOURCE ID TIME SUBJECT BYTES TAIL "specversion=1.0\nid=i1\nsource=/s\ntime=x\n"},
    /* trace context */
    {"traceparent=" TRACE ";traceparent=2", "", 0,
     HEAD SOURCE ID TIME SUBJECT BYTES TAIL "ce_traceparent=" TRACE "\ntraceparent=2\n"},
    {"traceparent=00-XYZ", "", 0, HEAD SOURCE ID TIME SUBJECT BYTES TAIL "traceparent=00-XYZ\n"},
    /* a CloudEvent of the device */
    {CE, "", 0, CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL},
    {CE ";subject=s;traceparent=" TRACE
        ";dataschema=u:x;partitionkey=k;Foo=1;tolongbyfarforanextension=2",
     "application/json", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME "ce_subject=s\ncontent-type=application/json\n" TAIL
                    "ce_devicetopic=plant/7/temp\nce_traceparent=" TRACE "\n"
                    "ce_dataschema=u:x\nce_partitionkey=k\nFoo=1\n"
                    "tolongbyfarforanextension=2\n"},
    {CE ";qos=9;recordedtime=x;protocol=p;data=d", "", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL
                    "qos=9\nrecordedtime=x\nprotocol=p\ndata=d\n"},
    {CE ";datacontenttype=text/csv", "", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT "content-type=text/csv\n" TAIL},
    {CE ";datacontenttype=text/csv", "text/xml", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT "content-type=text/xml\n" TAIL
                    "datacontenttype=text/csv\n"},
    {"specversion=1.0;id=i1;source=/tenants/acme/devices/other;type=t", "", 0,
     "ce_specversion=1.0\nce_type=t\n" SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL
     "ce_devicesource=/tenants/acme/devices/other\n"},
    /* time: in the window, at its edge, outside */
    {CE ";time=2026-11-24T13:00:00Z", "", 0,
     CE_TYPE SOURCE "ce_id=i1\nce_time=2026-11-24T13:00:00Z\n" SUBJECT BYTES TAIL
                    "ce_recordedtime=" RECEIVED "\n"},
    {CE ";time=2026-11-24T14:02:03.456Z", "", 0,
     CE_TYPE SOURCE "ce_id=i1\nce_time=2026-11-24T14:02:03.456Z\n" SUBJECT BYTES TAIL
                    "ce_recordedtime=" RECEIVED "\n"},
    {CE ";time=2026-11-24T14:02:03.457Z", "", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL
                    "ce_devicetime=2026-11-24T14:02:03.457Z\n"},
    {CE ";time=1970-01-01T00:00:00Z", "", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL "ce_devicetime=1970-01-01T00:00:00Z\n"},
    /* reserved types */
    {"specversion=1.0;id=i1;source=/s;type=duragate.telemetry.v1", "", 0,
     HEAD SOURCE "ce_id=i1\n" TIME SUBJECT BYTES TAIL "ce_devicesource=/s\n"},
    {"specversion=1.0;id=i;source=/s;type=duragate.device.connected.v1", "", DG_ERR_PROTOCOL, ""},
    {"specversion=1.0;id=i;source=/s;type=duragate.", "", DG_ERR_PROTOCOL, ""},
    /* not valid */
    {"specversion=0.3;id=i;source=/s;type=t", "", DG_ERR_PROTOCOL, ""},
    {"specversion=1.0;id=;source=/s;type=t", "", DG_ERR_PROTOCOL, ""},
    {"specversion=1.0;id=i;source=;type=t", "", DG_ERR_PROTOCOL, ""},
    {"specversion=1.0;id=i;source=/s;type=", "", DG_ERR_PROTOCOL, ""},
    {CE ";subject=", "", DG_ERR_PROTOCOL, ""},
    {CE ";datacontenttype=", "", DG_ERR_PROTOCOL, ""},
    {CE ";time=yesterday", "", DG_ERR_PROTOCOL, ""},
    {CE ";id=i2", "", DG_ERR_PROTOCOL, ""},
    {CE ";ext=1;ext=2", "", DG_ERR_PROTOCOL, ""},
    /* structured mode may not speak through the content type */
    {"a=1", "application/cloudevents+json; charset=utf-8", 0,
     HEAD SOURCE ID TIME SUBJECT
     "content-type=application/json\n" TAIL
     "ce_devicecontenttype=application/cloudevents+json; charset=utf-8\na=1\n"},
    {"a=1", " Application/CloudEvents+avro", 0,
     HEAD SOURCE ID TIME SUBJECT BYTES TAIL
     "ce_devicecontenttype= Application/CloudEvents+avro\na=1\n"},
    {CE ";datacontenttype=application/cloudevents+json", "", 0,
     CE_TYPE SOURCE "ce_id=i1\n" TIME SUBJECT "content-type=application/json\n" TAIL
                    "ce_devicecontenttype=application/cloudevents+json\n"},
};

Test(event, user_properties) {
    struct event_source source = plain_source();
    for (size_t i = 0; i < sizeof property_rows / sizeof property_rows[0]; i++) {
        uint8_t bytes[2048];
        char text[4096];
        struct device_event event = plain_event();
        struct event_counter counter = plain_counter();
        struct stream_record record = {0};
        event.user_property_count =
            properties_of(property_rows[i].properties, bytes, sizeof bytes, &event.user_properties);
        event.content_type = slice_from_string(property_rows[i].content_type);
        int err = event_build(&event, &source, &counter, &scratch, &record);
        cr_expect_eq(err, property_rows[i].err, "%s: %d", property_rows[i].properties, err);
        if (err < 0) {
            cr_expect_null(record.headers, "%s: output", property_rows[i].properties);
            continue;
        }
        headers_text(&record, text, sizeof text);
        cr_expect_str_eq(text, property_rows[i].headers, "%s:\n%s", property_rows[i].properties,
                         text);
    }
}

Test(event, too_large) {
    static uint8_t big[LIMIT_EVENT_PAYLOAD_BYTES + 1];
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    memset(big, 'a', sizeof big);
    for (unsigned i = 0; i < 6; i++) {
        struct device_event event = plain_event();
        if (i < 2)
            event.payload = slice_make(big, LIMIT_EVENT_PAYLOAD_BYTES + i);
        if (i == 2)
            event.subject = slice_make(big, LIMIT_EVENT_HEADERS_BYTES);
        if (i == 3)
            event.correlation_data = slice_make(big, UINT16_MAX);
        if (i == 4)
            source.device = slice_make(big, sizeof big);
        if (i == 5)
            source = plain_source();
        int err = event_build(&event, &source, &counter, &scratch, &record);
        cr_expect_eq(err, i == 0 || i == 5 ? 0 : DG_ERR_TOO_LARGE, "row %u: %d", i, err);
    }
}

Test(event, presence) {
    struct event_presence presence = {
        .connected = true,
        .reason = "connected",
        .client_id = slice_from_string("a\"b\\c\n\x01\xc3\xa9"),
        .protocol = "mqtt5",
        .peer = slice_from_string("[2001:db8::1]:5123"),
        .session_id = slice_from_string("gw1-ab-0-s7"),
        .credential_key = INT64_MAX,
    };
    char text[4096];
    struct writer w = writer_make(text, sizeof text);
    cr_assert_eq(event_write_presence(&presence, &w), 0);
    json_t *json = json_loadb(text, writer_size(&w), JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(json);
    cr_expect_eq(json_object_size(json), 8);
    cr_expect(json_is_true(json_object_get(json, "connected")));
    cr_expect_str_eq(json_string_value(json_object_get(json, "client_id")),
                     "a\"b\\c\n\x01\xc3\xa9");
    cr_expect_str_eq(json_string_value(json_object_get(json, "credential_key")),
                     "9223372036854775807");
    json_decref(json);

    presence.connected = false;
    presence.reason_code = 0x8e;
    presence.duration_ms = UINT64_MAX;
    w = writer_make(text, sizeof text);
    cr_assert_eq(event_write_presence(&presence, &w), 0);
    cr_expect_not_null(memmem(text, writer_size(&w), "\"duration_ms\":18446744073709551615,", 35));
    cr_expect_not_null(memmem(text, writer_size(&w), "\"reason_code\":142,", 18));

    size_t size = writer_size(&w);
    for (size_t room = 0; room < size; room++) {
        w = writer_make(text, room);
        cr_expect_eq(event_write_presence(&presence, &w), DG_ERR_LIMIT);
    }
}

/* A whole client identifier of the worst bytes fits in what the header promises. */
Test(event, presence_worst) {
    uint8_t id[LIMIT_CLIENT_ID_BYTES];
    char text[4096];
    memset(id, 1, sizeof id);
    struct event_presence presence = {.reason = "connected",
                                      .client_id = slice_make(id, sizeof id),
                                      .protocol = "mqtt5",
                                      .peer = slice_from_string("192.0.2.7:5123"),
                                      .session_id = slice_from_string("s")};
    struct writer w = writer_make(text, sizeof text);
    cr_expect_eq(event_write_presence(&presence, &w), 0);
}

Test(event, presence_headers) {
    struct device_event event = {.type = EVENT_DEVICE_DISCONNECTED,
                                 .protocol = "mqtt3.1.1",
                                 .payload = slice_from_string("{}"),
                                 .received_ms = RECEIVED_MS};
    struct event_source source = plain_source();
    struct event_counter counter = plain_counter();
    struct stream_record record;
    char text[1024];
    cr_assert_eq(event_build(&event, &source, &counter, &scratch, &record), 0);
    headers_text(&record, text, sizeof text);
    cr_expect_str_eq(text,
                     "ce_specversion=1.0\nce_type=duragate.device.disconnected.v1\n" SOURCE ID TIME
                     "content-type=application/json\nce_protocol=mqtt3.1.1\n");
}
