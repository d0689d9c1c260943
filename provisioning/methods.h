/* Method calls: the handler for routes_table.h. */
#pragma once

#include "provisioning/resource.h"

extern const struct provisioning_resource method_resource;

void method_call(struct provisioning_call *call);
