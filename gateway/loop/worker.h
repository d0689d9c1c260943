/*
 * A worker: one thread, one event loop, and everything its connections need. Nothing in it is
 * touched by another thread but the mailbox. N identical workers; the main thread accepts and hands
 * each connection to the least loaded one.
 *
 * One iteration of the loop is a turn: all ready sockets and mail are handled, then the turn ends:
 * the hooks run in the order they were added (append to the stream, then write to sockets).
 */
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/mailbox.h"

struct connection_pool; /* transport/connection.c */

enum { WORKER_TURN_HOOKS_MAX = 8 };

/* What each module keeps per worker; set once by the module's own *_worker_start(). */
enum worker_slot {
    WORKER_SLOT_STREAM,
    WORKER_SLOT_MQTT,
    WORKER_SLOT_KAFKA,
    WORKER_SLOT_HTTP,
    WORKER_SLOT_PROVISIONING,
    WORKER_SLOT_CLAIMS,
    WORKER_SLOT_CALLS,
    WORKER_SLOT_TRANSITIONS,
    WORKER_SLOT_RELAY,
    WORKER_SLOT_COMMANDS,
    WORKER_SLOT_TWINS,
    WORKER_SLOT_COUNT
};

struct worker {
    unsigned index;
    pthread_t thread;
    struct event_base *base;
    struct mailbox mailbox;      /* receiver: this worker */
    const struct config *config; /* the newest; a reload's mail replaces it as a whole */
    uint8_t *read_buffer;        /* LIMIT_READ_BUFFER_BYTES, shared by the connections */
    uint64_t now_ns;             /* monotonic; refreshed before each handler runs */
    int64_t wall_ms;
    struct connection_pool *connections;
    atomic_uint load; /* connections; read by the acceptor */
    void *slots[WORKER_SLOT_COUNT];
    struct {
        void (*run)(void *context);
        void *context;
    } turn_hooks[WORKER_TURN_HOOKS_MAX];
    unsigned turn_hook_count;
    bool stopping; /* worker's thread */
    struct event mailbox_event;
    struct mail stop_mail;
    atomic_flag stop_posted;
    bool started;
};

/* DG_ERR_NO_MEMORY, or DG_ERR_IO when no descriptor is left. config outlives the worker or is
 * replaced by a mail that sets worker->config. */
DG_NODISCARD int worker_create(unsigned index, const struct config *config,
                               struct worker **ret_worker);
/* After worker_join(); frees the connection pool too. Accepts NULL. */
void worker_free(struct worker *worker);

/* Before worker_start(). connection_pool_create() comes last: its hook writes what the others
 * queued. */
void worker_add_turn_hook(struct worker *worker, void (*run)(void *context), void *context);

/* Starts the thread with all signals blocked. DG_ERR_IO when the system has no thread left. */
DG_NODISCARD int worker_start(struct worker *worker);

/* Any thread, any number of times: the loop ends after its turn. worker_join() waits for it (at
 * once when it was never started). Mail that is there by then is still delivered, then every
 * connection is closed with DG_ERR_SHUTTING_DOWN, on the worker's own thread. */
void worker_stop(struct worker *worker);
void worker_join(struct worker *worker);

/* After worker_join(): waits a moment for mail and delivers it, for parts that await some before
 * they can be freed. */
void worker_await_mail(struct worker *worker);

/* Worker's thread: takes the time anew. */
void worker_refresh_time(struct worker *worker);
