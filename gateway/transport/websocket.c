/*
 * WebSocket frames around a byte stream (RFC 6455), server side. wslay parses and checks what comes
 * in and answers pings and closes; messages are not put together, their payload is handed on as a
 * stream (MQTT packets may span frames, MQTT5 6.0). Outgoing bytes are framed in output.c.
 *
 * The context costs about 9 KB, so it exists only after the upgrade.
 */
#include <stdlib.h>
#include <wslay/wslay.h>

#include "common/assert.h"
#include "gateway/transport/transport.h"

/* Fed in small steps: each ping makes wslay allocate a pong, and those are sent between steps. */
enum { FEED_BYTES = 1024, CLOSE_FRAME = 0x88, CLOSE_UNSUPPORTED_DATA = 1003 };

struct websocket {
    wslay_event_context_ptr context;
    struct slice raw;    /* of the step under way */
    int err;             /* of a callback */
    uint8_t opcode;      /* of the frame under way */
    unsigned frame_left; /* of the control frame being sent */
};

/* ---- wslay's callbacks ---- */

static ssize_t on_want_bytes(wslay_event_context_ptr context, uint8_t *data, size_t size, int flags,
                             void *user) {
    struct slice *raw = &((struct connection *)user)->websocket->raw;
    if (raw->size == 0) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size_t count = raw->size < size ? raw->size : size;
    memcpy(data, raw->data, count);
    *raw = slice_skip(*raw, count);
    return (ssize_t)count;
}

/* A close without a code that the peer has not asked for: wslay's answer to a bad control frame. */
static bool is_nameless_close(wslay_event_context_ptr context, const uint8_t *header) {
    return header[0] == CLOSE_FRAME && header[1] == 0 && !wslay_event_get_close_received(context);
}

/* Only control frames come this way, each with a header of two bytes that comes first. */
static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *data, size_t size, int flags,
                       void *user) {
    static const uint8_t protocol_error[] = {CLOSE_FRAME, 2, WSLAY_CODE_PROTOCOL_ERROR >> 8,
                                             WSLAY_CODE_PROTOCOL_ERROR & 0xff};
    struct websocket *ws = ((struct connection *)user)->websocket;
    bool is_header = ws->frame_left == 0;
    dg_assert(!is_header || size >= 2);
    if (is_header)
        ws->frame_left = 2u + (data[1] & 0x7f);
    ws->frame_left -= size < ws->frame_left ? (unsigned)size : ws->frame_left;
    if (is_header && is_nameless_close(context, data))
        connection_write_raw(user, protocol_error, sizeof(protocol_error));
    else
        connection_write_raw(user, data, size);
    return (ssize_t)size;
}

static void on_frame_start(wslay_event_context_ptr context,
                           const struct wslay_event_on_frame_recv_start_arg *frame, void *user) {
    struct websocket *ws = ((struct connection *)user)->websocket;
    ws->opcode = frame->opcode;
    if (frame->opcode == WSLAY_TEXT_FRAME && ws->err == 0) {
        ws->err = DG_ERR_PROTOCOL;
        wslay_event_queue_close(context, CLOSE_UNSUPPORTED_DATA, NULL, 0);
        wslay_event_shutdown_read(context);
    }
}

static void on_frame_chunk(wslay_event_context_ptr context,
                           const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *user) {
    struct connection *c = user;
    struct websocket *ws = c->websocket;
    bool is_data = ws->opcode == WSLAY_BINARY_FRAME || ws->opcode == WSLAY_CONTINUATION_FRAME;
    if (!is_data || ws->err < 0 || chunk->data_length == 0)
        return;
    struct buffer *input = connection_input(c);
    ws->err = input ? buffer_append(input, chunk->data, chunk->data_length, c->input_limit_bytes)
                    : DG_ERR_NO_MEMORY;
}

static const struct wslay_event_callbacks CALLBACKS = {
    .recv_callback = on_want_bytes,
    .send_callback = on_send,
    .on_frame_recv_start_callback = on_frame_start,
    .on_frame_recv_chunk_callback = on_frame_chunk,
};

/* ---- in ---- */

static int feed(struct connection *c, struct slice raw) {
    struct websocket *ws = c->websocket;
    ws->raw = raw;
    int failed = wslay_event_recv(ws->context);
    if (failed && failed != WSLAY_ERR_WOULDBLOCK)
        return failed == WSLAY_ERR_NOMEM ? DG_ERR_NO_MEMORY : DG_ERR_PROTOCOL;
    if (wslay_event_want_write(ws->context) && wslay_event_send(ws->context) != 0)
        return DG_ERR_NO_MEMORY;
    if (ws->err < 0)
        return ws->err;
    if (wslay_event_get_close_received(ws->context))
        return DG_ERR_CLOSED;
    return wslay_event_want_read(ws->context) ? 0 : DG_ERR_PROTOCOL;
}

int websocket_unwrap(struct connection *c, const uint8_t *data, size_t size) {
    int err = 0;
    for (size_t at = 0; at < size && err == 0; at += FEED_BYTES) {
        size_t step = size - at < FEED_BYTES ? size - at : FEED_BYTES;
        err = feed(c, slice_make(data + at, step));
    }
    return err;
}

/* ---- closing ---- */

/* RFC 6455 7.4.1. */
static uint16_t close_code(int err) {
    switch (err) {
    case 0:
    case DG_ERR_CLOSED:
        return WSLAY_CODE_NORMAL_CLOSURE;
    case DG_ERR_SHUTTING_DOWN:
    case DG_ERR_ADMINISTRATIVE:
        return WSLAY_CODE_GOING_AWAY;
    case DG_ERR_MALFORMED:
    case DG_ERR_PROTOCOL:
        return WSLAY_CODE_PROTOCOL_ERROR;
    case DG_ERR_BAD_CREDENTIALS:
    case DG_ERR_NOT_AUTHORIZED:
    case DG_ERR_DISABLED:
        return WSLAY_CODE_POLICY_VIOLATION;
    case DG_ERR_LIMIT:
    case DG_ERR_TOO_LARGE:
        return WSLAY_CODE_MESSAGE_TOO_BIG;
    default:
        return WSLAY_CODE_INTERNAL_SERVER_ERROR;
    }
}

void websocket_close(struct connection *c, int err) {
    wslay_event_context_ptr context = c->websocket->context;
    if (wslay_event_get_close_sent(context))
        return;
    /* Fails when wslay has queued one of its own already, with a better code. */
    (void)wslay_event_queue_close(context, close_code(err), NULL, 0);
    (void)wslay_event_send(context);
}

void websocket_free(struct connection *c) {
    if (!c->websocket)
        return;
    wslay_event_context_free(c->websocket->context);
    free(c->websocket);
    c->websocket = NULL;
}

/* ---- the upgrade ---- */

static int create(struct connection *c) {
    struct websocket *ws = calloc(1, sizeof(*ws));
    if (!ws)
        return DG_ERR_NO_MEMORY;
    if (wslay_event_context_server_init(&ws->context, &CALLBACKS, c) != 0) {
        free(ws);
        return DG_ERR_NO_MEMORY;
    }
    wslay_event_config_set_no_buffering(ws->context, 1);
    wslay_event_config_set_max_recv_msg_length(ws->context, LIMIT_WEBSOCKET_MESSAGE_BYTES);
    c->websocket = ws;
    return 0;
}

int connection_upgrade_websocket(struct connection *c, const struct connection_protocol *protocol) {
    int err = create(c);
    if (err < 0)
        return err;
    connection_count(c->protocol, -1);
    connection_clear(c, CONNECTION_OPENED);
    connection_set_deadline(c, 0);
    c->protocol = protocol;
    c->session = NULL;
    err = protocol->open(c);
    if (err < 0) {
        connection_close(c, err);
        return err;
    }
    connection_set(c, CONNECTION_OPENED);
    connection_count(protocol, 1);
    return 0;
}
