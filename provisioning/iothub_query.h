/*
 * The query language for devices of Azure IoT Hub's service API, the part of it that is served:
 *
 *   SELECT [TOP n] * FROM devices [WHERE condition]
 *
 * with = != <> < <= > >=, AND OR NOT, parentheses, IN [..], NIN [..], IS_DEFINED, IS_NULL, IS_BOOL,
 * IS_NUMBER, IS_STRING, IS_OBJECT, IS_ARRAY, IS_PRIMITIVE, STARTSWITH and CONTAINS. A condition
 * becomes an SQL/JSON path (ISO/IEC 9075-2) over the document of a twin, which PostgreSQL gets as
 * the value of a parameter: nothing of a client's text is ever read as SQL. Its logic has three
 * values, as the query language has: what is missing, or of another type, is neither true nor
 * false. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"

enum {
    IOTHUB_QUERY_DETAIL_SIZE = 256,
    IOTHUB_QUERY_CONDITION_SIZE = 8 * LIMIT_IOTHUB_QUERY_BYTES,
    IOTHUB_QUERY_DEPTH_MAX = 32,
};

struct iothub_query {
    unsigned top;                                /* most rows of all pages; 0: no limit */
    char condition[IOTHUB_QUERY_CONDITION_SIZE]; /* the path, NUL-terminated; "": all devices */
};

/* DG_ERR_MALFORMED, or DG_ERR_NOT_SUPPORTED for what IoT Hub has and this does not, with a sentence
 * of at most detail_size bytes; without ';' and ':', which have a meaning in errors of that API. */
DG_NODISCARD int iothub_query_parse(struct slice text, struct iothub_query *ret_query,
                                    char *ret_detail, size_t detail_size);
