/*
 * What the files of kafka/ share: one consumer's connection, the worker's part, and how a request
 * is answered. Worker's thread only.
 */
#pragma once

#include <event2/event_struct.h>

#include "common/log.h"
#include "gateway/kafka/endpoint.h"
#include "gateway/kafka/group.h"
#include "gateway/kafka/ledger.h"
#include "gateway/kafka/messages.h"
#include "gateway/kafka/topics.h"
#include "gateway/kafka/wait.h"

enum kafka_state {
    KAFKA_STATE_NEW,
    KAFKA_STATE_HANDSHAKEN, /* mechanism chosen */
    KAFKA_STATE_RAW_TOKEN,  /* ... by version 0: the next frame is a token and nothing else */
    KAFKA_STATE_LOGGING_IN, /* the registry is asked */
    KAFKA_STATE_READY,
    KAFKA_STATE_REFUSED, /* waits a moment, then closes: slows guessing down */
    KAFKA_STATE_CLOSING,
};

enum { KAFKA_SOFTWARE_SIZE = 64, KAFKA_NODE_ID = 1, KAFKA_NO_EPOCH = -1 };

#define KAFKA_CLUSTER_ID "duragate"

/* A worker's scratch memory; touched only as far as used. */
enum { KAFKA_ARENA_SIZE = 16 * 1024 * 1024, KAFKA_OUTPUT_SIZE = 1024 * 1024 };

/* What could not be read: from this offset on, or looked up by this time. */
struct kafka_place {
    uint64_t stream_id;
    int64_t at;
    int32_t partition;
    int err; /* 0: nothing yet */
};

struct kafka_session {
    struct connection *connection;
    struct kafka_worker *worker;
    struct kafka_session *next, **link; /* all sessions of the worker */
    enum kafka_state state;
    int refused_err; /* KAFKA_STATE_REFUSED: why */
    struct registry_identity identity;
    struct kafka_account *account;   /* what its API key uses; NULL: not logged in */
    struct registry_tenant *tenants; /* whose topics may be read; owned */
    unsigned tenant_count;
    bool tenants_known;                  /* false: a platform principal, the registry never told */
    bool asking;                         /* the registry is asked for them */
    bool has_missed;                     /* the request in hand names what they do not have */
    uint64_t asked_ms;                   /* when it last answered; 0: never */
    struct kafka_request_header request; /* the one a verdict is awaited for */
    bool raw_token;                      /* the login came as one */
    struct scram *scram;                 /* that mechanism is chosen, until login; owned */
    bool parked;                         /* the request in hand waits for data or its time-out */
    struct kafka_wait *waits;            /* ... for these partitions */
    int64_t missing_bytes;               /* ... until they brought so much; 0: anything */
    struct event timer;                  /* ... until then */
    uint64_t wait_until_ms;              /* end of the wait of the request in hand; 0: none begun */
    bool muted;                          /* over a quota: takes nothing until the timer runs */
    uint64_t active_ms;                  /* last request */
    size_t unsent_before;                /* at the last check whether the peer still reads */
    uint64_t stalled_since_ms;           /* 0: it does */
    struct kafka_place unreadable;       /* the last one that was logged */
    struct kafka_gather *gather;         /* a group request whose answer is awaited */
    uint32_t gather_serial;
    const char *why; /* what is wrong with the request being refused, or NULL */
    char software[KAFKA_SOFTWARE_SIZE];
};

struct kafka_groups; /* group_worker.c */

struct kafka_worker {
    struct worker *worker;
    struct kafka_groups *groups;
    struct kafka_ledger *ledger; /* all workers' */
    struct log_sample group_lines;
    struct stream *stream;
    struct registry *registry;
    struct stream_watcher *watcher;
    struct kafka_session *sessions;
    struct kafka_wait_table waits;
    uint8_t *arena_bytes, *output_bytes; /* reused from request to request */
    struct kafka_gap *gaps;
};

struct kafka_topic_ref {
    const struct registry_tenant *tenant;
    uint64_t stream_id;
};

/* A request being handled. */
struct kafka_call {
    struct kafka_session *session;
    const struct kafka_api *api;
    struct kafka_request_header header;
    struct kafka_arena arena; /* what was decoded, and room for the answer */
    uint64_t fetched_bytes;   /* of events in the answer */
};

/* What a handler says: answered, or not yet (reading is paused and the request stays). */
enum kafka_outcome { KAFKA_ANSWERED = 0, KAFKA_WAITS = 1 };

/* Handlers: the decoded request of their API; an outcome, or an error that closes. */
typedef int kafka_handler(struct kafka_call *call, const void *request);
kafka_handler kafka_handle_api_versions;     /* metadata.c */
kafka_handler kafka_handle_metadata;         /* metadata.c */
kafka_handler kafka_handle_list_offsets;     /* offsets.c */
kafka_handler kafka_handle_epoch;            /* offsets.c */
kafka_handler kafka_handle_fetch;            /* fetch.c */
kafka_handler kafka_handle_produce;          /* refuse.c */
kafka_handler kafka_handle_coordinator;      /* metadata.c */
kafka_handler kafka_handle_group;            /* group_wire.c: all of them */
kafka_handler kafka_handle_describe_configs; /* describe.c */
kafka_handler kafka_handle_describe_cluster; /* describe.c */
kafka_handler kafka_handle_sasl_handshake;   /* sasl.c */
kafka_handler kafka_handle_authenticate;     /* sasl.c */

static inline struct kafka_worker *kafka_of(struct worker *worker) {
    return worker->slots[WORKER_SLOT_KAFKA];
}

static inline uint64_t kafka_now_ms(const struct kafka_session *session) {
    return session->worker->worker->now_ns / 1000000;
}

/* ---- request.c: framing, dispatch, answers ---- */

/* Handles the whole frames at `data`, one answer at a time; how many bytes are done with, or an
 * error that closes. */
DG_NODISCARD ssize_t kafka_take_input(struct kafka_session *session, const uint8_t *data,
                                      size_t size);

/* Stored batches of an answer, in order; in the call's arena. */
struct kafka_extent {
    struct stream_extent extent;
    struct kafka_extent *next;
};

/* Charges the call, encodes and queues its answer; when its API key is over a quota the answer says
 * so and the connection is muted (KIP-219). Takes over the extents of its records. DG_ERR_LIMIT
 * when it has no room: then nothing was queued, and the extents are still the caller's. */
DG_NODISCARD int kafka_answer(struct kafka_call *call, void *response);

/* A connection of a key that is over its quota of requests begins muted: coming anew is no way out.
 */
void kafka_throttle_login(struct kafka_session *session);

/* Whether the session's API key has fetched more than it may by now. */
bool kafka_is_over_quota(const struct kafka_session *session);

/* Room from the call's arena for count items of an answer; false when it is used up. */
bool kafka_take_items(struct kafka_call *call, struct kafka_array *array, uint32_t count,
                      size_t item_size);

/* How many topics and partitions a request names (`topics` holds struct kafka_topic): each can cost
 * a look-up, more than LIMIT_KAFKA_FETCH_PARTITIONS are refused. */
uint32_t kafka_count_partitions(const struct kafka_array *topics);

/* ---- endpoint.c: the life of a connection ---- */

/* The request in hand waits for its partitions until wait_until_ms. */
void kafka_park(struct kafka_session *session);
/* Nothing is taken from the connection for this time. */
void kafka_mute(struct kafka_session *session, uint64_t time_ms);
/* The wait is over: the request in hand is handled again, or the next one is taken. */
void kafka_resume(struct kafka_session *session);
/* Sets when the connection is looked at next; after its state changed. */
void kafka_set_check(struct kafka_session *session);
/* Closes; nothing is handled any more. */
void kafka_close(struct kafka_session *session, int err);
/* Closes a moment later, so that guessing takes time. */
void kafka_close_later(struct kafka_session *session, int err);

/* ---- fetch.c ---- */

/* The error code that a client gets for what reading or looking up came to. Damage and a disk that
 * cannot be read are logged, once per connection and place. */
int16_t kafka_storage_error(struct kafka_session *session, const struct kafka_topic_ref *topic,
                            int32_t partition, int64_t at, int err);

/* ---- topics.c: names and ids of what the session may read (names alone: topics.h) ---- */

/* 0; KAFKA_ERROR_UNKNOWN_TOPIC, KAFKA_ERROR_NOT_AUTHORIZED (another tenant's, or <tenant>.audit
 * without the role), KAFKA_ERROR_LEADER_NOT_AVAILABLE (the registry never told the tenants). */
int16_t kafka_topic_by_name(const struct kafka_session *session, struct slice name,
                            struct kafka_topic_ref *ret_topic);
/* The same with KAFKA_ERROR_UNKNOWN_TOPIC_ID; another tenant's id is as unknown as one that does
 * not exist. */
int16_t kafka_topic_by_id(const struct kafka_session *session, const uint8_t *id,
                          struct kafka_topic_ref *ret_topic);
/* By name, or by id in versions of a request that carry ids. */
int16_t kafka_topic_find(const struct kafka_session *session, const struct kafka_topic *topic,
                         bool by_id, struct kafka_topic_ref *ret_topic);
/* A partition of it: KAFKA_ERROR_UNKNOWN_TOPIC beyond the last; 74 or 75 when the client knows
 * another leader epoch than ours (-1: it knows none). */
int16_t kafka_topic_check_partition(const struct kafka_session *session,
                                    const struct kafka_topic_ref *topic, int32_t index,
                                    int32_t leader_epoch);
void kafka_topic_id(uint64_t stream_id, uint8_t *ret_id);
/* Whether the session may read this kind of a tenant's topics. */
bool kafka_may_read(const struct kafka_session *session, enum stream_kind kind);
/* Whether the session may use a consumer group of this name, in any way: groups that begin with
 * "audit." are the auditors', all others the consumers'. Otherwise a key that only reads the audit
 * stream could delete the consumers' offsets, or join their groups and stop them. */
bool kafka_may_use_group(const struct kafka_session *session, struct slice name);

/* ---- sasl.c ---- */

/* The frame behind a handshake of version 0. */
int kafka_take_raw_token(struct kafka_session *session, struct slice token);
void kafka_sasl_free(struct kafka_session *session);

/* ---- group_wire.c ---- */

/* A coordinator's answer to one of the session's requests; on the session's worker. */
void kafka_group_answered(struct worker *worker, struct group_request *request);
void kafka_gather_free(struct kafka_gather *gather); /* accepts NULL */

/* ---- group_worker.c ---- */

void kafka_groups_free(struct kafka_worker *worker);

/* Gives the request to its group's coordinator, on whichever worker that is; GROUP_LIST goes to the
 * worker that request->tag names. kafka_group_answered() follows. */
void kafka_groups_ask(struct kafka_worker *worker, struct group_request *request);
/* The session may not: the answer is this error, and comes as any other. */
void kafka_groups_refuse(struct kafka_worker *worker, struct group_request *request, int16_t error);
unsigned kafka_groups_worker_count(const struct kafka_worker *worker);
/* Lets time pass for the coordinator; its own timer calls it. */
void kafka_groups_tick(struct kafka_worker *worker);
/* NULL: it has none (any more). */
struct kafka_survey *kafka_groups_survey(const struct kafka_worker *worker);

/* ---- metadata.c ---- */

/* Where this session's client reaches us. */
void kafka_fill_broker(const struct kafka_session *session, struct kafka_broker *ret_broker);

/* Asks which tenants the session may read; kafka_resume() follows. */
DG_NODISCARD int kafka_ask_tenants(struct kafka_session *session);

/* A tenant may be new, and partitions grow: a connection that never asks for metadata (many clients
 * have one for their group alone) learns of it when it names what it does not know. note: the error
 * of a topic or partition of the request in hand. must: asked before the answer; true when the
 * registry is to be asked again, and the request to be handled once more. */
void kafka_note_miss(struct kafka_session *session, int16_t error);
bool kafka_must_ask_again(struct kafka_session *session);
