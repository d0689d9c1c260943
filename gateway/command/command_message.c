/* A command as a message to a device: a PUBLISH on $dg/commands/<id>/<name>. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/utf8.h"
#include "gateway/command/commands_internal.h"
#include "gateway/mqtt/packet.h"

enum { TOPIC_SIZE = LIMIT_METHOD_NAME_BYTES + 64 };

void parcel_free(struct command_parcel *parcel) {
    outbox_message_free_parts(&parcel->message);
    free(parcel);
}

/* MQTT5 3.3.2.3.7: name and value are strings. */
static void write_user_properties(struct writer *w, const char *text) {
    json_t *object = json_loads(text, 0, NULL);
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        mqtt_write_user_property(w, slice_from_string(name),
                                 slice_make(json_string_value(value), json_string_length(value)));
    }
    json_decref(object);
}

static bool is_text(const struct command *command) {
    struct slice type = slice_from_string(command->content_type);
    return (slice_starts_with(type, "application/json") || slice_starts_with(type, "text/")) &&
           utf8_is_text(command->payload, command->payload_size);
}

static void write_properties(struct writer *w, const struct command *command) {
    struct mqtt_properties properties = {.content_type = slice_from_string(command->content_type)};
    if (properties.content_type.size > 0)
        properties.present |= 1u << MQTT_PROPERTY_CONTENT_TYPE;
    if (is_text(command)) {
        properties.payload_format = 1;
        properties.present |= 1u << MQTT_PROPERTY_PAYLOAD_FORMAT;
    }
    mqtt_write_properties(w, &properties);
    write_user_properties(w, command->properties);
}

static uint64_t monotonic_end_ms(const struct worker *worker, int64_t wall_ms) {
    int64_t left_ms = wall_ms - worker->wall_ms;
    return worker->now_ns / 1000000 + (uint64_t)(left_ms > 0 ? left_ms : 0);
}

static void post(struct command_parcel *parcel, struct mail *mail,
                 void (*deliver)(struct mail *, void *)) {
    mail->deliver = deliver;
    mailbox_post(&parcel->home->mailbox, mail);
}

static void on_finished(struct outbox_message *message) {
    struct command_parcel *parcel = (struct command_parcel *)(void *)message;
    post(parcel, &parcel->mail, parcel_deliver_finished);
}

/* Again, on another connection, is the same delivery as far as MQTT goes: told once. */
static void on_sent(struct outbox_message *message) {
    struct command_parcel *parcel = (struct command_parcel *)(void *)message;
    if (parcel->sent_told)
        return;
    parcel->sent_told = true;
    post(parcel, &parcel->sent_mail, parcel_deliver_sent);
}

struct command_parcel *parcel_make(struct commands *commands, struct command *command) {
    struct command_parcel *parcel =
        malloc(sizeof(*parcel) + TOPIC_SIZE + LIMIT_OUTGOING_PROPERTY_BYTES);
    if (!parcel)
        return NULL;
    *parcel = (struct command_parcel){.home = commands->worker, .command_key = command->key};
    char id[COMMAND_ID_SIZE];
    command_format_id(command->key, id);
    int size = snprintf((char *)parcel->bytes, TOPIC_SIZE, "$dg/commands/%s/%s", id, command->text);
    struct writer w = writer_make(parcel->bytes + TOPIC_SIZE, LIMIT_OUTGOING_PROPERTY_BYTES);
    write_properties(&w, command);
    dg_assert(size < TOPIC_SIZE);
    parcel->message = (struct outbox_message){
        .finished = on_finished,
        .sent = on_sent,
        .kind = OUTBOX_COMMAND,
        .device_key = commands_device_of(command),
        .wants_reply = command->wants_reply,
        .expires_ms = monotonic_end_ms(commands->worker, command->expires_ms),
        .topic = slice_make(parcel->bytes, (size_t)size),
        .properties = slice_make(w.start, w.failed ? 0 : writer_size(&w)),
        .payload = command->payload,
        .payload_size = command->payload_size,
        .qos = 2,
    };
    command->payload = NULL;
    return parcel;
}
