/* JSON values: what jansson does not do. Pure but for memory. */
#pragma once

#include <jansson.h>
#include <stddef.h>

/* Nesting of arrays and objects; 1 for an empty object. Stops counting at limit + 1. */
unsigned json_depth(const json_t *value, unsigned limit);

/* RFC 7396: a new value, target with patch applied; both stay the caller's. NULL: out of memory. */
json_t *json_merge_patch(const json_t *target, const json_t *patch);

/* Compact text, numbers with the fewest digits that give the same number. NULL: out of memory. */
char *json_print_exact(const json_t *value);

/* Appends "/name" as a JSON pointer (RFC 6901), whole characters only, cut with "..." */
void json_pointer_append(char *pointer, size_t pointer_size, const char *name);
