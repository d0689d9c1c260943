/* What the files of the coordinator share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "common/limits.h"
#include "gateway/kafka/group.h"
#include "gateway/kafka/messages.h"

#include <uthash.h>

struct group_member {
    struct group_member *next; /* in the order of joining */
    struct group *group;
    struct group_request *profile; /* what its newest join said; id and assignment live there too */
    struct slice id;
    struct slice assignment;
    struct group_request *waiting; /* a join or a sync that is not answered */
    uint64_t expires_ms;           /* unless waiting */
    bool has_joined;               /* this round */
    bool has_synced;               /* this generation */
};

/* A member id that was given out and not used yet (KIP-394). */
struct group_pending {
    struct group_pending *next;
    uint64_t expires_ms;
    size_t size;
    char id[];
};

struct group_offset_key {
    uint64_t stream_id;
    uint64_t partition; /* 64 bits: no padding in a hashed key */
};

struct group_stored_offset {
    UT_hash_handle hh;
    struct group_offset_key key;
    int64_t offset;
    int32_t epoch;
    uint32_t metadata_size;
    char metadata[];
};

struct group {
    UT_hash_handle hh;
    struct groups *groups;
    int64_t tenant_key;
    enum group_state state;
    int32_t generation;
    struct group_member *members;
    struct group_member *leader;
    unsigned member_count;
    struct group_pending *pending;
    char *protocol_type;   /* of the members; NULL: none yet */
    char *protocol;        /* chosen at the end of PREPARING; NULL: none yet */
    uint64_t deadline_ms;  /* of PREPARING or COMPLETING */
    uint64_t delay_end_ms; /* PREPARING from EMPTY: not before; 0: as soon as all have joined */
    struct group_stored_offset *offsets;
    unsigned storing; /* requests that are with store() */
    size_t key_size;
    uint8_t key[]; /* tenant key, name */
};

struct groups {
    const struct group_effects *effects;
    void *context;
    uint64_t initial_delay_ms;
    struct group *all;
};

static inline struct slice group_name(const struct group *group) {
    return slice_make(group->key + sizeof(int64_t), group->key_size - sizeof(int64_t));
}

/* group.c */
struct group *group_find(struct groups *groups, int64_t tenant_key, struct slice name);
struct group *group_obtain(struct groups *groups, int64_t tenant_key, struct slice name);
/* Forgets a group of which nothing is left; true when it did. */
bool group_drop_if_gone(struct group *group);
void group_answer(struct groups *groups, struct group_request *request, int16_t error);

/* group_member.c */
struct group_member *group_member_find(const struct group *group, struct slice id);
struct group_member *group_member_by_instance(const struct group *group, struct slice instance);
/* The member a request speaks for: 0, 25 unknown, 82 fenced. */
int16_t group_member_check(const struct group *group, struct slice id, struct slice instance,
                           struct group_member **ret_member);
/* A member with a copy of what the join says. NULL: out of memory. */
struct group_member *group_member_add(struct group *group, struct slice id,
                                      const struct group_request *join);
/* A newer join of the same member, perhaps under a new id. False: out of memory, nothing changed.
 */
bool group_member_renew(struct group_member *member, struct slice id,
                        const struct group_request *join);
/* The request is answered later; one that waited already is answered with error. */
void group_member_keep(struct group_member *member, struct group_request *request, int16_t error);
/* Answers what waits, if anything does; the member's session begins anew. */
void group_member_answer(struct group_member *member, int16_t error, uint64_t now_ms);
/* Answers what waits with 25, frees. The group's state is the caller's affair. */
void group_member_remove(struct group_member *member);
void group_member_touch(struct group_member *member, uint64_t now_ms);
/* The same protocols with the same metadata in the same order. */
bool group_member_agrees(const struct group_member *member, const struct group_request *join);
/* Protocol metadata of the member under the protocol that was chosen. */
struct slice group_member_metadata(const struct group_member *member);
/* A protocol that all members support, by their votes; data NULL: there is none. */
struct slice group_choose_protocol(const struct group *group);
/* Whether the request has a protocol that all members (but one that it replaces) support, and is of
 * the group's type. */
bool group_fits(const struct group *group, const struct group_request *join,
                const struct group_member *replaced);
bool group_pending_add(struct group *group, struct slice id, uint64_t expires_ms);
bool group_pending_remove(struct group *group, struct slice id);

/* group_rebalance.c */
void group_join(struct groups *groups, struct group_request *request, uint64_t now_ms);
void group_sync(struct groups *groups, struct group_request *request, uint64_t now_ms);
/* A member has gone: a new round, or the end of the one that waited for it. False: so has the
 * group. */
bool group_after_removal(struct group *group, uint64_t now_ms);
/* The same after an id that was only given out has gone. */
bool group_settle(struct group *group, uint64_t now_ms);
/* Ends what has run out; the group's next deadline. */
uint64_t group_tick(struct group *group, uint64_t now_ms);

/* group_offsets.c */
void group_commit(struct groups *groups, struct group_request *request, uint64_t now_ms);
void group_read_offsets(struct groups *groups, struct group_request *request);
void group_delete_offsets(struct groups *groups, struct group_request *request);
void group_delete(struct groups *groups, struct group_request *request);
void group_offsets_free(struct group *group);

/* group_describe.c */
void group_describe(struct groups *groups, struct group_request *request);
void group_list(struct groups *groups, struct group_request *request);
