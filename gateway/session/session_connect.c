/* From CONNECT to CONNACK: who is it, is it the only one, what was agreed (MQTT5 3.1, 3.2). */
#include <stdio.h>
#include <stdlib.h>

#include "common/device_id.h"
#include "common/metrics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/tenants.h"
#include "registry/sas.h"

/* A message of the dialect's largest size, in its topic the properties. */
enum { IOTHUB_PACKET_BYTES = LIMIT_IOTHUB_MESSAGE_BYTES + LIMIT_IOTHUB_TOPIC_BYTES + 16 };

/* ---- checking CONNECT ---- */

/* MQTT5 3.1.3.1, MQTT 3.1.1 3.1.3-8: any identifier will do; none only with a clean start in 3.1.1.
 */
static int take_client_id(struct session *session, const struct mqtt_connect *connect) {
    char assigned[64];
    struct slice id = connect->client_id;
    if (id.size == 0 && !session_is_mqtt5(session) && !connect->clean_start)
        return DG_ERR_CLIENT_ID;
    if (id.size == 0) {
        int size =
            snprintf(assigned, sizeof(assigned), "%ss%u", session->shared->prefix, session->number);
        id = slice_make(assigned, (size_t)size);
        session->flags |= SESSION_CLIENT_ID_ASSIGNED;
    }
    session->names = malloc(id.size + 1);
    if (!session->names)
        return DG_ERR_NO_MEMORY;
    if (id.size > 0)
        memcpy(session->names, id.data, id.size);
    session->names[id.size] = '\0';
    session->client_id_size = (uint16_t)id.size;
    return 0;
}

static void take_keep_alive(struct session *session, uint16_t asked_s) {
    uint64_t cap_s = session->shared->config->mqtt_max_keep_alive / 1000;
    if (session_is_iothub(session) && cap_s > LIMIT_IOTHUB_KEEP_ALIVE_S)
        cap_s = LIMIT_IOTHUB_KEEP_ALIVE_S;
    session->keep_alive_s = asked_s;
    if (asked_s == 0 || asked_s > cap_s) {
        session->keep_alive_s = (uint16_t)(cap_s < UINT16_MAX ? cap_s : UINT16_MAX);
        session->flags |= SESSION_KEEP_ALIVE_CAPPED;
    }
}

static int take_properties(struct session *session, const struct mqtt_properties *properties) {
    if (mqtt_has(properties, MQTT_PROPERTY_AUTH_METHOD))
        return DG_ERR_BAD_AUTH_METHOD;
    if (mqtt_has(properties, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE))
        session->peer_packet_bytes = properties->maximum_packet_size;
    session->peer_alias_maximum = properties->topic_alias_maximum < LIMIT_MQTT_TOPIC_ALIASES
                                      ? (uint8_t)properties->topic_alias_maximum
                                      : LIMIT_MQTT_TOPIC_ALIASES;
    _Static_assert(LIMIT_OUTBOX_INFLIGHT <= UINT8_MAX, "the outbox closes its window before");
    session->peer_receive_maximum = UINT8_MAX;
    if (mqtt_has(properties, MQTT_PROPERTY_RECEIVE_MAXIMUM) &&
        properties->receive_maximum < UINT8_MAX)
        session->peer_receive_maximum = (uint8_t)properties->receive_maximum;
    if (mqtt_has(properties, MQTT_PROPERTY_REQUEST_PROBLEM) && properties->request_problem == 0)
        session->flags |= SESSION_NO_PROBLEM_INFORMATION;
    else if (properties->user_count > 0 && session_wants_receipts(properties)) /* 3.1.2-29 */
        session->flags |= SESSION_RECEIPTS;
    return 0;
}

/* MQTT5 3.1.2.11.2; in 3.1.1 a session that is not clean lives as long as the gateway allows. */
static void take_expiry(struct session *session, const struct mqtt_connect *connect) {
    uint32_t asked_s = connect->properties.session_expiry_s;
    if (!session_is_mqtt5(session))
        asked_s = connect->clean_start ? 0 : UINT32_MAX;
    session->expiry_s = session_cap_expiry(session, asked_s);
    if (connect->clean_start)
        session->flags |= SESSION_CLEAN_START;
    if (asked_s == 0)
        session->flags |= SESSION_EXPIRY_ZERO;
    if (session->expiry_s != asked_s)
        session->flags |= SESSION_EXPIRY_CAPPED;
}

/* ---- refusing ---- */

static void refuse(struct session *session, int err, const char *text) {
    session_end(session, &(struct session_end){.err = err, .text = text});
}

uint8_t session_connect_level(struct slice body) {
    if (body.size < 3)
        return 0;
    size_t name_size = (size_t)body.data[0] << 8 | body.data[1];
    return body.size > 2 + name_size ? body.data[2 + name_size] : 0;
}

void session_connect_undecodable(struct session *session, struct slice body, int err,
                                 const struct mqtt_fault *fault) {
    uint8_t level = session_connect_level(body);
    if (level == MQTT_VERSION_5 || (err == DG_ERR_UNSUPPORTED_VERSION && level > MQTT_VERSION_5))
        session->version = MQTT_VERSION_5;
    else if (level == MQTT_VERSION_3_1_1 || err == DG_ERR_UNSUPPORTED_VERSION)
        session->version = MQTT_VERSION_3_1_1;
    session_fault(session, err, fault->clause, fault->text);
}

/* ---- logging in ---- */

static const char needs_credentials[] = "a user name with a password, or a client certificate, is "
                                        "needed";
static const char plain_text[] = "passwords are refused over plain text: use TLS";

/* Fills in who the device says it is. A certificate alone may leave both names to its own. */
static int login_names(const struct mqtt_connect *connect, struct session_login *login) {
    if (!connect->has_user_name || connect->user_name.size == 0)
        return login->kind == REGISTRY_LOGIN_DEVICE_SECRET ? DG_ERR_BAD_CREDENTIALS : 0;
    if (connect->user_name.size > LIMIT_USER_NAME_BYTES)
        return DG_ERR_BAD_CREDENTIALS;
    if (native_split_user_name(connect->user_name, &login->device, &login->tenant) < 0)
        return DG_ERR_BAD_CREDENTIALS;
    if (login->device.size > LIMIT_DEVICE_ID_BYTES || login->tenant.size > LIMIT_TENANT_BYTES)
        return DG_ERR_BAD_CREDENTIALS;
    bool tenant_named = memchr(connect->user_name.data, '@', connect->user_name.size) != NULL;
    if (login->kind == REGISTRY_LOGIN_DEVICE_CERTIFICATE && !tenant_named)
        login->tenant = slice_make(NULL, 0);
    return 0;
}

/* The dialect knows tokens only, and takes an empty password for none. */
static bool is_password_wanted(const struct session *session, const struct mqtt_connect *connect) {
    return !session_is_iothub(session) || sas_is_token(connect->password);
}

static void log_in(struct session *session, const struct mqtt_connect *connect) {
    struct session_login login = {.kind = REGISTRY_LOGIN_DEVICE_CERTIFICATE};
    if (connect->has_password && !(session_is_iothub(session) && connect->password.size == 0)) {
        login.kind = REGISTRY_LOGIN_DEVICE_SECRET;
        login.secret = connect->password;
        if (!(session->flags & SESSION_PASSWORDS_ALLOWED)) {
            refuse(session, DG_ERR_NOT_AUTHORIZED, plain_text);
            return;
        }
        if (connect->password.size > LIMIT_PASSWORD_BYTES ||
            !is_password_wanted(session, connect)) {
            refuse(session, DG_ERR_BAD_CREDENTIALS, NULL);
            return;
        }
    }
    int err = 0;
    if (!session_is_iothub(session))
        err = login_names(connect, &login);
    else if (!session_iothub_names(session->shared->config, connect, &login))
        err = DG_ERR_BAD_CREDENTIALS;
    if (err < 0) {
        refuse(session, err, NULL);
        return;
    }
    session->state = SESSION_AUTHENTICATING;
    session_pause(session, SESSION_PAUSED_LOGIN);
    err = session->shared->effects->login(session, &login);
    if (err == DG_ERR_NOT_FOUND)
        refuse(session, DG_ERR_NOT_AUTHORIZED, needs_credentials);
    else if (err < 0)
        refuse(session, err, NULL);
}

static int64_t claimed_key(const struct session *session, const struct mqtt_connect *connect) {
    struct session_login login;
    if (!connect->has_user_name || connect->user_name.size > LIMIT_USER_NAME_BYTES)
        return 0;
    if (!session_iothub_names(session->shared->config, connect, &login) &&
        native_split_user_name(connect->user_name, &login.device, &login.tenant) < 0)
        return 0;
    return flight_claimed_key(login.tenant, login.device);
}

bool session_on_connect(struct session *session, const struct mqtt_packet *packet) {
    const struct mqtt_connect *connect = &packet->connect;
    session->version = (uint8_t)connect->version;
    session->shared->claimed_key = claimed_key(session, connect);
    const char *text = NULL;
    int err = session_iothub_take(session, connect, &text);
    take_keep_alive(session, connect->keep_alive_s);
    take_expiry(session, connect);
    if (err == 0)
        err = take_properties(session, &connect->properties);
    if (err == 0)
        err = take_client_id(session, connect);
    if (err == 0 && session_is_iothub(session))
        err = session_iothub_note(session, connect);
    if (err == 0)
        err = session_will_take(session, connect);
    if (err < 0)
        refuse(session, err, text);
    else
        log_in(session, connect);
    session->shared->claimed_key = 0;
    return true;
}

/* Device id in front of the client id and what stands behind it. */
static int take_identity(struct session *session, const struct registry_identity *identity) {
    size_t device_size = strnlen(identity->device, LIMIT_DEVICE_ID_BYTES);
    size_t rest_size = session->client_id_size +
                       strlen((const char *)session->names + session->client_id_size) + 1;
    uint8_t *names = malloc(device_size + rest_size);
    if (!names)
        return DG_ERR_NO_MEMORY;
    memcpy(names, identity->device, device_size);
    memcpy(names + device_size, session->names, rest_size);
    struct session_tenant *tenant = tenant_take(session->shared, identity);
    if (!tenant) {
        free(names);
        return DG_ERR_NO_MEMORY;
    }
    free(session->names);
    session->names = names;
    session->device_size = (uint8_t)device_size;
    session->tenant = tenant;
    session->device_key = identity->device_key;
    session->partition = identity->partition;
    session->credential_key = identity->credential_key;
    session->valid_until_ms = identity->valid_until_ms;
    return 0;
}

void session_login_done(struct session *session, int err,
                        const struct registry_identity *identity) {
    if (session->state != SESSION_AUTHENTICATING)
        return;
    if (err == 0 && identity->device_key == 0)
        err = DG_ERR_BAD_CREDENTIALS; /* a principal is no device */
    if (err == 0 && !session_is_iothub(session) &&
        !device_id_is_native(slice_from_string(identity->device)))
        err = DG_ERR_BAD_CREDENTIALS; /* it is reached by the other dialect only */
    if (err == 0)
        err = take_identity(session, identity);
    if (err < 0) {
        refuse(session, err, NULL);
        return;
    }
    err = admission_set(
        &session->admission, session, session->device_key,
        slice_make(identity->group, strnlen(identity->group, LIMIT_GROUP_NAME_BYTES)));
    if (err < 0) {
        refuse(session, err, NULL);
        return;
    }
    if ((err = session_will_own(session)) < 0) {
        bool is_refused = err == DG_ERR_NOT_AUTHORIZED || err == DG_ERR_TOPIC_NAME;
        refuse(session, err, is_refused ? "the will's topic is not allowed" : NULL);
        return;
    }
    session->state = SESSION_CLAIMING;
    session->flags |= SESSION_CLAIM_ASKED;
    if ((err = session->shared->effects->claim(session)) < 0) {
        session->flags &= ~(uint32_t)SESSION_CLAIM_ASKED;
        refuse(session, err, NULL);
    }
}

/* ---- connected ---- */

/* The quota of a device begins anew with each connection, whatever the one before left to release
 * (MQTT5 4.9). Such leftovers do not grow without end over many connections. */
static void widen_window(struct session *session) {
    uint32_t left = identities_count(session_identities(session));
    uint32_t window = session->receive_maximum;
    if (!session_is_mqtt5(session))
        return; /* knows no quota: reading stops */
    window += left < LIMIT_MQTT_UNRELEASED ? left : LIMIT_MQTT_UNRELEASED;
    session->receive_maximum = (uint16_t)(window < UINT16_MAX ? window : UINT16_MAX);
}

static bool send_connack(struct session *session) {
    const struct config *config = session->shared->config;
    uint8_t bytes[512];
    struct writer w = writer_make(bytes, sizeof(bytes));
    bool assigned = session->flags & SESSION_CLIENT_ID_ASSIGNED;
    bool capped = session->flags & SESSION_KEEP_ALIVE_CAPPED;
    session->receive_maximum = (uint16_t)config->mqtt_receive_maximum;
    session->max_packet_bytes = (uint32_t)config->mqtt_max_packet_bytes;
    if (session_is_iothub(session) && session->max_packet_bytes < IOTHUB_PACKET_BYTES)
        session->max_packet_bytes = IOTHUB_PACKET_BYTES;
    struct mqtt_connack connack = {
        .session_present = session->flags & SESSION_RESUMED,
        .has_session_expiry = session->flags & SESSION_EXPIRY_CAPPED,
        .session_expiry_s = session->expiry_s,
        .receive_maximum = session->receive_maximum,
        .maximum_qos = -1, /* 2 */
        .maximum_packet_size = session->max_packet_bytes,
        .assigned_client_id = assigned ? session_client_id(session) : slice_make(NULL, 0),
        .topic_alias_maximum = LIMIT_MQTT_TOPIC_ALIASES,
        .retain_available = true,
        .subscription_id_available = true,
        .server_keep_alive_s = capped ? session->keep_alive_s : 0,
    };
    mqtt_write_connack(&w, session->version, &connack);
    widen_window(session);
    return session_send(session, &w);
}

void session_connect_finish(struct session *session) {
    struct session_shared *shared = session->shared;
    int err = session_open(session);
    if (err == 0 && session->flags & SESSION_SAVING)
        return; /* session_saved() comes back here */
    if (err == 0 && !(session->flags & SESSION_PRESENT)) {
        session->connected_ms = session_now_ms(session);
        err = session_append_connected(session);
    }
    if (err == DG_ERR_PRESSURE)
        return; /* session_ready() comes back here */
    if (err < 0) {
        refuse(session, err, NULL);
        return;
    }
    if (!send_connack(session)) {
        refuse(session, DG_ERR_TOO_LARGE, "maximum packet size too small for CONNACK");
        return;
    }
    session->state = SESSION_CONNECTED;
    session->input_ms = session_now_ms(session);
    session_note(session, session->flags & SESSION_RESUMED ? FLIGHT_RESUMED : FLIGHT_CONNECTED, 0,
                 session_client_id(session));
    metric_add(METRIC_DEVICES_CONNECTED, 1);
    shared->effects->raise_input_limit(session, session->max_packet_bytes);
    shared->effects->set_deadline(session, session_next_deadline(session));
    shared->effects->connected(session);
    session_unpause(session, SESSION_PAUSED_LOGIN);
    session_deliver_wake(session); /* whose messages may be sent is known then, or asked for */
    session_deliver_resume(session);
    session_state_resume(session);
}
