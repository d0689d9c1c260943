/* The header of the PROXY protocol, read as its connection reads it: what is asked for and no more.
 */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/limits.h"
#include "gateway/transport/proxy.h"
#include "storage/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void stream_extent_release(struct stream_extent *extent) {
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t have = 0;
    for (;;) {
        struct proxy_header header;
        const char *why = NULL;
        uint8_t *exact = malloc(have + 1); /* so that a byte too far is found */
        memcpy(exact + 1, data, have);
        ssize_t wanted = proxy_decode(exact + 1, have, &header, &why);
        free(exact);
        dg_assert((wanted < 0) == (why != NULL));
        if (wanted <= 0)
            return 0;
        have += (size_t)wanted;
        dg_assert(have <= LIMIT_PROXY_HEADER_BYTES);
        if (have > size)
            return 0;
    }
}
