#include "provisioning/resource.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "provisioning/cursor.h"
#include "provisioning/etag.h"
#include "provisioning/json.h"

enum { PATCH_ATTEMPTS_MAX = 5, PAGE_BYTES_MAX = LIMIT_OUTPUT_BYTES / 2 };

/* Columns of get, put, update and remove; then those of list. */
enum { COLUMN_OUTCOME, COLUMN_VERSION, COLUMN_BODY };
enum { COLUMN_KEY, COLUMN_ITEM, COLUMN_CANDIDATES };

/* ---- outcomes
 * ------------------------------------------------------------------------------------ */

/* What a statement says it did, and the answer to that. */
static const struct outcome {
    const char *word;
    unsigned status; /* 0: a problem */
    int err;
    const char *detail;
} outcomes[] = {
    {"found", 200, 0, NULL},
    {"created", 201, 0, NULL},
    {"replaced", 200, 0, NULL},
    {"deleted", 204, 0, NULL},
    {"precondition", 0, DG_ERR_PRECONDITION,
     "the version is another one, or does not fit If-Match or If-None-Match"},
    {"exists", 0, DG_ERR_EXISTS, "the name is taken"},
    {"limit", 0, DG_ERR_INVALID, "there are as many credentials as a device may have; delete one"},
    {"full", 0, DG_ERR_INVALID,
     "there are as many certificate authorities as a tenant may have; delete one"},
    {"proof", 0, DG_ERR_INVALID,
     "/proof: must be a certificate that this authority signed for the common name that GET of the "
     "tenant shows as registration_code"},
    {"crowded", 0, DG_ERR_INVALID, "there are as many API keys as a tenant may have; delete one"},
    {"large_desired", 0, DG_ERR_STATE_SIZE,
     "/desired: would have more than 32 KiB as compact JSON"},
    {"large_tags", 0, DG_ERR_STATE_SIZE, "/tags: would have more than 8 KiB as compact JSON"},
    {"policies", 0, DG_ERR_INVALID,
     "there are as many access policies as a tenant may have; delete one"},
    {"another", 0, DG_ERR_EXISTS, "another job has this name"},
    {"many", 0, DG_ERR_INVALID, "/query: more devices are found than one job may have"},
    {"jobs", 0, DG_ERR_QUOTA,
     "there are as many jobs, or devices in them, as a tenant may have; wait until some have ended,"
     " or delete some that have"},
    {"again", 0, DG_ERR_BUSY, "it is being made by somebody else; try again"},
    {"over", 0, DG_ERR_IN_USE, "the job has come to its end: there is nothing to abort"},
    {"unfinished", 0, DG_ERR_IN_USE,
     "the job goes on, or some of its commands are not over yet; abort it, or wait"},
    {"shrink", 0, DG_ERR_INVALID, "/partition_count: may grow, not shrink"},
};

static const struct outcome *find_outcome(const struct registry_request *result) {
    const char *word = registry_value(result, 0, COLUMN_OUTCOME);
    for (unsigned i = 0; word && i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
        if (strcmp(outcomes[i].word, word) == 0)
            return &outcomes[i];
    return NULL;
}

static bool outcome_is(const struct registry_request *result, const char *word) {
    const char *said = result->row_count ? registry_value(result, 0, COLUMN_OUTCOME) : NULL;
    return said && strcmp(said, word) == 0;
}

void resource_answer_missing(struct provisioning_call *call) {
    call_problem(call, DG_ERR_NOT_FOUND, "no such %s, or nothing it could belong to",
                 call->route->resource->noun);
}

void resource_add_location(struct provisioning_call *call) {
    char location[LIMIT_HTTP_TARGET_BYTES + 128];
    struct slice target = http_request_target(call->exchange);
    const uint8_t *query = target.size ? memchr(target.data, '?', target.size) : NULL;
    size_t size = query ? (size_t)(query - target.data) : target.size;
    snprintf(location, sizeof(location), "%.*s%s%s", (int)size, (const char *)target.data,
             call->name ? "/" : "", call->name ? call->name : "");
    http_add_header(call->exchange, "Location", location);
}

void resource_answer_with(struct provisioning_call *call, unsigned status, const char *version,
                          const char *body, const char *members) {
    size_t size = strlen(body), room = size + strlen(members) + 3;
    char *text = malloc(room);
    if (!text) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    int written = snprintf(text, room, "%.*s, %s}", (int)size - 1, body, members);
    call_answer(call, status, version, slice_make(text, (size_t)written));
    explicit_bzero(text, room);
    free(text);
}

void resource_answer(struct provisioning_call *call, struct registry_request *result) {
    const struct outcome *outcome = result->row_count ? find_outcome(result) : NULL;
    if (!outcome && result->row_count) {
        call_fail(call, DG_ERR_INTERNAL, NULL);
        return;
    }
    if (!outcome) {
        resource_answer_missing(call);
        return;
    }
    if (http_request_method(call->exchange) == HTTP_METHOD_POST &&
        outcome->err == DG_ERR_PRECONDITION) {
        call_fail(call, DG_ERR_EXISTS, NULL); /* the client set no condition: it chose a name */
        return;
    }
    if (outcome->status == 0) {
        call_problem(call, outcome->err, "%s", outcome->detail);
        return;
    }
    const char *body = registry_value(result, 0, COLUMN_BODY);
    const char *version = outcome->status == 204 ? NULL : registry_value(result, 0, COLUMN_VERSION);
    if (outcome->status == 201)
        resource_add_location(call);
    if (call->secret && body)
        resource_answer_with(call, outcome->status, version, body, call->secret);
    else
        call_answer(call, outcome->status, version, slice_make(body, body ? strlen(body) : 0));
}

/* ---- requests
 * ------------------------------------------------------------------------------------ */

static unsigned path_count(const struct provisioning_resource *resource) {
    unsigned count = 0;
    while (count < RESOURCE_PATH_MAX && resource->path[count].parameter)
        count++;
    return count;
}

static struct slice last_parameter(struct provisioning_call *call) {
    const struct provisioning_resource *resource = call->route->resource;
    return http_path_parameter(call->exchange, resource->path[path_count(resource) - 1].parameter);
}

/* Appends the path's parameters but the last; one that the route's path does not have is NULL. */
static int bind_collection(struct provisioning_call *call, struct registry_request *request) {
    const struct provisioning_resource *resource = call->route->resource;
    unsigned count = path_count(resource) - 1;
    int err = 0;
    for (unsigned i = 0; err == 0 && i < count; i++) {
        struct slice value = http_path_parameter(call->exchange, resource->path[i].parameter);
        err = registry_request_add(request, value.size ? value : slice_make(NULL, 0));
    }
    return err;
}

/* Frees the request and answers when something failed before it was sent. */
static struct registry_request *sound_request(struct provisioning_call *call,
                                              struct registry_request *request, int err) {
    if (request && err == 0)
        return request;
    registry_request_free(request);
    call_fail(call, request ? err : DG_ERR_NO_MEMORY, NULL);
    return NULL;
}

struct registry_request *resource_request_named(struct provisioning_call *call,
                                                enum registry_statement statement,
                                                struct slice name) {
    struct registry_request *request = registry_request_new(statement);
    int err = request ? bind_collection(call, request) : 0;
    if (request && err == 0 && name.data)
        err = registry_request_add(request, name);
    return sound_request(call, request, err);
}

/* True when every name in the path is one that can exist. Answers otherwise. */
static bool path_is_valid(struct provisioning_call *call) {
    const struct provisioning_resource *resource = call->route->resource;
    unsigned count = path_count(resource);
    for (unsigned i = 0; i < count; i++) {
        struct slice value = http_path_parameter(call->exchange, resource->path[i].parameter);
        bool last = i == count - 1;
        /* A platform key's path has no tenant; auth.c has refused an empty one elsewhere. */
        if ((value.size == 0 && !last) || name_is_valid(resource->path[i].kind, value))
            continue;
        if (last && http_request_method(call->exchange) == HTTP_METHOD_PUT)
            call_problem(call, DG_ERR_INVALID, "the name of a %s in the path must be %s",
                         resource->noun, name_rule(resource->path[i].kind));
        else
            resource_answer_missing(call);
        return false;
    }
    return true;
}

struct registry_request *resource_request(struct provisioning_call *call,
                                          enum registry_statement statement) {
    if (!path_is_valid(call))
        return NULL;
    return resource_request_named(call, statement, last_parameter(call));
}

/* An array of versions, "{17,18}". */
int resource_bind_precondition(struct registry_request *request,
                               const struct etag_condition *precondition) {
    char text[ETAG_LIST_MAX * 21 + 2];
    if (precondition->count == 0)
        return registry_request_add(request, slice_make(NULL, 0));
    size_t size = 0;
    for (unsigned i = 0; i < precondition->count; i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%c%" PRId64, i ? ',' : '{',
                                 precondition->versions[i]);
    text[size++] = '}';
    return registry_request_add(request, slice_make(text, size));
}

/* ---- get
 * ----------------------------------------------------------------------------------------- */

bool resource_answer_unchanged(struct provisioning_call *call, struct registry_request *result) {
    struct slice list;
    const char *version = result->row_count ? registry_value(result, 0, COLUMN_VERSION) : NULL;
    if (!version || !http_request_header(call->exchange, "If-None-Match", &list) ||
        !etag_matches(list, strtoll(version, NULL, 10)))
        return false;
    call_answer(call, 304, version, slice_make(NULL, 0));
    return true;
}

static void then_get(struct provisioning_call *call, struct registry_request *result) {
    if (!resource_answer_unchanged(call, result))
        resource_answer(call, result);
}

void resource_get(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, call->route->resource->get);
    if (request)
        call_execute(call, request, then_get);
}

/* ---- put and patch
 * ------------------------------------------------------------------------------- */

/* Checks the object's members; answers and returns false when they are not acceptable. */
static bool object_is_valid(struct provisioning_call *call, const json_t *object) {
    const struct provisioning_resource *resource = call->route->resource;
    char detail[CALL_DETAIL_SIZE] = "";
    int err = members_check(resource->members, object, detail, sizeof(detail));
    if (err == 0 && resource->check)
        err = resource->check(object, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    return err == 0;
}

/* Sends put or update with a checked object. */
static void write_object(struct provisioning_call *call, enum registry_statement statement,
                         const json_t *object, const struct etag_condition *precondition,
                         void (*then)(struct provisioning_call *, struct registry_request *)) {
    const struct provisioning_resource *resource = call->route->resource;
    char detail[CALL_DETAIL_SIZE] = "";
    struct registry_request *request = resource_request(call, statement);
    if (!request)
        return;
    int err = members_bind(resource->members, object, request);
    if (err == 0)
        err = resource_bind_precondition(request, precondition);
    if (err == 0 && resource->bind_extra)
        err = resource->bind_extra(call, object, request, detail, sizeof(detail));
    if (err < 0 && detail[0]) {
        registry_request_free(request);
        call_problem(call, err, "%s", detail);
        return;
    }
    request = sound_request(call, request, err);
    if (request)
        call_execute(call, request, then);
}

void resource_put(struct provisioning_call *call) {
    if (call_read_precondition(call) && call_read_body(call) && object_is_valid(call, call->body))
        write_object(call, call->route->resource->put, call->body, &call->precondition,
                     resource_answer);
}

static void read_for_patch(struct provisioning_call *call);

static bool names_version(const struct provisioning_call *call) {
    return call->precondition.count > 0 && !etag_condition_has(&call->precondition, ETAG_EXISTS);
}

/* Somebody else was faster: begin again, unless the client named the version. */
static void then_patched(struct provisioning_call *call, struct registry_request *result) {
    if (!outcome_is(result, "precondition") || names_version(call))
        resource_answer(call, result);
    else if (++call->attempts < PATCH_ATTEMPTS_MAX)
        read_for_patch(call);
    else
        call_fail(call, DG_ERR_BUSY, "it keeps changing; try again");
}

/* The stored members a client may write, with the patch applied. NULL: out of memory. */
static json_t *patched_object(const struct provisioning_call *call, const char *stored_text) {
    json_t *stored = json_loads(stored_text, 0, NULL);
    json_t *writable =
        stored ? members_select_writable(call->route->resource->members, stored) : NULL;
    json_t *object = writable ? json_merge_patch(writable, call->body) : NULL;
    json_decref(stored);
    json_decref(writable);
    return object;
}

static void then_read_for_patch(struct provisioning_call *call, struct registry_request *result) {
    if (!outcome_is(result, "found")) {
        resource_answer(call, result);
        return;
    }
    int64_t version = strtoll(registry_value(result, 0, COLUMN_VERSION), NULL, 10);
    struct etag_condition read = etag_condition_of(version);
    if (names_version(call) && !etag_condition_has(&call->precondition, version)) {
        call_problem(call, DG_ERR_PRECONDITION, "the version is %" PRId64, version);
        return;
    }
    json_t *object = patched_object(call, registry_value(result, 0, COLUMN_BODY));
    if (!object)
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    else if (object_is_valid(call, object))
        write_object(call, call->route->resource->update, object, &read, then_patched);
    json_decref(object);
}

static void read_for_patch(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, call->route->resource->get);
    if (request)
        call_execute(call, request, then_read_for_patch);
}

/* JSON merge patch (RFC 7396): read, merge, write under the version that was read. */
void resource_patch(struct provisioning_call *call) {
    char detail[CALL_DETAIL_SIZE] = "";
    if (!call_read_precondition(call) || !call_read_body(call))
        return;
    const struct member *members = call->route->resource->members;
    int err = members_check_patch(members, call->body, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    else
        read_for_patch(call);
}

/* ---- delete
 * -------------------------------------------------------------------------------------- */

void resource_delete(struct provisioning_call *call) {
    if (!call_read_precondition(call))
        return;
    struct registry_request *request = resource_request(call, call->route->resource->remove);
    int err = request ? resource_bind_precondition(request, &call->precondition) : 0;
    if (request)
        request = sound_request(call, request, err);
    if (request)
        call_execute(call, request, resource_answer);
}

/* ---- list
 * ---------------------------------------------------------------------------------------- */

static int bind_number(struct registry_request *request, unsigned number) {
    char text[16];
    snprintf(text, sizeof(text), "%u", number);
    return registry_request_add(request, slice_from_string(text));
}

static int bind_optional(struct registry_request *request, const char *text) {
    return registry_request_add(request,
                                text && *text ? slice_from_string(text) : slice_make(NULL, 0));
}

static int bind_filters(struct registry_request *request, const struct query *query,
                        unsigned filters) {
    char *tags = query->tags ? json_print_exact(query->tags) : NULL;
    int err = 0;
    if (filters & QUERY_REGISTERED)
        err = bind_optional(request, query->enabled);
    if (err == 0 && filters & QUERY_REGISTERED)
        err = bind_optional(request, tags);
    if (err == 0 && filters & QUERY_STATE)
        err = bind_optional(request, query->state);
    free(tags);
    return err;
}

static int bind_page(struct provisioning_call *call, struct registry_request *request,
                     const struct query *query) {
    int err = 0;
    if (call->route->scope == PROVISIONING_SCOPE_OWN)
        err = bind_optional(request, call->principal.tenant);
    if (err == 0)
        err = bind_optional(request, query->cursor);
    if (err == 0)
        err = bind_number(request, query->limit);
    if (err == 0)
        err = bind_number(request, PAGE_BYTES_MAX);
    return err == 0 ? bind_filters(request, query, call->route->resource->filters) : err;
}

static int append_text(struct buffer *out, const char *text) {
    return buffer_append(out, text, strlen(text), LIMIT_OUTPUT_BYTES);
}

/* {"items":[...],"next_cursor":...}; the statement gives one page, and how many rows a page without
 * limits of size would have had. */
static int print_page(const struct registry_request *result, struct buffer *out) {
    const char *key = NULL;
    int64_t candidates = 0;
    int err = append_text(out, "{\"items\":[");
    unsigned count = result->row_count;
    if (count > 0 && registry_value(result, 0, COLUMN_KEY))
        candidates = strtoll(registry_value(result, 0, COLUMN_CANDIDATES), NULL, 10);
    else
        count = 0;
    for (unsigned row = 0; err == 0 && row < count; row++) {
        key = registry_value(result, row, COLUMN_KEY);
        if (row > 0)
            err = append_text(out, ",\n");
        if (err == 0)
            err = append_text(out, registry_value(result, row, COLUMN_ITEM));
    }
    char cursor[CURSOR_TEXT_SIZE + 2] = "null";
    if (candidates > count) {
        cursor[0] = '"';
        cursor_encode(slice_from_string(key), cursor + 1);
        strcat(cursor, "\"");
    }
    if (err == 0)
        err = append_text(out, "],\"next_cursor\":");
    if (err == 0)
        err = append_text(out, cursor);
    return err == 0 ? append_text(out, "}") : err;
}

static void then_list(struct provisioning_call *call, struct registry_request *result) {
    struct buffer out = {0};
    if (result->row_count == 0) {
        call_problem(call, DG_ERR_NOT_FOUND, "nothing here that a %s could belong to",
                     call->route->resource->noun);
        return;
    }
    int err = print_page(result, &out);
    if (err < 0)
        call_fail(call, err, NULL);
    else
        call_answer(call, 200, NULL, buffer_slice(&out));
    buffer_free(&out);
}

void resource_list(struct provisioning_call *call) {
    const struct provisioning_resource *resource = call->route->resource;
    char detail[CALL_DETAIL_SIZE] = "";
    struct query query;
    int err = query_parse(http_request_target(call->exchange), resource->filters, &query, detail,
                          sizeof(detail));
    if (err < 0) {
        call_problem(call, err, "%s", detail);
        return;
    }
    struct registry_request *request = registry_request_new(resource->list);
    err = request ? bind_collection(call, request) : 0;
    if (request && err == 0)
        err = bind_page(call, request, &query);
    query_free(&query);
    request = sound_request(call, request, err);
    if (request)
        call_execute(call, request, then_list);
}
