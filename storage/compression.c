#include "storage/compression.h"

#include <lz4frame.h>
#include <stdlib.h>
#include <zstd.h>

#include "common/assert.h"
#include "common/limits.h"

/* Devices' acknowledgements wait for it, so speed counts for more than the last per cent. */
enum { ZSTD_LEVEL = 1 };

static const LZ4F_preferences_t lz4_preferences = {
    .frameInfo = {.blockSizeID = LZ4F_max256KB, .blockMode = LZ4F_blockIndependent}};

static const struct {
    const char *name;
    enum compression codec;
} codecs[] = {
    {"none", COMPRESSION_NONE},
    {"lz4", COMPRESSION_LZ4},
    {"zstd", COMPRESSION_ZSTD},
};

int compression_by_name(const char *name, enum compression *ret_codec) {
    for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
        if (strcmp(codecs[i].name, name) != 0)
            continue;
        *ret_codec = codecs[i].codec;
        return 0;
    }
    return DG_ERR_INVALID;
}

/* ---- compressing --------------------------------------------------------------------------------
 */

struct compressor {
    ZSTD_CCtx *zstd; /* NULL until used */
    size_t capacity;
    uint8_t buffer[];
};

struct compressor *compressor_create(void) {
    size_t lz4 = LZ4F_compressFrameBound(LIMIT_UNIT_BYTES, &lz4_preferences);
    size_t capacity =
        lz4 > ZSTD_COMPRESSBOUND(LIMIT_UNIT_BYTES) ? lz4 : ZSTD_COMPRESSBOUND(LIMIT_UNIT_BYTES);
    struct compressor *compressor = malloc(sizeof(*compressor) + capacity);
    if (!compressor)
        return NULL;
    compressor->zstd = NULL;
    compressor->capacity = capacity;
    return compressor;
}

void compressor_free(struct compressor *compressor) {
    if (!compressor)
        return;
    ZSTD_freeCCtx(compressor->zstd);
    free(compressor);
}

static int run_lz4(struct compressor *compressor, struct slice bytes, size_t *ret_size) {
    size_t size = LZ4F_compressFrame(compressor->buffer, compressor->capacity, bytes.data,
                                     bytes.size, &lz4_preferences);
    if (LZ4F_isError(size)) /* the buffer is large enough: only memory can be short */
        return DG_ERR_NO_MEMORY;
    *ret_size = size;
    return 0;
}

static int run_zstd(struct compressor *compressor, struct slice bytes, size_t *ret_size) {
    if (!compressor->zstd && !(compressor->zstd = ZSTD_createCCtx()))
        return DG_ERR_NO_MEMORY;
    size_t size = ZSTD_compressCCtx(compressor->zstd, compressor->buffer, compressor->capacity,
                                    bytes.data, bytes.size, ZSTD_LEVEL);
    if (ZSTD_isError(size))
        return DG_ERR_NO_MEMORY;
    *ret_size = size;
    return 0;
}

int compressor_run(struct compressor *compressor, enum compression codec, struct slice bytes,
                   struct slice *ret_compressed) {
    dg_assert(bytes.size <= LIMIT_UNIT_BYTES && codec != COMPRESSION_NONE);
    size_t size = 0;
    int err = codec == COMPRESSION_LZ4 ? run_lz4(compressor, bytes, &size)
                                       : run_zstd(compressor, bytes, &size);
    if (err == 0 && size >= bytes.size)
        err = DG_ERR_TOO_LARGE;
    if (err == 0)
        *ret_compressed = slice_make(compressor->buffer, size);
    return err;
}

/* ---- expanding ----------------------------------------------------------------------------------
 */

static int expand_frame(LZ4F_dctx *context, struct slice bytes, uint8_t *buffer, size_t capacity,
                        size_t *ret_size) {
    size_t filled = 0, hint = 1;
    while (hint != 0) {
        size_t taken = bytes.size, made = capacity - filled;
        hint = LZ4F_decompress(context, buffer + filled, &made, bytes.data, &taken, NULL);
        if (LZ4F_isError(hint) || (taken == 0 && made == 0))
            return DG_ERR_MALFORMED;
        bytes = slice_skip(bytes, taken);
        filled += made;
    }
    if (bytes.size > 0)
        return DG_ERR_MALFORMED;
    *ret_size = filled;
    return 0;
}

static int expand_lz4(struct slice bytes, uint8_t *buffer, size_t capacity, size_t *ret_size) {
    LZ4F_dctx *context;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)))
        return DG_ERR_NO_MEMORY;
    int err = expand_frame(context, bytes, buffer, capacity, ret_size);
    LZ4F_freeDecompressionContext(context);
    return err;
}

int compression_expand(enum compression codec, struct slice bytes, uint8_t *buffer, size_t capacity,
                       size_t *ret_size) {
    if (bytes.size == 0)
        return DG_ERR_MALFORMED; /* zstd calls it nothing */
    if (codec == COMPRESSION_LZ4)
        return expand_lz4(bytes, buffer, capacity, ret_size);
    if (codec != COMPRESSION_ZSTD)
        return DG_ERR_MALFORMED;
    size_t size = ZSTD_decompress(buffer, capacity, bytes.data, bytes.size);
    if (ZSTD_isError(size))
        return DG_ERR_MALFORMED;
    *ret_size = size;
    return 0;
}
