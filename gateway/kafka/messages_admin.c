/* The field rows of what administrators' tools ask beside groups. */
#include "gateway/kafka/messages_rows.h"

/* clang-format off */
static const struct kafka_field config_resource[] = {
    FIELD(kafka_config_resource, type, KAFKA_I8, 0, EVER, NEVER),
    FIELD(kafka_config_resource, name, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_config_resource, keys, KAFKA_STRING_ARRAY, 0, EVER, 0),
    END,
};
const struct kafka_field describe_configs_request[] = {
    ARRAY(kafka_describe_configs_request, resources,
          config_resource, kafka_config_resource, 0, EVER, NEVER),
    FIELD(kafka_describe_configs_request, synonyms, KAFKA_BOOL, 1, EVER, NEVER),
    FIELD(kafka_describe_configs_request, documentation, KAFKA_BOOL, 3, EVER, NEVER),
    END,
};
static const struct kafka_field config_synonym[] = {
    FIELD(kafka_config_synonym, name, KAFKA_STRING, 1, EVER, NEVER),
    FIELD(kafka_config_synonym, value, KAFKA_STRING, 1, EVER, 1),
    FIELD(kafka_config_synonym, source, KAFKA_I8, 1, EVER, NEVER),
    END,
};
static const struct kafka_field config_entry[] = {
    FIELD(kafka_config_entry, name, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_config_entry, value, KAFKA_STRING, 0, EVER, 0),
    FIELD(kafka_config_entry, read_only, KAFKA_BOOL, 0, EVER, NEVER),
    FIELD(kafka_config_entry, source, KAFKA_I8, 1, EVER, NEVER),
    FIELD(kafka_config_entry, sensitive, KAFKA_BOOL, 0, EVER, NEVER),
    ARRAY(kafka_config_entry, synonyms, config_synonym, kafka_config_synonym, 1, EVER, NEVER),
    FIELD(kafka_config_entry, type, KAFKA_I8, 3, EVER, NEVER),
    FIELD(kafka_config_entry, documentation, KAFKA_STRING, 3, EVER, 3),
    END,
};
static const struct kafka_field config_result[] = {
    FIELD(kafka_config_result, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_config_result, message, KAFKA_STRING, 0, EVER, 0),
    FIELD(kafka_config_result, type, KAFKA_I8, 0, EVER, NEVER),
    FIELD(kafka_config_result, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_config_result, entries, config_entry, kafka_config_entry, 0, EVER, NEVER),
    END,
};
const struct kafka_field describe_configs_response[] = {
    FIELD(kafka_describe_configs_response, throttle, KAFKA_I32, 0, EVER, NEVER),
    ARRAY(kafka_describe_configs_response, results,
          config_result, kafka_config_result, 0, EVER, NEVER),
    END,
};

const struct kafka_field describe_cluster_request[] = {
    FIELD(kafka_describe_cluster_request, operations, KAFKA_BOOL, 0, EVER, NEVER),
    FIELD(kafka_describe_cluster_request, endpoint_type, KAFKA_I8, 1, EVER, NEVER),
    END,
};
static const struct kafka_field cluster_broker[] = {
    FIELD(kafka_broker, id, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_broker, host, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_broker, port, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_broker, rack, KAFKA_STRING, 0, EVER, 0),
    END,
};
const struct kafka_field describe_cluster_response[] = {
    FIELD(kafka_describe_cluster_response, throttle, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_describe_cluster_response, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_describe_cluster_response, message, KAFKA_STRING, 0, EVER, 0),
    FIELD(kafka_describe_cluster_response, endpoint_type, KAFKA_I8, 1, EVER, NEVER),
    FIELD(kafka_describe_cluster_response, cluster_id, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_describe_cluster_response, controller, KAFKA_I32, 0, EVER, NEVER),
    ARRAY(kafka_describe_cluster_response, brokers, cluster_broker, kafka_broker, 0, EVER, NEVER),
    FIELD(kafka_describe_cluster_response, operations, KAFKA_I32, 0, EVER, NEVER),
    END,
};
/* clang-format on */
