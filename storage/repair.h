/*
 * Repair of a store that no gateway has open. It does what a start would do, and, when the loss is
 * accepted, cuts away what cannot be read any more, so that the rest is served again:
 *
 *     nothing lost: a torn last block is written back from the checkpoint, a torn last group of the
 *     journal is cleared, files are removed that are below the log start or were never finished;
 *     lost: a partition whose newest segment is damaged ends before the damage; damage in an older
 *     segment moves the log start behind that segment; a damaged journal ends before the damage.
 *     Where an end moves the epoch rises.
 *
 * What is decided is written as one new checkpoint; ended at any moment, the repair can be run
 * again. A store without a valid format file, checkpoint or journal of the right size is not
 * repaired: it is restored from a backup. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct storage_repair_options {
    bool apply;       /* else nothing is changed */
    bool accept_loss; /* else only what loses nothing */
};

struct storage_repair_report {
    /* Something that is to be done, and done unless told otherwise; loses: acknowledged events. */
    void (*action)(void *context, bool loses, const char *text);
    void (*progress)(void *context, uint64_t read_bytes);
    void *context;
};

enum { STORAGE_REPAIR_ERROR_SIZE = 512 };

/*
 * 0: whole now, or it would be (no apply). DG_ERR_PRECONDITION: something is only to be had with
 * accept_loss, nothing was changed. Other errors with a message for people: DG_ERR_BUSY (in use),
 * DG_ERR_CORRUPT (not repairable), DG_ERR_IO, DG_ERR_STORAGE_FULL.
 */
DG_NODISCARD int storage_repair(const char *directory, const struct storage_repair_options *options,
                                const struct storage_repair_report *report, char *ret_error);
