/* Topic Names and Topic Filters (MQTT5 4.7, MQTT3 4.7). */
#include "common/utf8.h"
#include "gateway/mqtt/packet_fault.h"

/* Eight bytes at a time: `byte` in every lane; a lane of the result is not 0 where x is 0. The
 * borrow may mark a lane above a true zero too, which only sends a bad topic to the slow path. */
#define LANES(byte) (0x0101010101010101u * (uint64_t)(byte))
#define ZERO_LANES(x) (((x)-LANES(1)) & ~(x)&LANES(0x80))

static inline uint64_t special_lanes(uint64_t word) {
    return (word & LANES(0x80)) | ZERO_LANES(word) | ZERO_LANES(word ^ LANES('+')) |
           ZERO_LANES(word ^ LANES('#'));
}

/* True when every byte is plain ASCII: no NUL, no wildcard. */
static bool is_plain(struct slice topic) {
    uint64_t special = 0;
    const uint8_t *at = topic.data;
    size_t left = topic.size;
    for (; left >= 8; at += 8, left -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        special |= special_lanes(word);
    }
    for (; left > 0; at++, left--)
        special |= *at >= 0x80 || *at == 0 || *at == '+' || *at == '#';
    return special == 0;
}

static bool has_wildcard(struct slice topic) {
    return topic.size > 0 && (memchr(topic.data, '+', topic.size) != NULL ||
                              memchr(topic.data, '#', topic.size) != NULL);
}

enum topic_bytes mqtt_topic_scan(struct slice topic) {
    if (is_plain(topic))
        return TOPIC_PLAIN;
    if (!utf8_is_valid(topic.data, topic.size))
        return TOPIC_NOT_UTF8;
    return has_wildcard(topic) ? TOPIC_WILDCARD : TOPIC_PLAIN;
}

unsigned mqtt_topic_level_count(struct slice topic) {
    unsigned count = 1;
    const uint8_t *at = topic.data, *end = at + topic.size;
    while (at < end && (at = memchr(at, '/', (size_t)(end - at))) != NULL) {
        count++;
        at++;
    }
    return count;
}

static bool is_within_limits(struct slice topic) {
    return topic.size > 0 && topic.size <= LIMIT_MQTT_TOPIC_BYTES &&
           mqtt_topic_level_count(topic) <= LIMIT_MQTT_TOPIC_LEVELS;
}

bool mqtt_topic_name_is_valid(struct slice topic) {
    return is_within_limits(topic) && mqtt_topic_scan(topic) == TOPIC_PLAIN;
}

/* A wildcard stands alone between separators, '#' only at the end (MQTT5 4.7.1-1, 4.7.1-2). */
enum mqtt_fault_id mqtt_filter_fault(struct slice filter) {
    if (filter.size == 0)
        return FAULT_FILTER_EMPTY;
    for (size_t i = 0; i < filter.size; i++) {
        uint8_t byte = filter.data[i];
        if (byte != '#' && byte != '+')
            continue;
        bool starts = i == 0 || filter.data[i - 1] == '/';
        bool ends = i + 1 == filter.size;
        if (byte == '#' && !(starts && ends))
            return FAULT_FILTER_MULTI_LEVEL;
        if (byte == '+' && !(starts && (ends || filter.data[i + 1] == '/')))
            return FAULT_FILTER_SINGLE_LEVEL;
    }
    return MQTT_FAULT_COUNT;
}

enum mqtt_fault_id mqtt_share_fault(struct slice filter, bool *ret_shared) {
    *ret_shared = slice_starts_with(filter, "$share/");
    if (!*ret_shared)
        return MQTT_FAULT_COUNT;
    struct slice rest = slice_skip(filter, strlen("$share/"));
    const uint8_t *slash = rest.size > 0 ? memchr(rest.data, '/', rest.size) : NULL;
    if (slash == NULL || slash == rest.data || slash + 1 == rest.data + rest.size)
        return FAULT_SHARE_NAME;
    if (has_wildcard(slice_make(rest.data, (size_t)(slash - rest.data))))
        return FAULT_SHARE_NAME_WILDCARD;
    return MQTT_FAULT_COUNT;
}

bool mqtt_topic_filter_is_valid(struct slice filter) {
    return is_within_limits(filter) && utf8_is_valid(filter.data, filter.size) &&
           mqtt_filter_fault(filter) == MQTT_FAULT_COUNT;
}

/* The level at the front; *rest is what follows its '/', data NULL when it was the last one. */
static struct slice take_level(struct slice *rest) {
    const uint8_t *slash = rest->size > 0 ? memchr(rest->data, '/', rest->size) : NULL;
    struct slice level = slash ? slice_make(rest->data, (size_t)(slash - rest->data)) : *rest;
    *rest = slash ? slice_skip(*rest, level.size + 1) : slice_make(NULL, 0);
    return level;
}

bool mqtt_topic_matches(struct slice filter, struct slice topic) {
    bool wild = filter.size > 0 && (filter.data[0] == '+' || filter.data[0] == '#');
    if (wild && topic.size > 0 && topic.data[0] == '$')
        return false;
    while (filter.data && topic.data) {
        struct slice wanted = take_level(&filter);
        if (slice_equals_string(wanted, "#"))
            return true;
        struct slice level = take_level(&topic);
        if (!slice_equals_string(wanted, "+") && !slice_equals(wanted, level))
            return false;
    }
    /* "a/#" fits "a" too (4.7.1.2) */
    return !topic.data && (!filter.data || slice_equals_string(filter, "#"));
}
