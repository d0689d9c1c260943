/* From a home to the session that has the device, and what it says of it. */
#include <stdlib.h>

#include "gateway/command/commands_internal.h"
#include "gateway/session/claims.h"

/* Parcels of one device on their way to its session, in order. */
struct offer {
    struct mail mail;
    struct worker *home;
    struct commands_options *options;
    int64_t device_key;
    uint64_t owner;
    unsigned worker;
    struct command_parcel *first; /* on the way back: those that were not taken */
    int err;                      /* why not */
};

/* ---- taking back ---- */

/* To the home of a receiver, to its session if it has one, and back. */
struct recall {
    struct mail mail;
    struct worker *home;
    struct commands_options *options;
    int64_t device_key, receiver;
    uint64_t owner;
};

static void recall_back(struct mail *mail, void *receiver) {
    struct recall *recall = (struct recall *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    struct command_line *line = commands ? commands_line(commands, recall->device_key) : NULL;
    if (line) /* what has not come back is asked for again with the next tick */
        line->is_recalling = false;
    free(recall);
}

static void recall_send(struct recall *recall, struct worker *worker,
                        void (*deliver)(struct mail *, void *)) {
    recall->mail.deliver = deliver;
    mailbox_post(&worker->mailbox, &recall->mail);
}

static void recall_at_session(struct mail *mail, void *receiver) {
    struct recall *recall = (struct recall *)(void *)mail;
    if (commands_of(receiver))
        recall->options->recall(receiver, recall->owner, recall->device_key);
    recall_send(recall, recall->home, recall_back);
}

static void recall_at_home(struct mail *mail, void *receiver) {
    struct recall *recall = (struct recall *)(void *)mail;
    unsigned holder;
    if (!commands_of(receiver)) {
        free(recall);
        return;
    }
    if (claims_find(receiver, recall->receiver, &holder, &recall->owner)) {
        recall_send(recall, recall->options->workers[holder], recall_at_session);
        return;
    }
    claims_recall(receiver, recall->receiver, recall->device_key);
    recall_send(recall, recall->home, recall_back);
}

/* Whether parcels are with another receiver than this one: they are asked back, and nothing is
 * offered before. */
static bool recall_others(struct commands *commands, struct command_line *line, int64_t receiver) {
    const struct commands_options *options = commands->options;
    const struct command *command = line->first;
    while (command && !(command->is_out && command->receiver != receiver))
        command = command->next;
    struct recall *recall = command && !line->is_recalling ? malloc(sizeof(*recall)) : NULL;
    if (!recall) /* without memory: with the next tick */
        return command != NULL;
    *recall = (struct recall){.home = commands->worker,
                              .options = commands->options,
                              .device_key = line->target.device_key,
                              .receiver = command->receiver};
    line->is_recalling = true;
    recall_send(recall, options->workers[claims_home(command->receiver, options->worker_count)],
                recall_at_home);
    return true;
}

/* ---- back at the home ---- */

/* The message is the command's again. */
static struct command *take_back(struct commands *commands, struct command_parcel *parcel) {
    struct command *command = commands_find(commands, parcel->command_key);
    if (command && command->is_out) {
        command->is_out = false;
        command->payload = parcel->message.payload;
        parcel->message.payload = NULL;
    } else {
        command = NULL;
    }
    parcel_free(parcel);
    return command;
}

/* What nobody here will decide any more. */
static bool may_leave(const struct command_line *line, const struct command *command) {
    bool is_idle = command->finished_ms == 0 && !command->is_out && !command->is_replied;
    return command->unsaid == 0 && is_idle && (line->is_elsewhere || command_is_waiting(command));
}

/* Nobody receives here: what waits is anybody's, as soon as all about it is said. */
static void let_go(struct commands *commands, struct command_line *line) {
    struct command *next;
    int64_t device_key = line->target.device_key;
    line->may_have_more = false;
    if (line->is_elsewhere)
        (void)recall_others(commands, line, 0);
    for (struct command *command = line->first; command; command = next) {
        next = command->next;
        if (!may_leave(line, command))
            continue;
        commands_release(commands, command->key, device_key);
        command_forget(commands, command); /* the last one takes the line with it */
    }
    line = commands_line(commands, device_key);
    if (line)
        line_drop_if_empty(commands, line);
}

/* The session does not receive for this device: the other one, if there is one. */
static void close_route(struct commands *commands, struct command_line *line,
                        const struct offer *offer) {
    bool was_via = line->via.owner == offer->owner && line->via.worker == offer->worker;
    if (was_via)
        line->via.owner = 0;
    line->prefers_own = false;
    if (was_via || line->via.owner != 0)
        line_offer(commands, line);
    else
        let_go(commands, line);
}

static void back_from_offer(struct commands *commands, struct offer *offer) {
    struct command_line *line = commands_line(commands, offer->device_key);
    if (line)
        line->is_offering = false;
    for (struct command_parcel *parcel = offer->first, *next; parcel; parcel = next) {
        next = parcel->next;
        (void)take_back(commands, parcel);
    }
    if (!line)
        return;
    if (offer->err == DG_ERR_NOT_CONNECTED || offer->err == DG_ERR_NOT_FOUND)
        close_route(commands, line, offer);
    else if (offer->err == 0)
        line_offer(commands, line);
    else /* the session has too much: with the next tick, or when it has less */
        line_drop_if_empty(commands, line);
}

static void deliver_back(struct mail *mail, void *receiver) {
    struct offer *offer = (struct offer *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands)
        back_from_offer(commands, offer);
    for (struct command_parcel *parcel = commands ? NULL : offer->first, *next; parcel;
         parcel = next) {
        next = parcel->next;
        parcel_free(parcel);
    }
    free(offer);
}

/* ---- at the session ---- */

static void deliver_offer(struct mail *mail, void *receiver) {
    struct offer *offer = (struct offer *)(void *)mail;
    offer->err = commands_of(receiver) ? 0 : DG_ERR_SHUTTING_DOWN;
    while (offer->first && offer->err == 0) {
        struct command_parcel *parcel = offer->first;
        offer->first = parcel->next; /* it may come back, and go, at once */
        offer->err = offer->options->deliver(receiver, offer->owner, &parcel->message);
        if (offer->err < 0)
            offer->first = parcel;
    }
    offer->mail.deliver = deliver_back;
    mailbox_post(&offer->home->mailbox, &offer->mail);
}

/* ---- offering ---- */

static const char too_often[] = "delivered too often without an acknowledgement";

/* What waits, in order. What comes back from a session that has ended comes one by one: none goes
 * out again before those that were sent after it are back too. */
static struct command_parcel *gather(struct commands *commands, struct command_line *line,
                                     const struct command_route *route) {
    struct command_parcel *first = NULL, **end = &first;
    int64_t last_out = 0;
    for (const struct command *command = line->first; command; command = command->next)
        if (command->is_out)
            last_out = command->key;
    for (struct command *command = line->first, *next; command; command = next) {
        next = command->next;
        if (!command_is_waiting(command))
            continue;
        if (command->key < last_out)
            break;
        if (command->deliveries >= LIMIT_COMMAND_DELIVERIES) { /* by a process before */
            command_advance(commands, command, COMMAND_DEAD_LETTERED, too_often);
            continue;
        }
        struct command_parcel *parcel = parcel_make(commands, command);
        if (!parcel)
            break; /* later ones must not overtake it */
        command->is_out = true;
        command->receiver = route->device_key;
        *end = parcel;
        end = &parcel->next;
    }
    return first;
}

static bool send_offer(struct commands *commands, struct command_line *line,
                       const struct command_route *route) {
    struct offer *offer = malloc(sizeof(*offer));
    struct command_parcel *first = offer ? gather(commands, line, route) : NULL;
    if (!first) {
        free(offer);
        return false;
    }
    *offer = (struct offer){.home = commands->worker,
                            .options = commands->options,
                            .device_key = line->target.device_key,
                            .owner = route->owner,
                            .worker = route->worker,
                            .first = first};
    offer->mail.deliver = deliver_offer;
    line->is_offering = true;
    mailbox_post(&commands->options->workers[route->worker]->mailbox, &offer->mail);
    return true;
}

void line_offer(struct commands *commands, struct command_line *line) {
    struct command_route route;
    int64_t device_key = line->target.device_key;
    if (line->is_offering || !commands->is_ready)
        return;
    if (!line_route(commands, line, device_key, &route)) {
        let_go(commands, line);
        return;
    }
    if (commands_is_taking(commands, device_key) || recall_others(commands, line, route.device_key))
        return;
    if (!send_offer(commands, line, &route) && line->may_have_more &&
        line_count_waiting(line) < LIMIT_COMMANDS_OFFERED / 2)
        commands_take(commands, device_key);
    line_drop_if_empty(commands, line);
}

/* ---- what becomes of it ---- */

void parcel_deliver_sent(struct mail *mail, void *receiver) {
    struct command_parcel *parcel =
        (struct command_parcel *)(void *)((uint8_t *)mail -
                                          offsetof(struct command_parcel, sent_mail));
    struct commands *commands = commands_of(receiver);
    struct command *command = commands ? commands_find(commands, parcel->command_key) : NULL;
    if (!command || command->finished_ms != 0 || !command->is_out)
        return;
    if (command->is_replied || command->state == COMMAND_DELIVERED)
        return; /* replied to, on an earlier delivery, before it was sent again */
    command->deliveries++;
    command_advance(commands, command, COMMAND_SENT, NULL);
}

static void on_acknowledged(struct commands *commands, struct command *command) {
    free(command->payload); /* NULL: the outbox has freed it */
    command->payload = NULL;
    if (command->finished_ms != 0 || command->state == COMMAND_DELIVERED)
        return;
    command_advance(commands, command, COMMAND_DELIVERED, NULL);
    if (!command->wants_reply)
        command_advance(commands, command, COMMAND_COMPLETED, NULL);
}

static void on_sent_unacknowledged(struct commands *commands, struct command *command) {
    command->deliveries++;
    command->is_unacknowledged = true;
    command_advance(commands, command, COMMAND_SENT, NULL);
}

/* The session has it no more, and the device does not, as far as anybody knows. */
static void on_dropped(struct commands *commands, struct command *command, int err) {
    static const char too_large[] = "the device does not take packets so large";
    if (command->state == COMMAND_DELIVERED) /* replied to while it was sent again */
        return;
    if (err == DG_ERR_TOO_LARGE)
        command_advance(commands, command, COMMAND_DEAD_LETTERED, too_large);
    else if (err == DG_ERR_TIMEOUT)
        command_advance(commands, command, COMMAND_EXPIRED, command_over);
    else if (command->deliveries >= LIMIT_COMMAND_DELIVERIES)
        command_advance(commands, command, COMMAND_DEAD_LETTERED, too_often);
}

static void settle(struct commands *commands, struct command *command, unsigned outcome, int err) {
    static const char refused[] = "the device has refused it in its acknowledgement";
    if (command->finished_ms != 0 || command->is_replied)
        return;
    if (outcome == OUTBOX_SENT && command->state == COMMAND_DELIVERED)
        return; /* as above */
    if (outcome == OUTBOX_ACKNOWLEDGED)
        on_acknowledged(commands, command);
    else if (outcome == OUTBOX_SENT)
        on_sent_unacknowledged(commands, command);
    else if (outcome == OUTBOX_REFUSED)
        command_advance(commands, command, COMMAND_REJECTED, refused);
    else
        on_dropped(commands, command, err);
}

void parcel_deliver_finished(struct mail *mail, void *receiver) {
    struct command_parcel *parcel =
        (struct command_parcel *)(void *)((uint8_t *)mail - offsetof(struct command_parcel, mail));
    struct commands *commands = commands_of(receiver);
    unsigned outcome = parcel->message.outcome;
    int err = parcel->message.err;
    if (!commands) {
        parcel_free(parcel);
        return;
    }
    int64_t device_key = parcel->message.device_key;
    struct command *command = take_back(commands, parcel);
    if (command)
        settle(commands, command, outcome, err);
    struct command_line *line = commands_line(commands, device_key);
    if (line)
        line_offer(commands, line);
}
