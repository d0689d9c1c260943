/*
 * Method calls: a back end asks, a connected device answers, within a time.
 *
 *   asker's worker        home of the device      worker that holds it
 *   calls_begin()    ->   who holds it?      ->   session_deliver() -> device
 *   answered()       <-   nobody
 *   answered()       <-------------------------   replied, refused, dropped
 *
 * What travels is the message itself (outbox.h), as mail; the asker keeps only who is to be told
 * and until when, under an id with a generation: whatever comes back late finds nothing and is
 * freed. Until the connect time is over, a device that is not connected (or has not subscribed yet)
 * is looked for again and again.
 *
 * One worker's thread for all that belongs to its calls.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "gateway/loop/worker.h"
#include "gateway/session/outbox.h"

struct call_answer {
    /* 0: reply. DG_ERR_NOT_CONNECTED; DG_ERR_NOT_FOUND: it has not subscribed; DG_ERR_LIMIT and
     * DG_ERR_PRESSURE: too much waits for it; DG_ERR_TOO_LARGE: for its maximum packet size;
     * DG_ERR_DEVICE_REFUSED: with reason; DG_ERR_CLOSED: its session ended before it replied;
     * DG_ERR_TIMEOUT; DG_ERR_NO_MEMORY. */
    int err;
    uint8_t reason;
    const struct outbox_reply *reply; /* valid during the call */
};

/* Slices are copied. */
struct call_request {
    int64_t tenant_key, device_key;
    struct slice name; /* one topic level of at most LIMIT_METHOD_NAME_BYTES */
    struct slice payload, content_type;
    uint32_t connect_timeout_ms, response_timeout_ms;
    uint64_t owner; /* the asker's own */
    /* Asked while the device is away; false ends the call without an answer. NULL: always. */
    bool (*is_wanted)(struct worker *worker, uint64_t owner);
    /* Once at most, never from within calls_begin(). */
    void (*answered)(struct worker *worker, uint64_t owner, const struct call_answer *answer);
};

/* 0: answered() follows, as long as it is wanted. DG_ERR_LIMIT, DG_ERR_BUSY (of this worker),
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int calls_begin(struct worker *worker, const struct call_request *request);

/* Gives a message to the session that holds a device, on its worker's thread; owner is the claim's.
 * As session_deliver(). */
typedef int calls_deliver_fn(struct worker *worker, uint64_t owner, struct outbox_message *message);

/* Before any worker runs, after claims_worker_start() of all. workers outlives it. */
DG_NODISCARD int calls_worker_start(struct worker *worker, struct worker **workers, unsigned count,
                                    calls_deliver_fn *deliver);
/* After all workers have ended. What comes back later is freed. Harmless without a part. */
void calls_worker_free(struct worker *worker);
