/* Offsets of a group: what was committed, durable first, then told. */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/reader.h"
#include "gateway/kafka/group_internal.h"

/* ---- the table ---- */

static struct group_stored_offset *find_offset(const struct group *group, uint64_t stream_id,
                                               uint32_t partition) {
    struct group_offset_key key = {.stream_id = stream_id, .partition = partition};
    struct group_stored_offset *stored;
    HASH_FIND(hh, group->offsets, &key, sizeof(key), stored);
    return stored;
}

static size_t offset_bytes(size_t metadata_size) {
    return sizeof(struct group_stored_offset) + metadata_size;
}

static void free_offset(struct group *group, struct group_stored_offset *stored) {
    group->tenant->offset_bytes -= offset_bytes(stored->metadata_size);
    HASH_DEL(group->offsets, stored);
    free(stored);
}

static void forget_offset(struct group *group, uint64_t stream_id, uint32_t partition) {
    struct group_stored_offset *stored = find_offset(group, stream_id, partition);
    if (stored)
        free_offset(group, stored);
}

void group_offsets_free(struct group *group) {
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        free_offset(group, stored);
    }
}

/* Replaces what was there. False: out of memory. */
static bool put_offset(struct group *group, const struct group_offset *offset) {
    struct group_stored_offset *stored = calloc(1, sizeof(*stored) + offset->metadata.size);
    if (!stored)
        return false;
    stored->key = (struct group_offset_key){offset->stream_id, offset->partition};
    stored->offset = offset->offset;
    stored->epoch = offset->epoch;
    stored->metadata_size = (uint32_t)offset->metadata.size;
    if (offset->metadata.size > 0)
        memcpy(stored->metadata, offset->metadata.data, offset->metadata.size);
    const struct group_stored_offset *before =
        find_offset(group, offset->stream_id, offset->partition);
    stored->mark = before ? before->mark : 0;
    forget_offset(group, offset->stream_id, offset->partition);
    HASH_ADD(hh, group->offsets, key, sizeof(stored->key), stored);
    group->tenant->offset_bytes += offset_bytes(stored->metadata_size);
    return true;
}

/* What became durable. False: out of memory. */
static bool take_stored(struct group *group, const struct group_offset *offset) {
    if (offset->stream_id == GROUP_STAMP_STREAM)
        group->stamp_ms = offset->is_delete ? 0 : offset->offset;
    else if (offset->is_delete)
        forget_offset(group, offset->stream_id, offset->partition);
    else
        return put_offset(group, offset);
    return true;
}

int group_restore_offset(struct groups *groups, int64_t tenant_key, struct slice name,
                         const struct group_offset *offset) {
    if (name.size > LIMIT_KAFKA_GROUP_NAME_BYTES)
        return DG_ERR_CORRUPT;
    if (offset->offset < 0)
        return 0; /* older releases took them; no consumer can begin there */
    struct group *group = group_find(groups, tenant_key, name);
    if (!group)
        group = group_make(groups, tenant_key, name);
    return group && take_stored(group, offset) ? 0 : DG_ERR_NO_MEMORY;
}

/* ---- storing ---- */

void group_store(struct group *group, struct group_request *request) {
    request->next_of_group = group->storing;
    group->storing = request;
    group->groups->effects->store(group->groups->context, request);
}

void group_fail_offsets(struct group_request *request, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++)
        if (request->offsets[i].error == 0)
            request->offsets[i].error = KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
}

static void take_off(struct group *group, const struct group_request *request) {
    struct group_request **link = &group->storing;
    while (*link && *link != request)
        link = &(*link)->next_of_group;
    dg_assert(*link);
    *link = request->next_of_group;
}

void group_stored(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    dg_assert(group);
    take_off(group, request);
    int16_t error = 0;
    for (uint32_t i = 0; i < request->offset_count; i++) {
        struct group_offset *offset = &request->offsets[i];
        if (offset->error == 0 && !take_stored(group, offset))
            offset->error = KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
        if (offset->error != 0 && request->operation == GROUP_DELETE)
            error = offset->error;
    }
    if (request->operation == GROUP_STAMP || request->operation == GROUP_EXPIRE)
        group_request_free(request);
    else
        group_answer(groups, request, error);
    group_settle(group, now_ms);
}

/* ---- OffsetCommit ---- */

/* Without a generation it is a consumer that assigns itself: only while the group has no members.
 */
static int16_t check_commit(const struct group *group, const struct group_request *request,
                            struct group_member **ret_member) {
    if (request->generation < 0 && (!group || group->member_count == 0))
        return 0;
    if (!group)
        return KAFKA_ERROR_UNKNOWN_MEMBER;
    int16_t error = group_member_check(group, request->member, request->instance, ret_member);
    if (error == 0 && request->generation != group->generation)
        error = KAFKA_ERROR_ILLEGAL_GENERATION;
    if (error == 0 && group->state == GROUP_COMPLETING)
        error = KAFKA_ERROR_REBALANCE;
    return error;
}

/* How much more there is to keep when the offset takes the place of what is stored, or of none. */
static size_t growth_of(const struct group_offset *offset,
                        const struct group_stored_offset *stored) {
    size_t before = stored ? offset_bytes(stored->metadata_size) : 0;
    size_t after = offset_bytes(offset->metadata.size);
    return after > before ? after - before : 0;
}

/* There is always room for a position that takes no more than the one before. */
static uint32_t check_offsets(const struct group *group, struct group_request *request) {
    uint32_t good = 0, count = HASH_COUNT(group->offsets);
    size_t tenant_bytes = group->tenant->offset_bytes;
    for (uint32_t i = 0; i < request->offset_count; i++) {
        struct group_offset *offset = &request->offsets[i];
        if (offset->error != 0)
            continue;
        const struct group_stored_offset *stored =
            find_offset(group, offset->stream_id, offset->partition);
        size_t growth = growth_of(offset, stored);
        bool is_over = growth > 0 && tenant_bytes + growth > LIMIT_KAFKA_TENANT_OFFSET_BYTES;
        if (offset->offset < 0) /* -1 would be read as none, others overflow the lag */
            offset->error = KAFKA_ERROR_INVALID_REQUEST;
        else if (offset->metadata.size > LIMIT_KAFKA_OFFSET_METADATA_BYTES || (stored && is_over))
            offset->error = KAFKA_ERROR_OFFSET_METADATA_TOO_LARGE;
        else if (!stored && (is_over || count >= LIMIT_KAFKA_GROUP_OFFSETS))
            offset->error = KAFKA_ERROR_POLICY_VIOLATION;
        if (offset->error != 0)
            continue;
        good++;
        count += !stored;
        tenant_bytes += growth;
    }
    return good;
}

static void answer_each(struct groups *groups, struct group_request *request, int16_t error) {
    for (uint32_t i = 0; i < request->offset_count; i++)
        if (request->offsets[i].error == 0)
            request->offsets[i].error = error;
    group_answer(groups, request, 0);
}

void group_commit(struct groups *groups, struct group_request *request, uint64_t now_ms) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    struct group_member *member = NULL;
    int16_t error = check_commit(group, request, &member);
    if (error == 0 && !group)
        error = group_obtain(groups, request->tenant_key, request->group, &group);
    if (error != 0) {
        answer_each(groups, request, error);
        return;
    }
    if (member)
        group_member_touch(member, now_ms);
    group->is_used = true;
    if (check_offsets(group, request) > 0) {
        group_store(group, request);
        return;
    }
    group_answer(groups, request, 0);
    group_drop_if_gone(group);
}

/* ---- OffsetFetch ---- */

static bool fill_offset(struct group_request *request, const struct group_stored_offset *stored,
                        struct group_offset *ret_offset) {
    ret_offset->offset = stored->offset;
    ret_offset->epoch = stored->epoch;
    return group_keep(request, slice_make(stored->metadata, stored->metadata_size),
                      &ret_offset->metadata);
}

static bool list_all(const struct group *group, struct group_request *request) {
    uint32_t count = HASH_COUNT(group->offsets);
    request->offset_count = 0;
    request->offsets = group_take(request, count * sizeof(*request->offsets) + 1);
    if (!request->offsets)
        return false;
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        struct group_offset *offset = &request->offsets[request->offset_count++];
        offset->stream_id = stored->key.stream_id;
        offset->partition = (uint32_t)stored->key.partition;
        if (!fill_offset(request, stored, offset))
            return false;
    }
    return true;
}

/* Where nothing was committed the offset is -1, which is no error. */
void group_read_offsets(struct groups *groups, struct group_request *request) {
    const struct group *group = group_find(groups, request->tenant_key, request->group);
    bool filled = true;
    for (uint32_t i = 0; i < request->offset_count && filled; i++) {
        struct group_offset *offset = &request->offsets[i];
        offset->offset = offset->epoch = -1;
        const struct group_stored_offset *stored =
            group && offset->error == 0 ? find_offset(group, offset->stream_id, offset->partition)
                                        : NULL;
        if (stored)
            filled = fill_offset(request, stored, offset);
    }
    if (group && request->wants_all_offsets)
        filled = list_all(group, request);
    group_answer(groups, request, filled ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE);
}

/* ---- OffsetDelete, DeleteGroups ---- */

/* A topic of the request. All are looked for at once: a subscription may be megabytes long. */
struct forgotten_topic {
    UT_hash_handle hh;
    bool is_subscribed;
};

static struct forgotten_topic *find_topic(struct forgotten_topic *topics, struct slice name) {
    struct forgotten_topic *topic = NULL;
    if (name.size > 0)
        HASH_FIND(hh, topics, name.data, name.size, topic);
    return topic;
}

/* The topics that are named without error. False: out of memory. */
static bool collect_topics(struct group_request *request, struct forgotten_topic **topics) {
    for (uint32_t i = 0; i < request->offset_count; i++) {
        const struct group_offset *offset = &request->offsets[i];
        if (offset->error != 0 || offset->topic.size == 0 || find_topic(*topics, offset->topic))
            continue;
        struct forgotten_topic *topic = group_take(request, sizeof(*topic));
        if (!topic)
            return false;
        HASH_ADD_KEYPTR(hh, *topics, offset->topic.data, offset->topic.size, topic);
    }
    return true;
}

/* A member that has not said what it subscribes to may want any topic: false. */
static bool mark_subscribed(const struct group_member *member, struct forgotten_topic *topics) {
    struct slice subscription = group_subscription(group_member_metadata(member));
    if (!subscription.data)
        return false;
    struct reader r = reader_make(subscription.data, subscription.size);
    for (uint32_t count = reader_u32(&r); count > 0; count--) {
        struct forgotten_topic *topic = find_topic(topics, reader_slice(&r, reader_u16(&r)));
        if (topic)
            topic->is_subscribed = true;
    }
    return true;
}

/* What members keep from being forgotten gets its error. The answer's own error. */
static int16_t check_forgetting(const struct group *group, struct group_request *request) {
    struct slice type = group_text_slice(group->protocol_type);
    bool are_consumers = slice_equals_string(type, "consumer"), are_known = are_consumers;
    struct forgotten_topic *topics = NULL;
    if (group->member_count == 0)
        return 0;
    bool collected = collect_topics(request, &topics);
    for (const struct group_member *m = group->members; m && collected && are_known;
         m = group_member_next(m))
        are_known = mark_subscribed(m, topics);
    for (uint32_t i = 0; i < request->offset_count; i++) {
        struct group_offset *offset = &request->offsets[i];
        const struct forgotten_topic *topic = find_topic(topics, offset->topic);
        if (offset->error == 0 && !are_consumers)
            offset->error = KAFKA_ERROR_NON_EMPTY_GROUP;
        else if (offset->error == 0 && (!are_known || (topic && topic->is_subscribed)))
            offset->error = KAFKA_ERROR_GROUP_SUBSCRIBED;
    }
    HASH_CLEAR(hh, topics);
    return collected ? 0 : KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE;
}

void group_delete_offsets(struct groups *groups, struct group_request *request) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    int16_t error = group ? check_forgetting(group, request) : KAFKA_ERROR_GROUP_NOT_FOUND;
    uint32_t good = 0;
    for (uint32_t i = 0; error == 0 && i < request->offset_count; i++) {
        request->offsets[i].is_delete = true;
        good += request->offsets[i].error == 0;
    }
    if (good > 0)
        group_store(group, request);
    else
        group_answer(groups, request, error);
}

static void add_deletion(struct group_request *request, uint64_t stream_id, uint32_t partition) {
    request->offsets[request->offset_count++] =
        (struct group_offset){.stream_id = stream_id, .partition = partition, .is_delete = true};
}

/* What is on its way is stored before the deletion, in the order of requests: if it were not
 * deleted too, it would bring the group back after the next start. */
bool group_list_deletions(const struct group *group, struct group_request *request) {
    uint32_t count = HASH_COUNT(group->offsets) + 1;
    for (const struct group_request *r = group->storing; r; r = r->next_of_group)
        count += r->offset_count;
    request->offset_count = 0;
    request->offsets = group_take(request, count * sizeof(*request->offsets));
    if (!request->offsets)
        return false;
    struct group_stored_offset *stored, *next;
    HASH_ITER(hh, group->offsets, stored, next) {
        add_deletion(request, stored->key.stream_id, (uint32_t)stored->key.partition);
    }
    for (const struct group_request *r = group->storing; r; r = r->next_of_group)
        for (uint32_t i = 0; i < r->offset_count; i++) {
            const struct group_offset *o = &r->offsets[i];
            if (o->error == 0 && !o->is_delete && !find_offset(group, o->stream_id, o->partition))
                add_deletion(request, o->stream_id, o->partition);
        }
    if (group->stamp_ms != 0)
        add_deletion(request, GROUP_STAMP_STREAM, 0);
    return true;
}

void group_delete(struct groups *groups, struct group_request *request) {
    struct group *group = group_find(groups, request->tenant_key, request->group);
    request->offset_count = 0;
    int16_t error = !group                                      ? KAFKA_ERROR_GROUP_NOT_FOUND
                    : group->member_count > 0 || group->pending ? KAFKA_ERROR_NON_EMPTY_GROUP
                    : !group_list_deletions(group, request) ? KAFKA_ERROR_COORDINATOR_NOT_AVAILABLE
                                                            : 0;
    if (error == 0 && request->offset_count > 0)
        group_store(group, request);
    else
        group_answer(groups, request, error);
}
