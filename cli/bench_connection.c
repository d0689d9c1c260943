/* One connection of the load generator: connect, TLS, CONNECT, then publishes and acknowledgements.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/bench.h"
#include "common/assert.h"
#include "common/clock.h"
#include "gateway/mqtt/packet.h"

enum { INPUT_SIZE = 4096, CONNECT_SIZE = 2048, KEEP_ALIVE_S = 600, RELEASE_SIZE = 4 };

static bool fail(struct bench_connection *c, const char *what) {
    struct bench *bench = c->bench;
    if (!bench->failure[0])
        snprintf(bench->failure, sizeof(bench->failure), "connection %td: %s",
                 c - bench->connections, what);
    if (c->state != BENCH_FAILED) {
        bench->failed++;
        bench->ready -= c->state == BENCH_READY;
    }
    c->state = BENCH_FAILED;
    bench_connection_close(c);
    return false;
}

void bench_connection_close(struct bench_connection *c) {
    SSL_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    free(c->out);
    free(c->in);
    free(c->sent_ns);
    c->tls = NULL;
    c->fd = -1;
    c->out = c->in = NULL;
    c->sent_ns = NULL;
}

static void watch(struct bench_connection *c, int operation, bool want_write) {
    struct epoll_event event = {.events = EPOLLIN | (want_write ? (uint32_t)EPOLLOUT : 0),
                                .data.ptr = c};
    epoll_ctl(c->bench->epoll, operation, c->fd, &event);
    c->want_write = want_write;
}

/* Many connections to one loopback address run out of ports: spread over 127.0.0.x sources. */
static void bind_source(const struct bench_connection *c, const struct addrinfo *to) {
    enum { PER_SOURCE = 20000 };
    unsigned index = (unsigned)(c - c->bench->connections);
    if (to->ai_family != AF_INET || index < PER_SOURCE)
        return;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index / PER_SOURCE);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)) != 0)
        fail(c->bench->connections + index, strerror(errno));
}

static bool open_socket(struct bench_connection *c) {
    const struct bench_options *options = &c->bench->options;
    static struct addrinfo *to; /* the same for all */
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (!to && getaddrinfo(options->host, options->port, &hints, &to) != 0)
        return fail(c, "unknown host");
    c->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return fail(c, strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    bind_source(c, to);
    if (c->fd < 0 || (connect(c->fd, to->ai_addr, to->ai_addrlen) != 0 && errno != EINPROGRESS))
        return fail(c, strerror(errno));
    return true;
}

bool bench_connection_open(struct bench *bench, unsigned index) {
    struct bench_connection *c = &bench->connections[index];
    *c = (struct bench_connection){.bench = bench, .fd = -1, .state = BENCH_CONNECTING};
    if (!open_socket(c))
        return false;
    size_t window = (size_t)bench->options.window;
    c->out = malloc(bench->out_capacity + window * RELEASE_SIZE);
    c->in = malloc(INPUT_SIZE);
    c->sent_ns = calloc(window + 1, sizeof(*c->sent_ns));
    if (!c->out || !c->in || !c->sent_ns)
        return fail(c, "out of memory");
    c->free_slots = (uint16_t)window;
    c->next_id = 1;
    watch(c, EPOLL_CTL_ADD, true);
    return true;
}

/* ---- bytes
 * ---------------------------------------------------------------------------------------- */

/* > 0 bytes, 0 would block, < 0 the connection is gone. */
static ssize_t receive_bytes(struct bench_connection *c, void *data, size_t size) {
    if (!c->tls) {
        ssize_t got = recv(c->fd, data, size, 0);
        return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
    }
    ERR_clear_error();
    int got = SSL_read(c->tls, data, (int)size);
    int error = SSL_get_error(c->tls, got);
    return got > 0 ? got : error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t send_bytes(struct bench_connection *c, const void *data, size_t size) {
    if (!c->tls) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        return sent >= 0 ? sent : errno == EAGAIN ? 0 : -1;
    }
    ERR_clear_error();
    int sent = SSL_write(c->tls, data, (int)size);
    int error = SSL_get_error(c->tls, sent);
    return sent > 0 ? sent : error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static bool flush(struct bench_connection *c) {
    while (c->out_at < c->out_size) {
        ssize_t sent = send_bytes(c, c->out + c->out_at, c->out_size - c->out_at);
        if (sent < 0)
            return fail(c, "closed by the server while sending");
        if (sent == 0)
            break;
        c->out_at += (uint32_t)sent;
    }
    bool rest = c->out_at < c->out_size;
    if (!rest)
        c->out_at = c->out_size = 0;
    if (rest != c->want_write)
        watch(c, EPOLL_CTL_MOD, rest);
    return true;
}

/* ---- login
 * ---------------------------------------------------------------------------------------- */

static bool send_connect(struct bench_connection *c) {
    const struct bench *bench = c->bench;
    unsigned index = (unsigned)(c - bench->connections);
    char client_id[32];
    snprintf(client_id, sizeof(client_id), "bench-%u", index);
    struct slice user = {0}, key = {0};
    if (bench->devices) {
        user = slice_from_string(bench->devices[index].user);
        key = slice_from_string(bench->devices[index].key);
    }
    struct writer w = writer_make(c->out, bench->out_capacity);
    /* QoS 2 is worth its name in a session that outlives the connection. */
    mqtt_write_connect(&w, bench->options.mqtt5 ? MQTT_VERSION_5 : MQTT_VERSION_3_1_1,
                       bench->options.qos != 2, KEEP_ALIVE_S, slice_from_string(client_id), user,
                       key);
    dg_assert(!w.failed);
    c->out_size = (uint32_t)writer_size(&w);
    c->state = BENCH_CONNACK;
    return flush(c);
}

static bool step_tls(struct bench_connection *c) {
    ERR_clear_error();
    int done = SSL_connect(c->tls);
    if (done == 1)
        return send_connect(c);
    int error = SSL_get_error(c->tls, done);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return fail(c, "TLS handshake failed");
    if ((error == SSL_ERROR_WANT_WRITE) != c->want_write)
        watch(c, EPOLL_CTL_MOD, error == SSL_ERROR_WANT_WRITE);
    return true;
}

static bool step_connected(struct bench_connection *c) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        return fail(c, strerror(error));
    if (!c->bench->tls)
        return send_connect(c);
    c->tls = SSL_new(c->bench->tls);
    if (!c->tls)
        return fail(c, "out of memory");
    SSL_set_fd(c->tls, c->fd);
    c->state = BENCH_TLS;
    return step_tls(c);
}

/* ---- publishes and acknowledgements
 * --------------------------------------------------------------- */

/* PUBREL. The buffer has room for the whole window; what is sent next takes it along. */
static void release(struct bench_connection *c, uint16_t id) {
    const uint8_t packet[RELEASE_SIZE] = {MQTT_PUBREL << 4 | 2, 2, (uint8_t)(id >> 8), (uint8_t)id};
    if (id == 0 || id > c->bench->options.window)
        return;
    memcpy(c->out + c->out_size, packet, sizeof(packet));
    c->out_size += RELEASE_SIZE;
}

/* PUBACK or PUBCOMP. */
static void take_completion(struct bench_connection *c, uint16_t id, uint64_t now_ns) {
    struct bench *bench = c->bench;
    if (id == 0 || id > bench->options.window)
        return;
    c->free_slots++;
    if (bench->measuring) {
        bench->acknowledged++;
        histogram_add(&bench->latency, now_ns - c->sent_ns[id]);
    }
}

static bool take_packet(struct bench_connection *c, const uint8_t *packet, size_t header,
                        size_t size, uint64_t now_ns) {
    unsigned type = packet[0] >> 4;
    const uint8_t *body = packet + header;
    size_t left = size - header;
    if (type == MQTT_CONNACK && left >= 2 && c->state == BENCH_CONNACK) {
        char text[64];
        snprintf(text, sizeof(text), "CONNECT refused with code 0x%02x", body[1]);
        if (body[1] != 0)
            return fail(c, text);
        c->state = BENCH_READY;
        c->bench->ready++;
    } else if ((type == MQTT_PUBACK || type == MQTT_PUBREC || type == MQTT_PUBCOMP) && left >= 2) {
        uint16_t id = (uint16_t)(body[0] << 8 | body[1]);
        if (left >= 3 && body[2] >= 0x80)
            return fail(c, "a publish was refused");
        if (type == MQTT_PUBREC)
            release(c, id);
        else
            take_completion(c, id, now_ns);
    } else if (type == MQTT_DISCONNECT) {
        return fail(c, "the server sent DISCONNECT");
    }
    return true;
}

static bool take_input(struct bench_connection *c, uint64_t now_ns) {
    size_t at = 0, header;
    while (at < c->in_size) {
        int size = mqtt_packet_frame(c->in + at, c->in_size - at, INPUT_SIZE, &header);
        if (size < 0)
            return fail(c, "the server sent a malformed packet");
        if (size == 0)
            break;
        if (!take_packet(c, c->in + at, header, (size_t)size, now_ns))
            return false;
        at += (size_t)size;
    }
    memmove(c->in, c->in + at, c->in_size - at);
    c->in_size -= (uint32_t)at;
    return true;
}

static void append_publish(struct bench_connection *c, uint64_t now_ns) {
    struct bench *bench = c->bench;
    uint8_t *to = c->out + c->out_size;
    memcpy(to, bench->packet, bench->packet_size);
    if (bench->options.qos > 0) {
        to[bench->packet_id_at] = (uint8_t)(c->next_id >> 8);
        to[bench->packet_id_at + 1] = (uint8_t)c->next_id;
        c->sent_ns[c->next_id] = now_ns;
        c->next_id = c->next_id == bench->options.window ? 1 : (uint16_t)(c->next_id + 1);
        c->free_slots--;
    } else if (bench->measuring) {
        bench->acknowledged++;
    }
    c->out_size += bench->packet_size;
    bench->sent++;
}

bool bench_connection_publish(struct bench_connection *c, uint64_t now_ns) {
    struct bench *bench = c->bench;
    if (c->state != BENCH_READY || !bench->publishing || c->want_write)
        return true;
    while (c->out_size + bench->packet_size <= bench->out_capacity && c->free_slots > 0) {
        if (bench->interval_ns) {
            if (c->due_ns > now_ns)
                break;
            c->due_ns += bench->interval_ns;
        }
        append_publish(c, now_ns);
    }
    return flush(c);
}

static bool step_read(struct bench_connection *c) {
    for (int turn = 0; turn < 8; turn++) {
        ssize_t got = receive_bytes(c, c->in + c->in_size, INPUT_SIZE - c->in_size);
        if (got < 0)
            return fail(c, c->state == BENCH_READY ? "closed by the server"
                                                   : "closed by the server before CONNACK");
        if (got == 0)
            break;
        c->in_size += (uint32_t)got;
        bool full = c->in_size == INPUT_SIZE;
        if (!take_input(c, clock_monotonic_ns()))
            return false;
        if (!c->tls && !full)
            break;
    }
    return true;
}

bool bench_connection_ready(struct bench_connection *c, uint32_t events, uint64_t now_ns) {
    if (c->state == BENCH_FAILED)
        return false;
    if (c->state == BENCH_CONNECTING)
        return step_connected(c);
    if (c->state == BENCH_TLS)
        return step_tls(c);
    if ((events & EPOLLOUT) && !flush(c))
        return false;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !step_read(c))
        return false;
    return bench_connection_publish(c, now_ns);
}
