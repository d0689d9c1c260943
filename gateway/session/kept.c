#include "gateway/session/kept.h"

#include <stdlib.h>

struct session_kept *kept_new(void) {
    return calloc(1, sizeof(struct session_kept));
}

void kept_free(struct session_kept *kept) {
    if (!kept)
        return;
    while (kept->subscriptions) {
        struct session_subscription *first = kept->subscriptions;
        kept->subscriptions = first->next;
        free(first);
    }
    free(kept->identities);
    free(kept);
}
