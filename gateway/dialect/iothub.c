#include "gateway/dialect/iothub.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/device_id.h"
#include "common/utf8.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/packet.h"

static bool take_prefix(struct slice *text, const char *prefix) {
    if (!slice_starts_with(*text, prefix))
        return false;
    *text = slice_skip(*text, strlen(prefix));
    return true;
}

/* Cuts off what stands before the separator, which goes too; all of it when there is none. */
static struct slice take_until(struct slice *text, char separator) {
    const uint8_t *at = text->size > 0 ? memchr(text->data, separator, text->size) : NULL;
    struct slice part = slice_make(text->data, at ? (size_t)(at - text->data) : text->size);
    *text = slice_skip(*text, at ? part.size + 1 : part.size);
    return part;
}

/* ---- percent encoding ---- */

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_escape(struct slice text, size_t at, uint8_t *ret_byte) {
    if (text.data[at] != '%' || at + 2 >= text.size)
        return false;
    int high = hex_digit(text.data[at + 1]), low = hex_digit(text.data[at + 2]);
    if (high < 0 || low < 0)
        return false;
    *ret_byte = (uint8_t)(high << 4 | low);
    return true;
}

int iothub_decode(struct slice text, uint8_t *room, size_t room_size) {
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (size == room_size)
            return DG_ERR_TOO_LARGE;
        if (take_escape(text, i, &byte))
            i += 2;
        room[size++] = byte;
    }
    return (int)size;
}

/* All but RFC 3986's unreserved: no '/' is left that a client could split at. */
static void write_encoded(struct writer *w, struct slice text) {
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) {
            writer_u8(w, c);
            continue;
        }
        const uint8_t escape[] = {'%', (uint8_t)hex[c >> 4], (uint8_t)hex[c & 15]};
        writer_bytes(w, escape, sizeof(escape));
    }
}

/* ---- CONNECT ---- */

bool iothub_user_host(struct slice user_name, struct slice *ret_host) {
    struct slice rest = user_name, host = take_until(&rest, '/');
    if (host.size == user_name.size)
        return false;
    *ret_host = host;
    return true;
}

static struct slice find_in_query(struct slice query, const char *name) {
    while (query.size > 0) {
        struct slice value = take_until(&query, '&'), key = take_until(&value, '=');
        if (slice_equals_string(key, name))
            return value;
    }
    return slice_make(NULL, 0);
}

int iothub_check_user(struct slice user_name, struct slice client_id, struct slice *ret_model_id) {
    struct slice rest = user_name;
    (void)take_until(&rest, '/');
    if (!device_id_is_hub(client_id) || rest.size < client_id.size ||
        memcmp(rest.data, client_id.data, client_id.size) != 0)
        return DG_ERR_CLIENT_ID;
    rest = slice_skip(rest, client_id.size);
    if (rest.size > 0 && !take_prefix(&rest, "/"))
        return DG_ERR_CLIENT_ID;
    (void)take_prefix(&rest, "?");
    *ret_model_id = find_in_query(rest, "model-id");
    return 0;
}

/* ---- topics of publishes ---- */

/* Cuts off a device's level, as it is or percent-encoded. */
static bool take_device(struct slice *text, struct slice device) {
    uint8_t decoded[LIMIT_DEVICE_ID_BYTES];
    if (text->size > device.size && text->data[device.size] == '/' &&
        memcmp(text->data, device.data, device.size) == 0) {
        *text = slice_skip(*text, device.size + 1);
        return true;
    }
    struct slice rest = *text, level = take_until(&rest, '/');
    int size = iothub_decode(level, decoded, sizeof(decoded));
    if (size < 0 || level.size == text->size ||
        !slice_equals(slice_make(decoded, (size_t)size), device))
        return false;
    *text = rest;
    return true;
}

static int take_telemetry(struct slice topic, struct slice rest, struct iothub_topic *topic_parts) {
    if (!take_prefix(&rest, "messages/events"))
        return DG_ERR_NOT_AUTHORIZED;
    topic_parts->path = slice_make(topic.data, topic.size - rest.size);
    if (rest.size > 0 && !take_prefix(&rest, "/"))
        return DG_ERR_NOT_AUTHORIZED;
    topic_parts->bag = rest;
    return 0;
}

static int take_query(struct slice rest, struct iothub_topic *topic_parts) {
    if (!take_prefix(&rest, "?"))
        return DG_ERR_NOT_AUTHORIZED;
    topic_parts->request_id = find_in_query(rest, "$rid");
    topic_parts->version = find_in_query(rest, "$version");
    return topic_parts->request_id.size > 0 ? 0 : DG_ERR_TOPIC_NAME;
}

int iothub_classify_topic(struct slice topic, struct slice device, struct iothub_topic *ret_topic) {
    struct iothub_topic parts = {.kind = IOTHUB_TELEMETRY, .path = topic};
    struct slice rest = topic;
    int err = DG_ERR_NOT_AUTHORIZED;
    if (topic.size > LIMIT_IOTHUB_TOPIC_BYTES)
        return DG_ERR_TOPIC_NAME;
    if (take_prefix(&rest, "devices/")) {
        if (take_device(&rest, device))
            err = take_telemetry(topic, rest, &parts);
    } else if (take_prefix(&rest, "$iothub/methods/res/")) {
        parts.kind = IOTHUB_METHOD_REPLY;
        parts.status = take_until(&rest, '/');
        err = take_query(rest, &parts);
    } else if (take_prefix(&rest, "$iothub/twin/GET/")) {
        parts.kind = IOTHUB_TWIN_GET;
        err = take_query(rest, &parts);
    } else if (take_prefix(&rest, "$iothub/twin/PATCH/properties/reported/")) {
        parts.kind = IOTHUB_TWIN_REPORT;
        err = take_query(rest, &parts);
    }
    if (err == 0)
        *ret_topic = parts;
    return err;
}

int iothub_read_status(struct slice status, unsigned *ret_status) {
    unsigned number = 0;
    if (status.size == 0 || status.size > 9)
        return DG_ERR_TOPIC_NAME;
    for (size_t i = 0; i < status.size; i++) {
        if (status.data[i] < '0' || status.data[i] > '9')
            return DG_ERR_TOPIC_NAME;
        number = number * 10 + (status.data[i] - '0');
    }
    *ret_status = number;
    return 0;
}

/* ---- properties of telemetry ---- */

enum { CONTENT_TYPE_ROW = 4, USER_PROPERTY = 0x26 /* MQTT5 2.2.2.2 */ };

/* Properties of the message, and the header that each becomes; NULL: none. Others that begin with
 * "$." are kept under their names. Which device speaks is the credential's to say. */
static const struct system_row {
    const char *key, *header;
} system_rows[] = {
    {"$.mid", "ce_iothubmessageid"},
    {"$.cid", "ce_iothubcorrelationid"},
    {"$.uid", "ce_iothubuserid"},
    {"$.to", "ce_iothubto"},
    [CONTENT_TYPE_ROW] = {"$.ct", NULL},
    {"$.ce", "ce_iothubencoding"},
    {"$.exp", "ce_iothubexpirytime"},
    {"$.ctime", "iothub-creation-time-utc"},
    {"$.ifid", "ce_iothubinterfaceid"},
    {"$.sub", "ce_iothubcomponent"},
    {"$.on", "iothub-outputname"},
    {"$.cdid", NULL},
    {"$.cmid", NULL},
};
enum { SYSTEM_ROWS = sizeof(system_rows) / sizeof(system_rows[0]) };

/* SYSTEM_ROWS: it is none of them. */
static unsigned find_system_row(struct slice key) {
    unsigned row = 0;
    while (row < SYSTEM_ROWS && !slice_equals_string(key, system_rows[row].key))
        row++;
    return row;
}

static void write_text(struct writer *w, struct slice text) {
    writer_u16(w, (uint16_t)text.size);
    writer_slice(w, text);
}

static void write_header(struct writer *w, const char *name, struct slice value) {
    writer_u8(w, USER_PROPERTY);
    write_text(w, slice_from_string(name));
    write_text(w, value);
}

/* None that could be read as the gateway's. */
static void write_application(struct writer *w, struct slice key, struct slice value) {
    struct slice prefix = slice_from_string(event_owns_header(key) ? "user_" : "");
    writer_u8(w, USER_PROPERTY);
    writer_u16(w, (uint16_t)(prefix.size + key.size));
    writer_slice(w, prefix);
    writer_slice(w, key);
    write_text(w, value);
}

struct bag_reader {
    struct writer *w;
    unsigned seen; /* bits of rows; what comes first counts */
    struct slice content_type;
};

static void put_property(struct bag_reader *bag, struct slice key, struct slice value) {
    unsigned row = find_system_row(key);
    if (row == SYSTEM_ROWS) {
        write_application(bag->w, key, value);
        return;
    }
    if (bag->seen & 1u << row)
        return;
    bag->seen |= 1u << row;
    if (row == CONTENT_TYPE_ROW)
        bag->content_type = value;
    else if (system_rows[row].header)
        write_header(bag->w, system_rows[row].header, value);
}

/* Decodes text behind what was written, where it stays. */
static int decode_part(struct slice text, uint8_t **at, const uint8_t *end,
                       struct slice *ret_decoded) {
    int size = iothub_decode(text, *at, (size_t)(end - *at));
    if (size < 0)
        return size;
    struct slice decoded = slice_make(*at, (size_t)size);
    if (!utf8_is_valid(decoded.data, decoded.size))
        return DG_ERR_MALFORMED;
    *at += size;
    *ret_decoded = decoded;
    return 0;
}

static void write_facts(struct writer *w, const struct iothub_facts *facts) {
    char generation[24];
    snprintf(generation, sizeof(generation), "%" PRId64, facts->generation);
    write_header(w, "ce_iothubauthmethod", facts->auth_method);
    write_header(w, "ce_iothubgenerationid", slice_from_string(generation));
    if (facts->model_id.size > 0)
        write_header(w, "ce_iothubmodelid", facts->model_id);
    if (facts->retain)
        write_header(w, "mqtt-retain", slice_from_string("true"));
    if (facts->is_will)
        write_header(w, "iothub-MessageType", slice_from_string("Will"));
}

int iothub_read_bag(struct slice bag, const struct iothub_facts *facts, struct writer *w,
                    struct slice *ret_content_type) {
    uint8_t decoded[LIMIT_IOTHUB_TOPIC_BYTES], *at = decoded;
    struct bag_reader reader = {.w = w};
    if (bag.size > 0 && bag.data[bag.size - 1] == '/')
        bag.size--; /* Node's outputs of modules */
    while (bag.size > 0) {
        struct slice value = take_until(&bag, '&'), key = take_until(&value, '=');
        if (key.size == 0 && value.size == 0)
            continue;
        int err = decode_part(key, &at, decoded + sizeof(decoded), &key);
        if (err == 0)
            err = decode_part(value, &at, decoded + sizeof(decoded), &value);
        if (err < 0)
            return err;
        put_property(&reader, key, value);
    }
    write_facts(w, facts);
    uint8_t *content_type = writer_reserve(w, reader.content_type.size);
    if (w->failed)
        return DG_ERR_TOO_LARGE;
    w->at = content_type; /* behind the section */
    if (reader.content_type.size > 0)
        memcpy(content_type, reader.content_type.data, reader.content_type.size);
    *ret_content_type = slice_make(content_type, reader.content_type.size);
    return 0;
}

/* ---- filters ---- */

/* Without the '#'. */
static const char methods[] = "$iothub/methods/POST/", twin[] = "$iothub/twin/res/",
                  desired[] = "$iothub/twin/PATCH/properties/desired/";

int iothub_find_filter(struct slice filter, struct slice device) {
    static const struct {
        const char *prefix;
        enum iothub_filter filter;
    } rows[] = {
        {methods, IOTHUB_FILTER_METHODS},
        {twin, IOTHUB_FILTER_TWIN},
        {desired, IOTHUB_FILTER_DESIRED},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct slice rest = filter;
        if (take_prefix(&rest, rows[i].prefix) && slice_equals_string(rest, "#"))
            return (int)rows[i].filter;
    }
    if (take_prefix(&filter, "devices/") && take_device(&filter, device) &&
        slice_equals_string(filter, "messages/devicebound/#"))
        return IOTHUB_FILTER_MESSAGES;
    return DG_ERR_NOT_AUTHORIZED;
}

const char *iothub_allowed_filters(void) {
    return "devices/<device>/messages/devicebound/#, $iothub/methods/POST/#, $iothub/twin/res/# "
           "and $iothub/twin/PATCH/properties/desired/#";
}

/* ---- topics of what the device gets ---- */

static void write_pair(struct writer *w, bool *is_first, struct slice key, struct slice value) {
    if (!*is_first)
        writer_u8(w, '&');
    *is_first = false;
    write_encoded(w, key);
    writer_u8(w, '=');
    write_encoded(w, value);
}

static struct slice find_property(struct slice properties, const char *name) {
    struct slice key, value;
    while (mqtt_user_property_next(&properties, &key, &value))
        if (slice_equals_string(key, name))
            return value;
    return slice_make(NULL, 0);
}

static void write_system(struct writer *w, bool *is_first, const struct iothub_message *message) {
    static const char *const given[] = {"$.cid", "$.uid", "$.ct", "$.ce"};
    char to[LIMIT_DEVICE_ID_BYTES + 64], expires[CLOCK_RFC3339_SIZE];
    struct slice id = find_property(message->properties, "$.mid");
    snprintf(to, sizeof(to), "/devices/%.*s/messages/devicebound", (int)message->device.size,
             (const char *)message->device.data);
    write_pair(w, is_first, slice_from_string("$.mid"), id.size > 0 ? id : message->id);
    write_pair(w, is_first, slice_from_string("$.to"), slice_from_string(to));
    if (message->expires_ms != 0) {
        clock_format_rfc3339(message->expires_ms, expires);
        write_pair(w, is_first, slice_from_string("$.exp"), slice_make(expires, sizeof(expires)));
    }
    for (unsigned i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        struct slice value = find_property(message->properties, given[i]);
        if (value.size == 0 && strcmp(given[i], "$.ct") == 0)
            value = message->content_type;
        if (value.size > 0)
            write_pair(w, is_first, slice_from_string(given[i]), value);
    }
}

void iothub_write_message_topic(struct writer *w, const struct iothub_message *message) {
    struct slice rest = message->properties, key, value;
    bool is_first = true;
    writer_string(w, "devices/");
    writer_slice(w, message->device);
    writer_string(w, "/messages/devicebound/");
    write_system(w, &is_first, message);
    value = find_property(message->properties, "iothub-ack");
    if (value.size > 0)
        write_pair(w, &is_first, slice_from_string("iothub-ack"), value);
    if (message->name.size > 0)
        write_pair(w, &is_first, slice_from_string("duragate-name"), message->name);
    while (mqtt_user_property_next(&rest, &key, &value))
        if (!slice_starts_with(key, "$.") && !slice_equals_string(key, "iothub-ack"))
            write_pair(w, &is_first, key, value);
}

void iothub_write_method_topic(struct writer *w, struct slice name, struct slice request_id) {
    writer_string(w, methods);
    write_encoded(w, name);
    writer_string(w, "/?$rid=");
    writer_slice(w, request_id);
}

void iothub_write_twin_topic(struct writer *w, unsigned status, struct slice request_id,
                             uint64_t version) {
    char number[48];
    snprintf(number, sizeof(number), "%u/?$rid=", status);
    writer_string(w, twin);
    writer_string(w, number);
    writer_slice(w, request_id);
    snprintf(number, sizeof(number), "&$version=%" PRIu64, version);
    if (version > 0)
        writer_string(w, number);
}

void iothub_write_desired_topic(struct writer *w, uint64_t version) {
    char number[32];
    snprintf(number, sizeof(number), "?$version=%" PRIu64, version);
    writer_string(w, desired);
    writer_string(w, number);
}
