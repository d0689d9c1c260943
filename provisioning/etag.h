/* Entity tags are quoted versions: "17". Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/slice.h"

/* A header's list of entity tags, or "*", against one version; weak comparison (RFC 9110 13.1.2).
 */
bool etag_matches(struct slice list, int64_t version);

/*
 * One If-Match value as what SQL compares: CALL_PRECONDITION_EXISTS for "*", the version for "17",
 * a version that nothing has for any other tag (strong comparison: a weak tag never matches, RFC
 * 9110 13.1.1). False for a list of several tags or no tag at all.
 */
bool etag_parse_if_match(struct slice value, int64_t *ret_precondition);
