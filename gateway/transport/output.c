/*
 * The way out. Bytes are collected in chunks of a per-worker free list and leave when the turn
 * ends: one sendmsg() for all of them, sendfile() for stored batches. A connection owns output
 * memory only while the peer owes it room.
 *
 * WebSocket: the bytes of one turn become one binary frame. Room for its header is left in front of
 * the first of them and filled in when the frame ends, so nothing is copied.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/transport/transport.h"

enum { FLUSH_PARTS_MAX = 64, FRAME_HEADER_MAX = 10, FRAME_FIRST_BYTE_BINARY = 0x82 };

/* Either bytes of our own (capacity > 0) or an extent. */
struct output_part {
    struct output_part *next;
    uint32_t start, end; /* unsent: data[start..end), or the same within the extent */
    uint32_t capacity;
    struct stream_extent extent;
    uint8_t data[];
};

enum { CHUNK_CAPACITY = OUTPUT_CHUNK_BYTES - sizeof(struct output_part) };

struct connection_output {
    struct output_part *first, *last;
    struct output_part *frame; /* where the open WebSocket frame begins, or NULL */
    uint32_t frame_start;      /* ... and its offset there */
    uint64_t frame_bytes;
    size_t own_bytes; /* counted towards LIMIT_OUTPUT_BYTES */
    size_t total_bytes;
};

static bool is_extent(const struct output_part *part) {
    return part->capacity == 0;
}

static bool is_file(const struct output_part *part) {
    return is_extent(part) && !part->extent.memory;
}

static const uint8_t *part_bytes(const struct output_part *part) {
    return (is_extent(part) ? part->extent.memory : part->data) + part->start;
}

static size_t part_size(const struct output_part *part) {
    return part->end - part->start;
}

static struct output_part *take_chunk(struct connection_pool *pool, size_t size) {
    struct output_part *part = size <= CHUNK_CAPACITY ? pool->free_chunks : NULL;
    if (part) {
        pool->free_chunks = part->next;
        pool->free_chunk_count--;
    } else {
        size_t capacity = size <= CHUNK_CAPACITY ? CHUNK_CAPACITY : size;
        part = malloc(sizeof(*part) + capacity);
        if (!part)
            return NULL;
        part->capacity = (uint32_t)capacity;
    }
    part->next = NULL;
    part->start = part->end = 0;
    return part;
}

static void free_part(struct connection_pool *pool, struct output_part *part) {
    if (is_extent(part))
        stream_extent_release(&part->extent);
    if (part->capacity != CHUNK_CAPACITY || pool->free_chunk_count == OUTPUT_FREE_CHUNKS_MAX) {
        free(part);
        return;
    }
    part->next = pool->free_chunks;
    pool->free_chunks = part;
    pool->free_chunk_count++;
}

void output_free_chunks(struct connection_pool *pool) {
    while (pool->free_chunks) {
        struct output_part *part = pool->free_chunks;
        pool->free_chunks = part->next;
        free(part);
    }
    pool->free_chunk_count = 0;
}

void connection_free_output(struct connection *c) {
    if (!c->output)
        return;
    while (c->output->first) {
        struct output_part *part = c->output->first;
        c->output->first = part->next;
        free_part(c->worker->connections, part);
    }
    free(c->output);
    c->output = NULL;
}

size_t connection_unsent(const struct connection *c) {
    return c->output ? c->output->total_bytes : 0;
}

static struct connection_output *get_output(struct connection *c) {
    if (!c->output)
        c->output = calloc(1, sizeof(*c->output));
    return c->output;
}

static void append_part(struct connection_output *out, struct output_part *part) {
    if (out->last)
        out->last->next = part;
    else
        out->first = part;
    out->last = part;
}

/* Room for at least `room` bytes at the end: the last chunk, or a new one that holds all of size.
 */
static struct output_part *writable_part(struct connection *c, size_t size, size_t room) {
    struct connection_output *out = c->output;
    if (out->last && out->last->capacity - out->last->end >= room && !is_extent(out->last))
        return out->last;
    struct output_part *part = take_chunk(c->worker->connections, size);
    if (part)
        append_part(out, part);
    return part;
}

static int append_bytes(struct connection *c, const uint8_t *data, size_t size) {
    struct connection_output *out = c->output;
    while (size > 0) {
        struct output_part *part = writable_part(c, size, 1);
        if (!part)
            return DG_ERR_NO_MEMORY;
        size_t count = part->capacity - part->end;
        count = count < size ? count : size;
        memcpy(part->data + part->end, data, count);
        part->end += (uint32_t)count;
        out->own_bytes += count;
        out->total_bytes += count;
        data += count;
        size -= count;
    }
    return 0;
}

/* Before the first byte of a turn on a WebSocket. */
static int begin_frame(struct connection *c) {
    struct connection_output *out = c->output;
    if (!c->websocket || out->frame)
        return 0;
    struct output_part *part = writable_part(c, FRAME_HEADER_MAX, FRAME_HEADER_MAX);
    if (!part)
        return DG_ERR_NO_MEMORY;
    out->frame = part;
    out->frame_start = part->end;
    out->frame_bytes = 0;
    part->end += FRAME_HEADER_MAX;
    return 0;
}

/* RFC 6455 5.2: FIN, binary, not masked, the shortest form of the length. What the header does not
 * need of its room is closed by moving the frame's bytes of that one chunk. */
static void end_frame(struct connection_output *out) {
    if (!out || !out->frame)
        return;
    uint8_t header[FRAME_HEADER_MAX] = {FRAME_FIRST_BYTE_BINARY};
    unsigned width = out->frame_bytes < 126 ? 0 : out->frame_bytes <= UINT16_MAX ? 2 : 8;
    header[1] = (uint8_t)(width == 0 ? out->frame_bytes : width == 2 ? 126 : 127);
    for (unsigned i = 0; i < width; i++)
        header[2 + i] = (uint8_t)(out->frame_bytes >> 8 * (width - 1 - i));
    struct output_part *part = out->frame;
    uint8_t *start = part->data + out->frame_start;
    uint32_t size = 2 + width, body = out->frame_start + FRAME_HEADER_MAX;
    memcpy(start, header, size);
    memmove(start + size, part->data + body, part->end - body);
    part->end -= FRAME_HEADER_MAX - size;
    out->own_bytes += size;
    out->total_bytes += size;
    out->frame = NULL;
}

static bool accepts_output(struct connection *c, size_t size) {
    return size > 0 && !connection_has(c, CONNECTION_CLOSING);
}

static void fail_output(struct connection *c, int err) {
    connection_set(c, CONNECTION_ABRUPT);
    connection_close(c, err);
}

void connection_write(struct connection *c, const void *data, size_t size) {
    if (!accepts_output(c, size))
        return;
    struct connection_output *out = get_output(c);
    size_t limit = c->protocol->output_limit_bytes;
    if (limit == 0)
        limit = LIMIT_OUTPUT_BYTES;
    if (out && (size > limit || out->own_bytes > limit - size)) {
        connection_close(c, DG_ERR_LIMIT);
        return;
    }
    if (!out || begin_frame(c) < 0 || append_bytes(c, data, size) < 0) {
        fail_output(c, DG_ERR_NO_MEMORY);
        return;
    }
    out->frame_bytes += size;
    connection_mark_dirty(c);
}

void connection_write_raw(struct connection *c, const void *data, size_t size) {
    if (size == 0 || connection_has(c, CONNECTION_LINGERING))
        return;
    struct connection_output *out = get_output(c);
    end_frame(out);
    if (out && out->own_bytes + size > 2 * LIMIT_OUTPUT_BYTES) {
        fail_output(c, DG_ERR_LIMIT); /* a peer that pings and does not read */
        return;
    }
    if (!out || append_bytes(c, data, size) < 0) {
        fail_output(c, DG_ERR_NO_MEMORY);
        return;
    }
    connection_mark_dirty(c);
}

void connection_write_extent(struct connection *c, struct stream_extent *extent) {
    struct connection_output *out = NULL;
    struct output_part *part = NULL;
    if (accepts_output(c, extent->size_bytes)) {
        out = get_output(c);
        part = out && begin_frame(c) == 0 ? malloc(sizeof(*part)) : NULL;
        if (!part)
            fail_output(c, DG_ERR_NO_MEMORY);
    }
    if (!part) {
        stream_extent_release(extent);
        return;
    }
    *part = (struct output_part){.end = extent->size_bytes, .extent = *extent};
    append_part(out, part);
    out->total_bytes += extent->size_bytes;
    out->frame_bytes += extent->size_bytes;
    connection_mark_dirty(c);
}

/* ---- handing it to the kernel ---- */

/* Drops count sent bytes from the front. */
static void consume(struct connection *c, size_t count) {
    struct connection_output *out = c->output;
    metric_add(METRIC_SENT_BYTES, (int64_t)count);
    out->total_bytes -= count;
    while (count > 0) {
        struct output_part *part = out->first;
        size_t taken = count < part_size(part) ? count : part_size(part);
        part->start += (uint32_t)taken;
        if (!is_extent(part))
            out->own_bytes -= taken;
        count -= taken;
        if (part_size(part) > 0)
            continue;
        out->first = part->next;
        if (!out->first)
            out->last = NULL;
        free_part(c->worker->connections, part);
    }
}

static ssize_t send_result(ssize_t count) {
    if (count >= 0)
        return count;
    return errno == EAGAIN || errno == EINTR ? 0 : DG_ERR_CLOSED;
}

/* All parts in memory up to the next file; MSG_MORE lets the head share a segment with the file. */
static ssize_t send_memory(struct connection *c) {
    struct iovec parts[FLUSH_PARTS_MAX];
    struct msghdr message = {.msg_iov = parts};
    struct output_part *part = c->output->first;
    for (; part && !is_file(part) && message.msg_iovlen < FLUSH_PARTS_MAX; part = part->next)
        parts[message.msg_iovlen++] = (struct iovec){
            .iov_base = (void *)(uintptr_t)part_bytes(part), .iov_len = part_size(part)};
    return send_result(sendmsg(c->fd, &message, MSG_NOSIGNAL | (part ? MSG_MORE : 0)));
}

static ssize_t send_file(struct connection *c) {
    struct output_part *part = c->output->first;
    off_t position = part->extent.position + part->start;
    size_t size = part_size(part);
    size = size < LIMIT_FETCH_TURN_BYTES ? size : LIMIT_FETCH_TURN_BYTES;
    ssize_t count = sendfile(c->fd, part->extent.fd, &position, size);
    return count == 0 ? DG_ERR_IO : send_result(count); /* 0: the file is shorter than promised */
}

/* A write that would block is tried again with the same bytes: extents never change, and chunks
 * only grow at their end, which OpenSSL accepts. */
static ssize_t send_encrypted(struct connection *c) {
    struct output_part *part = c->output->first;
    size_t size = part_size(part);
    if (!is_file(part))
        return tls_session_write(c, part_bytes(part), size);
    uint8_t *copy = c->worker->connections->tls_copy;
    size = size < TLS_COPY_BYTES ? size : TLS_COPY_BYTES;
    size_t filled = 0;
    while (filled < size) {
        ssize_t count = pread(part->extent.fd, copy + filled, size - filled,
                              part->extent.position + part->start + (off_t)filled);
        if (count <= 0)
            return DG_ERR_IO;
        filled += (size_t)count;
    }
    return tls_session_write(c, copy, size);
}

static ssize_t send_some(struct connection *c) {
    if (c->tls)
        return send_encrypted(c);
    return is_file(c->output->first) ? send_file(c) : send_memory(c);
}

/* Readers of the log share what a turn has for them, so that devices' acknowledgements, which are
 * written whatever that is, wait for no more than one turn. */
static bool has_no_share_left(const struct connection *c) {
    return c->worker->connections->extent_bytes >= TURN_EXTENT_BYTES &&
           is_extent(c->output->first) && !connection_has(c, CONNECTION_ABRUPT);
}

int connection_flush(struct connection *c) {
    if (!c->output)
        return 1;
    end_frame(c->output);
    size_t sent = 0;
    while (c->output->first) {
        if (sent >= CONNECTION_TURN_BYTES) {
            connection_mark_dirty(c);
            return 0;
        }
        if (has_no_share_left(c)) {
            connection_defer(c);
            return 0;
        }
        bool of_stream = is_extent(c->output->first);
        ssize_t count = send_some(c);
        if (count < 0)
            return (int)count;
        if (count == 0) {
            connection_arm(c, connection_has(c, CONNECTION_READ_ARMED), true);
            return 0;
        }
        c->worker->connections->extent_bytes += of_stream ? (size_t)count : 0;
        consume(c, (size_t)count);
        sent += (size_t)count;
    }
    free(c->output);
    c->output = NULL;
    return 1;
}
