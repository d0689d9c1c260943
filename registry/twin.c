#include "registry/twin.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "registry/json.h"

enum { POINTER_SIZE = 256 };

/* Smaller ones (but for 0) PostgreSQL writes out with more zeros than there is any use for. */
static const double smallest_number = 1e-30;

/* What is being checked, and where the sentence about it goes. */
struct check {
    char pointer[POINTER_SIZE];
    char *detail;
    size_t detail_size;
};

static int refuse(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int refuse(struct check *check, const char *format, ...) {
    int size = snprintf(check->detail, check->detail_size,
                        "%s: ", check->pointer[0] ? check->pointer : "the document");
    if (size > 0 && (size_t)size < check->detail_size) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(check->detail + size, check->detail_size - (size_t)size, format, arguments);
        va_end(arguments);
    }
    return DG_ERR_STATE_DOCUMENT;
}

/* ---- rules ---- */

/* jansson's names are UTF-8 and have no NUL. C1 controls are U+0080 to U+009F. */
static bool has_forbidden(const char *name) {
    for (const unsigned char *at = (const unsigned char *)name; *at; at++)
        if (*at <= ' ' || *at == 0x7f || *at == '.' || *at == '$' || (*at == 0xc2 && at[1] < 0xa0))
            return true;
    return false;
}

static int check_name(struct check *check, const char *name) {
    if (strlen(name) > LIMIT_TWIN_KEY_BYTES)
        return refuse(check, "a name has at most %d bytes", LIMIT_TWIN_KEY_BYTES);
    if (has_forbidden(name))
        return refuse(check, "a name has no control characters, '.', '$' or space");
    return 0;
}

static int check_number(struct check *check, const json_t *value) {
    double number = json_number_value(value);
    if (fabs(number) > (double)LIMIT_TWIN_NUMBER)
        return refuse(check, "a number is from -2^52 to 2^52");
    if (number != 0 && fabs(number) < smallest_number)
        return refuse(check, "a number is 0, or at least 1e-30 either way");
    return 0;
}

static int check_value(struct check *check, const json_t *value, unsigned depth);

/* What is in an object or array, each under its name or index. */
static int check_member(struct check *check, const char *name, const json_t *value,
                        unsigned depth) {
    size_t above = strlen(check->pointer);
    json_pointer_append(check->pointer, sizeof(check->pointer), name);
    int err = check_value(check, value, depth);
    if (err == 0)
        check->pointer[above] = '\0';
    return err;
}

static int check_members(struct check *check, const json_t *value, unsigned depth) {
    const char *name;
    json_t *member;
    size_t index;
    int err = 0;
    if (depth > LIMIT_TWIN_DEPTH)
        return refuse(check, "nested deeper than %d levels", LIMIT_TWIN_DEPTH);
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        if ((err = check_name(check, name)) < 0 ||
            (err = check_member(check, name, member, depth + 1)) < 0)
            return err;
    }
    json_array_foreach(value, index, member) {
        char number[24];
        snprintf(number, sizeof(number), "%zu", index);
        if ((err = check_member(check, number, member, depth + 1)) < 0)
            return err;
    }
    return 0;
}

static int check_value(struct check *check, const json_t *value, unsigned depth) {
    if (json_is_object(value) || json_is_array(value))
        return check_members(check, value, depth);
    if (json_is_number(value))
        return check_number(check, value);
    if (json_is_string(value) && json_string_length(value) > LIMIT_TWIN_STRING_BYTES)
        return refuse(check, "a string has at most %d bytes", LIMIT_TWIN_STRING_BYTES);
    return 0;
}

int twin_check(const json_t *document, const char *root, char *ret_detail, size_t detail_size) {
    struct check check = {.detail = ret_detail, .detail_size = detail_size};
    snprintf(check.pointer, sizeof(check.pointer), "%s", root);
    if (!json_is_object(document))
        return refuse(&check, "must be a JSON object");
    return check_value(&check, document, 0);
}

/* ---- texts ---- */

/* An error in memory is told apart by no word of jansson's: it says the text is at fault. */
static json_t *load(struct slice text, json_error_t *error) {
    return json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, error);
}

int twin_parse(struct slice text, json_t **ret_patch, char *ret_detail, size_t detail_size) {
    json_error_t error;
    if (text.size == 0) {
        snprintf(ret_detail, detail_size, "the document: must be a JSON object");
        return DG_ERR_STATE_DOCUMENT;
    }
    if (text.size > LIMIT_TWIN_BYTES) {
        snprintf(ret_detail, detail_size, "a patch has at most %d bytes", LIMIT_TWIN_BYTES);
        return DG_ERR_STATE_SIZE;
    }
    if (memchr(text.data, 0, text.size)) { /* jansson would stop there, PostgreSQL refuses it */
        snprintf(ret_detail, detail_size, "not JSON: has a byte of 0");
        return DG_ERR_STATE_DOCUMENT;
    }
    json_t *patch = load(text, &error);
    if (!patch) {
        snprintf(ret_detail, detail_size, "not JSON: line %d, column %d: %s", error.line,
                 error.column, error.text);
        return json_error_code(&error) == json_error_out_of_memory ? DG_ERR_NO_MEMORY
                                                                   : DG_ERR_STATE_DOCUMENT;
    }
    int err = twin_check(patch, "", ret_detail, detail_size);
    if (err < 0) {
        json_decref(patch);
        return err;
    }
    *ret_patch = patch;
    return 0;
}

int twin_print(struct slice patch, char **ret_text, char *ret_detail, size_t detail_size) {
    json_error_t error;
    json_t *value = load(patch, &error);
    char *text = value ? json_print_exact(value) : NULL;
    json_decref(value);
    if (!text)
        return DG_ERR_NO_MEMORY;
    if (strlen(text) > LIMIT_TWIN_BYTES) {
        snprintf(ret_detail, detail_size, "a patch has at most %d bytes as compact JSON",
                 LIMIT_TWIN_BYTES);
        free(text);
        return DG_ERR_STATE_SIZE;
    }
    *ret_text = text;
    return 0;
}

int twin_merge(struct slice document, struct slice patch, char **ret_document, char *ret_detail,
               size_t detail_size) {
    json_error_t error;
    json_t *before = load(document, &error), *change = before ? load(patch, &error) : NULL;
    json_t *after = change ? json_merge_patch(before, change) : NULL;
    char *text = after ? json_print_exact(after) : NULL;
    int err = text ? 0 : change ? DG_ERR_NO_MEMORY : DG_ERR_MALFORMED;
    size_t size = text ? strlen(text) : 0;
    json_decref(before);
    json_decref(change);
    json_decref(after);
    if (size > LIMIT_TWIN_BYTES) {
        snprintf(ret_detail, detail_size,
                 "the document would have %zu bytes as compact JSON; at most %d are allowed", size,
                 LIMIT_TWIN_BYTES);
        err = DG_ERR_STATE_SIZE;
    }
    if (err < 0) {
        free(text);
        return err;
    }
    *ret_document = text;
    return 0;
}
