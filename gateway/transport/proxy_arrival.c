/*
 * A connection whose source is listed in server.proxy_sources, before its header is complete. It
 * owes one, and nobody else may send one: what a header says is believed, so a stranger's is data,
 * which no protocol takes.
 *
 * Exactly the header's bytes are read, since TLS reads on from the socket itself. Until the client
 * is named it is not counted for a source: that would be the proxy, for all its clients.
 */
#include <errno.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/networks.h"
#include "gateway/transport/proxy.h"
#include "gateway/transport/transport.h"

bool proxy_is_awaited(const struct connection *c) {
    return networks_contain(c->worker->config->server_proxy_sources, c->peer_address.s6_addr);
}

void proxy_refuse(struct connection *c, const char *why) {
    unsigned suppressed;
    metric_add(METRIC_PROXY_HEADERS_REFUSED, 1);
    struct log_sample *sample = &c->worker->connections->proxy_refusals;
    if (!log_sample(sample, connection_now_ms(c), &suppressed))
        return;
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(c, peer);
    LOG_WARN("proxy.refused", log_text("listener", c->listener->name), log_text("peer", peer),
             log_text("why", why), log_int("suppressed", suppressed));
}

/* Loopback of another machine than ours is no address here: its proxy's stays. */
static void take_client(struct connection *c, const struct proxy_header *header) {
    if (!header->names_client ||
        (!sources_count(&header->address) && !connection_peer_is_loopback(c)))
        return;
    c->peer_address = header->address;
    c->peer_port = header->port;
}

/* 1: up to size bytes more are kept, 0: none are there, < 0 error. */
static int read_more(struct connection *c, size_t size) {
    struct buffer *input = connection_input(c);
    int err = input ? buffer_reserve(input, size, LIMIT_PROXY_HEADER_BYTES) : DG_ERR_NO_MEMORY;
    if (err < 0)
        return err;
    ssize_t count = recv(c->fd, input->data + input->end, size, 0);
    if (count > 0) {
        input->end += (size_t)count;
        return 1;
    }
    return count < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : DG_ERR_CLOSED;
}

int proxy_receive(struct connection *c) {
    for (;;) {
        const char *why;
        struct proxy_header header;
        struct slice kept = c->input ? buffer_slice(c->input) : slice_make(NULL, 0);
        ssize_t wanted = proxy_decode(kept.data, kept.size, &header, &why);
        if (wanted < 0) {
            proxy_refuse(c, why);
            return (int)wanted;
        }
        if (wanted == 0) {
            take_client(c, &header);
            connection_free_input(c);
            return 1;
        }
        int result = read_more(c, (size_t)wanted);
        if (result <= 0)
            return result;
    }
}
