/*
 * One authenticated request of /v1, from its arrival to its answer. Created by auth.c, freed with
 * the HTTP exchange; worker's thread only.
 *
 * A handler ends in exactly one call_answer...() or call_problem(), now or after call_execute().
 * The exchange may end inside that call, so nothing touches the call afterwards.
 */
#pragma once

#include <jansson.h>

#include "gateway/http/http.h"
#include "provisioning/etag.h"
#include "provisioning/route.h"
#include "registry/registry.h"

enum { CALL_DETAIL_SIZE = 512 };

struct iothub_shown; /* iothub_show.h */

struct provisioning_call {
    struct http_exchange *exchange;
    struct worker *worker;
    struct registry *registry;
    const struct provisioning_route *route;
    struct registry_identity principal;
    bool permitted; /* the principal may use the route for the path's tenant */
    /* How problems are answered; NULL: as RFC 9457 has it. */
    void (*problem)(struct provisioning_call *call, int err, const char *detail);
    void (*then)(struct provisioning_call *call, struct registry_request *result);
    void (*then_device)(struct provisioning_call *call, const struct registry_device_query *found);
    void (*then_shown)(struct provisioning_call *call, struct iothub_shown *shown);
    json_t *body; /* owned; NULL before call_read_body() */
    struct etag_condition precondition;
    unsigned attempts;
    char *name;   /* owned; of a thing that the path does not name (POST) */
    char *secret; /* owned, wiped; JSON members to be shown once, e.g. "key":"..." */
    void *state;  /* of handlers that have one; owned */
    void (*free_state)(void *state);
};

/* Frees what the call owns; for http_set_context(). Accepts NULL. */
void call_free(void *call);

/* Parses the body as one JSON object into call->body. False after answering with a problem. */
bool call_read_body(struct provisioning_call *call);
/* Reads If-Match and If-None-Match into call->precondition. False after answering. */
bool call_read_precondition(struct provisioning_call *call);

/* A misspelt parameter of the query is not passed over: known is ended by NULL. False after
 * answering. */
bool call_check_parameters(struct provisioning_call *call, const char *const *known);
/* A parameter in seconds, of least to most; without it *ret_ms stays. False after answering. */
bool call_read_seconds(struct provisioning_call *call, const char *name, unsigned least,
                       unsigned most, uint32_t *ret_ms);

/* Sends the statement; deliver is called with it, whatever became of it, and frees it. */
void call_send(struct provisioning_call *call, struct registry_request *request,
               void (*deliver)(struct mail *mail, void *receiver));
/* Sends the statement. then runs when PostgreSQL has answered; failures are answered here and then
 * is not called. Takes the request over; then may read it until it returns. */
void call_execute(struct provisioning_call *call, struct registry_request *request,
                  void (*then)(struct provisioning_call *call, struct registry_request *result));

/* Finds the device that the path names ({tenant}, {device}); then runs when it is known, failures
 * are answered here. then may read found until it returns. */
void call_find_device(struct provisioning_call *call,
                      void (*then)(struct provisioning_call *call,
                                   const struct registry_device_query *found));

/* The problem of err with a detail for people (printf style). */
void call_problem(struct provisioning_call *call, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A problem for what the registry or a helper returned: retry advice for what may pass. */
void call_fail(struct provisioning_call *call, int err, const char *detail);
/* JSON with an entity tag. */
void call_answer(struct provisioning_call *call, unsigned status, const char *version,
                 struct slice body);
