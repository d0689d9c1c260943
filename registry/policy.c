#include "registry/policy.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"

enum { POINTER_SIZE = 192 };

struct policy_reader {
    enum registry_policy_reading reading;
    char pointer[POINTER_SIZE]; /* of the value that is being read */
    char *detail;
    size_t detail_size;
};

/* A member of an object: what it is called and what reads it into `into`. */
struct policy_member {
    const char *name;
    int (*read)(struct policy_reader *reader, const json_t *value, void *into);
    size_t offset; /* in the structure that is being filled */
};

static int refuse(struct policy_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int refuse(struct policy_reader *reader, const char *format, ...) {
    int size = snprintf(reader->detail, reader->detail_size, "%s: ", reader->pointer);
    if (size > 0 && (size_t)size < reader->detail_size) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(reader->detail + size, reader->detail_size - (size_t)size, format, arguments);
        va_end(arguments);
    }
    return DG_ERR_INVALID;
}

/* Goes down one level; the return value takes the reader back up. */
static size_t descend(struct policy_reader *reader, const char *name) {
    size_t end = strlen(reader->pointer);
    snprintf(reader->pointer + end, sizeof(reader->pointer) - end, "/%s", name);
    return end;
}

static const struct policy_member *find_member(const struct policy_member *members,
                                               const char *name) {
    for (; members->name; members++)
        if (strcmp(members->name, name) == 0)
            return members;
    return NULL;
}

/* Reads the members of an object by their table, each into its place in `into`. */
static int read_members(struct policy_reader *reader, const json_t *object,
                        const struct policy_member *members, void *into) {
    const char *name;
    json_t *value;
    if (!json_is_object(object))
        return refuse(reader, "must be an object");
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        const struct policy_member *member = find_member(members, name);
        size_t above = descend(reader, name);
        int err = 0;
        if (member)
            err = member->read(reader, value, (char *)into + member->offset);
        else if (reader->reading == REGISTRY_POLICY_STRICT)
            err = refuse(reader, "is not a member that is known here");
        if (err < 0)
            return err;
        reader->pointer[above] = '\0';
    }
    return 0;
}

/* ---- quotas ---- */

static int read_rate(struct policy_reader *reader, const json_t *value, void *into) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > LIMIT_QUOTA)
        return refuse(reader, "must be an integer from 0 (no limit) to %" PRId64,
                      (int64_t)LIMIT_QUOTA);
    *(uint64_t *)into = (uint64_t)json_integer_value(value);
    return 0;
}

#define RATE(name) \
    { #name, read_rate, offsetof(struct registry_quota, name) }
static const struct policy_member rate_members[] = {
    RATE(messages_per_second),
    RATE(bytes_per_second),
    {NULL},
};
static const struct policy_member tenant_quota_members[] = {
    RATE(messages_per_second),
    RATE(bytes_per_second),
    RATE(connections),
    {NULL},
};
#undef RATE

static int read_quota(struct policy_reader *reader, const json_t *value, void *into) {
    return read_members(reader, value, rate_members, into);
}

/* ---- groups ---- */

static int read_group_device_quota(struct policy_reader *reader, const json_t *value, void *into) {
    struct registry_group *group = into;
    group->has_device_quota = true;
    return read_quota(reader, value, &group->device_quota);
}

static const struct policy_member group_members[] = {
    {"quota", read_quota, offsetof(struct registry_group, quota)},
    {"device_quota", read_group_device_quota, 0},
    {NULL},
};

static bool is_group_name(const char *name) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(name);
    return size > 0 && size <= LIMIT_GROUP_NAME_BYTES && strspn(name, letters) == size;
}

static int read_groups(struct policy_reader *reader, const json_t *value, void *into) {
    struct registry_policy *policy = into;
    const char *name;
    json_t *item;
    if (!json_is_object(value))
        return refuse(reader, "must be an object");
    if (json_object_size(value) > LIMIT_POLICY_GROUPS)
        return refuse(reader, "has more than %d groups", LIMIT_POLICY_GROUPS);
    policy->groups = calloc(json_object_size(value) + 1, sizeof(*policy->groups));
    if (!policy->groups)
        return DG_ERR_NO_MEMORY;
    json_object_foreach((json_t *)(uintptr_t)value, name, item) {
        struct registry_group *group = &policy->groups[policy->group_count];
        size_t above = descend(reader, name);
        if (!is_group_name(name))
            return refuse(reader, "the name must be 1 to %d of A-Z a-z 0-9 . _ -",
                          LIMIT_GROUP_NAME_BYTES);
        int err = read_members(reader, item, group_members, group);
        if (err < 0)
            return err;
        snprintf(group->name, sizeof(group->name), "%s", name);
        policy->group_count++;
        reader->pointer[above] = '\0';
    }
    return 0;
}

/* ---- quarantine ---- */

static int read_pattern(struct policy_reader *reader, const json_t *value, void *into) {
    char **pattern = into;
    size_t size = json_string_length(value);
    if (!json_is_string(value) || size == 0 || size > LIMIT_MQTT_TOPIC_BYTES)
        return refuse(reader, "must be a topic filter of 1 to %d bytes", LIMIT_MQTT_TOPIC_BYTES);
    free(*pattern);
    *pattern = strdup(json_string_value(value));
    return *pattern ? 0 : DG_ERR_NO_MEMORY;
}

static int read_content(struct policy_reader *reader, const json_t *value, void *into) {
    static const char *const names[] = {
        [REGISTRY_CONTENT_UTF8] = "utf8", [REGISTRY_CONTENT_JSON] = "json"};
    const char *name = json_string_value(value);
    for (unsigned i = REGISTRY_CONTENT_UTF8; name && i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            *(enum registry_content *)into = (enum registry_content)i;
            return 0;
        }
    return refuse(reader, "must be \"json\" or \"utf8\"");
}

static int read_max_bytes(struct policy_reader *reader, const json_t *value, void *into) {
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > LIMIT_EVENT_PAYLOAD_BYTES)
        return refuse(reader, "must be an integer from 1 to %d", LIMIT_EVENT_PAYLOAD_BYTES);
    *(uint64_t *)into = (uint64_t)json_integer_value(value);
    return 0;
}

static const struct policy_member rule_members[] = {
    {"pattern", read_pattern, offsetof(struct registry_quarantine_rule, pattern)},
    {"require", read_content, offsetof(struct registry_quarantine_rule, require)},
    {"max_bytes", read_max_bytes, offsetof(struct registry_quarantine_rule, max_bytes)},
    {NULL},
};

static int read_rule(struct policy_reader *reader, const json_t *value,
                     struct registry_quarantine_rule *rule) {
    int err = read_members(reader, value, rule_members, rule);
    bool asks = rule->require != REGISTRY_CONTENT_ANY || rule->max_bytes > 0;
    return err == 0 && !(rule->pattern && asks)
               ? refuse(reader, "needs a pattern, and require or max_bytes")
               : err;
}

static int read_quarantine(struct policy_reader *reader, const json_t *value, void *into) {
    struct registry_policy *policy = into;
    size_t index;
    json_t *item;
    if (!json_is_array(value) || json_array_size(value) > LIMIT_POLICY_RULES)
        return refuse(reader, "must be a list of at most %d rules", LIMIT_POLICY_RULES);
    policy->quarantine = calloc(json_array_size(value) + 1, sizeof(*policy->quarantine));
    if (!policy->quarantine)
        return DG_ERR_NO_MEMORY;
    json_array_foreach(value, index, item) {
        char number[24];
        snprintf(number, sizeof(number), "%zu", index);
        size_t above = descend(reader, number);
        int err = read_rule(reader, item, &policy->quarantine[policy->quarantine_count++]);
        if (err < 0)
            return err;
        reader->pointer[above] = '\0';
    }
    return 0;
}

/* ---- topic map ---- */

static struct slice text_of(const json_t *value) {
    return slice_make(json_string_value(value), json_string_length(value));
}

static int refuse_unless_memory(struct policy_reader *reader, int err, const char *why) {
    return err == DG_ERR_INVALID ? refuse(reader, "%s", why) : err;
}

struct pattern_texts {
    const json_t *pattern, *kind;
};

static int read_map_text(struct policy_reader *reader, const json_t *value, void *into) {
    if (!json_is_string(value))
        return refuse(reader, "must be a string");
    *(const json_t **)into = value;
    return 0;
}

static const struct policy_member pattern_members[] = {
    {"pattern", read_map_text, offsetof(struct pattern_texts, pattern)},
    {"kind", read_map_text, offsetof(struct pattern_texts, kind)},
    {NULL},
};

static int read_map_pattern(struct policy_reader *reader, const json_t *value,
                            struct topic_map *map) {
    struct pattern_texts texts = {NULL};
    const char *why;
    int err = read_members(reader, value, pattern_members, &texts);
    if (err < 0)
        return err;
    if (!texts.pattern || !texts.kind)
        return refuse(reader, "must have pattern and kind");
    err = topic_map_add(map, text_of(texts.pattern), text_of(texts.kind), &why);
    return refuse_unless_memory(reader, err, why);
}

static int read_map_patterns(struct policy_reader *reader, const json_t *value, void *into) {
    size_t index;
    json_t *item;
    if (!json_is_array(value))
        return refuse(reader, "must be a list");
    json_array_foreach((json_t *)(uintptr_t)value, index, item) {
        char number[24];
        snprintf(number, sizeof(number), "%zu", index);
        size_t above = descend(reader, number);
        int err = read_map_pattern(reader, item, *(struct topic_map **)into);
        if (err < 0)
            return err;
        reader->pointer[above] = '\0';
    }
    return 0;
}

static int read_topic_out(struct policy_reader *reader, const json_t *value, struct topic_map *map,
                          enum topic_map_out out) {
    const char *why;
    if (!json_is_string(value))
        return refuse(reader, "must be a string");
    int err = topic_map_set_out(map, out, text_of(value), &why);
    return refuse_unless_memory(reader, err, why);
}

static int read_topics_out(struct policy_reader *reader, const json_t *value, void *into) {
    const char *name;
    json_t *item;
    if (!json_is_object(value))
        return refuse(reader, "must be an object");
    json_object_foreach((json_t *)(uintptr_t)value, name, item) {
        size_t above = descend(reader, name);
        unsigned out = 0;
        int err = 0;
        while (topic_map_out_names[out] && strcmp(topic_map_out_names[out], name) != 0)
            out++;
        if (out < TOPIC_OUT_COUNT)
            err = read_topic_out(reader, item, *(struct topic_map **)into, (enum topic_map_out)out);
        else if (reader->reading == REGISTRY_POLICY_STRICT)
            err = refuse(reader, "is not a member that is known here");
        if (err < 0)
            return err;
        reader->pointer[above] = '\0';
    }
    return 0;
}

static const struct policy_member topic_map_members[] = {
    {"in", read_map_patterns, offsetof(struct registry_policy, topic_map)},
    {"out", read_topics_out, offsetof(struct registry_policy, topic_map)},
    {NULL},
};

static int read_topic_map(struct policy_reader *reader, const json_t *value, void *into) {
    struct registry_policy *policy = into;
    policy->topic_map = topic_map_new();
    if (!policy->topic_map)
        return DG_ERR_NO_MEMORY;
    return read_members(reader, value, topic_map_members, policy);
}

/* ---- the whole ---- */

static const struct policy_member policy_members[] = {
    {"device_quota", read_quota, offsetof(struct registry_policy, device_quota)},
    {"groups", read_groups, 0},
    {"quarantine", read_quarantine, 0},
    {"topic_map", read_topic_map, 0},
    {NULL},
};

static int read_text(struct policy_reader *reader, const char *pointer, struct slice text,
                     const struct policy_member *members, void *into) {
    json_error_t error;
    if (text.size == 0)
        return 0;
    snprintf(reader->pointer, sizeof(reader->pointer), "%s", pointer);
    json_t *object = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return refuse(reader, "%s", error.text);
    int err = read_members(reader, object, members, into);
    json_decref(object);
    return err;
}

int registry_policy_parse(struct slice quota, struct slice policy, int64_t version,
                          enum registry_policy_reading reading, struct registry_policy **ret_policy,
                          char *ret_detail, size_t detail_size) {
    struct registry_policy *made = calloc(1, sizeof(*made));
    if (!made)
        return DG_ERR_NO_MEMORY;
    made->references = 1;
    made->version = version;
    struct policy_reader reader = {
        .reading = reading, .detail = ret_detail, .detail_size = detail_size};
    int err = read_text(&reader, "/quota", quota, tenant_quota_members, &made->quota);
    if (err == 0)
        err = read_text(&reader, "", policy, policy_members, made);
    if (err < 0) {
        registry_policy_release(made);
        return err;
    }
    *ret_policy = made;
    return 0;
}

struct registry_policy *registry_policy_keep(struct registry_policy *policy) {
    if (policy)
        __atomic_add_fetch(&policy->references, 1, __ATOMIC_RELAXED);
    return policy;
}

void registry_policy_release(struct registry_policy *policy) {
    if (!policy)
        return;
    dg_assert(__atomic_load_n(&policy->references, __ATOMIC_RELAXED) > 0);
    if (__atomic_sub_fetch(&policy->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (unsigned i = 0; i < policy->quarantine_count; i++)
        free(policy->quarantine[i].pattern);
    free(policy->quarantine);
    free(policy->groups);
    topic_map_free(policy->topic_map);
    free(policy);
}

const struct registry_group *registry_policy_group(const struct registry_policy *policy,
                                                   struct slice name) {
    for (unsigned i = 0; policy && i < policy->group_count; i++)
        if (slice_equals_string(name, policy->groups[i].name))
            return &policy->groups[i];
    return NULL;
}
