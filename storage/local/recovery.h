/* Recovery of a store at opening: protocol clause 11. Opening thread, before any other starts. */
#pragma once

#include "storage/stream.h"

/* Brings segments, partitions and state to the end of the journal. Changes nothing on disk when it
 * answers DG_ERR_CORRUPT. The caller then takes a checkpoint and clears the journal's torn end. */
DG_NODISCARD int recovery_run(struct stream *stream, char *ret_error);
