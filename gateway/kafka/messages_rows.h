/*
 * How field rows are written: FIELD(struct, member, type, first version, last version, null from
 * version); ARRAY adds the rows and the struct of its elements. And the rows that are not in
 * messages.c beside the table of APIs.
 */
#pragma once

#include "gateway/kafka/messages.h"

#define FIELD(owner, member, kind, from, to, null)                                         \
    {                                                                                      \
        .name = #member, .type = kind, .first = (from), .last = (to), .null_from = (null), \
        .offset = offsetof(struct owner, member)                                           \
    }
#define ARRAY(owner, member, rows, item, from, to, null)                                          \
    {                                                                                             \
        .name = #member, .type = KAFKA_ARRAY, .first = (from), .last = (to), .null_from = (null), \
        .offset = offsetof(struct owner, member), .element = (rows),                              \
        .element_size = sizeof(struct item)                                                       \
    }
#define END \
    { .name = NULL }
#define EVER KAFKA_EVER
#define NEVER KAFKA_NEVER

#define ROWS(message) extern const struct kafka_field message##_request[], message##_response[]
ROWS(join_group);
ROWS(sync_group);
ROWS(heartbeat);
ROWS(leave_group);
ROWS(offset_commit);
ROWS(offset_fetch);
ROWS(offset_delete);
ROWS(describe_groups);
ROWS(list_groups);
ROWS(delete_groups);
ROWS(describe_configs);
ROWS(describe_cluster);
