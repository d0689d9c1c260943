/*
 * Consumer groups over HTTP: who is in one, how far it is behind, and the end of one. Their
 * coordinators are asked as Kafka clients ask them; where partitions stand the stream says itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/reader.h"
#include "common/utf8.h"
#include "provisioning/json.h"
#include "provisioning/query.h"
#include "provisioning/stream_call.h"

enum { TEXT_BYTES_MAX = 256, MEMBERS_SHOWN = 500 };

static struct slice path_group(struct provisioning_call *call) {
    return http_path_parameter(call->exchange, "group");
}

static json_t *json_from_distance(int64_t distance) {
    return distance == GROUP_LAG_NO_DISTANCE ? json_null() : json_from_offset(distance);
}

/* ---- the list ---- */

/* A consumer's key sees the groups that it may use, who may read the registry all of them. Names
 * that are not UTF-8 cannot be asked for either; no stock client has them. */
static bool is_listed(const struct group_item *item, uint32_t roles, const char *cursor) {
    if (!(roles & PROVISIONING_ROLES_READ) && !kafka_roles_may_use_group(roles, item->id))
        return false;
    size_t size = strlen(cursor), common = size < item->id.size ? size : item->id.size;
    int order = memcmp(item->id.data, cursor, common);
    return utf8_is_valid(item->id.data, item->id.size) &&
           (order > 0 || (order == 0 && item->id.size > size));
}

static int compare_names(const void *a, const void *b) {
    const struct group_item *const *x = a, *const *y = b;
    size_t common = (*x)->id.size < (*y)->id.size ? (*x)->id.size : (*y)->id.size;
    int order = memcmp((*x)->id.data, (*y)->id.data, common);
    if (order != 0)
        return order;
    return (*x)->id.size < (*y)->id.size ? -1 : (*x)->id.size > (*y)->id.size;
}

/* The groups behind the cursor, from all answers, in order. NULL: out of memory. */
static const struct group_item **collect_groups(const struct stream_call *s, uint32_t roles,
                                                const char *cursor, uint32_t *ret_count) {
    uint32_t room = 1, count = 0;
    for (unsigned i = 0; i < s->answer_count; i++)
        room += s->answers[i]->item_count;
    const struct group_item **items = calloc(room, sizeof(const struct group_item *));
    for (unsigned i = 0; items && i < s->answer_count; i++)
        for (uint32_t g = 0; g < s->answers[i]->item_count; g++)
            if (is_listed(&s->answers[i]->items[g], roles, cursor))
                items[count++] = &s->answers[i]->items[g];
    if (items)
        qsort(items, count, sizeof(*items), compare_names);
    *ret_count = count;
    return items;
}

static json_t *describe_item(const struct group_item *item) {
    return json_pack("{s:o, s:s, s:i, s:i, s:o, s:I, s:o, s:i}", "group",
                     json_from_text(item->id, LIMIT_KAFKA_GROUP_NAME_BYTES), "state",
                     group_state_names[item->state], "member_count", (int)item->member_count,
                     "committed_partitions", (int)item->lag.partitions, "lag",
                     json_from_offset(item->lag.records), "lag_seconds",
                     (json_int_t)item->lag.behind_ms / 1000, "log_start_distance",
                     json_from_distance(item->lag.distance), "overtaken_partitions",
                     (int)item->lag.overtaken);
}

static void answer_list(struct provisioning_call *call, const struct stream_call *s,
                        const struct query *query) {
    char cursor[CURSOR_TEXT_SIZE];
    uint32_t count;
    const struct group_item **groups =
        collect_groups(s, call->principal.roles, query->cursor, &count);
    uint32_t end = count < query->limit ? count : query->limit;
    json_t *items = groups ? json_array() : NULL;
    for (uint32_t i = 0; items && i < end; i++)
        items = json_append(items, describe_item(groups[i]));
    if (end < count)
        cursor_encode(groups[end - 1]->id, cursor);
    free(groups);
    stream_call_answer_page(call, items, end < count ? json_string(cursor) : json_null());
}

static void take_lists(struct provisioning_call *call, struct stream_call *s) {
    char detail[CALL_DETAIL_SIZE] = "";
    struct query query;
    for (unsigned i = 0; i < s->answer_count; i++) {
        if (s->answers[i]->error == 0)
            continue;
        stream_call_fail(call, s->answers[i]->error);
        return;
    }
    int err =
        query_parse(http_request_target(call->exchange), false, &query, detail, sizeof(detail));
    if (err < 0) {
        call_problem(call, err, "%s", detail);
        return;
    }
    answer_list(call, s, &query);
    query_free(&query);
}

/* Every worker has some of the tenant's groups. */
static void ask_lists(struct provisioning_call *call, struct stream_call *s) {
    struct group_request *questions[LIMIT_WORKERS];
    unsigned count = groups_worker_count(call->worker);
    for (unsigned i = 0; i < count; i++) {
        questions[i] = stream_call_question(s, GROUP_LIST, slice_from_string(""));
        if (questions[i])
            questions[i]->tag = i;
    }
    stream_call_ask(call, s, questions, count, take_lists);
}

void group_list_run(struct provisioning_call *call) {
    stream_call_begin(call, ask_lists);
}

/* ---- one group: a row for each partition that it has committed or is assigned ---- */

struct row {
    enum stream_kind kind;
    uint32_t partition;
    const struct group_offset *committed;
    const struct group_item *member; /* whose it is now */
};

struct table {
    const struct registry_tenant *tenant;
    struct row *rows; /* by kind, then partition */
    uint32_t row_count;
};

/* A row for each partition there is. False: out of memory. */
static bool open_table(struct table *table, const struct registry_tenant *tenant) {
    uint32_t count = tenant->partition_count;
    table->tenant = tenant;
    table->row_count = (STREAM_QUARANTINE + 1) * count;
    table->rows = calloc(table->row_count, sizeof(*table->rows));
    for (uint32_t i = 0; table->rows && i < table->row_count; i++)
        table->rows[i] = (struct row){.kind = i / count, .partition = i % count};
    return table->rows;
}

static struct row *find_row(struct table *table, unsigned kind, uint32_t partition) {
    uint32_t count = table->tenant->partition_count;
    return kind <= STREAM_QUARANTINE && partition < count ? &table->rows[kind * count + partition]
                                                          : NULL;
}

/* Of streams that are not the tenant's (any more) nothing is told. */
static void put_offsets(struct table *table, const struct group_request *answer) {
    for (uint32_t i = 0; i < answer->offset_count; i++) {
        const struct group_offset *offset = &answer->offsets[i];
        bool is_own = offset->stream_id / STREAM_KINDS == (uint64_t)table->tenant->stream_id;
        struct row *row =
            is_own ? find_row(table, offset->stream_id % STREAM_KINDS, offset->partition) : NULL;
        if (row)
            row->committed = offset;
    }
}

/* A consumer's assignment: version, then topics with their partitions. It is the leader's word: not
 * trusted. */
static void put_assignment(struct table *table, const struct group_item *member) {
    struct reader r = reader_make(member->assignment.data, member->assignment.size);
    reader_u16(&r);
    for (uint32_t topics = reader_u32(&r); topics > 0 && !r.failed; topics--) {
        struct slice topic = reader_slice(&r, reader_u16(&r));
        enum stream_kind kind = r.failed ? STREAM_KINDS : stream_kind_find(table->tenant, topic);
        for (uint32_t partitions = reader_u32(&r); partitions > 0 && !r.failed; partitions--) {
            uint32_t partition = reader_u32(&r);
            struct row *row = r.failed ? NULL : find_row(table, kind, partition);
            if (row)
                row->member = member;
        }
    }
}

/* Rows of nothing go. */
static void close_up(struct table *table) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < table->row_count; i++)
        if (table->rows[i].committed || table->rows[i].member)
            table->rows[kept++] = table->rows[i];
    table->row_count = kept;
}

static struct group_bounds row_bounds(struct stream *stream, const struct table *table,
                                      const struct row *row) {
    struct stream_offsets offsets;
    stream_offsets(stream, registry_stream(table->tenant->stream_id, row->kind), row->partition,
                   &offsets);
    return (struct group_bounds){offsets.log_start, offsets.durable_end};
}

static json_t *describe_row(struct stream *stream, const struct table *table,
                            const struct row *row) {
    char name[KAFKA_TOPIC_NAME_SIZE];
    struct group_bounds bounds = row_bounds(stream, table, row);
    int64_t committed = row->committed ? row->committed->offset : 0;
    struct group_lag lag = group_lag_of(committed, &bounds);
    bool is_known = row->committed;
    kafka_topic_name(table->tenant, row->kind, name);
    return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "stream", name, "partition",
                     (int)row->partition, "committed_offset",
                     is_known ? json_from_offset(committed) : json_null(), "log_start_offset",
                     json_from_offset(bounds.log_start), "end_offset", json_from_offset(bounds.end),
                     "lag", is_known ? json_from_offset(lag.records) : json_null(),
                     "log_start_distance",
                     is_known ? json_from_offset(committed - bounds.log_start) : json_null(),
                     "overtaken", is_known && lag.overtaken > 0, "member_id",
                     row->member ? json_from_text(row->member->id, TEXT_BYTES_MAX) : json_null());
}

static json_t *describe_members(const struct group_request *described) {
    json_t *members = json_array();
    for (uint32_t i = 0; members && i < described->item_count && i < MEMBERS_SHOWN; i++) {
        const struct group_item *item = &described->items[i];
        bool has_slash = item->client_host.size > 0 && item->client_host.data[0] == '/';
        members = json_append(
            members,
            json_pack("{s:o, s:o, s:o, s:o}", "member_id", json_from_text(item->id, TEXT_BYTES_MAX),
                      "instance_id", json_from_text(item->instance, TEXT_BYTES_MAX), "client_id",
                      json_from_text(item->client_id, TEXT_BYTES_MAX), "client_host",
                      json_from_text(slice_skip(item->client_host, has_slash), TEXT_BYTES_MAX)));
    }
    return members;
}

static json_t *describe_group(struct provisioning_call *call, const struct table *table,
                              const struct group_request *described, uint32_t first, uint32_t end) {
    struct stream *stream = stream_of(call);
    struct group_lag sum = group_lag_none();
    json_t *partitions = json_array();
    for (uint32_t i = 0; i < table->row_count; i++) {
        const struct row *row = &table->rows[i];
        struct group_bounds bounds = row_bounds(stream, table, row);
        struct group_lag lag = group_lag_of(row->committed ? row->committed->offset : 0, &bounds);
        if (row->committed)
            group_lag_add(&sum, &lag);
        if (i >= first && i < end)
            partitions = json_append(partitions, describe_row(stream, table, row));
    }
    return json_pack(
        "{s:o, s:s, s:o, s:o, s:i, s:o, s:i, s:o, s:I, s:o, s:i, s:o, s:o}", "group",
        json_from_text(path_group(call), LIMIT_KAFKA_GROUP_NAME_BYTES), "state",
        group_state_names[described->state], "protocol_type",
        json_from_text(described->protocol_type, TEXT_BYTES_MAX), "protocol",
        json_from_text(described->protocol, TEXT_BYTES_MAX), "member_count",
        (int)described->item_count, "members", describe_members(described), "committed_partitions",
        (int)sum.partitions, "lag", json_from_offset(sum.records), "lag_seconds",
        (json_int_t)described->lag.behind_ms / 1000, "log_start_distance",
        json_from_distance(sum.distance), "overtaken_partitions", (int)sum.overtaken, "partitions",
        partitions, "next_cursor", stream_call_cursor(end, table->row_count));
}

static void answer_group(struct provisioning_call *call, struct table *table,
                         const struct group_request *described,
                         const struct group_request *offsets) {
    uint32_t first, end;
    put_offsets(table, offsets);
    if (slice_equals_string(described->protocol_type, "consumer"))
        for (uint32_t i = 0; i < described->item_count; i++)
            put_assignment(table, &described->items[i]);
    close_up(table);
    if (stream_call_page(call, table->row_count, &first, &end))
        stream_call_answer(call, describe_group(call, table, described, first, end));
}

enum { DESCRIBED, OFFSETS, GROUP_QUESTIONS };

static void take_group(struct provisioning_call *call, struct stream_call *s) {
    const struct group_request *described = s->answers[DESCRIBED], *offsets = s->answers[OFFSETS];
    struct table table;
    if (described->error != 0 || offsets->error != 0) {
        stream_call_fail(call, described->error ? described->error : offsets->error);
    } else if (described->state == GROUP_DEAD) {
        stream_call_missing(call);
    } else if (!open_table(&table, &s->tenant)) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    } else {
        struct row *rows = table.rows;
        answer_group(call, &table, described, offsets);
        free(rows);
    }
}

static void ask_group(struct provisioning_call *call, struct stream_call *s) {
    struct group_request *questions[GROUP_QUESTIONS] = {
        [DESCRIBED] = stream_call_question(s, GROUP_DESCRIBE, path_group(call)),
        [OFFSETS] = stream_call_question(s, GROUP_READ_OFFSETS, path_group(call)),
    };
    if (questions[OFFSETS])
        questions[OFFSETS]->wants_all_offsets = true;
    stream_call_ask(call, s, questions, GROUP_QUESTIONS, take_group);
}

void group_get(struct provisioning_call *call) {
    if (call->principal.roles & PROVISIONING_ROLES_READ || stream_call_may_use_group(call))
        stream_call_begin(call, ask_group);
}

/* ---- the end of one ---- */

static void take_deleted(struct provisioning_call *call, struct stream_call *s) {
    if (s->answers[0]->error != 0)
        stream_call_fail(call, s->answers[0]->error);
    else
        call_answer(call, 204, NULL, slice_make(NULL, 0));
}

static void ask_delete(struct provisioning_call *call, struct stream_call *s) {
    struct group_request *question = stream_call_question(s, GROUP_DELETE, path_group(call));
    stream_call_ask(call, s, &question, 1, take_deleted);
}

void group_delete_run(struct provisioning_call *call) {
    if (stream_call_may_use_group(call))
        stream_call_begin(call, ask_delete);
}
