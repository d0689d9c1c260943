/* Method calls: the handler for routes_table.h. */
#pragma once

#include "provisioning/resource.h"

extern const struct provisioning_resource method_resource;

void method_call(struct provisioning_call *call);

struct call_request; /* gateway/command/calls.h */
/* Begins a call whose answer is the exchange's, as long as its client is there; failures are
 * answered here. Of request all but owner and is_wanted is set. */
void method_begin(struct provisioning_call *call, struct call_request *request);
