/* What the files of the command queue share: the memory of a home worker. One worker's thread. */
#pragma once

#include <event2/event.h>
#include <stdatomic.h>

#include "gateway/command/commands.h"
#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "gateway/session/device_map.h"

/* A message on its way to a session and back: command_message.c. */
struct command_parcel {
    struct outbox_message message; /* first: the outbox knows no more */
    struct mail mail, sent_mail;
    struct command_parcel *next; /* of one offer */
    struct worker *home;
    int64_t command_key;
    bool sent_told; /* sent_mail was posted */
    uint8_t bytes[];
};

/* Somebody who waits for a state. */
struct command_watcher {
    struct mail mail;
    struct command_watcher *next;
    struct worker *asker;
    struct command_watch watch;
    bool is_here;
};

/* One that this gateway holds. */
struct command {
    struct command *next; /* of its device, oldest first */
    struct command_line *line;
    struct command_watcher *watchers;
    int64_t key;
    int64_t receiver; /* is_out: the device whose session has the parcel */
    int64_t created_ms, expires_ms, sent_ms, delivered_ms, finished_ms; /* wall clock */
    char *text; /* owned: name, content type, properties, one after the other */
    const char *content_type, *properties;
    uint8_t *payload;           /* owned; NULL: a parcel has it, or nobody needs it any more */
    struct outbox_reply *reply; /* owned */
    const char *reason;         /* static */
    uint32_t payload_size, size_bytes; /* size_bytes: charged */
    uint16_t deliveries;
    uint16_t unsaid; /* transitions that PostgreSQL has not taken yet */
    uint8_t state;   /* enum command_state */
    uint8_t dialect; /* enum command_dialect */
    bool wants_reply;
    bool is_out;            /* a parcel has it */
    bool is_unacknowledged; /* was sent over QoS 0 */
    bool is_replied;        /* a reply is on its way to the disk */
    bool is_muted; /* memory was out when its state was to be said: again with the next tick */
};

/* A session that receives for a device: its own, or that of a gateway device. */
struct command_route {
    int64_t device_key; /* whose session it is */
    uint64_t owner;     /* its id; 0: none */
    unsigned worker;
};

/* The commands of one device, as long as there are any here, or a session of a gateway device that
 * receives them. */
struct command_line {
    struct command *first;
    struct command_target target; /* but for device_key not known before the first command */
    struct command_route via;     /* of a gateway device; of its own the claim says it */
    bool prefers_own;   /* the device itself has subscribed later than the gateway device */
    bool may_have_more; /* in PostgreSQL */
    bool is_offering;   /* parcels are on their way to the session, in order: no others meanwhile */
    bool is_recalling;  /* parcels are being taken back from who receives no more */
    bool is_elsewhere;  /* another instance has the device: all is let go, not only what waits */
};

/* A create that waits for its turn, or is under way. */
struct creation {
    struct mail mail;
    struct creation *next;
    struct worker *asker;
    struct command_request request; /* slices point into bytes */
    struct command_created result;
    bool is_held;
    uint8_t bytes[];
};

/* What the session hears of its reply. */
struct reply_back {
    struct mail mail;
    uint64_t owner, tag;
    int err;
};

/* A reply on its way from the session to the home, and into the stream. */
struct reply_mail {
    struct transition transition; /* first */
    struct mail mail;
    struct reply_mail *next;
    unsigned tries; /* to have its command from another instance */
    struct worker *asker;
    struct reply_back *back;    /* owned until it goes: the way back needs no memory */
    struct command_reply reply; /* slices point into bytes */
    char *event, *row;          /* owned */
    int64_t finished_ms;
    char id[COMMAND_ID_SIZE];
    uint8_t bytes[];
};

/* What a statement is about: keys that gather while the one before is under way. */
struct command_keys {
    struct device_map next, now; /* key -> a word that stays with it */
};

/* How often is looked for what a statement without an answer may have done: a connection that was
 * given up may still carry it to PostgreSQL, as long as that has not noticed. */
enum { COMMAND_LOOKS = 20 };

struct commands {
    struct worker *worker;
    struct commands_options *options;
    struct device_map lines;    /* device key -> struct command_line * */
    struct device_map commands; /* command key -> struct command * */
    size_t size_bytes;
    struct creation *creations, **creations_end; /* wait for the statement before */
    struct creation *creating;                   /* are with PostgreSQL */
    unsigned creations_most;                     /* of the next statement */
    struct command_keys taken;                   /* device keys -> 0, then how many came */
    struct command_keys released;                /* command keys -> device key */
    struct device_map
        releasing;              /* device key -> how many of released: nothing is taken meanwhile */
    struct device_map barred;   /* devices that another instance has commands of */
    struct reply_mail *replies; /* to commands that are not here: to be looked up, oldest first */
    struct reply_mail *parked;  /* likewise, with the next tick */
    unsigned reply_count, looked_up; /* reply_count: of both; looked_up: with PostgreSQL now */
    struct event timer;
    unsigned ticks;
    bool is_ready;       /* what was before is said */
    bool is_looking;     /* for that */
    unsigned looks_left; /* something may be held that nobody here knows of */
    int64_t looked_until;
    /* of the first worker */
    bool is_first_release_done, is_renewing, is_expiring, is_collecting, is_collecting_jobs;
    struct event job_timer;
    bool is_stepping, is_cancelling; /* jobs.c */
};

static inline struct commands *commands_of(const struct worker *worker) {
    return worker->slots[WORKER_SLOT_COMMANDS];
}

static inline struct command_line *commands_line(const struct commands *commands,
                                                 int64_t device_key) {
    uint64_t value = 0;
    (void)device_map_get(&commands->lines, device_key, &value);
    return (struct command_line *)(uintptr_t)value;
}

static inline struct command *commands_find(const struct commands *commands, int64_t key) {
    uint64_t value = 0;
    (void)device_map_get(&commands->commands, key, &value);
    return (struct command *)(uintptr_t)value;
}

static inline int64_t commands_device_of(const struct command *command) {
    return command->line->target.device_key;
}

/* ---- command_memory.c ---- */

struct command_content {
    int64_t key, created_ms, expires_ms, sent_ms, delivered_ms;
    struct slice name, content_type, properties, payload;
    enum command_state state;
    enum command_dialect dialect;
    unsigned deliveries;
    bool wants_reply;
};
/* The line of a device, made if there is none. NULL: no memory. */
struct command_line *line_get(struct commands *commands, int64_t device_key);
/* Who receives for a device; false: nobody. line: the device's, or NULL. */
bool line_route(struct commands *commands, const struct command_line *line, int64_t device_key,
                struct command_route *ret_route);
/* Likewise; only whether. */
bool commands_is_received(struct commands *commands, int64_t device_key);
/* Nothing keeps it: forgotten. */
void line_drop_if_empty(struct commands *commands, struct command_line *line);
/* Not delivered and here. */
unsigned line_count_waiting(const struct command_line *line);
/* Copies. NULL: no memory. Known already: that one. */
struct command *command_add(struct commands *commands, struct command_line *line,
                            const struct command_content *content);
/* Out of memory; its watchers are told that it is not here. */
void command_forget(struct commands *commands, struct command *command);
bool command_has_room(const struct commands *commands, size_t payload_size);
/* Waits to be delivered. */
static inline bool command_is_waiting(const struct command *command) {
    return command->finished_ms == 0 && !command->is_out && command->payload &&
           command->state != COMMAND_DELIVERED;
}

/* ---- command_progress.c ---- */

/* It has come to this state: said in the stream, then in PostgreSQL. reason: static, or NULL. */
void command_advance(struct commands *commands, struct command *command, enum command_state state,
                     const char *reason);
extern const char command_over[]; /* why it is expired */
/* What could not be said for lack of memory. */
void command_say_again(struct commands *commands, struct command *command);
void command_fill_facts(const struct command *command, struct command_facts *ret_facts);
void commands_on_reply(struct commands *commands, struct reply_mail *reply);
void command_tell_watchers(struct command *command, bool is_here);
unsigned command_count_watchers(const struct command *command);

/* ---- command_delivery.c ---- */

/* Mail of a parcel: it was written to the device's connection; it is over. */
void parcel_deliver_sent(struct mail *mail, void *receiver);
void parcel_deliver_finished(struct mail *mail, void *receiver);
/* What waits goes to the session, if there is one; else it is let go. The line may be gone then. */
void line_offer(struct commands *commands, struct command_line *line);

/* ---- command_store.c ---- */

void commands_send_creations(struct commands *commands);
/* Of this device, what waits in PostgreSQL. */
void commands_take(struct commands *commands, int64_t device_key);
void commands_send_take(struct commands *commands);
/* Some of them may come: nothing newer is to be offered before. */
bool commands_is_taking(const struct commands *commands, int64_t device_key);
/* The row is anybody's. */
void commands_release(struct commands *commands, int64_t command_key, int64_t device_key);
void commands_send_release(struct commands *commands);
/* A reply to one that is not here. Takes it over. */
void commands_look_up_reply(struct commands *commands, struct reply_mail *reply);
/* It is looked at again with the next tick, for a while. Takes it over. */
void commands_park_reply(struct commands *commands, struct reply_mail *reply);
/* Those. */
void commands_look_up_parked(struct commands *commands);
/* Rows that are held here and not known, page after page. */
void commands_look_for_held(struct commands *commands);
/* Devices that something waits for. */
void commands_look_for_waiting(struct commands *commands, int64_t after);

/* ---- command_message.c ---- */

/* Takes the payload; NULL: no memory. */
struct command_parcel *parcel_make(struct commands *commands, struct command *command);
void parcel_free(struct command_parcel *parcel);

/* ---- jobs.c ---- */

void jobs_start(struct commands *commands);
void jobs_stop(struct commands *commands);
/* On the first worker: what is due of jobs is done. */
void jobs_look(struct commands *commands);

/* ---- commands.c ---- */

/* Gives back to the session, and frees what is left of the reply. */
void commands_answer_reply(struct reply_mail *reply, int err);
/* Sends, or frees and tells that it could not be: the mail is delivered with an error all the same.
 */
void commands_execute(struct commands *commands, struct registry_request *request,
                      void (*deliver)(struct mail *mail, void *receiver));
