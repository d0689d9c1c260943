#include "gateway/session/session_iothub.h"

#include <stdlib.h>

#include "common/host_map.h"
#include "common/utf8.h"
#include "gateway/session/session_internal.h"

/* ---- CONNECT ---- */

static const char no_host[] = "the user name's host is none of iothub.hosts";
static const char only_3_1_1[] = "clients of IoT Hub speak MQTT 3.1.1";
static const char other_name[] =
    "the client identifier must be the device id that the user name has behind the host";

int session_iothub_take(struct session *session, const struct mqtt_connect *connect,
                        const char **ret_text) {
    const char *hosts = session->shared->config->iothub_hosts;
    struct slice host, tenant, model_id;
    if (!connect->has_user_name || connect->user_name.size > LIMIT_USER_NAME_BYTES ||
        !iothub_user_host(connect->user_name, &host))
        return 0;
    if (!host_map_find(hosts, host, &host, &tenant)) {
        *ret_text = no_host;
        return DG_ERR_NOT_AUTHORIZED;
    }
    if (session_is_mqtt5(session)) {
        *ret_text = only_3_1_1;
        return DG_ERR_UNSUPPORTED_VERSION;
    }
    int err = iothub_check_user(connect->user_name, connect->client_id, &model_id);
    if (err < 0) {
        *ret_text = other_name;
        return err;
    }
    session->flags |= SESSION_IOTHUB;
    return 0;
}

int session_iothub_note(struct session *session, const struct mqtt_connect *connect) {
    struct slice model_id = slice_make(NULL, 0);
    size_t at = session->client_id_size;
    int err = iothub_check_user(connect->user_name, connect->client_id, &model_id);
    uint8_t *names = err == 0 ? realloc(session->names, at + 1 + model_id.size + 1) : NULL;
    if (!names)
        return err < 0 ? err : DG_ERR_NO_MEMORY;
    session->names = names;
    names[at] = connect->password.size > 0 ? 's' : 'x';
    int size = iothub_decode(model_id, names + at + 1, model_id.size);
    bool is_text = size >= 0 && utf8_is_valid(names + at + 1, (size_t)size);
    names[at + 1 + (size_t)(is_text ? size : 0)] = '\0';
    return 0;
}

bool session_iothub_names(const struct config *config, const struct mqtt_connect *connect,
                          struct session_login *ret_login) {
    struct slice host;
    if (!iothub_user_host(connect->user_name, &host) ||
        !host_map_find(config->iothub_hosts, host, &ret_login->host, &ret_login->tenant))
        return false;
    ret_login->device = connect->client_id;
    return true;
}

/* ---- what it may ---- */

static struct session_permit permit_for(const struct iothub_topic *topic) {
    static const enum session_twin twins[] = {
        [IOTHUB_TELEMETRY] = SESSION_TWIN_NONE,
        [IOTHUB_METHOD_REPLY] = SESSION_TWIN_NONE,
        [IOTHUB_TWIN_GET] = SESSION_TWIN_GET,
        [IOTHUB_TWIN_REPORT] = SESSION_TWIN_REPORT,
    };
    bool is_event = topic->kind == IOTHUB_TELEMETRY;
    return (struct session_permit){
        .event_type = is_event ? EVENT_TELEMETRY : EVENT_TYPE_COUNT,
        .subject = topic->path,
        .topic = topic->path,
        .is_reply = topic->kind == IOTHUB_METHOD_REPLY,
        .reply_id = topic->request_id,
        .reply_status = topic->status,
        .twin = twins[topic->kind],
        .version = topic->version,
        .bag = topic->bag,
    };
}

int session_iothub_may(const struct session *session, enum session_action action, struct slice name,
                       struct session_permit *ret_permit) {
    struct iothub_topic topic;
    if (action == SESSION_SUBSCRIBE) {
        int filter = iothub_find_filter(name, session_device(session));
        if (filter < 0)
            return filter;
        *ret_permit = (struct session_permit){.event_type = EVENT_TYPE_COUNT};
        return 0;
    }
    int err = iothub_classify_topic(name, session_device(session), &topic);
    if (err == 0 && action == SESSION_LEAVE_WILL && topic.kind != IOTHUB_TELEMETRY)
        err = DG_ERR_NOT_AUTHORIZED;
    if (err == 0)
        *ret_permit = permit_for(&topic);
    return err;
}

/* ---- what publishes become ---- */

static struct iothub_facts facts_of(const struct session *session) {
    const char *note =
        (const char *)session->names + session->device_size + session->client_id_size;
    return (struct iothub_facts){
        .auth_method = slice_from_string(note[0] == 's' ? "sas" : "x509"),
        .model_id = slice_from_string(note + 1),
        .generation = session->device_key,
    };
}

/* IoT Hub's limit of a message: its payload and its properties. */
static int check_size(size_t payload_size, size_t header_size) {
    return payload_size + header_size > LIMIT_IOTHUB_MESSAGE_BYTES ? DG_ERR_TOO_LARGE : 0;
}

int session_iothub_translate(const struct session *session, const struct mqtt_publish *publish,
                             struct session_permit *permit, uint8_t room[IOTHUB_HEADER_BYTES]) {
    struct iothub_facts facts = facts_of(session);
    struct writer w = writer_make(room, IOTHUB_HEADER_BYTES);
    facts.retain = publish->retain;
    int err = iothub_read_bag(permit->bag, &facts, &w, &permit->content_type);
    if (err == 0)
        err = check_size(publish->payload.size, permit->bag.size);
    permit->headers = slice_make(room, writer_size(&w));
    return err;
}

int session_iothub_own_will(const struct session *session, const struct session_permit *permit,
                            struct will_content *content, uint8_t room[IOTHUB_HEADER_BYTES]) {
    struct iothub_facts facts = facts_of(session);
    struct writer w = writer_make(room, IOTHUB_HEADER_BYTES);
    facts.retain = content->flags & WILL_RETAIN;
    facts.is_will = true;
    if (content->qos > 1)
        return DG_ERR_QOS_NOT_SUPPORTED;
    int err = iothub_read_bag(permit->bag, &facts, &w, &content->content_type);
    content->flags |= WILL_IOTHUB;
    content->topic = permit->subject;
    content->user_properties = slice_make(room, writer_size(&w));
    return err;
}

/* ---- what the device gets ---- */

static struct session_subscription *find_subscription(const struct session *session,
                                                      enum iothub_filter wanted) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    for (; s; s = s->next)
        if (!s->is_removed && iothub_find_filter(slice_make(s->filter, s->filter_size),
                                                 session_device(session)) == (int)wanted)
            return s;
    return NULL;
}

/* Wall clock; 0: never. */
static int64_t expiry_of(const struct session *session, const struct outbox_message *message) {
    if (message->expires_ms == UINT64_MAX)
        return 0;
    return session->shared->wall_ms + (int64_t)(message->expires_ms - session_now_ms(session));
}

bool session_iothub_has(const struct session *session, enum iothub_filter filter) {
    return find_subscription(session, filter) != NULL;
}

bool session_iothub_receives(const struct session *session) {
    return session_iothub_has(session, IOTHUB_FILTER_MESSAGES) ||
           session_iothub_has(session, IOTHUB_FILTER_METHODS);
}

/* $dg/state/desired/<version>. */
static bool read_desired_version(struct slice topic, uint64_t *ret_version) {
    static const char prefix[] = "$dg/state/desired/";
    uint64_t version = 0;
    if (!slice_starts_with(topic, prefix))
        return false;
    for (size_t i = sizeof(prefix) - 1; i < topic.size; i++)
        version = version * 10 + (topic.data[i] - '0');
    *ret_version = version;
    return true;
}

struct session_subscription *session_iothub_choose(const struct session *session,
                                                   const struct outbox_message *message,
                                                   struct slice *ret_topic,
                                                   uint8_t room[LIMIT_IOTHUB_TOPIC_BYTES]) {
    struct slice id, name;
    struct writer w = writer_make(room, LIMIT_IOTHUB_TOPIC_BYTES);
    uint64_t version;
    enum iothub_filter filter = IOTHUB_FILTER_MESSAGES;
    *ret_topic = slice_make(room, 0);
    if (read_desired_version(message->topic, &version)) {
        filter = IOTHUB_FILTER_DESIRED;
        iothub_write_desired_topic(&w, version);
    } else if (!native_split_command(message->topic, &id, &name)) {
        return NULL;
    } else if (message->wants_reply) {
        filter = IOTHUB_FILTER_METHODS;
        iothub_write_method_topic(&w, name, id);
    } else {
        iothub_write_message_topic(
            &w, &(struct iothub_message){
                    .device = session_device(session),
                    .id = id,
                    .name = name,
                    .content_type = mqtt_find_text(message->properties, MQTT_PROPERTY_CONTENT_TYPE),
                    .properties = message->properties,
                    .expires_ms = expiry_of(session, message),
                });
    }
    *ret_topic = slice_make(room, w.failed ? 0 : writer_size(&w));
    return find_subscription(session, filter);
}
