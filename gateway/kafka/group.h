/*
 * Consumer groups: the coordinator of the groups that live on one worker, without socket, clock or
 * file. A group belongs to a tenant; equal names of two tenants are two groups.
 *
 *   EMPTY -> PREPARING -> COMPLETING -> STABLE
 *              ^ members join  ^ the leader's assignment is awaited
 *
 *   PREPARING   begins when a member joins, leaves, is missed, or comes with other metadata; ends
 *               when all known members have joined or the longest rebalance time-out is over: who
 *               did not join is dropped, the generation grows, everybody's join is answered.
 *   COMPLETING  ends with the leader's SyncGroup, which answers everybody's; who has not sent one
 *               within the rebalance time-out is dropped, be it after the leader's.
 *   STABLE      until something of the above begins a new round.
 *
 * Static members (with an instance id, KIP-345) are not dropped for not joining, only when their
 * session time-out ends; one that comes back without its member id takes its place over, and the
 * old member id is fenced; that is no round unless it wants something else (a consumer: other
 * topics). Cooperative rebalancing is the clients' own affair: a follower that rejoins with what is
 * known already gets the answer it had.
 *
 * A request is answered at once, or kept until the group moves. Offsets are answered after they are
 * durable: store() writes them, group_stored() follows.
 *
 * One worker's thread. Only memory can fail, and a request that finds none is answered with
 * KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE, which clients try again.
 */
#pragma once

#include "common/err.h"
#include "common/mailbox.h"
#include "common/slice.h"
#include "gateway/kafka/group_lag.h"

enum group_operation {
    GROUP_JOIN,
    GROUP_SYNC,
    GROUP_HEARTBEAT,
    GROUP_LEAVE,
    GROUP_COMMIT,
    GROUP_READ_OFFSETS,
    GROUP_DELETE_OFFSETS,
    GROUP_DESCRIBE,
    GROUP_LIST,
    GROUP_DELETE,
    /* The coordinator's own, which nobody is answered: when the group was in use; that it was not
     * for so long that its offsets go. */
    GROUP_STAMP,
    GROUP_EXPIRE,
};

enum group_state { GROUP_EMPTY, GROUP_PREPARING, GROUP_COMPLETING, GROUP_STABLE, GROUP_DEAD };

/* "Empty", "PreparingRebalance", ...: what the protocol calls it. */
extern const char *const group_state_names[];

/* Join: a protocol and its metadata; the answer's are members. Sync: a member and its assignment.
 * Leave: a member. Describe: a member with all it has. List: a group, with its lag as of the last
 * survey. */
struct group_item {
    struct slice id;
    struct slice instance; /* data NULL: none */
    struct slice bytes;
    struct slice assignment;
    struct slice client_id, client_host;
    enum group_state state;
    int16_t error;
    uint32_t member_count;
    struct group_lag lag;
};

struct group_offset {
    uint64_t stream_id;
    uint32_t partition;
    int32_t epoch;
    int64_t offset; /* -1: none */
    struct slice metadata;
    int16_t error;
    bool is_delete;     /* to store(): forget it */
    struct slice topic; /* its name, where the asker gives one */
};

/* As a place for when a group was last in use among its stored offsets: no stream has this number.
 */
enum { GROUP_STAMP_STREAM = 0 };

struct group_chunk;

/*
 * A request and, later, its answer. Whoever holds it owns it with everything its slices point to:
 * memory comes from group_take(). The asker fills in what its operation has in the protocol; fields
 * marked "answer" are the coordinator's.
 */
struct group_request {
    struct mail mail; /* the asker's and the endpoint's, between workers */
    /* Gets the answer on the asker's worker; NULL: the Kafka endpoint does. */
    void (*answered)(struct mail *mail, void *receiver);
    struct group_chunk *chunks;
    size_t taken_bytes; /* by group_take() */
    enum group_operation operation;
    /* The asker's, untouched. */
    uint64_t owner;
    uint32_t serial, tag;
    unsigned worker;
    /* Whose storing it is in hand: the endpoint's. */
    struct group_request *next_storing;
    uint32_t stored_count, pieces_left;
    struct group_request *next_of_group; /* the coordinator's: being stored */
    int16_t version;
    int64_t tenant_key;
    struct slice group;
    struct slice member;   /* answer of a join too */
    struct slice instance; /* data NULL: none */
    struct slice client_id, client_host;
    struct slice protocol_type; /* data NULL: not said */
    struct slice protocol;      /* likewise */
    int32_t generation;
    int32_t session_timeout_ms, rebalance_timeout_ms;
    struct group_item *items;
    uint32_t item_count;
    struct group_offset *offsets;
    uint32_t offset_count;
    bool wants_all_offsets;
    int16_t error;           /* answer */
    bool skip_assignment;    /* answer */
    enum group_state state;  /* answer */
    struct group_lag lag;    /* answer of a description: as of the last survey */
    struct slice leader;     /* answer */
    struct slice assignment; /* answer */
};

/* NULL: out of memory. */
struct group_request *group_request_new(enum group_operation operation);
void group_request_free(struct group_request *request); /* accepts NULL */
/* size zeroed bytes that live as long as the request; NULL: out of memory, which it also is when
 * the request has LIMIT_KAFKA_GROUP_REQUEST_BYTES. */
void *group_take(struct group_request *request, size_t size);
/* A copy of bytes; *ret_slice has data NULL only if the given one has. False: out of memory. */
bool group_keep(struct group_request *request, struct slice bytes, struct slice *ret_slice);

/* The coordinator is in the middle of its work when it calls these: store() may call
 * group_stored(), beside that none of them may call it. */
struct group_effects {
    /* The answer stands in the request, which is the receiver's. */
    void (*answer)(void *context, struct group_request *request);
    /* Makes the request's offsets durable; group_stored() follows, also from within. */
    void (*store)(void *context, struct group_request *request);
    /* Randomness for member ids. */
    uint64_t (*random)(void *context);
};

struct groups;

/* NULL: out of memory. initial_delay_ms: how long a group that was empty waits for more members. */
struct groups *groups_create(const struct group_effects *effects, void *context,
                             uint64_t initial_delay_ms);
/* Requests that are kept are freed without an answer. */
void groups_free(struct groups *groups);

/* Takes the request over. */
void group_handle(struct groups *groups, struct group_request *request, uint64_t now_ms);
/* What is not durable has been marked by group_fail_offsets(). */
void group_stored(struct groups *groups, struct group_request *request, uint64_t now_ms);
/* These could not be stored; the others were. */
void group_fail_offsets(struct group_request *request, uint32_t from, uint32_t to);

/* Lets time pass; when to call again (UINT64_MAX: not needed). The wall clock and retention_ms say
 * when the offsets of a group that nobody uses are forgotten (0: never); group_retention.c. */
uint64_t groups_tick(struct groups *groups, uint64_t now_ms, int64_t wall_ms,
                     uint64_t retention_ms);

/* At start: an offset that was stored before, also where there are more groups or offsets than may
 * be made now. DG_ERR_NO_MEMORY, DG_ERR_CORRUPT (a name that is too long). */
DG_NODISCARD int group_restore_offset(struct groups *groups, int64_t tenant_key, struct slice group,
                                      const struct group_offset *offset);
