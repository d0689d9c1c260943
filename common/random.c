#include "common/random.h"

#include <errno.h>
#include <sys/random.h>

#include "common/assert.h"

void random_bytes(void *ret_bytes, size_t size) {
    uint8_t *at = ret_bytes;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        dg_assert(got > 0 || (got < 0 && errno == EINTR));
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
}

uint64_t random_u64(void) {
    uint64_t value;
    random_bytes(&value, sizeof(value));
    return value;
}
