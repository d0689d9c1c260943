#include "gateway/kafka/fetch_codec.h"

#include "common/sys.h"
#include "storage/record.h"

enum { LENGTH_AT = 8, LENGTH_COUNTS_FROM = 12 };

/* The header of the batch at a position of the extent. */
static int read_header(const struct stream_extent *extent, uint32_t at, uint8_t *ret_header) {
    if (extent->size_bytes - at < RECORD_BATCH_HEADER_SIZE)
        return DG_ERR_CORRUPT;
    if (extent->memory) {
        memcpy(ret_header, extent->memory + at, RECORD_BATCH_HEADER_SIZE);
        return 0;
    }
    ssize_t size =
        sys.pread(extent->fd, ret_header, RECORD_BATCH_HEADER_SIZE, extent->position + at);
    return size == RECORD_BATCH_HEADER_SIZE ? 0 : DG_ERR_IO;
}

int kafka_extent_check_codec(const struct stream_extent *extent) {
    for (uint32_t at = 0; at < extent->size_bytes;) {
        uint8_t header[RECORD_BATCH_HEADER_SIZE];
        int err = read_header(extent, at, header);
        if (err < 0)
            return err;
        struct reader r = reader_make(header + LENGTH_AT, 4);
        uint32_t length = reader_u32(&r);
        if (length > extent->size_bytes - at - LENGTH_COUNTS_FROM)
            return DG_ERR_CORRUPT;
        if ((header[RECORD_ATTRIBUTES_AT + 1] & RECORD_CODEC_MASK) == COMPRESSION_ZSTD)
            return DG_ERR_CODEC;
        at += LENGTH_COUNTS_FROM + length;
    }
    return 0;
}
