/* Certificate authorities whose certificates prove a tenant's devices. */
#include <stdio.h>

#include "provisioning/resource.h"
#include "registry/credential.h"

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

/* Logins find an authority by the hash of its subject; the fingerprint keeps it unique. */
static int bind_certificate(struct provisioning_call *call, const json_t *object,
                            struct registry_request *request, char *ret_detail,
                            size_t detail_size) {
    struct credential_certificate certificate;
    const char *pem = json_string_value(json_object_get(object, "certificate"));
    int err = credential_check_certificate(pem, strlen(pem), &certificate);
    if (err < 0 || !certificate.is_ca) {
        snprintf(ret_detail, detail_size, "/certificate: must be one certificate in PEM, %s",
                 err < 0 ? "and nothing else" : "of an authority (CA:TRUE)");
        return DG_ERR_INVALID;
    }
    err = registry_request_add(request, slice_from_string(certificate.sha256));
    if (err == 0)
        err = registry_request_add(request, slice_from_string(certificate.subject_hash));
    return err;
}

const struct provisioning_resource authority_resource = {
    .noun = "certificate authority",
    .path = {{"tenant", NAME_TENANT}, {"authority", NAME_OTHER}},
    .members = members,
    .list = STATEMENT_AUTHORITY_LIST,
    .get = STATEMENT_AUTHORITY_GET,
    .put = STATEMENT_AUTHORITY_PUT,
    .update = STATEMENT_AUTHORITY_PUT,
    .remove = STATEMENT_AUTHORITY_DELETE,
    .bind_extra = bind_certificate,
};
