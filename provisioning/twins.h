/* GET and PATCH of .../devices/{device}/twin, PUT of .../twin/desired. Handlers for
 * routes_table.h; worker's thread. */
#pragma once

#include "provisioning/call.h"

void twin_get(struct provisioning_call *call);
void twin_patch(struct provisioning_call *call);
void twin_put_desired(struct provisioning_call *call);
