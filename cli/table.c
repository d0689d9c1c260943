#include "cli/table.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/printable.h"

enum {
    COLUMN_WIDTH_MAX = 40,                /* characters */
    CELL_SIZE = 4 * COLUMN_WIDTH_MAX + 1, /* of four bytes each at most */
    MEMBER_WIDTH = 18,                    /* of a name, at least */
};

/* As people read it, still with whatever it contains; the caller frees. NULL without memory. */
static char *text_of(const json_t *value) {
    if (!value || json_is_null(value))
        return strdup("-");
    if (json_is_string(value))
        return strdup(json_string_value(value));
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void format_cell(const json_t *value, char ret_text[CELL_SIZE]) {
    char *text = text_of(value);
    printable_copy(text ? text : "?", COLUMN_WIDTH_MAX, ret_text, CELL_SIZE);
    free(text);
}

/* Pads by characters, where printf counts bytes. */
static void print_padded(const char *text, size_t width) {
    size_t shown = printable_width(text);
    printf("%s%*s", text, shown < width ? (int)(width - shown) : 0, "");
}

/* item NULL: the head. */
static void print_row(const char *const *columns, const json_t *item, const size_t *widths) {
    for (unsigned column = 0; column < TABLE_COLUMNS_MAX && columns[column]; column++) {
        char text[CELL_SIZE];
        bool is_last = column + 1 == TABLE_COLUMNS_MAX || !columns[column + 1];
        if (item)
            format_cell(json_object_get(item, columns[column]), text);
        else
            snprintf(text, sizeof(text), "%s", columns[column]);
        fputs(column ? "  " : "", stdout);
        print_padded(text, is_last ? 0 : widths[column]);
    }
    putchar('\n');
}

void table_print(const char *const *columns, const json_t *items) {
    size_t widths[TABLE_COLUMNS_MAX] = {0}, index;
    const json_t *item;
    for (unsigned column = 0; column < TABLE_COLUMNS_MAX && columns[column]; column++) {
        widths[column] = strlen(columns[column]);
        json_array_foreach(items, index, item) {
            char text[CELL_SIZE];
            format_cell(json_object_get(item, columns[column]), text);
            size_t width = printable_width(text);
            widths[column] = width > widths[column] ? width : widths[column];
        }
    }
    print_row(columns, NULL, widths);
    json_array_foreach(items, index, item) print_row(columns, item, widths);
}

void table_print_members(const json_t *object) {
    size_t width = MEMBER_WIDTH;
    char shown[CELL_SIZE];
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        printable_copy(name, COLUMN_WIDTH_MAX, shown, sizeof(shown));
        width = printable_width(shown) > width ? printable_width(shown) : width;
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        char *text = text_of(value);
        printable_copy(name, COLUMN_WIDTH_MAX, shown, sizeof(shown));
        print_padded(shown, width + 1);
        printable_write(stdout, text ? text : "?", text ? strlen(text) : 1);
        putchar('\n');
        free(text);
    }
}

void table_print_json(const json_t *value) {
    json_dumpf(value, stdout, JSON_INDENT(2));
    putchar('\n');
}
