/*
 * The twin as IoT Hub's clients ask for it: GET and PATCH as publishes that name a request, each
 * answered by a publish on $iothub/twin/res/<status>/?$rid=<request>. What comes of it is the
 * twin's home's (gateway/command/twins.h). A QoS 1 publish is acknowledged when the answer is
 * known: then a report is durable.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/session_iothub.h"
#include "gateway/session/share.h"
#include "gateway/session/tenants.h"
#include "registry/json.h"
#include "registry/twin.h"

/* ---- answers ---- */

static void send_answer(struct session *session, unsigned status, struct slice request_id,
                        uint64_t version, struct slice payload) {
    uint8_t topic[LIMIT_TWIN_NOTE_BYTES + 128], head[sizeof(topic) + 16];
    struct writer t = writer_make(topic, sizeof(topic)), w = writer_make(head, sizeof(head));
    if (!session_iothub_has(session, IOTHUB_FILTER_TWIN))
        return; /* it does not want to know */
    iothub_write_twin_topic(&t, status, request_id, version);
    mqtt_write_publish_head(&w, session->version, false, 0, false,
                            slice_make(topic, writer_size(&t)), 0, slice_make(NULL, 0),
                            payload.size);
    if (t.failed || !session_send(session, &w) || payload.size == 0)
        return;
    session->shared->effects->send(session, payload.data, payload.size);
}

/* What clients know (iothub errors); 0: as HTTP has it. */
static const struct error_row {
    int err;
    unsigned status;
    int code;
} error_rows[] = {
    {DG_ERR_STATE_DOCUMENT, 400, 400004}, {DG_ERR_TOPIC_NAME, 400, 400004},
    {DG_ERR_NOT_FOUND, 404, 404001},      {DG_ERR_PRECONDITION, 412, 412001},
    {DG_ERR_STATE_SIZE, 413, 413001},     {DG_ERR_BUSY, 429, 429001},
    {DG_ERR_LIMIT, 429, 429001},          {DG_ERR_TIMEOUT, 504, 504101},
    {DG_ERR_INTERNAL, 500, 500001},
};

static struct error_row find_error(int err) {
    for (unsigned i = 0; i < sizeof(error_rows) / sizeof(error_rows[0]); i++)
        if (error_rows[i].err == err)
            return error_rows[i];
    return (struct error_row){err, 503, 503001};
}

/* The body says it too: Node's client looks at nothing else. */
static void send_error(struct session *session, struct slice request_id, int err,
                       struct slice why) {
    char tracking[SESSION_ID_TEXT_SIZE], time[CLOCK_RFC3339_SIZE];
    struct error_row row = find_error(err);
    struct slice text = why.size > 0 ? why : slice_from_string(dg_err_text(err));
    session_format_id(session, tracking);
    clock_format_rfc3339(session->shared->wall_ms, time);
    json_t *message = json_stringn((const char *)text.data, text.size);
    if (!message) /* cut off within a character */
        message = json_string(dg_err_text(err));
    char *body = NULL;
    json_t *object = json_pack("{s:i,s:s,s:o,s:s#}", "errorCode", row.code, "trackingId", tracking,
                               "message", message, "timestampUtc", time, (int)sizeof(time));
    if (object)
        body = json_dumps(object, JSON_COMPACT);
    send_answer(session, row.status, request_id, 0, slice_from_string(body ? body : "{}"));
    free(body);
    json_decref(object);
}

void session_iothub_twin_answered(struct session *session, const struct twin_answer *answer) {
    bool is_report = answer->document.size == 0;
    if (session->state == SESSION_CONNECTED && answer->err < 0)
        send_error(session, answer->note, answer->err, answer->why);
    else if (session->state == SESSION_CONNECTED)
        send_answer(session, is_report ? 204 : 200, answer->note,
                    is_report ? (uint64_t)answer->version : 0, answer->document);
    session->shared->done_offset = -1;
    session_append_done(session, answer->tag, 0);
}

/* ---- requests ---- */

static int read_version(struct slice text, int64_t *ret_version) {
    int64_t version = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || text.size > 18)
            return DG_ERR_TOPIC_NAME;
        version = version * 10 + (text.data[i] - '0');
    }
    *ret_version = version;
    return 0;
}

/* What clients send back of what they were given: names of IoT Hub's own, which mean nothing here.
 * NULL: there are none (or it is no JSON, which is said later). Freed by the caller. */
static char *without_own_names(struct slice payload) {
    char *text = NULL;
    if (payload.size > LIMIT_TWIN_BYTES || !memchr(payload.data, '$', payload.size))
        return NULL;
    json_t *object =
        json_loadb((const char *)payload.data, payload.size, JSON_REJECT_DUPLICATES, NULL);
    bool has_version = json_object_del(object, "$version") == 0;
    bool has_metadata = json_object_del(object, "$metadata") == 0;
    if (has_version || has_metadata)
        text = json_print_exact(object);
    json_decref(object);
    return text;
}

static int check_report(const struct session_permit *permit, struct twin_request *request,
                        char why[SESSION_WHY_SIZE]) {
    json_t *patch = NULL;
    int err = read_version(permit->version, &request->expected_version);
    if (err == 0)
        err = twin_parse(request->patch, &patch, why, SESSION_WHY_SIZE);
    json_decref(patch);
    return err;
}

static int ask(struct session *session, const struct mqtt_publish *publish,
               const struct session_permit *permit, uint64_t tag, char why[SESSION_WHY_SIZE]) {
    struct twin_request request = {
        .action = TWIN_GET, .owner = session->id, .tag = tag, .note = permit->reply_id};
    session_state_target(session, NULL, &request.target);
    if (permit->twin != SESSION_TWIN_REPORT)
        return session->shared->effects->ask_twin(session, &request);
    char *changed = without_own_names(publish->payload);
    request.action = TWIN_REPORT;
    request.patch = changed ? slice_from_string(changed) : publish->payload;
    int err = check_report(permit, &request, why);
    if (err == 0)
        err = session->shared->effects->ask_twin(session, &request); /* copies */
    free(changed);
    return err;
}

bool session_iothub_twin(struct session *session, const struct mqtt_publish *publish,
                         const struct session_permit *permit) {
    char why[SESSION_WHY_SIZE] = "";
    int err = permit->reply_id.size > LIMIT_TWIN_NOTE_BYTES
                  ? DG_ERR_TOPIC_NAME
                  : session_reserve_answer(session, publish);
    if (err < 0)
        return session_not_stored(session, publish, err);
    uint64_t tag = share_to_tag(session_publish_tag(session, publish), 0);
    err = ask(session, publish, permit, tag, why);
    session_await_answer(session, publish);
    if (err == 0)
        return true;
    send_error(session, permit->reply_id, err, slice_from_string(why));
    session_append_done(session, tag, 0);
    return true;
}
