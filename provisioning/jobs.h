/* Handlers of jobs, for routes_table.h. */
#pragma once

#include "provisioning/resource.h"

extern const struct provisioning_resource job_resource, job_result_resource;

void job_put(struct provisioning_call *call);
void job_delete(struct provisioning_call *call);
void job_abort(struct provisioning_call *call);
