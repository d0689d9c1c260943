/*
 * What the files of kafka/ share: one consumer's connection, the worker's part, and how a request
 * is answered. Worker's thread only.
 */
#pragma once

#include "gateway/kafka/endpoint.h"
#include "gateway/kafka/messages.h"
#include "gateway/kafka/wait.h"

enum kafka_state {
    KAFKA_STATE_NEW,
    KAFKA_STATE_HANDSHAKEN, /* mechanism chosen */
    KAFKA_STATE_LOGGING_IN, /* the registry is asked */
    KAFKA_STATE_READY,
    KAFKA_STATE_REFUSED, /* waits a moment, then closes: slows guessing down */
};

enum { KAFKA_SOFTWARE_SIZE = 64, KAFKA_NODE_ID = 1, KAFKA_LEADER_EPOCH = 0 };

struct kafka_session {
    struct connection *connection;
    struct kafka_worker *worker;
    struct kafka_session *next, **link; /* all sessions of the worker */
    enum kafka_state state;
    struct registry_identity identity;
    struct registry_tenant *tenants; /* whose topics may be read; owned */
    unsigned tenant_count;
    bool asking;                         /* the registry is asked for them */
    bool tenants_fresh;                  /* asked for the request in hand */
    struct kafka_request_header request; /* the one a verdict is awaited for */
    struct kafka_wait *waits;            /* partitions the long poll in hand waits for */
    uint64_t wait_until_ms;              /* end of that long poll; 0: none begun */
    uint64_t active_ms;                  /* last request */
    char software[KAFKA_SOFTWARE_SIZE];
};

struct kafka_worker {
    struct worker *worker;
    struct stream *stream;
    struct registry *registry;
    struct stream_watcher *watcher;
    struct kafka_session *sessions;
    struct kafka_wait_table waits;
    uint8_t *arena_bytes, *output_bytes; /* reused from request to request */
    struct kafka_gap *gaps;
};

/* A request being handled. */
struct kafka_call {
    struct kafka_session *session;
    const struct kafka_api *api;
    struct kafka_request_header header;
    struct kafka_arena arena; /* what was decoded, and room for the answer */
};

/* What a handler says: answered, or not yet (reading is paused and the request stays). */
enum kafka_outcome { KAFKA_ANSWERED = 0, KAFKA_WAITS = 1 };

/* Handlers: the decoded request of their API; an outcome, or an error that closes. */
typedef int kafka_handler(struct kafka_call *call, const void *request);
kafka_handler kafka_handle_api_versions;   /* metadata.c */
kafka_handler kafka_handle_metadata;       /* metadata.c */
kafka_handler kafka_handle_list_offsets;   /* offsets.c */
kafka_handler kafka_handle_epoch;          /* offsets.c */
kafka_handler kafka_handle_fetch;          /* fetch.c */
kafka_handler kafka_handle_produce;        /* refuse.c */
kafka_handler kafka_handle_coordinator;    /* refuse.c */
kafka_handler kafka_handle_sasl_handshake; /* sasl.c */
kafka_handler kafka_handle_authenticate;   /* sasl.c */

/* Encodes and queues the answer of a call. DG_ERR_LIMIT when it has no room; extents of a fetch are
 * the `source` of their kafka_records and are taken over. */
DG_NODISCARD int kafka_answer(struct kafka_call *call, const void *response);

/* Room from the call's arena for count items of an answer; false when it is used up. */
bool kafka_take_items(struct kafka_call *call, struct kafka_array *array, uint32_t count,
                      size_t item_size);

/* The wait is over: the request in hand is handled again. */
void kafka_resume(struct kafka_session *session);

static inline struct kafka_worker *kafka_of(struct worker *worker) {
    return worker->slots[WORKER_SLOT_KAFKA];
}

/* ---- topics.c: names and ids of what the session may read ---- */

struct kafka_topic_ref {
    const struct registry_tenant *tenant;
    uint64_t stream_id;
};

enum { KAFKA_TOPIC_NAME_SIZE = LIMIT_TENANT_BYTES + 16 };

/* 0; KAFKA_ERROR_UNKNOWN_TOPIC, KAFKA_ERROR_NOT_AUTHORIZED (another tenant's, or <tenant>.audit
 * without the role), KAFKA_ERROR_UNKNOWN_TOPIC_ID. */
int16_t kafka_topic_by_name(const struct kafka_session *session, struct slice name,
                            struct kafka_topic_ref *ret_topic);
int16_t kafka_topic_by_id(const struct kafka_session *session, const uint8_t *id,
                          struct kafka_topic_ref *ret_topic);
/* By name, or by id in versions of a request that carry ids. */
int16_t kafka_topic_find(const struct kafka_session *session, const struct kafka_topic *topic,
                         bool by_id, struct kafka_topic_ref *ret_topic);
void kafka_topic_id(uint64_t stream_id, uint8_t *ret_id);
/* Whether the session may read this kind of a tenant's topics. */
bool kafka_may_read(const struct kafka_session *session, enum stream_kind kind);
/* "acme.events"; returns its length. */
size_t kafka_topic_name(const struct registry_tenant *tenant, enum stream_kind kind,
                        char *ret_name);
/* The kinds that are topics, in order; ended by STREAM_KINDS. */
extern const enum stream_kind kafka_topic_kinds[];

/* ---- sasl.c, metadata.c: answers from the registry ---- */

/* Asks which tenants the session may read; kafka_resume() follows. */
DG_NODISCARD int kafka_ask_tenants(struct kafka_session *session);
