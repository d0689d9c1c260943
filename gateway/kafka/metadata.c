/* ApiVersions, Metadata, FindCoordinator: what is offered, where, and which topics there are. */
#include <stdlib.h>

#include "gateway/kafka/session.h"

enum { OPERATIONS_UNSET = INT32_MIN, METADATA_FIRST_NULL = 1, METADATA_FIRST_ID = 10 };
enum { TENANTS_FRESH_MS = 1000 };

/* The fallback when the version asked for is too new: version 0's layout, error 35 (KIP-511). */
int kafka_handle_api_versions(struct kafka_call *call, const void *request) {
    const struct kafka_api_versions_request *r = request;
    struct kafka_api_versions_response response = {0};
    if (call->header.version > call->api->last) {
        response.error = KAFKA_ERROR_UNSUPPORTED_VERSION;
        call->header.version = 0;
    } else if (r->software_name.size + r->software_version.size + 2 <= KAFKA_SOFTWARE_SIZE) {
        struct writer w = writer_make(call->session->software, KAFKA_SOFTWARE_SIZE - 1);
        writer_slice(&w, r->software_name);
        writer_u8(&w, ' ');
        writer_slice(&w, r->software_version);
        *w.at = '\0';
    }
    uint32_t count = 0;
    while (kafka_apis[count].name)
        count++;
    if (!kafka_take_items(call, &response.keys, count, sizeof(struct kafka_api_version)))
        return DG_ERR_LIMIT;
    struct kafka_api_version *keys = response.keys.items;
    for (uint32_t i = 0; i < count; i++)
        keys[i] = (struct kafka_api_version){
            .key = kafka_apis[i].key, .first = kafka_apis[i].first, .last = kafka_apis[i].last};
    return kafka_answer(call, &response);
}

/* ---- tenants ---- */

/* A tenant that was made anew under the name of the principal's own is another one. */
static void drop_strangers(const struct registry_identity *identity,
                           struct registry_tenant_query *query) {
    unsigned kept = 0;
    for (unsigned i = 0; i < query->tenant_count; i++)
        if (identity->tenant_key == 0 || query->tenants[i].tenant_key == identity->tenant_key)
            query->tenants[kept++] = query->tenants[i];
    query->tenant_count = kept;
}

static void deliver_tenants(struct mail *mail, void *receiver) {
    struct registry_tenant_query *query = (struct registry_tenant_query *)(void *)mail;
    struct connection *c = connection_find(receiver, query->owner);
    if (c) {
        struct kafka_session *session = c->session;
        if (query->err == 0) {
            drop_strangers(&session->identity, query);
            free(session->tenants);
            session->tenants = query->tenants;
            session->tenant_count = query->tenant_count;
            query->tenants = NULL;
            query->tenant_count = 0;
            session->tenants_known = true;
        }
        /* While the registry is away the tenants known so far stand. */
        session->asked_ms = kafka_now_ms(session);
        session->asking = false;
        if (!session->muted) /* else its timer does */
            kafka_resume(session);
    }
    registry_tenant_query_free(query);
}

int kafka_ask_tenants(struct kafka_session *session) {
    struct registry_tenant_query *query = calloc(1, sizeof(*query));
    if (!query)
        return DG_ERR_NO_MEMORY;
    query->mail.deliver = deliver_tenants;
    query->reply_to = &session->worker->worker->mailbox;
    query->owner = connection_id(session->connection);
    memcpy(query->tenant, session->identity.tenant, sizeof(query->tenant));
    session->asking = true;
    connection_pause(session->connection);
    registry_find_tenants(session->worker->registry, query);
    return KAFKA_WAITS;
}

void kafka_note_miss(struct kafka_session *session, int16_t error) {
    session->has_missed |= error == KAFKA_ERROR_UNKNOWN_TOPIC ||
                           error == KAFKA_ERROR_UNKNOWN_TOPIC_ID ||
                           error == KAFKA_ERROR_NOT_AUTHORIZED;
}

bool kafka_must_ask_again(struct kafka_session *session) {
    bool has_missed = session->has_missed;
    session->has_missed = false;
    return has_missed && kafka_now_ms(session) - session->asked_ms >= TENANTS_FRESH_MS;
}

/* ---- metadata ---- */

/* "host:port" or "[::1]:port" of the listener the client came through. */
void kafka_fill_broker(const struct kafka_session *session, struct kafka_broker *ret_broker) {
    const struct config *config = session->worker->worker->config;
    const char *text = session->connection->listener->tls ? config->kafka_tls_advertised
                                                          : config->kafka_advertised;
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : strlen(text);
    bool brackets = size >= 2 && text[0] == '[' && text[size - 1] == ']';
    *ret_broker = (struct kafka_broker){
        .id = KAFKA_NODE_ID,
        .host = slice_make(text + brackets, size - 2 * brackets),
        .port = colon ? atoi(colon + 1) : 0,
    };
}

static bool fill_partitions(struct kafka_call *call, uint32_t count, struct kafka_array *ret) {
    static int32_t node = KAFKA_NODE_ID;
    static const struct kafka_array only_node = {.items = &node, .count = 1};
    if (!kafka_take_items(call, ret, count, sizeof(struct kafka_metadata_partition)))
        return false;
    int32_t epoch = stream_epoch(call->session->worker->stream);
    struct kafka_metadata_partition *partitions = ret->items;
    for (uint32_t i = 0; i < count; i++)
        partitions[i] = (struct kafka_metadata_partition){.index = (int32_t)i,
                                                          .leader = KAFKA_NODE_ID,
                                                          .leader_epoch = epoch,
                                                          .replicas = only_node,
                                                          .in_sync = only_node};
    return true;
}

static bool fill_topic(struct kafka_call *call, const struct kafka_topic_ref *ref,
                       struct kafka_metadata_topic *ret_topic) {
    char *name = kafka_arena_take(&call->arena, KAFKA_TOPIC_NAME_SIZE);
    if (!name)
        return false;
    size_t size = kafka_topic_name(ref->tenant, ref->stream_id % STREAM_KINDS, name);
    *ret_topic = (struct kafka_metadata_topic){.name = slice_make(name, size),
                                               .operations = OPERATIONS_UNSET};
    kafka_topic_id(ref->stream_id, ret_topic->id);
    return fill_partitions(call, ref->tenant->partition_count, &ret_topic->partitions);
}

static bool fill_all_topics(struct kafka_call *call, struct kafka_array *ret) {
    const struct kafka_session *session = call->session;
    if (!kafka_take_items(call, ret, session->tenant_count * STREAM_KINDS,
                          sizeof(struct kafka_metadata_topic)))
        return false;
    struct kafka_metadata_topic *topics = ret->items;
    ret->count = 0;
    for (unsigned i = 0; i < session->tenant_count; i++) {
        for (const enum stream_kind *kind = kafka_topic_kinds; *kind != STREAM_KINDS; kind++) {
            struct kafka_topic_ref ref = {
                .tenant = &session->tenants[i],
                .stream_id = registry_stream(session->tenants[i].stream_id, *kind)};
            if (kafka_may_read(session, *kind) && !fill_topic(call, &ref, &topics[ret->count++]))
                return false;
        }
    }
    return true;
}

static bool fill_asked_topics(struct kafka_call *call, const struct kafka_array *asked,
                              struct kafka_array *ret) {
    if (!kafka_take_items(call, ret, asked->count, sizeof(struct kafka_metadata_topic)))
        return false;
    const struct kafka_metadata_request_topic *wanted = asked->items;
    struct kafka_metadata_topic *topics = ret->items;
    for (uint32_t i = 0; i < asked->count; i++) {
        bool by_id = call->header.version >= METADATA_FIRST_ID && !wanted[i].name.data;
        struct kafka_topic_ref ref;
        int16_t error = by_id ? kafka_topic_by_id(call->session, wanted[i].id, &ref)
                              : kafka_topic_by_name(call->session, wanted[i].name, &ref);
        if (error == 0 && !fill_topic(call, &ref, &topics[i]))
            return false;
        if (error == 0)
            continue;
        topics[i] = (struct kafka_metadata_topic){
            .error = error, .name = wanted[i].name, .operations = OPERATIONS_UNSET};
        if (by_id)
            memcpy(topics[i].id, wanted[i].id, KAFKA_UUID_SIZE);
    }
    return true;
}

int kafka_handle_metadata(struct kafka_call *call, const void *request) {
    const struct kafka_metadata_request *r = request;
    if (kafka_now_ms(call->session) - call->session->asked_ms >= TENANTS_FRESH_MS)
        return kafka_ask_tenants(call->session);
    bool all =
        r->topics.is_null || (r->topics.count == 0 && call->header.version < METADATA_FIRST_NULL);
    struct kafka_broker broker;
    kafka_fill_broker(call->session, &broker);
    struct kafka_metadata_response response = {
        .brokers = {.items = &broker, .count = 1},
        .cluster_id = slice_from_string(KAFKA_CLUSTER_ID),
        .controller = KAFKA_NODE_ID,
        .cluster_operations = OPERATIONS_UNSET,
    };
    bool filled = all ? fill_all_topics(call, &response.topics)
                      : fill_asked_topics(call, &r->topics, &response.topics);
    return filled ? kafka_answer(call, &response) : DG_ERR_LIMIT;
}

/* ---- FindCoordinator: every group's is here ---- */

enum { KEY_IS_A_GROUP = 0 };

static struct kafka_coordinator find_coordinator(const struct kafka_session *session,
                                                 struct slice key, int8_t key_type) {
    static const char no_transactions[] = "transactions are not offered: this is for reading";
    static const char other_role[] = "this key's roles do not use this group";
    struct kafka_broker broker;
    kafka_fill_broker(session, &broker);
    if (key_type != KEY_IS_A_GROUP)
        return (struct kafka_coordinator){.key = key,
                                          .node = -1,
                                          .port = -1,
                                          .error = KAFKA_ERROR_INVALID_REQUEST,
                                          .message = slice_from_string(no_transactions)};
    if (!kafka_may_use_group(session, key))
        return (struct kafka_coordinator){.key = key,
                                          .node = -1,
                                          .port = -1,
                                          .error = KAFKA_ERROR_GROUP_NOT_AUTHORIZED,
                                          .message = slice_from_string(other_role)};
    return (struct kafka_coordinator){
        .key = key, .node = broker.id, .host = broker.host, .port = broker.port};
}

int kafka_handle_coordinator(struct kafka_call *call, const void *request) {
    const struct kafka_find_coordinator_request *r = request;
    struct kafka_coordinator one = find_coordinator(call->session, r->key, r->key_type);
    struct kafka_find_coordinator_response response = {.error = one.error,
                                                       .message = one.message,
                                                       .node = one.node,
                                                       .host = one.host,
                                                       .port = one.port};
    if (!kafka_take_items(call, &response.coordinators, r->keys.count,
                          sizeof(struct kafka_coordinator)))
        return DG_ERR_LIMIT;
    const struct slice *keys = r->keys.items;
    struct kafka_coordinator *coordinators = response.coordinators.items;
    for (uint32_t i = 0; i < r->keys.count; i++)
        coordinators[i] = find_coordinator(call->session, keys[i], r->key_type);
    return kafka_answer(call, &response);
}
