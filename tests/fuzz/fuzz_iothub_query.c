/*
 * A stranger's query. What is taken has strings that end where they should: outside of them only
 * what the parser itself writes may stand, so that nothing of the query becomes a part of the path.
 */
#include <stdlib.h>

#include "common/assert.h"
#include "provisioning/iothub_query.h"

/* Words and signs that a path is made of, outside of strings. */
static void expect_own(const char *path) {
    static const char own[] = "strict $.@?()&|!=<>+- ,0123456789eE"
                              "existsisunknowntypestartswithlike_regexflagtruefalsenull";
    for (const char *c = path; *c; c++) {
        if (*c != '"') {
            dg_assert(strchr(own, *c));
            continue;
        }
        for (c++; *c != '"'; c++)
            dg_assert((unsigned char)*c >= 0x20 && *c != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct iothub_query query;
    char detail[IOTHUB_QUERY_DETAIL_SIZE] = "";
    int err = iothub_query_parse(slice_make(data, size), &query, detail, sizeof(detail));
    if (err == 0)
        expect_own(query.condition);
    else
        dg_assert(detail[0] && !strpbrk(detail, ";:"));
    return 0;
}
