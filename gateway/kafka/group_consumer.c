/*
 * What consumers say to each other through the coordinator, which need not understand it and reads
 * it only to spare them a round, and to know what is still read. All strings have i16 sizes, all
 * counts are i32.
 *
 *   subscription  version i16, topics [name], user data bytes, version 1 and later: owned
 *                 [topic, [partition i32]], then more
 *   assignment    version i16, [topic, [partition i32]], user data bytes
 */
#include "common/reader.h"
#include "gateway/kafka/group_internal.h"

struct slice group_subscription(struct slice metadata) {
    struct reader r = reader_make(metadata.data, metadata.size);
    reader_u16(&r); /* version */
    const uint8_t *start = r.at;
    uint32_t count = reader_u32(&r);
    for (uint32_t i = 0; i < count && !r.failed; i++)
        reader_take(&r, reader_u16(&r));
    return r.failed ? (struct slice){0} : slice_make(start, (size_t)(r.at - start));
}

/* ---- partitions, one after the other ---- */

struct partitions {
    struct reader r;
    uint32_t topics_left, left; /* left: of this topic */
    struct slice topic;
    uint32_t partition;
};

static struct partitions begin(struct reader r) {
    struct partitions p = {.r = r};
    p.topics_left = reader_u32(&p.r);
    return p;
}

/* False at the end, also when it is no list; r.failed then. */
static bool next(struct partitions *p) {
    while (p->left == 0 && p->topics_left > 0 && !p->r.failed) {
        p->topics_left--;
        p->topic = reader_slice(&p->r, reader_u16(&p->r));
        p->left = reader_u32(&p->r);
    }
    if (p->left == 0 || p->r.failed)
        return false;
    p->left--;
    p->partition = reader_u32(&p->r);
    return !p->r.failed;
}

static bool assigns(struct slice assignment, const struct partitions *wanted) {
    struct reader r = reader_make(assignment.data, assignment.size);
    reader_u16(&r);
    struct partitions p = begin(r);
    while (next(&p))
        if (p.partition == wanted->partition && slice_equals(p.topic, wanted->topic))
            return true;
    return false;
}

bool group_has_nothing_to_give_back(struct slice metadata, struct slice assignment) {
    enum { MUCH = 4096 }; /* each is looked up in all */
    struct slice topics = group_subscription(metadata);
    if (!topics.data || metadata.size > MUCH || assignment.size > MUCH)
        return false;
    struct reader r = reader_make(metadata.data, metadata.size);
    if (reader_u16(&r) == 0)
        return true; /* knows nothing of owning */
    reader_take(&r, topics.size);
    uint32_t user_data_size = reader_u32(&r);
    reader_take(&r, user_data_size == UINT32_MAX ? 0 : user_data_size);
    struct partitions owned = begin(r);
    while (next(&owned))
        if (!assigns(assignment, &owned))
            return false;
    return !owned.r.failed;
}
