#include "gateway/session/authorize.h"

#include "gateway/dialect/topics.h"
#include "gateway/session/session.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/tenants.h"

_Static_assert((int)SESSION_ASK == (int)CHILD_UNKNOWN, "what children_may() answers is passed on");

/* What a device may publish: the topic kinds that are left when it is clear whose topic it is. */
static const struct topic_rule {
    int err;
    enum event_type event_type;
} topic_rules[] = {
    [NATIVE_TELEMETRY] = {0, EVENT_TELEMETRY},
    [NATIVE_EVENT] = {0, EVENT_EVENT},
    [NATIVE_REPLY] = {0, EVENT_TYPE_COUNT},
    [NATIVE_STATE_REPORTED] = {0, EVENT_STATE_REPORTED},
};

static bool credential_holds(const struct session *session) {
    return session->device_key != 0 && session->tenant &&
           (session->valid_until_ms == 0 || session->shared->wall_ms < session->valid_until_ms);
}

int session_may_speak_for(const struct session *session, struct slice child_name,
                          const struct child **ret_child) {
    return children_may(&session->shared->children, session->tenant->key, session_device(session),
                        child_name, session->shared->now_ns / 1000000, ret_child);
}

/* For the device behind, if there is one. */
static int may_for_child(const struct session *session, struct slice name,
                         const struct child **ret_child) {
    *ret_child = NULL;
    if (__builtin_expect(name.size == 0, 1))
        return 0;
    return session_may_speak_for(session, name, ret_child);
}

static int may_subscribe(const struct session *session, struct slice filter,
                         struct session_permit *ret_permit) {
    struct slice behind;
    const struct child *child;
    int err = topic_check_filter(session->tenant->topics, filter, &behind);
    if (err == 0)
        err = may_for_child(session, behind, &child);
    if (err >= 0)
        *ret_permit = (struct session_permit){
            .event_type = EVENT_TYPE_COUNT, .child_name = behind, .child = child};
    return err;
}

static int classify(const struct topic_map *topics, struct slice name,
                    struct topic_meaning *ret_meaning) {
    if (name.size > LIMIT_MQTT_TOPIC_BYTES ||
        mqtt_topic_level_count(name) > LIMIT_MQTT_TOPIC_LEVELS)
        return DG_ERR_TOPIC_NAME;
    int err = topic_classify(topics, name, ret_meaning);
    return err < 0 ? err : topic_rules[ret_meaning->kind].err;
}

static struct session_permit permit_for(const struct topic_meaning *meaning,
                                        const struct child *child) {
    return (struct session_permit){.event_type = topic_rules[meaning->kind].event_type,
                                   .subject = meaning->subject,
                                   .topic = meaning->topic,
                                   .is_reply = meaning->kind == NATIVE_REPLY,
                                   .reply_id = meaning->id,
                                   .reply_status = meaning->status,
                                   .child_name = meaning->device,
                                   .child = child};
}

int authorize_topic(const struct topic_map *topics, struct slice topic,
                    struct session_permit *ret_permit) {
    struct topic_meaning meaning;
    int err = classify(topics, topic, &meaning);
    if (err == 0 && (meaning.device.size > 0 || meaning.kind == NATIVE_REPLY ||
                     meaning.kind == NATIVE_STATE_REPORTED))
        err = DG_ERR_NOT_AUTHORIZED;
    if (err == 0)
        *ret_permit = permit_for(&meaning, NULL);
    return err;
}

int session_may(const struct session *session, enum session_action action, struct slice name,
                struct session_permit *ret_permit) {
    struct topic_meaning meaning;
    const struct child *child;
    if (!credential_holds(session))
        return DG_ERR_NOT_AUTHORIZED;
    if (session_is_iothub(session))
        return session_iothub_may(session, action, name, ret_permit);
    if (action == SESSION_SUBSCRIBE)
        return may_subscribe(session, name, ret_permit);
    if (action == SESSION_LEAVE_WILL)
        return authorize_topic(session->tenant->topics, name, ret_permit);
    int err = classify(session->tenant->topics, name, &meaning);
    if (err == 0)
        err = may_for_child(session, meaning.device, &child);
    if (err >= 0)
        *ret_permit = permit_for(&meaning, child);
    return err;
}
