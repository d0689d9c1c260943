/*
 * Kafka RecordBatch v2 records: encoding of one header and reading of stored batches.
 * Pure; any thread. Layout: the table at the top of record.c.
 */
#pragma once

#include "common/err.h"
#include "common/reader.h"
#include "common/writer.h"

/* Appends one record header (key length, key, value length, value; varint lengths). */
void record_write_header(struct writer *w, struct slice key, struct slice value);

enum {
    RECORD_BATCH_HEADER_SIZE = 61,
    RECORD_MAGIC = 2,
    RECORD_CRC_AT = 17,
    RECORD_ATTRIBUTES_AT = 21, /* the CRC covers the batch from here */
    RECORD_CODEC_MASK = 7,
    RECORD_LOG_APPEND_TIME = 8, /* attribute: every record has the batch's max timestamp */
};

struct record_batch {
    int64_t base_offset;
    int64_t base_timestamp_ms;
    int64_t max_timestamp_ms;
    uint32_t record_count;
    int32_t last_offset_delta;
    uint16_t attributes;
    uint32_t crc;
    size_t size_bytes;    /* of the whole batch */
    struct slice records; /* after the header, compressed if attributes say so */
};

/* Parses the batch at the reader's position and steps over it; checks magic, lengths, counts and,
 * when asked, the CRC. DG_ERR_MALFORMED; the reader is then failed. */
DG_NODISCARD int record_batch_read(struct reader *r, bool check_crc,
                                   struct record_batch *ret_batch);

struct record {
    int64_t offset;
    int64_t timestamp_ms;
    struct slice key;   /* data NULL when null */
    struct slice value; /* data NULL when null */
    uint32_t header_count;
    struct slice headers; /* read with record_header_read */
};

/*
 * The records of a batch, expanded if they are compressed. ret_owned: memory to be freed after the
 * last use of them, or NULL. DG_ERR_MALFORMED: an unknown codec, damaged, or more than
 * LIMIT_UNIT_BYTES, which no batch of this stream has; DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int record_batch_expand(const struct record_batch *batch, struct slice *ret_records,
                                     uint8_t **ret_owned);

/* Next record of a batch; `records` is at one in what record_batch_expand() gave. */
DG_NODISCARD int record_read(const struct record_batch *batch, struct reader *records,
                             struct record *ret_record);
DG_NODISCARD int record_header_read(struct reader *headers, struct slice *ret_key,
                                    struct slice *ret_value);
