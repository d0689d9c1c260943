#include "registry/json.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/utf8.h"

enum { POINTER_NAME_BYTES_MAX = 64 };

unsigned json_depth(const json_t *value, unsigned limit) {
    unsigned deepest = 0;
    if (!json_is_object(value) && !json_is_array(value))
        return 0;
    if (limit == 0)
        return 1;
    const char *name;
    json_t *member;
    size_t index;
    json_object_foreach((json_t *)(uintptr_t)value, name, member) {
        unsigned depth = json_depth(member, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }
    json_array_foreach(value, index, member) {
        unsigned depth = json_depth(member, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

/* Applies patch, an object, to target, an object that may be changed. */
static int merge_into(json_t *target, const json_t *patch) {
    const char *name;
    json_t *change;
    json_object_foreach((json_t *)(uintptr_t)patch, name, change) {
        if (json_is_null(change)) {
            json_object_del(target, name);
            continue;
        }
        json_t *merged = json_merge_patch(json_object_get(target, name), change);
        if (!merged || json_object_set_new(target, name, merged) != 0)
            return DG_ERR_NO_MEMORY;
    }
    return 0;
}

json_t *json_merge_patch(const json_t *target, const json_t *patch) {
    if (!json_is_object(patch))
        return json_deep_copy(patch);
    json_t *merged = json_is_object(target) ? json_deep_copy(target) : json_object();
    if (merged && merge_into(merged, patch) < 0) {
        json_decref(merged);
        return NULL;
    }
    return merged;
}

char *json_print_exact(const json_t *value) {
    /* 15 digits survive text -> double -> text, 17 always give the same double back. */
    for (unsigned digits = 15; digits < 17; digits++) {
        char *text =
            json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
        bool same = again && json_equal(again, value);
        json_decref(again);
        if (same || !text)
            return text;
        free(text);
    }
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

void json_pointer_append(char *pointer, size_t pointer_size, const char *name) {
    size_t at = strlen(pointer), left = strlen(name), taken = 0;
    char part[POINTER_NAME_BYTES_MAX * 2 + 8] = "/";
    size_t size = 1;
    while (left > 0) {
        size_t character = utf8_character_size(name, left);
        if (character == 0 || taken + character > POINTER_NAME_BYTES_MAX) {
            memcpy(part + size, "...", 3);
            size += 3;
            break;
        }
        if (*name == '~' || *name == '/') {
            part[size++] = '~';
            part[size++] = *name == '~' ? '0' : '1';
        } else {
            memcpy(part + size, name, character);
            size += character;
        }
        name += character, left -= character, taken += character;
    }
    if (at + size < pointer_size) {
        memcpy(pointer + at, part, size);
        pointer[at + size] = '\0';
    }
}
