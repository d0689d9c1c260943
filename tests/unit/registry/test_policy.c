/* Reading quotas and policies: what is taken, what is refused and in which words. */
#include <criterion/criterion.h>
#include <string.h>

#include "registry/policy.h"

static int parse(const char *quota, const char *policy, enum registry_policy_reading reading,
                 struct registry_policy **ret_policy, char *detail) {
    return registry_policy_parse(slice_from_string(quota), slice_from_string(policy), 5, reading,
                                 ret_policy, detail, 256);
}

Test(policy, empty) {
    struct registry_policy *policy;
    char detail[256];
    cr_assert_eq(parse("", "{}", REGISTRY_POLICY_STRICT, &policy, detail), 0);
    cr_assert_eq(policy->quota.messages_per_second, 0);
    cr_assert_null(registry_policy_group(policy, slice_from_string("meters")));
    cr_assert_null(registry_policy_group(NULL, slice_from_string("meters")));
    registry_policy_release(policy);
    registry_policy_release(NULL);
}

Test(policy, values) {
    static const char rules[] = "{\"device_quota\": {\"bytes_per_second\": 3}, \"topic_map\": {"
                                "\"in\": [{\"pattern\": \"alarm/+\", \"kind\": \"event\"}],"
                                "\"out\": {\"command\": \"cmd/{id}\"}}, \"groups\": {"
                                "\"meters\": {\"quota\": {\"messages_per_second\": 9}},"
                                "\"pumps\": {\"device_quota\": {}}}, \"quarantine\": ["
                                "{\"pattern\": \"a/#\", \"require\": \"json\"},"
                                "{\"pattern\": \"b\", \"max_bytes\": 9}]}";
    struct registry_policy *policy;
    char detail[256];
    cr_assert_eq(parse("{\"connections\": 2, \"bytes_per_second\": 1}", rules,
                       REGISTRY_POLICY_STRICT, &policy, detail),
                 0);
    cr_assert_eq(policy->version, 5);
    cr_assert_eq(policy->quota.connections, 2);
    cr_assert_eq(policy->quota.bytes_per_second, 1);
    cr_assert_eq(policy->device_quota.bytes_per_second, 3);
    const struct registry_group *meters =
        registry_policy_group(policy, slice_from_string("meters"));
    const struct registry_group *pumps = registry_policy_group(policy, slice_from_string("pumps"));
    cr_assert(meters && meters->quota.messages_per_second == 9 && !meters->has_device_quota);
    cr_assert(pumps && pumps->has_device_quota);
    cr_assert_eq(policy->quarantine_count, 2);
    cr_assert_str_eq(policy->quarantine[0].pattern, "a/#");
    cr_assert_eq(policy->quarantine[0].require, REGISTRY_CONTENT_JSON);
    cr_assert_eq(policy->quarantine[1].max_bytes, 9);
    struct topic_match match;
    cr_assert(topic_map_find(policy->topic_map, slice_from_string("alarm/1"), false, &match));
    cr_assert_eq(match.kind, TOPIC_MAP_EVENT);
    struct registry_policy *kept = registry_policy_keep(policy);
    registry_policy_release(policy);
    cr_assert_eq(kept->group_count, 2);
    registry_policy_release(kept);
}

Test(policy, refusals) {
    static const struct {
        const char *quota, *policy, *says;
    } cases[] = {
        {"{\"messages_per_second\": -1}", "", "/quota/messages_per_second: must be an integer"},
        {"{\"messages_per_second\": 1.5}", "", "/quota/messages_per_second: must be an integer"},
        {"{\"messages\": 1}", "", "/quota/messages: is not a member"},
        {"[]", "", "/quota: must be an object"},
        {"", "{\"device_quota\": {\"connections\": 1}}", "/device_quota/connections: is not a"},
        {"", "{\"groups\": []}", "/groups: must be an object"},
        {"", "{\"groups\": {\"a b\": {}}}", "/groups/a b: the name must be"},
        {"", "{\"groups\": {\"a\": {}, \"b\": {\"quota\": 1}}}", "/groups/b/quota: must be an"},
        {"", "{\"groups\": {}, \"groups\": {}}", "duplicate"},
        {"", "{\"quarantine\": {}}", "/quarantine: must be a list"},
        {"", "{\"quarantine\": [{}]}", "/quarantine/0: needs a pattern"},
        {"", "{\"quarantine\": [{\"pattern\": \"a\"}]}", "/quarantine/0: needs a pattern"},
        {"", "{\"quarantine\": [{\"pattern\": \"\", \"require\": \"json\"}]}",
         "/quarantine/0/pattern: must be"},
        {"", "{\"quarantine\": [{\"pattern\": \"a\", \"require\": \"xml\"}]}",
         "/quarantine/0/require: must be"},
        {"", "{\"quarantine\": [{\"pattern\": \"a\", \"max_bytes\": 0}]}",
         "/quarantine/0/max_bytes: must be"},
        {"", "{\"topic_map\": []}", "/topic_map: must be an object"},
        {"", "{\"topic_map\": {\"in\": {}}}", "/topic_map/in: must be a list"},
        {"", "{\"topic_map\": {\"in\": [{\"pattern\": \"a\", \"kind\": \"event\"}, 1]}}",
         "/topic_map/in/1: must be an object"},
        {"", "{\"topic_map\": {\"in\": [{\"kind\": \"event\"}]}}",
         "/topic_map/in/0: must have pattern and kind"},
        {"", "{\"topic_map\": {\"in\": [{\"pattern\": 1, \"kind\": \"event\"}]}}",
         "/topic_map/in/0/pattern: must be a string"},
        {"", "{\"topic_map\": {\"in\": [{\"pattern\": \"$dg/#\", \"kind\": \"event\"}]}}",
         "/topic_map/in/0: may not begin with $"},
        {"", "{\"topic_map\": {\"out\": {\"command\": \"cmd\"}}}",
         "/topic_map/out/command: must have the level {id}"},
        {"", "{\"topic_map\": {\"out\": {\"command\": 1}}}",
         "/topic_map/out/command: must be a string"},
        {"", "{\"topic_map\": {\"out\": {\"commands\": \"a\"}}}",
         "/topic_map/out/commands: is not a member"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct registry_policy *policy = NULL;
        char detail[256] = "";
        cr_assert_eq(
            parse(cases[i].quota, cases[i].policy, REGISTRY_POLICY_STRICT, &policy, detail),
            DG_ERR_INVALID, "%s", cases[i].says);
        cr_assert(strstr(detail, cases[i].says), "%s: %s", cases[i].says, detail);
        cr_assert_null(policy);
    }
}

Test(policy, newer_release) {
    struct registry_policy *policy;
    char detail[256];
    cr_assert_eq(parse("{\"new\": [1]}",
                       "{\"groups\": {\"a\": {\"new\": 1}}, \"new\": {},"
                       "\"topic_map\": {\"new\": 1, \"out\": {\"new\": 1}}}",
                       REGISTRY_POLICY_LENIENT, &policy, detail),
                 0);
    cr_assert_eq(policy->group_count, 1);
    registry_policy_release(policy);
}
