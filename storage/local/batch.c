/* Open batches: records with final offset deltas, then the 61-byte header. */
#include "storage/local/batch.h"

#include <string.h>

#include "common/assert.h"
#include "common/crc32c.h"
#include "common/limits.h"
#include "storage/record.h"

enum { LEADER_EPOCH_AT = 12 };     /* outside the CRC, as the base offset is */
enum { RECORD_OVERHEAD_MAX = 48 }; /* length, attributes, deltas, three lengths, header count */

uint64_t batch_record_bound(const struct stream_record *record) {
    uint64_t size = RECORD_OVERHEAD_MAX + (uint64_t)record->key.size + record->value.size;
    for (unsigned i = 0; i < record->header_parts; i++)
        size += record->headers[i].iov_len;
    return size;
}

/* Room for `more` bytes; moves to a larger chunk when needed. */
static int reserve(struct batch *batch, struct chunk_pool *pool, uint32_t hint, uint32_t more) {
    uint32_t start = batch->chunk ? batch->size_bytes : RECORD_BATCH_HEADER_SIZE;
    uint32_t needed = start + more;
    if (batch->chunk && needed <= batch->chunk->capacity)
        return 0;
    uint32_t wanted = batch->chunk || hint < needed ? needed : hint;
    struct chunk *chunk = chunk_take(pool, wanted);
    if (!chunk)
        return DG_ERR_NO_MEMORY;
    if (batch->chunk)
        memcpy(chunk->data, batch->chunk->data, batch->size_bytes);
    chunk_release(batch->chunk);
    batch->chunk = chunk;
    batch->size_bytes = start;
    return 0;
}

static inline uint64_t zigzag(int64_t value) {
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

static inline unsigned varint_size(uint64_t encoded) {
    return (63u - (unsigned)__builtin_clzll(encoded | 1)) / 7 + 1;
}

static inline uint8_t *put_varint(uint8_t *at, int64_t value) {
    uint64_t encoded = zigzag(value);
    for (; encoded >= 0x80; encoded >>= 7)
        *at++ = (uint8_t)(encoded | 0x80);
    *at++ = (uint8_t)encoded;
    return at;
}

static inline int64_t nullable_size(struct slice s) {
    return s.data ? (int64_t)s.size : -1;
}

static inline uint8_t *put_nullable(uint8_t *at, struct slice s) {
    at = put_varint(at, nullable_size(s));
    if (s.size > 0)
        memcpy(at, s.data, s.size);
    return at + s.size;
}

/* Size of the record after its own length field. */
static uint64_t body_size(const struct stream_record *record, int64_t time_delta_ms,
                          uint32_t offset_delta) {
    uint64_t size = 1 + varint_size(zigzag(time_delta_ms)) + varint_size(zigzag(offset_delta)) +
                    varint_size(zigzag(nullable_size(record->key))) + record->key.size +
                    varint_size(zigzag(nullable_size(record->value))) + record->value.size +
                    varint_size(zigzag(record->header_count));
    for (unsigned i = 0; i < record->header_parts; i++)
        size += record->headers[i].iov_len;
    return size;
}

int batch_append(struct batch *batch, struct chunk_pool *pool, uint32_t size_hint,
                 const struct stream_record *record) {
    uint64_t bound = batch_record_bound(record);
    dg_assert(bound < LIMIT_UNIT_BYTES);
    int err = reserve(batch, pool, size_hint, (uint32_t)bound);
    if (err < 0)
        return err;
    if (batch->record_count == 0)
        batch->base_ms = batch->max_ms = record->timestamp_ms;
    else if (record->timestamp_ms > batch->max_ms)
        batch->max_ms = record->timestamp_ms;
    int64_t delta_ms = batch->max_ms - batch->base_ms;
    uint8_t *start = batch->chunk->data + batch->size_bytes;
    uint8_t *at = put_varint(start, (int64_t)body_size(record, delta_ms, batch->record_count));
    *at++ = 0; /* attributes */
    at = put_varint(at, delta_ms);
    at = put_varint(at, batch->record_count);
    at = put_nullable(at, record->key);
    at = put_nullable(at, record->value);
    at = put_varint(at, record->header_count);
    for (unsigned i = 0; i < record->header_parts; i++) {
        memcpy(at, record->headers[i].iov_base, record->headers[i].iov_len);
        at += record->headers[i].iov_len;
    }
    dg_assert((uint64_t)(at - start) <= bound);
    batch->size_bytes += (uint32_t)(at - start);
    batch->record_count++;
    return 0;
}

/* The CRC from the attributes on, from the header's part and the body's. */
static uint32_t combined_crc(const struct batch *batch) {
    uint32_t crc = crc32c_update(0, batch->chunk->data + RECORD_ATTRIBUTES_AT,
                                 RECORD_BATCH_HEADER_SIZE - RECORD_ATTRIBUTES_AT);
    return crc32c_combine(crc, batch->body_crc, batch->size_bytes - RECORD_BATCH_HEADER_SIZE);
}

static void put_u16(uint8_t *at, uint16_t value) {
    value = __builtin_bswap16(value);
    memcpy(at, &value, sizeof(value));
}

static void put_u32(uint8_t *at, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof(value));
}

static void put_u64(uint8_t *at, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof(value));
}

/* The table is at the top of record.c. */
static void write_header(struct batch *batch, int64_t base_offset, uint16_t attributes) {
    uint8_t *header = batch->chunk->data;
    put_u64(header, (uint64_t)base_offset);
    put_u32(header + 8, batch->size_bytes - 12);
    put_u32(header + LEADER_EPOCH_AT, 0);
    header[16] = RECORD_MAGIC;
    put_u16(header + RECORD_ATTRIBUTES_AT, attributes);
    put_u32(header + 23, batch->record_count - 1);
    put_u64(header + 27, (uint64_t)batch->base_ms);
    put_u64(header + 35, (uint64_t)batch->max_ms);
    put_u64(header + 43, UINT64_MAX); /* producer id, epoch, sequence: none */
    put_u16(header + 51, UINT16_MAX);
    put_u32(header + 53, UINT32_MAX);
    put_u32(header + 57, batch->record_count);
    put_u32(header + RECORD_CRC_AT, combined_crc(batch));
}

void batch_compress(struct batch *batch, struct chunk_pool *pool, struct compressor *compressor,
                    enum compression codec) {
    struct slice compressed;
    struct slice records = slice_make(batch->chunk->data + RECORD_BATCH_HEADER_SIZE,
                                      batch->size_bytes - RECORD_BATCH_HEADER_SIZE);
    if (compressor_run(compressor, codec, records, &compressed) < 0)
        return;
    uint32_t size_bytes = RECORD_BATCH_HEADER_SIZE + (uint32_t)compressed.size;
    struct chunk *chunk = chunk_take(pool, size_bytes);
    if (!chunk)
        return;
    memcpy(chunk->data + RECORD_BATCH_HEADER_SIZE, compressed.data, compressed.size);
    chunk_release(batch->chunk);
    batch->chunk = chunk;
    batch->size_bytes = size_bytes;
    batch->codec = codec;
}

void batch_seal(struct batch *batch) {
    dg_assert(batch->record_count > 0 && batch->size_bytes > RECORD_BATCH_HEADER_SIZE);
    batch->body_crc = crc32c_update(0, batch->chunk->data + RECORD_BATCH_HEADER_SIZE,
                                    batch->size_bytes - RECORD_BATCH_HEADER_SIZE);
    write_header(batch, 0, (uint16_t)batch->codec);
}

void batch_place(struct batch *batch, int64_t base_offset, int64_t last_ms, int32_t epoch) {
    if (batch->base_ms >= last_ms) {
        put_u64(batch->chunk->data, (uint64_t)base_offset);
    } else {
        if (batch->max_ms < last_ms)
            batch->max_ms = last_ms;
        batch->has_one_time = true;
        write_header(batch, base_offset, RECORD_LOG_APPEND_TIME | (uint16_t)batch->codec);
    }
    put_u32(batch->chunk->data + LEADER_EPOCH_AT, (uint32_t)epoch);
}
