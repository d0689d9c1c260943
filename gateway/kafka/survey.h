/*
 * The worker's look round: how far the groups that live on it are behind, and on one of the workers
 * how large the tenants' streams are. In small steps between other work; each whole round becomes a
 * page of metrics, and a group that retention has overtaken is logged.
 *
 * Groups and tenants of which there are too many for series of their own are summed up as "other".
 */
#pragma once

#include "gateway/kafka/session.h"

struct kafka_survey;

/* NULL: out of memory. */
struct kafka_survey *kafka_survey_create(struct kafka_worker *kafka, struct groups *groups,
                                         unsigned worker_count);
void kafka_survey_free(struct kafka_survey *survey); /* accepts NULL */

/* The next step, if it is time for one. */
void kafka_survey_step(struct kafka_survey *survey);
