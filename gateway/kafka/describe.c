/*
 * DescribeConfigs, DescribeCluster: what administrators' tools show of a topic and of the gateway.
 * Everything is read-only here, so the values are a table; those that an operator sets come from
 * the gateway's own configuration and say so.
 */
#include <inttypes.h>
#include <stdio.h>

#include "gateway/kafka/session.h"

/* The protocol's numbers. */
enum resource_type { RESOURCE_TOPIC = 2, RESOURCE_BROKER = 4 };
enum entry_source { SOURCE_STATIC_BROKER = 4, SOURCE_DEFAULT = 5 };
enum entry_type { BOOLEAN = 1, STRING = 2, INT = 3, LONG = 5, LIST = 7 };
enum { ENDPOINT_IS_A_BROKER = 1, OPERATIONS_UNSET = INT32_MIN };
enum { FIRST_VERSION_WITH_DOCUMENTATION = 3, FIRST_VERSION_WITH_ENDPOINT_TYPE = 1 };

enum { VALUE_SIZE = 24 };

#define TEXT(value) .text = (value)
#define NUMBER(value) .number = (value)
#define SETTING(member, zero) \
    .is_setting = true, .setting = offsetof(struct config, member), .when_zero = (zero)

static const struct row {
    const char *topic_name;  /* NULL: topics have no such key */
    const char *broker_name; /* ... of the broker; for topics a synonym */
    enum entry_type type;
    const char *documentation;
    const char *text; /* NULL: a number */
    int64_t number;
    bool is_setting; /* of the gateway's configuration, a uint64_t */
    size_t setting;
    int64_t when_zero; /* how the protocol says what is 0 there */
} rows[] = {
    {"cleanup.policy", "log.cleanup.policy", LIST, "whole segments are deleted, the oldest first",
     TEXT("delete")},
    {"compression.type", "compression.type", STRING, "batches are given out as they are stored",
     TEXT("producer")},
    {"max.message.bytes", "message.max.bytes", INT, "the largest batch that is stored",
     NUMBER(LIMIT_UNIT_BYTES)},
    {"message.timestamp.type", "log.message.timestamp.type", STRING,
     "when the gateway received the event; never decreases", TEXT("CreateTime")},
    {"min.insync.replicas", "min.insync.replicas", INT, "there is one replica", NUMBER(1)},
    {"retention.bytes", "log.retention.bytes", LONG, "what a partition keeps; -1: no limit",
     SETTING(storage_retention_bytes, -1)},
    {"retention.ms", "log.retention.ms", LONG, "how long events are kept; -1: for ever",
     SETTING(storage_retention_time, -1)},
    {"segment.bytes", "log.segment.bytes", INT, "a segment file is closed at this size",
     SETTING(storage_segment_size, 0)},
    {"segment.ms", "log.roll.ms", LONG, "... or at this age", SETTING(storage_segment_age, 0)},
    {NULL, "auto.create.topics.enable", BOOLEAN, "topics come with their tenant", TEXT("false")},
    {NULL, "broker.id", INT, "the only one", NUMBER(KAFKA_NODE_ID)},
    {NULL, "connections.max.idle.ms", LONG, "a connection without a request is closed after it",
     SETTING(kafka_idle_timeout, 0)},
    {NULL, "default.replication.factor", INT, "there is one replica", NUMBER(1)},
    {NULL, "delete.topic.enable", BOOLEAN, "topics go with their tenant", TEXT("false")},
    {NULL, "fetch.max.bytes", INT, "the largest answer to one Fetch",
     NUMBER(LIMIT_KAFKA_FETCH_BYTES)},
    {NULL, "group.max.session.timeout.ms", INT, "the longest session of a member",
     NUMBER(LIMIT_KAFKA_SESSION_MS_MAX)},
    {NULL, "group.max.size", INT, "the most members of a group", NUMBER(LIMIT_KAFKA_GROUP_MEMBERS)},
    {NULL, "group.min.session.timeout.ms", INT, "the shortest session of a member",
     NUMBER(LIMIT_KAFKA_SESSION_MS_MIN)},
    {NULL, "offset.metadata.max.bytes", INT, "the most metadata of a committed offset",
     NUMBER(LIMIT_KAFKA_OFFSET_METADATA_BYTES)},
};
enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

/* ---- one entry ---- */

static bool fill_value(struct kafka_call *call, const struct row *row, struct slice *ret_value) {
    if (row->text) {
        *ret_value = slice_from_string(row->text);
        return true;
    }
    int64_t number = row->number;
    if (row->is_setting) {
        uint64_t set;
        memcpy(&set, (const char *)call->session->worker->worker->config + row->setting,
               sizeof(set));
        number = set == 0 ? row->when_zero : (int64_t)set;
    }
    char *text = kafka_arena_take(&call->arena, VALUE_SIZE);
    if (!text)
        return false;
    *ret_value = slice_make(text, (size_t)snprintf(text, VALUE_SIZE, "%" PRId64, number));
    return true;
}

static bool fill_entry(struct kafka_call *call, const struct row *row, const char *name,
                       const struct kafka_describe_configs_request *r,
                       struct kafka_config_entry *ret_entry) {
    struct kafka_config_entry entry = {
        .name = slice_from_string(name),
        .read_only = true,
        .source = row->is_setting ? SOURCE_STATIC_BROKER : SOURCE_DEFAULT,
        .type = (int8_t)row->type,
    };
    if (!fill_value(call, row, &entry.value))
        return false;
    if (r->documentation && call->header.version >= FIRST_VERSION_WITH_DOCUMENTATION)
        entry.documentation = slice_from_string(row->documentation);
    if (r->synonyms) {
        if (!kafka_take_items(call, &entry.synonyms, 1, sizeof(struct kafka_config_synonym)))
            return false;
        *(struct kafka_config_synonym *)entry.synonyms.items = (struct kafka_config_synonym){
            slice_from_string(row->broker_name), entry.value, entry.source};
    }
    *ret_entry = entry;
    return true;
}

/* ---- one resource ---- */

static bool is_asked(const struct kafka_config_resource *resource, const char *name) {
    for (uint32_t i = 0; i < resource->keys.count; i++)
        if (slice_equals_string(((const struct slice *)resource->keys.items)[i], name))
            return true;
    return resource->keys.is_null;
}

static bool fill_entries(struct kafka_call *call, const struct kafka_describe_configs_request *r,
                         const struct kafka_config_resource *resource,
                         struct kafka_config_result *result) {
    if (!kafka_take_items(call, &result->entries, ROW_COUNT, sizeof(struct kafka_config_entry)))
        return false;
    struct kafka_config_entry *entries = result->entries.items;
    result->entries.count = 0;
    for (unsigned i = 0; i < ROW_COUNT; i++) {
        const char *name =
            resource->type == RESOURCE_TOPIC ? rows[i].topic_name : rows[i].broker_name;
        if (name && is_asked(resource, name) &&
            !fill_entry(call, &rows[i], name, r, &entries[result->entries.count++]))
            return false;
    }
    return true;
}

/* Whether the session may ask about it: 0, or an error and what is wrong. */
static int16_t check_resource(const struct kafka_session *session,
                              const struct kafka_config_resource *resource, const char **ret_why) {
    char id[VALUE_SIZE];
    struct kafka_topic_ref topic;
    snprintf(id, sizeof(id), "%d", KAFKA_NODE_ID);
    int16_t error = KAFKA_ERROR_INVALID_REQUEST;
    if (resource->keys.count > LIMIT_KAFKA_DESCRIBED_KEYS) {
        *ret_why = "too many keys are named";
    } else if (resource->type == RESOURCE_TOPIC) {
        error = kafka_topic_by_name(session, resource->name, &topic);
        *ret_why = error ? "no such topic for this key" : NULL;
    } else if (resource->type != RESOURCE_BROKER) {
        *ret_why = "only topics and the broker have a configuration here";
    } else if (!slice_equals_string(resource->name, id)) {
        *ret_why = "the only broker is 1";
    } else {
        error = 0;
    }
    return error;
}

static bool fill_result(struct kafka_call *call, const struct kafka_describe_configs_request *r,
                        const struct kafka_config_resource *resource,
                        struct kafka_config_result *ret_result) {
    const char *why = NULL;
    *ret_result = (struct kafka_config_result){
        .error = check_resource(call->session, resource, &why),
        .type = resource->type,
        .name = resource->name,
    };
    if (why)
        ret_result->message = slice_from_string(why);
    return ret_result->error != 0 || fill_entries(call, r, resource, ret_result);
}

int kafka_handle_describe_configs(struct kafka_call *call, const void *request) {
    const struct kafka_describe_configs_request *r = request;
    struct kafka_describe_configs_response response = {0};
    if (r->resources.count > LIMIT_KAFKA_DESCRIBED_CONFIGS ||
        !kafka_take_items(call, &response.results, r->resources.count,
                          sizeof(struct kafka_config_result)))
        return DG_ERR_LIMIT;
    const struct kafka_config_resource *resources = r->resources.items;
    struct kafka_config_result *results = response.results.items;
    for (uint32_t i = 0; i < r->resources.count; i++)
        if (!fill_result(call, r, &resources[i], &results[i]))
            return DG_ERR_LIMIT;
    return kafka_answer(call, &response);
}

/* ---- DescribeCluster ---- */

int kafka_handle_describe_cluster(struct kafka_call *call, const void *request) {
    static const char no_controllers[] = "there are no controllers to connect to; this is a broker";
    const struct kafka_describe_cluster_request *r = request;
    struct kafka_broker broker;
    kafka_fill_broker(call->session, &broker);
    struct kafka_describe_cluster_response response = {
        .endpoint_type = ENDPOINT_IS_A_BROKER,
        .cluster_id = slice_from_string(KAFKA_CLUSTER_ID),
        .controller = KAFKA_NODE_ID,
        .brokers = {.items = &broker, .count = 1},
        .operations = OPERATIONS_UNSET,
    };
    if (call->header.version >= FIRST_VERSION_WITH_ENDPOINT_TYPE &&
        r->endpoint_type != ENDPOINT_IS_A_BROKER) {
        response.error = KAFKA_ERROR_UNSUPPORTED_ENDPOINT;
        response.message = slice_from_string(no_controllers);
        response.brokers.count = 0;
    }
    return kafka_answer(call, &response);
}
