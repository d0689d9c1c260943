/* What a session does to the world, done for real. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/command/commands.h"
#include "gateway/dialect/iothub.h"
#include "gateway/dialect/native.h"
#include "gateway/mqtt/endpoint_internal.h"
#include "gateway/session/tenants.h"

static struct mqtt_worker *worker_of(const struct session *session) {
    return session->shared->context;
}

/* ---- addresses ---- */

static void format_address(const struct in6_addr *address, uint16_t port, char *ret_text) {
    char host[INET6_ADDRSTRLEN] = "";
    if (IN6_IS_ADDR_V4MAPPED(address)) {
        inet_ntop(AF_INET, &address->s6_addr[12], host, sizeof(host));
        snprintf(ret_text, SESSION_PEER_TEXT_SIZE, "%s:%u", host, port);
        return;
    }
    inet_ntop(AF_INET6, address, host, sizeof(host));
    snprintf(ret_text, SESSION_PEER_TEXT_SIZE, "[%s]:%u", host, port);
}

static void effect_format_peer(struct session *session, char *ret_text) {
    const struct connection *c = session->link;
    ret_text[0] = '\0';
    if (c)
        format_address(&c->peer_address, c->peer_port, ret_text);
}

/* ---- output ---- */

void mqtt_flush(struct mqtt_worker *mqtt) {
    if (mqtt->out_connection && mqtt->out_size > 0)
        connection_write(mqtt->out_connection, mqtt->out_bytes, mqtt->out_size);
    mqtt->out_connection = NULL;
    mqtt->out_size = 0;
}

static void effect_send(struct session *session, const void *data, size_t size) {
    struct mqtt_worker *mqtt = worker_of(session);
    struct connection *c = session->link;
    if (!c)
        return;
    if (mqtt->out_connection != c || size > sizeof(mqtt->out_bytes) - mqtt->out_size)
        mqtt_flush(mqtt);
    if (size > sizeof(mqtt->out_bytes)) {
        connection_write(c, data, size);
        return;
    }
    mqtt->out_connection = c;
    memcpy(mqtt->out_bytes + mqtt->out_size, data, size);
    mqtt->out_size += size;
}

/* ---- logging in ---- */

/* Names the device that was claimed, which the session never learns. */
static void log_refused_login(struct session *session, const struct registry_login *login) {
    char peer[SESSION_PEER_TEXT_SIZE];
    unsigned suppressed;
    if (!log_sample(&worker_of(session)->refused_lines, clock_monotonic_ms(), &suppressed))
        return;
    effect_format_peer(session, peer);
    LOG_INFO("mqtt.login_refused", log_text("tenant", login->tenant),
             log_text("device", login->name), log_text("peer", peer),
             log_text("why", dg_err_text(login->err)), log_int("suppressed", suppressed));
}

static void on_login(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct registry_login *login = (struct registry_login *)(void *)mail;
    struct mqtt_worker *mqtt = mqtt_of(worker);
    struct session *session = mqtt_find(mqtt, login->owner);
    mqtt_set_time(mqtt);
    metric_add(login->err == 0                    ? METRIC_LOGINS_OK
               : login->err == DG_ERR_UNAVAILABLE ? METRIC_LOGINS_UNAVAILABLE
               : login->err == DG_ERR_ATTEMPTS    ? METRIC_LOGINS_THROTTLED
                                                  : METRIC_LOGINS_REFUSED,
               1);
    if (session && login->err < 0)
        log_refused_login(session, login);
    mqtt->shared.claimed_key =
        flight_claimed_key(slice_from_string(login->tenant), slice_from_string(login->name));
    if (session)
        session_login_done(session, login->err, &login->identity);
    mqtt->shared.claimed_key = 0;
    registry_login_free(login);
}

static int send_login(struct mqtt_worker *mqtt, const struct session *session,
                      const struct session_login *from, struct slice secret, size_t leaf_size) {
    struct registry_login *login =
        registry_login_new(from->kind, from->tenant, from->device, secret);
    if (!login)
        return registry_login_fits(from->kind, from->tenant, from->device, secret)
                   ? DG_ERR_NO_MEMORY
                   : DG_ERR_BAD_CREDENTIALS;
    login->mail.deliver = on_login;
    login->reply_to = &mqtt->worker->mailbox;
    login->owner = session->id;
    login->leaf_size_bytes = leaf_size;
    memcpy(login->host, from->host.data ? (const void *)from->host.data : "", from->host.size);
    memcpy(login->peer_address, &((const struct connection *)session->link)->peer_address,
           sizeof(login->peer_address));
    registry_login(mqtt->registry, login);
    return 0;
}

static int effect_login(struct session *session, const struct session_login *login) {
    struct mqtt_worker *mqtt = worker_of(session);
    if (login->kind == REGISTRY_LOGIN_DEVICE_SECRET)
        return send_login(mqtt, session, login, login->secret, 0);
    uint8_t *chain;
    size_t size, leaf_size;
    int err = connection_peer_certificates(session->link, &chain, &size, &leaf_size);
    if (err < 0)
        return err;
    err = send_login(mqtt, session, login, slice_make(chain, size), leaf_size);
    free(chain);
    return err;
}

/* ---- one connection per device ---- */

static int effect_claim(struct session *session) {
    struct mqtt_worker *mqtt = worker_of(session);
    const struct connection *c = session->link;
    int err = mqtt_session_index(mqtt, session); /* from here on a revocation finds it */
    if (err < 0)
        return err;
    return claims_ask(mqtt->worker, session->device_key, session->id, &c->peer_address,
                      c->peer_port);
}

static void effect_release(struct session *session) {
    struct claim *claim = session->claim;
    claim->kept = session->kept;
    claim->producers = session->producers;
    session->claim = NULL;
    session->kept = NULL;
    session->producers = NULL;
    claims_release(worker_of(session)->worker, claim);
}

void mqtt_on_claim_settled(void *context, uint64_t owner, struct claim *claim, int err) {
    struct mqtt_worker *mqtt = context;
    /* A session that asked lives until it is answered. */
    struct session *session = mqtt_find(mqtt, owner);
    dg_assert(session);
    mqtt_set_time(mqtt);
    session->claim = claim;
    struct session_kept *kept = claim ? claim->kept : NULL;
    if (claim) {
        session->producers = claim->producers;
        claim->producers = NULL;
        claim->kept = NULL;
    }
    session_claim_done(session, err, kept, claim && claim->may_keep);
}

static const struct session_takeover *effect_takeover(const struct session *session) {
    const struct claim *claim = session->claim;
    return claim ? claim->takeover : NULL;
}

/* For the events of both; without memory they say less. */
static void keep_takeover(struct session *session, const char *old_peer, const char *new_peer) {
    struct claim *claim = session->claim;
    if (!claim || !(session->flags & SESSION_PRESENT))
        return;
    free(claim->takeover);
    claim->takeover = malloc(sizeof(*claim->takeover));
    if (!claim->takeover)
        return;
    strcpy(claim->takeover->old_peer, old_peer);
    strcpy(claim->takeover->new_peer, new_peer);
    session_format_id(session, claim->takeover->old_session_id);
}

void mqtt_on_evict(void *context, uint64_t owner, const struct in6_addr *peer_address,
                   uint16_t peer_port) {
    struct mqtt_worker *mqtt = context;
    struct session *session = mqtt_find(mqtt, owner);
    if (!session || session->state == SESSION_CLOSED)
        return;
    char old_peer[SESSION_PEER_TEXT_SIZE], new_peer[SESSION_PEER_TEXT_SIZE];
    effect_format_peer(session, old_peer);
    format_address(peer_address, peer_port, new_peer);
    LOG_INFO("mqtt.taken_over", log_slice("tenant", session_tenant_name(session)),
             log_slice("device", session_device(session)), log_text("old_peer", old_peer),
             log_text("new_peer", new_peer));
    keep_takeover(session, old_peer, new_peer);
    mqtt_set_time(mqtt);
    session_evict(session, new_peer);
}

/* ---- devices behind ---- */

/* Where it is decided that a device may not be spoken for; at most once a second for each. */
static void log_refused_child(struct mqtt_worker *mqtt, const struct registry_child_query *answer) {
    unsigned suppressed;
    if (log_sample(&mqtt->refused_lines, clock_monotonic_ms(), &suppressed))
        LOG_INFO("mqtt.via_refused", log_text("tenant", answer->tenant),
                 log_text("gateway", answer->gateway), log_text("device", answer->child),
                 log_text("why", dg_err_text(answer->err < 0 ? answer->err : DG_ERR_VIA)),
                 log_int("suppressed", suppressed));
}

static void on_child(struct mail *mail, void *receiver) {
    struct mqtt_worker *mqtt = mqtt_of(receiver);
    struct registry_child_query *answer = (struct registry_child_query *)(void *)mail;
    struct session *session = mqtt_find(mqtt, answer->owner);
    mqtt_set_time(mqtt);
    if (answer->err < 0 || !registry_is_listed(answer->via, slice_from_string(answer->gateway)))
        log_refused_child(mqtt, answer);
    int err = children_store(&mqtt->shared.children, answer, mqtt->shared.now_ns / 1000000);
    if (session && err < 0)
        session_stop(session, err, NULL);
    else if (session)
        session_child_done(session);
    registry_child_query_free(answer);
}

static int effect_find_child(struct session *session, struct slice name) {
    struct mqtt_worker *mqtt = worker_of(session);
    struct registry_child_query *query = calloc(1, sizeof(*query));
    struct slice gateway = session_device(session), tenant = session_tenant_name(session);
    if (!query)
        return DG_ERR_NO_MEMORY;
    query->mail.deliver = on_child;
    query->reply_to = &mqtt->worker->mailbox;
    query->owner = session->id;
    query->tenant_key = session->tenant->key;
    memcpy(query->tenant, tenant.data, tenant.size);
    memcpy(query->gateway, gateway.data, gateway.size);
    memcpy(query->child, name.data, name.size);
    registry_find_child(mqtt->registry, query);
    return 0;
}

/* ---- events ---- */

/* As append and mutate answer. */
static int wait_if_pressed(struct session *session, int err) {
    struct mqtt_worker *mqtt = worker_of(session);
    if (err == DG_ERR_PRESSURE) {
        session->next_waiting = mqtt->waiting;
        mqtt->waiting = session;
    }
    return err;
}

static void log_quarantined(struct session *session, const struct device_event *event,
                            struct slice device) {
    unsigned suppressed;
    metric_add(METRIC_QUARANTINED, 1);
    if (log_sample(&worker_of(session)->quarantine_lines, clock_monotonic_ms(), &suppressed))
        LOG_INFO("mqtt.quarantined", log_slice("tenant", session_tenant_name(session)),
                 log_slice("device", device), log_slice("topic", event->subject),
                 log_slice("rule", event->quarantine_rule),
                 log_slice("why", event->quarantine_reason), log_int("suppressed", suppressed));
}

static int effect_append(struct session *session, const struct device_event *event,
                         const struct stream_mutation *with, unsigned count, uint64_t tag) {
    struct mqtt_worker *mqtt = worker_of(session);
    struct event_source source;
    struct stream_record record;
    session_source(session, event, &source);
    int err = event_build(event, &source, &mqtt->counter, &mqtt->scratch, &record);
    if (err < 0)
        return err;
    struct stream_ticket ticket = {.owner = session->id, .tag = tag};
    err = stream_append_with(mqtt->appender, source.stream_id, source.partition, &record, with,
                             count, ticket);
    if (__builtin_expect(err == 0 && event->quarantine_reason.size > 0, 0))
        log_quarantined(session, event, source.device);
    return wait_if_pressed(session, err);
}

static void effect_receives(struct session *session, int64_t device_key) {
    commands_wake(worker_of(session)->worker, device_key, session->device_key, session->id);
}

static void effect_receives_no_more(struct session *session, int64_t child_key) {
    commands_sleep(worker_of(session)->worker, child_key, session->id);
}

static int effect_reply(struct session *session, const struct session_command_reply *reply,
                        uint64_t tag) {
    return commands_reply(worker_of(session)->worker,
                          &(struct command_reply){.device_key = reply->device_key,
                                                  .command_key = reply->command_key,
                                                  .status = reply->status,
                                                  .content_type = reply->content_type,
                                                  .payload = reply->payload,
                                                  .owner = session->id,
                                                  .tag = tag});
}

static int effect_mutate(struct session *session, const struct stream_mutation *mutation,
                         uint64_t tag) {
    struct stream_ticket ticket = {.owner = session->id, .tag = tag};
    return wait_if_pressed(session,
                           stream_mutate(worker_of(session)->appender, mutation, 1, ticket));
}

static int64_t effect_find_offset(struct session *session, struct slice key) {
    int64_t offset; /* little-endian, as this machine's */
    int size = stream_find_state(worker_of(session)->stream, STREAM_STATE_QOS2, key, &offset,
                                 sizeof(offset));
    return size == sizeof(offset) ? offset : -1;
}

static int effect_ask_twin(struct session *session, const struct twin_request *request) {
    return twins_ask(worker_of(session)->worker, request);
}

static int effect_listen_state(struct session *session, const struct twin_listener *listener) {
    return twins_listen(worker_of(session)->worker, listener);
}

static void effect_ignore_state(struct session *session, int64_t device_key) {
    twins_ignore(worker_of(session)->worker, device_key, session->id);
}

static void effect_discard(struct session *session, struct session_kept *kept) {
    mqtt_kept_discard(worker_of(session), session->device_key, kept);
}

/* ---- the connection ---- */

static void effect_pause(struct session *session) {
    connection_pause(session->link);
}

static void effect_resume(struct session *session) {
    connection_resume(session->link);
}

static void effect_set_deadline(struct session *session, uint64_t at_ms) {
    connection_set_deadline(session->link, at_ms);
}

static void effect_raise_input_limit(struct session *session, uint32_t max_packet_bytes) {
    struct connection *c = session->link;
    const uint32_t header_bytes = 8;
    c->input_limit_bytes = max_packet_bytes + header_bytes;
    if (c->input_limit_bytes < LIMIT_READ_BUFFER_BYTES)
        c->input_limit_bytes = LIMIT_READ_BUFFER_BYTES; /* so that one read fills the buffer */
}

static void effect_connected(struct session *session) {
    char peer[SESSION_PEER_TEXT_SIZE];
    struct claim *claim = session->claim;
    free(claim->takeover); /* its event was appended */
    claim->takeover = NULL;
    connection_set_known(session->link);
    if (log_minimum > LOG_LEVEL_DEBUG)
        return;
    effect_format_peer(session, peer);
    LOG_DEBUG("mqtt.connected", log_slice("tenant", session_tenant_name(session)),
              log_slice("device", session_device(session)), log_text("peer", peer),
              log_slice("client_id", session_client_id(session)));
}

static void effect_filter_refused(const struct session *session, struct slice filter, int err) {
    unsigned suppressed;
    if (!log_sample(&worker_of(session)->refused_filters, clock_monotonic_ms(), &suppressed))
        return;
    LOG_INFO("mqtt.subscription_refused", log_slice("tenant", session_tenant_name(session)),
             log_slice("device", session_device(session)), log_slice("filter", filter),
             log_text("why", dg_err_text(err)),
             log_text("allowed", session_is_iothub(session) ? iothub_allowed_filters()
                                                            : native_allowed_filters()),
             log_int("suppressed", suppressed));
}

/* Ordinary goodbyes are presence events; a take-over and a refused login have lines of their own.
 */
static bool is_told_elsewhere(const struct session *session, const struct session_end *end) {
    bool refused_login = session->device_size == 0 && !end->text;
    return end->err == 0 || end->err == DG_ERR_CLOSED || end->err == DG_ERR_TAKEN_OVER ||
           refused_login;
}

/* One line for whatever is not an ordinary goodbye. */
static void log_end(const struct session *session, const struct session_end *end,
                    const char *peer) {
    const char *text = end->text ? end->text : dg_err_text(end->err);
    struct slice tenant = session_tenant_name(session);
    struct slice device = session_device(session);
    if (end->clause)
        LOG_WARN("mqtt.protocol_error", log_slice("tenant", tenant), log_slice("device", device),
                 log_text("peer", peer), log_text("clause", end->clause), log_text("text", text));
    else if (is_told_elsewhere(session, end))
        LOG_DEBUG("mqtt.disconnected", log_slice("tenant", tenant), log_slice("device", device),
                  log_text("peer", peer), log_text("why", text));
    else
        LOG_INFO("mqtt.ended", log_slice("tenant", tenant), log_slice("device", device),
                 log_text("peer", peer), log_text("why", text));
}

static void effect_close(struct session *session, const struct session_end *end) {
    char peer[SESSION_PEER_TEXT_SIZE];
    effect_format_peer(session, peer);
    log_end(session, end, peer);
    mqtt_flush(worker_of(session)); /* the farewell goes first */
    connection_close(session->link, end->err < 0 ? end->err : DG_ERR_CLOSED);
}

static void effect_finished(struct session *session) {
    if (!(session->flags & SESSION_LINKED))
        mqtt_session_bury(worker_of(session), session);
}

const struct session_effects mqtt_effects = {
    .send = effect_send,
    .login = effect_login,
    .claim = effect_claim,
    .release = effect_release,
    .find_child = effect_find_child,
    .append = effect_append,
    .receives = effect_receives,
    .receives_no_more = effect_receives_no_more,
    .reply = effect_reply,
    .mutate = effect_mutate,
    .ask_twin = effect_ask_twin,
    .listen_state = effect_listen_state,
    .ignore_state = effect_ignore_state,
    .find_offset = effect_find_offset,
    .discard = effect_discard,
    .pause = effect_pause,
    .resume = effect_resume,
    .set_deadline = effect_set_deadline,
    .format_peer = effect_format_peer,
    .takeover = effect_takeover,
    .filter_refused = effect_filter_refused,
    .raise_input_limit = effect_raise_input_limit,
    .connected = effect_connected,
    .close = effect_close,
    .finished = effect_finished,
};
