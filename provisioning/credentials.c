/* Credentials of a device: what it is, and how long it holds. Secrets never leave again. */
#include "provisioning/credentials.h"

#include "provisioning/resource.h"

static const struct member members[] = {
    {"not_before", MEMBER_TIME, false, 0, 0, NULL},
    {"not_after", MEMBER_TIME, false, 0, 0, NULL},
    {"name", MEMBER_READ_ONLY},
    {"kind", MEMBER_READ_ONLY},
    {"thumbprint", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

const struct provisioning_resource credential_resource = {
    .noun = "credential",
    .path = {{"tenant", NAME_TENANT}, {"device", NAME_HUB_DEVICE}, {"credential", NAME_OTHER}},
    .members = members,
    .list = STATEMENT_CREDENTIAL_LIST,
    .get = STATEMENT_CREDENTIAL_GET,
    .put = STATEMENT_CREDENTIAL_UPDATE,
    .update = STATEMENT_CREDENTIAL_UPDATE,
    .remove = STATEMENT_CREDENTIAL_DELETE,
    .check = members_check_validity,
};
