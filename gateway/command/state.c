#include "gateway/command/state.h"

const struct command_state_row command_states[COMMAND_STATE_COUNT] = {
#define COMMAND_STATE(id, name, rank, is_final) \
    [COMMAND_##id] = {name, rank, is_final, EVENT_COMMAND_##id},
    COMMAND_STATES(COMMAND_STATE)
#undef COMMAND_STATE
};

enum command_state command_state_find(struct slice name) {
    unsigned state = 0;
    while (state < COMMAND_STATE_COUNT && !slice_equals_string(name, command_states[state].name))
        state++;
    return (enum command_state)state;
}
