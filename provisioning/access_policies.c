/*
 * PUT makes a policy with two keys, which are in that one answer and nowhere else; or changes the
 * rights of one that is there. Keys that the client gives (of a hub that it comes from, or new ones
 * instead of the old) are taken as they are, both together.
 */
#include "provisioning/access_policies.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/random.h"
#include "registry/credential.h"

enum { KEY_TEXT_BYTES = (CREDENTIAL_PAIR_KEY_SIZE + 2) / 3 * 4, OUTCOME = 0 };

/* Of PUT. */
static const struct member members[] = {
    {"rights", MEMBER_RIGHTS, true, 0, 0, NULL},
    {"primary_key", MEMBER_TEXT, false, KEY_TEXT_BYTES, KEY_TEXT_BYTES, NULL},
    {"secondary_key", MEMBER_TEXT, false, KEY_TEXT_BYTES, KEY_TEXT_BYTES, NULL},
    {NULL},
};

/* Of PATCH. */
static const struct member changeable[] = {
    {"rights", MEMBER_RIGHTS, true, 0, 0, NULL},
    {"name", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {NULL},
};

static const char *const key_names[2] = {"primary_key", "secondary_key"};

/* Both keys, given or new. False after answering. */
static bool choose_keys(struct provisioning_call *call, bool is_given,
                        uint8_t ret_keys[2][CREDENTIAL_PAIR_KEY_SIZE]) {
    random_bytes(ret_keys, 2 * CREDENTIAL_PAIR_KEY_SIZE);
    for (unsigned i = 0; is_given && i < 2; i++) {
        const char *text = json_string_value(json_object_get(call->body, key_names[i]));
        if (!text) {
            call_problem(call, DG_ERR_INVALID, "/%s: give both keys, or none", key_names[i]);
            return false;
        }
        if (credential_base64_decode(slice_from_string(text), ret_keys[i],
                                     CREDENTIAL_PAIR_KEY_SIZE) != CREDENTIAL_PAIR_KEY_SIZE) {
            call_problem(call, DG_ERR_INVALID, "/%s: must be %d bytes in base64", key_names[i],
                         CREDENTIAL_PAIR_KEY_SIZE);
            return false;
        }
    }
    return true;
}

static int show_keys(struct provisioning_call *call, uint8_t keys[2][CREDENTIAL_PAIR_KEY_SIZE]) {
    char texts[2][KEY_TEXT_BYTES + 1];
    for (unsigned i = 0; i < 2; i++)
        credential_base64_encode(keys[i], CREDENTIAL_PAIR_KEY_SIZE, texts[i]);
    int size = asprintf(&call->secret, "\"primary_key\":\"%s\",\"secondary_key\":\"%s\"", texts[0],
                        texts[1]);
    OPENSSL_cleanse(texts, sizeof(texts));
    if (size < 0)
        call->secret = NULL;
    return size < 0 ? DG_ERR_NO_MEMORY : 0;
}

/* The keys that were made are only shown when they are those of the policy. */
static void then_put(struct provisioning_call *call, struct registry_request *result) {
    const char *outcome = result->row_count ? registry_value(result, 0, OUTCOME) : NULL;
    bool is_given = json_object_get(call->body, key_names[0]) != NULL;
    if (call->secret && !is_given && !(outcome && strcmp(outcome, "created") == 0)) {
        explicit_bzero(call->secret, strlen(call->secret));
        free(call->secret);
        call->secret = NULL;
    }
    resource_answer(call, result);
}

static int bind_keys(struct provisioning_call *call, struct registry_request *request,
                     const uint8_t sealed[CREDENTIAL_SEALED_SIZE], bool is_given) {
    char hex[2 + 2 * CREDENTIAL_SEALED_SIZE + 1] = "\\x", most[12];
    for (unsigned i = 0; i < CREDENTIAL_SEALED_SIZE; i++)
        snprintf(hex + 2 + 2 * i, 3, "%02x", sealed[i]);
    snprintf(most, sizeof(most), "%d", LIMIT_ACCESS_POLICIES_PER_TENANT);
    const char *values[] = {hex, credential_master_id(registry_master(call->registry)),
                            is_given ? "true" : "false", most};
    int err = 0;
    for (unsigned i = 0; err == 0 && i < sizeof(values) / sizeof(values[0]); i++)
        err = registry_request_add(request, slice_from_string(values[i]));
    return err;
}

/* The statement makes what is not there, which PATCH never asks for. */
static int bind_no_keys(struct provisioning_call *call, const json_t *object,
                        struct registry_request *request, char *ret_detail, size_t detail_size) {
    static const uint8_t none[CREDENTIAL_SEALED_SIZE];
    return bind_keys(call, request, none, false);
}

const struct provisioning_resource access_policy_resource = {
    .noun = "access policy",
    .path = {{"tenant", NAME_TENANT}, {"access_policy", NAME_OTHER}},
    .members = changeable,
    .list = STATEMENT_ACCESS_POLICY_LIST,
    .get = STATEMENT_ACCESS_POLICY_GET,
    .put = STATEMENT_ACCESS_POLICY_PUT,
    .update = STATEMENT_ACCESS_POLICY_PUT,
    .remove = STATEMENT_ACCESS_POLICY_DELETE,
    .bind_extra = bind_no_keys,
};

static void store(struct provisioning_call *call, const uint8_t sealed[CREDENTIAL_SEALED_SIZE],
                  bool is_given) {
    struct registry_request *request = resource_request(call, STATEMENT_ACCESS_POLICY_PUT);
    if (!request)
        return;
    int err = member_bind(&members[0], call->body, request);
    if (err == 0)
        err = resource_bind_precondition(request, &call->precondition);
    if (err == 0)
        err = bind_keys(call, request, sealed, is_given);
    if (err < 0) {
        registry_request_free(request);
        call_fail(call, err, NULL);
        return;
    }
    call_execute(call, request, then_put);
}

void access_policy_put(struct provisioning_call *call) {
    uint8_t keys[2][CREDENTIAL_PAIR_KEY_SIZE], sealed[CREDENTIAL_SEALED_SIZE];
    char detail[CALL_DETAIL_SIZE] = "";
    if (!call_read_precondition(call) || !call_read_body(call))
        return;
    int err = members_check(members, call->body, detail, sizeof(detail));
    if (err < 0) {
        call_problem(call, err, "%s", detail);
        return;
    }
    bool is_given =
        json_object_get(call->body, key_names[0]) || json_object_get(call->body, key_names[1]);
    if (choose_keys(call, is_given, keys)) {
        err = credential_seal_pair(registry_master(call->registry), keys[0], keys[1], sealed);
        if (err == 0)
            err = show_keys(call, keys);
        if (err == 0)
            store(call, sealed, is_given);
        else
            call_fail(call, err, NULL);
    }
    OPENSSL_cleanse(keys, sizeof(keys));
}
