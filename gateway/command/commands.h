/*
 * The command queue: what back ends ask of devices, whether those are connected or not.
 *
 * The truth is in PostgreSQL (schemas/0006_commands.sql). A command that is being delivered is held
 * by one gateway, in the memory of the worker that is its device's home:
 *
 *   asker's worker        home of the device                     worker that holds the device
 *   commands_create() ->  row (held if the device is here)   ->  session -> device
 *   created()         <-  event "queued" (relay.h)
 *                         sent, delivered, refused, dropped  <-
 *                         event, then row (transitions.h)    <-  commands_reply() <- device
 *   replied()         ->  (the holder's: the reply's acknowledgement leaves)
 *
 * Where a device comes to receive commands, commands_wake() takes what waits for it, in the order
 * in which it was created; so does a gateway that hears of new rows of another one. At most
 * LIMIT_COMMANDS_OFFERED of a device are in memory and not delivered; the rest stays in PostgreSQL.
 * What a session gives back undelivered goes to whoever has the device then.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "gateway/command/command_event.h"
#include "gateway/command/target.h"
#include "gateway/loop/worker.h"
#include "gateway/session/outbox.h"
#include "registry/registry.h"
#include "storage/stream.h"

enum command_dialect { COMMAND_NATIVE, COMMAND_IOTHUB };

/* ---- back ends ---- */

struct command_created {
    /* 0; DG_ERR_QUOTA: too many are pending; DG_ERR_NOT_FOUND: the device has gone; DG_ERR_BUSY,
     * DG_ERR_NO_MEMORY; what registry_execute() answers (DG_ERR_TIMEOUT: it may have been created
     * all the same; with an idempotency key, asking again tells). */
    int err;
    int64_t key;
    bool is_repeated; /* there was one with this idempotency key */
    int64_t created_ms, expires_ms;
};

/* Slices are copied. */
struct command_request {
    struct command_target target;
    enum command_dialect dialect;
    struct slice name;                  /* one topic level; empty: none */
    struct slice payload, content_type; /* content type: UTF-8, without NUL */
    struct slice properties;            /* a JSON object of strings */
    struct slice idempotency_key;       /* empty: none */
    int64_t ttl_ms;
    uint32_t pending_max;
    bool wants_reply;
    uint64_t owner; /* the asker's own */
    /* Once, on the asker's worker, never from within commands_create(). */
    void (*created)(struct worker *worker, uint64_t owner, const struct command_created *result);
};

/* 0: created() follows. DG_ERR_BUSY, DG_ERR_NO_MEMORY. */
DG_NODISCARD int commands_create(struct worker *worker, const struct command_request *request);

/* Told once, when PostgreSQL says that a command has reached this state, a later one or its end;
 * with is_here false at once, when it is not in this gateway's memory or too many watch it, or
 * after a while: it may be watched again. */
struct command_watch {
    int64_t device_key, command_key;
    enum command_state state;
    uint64_t owner;
    void (*reached)(struct worker *worker, uint64_t owner, bool is_here);
};
DG_NODISCARD int commands_watch(struct worker *worker, const struct command_watch *watch);

/* ---- devices ---- */

/* A session on this worker (its device's key, its id) receives commands for this device from now
 * on: it has subscribed, or goes on with a subscription. The two keys differ for a device behind a
 * gateway device; then the newest subscription receives. */
void commands_wake(struct worker *worker, int64_t device_key, int64_t session_device,
                   uint64_t owner);
/* The session of a gateway device receives for this device no more. */
void commands_sleep(struct worker *worker, int64_t device_key, uint64_t owner);
/* Who receives for a device whose home is this worker: its own session, or that of a gateway
 * device. False: nobody. */
bool commands_route(struct worker *home, int64_t device_key, unsigned *ret_worker,
                    uint64_t *ret_owner);

/* What a device says to a command. Slices are copied. */
struct command_reply {
    int64_t device_key;
    int64_t command_key;
    unsigned status; /* 2xx: done; else rejected */
    struct slice content_type, payload;
    uint64_t owner, tag; /* the session's own */
};
/* On the session's worker. 0: the replied() of commands_start() follows. DG_ERR_NO_MEMORY,
 * DG_ERR_TOO_LARGE. */
DG_NODISCARD int commands_reply(struct worker *worker, const struct command_reply *reply);

/* ---- life ---- */

struct commands_options {
    struct worker **workers;
    unsigned worker_count;
    struct stream *stream;
    struct registry *registry;
    /* Gives a message to the session that holds a device; as session_deliver(). */
    int (*deliver)(struct worker *worker, uint64_t owner, struct outbox_message *message);
    /* Drops the commands of a device that a session has, whatever it has done with them. */
    void (*recall)(struct worker *worker, uint64_t owner, int64_t device_key);
    /* The reply is durable (0), or why not: DG_ERR_NO_CALL (nothing waits for it any more),
     * DG_ERR_STORAGE_FULL, DG_ERR_UNAVAILABLE ... */
    void (*replied)(struct worker *worker, uint64_t owner, uint64_t tag, int err);
    atomic_uint left; /* of the workers: those whose past PostgreSQL does not know yet; its own */
};

/* Before any worker runs, after claims_worker_start() and transitions_worker_start() of all;
 * options outlive it. Nothing is delivered before what the process before left is said. */
DG_NODISCARD int commands_worker_start(struct worker *worker, struct commands_options *options);
/* transitions_restore() calls it, on each worker. */
void commands_restored(struct worker *worker);
/* A notice on REGISTRY_CHANNEL_COMMANDS. */
void commands_notice(struct worker *worker, const char *text);
/* After all workers have ended, before relay_worker_free(). Harmless without a part. */
void commands_worker_free(struct worker *worker);
