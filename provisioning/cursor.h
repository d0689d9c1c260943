/* Page cursors: the last key of a page, base64url without padding, so that clients treat it as what
 * it is, an opaque word. Pure. */
#pragma once

#include "common/err.h"
#include "common/slice.h"

enum {
    CURSOR_KEY_BYTES_MAX = 256,
    CURSOR_TEXT_SIZE = (CURSOR_KEY_BYTES_MAX * 4 + 2) / 3 + 1, /* with NUL */
};

/* key is at most CURSOR_KEY_BYTES_MAX bytes. */
void cursor_encode(struct slice key, char *ret_text);

/* ret_key has room for CURSOR_KEY_BYTES_MAX + 1. DG_ERR_MALFORMED for what no page has given out.
 */
DG_NODISCARD int cursor_decode(struct slice text, char *ret_key);
