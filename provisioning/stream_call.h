/*
 * What the handlers of streams and consumer groups share: which tenant the path means, and
 * questions to the coordinators of groups, whose answers come together. Worker's thread only.
 */
#pragma once

#include "gateway/kafka/groups.h"
#include "gateway/kafka/topics.h"
#include "provisioning/call.h"
#include "provisioning/resource.h"
#include "storage/stream.h"

struct stream_call;
typedef void stream_call_fn(struct provisioning_call *call, struct stream_call *s);

/* Owned by the call, as its state. */
struct stream_call {
    struct registry_tenant tenant;
    stream_call_fn *then;
    unsigned answer_count, answers_left;
    struct group_request **answers; /* owned, as are they */
    void *own;                      /* the handler's; owned */
    void (*free_own)(void *own);
};

/* then() when the tenant of the path is known; a problem is answered otherwise. */
void stream_call_begin(struct provisioning_call *call, stream_call_fn *then);

/* Whether the key may use the consumer group of the path, as in the Kafka endpoint. False after
 * answering. */
bool stream_call_may_use_group(struct provisioning_call *call);

struct stream *stream_of(const struct provisioning_call *call);

/* A question about the tenant's group of this name. NULL: out of memory. */
struct group_request *stream_call_question(const struct stream_call *s,
                                           enum group_operation operation, struct slice group);

/* Takes the questions over; then() when all are answered, in the same order in s->answers. One of
 * them may be NULL: answered as out of memory. */
void stream_call_ask(struct provisioning_call *call, struct stream_call *s,
                     struct group_request *const *questions, unsigned count, stream_call_fn *then);

/* Answers with the problem that a coordinator's error (not 0) is to a client of the API. */
void stream_call_fail(struct provisioning_call *call, int16_t error);

/* There is no such group; it has members. */
void stream_call_missing(struct provisioning_call *call);
void stream_call_in_use(struct provisioning_call *call);

/* "acme.events", or "events" for short, of tenant acme: a kind, or STREAM_KINDS when there is no
 * such stream. */
enum stream_kind stream_kind_find(const struct registry_tenant *tenant, struct slice name);

/* Answers 200 with the object, which is freed; NULL: out of memory. */
void stream_call_answer(struct provisioning_call *call, json_t *object);

/* ... a page of items, both of which are taken over. */
void stream_call_answer_page(struct provisioning_call *call, json_t *items, json_t *cursor);

/* The page that the query asks for of a list with keys from 0 to count - 1: *ret_first, *ret_end.
 * False after answering with a problem. */
bool stream_call_page(struct provisioning_call *call, uint32_t count, uint32_t *ret_first,
                      uint32_t *ret_end);
/* Its cursor to what follows: a new string, or null when that was the end. */
json_t *stream_call_cursor(uint32_t end, uint32_t count);

/* Handlers for routes_table.h. */
void stream_list(struct provisioning_call *call);
void stream_list_partitions(struct provisioning_call *call);
void group_list_run(struct provisioning_call *call);
void group_get(struct provisioning_call *call);
void group_delete_run(struct provisioning_call *call);
void group_reset(struct provisioning_call *call);

/* A stream_advanced_fn whose context is the worker: cold look-ups are tried again. */
void group_reset_advanced(void *context, uint64_t stream_id, uint32_t partition);

extern const struct provisioning_resource stream_resource, group_resource;
