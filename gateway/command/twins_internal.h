/* What the files of device twins share: the memory of a home worker. One worker's thread. */
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h>

#include "gateway/command/transitions.h"
#include "gateway/command/twins.h"
#include "gateway/session/device_map.h"
#include "registry/registry.h"

enum { TWIN_WHY_SIZE = 256 };

/* A question on its way from the asker to the home, and back as its answer. */
struct twin_ask {
    struct mail mail;
    struct twin_ask *next; /* of the twin's, oldest first */
    struct worker *asker;
    struct twin_request request; /* slices point into bytes */
    struct twin_answer answer;
    char *document; /* the answer's; owned */
    char why[TWIN_WHY_SIZE];
    size_t size_bytes;   /* charged to the asker */
    unsigned loads_left; /* TWIN_GET: what is being read may be older than the question */
    uint8_t bytes[];
};

/* A report that is being appended, or that PostgreSQL is being told. */
struct twin_report {
    struct transition transition; /* first */
    char *document;               /* what it makes of the twin's; until it is durable */
    size_t size_bytes;            /* charged */
    int64_t version;
    uint8_t bytes[];
};

/* A listener. */
struct twin_ear {
    struct twin_ear *next; /* newest first */
    struct worker *worker;
    uint64_t owner;
    uint64_t number;      /* its messages name it: not those of an earlier one of its owner */
    int64_t told_version; /* 0: nothing yet */
    enum twin_shape shape;
    unsigned under_way; /* messages */
    bool is_behind;     /* there may be something newer */
    uint8_t child_size;
    char child[];
};

/* A device that somebody asks for, that somebody listens to, or whose document is known. */
struct twin {
    struct twin *prev, *next; /* known, the one used last first */
    struct twin *next_load;
    int64_t device_key;
    struct twin_ask *asks;
    struct twin_ear *ears;
    char *reported; /* NULL: not known */
    size_t reported_size;
    int64_t reported_version;
    unsigned unsaid; /* reports that PostgreSQL does not have yet */
    bool is_reporting : 1, is_stale : 1, is_running : 1;
    bool wants_load : 1, is_loading : 1;
    bool is_outdated : 1; /* what is being loaded may say less than PostgreSQL was told meanwhile */
};

struct twins {
    struct worker *worker;
    const struct twins_options *options;
    struct device_map by_key; /* -> struct twin * */
    struct twin *known;
    size_t known_bytes, unsaid_bytes, message_bytes;
    uint64_t ear_count; /* ever */
    /* asker */
    size_t ask_bytes;
    unsigned ask_count;
    /* twins_load.c */
    struct twin *loads, **loads_end;
    int64_t loading[LIMIT_TWIN_LOADS];
    unsigned loading_count;
    bool is_restored;
    struct event retry_timer;
};

static inline struct twins *twins_of(const struct worker *worker) {
    return worker->slots[WORKER_SLOT_TWINS];
}

/* ---- twins.c ---- */

/* NULL: it is not here. */
struct twin *twin_find(const struct twins *twins, int64_t device_key);
/* Goes on with what is asked of it, as far as that can be answered; forgets it when there is
 * nothing to remember. */
void twin_run(struct twins *twins, struct twin *twin);
/* The first question is answered and goes back. */
void twin_answer(struct twin *twin, int err);
/* All of them, unless the first is a report on its way to the stream: then they have to wait. */
void twin_answer_all(struct twin *twin, int err);
/* What the device has reported; taken over. NULL: nobody knows. */
void twin_know(struct twins *twins, struct twin *twin, char *reported, int64_t version);

/* ---- twins_load.c ---- */

/* Columns of STATEMENT_TWIN_LOAD. */
enum twin_column {
    TWIN_COLUMN_DEVICE_KEY,
    TWIN_COLUMN_DESIRED_VERSION,
    TWIN_COLUMN_DESIRED,
    TWIN_COLUMN_RECENT,
    TWIN_COLUMN_REPORTED_VERSION,
    TWIN_COLUMN_REPORTED,
};

/* One row of the answer. */
struct twin_row {
    int64_t desired_version, reported_version;
    const char *desired, *reported;
    const char *recent; /* NULL: nobody listens to changes */
};

/* Reads it, with others, from PostgreSQL; again when that has begun already. */
void twin_load(struct twins *twins, struct twin *twin);
/* In a moment: what could not be had, or given, is tried again. */
void twins_retry_later(struct twins *twins);
void twins_on_retry(evutil_socket_t fd, short what, void *context);

/* ---- twins_report.c ---- */

/* Begins what the first question asks; false when it has been answered at once. */
bool twin_report_begin(struct twins *twins, struct twin *twin);

/* ---- twins_desired.c ---- */

/* Gives what was read to those who listen. */
void twin_tell(struct twins *twins, struct twin *twin, const struct twin_row *row);
void twin_add_ear(struct twins *twins, struct twin *twin, struct twin_ear *ear);
void twin_drop_ear(struct twin *twin, struct worker *worker, uint64_t owner);
void twin_drop_ears(struct twin *twin);
/* Whether one of them listens to changes. */
bool twin_has_changes(const struct twin *twin);
