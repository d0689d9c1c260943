/*
 * One asynchronous connection to PostgreSQL on the registry thread's loop: prepared statements in
 * pipeline mode, one Sync per statement (so that an error ends only its own), and our own deadline
 * on everything, since neither libpq nor TCP notices a frozen server.
 *
 * PostgreSQL works off one statement after the other, so a statement's own deadline begins when it
 * is the first in line: only a server that leaves that one unanswered counts as lost. Then every
 * statement under way is answered with DG_ERR_UNAVAILABLE, and it starts over with growing pauses.
 *
 * Nobody waits longer than postgres_total_ms() behind slow ones, whatever the length of the line:
 * what was not even sent by then comes back with DG_ERR_BUSY, the rest with DG_ERR_TIMEOUT. A
 * statement that finds the line too long gets DG_ERR_BUSY at once. Registry thread only.
 */
#pragma once

#include <event2/event.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "registry/registry.h"
#include "registry/schema.h"

struct postgres;

/* A statement under way. Embedded in the caller's object, which stays valid until done(). */
struct postgres_query {
    enum registry_statement statement;
    uint64_t asked_ns; /* monotonic; set by postgres_send() */
    bool is_urgent; /* of a change: goes before logins that wait, has room that they cannot take */
    /* err 0: result holds the rows (cleared by postgres.c afterwards). DG_ERR_EXISTS,
     * DG_ERR_INVALID: detail says what PostgreSQL said. DG_ERR_TIMEOUT: it may have been carried
     * out all the same. DG_ERR_BUSY, DG_ERR_UNAVAILABLE, DG_ERR_INTERNAL. */
    void (*done)(struct postgres_query *query, int err, const PGresult *result, const char *detail);
};

struct postgres_options {
    const char *name; /* for log lines: "queries", "changes" */
    const char *conninfo, *password;
    const char *const *listen; /* channels to LISTEN to, NULL at the end; or NULL */
    uint64_t timeout_ms;       /* of each statement */
    bool waits_for_each; /* whoever asks keeps the total itself, and one statement under way */
    void *context;
    void (*ready)(void *context); /* connected and prepared */
    void (*lost)(void *context);  /* is ready no longer, or could not become it */
    void (*notified)(void *context, const char *channel, const char *text); /* a NOTIFY came in */
};

DG_NODISCARD int postgres_create(struct event_base *base, const struct postgres_options *options,
                                 struct postgres **ret_postgres);
/* Answers what is under way with DG_ERR_SHUTTING_DOWN. Accepts NULL. */
void postgres_free(struct postgres *postgres);

/* The longest that a statement may take with all its waiting: HTTP answers within 3 s when a
 * deadline is 2 s. */
uint64_t postgres_total_ms(uint64_t timeout_ms);
/* A new deadline, also for what is under way. */
void postgres_set_timeout(struct postgres *postgres, uint64_t timeout_ms);
/* registry_set_floor(): a connection that stands already begins anew. */
void postgres_set_floor(struct postgres *postgres, const struct registry_floor *floor);

/* Sends; done() is called later, or at once with DG_ERR_UNAVAILABLE when there is no connection
 * (DG_ERR_SHUTTING_DOWN when postgres is NULL, DG_ERR_BUSY when too many are under way). Only the
 * first connection is waited for: some clients never come back when a gateway that has just started
 * cannot judge their login.
 * Parameters are text, copied; a NULL pointer is SQL NULL. */
void postgres_send(struct postgres *postgres, struct postgres_query *query, unsigned count,
                   const char *const *parameters);
bool postgres_is_ready(const struct postgres *postgres);
/* What the last attempt to connect found. Statements are prepared on a schema that fits only; on
 * any other the connection is tried again, as if the server were away. */
enum schema_fit postgres_schema(const struct postgres *postgres, int *ret_version);

/* Monotonic: the answer shows what was so at this time, or later. */
static inline uint64_t postgres_asked_ms(const struct postgres_query *query) {
    return query->asked_ns / 1000000;
}
