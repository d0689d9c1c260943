#include "registry/topic_map.h"

#include <stdlib.h>

#include "common/assert.h"

/* What a level is: one of these, or LEVEL_NAME + enum topic_map_name. */
enum { LEVEL_LITERAL, LEVEL_ANY, LEVEL_REST, LEVEL_NAME };

struct level {
    uint8_t is;
    uint16_t at, size; /* in the text */
};

struct pattern {
    char *text; /* owned */
    uint8_t kind;
    uint8_t names; /* bits of enum topic_map_name */
    uint8_t level_count;
    struct level levels[LIMIT_MQTT_TOPIC_LEVELS];
};

struct topic_map {
    struct pattern *in; /* owned */
    unsigned in_count;
    struct pattern out[TOPIC_OUT_COUNT]; /* level_count 0: not set */
};

enum {
    DEVICE = 1 << TOPIC_NAME_DEVICE,
    ID = 1 << TOPIC_NAME_ID,
    STATUS = 1 << TOPIC_NAME_STATUS,
    NAME = 1 << TOPIC_NAME_NAME,
};

static const char *const name_texts[TOPIC_NAME_COUNT] = {
    [TOPIC_NAME_DEVICE] = "{device}",
    [TOPIC_NAME_ID] = "{id}",
    [TOPIC_NAME_STATUS] = "{status}",
    [TOPIC_NAME_NAME] = "{name}",
};

/* Which names a text must and may have, and what is said when it does not. */
struct rule {
    const char *kind; /* of patterns */
    uint8_t needs, allows;
    bool needs_rest;
    const char *why;
};

static const struct rule in_rules[TOPIC_MAP_KIND_COUNT] = {
    [TOPIC_MAP_TELEMETRY] = {"telemetry", 0, DEVICE, false, "may have no name but {device}"},
    [TOPIC_MAP_EVENT] = {"event", 0, DEVICE, false, "may have no name but {device}"},
    [TOPIC_MAP_REPLY] = {"reply", ID | STATUS, DEVICE | ID | STATUS, false,
                         "must have the levels {id} and {status}, and may have {device}"},
    [TOPIC_MAP_STATE_REPORTED] = {"state_reported", 0, DEVICE, false,
                                  "may have no name but {device}"},
    [TOPIC_MAP_VIA] = {"via", DEVICE, DEVICE, true,
                       "must have the level {device}, no other name, and end with /#"},
};

static const struct rule out_rules[TOPIC_OUT_COUNT] = {
    [TOPIC_OUT_COMMAND] = {NULL, ID, ID | NAME, false,
                           "must have the level {id}, and may have {name}"},
    [TOPIC_OUT_STATE_DESIRED] = {NULL, 0, 0, false, "may have no names"},
    [TOPIC_OUT_VIA_COMMAND] = {NULL, DEVICE | ID, DEVICE | ID | NAME, false,
                               "must have the levels {device} and {id}, and may have {name}"},
    [TOPIC_OUT_VIA_STATE_DESIRED] = {NULL, DEVICE, DEVICE, false,
                                     "must have the level {device}, and no other name"},
};

const char *const topic_map_out_names[TOPIC_OUT_COUNT + 1] = {
    [TOPIC_OUT_COMMAND] = "command",
    [TOPIC_OUT_STATE_DESIRED] = "state_desired",
    [TOPIC_OUT_VIA_COMMAND] = "via_command",
    [TOPIC_OUT_VIA_STATE_DESIRED] = "via_state_desired",
};

/* ---- levels ---- */

/* Splits off what stands before the next '/'; false when that was the last level. */
static bool next_level(struct slice *rest, struct slice *ret_level) {
    const uint8_t *slash = rest->size > 0 ? memchr(rest->data, '/', rest->size) : NULL;
    size_t size = slash ? (size_t)(slash - rest->data) : rest->size;
    *ret_level = slice_make(rest->data, size);
    *rest = slice_skip(*rest, slash ? size + 1 : size);
    return slash != NULL;
}

/* How many there are; 0: more than LIMIT_MQTT_TOPIC_LEVELS. */
static unsigned split(struct slice topic, struct slice levels[LIMIT_MQTT_TOPIC_LEVELS]) {
    unsigned count = 0;
    bool more = true;
    while (more && count < LIMIT_MQTT_TOPIC_LEVELS)
        more = next_level(&topic, &levels[count++]);
    return more ? 0 : count;
}

static bool is_plain(struct slice level) {
    static const char special[] = "+#{}"; /* and NUL, which no topic has: MQTT5 1.5.4-2 */
    for (size_t i = 0; i < level.size; i++)
        if (memchr(special, level.data[i], sizeof(special)))
            return false;
    return true;
}

/* ---- reading a pattern ---- */

/* What a level is; -1 and why. */
static int read_level(struct slice level, const char **ret_why) {
    if (is_plain(level))
        return LEVEL_LITERAL;
    if (slice_equals_string(level, "+"))
        return LEVEL_ANY;
    if (slice_equals_string(level, "#"))
        return LEVEL_REST;
    for (int name = 0; name < TOPIC_NAME_COUNT; name++)
        if (slice_equals_string(level, name_texts[name]))
            return LEVEL_NAME + name;
    *ret_why = "+, # and names in braces stand for a whole level; names are {device}, {id}, "
               "{status} and, of commands, {name}";
    return -1;
}

static int read_levels(struct pattern *pattern, struct slice text, const char **ret_why) {
    struct slice levels[LIMIT_MQTT_TOPIC_LEVELS];
    unsigned count = split(text, levels);
    if (count == 0) {
        *ret_why = "has more levels than topics may have";
        return DG_ERR_INVALID;
    }
    for (unsigned i = 0; i < count; i++) {
        int is = read_level(levels[i], ret_why);
        if (is < 0)
            return DG_ERR_INVALID;
        uint8_t bit = is < LEVEL_NAME ? 0 : (uint8_t)(1 << (is - LEVEL_NAME));
        if ((is == LEVEL_REST && i + 1 < count) || (pattern->names & bit) != 0) {
            *ret_why = bit ? "has a name twice" : "# must be the last level";
            return DG_ERR_INVALID;
        }
        pattern->names |= bit;
        pattern->levels[i] = (struct level){.is = (uint8_t)is,
                                            .at = (uint16_t)(levels[i].data - text.data),
                                            .size = (uint16_t)levels[i].size};
    }
    pattern->level_count = (uint8_t)count;
    return 0;
}

static bool keeps_rule(const struct pattern *pattern, const struct rule *rule) {
    bool has_rest = pattern->levels[pattern->level_count - 1].is == LEVEL_REST;
    return (pattern->names & rule->needs) == rule->needs && (pattern->names & ~rule->allows) == 0 &&
           (has_rest || !rule->needs_rest);
}

static int read_pattern(struct pattern *pattern, struct slice text, const struct rule *rule,
                        const char **ret_why) {
    *pattern = (struct pattern){.text = NULL};
    if (text.size == 0 || text.size > LIMIT_MQTT_TOPIC_BYTES) {
        *ret_why = "is empty, or longer than topics may be";
        return DG_ERR_INVALID;
    }
    if (text.data[0] == '$') {
        *ret_why = "may not begin with $: those topics keep their own meaning";
        return DG_ERR_INVALID;
    }
    int err = read_levels(pattern, text, ret_why);
    if (err < 0)
        return err;
    if (!keeps_rule(pattern, rule)) {
        *ret_why = rule->why;
        return DG_ERR_INVALID;
    }
    pattern->text = strndup((const char *)text.data, text.size);
    return pattern->text ? 0 : DG_ERR_NO_MEMORY;
}

/* ---- making ---- */

struct topic_map *topic_map_new(void) {
    return calloc(1, sizeof(struct topic_map));
}

void topic_map_free(struct topic_map *map) {
    if (!map)
        return;
    for (unsigned i = 0; i < map->in_count; i++)
        free(map->in[i].text);
    for (unsigned i = 0; i < TOPIC_OUT_COUNT; i++)
        free(map->out[i].text);
    free(map->in);
    free(map);
}

static int find_kind(struct slice kind) {
    for (int i = 0; i < TOPIC_MAP_KIND_COUNT; i++)
        if (slice_equals_string(kind, in_rules[i].kind))
            return i;
    return -1;
}

int topic_map_add(struct topic_map *map, struct slice pattern, struct slice kind,
                  const char **ret_why) {
    int found = find_kind(kind);
    if (found < 0 || map->in_count == LIMIT_TOPIC_PATTERNS) {
        *ret_why = found < 0 ? "kind must be telemetry, event, reply, state_reported or via"
                             : "has too many patterns";
        return DG_ERR_INVALID;
    }
    struct pattern *grown = realloc(map->in, (map->in_count + 1) * sizeof(*grown));
    if (!grown)
        return DG_ERR_NO_MEMORY;
    map->in = grown;
    struct pattern *added = &map->in[map->in_count];
    int err = read_pattern(added, pattern, &in_rules[found], ret_why);
    if (err < 0)
        return err;
    added->kind = (uint8_t)found;
    map->in_count++;
    return 0;
}

/* A topic to be published to has nothing open, and a first level that tells it from others. */
static bool is_template(const struct pattern *pattern) {
    bool open = pattern->levels[0].is != LEVEL_LITERAL || pattern->levels[0].size == 0;
    for (unsigned i = 0; i < pattern->level_count; i++)
        open |= pattern->levels[i].is == LEVEL_ANY || pattern->levels[i].is == LEVEL_REST;
    return !open;
}

int topic_map_set_out(struct topic_map *map, enum topic_map_out out, struct slice text,
                      const char **ret_why) {
    struct pattern pattern;
    int err = read_pattern(&pattern, text, &out_rules[out], ret_why);
    if (err < 0)
        return err;
    if (!is_template(&pattern)) {
        *ret_why = "is a topic: no + and no #, and the first level is a plain one";
        free(pattern.text);
        return DG_ERR_INVALID;
    }
    free(map->out[out].text);
    map->out[out] = pattern;
    return 0;
}

/* ---- what a topic means ---- */

static bool is_literal(const struct pattern *pattern, const struct level *level,
                       struct slice text) {
    return text.size == level->size && memcmp(text.data, pattern->text + level->at, text.size) == 0;
}

/* The order of the tests is that of how often they say no. */
static bool matches(const struct pattern *pattern, const struct slice *levels, unsigned count) {
    unsigned i = 0;
    for (; i < pattern->level_count; i++) {
        const struct level *level = &pattern->levels[i];
        if (level->is == LEVEL_REST) /* the parent level too: MQTT5 4.7.1.2 */
            return pattern->kind != TOPIC_MAP_VIA ||
                   (i < count && (levels[i].size > 0 || i + 1 < count));
        if (i == count || (level->is == LEVEL_LITERAL && !is_literal(pattern, level, levels[i])) ||
            (level->is >= LEVEL_NAME && levels[i].size == 0))
            return false;
    }
    return i == count;
}

static void describe(const struct pattern *pattern, const struct slice *levels, unsigned count,
                     const uint8_t *end, struct topic_match *ret_match) {
    *ret_match = (struct topic_match){.kind = (enum topic_map_kind)pattern->kind};
    for (unsigned i = 0; i < pattern->level_count && i < count; i++) {
        uint8_t is = pattern->levels[i].is;
        if (is == LEVEL_REST)
            ret_match->rest = slice_make(levels[i].data, (size_t)(end - levels[i].data));
        else if (is >= LEVEL_NAME)
            ret_match->names[is - LEVEL_NAME] = levels[i];
    }
}

bool topic_map_find(const struct topic_map *map, struct slice topic, bool is_behind,
                    struct topic_match *ret_match) {
    struct slice levels[LIMIT_MQTT_TOPIC_LEVELS];
    unsigned count = split(topic, levels);
    if (count == 0 || topic.size == 0 || topic.data[0] == '$')
        return false;
    for (unsigned i = 0; i < map->in_count; i++) {
        const struct pattern *pattern = &map->in[i];
        if (!matches(pattern, levels, count) || (is_behind && pattern->names & DEVICE))
            continue;
        describe(pattern, levels, count, topic.data + topic.size, ret_match);
        return true;
    }
    return false;
}

/* ---- what devices are told ---- */

/* Whether a filter's level takes whatever stands there; the device is always named. */
static bool takes_level(const struct pattern *pattern, const struct level *level,
                        struct slice wanted, struct slice *ret_device) {
    if (level->is == LEVEL_LITERAL)
        return is_literal(pattern, level, wanted) || slice_equals_string(wanted, "+");
    if (level->is != LEVEL_NAME + TOPIC_NAME_DEVICE)
        return slice_equals_string(wanted, "+");
    if (wanted.size == 0 || !is_plain(wanted))
        return false;
    *ret_device = wanted;
    return true;
}

static bool takes_all(const struct pattern *pattern, const struct slice *wanted, unsigned count,
                      struct slice *ret_device) {
    struct slice device = slice_make(NULL, 0);
    unsigned same = 0;
    while (same < count && same < pattern->level_count &&
           (same > 0 || is_literal(pattern, &pattern->levels[0], wanted[0])) &&
           takes_level(pattern, &pattern->levels[same], wanted[same], &device))
        same++;
    bool whole = same == count && same == pattern->level_count;
    bool rest = same > 0 && same + 1 == count && slice_equals_string(wanted[same], "#");
    if (!(whole || rest) || (pattern->names & DEVICE && device.size == 0))
        return false;
    *ret_device = device;
    return true;
}

bool topic_map_takes_filter(const struct topic_map *map, struct slice filter,
                            enum topic_map_out *ret_out, struct slice *ret_device) {
    struct slice levels[LIMIT_MQTT_TOPIC_LEVELS];
    unsigned count = split(filter, levels);
    for (unsigned out = 0; count > 0 && out < TOPIC_OUT_COUNT; out++) {
        if (map->out[out].level_count == 0 || !takes_all(&map->out[out], levels, count, ret_device))
            continue;
        *ret_out = (enum topic_map_out)out;
        return true;
    }
    return false;
}

bool topic_map_write(const struct topic_map *map, enum topic_map_out out,
                     const struct slice names[TOPIC_NAME_COUNT], struct writer *w) {
    const struct pattern *pattern = &map->out[out];
    for (unsigned i = 0; i < pattern->level_count; i++) {
        const struct level *level = &pattern->levels[i];
        if (i > 0)
            writer_u8(w, '/');
        if (level->is == LEVEL_LITERAL)
            writer_bytes(w, pattern->text + level->at, level->size);
        else
            writer_slice(w, names[level->is - LEVEL_NAME]);
    }
    return pattern->level_count > 0;
}
