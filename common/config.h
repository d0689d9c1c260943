/*
 * Configuration: one table (config_table.h), one struct. Parsed whole and checked before any of it
 * is used; on an error nothing changes and the message names file, line, key and what to do.
 * Precedence: flag over environment over file over default. The struct is immutable once loaded.
 * A SECRET key may be given as <key>_file instead, in any of the three: the file is read at load.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/err.h"
#include "common/limits.h"

typedef char *config_type_STRING;
typedef uint64_t config_type_SIZE;
typedef uint64_t config_type_DURATION_MS;
typedef int64_t config_type_NUMBER;
typedef bool config_type_BOOL;

/* One member per key, named <section>_<key>, sizes in bytes and durations in milliseconds:
 * config->mqtt_bind, config->storage_journal_size, config->registry_query_timeout. */
struct config {
#define CONFIG(section, key, type, ...) config_type_##type section##_##key;
#include "common/config_table.h"
#undef CONFIG
};

enum { CONFIG_ERROR_SIZE = 512 };

/*
 * Loads path (NULL: defaults only), applies DURAGATE_CFG_* from environment (NULL-terminated
 * "NAME=value" list, or NULL for none; an unknown DURAGATE_CFG_ name is refused), then `overrides`
 * ("section.key=value", NULL-terminated list or NULL). 0 and an owned struct, or DG_ERR_INVALID and
 * a message for people in ret_error (CONFIG_ERROR_SIZE bytes).
 */
DG_NODISCARD int config_load(const char *path, char *const *environment,
                             const char *const *overrides, struct config **ret_config,
                             char *ret_error);
void config_free(struct config *config);

/* Appends the effective configuration as YAML, secrets as "(redacted)". */
DG_NODISCARD int config_print(const struct config *config, struct buffer *out);

/* Appends the reference page (Markdown), made from the table. */
DG_NODISCARD int config_print_reference(struct buffer *out);

/* True when a reload may change every key that differs; else names the first that it may not. */
bool config_is_reloadable(const struct config *before, const struct config *after,
                          const char **ret_key);
