#include "gateway/dialect/native.h"

static bool take_prefix(struct slice *text, const char *prefix) {
    if (!slice_starts_with(*text, prefix))
        return false;
    *text = slice_skip(*text, strlen(prefix));
    return true;
}

/* Splits at the first '/': false when there is none, or nothing on one side of it. */
static bool split_level(struct slice text, struct slice *ret_first, struct slice *ret_rest) {
    const uint8_t *slash = text.size > 0 ? memchr(text.data, '/', text.size) : NULL;
    if (slash == NULL || slash == text.data)
        return false;
    struct slice rest = slice_skip(text, (size_t)(slash - text.data) + 1);
    if (rest.size == 0)
        return false;
    *ret_first = slice_make(text.data, (size_t)(slash - text.data));
    *ret_rest = rest;
    return true;
}

/* <id>/<status>: both one level. */
static bool is_reply(struct slice rest) {
    struct slice id, status;
    return split_level(rest, &id, &status) && memchr(status.data, '/', status.size) == NULL;
}

void native_reply_parts(struct slice topic, struct slice *ret_id, struct slice *ret_status) {
    if (take_prefix(&topic, "$dg/replies/"))
        split_level(topic, ret_id, ret_status);
}

void native_via_parts(struct slice topic, struct slice *ret_device, struct slice *ret_rest) {
    if (take_prefix(&topic, "$dg/via/"))
        split_level(topic, ret_device, ret_rest);
}

/* Below "$dg/"; NATIVE_TELEMETRY when it is none of them. */
static enum native_topic_kind classify_control(struct slice rest, struct slice *ret_subject) {
    struct slice first, second;
    if (slice_equals_string(rest, "state/reported"))
        return NATIVE_STATE_REPORTED;
    if (take_prefix(&rest, "events/") && rest.size > 0) {
        *ret_subject = rest;
        return NATIVE_EVENT;
    }
    if (take_prefix(&rest, "replies/") && is_reply(rest))
        return NATIVE_REPLY;
    if (take_prefix(&rest, "via/") && split_level(rest, &first, &second))
        return NATIVE_VIA;
    return NATIVE_TELEMETRY;
}

int native_classify_topic(struct slice topic, enum native_topic_kind *ret_kind,
                          struct slice *ret_subject) {
    if (topic.size == 0)
        return DG_ERR_TOPIC_NAME;
    struct slice subject = topic, rest = topic;
    enum native_topic_kind kind = NATIVE_TELEMETRY;
    if (topic.data[0] == '$') {
        if (take_prefix(&rest, "$dg/"))
            kind = classify_control(rest, &subject);
        if (kind == NATIVE_TELEMETRY)
            return DG_ERR_NOT_AUTHORIZED;
    }
    *ret_kind = kind;
    *ret_subject = subject;
    return 0;
}

int native_check_filter(struct slice filter) {
    struct slice rest = filter, device;
    if (slice_starts_with(filter, "$share/"))
        return DG_ERR_SHARED_SUBSCRIPTION;
    if (take_prefix(&rest, "$dg/")) {
        if (take_prefix(&rest, "via/") &&
            (!split_level(rest, &device, &rest) || memchr(device.data, '+', device.size) != NULL))
            return DG_ERR_NOT_AUTHORIZED;
        if (slice_equals_string(rest, "commands/#") || slice_equals_string(rest, "state/desired"))
            return 0;
    }
    bool wildcard = filter.size > 0 && (memchr(filter.data, '+', filter.size) != NULL ||
                                        memchr(filter.data, '#', filter.size) != NULL);
    return wildcard ? DG_ERR_WILDCARD : DG_ERR_NOT_AUTHORIZED;
}

const char *native_allowed_filters(void) {
    return "$dg/commands/#, $dg/state/desired and the same below $dg/via/<device>/";
}

bool native_split_command(struct slice topic, struct slice *ret_id, struct slice *ret_name) {
    if (!take_prefix(&topic, "$dg/commands/"))
        return false;
    const uint8_t *slash = topic.size > 0 ? memchr(topic.data, '/', topic.size) : NULL;
    if (!slash || slash == topic.data)
        return false;
    *ret_id = slice_make(topic.data, (size_t)(slash - topic.data));
    *ret_name = slice_skip(topic, ret_id->size + 1);
    return true;
}

int native_read_status(struct slice status, unsigned *ret_status) {
    if (status.size != 3 || status.data[0] == '0')
        return DG_ERR_TOPIC_NAME;
    unsigned number = 0;
    for (size_t i = 0; i < status.size; i++) {
        if (status.data[i] < '0' || status.data[i] > '9')
            return DG_ERR_TOPIC_NAME;
        number = number * 10 + (status.data[i] - '0');
    }
    *ret_status = number;
    return 0;
}

bool native_filter_takes(struct slice filter, struct slice topic) {
    if (filter.size == 0 || filter.data[filter.size - 1] != '#')
        return slice_equals(filter, topic);
    size_t size = filter.size - 1;
    return topic.size > size && memcmp(filter.data, topic.data, size) == 0;
}

int native_split_user_name(struct slice user_name, struct slice *ret_device,
                           struct slice *ret_tenant) {
    const uint8_t *at = user_name.size > 0 ? memrchr(user_name.data, '@', user_name.size) : NULL;
    size_t device_size = at ? (size_t)(at - user_name.data) : user_name.size;
    struct slice tenant =
        at ? slice_skip(user_name, device_size + 1) : slice_from_string("default");
    if (device_size == 0 || tenant.size == 0)
        return DG_ERR_BAD_CREDENTIALS;
    *ret_device = slice_make(user_name.data, device_size);
    *ret_tenant = tenant;
    return 0;
}
