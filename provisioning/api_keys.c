/* API keys, of a tenant or of the platform. The secret is made here and shown once. */
#include "provisioning/resource.h"

enum { DESCRIPTION_BYTES_MAX = 256 };

static const struct member members[] = {
    {"roles", MEMBER_ROLES, true, 0, 0, NULL},
    {"description", MEMBER_TEXT, false, 0, DESCRIPTION_BYTES_MAX, ""},
    {"not_after", MEMBER_TIME, false, 0, 0, NULL},
    {"key_id", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

const struct provisioning_resource api_key_resource = {
    .noun = "API key",
    .path = {{"tenant", NAME_TENANT}, {"api_key", NAME_OTHER}},
    .members = members,
    .list = STATEMENT_API_KEY_LIST,
    .get = STATEMENT_API_KEY_GET,
    .put = STATEMENT_API_KEY_UPDATE,
    .update = STATEMENT_API_KEY_UPDATE,
    .remove = STATEMENT_API_KEY_DELETE,
};
