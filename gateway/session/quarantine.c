#include "gateway/session/quarantine.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/json_text.h"
#include "common/utf8.h"
#include "gateway/mqtt/packet.h"
#include "gateway/session/tenants.h"

/* 0 or what is wrong; ret_at: where, when that is known. */
static int check(const struct registry_quarantine_rule *rule, struct slice payload,
                 size_t *ret_at) {
    if (rule->max_bytes > 0 && payload.size > rule->max_bytes)
        return DG_ERR_CONTENT_SIZE;
    if (rule->require == REGISTRY_CONTENT_UTF8 && !utf8_is_valid(payload.data, payload.size))
        return DG_ERR_CONTENT_UTF8;
    if (rule->require == REGISTRY_CONTENT_JSON && !json_text_is_valid(payload, ret_at))
        return DG_ERR_CONTENT_JSON;
    return 0;
}

static void describe(const struct registry_quarantine_rule *rule, int err, size_t size, size_t at,
                     struct quarantine_finding *finding) {
    if (err == DG_ERR_CONTENT_SIZE)
        snprintf(finding->reason, sizeof(finding->reason),
                 "the payload has %zu bytes, allowed are %" PRIu64, size, rule->max_bytes);
    else if (err == DG_ERR_CONTENT_JSON)
        snprintf(finding->reason, sizeof(finding->reason),
                 "the payload is not JSON: see byte %zu of %zu", at, size);
    else
        snprintf(finding->reason, sizeof(finding->reason), "the payload is not UTF-8");
}

int quarantine_judge(const struct session *session, struct device_event *event, struct slice topic,
                     struct quarantine_finding *finding) {
    return quarantine_judge_by(session->tenant->policy, event, topic, finding);
}

int quarantine_judge_by(const struct registry_policy *policy, struct device_event *event,
                        struct slice topic, struct quarantine_finding *finding) {
    if (!policy || policy->quarantine_count == 0)
        return 0;
    for (unsigned i = 0; i < policy->quarantine_count; i++) {
        const struct registry_quarantine_rule *rule = &policy->quarantine[i];
        size_t at = 0;
        if (!mqtt_topic_matches(slice_from_string(rule->pattern), topic))
            continue;
        int err = check(rule, event->payload, &at);
        if (err == 0)
            continue;
        describe(rule, err, event->payload.size, at, finding);
        event->quarantine_reason = slice_from_string(finding->reason);
        event->quarantine_rule = slice_from_string(rule->pattern);
        return err;
    }
    return 0;
}

void quarantine_refused(struct device_event *event, int err) {
    event->quarantine_reason = slice_from_string(dg_err_text(err));
    event->quarantine_rule = slice_from_string(err == DG_ERR_VIA ? "via" : "state");
}
