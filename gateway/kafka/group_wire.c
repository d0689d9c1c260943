/*
 * Group requests on the wire: from a decoded message to what the coordinator is asked, and from its
 * answers to the message. One message may name several groups, which may live on several workers:
 * they are asked one after the other and the answers gathered, as much as memory is allowed for.
 * Until they are there the session takes no further request.
 */
#include <limits.h>
#include <stdlib.h>

#include "common/log.h"
#include "gateway/kafka/session.h"

struct kafka_gather {
    struct kafka_request_header header; /* its client id points nowhere any more */
    const struct kafka_api *api;
    unsigned count, asked;
    size_t answer_bytes;
    unsigned states; /* ListGroups: a bit for each that is asked for */
    struct group_request *requests[];
};

/* ---- making requests ---- */

void kafka_gather_free(struct kafka_gather *gather) {
    if (!gather)
        return;
    for (unsigned i = 0; i < gather->count; i++)
        group_request_free(gather->requests[i]);
    free(gather);
}

static struct group_request *make_request(const struct kafka_call *call,
                                          enum group_operation operation, struct slice group) {
    struct kafka_session *session = call->session;
    struct group_request *request = group_request_new(operation);
    char host[CONNECTION_PEER_TEXT_SIZE + 1] = "/";
    if (!request)
        return NULL;
    connection_format_peer(session->connection, host + 1);
    request->owner = connection_id(session->connection);
    request->worker = session->worker->worker->index;
    request->tenant_key = session->identity.tenant_key;
    request->version = call->header.version;
    request->generation = -1;
    if (group_keep(request, group, &request->group) &&
        group_keep(request, call->header.client_id, &request->client_id) &&
        group_keep(request, slice_from_string(host), &request->client_host))
        return request;
    group_request_free(request);
    return NULL;
}

static struct kafka_gather *make_gather(const struct kafka_call *call, unsigned count) {
    struct kafka_gather *gather =
        calloc(1, sizeof(*gather) + count * sizeof(struct group_request *));
    if (!gather)
        return NULL;
    gather->header = call->header;
    gather->header.client_id = (struct slice){0};
    gather->api = call->api;
    gather->count = count;
    return gather;
}

/* Its answer comes as mail, later. A list is of all groups, and looked through then. */
static void ask_next(struct kafka_session *session) {
    struct kafka_gather *gather = session->gather;
    struct group_request *request = gather->requests[gather->asked];
    gather->requests[gather->asked] = NULL;
    request->serial = session->gather_serial;
    request->tag = gather->asked++;
    if (request->operation == GROUP_LIST || kafka_may_use_group(session, request->group))
        kafka_groups_ask(session->worker, request);
    else
        kafka_groups_refuse(session->worker, request, KAFKA_ERROR_GROUP_NOT_AUTHORIZED);
}

/* Sends what was made; requests that could not be made are out of memory. */
static int ask(struct kafka_call *call, struct kafka_gather *gather) {
    struct kafka_session *session = call->session;
    for (unsigned i = 0; i < gather->count; i++) {
        if (gather->requests[i])
            continue;
        kafka_gather_free(gather);
        return DG_ERR_NO_MEMORY;
    }
    if (kafka_must_ask_again(session)) {
        kafka_gather_free(gather);
        return kafka_ask_tenants(session);
    }
    session->gather = gather;
    session->gather_serial++;
    connection_pause(session->connection);
    ask_next(session);
    return KAFKA_ANSWERED; /* the frame is used up */
}

static int ask_one(struct kafka_call *call, struct group_request *request, bool is_complete) {
    struct kafka_gather *gather = request && is_complete ? make_gather(call, 1) : NULL;
    if (!gather) {
        group_request_free(request);
        return DG_ERR_NO_MEMORY;
    }
    gather->requests[0] = request;
    return ask(call, gather);
}

/* One request for each group that is named. */
static int ask_each(struct kafka_call *call, enum group_operation operation,
                    const struct kafka_array *names) {
    if (names->count == 0 || names->count > LIMIT_KAFKA_FETCH_PARTITIONS)
        return DG_ERR_LIMIT;
    struct kafka_gather *gather = make_gather(call, names->count);
    if (!gather)
        return DG_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < names->count; i++)
        gather->requests[i] =
            make_request(call, operation, ((const struct slice *)names->items)[i]);
    return ask(call, gather);
}

static bool take_items(struct group_request *request, uint32_t count) {
    request->items = group_take(request, count * sizeof(*request->items) + 1);
    request->item_count = request->items ? count : 0;
    return request->items != NULL;
}

static bool keep_member(struct group_request *request, struct slice member, struct slice instance) {
    return group_keep(request, member, &request->member) &&
           group_keep(request, instance, &request->instance);
}

/* ---- JoinGroup, SyncGroup, Heartbeat, LeaveGroup ---- */

static int ask_join(struct kafka_call *call, const void *message) {
    const struct kafka_join_group_request *r = message;
    struct group_request *request = make_request(call, GROUP_JOIN, r->group);
    bool ok = request && keep_member(request, r->member, r->instance) &&
              group_keep(request, r->protocol_type, &request->protocol_type) &&
              take_items(request, r->protocols.count);
    const struct kafka_join_protocol *protocols = r->protocols.items;
    for (uint32_t i = 0; ok && i < r->protocols.count; i++)
        ok = group_keep(request, protocols[i].name, &request->items[i].id) &&
             group_keep(request, protocols[i].metadata, &request->items[i].bytes);
    if (ok) {
        request->session_timeout_ms = r->session_timeout_ms;
        request->rebalance_timeout_ms = r->rebalance_timeout_ms;
    }
    return ask_one(call, request, ok);
}

/* The client gives up: its operator must be able to see why. */
static void say_limit(const struct kafka_session *session, const struct group_request *answer) {
    unsigned suppressed;
    if (log_sample(&session->worker->group_lines, kafka_now_ms(session), &suppressed))
        LOG_WARN("kafka.group_limit", log_text("tenant", session->identity.tenant),
                 log_slice("group", answer->group),
                 log_text("why", "the tenant has too many consumer groups: delete some"),
                 log_int("suppressed", suppressed));
}

static int answer_join(struct kafka_call *call, struct group_request *const *answers) {
    const struct group_request *a = answers[0];
    if (a->error == KAFKA_ERROR_POLICY_VIOLATION)
        say_limit(call->session, a);
    struct kafka_join_group_response response = {
        .error = a->error,
        .generation = a->generation,
        .protocol_type = a->error ? (struct slice){0} : a->protocol_type,
        .protocol = a->error && call->header.version < 7 ? slice_from_string("") : a->protocol,
        .leader = a->leader,
        .skip_assignment = a->skip_assignment,
        .member = a->member,
    };
    uint32_t count = a->error ? 0 : a->item_count;
    if (!kafka_take_items(call, &response.members, count, sizeof(struct kafka_join_member)))
        return DG_ERR_LIMIT;
    struct kafka_join_member *members = response.members.items;
    for (uint32_t i = 0; i < count; i++)
        members[i] = (struct kafka_join_member){.member = a->items[i].id,
                                                .instance = a->items[i].instance,
                                                .metadata = a->items[i].bytes};
    return kafka_answer(call, &response);
}

static int ask_sync(struct kafka_call *call, const void *message) {
    const struct kafka_sync_group_request *r = message;
    struct group_request *request = make_request(call, GROUP_SYNC, r->group);
    bool ok = request && keep_member(request, r->member, r->instance) &&
              group_keep(request, r->protocol_type, &request->protocol_type) &&
              group_keep(request, r->protocol, &request->protocol) &&
              take_items(request, r->assignments.count);
    const struct kafka_sync_assignment *assignments = r->assignments.items;
    for (uint32_t i = 0; ok && i < r->assignments.count; i++)
        ok = group_keep(request, assignments[i].member, &request->items[i].id) &&
             group_keep(request, assignments[i].assignment, &request->items[i].bytes);
    if (ok)
        request->generation = r->generation;
    return ask_one(call, request, ok);
}

static int answer_sync(struct kafka_call *call, struct group_request *const *answers) {
    const struct group_request *a = answers[0];
    struct kafka_sync_group_response response = {.error = a->error};
    if (a->error == 0) {
        response.protocol_type = a->protocol_type;
        response.protocol = a->protocol;
        response.assignment = a->assignment;
    }
    return kafka_answer(call, &response);
}

static int ask_heartbeat(struct kafka_call *call, const void *message) {
    const struct kafka_heartbeat_request *r = message;
    struct group_request *request = make_request(call, GROUP_HEARTBEAT, r->group);
    bool ok = request && keep_member(request, r->member, r->instance);
    if (ok)
        request->generation = r->generation;
    return ask_one(call, request, ok);
}

static int answer_heartbeat(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_heartbeat_response response = {.error = answers[0]->error};
    return kafka_answer(call, &response);
}

/* Before version 3 one member, whose error is the answer's. */
enum { FIRST_VERSION_LEAVING_TOGETHER = 3 };

static int ask_leave(struct kafka_call *call, const void *message) {
    const struct kafka_leave_group_request *r = message;
    bool together = call->header.version >= FIRST_VERSION_LEAVING_TOGETHER;
    struct group_request *request = make_request(call, GROUP_LEAVE, r->group);
    bool ok = request && r->members.count <= LIMIT_KAFKA_GROUP_MEMBERS &&
              take_items(request, together ? r->members.count : 1);
    const struct kafka_leave_member *members = r->members.items;
    if (ok && !together)
        ok = group_keep(request, r->member, &request->items[0].id);
    for (uint32_t i = 0; ok && i < r->members.count; i++)
        ok = group_keep(request, members[i].member, &request->items[i].id) &&
             group_keep(request, members[i].instance, &request->items[i].instance);
    return ask_one(call, request, ok);
}

static int answer_leave(struct kafka_call *call, struct group_request *const *answers) {
    const struct group_request *a = answers[0];
    struct kafka_leave_group_response response = {.error = a->error};
    if (!kafka_take_items(call, &response.members, a->item_count, sizeof(struct kafka_left_member)))
        return DG_ERR_LIMIT;
    if (call->header.version < FIRST_VERSION_LEAVING_TOGETHER && a->error == 0)
        response.error = a->items[0].error;
    struct kafka_left_member *members = response.members.items;
    for (uint32_t i = 0; i < a->item_count; i++)
        members[i] = (struct kafka_left_member){
            .member = a->items[i].id, .instance = a->items[i].instance, .error = a->items[i].error};
    return kafka_answer(call, &response);
}

/* ---- offsets: what was asked comes back in the same order ---- */

static uint32_t count_partitions(const struct kafka_array *topics) {
    return kafka_count_partitions(topics) - topics->count;
}

/* The next offset of the request, of a partition by name; unknown ones carry their error. */
static bool add_offset(struct kafka_call *call, struct group_request *request,
                       const struct kafka_topic *topic, int32_t index) {
    struct group_offset *offset = &request->offsets[request->offset_count++];
    struct kafka_topic_ref ref;
    offset->error = kafka_topic_find(call->session, topic, false, &ref);
    if (offset->error == 0)
        offset->error = kafka_topic_check_partition(call->session, &ref, index, -1);
    kafka_note_miss(call->session, offset->error);
    offset->partition = (uint32_t)index;
    offset->stream_id = offset->error == 0 ? ref.stream_id : 0;
    return group_keep(request, topic->name, &offset->topic);
}

static bool take_offsets(struct group_request *request, const struct kafka_array *topics) {
    uint32_t count = count_partitions(topics);
    if (count > LIMIT_KAFKA_GROUP_OFFSETS)
        return false;
    request->offsets = group_take(request, count * sizeof(*request->offsets) + 1);
    return request->offsets != NULL;
}

static int ask_commit(struct kafka_call *call, const void *message) {
    const struct kafka_offset_commit_request *r = message;
    struct group_request *request = make_request(call, GROUP_COMMIT, r->group);
    bool ok = request && keep_member(request, r->member, r->instance) &&
              take_offsets(request, &r->topics);
    for (uint32_t t = 0; ok && t < r->topics.count; t++) {
        const struct kafka_topic *topic = (const struct kafka_topic *)r->topics.items + t;
        const struct kafka_offset_commit_partition *partitions = topic->partitions.items;
        for (uint32_t p = 0; ok && p < topic->partitions.count; p++) {
            struct group_offset *offset = &request->offsets[request->offset_count];
            offset->offset = partitions[p].offset;
            offset->epoch = call->header.version >= 6 ? partitions[p].epoch : -1;
            ok = add_offset(call, request, topic, partitions[p].index) &&
                 group_keep(request, partitions[p].metadata, &offset->metadata);
        }
    }
    if (ok)
        request->generation = r->generation;
    return ask_one(call, request, ok);
}

static int ask_offset_delete(struct kafka_call *call, const void *message) {
    const struct kafka_offset_delete_request *r = message;
    struct group_request *request = make_request(call, GROUP_DELETE_OFFSETS, r->group);
    bool ok = request && take_offsets(request, &r->topics);
    for (uint32_t t = 0; ok && t < r->topics.count; t++) {
        const struct kafka_topic *topic = (const struct kafka_topic *)r->topics.items + t;
        const struct kafka_offset_delete_partition *partitions = topic->partitions.items;
        for (uint32_t p = 0; ok && p < topic->partitions.count; p++)
            ok = add_offset(call, request, topic, partitions[p].index);
    }
    return ask_one(call, request, ok);
}

static bool same_topic(const struct group_offset *a, const struct group_offset *b) {
    return slice_equals(a->topic, b->topic);
}

/* The offsets of an answer as topics with partitions: runs of the same topic. fill writes one. */
static bool fill_topics(struct kafka_call *call, const struct group_request *a, size_t item_size,
                        void (*fill)(void *item, const struct group_offset *offset),
                        struct kafka_array *ret_topics) {
    if (!kafka_take_items(call, ret_topics, a->offset_count, sizeof(struct kafka_topic)))
        return false;
    struct kafka_topic *topics = ret_topics->items;
    ret_topics->count = 0;
    for (uint32_t from = 0, to; from < a->offset_count; from = to) {
        for (to = from + 1; to < a->offset_count; to++)
            if (!same_topic(&a->offsets[from], &a->offsets[to]))
                break;
        struct kafka_topic *topic = &topics[ret_topics->count++];
        topic->name = a->offsets[from].topic;
        if (!kafka_take_items(call, &topic->partitions, to - from, item_size))
            return false;
        for (uint32_t i = from; i < to; i++)
            fill((char *)topic->partitions.items + (i - from) * item_size, &a->offsets[i]);
    }
    return true;
}

static void fill_offset_answer(void *item, const struct group_offset *offset) {
    *(struct kafka_offset_answer *)item =
        (struct kafka_offset_answer){.index = (int32_t)offset->partition, .error = offset->error};
}

static void fill_fetched(void *item, const struct group_offset *offset) {
    *(struct kafka_fetched_offset *)item = (struct kafka_fetched_offset){
        .index = (int32_t)offset->partition,
        .offset = offset->offset,
        .epoch = offset->epoch,
        .metadata = offset->metadata.data ? offset->metadata : slice_from_string(""),
        .error = offset->error};
}

/* The group's own error, if it has one, stands for each partition. */
static void spread_error(struct group_request *a) {
    for (uint32_t i = 0; a->error != 0 && i < a->offset_count; i++)
        a->offsets[i].error = a->error;
}

static int answer_commit(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_offset_commit_response response = {0};
    spread_error(answers[0]);
    if (!fill_topics(call, answers[0], sizeof(struct kafka_offset_answer), fill_offset_answer,
                     &response.topics))
        return DG_ERR_LIMIT;
    return kafka_answer(call, &response);
}

static int answer_offset_delete(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_offset_delete_response response = {.error = answers[0]->error};
    if (response.error == 0 && !fill_topics(call, answers[0], sizeof(struct kafka_offset_answer),
                                            fill_offset_answer, &response.topics))
        return DG_ERR_LIMIT;
    return kafka_answer(call, &response);
}

/* ---- OffsetFetch: one group, from version 8 several ---- */

enum { FIRST_VERSION_OF_GROUPS = 8, FIRST_VERSION_WITH_ERROR = 2 };

static struct group_request *make_offset_fetch(struct kafka_call *call, struct slice group,
                                               const struct kafka_array *topics) {
    struct group_request *request = make_request(call, GROUP_READ_OFFSETS, group);
    bool ok = request && take_offsets(request, topics);
    if (request)
        request->wants_all_offsets = topics->is_null;
    for (uint32_t t = 0; ok && t < topics->count; t++) {
        const struct kafka_topic *topic = (const struct kafka_topic *)topics->items + t;
        const int32_t *partitions = topic->partitions.items;
        for (uint32_t p = 0; ok && p < topic->partitions.count; p++)
            ok = add_offset(call, request, topic, partitions[p]);
    }
    if (ok)
        return request;
    group_request_free(request);
    return NULL;
}

static int ask_offset_fetch(struct kafka_call *call, const void *message) {
    const struct kafka_offset_fetch_request *r = message;
    if (call->header.version < FIRST_VERSION_OF_GROUPS) {
        struct group_request *request = make_offset_fetch(call, r->group, &r->topics);
        return ask_one(call, request, request != NULL);
    }
    if (r->groups.count == 0 || r->groups.count > LIMIT_KAFKA_FETCH_PARTITIONS)
        return DG_ERR_LIMIT;
    struct kafka_gather *gather = make_gather(call, r->groups.count);
    const struct kafka_offset_fetch_group *groups = r->groups.items;
    for (uint32_t i = 0; gather && i < r->groups.count; i++)
        gather->requests[i] = make_offset_fetch(call, groups[i].group, &groups[i].topics);
    return gather ? ask(call, gather) : DG_ERR_NO_MEMORY;
}

static int compare_offsets(const void *a, const void *b) {
    const struct group_offset *x = a, *y = b;
    if (x->stream_id != y->stream_id)
        return x->stream_id < y->stream_id ? -1 : 1;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

/* All offsets of a group come by stream; topics that the session may not read are left out. */
static bool name_topics(struct kafka_call *call, struct group_request *a) {
    uint32_t kept = 0;
    if (a->offset_count > 0)
        qsort(a->offsets, a->offset_count, sizeof(*a->offsets), compare_offsets);
    for (uint32_t i = 0; i < a->offset_count; i++) {
        uint8_t id[KAFKA_UUID_SIZE];
        struct kafka_topic_ref ref;
        kafka_topic_id(a->offsets[i].stream_id, id);
        if (kafka_topic_by_id(call->session, id, &ref) != 0)
            continue;
        char *name = kafka_arena_take(&call->arena, KAFKA_TOPIC_NAME_SIZE);
        if (!name)
            return false;
        size_t size = kafka_topic_name(ref.tenant, ref.stream_id % STREAM_KINDS, name);
        a->offsets[kept] = a->offsets[i];
        a->offsets[kept++].topic = slice_make(name, size);
    }
    a->offset_count = kept;
    return true;
}

static int answer_offset_fetch(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_offset_fetch_response response = {.error = answers[0]->error};
    unsigned count = call->session->gather->count;
    if (!kafka_take_items(call, &response.groups, count, sizeof(struct kafka_offset_fetch_answer)))
        return DG_ERR_LIMIT;
    struct kafka_offset_fetch_answer *groups = response.groups.items;
    for (unsigned i = 0; i < count; i++) {
        struct group_request *a = answers[i];
        groups[i].group = a->group;
        groups[i].error = a->error;
        if (call->header.version < FIRST_VERSION_WITH_ERROR)
            spread_error(a);
        if ((a->wants_all_offsets && !name_topics(call, a)) ||
            !fill_topics(call, a, sizeof(struct kafka_fetched_offset), fill_fetched,
                         &groups[i].topics))
            return DG_ERR_LIMIT;
    }
    response.topics = groups[0].topics;
    return kafka_answer(call, &response);
}

/* ---- DescribeGroups, ListGroups, DeleteGroups ---- */

enum { OPERATIONS_NOT_SAID = INT32_MIN };

static int ask_describe(struct kafka_call *call, const void *message) {
    const struct kafka_describe_groups_request *r = message;
    return ask_each(call, GROUP_DESCRIBE, &r->groups);
}

static bool fill_described(struct kafka_call *call, const struct group_request *a,
                           struct kafka_described_group *ret) {
    *ret = (struct kafka_described_group){
        .error = a->error,
        .group = a->group,
        .state = slice_from_string(group_state_names[a->state]),
        .protocol_type = a->protocol_type,
        .protocol = a->protocol,
        .operations = OPERATIONS_NOT_SAID,
    };
    if (!kafka_take_items(call, &ret->members, a->item_count,
                          sizeof(struct kafka_described_member)))
        return false;
    struct kafka_described_member *members = ret->members.items;
    for (uint32_t i = 0; i < a->item_count; i++)
        members[i] = (struct kafka_described_member){.member = a->items[i].id,
                                                     .instance = a->items[i].instance,
                                                     .client_id = a->items[i].client_id,
                                                     .client_host = a->items[i].client_host,
                                                     .metadata = a->items[i].bytes,
                                                     .assignment = a->items[i].assignment};
    return true;
}

static int answer_describe(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_describe_groups_response response = {0};
    unsigned count = call->session->gather->count;
    if (!kafka_take_items(call, &response.groups, count, sizeof(struct kafka_described_group)))
        return DG_ERR_LIMIT;
    struct kafka_described_group *groups = response.groups.items;
    for (unsigned i = 0; i < count; i++)
        if (!fill_described(call, answers[i], &groups[i]))
            return DG_ERR_LIMIT;
    return kafka_answer(call, &response);
}

static unsigned states_of(const struct kafka_array *names) {
    unsigned states = names->count == 0 ? UINT_MAX : 0; /* none named: all */
    for (uint32_t i = 0; i < names->count; i++)
        for (unsigned state = GROUP_EMPTY; state <= GROUP_DEAD; state++)
            if (slice_equals_string(((const struct slice *)names->items)[i],
                                    group_state_names[state]))
                states |= 1u << state;
    return states;
}

/* Every worker has some of the tenant's groups. */
static int ask_list(struct kafka_call *call, const void *message) {
    const struct kafka_list_groups_request *r = message;
    struct kafka_gather *gather =
        make_gather(call, kafka_groups_worker_count(call->session->worker));
    if (gather)
        gather->states = states_of(&r->states);
    for (unsigned i = 0; gather && i < gather->count; i++)
        gather->requests[i] = make_request(call, GROUP_LIST, slice_make("", 0));
    return gather ? ask(call, gather) : DG_ERR_NO_MEMORY;
}

static int answer_list(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_list_groups_response response = {0};
    unsigned workers = call->session->gather->count;
    uint32_t count = 0;
    for (unsigned i = 0; i < workers; i++) {
        count += answers[i]->item_count;
        response.error = answers[i]->error ? answers[i]->error : response.error;
    }
    if (!kafka_take_items(call, &response.groups, count, sizeof(struct kafka_listed_group)))
        return DG_ERR_LIMIT;
    struct kafka_listed_group *groups = response.groups.items;
    response.groups.count = 0;
    for (unsigned i = 0; i < workers; i++)
        for (uint32_t g = 0; g < answers[i]->item_count; g++) {
            const struct group_item *item = &answers[i]->items[g];
            if (call->session->gather->states & 1u << item->state &&
                kafka_may_use_group(call->session, item->id))
                groups[response.groups.count++] = (struct kafka_listed_group){
                    .group = item->id,
                    .protocol_type = item->bytes,
                    .state = slice_from_string(group_state_names[item->state])};
        }
    return kafka_answer(call, &response);
}

static int ask_delete(struct kafka_call *call, const void *message) {
    const struct kafka_delete_groups_request *r = message;
    return ask_each(call, GROUP_DELETE, &r->groups);
}

static int answer_delete(struct kafka_call *call, struct group_request *const *answers) {
    struct kafka_delete_groups_response response = {0};
    unsigned count = call->session->gather->count;
    if (!kafka_take_items(call, &response.results, count, sizeof(struct kafka_deleted_group)))
        return DG_ERR_LIMIT;
    struct kafka_deleted_group *results = response.results.items;
    for (unsigned i = 0; i < count; i++)
        results[i] =
            (struct kafka_deleted_group){.group = answers[i]->group, .error = answers[i]->error};
    return kafka_answer(call, &response);
}

/* ---- dispatch ---- */

static const struct group_api {
    enum kafka_api_key key;
    int (*ask)(struct kafka_call *call, const void *message);
    int (*answer)(struct kafka_call *call, struct group_request *const *answers);
} group_apis[] = {
    {KAFKA_JOIN_GROUP, ask_join, answer_join},
    {KAFKA_SYNC_GROUP, ask_sync, answer_sync},
    {KAFKA_HEARTBEAT, ask_heartbeat, answer_heartbeat},
    {KAFKA_LEAVE_GROUP, ask_leave, answer_leave},
    {KAFKA_OFFSET_COMMIT, ask_commit, answer_commit},
    {KAFKA_OFFSET_FETCH, ask_offset_fetch, answer_offset_fetch},
    {KAFKA_OFFSET_DELETE, ask_offset_delete, answer_offset_delete},
    {KAFKA_DESCRIBE_GROUPS, ask_describe, answer_describe},
    {KAFKA_LIST_GROUPS, ask_list, answer_list},
    {KAFKA_DELETE_GROUPS, ask_delete, answer_delete},
};

static const struct group_api *find_api(int key) {
    const struct group_api *api = group_apis;
    while ((int)api->key != key)
        api++;
    return api;
}

int kafka_handle_group(struct kafka_call *call, const void *request) {
    return find_api(call->api->key)->ask(call, request);
}

/* All answers are there. */
static void answer(struct kafka_session *session) {
    struct kafka_gather *gather = session->gather;
    struct kafka_worker *worker = session->worker;
    struct kafka_call call = {
        .session = session,
        .api = gather->api,
        .header = gather->header,
        .arena = {.at = worker->arena_bytes, .end = worker->arena_bytes + KAFKA_ARENA_SIZE},
    };
    int outcome = find_api(gather->api->key)->answer(&call, gather->requests);
    kafka_gather_free(gather);
    session->gather = NULL;
    session->active_ms = kafka_now_ms(session);
    if (outcome < 0)
        kafka_close(session, outcome);
    else if (!session->muted)
        connection_resume(session->connection);
}

/* So much as was asked for at once has no room in an answer. */
static void refuse(struct kafka_session *session) {
    kafka_gather_free(session->gather);
    session->gather = NULL;
    kafka_close(session, DG_ERR_LIMIT);
}

void kafka_group_answered(struct worker *worker, struct group_request *request) {
    struct connection *c = connection_find(worker, request->owner);
    struct kafka_session *session = c ? c->session : NULL;
    struct kafka_gather *gather = session ? session->gather : NULL;
    if (!gather || request->serial != session->gather_serial) {
        group_request_free(request); /* its asker has gone */
        return;
    }
    gather->requests[request->tag] = request;
    gather->answer_bytes += request->taken_bytes;
    if (gather->answer_bytes > LIMIT_KAFKA_GROUP_REQUEST_BYTES)
        refuse(session);
    else if (gather->asked < gather->count)
        ask_next(session);
    else
        answer(session);
}
