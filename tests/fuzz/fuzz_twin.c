/* A report of a stranger: what is taken as a patch keeps the rules, is fit for PostgreSQL, and
 * makes a document that keeps them too. The first byte says where the document before it ends. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/limits.h"
#include "registry/twin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_taken(struct slice text) {
    char detail[64] = "";
    json_t *patch = NULL;
    int err = twin_parse(text, &patch, detail, sizeof(detail));
    dg_assert((err == 0) == (patch != NULL) && (err == 0) == (detail[0] == '\0'));
    json_decref(patch);
    return err == 0;
}

static char *merge(struct slice document, struct slice patch) {
    char detail[128], *merged = NULL;
    int err = twin_merge(document, patch, &merged, detail, sizeof(detail));
    dg_assert(err == 0 || (err == DG_ERR_STATE_SIZE && !merged));
    return merged;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    size_t at = 1 + data[0] % size;
    struct slice first = slice_make(data + 1, at - 1), second = slice_make(data + at, size - at);
    if (!is_taken(second))
        return 0;
    dg_assert(second.size <= LIMIT_TWIN_BYTES && !memchr(second.data, 0, second.size));
    char *before = merge(is_taken(first) ? first : slice_from_string("{}"), second);
    if (!before)
        return 0;
    dg_assert(strlen(before) <= LIMIT_TWIN_BYTES && is_taken(slice_from_string(before)));
    char *again = merge(slice_from_string(before), second); /* said twice, it is the same */
    dg_assert(again && strcmp(before, again) == 0);
    free(before);
    free(again);
    return 0;
}
