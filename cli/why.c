/* `duragate device why`: how a device is connected, and what happened to it lately, in words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/command.h"
#include "cli/printable.h"
#include "cli/table.h"
#include "common/err.h"

enum { PATH_SIZE = 2048, RECENT_MAX = 200, RECENT_DEFAULT = 50, TIME_WIDTH = 26 };

/* ---- asking ---- */

/* GET; NULL after printing what went wrong. */
static json_t *fetch(struct cli_run *run, const char *path, int *ret_code) {
    struct api_answer answer;
    api_call(run, "GET", path, NULL, &answer);
    json_t *value = answer.status == 200 ? json_loads(answer.body, 0, NULL) : NULL;
    if (!value)
        *ret_code = api_fail(run, &answer);
    api_answer_free(&answer);
    return value;
}

/* The device, with its entries as a member "recent". */
static json_t *fetch_all(struct cli_run *run, int64_t limit, int *ret_code) {
    char path[PATH_SIZE] = "/v1/tenants/", query[64];
    api_path_append(path, sizeof(path), cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
    strncat(path, "/devices/", sizeof(path) - strlen(path) - 1);
    api_path_append(path, sizeof(path), run->operand[0]);
    json_t *device = fetch(run, path, ret_code);
    if (!device)
        return NULL;
    snprintf(query, sizeof(query), "/recent?limit=%lld", (long long)limit);
    strncat(path, query, sizeof(path) - strlen(path) - 1);
    json_t *page = fetch(run, path, ret_code);
    json_object_set(device, "recent", json_object_get(page, "items"));
    if (!page) {
        json_decref(device);
        return NULL;
    }
    json_decref(page);
    return device;
}

/* ---- printing ---- */

static void print_text(const char *before, const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    if (!text || !text[0])
        return;
    fputs(before, stdout);
    printable_write(stdout, text, strlen(text));
}

static long long number(const json_t *object, const char *name) {
    return json_integer_value(json_object_get(object, name));
}

static void print_connected(const json_t *connection) {
    print_text("connected since ", connection, "since");
    print_text(" from ", connection, "peer");
    print_text(", ", connection, "protocol");
    print_text(", client id ", connection, "client_id");
    print_text("\nlast heard ", connection, "last_activity");
    printf(", keep-alive %lld s; its session outlives the connection by %lld s\n",
           number(connection, "keep_alive_seconds"), number(connection, "session_expiry_seconds"));
    printf(
        "publishes on this connection: %lld taken in, %lld refused, %lld dropped (QoS 0), %lld not "
        "acknowledged yet\n",
        number(connection, "published"), number(connection, "refused"),
        number(connection, "dropped"), number(connection, "in_flight"));
}

static void print_not_connected(const json_t *connection) {
    const json_t *end = json_object_get(connection, "last_end");
    fputs("not connected", stdout);
    print_text(": ", end, "text");
    print_text(", ", end, "at");
    putchar('\n');
    print_text("its session is kept until ", json_object_get(connection, "session"), "expires_at");
    if (json_is_object(json_object_get(connection, "session")))
        putchar('\n');
}

static void print_state(const json_t *device) {
    const json_t *connection = json_object_get(device, "connection");
    print_text("device ", device, "device_id");
    puts(json_is_false(json_object_get(device, "enabled"))
             ? ": switched off; `duragate device enable` lets it in"
             : ": may connect");
    if (json_is_true(json_object_get(connection, "connected")))
        print_connected(connection);
    else
        print_not_connected(connection);
}

static void print_part(const char *before, const json_t *entry, const char *name) {
    if (!json_is_string(json_object_get(entry, name)))
        return;
    printf("%*s", TIME_WIDTH, "");
    print_text(before, entry, name);
    putchar('\n');
}

static void print_detail(const json_t *entry) {
    const char *name = json_string_value(json_object_get(entry, "detail_name"));
    char before[64];
    snprintf(before, sizeof(before), "%s%s", name ? name : "", name ? ": " : "");
    print_part(before, entry, "detail");
}

/* The same advice is given once. */
static bool is_news(const json_t *entries, size_t index) {
    const json_t *advice = json_object_get(json_array_get(entries, index), "advice");
    for (size_t i = 0; i < index; i++)
        if (json_equal(json_object_get(json_array_get(entries, i), "advice"), advice))
            return false;
    return true;
}

static void print_entry(const json_t *entries, size_t index) {
    const json_t *entry = json_array_get(entries, index);
    print_text("", entry, "at");
    print_text("  ", entry, "text");
    if (number(entry, "count") > 1)
        printf(" (%lld times)", number(entry, "count"));
    print_text(", from ", entry, "peer");
    putchar('\n');
    print_detail(entry);
    if (is_news(entries, index))
        print_part("-> ", entry, "advice");
}

static void print_page(const json_t *device) {
    const json_t *entries = json_object_get(device, "recent");
    print_state(device);
    putchar('\n');
    if (json_array_size(entries) == 0)
        puts("nothing is recorded of it, since the gateway started or lately");
    for (size_t i = 0; i < json_array_size(entries); i++)
        print_entry(entries, i);
}

int device_why_run(struct cli_run *run) {
    int64_t limit;
    int code = DG_EXIT_OK;
    if (!cli_number(run, CLI_LIMIT, 1, RECENT_MAX, RECENT_DEFAULT, &limit))
        return DG_EXIT_USAGE;
    json_t *device = fetch_all(run, limit, &code);
    if (!device)
        return code;
    if (cli_has(run, CLI_JSON))
        table_print_json(device);
    else
        print_page(device);
    json_decref(device);
    return DG_EXIT_OK;
}
