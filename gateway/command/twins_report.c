/*
 * Reported state: merged, appended, answered, told to PostgreSQL. The event's payload and the row
 * of the projection (twin_project in schemas/0008_twins.sql) are made of the patch as it was
 * understood, not of the device's own text: PostgreSQL would keep more digits of a number, or
 * refuse them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "gateway/command/twins_internal.h"
#include "registry/twin.h"

enum { FRAME_SIZE = 128 };

static void free_report(struct twin_report *report) {
    free(report->document);
    free(report);
}

/* A report that PostgreSQL has, or that will never be anywhere. */
static void settle(struct twins *twins, struct twin *twin, struct twin_report *report) {
    twins->unsaid_bytes -= report->size_bytes;
    twin->unsaid--;
    free_report(report);
    if (twin->unsaid == 0 && twin->is_stale) {
        twin->is_stale = false;
        twin_know(twins, twin, NULL, 0);
    }
    twin_run(twins, twin);
}

static struct twin_report *report_of(struct worker *worker, struct transition *transition,
                                     struct twins **ret_twins, struct twin **ret_twin) {
    *ret_twins = twins_of(worker);
    *ret_twin = *ret_twins ? twin_find(*ret_twins, transition->target.device_key) : NULL;
    return (struct twin_report *)(void *)transition;
}

static void on_projected(struct worker *worker, struct transition *transition) {
    struct twins *twins;
    struct twin *twin;
    struct twin_report *report = report_of(worker, transition, &twins, &twin);
    if (twin)
        settle(twins, twin, report);
    else /* the gateway ends */
        free_report(report);
}

static void on_done(struct worker *worker, struct transition *transition) {
    struct twins *twins;
    struct twin *twin;
    struct twin_report *report = report_of(worker, transition, &twins, &twin);
    int err = transition->err;
    if (!twin) {
        if (err < 0)
            free_report(report);
        return;
    }
    twin->is_reporting = false;
    if (err == 0) {
        twin->asks->answer.version = report->version;
        twin_know(twins, twin, report->document, report->version);
        report->document = NULL;
    }
    twin_answer(twin, err);
    if (err < 0)
        settle(twins, twin, report);
    else
        twin_run(twins, twin);
}

/* The QoS 2 identity is in another partition than the session's events: it has no offset. */
static struct stream_mutation write_identity(struct slice key) {
    static const uint8_t elsewhere[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    return (struct stream_mutation){.name_space = key.size > 0 ? STREAM_STATE_QOS2 : 0,
                                    .key = key,
                                    .value = slice_make(elsewhere, sizeof(elsewhere))};
}

static struct twin_report *make(const struct twin_ask *ask, struct slice patch,
                                const struct worker *worker, int64_t version) {
    struct slice identity = ask->request.identity;
    size_t size = sizeof(struct twin_report) + 2 * (patch.size + FRAME_SIZE) + identity.size;
    struct twin_report *report = malloc(size);
    if (!report)
        return NULL;
    char *payload = (char *)report->bytes, *row = payload + patch.size + FRAME_SIZE;
    uint8_t *key = (uint8_t *)row + patch.size + FRAME_SIZE;
    int payload_size =
        snprintf(payload, patch.size + FRAME_SIZE, "{\"version\":%lld,\"patch\":%.*s}",
                 (long long)version, (int)patch.size, (const char *)patch.data);
    int row_size =
        snprintf(row, patch.size + FRAME_SIZE, "{\"k\":%lld,\"v\":%lld,\"at\":%lld,\"p\":%.*s}",
                 (long long)ask->request.target.device_key, (long long)version,
                 (long long)worker->wall_ms, (int)patch.size, (const char *)patch.data);
    if (identity.size > 0)
        memcpy(key, identity.data, identity.size);
    *report =
        (struct twin_report){.size_bytes = size,
                             .version = version,
                             .transition = {.target = ask->request.target,
                                            .type = EVENT_STATE_REPORTED,
                                            .subject = slice_from_string("reported"),
                                            .payload = slice_make(payload, (size_t)payload_size),
                                            .kind = PROJECTION_TWIN,
                                            .owner = ask->request.target.device_key,
                                            .row = slice_make(row, (size_t)row_size),
                                            .state = write_identity(slice_make(key, identity.size)),
                                            .done = on_done,
                                            .projected = on_projected}};
    return report;
}

/* What is wrong with it, given what is known. */
static int check(const struct twins *twins, const struct twin *twin, struct twin_ask *ask,
                 char **ret_patch, char **ret_document) {
    int64_t expected = ask->request.expected_version;
    if (expected != 0 && expected != twin->reported_version) {
        snprintf(ask->why, sizeof(ask->why), "the version is %lld",
                 (long long)twin->reported_version);
        return DG_ERR_PRECONDITION;
    }
    if (twins->unsaid_bytes > LIMIT_TWIN_UNSAID_BYTES) {
        snprintf(ask->why, sizeof(ask->why), "too many reports wait for PostgreSQL, try again");
        return DG_ERR_BUSY;
    }
    int err = twin_print(ask->request.patch, ret_patch, ask->why, sizeof(ask->why));
    return err < 0 ? err
                   : twin_merge(slice_from_string(twin->reported), slice_from_string(*ret_patch),
                                ret_document, ask->why, sizeof(ask->why));
}

bool twin_report_begin(struct twins *twins, struct twin *twin) {
    struct twin_ask *ask = twin->asks;
    char *patch = NULL, *document = NULL;
    int err = check(twins, twin, ask, &patch, &document);
    struct twin_report *report =
        err == 0 ? make(ask, slice_from_string(patch), twins->worker, twin->reported_version + 1)
                 : NULL;
    free(patch);
    if (!report) {
        free(document);
        twin_answer(twin, err < 0 ? err : DG_ERR_NO_MEMORY);
        return false;
    }
    report->document = document;
    twins->unsaid_bytes += report->size_bytes;
    twin->unsaid++;
    twin->is_outdated = true;
    twin->is_reporting = true;
    transitions_append(twins->worker, &report->transition); /* may be refused at once */
    return twin->is_reporting;
}
