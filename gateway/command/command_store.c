/* The statements of the command queue: one of each kind under way, the next one gathers. */
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/command/commands_internal.h"
#include "gateway/session/claims.h"

static int64_t number_at(const struct registry_request *result, unsigned row, unsigned column) {
    const char *text = registry_value(result, row, column);
    return text ? strtoll(text, NULL, 10) : 0;
}

static int add_json(struct registry_request *request, json_t *array) {
    char *text = json_dumps(array, JSON_COMPACT);
    int err = text ? registry_request_add(request, slice_from_string(text)) : DG_ERR_NO_MEMORY;
    free(text);
    return err;
}

static int add_instance(struct commands *commands, struct registry_request *request) {
    return registry_request_add(request, slice_from_string(transitions_instance(commands->worker)));
}

static int add_number(struct registry_request *request, int64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    return registry_request_add(request, slice_from_string(text));
}

/* ---- rows ---- */

/* The columns of SQL_COMMAND_ROW. */
enum command_column {
    COLUMN_KEY,
    COLUMN_DEVICE_KEY,
    COLUMN_NAME,
    COLUMN_PAYLOAD,
    COLUMN_CONTENT_TYPE,
    COLUMN_PROPERTIES,
    COLUMN_DIALECT,
    COLUMN_WANTS_REPLY,
    COLUMN_STATE,
    COLUMN_DELIVERIES,
    COLUMN_CREATED,
    COLUMN_EXPIRES,
    COLUMN_SENT,
    COLUMN_DELIVERED,
    COLUMN_IS_FINAL,
    COLUMN_TENANT_KEY,
    COLUMN_STREAM_ID,
    COLUMN_PARTITION,
    COLUMN_TENANT,
    COLUMN_DEVICE,
    COLUMN_IS_TAKEN,                /* of COMMAND_FIND */
    COLUMN_FOUND = COLUMN_IS_TAKEN, /* of COMMAND_TAKE */
};

static bool is_true(const struct registry_request *result, unsigned row, unsigned column) {
    return registry_value(result, row, column)[0] == 't';
}

static void read_target(const struct registry_request *result, unsigned row,
                        struct command_target *target) {
    *target =
        (struct command_target){.tenant_key = number_at(result, row, COLUMN_TENANT_KEY),
                                .stream_id = number_at(result, row, COLUMN_STREAM_ID),
                                .device_key = number_at(result, row, COLUMN_DEVICE_KEY),
                                .partition = (uint32_t)number_at(result, row, COLUMN_PARTITION)};
    snprintf(target->tenant, sizeof(target->tenant), "%s",
             registry_value(result, row, COLUMN_TENANT));
    snprintf(target->device, sizeof(target->device), "%s",
             registry_value(result, row, COLUMN_DEVICE));
}

/* PostgreSQL's base64 has line breaks, which EVP_DecodeUpdate() passes over. */
static uint8_t *decode_payload(const char *text, struct slice *ret_payload) {
    size_t size = strlen(text);
    uint8_t *bytes = malloc(size + 4);
    EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
    int most = 0, last = 0;
    bool is_good = bytes && context;
    if (is_good) {
        EVP_DecodeInit(context);
        is_good = EVP_DecodeUpdate(context, bytes, &most, (const uint8_t *)text, (int)size) >= 0 &&
                  EVP_DecodeFinal(context, bytes + most, &last) == 1;
    }
    EVP_ENCODE_CTX_free(context);
    if (!is_good) {
        free(bytes);
        return NULL;
    }
    *ret_payload = slice_make(bytes, (size_t)(most + last));
    return bytes;
}

/* NULL: no memory. */
static struct command *add_row(struct commands *commands, const struct registry_request *result,
                               unsigned row) {
    struct command_content content = {
        .key = number_at(result, row, COLUMN_KEY),
        .created_ms = number_at(result, row, COLUMN_CREATED),
        .expires_ms = number_at(result, row, COLUMN_EXPIRES),
        .sent_ms = number_at(result, row, COLUMN_SENT),
        .delivered_ms = number_at(result, row, COLUMN_DELIVERED),
        .name = slice_from_string(registry_value(result, row, COLUMN_NAME)),
        .content_type = slice_from_string(registry_value(result, row, COLUMN_CONTENT_TYPE)),
        .properties = slice_from_string(registry_value(result, row, COLUMN_PROPERTIES)),
        .state = command_state_find(slice_from_string(registry_value(result, row, COLUMN_STATE))),
        .dialect =
            registry_value(result, row, COLUMN_DIALECT)[0] == 'i' ? COMMAND_IOTHUB : COMMAND_NATIVE,
        .deliveries = (unsigned)number_at(result, row, COLUMN_DELIVERIES),
        .wants_reply = is_true(result, row, COLUMN_WANTS_REPLY),
    };
    uint8_t *payload =
        decode_payload(registry_value(result, row, COLUMN_PAYLOAD), &content.payload);
    struct command_line *line =
        payload ? line_get(commands, number_at(result, row, COLUMN_DEVICE_KEY)) : NULL;
    struct command *command = NULL;
    if (line) {
        read_target(result, row, &line->target);
        command = command_add(commands, line, &content);
    }
    free(payload);
    if (line && !command)
        line_drop_if_empty(commands, line);
    return command;
}

/* Held by this gateway from now on. */
static void add_rows(struct commands *commands, const struct registry_request *result) {
    for (unsigned row = 0; row < result->row_count; row++)
        if (registry_value(result, row, COLUMN_KEY) && !add_row(commands, result, row))
            commands_release(commands, number_at(result, row, COLUMN_KEY),
                             number_at(result, row, COLUMN_DEVICE_KEY));
}

/* ---- creating ---- */

static bool may_hold(struct commands *commands, const struct creation *creation) {
    int64_t device_key = creation->request.target.device_key;
    const struct command_line *line = commands_line(commands, device_key);
    return commands->is_ready && command_has_room(commands, creation->request.payload.size) &&
           !(line && line->may_have_more) && line_count_waiting(line) < LIMIT_COMMANDS_OFFERED &&
           !commands_is_taking(commands, device_key) && commands_is_received(commands, device_key);
}

static json_t *base64(struct slice bytes) {
    unsigned char *text = malloc(bytes.size / 3 * 4 + 5);
    int size = text ? EVP_EncodeBlock(text, bytes.data, (int)bytes.size) : 0;
    json_t *value = text ? json_stringn((const char *)text, (size_t)size) : NULL;
    free(text);
    return value;
}

static json_t *text_or_null(struct slice text) {
    return text.size > 0 ? json_stringn((const char *)text.data, text.size) : json_null();
}

static json_t *write_creation(const struct creation *creation, unsigned n) {
    const struct command_request *request = &creation->request;
    json_t *properties =
        json_loadb((const char *)request->properties.data, request->properties.size, 0, NULL);
    return json_pack("{s:i, s:I, s:s%, s:o, s:s%, s:o, s:s, s:b, s:I, s:o, s:b, s:I}", "n", (int)n,
                     "device_key", (json_int_t)request->target.device_key, "name",
                     (const char *)request->name.data, request->name.size, "payload",
                     base64(request->payload), "content_type",
                     (const char *)request->content_type.data, request->content_type.size,
                     "properties", properties ? properties : json_object(), "dialect",
                     request->dialect == COMMAND_IOTHUB ? "iothub" : "native", "wants_reply",
                     request->wants_reply, "ttl_ms", (json_int_t)request->ttl_ms, "idempotency_key",
                     text_or_null(request->idempotency_key), "held", creation->is_held, "most",
                     (json_int_t)request->pending_max);
}

/* Moves those that fit into one statement. */
static json_t *gather_creations(struct commands *commands) {
    json_t *array = json_array();
    struct creation **end = &commands->creating;
    size_t size = 0;
    for (unsigned n = 0; array && commands->creations && n < commands->creations_most &&
                         size < LIMIT_COMMAND_BYTES_OF_STATEMENT;
         n++) {
        struct creation *creation = commands->creations;
        creation->is_held = may_hold(commands, creation);
        if (json_array_append_new(array, write_creation(creation, n)) != 0)
            break;
        size += creation->request.payload.size;
        commands->creations = creation->next;
        creation->next = NULL;
        *end = creation;
        end = &creation->next;
    }
    if (!commands->creations)
        commands->creations_end = &commands->creations;
    return array;
}

enum created_column {
    CREATED_N,
    CREATED_KEY,
    CREATED_OUTCOME,
    CREATED_OUTBOX_KEY,
    CREATED_AT,
    CREATED_EXPIRES
};

static void deliver_created(struct mail *mail, void *receiver) {
    struct creation *creation = (struct creation *)(void *)mail;
    creation->request.created(receiver, creation->request.owner, &creation->result);
    free(creation);
}

static void answer(struct creation *creation, int err) {
    creation->result.err = err;
    creation->mail.deliver = deliver_created;
    mailbox_post(&creation->asker->mailbox, &creation->mail);
}

static void say_queued(struct commands *commands, const struct creation *creation,
                       int64_t outbox_key) {
    const struct command_created *result = &creation->result;
    char id[COMMAND_ID_SIZE], name[LIMIT_METHOD_NAME_BYTES + 1];
    snprintf(name, sizeof(name), "%.*s", (int)creation->request.name.size,
             (const char *)creation->request.name.data);
    command_format_id(result->key, id);
    char *event = command_write_event(&(struct command_facts){.key = result->key,
                                                              .state = COMMAND_QUEUED,
                                                              .name = name,
                                                              .created_ms = result->created_ms,
                                                              .expires_ms = result->expires_ms});
    metric_add(METRIC_COMMANDS_QUEUED, 1);
    if (!event)
        return; /* the row is read again */
    relay_append(commands->worker, &(struct relay_row){.outbox_key = outbox_key,
                                                       .target = creation->request.target,
                                                       .type = EVENT_COMMAND_QUEUED,
                                                       .subject = slice_from_string(id),
                                                       .payload = slice_from_string(event)});
    free(event);
}

static void keep_created(struct commands *commands, const struct creation *creation) {
    const struct command_request *request = &creation->request;
    struct command_content content = {.key = creation->result.key,
                                      .created_ms = creation->result.created_ms,
                                      .expires_ms = creation->result.expires_ms,
                                      .name = request->name,
                                      .content_type = request->content_type,
                                      .properties = request->properties,
                                      .payload = request->payload,
                                      .state = COMMAND_QUEUED,
                                      .dialect = request->dialect,
                                      .wants_reply = request->wants_reply};
    struct command_line *line = line_get(commands, request->target.device_key);
    if (line)
        line->target = request->target;
    if (line && command_add(commands, line, &content)) {
        line_offer(commands, line);
        return;
    }
    if (line)
        line_drop_if_empty(commands, line);
    commands_release(commands, creation->result.key, request->target.device_key);
}

/* It waits in PostgreSQL, though the device may have come meanwhile. */
static void leave_created(struct commands *commands, const struct creation *creation) {
    int64_t device_key = creation->request.target.device_key;
    struct command_line *line = commands_line(commands, device_key);
    if (line && line_count_waiting(line) > 0)
        line->may_have_more = true;
    else if (commands_is_received(commands, device_key))
        commands_take(commands, device_key);
}

static void take_created(struct commands *commands, struct creation *creation,
                         const struct registry_request *result, unsigned row) {
    const char *outcome = registry_value(result, row, CREATED_OUTCOME);
    creation->result = (struct command_created){
        .key = number_at(result, row, CREATED_KEY),
        .is_repeated = strcmp(outcome, "exists") == 0,
        .created_ms = number_at(result, row, CREATED_AT),
        .expires_ms = number_at(result, row, CREATED_EXPIRES),
    };
    if (strcmp(outcome, "created") == 0) {
        say_queued(commands, creation, number_at(result, row, CREATED_OUTBOX_KEY));
        if (creation->is_held)
            keep_created(commands, creation);
        else
            leave_created(commands, creation);
    }
    answer(creation, strcmp(outcome, "limit") == 0   ? DG_ERR_QUOTA
                     : strcmp(outcome, "gone") == 0  ? DG_ERR_NOT_FOUND
                     : strcmp(outcome, "again") == 0 ? DG_ERR_BUSY
                                                     : 0);
}

/* The rows are in no order. */
static int find_created(const struct registry_request *result, unsigned n, unsigned *ret_row) {
    for (unsigned row = 0; row < result->row_count; row++)
        if (number_at(result, row, CREATED_N) == n) {
            *ret_row = row;
            return 0;
        }
    return DG_ERR_INTERNAL;
}

/* One that PostgreSQL does not take (its device went that very moment) is no reason to refuse the
 * others: they are tried again one by one. False: it was alone. */
static bool retry_alone(struct commands *commands, const struct registry_request *result) {
    struct creation **end = &commands->creating;
    bool was_alone = commands->creations_most == 1;
    commands->creations_most = LIMIT_COMMANDS_OF_STATEMENT;
    if (result->err != DG_ERR_INVALID || was_alone)
        return false;
    while (*end)
        end = &(*end)->next;
    *end = commands->creations;
    if (!commands->creations)
        commands->creations_end = end;
    commands->creations = commands->creating;
    commands->creating = NULL;
    commands->creations_most = 1;
    return true;
}

static void on_created(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    bool is_retried = commands && retry_alone(commands, result);
    struct creation *list = commands && !is_retried ? commands->creating : NULL;
    unsigned row, n = 0;
    if (commands)
        commands->creating = NULL;
    if (commands && result->err < 0)
        commands->looks_left = COMMAND_LOOKS;
    for (struct creation *creation = list, *next; creation; creation = next, n++) {
        next = creation->next;
        int err = result->err == 0 ? find_created(result, n, &row) : result->err;
        if (err == 0)
            take_created(commands, creation, result, row);
        else
            answer(creation, err);
    }
    registry_request_free(result);
    if (commands)
        commands_send_creations(commands);
}

void commands_send_creations(struct commands *commands) {
    if (commands->creating || !commands->creations)
        return;
    struct registry_request *request = registry_request_new(STATEMENT_COMMAND_CREATE);
    json_t *array = request ? gather_creations(commands) : NULL;
    int err = array && commands->creating ? add_json(request, array) : DG_ERR_NO_MEMORY;
    json_decref(array);
    if (err == 0)
        err = add_instance(commands, request);
    if (err == 0)
        err = add_number(request, LIMIT_COMMANDS_PENDING);
    if (err == 0) {
        commands_execute(commands, request, on_created);
        return;
    }
    registry_request_free(request);
    if (!commands->creating) { /* not even one could be gathered */
        commands->creating = commands->creations;
        commands->creations = commands->creating->next;
        commands->creating->next = NULL;
        if (!commands->creations)
            commands->creations_end = &commands->creations;
    }
    for (struct creation *creation = commands->creating, *next; creation; creation = next) {
        next = creation->next;
        answer(creation, err);
    }
    commands->creating = NULL;
}

/* ---- taking ---- */

/* What is asked for next becomes what is asked for now: an array of objects with each key. */
static json_t *gather_keys(struct command_keys *keys, const char *name, unsigned most,
                           const struct device_map *not_now) {
    json_t *array = json_array();
    uint64_t value;
    for (uint32_t i = 0;
         array && i < keys->next.capacity && json_array_size(array) < LIMIT_COMMANDS_OF_STATEMENT;
         i++) {
        int64_t key = keys->next.slots[i].key;
        if (key == 0 || (not_now && device_map_get(not_now, key, &value)))
            continue;
        json_t *object = json_pack("{s:I, s:i}", name, (json_int_t)key, "most", (int)most);
        if (json_array_append_new(array, object) != 0 || device_map_reserve(&keys->now) < 0)
            break;
        device_map_set(&keys->now, key, keys->next.slots[i].value);
    }
    for (uint32_t i = 0; i < keys->now.capacity; i++)
        if (keys->now.slots[i].key != 0)
            device_map_remove(&keys->next, keys->now.slots[i].key);
    return array;
}

/* Without memory it is found again when the gateway starts, or by another one. */
static void add_key(struct command_keys *keys, int64_t key, uint64_t value) {
    if (device_map_reserve(&keys->next) == 0)
        device_map_set(&keys->next, key, value);
}

/* What was asked for has its answer. */
static struct device_map end_keys(struct command_keys *keys) {
    struct device_map asked = keys->now;
    keys->now = (struct device_map){0};
    return asked;
}

/* ... or is to be asked for again. */
static void put_back_keys(struct command_keys *keys) {
    struct device_map asked = end_keys(keys);
    for (uint32_t i = 0; i < asked.capacity; i++)
        if (asked.slots[i].key != 0)
            add_key(keys, asked.slots[i].key, asked.slots[i].value);
    device_map_free(&asked);
}

static bool has_key(const struct command_keys *keys, int64_t key) {
    uint64_t value;
    return device_map_get(&keys->now, key, &value) || device_map_get(&keys->next, key, &value);
}

bool commands_is_taking(const struct commands *commands, int64_t device_key) {
    return has_key(&commands->taken, device_key);
}

static void count_taken(struct device_map *asked, const struct registry_request *result) {
    uint64_t count;
    for (unsigned row = 0; row < result->row_count; row++) {
        int64_t device_key = number_at(result, row, COLUMN_DEVICE_KEY);
        if (device_map_get(asked, device_key, &count))
            device_map_set(asked, device_key, count + 1);
    }
}

/* As many as were asked for: there may be more; and when not all had room in the answer. What is
 * here and what has come is offered. */
static void offer_taken(struct commands *commands, const struct device_map *asked, bool is_cut) {
    for (uint32_t i = 0; i < asked->capacity; i++) {
        int64_t device_key = asked->slots[i].key;
        uint64_t count = asked->slots[i].value;
        if (device_key != 0 && is_cut && count == 0)
            add_key(&commands->taken, device_key, 0);
        struct command_line *line = commands_line(commands, device_key);
        if (!line)
            continue;
        line->may_have_more = is_cut || count >= LIMIT_COMMANDS_OFFERED;
        line_offer(commands, line);
    }
}

static void take_taken(struct commands *commands, const struct registry_request *result) {
    struct device_map asked = end_keys(&commands->taken);
    bool is_cut = number_at(result, 0, COLUMN_FOUND) > (int64_t)result->row_count;
    count_taken(&asked, result);
    add_rows(commands, result);
    offer_taken(commands, &asked, is_cut);
    device_map_free(&asked);
    commands_send_take(commands);
}

static void on_taken(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands && result->err == 0) {
        take_taken(commands, result);
    } else if (commands) {
        commands->looks_left = COMMAND_LOOKS;
        put_back_keys(&commands->taken);
    }
    registry_request_free(result);
}

void commands_send_take(struct commands *commands) {
    if (commands->taken.now.count > 0 || commands->taken.next.count == 0 || !commands->is_ready ||
        !command_has_room(commands, 0))
        return;
    struct registry_request *request = registry_request_new(STATEMENT_COMMAND_TAKE);
    json_t *array = request ? gather_keys(&commands->taken, "device_key", LIMIT_COMMANDS_OFFERED,
                                          &commands->releasing)
                            : NULL;
    bool is_empty = array && json_array_size(array) == 0;
    int err = array && !is_empty ? add_json(request, array) : DG_ERR_NO_MEMORY;
    json_decref(array);
    if (err == 0)
        err = add_instance(commands, request);
    if (err == 0)
        err = add_number(request, LIMIT_COMMAND_BYTES_OF_STATEMENT);
    if (err == 0) {
        commands_execute(commands, request, on_taken);
        return;
    }
    registry_request_free(request);
    put_back_keys(&commands->taken);
}

void commands_take(struct commands *commands, int64_t device_key) {
    add_key(&commands->taken, device_key, 0);
    commands_send_take(commands);
}

/* ---- letting go ---- */

/* One release of a device less; the last one lets what waits be taken again, by whoever has the
 * device now. */
static void end_release(struct commands *commands, int64_t device_key) {
    uint64_t count = 0;
    (void)device_map_get(&commands->releasing, device_key, &count);
    if (count > 1) {
        device_map_set(&commands->releasing, device_key, count - 1);
        return;
    }
    device_map_remove(&commands->releasing, device_key);
    if (commands_is_received(commands, device_key))
        commands_take(commands, device_key);
}

static void on_released(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    int err = result->err;
    registry_request_free(result);
    if (!commands)
        return;
    if (err < 0) {
        put_back_keys(&commands->released);
        return;
    }
    struct device_map asked = end_keys(&commands->released);
    for (uint32_t i = 0; i < asked.capacity; i++)
        if (asked.slots[i].key != 0)
            end_release(commands, (int64_t)asked.slots[i].value);
    device_map_free(&asked);
    commands_send_release(commands);
    commands_send_take(commands);
}

void commands_send_release(struct commands *commands) {
    if (commands->released.now.count > 0 || commands->released.next.count == 0)
        return;
    struct registry_request *request = registry_request_new(STATEMENT_COMMAND_RELEASE);
    json_t *array = request ? gather_keys(&commands->released, "k", 0, NULL) : NULL;
    int err = array ? add_json(request, array) : DG_ERR_NO_MEMORY;
    json_decref(array);
    if (err == 0)
        err = add_instance(commands, request);
    if (err == 0) {
        commands_execute(commands, request, on_released);
        return;
    }
    registry_request_free(request);
    put_back_keys(&commands->released);
}

void commands_release(struct commands *commands, int64_t command_key, int64_t device_key) {
    uint64_t count = 0;
    if (has_key(&commands->released, command_key))
        return;
    if (device_map_reserve(&commands->releasing) < 0 ||
        device_map_reserve(&commands->released.next) < 0) {
        commands->looks_left = COMMAND_LOOKS; /* looked for again */
        return;
    }
    (void)device_map_get(&commands->releasing, device_key, &count);
    device_map_set(&commands->releasing, device_key, count + 1);
    add_key(&commands->released, command_key, (uint64_t)device_key);
    commands_send_release(commands);
}

/* ---- replies to what is not here ---- */

static bool is_answered(const struct registry_request *result) {
    enum command_state state =
        command_state_find(slice_from_string(registry_value(result, 0, COLUMN_STATE)));
    return is_true(result, 0, COLUMN_IS_FINAL) &&
           (state == COMMAND_COMPLETED || state == COMMAND_REJECTED);
}

enum { PARKED_TRIES = 20 };

void commands_park_reply(struct commands *commands, struct reply_mail *reply) {
    if (reply->tries++ >= PARKED_TRIES || commands->reply_count >= LIMIT_COMMAND_REPLIES) {
        commands_answer_reply(reply, DG_ERR_UNAVAILABLE);
        free(reply);
        return;
    }
    reply->next = commands->parked;
    commands->parked = reply;
    commands->reply_count++;
}

static void take_found(struct commands *commands, struct reply_mail *reply,
                       const struct registry_request *result) {
    bool is_there = result->row_count == 1;
    bool is_ours = is_there && is_true(result, 0, COLUMN_IS_TAKEN);
    if (is_there && !is_ours && !is_true(result, 0, COLUMN_IS_FINAL)) {
        commands_park_reply(commands, reply); /* another instance has it */
        return;
    }
    struct command *command = is_ours ? add_row(commands, result, 0) : NULL;
    if (command && command->sent_ms != 0) {
        /* It is known to have come: it is not to be sent once more. */
        free(command->payload);
        command->payload = NULL;
        commands_on_reply(commands, reply);
        return;
    }
    if (command)
        line_offer(commands, command->line);
    if (is_ours && !command)
        commands_release(commands, reply->reply.command_key, reply->reply.device_key);
    int err = is_ours && !command               ? DG_ERR_NO_MEMORY
              : is_there && is_answered(result) ? 0
                                                : DG_ERR_NO_CALL;
    commands_answer_reply(reply, err);
    free(reply);
}

static void found(struct commands *commands, struct reply_mail *reply,
                  const struct registry_request *result) {
    struct command *known = commands ? commands_find(commands, reply->reply.command_key) : NULL;
    if (known && commands_device_of(known) == reply->reply.device_key) {
        commands_on_reply(commands, reply); /* taken meanwhile */
    } else if (commands && result->err == 0) {
        take_found(commands, reply, result);
    } else {
        if (commands)
            commands->looks_left = COMMAND_LOOKS;
        commands_answer_reply(reply, commands ? result->err : DG_ERR_SHUTTING_DOWN);
        free(reply);
    }
}

enum { LOOK_UPS = 8 };

static void send_look_up(struct commands *commands, struct reply_mail *reply);

/* Not all at once: others ask PostgreSQL too. */
static void look_up_next(struct commands *commands) {
    struct reply_mail *reply = commands->replies;
    if (!reply || commands->looked_up >= LOOK_UPS)
        return;
    commands->replies = reply->next;
    commands->reply_count--;
    send_look_up(commands, reply);
}

static void on_found(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    struct reply_mail *reply = (struct reply_mail *)(uintptr_t)result->owner;
    found(commands, reply, result);
    registry_request_free(result);
    if (commands) {
        commands->looked_up--;
        look_up_next(commands);
    }
}

static void send_look_up(struct commands *commands, struct reply_mail *reply) {
    struct registry_request *request =
        commands->is_ready ? registry_request_new(STATEMENT_COMMAND_FIND) : NULL;
    int err = !commands->is_ready ? DG_ERR_UNAVAILABLE : request ? 0 : DG_ERR_NO_MEMORY;
    if (err == 0)
        err = add_number(request, reply->reply.device_key);
    if (err == 0)
        err = add_number(request, reply->reply.command_key);
    if (err == 0)
        err = add_instance(commands, request);
    if (err == 0) {
        request->owner = (uintptr_t)reply;
        commands->looked_up++;
        commands_execute(commands, request, on_found);
        return;
    }
    registry_request_free(request);
    commands_answer_reply(reply, err);
    free(reply);
}

void commands_look_up_parked(struct commands *commands) {
    struct reply_mail *reply = commands->parked;
    commands->parked = NULL;
    for (struct reply_mail *next; reply; reply = next) {
        next = reply->next;
        commands->reply_count--;
        commands_on_reply(commands, reply);
    }
}

void commands_look_up_reply(struct commands *commands, struct reply_mail *reply) {
    struct reply_mail **end = &commands->replies;
    if (has_key(&commands->released, reply->reply.command_key)) {
        commands_park_reply(commands, reply); /* it is being let go */
        return;
    }
    if (commands->reply_count >= LIMIT_COMMAND_REPLIES) {
        commands_answer_reply(reply, DG_ERR_BUSY);
        free(reply);
        return;
    }
    while (*end)
        end = &(*end)->next;
    reply->next = NULL;
    *end = reply;
    commands->reply_count++;
    look_up_next(commands);
}

/* ---- looking ---- */

static int send_look(struct commands *commands, enum registry_statement statement, int64_t after,
                     unsigned most, void (*deliver)(struct mail *, void *)) {
    struct registry_request *request = registry_request_new(statement);
    int err = request ? add_instance(commands, request) : DG_ERR_NO_MEMORY;
    if (err == 0)
        err = add_number(request, after);
    if (err == 0)
        err = add_number(request, most);
    if (err == 0)
        commands_execute(commands, request, deliver);
    else
        registry_request_free(request);
    return err;
}

/* Rows that are held here and that nobody knows of: those whose home this is are let go. Not while
 * what would make them known is under way (what is being created is too young to be among them).
 * False: look again. */
static bool release_unknown(struct commands *commands, const struct registry_request *result) {
    if (commands->taken.now.count > 0 || commands->looked_up > 0)
        return false;
    for (unsigned row = 0; row < result->row_count; row++) {
        int64_t key = number_at(result, row, COLUMN_KEY);
        int64_t device_key = number_at(result, row, COLUMN_DEVICE_KEY);
        if (claims_home(device_key, commands->options->worker_count) == commands->worker->index &&
            !commands_find(commands, key))
            commands_release(commands, key, device_key);
    }
    return true;
}

enum { LOOK_ROWS = 256 };

static void on_held(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands) {
        commands->is_looking = false;
        bool is_done = result->err == 0 && release_unknown(commands, result);
        bool more = is_done && result->row_count == LOOK_ROWS;
        commands->looked_until = more ? number_at(result, LOOK_ROWS - 1, COLUMN_KEY) : 0;
        if (more)
            commands_look_for_held(commands);
        else if (is_done && commands->looks_left > 0)
            commands->looks_left--;
    }
    registry_request_free(result);
}

void commands_look_for_held(struct commands *commands) {
    commands->is_looking = send_look(commands, STATEMENT_COMMAND_HELD, commands->looked_until,
                                     LOOK_ROWS, on_held) == 0;
}

static void on_waiting(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    int64_t device_key = 0;
    for (unsigned row = 0; commands && result->err == 0 && row < result->row_count; row++) {
        device_key = number_at(result, row, 0);
        if (claims_home(device_key, commands->options->worker_count) == commands->worker->index &&
            commands_is_received(commands, device_key))
            commands_take(commands, device_key);
    }
    if (commands && result->err == 0 && result->row_count == LOOK_ROWS)
        commands_look_for_waiting(commands, device_key);
    registry_request_free(result);
}

void commands_look_for_waiting(struct commands *commands, int64_t after) {
    (void)!send_look(commands, STATEMENT_COMMAND_WAITING, after, LOOK_ROWS, on_waiting);
}
