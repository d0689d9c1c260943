/* The commands that this gateway holds, as its home workers remember them. */
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/command/commands_internal.h"
#include "gateway/session/claims.h"

/* What a command costs beside its payload, roughly. */
enum { COMMAND_OVERHEAD_BYTES = sizeof(struct command) + 256 };

struct command_line *line_get(struct commands *commands, int64_t device_key) {
    struct command_line *line = commands_line(commands, device_key);
    if (line)
        return line;
    line = device_map_reserve(&commands->lines) == 0 ? calloc(1, sizeof(*line)) : NULL;
    if (!line)
        return NULL;
    line->target.device_key = device_key;
    device_map_set(&commands->lines, device_key, (uintptr_t)line);
    return line;
}

bool line_route(struct commands *commands, const struct command_line *line, int64_t device_key,
                struct command_route *ret_route) {
    struct command_route own = {.device_key = device_key};
    bool has_via = line && line->via.owner != 0;
    if (has_via && !line->prefers_own) {
        *ret_route = line->via;
        return true;
    }
    if (claims_find(commands->worker, device_key, &own.worker, &own.owner)) {
        *ret_route = own;
        return true;
    }
    if (has_via)
        *ret_route = line->via;
    return has_via;
}

bool commands_is_received(struct commands *commands, int64_t device_key) {
    struct command_route route;
    return line_route(commands, commands_line(commands, device_key), device_key, &route);
}

void line_drop_if_empty(struct commands *commands, struct command_line *line) {
    if (line->first || line->via.owner != 0 || line->is_offering)
        return;
    device_map_remove(&commands->lines, line->target.device_key);
    free(line);
}

unsigned line_count_waiting(const struct command_line *line) {
    unsigned count = 0;
    for (const struct command *c = line ? line->first : NULL; c; c = c->next)
        count += c->is_out || command_is_waiting(c);
    return count;
}

bool command_has_room(const struct commands *commands, size_t payload_size) {
    return commands->commands.count < LIMIT_COMMANDS_PER_WORKER &&
           commands->size_bytes + payload_size + COMMAND_OVERHEAD_BYTES <=
               LIMIT_COMMAND_BYTES_PER_WORKER;
}

static char *put(char *at, struct slice from) {
    if (from.size > 0)
        memcpy(at, from.data, from.size);
    at[from.size] = '\0';
    return at + from.size + 1;
}

static struct command *make(const struct command_content *content) {
    struct command *command = calloc(1, sizeof(*command));
    char *text =
        malloc(content->name.size + content->content_type.size + content->properties.size + 3);
    uint8_t *payload = malloc(content->payload.size + 1);
    if (!command || !text || !payload) {
        free(command);
        free(text);
        free(payload);
        return NULL;
    }
    if (content->payload.size > 0)
        memcpy(payload, content->payload.data, content->payload.size);
    *command = (struct command){
        .key = content->key,
        .created_ms = content->created_ms,
        .expires_ms = content->expires_ms,
        .sent_ms = content->sent_ms,
        .delivered_ms = content->delivered_ms,
        .text = text,
        .payload = payload,
        .payload_size = (uint32_t)content->payload.size,
        .size_bytes = (uint32_t)content->payload.size + COMMAND_OVERHEAD_BYTES,
        .deliveries = (uint16_t)content->deliveries,
        .state = (uint8_t)content->state,
        .dialect = (uint8_t)content->dialect,
        .wants_reply = content->wants_reply,
    };
    command->content_type = put(text, content->name);
    command->properties = put(text + content->name.size + 1, content->content_type);
    put(text + content->name.size + content->content_type.size + 2, content->properties);
    return command;
}

struct command *command_add(struct commands *commands, struct command_line *line,
                            const struct command_content *content) {
    struct command *command = commands_find(commands, content->key);
    if (command)
        return command;
    command = device_map_reserve(&commands->commands) == 0 ? make(content) : NULL;
    if (!command)
        return NULL;
    struct command **at = &line->first;
    while (*at && (*at)->key < command->key)
        at = &(*at)->next;
    command->next = *at;
    command->line = line;
    *at = command;
    commands->size_bytes += command->size_bytes;
    device_map_set(&commands->commands, command->key, (uintptr_t)command);
    metric_add(METRIC_COMMANDS_HELD, 1);
    return command;
}

void command_forget(struct commands *commands, struct command *command) {
    struct command_line *line = command->line;
    struct command **at = &line->first;
    while (*at != command)
        at = &(*at)->next;
    *at = command->next;
    device_map_remove(&commands->commands, command->key);
    metric_add(METRIC_COMMANDS_HELD, -1);
    commands->size_bytes -= command->size_bytes;
    command_tell_watchers(command, false);
    free(command->text);
    free(command->payload);
    free(command->reply);
    free(command);
    line_drop_if_empty(commands, line);
}
