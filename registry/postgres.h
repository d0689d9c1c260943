/*
 * One asynchronous connection to PostgreSQL on the registry thread's loop: prepared statements in
 * pipeline mode, one Sync per statement (so that an error ends only its own), and our own deadline
 * on everything, since neither libpq nor TCP notices a frozen server.
 *
 * A missed deadline or a lost connection answers every statement under way with DG_ERR_UNAVAILABLE
 * and starts over with growing pauses. So many statements are under way at most that the last of
 * them does not wait long; beyond that the answer is DG_ERR_BUSY. Registry thread only.
 */
#pragma once

#include <event2/event.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "registry/statements.h"

struct postgres;

/* A statement under way. Embedded in the caller's object, which stays valid until done(). */
struct postgres_query {
    struct postgres_query *next;
    uint64_t sent_ns;
    enum registry_statement statement;
    bool is_urgent; /* of a change: has room that logins cannot take */
    /* err 0: result holds the rows (cleared by postgres.c afterwards). DG_ERR_EXISTS,
     * DG_ERR_INVALID: detail says what PostgreSQL said. DG_ERR_UNAVAILABLE, DG_ERR_INTERNAL. */
    void (*done)(struct postgres_query *query, int err, const PGresult *result, const char *detail);
};

struct postgres_options {
    const char *name; /* for log lines: "queries", "changes" */
    const char *conninfo, *password;
    const char *listen; /* channel to LISTEN to, or NULL */
    uint64_t timeout_ms;
    void *context;
    void (*ready)(void *context);    /* connected and prepared */
    void (*lost)(void *context);     /* was ready and is no longer */
    void (*notified)(void *context); /* a NOTIFY came in */
};

DG_NODISCARD int postgres_create(struct event_base *base, const struct postgres_options *options,
                                 struct postgres **ret_postgres);
/* Answers what is under way with DG_ERR_SHUTTING_DOWN. Accepts NULL. */
void postgres_free(struct postgres *postgres);

/* Sends; done() is called later, or at once with DG_ERR_UNAVAILABLE when there is no connection
 * (DG_ERR_SHUTTING_DOWN when postgres is NULL, DG_ERR_BUSY when too many are under way).
 * Parameters are text; a NULL pointer is SQL NULL. */
void postgres_send(struct postgres *postgres, struct postgres_query *query, unsigned count,
                   const char *const *parameters);
bool postgres_is_ready(const struct postgres *postgres);

/* Monotonic: the answer shows what was so at this time, or later. */
static inline uint64_t postgres_sent_ms(const struct postgres_query *query) {
    return query->sent_ns / 1000000;
}
