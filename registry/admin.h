/*
 * What the administrator does beside the running server: the first API key. Synchronous, straight
 * to PostgreSQL; a running gateway hears of it as of any other change. And the names of roles.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { REGISTRY_SECRET_SIZE = 64 };

struct registry_admin_key {
    const char *key_id;
    const char *tenant; /* NULL: a platform principal */
    uint32_t roles;     /* enum registry_role bits */
    bool replace;       /* an API key of that id gets this secret and these roles */
};

/* Creates the API key and writes its secret (REGISTRY_SECRET_SIZE bytes; the bearer text is
 * "<key_id>.<secret>"). Fails with a sentence in ret_error (REGISTRY_ERROR_SIZE bytes):
 * DG_ERR_UNAVAILABLE, DG_ERR_NOT_FOUND (no such tenant), DG_ERR_EXISTS, DG_ERR_INVALID (key id or
 * master key file). */
DG_NODISCARD int registry_admin_create_key(const char *conninfo, const char *password,
                                           const char *master_key_file,
                                           const struct registry_admin_key *key, char *ret_secret,
                                           char *ret_error);

/* The bit of admin, operator, reader, consumer, auditor or commander; 0 for any other name. */
uint32_t registry_role_by_name(const char *name);
/* The name of one bit; NULL when it is none. */
const char *registry_role_name(uint32_t role_bit);
