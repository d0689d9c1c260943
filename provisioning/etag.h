/* Entity tags are quoted versions: "17". Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/slice.h"

/* A header's list of entity tags, or "*", against one version; weak comparison (RFC 9110 13.1.2).
 */
bool etag_matches(struct slice list, int64_t version);

/* What a write demands of the version it replaces: one of these; none at all when count is 0. */
enum { ETAG_LIST_MAX = 16 };
struct etag_condition {
    unsigned count;
    int64_t versions[ETAG_LIST_MAX]; /* or one of enum etag_special; also what SQL compares */
};
enum etag_special {
    ETAG_EXISTS = -1, /* If-Match: * */
    ETAG_ABSENT = 0,  /* If-None-Match: * */
};

/*
 * An If-Match value: "*", or a list of at most ETAG_LIST_MAX tags: "17" is its version, any other
 * tag a version that nothing has (strong comparison: a weak tag never matches, RFC 9110 13.1.1).
 * False for too long a list or no tag at all.
 */
bool etag_parse_if_match(struct slice value, struct etag_condition *ret_condition);

static inline struct etag_condition etag_condition_of(int64_t version) {
    return (struct etag_condition){.count = 1, .versions = {version}};
}
bool etag_condition_has(const struct etag_condition *condition, int64_t version);
