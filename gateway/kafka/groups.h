/*
 * Consumer groups for parts of the gateway beside the Kafka endpoint, which asks in the same way: a
 * request travels as mail to the worker that its group lives on, and comes back with the answer.
 */
#pragma once

#include "gateway/kafka/group.h"
#include "gateway/loop/worker.h"

/* The worker's own thread. Takes the request over, with answered and worker set; a GROUP_LIST asks
 * the worker that request->tag names. The answer is dropped when the gateway stops. */
void groups_ask(struct worker *worker, struct group_request *request);

unsigned groups_worker_count(const struct worker *worker);

/* What the error of an answer is elsewhere: 0, DG_ERR_NOT_FOUND, DG_ERR_IN_USE (the group has
 * members), DG_ERR_LIMIT, DG_ERR_BUSY. */
int groups_err(int16_t error);
