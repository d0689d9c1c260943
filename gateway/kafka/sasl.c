/*
 * SASL: the API key's id is the user, its secret the password; the registry judges. PLAIN sends the
 * secret, SCRAM-SHA-256 (scram.h) a proof that the client knows it.
 *
 * After a handshake of version 0 tokens come without a Kafka header, only their length in front,
 * and so do the answers; kafka-python 2.0 still does that.
 *
 * In plain text beyond loopback PLAIN needs the operator's permission, SCRAM does not: who listens,
 * or stands in between, sees a salt and proofs over fresh nonces by a secret of 192 random bits,
 * and learns nothing to log in with. What such a listener gives away is what the consumer reads,
 * and that is decided where its address is configured.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/random.h"
#include "gateway/kafka/scram.h"
#include "gateway/kafka/session.h"

static const char bad_credentials[] = "unknown user or wrong password";
static const struct slice empty = {.data = (const uint8_t *)""};

enum mechanism { PLAIN, SCRAM_SHA_256, MECHANISMS };
static struct slice mechanism_names[MECHANISMS] = {
    [PLAIN] = {.data = (const uint8_t *)"PLAIN", .size = 5},
    [SCRAM_SHA_256] = {.data = (const uint8_t *)"SCRAM-SHA-256", .size = 13},
};

/* ---- the handshake ---- */

static int16_t choose_mechanism(struct kafka_session *session, struct slice name) {
    if (session->state != KAFKA_STATE_NEW && session->state != KAFKA_STATE_HANDSHAKEN)
        return KAFKA_ERROR_ILLEGAL_SASL_STATE;
    unsigned chosen = 0;
    while (chosen < MECHANISMS && !slice_equals(name, mechanism_names[chosen]))
        chosen++;
    if (chosen == MECHANISMS)
        return KAFKA_ERROR_UNSUPPORTED_MECHANISM;
    kafka_sasl_free(session);
    if (chosen == SCRAM_SHA_256 && !(session->scram = calloc(1, sizeof(*session->scram))))
        return KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
    return 0;
}

int kafka_handle_sasl_handshake(struct kafka_call *call, const void *request) {
    const struct kafka_sasl_handshake_request *r = request;
    struct kafka_session *session = call->session;
    struct kafka_sasl_handshake_response response = {
        .error = choose_mechanism(session, r->mechanism),
        .mechanisms = {.items = mechanism_names, .count = MECHANISMS}};
    if (response.error == 0)
        session->state = call->header.version == 0 ? KAFKA_STATE_RAW_TOKEN : KAFKA_STATE_HANDSHAKEN;
    return kafka_answer(call, &response);
}

void kafka_sasl_free(struct kafka_session *session) {
    free(session->scram);
    session->scram = NULL;
}

/* ---- answers ---- */

static void reply_raw(struct kafka_session *session, struct slice token) {
    uint8_t length[KAFKA_FRAME_HEADER_SIZE];
    struct writer w = writer_make(length, sizeof(length));
    writer_u32(&w, (uint32_t)token.size);
    connection_write(session->connection, length, sizeof(length));
    connection_write(session->connection, token.data, token.size);
}

/* What a token is answered with; a raw one is refused without a word. */
static int reply(struct kafka_session *session, int16_t error, const char *text,
                 struct slice token) {
    if (session->raw_token) {
        if (error == 0)
            reply_raw(session, token);
        return 0;
    }
    struct kafka_call call = {.session = session,
                              .api = kafka_api_find(KAFKA_SASL_AUTHENTICATE),
                              .header = session->request};
    struct kafka_sasl_authenticate_response response = {.error = error, .bytes = token};
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
    if (reply(session, KAFKA_ERROR_SASL_FAILED, text, empty) < 0)
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

/* What the client hears of its success: nothing, or our proof. */
static int reply_success(struct kafka_session *session, const struct registry_login *login) {
    char text[SCRAM_SUCCESS_SIZE];
    struct slice token = empty;
    if (login->kind == REGISTRY_LOGIN_PRINCIPAL_SCRAM)
        token = slice_make(text, scram_write_success(login->signature, text));
    return reply(session, 0, NULL, token);
}

/* Not the client's fault. Error 58 would be final for it; a lost connection makes it come again. */
static bool is_temporary(int err) {
    return err == DG_ERR_UNAVAILABLE || err == DG_ERR_BUSY || err == DG_ERR_TIMEOUT ||
           err == DG_ERR_SHUTTING_DOWN || err == DG_ERR_NO_MEMORY;
}

static void refuse_for_now(struct kafka_session *session, int err, const char *text) {
    log_refusal(session, err, text);
    kafka_close_later(session, err);
}

/* Room for one more connection of this API key; false: it is refused. */
static bool enter(struct kafka_session *session, int64_t credential_key) {
    struct kafka_worker *worker = session->worker;
    uint64_t most = (uint64_t)worker->worker->config->kafka_connections_per_key;
    int err = kafka_ledger_enter(worker->ledger, credential_key, most, worker->worker->now_ns,
                                 &session->account);
    if (err < 0)
        refuse_for_now(session, err,
                       err == DG_ERR_LIMIT ? "this key has kafka.connections_per_key connections"
                                           : dg_err_text(err));
    return err == 0;
}

static void accept_login(struct kafka_session *session, const struct registry_login *login) {
    const struct registry_identity *identity = &login->identity;
    if (!enter(session, identity->credential_key))
        return;
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_INFO("kafka.login", log_text("peer", peer), log_text("tenant", identity->tenant),
             log_int("credential", identity->credential_key),
             log_slice("mechanism", mechanism_names[session->scram ? SCRAM_SHA_256 : PLAIN]),
             log_text("software", session->software));
    metric_add(METRIC_LOGINS_OK, 1);
    connection_set_known(session->connection);
    session->identity = *identity;
    session->state = KAFKA_STATE_READY;
    session->active_ms = kafka_now_ms(session);
    session->connection->input_limit_bytes =
        LIMIT_KAFKA_REQUEST_BYTES + LIMIT_KAFKA_PIPELINED_BYTES;
    kafka_set_check(session);
    kafka_sasl_free(session);
    int err = reply_success(session, login);
    if (err == 0)
        err = know_tenants(session);
    if (err < 0)
        kafka_close(session, err);
    else
        kafka_throttle_login(session);
}

static void judge(struct kafka_session *session, const struct registry_login *login) {
    uint32_t useful = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_CONSUMER | REGISTRY_ROLE_AUDITOR;
    if (is_temporary(login->err)) {
        refuse_for_now(session, login->err, dg_err_text(login->err));
    } else if (login->err == DG_ERR_BAD_CREDENTIALS) {
        refuse(session, login->err, bad_credentials);
    } else if (login->err < 0) {
        refuse(session, login->err, dg_err_text(login->err));
    } else if (!(login->identity.roles & useful)) {
        refuse(session, DG_ERR_NOT_AUTHORIZED, "this key has no role that reads the stream");
    } else {
        accept_login(session, login);
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

/* proof NULL: secret is the password. */
static void ask_registry(struct kafka_session *session, enum registry_login_kind kind,
                         struct slice user, struct slice secret, const uint8_t *proof) {
    struct slice tenant = slice_make(NULL, 0);
    if (!registry_login_fits(kind, tenant, user, secret)) {
        refuse(session, DG_ERR_BAD_CREDENTIALS, bad_credentials);
        return;
    }
    struct registry_login *login = registry_login_new(kind, tenant, user, secret);
    if (!login) {
        refuse_for_now(session, DG_ERR_NO_MEMORY, dg_err_text(DG_ERR_NO_MEMORY));
        return;
    }
    if (proof)
        memcpy(login->proof, proof, sizeof(login->proof));
    login->mail.deliver = deliver_login;
    login->reply_to = &session->worker->worker->mailbox;
    login->owner = connection_id(session->connection);
    session->state = KAFKA_STATE_LOGGING_IN;
    connection_pause(session->connection);
    registry_login(session->worker->registry, login);
}

static void take_plain(struct kafka_session *session, struct slice token) {
    struct slice user, password;
    if (!password_allowed(session->connection))
        refuse(session, DG_ERR_NOT_AUTHORIZED,
               "passwords are refused in plain text here; use the TLS port or SCRAM-SHA-256");
    else if (!parse_plain(token, &user, &password))
        refuse(session, DG_ERR_BAD_CREDENTIALS, bad_credentials);
    else
        ask_registry(session, REGISTRY_LOGIN_PRINCIPAL, user, password, NULL);
}

/* The registry is not asked yet: what is said to a name says nothing of whether it exists. */
static int challenge(struct kafka_session *session, struct slice token, struct slice *ret_message) {
    enum { NONCE_BYTES = 18 }; /* 24 characters */
    uint8_t nonce[NONCE_BYTES], salt[SCRAM_SALT_SIZE];
    char nonce_text[NONCE_BYTES / 3 * 4 + 1];
    random_bytes(nonce, sizeof(nonce));
    size_t size = credential_base64_encode(nonce, sizeof(nonce), nonce_text);
    int err = scram_take_first(session->scram, token, slice_make(nonce_text, size));
    if (err < 0)
        return err;
    scram_keys_salt(registry_master(session->worker->registry), scram_name(session->scram), salt);
    return scram_challenge(session->scram, salt, sizeof(salt), SCRAM_ITERATIONS, ret_message);
}

static void take_scram(struct kafka_session *session, struct slice token) {
    struct scram *scram = session->scram;
    uint8_t proof[SCRAM_KEY_SIZE];
    struct slice message;
    bool is_first = !scram->is_challenged;
    int err =
        is_first ? challenge(session, token, &message) : scram_take_final(scram, token, proof);
    if (err == DG_ERR_BAD_CREDENTIALS)
        refuse(session, err, bad_credentials);
    else if (err == DG_ERR_NOT_SUPPORTED)
        refuse(session, err, "channel binding is not offered");
    else if (err < 0)
        refuse(session, err, "not a SCRAM-SHA-256 message");
    else if (!is_first)
        ask_registry(session, REGISTRY_LOGIN_PRINCIPAL_SCRAM, scram_name(scram),
                     scram_auth_message(scram), proof);
    else if ((err = reply(session, 0, NULL, message)) < 0)
        kafka_close(session, err);
}

static void take_token(struct kafka_session *session, struct slice token) {
    if (session->scram)
        take_scram(session, token);
    else
        take_plain(session, token);
}

/* The request is used up; the answer follows with the verdict. */
int kafka_handle_authenticate(struct kafka_call *call, const void *request) {
    const struct kafka_sasl_authenticate_request *r = request;
    if (call->session->state != KAFKA_STATE_HANDSHAKEN)
        return DG_ERR_PROTOCOL;
    call->session->request = call->header;
    take_token(call->session, r->bytes);
    return KAFKA_ANSWERED;
}

int kafka_take_raw_token(struct kafka_session *session, struct slice token) {
    session->raw_token = true;
    take_token(session, token);
    return KAFKA_ANSWERED;
}
