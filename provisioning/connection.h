/*
 * How a device is connected and what happened to it lately. The registry says which device it is,
 * then all workers are asked (gateway/session/inquiry.h). Handlers for routes_table.h; worker's
 * thread.
 */
#pragma once

#include "provisioning/call.h"

void device_get(struct provisioning_call *call);
void device_list_recent(struct provisioning_call *call);
