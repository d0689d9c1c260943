/*
 * SASL PLAIN: the API key's id is the user, its secret the password; the registry judges.
 *
 * After a handshake of version 0 the token comes without a Kafka header, only its length in front,
 * and success is an empty token; kafka-python 2.0 still does that.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

static const char bad_credentials[] = "unknown user or wrong password";
static const struct slice empty = {.data = (const uint8_t *)""};
static struct slice plain_name = {.data = (const uint8_t *)"PLAIN", .size = 5};

int kafka_handle_sasl_handshake(struct kafka_call *call, const void *request) {
    const struct kafka_sasl_handshake_request *r = request;
    struct kafka_session *session = call->session;
    struct kafka_sasl_handshake_response response = {
        .mechanisms = {.items = &plain_name, .count = 1}};
    if (session->state != KAFKA_STATE_NEW && session->state != KAFKA_STATE_HANDSHAKEN)
        response.error = KAFKA_ERROR_ILLEGAL_SASL_STATE;
    else if (!slice_equals(r->mechanism, plain_name))
        response.error = KAFKA_ERROR_UNSUPPORTED_MECHANISM;
    if (response.error == 0)
        session->state = call->header.version == 0 ? KAFKA_STATE_RAW_TOKEN : KAFKA_STATE_HANDSHAKEN;
    return kafka_answer(call, &response);
}

/* What a token is answered with; a raw one is refused without a word. */
static int reply(struct kafka_session *session, int16_t error, const char *text) {
    static const uint8_t empty_token[KAFKA_FRAME_HEADER_SIZE];
    if (session->raw_token) {
        connection_write(session->connection, empty_token, error == 0 ? sizeof(empty_token) : 0);
        return 0;
    }
    struct kafka_call call = {.session = session,
                              .api = kafka_api_find(KAFKA_SASL_AUTHENTICATE),
                              .header = session->request};
    struct kafka_sasl_authenticate_response response = {.error = error, .bytes = empty};
    if (text)
        response.message = slice_from_string(text);
    return kafka_answer(&call, &response);
}

static void log_refusal(const struct kafka_session *session, int err, const char *text) {
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_WARN("kafka.login_refused", log_text("peer", peer), log_text("why", text),
             log_text("software", session->software));
    metric_add(err == DG_ERR_UNAVAILABLE ? METRIC_LOGINS_UNAVAILABLE : METRIC_LOGINS_REFUSED, 1);
}

static void refuse(struct kafka_session *session, int err, const char *text) {
    log_refusal(session, err, text);
    if (reply(session, KAFKA_ERROR_SASL_FAILED, text) < 0)
        kafka_close(session, err);
    else
        kafka_close_later(session, err);
}

/* The tenant of a principal is known from its login; a platform principal's are asked for. */
static int know_tenants(struct kafka_session *session) {
    const struct registry_identity *identity = &session->identity;
    if (!identity->tenant[0])
        return kafka_ask_tenants(session) < 0 ? DG_ERR_NO_MEMORY : 0;
    session->tenants = calloc(1, sizeof(*session->tenants));
    if (!session->tenants)
        return DG_ERR_NO_MEMORY;
    session->tenant_count = 1;
    session->tenants_known = true;
    session->asked_ms = kafka_now_ms(session);
    session->tenants[0] = (struct registry_tenant){.tenant_key = identity->tenant_key,
                                                   .stream_id = identity->tenant_stream_id,
                                                   .partition_count = identity->partition_count};
    memcpy(session->tenants[0].name, identity->tenant, sizeof(identity->tenant));
    kafka_resume(session);
    return 0;
}

static void accept_login(struct kafka_session *session, const struct registry_identity *identity) {
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_INFO("kafka.login", log_text("peer", peer), log_text("tenant", identity->tenant),
             log_int("credential", identity->credential_key),
             log_text("software", session->software));
    metric_add(METRIC_LOGINS_OK, 1);
    connection_set_known(session->connection);
    session->identity = *identity;
    session->state = KAFKA_STATE_READY;
    session->active_ms = kafka_now_ms(session);
    session->connection->input_limit_bytes =
        LIMIT_KAFKA_REQUEST_BYTES + LIMIT_KAFKA_PIPELINED_BYTES;
    kafka_set_check(session);
    int err = reply(session, 0, NULL);
    if (err == 0)
        err = know_tenants(session);
    if (err < 0)
        kafka_close(session, err);
}

/* Not the client's fault. Error 58 would be final for it; a lost connection makes it come again. */
static bool is_temporary(int err) {
    return err == DG_ERR_UNAVAILABLE || err == DG_ERR_BUSY || err == DG_ERR_TIMEOUT ||
           err == DG_ERR_SHUTTING_DOWN || err == DG_ERR_NO_MEMORY;
}

static void refuse_for_now(struct kafka_session *session, int err) {
    log_refusal(session, err, dg_err_text(err));
    kafka_close_later(session, err);
}

static void judge(struct kafka_session *session, const struct registry_login *login) {
    uint32_t useful = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_CONSUMER | REGISTRY_ROLE_AUDITOR;
    if (is_temporary(login->err)) {
        refuse_for_now(session, login->err);
    } else if (login->err == DG_ERR_BAD_CREDENTIALS) {
        refuse(session, login->err, bad_credentials);
    } else if (login->err < 0) {
        refuse(session, login->err, dg_err_text(login->err));
    } else if (!(login->identity.roles & useful)) {
        refuse(session, DG_ERR_NOT_AUTHORIZED, "this key has no role that reads the stream");
    } else {
        accept_login(session, &login->identity);
    }
}

static void deliver_login(struct mail *mail, void *receiver) {
    struct registry_login *login = (struct registry_login *)(void *)mail;
    struct connection *c = connection_find(receiver, login->owner);
    struct kafka_session *session = c ? c->session : NULL;
    if (session && session->state == KAFKA_STATE_LOGGING_IN)
        judge(session, login);
    registry_login_free(login);
}

/* authorization id NUL user NUL password (RFC 4616); the first must be empty or the user. */
static bool parse_plain(struct slice bytes, struct slice *ret_user, struct slice *ret_password) {
    const uint8_t *first = bytes.size ? memchr(bytes.data, 0, bytes.size) : NULL;
    if (!first)
        return false;
    struct slice acting = slice_make(bytes.data, (size_t)(first - bytes.data));
    struct slice rest = slice_skip(bytes, acting.size + 1);
    const uint8_t *second = rest.size ? memchr(rest.data, 0, rest.size) : NULL;
    if (!second)
        return false;
    *ret_user = slice_make(rest.data, (size_t)(second - rest.data));
    *ret_password = slice_skip(rest, ret_user->size + 1);
    return acting.size == 0 || slice_equals(acting, *ret_user);
}

static bool password_allowed(const struct connection *c) {
    const struct config *config = c->worker->config;
    return connection_is_encrypted(c) || connection_peer_is_loopback(c) ||
           config->security_allow_plaintext_passwords;
}

static void begin_login(struct kafka_session *session, struct slice token) {
    struct slice user, password;
    if (!password_allowed(session->connection)) {
        refuse(session, DG_ERR_NOT_AUTHORIZED,
               "passwords are refused in plain text here; use the TLS port");
        return;
    }
    struct slice tenant = slice_make(NULL, 0);
    if (!parse_plain(token, &user, &password) ||
        !registry_login_fits(REGISTRY_LOGIN_PRINCIPAL, tenant, user, password)) {
        refuse(session, DG_ERR_BAD_CREDENTIALS, bad_credentials);
        return;
    }
    struct registry_login *login =
        registry_login_new(REGISTRY_LOGIN_PRINCIPAL, tenant, user, password);
    if (!login) {
        refuse_for_now(session, DG_ERR_NO_MEMORY);
        return;
    }
    login->mail.deliver = deliver_login;
    login->reply_to = &session->worker->worker->mailbox;
    login->owner = connection_id(session->connection);
    session->state = KAFKA_STATE_LOGGING_IN;
    connection_pause(session->connection);
    registry_login(session->worker->registry, login);
}

/* The request is used up; the answer follows with the verdict. */
int kafka_handle_authenticate(struct kafka_call *call, const void *request) {
    const struct kafka_sasl_authenticate_request *r = request;
    if (call->session->state != KAFKA_STATE_HANDSHAKEN)
        return DG_ERR_PROTOCOL;
    call->session->request = call->header;
    begin_login(call->session, r->bytes);
    return KAFKA_ANSWERED;
}

int kafka_take_raw_token(struct kafka_session *session, struct slice token) {
    session->raw_token = true;
    begin_login(session, token);
    return KAFKA_ANSWERED;
}
