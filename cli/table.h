/* Values of the API as people read them: tables, and one member a line. Control characters in them
 * are shown escaped. */
#pragma once

#include <jansson.h>

enum { TABLE_COLUMNS_MAX = 8 };

/* columns: names of members, ended by NULL or TABLE_COLUMNS_MAX; items: an array of objects. */
void table_print(const char *const *columns, const json_t *items);
void table_print_members(const json_t *object);
/* Pretty JSON and a newline. */
void table_print_json(const json_t *value);
