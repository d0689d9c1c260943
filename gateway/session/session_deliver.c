/*
 * PUBLISH out; PUBACK, PUBREC and PUBCOMP in, PUBREL out (MQTT5 3.3 to 3.7, 4.3, 4.4, 4.9). Which
 * message is how far is outbox.h's; here it becomes packets.
 */
#include <stdio.h>

#include "common/metrics.h"
#include "gateway/dialect/topics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/tenants.h"

enum {
    REPLY_TOPIC_SIZE = LIMIT_DEVICE_ID_BYTES + 64,
    OWN_PROPERTY_BYTES = 2 * REPLY_TOPIC_SIZE, /* beside those of the message */
};

/* ---- sending ---- */

/* A subscription that takes the topic. Filters that the tenant's map allows are MQTT's; native ones
 * are few and compared as they are. */
static struct session_subscription *find_subscription(const struct session *session,
                                                      struct slice topic, bool is_native) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    for (; s; s = s->next) {
        struct slice filter = slice_make(s->filter, s->filter_size);
        if (!s->is_removed &&
            (is_native ? native_filter_takes(filter, topic) : mqtt_topic_matches(filter, topic)))
            return s;
    }
    return NULL;
}

/* Which device behind the session's this is, if the session receives for it and may speak for it
 * now. 0; DG_ERR_NOT_FOUND; DG_ERR_PRESSURE: in a moment, when the registry says. */
static int find_child(const struct session *session, int64_t device_key,
                      const struct child **ret_child, struct slice *ret_name) {
    const struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    while (s && (s->child_key != device_key || s->is_removed))
        s = s->next;
    if (!s || topic_check_filter(session->tenant->topics, slice_make(s->filter, s->filter_size),
                                 ret_name) < 0)
        return DG_ERR_NOT_FOUND;
    int err = session_may_speak_for(session, *ret_name, ret_child);
    if (err == 0)
        return (*ret_child)->device_key == device_key ? 0 : DG_ERR_NOT_FOUND;
    return err == DG_ERR_VIA    ? DG_ERR_NOT_FOUND
           : err == SESSION_ASK ? SESSION_ASK
                                : DG_ERR_PRESSURE;
}

/* As choose_topic(), for a device behind. */
static struct session_subscription *choose_topic_behind(const struct session *session,
                                                        struct slice native, struct slice child,
                                                        struct slice *ret_topic,
                                                        uint8_t room[LIMIT_MQTT_TOPIC_BYTES]) {
    struct slice names[TOPIC_NAME_COUNT] = {[TOPIC_NAME_DEVICE] = child};
    struct writer w = writer_make(room, LIMIT_MQTT_TOPIC_BYTES);
    writer_slice(&w, slice_from_string("$dg/via/"));
    writer_slice(&w, child);
    writer_slice(&w, slice_skip(native, strlen("$dg")));
    *ret_topic = slice_make(room, writer_size(&w));
    struct session_subscription *subscription = find_subscription(session, *ret_topic, true);
    if (subscription || !session->tenant->topics ||
        !native_split_command(native, &names[TOPIC_NAME_ID], &names[TOPIC_NAME_NAME]))
        return subscription;
    w = writer_make(room, LIMIT_MQTT_TOPIC_BYTES);
    if (!topic_map_write(session->tenant->topics, TOPIC_OUT_VIA_COMMAND, names, &w) || w.failed)
        return NULL;
    *ret_topic = slice_make(room, writer_size(&w));
    return find_subscription(session, *ret_topic, false);
}

/* Where a message goes: natively, or on the topic that the tenant's map has for it, to devices that
 * subscribe to that. NULL: the device has not subscribed. ret_topic may point into room; empty:
 * there is none with room for it. */
static struct session_subscription *choose_topic(const struct session *session,
                                                 const struct outbox_message *message,
                                                 struct slice *ret_topic,
                                                 uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES]) {
    struct slice native = message->topic;
    if (session_is_iothub(session))
        return session_iothub_choose(session, message, ret_topic, room);
    struct slice names[TOPIC_NAME_COUNT] = {{0}};
    struct writer w = writer_make(room, LIMIT_MQTT_TOPIC_BYTES);
    struct session_subscription *subscription = find_subscription(session, native, true);
    enum topic_map_out out;
    *ret_topic = native;
    if (subscription || !session->tenant->topics || !topic_split_out(native, &out, names) ||
        !topic_map_write(session->tenant->topics, out, names, &w) || w.failed)
        return subscription;
    *ret_topic = slice_make(room, writer_size(&w));
    return find_subscription(session, *ret_topic, false);
}

struct session_subscription *session_find_receiver(const struct session *session,
                                                   struct slice native) {
    uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES];
    struct slice topic;
    return choose_topic(session, &(struct outbox_message){.topic = native}, &topic, room);
}

/* An alias is worth its three bytes only when the topic comes again (MQTT5 3.3.2.3.4). */
static uint16_t choose_alias(const struct session *session, const struct outbox_message *message,
                             struct slice topic) {
    if (!message->topic_recurs || topic.size <= 3)
        return 0;
    return aliases_choose_outgoing(session->aliases, session->peer_alias_maximum, topic);
}

/* MQTT5 3.3.2.3.5: natively, which is understood whatever the tenant's map says. */
static void write_reply_topic(struct mqtt_properties *own, struct slice native, struct slice child,
                              char room[REPLY_TOPIC_SIZE]) {
    struct slice id, name;
    if (!native_split_command(native, &id, &name))
        return;
    int size = snprintf(room, REPLY_TOPIC_SIZE, "%s%.*s%s$dg/replies/%.*s/200",
                        child.size > 0 ? "$dg/via/" : "", (int)child.size, (const char *)child.data,
                        child.size > 0 ? "/" : "", (int)id.size, (const char *)id.data);
    own->response_topic = slice_make(room, (size_t)size);
    own->correlation_data = id;
    own->present |= 1u << MQTT_PROPERTY_RESPONSE_TOPIC | 1u << MQTT_PROPERTY_CORRELATION_DATA;
}

static void write_properties(struct writer *w, const struct outbox_entry *entry, struct slice child,
                             uint16_t alias, uint64_t now_ms) {
    const struct outbox_message *message = entry->message;
    char reply_topic[REPLY_TOPIC_SIZE];
    struct mqtt_properties own = {.subscription_id = entry->subscription_id, .topic_alias = alias};
    if (message->wants_reply)
        write_reply_topic(&own, message->topic, child, reply_topic);
    if (entry->subscription_id != 0)
        own.present |= 1u << MQTT_PROPERTY_SUBSCRIPTION_ID;
    if (alias != 0)
        own.present |= 1u << MQTT_PROPERTY_TOPIC_ALIAS;
    if (message->expires_ms != UINT64_MAX) { /* what is left of it: MQTT5 3.3.2-6 */
        uint64_t left_s = (message->expires_ms - now_ms + 999) / 1000;
        own.message_expiry_s = left_s < UINT32_MAX ? (uint32_t)left_s : UINT32_MAX;
        own.present |= 1u << MQTT_PROPERTY_MESSAGE_EXPIRY;
    }
    mqtt_write_properties(w, &own);
    writer_slice(w, message->properties);
}

static struct session_subscription *choose_topic_of(const struct session *session,
                                                    const struct outbox_message *message,
                                                    struct slice child, struct slice *ret_topic,
                                                    uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES]) {
    if (child.size > 0)
        return choose_topic_behind(session, message->topic, child, ret_topic, room);
    return choose_topic(session, message, ret_topic, room);
}

/* A direct method of IoT Hub has a JSON value in any case: its SDKs take nothing for a fault. */
static struct slice payload_of(const struct session *session,
                               const struct outbox_message *message) {
    if (message->payload_size == 0 && message->wants_reply && session_is_iothub(session))
        return slice_from_string("null");
    return slice_make(message->payload, message->payload_size);
}

/* False when the device does not take packets so large (MQTT5 3.1.2-24). */
static bool send_publish(struct session *session, const struct outbox_entry *entry,
                         struct slice child, uint16_t packet_id) {
    const struct outbox_message *message = entry->message;
    uint8_t section[OWN_PROPERTY_BYTES + LIMIT_OUTGOING_PROPERTY_BYTES];
    uint8_t head[sizeof(section) + 2048];
    struct writer properties = writer_make(section, sizeof(section));
    struct writer w = writer_make(head, sizeof(head));
    uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES];
    struct slice topic, payload = payload_of(session, message);
    (void)choose_topic_of(session, message, child, &topic, room);
    uint16_t alias = choose_alias(session, message, topic);
    bool is_known = aliases_has_outgoing(session->aliases, alias);
    if (session_is_mqtt5(session))
        write_properties(&properties, entry, child, alias, session_now_ms(session));
    mqtt_write_publish_head(&w, session->version, entry->packet_id != 0, entry->qos, false,
                            is_known ? slice_make(NULL, 0) : topic, packet_id,
                            slice_make(section, writer_size(&properties)), (uint32_t)payload.size);
    if (properties.failed || w.failed || topic.size == 0 ||
        writer_size(&w) + payload.size > session->peer_packet_bytes)
        return false;
    /* Without memory for it the next one is sent like this one. */
    if (alias != 0 && !is_known)
        (void)!aliases_set_outgoing(&session->aliases, alias, topic);
    session->shared->effects->send(session, head, writer_size(&w));
    if (payload.size > 0)
        session->shared->effects->send(session, payload.data, payload.size);
    return true;
}

static void send_pubrel(struct session *session, uint16_t packet_id, int err) {
    uint8_t bytes[16];
    struct writer w = writer_make(bytes, sizeof(bytes));
    uint8_t reason = err < 0 && session_is_mqtt5(session) ? dg_err_row(err)->mqtt5_reason : 0;
    mqtt_write_ack(&w, session->version, MQTT_PUBREL, packet_id, reason, slice_make(NULL, 0));
    session_send(session, &w);
}

/* Of the device behind whose message it is; empty: it is the session's own. As find_child(); asks
 * the registry if need be. */
static int find_name(struct session *session, const struct outbox_message *message,
                     struct slice *ret_name) {
    const struct child *child;
    struct slice name = {0};
    if (message->device_key == session->device_key)
        return 0;
    int err = find_child(session, message->device_key, &child, &name);
    if (err == SESSION_ASK)
        err = session_find_child(session, name) < 0 ? DG_ERR_NO_MEMORY : DG_ERR_PRESSURE;
    if (err == 0)
        *ret_name = name;
    return err;
}

/* False: nothing is sent before the registry has said who may be spoken for. */
static bool send_entry(struct session *session, struct outbox_entry *entry) {
    struct session_kept *kept = session->kept;
    uint16_t packet_id = entry->packet_id;
    bool is_released = !entry->message && entry->qos == 2;
    if (!outbox_is_due(&kept->outbox, entry, session_now_ms(session))) {
        if (is_released)
            send_pubrel(session, packet_id, 0);
        return true;
    }
    struct slice child = {0};
    int err = find_name(session, entry->message, &child);
    if (err < 0 && kept->children_asked > 0)
        return false;
    if (err < 0) { /* whoever may speak for it gets it */
        outbox_drop(&kept->outbox, entry, err);
        return true;
    }
    if (entry->qos > 0 && packet_id == 0)
        packet_id = outbox_choose_packet_id(kept->outbox, kept->last_packet_id);
    if (!send_publish(session, entry, child, packet_id)) {
        outbox_drop(&kept->outbox, entry, DG_ERR_TOO_LARGE);
        return true;
    }
    metric_add(entry->packet_id != 0 ? METRIC_DELIVERIES_REPEATED : METRIC_DELIVERIES_SENT, 1);
    if (entry->packet_id == 0 && packet_id != 0)
        kept->last_packet_id = entry->packet_id = packet_id;
    outbox_sent(&kept->outbox, entry);
    return true;
}

/* As far as the device's window goes. */
static void send_waiting(struct session *session) {
    struct outbox_entry *entry;
    do
        entry = outbox_next(session->kept->outbox, session->peer_receive_maximum);
    while (entry && send_entry(session, entry));
}

int session_deliver(struct session *session, struct outbox_message *message) {
    if (session->state != SESSION_CONNECTED)
        return DG_ERR_NOT_CONNECTED;
    if (message->device_key == 0)
        message->device_key = session->device_key;
    uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES];
    struct slice topic, child = {0};
    int err = find_name(session, message, &child);
    if (err < 0)
        return err;
    struct session_subscription *subscription =
        choose_topic_of(session, message, child, &topic, room);
    if (!subscription)
        return DG_ERR_NOT_FOUND;
    err = session_may_deliver(session, message->topic, subscription);
    if (err < 0)
        return err;
    uint8_t qos = subscription->qos < message->qos ? subscription->qos : message->qos;
    if (session_is_iothub(session) && message->wants_reply)
        qos = 0; /* its reply says that it came */
    session_deliver_expire(session);
    err = outbox_add(&session->kept->outbox, message, qos, subscription->id);
    if (err == 0)
        send_waiting(session);
    return err;
}

void session_recall(struct session *session, int64_t device_key) {
    if (!session->kept)
        return;
    outbox_recall(&session->kept->outbox, device_key);
    if (session->state == SESSION_CONNECTED)
        send_waiting(session); /* the window may be open now */
}

/* ---- who receives ---- */

static bool takes_commands(const struct session *session) {
    struct slice any = slice_from_string("$dg/commands/c1/any");
    return session_is_iothub(session) ? session_iothub_receives(session)
                                      : session_find_receiver(session, any) != NULL;
}

/* True when the registry is asked for its device. */
static bool wake_child(struct session *session, struct session_subscription *s) {
    const struct child *child;
    struct slice name = {0}, topic;
    uint8_t room[LIMIT_MQTT_TOPIC_BYTES];
    if (topic_check_filter(session->tenant->topics, slice_make(s->filter, s->filter_size), &name) <
            0 ||
        name.size == 0 ||
        choose_topic_behind(session, slice_from_string("$dg/commands/c1/any"), name, &topic,
                            room) != s)
        return false;
    int err = session_may_speak_for(session, name, &child);
    if (err == SESSION_ASK)
        return session_find_child(session, name) == 0;
    if (err < 0)
        return false;
    s->child_key = child->device_key;
    session->shared->effects->receives(session, s->child_key);
    return false;
}

void session_deliver_wake_children(struct session *session) {
    struct session_kept *kept = session->kept;
    if (!kept || session->state != SESSION_CONNECTED || kept->children_asked > 0)
        return; /* session_child_done() comes back here */
    for (struct session_subscription *s = kept->subscriptions; s; s = s->next)
        if (s->child_key == 0 && !s->is_removed && wake_child(session, s))
            return;
    send_waiting(session);
}

void session_deliver_wake(struct session *session) {
    if (session->kept && takes_commands(session))
        session->shared->effects->receives(session, session->device_key);
    session_deliver_wake_children(session);
}

void session_deliver_sleep(struct session *session, struct session_subscription *subscription) {
    if (subscription->child_key != 0)
        session->shared->effects->receives_no_more(session, subscription->child_key);
    subscription->child_key = 0;
}

/* ---- another connection, and time ---- */

void session_deliver_resume(struct session *session) {
    if (!session->kept || !session->kept->outbox)
        return;
    const struct outbox_entry *entry = session->kept->outbox->first;
    for (; entry; entry = entry->next)
        if (entry->state == OUTBOX_RECEIVED)
            send_pubrel(session, entry->packet_id, 0);
    outbox_resume(session->kept->outbox);
    send_waiting(session);
}

void session_deliver_expire(struct session *session) {
    if (session->kept)
        outbox_expire(&session->kept->outbox, session_now_ms(session));
}

/* ---- the device's answers ---- */

static struct outbox **outbox_of(struct session *session, struct outbox **none) {
    return session->kept ? &session->kept->outbox : none;
}

/* An identifier that is not in use is no error: the PUBREL that answers a PUBREC says so (0x92,
 * MQTT5 3.6.2.1); PUBACK and PUBCOMP have no answer. */
static bool answered(struct session *session, int err) {
    if (err == DG_ERR_PACKET_ID_NOT_FOUND)
        metric_add(METRIC_ACKS_UNEXPECTED, 1);
    else if (err < 0)
        session_fault(session, err, "MQTT5 4.3.3",
                      "acknowledgement that does not belong to its "
                      "packet identifier's QoS or step");
    else if (session->kept)
        send_waiting(session);
    return true;
}

bool session_on_puback(struct session *session, const struct mqtt_packet *packet) {
    struct outbox *none = NULL;
    int err = outbox_acknowledged(outbox_of(session, &none), 1, packet->ack.packet_id,
                                  packet->ack.reason);
    if (err == 0 && packet->ack.reason >= 0x80)
        metric_add(METRIC_DELIVERIES_REFUSED, 1);
    return answered(session, err);
}

bool session_on_pubrec(struct session *session, const struct mqtt_packet *packet) {
    struct outbox *none = NULL;
    bool refused = packet->ack.reason >= 0x80;
    int err = outbox_acknowledged(outbox_of(session, &none), 2, packet->ack.packet_id,
                                  packet->ack.reason);
    if (err == 0 && refused)
        metric_add(METRIC_DELIVERIES_REFUSED, 1);
    else if (err == 0 || (err == DG_ERR_PACKET_ID_NOT_FOUND && !refused))
        send_pubrel(session, packet->ack.packet_id, err);
    return answered(session, err);
}

bool session_on_pubcomp(struct session *session, const struct mqtt_packet *packet) {
    struct outbox *none = NULL;
    return answered(session, outbox_completed(outbox_of(session, &none), packet->ack.packet_id));
}
