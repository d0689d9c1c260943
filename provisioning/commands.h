/* Handlers of commands, for routes_table.h. */
#pragma once

#include "provisioning/resource.h"

extern const struct provisioning_resource command_resource;

void command_post(struct provisioning_call *call);
void command_get(struct provisioning_call *call);
void command_delete(struct provisioning_call *call);
