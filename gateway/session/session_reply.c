/* Replies of a device to what it was called for: $dg/replies/<id>/<status>, or a topic that its
 * tenant's map gives that meaning (without a status: 200). Only the device that
 * was called can reply, since the name is looked for among its own messages. */
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/command/command_event.h"
#include "gateway/dialect/iothub.h"
#include "gateway/session/session_internal.h"

static struct slice put(uint8_t **at, struct slice from) {
    struct slice copy = slice_make(*at, from.size);
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    *at += from.size;
    return copy;
}

static struct outbox_reply *copy_reply(const struct mqtt_publish *publish, unsigned status) {
    struct slice content_type = publish->properties.content_type;
    struct outbox_reply *reply = malloc(sizeof(*reply) + content_type.size + publish->payload.size);
    if (!reply)
        return NULL;
    uint8_t *at = reply->bytes;
    reply->status = status;
    reply->content_type = put(&at, content_type);
    reply->payload = put(&at, publish->payload);
    return reply;
}

/* Whose reply it is. */
static int64_t device_of(const struct session *session, const struct session_permit *permit) {
    return permit->child ? permit->child->device_key : session->device_key;
}

/* Without one in the topic it stays what it is. */
static int read_status(const struct session *session, const struct session_permit *permit,
                       unsigned *ret_status) {
    if (permit->reply_status.size == 0)
        return 0;
    return session_is_iothub(session) ? iothub_read_status(permit->reply_status, ret_status)
                                      : native_read_status(permit->reply_status, ret_status);
}

static int take(struct session *session, const struct mqtt_publish *publish,
                const struct session_permit *permit) {
    unsigned status = 200;
    struct outbox **outbox = session->kept ? &session->kept->outbox : NULL;
    int err = read_status(session, permit, &status);
    if (err < 0)
        return err;
    if (publish->payload.size > LIMIT_EVENT_PAYLOAD_BYTES)
        return DG_ERR_TOO_LARGE;
    struct outbox_message *message =
        outbox ? outbox_find_reply(*outbox, device_of(session, permit), permit->reply_id,
                                   session_now_ms(session))
               : NULL;
    if (!message)
        return DG_ERR_NO_CALL;
    struct outbox_reply *reply = copy_reply(publish, status);
    if (!reply)
        return DG_ERR_NO_MEMORY;
    outbox_replied(outbox, message, reply);
    return 0;
}

/* To a command of the queue: answered when it is stored. */
static bool reply_to_command(struct session *session, const struct mqtt_publish *publish,
                             const struct session_permit *permit, int64_t command_key) {
    struct session_command_reply reply = {.device_key = device_of(session, permit),
                                          .command_key = command_key,
                                          .status = 200,
                                          .content_type = publish->properties.content_type,
                                          .payload = publish->payload};
    int err = read_status(session, permit, &reply.status);
    if (err == 0)
        err = session_reserve_answer(session, publish);
    if (err == 0)
        err =
            session->shared->effects->reply(session, &reply, session_publish_tag(session, publish));
    if (err < 0)
        return session_not_stored(session, publish, err);
    session_await_answer(session, publish);
    return true;
}

/* 3.1.1 has no word for a reply that nobody waits for, and nothing would come of withholding. */
void session_reply_done(struct session *session, uint64_t tag, int err) {
    if (err == DG_ERR_NO_CALL) {
        metric_add(METRIC_REPLIES_UNEXPECTED, 1);
        session_note_refused(session, FLIGHT_PUBLISH_REFUSED, err, slice_make(NULL, 0));
        if (!session_is_mqtt5(session))
            err = 0;
    }
    session_append_done(session, tag, err);
}

bool session_reply(struct session *session, const struct mqtt_publish *publish,
                   const struct session_permit *permit) {
    bool exactly_once = publish->qos == 2;
    int64_t command_key = command_parse_id(permit->reply_id);
    if (command_key != 0)
        return reply_to_command(session, publish, permit, command_key);
    /* Room first: what is taken is acknowledged. */
    int err = exactly_once ? session_identity_reserve(session) : 0;
    if (err < 0) {
        session_stop(session, err, NULL);
        return true;
    }
    err = take(session, publish, permit);
    if (err < 0) {
        metric_add(METRIC_REPLIES_UNEXPECTED, 1);
        session_note_refused(session, FLIGHT_PUBLISH_REFUSED, err, publish->topic);
    }
    if (err < 0 && !session_is_mqtt5(session))
        err = 0; /* 3.1.1 has no word for it, and nothing would come of ending the connection */
    if (exactly_once && err == 0)
        identities_set(session->kept->identities, publish->packet_id, IDENTITY_STORED);
    else if (exactly_once)
        identities_remove(&session->kept->identities, publish->packet_id); /* an empty table */
    if (publish->qos > 0)
        session_answer_in_turn(session, publish, err, -1);
    return true;
}
