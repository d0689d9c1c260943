/*
 * Gauges and counters whose labels are data (a tenant, a group), rows of kind SERIES_... in the
 * table. Whoever measures them publishes a page with all of its series at once, which takes the
 * place of its page before. Equal series of several pages become one: their sum, or the least
 * or most of them. How many series there are is the publisher's to limit.
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "common/slice.h"

struct metric_page; /* in the making: one thread's */

/* NULL: out of memory. */
struct metric_page *metric_page_new(void);
void metric_page_free(struct metric_page *page); /* accepts NULL */
/* labels without braces: tenant="acme",group="g". DG_ERR_NO_MEMORY. */
DG_NODISCARD int metric_page_add(struct metric_page *page, enum metric_id id, const char *labels,
                                 int64_t value);

/* Any thread; takes the page over (NULL: nothing any more). Publishers have numbers below
 * METRIC_PUBLISHERS: each worker its index for what consumers do, and these. */
enum { METRIC_PUBLISHER_QUOTAS = LIMIT_WORKERS, METRIC_PUBLISHERS };
void metric_page_publish(unsigned publisher, struct metric_page *page);

/* Appends name="value" to labels, behind a comma when there is something already: escaped, what is
 * not UTF-8 replaced, cut after METRIC_LABEL_BYTES. labels has METRIC_LABELS_SIZE bytes. */
enum { METRIC_LABEL_BYTES = 128, METRIC_LABELS_SIZE = 384 };
void metric_label_append(char *labels, const char *name, struct slice value);
