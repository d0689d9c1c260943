#include "gateway/session/outbox.h"

#include <stdlib.h>

#include "common/assert.h"

void outbox_message_free_parts(struct outbox_message *message) {
    free(message->payload);
    free(message->reply);
    message->payload = NULL;
    message->reply = NULL;
}

/* ---- ends ---- */

/* The message goes back to its source; the entry stays. */
static void finish(struct outbox_entry *entry, enum outbox_outcome outcome, uint8_t reason,
                   int err) {
    struct outbox_message *message = entry->message;
    if (!message)
        return;
    entry->message = NULL;
    message->outcome = (uint8_t)outcome;
    message->reason = reason;
    message->err = (int8_t)err;
    message->finished(message);
}

static struct outbox_entry **link_of(struct outbox *outbox, const struct outbox_entry *entry) {
    struct outbox_entry **link = &outbox->first;
    while (*link != entry)
        link = &(*link)->next;
    return link;
}

static void remove_entry(struct outbox **outbox, struct outbox_entry *entry) {
    dg_assert(!entry->message);
    *link_of(*outbox, entry) = entry->next;
    (*outbox)->count--;
    (*outbox)->size_bytes -= entry->size_bytes;
    free(entry);
    if ((*outbox)->count == 0) {
        free(*outbox);
        *outbox = NULL;
    }
}

void outbox_drop(struct outbox **outbox, struct outbox_entry *entry, int err) {
    finish(entry, OUTBOX_DROPPED, 0, err);
    remove_entry(outbox, entry);
}

void outbox_free(struct outbox **outbox, int err) {
    while (*outbox)
        outbox_drop(outbox, (*outbox)->first, err);
}

/* The device has it: this is the end, unless a reply is awaited. */
static void taken(struct outbox_entry *entry, enum outbox_outcome outcome) {
    struct outbox_message *message = entry->message;
    if (!message)
        return;
    free(message->payload);
    message->payload = NULL;
    if (message->reply_id[0] == '\0')
        finish(entry, outcome, 0, 0);
}

/* The protocol is through with the entry. */
static void close_entry(struct outbox **outbox, struct outbox_entry *entry) {
    entry->state = OUTBOX_AWAITED;
    entry->packet_id = 0;
    if (!entry->message)
        remove_entry(outbox, entry);
}

/* ---- sending ---- */

static bool is_over(const struct outbox_entry *entry, uint64_t now_ms) {
    return entry->message && entry->message->expires_ms <= now_ms;
}

int outbox_add(struct outbox **outbox, struct outbox_message *message, uint8_t qos,
               uint32_t subscription_id) {
    uint32_t size =
        (uint32_t)(message->topic.size + message->properties.size) + message->payload_size;
    if (*outbox && ((*outbox)->count >= LIMIT_OUTBOX_MESSAGES ||
                    (*outbox)->size_bytes + size > LIMIT_OUTBOX_BYTES))
        return DG_ERR_LIMIT;
    struct outbox_entry *entry = malloc(sizeof(*entry));
    if (!entry)
        return DG_ERR_NO_MEMORY;
    if (!*outbox && !(*outbox = calloc(1, sizeof(**outbox)))) {
        free(entry);
        return DG_ERR_NO_MEMORY;
    }
    *entry = (struct outbox_entry){.message = message,
                                   .subscription_id = subscription_id,
                                   .size_bytes = size,
                                   .qos = qos,
                                   .state = OUTBOX_QUEUED};
    *link_of(*outbox, NULL) = entry;
    (*outbox)->count++;
    (*outbox)->size_bytes += size;
    return 0;
}

struct outbox_entry *outbox_next(const struct outbox *outbox, uint16_t receive_maximum) {
    unsigned window =
        receive_maximum < LIMIT_OUTBOX_INFLIGHT ? receive_maximum : LIMIT_OUTBOX_INFLIGHT;
    unsigned inflight = 0;
    uint32_t inflight_bytes = 0;
    struct outbox_entry *next = NULL;
    for (struct outbox_entry *entry = outbox ? outbox->first : NULL; entry; entry = entry->next) {
        if (entry->state == OUTBOX_QUEUED && !next)
            next = entry;
        if (entry->state == OUTBOX_INFLIGHT || entry->state == OUTBOX_RECEIVED)
            inflight++;
        if (entry->state == OUTBOX_INFLIGHT)
            inflight_bytes += entry->size_bytes;
    }
    bool open = inflight < window && inflight_bytes < LIMIT_OUTBOX_INFLIGHT_BYTES;
    return next && (open || next->qos == 0) ? next : NULL;
}

static struct outbox_entry *find(const struct outbox *outbox, uint16_t packet_id) {
    struct outbox_entry *entry = outbox ? outbox->first : NULL;
    while (entry && (packet_id == 0 || entry->packet_id != packet_id))
        entry = entry->next;
    return entry;
}

uint16_t outbox_choose_packet_id(const struct outbox *outbox, uint16_t last) {
    _Static_assert(LIMIT_OUTBOX_MESSAGES < UINT16_MAX, "one is always free");
    do
        last = last == UINT16_MAX ? 1 : (uint16_t)(last + 1);
    while (find(outbox, last));
    return last;
}

bool outbox_is_due(struct outbox **outbox, struct outbox_entry *entry, uint64_t now_ms) {
    if (entry->message && !is_over(entry, now_ms))
        return true;
    if (entry->message || entry->qos < 2)
        outbox_drop(outbox, entry, DG_ERR_TIMEOUT);
    else
        entry->state = OUTBOX_RECEIVED;
    return false;
}

void outbox_sent(struct outbox **outbox, struct outbox_entry *entry) {
    entry->state = OUTBOX_INFLIGHT;
    if (entry->qos > 0) {
        if (entry->message->sent)
            entry->message->sent(entry->message);
        return;
    }
    taken(entry, OUTBOX_SENT);
    close_entry(outbox, entry);
}

/* ---- the device's answers ---- */

int outbox_acknowledged(struct outbox **outbox, uint8_t qos, uint16_t packet_id, uint8_t reason) {
    struct outbox_entry *entry = find(*outbox, packet_id);
    if (!entry)
        return DG_ERR_PACKET_ID_NOT_FOUND;
    if (entry->qos != qos)
        return DG_ERR_PROTOCOL;
    if (reason >= 0x80) {
        finish(entry, OUTBOX_REFUSED, reason, DG_ERR_DEVICE_REFUSED);
        remove_entry(outbox, entry);
        return 0;
    }
    taken(entry, OUTBOX_ACKNOWLEDGED);
    if (qos == 2)
        entry->state = OUTBOX_RECEIVED;
    else
        close_entry(outbox, entry);
    return 0;
}

int outbox_completed(struct outbox **outbox, uint16_t packet_id) {
    struct outbox_entry *entry = find(*outbox, packet_id);
    if (!entry)
        return DG_ERR_PACKET_ID_NOT_FOUND;
    if (entry->state != OUTBOX_RECEIVED)
        return DG_ERR_PROTOCOL;
    close_entry(outbox, entry);
    return 0;
}

struct outbox_message *outbox_find_reply(const struct outbox *outbox, int64_t device_key,
                                         struct slice id, uint64_t now_ms) {
    for (struct outbox_entry *entry = outbox ? outbox->first : NULL; entry; entry = entry->next) {
        bool was_sent = entry->state != OUTBOX_QUEUED || entry->packet_id != 0;
        if (entry->message && was_sent && id.size > 0 && !is_over(entry, now_ms) &&
            entry->message->device_key == device_key &&
            slice_equals_string(id, entry->message->reply_id))
            return entry->message;
    }
    return NULL;
}

void outbox_replied(struct outbox **outbox, struct outbox_message *message,
                    struct outbox_reply *reply) {
    struct outbox_entry *entry = (*outbox)->first;
    while (entry->message != message)
        entry = entry->next;
    message->reply = reply;
    finish(entry, OUTBOX_REPLIED, 0, 0);
    if (entry->packet_id == 0)
        remove_entry(outbox, entry);
}

/* ---- time ---- */

void outbox_resume(struct outbox *outbox) {
    for (struct outbox_entry *entry = outbox ? outbox->first : NULL; entry; entry = entry->next)
        if (entry->state == OUTBOX_INFLIGHT)
            entry->state = OUTBOX_QUEUED;
}

void outbox_expire(struct outbox **outbox, uint64_t now_ms) {
    struct outbox_entry *next;
    for (struct outbox_entry *entry = *outbox ? (*outbox)->first : NULL; entry; entry = next) {
        next = entry->next;
        if (is_over(entry, now_ms) && entry->packet_id == 0)
            outbox_drop(outbox, entry, DG_ERR_TIMEOUT);
    }
}

void outbox_recall(struct outbox **outbox, int64_t device_key) {
    struct outbox_entry *next;
    for (struct outbox_entry *entry = *outbox ? (*outbox)->first : NULL; entry; entry = next) {
        next = entry->next;
        if (entry->message && entry->message->kind == OUTBOX_COMMAND &&
            entry->message->device_key == device_key) {
            finish(entry, OUTBOX_DROPPED, 0, DG_ERR_TAKEN_OVER);
            if (entry->packet_id == 0) /* else the device's window has it until it answers */
                remove_entry(outbox, entry);
        }
    }
}
