/* Reading twins from PostgreSQL: one statement at a time, for all that are wanted by then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/command/twins_internal.h"

#include <utlist.h>

enum { RETRY_MS = 1000, KEYS_SIZE = LIMIT_TWIN_LOADS * 21 + 3 };

static void begin_load(struct twins *twins);

/* ---- what is wanted ---- */

void twin_load(struct twins *twins, struct twin *twin) {
    if (!twin->wants_load) {
        twin->wants_load = true;
        twin->next_load = NULL;
        *twins->loads_end = twin;
        twins->loads_end = &twin->next_load;
    }
    if (twins->is_restored)
        begin_load(twins);
    else
        twins_retry_later(twins);
}

static struct twin *next_load(struct twins *twins) {
    struct twin *twin = twins->loads;
    twins->loads = twin->next_load;
    if (!twins->loads)
        twins->loads_end = &twins->loads;
    twin->wants_load = false;
    return twin;
}

/* ---- answers ---- */

static void read_row(const struct registry_request *result, unsigned row, struct twin_row *ret) {
    const char *version = registry_value(result, row, TWIN_COLUMN_DESIRED_VERSION);
    ret->desired_version = strtoll(version, NULL, 10);
    version = registry_value(result, row, TWIN_COLUMN_REPORTED_VERSION);
    ret->reported_version = strtoll(version, NULL, 10);
    ret->desired = registry_value(result, row, TWIN_COLUMN_DESIRED);
    ret->reported = registry_value(result, row, TWIN_COLUMN_REPORTED);
    ret->recent = registry_value(result, row, TWIN_COLUMN_RECENT);
}

/* What the device is told of both: what it has reported is known here first. */
static int write_both(const struct twin *twin, const struct twin_row *row, char **ret_document) {
    const char *reported = twin->reported ? twin->reported : row->reported;
    int64_t version = twin->reported ? twin->reported_version : row->reported_version;
    /* A document ends with its brace, before which the version goes; "{}" has no comma. */
    size_t desired_size = strlen(row->desired) - 1, reported_size = strlen(reported) - 1;
    size_t size = desired_size + reported_size + 128;
    char *text = malloc(size);
    if (!text)
        return DG_ERR_NO_MEMORY;
    int written = snprintf(
        text, size, "{\"desired\":%.*s%s\"$version\":%lld},\"reported\":%.*s%s\"$version\":%lld}}",
        (int)desired_size, row->desired, desired_size > 1 ? "," : "",
        (long long)row->desired_version, (int)reported_size, reported, reported_size > 1 ? "," : "",
        (long long)version);
    dg_assert(written > 0 && (size_t)written < size);
    *ret_document = text;
    return 0;
}

static void answer_get(struct twin *twin, const struct twin_row *row) {
    struct twin_ask *ask = twin->asks;
    if (!ask || ask->request.action != TWIN_GET || ask->loads_left == 0 || --ask->loads_left > 0)
        return;
    twin_answer(twin, write_both(twin, row, &ask->document));
}

/* What PostgreSQL says of the reported state counts unless it is being told otherwise, or was. */
static void take_reported(struct twins *twins, struct twin *twin, const struct twin_row *row) {
    if (twin->unsaid > 0 || twin->is_outdated)
        return;
    char *copy = strdup(row->reported);
    if (!copy)
        twin_answer_all(twin, DG_ERR_NO_MEMORY);
    twin->is_stale = false;
    twin_know(twins, twin, copy, row->reported_version);
}

static bool wants_reported(const struct twin *twin) {
    return twin->reported || (twin->asks && twin->asks->request.action == TWIN_REPORT);
}

static void found(struct twins *twins, struct twin *twin, const struct registry_request *result,
                  unsigned at) {
    struct twin_row row;
    read_row(result, at, &row);
    if (wants_reported(twin))
        take_reported(twins, twin, &row);
    answer_get(twin, &row);
    twin_tell(twins, twin, &row);
}

/* Its device has gone. */
static void missed(struct twins *twins, struct twin *twin) {
    twin_answer_all(twin, DG_ERR_NOT_FOUND);
    twin_drop_ears(twin);
    if (twin->unsaid == 0)
        twin_know(twins, twin, NULL, 0);
}

static int find_row(const struct registry_request *result, int64_t device_key) {
    for (unsigned row = 0; row < result->row_count; row++)
        if (strtoll(registry_value(result, row, TWIN_COLUMN_DEVICE_KEY), NULL, 10) == device_key)
            return (int)row;
    return -1;
}

static void failed(struct twin *twin, int err) {
    struct twin_ear *ear;
    twin_answer_all(twin, err);
    LL_FOREACH(twin->ears, ear) {
        ear->is_behind = true;
    }
}

static void loaded(struct twins *twins, const struct registry_request *result) {
    for (unsigned i = 0; i < twins->loading_count; i++) {
        struct twin *twin = twin_find(twins, twins->loading[i]);
        int row = result->err == 0 ? find_row(result, twins->loading[i]) : -1;
        twin->is_loading = false;
        if (result->err < 0)
            failed(twin, result->err);
        else if (row < 0)
            missed(twins, twin);
        else
            found(twins, twin, result, (unsigned)row);
        twin_run(twins, twin);
    }
    if (result->err < 0)
        twins_retry_later(twins);
    twins->loading_count = 0;
    begin_load(twins);
}

static void on_loaded(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    struct twins *twins = twins_of(receiver);
    if (twins)
        loaded(twins, request);
    registry_request_free(request);
}

/* ---- asking ---- */

/* Two arrays: the devices, and those of them whose last changes are asked for. */
static int write_keys(struct twins *twins, struct registry_request *request) {
    char all[KEYS_SIZE] = "{", changes[KEYS_SIZE] = "{";
    size_t all_size = 1, changes_size = 1;
    for (unsigned i = 0; i < twins->loading_count; i++) {
        const struct twin *twin = twin_find(twins, twins->loading[i]);
        all_size += (size_t)sprintf(all + all_size, "%s%lld", all_size > 1 ? "," : "",
                                    (long long)twin->device_key);
        if (twin_has_changes(twin))
            changes_size +=
                (size_t)sprintf(changes + changes_size, "%s%lld", changes_size > 1 ? "," : "",
                                (long long)twin->device_key);
    }
    all[all_size++] = changes[changes_size++] = '}';
    int err = registry_request_add(request, slice_make(all, all_size));
    return err == 0 ? registry_request_add(request, slice_make(changes, changes_size)) : err;
}

static void begin_load(struct twins *twins) {
    if (twins->loading_count > 0 || !twins->loads)
        return;
    while (twins->loads && twins->loading_count < LIMIT_TWIN_LOADS) {
        struct twin *twin = next_load(twins);
        twin->is_loading = true;
        twin->is_outdated = twin->unsaid > 0;
        twins->loading[twins->loading_count++] = twin->device_key;
    }
    struct registry_request *request = registry_request_new(STATEMENT_TWIN_LOAD);
    if (!request || write_keys(twins, request) < 0) {
        registry_request_free(request);
        loaded(twins, &(struct registry_request){.err = DG_ERR_NO_MEMORY});
        return;
    }
    request->mail.deliver = on_loaded;
    request->reply_to = &twins->worker->mailbox;
    request->account = registry_account_of_commands(twins->worker->index);
    request->is_own = true;
    registry_execute(twins->options->registry, request);
}

/* ---- another time ---- */

void twins_retry_later(struct twins *twins) {
    static const struct timeval pause = {.tv_sec = RETRY_MS / 1000};
    if (!evtimer_pending(&twins->retry_timer, NULL))
        evtimer_add(&twins->retry_timer, &pause);
}

static bool is_behind(const struct twin *twin) {
    const struct twin_ear *ear;
    LL_SEARCH_SCALAR(twin->ears, ear, is_behind, true);
    return ear != NULL;
}

void twins_on_retry(evutil_socket_t fd, short what, void *context) {
    struct twins *twins = context;
    worker_refresh_time(twins->worker);
    for (uint32_t i = 0; i < twins->by_key.capacity; i++) {
        struct twin *twin = (struct twin *)(uintptr_t)twins->by_key.slots[i].value;
        if (twins->by_key.slots[i].key == 0)
            continue;
        if (!twins->is_restored) /* who asks does not wait for that */
            twin_answer_all(twin, DG_ERR_UNAVAILABLE);
        if (is_behind(twin) && !twin->wants_load)
            twin_load(twins, twin);
    }
}

void twins_restored(struct worker *worker) {
    struct twins *twins = twins_of(worker);
    twins->is_restored = true;
    begin_load(twins);
}
