/* UTF-8 checks of strings from outside. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8 without U+0000 and surrogates (MQTT5 1.5.4-1, 1.5.4-2). ASCII is fast. */
bool utf8_is_valid(const void *data, size_t size);
