/*
 * The command line: one table of commands, `duragate <command> [options]`. Everything but `serve`
 * is done here, over the gateway's public protocols, or straight on PostgreSQL or a stopped store
 * where the command's help says so.
 */
#pragma once

#ifndef DURAGATE_VERSION
#define DURAGATE_VERSION "0.1.0"
#endif

struct cli_serve {
    const char *config_path;      /* NULL: defaults only */
    char *const *environment;     /* of the process */
    const char *const *overrides; /* --set section.key=value, NULL-terminated */
};

/* Parses and runs. serve is what the serve command calls; the result is the exit code. */
int cli_main(int argument_count, char **arguments, int (*serve)(const struct cli_serve *arguments));
