/* From a home to the session that has the device, and what it says of it. */
#include <stdlib.h>

#include "gateway/command/commands_internal.h"

/* Parcels of one device on their way to its session, in order. */
struct offer {
    struct mail mail;
    struct worker *home;
    struct commands_options *options;
    int64_t device_key;
    uint64_t owner;
    struct command_parcel *first; /* on the way back: those that were not taken */
    int err;                      /* why not */
};

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

/* Nobody receives here: what waits is anybody's, as soon as all about it is said. */
static void let_go(struct commands *commands, struct command_line *line) {
    struct command *next;
    int64_t device_key = line->target.device_key;
    line->may_have_more = false;
    for (struct command *command = line->first; command; command = next) {
        next = command->next;
        if (!command_is_waiting(command))
            continue;
        command->is_leaving = command->unsaid > 0;
        if (command->is_leaving)
            continue;
        commands_release(commands, command->key);
        command_forget(commands, command); /* the last one takes the line with it */
    }
    line = commands_line(commands, device_key);
    if (line)
        line_drop_if_empty(commands, line);
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
    if (offer->err == DG_ERR_NOT_CONNECTED || offer->err == DG_ERR_NOT_FOUND) {
        line->owner = 0;
        let_go(commands, line);
    } else if (offer->err == 0) {
        line_offer(commands, line);
    } else { /* the session has too much: with the next tick, or when it has less */
        line_drop_if_empty(commands, line);
    }
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

static struct command_parcel *gather(struct commands *commands, struct command_line *line) {
    struct command_parcel *first = NULL, **end = &first;
    for (struct command *command = line->first; command; command = command->next) {
        if (!command_is_waiting(command))
            continue;
        command->is_leaving = false;
        struct command_parcel *parcel = parcel_make(commands, command);
        if (!parcel)
            break; /* later ones must not overtake it */
        command->is_out = true;
        *end = parcel;
        end = &parcel->next;
    }
    return first;
}

static bool send_offer(struct commands *commands, struct command_line *line, unsigned worker,
                       uint64_t owner) {
    struct offer *offer = malloc(sizeof(*offer));
    struct command_parcel *first = offer ? gather(commands, line) : NULL;
    if (!first) {
        free(offer);
        return false;
    }
    *offer = (struct offer){.home = commands->worker,
                            .options = commands->options,
                            .device_key = line->target.device_key,
                            .owner = owner,
                            .first = first};
    offer->mail.deliver = deliver_offer;
    line->is_offering = true;
    mailbox_post(&commands->options->workers[worker]->mailbox, &offer->mail);
    return true;
}

void line_offer(struct commands *commands, struct command_line *line) {
    unsigned worker;
    uint64_t owner;
    if (line->is_offering || !commands->is_ready)
        return;
    if (!line_route(commands, line, line->target.device_key, &worker, &owner)) {
        let_go(commands, line);
        return;
    }
    if (!send_offer(commands, line, worker, owner) && line->may_have_more &&
        line_count_waiting(line) < LIMIT_COMMANDS_OFFERED / 2)
        commands_take(commands, line->target.device_key);
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
    static const char too_often[] = "delivered too often without an acknowledgement";
    if (err == DG_ERR_TOO_LARGE)
        command_advance(commands, command, COMMAND_DEAD_LETTERED, too_large);
    else if (command->deliveries >= LIMIT_COMMAND_DELIVERIES)
        command_advance(commands, command, COMMAND_DEAD_LETTERED, too_often);
    else if (!command->payload) /* replied to while it was sent again */
        return;
    else
        command->is_leaving = command->unsaid > 0;
}

static void settle(struct commands *commands, struct command *command, unsigned outcome, int err) {
    static const char refused[] = "the device has refused it in its acknowledgement";
    if (command->finished_ms != 0 || command->is_replied)
        return;
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
    int64_t device_key = parcel->device_key;
    struct command *command = take_back(commands, parcel);
    if (command)
        settle(commands, command, outcome, err);
    struct command_line *line = commands_line(commands, device_key);
    if (line)
        line_offer(commands, line);
}
