#include "gateway/command/commands.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gateway/command/commands_internal.h"
#include "gateway/session/claims.h"

enum {
    TICK_S = 1,
    RENEW_TICKS = 5,
    LOOK_TICKS = 15,
    COLLECT_TICKS = 10,
    WATCH_TICKS = 60, /* who watches may have gone meanwhile */
    EXPIRE_ROWS = 500,
};

/* ---- statements ---- */

void commands_execute(struct commands *commands, struct registry_request *request,
                      void (*deliver)(struct mail *mail, void *receiver)) {
    request->mail.deliver = deliver;
    request->reply_to = &commands->worker->mailbox;
    request->account = registry_account_of_commands(commands->worker->index);
    request->is_own = true;
    registry_execute(commands->options->registry, request);
}

static int add_text(struct registry_request *request, const char *text) {
    return registry_request_add(request, slice_from_string(text));
}

/* Of the numbers given; the first parameter of all but one is the instance. */
static bool send_numbers(struct commands *commands, enum registry_statement statement,
                         bool with_instance, unsigned count, const int64_t *numbers,
                         void (*deliver)(struct mail *, void *)) {
    struct registry_request *request = registry_request_new(statement);
    int err = request ? 0 : DG_ERR_NO_MEMORY;
    if (err == 0 && with_instance)
        err = add_text(request, transitions_instance(commands->worker));
    for (unsigned i = 0; err == 0 && i < count; i++) {
        char text[24];
        snprintf(text, sizeof(text), "%lld", (long long)numbers[i]);
        err = add_text(request, text);
    }
    if (err < 0) {
        registry_request_free(request);
        return false;
    }
    commands_execute(commands, request, deliver);
    return true;
}

/* ---- between workers ---- */

static struct worker *home_of(const struct commands *commands, int64_t device_key) {
    const struct commands_options *options = commands->options;
    return options->workers[claims_home(device_key, options->worker_count)];
}

/* ---- creating ---- */

static struct slice put(uint8_t **at, struct slice from) {
    struct slice copy = slice_make(*at, from.size);
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    *at += from.size;
    return copy;
}

static struct creation *copy_request(const struct command_request *request) {
    struct creation *creation = malloc(sizeof(*creation) + request->name.size +
                                       request->payload.size + request->content_type.size +
                                       request->properties.size + request->idempotency_key.size);
    if (!creation)
        return NULL;
    uint8_t *at = creation->bytes;
    *creation = (struct creation){.request = *request};
    creation->request.name = put(&at, request->name);
    creation->request.payload = put(&at, request->payload);
    creation->request.content_type = put(&at, request->content_type);
    creation->request.properties = put(&at, request->properties);
    creation->request.idempotency_key = put(&at, request->idempotency_key);
    return creation;
}

static void deliver_creation(struct mail *mail, void *receiver) {
    struct creation *creation = (struct creation *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (!commands) { /* the gateway ends */
        free(creation);
        return;
    }
    creation->next = NULL;
    *commands->creations_end = creation;
    commands->creations_end = &creation->next;
    commands_send_creations(commands);
}

int commands_create(struct worker *worker, const struct command_request *request) {
    struct creation *creation = copy_request(request);
    if (!creation)
        return DG_ERR_NO_MEMORY;
    creation->asker = worker;
    creation->mail.deliver = deliver_creation;
    mailbox_post(&home_of(commands_of(worker), request->target.device_key)->mailbox,
                 &creation->mail);
    return 0;
}

/* ---- watching ---- */

static void deliver_watch(struct mail *mail, void *receiver) {
    struct command_watcher *watcher = (struct command_watcher *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    struct command *command = commands ? commands_find(commands, watcher->watch.command_key) : NULL;
    struct command alone = {.watchers = watcher};
    watcher->next = NULL;
    if (!command || command_count_watchers(command) >= LIMIT_COMMAND_WATCHERS) {
        command_tell_watchers(&alone, false);
        return;
    }
    watcher->next = command->watchers;
    command->watchers = watcher;
    if (command->unsaid == 0)
        command_tell_watchers(command, true);
}

int commands_watch(struct worker *worker, const struct command_watch *watch) {
    struct command_watcher *watcher = malloc(sizeof(*watcher));
    if (!watcher)
        return DG_ERR_NO_MEMORY;
    *watcher = (struct command_watcher){.asker = worker, .watch = *watch};
    watcher->mail.deliver = deliver_watch;
    mailbox_post(&home_of(commands_of(worker), watch->device_key)->mailbox, &watcher->mail);
    return 0;
}

/* ---- devices ---- */

struct wake {
    struct mail mail;
    int64_t device_key;
    struct command_route route;
    bool is_over;
};

static void deliver_sleep(struct commands *commands, const struct wake *wake) {
    struct command_line *line = commands_line(commands, wake->device_key);
    if (!line || line->via.owner != wake->route.owner || line->via.worker != wake->route.worker)
        return;
    line->via.owner = 0;
    line_offer(commands, line);
}

static void deliver_wake(struct mail *mail, void *receiver) {
    struct wake *wake = (struct wake *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    struct command_line *line = commands ? commands_line(commands, wake->device_key) : NULL;
    bool is_own = wake->route.device_key == wake->device_key;
    if (commands && !line && !is_own && commands->lines.count < LIMIT_COMMANDS_PER_WORKER)
        line = line_get(commands, wake->device_key);
    if (line) {
        line->prefers_own = is_own;
        line->is_elsewhere = false;
        if (!is_own)
            line->via = wake->route;
    }
    if (commands) /* when that is answered what is here is offered, behind what came before */
        commands_take(commands, wake->device_key);
    free(wake);
}

static void deliver_wake_or_sleep(struct mail *mail, void *receiver) {
    struct wake *wake = (struct wake *)(void *)mail;
    if (!wake->is_over) {
        deliver_wake(mail, receiver);
        return;
    }
    if (commands_of(receiver))
        deliver_sleep(commands_of(receiver), wake);
    free(wake);
}

static void post_wake(struct worker *worker, const struct wake *from) {
    struct commands *commands = commands_of(worker);
    struct wake *wake = commands ? malloc(sizeof(*wake)) : NULL;
    if (!wake)
        return; /* the next subscription, or command, finds it */
    *wake = *from;
    wake->route.worker = worker->index;
    wake->mail.deliver = deliver_wake_or_sleep;
    mailbox_post(&home_of(commands, wake->device_key)->mailbox, &wake->mail);
}

void commands_wake(struct worker *worker, int64_t device_key, int64_t session_device,
                   uint64_t owner) {
    post_wake(worker, &(struct wake){.device_key = device_key,
                                     .route = {.device_key = session_device, .owner = owner}});
}

void commands_sleep(struct worker *worker, int64_t device_key, uint64_t owner) {
    post_wake(worker,
              &(struct wake){.device_key = device_key, .route = {.owner = owner}, .is_over = true});
}

bool commands_route(struct worker *home, int64_t device_key, unsigned *ret_worker,
                    uint64_t *ret_owner) {
    struct commands *commands = commands_of(home);
    struct command_route route;
    if (!commands)
        return claims_find(home, device_key, ret_worker, ret_owner);
    if (!line_route(commands, commands_line(commands, device_key), device_key, &route))
        return false;
    *ret_worker = route.worker;
    *ret_owner = route.owner;
    return true;
}

static void deliver_reply(struct mail *mail, void *receiver) {
    struct reply_mail *reply =
        (struct reply_mail *)(void *)((uint8_t *)mail - offsetof(struct reply_mail, mail));
    struct commands *commands = commands_of(receiver);
    if (commands) {
        commands_on_reply(commands, reply);
        return;
    }
    commands_answer_reply(reply, DG_ERR_SHUTTING_DOWN);
    free(reply);
}

static void deliver_answer(struct mail *mail, void *receiver) {
    struct reply_back *back = (struct reply_back *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands)
        commands->options->replied(receiver, back->owner, back->tag, back->err);
    free(back);
}

void commands_answer_reply(struct reply_mail *reply, int err) {
    struct reply_back *back = reply->back;
    reply->back = NULL;
    back->err = err;
    back->mail.deliver = deliver_answer;
    mailbox_post(&reply->asker->mailbox, &back->mail);
}

int commands_reply(struct worker *worker, const struct command_reply *from) {
    if (!commands_of(worker))
        return DG_ERR_SHUTTING_DOWN;
    if (from->payload.size > LIMIT_COMMAND_REPLY_BYTES ||
        from->content_type.size > LIMIT_CALL_CONTENT_TYPE_BYTES) /* it grows as JSON */
        return DG_ERR_TOO_LARGE;
    struct reply_back *back = malloc(sizeof(*back));
    struct reply_mail *reply =
        back ? malloc(sizeof(*reply) + from->content_type.size + from->payload.size) : NULL;
    if (!reply) {
        free(back);
        return DG_ERR_NO_MEMORY;
    }
    uint8_t *at = reply->bytes;
    *back = (struct reply_back){.owner = from->owner, .tag = from->tag};
    *reply = (struct reply_mail){.asker = worker, .back = back, .reply = *from};
    reply->reply.content_type = put(&at, from->content_type);
    reply->reply.payload = put(&at, from->payload);
    reply->mail.deliver = deliver_reply;
    mailbox_post(&home_of(commands_of(worker), from->device_key)->mailbox, &reply->mail);
    return 0;
}

/* ---- what other gateways say ---- */

/* Something of this device is anybody's. */
static void notice_free(struct commands *commands, int64_t device_key) {
    if (commands_is_received(commands, device_key))
        commands_take(commands, device_key);
}

/* Another instance has this device and asks for what is held here. */
static void notice_elsewhere(struct commands *commands, int64_t device_key) {
    struct command_line *line = commands_line(commands, device_key);
    if (!line || commands_is_received(commands, device_key))
        return;
    line->is_elsewhere = true;
    line_offer(commands, line);
}

/* This instance has asked so: until it has them, it asks again. */
static void notice_barred(struct commands *commands, int64_t device_key) {
    if (device_map_reserve(&commands->barred) == 0)
        device_map_set(&commands->barred, device_key, 1);
}

void commands_notice(struct worker *worker, const char *text) {
    struct commands *commands = commands_of(worker);
    bool is_question = text[0] == '?';
    const char *name = text + is_question, *keys = strchr(name, ':');
    if (!commands->is_ready)
        return;
    if (!keys) { /* any may have been missed */
        commands_look_for_waiting(commands, 0);
        return;
    }
    bool is_own =
        slice_equals_string(slice_make(name, (size_t)(keys - name)), transitions_instance(worker));
    if (is_own && !is_question)
        return;
    do {
        char *end;
        int64_t device_key = strtoll(keys + 1, &end, 10);
        bool is_home = device_key != 0 && home_of(commands, device_key) == commands->worker;
        if (is_home && is_own)
            notice_barred(commands, device_key);
        else if (is_home && is_question)
            notice_elsewhere(commands, device_key);
        else if (is_home)
            notice_free(commands, device_key);
        keys = end;
    } while (*keys == ',');
}

static void ask_again(struct commands *commands) {
    for (uint32_t i = 0; i < commands->barred.capacity; i++)
        if (commands->barred.slots[i].key != 0)
            notice_free(commands, commands->barred.slots[i].key);
    device_map_free(&commands->barred);
}

/* ---- time ---- */

/* The first number of an answer. */
static int64_t count_of(const struct registry_request *result) {
    const char *text = result->row_count == 1 ? registry_value(result, 0, 0) : NULL;
    return text ? strtoll(text, NULL, 10) : 0;
}

static bool *collecting_of(struct commands *commands, enum registry_statement statement) {
    return statement == STATEMENT_COMMAND_COLLECT ? &commands->is_collecting
                                                  : &commands->is_collecting_jobs;
}

static void on_renewed(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands)
        commands->is_renewing = false;
    registry_request_free(result);
}

static void on_adopted(struct mail *mail, void *receiver) {
    registry_request_free((struct registry_request *)(void *)mail);
}

static void collect(struct commands *commands, enum registry_statement statement);

/* As long as there is more, one statement after the other. */
static void on_collected(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    enum registry_statement statement = result->statement;
    bool is_all =
        result->err < 0 ||
        count_of(result) < (statement == STATEMENT_COMMAND_COLLECT ? LIMIT_COMMANDS_COLLECTED : 1);
    registry_request_free(result);
    if (!commands)
        return;
    *collecting_of(commands, statement) = false;
    if (!is_all)
        collect(commands, statement);
}

static void collect(struct commands *commands, enum registry_statement statement) {
    const int64_t kept_ms[] = {(int64_t)commands->worker->config->commands_retention};
    bool *is_collecting = collecting_of(commands, statement);
    if (!*is_collecting)
        *is_collecting = send_numbers(commands, statement, false, 1, kept_ms, on_collected);
}

/* What an instance held that says nothing any more: each row of the answer is a notice. */
static void on_freed(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    if (result->err == 0 && count_of(result) > 0)
        LOG_WARN("commands.freed", log_text("why", "the gateway that held them says nothing; "
                                                   "gateway_instance names it"));
    registry_request_free(result);
}

static void on_expired(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands) {
        commands->is_expiring = false;
        if (result->err == 0 && count_of(result) > 0)
            relay_soon(commands->worker);
    }
    registry_request_free(result);
}

/* What one worker does for all. */
static void tick_of_first(struct commands *commands) {
    const int64_t lease[] = {LIMIT_INSTANCE_LEASE_MS};
    const int64_t rows[] = {EXPIRE_ROWS};
    if (!commands->is_renewing && commands->ticks % RENEW_TICKS == 0) {
        commands->is_renewing =
            send_numbers(commands, STATEMENT_INSTANCE_RENEW, true, 1, lease, on_renewed);
        (void)send_numbers(commands, STATEMENT_COMMAND_FREE, true, 1, rows, on_freed);
        (void)send_numbers(commands, STATEMENT_OUTBOX_ADOPT, true, 0, NULL, on_adopted);
    }
    if (!commands->is_expiring)
        commands->is_expiring =
            send_numbers(commands, STATEMENT_COMMAND_EXPIRE, true, 1, rows, on_expired);
    if (commands->ticks % COLLECT_TICKS == 0) {
        collect(commands, STATEMENT_COMMAND_COLLECT);
        collect(commands, STATEMENT_JOB_COLLECT);
    }
    jobs_look(commands);
}

/* A command's time is over, or what could not be said can. */
static void look_at(struct commands *commands, struct command *command) {
    bool is_over = command->finished_ms == 0 && !command->is_replied &&
                   command->expires_ms <= commands->worker->wall_ms;
    if (command->is_muted)
        command_say_again(commands, command);
    else if (is_over)
        command_advance(commands, command, COMMAND_EXPIRED, command_over);
    if (commands->ticks % WATCH_TICKS == 0)
        command_tell_watchers(command, false);
}

static void look_at_all(struct commands *commands) {
    for (uint32_t i = 0; i < commands->commands.capacity; i++)
        if (commands->commands.slots[i].key != 0)
            look_at(commands, (struct command *)(uintptr_t)commands->commands.slots[i].value);
    /* An offer that has no taker lets go of the line: it is begun anew then. */
    for (uint32_t i = 0; i < commands->lines.capacity; i++)
        if (commands->lines.slots[i].key != 0)
            line_offer(commands, (struct command_line *)(uintptr_t)commands->lines.slots[i].value);
}

static void begin_release(struct commands *commands);

static void on_tick(evutil_socket_t fd, short what, void *context) {
    struct commands *commands = context;
    worker_refresh_time(commands->worker);
    event_add(&commands->timer, &(struct timeval){.tv_sec = TICK_S});
    commands->ticks++;
    if (!commands->is_ready) {
        begin_release(commands);
        return;
    }
    look_at_all(commands);
    ask_again(commands);
    commands_send_take(commands);
    commands_send_release(commands);
    commands_look_up_parked(commands);
    if (commands->looks_left > 0 && !commands->is_looking && commands->ticks % LOOK_TICKS == 0)
        commands_look_for_held(commands);
    if (commands->worker->index == 0)
        tick_of_first(commands);
}

/* ---- life ---- */

static void deliver_ready(struct mail *mail, void *receiver) {
    struct commands *commands = commands_of(receiver);
    free(mail);
    if (!commands)
        return;
    commands->is_ready = true;
    commands_send_take(commands);
}

/* All that was is said: commands may be delivered. */
static void on_relayed(struct worker *worker) {
    struct commands *commands = commands_of(worker);
    for (unsigned i = 0; commands && i < commands->options->worker_count; i++) {
        struct mail *mail = malloc(sizeof(*mail));
        if (!mail) {
            LOG_ERROR("commands.not_ready", log_text("why", "out of memory"));
            abort();
        }
        mail->deliver = deliver_ready;
        mailbox_post(&commands->options->workers[i]->mailbox, mail);
    }
}

static void release_held(struct commands *commands);

static void on_first_release(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    bool is_all = count_of(result) < LIMIT_COMMANDS_COLLECTED;
    if (commands && result->err < 0)
        commands->is_first_release_done = false; /* with the next tick */
    else if (commands && is_all)
        relay_begin(commands->worker, on_relayed);
    else if (commands)
        release_held(commands);
    registry_request_free(result);
}

static void release_held(struct commands *commands) {
    commands->is_first_release_done =
        send_numbers(commands, STATEMENT_INSTANCE_RELEASE, true, 0, NULL, on_first_release);
}

/* When PostgreSQL says all that the process before has decided, what that one held is anybody's. */
static void begin_release(struct commands *commands) {
    const int64_t lease[] = {LIMIT_INSTANCE_LEASE_MS};
    if (commands->worker->index != 0 || commands->is_first_release_done ||
        atomic_load(&commands->options->left) > 0)
        return;
    commands->is_renewing =
        send_numbers(commands, STATEMENT_INSTANCE_RENEW, true, 1, lease, on_renewed);
    release_held(commands);
}

static void deliver_restored(struct mail *mail, void *receiver) {
    struct commands *commands = commands_of(receiver);
    free(mail);
    if (commands)
        begin_release(commands);
}

void commands_restored(struct worker *worker) {
    struct commands *commands = commands_of(worker);
    if (!commands || atomic_fetch_sub(&commands->options->left, 1) > 1)
        return;
    struct mail *mail = malloc(sizeof(*mail));
    if (!mail)
        return; /* with the next tick */
    mail->deliver = deliver_restored;
    mailbox_post(&commands->options->workers[0]->mailbox, mail);
}

int commands_worker_start(struct worker *worker, struct commands_options *options) {
    struct commands *commands = calloc(1, sizeof(*commands));
    if (!commands)
        return DG_ERR_NO_MEMORY;
    commands->worker = worker;
    commands->options = options;
    commands->creations_end = &commands->creations;
    commands->creations_most = LIMIT_COMMANDS_OF_STATEMENT;
    atomic_fetch_add(&options->left, 1);
    evtimer_assign(&commands->timer, worker->base, on_tick, commands);
    event_add(&commands->timer, &(struct timeval){.tv_sec = TICK_S});
    jobs_start(commands);
    worker->slots[WORKER_SLOT_COMMANDS] = commands;
    return relay_worker_start(worker, options->workers, options->worker_count, options->stream,
                              options->registry);
}

static void free_creations(struct creation *creation) {
    for (struct creation *next; creation; creation = next) {
        next = creation->next;
        free(creation);
    }
}

static void free_replies(struct reply_mail *reply) {
    for (struct reply_mail *next; reply; reply = next) {
        next = reply->next;
        free(reply->back);
        free(reply);
    }
}

void commands_worker_free(struct worker *worker) {
    struct commands *commands = commands_of(worker);
    if (!commands)
        return;
    evtimer_del(&commands->timer);
    jobs_stop(commands);
    worker->slots[WORKER_SLOT_COMMANDS] = NULL;
    free_creations(commands->creations);
    free_creations(commands->creating);
    free_replies(commands->replies);
    free_replies(commands->parked);
    for (uint32_t i = 0; i < commands->commands.capacity; i++) {
        struct command *command = (struct command *)(uintptr_t)commands->commands.slots[i].value;
        if (commands->commands.slots[i].key == 0)
            continue;
        command_tell_watchers(command, false);
        free(command->text);
        free(command->payload);
        free(command->reply);
        free(command);
    }
    for (uint32_t i = 0; i < commands->lines.capacity; i++)
        if (commands->lines.slots[i].key != 0)
            free((struct command_line *)(uintptr_t)commands->lines.slots[i].value);
    device_map_free(&commands->lines);
    device_map_free(&commands->commands);
    device_map_free(&commands->taken.next);
    device_map_free(&commands->taken.now);
    device_map_free(&commands->released.next);
    device_map_free(&commands->released.now);
    device_map_free(&commands->releasing);
    device_map_free(&commands->barred);
    free(commands);
}
