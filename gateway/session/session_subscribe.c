/* SUBSCRIBE and UNSUBSCRIBE (MQTT5 3.8 to 3.11): a device subscribes to its own commands and
 * desired state and to nothing else; filters are compared literally. */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/dialect/native.h"
#include "gateway/session/session_internal.h"

enum { UNSUBACK_NOTHING = 0x11 /* MQTT5 3.11.3 */, REASON_TEXT_SIZE = 192 };

static struct session_subscription **find(struct session_kept *kept, struct slice filter) {
    struct session_subscription **at = &kept->subscriptions;
    while (*at && !slice_equals(slice_make((*at)->filter, (*at)->filter_size), filter))
        at = &(*at)->next;
    return at;
}

static unsigned count(const struct session_kept *kept) {
    unsigned total = 0;
    for (const struct session_subscription *s = kept->subscriptions; s; s = s->next)
        total++;
    return total;
}

/* The packet names this filter again: what comes last holds (MQTT5 3.8.4-5). Only that is changed,
 * so that the packet changes nothing when it is offered again. */
static bool is_replaced(const struct mqtt_subscribe *request, unsigned at) {
    for (unsigned i = at + 1; i < request->filter_count; i++)
        if (slice_equals(request->filters[i].filter, request->filters[at].filter))
            return true;
    return false;
}

/* As session_may(). */
static int may_subscribe(const struct session *session, const struct mqtt_subscription *wanted,
                         struct session_permit *ret_permit) {
    if (!session_is_iothub(session) && (!mqtt_topic_filter_is_valid(wanted->filter) ||
                                        wanted->filter.size > LIMIT_MQTT_TOPIC_BYTES))
        return DG_ERR_TOPIC_FILTER;
    return session_may(session, SESSION_SUBSCRIBE, wanted->filter, ret_permit);
}

/* The granted QoS, or why not. A filter subscribed again replaces the old (MQTT5 3.8.4-3). The
 * other options change nothing here: nothing is retained, and no device hears its own publishes. */
static int subscribe(struct session *session, const struct mqtt_subscribe *request, unsigned at) {
    const struct mqtt_subscription *wanted = &request->filters[at];
    uint32_t id = request->properties.subscription_id;
    uint8_t qos = session_is_iothub(session) && wanted->qos > 1 ? 1 : wanted->qos;
    struct session_permit permit;
    int err = may_subscribe(session, wanted, &permit);
    if (err == SESSION_ASK) /* it was, too long ago, or memory is out */
        err = DG_ERR_UNAVAILABLE;
    if (err == 0)
        err = session_keep(session);
    if (err < 0)
        return err;
    if (is_replaced(request, at))
        return qos;
    struct session_subscription *found = *find(session->kept, wanted->filter);
    if (found) /* said anew: the newest subscription to a device's commands receives them */
        found->child_key = 0;
    if (found && found->qos == qos && found->id == id)
        return qos;
    if (!found && count(session->kept) >= LIMIT_MQTT_SUBSCRIPTIONS)
        return DG_ERR_LIMIT;
    if (!found && !(found = kept_subscribe(session->kept, wanted->filter, qos)))
        return DG_ERR_NO_MEMORY;
    found->qos = qos;
    found->id = id;
    session->flags |= SESSION_CHANGED;
    return qos;
}

static uint8_t suback_code(const struct session *session, int granted) {
    if (granted >= 0)
        return (uint8_t)granted;
    return session_is_mqtt5(session) ? session_reason(granted, MQTT_SUBACK) : 0x80;
}

/* text is left out when the device takes no packet so large (MQTT5 3.9.2-1). */
static void answer(struct session *session, enum mqtt_type type, uint16_t packet_id,
                   const uint8_t *reasons, unsigned reason_count, const char *text) {
    uint8_t bytes[256 + LIMIT_MQTT_SUBSCRIPTIONS];
    struct slice texts[] = {session_reason_string(session, text), {0}};
    for (unsigned i = 0; i < 2; i++) {
        struct writer w = writer_make(bytes, sizeof(bytes));
        mqtt_write_suback(&w, session->version, type, packet_id, reasons, reason_count, texts[i]);
        if (session_send(session, &w))
            return;
    }
    session_stop(session, DG_ERR_TOO_LARGE, "maximum packet size too small for the answer");
}

static bool is_not_allowed(int err) {
    return err == DG_ERR_NOT_AUTHORIZED || err == DG_ERR_WILDCARD ||
           err == DG_ERR_SHARED_SUBSCRIPTION;
}

/* What is wrong with the first filter that was refused. */
static void explain(char *ret_text, size_t size, int err) {
    if (is_not_allowed(err))
        snprintf(ret_text, size, "%s; a device may subscribe to %s", dg_err_text(err),
                 native_allowed_filters());
    else
        snprintf(ret_text, size, "%s", dg_err_text(err));
}

static void answer_subscribe(struct session *session, const struct mqtt_subscribe *request,
                             const int *granted) {
    uint8_t reasons[LIMIT_MQTT_SUBSCRIPTIONS];
    char text[REASON_TEXT_SIZE] = "";
    for (unsigned i = 0; i < request->filter_count; i++) {
        reasons[i] = suback_code(session, granted[i]);
        if (granted[i] >= 0)
            continue;
        if (text[0] == '\0')
            explain(text, sizeof(text), granted[i]);
        session->shared->effects->filter_refused(session, request->filters[i].filter, granted[i]);
    }
    answer(session, MQTT_SUBACK, request->packet_id, reasons, request->filter_count, text);
}

/* Before anything is granted: true when the registry was asked for a device behind this one, and
 * the packet is offered again. Each filter is looked at twice: a change that is heard meanwhile
 * makes the gateway forget what it has just been told of another one. Not more often, since the
 * registry may be slower than what it says is believed. */
static bool asks_for_child(struct session *session, const struct mqtt_subscribe *request) {
    struct session_permit permit;
    _Static_assert(2 * LIMIT_MQTT_SUBSCRIPTIONS <= UINT8_MAX, "filters_asked counts both rounds");
    while (session->filters_asked < 2 * request->filter_count) {
        unsigned i = session->filters_asked++ % request->filter_count;
        if (may_subscribe(session, &request->filters[i], &permit) == SESSION_ASK &&
            session_ask_child(session, permit.child_name) == 0)
            return true;
    }
    session->filters_asked = 0;
    return false;
}

/* A filter that is subscribed to again is told again, as if it were retained (MQTT5 3.3.1.3). */
static void listen_anew(struct session *session, const struct mqtt_subscribe *request) {
    for (unsigned i = 0; session->kept && i < request->filter_count; i++) {
        struct session_subscription *found = *find(session->kept, request->filters[i].filter);
        if (found)
            found->told_key = 0;
    }
    session_state_listen(session);
}

static bool needs_saving(const struct session *session) {
    const uint32_t both = SESSION_DURABLE | SESSION_CHANGED;
    return (session->flags & both) == both;
}

bool session_on_subscribe(struct session *session, const struct mqtt_packet *packet) {
    const struct mqtt_subscribe *request = &packet->subscribe;
    int granted[LIMIT_MQTT_SUBSCRIPTIONS];
    if (asks_for_child(session, request))
        return false;
    for (unsigned i = 0; i < request->filter_count; i++)
        granted[i] = subscribe(session, request, i);
    if (needs_saving(session))
        return session_save_change(session); /* offered again, the packet changes nothing */
    for (unsigned i = 0; i < request->filter_count; i++)
        session_note(session, granted[i] < 0 ? FLIGHT_SUBSCRIBE_REFUSED : FLIGHT_SUBSCRIBED,
                     granted[i] < 0 ? granted[i] : 0, request->filters[i].filter);
    answer_subscribe(session, request, granted);
    session_deliver_wake(session);
    listen_anew(session, request);
    return true;
}

/* What a durable session no longer wants is marked, and goes when that is on the disk. */
static void mark_removed(struct session *session, const struct mqtt_unsubscribe *request) {
    for (unsigned i = 0; session->kept && i < request->filter_count; i++) {
        struct session_subscription *found = *find(session->kept, request->filters[i]);
        if (!found || found->is_removed)
            continue;
        found->is_removed = true;
        session->flags |= SESSION_CHANGED;
    }
}

static bool unsubscribe(struct session *session, struct slice filter) {
    struct session_subscription **at = session->kept ? find(session->kept, filter) : NULL;
    if (!at || !*at)
        return false;
    struct session_subscription *found = *at;
    session_state_ignore(session, found);
    session_deliver_sleep(session, found);
    *at = found->next;
    free(found);
    return true;
}

bool session_on_unsubscribe(struct session *session, const struct mqtt_packet *packet) {
    const struct mqtt_unsubscribe *request = &packet->unsubscribe;
    uint8_t reasons[LIMIT_MQTT_SUBSCRIPTIONS];
    mark_removed(session, request);
    if (needs_saving(session))
        return session_save_change(session); /* offered again, all are marked already */
    memset(reasons, UNSUBACK_NOTHING, sizeof(reasons));
    for (unsigned i = 0; i < request->filter_count; i++)
        if (unsubscribe(session, request->filters[i]))
            reasons[i] = 0;
    answer(session, MQTT_UNSUBACK, request->packet_id, reasons, request->filter_count, "");
    session_state_listen(session); /* what comes by another filter now */
    return true;
}
