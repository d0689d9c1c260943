/*
 * Device twins: what a device reports of its state ($dg/state/reported), and who listens to its
 * desired state. The twin itself is its home worker's (gateway/command/twins.h); a report is like
 * an event whose ticket comes from there, since it is answered when it is durable.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/dialect/topics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/share.h"
#include "gateway/session/tenants.h"
#include "registry/twin.h"

enum { VIA_TOPIC_SIZE = LIMIT_DEVICE_ID_BYTES + 32 };

/* ---- why a report was refused ---- */

static void set_why(struct session *session, uint16_t packet_id, struct slice text) {
    struct session_why *why = &session->shared->why;
    why->session = session->id;
    why->packet_id = packet_id;
    snprintf(why->text, sizeof(why->text), "%.*s", (int)text.size, (const char *)text.data);
}

const char *session_take_why(struct session *session, uint16_t packet_id) {
    struct session_why *why = &session->shared->why;
    if (why->session != session->id || why->packet_id != packet_id)
        return NULL;
    why->session = 0;
    return why->text;
}

/* ---- reports ---- */

int session_report_check(struct session *session, const struct mqtt_publish *publish) {
    char detail[SESSION_WHY_SIZE];
    json_t *patch = NULL;
    int err = twin_parse(publish->payload, &patch, detail, sizeof(detail));
    json_decref(patch);
    if ((err == DG_ERR_STATE_DOCUMENT || err == DG_ERR_STATE_SIZE) && publish->qos > 0)
        set_why(session, publish->packet_id, slice_from_string(detail));
    return err;
}

static void copy_name(struct slice from, char *to) {
    memcpy(to, from.data, from.size);
    to[from.size] = '\0';
}

void session_state_target(const struct session *session, const struct child *child,
                          struct command_target *target) {
    *target = (struct command_target){
        .tenant_key = session->tenant->key,
        .stream_id = session->tenant->stream_id,
        .device_key = child ? child->device_key : session->device_key,
        .partition = child ? child->partition : session->partition,
    };
    copy_name(session_tenant_name(session), target->tenant);
    copy_name(child ? slice_make(child->name, child->name_size) : session_device(session),
              target->device);
}

int session_report(struct session *session, const struct mqtt_publish *publish,
                   const struct session_permit *permit, uint64_t tag) {
    const struct device_event size = {.payload = publish->payload};
    unsigned code = share_code(&size);
    struct stream_mutation identity = {0};
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    struct twin_request request = {.action = TWIN_REPORT,
                                   .owner = session->id,
                                   .tag = share_to_tag(tag, code),
                                   .patch = publish->payload};
    session_state_target(session, permit->child, &request.target);
    if (publish->qos == 2 && session_identity_write(session, publish->packet_id, &identity, key))
        request.identity = identity.key;
    int err = session->shared->effects->ask_twin(session, &request);
    if (err == 0)
        share_take(session, code);
    return err;
}

void session_twin_answered(struct session *session, const struct twin_answer *answer) {
    enum session_tag kind = session_tag_kind(answer->tag);
    if (session_is_iothub(session)) {
        session_iothub_twin_answered(session, answer);
        return;
    }
    if (answer->err < 0 && answer->why.size > 0 && kind != SESSION_TAG_QOS0)
        set_why(session, (uint16_t)(answer->tag >> 32), answer->why);
    session->shared->done_offset = -1;
    session_append_done(session, answer->tag, answer->err);
}

/* ---- listening ---- */

/* The topic of a device's desired state, natively; text has room for VIA_TOPIC_SIZE. */
static struct slice write_topic(struct slice child, char *text) {
    int size = child.size > 0 ? snprintf(text, VIA_TOPIC_SIZE, "$dg/via/%.*s/state/desired",
                                         (int)child.size, (const char *)child.data)
                              : snprintf(text, VIA_TOPIC_SIZE, "$dg/state/desired");
    return slice_make(text, (size_t)size);
}

/* Whether desired state comes by this subscription, and whose. */
static bool takes_state(const struct session *session, const struct session_subscription *s,
                        struct slice *ret_child) {
    char topic[VIA_TOPIC_SIZE];
    struct slice filter = slice_make(s->filter, s->filter_size);
    *ret_child = slice_make(NULL, 0);
    if (session_is_iothub(session))
        return iothub_find_filter(filter, session_device(session)) == IOTHUB_FILTER_DESIRED;
    return topic_check_filter(session->tenant->topics, filter, ret_child) == 0 &&
           ret_child->size <= LIMIT_DEVICE_ID_BYTES &&
           session_find_receiver(session, write_topic(*ret_child, topic)) == s;
}

/* 0: the key; SESSION_ASK: the registry is being asked, session_child_done() comes back here. */
static int find_key(struct session *session, struct slice child_name, int64_t *ret_key) {
    const struct child *child;
    *ret_key = session->device_key;
    if (child_name.size == 0)
        return 0;
    int err = session_may_speak_for(session, child_name, &child);
    if (err == 0)
        *ret_key = child->device_key;
    if (err == SESSION_ASK && session_find_child(session, child_name) < 0)
        err = DG_ERR_NO_MEMORY;
    return err;
}

void session_state_listen(struct session *session) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    if (session->state != SESSION_CONNECTED)
        return;
    for (; s; s = s->next) {
        struct twin_listener listener = {
            .owner = session->id, .shape = session_is_iothub(session) ? TWIN_CHANGES : TWIN_WHOLE};
        if (s->is_removed || s->told_key != 0 || !takes_state(session, s, &listener.child))
            continue;
        int err = find_key(session, listener.child, &listener.device_key);
        if (err == SESSION_ASK)
            return;
        if (err == 0 && session->shared->effects->listen_state(session, &listener) == 0)
            s->told_key = listener.device_key;
    }
}

void session_state_resume(struct session *session) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    for (; s; s = s->next)
        s->told_key = 0; /* of an earlier connection */
    session_state_listen(session);
}

void session_state_ignore(struct session *session, struct session_subscription *s) {
    if (s->told_key != 0)
        session->shared->effects->ignore_state(session, s->told_key);
    s->told_key = 0;
}

void session_state_end(struct session *session) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    for (; s; s = s->next)
        session_state_ignore(session, s);
}

int session_may_deliver(struct session *session, struct slice topic,
                        struct session_subscription *s) {
    struct slice child_name = {0}, rest;
    const struct child *child;
    native_via_parts(topic, &child_name, &rest);
    if (child_name.size == 0)
        return 0;
    int err = session_may_speak_for(session, child_name, &child);
    if (err == 0)
        return 0;
    /* The registry has told of a change since: it listens again if it still may. */
    s->told_key = 0;
    if (err == SESSION_ASK)
        session_state_listen(session);
    return DG_ERR_NOT_FOUND;
}
