/*
 * The documents of a device twin: what may be in them, and what a merge patch (RFC 7396) makes of
 * one. The same rules hold for desired and reported state and for tags, whoever writes them; what
 * SQL does with them is in schemas/0008_twins.sql. Pure but for memory.
 */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "common/slice.h"

/*
 * Whether a document, or a patch of one, keeps the rules: names of at most LIMIT_TWIN_KEY_BYTES
 * without control characters, '.', '$' and space; strings of at most LIMIT_TWIN_STRING_BYTES;
 * numbers of at most LIMIT_TWIN_NUMBER either way, and not so small that nobody would write them
 * out; LIMIT_TWIN_DEPTH levels. Else DG_ERR_STATE_DOCUMENT, and a sentence that begins with the
 * JSON pointer of what is wrong, below `root` ("/desired", or "").
 */
DG_NODISCARD int twin_check(const json_t *document, const char *root, char *ret_detail,
                            size_t detail_size);

/* Makes a patch of a text: one JSON object without duplicate names that keeps the rules. As above;
 * DG_ERR_STATE_SIZE: of more than LIMIT_TWIN_BYTES; DG_ERR_NO_MEMORY. */
DG_NODISCARD int twin_parse(struct slice text, json_t **ret_patch, char *ret_detail,
                            size_t detail_size);

/* A patch that was checked as it is passed on, freed with free(): compact, and no number has more
 * digits than it is read back from, so that everybody who merges it gets the same document.
 * DG_ERR_STATE_SIZE: it would have more than LIMIT_TWIN_BYTES; DG_ERR_NO_MEMORY. */
DG_NODISCARD int twin_print(struct slice patch, char **ret_text, char *ret_detail,
                            size_t detail_size);

/* The document that a patch makes of another one, both texts that were checked; ret_document is
 * freed with free(). DG_ERR_STATE_SIZE: it would have more than LIMIT_TWIN_BYTES, ret_detail says
 * how many; DG_ERR_MALFORMED: of a document that PostgreSQL has; DG_ERR_NO_MEMORY. */
DG_NODISCARD int twin_merge(struct slice document, struct slice patch, char **ret_document,
                            char *ret_detail, size_t detail_size);
