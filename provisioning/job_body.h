/* What a client asks for with PUT of a job. Pure but for memory. */
#pragma once

#include <jansson.h>

#include "common/err.h"

/*
 * Checked and with defaults, as JOB_PUT takes it (registry/statements_table.h):
 *
 *   kind     "command" or "desired"
 *   what     the command as the API shows it, or the merge patch
 *   payload  of the command, in base64
 *   devices  their ids, or query, {"tags":{...},"enabled":true}
 *   rate     devices in a second
 *
 * 0, or DG_ERR_INVALID and a sentence that begins with the JSON pointer of what is wrong;
 * DG_ERR_TOO_LARGE likewise; DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int job_body_read(const json_t *body, json_t **ret_asked, char *ret_detail,
                               size_t detail_size);
