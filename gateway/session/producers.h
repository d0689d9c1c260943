/*
 * Producer sequences: what makes QoS 1 (and 0, and later AMQP and HTTP) effectively once (the
 * storage protocol, 13). A device numbers what it sends, "<producer>:<epoch>:<sequence>"; of each
 * of its producers the highest stored number and a window of 128 below it are known. A number
 * counts as stored only when its event is: what was refused may be sent again.
 *
 * It belongs to the device, not to a session or a protocol: it travels with the claim to whoever
 * holds the device, and is with the home worker meanwhile. One thread at a time; pure, the time is
 * an argument.
 *
 * On the disk, in the store's state beside the records (integers big-endian):
 *
 *   STREAM_STATE_PRODUCER  device key i64, slot u8, producer id
 *                       -> layout u8 (1), the stream's epoch i32, epoch u32, highest u64, window
 * u64 (high half, low half; the lowest bit is highest's), last used i64 (ms)
 *
 * Each event that is on its way to the disk writes a slot of its own: what was durable when it was
 * appended, and itself. So no value says of another event that it is stored before it is, whichever
 * of them are refused and in whatever order they become durable; a producer is the union of its
 * slots. What is written under another epoch of the stream (its end was taken back) does not count:
 * the events may be gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "storage/stream.h"

struct producer_sequence {
    struct slice text; /* the whole, which is unique among the device's: a ce_id */
    struct slice producer;
    uint32_t epoch;
    uint64_t sequence; /* 0: there is none */
};

/* "<producer>:<epoch>:<sequence>": 1 to 32 of [A-Za-z0-9._-], two decimal numbers without leading
 * zeros. 0 or DG_ERR_SEQUENCE. */
DG_NODISCARD int producer_sequence_parse(struct slice text, struct producer_sequence *ret_sequence);

/* One of a device's producers; a device has a list of them, NULL: none. */
struct producer;

enum producers_known {
    PRODUCERS_NEW,    /* to be stored */
    PRODUCERS_STORED, /* not to be stored again */
    PRODUCERS_WAIT,   /* depends on what is on the way to the disk: ask again when that is there */
};

/* What is known of a sequence: enum producers_known, or DG_ERR_SEQUENCE_WINDOW (so far below the
 * highest that nobody knows), DG_ERR_PRODUCER_EPOCH (a higher one was used), DG_ERR_PRODUCERS. */
DG_NODISCARD int producers_judge(const struct producer *list,
                                 const struct producer_sequence *sequence, int64_t wall_ms);

enum { PRODUCERS_TICKET_MAX = 511 };
enum { PRODUCER_KEY_BYTES = 9 + LIMIT_PRODUCER_ID_BYTES, PRODUCER_VALUE_BYTES = 41 };

/* The change of state that is appended with an event, or that forgets a producer. Not to be copied:
 * the mutations point into it. */
struct producers_change {
    struct producer *producer;
    struct producer *replaced; /* gives way to it, or NULL */
    uint16_t ticket;           /* at most PRODUCERS_TICKET_MAX */
    uint16_t count;
    /* Room for one more, of whoever appends. */
    struct stream_mutation mutations[2 + LIMIT_PRODUCER_SLOTS];
    uint8_t keys[1 + LIMIT_PRODUCER_SLOTS][PRODUCER_KEY_BYTES];
    uint8_t value[PRODUCER_VALUE_BYTES];
};

/* Who changes what, and when. */
struct producers_context {
    int64_t device_key;
    int32_t stream_epoch;
    int64_t wall_ms;
};

/* Prepares to store a sequence that is PRODUCERS_NEW. Then the event is appended with the change:
 * producers_submit() when it was taken, else producers_cancel(). 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int producers_prepare(struct producer **list, const struct producer_sequence *sequence,
                                   const struct producers_context *context,
                                   struct producers_change *change);
void producers_submit(const struct producers_change *change,
                      const struct producer_sequence *sequence, int64_t wall_ms);
void producers_cancel(struct producer **list);
/* The event is durable (err 0), or never will be; ticket: change->ticket. */
void producers_settle(struct producer **list, unsigned ticket, int err);

/* ---- at home, while nothing is on the way ---- */

/* One of them was not used for LIMIT_PRODUCER_IDLE_MS, or is one too many. */
bool producers_has_forgotten(const struct producer *list, int64_t wall_ms);
/* Prepares to delete one such; producers_forgotten() when that is durable (err 0) or refused. */
void producers_forget(struct producer *list, const struct producers_context *context,
                      struct producers_change *change);
void producers_forgotten(struct producer **list, int err);

/* Adds what an entry of the state says. 0, DG_ERR_MALFORMED, DG_ERR_LIMIT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int producers_restore(struct producer **list, struct slice key, struct slice value,
                                   int32_t stream_epoch);
/* Whose entry it is; DG_ERR_MALFORMED. */
DG_NODISCARD int producers_key_device(struct slice key, int64_t *ret_device_key);

/* Accepts NULL. */
void producers_free(struct producer *list);
