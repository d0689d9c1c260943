/* The field rows of reading and logging in, and the table of APIs. Layouts: the Kafka protocol
 * guide.
 */
#include "gateway/kafka/messages.h"

#include "common/assert.h"
#include "gateway/kafka/messages_rows.h"

/* clang-format off */
static const struct kafka_field api_versions_request[] = {
    FIELD(kafka_api_versions_request, software_name,    KAFKA_STRING, 3, EVER, NEVER),
    FIELD(kafka_api_versions_request, software_version, KAFKA_STRING, 3, EVER, NEVER),
    END,
};
static const struct kafka_field api_version[] = {
    FIELD(kafka_api_version, key,   KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_api_version, first, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_api_version, last,  KAFKA_I16, 0, EVER, NEVER),
    END,
};
static const struct kafka_field api_versions_response[] = {
    FIELD(kafka_api_versions_response, error,    KAFKA_I16, 0, EVER, NEVER),
    ARRAY(kafka_api_versions_response, keys, api_version, kafka_api_version, 0, EVER, NEVER),
    FIELD(kafka_api_versions_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    END,
};

static const struct kafka_field metadata_request_topic[] = {
    FIELD(kafka_metadata_request_topic, id,   KAFKA_UUID,   10, EVER, NEVER),
    FIELD(kafka_metadata_request_topic, name, KAFKA_STRING, 0,  EVER, 10),
    END,
};
static const struct kafka_field metadata_request[] = {
    ARRAY(kafka_metadata_request, topics,
          metadata_request_topic, kafka_metadata_request_topic, 0, EVER, 1),
    FIELD(kafka_metadata_request, allow_auto_create,  KAFKA_BOOL, 4, EVER, NEVER),
    FIELD(kafka_metadata_request, cluster_operations, KAFKA_BOOL, 8, 10,   NEVER),
    FIELD(kafka_metadata_request, topic_operations,   KAFKA_BOOL, 8, EVER, NEVER),
    END,
};
static const struct kafka_field broker[] = {
    FIELD(kafka_broker, id,   KAFKA_I32,    0, EVER, NEVER),
    FIELD(kafka_broker, host, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_broker, port, KAFKA_I32,    0, EVER, NEVER),
    FIELD(kafka_broker, rack, KAFKA_STRING, 1, EVER, 1),
    END,
};
static const struct kafka_field metadata_partition[] = {
    FIELD(kafka_metadata_partition, error,        KAFKA_I16,       0, EVER, NEVER),
    FIELD(kafka_metadata_partition, index,        KAFKA_I32,       0, EVER, NEVER),
    FIELD(kafka_metadata_partition, leader,       KAFKA_I32,       0, EVER, NEVER),
    FIELD(kafka_metadata_partition, leader_epoch, KAFKA_I32,       7, EVER, NEVER),
    FIELD(kafka_metadata_partition, replicas,     KAFKA_I32_ARRAY, 0, EVER, NEVER),
    FIELD(kafka_metadata_partition, in_sync,      KAFKA_I32_ARRAY, 0, EVER, NEVER),
    FIELD(kafka_metadata_partition, offline,      KAFKA_I32_ARRAY, 5, EVER, NEVER),
    END,
};
static const struct kafka_field metadata_topic[] = {
    FIELD(kafka_metadata_topic, error,      KAFKA_I16,    0,  EVER, NEVER),
    FIELD(kafka_metadata_topic, name,       KAFKA_STRING, 0,  EVER, 12),
    FIELD(kafka_metadata_topic, id,         KAFKA_UUID,   10, EVER, NEVER),
    FIELD(kafka_metadata_topic, internal,   KAFKA_BOOL,   1,  EVER, NEVER),
    ARRAY(kafka_metadata_topic, partitions,
          metadata_partition, kafka_metadata_partition, 0, EVER, NEVER),
    FIELD(kafka_metadata_topic, operations, KAFKA_I32,    8,  EVER, NEVER),
    END,
};
static const struct kafka_field metadata_response[] = {
    FIELD(kafka_metadata_response, throttle,   KAFKA_I32,    3, EVER, NEVER),
    ARRAY(kafka_metadata_response, brokers, broker, kafka_broker, 0, EVER, NEVER),
    FIELD(kafka_metadata_response, cluster_id, KAFKA_STRING, 2, EVER, 2),
    FIELD(kafka_metadata_response, controller, KAFKA_I32,    1, EVER, NEVER),
    ARRAY(kafka_metadata_response, topics, metadata_topic, kafka_metadata_topic, 0, EVER, NEVER),
    FIELD(kafka_metadata_response, cluster_operations, KAFKA_I32, 8, 10, NEVER),
    END,
};

static const struct kafka_field list_offsets_partition[] = {
    FIELD(kafka_list_offsets_partition, index,         KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_list_offsets_partition, current_epoch, KAFKA_I32, 4, EVER, NEVER),
    FIELD(kafka_list_offsets_partition, timestamp,     KAFKA_I64, 0, EVER, NEVER),
    END,
};
static const struct kafka_field list_offsets_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions,
          list_offsets_partition, kafka_list_offsets_partition, 0, EVER, NEVER),
    END,
};
static const struct kafka_field list_offsets_request[] = {
    FIELD(kafka_list_offsets_request, replica_id, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_list_offsets_request, isolation,  KAFKA_I8,  2, EVER, NEVER),
    ARRAY(kafka_list_offsets_request, topics, list_offsets_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field list_offsets_answer[] = {
    FIELD(kafka_list_offsets_answer, index,        KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_list_offsets_answer, error,        KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_list_offsets_answer, timestamp,    KAFKA_I64, 1, EVER, NEVER),
    FIELD(kafka_list_offsets_answer, offset,       KAFKA_I64, 1, EVER, NEVER),
    FIELD(kafka_list_offsets_answer, leader_epoch, KAFKA_I32, 4, EVER, NEVER),
    END,
};
static const struct kafka_field list_offsets_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, list_offsets_answer, kafka_list_offsets_answer, 0, EVER, NEVER),
    END,
};
static const struct kafka_field list_offsets_response[] = {
    FIELD(kafka_list_offsets_response, throttle, KAFKA_I32, 2, EVER, NEVER),
    ARRAY(kafka_list_offsets_response, topics,
          list_offsets_answer_topic, kafka_topic, 0, EVER, NEVER),
    END,
};

static const struct kafka_field fetch_partition[] = {
    FIELD(kafka_fetch_partition, index,              KAFKA_I32, 0,  EVER, NEVER),
    FIELD(kafka_fetch_partition, current_epoch,      KAFKA_I32, 9,  EVER, NEVER),
    FIELD(kafka_fetch_partition, offset,             KAFKA_I64, 0,  EVER, NEVER),
    FIELD(kafka_fetch_partition, last_fetched_epoch, KAFKA_I32, 12, EVER, NEVER),
    FIELD(kafka_fetch_partition, log_start,          KAFKA_I64, 5,  EVER, NEVER),
    FIELD(kafka_fetch_partition, max_bytes,          KAFKA_I32, 0,  EVER, NEVER),
    END,
};
static const struct kafka_field fetch_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0,  12,   NEVER),
    FIELD(kafka_topic, id,   KAFKA_UUID,   13, EVER, NEVER),
    ARRAY(kafka_topic, partitions, fetch_partition, kafka_fetch_partition, 0, EVER, NEVER),
    END,
};
static const struct kafka_field forgotten_topic[] = {
    FIELD(kafka_topic, name,       KAFKA_STRING,    7,  12,   NEVER),
    FIELD(kafka_topic, id,         KAFKA_UUID,      13, EVER, NEVER),
    FIELD(kafka_topic, partitions, KAFKA_I32_ARRAY, 7,  EVER, NEVER),
    END,
};
static const struct kafka_field fetch_request[] = {
    FIELD(kafka_fetch_request, replica_id,    KAFKA_I32, 0,  14,   NEVER),
    FIELD(kafka_fetch_request, max_wait_ms,   KAFKA_I32, 0,  EVER, NEVER),
    FIELD(kafka_fetch_request, min_bytes,     KAFKA_I32, 0,  EVER, NEVER),
    FIELD(kafka_fetch_request, max_bytes,     KAFKA_I32, 3,  EVER, NEVER),
    FIELD(kafka_fetch_request, isolation,     KAFKA_I8,  4,  EVER, NEVER),
    FIELD(kafka_fetch_request, session_id,    KAFKA_I32, 7,  EVER, NEVER),
    FIELD(kafka_fetch_request, session_epoch, KAFKA_I32, 7,  EVER, NEVER),
    ARRAY(kafka_fetch_request, topics,    fetch_topic,     kafka_topic, 0, EVER, NEVER),
    ARRAY(kafka_fetch_request, forgotten, forgotten_topic, kafka_topic, 7, EVER, NEVER),
    FIELD(kafka_fetch_request, rack,          KAFKA_STRING, 11, EVER, NEVER),
    END,
};
static const struct kafka_field aborted[] = {END}; /* there are no transactions: always empty */
static const struct kafka_field fetch_answer[] = {
    FIELD(kafka_fetch_answer, index,             KAFKA_I32, 0,  EVER, NEVER),
    FIELD(kafka_fetch_answer, error,             KAFKA_I16, 0,  EVER, NEVER),
    FIELD(kafka_fetch_answer, high_watermark,    KAFKA_I64, 0,  EVER, NEVER),
    FIELD(kafka_fetch_answer, last_stable,       KAFKA_I64, 4,  EVER, NEVER),
    FIELD(kafka_fetch_answer, log_start,         KAFKA_I64, 5,  EVER, NEVER),
    ARRAY(kafka_fetch_answer, aborted, aborted, kafka_array, 4, EVER, 4),
    FIELD(kafka_fetch_answer, preferred_replica, KAFKA_I32, 11, EVER, NEVER),
    FIELD(kafka_fetch_answer, records,           KAFKA_RECORDS, 0, EVER, 0),
    END,
};
static const struct kafka_field fetch_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0,  12,   NEVER),
    FIELD(kafka_topic, id,   KAFKA_UUID,   13, EVER, NEVER),
    ARRAY(kafka_topic, partitions, fetch_answer, kafka_fetch_answer, 0, EVER, NEVER),
    END,
};
static const struct kafka_field fetch_response[] = {
    FIELD(kafka_fetch_response, throttle,   KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_fetch_response, error,      KAFKA_I16, 7, EVER, NEVER),
    FIELD(kafka_fetch_response, session_id, KAFKA_I32, 7, EVER, NEVER),
    ARRAY(kafka_fetch_response, topics, fetch_answer_topic, kafka_topic, 0, EVER, NEVER),
    END,
};

static const struct kafka_field epoch_partition[] = {
    FIELD(kafka_epoch_partition, index,         KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_epoch_partition, current_epoch, KAFKA_I32, 2, EVER, NEVER),
    FIELD(kafka_epoch_partition, epoch,         KAFKA_I32, 0, EVER, NEVER),
    END,
};
static const struct kafka_field epoch_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, epoch_partition, kafka_epoch_partition, 0, EVER, NEVER),
    END,
};
static const struct kafka_field epoch_request[] = {
    FIELD(kafka_epoch_request, replica_id, KAFKA_I32, 3, EVER, NEVER),
    ARRAY(kafka_epoch_request, topics, epoch_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field epoch_answer[] = {
    FIELD(kafka_epoch_answer, error,      KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_epoch_answer, index,      KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_epoch_answer, epoch,      KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_epoch_answer, end_offset, KAFKA_I64, 0, EVER, NEVER),
    END,
};
static const struct kafka_field epoch_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, epoch_answer, kafka_epoch_answer, 0, EVER, NEVER),
    END,
};
static const struct kafka_field epoch_response[] = {
    FIELD(kafka_epoch_response, throttle, KAFKA_I32, 2, EVER, NEVER),
    ARRAY(kafka_epoch_response, topics, epoch_answer_topic, kafka_topic, 0, EVER, NEVER),
    END,
};

static const struct kafka_field produce_partition[] = {
    FIELD(kafka_produce_partition, index,   KAFKA_I32,   0, EVER, NEVER),
    FIELD(kafka_produce_partition, records, KAFKA_BYTES, 0, EVER, 0),
    END,
};
static const struct kafka_field produce_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, produce_partition, kafka_produce_partition, 0, EVER, NEVER),
    END,
};
static const struct kafka_field produce_request[] = {
    FIELD(kafka_produce_request, transactional_id, KAFKA_STRING, 3, EVER, 3),
    FIELD(kafka_produce_request, acks,             KAFKA_I16,    0, EVER, NEVER),
    FIELD(kafka_produce_request, timeout_ms,       KAFKA_I32,    0, EVER, NEVER),
    ARRAY(kafka_produce_request, topics, produce_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field record_error[] = {END}; /* the whole partition is refused */
static const struct kafka_field produce_answer[] = {
    FIELD(kafka_produce_answer, index,       KAFKA_I32,    0, EVER, NEVER),
    FIELD(kafka_produce_answer, error,       KAFKA_I16,    0, EVER, NEVER),
    FIELD(kafka_produce_answer, base_offset, KAFKA_I64,    0, EVER, NEVER),
    FIELD(kafka_produce_answer, append_time, KAFKA_I64,    2, EVER, NEVER),
    FIELD(kafka_produce_answer, log_start,   KAFKA_I64,    5, EVER, NEVER),
    ARRAY(kafka_produce_answer, record_errors, record_error, kafka_array, 8, EVER, NEVER),
    FIELD(kafka_produce_answer, message,     KAFKA_STRING, 8, EVER, 8),
    END,
};
static const struct kafka_field produce_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, produce_answer, kafka_produce_answer, 0, EVER, NEVER),
    END,
};
static const struct kafka_field produce_response[] = {
    ARRAY(kafka_produce_response, topics, produce_answer_topic, kafka_topic, 0, EVER, NEVER),
    FIELD(kafka_produce_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    END,
};

static const struct kafka_field find_coordinator_request[] = {
    FIELD(kafka_find_coordinator_request, key,      KAFKA_STRING,       0, 3,    NEVER),
    FIELD(kafka_find_coordinator_request, key_type, KAFKA_I8,           1, EVER, NEVER),
    FIELD(kafka_find_coordinator_request, keys,     KAFKA_STRING_ARRAY, 4, EVER, NEVER),
    END,
};
static const struct kafka_field coordinator[] = {
    FIELD(kafka_coordinator, key,     KAFKA_STRING, 4, EVER, NEVER),
    FIELD(kafka_coordinator, node,    KAFKA_I32,    4, EVER, NEVER),
    FIELD(kafka_coordinator, host,    KAFKA_STRING, 4, EVER, NEVER),
    FIELD(kafka_coordinator, port,    KAFKA_I32,    4, EVER, NEVER),
    FIELD(kafka_coordinator, error,   KAFKA_I16,    4, EVER, NEVER),
    FIELD(kafka_coordinator, message, KAFKA_STRING, 4, EVER, 4),
    END,
};
static const struct kafka_field find_coordinator_response[] = {
    FIELD(kafka_find_coordinator_response, throttle, KAFKA_I32,    1, EVER, NEVER),
    FIELD(kafka_find_coordinator_response, error,    KAFKA_I16,    0, 3,    NEVER),
    FIELD(kafka_find_coordinator_response, message,  KAFKA_STRING, 1, 3,    1),
    FIELD(kafka_find_coordinator_response, node,     KAFKA_I32,    0, 3,    NEVER),
    FIELD(kafka_find_coordinator_response, host,     KAFKA_STRING, 0, 3,    NEVER),
    FIELD(kafka_find_coordinator_response, port,     KAFKA_I32,    0, 3,    NEVER),
    ARRAY(kafka_find_coordinator_response, coordinators,
          coordinator, kafka_coordinator, 4, EVER, NEVER),
    END,
};

static const struct kafka_field sasl_handshake_request[] = {
    FIELD(kafka_sasl_handshake_request, mechanism, KAFKA_STRING, 0, EVER, NEVER),
    END,
};
static const struct kafka_field sasl_handshake_response[] = {
    FIELD(kafka_sasl_handshake_response, error,      KAFKA_I16,          0, EVER, NEVER),
    FIELD(kafka_sasl_handshake_response, mechanisms, KAFKA_STRING_ARRAY, 0, EVER, NEVER),
    END,
};
static const struct kafka_field sasl_authenticate_request[] = {
    FIELD(kafka_sasl_authenticate_request, bytes, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
static const struct kafka_field sasl_authenticate_response[] = {
    FIELD(kafka_sasl_authenticate_response, error,       KAFKA_I16,    0, EVER, NEVER),
    FIELD(kafka_sasl_authenticate_response, message,     KAFKA_STRING, 0, EVER, 0),
    FIELD(kafka_sasl_authenticate_response, bytes,       KAFKA_BYTES,  0, EVER, NEVER),
    FIELD(kafka_sasl_authenticate_response, lifetime_ms, KAFKA_I64,    1, EVER, NEVER),
    END,
};

#define API(key, first, last, flexible, early, title, message)                                     \
    {key, first, last, flexible, early, title, message##_request, message##_response,              \
     sizeof(struct kafka_##message##_request)}

/*
 * Ranges are load-bearing: Produce must contain 3 and 7 for librdkafka to believe in record format
 * v2, Fetch 4 and at least 12, SaslHandshake 0, the group APIs their first versions.
 */
const struct kafka_api kafka_apis[] = {
    API(KAFKA_PRODUCE,                 0, 9,  9,     false, "Produce", produce),
    API(KAFKA_FETCH,                   4, 13, 12,    false, "Fetch", fetch),
    API(KAFKA_LIST_OFFSETS,            1, 7,  6,     false, "ListOffsets", list_offsets),
    API(KAFKA_METADATA,                0, 12, 9,     false, "Metadata", metadata),
    API(KAFKA_FIND_COORDINATOR,        0, 4,  3,     false, "FindCoordinator", find_coordinator),
    API(KAFKA_OFFSET_COMMIT,           2, 8,  8,     false, "OffsetCommit", offset_commit),
    API(KAFKA_OFFSET_FETCH,            1, 8,  6,     false, "OffsetFetch", offset_fetch),
    API(KAFKA_JOIN_GROUP,              0, 9,  6,     false, "JoinGroup", join_group),
    API(KAFKA_HEARTBEAT,               0, 4,  4,     false, "Heartbeat", heartbeat),
    API(KAFKA_LEAVE_GROUP,             0, 5,  4,     false, "LeaveGroup", leave_group),
    API(KAFKA_SYNC_GROUP,              0, 5,  4,     false, "SyncGroup", sync_group),
    API(KAFKA_DESCRIBE_GROUPS,         0, 5,  5,     false, "DescribeGroups", describe_groups),
    API(KAFKA_LIST_GROUPS,             0, 4,  3,     false, "ListGroups", list_groups),
    API(KAFKA_DELETE_GROUPS,           0, 2,  2,     false, "DeleteGroups", delete_groups),
    API(KAFKA_OFFSET_DELETE,           0, 0,  NEVER, false, "OffsetDelete", offset_delete),
    API(KAFKA_SASL_HANDSHAKE,          0, 1,  NEVER, true,  "SaslHandshake", sasl_handshake),
    API(KAFKA_API_VERSIONS,            0, 4,  3,     true,  "ApiVersions", api_versions),
    API(KAFKA_OFFSET_FOR_LEADER_EPOCH, 2, 4,  4,     false, "OffsetForLeaderEpoch", epoch),
    API(KAFKA_DESCRIBE_CONFIGS,        1, 4,  4,     false, "DescribeConfigs", describe_configs),
    API(KAFKA_DESCRIBE_CLUSTER,        0, 1,  0,     false, "DescribeCluster", describe_cluster),
    API(KAFKA_SASL_AUTHENTICATE,       0, 2,  2,     true,  "SaslAuthenticate", sasl_authenticate),
    {.name = NULL},
};
/* clang-format on */

const struct kafka_api *kafka_api_find(int key) {
    for (const struct kafka_api *api = kafka_apis; api->name; api++)
        if (api->key == key)
            return api;
    return NULL;
}

int kafka_decode_request(const struct kafka_api *api, const struct kafka_request_header *header,
                         struct reader *r, struct kafka_arena *arena, void **ret_request) {
    dg_assert(header->version >= api->first && header->version <= api->last);
    bool flexible = kafka_api_is_flexible(api, header->version);
    void *request = kafka_arena_take(arena, api->request_size);
    if (!request)
        return DG_ERR_LIMIT;
    int err = flexible ? kafka_skip_tags(r) : 0;
    if (err == 0)
        err = kafka_decode(api->request, header->version, flexible, r, arena, request);
    if (err < 0)
        return err;
    *ret_request = request;
    return 0;
}

/* The header of an ApiVersions answer has no tagged fields in any version (KIP-511). */
void kafka_encode_answer(const struct kafka_api *api, const struct kafka_request_header *header,
                         struct kafka_output *output, const void *response) {
    bool flexible = kafka_api_is_flexible(api, header->version);
    uint8_t *length = writer_reserve(&output->w, KAFKA_FRAME_HEADER_SIZE);
    writer_u32(&output->w, (uint32_t)header->correlation_id);
    if (flexible && api->key != KAFKA_API_VERSIONS)
        writer_u8(&output->w, 0);
    kafka_encode(api->response, header->version, flexible, output, response);
    uint64_t size = writer_size(&output->w) - KAFKA_FRAME_HEADER_SIZE + output->gap_bytes;
    if (output->w.failed || size > INT32_MAX) {
        output->w.failed = true;
        return;
    }
    struct writer w = writer_make(length, KAFKA_FRAME_HEADER_SIZE);
    writer_u32(&w, (uint32_t)size);
}
