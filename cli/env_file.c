#include "cli/env_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VARIABLES_MAX = 64, LINE_SIZE = 8192 };

static struct { char *name, *value; } variables[VARIABLES_MAX];
static unsigned variable_count;

/* Removes one level of shell quoting in place. */
static void unquote(char *text) {
    char *to = text;
    char quote = 0;
    for (char *from = text; *from; from++) {
        if (quote == '\'' && *from != '\'')
            *to++ = *from;
        else if (*from == '\'' || *from == '"')
            quote = quote == *from ? 0 : quote ? (*to++ = *from, quote) : *from;
        else if (*from == '\\' && from[1])
            *to++ = *++from;
        else
            *to++ = *from;
    }
    *to = '\0';
}

static void take_line(char *line) {
    line[strcspn(line, "\r\n")] = '\0';
    char *equals = strchr(line, '=');
    if (!equals || line[0] == '#' || variable_count == VARIABLES_MAX)
        return;
    *equals = '\0';
    unquote(equals + 1);
    variables[variable_count].name = strdup(line);
    variables[variable_count].value = strdup(equals + 1);
    variable_count += variables[variable_count].name && variables[variable_count].value;
}

bool env_file_load(struct cli_run *run) {
    struct stat status;
    FILE *file = fopen(run->option[CLI_ENV], "re");
    if (file && fstat(fileno(file), &status) == 0 && S_ISDIR(status.st_mode)) {
        fclose(file);
        file = NULL;
        errno = EISDIR;
    }
    if (!file) {
        cli_fail(run, 0, "cannot read %s: %s (deploy/up writes it)", run->option[CLI_ENV],
                 strerror(errno));
        return false;
    }
    char line[LINE_SIZE];
    while (fgets(line, sizeof(line), file))
        take_line(line);
    fclose(file);
    return true;
}

const char *env_file_find(const char *name) {
    for (unsigned i = 0; i < variable_count; i++)
        if (strcmp(variables[i].name, name) == 0)
            return variables[i].value;
    return NULL;
}
