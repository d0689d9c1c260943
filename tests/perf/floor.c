/*
 * The floor that Duragate is measured against: a do-nothing MQTT server with group commit. It
 * accepts every CONNECT, appends the bytes of publishes (and of PUBREL, for QoS 2) to a
 * preallocated file with one synced write for all that arrived together, and acknowledges. No
 * login, session, event, partition or reader: whatever a real server adds costs on top of this.
 *
 *     floor PORT FILE        FILE: 256 MiB, made and zero-filled at the start
 *
 * One thread; epoll; the write is O_DIRECT | O_DSYNC in whole 4 KiB blocks.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FILE_SIZE = 256 << 20,
    GROUP_SIZE = 4 << 20,
    BLOCK = 4096,
    READ_SIZE = 65536,
    KEPT_SIZE = 16384,
    CONNECTIONS_MAX = 4096,
    ACKS_MAX = 16384,
};

struct connection {
    int fd;
    uint32_t kept; /* bytes of an incomplete packet */
    uint32_t ack_size;
    uint8_t acks[ACKS_MAX];
    uint8_t rest[KEPT_SIZE];
};

static struct connection *connections[CONNECTIONS_MAX];
static struct connection *dirty[CONNECTIONS_MAX];
static unsigned dirty_count;
static uint8_t *group;
static size_t group_size;
static int journal;
static off_t journal_at;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void commit(void) {
    if (group_size > 0) {
        size_t size = (group_size + BLOCK - 1) / BLOCK * BLOCK;
        if (journal_at + (off_t)size > FILE_SIZE)
            journal_at = 0;
        if (pwrite(journal, group, size, journal_at) != (ssize_t)size)
            die("pwrite");
        journal_at += (off_t)size;
        group_size = 0;
    }
    for (unsigned i = 0; i < dirty_count; i++) {
        struct connection *c = dirty[i];
        if (c->fd >= 0 && send(c->fd, c->acks, c->ack_size, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
            errno != ECONNRESET)
            die("send");
        c->ack_size = 0;
    }
    dirty_count = 0;
}

static void answer(struct connection *c, const void *bytes, uint32_t size) {
    if (c->ack_size == 0)
        dirty[dirty_count++] = c;
    memcpy(c->acks + c->ack_size, bytes, size);
    c->ack_size += size;
    if (c->ack_size + 8 > ACKS_MAX)
        commit();
}

static void store(const uint8_t *packet, size_t size) {
    if (group_size + size > GROUP_SIZE)
        commit();
    memcpy(group + group_size, packet, size);
    group_size += size;
}

static void take_packet(struct connection *c, const uint8_t *packet, size_t header, size_t size) {
    switch (packet[0] >> 4) {
    case 1:
        answer(c, "\x20\x02\x00\x00", 4);
        return;
    case 12:
        answer(c, "\xd0\x00", 2);
        return;
    case 6:
        store(packet, size);
        answer(c, (uint8_t[]){0x70, 2, packet[header], packet[header + 1]}, 4);
        return;
    case 3:
        store(packet, size);
        if (packet[0] & 6) {
            const uint8_t *id = packet + header + 2 + (packet[header] << 8 | packet[header + 1]);
            answer(c, (uint8_t[]){packet[0] & 4 ? 0x50 : 0x40, 2, id[0], id[1]}, 4);
        }
    }
}

/* Whole packets of data; returns the bytes used. */
static size_t take_packets(struct connection *c, const uint8_t *data, size_t size) {
    size_t at = 0;
    while (at + 2 <= size) {
        size_t length = 0, header = 1;
        do {
            if (at + header >= size)
                return at;
            length |= (size_t)(data[at + header] & 0x7f) << 7 * (header - 1);
        } while (data[at + header++] & 0x80);
        if (at + header + length > size)
            return at;
        take_packet(c, data + at, header, header + length);
        at += header + length;
    }
    return at;
}

static void receive(struct connection *c) {
    static uint8_t buffer[READ_SIZE + KEPT_SIZE];
    memcpy(buffer, c->rest, c->kept);
    ssize_t got = recv(c->fd, buffer + c->kept, READ_SIZE, 0);
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN)
            return;
        close(c->fd);
        c->fd = -1;
        return;
    }
    size_t size = c->kept + (size_t)got, used = take_packets(c, buffer, size);
    c->kept = (uint32_t)(size - used);
    if (c->kept > KEPT_SIZE)
        die("packet too large");
    memcpy(c->rest, buffer + used, c->kept);
}

static void accept_one(int listener, int poll) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0 || fd >= CONNECTIONS_MAX)
        die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (!connections[fd] && !(connections[fd] = calloc(1, sizeof(struct connection))))
        die("calloc");
    connections[fd]->fd = fd;
    connections[fd]->kept = 0;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
}

static void open_journal(const char *path) {
    journal = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (journal < 0 || posix_memalign((void **)&group, BLOCK, GROUP_SIZE + BLOCK) != 0)
        die(path);
    memset(group, 0, GROUP_SIZE);
    for (off_t at = 0; at < FILE_SIZE; at += GROUP_SIZE)
        if (pwrite(journal, group, GROUP_SIZE, at) != GROUP_SIZE)
            die(path);
    if (fsync(journal) != 0)
        die(path);
    close(journal);
    journal = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (journal < 0)
        die(path);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 64;
    open_journal(argv[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 1024))
        die("listen");
    int poll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener,
              &(struct epoll_event){.events = EPOLLIN, .data.fd = listener});
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_one(listener, poll);
            else
                receive(connections[events[i].data.fd]);
        }
        commit();
    }
}
