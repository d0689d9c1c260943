/* The store's directory: lock, format file, creation. Opening thread. */
#pragma once

#include "storage/local/format.h"
#include "storage/stream.h"

/* Makes the directory if need be, refuses network file systems, takes the lock (DG_ERR_BUSY:
 * another process has it), which lasts as long as the descriptor. ret_error gets a message for
 * people. */
DG_NODISCARD int store_lock(const char *directory, int *ret_fd, char *ret_error);

/* The store's own name, in its parent. 0 or an errno. */
DG_NODISCARD int store_sync_name(const char *directory);

/* Takes the lock, creates what a new store needs, reads the format file. Errors as above. */
DG_NODISCARD int store_open(const struct stream_options *options, int *ret_lock_fd,
                            struct format_store *ret_store, char *ret_error);

/* Sets the CRC and replaces the format file. 0 or an errno. */
DG_NODISCARD int store_write_format(const char *directory, struct format_store *store);

/* Reads and checks the format file only (also for verification). DG_ERR_UNSUPPORTED_VERSION: only
 * *ret_store's version says anything. */
DG_NODISCARD int store_read_format(const char *directory, struct format_store *ret_store);
