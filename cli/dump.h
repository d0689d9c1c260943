/* The registry's half of a backup, by PostgreSQL's own programs. */
#pragma once

#include "cli/command.h"
#include "common/config.h"

/* Runs pg_dump into the file, synced; pg_restore from the file, in one transaction. False after
 * printing why. */
bool dump_write(struct cli_run *run, const struct config *config, const char *path);
bool dump_read(struct cli_run *run, const struct config *config, const char *path);

/* Size and CRC-32C. False when it cannot be read. */
bool dump_measure(const char *path, uint64_t *ret_size_bytes, uint32_t *ret_crc);
