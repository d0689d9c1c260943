/*
 * Desired state to those who listen. A listener has one message under way, or the changes that were
 * read together; what comes meanwhile makes it read again when the device has them.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/command/twins_internal.h"
#include "gateway/mqtt/packet.h"
#include "registry/json.h"

#include <utlist.h>

enum { TOPIC_SIZE = LIMIT_DEVICE_ID_BYTES + 64, PROPERTIES_SIZE = 64 };

/* A message on its way to a session and back. */
struct twin_message {
    struct outbox_message message; /* first: the outbox knows no more */
    struct mail mail;
    struct worker *home, *worker;
    int64_t device_key;
    uint64_t owner, ear_number;
    int64_t version;
    size_t size_bytes; /* charged to the home */
    char topic[TOPIC_SIZE];
    uint8_t properties[PROPERTIES_SIZE];
};

/* ---- listeners ---- */

static struct twin_ear *find_ear(const struct twin *twin, const struct worker *worker,
                                 uint64_t owner) {
    struct twin_ear *ear;
    LL_FOREACH(twin->ears, ear) {
        if (ear->worker == worker && ear->owner == owner)
            return ear;
    }
    return NULL;
}

static void drop(struct twin *twin, struct twin_ear *ear) {
    LL_DELETE(twin->ears, ear);
    free(ear);
}

void twin_drop_ear(struct twin *twin, struct worker *worker, uint64_t owner) {
    struct twin_ear *ear = find_ear(twin, worker, owner);
    if (ear)
        drop(twin, ear);
}

void twin_drop_ears(struct twin *twin) {
    while (twin->ears)
        drop(twin, twin->ears);
}

bool twin_has_changes(const struct twin *twin) {
    const struct twin_ear *ear;
    LL_SEARCH_SCALAR(twin->ears, ear, shape, TWIN_CHANGES);
    return ear != NULL;
}

void twin_add_ear(struct twins *twins, struct twin *twin, struct twin_ear *ear) {
    const struct twin_ear *before = find_ear(twin, ear->worker, ear->owner);
    ear->number = before ? before->number : ++twins->ear_count;
    if (before)
        ear->under_way = before->under_way;
    twin_drop_ear(twin, ear->worker, ear->owner);
    unsigned count = 1;
    LL_PREPEND(twin->ears, ear);
    for (struct twin_ear *last = ear->next; last; count++) {
        struct twin_ear *older = last->next;
        if (count >= LIMIT_TWIN_LISTENERS)
            drop(twin, last);
        last = older;
    }
    twin_load(twins, twin);
}

/* ---- messages ---- */

static void free_message(struct twin_message *message) {
    outbox_message_free_parts(&message->message);
    free(message);
}

/* The session has gone, or listens no more. */
static bool is_gone(const struct outbox_message *message) {
    return message->outcome == OUTBOX_DROPPED &&
           (message->err == DG_ERR_NOT_CONNECTED || message->err == DG_ERR_NOT_FOUND ||
            message->err == DG_ERR_CLOSED);
}

static bool may_be_tried_again(const struct outbox_message *message) {
    return message->outcome == OUTBOX_DROPPED &&
           (message->err == DG_ERR_LIMIT || message->err == DG_ERR_PRESSURE ||
            message->err == DG_ERR_NO_MEMORY);
}

static void came_back(struct twins *twins, struct twin *twin, struct twin_ear *ear,
                      const struct outbox_message *message, int64_t version) {
    ear->under_way--;
    if (is_gone(message)) {
        drop(twin, ear);
        twin_run(twins, twin);
    } else if (may_be_tried_again(message)) {
        if (ear->told_version >= version)
            ear->told_version = version - 1;
        ear->is_behind = true;
        twins_retry_later(twins);
    } else if (ear->is_behind && ear->under_way == 0) {
        twin_load(twins, twin);
    }
}

static void deliver_back(struct mail *mail, void *receiver) {
    struct twin_message *message =
        (struct twin_message *)(void *)((uint8_t *)mail - offsetof(struct twin_message, mail));
    struct twins *twins = twins_of(receiver);
    struct twin *twin = twins ? twin_find(twins, message->device_key) : NULL;
    struct twin_ear *ear = twin ? find_ear(twin, message->worker, message->owner) : NULL;
    if (twins)
        twins->message_bytes -= message->size_bytes;
    if (ear && ear->number == message->ear_number)
        came_back(twins, twin, ear, &message->message, message->version);
    free_message(message);
}

static void on_finished(struct outbox_message *outbox_message) {
    struct twin_message *message = (struct twin_message *)(void *)outbox_message;
    message->mail.deliver = deliver_back;
    mailbox_post(&message->home->mailbox, &message->mail);
}

static void deliver_at_session(struct mail *mail, void *receiver) {
    struct twin_message *message =
        (struct twin_message *)(void *)((uint8_t *)mail - offsetof(struct twin_message, mail));
    const struct twins *twins = twins_of(receiver);
    if (!twins) {
        free_message(message);
        return;
    }
    int err = twins->options->deliver(receiver, message->owner, &message->message);
    if (err == 0)
        return;
    message->message.outcome = OUTBOX_DROPPED;
    message->message.err = (int8_t)err;
    on_finished(&message->message);
}

static size_t write_properties(uint8_t bytes[PROPERTIES_SIZE]) {
    struct writer w = writer_make(bytes, PROPERTIES_SIZE);
    mqtt_write_properties(
        &w, &(struct mqtt_properties){
                .present = 1u << MQTT_PROPERTY_CONTENT_TYPE | 1u << MQTT_PROPERTY_PAYLOAD_FORMAT,
                .content_type = slice_from_string("application/json"),
                .payload_format = 1,
            });
    dg_assert(!w.failed);
    return writer_size(&w);
}

/* payload is taken over. */
static int post(struct twins *twins, const struct twin *twin, struct twin_ear *ear, char *payload,
                int64_t version) {
    size_t size = payload ? strlen(payload) : 0;
    struct twin_message *message = payload ? malloc(sizeof(*message)) : NULL;
    if (!message) {
        free(payload);
        return DG_ERR_NO_MEMORY;
    }
    bool is_whole = ear->shape == TWIN_WHOLE;
    *message = (struct twin_message){.home = twins->worker,
                                     .worker = ear->worker,
                                     .device_key = twin->device_key,
                                     .owner = ear->owner,
                                     .ear_number = ear->number,
                                     .version = version,
                                     .size_bytes = sizeof(*message) + size};
    char suffix[24] = "";
    if (!is_whole)
        snprintf(suffix, sizeof(suffix), "/%lld", (long long)version);
    int topic_size = snprintf(message->topic, sizeof(message->topic), "$dg/%s%.*s%sstate/desired%s",
                              ear->child_size > 0 ? "via/" : "", ear->child_size, ear->child,
                              ear->child_size > 0 ? "/" : "", suffix);
    message->message =
        (struct outbox_message){.finished = on_finished,
                                .expires_ms = UINT64_MAX,
                                .topic = slice_make(message->topic, (size_t)topic_size),
                                .payload = (uint8_t *)payload,
                                .payload_size = (uint32_t)size,
                                .qos = is_whole ? 1 : 0,
                                .topic_recurs = is_whole};
    message->message.properties =
        slice_make(message->properties, write_properties(message->properties));
    twins->message_bytes += message->size_bytes;
    ear->under_way++;
    message->mail.deliver = deliver_at_session;
    mailbox_post(&ear->worker->mailbox, &message->mail);
    return 0;
}

/* ---- payloads; NULL: no memory ---- */

static char *write_whole(const struct twin_row *row) {
    size_t size = strlen(row->desired) + 64;
    char *text = malloc(size);
    if (text)
        snprintf(text, size, "{\"version\":%lld,\"state\":%s}", (long long)row->desired_version,
                 row->desired);
    return text;
}

/* A document or patch, with its version behind the last member. */
static char *write_change(const char *change, int64_t version) {
    size_t size = strlen(change) - 1, room = size + 64;
    char *text = malloc(room);
    if (text)
        snprintf(text, room, "%.*s%s\"$version\":%lld}", (int)size, change, size > 1 ? "," : "",
                 (long long)version);
    return text;
}

/* ---- telling ---- */

static const json_t *find_change(const json_t *recent, int64_t version) {
    size_t index;
    const json_t *entry;
    json_array_foreach((json_t *)(uintptr_t)recent, index, entry) {
        if (json_integer_value(json_object_get(entry, "version")) == version)
            return json_object_get(entry, "change");
    }
    return NULL;
}

static int tell_change(struct twins *twins, const struct twin *twin, struct twin_ear *ear,
                       const json_t *change, int64_t version) {
    char *text = json_print_exact(change);
    int err = post(twins, twin, ear, text ? write_change(text, version) : NULL, version);
    free(text);
    if (err == 0)
        ear->told_version = version;
    return err;
}

static int tell_changes(struct twins *twins, const struct twin *twin, struct twin_ear *ear,
                        const struct twin_row *row) {
    /* It hears of what comes; a later version was told of a PostgreSQL that was put back since. */
    if (ear->told_version == 0 || ear->told_version > row->desired_version)
        ear->told_version = row->desired_version;
    if (ear->told_version == row->desired_version)
        return 0;
    json_t *recent = row->recent ? json_loads(row->recent, 0, NULL) : NULL;
    int err = 0;
    if (!find_change(recent, ear->told_version + 1)) {
        err = post(twins, twin, ear, write_change(row->desired, row->desired_version),
                   row->desired_version);
        if (err == 0)
            ear->told_version = row->desired_version;
    }
    while (err == 0 && ear->told_version < row->desired_version)
        err = tell_change(twins, twin, ear, find_change(recent, ear->told_version + 1),
                          ear->told_version + 1);
    json_decref(recent);
    return err;
}

static int tell_whole(struct twins *twins, const struct twin *twin, struct twin_ear *ear,
                      const struct twin_row *row) {
    if (ear->told_version == row->desired_version)
        return 0;
    int err = post(twins, twin, ear, write_whole(row), row->desired_version);
    if (err == 0)
        ear->told_version = row->desired_version;
    return err;
}

void twin_tell(struct twins *twins, struct twin *twin, const struct twin_row *row) {
    struct twin_ear *ear;
    LL_FOREACH(twin->ears, ear) {
        ear->is_behind = ear->under_way > 0;
        if (ear->is_behind)
            continue;
        int err = twins->message_bytes > LIMIT_TWIN_MESSAGE_BYTES ? DG_ERR_BUSY
                  : ear->shape == TWIN_WHOLE ? tell_whole(twins, twin, ear, row)
                                             : tell_changes(twins, twin, ear, row);
        if (err < 0) {
            ear->is_behind = true;
            twins_retry_later(twins);
        }
    }
}
