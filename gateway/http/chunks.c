/*
 * A chunked body (RFC 9112 7.1), by hand, since a framing that two servers read differently lets
 * one request hide in another:
 *
 *     body  = *( size CRLF bytes CRLF ) "0" CRLF CRLF
 *     size  = 1 to 8 hexadecimal digits
 *
 * and nothing else. Extensions and trailers are legal, but nobody needs them here; a server limits
 * what it takes of them (RFC 9112 7.1.1), and ours takes none. So the framing outweighs what it
 * carries by 12 bytes for each at most.
 */
#include <stdlib.h>

#include "common/assert.h"
#include "gateway/http/http_parse.h"

enum { SIZE_DIGITS_MAX = 8 };

enum chunks_at {
    AT_SIZE,     /* a digit; behind the first one also CR */
    AT_SIZE_LF,  /* ends the line of a size */
    AT_BYTES,    /* `left` of them */
    AT_BYTES_CR, /* behind the bytes */
    AT_BYTES_LF,
    AT_END_CR, /* behind the line of the size 0 */
    AT_END_LF,
};

void http_chunks_begin(struct http_chunks *chunks, struct buffer *body, size_t limit_bytes) {
    *chunks = (struct http_chunks){.at = AT_SIZE, .body = body, .limit_bytes = limit_bytes};
}

static int hex_digit(uint8_t byte) {
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static int take_size_byte(struct http_chunks *chunks, uint8_t byte) {
    int digit = hex_digit(byte);
    if (digit < 0 && byte == '\r' && chunks->digits > 0) {
        chunks->at = AT_SIZE_LF;
        return 0;
    }
    if (digit < 0 || chunks->digits == SIZE_DIGITS_MAX)
        return DG_ERR_MALFORMED;
    chunks->digits++;
    chunks->left = chunks->left << 4 | (unsigned)digit;
    return 0;
}

/* The line of a size is whole: what it announces is compared before any of it is kept. */
static int end_size(struct http_chunks *chunks) {
    size_t kept = buffer_size(chunks->body);
    dg_assert(kept <= chunks->limit_bytes);
    if (chunks->left > chunks->limit_bytes - kept)
        return DG_ERR_TOO_LARGE;
    chunks->at = chunks->left > 0 ? AT_BYTES : AT_END_CR;
    chunks->digits = 0;
    return 0;
}

static int expect(struct http_chunks *chunks, uint8_t byte, uint8_t wanted, enum chunks_at next) {
    chunks->at = next;
    return byte == wanted ? 0 : DG_ERR_MALFORMED;
}

static int take_framing_byte(struct http_chunks *chunks, uint8_t byte) {
    switch ((enum chunks_at)chunks->at) {
    case AT_SIZE:
        return take_size_byte(chunks, byte);
    case AT_SIZE_LF:
        return byte == '\n' ? end_size(chunks) : DG_ERR_MALFORMED;
    case AT_BYTES_CR:
        return expect(chunks, byte, '\r', AT_BYTES_LF);
    case AT_BYTES_LF:
        return expect(chunks, byte, '\n', AT_SIZE);
    case AT_END_CR:
        return expect(chunks, byte, '\r', AT_END_LF);
    case AT_END_LF:
        chunks->complete = byte == '\n';
        return chunks->complete ? 0 : DG_ERR_MALFORMED;
    case AT_BYTES:
        break;
    }
    dg_assert(false);
    return DG_ERR_INTERNAL;
}

/* How many bytes of the chunk were taken, or an error. */
static ssize_t take_bytes(struct http_chunks *chunks, const uint8_t *data, size_t size) {
    size_t count = chunks->left < size ? chunks->left : size;
    int err = buffer_append(chunks->body, data, count, chunks->limit_bytes);
    if (err < 0)
        return err == DG_ERR_LIMIT ? DG_ERR_TOO_LARGE : err;
    chunks->left -= (uint32_t)count;
    if (chunks->left == 0)
        chunks->at = AT_BYTES_CR;
    return (ssize_t)count;
}

ssize_t http_chunks_decode(struct http_chunks *chunks, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (used < size && !chunks->complete) {
        bool bytes = chunks->at == AT_BYTES;
        ssize_t step = bytes ? take_bytes(chunks, data + used, size - used)
                             : take_framing_byte(chunks, data[used]);
        if (step < 0)
            return step;
        used += bytes ? (size_t)step : 1;
    }
    return (ssize_t)used;
}
