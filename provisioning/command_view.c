#include "provisioning/command_view.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/limits.h"
#include "provisioning/json.h"

static int append(struct buffer *out, const char *text, size_t size) {
    return buffer_append(out, text, size, LIMIT_OUTPUT_BYTES);
}

static int append_text(struct buffer *out, const char *text) {
    return append(out, text, strlen(text));
}

/* An object of PostgreSQL's or jansson's, and a payload as one more member of it. */
static int append_with_payload(struct buffer *out, const char *object, struct slice payload) {
    int err = append(out, object, strlen(object) - 1);
    if (err == 0)
        err = append_text(out, ",");
    return err < 0 ? err : json_append_payload(out, payload);
}

/* reply NULL: there is none. */
static int append_command(struct buffer *out, const char *body, struct slice payload,
                          const char *reply, struct slice reply_payload) {
    int err = append_with_payload(out, body, payload);
    if (err == 0)
        err = append_text(out, ",\"reply\":");
    if (err == 0 && !reply)
        return append_text(out, "null}");
    if (err == 0)
        err = append_with_payload(out, reply, reply_payload);
    return err < 0 ? err : append_text(out, "}}");
}

/* Null is no bytes. Freed by the caller. */
static int decode(const struct registry_request *row, unsigned column, uint8_t **ret_bytes,
                  struct slice *ret_slice) {
    const char *text = registry_value(row, 0, column);
    size_t size = 0;
    int err = text ? json_decode_base64(slice_from_string(text), ret_bytes, &size) : 0;
    if (err < 0)
        return err == DG_ERR_INVALID ? DG_ERR_INTERNAL : err;
    *ret_slice = slice_make(*ret_bytes, size);
    return 0;
}

int command_view_row(const struct registry_request *row, struct buffer *out) {
    uint8_t *bytes = NULL, *reply_bytes = NULL;
    struct slice payload, reply_payload;
    int err = decode(row, COMMAND_COLUMN_PAYLOAD, &bytes, &payload);
    if (err == 0)
        err = decode(row, COMMAND_COLUMN_REPLY_PAYLOAD, &reply_bytes, &reply_payload);
    if (err == 0)
        err = append_command(out, registry_value(row, 0, COMMAND_COLUMN_BODY), payload,
                             registry_value(row, 0, COMMAND_COLUMN_REPLY), reply_payload);
    free(bytes);
    free(reply_bytes);
    return err;
}

static json_t *time_text(int64_t ms) {
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(ms, text);
    return json_stringn(text, sizeof(text));
}

static json_t *text_or_null(struct slice text) {
    return text.size > 0 ? json_stringn((const char *)text.data, text.size) : json_null();
}

static char *write_queued(const struct command_draft *draft, const struct command_created *created,
                          struct slice idempotency_key) {
    char id[COMMAND_ID_SIZE];
    command_format_id(created->key, id);
    json_t *object = json_pack(
        "{s:s, s:s%, s:s, s:i, s:b, s:o, s:o, s:o, s:n, s:n, s:n, s:n, s:o, s:o}", "command_id", id,
        "name", (const char *)draft->name.data, draft->name.size, "state",
        command_states[COMMAND_QUEUED].name, "delivery_count", 0, "wants_reply", draft->wants_reply,
        "content_type", text_or_null(draft->content_type), "created_at",
        time_text(created->created_ms), "expires_at", time_text(created->expires_ms), "sent_at",
        "delivered_at", "finished_at", "reason", "idempotency_key", text_or_null(idempotency_key),
        "properties", json_loads(draft->properties, 0, NULL));
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

int command_view_queued(const struct command_draft *draft, const struct command_created *created,
                        struct slice idempotency_key, struct buffer *out) {
    char *body = write_queued(draft, created, idempotency_key);
    int err = body ? append_command(out, body, slice_make(draft->payload, draft->payload_size),
                                    NULL, slice_make(NULL, 0))
                   : DG_ERR_NO_MEMORY;
    free(body);
    return err;
}

bool command_view_is(const struct registry_request *row, const struct command_draft *draft) {
    json_t *command = json_loads(registry_value(row, 0, COMMAND_COLUMN_BODY), 0, NULL);
    uint8_t *bytes = NULL;
    struct slice payload;
    bool is_same = decode(row, COMMAND_COLUMN_PAYLOAD, &bytes, &payload) == 0 &&
                   command_draft_is(draft, command, payload);
    json_decref(command);
    free(bytes);
    return is_same;
}

bool command_view_has_reached(const struct registry_request *row, enum command_state wanted) {
    enum command_state state =
        command_state_find(slice_from_string(registry_value(row, 0, COMMAND_COLUMN_STATE)));
    return registry_value(row, 0, COMMAND_COLUMN_IS_FINAL)[0] == 't' ||
           (state != COMMAND_STATE_COUNT &&
            command_states[state].rank >= command_states[wanted].rank);
}
