/*
 * Events that the gateway itself writes into a tenant's commands stream, and what PostgreSQL is to
 * say because of them.
 *
 * What a device has caused is appended first; in the same unit goes its projection, the row that
 * PostgreSQL is to have (JSON), under STREAM_STATE_PROJECTION:
 *
 *   key    u8 kind | i64 owner (command or device key) | u64 sequence, all little-endian
 *   value  the row
 *
 * When it is durable done() is called; then the row goes to PostgreSQL, together with others, as
 * often as it takes; then the state is deleted and projected() called. What is left after a crash
 * is projected at the start, before anything new is decided: transitions_when_ready(). Rows of one
 * owner arrive in their order, and what is said twice changes nothing (the statements see to it).
 *
 * One line for each worker, in order: what cannot be appended yet (pressure) holds up what is
 * behind it. A device's transitions are its home worker's.
 */
#pragma once

#include "common/err.h"
#include "common/slice.h"
#include "gateway/command/target.h"
#include "gateway/event/event.h"
#include "gateway/loop/worker.h"
#include "registry/registry.h"
#include "storage/stream.h"

/* Numbers on disk. */
enum projection_kind { PROJECTION_NONE = 0, PROJECTION_COMMAND = 1, PROJECTION_TWIN = 2 };

struct transition;
/* What becomes of a transition, on its worker's thread; takes it over if it is the last call. */
typedef void transition_fn(struct worker *worker, struct transition *transition);

/* Embedded in its owner's object, which stays until the last call: done() with an error or without
 * a projection, else projected(). */
struct transition {
    struct transition *next; /* these two: of transitions.c */
    uint64_t sequence;

    struct command_target target;
    enum event_type type;         /* EVENT_TYPE_COUNT: no event, only a change of state */
    struct slice subject;         /* command id */
    struct slice id;              /* ce_id; empty: made */
    struct slice payload;         /* JSON */
    enum projection_kind kind;    /* NONE: nothing for PostgreSQL */
    int64_t owner;                /* command key, device key */
    struct slice row;             /* JSON, of at most TRANSITION_ROW_BYTES */
    struct stream_mutation state; /* one more change of state; name_space 0: none */
    bool insists;                 /* without room on the disk: it waits for room */
    int err;                      /* when done: 0, DG_ERR_TOO_LARGE, DG_ERR_STORAGE_FULL */
    transition_fn *done, *projected;
};
enum { TRANSITION_ROW_BYTES = 60 * 1024 };

/* Any number may be in line: whoever makes them has limits. */
void transitions_append(struct worker *worker, struct transition *transition);

/* Before any worker runs and before connection_pool_create(). */
DG_NODISCARD int transitions_worker_start(struct worker *worker, struct stream *stream,
                                          struct registry *registry);
/* What was left by the process before; after transitions_worker_start() of all. restored(): on each
 * worker, as soon as PostgreSQL says it all. DG_ERR_NO_MEMORY. */
DG_NODISCARD int transitions_restore(struct stream *stream, struct worker **workers, unsigned count,
                                     void (*restored)(struct worker *worker));
/* The device that a key of STREAM_STATE_PROJECTION names; 0: it names none. */
int64_t transitions_device_key(struct slice key);
/* PostgreSQL's name for this gateway: that of its store. */
const char *transitions_instance(const struct worker *worker);
/* After all workers have ended, before worker_free(). Harmless without a part. */
void transitions_worker_free(struct worker *worker);
