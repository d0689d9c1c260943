/* SASL PLAIN: the API key's id is the user, its secret the password; the registry judges. */
#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

enum { REFUSAL_DELAY_MS = 100 };

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
    else if (call->header.version == 0) /* raw tokens would follow, which no current client sends */
        response.error = KAFKA_ERROR_UNSUPPORTED_VERSION;
    else
        session->state = KAFKA_STATE_HANDSHAKEN;
    return kafka_answer(call, &response);
}

static void refuse(struct kafka_call *call, int err, const char *text) {
    struct kafka_session *session = call->session;
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_WARN("kafka.login_refused", log_text("peer", peer), log_text("why", text));
    metric_add(err == DG_ERR_UNAVAILABLE ? METRIC_LOGINS_UNAVAILABLE : METRIC_LOGINS_REFUSED, 1);
    struct kafka_sasl_authenticate_response response = {.error = KAFKA_ERROR_SASL_FAILED,
                                                        .message = slice_from_string(text)};
    if (kafka_answer(call, &response) < 0) {
        connection_close(session->connection, err);
        return;
    }
    session->state = KAFKA_STATE_REFUSED;
    connection_pause(session->connection);
    connection_set_deadline(session->connection,
                            session->worker->worker->now_ns / 1000000 + REFUSAL_DELAY_MS);
}

static void accept_login(struct kafka_call *call, const struct registry_identity *identity) {
    struct kafka_session *session = call->session;
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_INFO("kafka.login", log_text("peer", peer), log_text("tenant", identity->tenant),
             log_int("credential", identity->credential_key),
             log_text("software", session->software));
    metric_add(METRIC_LOGINS_OK, 1);
    session->identity = *identity;
    session->state = KAFKA_STATE_READY;
    session->connection->input_limit_bytes =
        LIMIT_KAFKA_REQUEST_BYTES + LIMIT_KAFKA_PIPELINED_BYTES;
    struct kafka_sasl_authenticate_response response = {.bytes = {.data = (const uint8_t *)""}};
    if (kafka_answer(call, &response) < 0)
        connection_close(session->connection, DG_ERR_LIMIT);
}

static void judge(struct kafka_session *session, const struct registry_login *login) {
    uint8_t room[256];
    struct kafka_call call = {.session = session,
                              .api = kafka_api_find(KAFKA_SASL_AUTHENTICATE),
                              .header = session->request,
                              .arena = {.at = room, .end = room + sizeof(room)}};
    uint32_t useful = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_CONSUMER | REGISTRY_ROLE_AUDITOR;
    if (login->err == DG_ERR_BAD_CREDENTIALS)
        refuse(&call, login->err, "unknown user or wrong password");
    else if (login->err < 0)
        refuse(&call, login->err, dg_err_text(login->err));
    else if (!(login->identity.roles & useful))
        refuse(&call, DG_ERR_NOT_AUTHORIZED, "this key has no role that reads the stream");
    else
        accept_login(&call, &login->identity);
}

/* The first thing a client does with its login is to use a topic: ask for the tenants at once. */
static void deliver_login(struct mail *mail, void *receiver) {
    struct registry_login *login = (struct registry_login *)(void *)mail;
    struct connection *c = connection_find(receiver, login->owner);
    if (c) {
        struct kafka_session *session = c->session;
        judge(session, login);
        if (session->state == KAFKA_STATE_READY && kafka_ask_tenants(session) < 0)
            connection_close(c, DG_ERR_NO_MEMORY);
    }
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
    const struct config *config = atomic_load(&c->worker->config);
    return connection_is_encrypted(c) || connection_peer_is_loopback(c) ||
           config->security_allow_plaintext_passwords;
}

int kafka_handle_authenticate(struct kafka_call *call, const void *request) {
    const struct kafka_sasl_authenticate_request *r = request;
    struct kafka_session *session = call->session;
    struct slice user, password;
    if (session->state != KAFKA_STATE_HANDSHAKEN)
        return DG_ERR_PROTOCOL;
    if (!password_allowed(session->connection)) {
        refuse(call, DG_ERR_NOT_AUTHORIZED,
               "passwords are refused in plain text here; use the TLS port");
        return KAFKA_ANSWERED;
    }
    struct registry_login *login = NULL;
    if (parse_plain(r->bytes, &user, &password))
        login = registry_login_new(REGISTRY_LOGIN_PRINCIPAL, slice_make(NULL, 0), user, password);
    if (!login) {
        refuse(call, DG_ERR_BAD_CREDENTIALS, "unknown user or wrong password");
        return KAFKA_ANSWERED;
    }
    login->mail.deliver = deliver_login;
    login->reply_to = &session->worker->worker->mailbox;
    login->owner = connection_id(session->connection);
    session->request = call->header;
    session->state = KAFKA_STATE_LOGGING_IN;
    connection_pause(session->connection);
    registry_login(session->worker->registry, login);
    return KAFKA_ANSWERED; /* the request is used up; the answer follows with the verdict */
}
