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
    PIPELINE_STATEMENTS = 64, /* more at once do not make it faster */
};

/* Any number that nobody else takes in this database. */
#define FLOOR_LOCK "4445474156"
#define FLOOR_COLUMN "sequence"
/* The last number that a sequence gave out. */
#define USED "last_value - case when is_called then 0 else 1 end"

enum postgres_state { POSTGRES_DOWN, POSTGRES_CONNECTING, POSTGRES_PREPARING, POSTGRES_READY };

/* A statement on its way: waiting here, then sent. One block with its parameters. */
struct slot {
    struct slot *next;
    struct postgres_query *query; /* NULL: nobody waits for it any more, or a setting */
    enum registry_statement statement;
    uint64_t asked_ns, sent_ns;
    uint64_t timeout_ms; /* as PostgreSQL knew it when it was sent */
    size_t size_bytes;   /* of the block, to be wiped: parameters may be secrets' hashes */
    unsigned count;
    const char *parameters[];
};

struct line {
    struct slot *first, **last;
    unsigned count;
};

struct postgres {
    struct event_base *base;
    struct postgres_options options;
    struct registry_floor floor;
    enum postgres_state state;
    bool tried; /* the first attempt to connect has come to an end: until then statements wait */
    PGconn *connection;
    struct event *socket_event; /* recreated with each connection: its descriptor changes */
    struct event *timer;        /* next attempt while down, else the sweep of deadlines */
    uint64_t state_since_ns;
    uint64_t backoff_ms;
    struct line urgent, waiting, sent;
    uint64_t first_since_ns;  /* when the first of those sent became the first: PostgreSQL's turn */
    uint64_t told_timeout_ms; /* the statement_timeout that PostgreSQL knows of */
    PGresult *result;         /* of the first one, until its Sync comes back */
    enum schema_fit schema;
    int schema_version;
    char said[256]; /* the last complaint, so that a row of failures is logged once */
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

/* ---- lines ---- */

static void line_init(struct line *line) {
    *line = (struct line){.last = &line->first};
}

static void line_add(struct line *line, struct slot *slot) {
    slot->next = NULL;
    *line->last = slot;
    line->last = &slot->next;
    line->count++;
}

static struct slot *line_take(struct line *line) {
    struct slot *slot = line->first;
    line->first = slot->next;
    if (!line->first)
        line->last = &line->first;
    line->count--;
    return slot;
}

static struct slot *slot_new(struct postgres_query *query, unsigned count,
                             const char *const *parameters) {
    size_t size = sizeof(struct slot) + count * sizeof(char *);
    for (unsigned i = 0; i < count; i++)
        size += parameters[i] ? strlen(parameters[i]) + 1 : 0;
    struct slot *slot = calloc(1, size);
    if (!slot)
        return NULL;
    char *text = (char *)&slot->parameters[count];
    for (unsigned i = 0; i < count; i++) {
        slot->parameters[i] = parameters[i] ? text : NULL;
        text = parameters[i] ? stpcpy(text, parameters[i]) + 1 : text;
    }
    slot->size_bytes = size;
    slot->count = count;
    slot->query = query;
    slot->statement = query ? query->statement : STATEMENT_COUNT;
    slot->asked_ns = clock_monotonic_ns();
    if (query)
        query->asked_ns = slot->asked_ns;
    return slot;
}

static void slot_free(struct slot *slot) {
    explicit_bzero(slot, slot->size_bytes);
    free(slot);
}

/* The statement comes back, if somebody still waits for it. */
static void slot_answer(struct slot *slot, int err, const PGresult *result, const char *detail) {
    struct postgres_query *query = slot->query;
    slot->query = NULL;
    if (query)
        query->done(query, err, result, detail);
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

static void answer_first(struct postgres *p) {
    struct slot *slot = line_take(&p->sent);
    PGresult *result = p->result;
    p->result = NULL;
    p->first_since_ns = clock_monotonic_ns();
    ExecStatusType status = result ? PQresultStatus(result) : PGRES_FATAL_ERROR;
    bool good = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    int err =
        good ? 0 : state_to_error(result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL);
    const char *detail =
        good || !result ? NULL : PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (err == DG_ERR_INTERNAL)
        LOG_ERROR("registry.statement_failed",
                  log_text("statement", slot->statement < STATEMENT_COUNT
                                            ? statements[slot->statement].name
                                            : "settings"),
                  log_text("why", detail));
    metric_observe(METRIC_REGISTRY_QUERY_LATENCY, p->first_since_ns - slot->sent_ns, 1);
    slot_answer(slot, err, good ? result : NULL, detail);
    slot_free(slot);
    PQclear(result);
}

static void answer_line(struct line *line, int err) {
    while (line->first) {
        struct slot *slot = line_take(line);
        slot_answer(slot, err, NULL, NULL);
        slot_free(slot);
    }
}

static void answer_all(struct postgres *p, int err) {
    PQclear(p->result);
    p->result = NULL;
    answer_line(&p->sent, err);
    answer_line(&p->urgent, err);
    answer_line(&p->waiting, err);
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
    p->tried = true;
    set_state(p, POSTGRES_DOWN);
    set_timer(p, p->backoff_ms + random_u64() % (p->backoff_ms / 4 + 1));
    p->backoff_ms = p->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : p->backoff_ms * 2;
    if (p->schema == SCHEMA_UNKNOWN || p->schema == SCHEMA_FITS)
        p->schema = SCHEMA_UNREACHED;
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
    uint64_t timeout_ms = p->options.timeout_ms;
    snprintf(sql, sizeof(sql), "set statement_timeout = %llu",
             (unsigned long long)(timeout_ms - timeout_ms / 10));
    p->told_timeout_ms = timeout_ms;
    /* Plans are made when tables may be empty, and kept while they grow: by their indices only. */
    return send_text(p, sql) && send_text(p, "set enable_seqscan = off");
}

static bool send_listen(struct postgres *p) {
    char sql[128];
    bool sent = true;
    for (unsigned i = 0; sent && p->options.listen && p->options.listen[i]; i++) {
        snprintf(sql, sizeof(sql), "listen %s", p->options.listen[i]);
        sent = send_text(p, sql);
    }
    return sent;
}

/* Of a sequence and the number it has to be beyond: where it stands, then moved if need be, one
 * connection after the other. */
static bool send_floor(struct postgres *p, const char *sequence, int64_t floor) {
    char sql[320];
    if (floor == 0)
        return true;
    snprintf(sql, sizeof(sql),
             "select '%s' as " FLOOR_COLUMN ", last_value, " USED " < %lld from %s", sequence,
             (long long)floor, sequence);
    if (!send_text(p, sql))
        return false;
    snprintf(sql, sizeof(sql),
             "do $$ begin perform pg_advisory_xact_lock(" FLOOR_LOCK ");"
             " perform setval('%s', %lld) from %s where " USED " < %lld; end $$",
             sequence, (long long)floor, sequence, (long long)floor);
    return send_text(p, sql);
}

static bool send_floors(struct postgres *p) {
    return send_floor(p, "stream_id_seq", p->floor.stream_id) &&
           send_floor(p, "tenant_tenant_key_seq", p->floor.tenant_key) &&
           send_floor(p, "device_device_key_seq", p->floor.device_key);
}

/* A row of send_floor(). */
static void tell_floor(const struct postgres *p, const PGresult *result) {
    if (PQntuples(result) != 1 || PQgetvalue(result, 0, 2)[0] != 't')
        return;
    LOG_WARN("registry.behind_stream", log_text("connection", p->options.name),
             log_text("sequence", PQgetvalue(result, 0, 0)),
             log_text("stood_at", PQgetvalue(result, 0, 1)),
             log_text("why",
                      "the stream has data under later numbers: PostgreSQL was restored from "
                      "an older backup"),
             log_text("effect",
                      "it is moved beyond them, so that no new tenant or device gets their data"));
}

/* The question for the schema, all statements and settings in one batch with one Sync. */
static void start_prepare(struct postgres *p) {
    set_state(p, POSTGRES_PREPARING);
    bool sent = PQsetnonblocking(p->connection, 1) == 0 &&
                PQenterPipelineMode(p->connection) == 1 && send_text(p, SCHEMA_SQL);
    for (unsigned i = 0; sent && i < STATEMENT_COUNT; i++)
        sent = PQsendPrepare(p->connection, statements[i].name, statements[i].sql,
                             statements[i].parameter_count, NULL) == 1;
    if (!sent || !send_settings(p) || !send_listen(p) || !send_floors(p) ||
        PQpipelineSync(p->connection) != 1)
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
    p->schema = SCHEMA_UNKNOWN;
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

/* ---- sending ---- */

static void add_to_sent(struct postgres *p, struct slot *slot) {
    slot->sent_ns = clock_monotonic_ns();
    slot->timeout_ms = p->told_timeout_ms;
    if (!p->sent.first)
        p->first_since_ns = slot->sent_ns;
    line_add(&p->sent, slot);
}

/* What waits goes out while the pipeline has room. */
static void send_waiting(struct postgres *p) {
    while (p->state == POSTGRES_READY && p->sent.count < PIPELINE_STATEMENTS &&
           (p->urgent.first || p->waiting.first)) {
        struct slot *slot = line_take(p->urgent.first ? &p->urgent : &p->waiting);
        add_to_sent(p, slot);
        metric_add(METRIC_REGISTRY_QUERIES, 1);
        if (PQsendQueryPrepared(p->connection, statements[slot->statement].name, (int)slot->count,
                                slot->parameters, NULL, NULL, 0) != 1 ||
            PQpipelineSync(p->connection) != 1)
            fail(p, PQerrorMessage(p->connection));
    }
}

/* Tells PostgreSQL of another deadline, behind what was sent under the old one. */
static void tell_timeout(struct postgres *p) {
    struct slot *slot = p->state == POSTGRES_READY && p->told_timeout_ms != p->options.timeout_ms
                            ? slot_new(NULL, 0, NULL)
                            : NULL;
    if (!slot)
        return;
    add_to_sent(p, slot);
    if (!send_settings(p) || PQpipelineSync(p->connection) != 1)
        fail(p, PQerrorMessage(p->connection));
}

/* ---- results ---- */

static void become_ready(struct postgres *p) {
    LOG_INFO("registry.connected", log_text("connection", p->options.name));
    p->said[0] = '\0';
    p->backoff_ms = BACKOFF_FIRST_MS;
    p->tried = true;
    set_state(p, POSTGRES_READY);
    tell_timeout(p);
    p->options.ready(p->options.context);
    send_waiting(p);
    if (p->state == POSTGRES_READY)
        flush_output(p);
}

/* The schema comes before the statements, which may not fit it. */
static bool take_schema(struct postgres *p, const PGresult *applied) {
    char why[256];
    p->schema = schema_judge(applied, &p->schema_version);
    if (p->schema == SCHEMA_FITS)
        return true;
    schema_describe(p->schema, p->schema_version, why, sizeof(why));
    fail(p, why);
    return false;
}

static void refuse_prepare(struct postgres *p, const PGresult *result) {
    static const char NO_TABLE[] = "42P01";
    char why[256];
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (p->schema == SCHEMA_UNKNOWN && state && strcmp(state, NO_TABLE) == 0) {
        p->schema = SCHEMA_OLDER; /* an empty database */
        p->schema_version = 0;
        schema_describe(p->schema, 0, why, sizeof(why));
    } else {
        snprintf(why, sizeof(why), "preparing a statement: %.200s", PQresultErrorMessage(result));
    }
    fail(p, why);
}

/* False when the connection was given up. */
static bool take_prepare_result(struct postgres *p, PGresult *result) {
    ExecStatusType status = PQresultStatus(result);
    bool good = true;
    if (status == PGRES_FATAL_ERROR) {
        refuse_prepare(p, result);
        good = false;
    } else if (status == PGRES_TUPLES_OK && strcmp(PQfname(result, 0), FLOOR_COLUMN) == 0) {
        tell_floor(p, result);
    } else if (status == PGRES_TUPLES_OK) {
        good = take_schema(p, result);
    } else if (status == PGRES_PIPELINE_SYNC) {
        become_ready(p);
    }
    PQclear(result);
    return good;
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
    while (p->connection && (p->state == POSTGRES_PREPARING || p->sent.first) &&
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
    for (PGnotify *notify; p->connection && (notify = PQnotifies(p->connection));) {
        if (p->state == POSTGRES_READY)
            p->options.notified(p->options.context, notify->relname, notify->extra);
        PQfreemem(notify);
    }
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
    send_waiting(p);
    if (p->connection && p->state != POSTGRES_CONNECTING)
        flush_output(p);
}

/* ---- deadlines ---- */

static bool is_overdue(const struct postgres *p, const struct slot *slot, uint64_t now_ns) {
    uint64_t most_ms = postgres_total_ms(p->options.timeout_ms);
    return now_ns > slot->asked_ns && now_ns - slot->asked_ns > most_ms * 1000000;
}

static void expire_waiting(struct postgres *p, struct line *line, uint64_t now_ns) {
    while (line->first && is_overdue(p, line->first, now_ns)) {
        struct slot *slot = line_take(line);
        metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
        slot_answer(slot, DG_ERR_BUSY, NULL, NULL);
        slot_free(slot);
    }
}

/* Those behind a slow one, which PostgreSQL will still work off. An answer may change the line, so
 * after each it is looked through again. */
static void expire_sent(struct postgres *p, uint64_t now_ns) {
    struct slot *slot;
    do {
        slot = p->sent.first;
        while (slot && !(slot->query && is_overdue(p, slot, now_ns)))
            slot = slot->next;
        if (slot) {
            metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
            slot_answer(slot, DG_ERR_TIMEOUT, NULL, NULL);
        }
    } while (slot);
}

static void sweep(struct postgres *p, uint64_t now_ns) {
    const struct slot *first = p->sent.first;
    if (first && now_ns - p->first_since_ns > first->timeout_ms * 1000000) {
        metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
        fail(p, "no answer within registry.query_timeout");
    } else if (!p->options.waits_for_each) {
        expire_waiting(p, &p->urgent, now_ns);
        expire_waiting(p, &p->waiting, now_ns);
        expire_sent(p, now_ns);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct postgres *p = context;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t in_state_ms = (now_ns - p->state_since_ns) / 1000000;
    if (p->state == POSTGRES_DOWN) {
        start_connect(p);
        return;
    }
    set_timer(p, SWEEP_MS);
    if (p->state != POSTGRES_READY && in_state_ms > CONNECT_TIMEOUT_MS)
        fail(p, "no answer while connecting");
    else
        sweep(p, now_ns);
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
    line_init(&p->urgent);
    line_init(&p->waiting);
    line_init(&p->sent);
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

enum schema_fit postgres_schema(const struct postgres *postgres, int *ret_version) {
    *ret_version = postgres->schema_version;
    return postgres->schema;
}

uint64_t postgres_total_ms(uint64_t timeout_ms) {
    return timeout_ms + timeout_ms / 4;
}

void postgres_set_timeout(struct postgres *p, uint64_t timeout_ms) {
    p->options.timeout_ms = timeout_ms;
    tell_timeout(p);
    if (p->state == POSTGRES_READY)
        flush_output(p);
}

void postgres_set_floor(struct postgres *p, const struct registry_floor *floor) {
    bool is_none = floor->stream_id == 0 && floor->tenant_key == 0 && floor->device_key == 0;
    p->floor = *floor;
    if (is_none || p->state == POSTGRES_DOWN)
        return;
    drop_connection(p);
    set_state(p, POSTGRES_DOWN);
    p->tried = false; /* what is asked waits */
    set_timer(p, 0);
    p->options.lost(p->options.context);
    answer_all(p, DG_ERR_UNAVAILABLE);
}

void postgres_send(struct postgres *p, struct postgres_query *query, unsigned count,
                   const char *const *parameters) {
    unsigned most = LIMIT_REGISTRY_STATEMENTS + (query->is_urgent ? LIMIT_REGISTRY_CHANGES + 1 : 0);
    bool busy = p && p->urgent.count + p->waiting.count + p->sent.count >= most;
    int err = !p ? DG_ERR_SHUTTING_DOWN : busy ? DG_ERR_BUSY : 0;
    if (p && p->state != POSTGRES_READY && p->tried)
        err = DG_ERR_UNAVAILABLE;
    struct slot *slot = err == 0 ? slot_new(query, count, parameters) : NULL;
    if (!slot) {
        query->done(query, err < 0 ? err : DG_ERR_NO_MEMORY, NULL, NULL);
        return;
    }
    line_add(query->is_urgent ? &p->urgent : &p->waiting, slot);
    send_waiting(p);
    if (p->state == POSTGRES_READY)
        flush_output(p);
}
