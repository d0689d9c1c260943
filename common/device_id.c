#include "common/device_id.h"

#include "common/limits.h"

static bool is_made_of(struct slice id, const char *others) {
    if (id.size == 0 || id.size > LIMIT_DEVICE_ID_BYTES)
        return false;
    for (size_t i = 0; i < id.size; i++) {
        uint8_t c = id.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || !strchr(others, c)))
            return false;
    }
    /* As a segment of a path these two mean something else (RFC 3986 5.2.4). */
    return !slice_equals_string(id, ".") && !slice_equals_string(id, "..");
}

bool device_id_is_native(struct slice id) {
    return is_made_of(id, "._:-");
}

bool device_id_is_hub(struct slice id) {
    return is_made_of(id, "._:-+%#*?!(),=@$'");
}
