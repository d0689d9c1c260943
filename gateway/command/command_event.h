/*
 * What a command's event says (its JSON; schemas/events/command.v1.schema.json), and the row that
 * PostgreSQL is to have then: a JSON object with
 *
 *   k command key, s state, f whether final, n deliveries, st dt ft when sent, delivered, finished
 *   (ms since 1970, or null), rs rt rp the reply's status, content type, payload in base64, why
 *
 * Pure.
 */
#pragma once

#include "common/err.h"
#include "common/slice.h"
#include "gateway/command/state.h"

enum { COMMAND_ID_SIZE = 17 };

struct command_facts {
    int64_t key;
    enum command_state state;
    const char *name;
    unsigned delivery_count;
    int64_t created_ms, expires_ms;             /* wall clock, as all here */
    int64_t sent_ms, delivered_ms, finished_ms; /* 0: not yet */
    const char *reason;                         /* NULL: none */
    unsigned reply_status;                      /* 0: no reply */
    struct slice reply_type, reply;
};

/* "c12": as devices and back ends know it. */
void command_format_id(int64_t key, char ret_text[COMMAND_ID_SIZE]);
/* 0: it is none. */
int64_t command_parse_id(struct slice text);

/* Texts of their own, freed with free(); NULL: no memory. */
char *command_write_event(const struct command_facts *facts);
char *command_write_row(const struct command_facts *facts);
