#include "registry/postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/random.h"

enum {
    CONNECT_TIMEOUT_MS = 5000,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 5000,
    SWEEP_MS = 50,
};

enum postgres_state { POSTGRES_DOWN, POSTGRES_CONNECTING, POSTGRES_PREPARING, POSTGRES_READY };

struct postgres {
    struct event_base *base;
    struct postgres_options options;
    enum postgres_state state;
    PGconn *connection;
    struct event *socket_event; /* recreated with each connection: its descriptor changes */
    struct event *timer;        /* next attempt while down, else the sweep of deadlines */
    uint64_t state_since_ns;
    uint64_t backoff_ms;
    struct postgres_query *first, **last; /* in the order sent */
    unsigned in_flight;
    PGresult *result; /* of the first one, until its Sync comes back */
    char said[256];   /* the last complaint, so that a row of failures is logged once */
};

static const struct {
    const char *name, *sql;
    int parameter_count;
} statements[] = {
#define STATEMENT(id, count, sql) {#id, sql, count},
#include "registry/statements_table.h"
#undef STATEMENT
};

static void start_connect(struct postgres *p);
static void on_socket(evutil_socket_t fd, short what, void *context);

static void set_state(struct postgres *p, enum postgres_state state) {
    p->state = state;
    p->state_since_ns = clock_monotonic_ns();
}

static void set_timer(struct postgres *p, uint64_t ms) {
    struct timeval wait = {.tv_sec = (time_t)(ms / 1000),
                           .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    evtimer_add(p->timer, &wait);
}

/* ---- answering ---- */

static int state_to_error(const char *sqlstate) {
    static const struct {
        const char *prefix;
        int err;
    } rows[] = {
        {"23505", DG_ERR_EXISTS},   {"23503", DG_ERR_INVALID},  {"23", DG_ERR_INVALID},
        {"22", DG_ERR_INVALID},     {"57014", DG_ERR_TIMEOUT},  {"57", DG_ERR_UNAVAILABLE},
        {"53", DG_ERR_UNAVAILABLE}, {"08", DG_ERR_UNAVAILABLE}, {"25006", DG_ERR_UNAVAILABLE},
        {"40", DG_ERR_UNAVAILABLE},
    };
    for (unsigned i = 0; sqlstate && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strncmp(sqlstate, rows[i].prefix, strlen(rows[i].prefix)) == 0)
            return rows[i].err;
    return DG_ERR_INTERNAL;
}

static struct postgres_query *pop(struct postgres *p) {
    struct postgres_query *query = p->first;
    p->first = query->next;
    if (!p->first)
        p->last = &p->first;
    p->in_flight--;
    return query;
}

static void answer_first(struct postgres *p) {
    struct postgres_query *query = pop(p);
    PGresult *result = p->result;
    p->result = NULL;
    ExecStatusType status = result ? PQresultStatus(result) : PGRES_FATAL_ERROR;
    bool good = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    int err =
        good ? 0 : state_to_error(result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL);
    const char *detail =
        good || !result ? NULL : PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (err == DG_ERR_INTERNAL)
        LOG_ERROR("registry.statement_failed",
                  log_text("statement", statements[query->statement].name),
                  log_text("why", detail));
    metric_observe(METRIC_REGISTRY_QUERY_LATENCY, clock_monotonic_ns() - query->sent_ns, 1);
    query->done(query, err, good ? result : NULL, detail);
    PQclear(result);
}

static void answer_all(struct postgres *p, int err) {
    PQclear(p->result);
    p->result = NULL;
    while (p->first) {
        struct postgres_query *query = pop(p);
        query->done(query, err, NULL, NULL);
    }
}

/* ---- losing and finding the server ---- */

static void forget_socket(struct postgres *p) {
    if (p->socket_event)
        event_free(p->socket_event);
    p->socket_event = NULL;
}

static void drop_connection(struct postgres *p) {
    forget_socket(p); /* before PQfinish: the descriptor goes with it */
    PQfinish(p->connection);
    p->connection = NULL;
}

static void fail(struct postgres *p, const char *why) {
    char text[256];
    snprintf(text, sizeof(text), "%s", why);
    text[strcspn(text, "\n")] = '\0';
    bool was_ready = p->state == POSTGRES_READY;
    if (was_ready || strcmp(text, p->said) != 0)
        LOG_WARN("registry.connection_lost", log_text("connection", p->options.name),
                 log_text("why", text));
    memcpy(p->said, text, sizeof(text));
    drop_connection(p);
    set_state(p, POSTGRES_DOWN);
    set_timer(p, p->backoff_ms + random_u64() % (p->backoff_ms / 4 + 1));
    p->backoff_ms = p->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : p->backoff_ms * 2;
    if (was_ready)
        p->options.lost(p->options.context);
    answer_all(p, DG_ERR_UNAVAILABLE);
}

static bool watch_socket(struct postgres *p, short events) {
    int fd = PQsocket(p->connection);
    if (p->socket_event && event_get_fd(p->socket_event) == fd &&
        event_get_events(p->socket_event) == (events | EV_PERSIST))
        return true;
    forget_socket(p);
    p->socket_event = event_new(p->base, fd, (short)(events | EV_PERSIST), on_socket, p);
    return p->socket_event && event_add(p->socket_event, NULL) == 0;
}

static void flush_output(struct postgres *p) {
    int left = PQflush(p->connection);
    if (left < 0 || !watch_socket(p, left ? EV_READ | EV_WRITE : EV_READ))
        fail(p, PQerrorMessage(p->connection));
}

static bool send_text(struct postgres *p, const char *sql) {
    return PQsendQueryParams(p->connection, sql, 0, NULL, NULL, NULL, NULL, 0) == 1;
}

/* The server gives up a statement a little before we give up the server, so that one slow statement
 * costs neither the connection nor the work of what we no longer wait for. */
static bool send_settings(struct postgres *p) {
    char sql[128];
    snprintf(sql, sizeof(sql), "set statement_timeout = %llu",
             (unsigned long long)(p->options.timeout_ms - p->options.timeout_ms / 10));
    if (!send_text(p, sql))
        return false;
    if (!p->options.listen)
        return true;
    snprintf(sql, sizeof(sql), "listen %s", p->options.listen);
    return send_text(p, sql);
}

/* All statements and settings in one batch with one Sync. */
static void start_prepare(struct postgres *p) {
    set_state(p, POSTGRES_PREPARING);
    bool sent = PQsetnonblocking(p->connection, 1) == 0 && PQenterPipelineMode(p->connection) == 1;
    for (unsigned i = 0; sent && i < STATEMENT_COUNT; i++)
        sent = PQsendPrepare(p->connection, statements[i].name, statements[i].sql,
                             statements[i].parameter_count, NULL) == 1;
    if (!sent || !send_settings(p) || PQpipelineSync(p->connection) != 1)
        fail(p, PQerrorMessage(p->connection));
    else
        flush_output(p);
}

/* libpq may close its socket here and open another, for the next address, under the same number. */
static void step_connect(struct postgres *p) {
    forget_socket(p);
    switch (PQconnectPoll(p->connection)) {
    case PGRES_POLLING_READING:
        if (!watch_socket(p, EV_READ))
            fail(p, "out of memory");
        break;
    case PGRES_POLLING_WRITING:
        if (!watch_socket(p, EV_WRITE))
            fail(p, "out of memory");
        break;
    case PGRES_POLLING_OK:
        start_prepare(p);
        break;
    default:
        fail(p, PQerrorMessage(p->connection));
    }
}

/* libpq would print it; what matters comes as an error as well. */
static void ignore_notice(void *context, const char *text) {
}

static void start_connect(struct postgres *p) {
    const char *names[] = {"dbname",           "password",
                           "application_name", "fallback_application_name",
                           "tcp_user_timeout", NULL};
    const char *values[] = {
        p->options.conninfo, p->options.password, "duragate", "duragate", "5000", NULL};
    if (!p->options.password[0])
        values[1] = NULL; /* as if not given: the conninfo or a password file may have it */
    set_state(p, POSTGRES_CONNECTING);
    p->connection = PQconnectStartParams(names, values, 1);
    if (!p->connection || PQstatus(p->connection) == CONNECTION_BAD) {
        fail(p, p->connection ? PQerrorMessage(p->connection) : "out of memory");
        return;
    }
    PQsetNoticeProcessor(p->connection, ignore_notice, NULL);
    set_timer(p, SWEEP_MS);
    if (!watch_socket(p, EV_WRITE))
        fail(p, "out of memory");
}

/* ---- results ---- */

static void become_ready(struct postgres *p) {
    LOG_INFO("registry.connected", log_text("connection", p->options.name));
    p->said[0] = '\0';
    p->backoff_ms = BACKOFF_FIRST_MS;
    set_state(p, POSTGRES_READY);
    p->options.ready(p->options.context);
}

/* False when the connection was given up. */
static bool take_prepare_result(struct postgres *p, PGresult *result) {
    ExecStatusType status = PQresultStatus(result);
    bool refused = status == PGRES_FATAL_ERROR;
    if (refused) {
        char why[256];
        snprintf(why, sizeof(why), "%.150s (is the schema up to date? run: duragate migrate)",
                 PQresultErrorMessage(result));
        why[strcspn(why, "\n")] = ' ';
        fail(p, why);
    } else if (status == PGRES_PIPELINE_SYNC) {
        become_ready(p);
    }
    PQclear(result);
    return !refused;
}

static void take_result(struct postgres *p, PGresult *result) {
    if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        answer_first(p);
    } else if (!p->result) {
        p->result = result;
    } else {
        PQclear(result);
    }
}

/* A NULL only ends one statement's results, so what is expected decides when to stop; unless libpq
 * gave up the connection, for an answer that is no PostgreSQL, and will never have more. */
static void take_results(struct postgres *p) {
    while (p->connection && (p->state == POSTGRES_PREPARING || p->first) &&
           !PQisBusy(p->connection)) {
        PGresult *result = PQgetResult(p->connection);
        if (PQstatus(p->connection) == CONNECTION_BAD) {
            PQclear(result);
            fail(p, PQerrorMessage(p->connection));
            return;
        }
        if (!result)
            continue;
        if (p->state == POSTGRES_PREPARING) {
            if (!take_prepare_result(p, result))
                return;
        } else {
            take_result(p, result);
        }
    }
}

static void take_notifications(struct postgres *p) {
    bool any = false;
    for (PGnotify *notify; (notify = PQnotifies(p->connection)); any = true)
        PQfreemem(notify);
    if (any && p->state == POSTGRES_READY)
        p->options.notified(p->options.context);
}

static void on_socket(evutil_socket_t fd, short what, void *context) {
    struct postgres *p = context;
    if (p->state == POSTGRES_CONNECTING) {
        step_connect(p);
        return;
    }
    if ((what & EV_READ) && PQconsumeInput(p->connection) != 1) {
        fail(p, PQerrorMessage(p->connection));
        return;
    }
    take_results(p);
    if (p->connection)
        take_notifications(p);
    if (p->connection && p->state != POSTGRES_CONNECTING)
        flush_output(p);
}

/* ---- deadlines ---- */

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct postgres *p = context;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t in_state_ms = (now_ns - p->state_since_ns) / 1000000;
    if (p->state == POSTGRES_DOWN) {
        start_connect(p);
        return;
    }
    set_timer(p, SWEEP_MS);
    if (p->state != POSTGRES_READY && in_state_ms > CONNECT_TIMEOUT_MS) {
        fail(p, "no answer while connecting");
    } else if (p->first && now_ns - p->first->sent_ns > p->options.timeout_ms * 1000000) {
        metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
        fail(p, "no answer within registry.query_timeout");
    }
}

/* ---- public ---- */

int postgres_create(struct event_base *base, const struct postgres_options *options,
                    struct postgres **ret_postgres) {
    struct postgres *p = calloc(1, sizeof(*p));
    if (!p)
        return DG_ERR_NO_MEMORY;
    p->base = base;
    p->options = *options;
    p->backoff_ms = BACKOFF_FIRST_MS;
    p->last = &p->first;
    p->timer = evtimer_new(base, on_timer, p);
    if (!p->timer) {
        free(p);
        return DG_ERR_NO_MEMORY;
    }
    set_timer(p, 0);
    *ret_postgres = p;
    return 0;
}

void postgres_free(struct postgres *postgres) {
    if (!postgres)
        return;
    drop_connection(postgres);
    postgres->state = POSTGRES_DOWN;
    answer_all(postgres, DG_ERR_SHUTTING_DOWN);
    event_free(postgres->timer);
    free(postgres);
}

bool postgres_is_ready(const struct postgres *postgres) {
    return postgres->state == POSTGRES_READY;
}

void postgres_send(struct postgres *p, struct postgres_query *query, unsigned count,
                   const char *const *parameters) {
    unsigned most = LIMIT_REGISTRY_STATEMENTS + (query->is_urgent ? LIMIT_REGISTRY_CHANGES + 1 : 0);
    bool busy = p && p->in_flight >= most;
    if (!p || p->state != POSTGRES_READY || busy) {
        int err = !p ? DG_ERR_SHUTTING_DOWN : busy ? DG_ERR_BUSY : DG_ERR_UNAVAILABLE;
        query->done(query, err, NULL, NULL);
        return;
    }
    metric_add(METRIC_REGISTRY_QUERIES, 1);
    query->sent_ns = clock_monotonic_ns();
    query->next = NULL;
    *p->last = query;
    p->last = &query->next;
    p->in_flight++;
    if (PQsendQueryPrepared(p->connection, statements[query->statement].name, (int)count,
                            parameters, NULL, NULL, 0) != 1 ||
        PQpipelineSync(p->connection) != 1)
        fail(p, PQerrorMessage(p->connection));
    else
        flush_output(p);
}
