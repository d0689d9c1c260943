/* The opening handshake of a WebSocket (RFC 6455 4.2). */
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/http/exchange.h"

enum { KEY_TEXT_BYTES = 24, KEY_BYTES = 16, ACCEPT_TEXT_SIZE = 32 };

const struct http_websocket *http_websocket_find(const struct http_routes *routes,
                                                 struct slice path) {
    for (const struct http_websocket *row = routes->websockets; row && row->path; row++)
        if (slice_equals_string(path, row->path))
            return row;
    return NULL;
}

static bool is_key(struct slice key) {
    uint8_t bytes[KEY_BYTES + 2];
    return key.size == KEY_TEXT_BYTES && memcmp(key.data + KEY_TEXT_BYTES - 2, "==", 2) == 0 &&
           EVP_DecodeBlock(bytes, key.data, KEY_TEXT_BYTES) == KEY_BYTES + 2;
}

static bool make_accept(struct slice key, char *ret_text) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t input[KEY_TEXT_BYTES + sizeof(guid) - 1];
    uint8_t digest[SHA_DIGEST_LENGTH];
    memcpy(input, key.data, KEY_TEXT_BYTES);
    memcpy(input + KEY_TEXT_BYTES, guid, sizeof(guid) - 1);
    if (EVP_Digest(input, sizeof(input), digest, NULL, EVP_sha1(), NULL) != 1)
        return false;
    EVP_EncodeBlock((unsigned char *)ret_text, digest, sizeof(digest));
    return true;
}

/* What the request lacks: the status that says so, or 0. */
static unsigned check_request(struct http_exchange *x, const struct http_websocket *row,
                              struct slice *ret_key) {
    struct slice value;
    if (x->method != HTTP_METHOD_GET)
        return 405;
    if (!x->head.upgrade || !http_request_header(x, "Upgrade", &value) ||
        !http_list_contains(value, "websocket"))
        return 426;
    if (!http_request_header(x, "Sec-WebSocket-Version", &value) ||
        !slice_equals_string(value, "13"))
        return 426;
    if (x->chunked || x->body_expected > 0 || x->head.version != 11)
        return 400;
    if (!http_request_header(x, "Sec-WebSocket-Key", ret_key) || !is_key(*ret_key))
        return 400;
    if (!http_request_header(x, "Sec-WebSocket-Protocol", &value) ||
        !http_list_contains(value, row->subprotocol))
        return 400;
    return 0;
}

static void refuse(struct http_exchange *x, unsigned status) {
    struct buffer body = {0};
    if (status == 405)
        http_add_header(x, "Allow", "GET");
    if (status == 426) {
        http_add_header(x, "Upgrade", "websocket");
        http_add_header(x, "Sec-WebSocket-Version", "13");
    }
    if (http_format_problem(&body, status, 0, NULL) < 0)
        buffer_free(&body);
    x->keep_alive = false;
    http_respond(x, status, "application/problem+json", buffer_slice(&body));
    buffer_free(&body);
}

void http_upgrade(struct http_exchange *x, const struct http_websocket *row) {
    struct connection *c = x->connection;
    struct slice key;
    char accept[ACCEPT_TEXT_SIZE], head[256];
    unsigned status = check_request(x, row, &key);
    if (status == 0 && !make_accept(key, accept))
        status = 500;
    if (status != 0) {
        refuse(x, status);
        return;
    }
    int size = snprintf(head, sizeof(head),
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
                        "Sec-WebSocket-Protocol: %s\r\n\r\n",
                        accept, row->subprotocol);
    connection_write(c, head, (size_t)size);
    struct http_session *session = c->session;
    int err = connection_upgrade_websocket(c, row->protocol);
    if (err < 0 && !c->websocket) { /* still HTTP: there was no memory for the frames */
        session->ended = true;
        connection_close(c, err);
        return;
    }
    http_free_session(session);
}
