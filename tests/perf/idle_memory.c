/*
 * What an idle connection costs: N of them are handed to one worker, greet and fall silent. Prints
 * the bytes taken from malloc and the growth of the resident set per connection. The peers live in
 * another process. Usage: idle_memory plain|tls [connections]
 */
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/gateway/loopback.h"

enum { CONNECTIONS_MAX = 9000, CONNECTIONS_DEFAULT = 5000 };

static atomic_uint echoed;

void stream_extent_release(struct stream_extent *extent) {
}

static int idle_open(struct connection *c) {
    connection_set_deadline(c, c->worker->now_ns / 1000000u + 3600 * 1000);
    return 0;
}

static ssize_t idle_receive(struct connection *c, const uint8_t *data, size_t size) {
    connection_write(c, data, size);
    atomic_fetch_add(&echoed, 1);
    return (ssize_t)size;
}

static void idle_closed(struct connection *c, int err) {
}

static const struct connection_protocol idle = {
    .name = "mqtt", .open = idle_open, .receive = idle_receive, .closed = idle_closed};
static const struct connection_listener kinds[] = {
    {.name = "plain", .protocol = &idle},
    {.name = "tls", .protocol = &idle, .tls = true, .handshake_timeout_ms = 600000}};

static size_t resident_bytes(void) {
    long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &total, &resident) != 2)
        exit(1);
    fclose(file);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* The peers: connect, say five bytes, wait to be killed. */
static _Noreturn void be_peers(const int *sockets, unsigned count, bool tls) {
    for (unsigned i = 0; i < count; i++) {
        struct client client = {.fd = sockets[i]};
        char text[5];
        if ((tls && !client_handshake(&client, TLS1_3_VERSION, NULL, NULL)) ||
            !client_send(&client, "hello", 5) || client_read(&client, text, 5) != 5)
            _exit(1);
    }
    pause();
    _exit(0);
}

int main(int argc, char **argv) {
    bool tls = argc > 1 && strcmp(argv[1], "tls") == 0;
    unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : CONNECTIONS_DEFAULT;
    static int ours[CONNECTIONS_MAX], theirs[CONNECTIONS_MAX];
    struct rlimit limit = {2 * CONNECTIONS_MAX + 64, 2 * CONNECTIONS_MAX + 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; count > CONNECTIONS_MAX || i < count; i++) {
        int pair[2];
        if (count > CONNECTIONS_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
            return 1;
        ours[i] = pair[0];
        theirs[i] = pair[1];
    }
    pid_t peers = fork();
    if (peers == 0)
        be_peers(theirs, count, tls);
    for (unsigned i = 0; i < count; i++) {
        close(theirs[i]);
        evutil_make_socket_nonblocking(ours[i]);
    }
    struct loopback loopback;
    char directory[] = "/tmp/dg-idle-XXXXXX", command[96];
    if (!mkdtemp(directory))
        return 1;
    loopback_write_certificate(directory, "server", 30);
    loopback_start(&loopback, 1, NULL, NULL);
    struct tls_files *files = loopback_load_tls(directory, "server");
    if (tls_install(loopback.workers[0], files) < 0)
        return 1;
    tls_release(files);
    connection_hand_over(loopback.workers[0], ours[0], &kinds[tls]); /* what only the first costs */
    while (atomic_load(&echoed) < 1)
        usleep(1000);
    size_t heap = mallinfo2().uordblks + mallinfo2().hblkhd, resident = resident_bytes();
    for (unsigned i = 1; i < count; i++)
        connection_hand_over(loopback.workers[0], ours[i], &kinds[tls]);
    while (atomic_load(&echoed) < count)
        usleep(1000);
    sleep(1);
    printf("%s %u connections: malloc %zu, resident %zu bytes each\n", tls ? "tls" : "plain", count,
           (mallinfo2().uordblks + mallinfo2().hblkhd - heap) / count,
           (resident_bytes() - resident) / count);
    kill(peers, SIGKILL);
    waitpid(peers, NULL, 0);
    loopback_stop(&loopback);
    snprintf(command, sizeof(command), "rm -r '%s'", directory);
    return system(command);
}
