/*
 * Kafka RecordBatch v2. Batch header, big-endian:
 *
 *     0 base offset i64      21 attributes u16          43 producer id i64 (-1)
 *     8 length i32 (-12)     23 last offset delta i32   51 producer epoch i16 (-1)
 *    12 leader epoch i32     27 base timestamp i64      53 base sequence i32 (-1)
 *    16 magic 2              35 max timestamp i64       57 record count i32
 *    17 CRC-32C from 21 on                              61 records
 *
 * Record, zigzag varints: length | attributes i8 | timestamp delta | offset delta | key length +
 * key | value length + value | header count | headers (key length + key, value length + value). A
 * length of -1 is null.
 */
#include "storage/record.h"

#include <stdlib.h>

#include "common/crc32c.h"
#include "common/limits.h"
#include "storage/compression.h"

void record_write_header(struct writer *w, struct slice key, struct slice value) {
    writer_varlong(w, (int64_t)key.size);
    writer_slice(w, key);
    writer_varlong(w, (int64_t)value.size);
    writer_slice(w, value);
}

static void read_header(struct reader *r, struct record_batch *batch, uint8_t *ret_magic,
                        int32_t *ret_length) {
    batch->base_offset = (int64_t)reader_u64(r);
    *ret_length = (int32_t)reader_u32(r);
    reader_u32(r); /* leader epoch */
    *ret_magic = reader_u8(r);
    batch->crc = reader_u32(r);
    batch->attributes = reader_u16(r);
    batch->last_offset_delta = (int32_t)reader_u32(r);
    batch->base_timestamp_ms = (int64_t)reader_u64(r);
    batch->max_timestamp_ms = (int64_t)reader_u64(r);
    reader_take(r, 8 + 2 + 4); /* producer: always -1 here */
    batch->record_count = reader_u32(r);
}

static bool header_is_valid(const struct record_batch *batch, uint8_t magic, int32_t length) {
    return magic == RECORD_MAGIC && length >= RECORD_BATCH_HEADER_SIZE - 12 &&
           batch->base_offset >= 0 && batch->last_offset_delta >= 0 && batch->record_count > 0 &&
           batch->record_count <= (uint32_t)batch->last_offset_delta + 1;
}

static int fail(struct reader *r) {
    r->failed = true;
    r->at = r->end;
    return DG_ERR_MALFORMED;
}

int record_batch_read(struct reader *r, bool check_crc, struct record_batch *ret_batch) {
    struct record_batch batch;
    const uint8_t *start = r->at;
    uint8_t magic;
    int32_t length;
    read_header(r, &batch, &magic, &length);
    if (r->failed || !header_is_valid(&batch, magic, length))
        return fail(r);
    batch.size_bytes = (size_t)length + 12;
    batch.records = reader_slice(r, batch.size_bytes - RECORD_BATCH_HEADER_SIZE);
    if (r->failed)
        return fail(r);
    if (check_crc && crc32c_update(0, start + RECORD_ATTRIBUTES_AT,
                                   batch.size_bytes - RECORD_ATTRIBUTES_AT) != batch.crc)
        return fail(r);
    *ret_batch = batch;
    return 0;
}

int record_batch_expand(const struct record_batch *batch, struct slice *ret_records,
                        uint8_t **ret_owned) {
    enum compression codec = batch->attributes & RECORD_CODEC_MASK;
    if (codec == COMPRESSION_NONE) {
        *ret_records = batch->records;
        *ret_owned = NULL;
        return 0;
    }
    uint8_t *buffer = malloc(LIMIT_UNIT_BYTES);
    if (!buffer)
        return DG_ERR_NO_MEMORY;
    size_t size;
    int err = compression_expand(codec, batch->records, buffer, LIMIT_UNIT_BYTES, &size);
    if (err < 0) {
        free(buffer);
        return err;
    }
    *ret_records = slice_make(buffer, size);
    *ret_owned = buffer;
    return 0;
}

/* A run of bytes with a varint length before it; -1 is null. */
static struct slice read_nullable(struct reader *r) {
    int64_t size = reader_varlong(r);
    if (size == -1)
        return slice_make(NULL, 0);
    if (size < 0 || (uint64_t)size > reader_left(r)) {
        fail(r);
        return slice_make(NULL, 0);
    }
    return reader_slice(r, (size_t)size);
}

int record_read(const struct record_batch *batch, struct reader *records,
                struct record *ret_record) {
    int64_t size = reader_varlong(records);
    if (size < 0 || (uint64_t)size > reader_left(records))
        return fail(records);
    struct reader r = reader_make(reader_take(records, (size_t)size), (size_t)size);
    struct record record;
    reader_u8(&r); /* attributes, unused */
    int64_t time_delta_ms = reader_varlong(&r);
    record.offset = batch->base_offset + reader_varlong(&r);
    record.timestamp_ms = batch->attributes & RECORD_LOG_APPEND_TIME
                              ? batch->max_timestamp_ms
                              : batch->base_timestamp_ms + time_delta_ms;
    record.key = read_nullable(&r);
    record.value = read_nullable(&r);
    int64_t header_count = reader_varlong(&r);
    record.headers = slice_make(r.at, reader_left(&r));
    if (r.failed || header_count < 0 || (uint64_t)header_count > record.headers.size)
        return fail(records);
    record.header_count = (uint32_t)header_count;
    *ret_record = record;
    return 0;
}

int record_header_read(struct reader *headers, struct slice *ret_key, struct slice *ret_value) {
    struct slice key = read_nullable(headers);
    struct slice value = read_nullable(headers);
    if (headers->failed || !key.data)
        return fail(headers);
    *ret_key = key;
    *ret_value = value;
    return 0;
}
