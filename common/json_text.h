/* Whether a text is JSON (RFC 8259), without making anything of it. Pure; any thread; no memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/slice.h"

enum { JSON_TEXT_DEPTH_MAX = 64 };

/*
 * One value with nothing but white space around it: UTF-8 throughout, no byte order mark, nested at
 * most JSON_TEXT_DEPTH_MAX deep. Names may repeat and escapes may name half a surrogate pair: the
 * grammar has nothing against either. When it is not, ret_at says at which byte (the text's size:
 * it ends too early).
 */
bool json_text_is_valid(struct slice text, size_t *ret_at);
