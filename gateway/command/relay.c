#include "gateway/command/relay.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/command/transitions.h"
#include "gateway/session/claims.h"
#include "gateway/session/device_map.h"

enum { PAGE_ROWS = 500, LOOK_MS = 10000, RETRY_MS = 1000 };

/* A row on its way: read, appended, then to be deleted. */
struct relayed {
    struct transition transition; /* first */
    struct mail mail;
    struct relayed *next;
    int64_t outbox_key; /* also the state's key, as it stands in memory */
    int64_t home_key;   /* the device's; 0: it has gone */
    size_t size_bytes;
    char id[24];
    uint8_t bytes[];
};

struct relay {
    struct worker *worker;
    struct worker **workers;
    unsigned worker_count;
    struct stream *stream;
    struct registry *registry;
    struct device_map under_way;             /* outbox key -> 1 */
    atomic_size_t under_way_bytes;           /* of the first worker: of all; any thread */
    struct relayed *appended;                /* to be deleted in PostgreSQL ... */
    struct relayed *being_deleted;           /* ... by the statement under way */
    struct relayed *deleted;                 /* of the first worker: by others, while it reads */
    struct device_map leftovers;             /* likewise: states from before the start */
    struct event timer;                      /* of the first worker: looks; of all: deletes again */
    void (*finished)(struct worker *worker); /* of the first look; then NULL */
    int64_t read_after;
    bool is_reading, read_again;
};

typedef void mail_deliver_fn(struct mail *mail, void *receiver);

static struct relay *relay_of(const struct worker *worker) {
    return worker->slots[WORKER_SLOT_RELAY];
}

static struct relayed *row_of_mail(struct mail *mail) {
    return (struct relayed *)(void *)((uint8_t *)mail - offsetof(struct relayed, mail));
}

static void set_timer(struct relay *relay, unsigned ms) {
    struct timeval pause = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    evtimer_add(&relay->timer, &pause);
}

static void count_bytes(struct relay *relay, const struct relayed *row, bool is_end) {
    struct relay *first = relay_of(relay->workers[0]);
    if (first) /* else the gateway ends */
        atomic_fetch_add(&first->under_way_bytes, is_end ? 0 - row->size_bytes : row->size_bytes);
}

static void begin_row(struct relay *relay, const struct relayed *row) {
    device_map_set(&relay->under_way, row->outbox_key, 1);
    count_bytes(relay, row, false);
    metric_add(METRIC_OUTBOX_WAITING, 1);
}

static void end_row(struct relay *relay, const struct relayed *row) {
    device_map_remove(&relay->under_way, row->outbox_key);
    count_bytes(relay, row, true);
    metric_add(METRIC_OUTBOX_WAITING, -1);
}

/* ---- deleting ---- */

static void delete_appended(struct relay *relay);

static void state_gone(struct worker *worker, struct transition *transition) {
    free(transition);
}

static void delete_state(struct relay *relay, struct relayed *row) {
    row->transition =
        (struct transition){.type = EVENT_TYPE_COUNT,
                            .state = {.name_space = STREAM_STATE_OUTBOX,
                                      .is_delete = true,
                                      .key = slice_make(&row->outbox_key, sizeof(row->outbox_key))},
                            .done = state_gone};
    transitions_append(relay->worker, &row->transition);
}

/* Nothing that is being read says it any more. */
static void deliver_forgotten(struct mail *mail, void *receiver) {
    struct relayed *row = row_of_mail(mail);
    struct relay *relay = relay_of(receiver);
    if (!relay) {
        free(row);
        return;
    }
    end_row(relay, row);
    delete_state(relay, row);
}

static void send_home(struct relay *relay, struct relayed *row, mail_deliver_fn *deliver) {
    unsigned home = claims_home(row->home_key, relay->worker_count);
    row->mail.deliver = deliver;
    mailbox_post(&relay->workers[home]->mailbox, &row->mail);
}

/* On the first worker. What it is reading may have been read before the row was deleted. */
static void deliver_deleted(struct mail *mail, void *receiver) {
    struct relayed *row = row_of_mail(mail);
    struct relay *relay = relay_of(receiver);
    if (!relay) {
        free(row);
    } else if (relay->is_reading) {
        row->next = relay->deleted;
        relay->deleted = row;
    } else {
        send_home(relay, row, deliver_forgotten);
    }
}

/* PostgreSQL has the row no more. */
static void forget_deleted(struct relay *relay, struct relayed *row) {
    row->mail.deliver = deliver_deleted;
    mailbox_post(&relay->workers[0]->mailbox, &row->mail);
}

static void on_deleted(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    struct relay *relay = relay_of(receiver);
    int err = request->err;
    registry_request_free(request);
    if (!relay)
        return;
    struct relayed *row = relay->being_deleted;
    relay->being_deleted = NULL;
    for (struct relayed *next; row; row = next) {
        next = row->next;
        if (err == 0) {
            forget_deleted(relay, row);
        } else {
            row->next = relay->appended;
            relay->appended = row;
        }
    }
    if (err == 0)
        delete_appended(relay);
    else
        set_timer(relay, RETRY_MS);
}

enum { KEY_SIZE = 21, KEYS_MOST = 1000 };

/* "{1,2,3}"; takes the rows that it names from the list. */
static int name_rows(struct relay *relay, struct registry_request *request) {
    char *text = malloc(KEYS_MOST * KEY_SIZE + 3);
    if (!text)
        return DG_ERR_NO_MEMORY;
    int size = 0;
    for (unsigned i = 0; relay->appended && i < KEYS_MOST; i++) {
        struct relayed *row = relay->appended;
        relay->appended = row->next;
        row->next = relay->being_deleted;
        relay->being_deleted = row;
        size += sprintf(text + size, "%c%lld", i == 0 ? '{' : ',', (long long)row->outbox_key);
    }
    text[size++] = '}';
    int err = registry_request_add(request, slice_make(text, (size_t)size));
    free(text);
    return err;
}

static void send_request(struct relay *relay, struct registry_request *request,
                         void (*deliver)(struct mail *, void *)) {
    request->mail.deliver = deliver;
    request->reply_to = &relay->worker->mailbox;
    request->account = registry_account_of_commands(relay->worker->index);
    request->is_own = true;
    registry_execute(relay->registry, request);
}

static void delete_appended(struct relay *relay) {
    if (relay->being_deleted || !relay->appended)
        return;
    struct registry_request *request = registry_request_new(STATEMENT_OUTBOX_DELETE);
    int err = request ? name_rows(relay, request) : DG_ERR_NO_MEMORY;
    if (err == 0) {
        send_request(relay, request, on_deleted);
        return;
    }
    for (struct relayed *row; (row = relay->being_deleted);) {
        relay->being_deleted = row->next;
        row->next = relay->appended;
        relay->appended = row;
    }
    registry_request_free(request);
    set_timer(relay, RETRY_MS);
}

/* ---- appending ---- */

static void add_appended(struct relay *relay, struct relayed *row) {
    row->next = relay->appended;
    relay->appended = row;
    delete_appended(relay);
}

static void on_appended(struct worker *worker, struct transition *transition) {
    struct relayed *row = (struct relayed *)(void *)transition;
    struct relay *relay = relay_of(worker);
    if (transition->err == 0 && relay)
        add_appended(relay, row);
    else {
        if (relay) /* it is read again */
            end_row(relay, row);
        free(row);
    }
}

static struct relayed *make(const struct relay_row *from) {
    size_t size_bytes = sizeof(struct relayed) + from->subject.size + from->payload.size;
    struct relayed *row = malloc(size_bytes);
    if (!row)
        return NULL;
    row->size_bytes = size_bytes;
    uint8_t *payload = row->bytes + from->subject.size;
    if (from->subject.size > 0)
        memcpy(row->bytes, from->subject.data, from->subject.size);
    memcpy(payload, from->payload.data, from->payload.size);
    row->outbox_key = from->outbox_key;
    row->home_key = from->target.device_key;
    int size = snprintf(row->id, sizeof(row->id), "o%lld", (long long)from->outbox_key);
    row->transition =
        (struct transition){.target = from->target,
                            .type = from->type,
                            .subject = slice_make(row->bytes, from->subject.size),
                            .payload = slice_make(payload, from->payload.size),
                            .id = slice_make(row->id, (size_t)size),
                            .state = {.name_space = STREAM_STATE_OUTBOX,
                                      .key = slice_make(&row->outbox_key, sizeof(row->outbox_key)),
                                      .value = slice_make("", 0)},
                            .insists = true,
                            .done = on_appended};
    return row;
}

/* Whether the stream has it since before the start, or it is on its way. */
static void append_row(struct relay *relay, struct relayed *row) {
    uint64_t found;
    uint8_t nothing[1];
    if (device_map_get(&relay->under_way, row->outbox_key, &found) ||
        device_map_reserve(&relay->under_way) < 0) {
        free(row);
        return;
    }
    begin_row(relay, row);
    if (row->home_key == 0 || /* there is nothing to say of it */
        stream_find_state(relay->stream, STREAM_STATE_OUTBOX, row->transition.state.key, nothing,
                          0) >= 0)
        add_appended(relay, row);
    else
        transitions_append(relay->worker, &row->transition);
}

void relay_append(struct worker *worker, const struct relay_row *from) {
    struct relayed *row = make(from);
    if (row)
        append_row(relay_of(worker), row);
}

/* ---- reading ---- */

enum outbox_column {
    COLUMN_OUTBOX_KEY,
    COLUMN_KIND,
    COLUMN_DEVICE_KEY,
    COLUMN_TENANT_KEY,
    COLUMN_STREAM_ID,
    COLUMN_PARTITION,
    COLUMN_TENANT,
    COLUMN_DEVICE,
    COLUMN_DETAIL,
    COLUMN_COMMAND_KEY,
    COLUMN_NAME,
    COLUMN_DELIVERY_COUNT,
    COLUMN_CREATED,
    COLUMN_EXPIRES,
    COLUMN_REASON,
};

static int64_t number_at(const struct registry_request *result, unsigned row, unsigned column) {
    const char *text = registry_value(result, row, column);
    return text ? strtoll(text, NULL, 10) : 0;
}

static void read_target(const struct registry_request *result, unsigned row,
                        struct command_target *target) {
    target->tenant_key = number_at(result, row, COLUMN_TENANT_KEY);
    target->stream_id = number_at(result, row, COLUMN_STREAM_ID);
    target->device_key = number_at(result, row, COLUMN_DEVICE_KEY);
    target->partition = (uint32_t)number_at(result, row, COLUMN_PARTITION);
    snprintf(target->tenant, sizeof(target->tenant), "%s",
             registry_value(result, row, COLUMN_TENANT));
    snprintf(target->device, sizeof(target->device), "%s",
             registry_value(result, row, COLUMN_DEVICE));
}

static char *write_command(const struct registry_request *result, unsigned row,
                           enum command_state state) {
    const char *name = registry_value(result, row, COLUMN_NAME);
    return command_write_event(&(struct command_facts){
        .key = number_at(result, row, COLUMN_COMMAND_KEY),
        .state = state,
        .name = name ? name : "",
        .delivery_count = (unsigned)number_at(result, row, COLUMN_DELIVERY_COUNT),
        .created_ms = number_at(result, row, COLUMN_CREATED),
        .expires_ms = number_at(result, row, COLUMN_EXPIRES),
        .reason = state == COMMAND_QUEUED ? NULL : registry_value(result, row, COLUMN_REASON),
    });
}

/* What the event of a row is; its text, freed with free(). NULL: nobody can say (the device has
 * gone, with all that would be told of it), or no memory. */
static char *write_payload(const struct registry_request *result, unsigned row,
                           struct relay_row *to, char id[COMMAND_ID_SIZE]) {
    static const char prefix[] = "command.";
    const char *kind = registry_value(result, row, COLUMN_KIND);
    const char *detail = registry_value(result, row, COLUMN_DETAIL);
    if (!registry_value(result, row, COLUMN_DEVICE) || !registry_value(result, row, COLUMN_TENANT))
        return NULL;
    if (strncmp(kind, prefix, sizeof(prefix) - 1) == 0) {
        enum command_state state = command_state_find(slice_from_string(kind + sizeof(prefix) - 1));
        if (state == COMMAND_STATE_COUNT || !registry_value(result, row, COLUMN_COMMAND_KEY))
            return NULL;
        command_format_id(number_at(result, row, COLUMN_COMMAND_KEY), id);
        to->subject = slice_from_string(id);
        to->type = command_states[state].event_type;
        return write_command(result, row, state);
    }
    if (strcmp(kind, "state.desired") != 0 || !detail)
        return NULL;
    to->type = EVENT_STATE_DESIRED;
    to->subject = slice_from_string("desired");
    return strdup(detail);
}

static void deliver_row(struct mail *mail, void *receiver) {
    struct relayed *row = row_of_mail(mail);
    struct relay *relay = relay_of(receiver);
    if (relay)
        append_row(relay, row);
    else
        free(row);
}

static bool pass_on(struct relay *relay, const struct registry_request *result, unsigned at) {
    struct relay_row row = {.outbox_key = number_at(result, at, COLUMN_OUTBOX_KEY)};
    char id[COMMAND_ID_SIZE];
    char *payload = write_payload(result, at, &row, id);
    if (payload) {
        read_target(result, at, &row.target);
        row.payload = slice_from_string(payload);
    } else {
        row.payload = slice_from_string("");
    }
    struct relayed *copy = make(&row);
    free(payload);
    if (!copy)
        return false;
    send_home(relay, copy, deliver_row);
    return true;
}

static void look(struct relay *relay);
static void delete_leftovers(struct relay *relay);

static void finish_look(struct relay *relay, bool is_whole) {
    relay->is_reading = false;
    for (struct relayed *row; (row = relay->deleted);) {
        relay->deleted = row->next;
        send_home(relay, row, deliver_forgotten);
    }
    if (is_whole && relay->finished) {
        relay->finished(relay->worker);
        relay->finished = NULL;
        delete_leftovers(relay);
    }
    set_timer(relay, !is_whole ? RETRY_MS : relay->read_again ? 0 : LOOK_MS);
}

static void on_read(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct relay *relay = relay_of(receiver);
    bool is_good = result->err == 0;
    for (unsigned row = 0; relay && is_good && row < result->row_count; row++) {
        is_good = pass_on(relay, result, row);
        relay->read_after = number_at(result, row, COLUMN_OUTBOX_KEY);
    }
    bool more = is_good && result->row_count == PAGE_ROWS;
    registry_request_free(result);
    if (!relay)
        return;
    if (more && atomic_load(&relay->under_way_bytes) > LIMIT_RELAYED_BYTES)
        finish_look(relay, false); /* the rest when some of these are deleted */
    else if (more)
        look(relay);
    else
        finish_look(relay, is_good);
}

static int add_number(struct registry_request *request, int64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    return registry_request_add(request, slice_from_string(text));
}

static void look(struct relay *relay) {
    struct registry_request *request = registry_request_new(STATEMENT_OUTBOX_READ);
    int err = request ? registry_request_add(request,
                                             slice_from_string(transitions_instance(relay->worker)))
                      : DG_ERR_NO_MEMORY;
    if (err == 0)
        err = add_number(request, relay->read_after);
    if (err == 0)
        err = registry_request_add(request, slice_from_string(relay->finished ? "true" : "false"));
    if (err == 0)
        err = add_number(request, PAGE_ROWS);
    relay->is_reading = true;
    if (err == 0) {
        send_request(relay, request, on_read);
        return;
    }
    registry_request_free(request);
    finish_look(relay, false);
}

/* ---- what was left ---- */

static void note_leftover(void *context, struct slice key, struct slice value) {
    struct device_map *leftovers = context;
    int64_t outbox_key;
    if (key.size != sizeof(outbox_key) || device_map_reserve(leftovers) < 0)
        return; /* without memory: at the next start */
    memcpy(&outbox_key, key.data, sizeof(outbox_key));
    device_map_set(leftovers, outbox_key, 1);
}

static void on_gone(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct relay *relay = relay_of(receiver);
    for (unsigned row = 0; relay && result->err == 0 && row < result->row_count; row++) {
        struct relayed *gone = calloc(1, sizeof(*gone));
        if (!gone)
            break; /* at the next start */
        gone->outbox_key = number_at(result, row, 0);
        delete_state(relay, gone);
    }
    registry_request_free(result);
}

/* States whose rows were deleted, though that was not heard any more: nothing will ask for them.
 * Those that are too many for one statement go with a later start. */
static void delete_leftovers(struct relay *relay) {
    struct registry_request *request =
        relay->leftovers.count > 0 ? registry_request_new(STATEMENT_OUTBOX_GONE) : NULL;
    char *text = request ? malloc(KEYS_MOST * KEY_SIZE + 3) : NULL;
    int size = 0;
    for (uint32_t i = 0, count = 0; text && i < relay->leftovers.capacity && count < KEYS_MOST; i++)
        if (relay->leftovers.slots[i].key != 0)
            size += sprintf(text + size, "%c%lld", count++ == 0 ? '{' : ',',
                            (long long)relay->leftovers.slots[i].key);
    device_map_free(&relay->leftovers);
    if (text)
        text[size++] = '}';
    if (text && registry_request_add(request, slice_make(text, (size_t)size)) == 0)
        send_request(relay, request, on_gone);
    else
        registry_request_free(request);
    free(text);
}

static void begin_look(struct relay *relay) {
    relay->read_after = 0;
    relay->read_again = false;
    look(relay);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct relay *relay = context;
    worker_refresh_time(relay->worker);
    delete_appended(relay);
    if (relay->worker->index == 0 && !relay->is_reading)
        begin_look(relay);
}

void relay_begin(struct worker *worker, void (*finished)(struct worker *worker)) {
    struct relay *relay = relay_of(worker);
    relay->finished = finished;
    begin_look(relay);
}

static void deliver_soon(struct mail *mail, void *receiver) {
    struct relay *relay = relay_of(receiver);
    free(mail);
    if (!relay)
        return;
    relay->read_again = true;
    if (!relay->is_reading)
        set_timer(relay, 0);
}

void relay_soon(struct worker *worker) {
    struct relay *relay = relay_of(worker);
    struct mail *mail = malloc(sizeof(*mail));
    if (!mail)
        return; /* it looks by itself before long */
    mail->deliver = deliver_soon;
    mailbox_post(&relay->workers[0]->mailbox, mail);
}

/* ---- life ---- */

int relay_worker_start(struct worker *worker, struct worker **workers, unsigned count,
                       struct stream *stream, struct registry *registry) {
    struct relay *relay = calloc(1, sizeof(*relay));
    if (!relay)
        return DG_ERR_NO_MEMORY;
    *relay = (struct relay){.worker = worker,
                            .workers = workers,
                            .worker_count = count,
                            .stream = stream,
                            .registry = registry};
    if (worker->index == 0)
        stream_visit_state(stream, STREAM_STATE_OUTBOX, note_leftover, &relay->leftovers);
    evtimer_assign(&relay->timer, worker->base, on_timer, relay);
    worker->slots[WORKER_SLOT_RELAY] = relay;
    return 0;
}

static void free_rows(struct relayed *row) {
    for (struct relayed *next; row; row = next) {
        next = row->next;
        free(row);
    }
}

void relay_worker_free(struct worker *worker) {
    struct relay *relay = relay_of(worker);
    if (!relay)
        return;
    evtimer_del(&relay->timer);
    free_rows(relay->appended);
    free_rows(relay->being_deleted);
    free_rows(relay->deleted);
    device_map_free(&relay->leftovers);
    device_map_free(&relay->under_way);
    worker->slots[WORKER_SLOT_RELAY] = NULL;
    free(relay);
}
