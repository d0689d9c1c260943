/* Names of Azure IoT Hub's clients over MQTT. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "gateway/dialect/iothub.h"
#include "gateway/mqtt/packet.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static struct slice text(const char *string) {
    return slice_from_string(string);
}

#define cr_expect_text(slice_, expected)                                                 \
    cr_expect(slice_equals_string(slice_, expected), "%.*s, not %s", (int)(slice_).size, \
              (const char *)(slice_).data, expected)

/* As each SDK writes it, and what is close to it. */
Test(iothub, user_names) {
    static const struct {
        const char *user, *client;
        int err;
        const char *model_id;
    } cases[] = {
        {"h/d1/?api-version=2021-04-12&DeviceClientType=a%2Fb%20c", "d1", 0, ""},
        {"h/d1/?api-version=2020-09-30&model-id=dtmi%3Acom%3Ax%3B1&x=y", "d1", 0,
         "dtmi%3Acom%3Ax%3B1"},
        {"h/d1/api-version=2016-11-14", "d1", 0, ""},
        {"h/d1/", "d1", 0, ""},
        {"h/d1", "d1", 0, ""},
        {"h/d?1/?api-version=2021-04-12", "d?1", 0, ""},
        {"h:8883/a@b/?api-version=2021-04-12", "a@b", 0, ""},
        {"h/d1/?api-version=2021-04-12", "d2", DG_ERR_CLIENT_ID, NULL},
        {"h/d1/?api-version=2021-04-12", "d", DG_ERR_CLIENT_ID, NULL},
        {"h/d1/?api-version=2021-04-12", "D1", DG_ERR_CLIENT_ID, NULL},
        {"h/d1/?api-version=2021-04-12", "", DG_ERR_CLIENT_ID, NULL},
        {"h/d1/m1/?api-version=2021-04-12", "d1/m1", DG_ERR_CLIENT_ID, NULL},
        {"h/d 1/?api-version=2021-04-12", "d 1", DG_ERR_CLIENT_ID, NULL},
        {"h/?api-version=2021-04-12", "d1", DG_ERR_CLIENT_ID, NULL},
        {"h/", "", DG_ERR_CLIENT_ID, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice host, model_id;
        cr_assert(iothub_user_host(text(cases[i].user), &host));
        cr_expect(slice_equals_string(host, "h") || slice_equals_string(host, "h:8883"));
        int err = iothub_check_user(text(cases[i].user), text(cases[i].client), &model_id);
        cr_assert_eq(err, cases[i].err, "%s: %d", cases[i].user, err);
        if (err == 0)
            cr_expect_text(model_id, cases[i].model_id);
    }
    struct slice host;
    cr_expect_not(iothub_user_host(text("dev1@acme"), &host));
    cr_expect_not(iothub_user_host(slice_make(NULL, 0), &host));
}

Test(iothub, decoding) {
    static const struct {
        const char *encoded, *decoded;
    } cases[] = {
        {"a%20b", "a b"}, {"a+b", "a+b"}, {"%24.mid", "$.mid"},
        {"%2f%2F", "//"}, {"%", "%"},     {"%2", "%2"},
        {"%2g%", "%2g%"}, {"", ""},       {"%C3%A9", "\xc3\xa9"},
    };
    uint8_t room[8];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int size = iothub_decode(text(cases[i].encoded), room, sizeof(room));
        cr_assert_geq(size, 0, "%s", cases[i].encoded);
        cr_expect_text(slice_make(room, (size_t)size), cases[i].decoded);
    }
    cr_expect_eq(iothub_decode(text("123456789"), room, sizeof(room)), DG_ERR_TOO_LARGE);
    cr_expect_eq(iothub_decode(text("1234567%38"), room, sizeof(room)), 8);
}

Test(iothub, topics) {
    static const struct {
        const char *device, *topic;
        int err;
        enum iothub_topic_kind kind;
        const char *path, *bag, *request_id, *status, *version;
    } cases[] = {
        {"d1", "devices/d1/messages/events/", 0, IOTHUB_TELEMETRY, "devices/d1/messages/events", "",
         "", "", ""},
        {"d1", "devices/d1/messages/events", 0, IOTHUB_TELEMETRY, "devices/d1/messages/events", "",
         "", "", ""},
        {"d1", "devices/d1/messages/events/a=b&%24.ct=x%2Fy", 0, IOTHUB_TELEMETRY,
         "devices/d1/messages/events", "a=b&%24.ct=x%2Fy", "", "", ""},
        {"a@b+%", "devices/a@b+%/messages/events/a=b", 0, IOTHUB_TELEMETRY,
         "devices/a@b+%/messages/events", "a=b", "", "", ""},
        {"a@b", "devices/a%40b/messages/events/a=b", 0, IOTHUB_TELEMETRY,
         "devices/a%40b/messages/events", "a=b", "", "", ""},
        {"a%40b", "devices/a%40b/messages/events/", 0, IOTHUB_TELEMETRY,
         "devices/a%40b/messages/events", "", "", "", ""},
        {"d1", "devices/d2/messages/events/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1/modules/m/messages/events/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1/messages/eventsx", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1/messages/devicebound/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1", DG_ERR_NOT_AUTHORIZED},
        {"+", "devices/d1/messages/events/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "sensors/d1", DG_ERR_NOT_AUTHORIZED},
        {"d1", "", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/methods/res/200/?$rid=7f%20", 0, IOTHUB_METHOD_REPLY, NULL, "", "7f%20",
         "200", ""},
        {"d1", "$iothub/methods/res/200/?$rid=", DG_ERR_TOPIC_NAME},
        {"d1", "$iothub/methods/res/200", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/methods/POST/x/?$rid=1", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/twin/GET/?$rid=a-b", 0, IOTHUB_TWIN_GET, NULL, "", "a-b", "", ""},
        {"d1", "$iothub/twin/GET/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/twin/GET/?", DG_ERR_TOPIC_NAME},
        {"d1", "$iothub/twin/PATCH/properties/reported/?$rid=1", 0, IOTHUB_TWIN_REPORT, NULL, "",
         "1", "", ""},
        {"d1", "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7", 0, IOTHUB_TWIN_REPORT,
         NULL, "", "1", "", "7"},
        {"d1", "$iothub/twin/PATCH/properties/desired/?$rid=1", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$dg/events/x", DG_ERR_NOT_AUTHORIZED},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct iothub_topic topic;
        int err = iothub_classify_topic(text(cases[i].topic), text(cases[i].device), &topic);
        cr_assert_eq(err, cases[i].err, "%s: %d", cases[i].topic, err);
        if (err < 0)
            continue;
        cr_expect_eq(topic.kind, cases[i].kind, "%s", cases[i].topic);
        cr_expect_text(topic.path, cases[i].path ? cases[i].path : cases[i].topic);
        cr_expect_text(topic.bag, cases[i].bag);
        cr_expect_text(topic.request_id, cases[i].request_id);
        cr_expect_text(topic.status, cases[i].status);
        cr_expect_text(topic.version, cases[i].version);
    }
    static char longest[LIMIT_IOTHUB_TOPIC_BYTES + 2] = "devices/d1/messages/events/";
    struct iothub_topic topic;
    memset(longest + 27, 'x', sizeof(longest) - 28);
    cr_expect_eq(iothub_classify_topic(text(longest), text("d1"), &topic), DG_ERR_TOPIC_NAME);
    longest[LIMIT_IOTHUB_TOPIC_BYTES] = '\0';
    cr_expect_eq(iothub_classify_topic(text(longest), text("d1"), &topic), 0);
}

Test(iothub, statuses) {
    static const struct {
        const char *text;
        int err;
        unsigned status;
    } cases[] = {
        {"200", 0, 200},
        {"0", 0, 0},
        {"999999999", 0, 999999999},
        {"1234567890", DG_ERR_TOPIC_NAME, 0},
        {"-1", DG_ERR_TOPIC_NAME, 0},
        {"2x", DG_ERR_TOPIC_NAME, 0},
        {"", DG_ERR_TOPIC_NAME, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        unsigned status = 0;
        cr_expect_eq(iothub_read_status(text(cases[i].text), &status), cases[i].err, "%s",
                     cases[i].text);
        cr_expect_eq(status, cases[i].status);
    }
}

/* "name=value;" of each header. */
static void print_section(struct slice section, char *ret_text, size_t room) {
    struct slice key, value;
    size_t size = 0;
    ret_text[0] = '\0';
    while (mqtt_user_property_next(&section, &key, &value) && size < room)
        size += (size_t)snprintf(ret_text + size, room - size, "%.*s=%.*s;", (int)key.size,
                                 (const char *)key.data, (int)value.size, (const char *)value.data);
}

#define FACTS "ce_iothubauthmethod=sas;ce_iothubgenerationid=42;"

Test(iothub, bags) {
    static const struct {
        const char *bag, *content_type, *headers;
    } cases[] = {
        {"", "", FACTS},
        {"a=b", "", "a=b;" FACTS},
        {"a=b/", "", "a=b;" FACTS},
        {"a%20b=c%26d&e=f+g", "", "a b=c&d;e=f+g;" FACTS},
        {"null&empty=&&=", "", "null=;empty=;" FACTS},
        {"a=1=2", "", "a=1=2;" FACTS},
        {"%24.mid=7&$.cid=8&%24.uid=u&%24.to=%2Fx", "",
         "ce_iothubmessageid=7;ce_iothubcorrelationid=8;ce_iothubuserid=u;ce_iothubto=/x;" FACTS},
        {"%24.ct=application%2Fjson&%24.ce=utf-8&a=b", "application/json",
         "ce_iothubencoding=utf-8;a=b;" FACTS},
        {"%24.exp=e&%24.ctime=t&%24.ifid=i&%24.sub=s&%24.on=o", "",
         "ce_iothubexpirytime=e;iothub-creation-time-utc=t;ce_iothubinterfaceid=i;"
         "ce_iothubcomponent=s;iothub-outputname=o;" FACTS},
        {"%24.cdid=other&%24.cmid=m&%24.diagid=x", "", "$.diagid=x;" FACTS},
        {"%24.mid=7&%24.mid=8&%24.ct=a&%24.ct=b", "a", "ce_iothubmessageid=7;" FACTS},
        {"ce_type=x&Content-Type=y&CE_ID=z", "",
         "user_ce_type=x;user_Content-Type=y;user_CE_ID=z;" FACTS},
        {"a=b&a=c", "", "a=b;a=c;" FACTS},
        {"%C3%A9=%C3%A9", "", "\xc3\xa9=\xc3\xa9;" FACTS},
    };
    const struct iothub_facts facts = {.auth_method = text("sas"), .generation = 42};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t room[IOTHUB_HEADER_BYTES];
        char headers[1024];
        struct writer w = writer_make(room, sizeof(room));
        struct slice content_type;
        int err = iothub_read_bag(text(cases[i].bag), &facts, &w, &content_type);
        cr_assert_eq(err, 0, "%s: %d", cases[i].bag, err);
        print_section(slice_make(room, writer_size(&w)), headers, sizeof(headers));
        cr_expect_str_eq(headers, cases[i].headers);
        cr_expect_text(content_type, cases[i].content_type);
    }
}

Test(iothub, bags_that_are_none) {
    static const char *const cases[] = {"a=%FF", "%FF=a", "a=%00", "%C3=x"};
    const struct iothub_facts facts = {.auth_method = text("sas")};
    uint8_t room[256];
    struct slice content_type;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct writer w = writer_make(room, sizeof(room));
        cr_expect_eq(iothub_read_bag(text(cases[i]), &facts, &w, &content_type), DG_ERR_MALFORMED,
                     "%s", cases[i]);
    }
    struct writer w = writer_make(room, 60);
    cr_expect_eq(iothub_read_bag(text("a=b"), &facts, &w, &content_type), DG_ERR_TOO_LARGE);
    w = writer_make(room, 69);
    cr_expect_eq(iothub_read_bag(text("%24.ct=application/json"), &facts, &w, &content_type),
                 DG_ERR_TOO_LARGE);
}

/* The longest bag of the shortest properties has room. */
Test(iothub, largest_bag) {
    static char bag[LIMIT_IOTHUB_TOPIC_BYTES + 1];
    static uint8_t room[IOTHUB_HEADER_BYTES];
    const struct iothub_facts facts = {.auth_method = text("x509")};
    struct slice content_type;
    for (size_t i = 0; i < sizeof(bag) - 1; i++)
        bag[i] = i % 2 == 0 ? 'a' : '&';
    struct writer w = writer_make(room, sizeof(room));
    cr_expect_eq(iothub_read_bag(text(bag), &facts, &w, &content_type), 0);
}

Test(iothub, facts) {
    const struct iothub_facts facts = {.auth_method = text("x509"),
                                       .model_id = text("dtmi:com:x;1"),
                                       .generation = 7,
                                       .retain = true,
                                       .is_will = true};
    uint8_t room[512];
    char headers[512];
    struct slice content_type;
    struct writer w = writer_make(room, sizeof(room));
    cr_assert_eq(iothub_read_bag(text(""), &facts, &w, &content_type), 0);
    print_section(slice_make(room, writer_size(&w)), headers, sizeof(headers));
    cr_expect_str_eq(headers, "ce_iothubauthmethod=x509;ce_iothubgenerationid=7;"
                              "ce_iothubmodelid=dtmi:com:x;1;mqtt-retain=true;"
                              "iothub-MessageType=Will;");
}

Test(iothub, filters) {
    static const struct {
        const char *device, *filter;
        int found;
    } cases[] = {
        {"d1", "devices/d1/messages/devicebound/#", IOTHUB_FILTER_MESSAGES},
        {"a#+b", "devices/a#+b/messages/devicebound/#", IOTHUB_FILTER_MESSAGES},
        {"a@b", "devices/a%40b/messages/devicebound/#", IOTHUB_FILTER_MESSAGES},
        {"d1", "$iothub/methods/POST/#", IOTHUB_FILTER_METHODS},
        {"d1", "$iothub/twin/res/#", IOTHUB_FILTER_TWIN},
        {"d1", "$iothub/twin/PATCH/properties/desired/#", IOTHUB_FILTER_DESIRED},
        {"d1", "devices/d2/messages/devicebound/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/+/messages/devicebound/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1/messages/devicebound/", DG_ERR_NOT_AUTHORIZED},
        {"d1", "devices/d1/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/methods/POST/reboot/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$iothub/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "$dg/commands/#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "#", DG_ERR_NOT_AUTHORIZED},
        {"d1", "", DG_ERR_NOT_AUTHORIZED},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(iothub_find_filter(text(cases[i].filter), text(cases[i].device)),
                     cases[i].found, "%s", cases[i].filter);
}

static void add_property(struct writer *w, const char *key, const char *value) {
    writer_u8(w, 0x26);
    writer_u16(w, (uint16_t)strlen(key));
    writer_string(w, key);
    writer_u16(w, (uint16_t)strlen(value));
    writer_string(w, value);
}

/* No raw '/' behind the prefix, system properties first, each with '='. */
Test(iothub, topics_of_messages) {
    uint8_t section[256], room[1024];
    struct writer properties = writer_make(section, sizeof(section));
    add_property(&properties, "a/b", "c d");
    add_property(&properties, "iothub-ack", "full");
    add_property(&properties, "$.cid", "8");
    add_property(&properties, "empty", "");
    struct iothub_message message = {.device = text("d@1"),
                                     .id = text("c17"),
                                     .name = text("blink"),
                                     .content_type = text("text/plain"),
                                     .properties = slice_make(section, writer_size(&properties)),
                                     .expires_ms = 1700000000000};
    struct writer w = writer_make(room, sizeof(room));
    iothub_write_message_topic(&w, &message);
    cr_expect_text(slice_make(room, writer_size(&w)),
                   "devices/d@1/messages/devicebound/%24.mid=c17"
                   "&%24.to=%2Fdevices%2Fd%401%2Fmessages%2Fdevicebound"
                   "&%24.exp=2023-11-14T22%3A13%3A20.000Z&%24.cid=8&%24.ct=text%2Fplain"
                   "&iothub-ack=full&duragate-name=blink&a%2Fb=c%20d&empty=");
    message.name = text("");
    add_property(&properties, "$.mid", "own");
    add_property(&properties, "$.ct", "x");
    message.properties = slice_make(section, writer_size(&properties));
    message.expires_ms = 0;
    w = writer_make(room, sizeof(room));
    iothub_write_message_topic(&w, &message);
    cr_expect_text(slice_make(room, writer_size(&w)),
                   "devices/d@1/messages/devicebound/%24.mid=own"
                   "&%24.to=%2Fdevices%2Fd%401%2Fmessages%2Fdevicebound&%24.cid=8&%24.ct=x"
                   "&iothub-ack=full&a%2Fb=c%20d&empty=");
    w = writer_make(room, 60);
    iothub_write_message_topic(&w, &message);
    cr_expect(w.failed);
}

Test(iothub, topics_of_requests) {
    uint8_t room[128];
    struct writer w = writer_make(room, sizeof(room));
    iothub_write_method_topic(&w, text("re boot/1"), text("0a1b"));
    cr_expect_text(slice_make(room, writer_size(&w)),
                   "$iothub/methods/POST/re%20boot%2F1/?$rid=0a1b");
    w = writer_make(room, sizeof(room));
    iothub_write_twin_topic(&w, 200, text("a%2f"), 0);
    cr_expect_text(slice_make(room, writer_size(&w)), "$iothub/twin/res/200/?$rid=a%2f");
    w = writer_make(room, sizeof(room));
    iothub_write_twin_topic(&w, 204, text("1"), 7);
    cr_expect_text(slice_make(room, writer_size(&w)), "$iothub/twin/res/204/?$rid=1&$version=7");
    w = writer_make(room, sizeof(room));
    iothub_write_desired_topic(&w, 12);
    cr_expect_text(slice_make(room, writer_size(&w)),
                   "$iothub/twin/PATCH/properties/desired/?$version=12");
}
