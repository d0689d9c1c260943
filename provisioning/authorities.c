/* Certificate authorities whose certificates prove a tenant's devices. */
#include "provisioning/resource.h"

enum { CERTIFICATE_BYTES_MAX = 16 * 1024 };

static const struct member members[] = {
    {"certificate", MEMBER_TEXT, true, 1, CERTIFICATE_BYTES_MAX, NULL},
    {"name", MEMBER_READ_ONLY},
    {"fingerprint", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

const struct provisioning_resource authority_resource = {
    .noun = "certificate authority",
    .path = {{"tenant", NAME_TENANT}, {"authority", NAME_OTHER}},
    .members = members,
    .list = STATEMENT_AUTHORITY_LIST,
    .get = STATEMENT_AUTHORITY_GET,
    .put = STATEMENT_AUTHORITY_PUT,
    .update = STATEMENT_AUTHORITY_PUT,
    .remove = STATEMENT_AUTHORITY_DELETE,
};
