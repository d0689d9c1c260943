/* `duragate command send` and `command watch`; the other verbs are those of every resource
 * (resources.c). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/table.h"
#include "common/err.h"

enum { PATH_SIZE = 2048, TIMEOUT_S = 30, TIMEOUT_MAX_S = 300 };

/* ---- what is asked for ---- */

static bool add_payload(struct cli_run *run, json_t *body) {
    json_error_t error;
    if (!cli_has(run, CLI_PAYLOAD))
        return true;
    json_t *payload =
        json_loads(run->option[CLI_PAYLOAD], JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (!payload) {
        cli_fail(run, 0, "--data is no JSON (%s); text stands in double quotes: '\"text\"'",
                 error.text);
        return false;
    }
    return json_object_set_new(body, "payload", payload) == 0;
}

static bool add_ttl(struct cli_run *run, json_t *body) {
    int64_t ms;
    if (!cli_has(run, CLI_TTL))
        return true;
    if (!cli_duration_ms(run, CLI_TTL, 0, &ms))
        return false;
    if (ms % 1000 != 0) {
        cli_fail(run, 0, "--ttl takes whole seconds");
        return false;
    }
    return json_object_set_new(body, "ttl_s", json_integer(ms / 1000)) == 0;
}

static bool add_properties(struct cli_run *run, json_t *body) {
    json_t *properties = json_object();
    for (unsigned i = 0; i < run->repeated_count; i++) {
        const char *equals = strchr(run->repeated[i], '=');
        char name[256];
        snprintf(name, sizeof(name), "%.*s", equals ? (int)(equals - run->repeated[i]) : 0,
                 run->repeated[i]);
        if (!equals || json_object_set_new(properties, name, json_string(equals + 1)) != 0) {
            json_decref(properties);
            cli_fail(run, 0, "--property is '%s'; it takes NAME=VALUE, in UTF-8", run->repeated[i]);
            return false;
        }
    }
    return json_object_set_new(body, "properties", properties) == 0;
}

/* The body; NULL after a message. */
static char *make_body(struct cli_run *run) {
    json_t *body = json_pack("{s:s, s:b}", "name", run->operand[1], "wants_reply",
                             !cli_has(run, CLI_NO_REPLY));
    char *text = NULL;
    if (body && add_payload(run, body) && add_ttl(run, body) && add_properties(run, body))
        text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

/* "Idempotency-Key: KEY", or "" without one. False after a message. */
static bool make_header(struct cli_run *run, char *ret_header, size_t size) {
    const char *key = run->option[CLI_IDEMPOTENCY_KEY];
    ret_header[0] = '\0';
    for (const char *p = key; p && *p; p++)
        if (*p < ' ' || *p > '~') {
            cli_fail(run, 0, "--idempotency-key takes printable ASCII characters");
            return false;
        }
    if (key)
        snprintf(ret_header, size, "Idempotency-Key: %s", key);
    return true;
}

static void make_path(struct cli_run *run, int64_t timeout_s, char *ret_path) {
    char query[64];
    snprintf(ret_path, PATH_SIZE, "/v1/tenants/");
    api_path_append(ret_path, PATH_SIZE,
                    cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
    strncat(ret_path, "/devices/", PATH_SIZE - strlen(ret_path) - 1);
    api_path_append(ret_path, PATH_SIZE, run->operand[0]);
    strncat(ret_path, "/commands", PATH_SIZE - strlen(ret_path) - 1);
    if (!cli_has(run, CLI_WAIT))
        return;
    snprintf(query, sizeof(query), "?timeout=%lld&wait=", (long long)timeout_s);
    strncat(ret_path, query, PATH_SIZE - strlen(ret_path) - 1);
    api_path_append(ret_path, PATH_SIZE, run->option[CLI_WAIT]);
}

/* ---- what comes of it ---- */

static bool is_bad_end(const char *state) {
    static const char *const bad[] = {"rejected", "expired", "dead_lettered", "cancelled"};
    for (unsigned i = 0; state && i < sizeof(bad) / sizeof(bad[0]); i++)
        if (strcmp(state, bad[i]) == 0)
            return true;
    return false;
}

static int judge(struct cli_run *run, long status, const json_t *command) {
    const char *id = json_string_value(json_object_get(command, "command_id"));
    const char *state = json_string_value(json_object_get(command, "state"));
    if (status == 200 || !cli_has(run, CLI_WAIT))
        return is_bad_end(state) ? DG_EXIT_FAILURE : DG_EXIT_OK;
    return cli_fail(run, DG_EXIT_FAILURE,
                    "the time is over, and it is %s; it goes on: `duragate command show %s %s`",
                    state ? state : "?", run->operand[0], id ? id : "?");
}

/* Takes the answer over. */
static int print_answer(struct cli_run *run, struct api_answer *answer) {
    int code = DG_EXIT_OK;
    if (answer->status != 200 && answer->status != 202) {
        code = api_fail(run, answer);
    } else {
        json_t *command = json_loads(answer->body, 0, NULL);
        if (cli_has(run, CLI_JSON))
            puts(answer->body);
        else
            table_print_members(command);
        fflush(stdout);
        code = judge(run, answer->status, command);
        json_decref(command);
    }
    api_answer_free(answer);
    return code;
}

int command_send_run(struct cli_run *run) {
    enum { HEADER_SIZE = 1024 };
    char path[PATH_SIZE], header[HEADER_SIZE];
    int64_t timeout_s;
    struct api_answer answer;
    if (!cli_number(run, CLI_WAIT_TIMEOUT, 1, TIMEOUT_MAX_S, TIMEOUT_S, &timeout_s) ||
        !make_header(run, header, sizeof(header)))
        return DG_EXIT_USAGE;
    if (cli_has(run, CLI_WAIT_TIMEOUT) && !cli_has(run, CLI_WAIT))
        return cli_fail(run, DG_EXIT_USAGE,
                        "--timeout says how long to wait; --wait says for what");
    char *body = make_body(run);
    if (!body)
        return DG_EXIT_USAGE;
    make_path(run, timeout_s, path);
    api_call_with(run, "POST", path, body, header[0] ? header : NULL, (long)timeout_s, &answer);
    free(body);
    return print_answer(run, &answer);
}

/* The stream of commands, read as `tail` reads. */
int command_watch_run(struct cli_run *run) {
    static char topic[256];
    snprintf(topic, sizeof(topic), "%s.commands",
             cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
    run->option[CLI_TOPIC] = topic;
    run->option[CLI_ONLY_DEVICE] = run->operand[0];
    return tail_run(run);
}
