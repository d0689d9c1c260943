/*
 * What belongs to a session and not to its connection: subscriptions, the QoS 2 messages that are
 * not released yet, a will that waits for its time, and the messages on their way to the device
 * (outbox.h; in memory only). A durable session's is on the disk too, in the store's state beside
 * the records (integers big-endian):
 *
 *   STREAM_STATE_SESSION  device key i64 -> layout u8 (1 or 2), epoch u64, the stream's epoch i32,
 *                         disconnected i64 (wall clock, ms; 0: connected), expiry u32 (s),
 *                         subscriptions u8, of each: QoS u8, filter size u16, filter; in layout 2
 *                         then fields until the end, of each: tag u8 (enum kept_field), size u16,
 *                         bytes. A tag that is not known is passed over
 *   STREAM_STATE_QOS2     device key i64, epoch u64, packet identifier u16 -> the event's offset
 *                         (i64, little-endian: the store fills it in)
 *
 * The epoch is drawn anew for each session. An identity counts only with the epoch of its device's
 * session: what a session that is over has left behind matches nothing. The will in the record is
 * that of the connection while there is one (will.h), so that it is left also after kill -9. When
 * the stream's epoch (storage/stream.h) has risen, the end was taken back and the session with it:
 * what it says of messages may be older than what the device was told, so the device is to begin
 * anew.
 *
 * One thread at a time: it belongs to the connection's session, and without a connection to the
 * home of the device's claims, and travels between them with the claim.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "gateway/session/identities.h"
#include "gateway/session/outbox.h"
#include "gateway/session/will.h"
#include "storage/stream.h"

struct session_subscription {
    struct session_subscription *next;
    uint8_t qos;
    bool is_removed; /* goes as soon as that is durable */
    uint16_t filter_size;
    uint32_t id;       /* subscription identifier (MQTT5 3.8.2.1.2); 0: none */
    int64_t told_key;  /* the device to whose desired state the connection listens; 0: none */
    int64_t child_key; /* the one behind that receives() was told of; 0: none, or not yet */
    uint8_t filter[];
};

struct session_kept {
    uint64_t epoch;
    int64_t disconnected_ms; /* wall clock; 0: there is a connection */
    uint32_t expiry_s;       /* after the connection */
    int32_t stream_epoch;    /* when it was written */
    struct session_subscription *subscriptions;
    struct identities *identities;
    struct session_will *will; /* waits for its time without a connection; NULL: none */
    struct outbox *outbox;     /* NULL: empty */
    uint16_t last_packet_id;   /* given to a message; the next one gets another */
    uint16_t children_asked;   /* of this connection: questions to the registry under way */
};

/* NULL: no memory. */
struct session_kept *kept_new(uint64_t epoch);
/* Accepts NULL. Messages that are on their way are dropped. */
void kept_free(struct session_kept *kept);

/* Its time without a connection is over. */
bool kept_is_over(const struct session_kept *kept, int64_t wall_ms);

/* A new subscription, the first of the list; NULL: no memory. */
struct session_subscription *kept_subscribe(struct session_kept *kept, struct slice filter,
                                            uint8_t qos);

/* Takes out what is marked as removed. */
void kept_drop_removed(struct session_kept *kept);

/* ---- on the disk ---- */

enum kept_field {
    KEPT_FIELD_WILL = 1,         /* will.h */
    KEPT_FIELD_LAST_PACKET_ID,   /* u16: of a message to the device */
    KEPT_FIELD_SUBSCRIPTION_IDS, /* u32 of each subscription, in their order; 0: none */
};
enum {
    KEPT_KEY_BYTES = 8,
    KEPT_VALUE_BYTES =
        26 + LIMIT_MQTT_SUBSCRIPTIONS * (3 + LIMIT_MQTT_TOPIC_BYTES + 4) + 3 * 3 + WILL_BYTES + 2,
    KEPT_IDENTITY_KEY_BYTES = 18,
};
struct kept_bytes {
    uint8_t key[KEPT_KEY_BYTES];
    uint8_t value[KEPT_VALUE_BYTES];
};

/* Writes the session with a will (NULL: none), or deletes it when kept is NULL. The mutation points
 * into bytes. */
struct stream_mutation kept_mutation(const struct session_kept *kept,
                                     const struct session_will *will, int64_t device_key,
                                     struct kept_bytes *bytes);
/* Writes (with the record it is appended with) or deletes an identity; points into key. */
struct stream_mutation kept_identity_mutation(int64_t device_key, uint64_t epoch,
                                              uint16_t packet_id, bool is_delete,
                                              uint8_t key[KEPT_IDENTITY_KEY_BYTES]);

/* DG_ERR_MALFORMED, DG_ERR_NO_MEMORY. */
DG_NODISCARD int kept_decode(struct slice key, struct slice value, int64_t *ret_device_key,
                             struct session_kept **ret_kept);
DG_NODISCARD int kept_identity_decode(struct slice key, int64_t *ret_device_key,
                                      uint64_t *ret_epoch, uint16_t *ret_packet_id);
