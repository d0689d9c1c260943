/* What a tenant asks of its devices' traffic, as clients write it (registry/policy.h). */
#pragma once

#include <jansson.h>

#include "common/err.h"

/* Checks the member `quota` of a tenant, if it is there. 0, DG_ERR_NO_MEMORY, or DG_ERR_INVALID and
 * a sentence that begins with the JSON pointer of what is wrong. */
DG_NODISCARD int policy_check_quota(const json_t *tenant, char *ret_detail, size_t detail_size);
