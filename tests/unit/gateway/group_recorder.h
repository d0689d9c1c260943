/*
 * The coordinator of consumer groups with a recorder behind it: answers are kept by ticket, stores
 * are held until told. Everything an answer points to lives until recorder_end(), so that ids of
 * one answer can be used in the next request.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "gateway/kafka/group.h"
#include "gateway/kafka/messages.h"
#include "leaks.h"

enum { TICKETS = 8192, START_MS = 1000000, INITIAL_DELAY_MS = 500, SESSION_MS = 10000 };
#define WALL_MS INT64_C(1700000000000)

struct recorder {
    struct groups *groups;
    uint64_t now_ms;
    uint64_t ticket_count;
    struct group_request *answers[TICKETS]; /* by ticket */
    struct group_request *stores[64];
    unsigned store_count;
    bool hold_stores;
    int store_err;
    uint64_t retention_ms;
    uint64_t random;
};

static inline void record_answer(void *context, struct group_request *request) {
    struct recorder *r = context;
    cr_assert_lt(request->owner, r->ticket_count);
    cr_assert_null(r->answers[request->owner], "ticket %lu is answered twice",
                   (unsigned long)request->owner);
    r->answers[request->owner] = request;
}

static inline void end_store(struct recorder *r, struct group_request *request, int err) {
    if (err < 0)
        group_fail_offsets(request, 0, request->offset_count);
    group_stored(r->groups, request, r->now_ms);
}

static inline void record_store(void *context, struct group_request *request) {
    struct recorder *r = context;
    if (!r->hold_stores) {
        end_store(r, request, r->store_err);
        return;
    }
    cr_assert_lt(r->store_count, 64);
    r->stores[r->store_count++] = request;
}

static inline uint64_t record_random(void *context) {
    struct recorder *r = context;
    return ++r->random * 0x9e3779b97f4a7c15;
}

static const struct group_effects recorder_effects = {record_answer, record_store, record_random};

static inline struct recorder *recorder_begin(void) {
    struct recorder *r = calloc(1, sizeof(*r));
    r->now_ms = START_MS;
    r->groups = groups_create(&recorder_effects, r, INITIAL_DELAY_MS);
    return r;
}

static inline void recorder_end(struct recorder *r) {
    for (unsigned i = 0; i < r->store_count; i++)
        group_request_free(r->stores[i]);
    groups_free(r->groups);
    for (uint64_t i = 0; i < r->ticket_count; i++)
        group_request_free(r->answers[i]);
    free(r);
}

static inline void finish_store(struct recorder *r, int err) {
    cr_assert_gt(r->store_count, 0);
    struct group_request *request = r->stores[0];
    memmove(r->stores, r->stores + 1, --r->store_count * sizeof(r->stores[0]));
    end_store(r, request, err);
}

static inline uint64_t tick(struct recorder *r) {
    return groups_tick(r->groups, r->now_ms, WALL_MS + (int64_t)r->now_ms, r->retention_ms);
}

/* Time passes in the steps that the coordinator asks for. */
static inline void advance(struct recorder *r, uint64_t ms) {
    uint64_t end_ms = r->now_ms + ms;
    for (unsigned steps = 0;; steps++) {
        uint64_t next_ms = tick(r);
        cr_assert_gt(next_ms, r->now_ms, "a deadline that is over again and again");
        cr_assert_lt(steps, 10000);
        if (next_ms > end_ms)
            break;
        r->now_ms = next_ms;
    }
    r->now_ms = end_ms;
    tick(r);
}

/* ---- asking ---- */

/* What a request says; what is left out has the default in brackets. */
struct said {
    int16_t version;      /* [5] */
    int64_t tenant;       /* [0] */
    const char *group;    /* ["g"] */
    struct slice member;  /* [empty] */
    const char *instance; /* [none] */
    const char *type;     /* ["consumer"] of a join, else none */
    /* Join: protocols, "range=metadata sticky=metadata" ["range=m"]. Sync: assignments, each for
     * the member of that place in `to`. */
    const char *items;
    const struct slice *to;
    const char *protocol;
    int32_t generation, session_ms, rebalance_ms; /* [0, SESSION_MS, 2 * SESSION_MS] */
};

static inline struct slice text(const char *string) {
    return string ? slice_from_string(string) : (struct slice){0};
}

static inline void keep(struct group_request *request, struct slice from, struct slice *ret_slice) {
    cr_assert(group_keep(request, from, ret_slice));
}

static inline struct group_request *make(struct recorder *r, enum group_operation operation,
                                         const struct said *said) {
    struct group_request *request = group_request_new(operation);
    cr_assert_lt(r->ticket_count, TICKETS);
    request->owner = r->ticket_count++;
    request->version = said->version ? said->version : 5;
    request->tenant_key = said->tenant;
    keep(request, text(said->group ? said->group : "g"), &request->group);
    keep(request, said->member, &request->member);
    keep(request, text(said->instance), &request->instance);
    keep(request, text("client"), &request->client_id);
    keep(request, text("/192.0.2.1"), &request->client_host);
    bool joins = operation == GROUP_JOIN;
    keep(request, text(said->type || !joins ? said->type : "consumer"), &request->protocol_type);
    keep(request, text(said->protocol), &request->protocol);
    request->generation = said->generation;
    request->session_timeout_ms = said->session_ms ? said->session_ms : SESSION_MS;
    request->rebalance_timeout_ms = said->rebalance_ms ? said->rebalance_ms : 2 * SESSION_MS;
    return request;
}

/* Words, and after '=' their bytes. */
static inline void put_items(struct group_request *request, const char *words,
                             const struct slice *to) {
    enum { MOST = 64 };
    request->items = group_take(request, MOST * sizeof(*request->items));
    while (*words) {
        size_t size = strcspn(words, " "), name = strcspn(words, "= ");
        struct group_item *item = &request->items[request->item_count];
        cr_assert_lt(request->item_count, MOST);
        keep(request, to ? to[request->item_count] : slice_make(words, name), &item->id);
        if (name < size)
            keep(request, slice_make(words + name + 1, size - name - 1), &item->bytes);
        else
            keep(request, slice_make(words, size), &item->bytes);
        request->item_count++;
        words += size + strspn(words + size, " ");
    }
}

static inline uint64_t send(struct recorder *r, struct group_request *request) {
    uint64_t ticket = request->owner;
    group_handle(r->groups, request, r->now_ms);
    return ticket;
}

static inline uint64_t send_said(struct recorder *r, enum group_operation operation,
                                 const struct said *said) {
    struct group_request *request = make(r, operation, said);
    if (operation == GROUP_JOIN)
        put_items(request, said->items ? said->items : "range=m", NULL);
    else if (operation == GROUP_SYNC && said->items)
        put_items(request, said->items, said->to);
    return send(r, request);
}

#define ask(r, operation, ...) send_said(r, operation, &(struct said){__VA_ARGS__})

static inline bool waits(const struct recorder *r, uint64_t ticket) {
    return !r->answers[ticket];
}

static inline struct group_request *answer(const struct recorder *r, uint64_t ticket) {
    cr_assert_not_null(r->answers[ticket], "ticket %lu has no answer", (unsigned long)ticket);
    return r->answers[ticket];
}

/* Asks; the error of the answer that must have come at once. */
#define error_of(r, operation, ...) answer(r, ask(r, operation, __VA_ARGS__))->error

static inline bool is(struct slice bytes, const char *expected) {
    return slice_equals_string(bytes, expected);
}

static inline uint64_t ask_leave(struct recorder *r, struct slice member, const char *instance) {
    struct group_request *request = make(r, GROUP_LEAVE, &(struct said){0});
    request->item_count = 1;
    request->items = group_take(request, sizeof(*request->items));
    keep(request, member, &request->items[0].id);
    keep(request, text(instance), &request->items[0].instance);
    return send(r, request);
}

static inline int16_t leave(struct recorder *r, struct slice member, const char *instance) {
    const struct group_request *left = answer(r, ask_leave(r, member, instance));
    cr_assert_eq(left->error, 0);
    return left->items[0].error;
}

/* ---- whole groups ---- */

static inline struct group_request *describe(struct recorder *r) {
    return answer(r, ask(r, GROUP_DESCRIBE, 0));
}

#define cr_assert_state(r, expected) \
    cr_assert_eq(describe(r)->state, expected, "it is %s", group_state_names[describe(r)->state])

enum { MEMBERS = 4 };

/* A group's members after a round: what their joins were answered. */
struct formed {
    struct group_request *joins[MEMBERS];
    struct slice ids[MEMBERS];
    int32_t generation;
};

/* The group "g" with `count` members that have joined (version 3, or 5 with instances "i0", ...);
 * the first one leads. */
static inline struct formed form_completing(struct recorder *r, unsigned count, bool are_static) {
    static const char *const instances[MEMBERS] = {"i0", "i1", "i2", "i3"};
    struct formed f = {0};
    uint64_t tickets[MEMBERS];
    for (unsigned i = 0; i < count; i++)
        tickets[i] = ask(r, GROUP_JOIN, .version = are_static ? 5 : 3,
                         .instance = are_static ? instances[i] : NULL);
    advance(r, INITIAL_DELAY_MS);
    for (unsigned i = 0; i < count; i++) {
        f.joins[i] = answer(r, tickets[i]);
        cr_assert_eq(f.joins[i]->error, 0);
        f.ids[i] = f.joins[i]->member;
    }
    f.generation = f.joins[0]->generation;
    return f;
}

/* ... and have their assignments "a0", "a1", ... */
static inline struct formed form_stable(struct recorder *r, unsigned count, bool are_static) {
    static const char *const assignments[] = {"", "a0", "a0 a1", "a0 a1 a2", "a0 a1 a2 a3"};
    struct formed f = form_completing(r, count, are_static);
    for (unsigned i = 0; i < count; i++) {
        const char *items = i == 0 ? assignments[count] : NULL;
        cr_assert_eq(error_of(r, GROUP_SYNC, .member = f.ids[i], .generation = f.generation,
                              .items = items, .to = f.ids),
                     0);
    }
    cr_assert_state(r, GROUP_STABLE);
    return f;
}
