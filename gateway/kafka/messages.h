/*
 * The Kafka requests and responses this endpoint speaks, as C structs; the rows in messages.c say
 * which field is in which version. And the table of APIs: what is advertised is what is here.
 */
#pragma once

#include "gateway/kafka/codec.h"

enum kafka_api_key {
    KAFKA_PRODUCE = 0,
    KAFKA_FETCH = 1,
    KAFKA_LIST_OFFSETS = 2,
    KAFKA_METADATA = 3,
    KAFKA_OFFSET_COMMIT = 8,
    KAFKA_OFFSET_FETCH = 9,
    KAFKA_FIND_COORDINATOR = 10,
    KAFKA_JOIN_GROUP = 11,
    KAFKA_HEARTBEAT = 12,
    KAFKA_LEAVE_GROUP = 13,
    KAFKA_SYNC_GROUP = 14,
    KAFKA_DESCRIBE_GROUPS = 15,
    KAFKA_LIST_GROUPS = 16,
    KAFKA_SASL_HANDSHAKE = 17,
    KAFKA_API_VERSIONS = 18,
    KAFKA_OFFSET_FOR_LEADER_EPOCH = 23,
    KAFKA_DESCRIBE_CONFIGS = 32,
    KAFKA_SASL_AUTHENTICATE = 36,
    KAFKA_DELETE_GROUPS = 42,
    KAFKA_OFFSET_DELETE = 47,
    KAFKA_DESCRIBE_CLUSTER = 60,
};

/* Kafka's error codes that have no row of their own in the error table. */
enum kafka_error {
    KAFKA_ERROR_NONE = 0,
    KAFKA_ERROR_OFFSET_OUT_OF_RANGE = 1,
    KAFKA_ERROR_UNKNOWN_TOPIC = 3,
    KAFKA_ERROR_LEADER_NOT_AVAILABLE = 5,
    KAFKA_ERROR_OFFSET_METADATA_TOO_LARGE = 12,
    KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE = 15,
    KAFKA_ERROR_ILLEGAL_GENERATION = 22,
    KAFKA_ERROR_INCONSISTENT_PROTOCOL = 23,
    KAFKA_ERROR_INVALID_GROUP = 24,
    KAFKA_ERROR_UNKNOWN_MEMBER = 25,
    KAFKA_ERROR_INVALID_SESSION_TIMEOUT = 26,
    KAFKA_ERROR_REBALANCE = 27,      /* in progress */
    KAFKA_ERROR_NOT_AUTHORIZED = 29, /* for a topic */
    KAFKA_ERROR_GROUP_NOT_AUTHORIZED = 30,
    KAFKA_ERROR_UNSUPPORTED_MECHANISM = 33,
    KAFKA_ERROR_ILLEGAL_SASL_STATE = 34,
    KAFKA_ERROR_UNSUPPORTED_VERSION = 35,
    KAFKA_ERROR_INVALID_REQUEST = 42,
    KAFKA_ERROR_POLICY_VIOLATION = 44,
    KAFKA_ERROR_STORAGE = 56,
    KAFKA_ERROR_SASL_FAILED = 58,
    KAFKA_ERROR_NON_EMPTY_GROUP = 68,
    KAFKA_ERROR_GROUP_NOT_FOUND = 69,
    KAFKA_ERROR_FETCH_SESSION_NOT_FOUND = 70,
    KAFKA_ERROR_FENCED_LEADER_EPOCH = 74,
    KAFKA_ERROR_UNKNOWN_LEADER_EPOCH = 75,
    KAFKA_ERROR_UNSUPPORTED_COMPRESSION = 76,
    KAFKA_ERROR_MEMBER_ID_REQUIRED = 79,
    KAFKA_ERROR_GROUP_FULL = 81,
    KAFKA_ERROR_FENCED_INSTANCE = 82,
    KAFKA_ERROR_GROUP_SUBSCRIBED = 86,
    KAFKA_ERROR_UNKNOWN_TOPIC_ID = 100,
    KAFKA_ERROR_UNSUPPORTED_ENDPOINT = 115,
};

struct kafka_api {
    int16_t key, first, last;
    int16_t flexible_from; /* KAFKA_NEVER */
    bool before_login;
    const char *name;
    const struct kafka_field *request, *response;
    size_t request_size;
};

/* Ended by a row without a name. */
extern const struct kafka_api kafka_apis[];

/* The row of an API, or NULL. */
const struct kafka_api *kafka_api_find(int key);

static inline bool kafka_api_is_flexible(const struct kafka_api *api, int version) {
    return version >= api->flexible_from;
}

/*
 * The body of a request behind its header: the header's tagged fields, then the fields. The struct
 * is taken from the arena. The version must be within the API's range. DG_ERR_MALFORMED,
 * DG_ERR_LIMIT.
 */
DG_NODISCARD int kafka_decode_request(const struct kafka_api *api,
                                      const struct kafka_request_header *header, struct reader *r,
                                      struct kafka_arena *arena, void **ret_request);

/* A whole answer, with its length and header, in the version of the request's header. Too little
 * room shows in output->w.failed. */
void kafka_encode_answer(const struct kafka_api *api, const struct kafka_request_header *header,
                         struct kafka_output *output, const void *response);

struct kafka_api_versions_request {
    struct slice software_name, software_version;
};
struct kafka_api_versions_response {
    int16_t error;
    struct kafka_array keys;
    int32_t throttle;
};
struct kafka_api_version {
    int16_t key, first, last;
};

struct kafka_metadata_request {
    struct kafka_array topics; /* struct kafka_metadata_request_topic */
    bool allow_auto_create, cluster_operations, topic_operations;
};
struct kafka_metadata_request_topic {
    uint8_t id[KAFKA_UUID_SIZE];
    struct slice name;
};
struct kafka_metadata_response {
    int32_t throttle;
    struct kafka_array brokers; /* struct kafka_broker */
    struct slice cluster_id;
    int32_t controller;
    struct kafka_array topics; /* struct kafka_metadata_topic */
    int32_t cluster_operations;
};
struct kafka_broker {
    int32_t id;
    struct slice host;
    int32_t port;
    struct slice rack;
};
struct kafka_metadata_topic {
    int16_t error;
    struct slice name;
    uint8_t id[KAFKA_UUID_SIZE];
    bool internal;
    struct kafka_array partitions; /* struct kafka_metadata_partition */
    int32_t operations;
};
struct kafka_metadata_partition {
    int16_t error;
    int32_t index, leader, leader_epoch;
    struct kafka_array replicas, in_sync, offline;
};

struct kafka_list_offsets_request {
    int32_t replica_id;
    int8_t isolation;
    struct kafka_array topics; /* struct kafka_topic */
};
/* A topic by name or id with partitions of the message's own kind. */
struct kafka_topic {
    struct slice name;
    uint8_t id[KAFKA_UUID_SIZE];
    struct kafka_array partitions;
};
struct kafka_list_offsets_partition {
    int32_t index, current_epoch;
    int64_t timestamp;
};
struct kafka_list_offsets_response {
    int32_t throttle;
    struct kafka_array topics;
};
struct kafka_list_offsets_answer {
    int32_t index;
    int16_t error;
    int64_t timestamp, offset;
    int32_t leader_epoch;
};

struct kafka_fetch_request {
    int32_t replica_id, max_wait_ms, min_bytes, max_bytes;
    int8_t isolation;
    int32_t session_id, session_epoch;
    struct kafka_array topics, forgotten;
    struct slice rack;
};
struct kafka_fetch_partition {
    int32_t index, current_epoch;
    int64_t offset;
    int32_t last_fetched_epoch;
    int64_t log_start;
    int32_t max_bytes;
};
struct kafka_fetch_response {
    int32_t throttle;
    int16_t error;
    int32_t session_id;
    struct kafka_array topics;
};
struct kafka_fetch_answer {
    int32_t index;
    int16_t error;
    int64_t high_watermark, last_stable, log_start;
    struct kafka_array aborted;
    int32_t preferred_replica;
    struct kafka_records records;
    /* not on the wire */
    uint64_t stream_id;  /* 0: not read */
    uint64_t seen_bytes; /* appended before it was read */
    bool is_cold;        /* some of it is on its way into memory */
};

struct kafka_epoch_request {
    int32_t replica_id;
    struct kafka_array topics;
};
struct kafka_epoch_partition {
    int32_t index, current_epoch, epoch;
};
struct kafka_epoch_response {
    int32_t throttle;
    struct kafka_array topics;
};
struct kafka_epoch_answer {
    int16_t error;
    int32_t index, epoch;
    int64_t end_offset;
};

struct kafka_produce_request {
    struct slice transactional_id;
    int16_t acks;
    int32_t timeout_ms;
    struct kafka_array topics;
};
struct kafka_produce_partition {
    int32_t index;
    struct slice records;
};
struct kafka_produce_response {
    struct kafka_array topics;
    int32_t throttle;
};
struct kafka_produce_answer {
    int32_t index;
    int16_t error;
    int64_t base_offset, append_time, log_start;
    struct kafka_array record_errors;
    struct slice message;
};

struct kafka_find_coordinator_request {
    struct slice key;
    int8_t key_type;
    struct kafka_array keys;
};
struct kafka_find_coordinator_response {
    int32_t throttle;
    int16_t error;
    struct slice message;
    int32_t node;
    struct slice host;
    int32_t port;
    struct kafka_array coordinators; /* struct kafka_coordinator */
};
struct kafka_coordinator {
    struct slice key;
    int32_t node;
    struct slice host;
    int32_t port;
    int16_t error;
    struct slice message;
};

struct kafka_sasl_handshake_request {
    struct slice mechanism;
};
struct kafka_sasl_handshake_response {
    int16_t error;
    struct kafka_array mechanisms; /* struct slice */
};
struct kafka_sasl_authenticate_request {
    struct slice bytes;
};
struct kafka_sasl_authenticate_response {
    int16_t error;
    struct slice message, bytes;
    int64_t lifetime_ms;
};

/* ---- consumer groups (rows: messages_group.c) ---- */

struct kafka_join_protocol {
    struct slice name;
    struct slice metadata;
};
struct kafka_join_group_request {
    struct slice group;
    int32_t session_timeout_ms;
    int32_t rebalance_timeout_ms;
    struct slice member;
    struct slice instance;
    struct slice protocol_type;
    struct kafka_array protocols; /* struct kafka_join_protocol */
    struct slice reason;
};
struct kafka_join_member {
    struct slice member;
    struct slice instance;
    struct slice metadata;
};
struct kafka_join_group_response {
    int32_t throttle;
    int16_t error;
    int32_t generation;
    struct slice protocol_type;
    struct slice protocol;
    struct slice leader;
    bool skip_assignment;
    struct slice member;
    struct kafka_array members; /* struct kafka_join_member */
};
struct kafka_sync_assignment {
    struct slice member;
    struct slice assignment;
};
struct kafka_sync_group_request {
    struct slice group;
    int32_t generation;
    struct slice member;
    struct slice instance;
    struct slice protocol_type;
    struct slice protocol;
    struct kafka_array assignments; /* struct kafka_sync_assignment */
};
struct kafka_sync_group_response {
    int32_t throttle;
    int16_t error;
    struct slice protocol_type;
    struct slice protocol;
    struct slice assignment;
};
struct kafka_heartbeat_request {
    struct slice group;
    int32_t generation;
    struct slice member;
    struct slice instance;
};
struct kafka_heartbeat_response {
    int32_t throttle;
    int16_t error;
};
struct kafka_leave_member {
    struct slice member;
    struct slice instance;
    struct slice reason;
};
struct kafka_leave_group_request {
    struct slice group;
    struct slice member;
    struct kafka_array members; /* struct kafka_leave_member */
};
struct kafka_left_member {
    struct slice member;
    struct slice instance;
    int16_t error;
};
struct kafka_leave_group_response {
    int32_t throttle;
    int16_t error;
    struct kafka_array members; /* struct kafka_left_member */
};
struct kafka_offset_commit_partition {
    int32_t index;
    int64_t offset;
    int32_t epoch;
    struct slice metadata;
};
struct kafka_offset_commit_request {
    struct slice group;
    int32_t generation;
    struct slice member;
    struct slice instance;
    int64_t retention_ms;
    struct kafka_array topics; /* struct kafka_topic */
};
struct kafka_offset_answer {
    int32_t index;
    int16_t error;
};
struct kafka_offset_commit_response {
    int32_t throttle;
    struct kafka_array topics; /* struct kafka_topic */
};
struct kafka_offset_delete_partition {
    int32_t index;
};
struct kafka_offset_delete_request {
    struct slice group;
    struct kafka_array topics; /* struct kafka_topic */
};
struct kafka_offset_delete_response {
    int16_t error;
    int32_t throttle;
    struct kafka_array topics; /* struct kafka_topic */
};
struct kafka_offset_fetch_group {
    struct slice group;
    struct kafka_array topics; /* struct kafka_topic */
};
struct kafka_offset_fetch_request {
    struct slice group;
    struct kafka_array topics; /* struct kafka_topic */
    struct kafka_array groups; /* struct kafka_offset_fetch_group */
    bool require_stable;
};
struct kafka_fetched_offset {
    int32_t index;
    int64_t offset;
    int32_t epoch;
    struct slice metadata;
    int16_t error;
};
struct kafka_offset_fetch_answer {
    struct slice group;
    struct kafka_array topics; /* struct kafka_topic */
    int16_t error;
};
struct kafka_offset_fetch_response {
    int32_t throttle;
    struct kafka_array topics; /* struct kafka_topic */
    int16_t error;
    struct kafka_array groups; /* struct kafka_offset_fetch_answer */
};
struct kafka_describe_groups_request {
    struct kafka_array groups; /* struct slice */
    bool group_operations;
};
struct kafka_described_member {
    struct slice member;
    struct slice instance;
    struct slice client_id;
    struct slice client_host;
    struct slice metadata;
    struct slice assignment;
};
struct kafka_described_group {
    int16_t error;
    struct slice group;
    struct slice state;
    struct slice protocol_type;
    struct slice protocol;
    struct kafka_array members; /* struct kafka_described_member */
    int32_t operations;
};
struct kafka_describe_groups_response {
    int32_t throttle;
    struct kafka_array groups; /* struct kafka_described_group */
};
struct kafka_list_groups_request {
    struct kafka_array states; /* struct slice */
};
struct kafka_listed_group {
    struct slice group;
    struct slice protocol_type;
    struct slice state;
};
struct kafka_list_groups_response {
    int32_t throttle;
    int16_t error;
    struct kafka_array groups; /* struct kafka_listed_group */
};
struct kafka_delete_groups_request {
    struct kafka_array groups; /* struct slice */
};
struct kafka_deleted_group {
    struct slice group;
    int16_t error;
};
struct kafka_delete_groups_response {
    int32_t throttle;
    struct kafka_array results; /* struct kafka_deleted_group */
};

/* ---- administrators' tools (rows: messages_admin.c) ---- */

struct kafka_describe_configs_request {
    struct kafka_array resources; /* struct kafka_config_resource */
    bool synonyms, documentation;
};
struct kafka_config_resource {
    int8_t type;
    struct slice name;
    struct kafka_array keys; /* struct slice; null: all */
};
struct kafka_describe_configs_response {
    int32_t throttle;
    struct kafka_array results; /* struct kafka_config_result */
};
struct kafka_config_result {
    int16_t error;
    struct slice message;
    int8_t type;
    struct slice name;
    struct kafka_array entries; /* struct kafka_config_entry */
};
struct kafka_config_entry {
    struct slice name, value;
    bool read_only;
    int8_t source;
    bool sensitive;
    struct kafka_array synonyms; /* struct kafka_config_synonym */
    int8_t type;
    struct slice documentation;
};
struct kafka_config_synonym {
    struct slice name, value;
    int8_t source;
};
struct kafka_describe_cluster_request {
    bool operations;
    int8_t endpoint_type;
};
struct kafka_describe_cluster_response {
    int32_t throttle;
    int16_t error;
    struct slice message;
    int8_t endpoint_type;
    struct slice cluster_id;
    int32_t controller;
    struct kafka_array brokers; /* struct kafka_broker */
    int32_t operations;
};
