#include "cli/table.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMN_WIDTH_MAX = 40, MEMBER_WIDTH = 18 /* of a name, at least */ };

static void format_value(const json_t *value, char *ret_text, size_t size) {
    if (!value || json_is_null(value)) {
        snprintf(ret_text, size, "-");
    } else if (json_is_string(value)) {
        snprintf(ret_text, size, "%s", json_string_value(value));
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        snprintf(ret_text, size, "%s", text ? text : "?");
        free(text);
    }
}

/* item NULL: the head. */
static void print_row(const char *const *columns, const json_t *item, const size_t *widths) {
    for (unsigned column = 0; column < TABLE_COLUMNS_MAX && columns[column]; column++) {
        char text[COLUMN_WIDTH_MAX + 1];
        bool is_last = column + 1 == TABLE_COLUMNS_MAX || !columns[column + 1];
        if (item)
            format_value(json_object_get(item, columns[column]), text, sizeof(text));
        else
            snprintf(text, sizeof(text), "%s", columns[column]);
        printf("%s%-*s", column ? "  " : "", is_last ? 0 : (int)widths[column], text);
    }
    putchar('\n');
}

void table_print(const char *const *columns, const json_t *items) {
    size_t widths[TABLE_COLUMNS_MAX] = {0}, index;
    const json_t *item;
    for (unsigned column = 0; column < TABLE_COLUMNS_MAX && columns[column]; column++) {
        widths[column] = strlen(columns[column]);
        json_array_foreach(items, index, item) {
            char text[COLUMN_WIDTH_MAX + 1];
            format_value(json_object_get(item, columns[column]), text, sizeof(text));
            widths[column] = strlen(text) > widths[column] ? strlen(text) : widths[column];
        }
    }
    print_row(columns, NULL, widths);
    json_array_foreach(items, index, item) print_row(columns, item, widths);
}

void table_print_members(const json_t *object) {
    size_t width = MEMBER_WIDTH;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        width = strlen(name) > width ? strlen(name) : width;
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        char text[4096];
        format_value(value, text, sizeof(text));
        printf("%-*s %s\n", (int)width, name, text);
    }
}

void table_print_json(const json_t *value) {
    json_dumpf(value, stdout, JSON_INDENT(2));
    putchar('\n');
}
