#include "gateway/session/authorize.h"

#include "gateway/session/session.h"

/* What a device may publish: the native topic kinds. */
static const struct topic_rule {
    int err;
    enum event_type event_type;
} topic_rules[] = {
    [NATIVE_TELEMETRY] = {0, EVENT_TELEMETRY},
    [NATIVE_EVENT] = {0, EVENT_EVENT},
    [NATIVE_REPLY] = {DG_ERR_NOT_SUPPORTED, EVENT_TYPE_COUNT},
    [NATIVE_STATE_REPORTED] = {DG_ERR_NOT_SUPPORTED, EVENT_TYPE_COUNT},
    [NATIVE_VIA] = {DG_ERR_NOT_SUPPORTED, EVENT_TYPE_COUNT},
};

static bool credential_holds(const struct session *session) {
    return session->device_key != 0 && session->tenant &&
           (session->valid_until_ms == 0 || session->shared->wall_ms < session->valid_until_ms);
}

int authorize_topic(struct slice name, struct session_permit *ret_permit) {
    if (name.size > LIMIT_MQTT_TOPIC_BYTES ||
        mqtt_topic_level_count(name) > LIMIT_MQTT_TOPIC_LEVELS)
        return DG_ERR_TOPIC_NAME;
    enum native_topic_kind kind;
    struct slice subject;
    int err = native_classify_topic(name, &kind, &subject);
    if (err < 0)
        return err;
    if (topic_rules[kind].err < 0)
        return topic_rules[kind].err;
    *ret_permit = (struct session_permit){topic_rules[kind].event_type, subject};
    return 0;
}

int session_may(const struct session *session, enum session_action action, struct slice name,
                struct session_permit *ret_permit) {
    if (!credential_holds(session))
        return DG_ERR_NOT_AUTHORIZED;
    if (action == SESSION_SUBSCRIBE)
        return native_check_filter(name);
    return authorize_topic(name, ret_permit);
}
