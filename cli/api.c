#include "cli/api.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/printable.h"
#include "common/err.h"

enum { ANSWER_MAX_BYTES = 64 * 1024 * 1024, TIMEOUT_S = 30, TEXT_SIZE = 4096 };

static size_t receive_body(char *data, size_t one, size_t size, void *context) {
    struct api_answer *answer = context;
    if (answer->size_bytes + size > ANSWER_MAX_BYTES)
        return 0;
    char *grown = realloc(answer->body, answer->size_bytes + size + 1);
    if (!grown)
        return 0;
    answer->body = grown;
    memcpy(grown + answer->size_bytes, data, size);
    answer->size_bytes += size;
    grown[answer->size_bytes] = '\0';
    return size;
}

static struct curl_slist *make_headers(struct cli_run *run, bool with_body) {
    const char *key = cli_setting(run, CLI_API_KEY, "DURAGATE_API_KEY", NULL);
    struct curl_slist *headers = NULL;
    if (with_body)
        headers = curl_slist_append(headers, "Content-Type: application/json");
    if (key) {
        char line[1024];
        snprintf(line, sizeof(line), "Authorization: Bearer %s", key);
        headers = curl_slist_append(headers, line);
        explicit_bzero(line, sizeof(line));
    }
    return headers;
}

/* Takes headers over. */
static void perform(struct cli_run *run, const char *method, const char *path, const char *body,
                    struct curl_slist *headers, long more_s, struct api_answer *ret_answer) {
    *ret_answer = (struct api_answer){0};
    const char *base = cli_setting(run, CLI_URL, "DURAGATE_HTTP_URL", "http://127.0.0.1:8080");
    const char *ca_file = cli_setting(run, CLI_CA_FILE, "DURAGATE_CA_FILE", NULL);
    char url[4096];
    snprintf(url, sizeof(url), "%s%s", base, path);
    CURL *curl = curl_easy_init();
    if (!curl) {
        curl_slist_free_all(headers);
        return;
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret_answer);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)TIMEOUT_S + more_s);
    if (ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    if (body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    CURLcode code = curl_easy_perform(curl);
    ret_answer->is_unreachable =
        code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST;
    if (code == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ret_answer->status);
    else
        snprintf(ret_answer->error, sizeof(ret_answer->error), "%s: %s", base,
                 curl_easy_strerror(code));
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}

void api_call(struct cli_run *run, const char *method, const char *path, const char *body,
              struct api_answer *ret_answer) {
    api_call_for(run, method, path, body, 0, ret_answer);
}

void api_call_for(struct cli_run *run, const char *method, const char *path, const char *body,
                  long more_s, struct api_answer *ret_answer) {
    api_call_with(run, method, path, body, NULL, more_s, ret_answer);
}

void api_call_with(struct cli_run *run, const char *method, const char *path, const char *body,
                   const char *header, long more_s, struct api_answer *ret_answer) {
    struct curl_slist *headers = make_headers(run, body != NULL);
    if (header)
        headers = curl_slist_append(headers, header);
    perform(run, method, path, body, headers, more_s, ret_answer);
}

void api_create(struct cli_run *run, const char *path, const char *body,
                struct api_answer *ret_answer) {
    api_call_with(run, "PUT", path, body, "If-None-Match: *", 0, ret_answer);
}

void api_answer_free(struct api_answer *answer) {
    if (answer->body)
        explicit_bzero(answer->body, answer->size_bytes);
    free(answer->body);
    *answer = (struct api_answer){0};
}

int api_fail(struct cli_run *run, const struct api_answer *answer) {
    if (answer->status == 0)
        return cli_fail(run, DG_EXIT_UNAVAILABLE, "%s%s", answer->error,
                        answer->is_unreachable ? ": is the gateway running?" : "");
    json_t *problem = answer->body ? json_loads(answer->body, 0, NULL) : NULL;
    const char *detail = json_string_value(json_object_get(problem, "detail"));
    const char *title = json_string_value(json_object_get(problem, "title"));
    int code = answer->status == 401 || answer->status == 403 ? DG_EXIT_NOPERM : DG_EXIT_FAILURE;
    char shown[TEXT_SIZE], more[TEXT_SIZE];
    printable_copy(title ? title : "refused", TEXT_SIZE, shown, sizeof(shown));
    printable_copy(detail ? detail : "", TEXT_SIZE, more, sizeof(more));
    cli_fail(run, code, "%s%s%s (HTTP %ld)%s", shown, detail ? ": " : "", more, answer->status,
             answer->status == 401 ? "; is DURAGATE_API_KEY set, or --env given?" : "");
    json_decref(problem);
    return code;
}

/* One page; NULL after a printed error. */
static json_t *fetch_page(struct cli_run *run, const char *path, const char *cursor,
                          int *ret_code) {
    enum { URL_SIZE = 4096 };
    char url[URL_SIZE];
    struct api_answer answer;
    snprintf(url, sizeof(url), "%s%climit=500%s%s", path, strchr(path, '?') ? '&' : '?',
             cursor ? "&cursor=" : "", cursor ? cursor : "");
    api_call(run, "GET", url, NULL, &answer);
    json_t *page = answer.status == 200 ? json_loads(answer.body, 0, NULL) : NULL;
    if (!page)
        *ret_code = api_fail(run, &answer);
    api_answer_free(&answer);
    return page;
}

json_t *api_fetch_pages(struct cli_run *run, const char *path, const char *member, int *ret_code) {
    json_t *all = fetch_page(run, path, NULL, ret_code);
    json_t *cursor = json_incref(json_object_get(all, "next_cursor"));
    while (all && json_is_string(cursor)) {
        json_t *page = fetch_page(run, path, json_string_value(cursor), ret_code);
        json_decref(cursor);
        cursor = json_incref(json_object_get(page, "next_cursor"));
        if (page) {
            json_array_extend(json_object_get(all, member), json_object_get(page, member));
        } else {
            json_decref(all);
            all = NULL;
        }
        json_decref(page);
    }
    json_decref(cursor);
    return all;
}

void api_path_append(char *path, size_t path_size, const char *text) {
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t at = strlen(path);
    for (; *text && at + 4 < path_size; text++) {
        if (strchr(plain, *text))
            path[at++] = *text;
        else
            at += (size_t)sprintf(path + at, "%%%02X", (unsigned char)*text);
    }
    path[at] = '\0';
}
