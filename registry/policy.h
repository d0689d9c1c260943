/*
 * What a tenant asks of its devices' traffic, as the workers use it: quotas of the tenant, of
 * groups of devices and of each device. It comes as two JSON objects, which are columns of the
 * tenant and members of the API:
 *
 *   quota   {"messages_per_second": 1000, "bytes_per_second": 1048576, "connections": 500}
 *   policy  {"device_quota": {"messages_per_second": 10, "bytes_per_second": 4096},
 *            "groups": {"meters": {"quota": {...}, "device_quota": {...}}},
 *            "quarantine": [{"pattern": "plant/#", "require": "json", "max_bytes": 4096}],
 *            "topic_map": {...}}   (registry/topic_map.h)
 *
 * What is left out or 0 has no limit. A group's own device_quota takes the place of the tenant's
 * for its devices. A payload published to a topic that fits a quarantine pattern (an MQTT filter)
 * must be as each such rule says, or it goes to the tenant's quarantine stream. A policy never
 * changes once it is made: it is shared between threads by counted references and replaced as a
 * whole.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "registry/topic_map.h"

struct registry_quota {
    uint64_t messages_per_second, bytes_per_second; /* 0: no limit; of payload and topic */
    uint64_t connections;                           /* the tenant's only */
};

struct registry_group {
    char name[LIMIT_GROUP_NAME_BYTES + 1];
    struct registry_quota quota;        /* all its devices together */
    struct registry_quota device_quota; /* each of them */
    bool has_device_quota;              /* else the tenant's */
};

enum registry_content { REGISTRY_CONTENT_ANY, REGISTRY_CONTENT_UTF8, REGISTRY_CONTENT_JSON };

struct registry_quarantine_rule {
    char *pattern; /* an MQTT topic filter; owned */
    enum registry_content require;
    uint64_t max_bytes; /* 0: any size */
};

struct registry_policy {
    uint32_t references; /* atomic */
    int64_t version;     /* the tenant's; a greater one is newer */
    struct registry_quota quota;
    struct registry_quota device_quota;
    unsigned group_count;
    struct registry_group *groups; /* owned */
    unsigned quarantine_count;
    struct registry_quarantine_rule *quarantine; /* owned */
    struct topic_map *topic_map;                 /* owned; NULL: none */
};

/* How much a reader forgives. */
enum registry_policy_reading {
    REGISTRY_POLICY_STRICT, /* for the API: any member that is not known is refused */
    REGISTRY_POLICY_LENIENT /* from PostgreSQL: what a newer release wrote is passed over */
};

/*
 * Texts of the two objects; an empty slice is {}. One reference is the caller's. DG_ERR_INVALID,
 * with a sentence that begins with the JSON pointer of what is wrong; DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int registry_policy_parse(struct slice quota, struct slice policy, int64_t version,
                                       enum registry_policy_reading reading,
                                       struct registry_policy **ret_policy, char *ret_detail,
                                       size_t detail_size);

/* Any thread. Both accept NULL. */
struct registry_policy *registry_policy_keep(struct registry_policy *policy);
void registry_policy_release(struct registry_policy *policy);

/* The group of this name, or NULL. policy may be NULL. */
const struct registry_group *registry_policy_group(const struct registry_policy *policy,
                                                   struct slice name);
