/*
 * What a backup notes of the registry, and a restore compares: the registry and the stream are two
 * halves that have to fit. Synchronous, for the command line.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct registry_half {
    bool is_empty;          /* no table at all: nothing else says anything */
    int32_t schema_version; /* 0: none */
    int64_t revision;       /* of the last change */
    int64_t last_stream_id; /* that a tenant was given, also one that is gone */
    int64_t tenant_count;
};

/* DG_ERR_UNAVAILABLE, DG_ERR_INTERNAL with a message (REGISTRY_ERROR_SIZE bytes). */
DG_NODISCARD int registry_read_half(const char *conninfo, const char *password,
                                    struct registry_half *ret_half, char *ret_error);
