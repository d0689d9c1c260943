#include "gateway/transport/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bucket.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/metrics.h"

enum {
    LISTEN_BACKLOG = 4096,
    ACCEPTS_PER_EVENT = 64, /* then the other listening sockets have their turn */
    PAUSE_MS = 200,
    ADDRESS_TEXT_SIZE = 128,
};

struct listener {
    struct listener *next;
    struct listener_set *set;
    const struct connection_listener *kind;
    struct event *event;
    int fd;
    bool is_resting; /* is_paced, and there were too many in this second */
};

struct listener_set {
    struct event_base *base;
    struct worker **workers;
    unsigned worker_count;
    struct listener *listeners;
    struct event *resume_timer, *pace_timer;
    struct bucket pace;    /* of those that are paced, together */
    uint64_t per_second;   /* 0: no limit */
    int reserve_fd;        /* given up for a moment to tell a peer "no" when descriptors run out */
    int connection_fd_end; /* descriptors from here on are not for connections */
};

/* ---- pace ---- */

static void on_pace(evutil_socket_t fd, short what, void *context) {
    struct listener_set *set = context;
    for (struct listener *l = set->listeners; l; l = l->next) {
        if (l->is_resting)
            event_add(l->event, NULL);
        l->is_resting = false;
    }
}

/* Counts amount (0: looks only). How long to wait until one more may come; 0: now. */
static uint64_t pace_charge(struct listener *listener, uint64_t amount) {
    struct listener_set *set = listener->set;
    if (!listener->kind->is_paced)
        return 0;
    return bucket_charge(&set->pace, amount, set->per_second, clock_monotonic_ns());
}

/* Whoever is over the rate stays in the backlog, where it costs nothing, and is let in in its turn.
 */
static void rest(struct listener *listener, uint64_t wait_ns) {
    uint64_t wait_us = wait_ns / 1000 + 1000;
    struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};
    listener->is_resting = true;
    event_del(listener->event);
    event_add(listener->set->pace_timer, &wait);
    metric_add(METRIC_CONNECTIONS_PACED, 1);
}

void listener_set_pace(struct listener_set *set, uint64_t per_second) {
    if (set->per_second == per_second)
        return;
    set->per_second = per_second;
    bucket_forgive(&set->pace, clock_monotonic_ns());
    on_pace(-1, 0, set);
}

/* ---- accepting ---- */

static struct worker *least_loaded(const struct listener_set *set) {
    struct worker *best = set->workers[0];
    for (unsigned i = 1; i < set->worker_count; i++)
        if (atomic_load_explicit(&set->workers[i]->load, memory_order_relaxed) <
            atomic_load_explicit(&best->load, memory_order_relaxed))
            best = set->workers[i];
    return best;
}

static int open_reserve(void) {
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_resume(evutil_socket_t fd, short what, void *context) {
    struct listener_set *set = context;
    if (set->reserve_fd < 0)
        set->reserve_fd = open_reserve();
    for (struct listener *l = set->listeners; l; l = l->next)
        event_add(l->event, NULL);
}

/* The kernel gives the lowest number that is free, so a connection with a high one tells that few
 * are left; the stream and the registry need some, or the process would end for want of one. */
static int connection_fd_end(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT_MAX)
        return INT_MAX;
    int all = (int)limit.rlim_cur;
    return all > 2 * LIMIT_RESERVED_DESCRIPTORS ? all - LIMIT_RESERVED_DESCRIPTORS : all / 2;
}

/* No descriptor is left: the waiting peer is accepted with the reserve and closed, so that it
 * learns of it. */
static void refuse_with_reserve(struct listener_set *set, int fd) {
    if (set->reserve_fd < 0)
        return;
    close(set->reserve_fd);
    int refused = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (refused >= 0) {
        close(refused);
        metric_add(METRIC_CONNECTIONS_REFUSED, 1);
    }
    set->reserve_fd = open_reserve();
}

/* Accepting rests instead of spinning on a socket that stays readable. */
static void pause_accepting(struct listener_set *set) {
    for (struct listener *l = set->listeners; l; l = l->next)
        event_del(l->event);
    static const struct timeval pause = {0, PAUSE_MS * 1000};
    event_add(set->resume_timer, &pause);
    LOG_WARN("listener.paused", log_text("why", strerror(EMFILE)), log_int("ms", PAUSE_MS));
}

static bool is_exhaustion(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_acceptable(evutil_socket_t fd, short what, void *context) {
    struct listener *listener = context;
    for (unsigned i = 0; i < ACCEPTS_PER_EVENT; i++) {
        uint64_t wait_ns = pace_charge(listener, 0);
        if (wait_ns > 0) {
            rest(listener, wait_ns);
            return;
        }
        int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= listener->set->connection_fd_end) {
            close(accepted);
            metric_add(METRIC_CONNECTIONS_REFUSED, 1);
            pause_accepting(listener->set);
            return;
        }
        if (accepted >= 0) {
            (void)pace_charge(listener, 1);
            metric_add(METRIC_CONNECTIONS_ACCEPTED, 1);
            connection_hand_over(least_loaded(listener->set), accepted, listener->kind);
        } else if (is_exhaustion(errno)) {
            refuse_with_reserve(listener->set, fd);
            pause_accepting(listener->set);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* else: that peer has gone already, or a signal came */
    }
}

/* ---- binding ---- */

/* "host:port" or "[v6]:port", numbers only: names would block and could change. */
static int parse_address(const char *text, struct addrinfo **ret_address) {
    char host[ADDRESS_TEXT_SIZE];
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;
    bool bracketed = size >= 2 && text[0] == '[' && text[size - 1] == ']';
    if (!colon || size >= sizeof(host) || colon[1] == '\0')
        return DG_ERR_INVALID;
    if (!bracketed && memchr(text, ':', size))
        return DG_ERR_INVALID;
    snprintf(host, sizeof(host), "%.*s", (int)(bracketed ? size - 2 : size), text + bracketed);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    if (bracketed)
        hints.ai_family = AF_INET6;
    return getaddrinfo(size == 0 ? NULL : host, colon + 1, &hints, ret_address) == 0
               ? 0
               : DG_ERR_INVALID;
}

/* A listening socket, or a negative errno. */
static int open_socket(const struct addrinfo *address) {
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    return -error;
}

static int add_listener(struct listener_set *set, int fd, const struct connection_listener *kind) {
    struct listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return DG_ERR_NO_MEMORY;
    *listener = (struct listener){.set = set, .kind = kind, .fd = fd};
    listener->event = event_new(set->base, fd, EV_READ | EV_PERSIST, on_acceptable, listener);
    if (!listener->event || event_add(listener->event, NULL) < 0) {
        if (listener->event)
            event_free(listener->event);
        free(listener);
        return DG_ERR_NO_MEMORY;
    }
    listener->next = set->listeners;
    set->listeners = listener;
    return 0;
}

static bool family_is_missing(int error) {
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

/* One address. 1: listening, 0: the machine lacks its family, < 0: an error with its message. */
static int bind_one(struct listener_set *set, const char *text,
                    const struct connection_listener *kind, char *ret_error) {
    struct addrinfo *address;
    if (parse_address(text, &address) < 0) {
        snprintf(ret_error, CONFIG_ERROR_SIZE,
                 "%s: '%s' is not an address; write 192.0.2.1:1883 or [2001:db8::1]:1883",
                 kind->name, text);
        return DG_ERR_INVALID;
    }
    int fd = open_socket(address);
    freeaddrinfo(address);
    if (fd >= 0) {
        int err = add_listener(set, fd, kind);
        if (err == 0)
            return 1;
        close(fd);
        snprintf(ret_error, CONFIG_ERROR_SIZE, "%s: %s", kind->name, dg_err_text(err));
        return err;
    }
    snprintf(ret_error, CONFIG_ERROR_SIZE, "%s: cannot listen on %s: %s", kind->name, text,
             strerror(-fd));
    return family_is_missing(-fd) ? 0 : DG_ERR_IO;
}

/* Cuts the next address off a comma-separated list; false at its end. */
static bool next_address(const char **at, char *ret_text) {
    while (**at == ' ' || **at == ',')
        (*at)++;
    size_t size = strcspn(*at, ", ");
    snprintf(ret_text, ADDRESS_TEXT_SIZE, "%.*s", (int)size, *at);
    *at += size;
    return size > 0;
}

int listener_set_bind(struct listener_set *set, const char *addresses,
                      const struct connection_listener *kind, char *ret_error) {
    char text[ADDRESS_TEXT_SIZE];
    unsigned listening = 0, skipped = 0;
    for (const char *at = addresses; next_address(&at, text);) {
        int result = bind_one(set, text, kind, ret_error);
        if (result < 0)
            return result;
        if (result == 1) {
            listening++;
            continue;
        }
        skipped++;
        LOG_WARN("listener.skipped", log_text("listener", kind->name), log_text("address", text),
                 log_text("why", "the machine has no such address"));
    }
    return listening == 0 && skipped > 0 ? DG_ERR_IO : 0;
}

uint16_t listener_set_port(const struct listener_set *set, const struct connection_listener *kind) {
    const struct listener *listener = set->listeners;
    while (listener && listener->kind != kind)
        listener = listener->next;
    struct sockaddr_in6 address; /* the port stands at the same place in both families */
    socklen_t size = sizeof(address);
    if (!listener || getsockname(listener->fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    return ntohs(address.sin6_port);
}

/* ---- life ---- */

int listener_set_create(struct event_base *base, struct worker **workers, unsigned worker_count,
                        struct listener_set **ret_set) {
    struct listener_set *set = calloc(1, sizeof(*set));
    if (!set)
        return DG_ERR_NO_MEMORY;
    *set = (struct listener_set){.base = base,
                                 .workers = workers,
                                 .worker_count = worker_count,
                                 .reserve_fd = open_reserve(),
                                 .connection_fd_end = connection_fd_end()};
    set->resume_timer = evtimer_new(base, on_resume, set);
    set->pace_timer = evtimer_new(base, on_pace, set);
    if (!set->resume_timer || !set->pace_timer) {
        listener_set_free(set);
        return DG_ERR_NO_MEMORY;
    }
    *ret_set = set;
    return 0;
}

void listener_set_close(struct listener_set *set) {
    event_del(set->resume_timer);
    event_del(set->pace_timer);
    while (set->listeners) {
        struct listener *listener = set->listeners;
        set->listeners = listener->next;
        event_free(listener->event);
        close(listener->fd);
        free(listener);
    }
}

void listener_set_free(struct listener_set *set) {
    if (!set)
        return;
    if (set->resume_timer && set->pace_timer)
        listener_set_close(set);
    if (set->resume_timer)
        event_free(set->resume_timer);
    if (set->pace_timer)
        event_free(set->pace_timer);
    if (set->reserve_fd >= 0)
        close(set->reserve_fd);
    free(set);
}
