/* Parsing of the command line and help, driven by the tables. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/env_file.h"
#include "cli/printable.h"
#include "common/err.h"
#include "common/utf8.h"

extern char **environ;

static const struct {
    const char *name, *argument, *help;
} option_rows[] = {
#define OPTION(id, name, argument, help) {name, argument, help},
#include "cli/options_table.h"
#undef OPTION
};

int cli_fail(const struct cli_run *run, int code, const char *format, ...) {
    const struct cli_command *command = run->command;
    fprintf(stderr, "duragate %s%s%s: ", command->group ? command->group : "",
            command->group ? " " : "", command->name);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

static bool is_in_group(const struct cli_command *command, const char *group) {
    return command->group && strcmp(command->group, group) == 0;
}

/* Returns how many there are. group NULL: all. */
static unsigned print_commands(FILE *out, const char *group) {
    unsigned count = 0;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (group && !is_in_group(c, group))
            continue;
        count++;
        char title[64];
        snprintf(title, sizeof(title), "%s%s%s %s", c->group ? c->group : "", c->group ? " " : "",
                 c->name, c->operands);
        fprintf(out, "  %-32s %s\n", title, c->summary);
    }
    return count;
}

static void print_overview(FILE *out) {
    fputs("Duragate: an event gateway whose acknowledgement means \"on disk\".\n\n"
          "usage: duragate COMMAND [OPTIONS]\n\n",
          out);
    print_commands(out, NULL);
    fputs("\nduragate COMMAND --help shows a command's options.\n", out);
}

static void print_help(const struct cli_command *command) {
    printf("usage: duragate %s%s%s%s%s [OPTIONS]\n\n%s.\n", command->group ? command->group : "",
           command->group ? " " : "", command->name, command->operands[0] ? " " : "",
           command->operands, command->summary);
    if (command->details)
        printf("%s\n", command->details);
    puts("");
    for (const enum cli_option *o = command->options; *o != CLI_OPTION_COUNT; o++) {
        char title[48];
        snprintf(title, sizeof(title), "--%s%s%s", option_rows[*o].name,
                 option_rows[*o].argument[0] ? " " : "", option_rows[*o].argument);
        printf("  %-26s %s\n", title, option_rows[*o].help);
    }
}

static const struct cli_command *find_command(const char *first, const char *second,
                                              unsigned *ret_words) {
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (!c->group && strcmp(c->name, first) == 0) {
            *ret_words = 1;
            return c;
        }
        if (second && is_in_group(c, first) && strcmp(c->name, second) == 0) {
            *ret_words = 2;
            return c;
        }
    }
    return NULL;
}

static enum cli_option find_option(const struct cli_command *command, const char *name,
                                   size_t size) {
    for (const enum cli_option *o = command->options; *o != CLI_OPTION_COUNT; o++)
        if (strlen(option_rows[*o].name) == size && memcmp(option_rows[*o].name, name, size) == 0)
            return *o;
    return CLI_OPTION_COUNT;
}

static bool option_repeats(enum cli_option option) {
    return option == CLI_SET || option == CLI_ROLE || option == CLI_PROPERTY;
}

/* Takes one "--name", "--name=value" or "--name value"; returns how many words it used, 0 on error.
 */
static int take_option(struct cli_run *run, char **words, int count) {
    const char *name = words[0] + 2;
    size_t size = strcspn(name, "=");
    enum cli_option option = find_option(run->command, name, size);
    if (option == CLI_OPTION_COUNT) {
        cli_fail(run, 0, "unknown option '%s'; see --help", words[0]);
        return 0;
    }
    bool flag = option_rows[option].argument[0] == '\0';
    const char *value = name[size] == '=' ? name + size + 1 : NULL;
    int used = 1;
    if (flag && value) {
        cli_fail(run, 0, "--%s takes no value", option_rows[option].name);
        return 0;
    }
    if (!flag && !value) {
        if (count < 2 || strncmp(words[1], "--", 2) == 0) {
            cli_fail(run, 0, "--%s needs a value (%s)", option_rows[option].name,
                     option_rows[option].argument);
            return 0;
        }
        value = words[1];
        used = 2;
    }
    if (option_repeats(option)) {
        if (run->repeated_count == CLI_REPEATED_MAX) {
            cli_fail(run, 0, "too many --%s", option_rows[option].name);
            return 0;
        }
        run->repeated[run->repeated_count++] = value;
    }
    run->option[option] = flag ? "" : value;
    return used;
}

static bool parse_words(struct cli_run *run, int count, char **words) {
    for (int i = 0; i < count;) {
        if (strncmp(words[i], "--", 2) == 0 && words[i][2]) {
            int used = take_option(run, words + i, count - i);
            if (used == 0)
                return false;
            i += used;
        } else if (strcmp(words[i], "-h") == 0) {
            run->option[CLI_HELP] = "";
            i++;
        } else if (run->operand_count == CLI_OPERANDS_MAX) {
            cli_fail(run, 0, "too many operands");
            return false;
        } else {
            run->operand[run->operand_count++] = words[i++];
        }
    }
    return true;
}

/* Operands the table asks for: words in capitals; those in brackets may be missing. */
static bool operands_match(struct cli_run *run) {
    unsigned required = 0, allowed = 0;
    for (const char *p = run->command->operands; *p; p++) {
        if (p != run->command->operands && p[-1] != ' ')
            continue;
        allowed++;
        required += *p != '[';
    }
    if (run->operand_count >= required && run->operand_count <= allowed)
        return true;
    cli_fail(run, 0, "expects %s; see --help", allowed ? run->command->operands : "no operands");
    return false;
}

/* Why no path of the HTTP API can carry the name (gateway/http/target.h); NULL when one can. */
static const char *path_obstacle(const char *name) {
    if (!name[0])
        return "is empty";
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return "means a directory";
    if (strpbrk(name, "/\\"))
        return strchr(name, '/') ? "contains '/'" : "contains '\\'";
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return "contains a control character";
    return utf8_is_valid(name, strlen(name)) ? NULL : "is not UTF-8";
}

static bool fits_path(const struct cli_run *run, const char *what, const char *name) {
    const char *obstacle = path_obstacle(name);
    char shown[256];
    if (!obstacle)
        return true;
    printable_copy(name, sizeof(shown), shown, sizeof(shown));
    cli_fail(run, 0, "%s '%s' %s: no path of the HTTP API can carry such a name%s", what, shown,
             obstacle, strcmp(what, "GROUP") == 0 ? "; use a Kafka admin client" : "");
    return false;
}

/* Operands of what goes over the HTTP API are names in its paths, and so is the tenant. */
static bool names_fit_paths(const struct cli_run *run) {
    const char *words = run->command->operands;
    if (find_option(run->command, "api-key", strlen("api-key")) == CLI_OPTION_COUNT)
        return true;
    for (unsigned i = 0; i < run->operand_count; i++) {
        char what[32] = "";
        words += strspn(words, " [");
        size_t size = strcspn(words, " ]");
        memcpy(what, words, size < sizeof(what) ? size : 0);
        words += strcspn(words, " ");
        if (!fits_path(run, what, run->operand[i]))
            return false;
    }
    return fits_path(run, "tenant", cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

/* What no row of the table is: a group alone, with --help or with a word that it does not have. */
static int explain(const char *first, const char *second) {
    bool is_group = false;
    for (const struct cli_command *c = cli_commands; c->name; c++)
        is_group |= is_in_group(c, first);
    bool wants_help = is_group && second && is_help(second);
    FILE *out = wants_help ? stdout : stderr;
    if (!is_group || (second && !wants_help))
        fprintf(out, "duragate: no command '%s%s%s'; %s\n", first, second ? " " : "",
                second ? second : "", is_group ? "there are:" : "see duragate --help");
    else
        fprintf(out, "usage: duragate %s COMMAND [OPTIONS]\n\n", first);
    if (is_group)
        print_commands(out, first);
    return wants_help ? DG_EXIT_OK : DG_EXIT_USAGE;
}

int cli_main(int argument_count, char **arguments,
             int (*serve)(const struct cli_serve *arguments)) {
    const char *first = argument_count > 1 ? arguments[1] : NULL;
    const char *second = argument_count > 2 ? arguments[2] : NULL;
    if (!first || is_help(first)) {
        print_overview(first ? stdout : stderr);
        return first ? DG_EXIT_OK : DG_EXIT_USAGE;
    }
    if (strcmp(first, "--version") == 0)
        first = "version";
    unsigned words = 0;
    struct cli_run run = {.serve = serve};
    run.command = find_command(first, second, &words);
    if (!run.command)
        return explain(first, second);
    if (!parse_words(&run, argument_count - 1 - (int)words, arguments + 1 + words))
        return DG_EXIT_USAGE;
    if (cli_has(&run, CLI_HELP)) {
        print_help(run.command);
        return DG_EXIT_OK;
    }
    if (!operands_match(&run) || (cli_has(&run, CLI_ENV) && !env_file_load(&run)) ||
        !names_fit_paths(&run))
        return DG_EXIT_USAGE;
    return run.command->run(&run);
}

const char *cli_setting(const struct cli_run *run, enum cli_option option, const char *variable,
                        const char *fallback) {
    if (option != CLI_OPTION_COUNT && run->option[option])
        return run->option[option];
    const char *value = getenv(variable);
    if (!value || !value[0])
        value = env_file_find(variable);
    return value && value[0] ? value : fallback;
}

bool cli_number(const struct cli_run *run, enum cli_option option, int64_t minimum, int64_t maximum,
                int64_t fallback, int64_t *ret_value) {
    const char *text = run->option[option];
    if (!text) {
        *ret_value = fallback;
        return true;
    }
    char *end;
    long long value = strtoll(text, &end, 10);
    if (!text[0] || *end || value < minimum || value > maximum) {
        cli_fail(run, 0, "--%s is '%s'; it takes a whole number from %lld to %lld",
                 option_rows[option].name, text, (long long)minimum, (long long)maximum);
        return false;
    }
    *ret_value = value;
    return true;
}

bool cli_duration_ms(const struct cli_run *run, enum cli_option option, int64_t fallback_ms,
                     int64_t *ret_ms) {
    static const struct {
        const char *suffix;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    const char *text = run->option[option];
    if (!text) {
        *ret_ms = fallback_ms;
        return true;
    }
    char *end;
    long long value = strtoll(text, &end, 10);
    for (unsigned i = 0; end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].suffix) == 0 && value > 0 && value < 1000000) {
            *ret_ms = value * units[i].ms;
            return true;
        }
    }
    cli_fail(run, 0, "--%s is '%s'; it takes a duration such as 500ms, 10s or 5m",
             option_rows[option].name, text);
    return false;
}

bool cli_owns_store(const struct cli_run *run, const char *directory) {
    struct stat status;
    if (stat(directory, &status) != 0 || status.st_uid == geteuid())
        return true;
    cli_fail(run, 0,
             "%s belongs to user %u: run this as that user (runuser -u NAME -- duragate ...)",
             directory, (unsigned)status.st_uid);
    return false;
}

/* ---- small commands
 * ------------------------------------------------------------------------------- */

int version_run(struct cli_run *run) {
    if (cli_has(run, CLI_JSON))
        printf("{\"version\":\"%s\"}\n", DURAGATE_VERSION);
    else
        printf("duragate %s\n", DURAGATE_VERSION);
    return DG_EXIT_OK;
}

static void complete_group(const char *group) {
    printf("        %s) words='", group);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        if (is_in_group(c, group))
            printf("%s ", c->name);
    puts("' ;;");
}

static void complete_command(const struct cli_command *command) {
    printf("        '%s%s%s') words='", command->group ? command->group : command->name,
           command->group ? " " : "", command->group ? command->name : "");
    for (const enum cli_option *o = command->options; *o != CLI_OPTION_COUNT; o++)
        printf("--%s ", option_rows[*o].name);
    puts("' ;;");
}

int completion_run(struct cli_run *run) {
    if (strcmp(run->operand[0], "bash") != 0)
        return cli_fail(run, DG_EXIT_USAGE, "only bash is supported");
    puts("_duragate() {\n    local current=${COMP_WORDS[COMP_CWORD]} words=\n"
         "    if [ \"$COMP_CWORD\" -gt 1 ]; then\n        case ${COMP_WORDS[1]} in");
    const char *group = NULL;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (c->group && (!group || strcmp(group, c->group) != 0))
            complete_group(group = c->group);
    }
    puts("        esac\n        case \"${COMP_WORDS[1]}${words:+ ${COMP_WORDS[2]:-}}\" in");
    for (const struct cli_command *c = cli_commands; c->name; c++)
        complete_command(c);
    fputs("        esac\n    else\n        words='", stdout);
    group = NULL;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (!c->group || !group || strcmp(group, c->group) != 0)
            printf("%s ", c->group ? c->group : c->name);
        group = c->group;
    }
    puts("'\n    fi\n    case ${COMP_WORDS[COMP_CWORD - 1]} in *-file | --config | --env | "
         "--certificate)\n        COMPREPLY=($(compgen -f -- \"$current\")) ;;\n    *)\n"
         "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;\n    esac\n}\n"
         "complete -F _duragate duragate");
    return DG_EXIT_OK;
}
