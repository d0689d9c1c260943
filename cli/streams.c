/*
 * `duragate stream`: the tenant's streams and the consumer groups that read them, over the
 * management API.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/printable.h"
#include "cli/table.h"
#include "common/err.h"

enum { PATH_SIZE = 2048, NAME_SIZE = 1024 };

static const char *const topic_columns[] = {"name",    "stream_id",  "partition_count",
                                            "records", "size_bytes", NULL};
static const char *const partition_columns[] = {"partition",  "log_start_offset", "end_offset",
                                                "size_bytes", "last_record_at",   NULL};
static const char *const group_columns[] = {"group",
                                            "state",
                                            "member_count",
                                            "lag",
                                            "lag_seconds",
                                            "log_start_distance",
                                            "overtaken_partitions",
                                            NULL};
static const char *const member_columns[] = {"member_id", "instance_id", "client_id", "client_host",
                                             NULL};
static const char *const lag_columns[] = {"stream",     "partition", "committed_offset",
                                          "end_offset", "lag",       "log_start_distance",
                                          "overtaken",  "member_id"};
static const char *const reset_columns[] = {"partition", "offset_before", "offset", NULL};

/* "/v1/tenants/<tenant>" and the words behind it, ended by NULL; every second one is encoded. */
static void make_path(struct cli_run *run, char *ret_path, const char *const *words) {
    strcpy(ret_path, "/v1/tenants/");
    api_path_append(ret_path, PATH_SIZE,
                    cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
    for (unsigned i = 0; words[i]; i++) {
        if (i % 2 == 0)
            strncat(ret_path, words[i], PATH_SIZE - strlen(ret_path) - 1);
        else
            api_path_append(ret_path, PATH_SIZE, words[i]);
    }
}
#define MAKE_PATH(run, path, ...) make_path(run, path, (const char *const[]){__VA_ARGS__, NULL})

static json_t *fetch_list(struct cli_run *run, const char *path, const char *member,
                          int *ret_code) {
    json_t *page = api_fetch_pages(run, path, member, ret_code);
    json_t *items = json_incref(json_object_get(page, member));
    json_decref(page);
    return items;
}

static int print_list(struct cli_run *run, const char *path, const char *member,
                      const char *const *columns) {
    int code = DG_EXIT_OK;
    json_t *items = fetch_list(run, path, member, &code);
    if (!items)
        return code;
    if (cli_has(run, CLI_JSON))
        table_print_json(items);
    else
        table_print(columns, items);
    json_decref(items);
    return DG_EXIT_OK;
}

int stream_topics_run(struct cli_run *run) {
    char path[PATH_SIZE];
    MAKE_PATH(run, path, "/streams");
    return print_list(run, path, "items", topic_columns);
}

int stream_partitions_run(struct cli_run *run) {
    char path[PATH_SIZE];
    MAKE_PATH(run, path, "/streams/", run->operand[0], "/partitions");
    return print_list(run, path, "items", partition_columns);
}

/* ---- groups ----------------------------------------------------------------------------------
 */

/* A name that the gateway tells, fit for a terminal. */
static void show_member(const json_t *object, const char *member, char ret_name[NAME_SIZE]) {
    const char *name = json_string_value(json_object_get(object, member));
    printable_copy(name ? name : "?", NAME_SIZE, ret_name, NAME_SIZE);
}

/* What a table of numbers may let one overlook. */
static void warn_overtaken(const json_t *group) {
    long long partitions = json_integer_value(json_object_get(group, "overtaken_partitions"));
    if (partitions == 0)
        return;
    char name[NAME_SIZE];
    show_member(group, "group", name);
    fprintf(stderr,
            "group %s: retention removed records of %lld partition%s that it had not read; see "
            "storage.retention_time and storage.retention_bytes\n",
            name, partitions, partitions == 1 ? "" : "s");
}

int stream_groups_run(struct cli_run *run) {
    char path[PATH_SIZE];
    int code = DG_EXIT_OK;
    size_t index;
    json_t *group;
    MAKE_PATH(run, path, "/consumer-groups");
    json_t *groups = fetch_list(run, path, "items", &code);
    if (!groups)
        return code;
    if (cli_has(run, CLI_JSON))
        table_print_json(groups);
    else
        table_print(group_columns, groups);
    json_array_foreach(groups, index, group) warn_overtaken(group);
    json_decref(groups);
    return DG_EXIT_OK;
}

static json_t *fetch_group(struct cli_run *run, int *ret_code) {
    char path[PATH_SIZE];
    MAKE_PATH(run, path, "/consumer-groups/", run->operand[0]);
    return api_fetch_pages(run, path, "partitions", ret_code);
}

static void print_summary(const json_t *group) {
    static const char *const members[] = {"group",
                                          "state",
                                          "protocol_type",
                                          "protocol",
                                          "member_count",
                                          "committed_partitions",
                                          "lag",
                                          "lag_seconds",
                                          "log_start_distance",
                                          "overtaken_partitions"};
    json_t *summary = json_object();
    for (unsigned i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        json_object_set(summary, members[i], json_object_get(group, members[i]));
    table_print_members(summary);
    json_decref(summary);
}

int stream_group_run(struct cli_run *run) {
    int code = DG_EXIT_OK;
    json_t *group = fetch_group(run, &code);
    if (!group)
        return code;
    if (cli_has(run, CLI_JSON)) {
        table_print_json(group);
    } else {
        print_summary(group);
        putchar('\n');
        table_print(member_columns, json_object_get(group, "members"));
        putchar('\n');
        table_print(lag_columns, json_object_get(group, "partitions"));
    }
    warn_overtaken(group);
    json_decref(group);
    return DG_EXIT_OK;
}

/* Of all groups, or of one the partitions. */
int stream_lag_run(struct cli_run *run) {
    int code = DG_EXIT_OK;
    if (run->operand_count == 0)
        return stream_groups_run(run);
    json_t *group = fetch_group(run, &code);
    if (!group)
        return code;
    if (cli_has(run, CLI_JSON))
        table_print_json(json_object_get(group, "partitions"));
    else
        table_print(lag_columns, json_object_get(group, "partitions"));
    warn_overtaken(group);
    json_decref(group);
    return DG_EXIT_OK;
}

int stream_delete_group_run(struct cli_run *run) {
    char path[PATH_SIZE];
    struct api_answer answer;
    MAKE_PATH(run, path, "/consumer-groups/", run->operand[0]);
    api_call(run, "DELETE", path, NULL, &answer);
    int code = answer.status == 204 ? DG_EXIT_OK : api_fail(run, &answer);
    if (code == DG_EXIT_OK && !cli_has(run, CLI_JSON))
        printf("group %s and its offsets are forgotten\n", run->operand[0]);
    api_answer_free(&answer);
    return code;
}

/* ---- reset -----------------------------------------------------------------------------------
 */

/* --partition STREAM/N, else --topic. False after a message. */
static bool add_place(struct cli_run *run, json_t *body) {
    const char *text = run->option[CLI_PARTITION];
    const char *slash = text ? strrchr(text, '/') : NULL;
    char *end = NULL;
    long number = slash ? strtol(slash + 1, &end, 10) : 0;
    if (!text) {
        const char *topic = cli_setting(run, CLI_TOPIC, "DURAGATE_TOPIC", "events");
        json_object_set_new(body, "stream", json_string(topic));
        return true;
    }
    if (!slash || slash == text || !slash[1] || *end || number < 0) {
        cli_fail(run, 0, "--partition is '%s'; it takes STREAM/N, e.g. acme.events/3", text);
        return false;
    }
    json_object_set_new(body, "stream", json_stringn(text, (size_t)(slash - text)));
    json_object_set_new(body, "partition", json_integer(number));
    return true;
}

static json_t *make_body(struct cli_run *run) {
    json_t *body = json_object();
    json_object_set_new(body, "to", json_string(run->option[CLI_TO]));
    json_object_set_new(body, "dry_run", json_boolean(cli_has(run, CLI_DRY_RUN)));
    if (add_place(run, body))
        return body;
    json_decref(body);
    return NULL;
}

/* An offset that a partition does not have is moved to the nearest one that it has. */
static void warn_moved(const struct cli_run *run, const json_t *partitions) {
    char *end;
    long long wanted = strtoll(run->option[CLI_TO], &end, 10);
    unsigned moved = 0;
    size_t index;
    const json_t *partition;
    if (end == run->option[CLI_TO] || *end)
        return; /* a word or a time */
    json_array_foreach(partitions, index, partition) {
        const char *offset = json_string_value(json_object_get(partition, "offset"));
        moved += offset && strtoll(offset, NULL, 10) != wanted;
    }
    if (moved > 0)
        fprintf(stderr, "%u of %zu partitions have no offset %lld: the nearest one is taken\n",
                moved, json_array_size(partitions), wanted);
}

static int print_reset(struct cli_run *run, const struct api_answer *answer) {
    json_t *done = answer->status == 200 ? json_loads(answer->body, 0, NULL) : NULL;
    if (!done)
        return api_fail(run, answer);
    if (cli_has(run, CLI_JSON)) {
        table_print_json(done);
    } else {
        char group[NAME_SIZE], stream[NAME_SIZE];
        show_member(done, "group", group);
        show_member(done, "stream", stream);
        table_print(reset_columns, json_object_get(done, "partitions"));
        if (cli_has(run, CLI_DRY_RUN))
            puts("dry run: nothing was changed");
        else
            printf("group %s reads %s from these offsets on\n", group, stream);
    }
    warn_moved(run, json_object_get(done, "partitions"));
    json_decref(done);
    return DG_EXIT_OK;
}

int stream_reset_run(struct cli_run *run) {
    char path[PATH_SIZE];
    struct api_answer answer;
    if (!cli_has(run, CLI_TO))
        return cli_fail(run, DG_EXIT_USAGE,
                        "say where to: --to earliest, latest, an offset, or an RFC 3339 time");
    json_t *body = make_body(run);
    if (!body)
        return DG_EXIT_USAGE;
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    MAKE_PATH(run, path, "/consumer-groups/", run->operand[0], "/reset-offsets");
    api_call(run, "POST", path, text, &answer);
    free(text);
    int code = print_reset(run, &answer);
    api_answer_free(&answer);
    return code;
}
