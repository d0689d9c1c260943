/*
 * tenant, device, credential, command, job, twin and policy: the same verbs on each kind of
 * resource. One row per kind says where it lives in the API and which members its table shows.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/table.h"
#include "common/err.h"

enum { PATH_SIZE = 2048 };

static const struct resource {
    const char *group;
    const char *collection; /* with %t for the tenant and %1 for the first operand */
    const char *member;     /* "" when the first operand is the whole name */
    const char *columns[TABLE_COLUMNS_MAX];
} resources[] = {
    {"tenant", "/v1/tenants", "/%1", {"name", "enabled", "partition_count", "created_at"}},
    {"device",
     "/v1/tenants/%t/devices",
     "/%1",
     {"device_id", "enabled", "partition", "tags", "created_at"}},
    {"credential",
     "/v1/tenants/%t/devices/%1/credentials",
     "/%2",
     {"name", "kind", "not_before", "not_after", "created_at"}},
    {"command",
     "/v1/tenants/%t/devices/%1/commands",
     "/%2",
     {"command_id", "name", "state", "delivery_count", "created_at", "finished_at"}},
    {"twin", "/v1/tenants/%t/devices/%1/twin", "", {NULL}},
    {"policy",
     "/v1/tenants/%t/access-policies",
     "/%1",
     {"name", "rights", "created_at", "updated_at"}},
    {"job",
     "/v1/tenants/%t/jobs",
     "/%1",
     {"name", "state", "rate", "total", "reached", "refused", "created_at", "finished_at"}},
};

static const struct resource *find_resource(const struct cli_run *run) {
    for (unsigned i = 0; i < sizeof(resources) / sizeof(resources[0]); i++)
        if (strcmp(resources[i].group, run->command->group) == 0)
            return &resources[i];
    return NULL;
}

/* Appends a pattern with %t, %1 and %2 replaced, percent-encoded. */
static void append_path(struct cli_run *run, char *path, const char *pattern) {
    for (; *pattern; pattern++) {
        if (*pattern != '%') {
            size_t at = strlen(path);
            if (at + 1 < PATH_SIZE)
                memcpy(path + at, (char[]){*pattern, '\0'}, 2);
            continue;
        }
        pattern++;
        if (*pattern == 't')
            api_path_append(path, PATH_SIZE,
                            cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
        else
            api_path_append(path, PATH_SIZE,
                            run->operand[*pattern - '1'] ? run->operand[*pattern - '1'] : "");
    }
}

static void make_path(struct cli_run *run, bool member, char *ret_path) {
    const struct resource *resource = find_resource(run);
    ret_path[0] = '\0';
    append_path(run, ret_path, resource->collection);
    if (member)
        append_path(run, ret_path, resource->member);
}

/* ---- printing
 * ------------------------------------------------------------------------------------- */

/* A device's connection is an object within: lines of its own, below a heading. */
static void print_object(json_t *object) {
    json_t *connection = json_incref(json_object_get(object, "connection"));
    if (json_is_object(connection))
        json_object_del(object, "connection");
    table_print_members(object);
    if (json_is_object(connection)) {
        puts("\nconnection");
        table_print_members(connection);
    }
    json_decref(connection);
}

/* Prints one object as it came (--json) or as lines; takes the answer over. */
static int print_answer(struct cli_run *run, struct api_answer *answer) {
    int code = DG_EXIT_OK;
    if (answer->status < 200 || answer->status > 299) {
        code = api_fail(run, answer);
    } else if (answer->size_bytes > 0) {
        json_t *object = json_loads(answer->body, 0, NULL);
        if (cli_has(run, CLI_JSON) || !object)
            puts(answer->body);
        else
            print_object(object);
        json_decref(object);
    }
    api_answer_free(answer);
    return code;
}

/* ---- verbs
 * ---------------------------------------------------------------------------------------- */

static int print_pages(struct cli_run *run, const char *path, const char *const *columns) {
    int code = DG_EXIT_OK;
    json_t *all = api_fetch_pages(run, path, "items", &code);
    if (!all)
        return code;
    if (cli_has(run, CLI_JSON))
        table_print_json(json_object_get(all, "items"));
    else
        table_print(columns, json_object_get(all, "items"));
    json_decref(all);
    return DG_EXIT_OK;
}

int resource_list_run(struct cli_run *run) {
    char collection[PATH_SIZE];
    make_path(run, false, collection);
    if (cli_has(run, CLI_STATE)) {
        strncat(collection, "?state=", sizeof(collection) - strlen(collection) - 1);
        api_path_append(collection, sizeof(collection), run->option[CLI_STATE]);
    }
    return print_pages(run, collection, find_resource(run)->columns);
}

static int call_member(struct cli_run *run, const char *method, const char *body) {
    char path[PATH_SIZE];
    struct api_answer answer;
    make_path(run, true, path);
    api_call(run, method, path, body, &answer);
    return print_answer(run, &answer);
}

int resource_show_run(struct cli_run *run) {
    return call_member(run, "GET", NULL);
}

/* What an option gives as JSON, or the file that it names as @FILE (a list of devices may be longer
 * than a command line). The caller's to free; NULL after saying why. */
static char *read_data(struct cli_run *run, const char *data) {
    json_error_t error;
    if (data[0] != '@')
        return strdup(data);
    json_t *value = json_load_file(data + 1, JSON_REJECT_DUPLICATES, &error);
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    if (!text)
        cli_fail(run, 0, "cannot use %s: %s", data + 1, value ? "out of memory" : error.text);
    json_decref(value);
    return text;
}

static int call_with_data(struct cli_run *run, const char *method, const char *option) {
    char *data = read_data(run, option);
    int code = data ? call_member(run, method, data) : DG_EXIT_USAGE;
    free(data);
    return code;
}

/* What is there stays as it is: a device that was switched off would be let in again. */
int resource_create_run(struct cli_run *run) {
    char path[PATH_SIZE];
    struct api_answer answer;
    make_path(run, true, path);
    char *data = read_data(run, cli_has(run, CLI_DATA) ? run->option[CLI_DATA] : "{}");
    if (!data)
        return DG_EXIT_USAGE;
    api_create(run, path, data, &answer);
    free(data);
    if (answer.status != 412)
        return print_answer(run, &answer);
    api_answer_free(&answer);
    return cli_fail(run, DG_EXIT_FAILURE,
                    "%s '%s' is there already; `duragate %s update` changes it",
                    run->command->group, run->operand[0], run->command->group);
}

int resource_update_run(struct cli_run *run) {
    if (!cli_has(run, CLI_DATA))
        return cli_fail(run, DG_EXIT_USAGE,
                        "give the members to change: --data '{\"tags\":{...}}'");
    return call_with_data(run, "PATCH", run->option[CLI_DATA]);
}

int resource_delete_run(struct cli_run *run) {
    return call_member(run, "DELETE", NULL);
}

int resource_enable_run(struct cli_run *run) {
    bool enable = strcmp(run->command->name, "enable") == 0;
    return call_member(run, "PATCH", enable ? "{\"enabled\":true}" : "{\"enabled\":false}");
}

/* ---- jobs
 * --------------------------------------------------------------------------------------- */

int job_start_run(struct cli_run *run) {
    const char *data = run->option[CLI_JOB];
    if (!data)
        return cli_fail(run, DG_EXIT_USAGE, "say what to do, and for which devices: --data");
    return call_with_data(run, "PUT", data);
}

int job_abort_run(struct cli_run *run) {
    char path[PATH_SIZE];
    struct api_answer answer;
    make_path(run, true, path);
    append_path(run, path, "/abort");
    api_call(run, "POST", path, NULL, &answer);
    return print_answer(run, &answer);
}

int job_results_run(struct cli_run *run) {
    static const char *const columns[TABLE_COLUMNS_MAX] = {"device_id", "state", "command_id",
                                                           "reply_status", "reason"};
    char path[PATH_SIZE];
    make_path(run, true, path);
    append_path(run, path, "/results");
    return print_pages(run, path, columns);
}

/* ---- calls
 * -------------------------------------------------------------------------------------- */

/* Whether the device's own status is a success; what it says was printed. */
static bool call_succeeded(const char *body) {
    json_t *answer = json_loads(body, 0, NULL);
    json_int_t status = json_integer_value(json_object_get(answer, "status"));
    json_decref(answer);
    return status >= 200 && status < 300;
}

int device_call_run(struct cli_run *run) {
    enum { TIMEOUT_MAX_S = 300 };
    int64_t response_s, connect_s;
    char path[PATH_SIZE], query[128];
    struct api_answer answer;
    if (!cli_number(run, CLI_TIMEOUT, 1, TIMEOUT_MAX_S, 30, &response_s) ||
        !cli_number(run, CLI_CONNECT_TIMEOUT, 0, TIMEOUT_MAX_S, 0, &connect_s))
        return DG_EXIT_USAGE;
    make_path(run, true, path);
    append_path(run, path, "/methods/%2");
    snprintf(query, sizeof(query), "?connect_timeout=%lld&response_timeout=%lld",
             (long long)connect_s, (long long)response_s);
    strncat(path, query, sizeof(path) - strlen(path) - 1);
    api_call_for(run, "POST", path, cli_has(run, CLI_PAYLOAD) ? run->option[CLI_PAYLOAD] : "null",
                 (long)(response_s + connect_s), &answer);
    bool failed = answer.status == 200 && !call_succeeded(answer.body);
    int code = print_answer(run, &answer);
    return failed ? DG_EXIT_FAILURE : code;
}

/* ---- credentials
 * ---------------------------------------------------------------------------------- */

/* The content of a file as a JSON string, without its last newline; NULL with a message. */
static json_t *file_as_json(struct cli_run *run, const char *path) {
    json_t *text = NULL;
    char content[16384];
    FILE *file = fopen(path, "re");
    size_t size = file ? fread(content, 1, sizeof(content), file) : 0;
    if (file && size > 0 && size < sizeof(content)) {
        size -= content[size - 1] == '\n';
        text = json_stringn(content, size);
    }
    if (file)
        fclose(file);
    explicit_bzero(content, sizeof(content));
    if (!text)
        cli_fail(run, 0, "cannot use %s: it must be readable text of less than 16 KiB", path);
    return text;
}

int credential_create_run(struct cli_run *run) {
    static const struct {
        enum cli_option option;
        const char *member;
    } files[] = {{CLI_PASSWORD, "password"}, {CLI_CERTIFICATE, "certificate"}};
    json_t *body = json_object();
    json_object_set_new(body, "kind",
                        json_string(cli_has(run, CLI_KIND) ? run->option[CLI_KIND] : "key"));
    if (cli_has(run, CLI_NAME))
        json_object_set_new(body, "name", json_string(run->option[CLI_NAME]));
    if (cli_has(run, CLI_NOT_AFTER))
        json_object_set_new(body, "not_after", json_string(run->option[CLI_NOT_AFTER]));
    for (unsigned i = 0; i < 2; i++) {
        json_t *content = NULL;
        if (cli_has(run, files[i].option) &&
            !(content = file_as_json(run, run->option[files[i].option]))) {
            json_decref(body);
            return DG_EXIT_USAGE;
        }
        if (content)
            json_object_set_new(body, files[i].member, content);
    }
    char *text = json_dumps(body, JSON_COMPACT), path[PATH_SIZE];
    json_decref(body);
    struct api_answer answer;
    make_path(run, false, path);
    api_call(run, "POST", path, text, &answer);
    explicit_bzero(text, strlen(text));
    free(text);
    return print_answer(run, &answer);
}

int healthcheck_run(struct cli_run *run) {
    struct api_answer answer;
    api_call(run, "GET", "/readyz", NULL, &answer);
    int code = answer.status == 200 ? DG_EXIT_OK : DG_EXIT_FAILURE;
    if (answer.status == 0)
        cli_fail(run, code, "%s", answer.error);
    else
        fprintf(code ? stderr : stdout, "%s\n", answer.body ? answer.body : "");
    api_answer_free(&answer);
    return code;
}
