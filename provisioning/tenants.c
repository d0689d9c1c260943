/* Tenants: the name is the identity, the stream id changes when a name is used again. */
#include "common/limits.h"
#include "provisioning/policies.h"
#include "provisioning/resource.h"

static const struct member members[] = {
    /* Absent: the default when created, else left as it is. */
    {"partition_count", MEMBER_INTEGER, false, 1, LIMIT_PARTITIONS_PER_STREAM, NULL},
    {"enabled", MEMBER_BOOLEAN, false, 0, 0, "true"},
    {"metadata", MEMBER_METADATA, false, 0, LIMIT_METADATA_BYTES, "{}"},
    {"tags", MEMBER_TAGS, false, 0, LIMIT_TAGS_BYTES, "{}"},
    {"quota", MEMBER_METADATA, false, 0, LIMIT_POLICY_BYTES, "{}"},
    {"name", MEMBER_READ_ONLY},
    {"registration_code", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

const struct provisioning_resource tenant_resource = {
    .noun = "tenant",
    .path = {{"tenant", NAME_TENANT}},
    .members = members,
    .list = STATEMENT_TENANT_LIST,
    .get = STATEMENT_TENANT_GET,
    .put = STATEMENT_TENANT_PUT,
    .update = STATEMENT_TENANT_PUT,
    .remove = STATEMENT_TENANT_DELETE,
    .filters = QUERY_REGISTERED,
    .check = policy_check_quota,
};
