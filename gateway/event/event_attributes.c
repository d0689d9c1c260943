/* MQTT 5 user properties: a CloudEvent in binary mode (CloudEvents MQTT binding 3.1), trace
 * context, or whatever else the device says. The rules are those at the top of event.c. */
#include <strings.h>

#include "gateway/event/event_internal.h"
#include "gateway/mqtt/packet.h"

struct attribute_row {
    struct slice name;
    size_t offset; /* in struct event_attributes */
};

#define ATTRIBUTE(name, field) \
    { {(const uint8_t *)(name), sizeof(name) - 1}, offsetof(struct event_attributes, field) }

static const struct attribute_row attribute_rows[] = {
    ATTRIBUTE("specversion", specversion),
    ATTRIBUTE("id", id),
    ATTRIBUTE("source", source),
    ATTRIBUTE("type", type),
    ATTRIBUTE("subject", subject),
    ATTRIBUTE("time", time),
    ATTRIBUTE("datacontenttype", content_type),
    ATTRIBUTE("traceparent", traceparent),
};
enum { ATTRIBUTE_COUNT = sizeof attribute_rows / sizeof attribute_rows[0] };

/* Extensions that only the gateway writes, and a name that CloudEvents keeps for itself. */
static const char *const reserved_names[] = {
    "protocol",       "qos",
    "retain",         "recordedtime",
    "devicetime",     "devicesource",
    "devicetopic",    "devicecontenttype",
    "responsetopic",  "correlationdata",
    "expirytime",     "payloadformat",
    "viadevice",      "quarantinereason",
    "quarantinerule", "data",
};
static const char reserved_prefix[] = "iothub"; /* extensions of that dialect */

static const struct attribute_row *find_attribute(struct slice name) {
    for (unsigned i = 0; i < ATTRIBUTE_COUNT; i++)
        if (slice_equals(name, attribute_rows[i].name))
            return &attribute_rows[i];
    return NULL;
}

static struct slice *field_of(struct event_attributes *attributes,
                              const struct attribute_row *row) {
    return (struct slice *)((uint8_t *)attributes + row->offset);
}

static bool is_present(struct slice value) {
    return value.data != NULL;
}

/* version 00 of W3C Trace Context: 00-<32 hex>-<16 hex>-<2 hex>, lower case. */
static bool is_traceparent(struct slice value) {
    static const char shape[] = "00-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    if (value.size != sizeof shape - 1)
        return false;
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        bool hex = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
        if (shape[i] == 'h' ? !hex : byte != shape[i])
            return false;
    }
    return true;
}

/* The first occurrence of each attribute. Returns whether one came twice. */
static bool collect_attributes(struct slice section, struct event_attributes *attributes) {
    struct slice key, value;
    bool twice = false;
    while (mqtt_user_property_next(&section, &key, &value)) {
        const struct attribute_row *row = find_attribute(key);
        if (row == NULL)
            continue;
        struct slice *field = field_of(attributes, row);
        if (is_present(*field))
            twice = true;
        else
            *field = value;
    }
    return twice;
}

static bool is_complete(const struct event_attributes *a) {
    return is_present(a->specversion) && is_present(a->id) && is_present(a->source) &&
           is_present(a->type);
}

/* CloudEvents 1.0.2, required and optional attributes. */
static bool is_valid(const struct event_attributes *a) {
    return slice_equals_string(a->specversion, "1.0") && a->id.size > 0 && a->source.size > 0 &&
           a->type.size > 0 && (!is_present(a->subject) || a->subject.size > 0) &&
           (!is_present(a->content_type) || a->content_type.size > 0);
}

int event_read_attributes(const struct device_event *event,
                          struct event_attributes *ret_attributes) {
    struct event_attributes found = {0};
    bool twice = collect_attributes(event->user_properties, &found);
    found.is_cloudevent = is_complete(&found);
    if (found.is_cloudevent && (twice || !is_valid(&found)))
        return DG_ERR_PROTOCOL;
    if (!is_traceparent(found.traceparent))
        found.traceparent = slice_make(NULL, 0);
    if (!found.is_cloudevent)
        found = (struct event_attributes){.traceparent = found.traceparent};
    else if (event->content_type.size > 0)
        found.content_type = slice_make(NULL, 0);
    *ret_attributes = found;
    return 0;
}

/* Became a header of its own already: exactly the occurrence that was taken. */
static bool is_taken(const struct event_attributes *attributes, struct slice key,
                     struct slice value) {
    const struct attribute_row *row = find_attribute(key);
    if (row == NULL)
        return false;
    const uint8_t *field = (const uint8_t *)attributes + row->offset;
    return ((const struct slice *)(const void *)field)->data == value.data;
}

enum { EXTENSION_NAME_BYTES = 20 }; /* what CloudEvents advises */

static bool is_extension_name(struct slice name) {
    if (name.size == 0 || name.size > EXTENSION_NAME_BYTES)
        return false;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        if (!((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9')))
            return false;
    }
    for (size_t i = 0; i < sizeof reserved_names / sizeof reserved_names[0]; i++)
        if (slice_equals_string(name, reserved_names[i]))
            return false;
    return find_attribute(name) == NULL && !slice_starts_with(name, reserved_prefix);
}

/* At most LIMIT_MQTT_PROPERTIES, so a second walk is cheap. */
static bool came_before(struct slice section, struct slice name) {
    struct slice key, value;
    while (mqtt_user_property_next(&section, &key, &value) && key.data != name.data)
        if (slice_equals(key, name))
            return true;
    return false;
}

/* prefix and name as one key. */
static void put_prefixed(struct event_headers *h, struct slice prefix, struct slice name,
                         struct slice value) {
    h->count++;
    writer_varlong(&h->w, (int64_t)(prefix.size + name.size));
    writer_slice(&h->w, prefix);
    writer_slice(&h->w, name);
    writer_varlong(&h->w, (int64_t)value.size);
    writer_slice(&h->w, value);
}

static bool begins_with(struct slice name, const char *prefix) {
    size_t size = strlen(prefix);
    return name.size >= size && strncasecmp((const char *)name.data, prefix, size) == 0;
}

bool event_owns_header(struct slice name) {
    return name.size == 0 || begins_with(name, "ce_") || begins_with(name, "ce-") ||
           begins_with(name, "cloudevents") ||
           (name.size == strlen("content-type") && begins_with(name, "content-type"));
}

int event_put_user_properties(const struct device_event *event,
                              const struct event_attributes *attributes, struct event_headers *h) {
    struct slice cursor = event->user_properties, key, value;
    while (mqtt_user_property_next(&cursor, &key, &value)) {
        if (is_taken(attributes, key, value))
            continue;
        if (attributes->is_cloudevent && is_extension_name(key)) {
            if (came_before(event->user_properties, key))
                return DG_ERR_PROTOCOL;
            put_prefixed(h, EVENT_TEXT("ce_"), key, value);
        } else if (event_owns_header(key)) {
            put_prefixed(h, EVENT_TEXT("user_"), key, value);
        } else {
            put_prefixed(h, EVENT_TEXT(""), key, value);
        }
    }
    return 0;
}
