/* Handlers of what makes secrets: credentials and API keys. */
#pragma once

#include "provisioning/call.h"

void credential_post(struct provisioning_call *call);
void credential_put(struct provisioning_call *call);
void api_key_post(struct provisioning_call *call);
