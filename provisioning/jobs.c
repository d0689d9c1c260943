/* Jobs over HTTP: /v1/tenants/{tenant}/jobs and what becomes of them. */
#include "provisioning/jobs.h"

#include <stdio.h>
#include <stdlib.h>

#include "gateway/command/jobs.h"
#include "provisioning/job_body.h"

const struct provisioning_resource job_resource = {
    .noun = "job",
    .path = {{"tenant", NAME_TENANT}, {"job", NAME_OTHER}},
    .list = STATEMENT_JOB_LIST,
    .get = STATEMENT_JOB_GET,
    .put = STATEMENT_JOB_PUT,
    .remove = STATEMENT_JOB_DELETE,
};

/* A list within a job. */
const struct provisioning_resource job_result_resource = {
    .noun = "result",
    .path = {{"tenant", NAME_TENANT}, {"job", NAME_OTHER}, {"result", NAME_OTHER}},
    .list = STATEMENT_JOB_RESULTS,
};

static void then_changed(struct provisioning_call *call, struct registry_request *result) {
    jobs_soon(call->worker);
    resource_answer(call, result);
}

/* ---- put ---- */

static int bind_number(struct registry_request *request, long number) {
    char text[24];
    snprintf(text, sizeof(text), "%ld", number);
    return registry_request_add(request, slice_from_string(text));
}

static int bind_put(struct registry_request *request, const json_t *asked) {
    static const long limits[] = {LIMIT_JOBS_OF_TENANT, LIMIT_JOBS_KEPT_OF_TENANT,
                                  LIMIT_JOB_DEVICES, LIMIT_JOB_DEVICES_OF_TENANT};
    char *text = json_dumps(asked, JSON_COMPACT);
    int err = text ? registry_request_add(request, slice_from_string(text)) : DG_ERR_NO_MEMORY;
    free(text);
    for (unsigned i = 0; err == 0 && i < sizeof(limits) / sizeof(limits[0]); i++)
        err = bind_number(request, limits[i]);
    return err;
}

static void put_asked(struct provisioning_call *call, const json_t *asked) {
    struct registry_request *request = resource_request(call, STATEMENT_JOB_PUT);
    int err = request ? bind_put(request, asked) : 0;
    if (err < 0) {
        registry_request_free(request);
        call_fail(call, err, NULL);
    } else if (request) {
        call_execute(call, request, then_changed);
    }
}

void job_put(struct provisioning_call *call) {
    char detail[CALL_DETAIL_SIZE] = "";
    json_t *asked = NULL;
    if (!call_read_body(call))
        return;
    int err = job_body_read(call->body, &asked, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    else
        put_asked(call, asked);
    json_decref(asked);
}

/* ---- the end of it ---- */

void job_abort(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_JOB_ABORT);
    if (request)
        call_execute(call, request, then_changed);
}

void job_delete(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_JOB_DELETE);
    if (request)
        call_execute(call, request, resource_answer);
}
