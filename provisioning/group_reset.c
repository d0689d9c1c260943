/*
 * Sets a group's committed offsets: to an end of the stream, an offset, or a time. The group must
 * have no members, which the coordinator checks once more when it takes the offsets; they are
 * durable before the answer.
 *
 * A look-up by time may have to wait for the disk. Then the reset waits, and is told when to try
 * again; the look-ups that were done stand.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/limits.h"
#include "provisioning/json.h"
#include "provisioning/members.h"
#include "provisioning/stream_call.h"
#include "provisioning/worker.h"

enum reset_goal { RESET_EARLIEST, RESET_LATEST, RESET_OFFSET, RESET_TIME };

enum { NOT_COMMITTED = -1, TO_BYTES_MAX = 64 };

struct group_reset {
    struct provisioning_call *call;
    struct group_reset *next, **link; /* of the worker's cold ones; link NULL: it does not wait */
    enum stream_kind kind;
    uint64_t stream_id;
    enum reset_goal goal;
    int64_t value; /* an offset, or milliseconds since 1970 */
    bool is_dry_run;
    uint32_t first, count, done; /* partitions; of those with a new offset */
    struct place {
        int64_t before, after;
    } places[];
};

static const struct member members[] = {
    {"stream", MEMBER_TEXT, true, 1, KAFKA_TOPIC_NAME_SIZE, NULL},
    {"to", MEMBER_TEXT, true, 1, TO_BYTES_MAX, NULL},
    {"partition", MEMBER_INTEGER, false, 0, LIMIT_PARTITIONS_PER_STREAM - 1, NULL},
    {"dry_run", MEMBER_BOOLEAN, false, 0, 0, "false"},
    {NULL},
};

static struct slice path_group(struct provisioning_call *call) {
    return http_path_parameter(call->exchange, "group");
}

static void stop_waiting(struct group_reset *reset) {
    if (!reset->link)
        return;
    *reset->link = reset->next;
    if (reset->next)
        reset->next->link = reset->link;
    reset->link = NULL;
}

static void wait_for_disk(struct group_reset *reset) {
    struct group_reset **all = &provisioning_state(reset->call->worker)->cold_resets;
    reset->next = *all;
    reset->link = all;
    if (reset->next)
        reset->next->link = &reset->next;
    *all = reset;
}

static void free_reset(void *own) {
    stop_waiting(own);
    free(own);
}

/* ---- what is asked for ---- */

/* "earliest", "latest", digits or a time. */
static bool parse_goal(const char *text, struct group_reset *reset) {
    char *end;
    if (strcmp(text, "earliest") == 0 || strcmp(text, "latest") == 0) {
        reset->goal = text[0] == 'e' ? RESET_EARLIEST : RESET_LATEST;
        return true;
    }
    reset->goal = RESET_TIME;
    if (clock_parse_rfc3339(text, strlen(text), &reset->value) == 0)
        return true;
    reset->goal = RESET_OFFSET;
    reset->value = strtoll(text, &end, 10);
    return strspn(text, "0123456789") == strlen(text) && *end == '\0' &&
           reset->value < INT64_MAX; /* what overflows is this */
}

/* The reset that the body describes; NULL after answering with a problem. */
static struct group_reset *make_reset(struct provisioning_call *call, const struct stream_call *s) {
    const char *stream = json_string_value(json_object_get(call->body, "stream"));
    const json_t *partition = json_object_get(call->body, "partition");
    enum stream_kind kind = stream_kind_find(&s->tenant, slice_from_string(stream));
    struct group_reset wanted = {.call = call, .kind = kind};
    uint32_t count = s->tenant.partition_count;
    wanted.first = partition ? (uint32_t)json_integer_value(partition) : 0;
    wanted.count = partition ? 1 : count;
    wanted.is_dry_run = json_is_true(json_object_get(call->body, "dry_run"));
    if (kind == STREAM_KINDS) {
        call_problem(call, DG_ERR_INVALID, "/stream: there is no stream '%s'", stream);
    } else if (!kafka_roles_may_read(call->principal.roles, kind)) {
        /* Who may not read a stream may not move in it either. */
        call_problem(call, DG_ERR_NOT_AUTHORIZED, "this key may not read the stream '%s'", stream);
    } else if (wanted.first >= count) {
        call_problem(call, DG_ERR_INVALID, "/partition: the stream has %" PRIu32 " partitions",
                     count);
    } else if (!parse_goal(json_string_value(json_object_get(call->body, "to")), &wanted)) {
        call_problem(call, DG_ERR_INVALID,
                     "/to: must be earliest, latest, an offset in digits or an RFC 3339 time");
    } else {
        wanted.stream_id = registry_stream(s->tenant.stream_id, kind);
        struct group_reset *reset = calloc(1, sizeof(*reset) + wanted.count * sizeof(struct place));
        if (reset)
            *reset = wanted;
        else
            call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return reset;
    }
    return NULL;
}

/* ---- the answer ---- */

static json_t *describe_place(const struct group_reset *reset, uint32_t i) {
    const struct place *place = &reset->places[i];
    return json_pack("{s:i, s:o, s:o}", "partition", (int)(reset->first + i), "offset_before",
                     place->before == NOT_COMMITTED ? json_null() : json_from_offset(place->before),
                     "offset", json_from_offset(place->after));
}

static void answer(struct provisioning_call *call, const struct stream_call *s,
                   const struct group_reset *reset) {
    char name[KAFKA_TOPIC_NAME_SIZE];
    json_t *partitions = json_array();
    kafka_topic_name(&s->tenant, reset->kind, name);
    for (uint32_t i = 0; i < reset->count; i++)
        partitions = json_append(partitions, describe_place(reset, i));
    stream_call_answer(call, json_pack("{s:o, s:s, s:b, s:o}", "group",
                                       json_from_text(path_group(call), LIMIT_HTTP_TARGET_BYTES),
                                       "stream", name, "dry_run", (int)reset->is_dry_run,
                                       "partitions", partitions));
}

/* ---- storing ---- */

static void take_committed(struct provisioning_call *call, struct stream_call *s) {
    const struct group_request *committed = s->answers[0];
    int16_t error = committed->error;
    for (uint32_t i = 0; error == 0 && i < committed->offset_count; i++)
        error = committed->offsets[i].error;
    if (error != 0)
        stream_call_fail(call, error);
    else
        answer(call, s, s->own);
}

static void commit(struct provisioning_call *call, struct stream_call *s,
                   const struct group_reset *reset) {
    struct group_request *question = stream_call_question(s, GROUP_COMMIT, path_group(call));
    if (question)
        question->offsets = group_take(question, reset->count * sizeof(*question->offsets));
    if (question && !question->offsets) {
        group_request_free(question);
        question = NULL;
    }
    for (uint32_t i = 0; question && i < reset->count; i++)
        question->offsets[question->offset_count++] =
            (struct group_offset){.stream_id = reset->stream_id,
                                  .partition = reset->first + i,
                                  .epoch = -1,
                                  .offset = reset->places[i].after};
    stream_call_ask(call, s, &question, 1, take_committed);
}

/* ---- looking up ---- */

/* An offset that is not kept (any more, or yet) becomes the nearest that is. Of a time when nothing
 * came afterwards it is the end. */
static int look_up(struct group_reset *reset, struct stream *stream, uint32_t partition,
                   int64_t *ret_offset) {
    struct stream_watcher *watcher = provisioning_state(reset->call->worker)->watcher;
    struct stream_offsets offsets;
    int64_t time_ms;
    int err = 0;
    stream_offsets(stream, reset->stream_id, partition, &offsets);
    switch (reset->goal) {
    case RESET_EARLIEST:
        *ret_offset = offsets.log_start;
        break;
    case RESET_LATEST:
        *ret_offset = offsets.durable_end;
        break;
    case RESET_OFFSET:
        *ret_offset = reset->value < offsets.log_start     ? offsets.log_start
                      : reset->value > offsets.durable_end ? offsets.durable_end
                                                           : reset->value;
        break;
    case RESET_TIME:
        err = stream_find_time(stream, reset->stream_id, partition, reset->value, watcher,
                               ret_offset, &time_ms);
        if (err == DG_ERR_NOT_FOUND)
            *ret_offset = offsets.durable_end;
    }
    return err == DG_ERR_NOT_FOUND ? 0 : err;
}

static void go_on(struct group_reset *reset) {
    struct provisioning_call *call = reset->call;
    struct stream_call *s = call->state;
    for (; reset->done < reset->count; reset->done++) {
        uint32_t partition = reset->first + reset->done;
        int err = look_up(reset, stream_of(call), partition, &reset->places[reset->done].after);
        if (err == DG_ERR_COLD) {
            wait_for_disk(reset);
            return;
        }
        if (err < 0) {
            char detail[64];
            snprintf(detail, sizeof(detail), "partition %" PRIu32 " cannot be read now", partition);
            call_fail(call, err, detail);
            return;
        }
    }
    if (reset->is_dry_run)
        answer(call, s, reset);
    else
        commit(call, s, reset);
}

/* Those that are still cold put themselves onto the list again. */
void group_reset_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    struct worker *worker = context;
    struct group_reset *waiting = provisioning_state(worker)->cold_resets;
    worker_refresh_time(worker);
    provisioning_state(worker)->cold_resets = NULL;
    if (waiting)
        waiting->link = &waiting;
    while (waiting) {
        struct group_reset *reset = waiting;
        stop_waiting(reset);
        go_on(reset);
    }
}

/* ---- the group as it is ---- */

enum { DESCRIBED, OFFSETS, QUESTIONS };

static void take_before(struct group_reset *reset, const struct group_request *offsets) {
    for (uint32_t i = 0; i < reset->count; i++)
        reset->places[i].before = NOT_COMMITTED;
    for (uint32_t i = 0; i < offsets->offset_count; i++) {
        const struct group_offset *offset = &offsets->offsets[i];
        uint32_t place = offset->partition - reset->first;
        if (offset->stream_id == reset->stream_id && place < reset->count)
            reset->places[place].before = offset->offset;
    }
}

static void take_group(struct provisioning_call *call, struct stream_call *s) {
    const struct group_request *described = s->answers[DESCRIBED], *offsets = s->answers[OFFSETS];
    struct group_reset *reset = s->own;
    if (described->error != 0 || offsets->error != 0) {
        stream_call_fail(call, described->error ? described->error : offsets->error);
    } else if (described->state == GROUP_DEAD) {
        stream_call_missing(call);
    } else if (described->state != GROUP_EMPTY) {
        stream_call_in_use(call);
    } else {
        take_before(reset, offsets);
        go_on(reset);
    }
}

static void ask_group(struct provisioning_call *call, struct stream_call *s) {
    struct group_reset *reset = make_reset(call, s);
    if (!reset)
        return;
    s->own = reset;
    s->free_own = free_reset;
    struct group_request *questions[QUESTIONS] = {
        [DESCRIBED] = stream_call_question(s, GROUP_DESCRIBE, path_group(call)),
        [OFFSETS] = stream_call_question(s, GROUP_READ_OFFSETS, path_group(call)),
    };
    if (questions[OFFSETS])
        questions[OFFSETS]->wants_all_offsets = true;
    stream_call_ask(call, s, questions, QUESTIONS, take_group);
}

void group_reset(struct provisioning_call *call) {
    char detail[CALL_DETAIL_SIZE] = "";
    if (!call_read_body(call))
        return;
    int err = members_check(members, call->body, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    else if (stream_call_may_use_group(call))
        stream_call_begin(call, ask_group);
}
