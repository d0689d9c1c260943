/*
 * Removing what deleted tenants left behind. A tenant goes as one row; its devices are out of reach
 * from then on, and here they are deleted, a batch per statement, among the requests of the API, so
 * that nobody waits for more than one batch. Where it ended is in PostgreSQL: another gateway, or
 * this one after a restart, goes on.
 */
#include <stdio.h>
#include <stdlib.h>

#include "registry/directory.h"

enum { BATCH_DEVICES = 500, PAUSE_MS = 20, IDLE_MS = 10000 };

static void set_timer(struct registry *registry, unsigned ms) {
    struct timeval pause = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    evtimer_add(registry->collect_timer, &pause);
}

static void collected(struct mail *mail, void *receiver) {
    struct registry *registry = receiver;
    struct registry_request *request = (struct registry_request *)(void *)mail;
    bool more =
        request->err == 0 && request->row_count == 1 && atoll(registry_value(request, 0, 0)) > 0;
    registry_request_free(request);
    registry->is_collecting = false;
    if (registry->requests) /* else: closing */
        set_timer(registry, more || registry->collect_again ? PAUSE_MS : IDLE_MS);
    registry->collect_again = false;
}

void collect_on_timer(evutil_socket_t fd, short what, void *context) {
    struct registry *registry = context;
    char most[16];
    snprintf(most, sizeof(most), "%d", BATCH_DEVICES);
    struct registry_request *request = registry_request_new(STATEMENT_COLLECT);
    if (!request || registry_request_add(request, slice_from_string(most)) < 0) {
        registry_request_free(request);
        set_timer(registry, IDLE_MS);
        return;
    }
    request->account = REGISTRY_ACCOUNT_COLLECT;
    request->is_own = true;
    request->reply = collected;
    request->reply_to = &registry->mailbox;
    registry->is_collecting = true;
    requests_begin(registry, request);
}

void collect_soon(struct registry *registry) {
    if (registry->is_collecting)
        registry->collect_again = true;
    else
        set_timer(registry, PAUSE_MS);
}
