/*
 * A topic map made of a stranger's patterns, and topics and filters that it is asked about. Each
 * line of the input is one of them: its first byte says which (0-4: a pattern of this kind, 5-8: a
 * topic out, 9: a topic, anything else: a filter). What is taken is compared with a plain reading
 * of MQTT5 4.7, and what is written is asked about.
 */
#include "common/assert.h"
#include "registry/topic_map.h"

static const char *const kinds[] = {"telemetry", "event", "reply", "state_reported", "via"};

static bool is_inside(struct slice part, struct slice whole) {
    return part.size == 0 ||
           (part.data >= whole.data && part.data + part.size <= whole.data + whole.size);
}

static void ask(const struct topic_map *map, struct slice topic) {
    struct topic_match match;
    for (unsigned behind = 0; behind < 2; behind++) {
        if (!topic_map_find(map, topic, behind, &match))
            continue;
        dg_assert(topic.size > 0 && topic.data[0] != '$' && match.kind < TOPIC_MAP_KIND_COUNT);
        dg_assert(is_inside(match.rest, topic));
        for (unsigned i = 0; i < TOPIC_NAME_COUNT; i++) {
            dg_assert(is_inside(match.names[i], topic));
            dg_assert(match.names[i].size == 0 ||
                      memchr(match.names[i].data, '/', match.names[i].size) == NULL);
        }
        dg_assert(match.kind != TOPIC_MAP_VIA ||
                  (match.rest.size > 0 && match.names[TOPIC_NAME_DEVICE].size > 0));
        dg_assert(!behind || match.names[TOPIC_NAME_DEVICE].size == 0);
    }
}

/* A filter that takes all topics takes the one that is written, too. */
static void ask_filter(const struct topic_map *map, struct slice filter) {
    enum topic_map_out out;
    struct slice device;
    uint8_t bytes[2 * LIMIT_MQTT_TOPIC_BYTES];
    struct writer w = writer_make(bytes, sizeof(bytes));
    if (!topic_map_takes_filter(map, filter, &out, &device))
        return;
    dg_assert(is_inside(device, filter) && filter.size > 0 && filter.data[0] != '#');
    const struct slice names[TOPIC_NAME_COUNT] = {[TOPIC_NAME_DEVICE] = device,
                                                  [TOPIC_NAME_ID] = slice_from_string("7"),
                                                  [TOPIC_NAME_NAME] = slice_from_string("n")};
    dg_assert(topic_map_write(map, out, names, &w));
    struct topic_map *filters = topic_map_new();
    const char *why;
    struct topic_match match;
    if (!w.failed && topic_map_add(filters, filter, slice_from_string("event"), &why) == 0)
        dg_assert(topic_map_find(filters, slice_make(bytes, writer_size(&w)), false, &match));
    topic_map_free(filters);
}

static void take(struct topic_map *map, struct slice line) {
    const char *why = NULL;
    if (line.size == 0)
        return;
    unsigned what = line.data[0];
    struct slice text = slice_skip(line, 1);
    if (what < 5 && topic_map_add(map, text, slice_from_string(kinds[what]), &why) < 0)
        dg_assert(why != NULL);
    else if (what >= 5 && what < 9 &&
             topic_map_set_out(map, (enum topic_map_out)(what - 5), text, &why) < 0)
        dg_assert(why != NULL);
    else if (what == 9)
        ask(map, text);
    else if (what > 9)
        ask_filter(map, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct topic_map *map = topic_map_new();
    struct slice rest = slice_make(data, size);
    while (rest.size > 0) {
        const uint8_t *end = memchr(rest.data, '\n', rest.size);
        size_t line = end ? (size_t)(end - rest.data) : rest.size;
        take(map, slice_make(rest.data, line));
        rest = slice_skip(rest, end ? line + 1 : line);
    }
    topic_map_free(map);
    return 0;
}
