/*
 * Certificate authorities whose certificates prove a tenant's devices. Certificates are public, so
 * a tenant's own key registers an authority only with a proof that it holds the authority's key: a
 * certificate signed by it for the tenant's registration code. A platform administrator may do
 * without.
 */
#include <stdio.h>

#include "common/clock.h"
#include "provisioning/resource.h"
#include "registry/credential.h"
#include "registry/x509.h"

enum { CERTIFICATE_BYTES_MAX = 16 * 1024 };

static const struct member members[] = {
    {"certificate", MEMBER_TEXT, true, 1, CERTIFICATE_BYTES_MAX, NULL},
    {"proof", MEMBER_TEXT, false, 1, CERTIFICATE_BYTES_MAX, NULL},
    {"name", MEMBER_READ_ONLY},
    {"fingerprint", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

/* Whom the proof names, "" without a proof. Whether that is the tenant's code is for the statement
 * to say. */
static int check_proof(const char *authority, const char *proof, char *ret_name, char *ret_detail,
                       size_t detail_size) {
    struct credential_certificate certificate;
    ret_name[0] = '\0';
    if (!proof)
        return 0;
    const char *wrong = NULL;
    if (credential_check_certificate(proof, strlen(proof), &certificate) < 0)
        wrong = "must be one certificate in PEM, and nothing else";
    else if (x509_check_proof(authority, proof, clock_wall_ms(), ret_name) < 0)
        wrong = "must be signed by the authority in /certificate, valid now, with one common name: "
                "the tenant's registration_code";
    if (wrong)
        snprintf(ret_detail, detail_size, "/proof: %s", wrong);
    return wrong ? DG_ERR_INVALID : 0;
}

/* Logins find an authority by the hash of its subject. */
static int bind_certificate(struct provisioning_call *call, const json_t *object,
                            struct registry_request *request, char *ret_detail,
                            size_t detail_size) {
    struct credential_certificate certificate;
    char name[X509_NAME_SIZE], most[8];
    const char *pem = json_string_value(json_object_get(object, "certificate"));
    int err = credential_check_certificate(pem, strlen(pem), &certificate);
    if (err < 0 || !certificate.is_ca) {
        snprintf(ret_detail, detail_size, "/certificate: must be one certificate in PEM, %s",
                 err < 0 ? "and nothing else" : "of an authority (CA:TRUE)");
        return DG_ERR_INVALID;
    }
    err = check_proof(pem, json_string_value(json_object_get(object, "proof")), name, ret_detail,
                      detail_size);
    if (err < 0)
        return err;
    snprintf(most, sizeof(most), "%d", LIMIT_AUTHORITIES_PER_TENANT);
    bool is_platform = call->principal.tenant_key == 0;
    const char *values[] = {certificate.sha256, certificate.subject_hash, name[0] ? name : NULL,
                            is_platform ? "false" : "true", most};
    for (unsigned i = 0; err == 0 && i < sizeof(values) / sizeof(values[0]); i++)
        err =
            registry_request_add(request, slice_make(values[i], values[i] ? strlen(values[i]) : 0));
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
