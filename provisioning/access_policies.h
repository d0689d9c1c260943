/* Shared access policies of a tenant, with which services written for Azure IoT Hub log in. */
#pragma once

#include "provisioning/resource.h"

extern const struct provisioning_resource access_policy_resource;

/* Handler for routes_table.h. */
void access_policy_put(struct provisioning_call *call);
