/* What the files of the coordinator share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "common/limits.h"
#include "gateway/kafka/group.h"
#include "gateway/kafka/messages.h"

#include <uthash.h>

/* Bytes of a client's that live as long as a group's state: not a C string, for there may be a NUL
 * in them. */
struct group_text {
    size_t size;
    uint8_t bytes[];
};

struct group_member {
    UT_hash_handle hh; /* by id */
    struct group *group;
    struct group_text *id;
    struct group_request *profile; /* what its newest join said */
    struct group_text *assignment; /* NULL: none yet */
    struct group_request *waiting; /* a join or a sync that is not answered */
    uint64_t expires_ms;           /* unless waiting */
    bool has_synced;               /* this generation */
};

/* A member id that was given out and not used yet (KIP-394). */
struct group_pending {
    UT_hash_handle hh; /* by id */
    uint64_t expires_ms;
    uint8_t id[];
};

struct group_offset_key {
    uint64_t stream_id;
    uint64_t partition; /* 64 bits: no padding in a hashed key */
};

struct group_stored_offset {
    UT_hash_handle hh;
    struct group_offset_key key;
    int64_t offset;
    int64_t mark; /* group_lag.c: the partition's end when the group was marked; 0: new since */
    int32_t epoch;
    uint32_t metadata_size;
    char metadata[];
};

struct group {
    UT_hash_handle hh;
    struct groups *groups;
    struct group_tenant *tenant;
    int64_t tenant_key;
    enum group_state state;
    int32_t generation;
    struct group_member *members; /* a table by id that keeps the order of joining */
    struct group_member *leader;
    unsigned member_count;
    size_t metadata_bytes;            /* of all members' protocols */
    struct group_pending *pending;    /* a table; the oldest first */
    struct group_text *protocol_type; /* of the members; NULL: none yet */
    struct group_text *protocol;      /* chosen at the end of PREPARING; NULL: none yet */
    uint64_t deadline_ms;             /* of PREPARING, or of the syncs after it */
    uint64_t delay_end_ms; /* PREPARING from EMPTY: not before; 0: as soon as all have joined */
    struct group_stored_offset *offsets;
    struct group_lag lag;          /* of the last survey */
    uint64_t marked_ms;            /* when the marks were set; 0: never */
    uint64_t read_until_ms;        /* what was written before has been read */
    uint32_t overtaken_told;       /* partitions that a surveyor told of */
    struct group_request *storing; /* requests that are with store(), the newest first */
    int64_t stamp_ms;              /* wall clock: when it was in use, as stored; 0: never said */
    bool is_used;                  /* since then */
    uint64_t idle_since_ms;        /* nobody was seen to use it since; 0: not looked at yet */
    size_t key_size;
    uint8_t key[]; /* tenant key, name */
};

struct group_tenant {
    UT_hash_handle hh;
    int64_t tenant_key;
    unsigned group_count;
    size_t offset_bytes; /* of all their stored offsets */
};

struct groups {
    const struct group_effects *effects;
    void *context;
    uint64_t initial_delay_ms;
    struct group *all;
    struct group *survey_next; /* while is_surveying */
    bool is_surveying;
    struct group_tenant *tenants; /* that have groups */
};

static inline struct slice group_name(const struct group *group) {
    return slice_make(group->key + sizeof(int64_t), group->key_size - sizeof(int64_t));
}

/* Data NULL: none. */
static inline struct slice group_text_slice(const struct group_text *text) {
    return text ? slice_make(text->bytes, text->size) : (struct slice){0};
}

static inline struct slice group_member_id(const struct group_member *member) {
    return group_text_slice(member->id);
}

static inline struct group_member *group_member_next(const struct group_member *member) {
    return member->hh.next;
}

/* group.c */
/* Replaces *text by a copy. False: out of memory, nothing changed. */
bool group_text_set(struct group_text **text, struct slice value);
struct group *group_find(struct groups *groups, int64_t tenant_key, struct slice name);
unsigned group_count_of_tenant(const struct groups *groups, int64_t tenant_key);
/* The one that is there, or a new one: 0; 44 when the tenant has too many, 15 when all together
 * are, or memory is out. */
int16_t group_obtain(struct groups *groups, int64_t tenant_key, struct slice name,
                     struct group **ret_group);
/* A new one; there is none of that name. NULL: out of memory. */
struct group *group_make(struct groups *groups, int64_t tenant_key, struct slice name);
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
/* The same protocols, and of a consumer the same topics: what it had once is still right for it. */
bool group_member_wants_the_same(const struct group_member *member,
                                 const struct group_request *join);
/* Protocol metadata of the member under the protocol that was chosen. */
struct slice group_member_metadata(const struct group_member *member);
/* A protocol that all members support, by their votes; data NULL: there is none. */
struct slice group_choose_protocol(const struct group *group);
/* Whether the request may be a member, perhaps in the place of one: 0; 23 when it is of another
 * type or has no protocol that all the others support; 81 when that is more than a group may have.
 */
int16_t group_check_join(const struct group *group, const struct group_request *join,
                         const struct group_member *replaced);
/* Of too many the oldest is forgotten: its owner will be told that it is unknown, and ask again. */
bool group_pending_add(struct group *group, struct slice id, uint64_t expires_ms);
bool group_pending_remove(struct group *group, struct slice id);

/* group_consumer.c */
/* In a consumer's metadata the topics it subscribes to (a count and so many names); data NULL: that
 * is no subscription. */
struct slice group_subscription(struct slice metadata);
/* Whether all that a consumer owned when it joined was assigned to it again. */
bool group_has_nothing_to_give_back(struct slice metadata, struct slice assignment);

/* group_rebalance.c */
void group_join(struct groups *groups, struct group_request *request, uint64_t now_ms);
void group_sync(struct groups *groups, struct group_request *request, uint64_t now_ms);
/* A member has gone: a new round, or the end of the one that waited for it. False: so has the
 * group. */
bool group_after_removal(struct group *group, uint64_t now_ms);
/* The same after an id that was only given out has gone. */
bool group_settle(struct group *group, uint64_t now_ms);
/* Ends what has run out; the group's next deadline. */
uint64_t group_tick(struct group *group, uint64_t now_ms, int64_t wall_ms, uint64_t retention_ms);

/* group_offsets.c */
void group_commit(struct groups *groups, struct group_request *request, uint64_t now_ms);
void group_read_offsets(struct groups *groups, struct group_request *request);
void group_delete_offsets(struct groups *groups, struct group_request *request);
void group_delete(struct groups *groups, struct group_request *request);
void group_offsets_free(struct group *group);
/* All that is stored of the group, or is on its way there, as offsets to be deleted. False: out of
 * memory. */
bool group_list_deletions(const struct group *group, struct group_request *request);
void group_store(struct group *group, struct group_request *request);

/* group_retention.c */
/* Remembers that the group is in use, or forgets what nobody has used for long. When to look again.
 * The group may be gone after this. */
uint64_t group_keep_time(struct group *group, uint64_t now_ms, int64_t wall_ms,
                         uint64_t retention_ms);

/* group_describe.c */
void group_describe(struct groups *groups, struct group_request *request);
void group_list(struct groups *groups, struct group_request *request);

/* group_lag.c */
/* The group is about to go. */
void group_leaves_survey(struct group *group);
