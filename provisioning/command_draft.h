/*
 * A command as the body of a POST asks for it: checked, its payload decoded. Pure but for memory.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"
#include "common/slice.h"
#include "provisioning/members.h"

struct command_draft {
    struct slice name, content_type; /* they point into the body */
    int64_t ttl_ms;
    bool wants_reply;
    uint8_t *payload; /* owned */
    size_t payload_size;
    char *properties; /* owned; a JSON object of strings */
};

extern const struct member command_members[];

/* DG_ERR_INVALID, DG_ERR_TOO_LARGE: the payload; with a sentence that begins with the JSON pointer
 * of what is wrong. DG_ERR_NO_MEMORY. */
DG_NODISCARD int command_draft_read(const json_t *body, struct command_draft *ret_draft,
                                    char *ret_detail, size_t detail_size);
void command_draft_free(struct command_draft *draft);

/* Whether a command is what the draft asks for: its members as GET shows them, its payload. How
 * long it lives is not compared. */
bool command_draft_is(const struct command_draft *draft, const json_t *command,
                      struct slice payload);

/* The value of Idempotency-Key: 1 to 128 printable characters. */
bool command_idempotency_key_is_valid(struct slice key);
