/*
 * How a command of `duragate` is described and what it is given. The tables in commands.c and
 * options_table.h drive dispatch, help and shell completion alike.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/cli.h"

enum cli_option {
#define OPTION(id, name, argument, help) CLI_##id,
#include "cli/options_table.h"
#undef OPTION
    CLI_OPTION_COUNT
};

enum { CLI_REPEATED_MAX = 64, CLI_OPERANDS_MAX = 8 };

/* What one run of a command sees. Strings live as long as the process. */
struct cli_run {
    const struct cli_command *command;
    const char *option[CLI_OPTION_COUNT];       /* NULL: not given; a flag: "" */
    const char *repeated[CLI_REPEATED_MAX + 1]; /* values of the option that may be repeated */
    unsigned repeated_count;
    const char *operand[CLI_OPERANDS_MAX];
    unsigned operand_count;
    int (*serve)(const struct cli_serve *arguments);
};

struct cli_command {
    const char *group; /* "device" of `device list`; NULL for a command of one word */
    const char *name;
    const char *operands; /* "TENANT DEVICE [FILE]", for the help; capitals in [] are optional */
    const char *summary;
    const char *details; /* more help, or NULL */
    int (*run)(struct cli_run *run);
    const enum cli_option *options; /* ended by CLI_OPTION_COUNT */
};

extern const struct cli_command cli_commands[]; /* ended by a row without a name */

static inline bool cli_has(const struct cli_run *run, enum cli_option option) {
    return run->option[option] != NULL;
}

/* Prints "duragate device list: <text>" to standard error; returns code. */
__attribute__((format(printf, 3, 4))) int cli_fail(const struct cli_run *run, int code,
                                                   const char *format, ...);

/*
 * A setting: the option if given, else the environment variable, else the same variable in the file
 * of --env, else fallback (which may be NULL).
 */
const char *cli_setting(const struct cli_run *run, enum cli_option option, const char *variable,
                        const char *fallback);

/* Numbers and durations of options; false (with a message) when they make no sense. */
bool cli_number(const struct cli_run *run, enum cli_option option, int64_t minimum, int64_t maximum,
                int64_t fallback, int64_t *ret_value);
bool cli_duration_ms(const struct cli_run *run, enum cli_option option, int64_t fallback_ms,
                     int64_t *ret_ms);

/* False, after printing what to do, when an existing store belongs to another user: files made
 * there would be none that its gateway can open. */
bool cli_owns_store(const struct cli_run *run, const char *directory);

/* The server's configuration, with the overrides applied; NULL after printing what is wrong. */
struct config;
struct config *cli_load_config(struct cli_run *run, const char *const *overrides);

/* The commands, each in the file its group names. */
int serve_run(struct cli_run *run);
int check_config_run(struct cli_run *run);
int migrate_run(struct cli_run *run);
int admin_create_key_run(struct cli_run *run);
int resource_list_run(struct cli_run *run);
int resource_show_run(struct cli_run *run);
int resource_create_run(struct cli_run *run);
int resource_update_run(struct cli_run *run);
int resource_delete_run(struct cli_run *run);
int resource_enable_run(struct cli_run *run);
int credential_create_run(struct cli_run *run);
int job_start_run(struct cli_run *run);
int job_abort_run(struct cli_run *run);
int job_results_run(struct cli_run *run);
int device_call_run(struct cli_run *run);
int command_send_run(struct cli_run *run);
int command_watch_run(struct cli_run *run);
int device_simulate_run(struct cli_run *run);
int device_why_run(struct cli_run *run);
int stream_topics_run(struct cli_run *run);
int stream_partitions_run(struct cli_run *run);
int stream_groups_run(struct cli_run *run);
int stream_group_run(struct cli_run *run);
int stream_lag_run(struct cli_run *run);
int stream_reset_run(struct cli_run *run);
int stream_delete_group_run(struct cli_run *run);
int storage_verify_run(struct cli_run *run);
int storage_dump_run(struct cli_run *run);
int storage_repair_run(struct cli_run *run);
int backup_run(struct cli_run *run);
int restore_run(struct cli_run *run);
int tail_run(struct cli_run *run);
int bench_run(struct cli_run *run);
int healthcheck_run(struct cli_run *run);
int completion_run(struct cli_run *run);
int version_run(struct cli_run *run);
