#include "gateway/session/due.h"

#include <stddef.h>

/* Both have nothing beside them; either may be NULL. */
static struct due *meld(struct due *a, struct due *b) {
    if (!a || !b)
        return a ? a : b;
    struct due *above = b->at_ms < a->at_ms ? b : a, *below = above == a ? b : a;
    below->next = above->first;
    if (below->next)
        below->next->before = below;
    below->before = above;
    above->first = below;
    return above;
}

static struct due *take_first(struct due **list) {
    struct due *entry = *list;
    if (entry) {
        *list = entry->next;
        entry->next = entry->before = NULL;
    }
    return entry;
}

/* In pairs, then one after the other: that is what keeps a removal cheap over time. */
static struct due *meld_all(struct due *list) {
    struct due *pairs = NULL, *whole = NULL;
    while (list) {
        struct due *one = take_first(&list);
        struct due *pair = meld(one, take_first(&list));
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs)
        whole = meld(whole, take_first(&pairs));
    return whole;
}

void due_add(struct due **first, struct due *entry) {
    entry->first = entry->next = entry->before = NULL;
    *first = meld(*first, entry);
}

void due_remove(struct due **first, struct due *entry) {
    if (entry == *first) {
        *first = meld_all(entry->first);
    } else if (entry->before) {
        if (entry->before->first == entry)
            entry->before->first = entry->next;
        else
            entry->before->next = entry->next;
        if (entry->next)
            entry->next->before = entry->before;
        *first = meld(*first, meld_all(entry->first));
    }
    entry->first = entry->next = entry->before = NULL;
}
