/* From state to state: what is said in the stream and in PostgreSQL, and who waits for it. */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/command/commands_internal.h"

const char command_over[] = "its time to live was over";

/* ---- who waits ---- */

static void deliver_watcher(struct mail *mail, void *receiver) {
    struct command_watcher *watcher = (struct command_watcher *)(void *)mail;
    watcher->watch.reached(receiver, watcher->watch.owner, watcher->is_here);
    free(watcher);
}

static void tell(struct command_watcher *watcher, bool is_here) {
    watcher->is_here = is_here;
    watcher->mail.deliver = deliver_watcher;
    mailbox_post(&watcher->asker->mailbox, &watcher->mail);
}

void command_tell_watchers(struct command *command, bool is_here) {
    struct command_watcher **at = &command->watchers;
    while (*at) {
        struct command_watcher *watcher = *at;
        bool is_reached =
            command->finished_ms != 0 ||
            command_states[command->state].rank >= command_states[watcher->watch.state].rank;
        if (is_here && !is_reached) {
            at = &watcher->next;
            continue;
        }
        *at = watcher->next;
        tell(watcher, is_here);
    }
}

unsigned command_count_watchers(const struct command *command) {
    unsigned count = 0;
    for (const struct command_watcher *w = command->watchers; w; w = w->next)
        count++;
    return count;
}

/* ---- saying it ---- */

/* One step of a command on its way to the stream and to PostgreSQL. */
struct progress {
    struct transition transition; /* first */
    char *event, *row;            /* owned */
    char id[COMMAND_ID_SIZE];
};

static void progress_free(struct progress *progress) {
    free(progress->event);
    free(progress->row);
}

void command_fill_facts(const struct command *command, struct command_facts *ret_facts) {
    *ret_facts = (struct command_facts){
        .key = command->key,
        .state = command->state,
        .name = command->text,
        .delivery_count = command->deliveries,
        .created_ms = command->created_ms,
        .expires_ms = command->expires_ms,
        .sent_ms = command->sent_ms,
        .delivered_ms = command->delivered_ms,
        .finished_ms = command->finished_ms,
        .reason = command->reason,
    };
    if (command->reply) {
        ret_facts->reply_status = command->reply->status;
        ret_facts->reply_type = command->reply->content_type;
        ret_facts->reply = command->reply->payload;
    }
}

/* False: no memory. */
static bool fill(struct transition *transition, struct progress *texts,
                 const struct command *command, const struct command_facts *facts) {
    texts->event = command_write_event(facts);
    texts->row = command_write_row(facts);
    if (!texts->event || !texts->row) {
        progress_free(texts);
        return false;
    }
    command_format_id(command->key, texts->id);
    transition->target = command->line->target;
    transition->type = command_states[facts->state].event_type;
    transition->subject = slice_from_string(texts->id);
    transition->payload = slice_from_string(texts->event);
    transition->kind = PROJECTION_COMMAND;
    transition->owner = command->key;
    transition->row = slice_from_string(texts->row);
    return true;
}

static void on_durable(struct worker *worker, struct transition *transition) {
    if (transition->err == 0)
        return;
    /* No later state says less; only the event is missing. It cannot be too large. */
    LOG_ERROR("command.not_said", log_int("command", transition->owner),
              log_text("why", dg_err_text(transition->err)));
    transition->projected(worker, transition);
}

/* PostgreSQL says what was decided: who waited for it hears, what is over is forgotten. */
static void said(struct commands *commands, int64_t command_key) {
    struct command *command = commands ? commands_find(commands, command_key) : NULL;
    if (!command)
        return;
    dg_assert(command->unsaid > 0);
    if (--command->unsaid > 0)
        return;
    command_tell_watchers(command, true);
    if (command->finished_ms != 0 && !command->is_muted)
        command_forget(commands, command);
    else if (command_is_waiting(command) || command->line->is_elsewhere)
        line_offer(commands, command->line); /* it may be let go now */
}

static void on_projected(struct worker *worker, struct transition *transition) {
    struct progress *progress = (struct progress *)(void *)transition;
    int64_t key = transition->owner;
    progress_free(progress);
    free(progress);
    said(commands_of(worker), key);
}

void command_say_again(struct commands *commands, struct command *command) {
    struct progress *progress = calloc(1, sizeof(*progress));
    struct command_facts facts;
    command_fill_facts(command, &facts);
    command->is_muted = !progress || !fill(&progress->transition, progress, command, &facts);
    if (command->is_muted) {
        free(progress);
        return;
    }
    progress->transition.insists = true;
    progress->transition.done = on_durable;
    progress->transition.projected = on_projected;
    command->unsaid++;
    transitions_append(commands->worker, &progress->transition);
}

/* Over QoS 0 nobody will ever know more. */
static bool is_end(const struct command *command, enum command_state state) {
    return command_states[state].is_final ||
           (state == COMMAND_SENT && command->is_unacknowledged && !command->wants_reply);
}

static void count_state(enum command_state state) {
    static const enum metric_id counters[COMMAND_STATE_COUNT] = {
        [COMMAND_QUEUED] = METRIC_COMMANDS_QUEUED,
        [COMMAND_SENT] = METRIC_COMMANDS_SENT,
        [COMMAND_DELIVERED] = METRIC_COMMANDS_DELIVERED,
        [COMMAND_COMPLETED] = METRIC_COMMANDS_COMPLETED,
        [COMMAND_REJECTED] = METRIC_COMMANDS_REJECTED,
        [COMMAND_ABANDONED] = METRIC_COMMANDS_ABANDONED,
        [COMMAND_EXPIRED] = METRIC_COMMANDS_EXPIRED,
        [COMMAND_DEAD_LETTERED] = METRIC_COMMANDS_DEAD_LETTERED,
        [COMMAND_CANCELLED] = METRIC_COMMANDS_CANCELLED,
    };
    metric_add(counters[state], 1);
}

static void set_state(struct command *command, enum command_state state, int64_t now_ms) {
    command->state = (uint8_t)state;
    if (state == COMMAND_SENT)
        command->sent_ms = now_ms;
    if (state == COMMAND_DELIVERED)
        command->delivered_ms = now_ms;
    if (is_end(command, state))
        command->finished_ms = now_ms;
    count_state(state);
}

void command_advance(struct commands *commands, struct command *command, enum command_state state,
                     const char *reason) {
    command->reason = reason;
    set_state(command, state, commands->worker->wall_ms);
    command_say_again(commands, command);
}

/* ---- replies ---- */

static void on_reply_durable(struct worker *worker, struct transition *transition) {
    struct reply_mail *reply = (struct reply_mail *)(void *)transition;
    struct commands *commands = commands_of(worker);
    struct command *command = commands ? commands_find(commands, reply->reply.command_key) : NULL;
    int err = transition->err;
    if (command)
        command->is_replied = false;
    if (command && err == 0) {
        bool is_done = reply->reply.status / 100 == 2;
        command->unsaid++;
        set_state(command, is_done ? COMMAND_COMPLETED : COMMAND_REJECTED, reply->finished_ms);
    }
    commands_answer_reply(reply, err);
    if (err < 0)
        transition->projected(worker, transition);
}

static void on_reply_projected(struct worker *worker, struct transition *transition) {
    struct reply_mail *reply = (struct reply_mail *)(void *)transition;
    int64_t key = transition->owner;
    int err = transition->err;
    free(reply->event);
    free(reply->row);
    free(reply);
    if (err == 0)
        said(commands_of(worker), key);
}

/* The reply is the last state's own transition: its acknowledgement waits for it. */
static bool say_reply(struct commands *commands, struct command *command,
                      struct reply_mail *reply) {
    struct progress texts;
    struct command_facts facts;
    command_fill_facts(command, &facts);
    reply->finished_ms = commands->worker->wall_ms;
    facts.state = reply->reply.status / 100 == 2 ? COMMAND_COMPLETED : COMMAND_REJECTED;
    facts.finished_ms = reply->finished_ms;
    facts.reason = NULL;
    facts.reply_status = reply->reply.status;
    facts.reply_type = reply->reply.content_type;
    facts.reply = reply->reply.payload;
    if (!fill(&reply->transition, &texts, command, &facts))
        return false;
    reply->event = texts.event;
    reply->row = texts.row;
    memcpy(reply->id, texts.id, sizeof(texts.id));
    reply->transition.subject = slice_from_string(reply->id);
    reply->transition.done = on_reply_durable;
    reply->transition.projected = on_reply_projected;
    command->is_replied = true;
    transitions_append(commands->worker, &reply->transition);
    return true;
}

static void refuse_reply(struct reply_mail *reply, int err) {
    commands_answer_reply(reply, err);
    free(reply);
}

void commands_on_reply(struct commands *commands, struct reply_mail *reply) {
    struct command *command = commands_find(commands, reply->reply.command_key);
    if (!command || commands_device_of(command) != reply->reply.device_key) {
        commands_look_up_reply(commands, reply);
        return;
    }
    bool is_answered = command->state == COMMAND_COMPLETED || command->state == COMMAND_REJECTED;
    if (command->is_replied) { /* its acknowledgement must not be earlier than the first one's */
        commands_park_reply(commands, reply);
        return;
    }
    if (command->finished_ms != 0 || command->sent_ms == 0) {
        refuse_reply(reply, is_answered ? 0 : DG_ERR_NO_CALL);
        return;
    }
    if (command->state != COMMAND_DELIVERED) /* it has it, as it says */
        command_advance(commands, command, COMMAND_DELIVERED, NULL);
    if (!say_reply(commands, command, reply))
        refuse_reply(reply, DG_ERR_NO_MEMORY);
}
