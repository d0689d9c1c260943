/*
 * The codecs of record batches: lz4 (frame format, blocks independent, as Kafka's clients read it)
 * and zstd, by liblz4 and libzstd. They cover the records of a batch as one piece; its header stays
 * readable. A compressor belongs to one thread; expanding needs no state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"

/* As in the attributes of a batch (RECORD_CODEC_MASK). */
enum compression { COMPRESSION_NONE = 0, COMPRESSION_LZ4 = 3, COMPRESSION_ZSTD = 4 };

/* Names as in the configuration: none, lz4, zstd. DG_ERR_INVALID: another one. */
DG_NODISCARD int compression_by_name(const char *name, enum compression *ret_codec);

struct compressor; /* the codecs' working memory, about 3 MiB */

struct compressor *compressor_create(void); /* NULL: no memory */
void compressor_free(struct compressor *compressor);

/*
 * Compresses at most LIMIT_UNIT_BYTES. ret_compressed is smaller than bytes and valid until the
 * next call. DG_ERR_TOO_LARGE: it would not be smaller; DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int compressor_run(struct compressor *compressor, enum compression codec,
                                struct slice bytes, struct slice *ret_compressed);

/* Expands what a compressor made into at most capacity bytes. DG_ERR_MALFORMED: damaged, longer
 * than that, or of an unknown codec; DG_ERR_NO_MEMORY. */
DG_NODISCARD int compression_expand(enum compression codec, struct slice bytes, uint8_t *buffer,
                                    size_t capacity, size_t *ret_size);
