#include "gateway/kafka/codec.h"

#include "common/assert.h"

enum { TAGS_MAX = 64 };

static bool field_present(const struct kafka_field *field, int version) {
    return version >= field->first && version <= field->last;
}

void *kafka_arena_take(struct kafka_arena *arena, size_t size) {
    size = (size + 15) & ~(size_t)15;
    if ((size_t)(arena->end - arena->at) < size)
        return NULL;
    void *start = arena->at;
    arena->at += size;
    memset(start, 0, size);
    return start;
}

/* ---- decoding ---- */

int kafka_skip_tags(struct reader *r) {
    uint32_t count = reader_uvarint(r);
    if (count > TAGS_MAX)
        return DG_ERR_MALFORMED;
    for (uint32_t i = 0; i < count && !r->failed; i++) {
        reader_uvarint(r);
        reader_take(r, reader_uvarint(r));
    }
    return r->failed ? DG_ERR_MALFORMED : 0;
}

/* The length of a string, bytes or array; -1 for null. */
static int64_t read_length(struct reader *r, bool flexible, bool is_short) {
    if (flexible)
        return (int64_t)reader_uvarint(r) - 1;
    return is_short ? (int16_t)reader_u16(r) : (int32_t)reader_u32(r);
}

static int read_bytes(struct reader *r, bool flexible, bool is_short, bool may_be_null,
                      struct slice *ret) {
    int64_t length = read_length(r, flexible, is_short);
    if (length < 0) {
        *ret = slice_make(NULL, 0);
        return length == -1 && may_be_null ? 0 : DG_ERR_MALFORMED;
    }
    *ret = reader_slice(r, (size_t)length);
    return r->failed ? DG_ERR_MALFORMED : 0;
}

static size_t element_size(const struct kafka_field *field) {
    switch (field->type) {
    case KAFKA_I32_ARRAY:
        return sizeof(int32_t);
    case KAFKA_STRING_ARRAY:
        return sizeof(struct slice);
    default:
        return field->element_size;
    }
}

static int decode_element(const struct kafka_field *field, int version, bool flexible,
                          struct reader *r, struct kafka_arena *arena, void *item) {
    switch (field->type) {
    case KAFKA_I32_ARRAY:
        *(int32_t *)item = (int32_t)reader_u32(r);
        return r->failed ? DG_ERR_MALFORMED : 0;
    case KAFKA_STRING_ARRAY:
        return read_bytes(r, flexible, true, false, item);
    default:
        return kafka_decode(field->element, version, flexible, r, arena, item);
    }
}

/* An element takes at least one byte, so the count is compared with what is left before anything is
 * allocated. */
static int decode_array(const struct kafka_field *field, int version, bool flexible,
                        struct reader *r, struct kafka_arena *arena, struct kafka_array *array) {
    int64_t count = read_length(r, flexible, false);
    if (count == -1 && version >= field->null_from) {
        array->is_null = true;
        return r->failed ? DG_ERR_MALFORMED : 0;
    }
    if (r->failed || count < 0 || (uint64_t)count > reader_left(r))
        return DG_ERR_MALFORMED;
    size_t size = element_size(field);
    uint8_t *items = kafka_arena_take(arena, (size_t)count * size);
    if (!items)
        return DG_ERR_LIMIT;
    for (int64_t i = 0; i < count; i++) {
        int err = decode_element(field, version, flexible, r, arena, items + (size_t)i * size);
        if (err < 0)
            return err;
    }
    array->items = items;
    array->count = (uint32_t)count;
    return 0;
}

static int decode_number(const struct kafka_field *field, struct reader *r, void *to) {
    switch (field->type) {
    case KAFKA_I8:
        *(int8_t *)to = (int8_t)reader_u8(r);
        break;
    case KAFKA_BOOL:
        *(bool *)to = reader_u8(r) != 0;
        break;
    case KAFKA_I16:
        *(int16_t *)to = (int16_t)reader_u16(r);
        break;
    case KAFKA_I32:
        *(int32_t *)to = (int32_t)reader_u32(r);
        break;
    default:
        *(int64_t *)to = (int64_t)reader_u64(r);
    }
    return r->failed ? DG_ERR_MALFORMED : 0;
}

static int decode_field(const struct kafka_field *field, int version, bool flexible,
                        struct reader *r, struct kafka_arena *arena, void *to) {
    bool may_be_null = version >= field->null_from;
    dg_assert(field->type != KAFKA_RECORDS); /* requests carry theirs as bytes */
    switch (field->type) {
    case KAFKA_STRING:
        return read_bytes(r, flexible, true, may_be_null, to);
    case KAFKA_BYTES:
        return read_bytes(r, flexible, false, may_be_null, to);
    case KAFKA_ARRAY:
    case KAFKA_I32_ARRAY:
    case KAFKA_STRING_ARRAY:
        return decode_array(field, version, flexible, r, arena, to);
    case KAFKA_UUID: {
        const uint8_t *id = reader_take(r, KAFKA_UUID_SIZE);
        if (!id)
            return DG_ERR_MALFORMED;
        memcpy(to, id, KAFKA_UUID_SIZE);
        return 0;
    }
    default:
        return decode_number(field, r, to);
    }
}

int kafka_decode(const struct kafka_field *fields, int version, bool flexible, struct reader *r,
                 struct kafka_arena *arena, void *ret) {
    for (const struct kafka_field *field = fields; field->name; field++) {
        if (!field_present(field, version))
            continue;
        int err = decode_field(field, version, flexible, r, arena, (uint8_t *)ret + field->offset);
        if (err < 0)
            return err;
    }
    return flexible ? kafka_skip_tags(r) : 0;
}

int kafka_decode_header(struct reader *r, struct kafka_request_header *ret_header) {
    struct kafka_request_header header = {
        .api = (int16_t)reader_u16(r),
        .version = (int16_t)reader_u16(r),
        .correlation_id = (int32_t)reader_u32(r),
    };
    int err = read_bytes(r, false, true, true, &header.client_id);
    if (err < 0 || r->failed)
        return DG_ERR_MALFORMED;
    *ret_header = header;
    return 0;
}

/* ---- encoding ---- */

static void write_length(struct writer *w, bool flexible, bool is_short, int64_t length) {
    if (flexible)
        writer_uvarint(w, (uint64_t)(length + 1));
    else if (is_short)
        writer_u16(w, (uint16_t)length);
    else
        writer_u32(w, (uint32_t)length);
}

/* A null that this version cannot say goes out empty. */
static void write_bytes(struct writer *w, const struct kafka_field *field, int version,
                        bool flexible, const struct slice *bytes) {
    bool is_null = !bytes->data && bytes->size == 0 && version >= field->null_from;
    write_length(w, flexible, field->type != KAFKA_BYTES, is_null ? -1 : (int64_t)bytes->size);
    writer_slice(w, *bytes);
}

static void write_records(struct kafka_output *output, bool flexible,
                          const struct kafka_records *records) {
    write_length(&output->w, flexible, false, records->size_bytes);
    if (records->size_bytes == 0)
        return;
    if (output->gap_count == output->gap_limit) {
        output->w.failed = true;
        return;
    }
    output->gaps[output->gap_count++] =
        (struct kafka_gap){.position = writer_size(&output->w), .records = records};
    output->gap_bytes += records->size_bytes;
}

static void write_array(const struct kafka_field *field, int version, bool flexible,
                        struct kafka_output *output, const struct kafka_array *array) {
    bool is_null = array->is_null && version >= field->null_from;
    write_length(&output->w, flexible, false, is_null ? -1 : (int64_t)array->count);
    size_t size = element_size(field);
    for (uint32_t i = 0; i < array->count; i++) {
        const uint8_t *item = (const uint8_t *)array->items + i * size;
        if (field->type == KAFKA_I32_ARRAY)
            writer_u32(&output->w, *(const uint32_t *)(const void *)item);
        else if (field->type == KAFKA_STRING_ARRAY)
            write_bytes(&output->w, field, KAFKA_NEVER - 1, flexible, (const void *)item);
        else
            kafka_encode(field->element, version, flexible, output, item);
    }
}

static void write_number(struct writer *w, enum kafka_type type, const void *from) {
    switch (type) {
    case KAFKA_I8:
    case KAFKA_BOOL:
        writer_bytes(w, from, 1);
        break;
    case KAFKA_I16:
        writer_u16(w, *(const uint16_t *)from);
        break;
    case KAFKA_I32:
        writer_u32(w, *(const uint32_t *)from);
        break;
    default:
        writer_u64(w, *(const uint64_t *)from);
    }
}

static void encode_field(const struct kafka_field *field, int version, bool flexible,
                         struct kafka_output *output, const void *from) {
    switch (field->type) {
    case KAFKA_STRING:
    case KAFKA_BYTES:
        write_bytes(&output->w, field, version, flexible, from);
        break;
    case KAFKA_RECORDS:
        write_records(output, flexible, from);
        break;
    case KAFKA_ARRAY:
    case KAFKA_I32_ARRAY:
    case KAFKA_STRING_ARRAY:
        write_array(field, version, flexible, output, from);
        break;
    case KAFKA_UUID:
        writer_bytes(&output->w, from, KAFKA_UUID_SIZE);
        break;
    default:
        write_number(&output->w, field->type, from);
    }
}

void kafka_encode(const struct kafka_field *fields, int version, bool flexible,
                  struct kafka_output *output, const void *message) {
    for (const struct kafka_field *field = fields; field->name; field++)
        if (field_present(field, version))
            encode_field(field, version, flexible, output,
                         (const uint8_t *)message + field->offset);
    if (flexible)
        writer_u8(&output->w, 0);
}
