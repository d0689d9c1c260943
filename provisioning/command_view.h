/* A command as GET shows it: made of what PostgreSQL says, or of what was just queued. Pure but for
 * memory. */
#pragma once

#include "common/buffer.h"
#include "gateway/command/commands.h"
#include "provisioning/command_draft.h"
#include "registry/registry.h"

/* The columns of COMMAND_GET (registry/statements_table.h). */
enum command_column {
    COMMAND_COLUMN_BODY, /* JSON: all but payload and reply */
    COMMAND_COLUMN_STATE,
    COMMAND_COLUMN_IS_FINAL,
    COMMAND_COLUMN_PAYLOAD, /* base64 */
    COMMAND_COLUMN_REPLY,   /* JSON: all but its payload; null without a reply */
    COMMAND_COLUMN_REPLY_PAYLOAD
};

/* Appends it. DG_ERR_NO_MEMORY, DG_ERR_LIMIT. */
DG_NODISCARD int command_view_row(const struct registry_request *row, struct buffer *out);
/* Of a draft that has become this command. */
DG_NODISCARD int command_view_queued(const struct command_draft *draft,
                                     const struct command_created *created,
                                     struct slice idempotency_key, struct buffer *out);

/* Whether the row of COMMAND_GET shows what the draft asks for. */
bool command_view_is(const struct registry_request *row, const struct command_draft *draft);
/* Whether it has reached a state, a later one or its end. */
bool command_view_has_reached(const struct registry_request *row, enum command_state wanted);
