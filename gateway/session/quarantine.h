/*
 * What a tenant asks of payloads (registry/policy.h): an event whose payload is otherwise goes to
 * the tenant's quarantine stream, with all its headers and two that say why. Nothing else about it
 * changes: order, durability and what is counted. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/slice.h"
#include "gateway/event/event.h"

struct session;
struct registry_policy;

struct quarantine_finding {
    char reason[192];
};

/* Whether a device hears of an event that is stored, though elsewhere. */
static inline bool quarantine_is_reason(int err) {
    return err <= DG_ERR_CONTENT_SIZE && err >= DG_ERR_CONTENT_JSON;
}

/* Holds the event against the rules for this topic, as published. 0: it may pass. Else one of
 * DG_ERR_CONTENT_*, and event names the rule and the reason; these point into the finding and into
 * the tenant's policy, and are valid until the worker hears of another one. */
int quarantine_judge(const struct session *session, struct device_event *event, struct slice topic,
                     struct quarantine_finding *finding);
/* ... of a policy, which may be NULL and outlives the event. */
int quarantine_judge_by(const struct registry_policy *policy, struct device_event *event,
                        struct slice topic, struct quarantine_finding *finding);

/* The event is one that may not be stored as what it says, for a reason of ours. */
void quarantine_refused(struct device_event *event, int err);
