/* The field rows of consumer groups and their offsets. Layouts: the Kafka protocol guide. */
#include "gateway/kafka/messages_rows.h"

/* clang-format off */
static const struct kafka_field join_protocol[] = {
    FIELD(kafka_join_protocol, name, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_join_protocol, metadata, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
const struct kafka_field join_group_request[] = {
    FIELD(kafka_join_group_request, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_join_group_request, session_timeout_ms, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_join_group_request, rebalance_timeout_ms, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_join_group_request, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_join_group_request, instance, KAFKA_STRING, 5, EVER, 5),
    FIELD(kafka_join_group_request, protocol_type, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_join_group_request, protocols, join_protocol, kafka_join_protocol, 0, EVER, NEVER),
    FIELD(kafka_join_group_request, reason, KAFKA_STRING, 8, EVER, 8),
    END,
};
static const struct kafka_field join_member[] = {
    FIELD(kafka_join_member, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_join_member, instance, KAFKA_STRING, 5, EVER, 5),
    FIELD(kafka_join_member, metadata, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
const struct kafka_field join_group_response[] = {
    FIELD(kafka_join_group_response, throttle, KAFKA_I32, 2, EVER, NEVER),
    FIELD(kafka_join_group_response, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_join_group_response, generation, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_join_group_response, protocol_type, KAFKA_STRING, 7, EVER, 7),
    FIELD(kafka_join_group_response, protocol, KAFKA_STRING, 0, EVER, 7),
    FIELD(kafka_join_group_response, leader, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_join_group_response, skip_assignment, KAFKA_BOOL, 9, EVER, NEVER),
    FIELD(kafka_join_group_response, member, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_join_group_response, members, join_member, kafka_join_member, 0, EVER, NEVER),
    END,
};
static const struct kafka_field sync_assignment[] = {
    FIELD(kafka_sync_assignment, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_sync_assignment, assignment, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
const struct kafka_field sync_group_request[] = {
    FIELD(kafka_sync_group_request, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_sync_group_request, generation, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_sync_group_request, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_sync_group_request, instance, KAFKA_STRING, 3, EVER, 3),
    FIELD(kafka_sync_group_request, protocol_type, KAFKA_STRING, 5, EVER, 5),
    FIELD(kafka_sync_group_request, protocol, KAFKA_STRING, 5, EVER, 5),
    ARRAY(kafka_sync_group_request, assignments,
          sync_assignment, kafka_sync_assignment, 0, EVER, NEVER),
    END,
};
const struct kafka_field sync_group_response[] = {
    FIELD(kafka_sync_group_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_sync_group_response, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_sync_group_response, protocol_type, KAFKA_STRING, 5, EVER, 5),
    FIELD(kafka_sync_group_response, protocol, KAFKA_STRING, 5, EVER, 5),
    FIELD(kafka_sync_group_response, assignment, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
const struct kafka_field heartbeat_request[] = {
    FIELD(kafka_heartbeat_request, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_heartbeat_request, generation, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_heartbeat_request, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_heartbeat_request, instance, KAFKA_STRING, 3, EVER, 3),
    END,
};
const struct kafka_field heartbeat_response[] = {
    FIELD(kafka_heartbeat_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_heartbeat_response, error, KAFKA_I16, 0, EVER, NEVER),
    END,
};
static const struct kafka_field leave_member[] = {
    FIELD(kafka_leave_member, member, KAFKA_STRING, 3, EVER, NEVER),
    FIELD(kafka_leave_member, instance, KAFKA_STRING, 3, EVER, 3),
    FIELD(kafka_leave_member, reason, KAFKA_STRING, 5, EVER, 5),
    END,
};
const struct kafka_field leave_group_request[] = {
    FIELD(kafka_leave_group_request, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_leave_group_request, member, KAFKA_STRING, 0, 2, NEVER),
    ARRAY(kafka_leave_group_request, members, leave_member, kafka_leave_member, 3, EVER, NEVER),
    END,
};
static const struct kafka_field left_member[] = {
    FIELD(kafka_left_member, member, KAFKA_STRING, 3, EVER, NEVER),
    FIELD(kafka_left_member, instance, KAFKA_STRING, 3, EVER, 3),
    FIELD(kafka_left_member, error, KAFKA_I16, 3, EVER, NEVER),
    END,
};
const struct kafka_field leave_group_response[] = {
    FIELD(kafka_leave_group_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_leave_group_response, error, KAFKA_I16, 0, EVER, NEVER),
    ARRAY(kafka_leave_group_response, members, left_member, kafka_left_member, 3, EVER, NEVER),
    END,
};
static const struct kafka_field offset_commit_partition[] = {
    FIELD(kafka_offset_commit_partition, index, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_offset_commit_partition, offset, KAFKA_I64, 0, EVER, NEVER),
    FIELD(kafka_offset_commit_partition, epoch, KAFKA_I32, 6, EVER, NEVER),
    FIELD(kafka_offset_commit_partition, metadata, KAFKA_STRING, 0, EVER, 0),
    END,
};
static const struct kafka_field commit_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions,
          offset_commit_partition, kafka_offset_commit_partition, 0, EVER, NEVER),
    END,
};
const struct kafka_field offset_commit_request[] = {
    FIELD(kafka_offset_commit_request, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_offset_commit_request, generation, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_offset_commit_request, member, KAFKA_STRING, 1, EVER, NEVER),
    FIELD(kafka_offset_commit_request, instance, KAFKA_STRING, 7, EVER, 7),
    FIELD(kafka_offset_commit_request, retention_ms, KAFKA_I64, 2, 4, NEVER),
    ARRAY(kafka_offset_commit_request, topics, commit_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field offset_answer[] = {
    FIELD(kafka_offset_answer, index, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_offset_answer, error, KAFKA_I16, 0, EVER, NEVER),
    END,
};
static const struct kafka_field commit_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, offset_answer, kafka_offset_answer, 0, EVER, NEVER),
    END,
};
const struct kafka_field offset_commit_response[] = {
    FIELD(kafka_offset_commit_response, throttle, KAFKA_I32, 3, EVER, NEVER),
    ARRAY(kafka_offset_commit_response, topics, commit_answer_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field offset_delete_partition[] = {
    FIELD(kafka_offset_delete_partition, index, KAFKA_I32, 0, EVER, NEVER),
    END,
};
static const struct kafka_field delete_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions,
          offset_delete_partition, kafka_offset_delete_partition, 0, EVER, NEVER),
    END,
};
const struct kafka_field offset_delete_request[] = {
    FIELD(kafka_offset_delete_request, group, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_offset_delete_request, topics, delete_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field delete_answer_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, offset_answer, kafka_offset_answer, 0, EVER, NEVER),
    END,
};
const struct kafka_field offset_delete_response[] = {
    FIELD(kafka_offset_delete_response, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_offset_delete_response, throttle, KAFKA_I32, 0, EVER, NEVER),
    ARRAY(kafka_offset_delete_response, topics, delete_answer_topic, kafka_topic, 0, EVER, NEVER),
    END,
};
static const struct kafka_field fetch_offsets_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_topic, partitions, KAFKA_I32_ARRAY, 0, EVER, NEVER),
    END,
};
static const struct kafka_field offset_fetch_group[] = {
    FIELD(kafka_offset_fetch_group, group, KAFKA_STRING, 8, EVER, NEVER),
    ARRAY(kafka_offset_fetch_group, topics, fetch_offsets_topic, kafka_topic, 8, EVER, 8),
    END,
};
const struct kafka_field offset_fetch_request[] = {
    FIELD(kafka_offset_fetch_request, group, KAFKA_STRING, 0, 7, NEVER),
    ARRAY(kafka_offset_fetch_request, topics, fetch_offsets_topic, kafka_topic, 0, 7, 2),
    ARRAY(kafka_offset_fetch_request, groups,
          offset_fetch_group, kafka_offset_fetch_group, 8, EVER, NEVER),
    FIELD(kafka_offset_fetch_request, require_stable, KAFKA_BOOL, 7, EVER, NEVER),
    END,
};
static const struct kafka_field fetched_offset[] = {
    FIELD(kafka_fetched_offset, index, KAFKA_I32, 0, EVER, NEVER),
    FIELD(kafka_fetched_offset, offset, KAFKA_I64, 0, EVER, NEVER),
    FIELD(kafka_fetched_offset, epoch, KAFKA_I32, 5, EVER, NEVER),
    FIELD(kafka_fetched_offset, metadata, KAFKA_STRING, 0, EVER, 0),
    FIELD(kafka_fetched_offset, error, KAFKA_I16, 0, EVER, NEVER),
    END,
};
static const struct kafka_field fetched_offsets_topic[] = {
    FIELD(kafka_topic, name, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_topic, partitions, fetched_offset, kafka_fetched_offset, 0, EVER, NEVER),
    END,
};
static const struct kafka_field offset_fetch_answer[] = {
    FIELD(kafka_offset_fetch_answer, group, KAFKA_STRING, 8, EVER, NEVER),
    ARRAY(kafka_offset_fetch_answer, topics, fetched_offsets_topic, kafka_topic, 8, EVER, NEVER),
    FIELD(kafka_offset_fetch_answer, error, KAFKA_I16, 8, EVER, NEVER),
    END,
};
const struct kafka_field offset_fetch_response[] = {
    FIELD(kafka_offset_fetch_response, throttle, KAFKA_I32, 3, EVER, NEVER),
    ARRAY(kafka_offset_fetch_response, topics, fetched_offsets_topic, kafka_topic, 0, 7, NEVER),
    FIELD(kafka_offset_fetch_response, error, KAFKA_I16, 2, 7, NEVER),
    ARRAY(kafka_offset_fetch_response, groups,
          offset_fetch_answer, kafka_offset_fetch_answer, 8, EVER, NEVER),
    END,
};
const struct kafka_field describe_groups_request[] = {
    FIELD(kafka_describe_groups_request, groups, KAFKA_STRING_ARRAY, 0, EVER, NEVER),
    FIELD(kafka_describe_groups_request, group_operations, KAFKA_BOOL, 3, EVER, NEVER),
    END,
};
static const struct kafka_field described_member[] = {
    FIELD(kafka_described_member, member, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_member, instance, KAFKA_STRING, 4, EVER, 4),
    FIELD(kafka_described_member, client_id, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_member, client_host, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_member, metadata, KAFKA_BYTES, 0, EVER, NEVER),
    FIELD(kafka_described_member, assignment, KAFKA_BYTES, 0, EVER, NEVER),
    END,
};
static const struct kafka_field described_group[] = {
    FIELD(kafka_described_group, error, KAFKA_I16, 0, EVER, NEVER),
    FIELD(kafka_described_group, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_group, state, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_group, protocol_type, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_described_group, protocol, KAFKA_STRING, 0, EVER, NEVER),
    ARRAY(kafka_described_group, members, described_member, kafka_described_member, 0, EVER, NEVER),
    FIELD(kafka_described_group, operations, KAFKA_I32, 3, EVER, NEVER),
    END,
};
const struct kafka_field describe_groups_response[] = {
    FIELD(kafka_describe_groups_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    ARRAY(kafka_describe_groups_response, groups,
          described_group, kafka_described_group, 0, EVER, NEVER),
    END,
};
const struct kafka_field list_groups_request[] = {
    FIELD(kafka_list_groups_request, states, KAFKA_STRING_ARRAY, 4, EVER, NEVER),
    END,
};
static const struct kafka_field listed_group[] = {
    FIELD(kafka_listed_group, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_listed_group, protocol_type, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_listed_group, state, KAFKA_STRING, 4, EVER, NEVER),
    END,
};
const struct kafka_field list_groups_response[] = {
    FIELD(kafka_list_groups_response, throttle, KAFKA_I32, 1, EVER, NEVER),
    FIELD(kafka_list_groups_response, error, KAFKA_I16, 0, EVER, NEVER),
    ARRAY(kafka_list_groups_response, groups, listed_group, kafka_listed_group, 0, EVER, NEVER),
    END,
};
const struct kafka_field delete_groups_request[] = {
    FIELD(kafka_delete_groups_request, groups, KAFKA_STRING_ARRAY, 0, EVER, NEVER),
    END,
};
static const struct kafka_field deleted_group[] = {
    FIELD(kafka_deleted_group, group, KAFKA_STRING, 0, EVER, NEVER),
    FIELD(kafka_deleted_group, error, KAFKA_I16, 0, EVER, NEVER),
    END,
};
const struct kafka_field delete_groups_response[] = {
    FIELD(kafka_delete_groups_response, throttle, KAFKA_I32, 0, EVER, NEVER),
    ARRAY(kafka_delete_groups_response, results,
          deleted_group, kafka_deleted_group, 0, EVER, NEVER),
    END,
};
/* clang-format on */
