#include "gateway/command/calls.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "common/random.h"
#include "common/utf8.h"
#include "gateway/command/commands.h"
#include "gateway/mqtt/packet.h"
#include "gateway/session/claims.h"
#include "gateway/session/device_map.h"

enum {
    RETRY_MS = 100,
    TOPIC_SIZE = LIMIT_METHOD_NAME_BYTES + 64,
    PROPERTIES_SIZE = LIMIT_CALL_CONTENT_TYPE_BYTES + 128
};

/* The asker gives up later than the holder: a timer's clock is coarse, and a reply that was taken
 * in time is on its way. */
enum { LAST_MAIL_MS = 100 };

/* What travels: made by the asker, freed by whoever finds nobody to give it back to. */
struct parcel {
    struct outbox_message message; /* first: the outbox knows no more */
    struct mail mail;
    struct worker *asker;
    int64_t call;    /* the asker's id */
    uint64_t holder; /* the session that receives for the device */
    uint8_t bytes[];
};

struct call {
    struct event timer;
    struct worker *worker;
    struct parcel *parcel; /* between two tries; else it is on its way */
    void (*answered)(struct worker *worker, uint64_t owner, const struct call_answer *answer);
    bool (*is_wanted)(struct worker *worker, uint64_t owner);
    uint64_t owner;
    int64_t id, tenant_key;
    uint64_t connect_until_ms;
    uint32_t response_timeout_ms;
    size_t size_bytes; /* charged */
};

struct calls {
    struct worker *worker;
    struct worker **workers;
    unsigned worker_count;
    calls_deliver_fn *deliver;
    int64_t last_id;           /* never used again */
    struct device_map calls;   /* id -> struct call * */
    struct device_map tenants; /* tenant key -> number of its calls */
    size_t size_bytes;
};

static struct calls *calls_of(struct worker *worker) {
    return worker->slots[WORKER_SLOT_CALLS];
}

static struct call *call_find(const struct calls *calls, int64_t id) {
    uint64_t value = 0;
    (void)device_map_get(&calls->calls, id, &value);
    return (struct call *)(uintptr_t)value;
}

static uint64_t now_ms(const struct worker *worker) {
    return worker->now_ns / 1000000;
}

/* ---- parcels ---- */

static void parcel_free(struct parcel *parcel) {
    outbox_message_free_parts(&parcel->message);
    free(parcel);
}

static struct parcel *parcel_of_mail(struct mail *mail) {
    return (struct parcel *)(void *)((uint8_t *)mail - offsetof(struct parcel, mail));
}

static void deliver_back(struct mail *mail, void *receiver);

static void on_finished(struct outbox_message *message) {
    struct parcel *parcel = (struct parcel *)(void *)message;
    parcel->mail.deliver = deliver_back;
    mailbox_post(&parcel->asker->mailbox, &parcel->mail);
}

static void give_back(struct parcel *parcel, int err) {
    parcel->message.outcome = OUTBOX_DROPPED;
    parcel->message.err = (int8_t)err;
    on_finished(&parcel->message);
}

static void write_properties(struct writer *w, const struct call_request *request) {
    struct slice type = request->content_type;
    struct mqtt_properties properties = {.content_type = type};
    bool is_text = slice_starts_with(type, "application/json") || slice_starts_with(type, "text/");
    if (is_text && utf8_is_valid(request->payload.data, request->payload.size)) {
        properties.payload_format = 1;
        properties.present |= 1u << MQTT_PROPERTY_PAYLOAD_FORMAT;
    }
    if (type.size > 0)
        properties.present |= 1u << MQTT_PROPERTY_CONTENT_TYPE;
    mqtt_write_properties(w, &properties);
}

static struct parcel *parcel_new(struct worker *asker, const struct call_request *request) {
    struct parcel *parcel = malloc(sizeof(*parcel) + TOPIC_SIZE + PROPERTIES_SIZE);
    uint8_t *payload = malloc(request->payload.size + 1);
    if (!parcel || !payload) {
        free(parcel);
        free(payload);
        return NULL;
    }
    if (request->payload.size > 0)
        memcpy(payload, request->payload.data, request->payload.size);
    *parcel = (struct parcel){.asker = asker};
    struct outbox_message *message = &parcel->message;
    message->finished = on_finished;
    message->payload = payload;
    message->payload_size = (uint32_t)request->payload.size;
    message->device_key = request->device_key;
    message->wants_reply = true;
    message->qos = 2;
    snprintf(message->reply_id, sizeof(message->reply_id), "%016llx",
             (unsigned long long)random_u64());
    int size =
        snprintf((char *)parcel->bytes, TOPIC_SIZE, "$dg/commands/%s/%.*s", message->reply_id,
                 (int)request->name.size, (const char *)request->name.data);
    message->topic = slice_make(parcel->bytes, (size_t)size);
    struct writer w = writer_make(parcel->bytes + TOPIC_SIZE, PROPERTIES_SIZE);
    write_properties(&w, request);
    dg_assert(size < TOPIC_SIZE && !w.failed);
    message->properties = slice_make(w.start, writer_size(&w));
    return parcel;
}

/* ---- on the way ---- */

static void at_holder(struct worker *worker, struct parcel *parcel) {
    const struct calls *calls = calls_of(worker);
    if (!calls) { /* the gateway ends */
        parcel_free(parcel);
        return;
    }
    int err = calls->deliver(worker, parcel->holder, &parcel->message);
    if (err < 0)
        give_back(parcel, err);
}

static void deliver_at_holder(struct mail *mail, void *receiver) {
    at_holder(receiver, parcel_of_mail(mail));
}

static void at_home(struct worker *worker, struct parcel *parcel) {
    const struct calls *calls = calls_of(worker);
    unsigned holder;
    if (!calls) {
        parcel_free(parcel);
        return;
    }
    if (!commands_route(worker, parcel->message.device_key, &holder, &parcel->holder)) {
        give_back(parcel, DG_ERR_NOT_CONNECTED);
        return;
    }
    parcel->mail.deliver = deliver_at_holder;
    if (holder == worker->index)
        at_holder(worker, parcel);
    else
        mailbox_post(&calls->workers[holder]->mailbox, &parcel->mail);
}

static void deliver_at_home(struct mail *mail, void *receiver) {
    at_home(receiver, parcel_of_mail(mail));
}

/* ---- at the asker ---- */

static void set_timer(struct call *call, uint32_t after_ms) {
    struct timeval after = {.tv_sec = after_ms / 1000, .tv_usec = after_ms % 1000 * 1000};
    event_add(&call->timer, &after);
}

static void try_now(struct calls *calls, struct call *call, struct parcel *parcel) {
    call->parcel = NULL;
    parcel->message.expires_ms = now_ms(calls->worker) + call->response_timeout_ms;
    set_timer(call, call->response_timeout_ms + LAST_MAIL_MS);
    unsigned home = claims_home(parcel->message.device_key, calls->worker_count);
    parcel->mail.deliver = deliver_at_home;
    if (home == calls->worker->index)
        at_home(calls->worker, parcel);
    else
        mailbox_post(&calls->workers[home]->mailbox, &parcel->mail);
}

static uint64_t tenant_calls(const struct calls *calls, int64_t tenant_key) {
    uint64_t count = 0;
    (void)device_map_get(&calls->tenants, tenant_key, &count);
    return count;
}

static void forget(struct calls *calls, struct call *call) {
    uint64_t left = tenant_calls(calls, call->tenant_key) - 1;
    if (left > 0)
        device_map_set(&calls->tenants, call->tenant_key, left);
    else
        device_map_remove(&calls->tenants, call->tenant_key);
    device_map_remove(&calls->calls, call->id);
    calls->size_bytes -= call->size_bytes;
    event_del(&call->timer);
    free(call);
}

static void count_answer(int err) {
    bool is_offline = err == DG_ERR_NOT_CONNECTED || err == DG_ERR_NOT_FOUND;
    bool is_late = err == DG_ERR_TIMEOUT || err == DG_ERR_CLOSED;
    metric_add(err == 0     ? METRIC_CALLS_ANSWERED
               : is_offline ? METRIC_CALLS_OFFLINE
               : is_late    ? METRIC_CALLS_UNANSWERED
                            : METRIC_CALLS_REFUSED,
               1);
}

/* The call is over. */
static void answer(struct calls *calls, struct call *call, const struct call_answer *how) {
    struct call copy = *call;
    forget(calls, call);
    count_answer(how->err);
    copy.answered(copy.worker, copy.owner, how);
}

static void came_back(struct calls *calls, struct call *call, struct parcel *parcel) {
    const struct outbox_message *message = &parcel->message;
    bool may_come = message->err == DG_ERR_NOT_CONNECTED || message->err == DG_ERR_NOT_FOUND;
    if (may_come && now_ms(calls->worker) + RETRY_MS <= call->connect_until_ms) {
        call->parcel = parcel;
        set_timer(call, RETRY_MS);
        return;
    }
    struct call_answer how = {
        .err = message->err, .reason = message->reason, .reply = message->reply};
    answer(calls, call, &how);
    parcel_free(parcel);
}

static void deliver_back(struct mail *mail, void *receiver) {
    struct parcel *parcel = parcel_of_mail(mail);
    struct calls *calls = calls_of(receiver);
    struct call *call = calls ? call_find(calls, parcel->call) : NULL;
    if (call)
        came_back(calls, call, parcel);
    else
        parcel_free(parcel);
}

/* What nobody waits for is not done when the device comes. */
static void try_again(struct calls *calls, struct call *call) {
    struct parcel *parcel = call->parcel;
    if (!call->is_wanted || call->is_wanted(call->worker, call->owner)) {
        try_now(calls, call, parcel);
        return;
    }
    forget(calls, call);
    parcel_free(parcel);
    count_answer(DG_ERR_CLOSED);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct call *call = context;
    struct calls *calls = calls_of(call->worker);
    worker_refresh_time(call->worker);
    if (call->parcel)
        try_again(calls, call);
    else
        answer(calls, call, &(struct call_answer){.err = DG_ERR_TIMEOUT});
}

/* ---- beginning ---- */

static int check_room(struct calls *calls, const struct call_request *request) {
    if (tenant_calls(calls, request->tenant_key) >= LIMIT_CALLS_OF_TENANT)
        return DG_ERR_LIMIT;
    if (calls->calls.count >= LIMIT_CALLS_PER_WORKER ||
        calls->size_bytes + request->payload.size > LIMIT_CALL_BYTES_PER_WORKER)
        return DG_ERR_BUSY;
    int err = device_map_reserve(&calls->calls);
    return err == 0 ? device_map_reserve(&calls->tenants) : err;
}

int calls_begin(struct worker *worker, const struct call_request *request) {
    struct calls *calls = calls_of(worker);
    int err = check_room(calls, request);
    if (err < 0)
        return err;
    struct call *call = malloc(sizeof(*call));
    struct parcel *parcel = parcel_new(worker, request);
    if (!call || !parcel) {
        free(call);
        if (parcel)
            parcel_free(parcel);
        return DG_ERR_NO_MEMORY;
    }
    *call = (struct call){.worker = worker,
                          .answered = request->answered,
                          .is_wanted = request->is_wanted,
                          .owner = request->owner,
                          .id = ++calls->last_id,
                          .tenant_key = request->tenant_key,
                          .connect_until_ms = now_ms(worker) + request->connect_timeout_ms,
                          .response_timeout_ms = request->response_timeout_ms,
                          .size_bytes = request->payload.size};
    event_assign(&call->timer, worker->base, -1, 0, on_timer, call);
    parcel->call = call->id;
    device_map_set(&calls->calls, call->id, (uintptr_t)call);
    device_map_set(&calls->tenants, call->tenant_key, tenant_calls(calls, call->tenant_key) + 1);
    calls->size_bytes += call->size_bytes;
    try_now(calls, call, parcel);
    return 0;
}

/* ---- life ---- */

int calls_worker_start(struct worker *worker, struct worker **workers, unsigned count,
                       calls_deliver_fn *deliver) {
    struct calls *calls = calloc(1, sizeof(*calls));
    if (!calls)
        return DG_ERR_NO_MEMORY;
    *calls = (struct calls){
        .worker = worker, .workers = workers, .worker_count = count, .deliver = deliver};
    worker->slots[WORKER_SLOT_CALLS] = calls;
    return 0;
}

void calls_worker_free(struct worker *worker) {
    struct calls *calls = calls_of(worker);
    if (!calls)
        return;
    for (uint32_t i = 0; i < calls->calls.capacity; i++) {
        struct call *call = (struct call *)(uintptr_t)calls->calls.slots[i].value;
        if (calls->calls.slots[i].key == 0)
            continue;
        if (call->parcel)
            parcel_free(call->parcel);
        event_del(&call->timer);
        free(call);
    }
    device_map_free(&calls->calls);
    device_map_free(&calls->tenants);
    free(calls);
    worker->slots[WORKER_SLOT_CALLS] = NULL;
}
