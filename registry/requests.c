/*
 * Statements of the provisioning API: a few connections, one statement under way on each, and lines
 * in front of them, one per account (a tenant, or an API key of the platform). A free connection
 * takes from the account that has the fewest statements under way, in turn, and while others are up
 * no account may have the last one: whoever asks for slow things waits for itself.
 *
 * An account may have so many requests out (else DG_ERR_LIMIT), all of them together so many (else
 * DG_ERR_BUSY). A request comes back within postgres_total_ms(); the connection stays taken until
 * PostgreSQL has ended its statement.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "registry/directory.h"

#include <utlist.h>

enum { SWEEP_MS = 50 };

struct account {
    struct account *prev, *next;
    int64_t key;
    unsigned out, active; /* requests not done; of them with PostgreSQL */
    struct request_query *waiting;
};

struct request_query {
    struct postgres_query query;
    struct request_query *prev, *next; /* in the account's line */
    struct registry *registry;
    struct registry_request *request; /* NULL: answered already */
    struct account *account;
    uint64_t asked_ms;
    unsigned connection;
};

struct requests {
    struct postgres *connections[LIMIT_REGISTRY_CONNECTIONS];
    struct request_query *active[LIMIT_REGISTRY_CONNECTIONS];
    struct account *accounts; /* those served last are last */
    unsigned out;
    struct event *timer; /* pending while anything is out */
    bool is_dispatching, is_closing;
};

/* ---- answering ---- */

static void reply(struct registry_request *request, int err) {
    request->err = err;
    request->mail.deliver = request->reply;
    mailbox_post(request->reply_to, &request->mail);
}

static int copy_rows(struct registry_request *request, const PGresult *result) {
    unsigned rows = (unsigned)PQntuples(result), columns = (unsigned)PQnfields(result);
    request->values = calloc((size_t)rows * columns + 1, sizeof(*request->values));
    if (!request->values)
        return DG_ERR_NO_MEMORY;
    request->row_count = rows;
    request->column_count = columns;
    for (unsigned i = 0; i < rows * columns; i++) {
        int row = (int)(i / columns), column = (int)(i % columns);
        if (PQgetisnull(result, row, column))
            continue;
        request->values[i] = strdup(PQgetvalue(result, row, column));
        if (!request->values[i])
            return DG_ERR_NO_MEMORY;
    }
    return 0;
}

static void free_query(struct requests *requests, struct request_query *q) {
    struct account *account = q->account;
    requests->out--;
    if (--account->out == 0) {
        DL_DELETE(requests->accounts, account);
        free(account);
    }
    free(q);
}

static void give_up(struct request_query *q, int err) {
    if (q->request)
        reply(q->request, err);
    q->request = NULL;
}

static void give_up_waiting(struct requests *requests, struct request_query *q, int err) {
    DL_DELETE(q->account->waiting, q);
    give_up(q, err);
    free_query(requests, q);
}

static void give_up_all_waiting(struct requests *requests, int err) {
    struct account *account, *next;
    DL_FOREACH_SAFE(requests->accounts, account, next) {
        /* The account goes with its last request. */
        for (struct request_query *q = account->waiting, *behind; q; q = behind) {
            behind = q->next;
            give_up_waiting(requests, q, err);
        }
    }
}

/* ---- taking turns ---- */

static void dispatch(struct registry *registry);

static void request_done(struct postgres_query *query, int err, const PGresult *result,
                         const char *detail) {
    struct request_query *q = (struct request_query *)(void *)query;
    struct registry *registry = q->registry;
    struct requests *requests = registry->requests;
    if (q->request) {
        q->request->detail = detail ? strdup(detail) : NULL;
        give_up(q, err == 0 ? copy_rows(q->request, result) : err);
    }
    requests->active[q->connection] = NULL;
    q->account->active--;
    free_query(requests, q);
    dispatch(registry);
}

static unsigned count_ready(const struct requests *requests) {
    unsigned ready = 0;
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++)
        ready += postgres_is_ready(requests->connections[i]);
    return ready;
}

static struct account *choose_account(struct requests *requests, unsigned share) {
    struct account *account, *best = NULL;
    DL_FOREACH(requests->accounts, account)
    if (account->waiting && account->active < share && (!best || account->active < best->active))
        best = account;
    return best;
}

/* With the one tenant that the request may see as the last parameter. */
static void send_scoped(struct postgres *connection, struct request_query *q) {
    const struct registry_request *request = q->request;
    const char *parameters[REGISTRY_PARAMETERS_MAX + 1];
    unsigned count = request->parameter_count;
    char scope[24];
    snprintf(scope, sizeof(scope), "%lld", (long long)request->scope_tenant_key);
    for (unsigned i = 0; i < count; i++)
        parameters[i] = request->parameters[i];
    if (!request->is_own)
        parameters[count++] = request->scope_tenant_key != 0 ? scope : NULL;
    postgres_send(connection, &q->query, count, parameters);
}

static void send_first(struct requests *requests, struct account *account, unsigned connection) {
    struct request_query *q = account->waiting;
    DL_DELETE(account->waiting, q);
    DL_DELETE(requests->accounts, account);
    DL_APPEND(requests->accounts, account);
    account->active++;
    requests->active[connection] = q;
    q->connection = connection;
    send_scoped(requests->connections[connection], q);
}

/* A statement may end while it is being sent; then this is entered once more and does nothing. */
static void dispatch(struct registry *registry) {
    struct requests *requests = registry->requests;
    if (requests->is_dispatching || requests->is_closing)
        return;
    requests->is_dispatching = true;
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++) {
        while (!requests->active[i] && postgres_is_ready(requests->connections[i])) {
            unsigned ready = count_ready(requests);
            struct account *account = choose_account(requests, ready > 1 ? ready - 1 : 1);
            if (!account)
                break;
            send_first(requests, account, i);
        }
    }
    requests->is_dispatching = false;
}

/* ---- beginning ---- */

static struct account *find_account(struct requests *requests, int64_t key) {
    struct account *account;
    DL_SEARCH_SCALAR(requests->accounts, account, key, key);
    if (account)
        return account;
    account = calloc(1, sizeof(*account));
    if (account) {
        account->key = key;
        DL_PREPEND(requests->accounts, account); /* never served: first among equals */
    }
    return account;
}

/* Room for one more request of this account, or the error that says why not. */
static int find_room(struct requests *requests, int64_t key, struct account **ret_account) {
    if (requests->out >= LIMIT_REGISTRY_REQUESTS)
        return DG_ERR_BUSY;
    struct account *account = find_account(requests, key);
    if (!account)
        return DG_ERR_NO_MEMORY;
    if (account->out >= LIMIT_REGISTRY_ACCOUNT_REQUESTS)
        return DG_ERR_LIMIT;
    account->out++;
    requests->out++;
    *ret_account = account;
    return 0;
}

static void set_timer(struct requests *requests) {
    static const struct timeval pause = {.tv_usec = SWEEP_MS * 1000};
    if (!evtimer_pending(requests->timer, NULL))
        evtimer_add(requests->timer, &pause);
}

static int enqueue(struct registry *registry, struct registry_request *request) {
    struct requests *requests = registry->requests;
    if (!postgres_is_ready(registry->queries) || count_ready(requests) == 0)
        return DG_ERR_UNAVAILABLE;
    struct request_query *q = calloc(1, sizeof(*q));
    if (!q)
        return DG_ERR_NO_MEMORY;
    *q = (struct request_query){.query = {.statement = request->statement, .done = request_done},
                                .registry = registry,
                                .request = request,
                                .asked_ms = clock_monotonic_ms()};
    int err = find_room(requests, request->account, &q->account);
    if (err < 0) {
        free(q);
        return err;
    }
    DL_APPEND(q->account->waiting, q);
    set_timer(requests);
    return 0;
}

void requests_begin(struct registry *registry, struct registry_request *request) {
    int err = registry->requests ? enqueue(registry, request) : DG_ERR_SHUTTING_DOWN;
    if (err < 0)
        reply(request, err);
    else
        dispatch(registry);
}

/* ---- deadlines ---- */

static bool is_overdue(const struct registry *registry, const struct request_query *q) {
    return clock_monotonic_ms() - q->asked_ms > postgres_total_ms(registry->query_timeout_ms);
}

static void expire_waiting(struct registry *registry) {
    struct account *account, *next;
    DL_FOREACH_SAFE(registry->requests->accounts, account, next) {
        struct request_query *q = account->waiting, *behind;
        for (; q && is_overdue(registry, q); q = behind) {
            behind = q->next;
            metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
            give_up_waiting(registry->requests, q, DG_ERR_BUSY);
        }
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct registry *registry = context;
    struct requests *requests = registry->requests;
    expire_waiting(registry);
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++) {
        struct request_query *q = requests->active[i];
        if (!q || !q->request || !is_overdue(registry, q))
            continue;
        metric_add(METRIC_REGISTRY_TIMEOUTS, 1);
        give_up(q, DG_ERR_TIMEOUT);
    }
    if (requests->out > 0)
        set_timer(requests);
}

/* ---- life ---- */

bool requests_are_taken(const struct registry *registry) {
    return registry->requests && count_ready(registry->requests) > 0;
}

static void on_ready(void *context) {
    changes_update_condition(context);
    dispatch(context);
}

static void on_lost(void *context) {
    struct registry *registry = context;
    if (count_ready(registry->requests) == 0)
        give_up_all_waiting(registry->requests, DG_ERR_UNAVAILABLE);
    changes_update_condition(registry);
}

static void on_notified(void *context, const char *channel, const char *text) {
}

void requests_set_timeout(struct registry *registry) {
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++)
        postgres_set_timeout(registry->requests->connections[i], registry->query_timeout_ms);
}

void requests_set_floor(struct registry *registry, const struct registry_floor *floor) {
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++)
        postgres_set_floor(registry->requests->connections[i], floor);
}

int requests_create(struct registry *registry) {
    struct requests *requests = registry->requests = calloc(1, sizeof(*requests));
    if (!requests)
        return DG_ERR_NO_MEMORY;
    requests->timer = evtimer_new(registry->base, on_timer, registry);
    struct postgres_options options = {.name = "requests",
                                       .conninfo = registry->conninfo,
                                       .password = registry->password,
                                       .timeout_ms = registry->query_timeout_ms,
                                       .waits_for_each = true,
                                       .context = registry,
                                       .ready = on_ready,
                                       .lost = on_lost,
                                       .notified = on_notified};
    int err = requests->timer ? 0 : DG_ERR_NO_MEMORY;
    for (unsigned i = 0; err == 0 && i < LIMIT_REGISTRY_CONNECTIONS; i++)
        err = postgres_create(registry->base, &options, &requests->connections[i]);
    return err;
}

void requests_close(struct registry *registry) {
    struct requests *requests = registry->requests;
    if (!requests)
        return;
    requests->is_closing = true;
    give_up_all_waiting(requests, DG_ERR_SHUTTING_DOWN);
    for (unsigned i = 0; i < LIMIT_REGISTRY_CONNECTIONS; i++)
        postgres_free(requests->connections[i]);
    if (requests->timer)
        event_free(requests->timer);
    free(requests);
    registry->requests = NULL;
}
