#include "gateway/kafka/wait.h"

#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "gateway/kafka/session.h"

#include <uthash.h>

struct kafka_wait_key {
    uint64_t stream_id;
    uint64_t partition; /* 64 bits: no padding in a hashed key */
};

struct kafka_wait_list {
    struct kafka_wait_key key;
    struct kafka_wait *first;
    UT_hash_handle hh;
};

static struct kafka_wait_list *find_list(const struct kafka_wait_table *table, uint64_t stream_id,
                                         uint32_t partition) {
    struct kafka_wait_key key = {.stream_id = stream_id, .partition = partition};
    struct kafka_wait_list *list;
    HASH_FIND(hh, table->lists, &key, sizeof(key), list);
    return list;
}

static struct kafka_wait_list *make_list(struct kafka_wait_table *table, uint64_t stream_id,
                                         uint32_t partition) {
    struct kafka_wait_list *list = calloc(1, sizeof(*list));
    if (!list)
        return NULL;
    list->key = (struct kafka_wait_key){.stream_id = stream_id, .partition = partition};
    HASH_ADD(hh, table->lists, key, sizeof(list->key), list);
    return list;
}

int kafka_wait_add(struct kafka_wait_table *table, struct kafka_session *session,
                   uint64_t stream_id, uint32_t partition, uint64_t seen_bytes) {
    struct kafka_wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return DG_ERR_NO_MEMORY;
    wait->list = find_list(table, stream_id, partition);
    if (!wait->list && !(wait->list = make_list(table, stream_id, partition))) {
        free(wait);
        return DG_ERR_NO_MEMORY;
    }
    wait->session = session;
    wait->seen_bytes = seen_bytes;
    wait->next_of_session = session->waits;
    session->waits = wait;
    wait->next = wait->list->first;
    wait->link = &wait->list->first;
    if (wait->next)
        wait->next->link = &wait->next;
    wait->list->first = wait;
    return 0;
}

static void remove_wait(struct kafka_wait_table *table, struct kafka_wait *wait) {
    *wait->link = wait->next;
    if (wait->next)
        wait->next->link = wait->link;
    if (!wait->list->first) {
        HASH_DEL(table->lists, wait->list);
        free(wait->list);
    }
    free(wait);
}

void kafka_wait_clear(struct kafka_wait_table *table, struct kafka_session *session) {
    while (session->waits) {
        struct kafka_wait *wait = session->waits;
        session->waits = wait->next_of_session;
        remove_wait(table, wait);
    }
}

bool kafka_wait_exists(const struct kafka_wait_table *table, uint64_t stream_id,
                       uint32_t partition) {
    return find_list(table, stream_id, partition) != NULL;
}

void kafka_wait_offsets(const struct kafka_wait *wait, struct stream *stream,
                        struct stream_offsets *ret_offsets) {
    const struct kafka_wait_key *key = &wait->list->key;
    stream_offsets(stream, key->stream_id, (uint32_t)key->partition, ret_offsets);
}

bool kafka_wait_count_one(struct kafka_wait *wait, uint64_t appended_bytes) {
    struct kafka_session *session = wait->session;
    session->missing_bytes -= (int64_t)(appended_bytes - wait->seen_bytes);
    wait->seen_bytes = appended_bytes;
    return session->missing_bytes <= 0;
}

void kafka_wait_count(struct kafka_wait_table *table, uint64_t stream_id, uint32_t partition,
                      uint64_t appended_bytes, void (*enough)(struct kafka_session *session)) {
    const struct kafka_wait_list *list = find_list(table, stream_id, partition);
    struct kafka_wait *wait = list ? list->first : NULL;
    while (wait) {
        struct kafka_wait *next = wait->next; /* of another session: each waits here once */
        if (kafka_wait_count_one(wait, appended_bytes))
            enough(wait->session);
        wait = next;
    }
}
