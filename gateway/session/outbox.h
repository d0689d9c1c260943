/*
 * Messages on their way to one device, in the order in which they came, and how far each one is
 * (MQTT5 4.3, 4.4, 4.6, 4.9). An outbox exists only while there is one. It is part of the session
 * (kept.h): it outlives the connection, in memory.
 *
 * A message is one of its source's: it is given to the outbox and comes back through finished(),
 * exactly once, whatever becomes of it: sent (QoS 0), acknowledged, replied to, refused, dropped.
 * That may be earlier than the protocol is through with its packet identifier, so an entry can
 * outlive its message.
 *
 * Pure but for memory; one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"

enum { OUTBOX_REPLY_ID_BYTES = 16 };

enum outbox_outcome {
    OUTBOX_SENT,         /* QoS 0: given to the connection, nobody knows more */
    OUTBOX_ACKNOWLEDGED, /* the device has it */
    OUTBOX_REPLIED,      /* message->reply is what it said */
    OUTBOX_REFUSED,      /* its acknowledgement says so: message->reason */
    OUTBOX_DROPPED,      /* not delivered, or no reply came: message->err */
};

/* What a message is to the device, which may have a topic of its own for it. */
enum outbox_kind {
    OUTBOX_CALL,    /* somebody waits for the reply: calls.h */
    OUTBOX_COMMAND, /* command queue: commands.h */
    OUTBOX_STATE,   /* desired state */
};

/* Freed with free(). */
struct outbox_reply {
    unsigned status;
    struct slice content_type, payload; /* point into bytes */
    uint8_t bytes[];
};

struct outbox_message {
    /* Takes the message over. Must not call back into session or outbox: it posts mail. Called on
     * whichever worker has the session. */
    void (*finished)(struct outbox_message *message);
    /* Each time that it was given to the connection, but over QoS 0, where that is the end; NULL:
     * nobody wants to know. Like finished(). */
    void (*sent)(struct outbox_message *message);
    uint64_t expires_ms;     /* monotonic; UINT64_MAX: never */
    int64_t device_key;      /* whose it is; 0 until it is given to a session: its device's */
    struct slice topic;      /* of at most LIMIT_MQTT_TOPIC_BYTES */
    struct slice properties; /* MQTT 5: a section, without what the delivery itself adds */
    uint8_t *payload;        /* owned; NULL as soon as the device has it */
    uint32_t payload_size;
    uint8_t kind;      /* enum outbox_kind */
    uint8_t qos;       /* at most */
    bool topic_recurs; /* other messages will have the same: worth an alias */
    bool wants_reply;  /* MQTT 5: it is told where to, and what to name: the id in the topic */
    /* What the device names in its reply; "": none is wanted, an acknowledgement is the end. */
    char reply_id[OUTBOX_REPLY_ID_BYTES + 1];

    /* when finished */
    uint8_t outcome; /* enum outbox_outcome */
    uint8_t reason;
    int8_t err;
    struct outbox_reply *reply; /* owned */
};

/* What a message owns besides itself. */
void outbox_message_free_parts(struct outbox_message *message);

enum outbox_state {
    OUTBOX_QUEUED,   /* to be sent; again (DUP) when it has a packet identifier */
    OUTBOX_INFLIGHT, /* sent on this connection */
    OUTBOX_RECEIVED, /* QoS 2: PUBREC came, PUBCOMP has not */
    OUTBOX_AWAITED,  /* the device has it, its reply is to come */
};

struct outbox_entry {
    struct outbox_entry *next;
    struct outbox_message *message; /* NULL: it has come to its end before the protocol */
    uint32_t subscription_id;       /* MQTT5 3.3.2.3.8; 0: none */
    uint32_t size_bytes;
    uint16_t packet_id; /* 0: never sent, or QoS 0 */
    uint8_t qos;
    uint8_t state; /* enum outbox_state */
};

struct outbox {
    struct outbox_entry *first;
    uint32_t count, size_bytes;
};

/* All functions: *outbox may be NULL, and is when it has become empty. */

/* Takes the message over, unless it fails: DG_ERR_LIMIT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int outbox_add(struct outbox **outbox, struct outbox_message *message, uint8_t qos,
                            uint32_t subscription_id);

/* The next to be sent, if the window (the device's receive maximum, and ours) is open; or NULL. */
struct outbox_entry *outbox_next(const struct outbox *outbox, uint16_t receive_maximum);

/* A packet identifier that no entry has, the first one after `last`. */
uint16_t outbox_choose_packet_id(const struct outbox *outbox, uint16_t last);

/* Whether the entry that outbox_next() gave is to be sent. What is over is not: it is dropped. What
 * was replied to before it was acknowledged has arrived: of QoS 1 nothing is left to do, of QoS 2
 * (OUTBOX_RECEIVED from here on) PUBREL. */
bool outbox_is_due(struct outbox **outbox, struct outbox_entry *entry, uint64_t now_ms);
/* It was sent. */
void outbox_sent(struct outbox **outbox, struct outbox_entry *entry);
/* ... or cannot be: its message is dropped. */
void outbox_drop(struct outbox **outbox, struct outbox_entry *entry, int err);

/* The device's PUBACK (qos 1), or PUBREC (qos 2). DG_ERR_PACKET_ID_NOT_FOUND; DG_ERR_PROTOCOL: it
 * is of another QoS. After a PUBREC with a reason below 0x80 PUBREL is due. */
DG_NODISCARD int outbox_acknowledged(struct outbox **outbox, uint8_t qos, uint16_t packet_id,
                                     uint8_t reason);
/* PUBCOMP. As above; DG_ERR_PROTOCOL: there was no PUBREC. */
DG_NODISCARD int outbox_completed(struct outbox **outbox, uint16_t packet_id);

/* The message of this device that waits for a reply of this name, or NULL. */
struct outbox_message *outbox_find_reply(const struct outbox *outbox, int64_t device_key,
                                         struct slice id, uint64_t now_ms);
/* The reply to a message that was found; taken over. */
void outbox_replied(struct outbox **outbox, struct outbox_message *message,
                    struct outbox_reply *reply);

/* Another connection goes on with the session: what was in flight is queued again, in the same
 * order. */
void outbox_resume(struct outbox *outbox);
/* Drops what is over and of which nothing is in flight. */
void outbox_expire(struct outbox **outbox, uint64_t now_ms);
/* Commands of a device are dropped, however far they are: another session receives them. What was
 * sent keeps its packet identifier until the device has answered. */
void outbox_recall(struct outbox **outbox, int64_t device_key);
/* All messages are dropped for this reason. */
void outbox_free(struct outbox **outbox, int err);
