/* UTF-8 checks of strings from outside. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 without U+0000 and surrogates (MQTT5 1.5.4-1, 1.5.4-2). ASCII is fast. */
bool utf8_is_valid(const void *data, size_t size);

/* Well-formed UTF-8 in which U+0000 may stand: the content of a text, not a field of a protocol. */
bool utf8_is_text(const void *data, size_t size);

/* Bytes of the well-formed character at the front (1 to 4), or 0 when there is none: nothing left,
 * U+0000, or not UTF-8. */
size_t utf8_character_size(const void *data, size_t size);
