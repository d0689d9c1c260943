#include "provisioning/policies.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "gateway/mqtt/packet.h"
#include "provisioning/json.h"
#include "provisioning/resource.h"
#include "registry/policy.h"

static const struct member members[] = {
    {"device_quota", MEMBER_METADATA, false, 0, LIMIT_POLICY_BYTES, NULL},
    {"groups", MEMBER_METADATA, false, 0, LIMIT_POLICY_BYTES, NULL},
    {"quarantine", MEMBER_LIST, false, 0, LIMIT_POLICY_RULES, NULL},
    {"topic_map", MEMBER_METADATA, false, 0, LIMIT_POLICY_BYTES, NULL},
    {"version", MEMBER_READ_ONLY},
    {NULL},
};

static struct slice text_of(const char *text) {
    return text ? slice_from_string(text) : slice_make(NULL, 0);
}

/* What the registry takes as it is. */
static int check_patterns(const struct registry_policy *policy, char *ret_detail,
                          size_t detail_size) {
    for (unsigned i = 0; i < policy->quarantine_count; i++)
        if (!mqtt_topic_filter_is_valid(slice_from_string(policy->quarantine[i].pattern))) {
            snprintf(ret_detail, detail_size,
                     "/quarantine/%u/pattern: is not a topic filter: + and # stand alone between "
                     "slashes, # at the end; at most %d levels",
                     i, LIMIT_MQTT_TOPIC_LEVELS);
            return DG_ERR_INVALID;
        }
    return 0;
}

/* Makes the policy that a gateway would make, and throws it away. Texts may be NULL. */
static int check(const char *quota, const char *policy, char *ret_detail, size_t detail_size) {
    struct registry_policy *made;
    int err = registry_policy_parse(text_of(quota), text_of(policy), 0, REGISTRY_POLICY_STRICT,
                                    &made, ret_detail, detail_size);
    if (err < 0)
        return err;
    err = check_patterns(made, ret_detail, detail_size);
    registry_policy_release(made);
    return err;
}

int policy_check_quota(const json_t *tenant, char *ret_detail, size_t detail_size) {
    const json_t *quota = json_object_get(tenant, "quota");
    if (!quota)
        return 0;
    char *text = json_print_exact(quota);
    int err = text ? check(text, NULL, ret_detail, detail_size) : DG_ERR_NO_MEMORY;
    free(text);
    return err;
}

static int check_policy(const json_t *object, char *ret_detail, size_t detail_size) {
    char *text = json_print_exact(object);
    int err = text ? check(NULL, text, ret_detail, detail_size) : DG_ERR_NO_MEMORY;
    if (err == 0 && strlen(text) > LIMIT_POLICY_BYTES) {
        snprintf(ret_detail, detail_size, "a policy has at most %d bytes as compact JSON",
                 LIMIT_POLICY_BYTES);
        err = DG_ERR_INVALID;
    }
    free(text);
    return err;
}

const struct provisioning_resource policy_resource = {
    .noun = "policy",
    .path = {{"tenant", NAME_TENANT}},
    .members = members,
    .get = STATEMENT_POLICY_GET,
    .put = STATEMENT_POLICY_PUT,
    .update = STATEMENT_POLICY_PUT,
    .check = check_policy,
};
