#include "gateway/session/kept.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/reader.h"
#include "common/writer.h"

enum { LAYOUT_PLAIN = 1, LAYOUT_FIELDS };

_Static_assert(KEPT_VALUE_BYTES <= LIMIT_MUTATION_VALUE_BYTES, "a record has room in the state");

/* A session of before the start goes on far from the packet identifiers that it may have used since
 * its record was written: the device may know one of them as a QoS 2 message not yet released. */
enum { PACKET_ID_LEAP = 0x8000 };

struct session_kept *kept_new(uint64_t epoch) {
    struct session_kept *kept = calloc(1, sizeof(*kept));
    if (kept)
        kept->epoch = epoch;
    return kept;
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
    free(kept->will);
    outbox_free(&kept->outbox, DG_ERR_CLOSED);
    free(kept);
}

bool kept_is_over(const struct session_kept *kept, int64_t wall_ms) {
    return kept->disconnected_ms != 0 &&
           wall_ms - kept->disconnected_ms >= (int64_t)kept->expiry_s * 1000;
}

struct session_subscription *kept_subscribe(struct session_kept *kept, struct slice filter,
                                            uint8_t qos) {
    struct session_subscription *subscription = malloc(sizeof(*subscription) + filter.size);
    if (!subscription)
        return NULL;
    *subscription = (struct session_subscription){
        .next = kept->subscriptions, .qos = qos, .filter_size = (uint16_t)filter.size};
    if (filter.size > 0)
        memcpy(subscription->filter, filter.data, filter.size);
    kept->subscriptions = subscription;
    return subscription;
}

void kept_drop_removed(struct session_kept *kept) {
    struct session_subscription **at = &kept->subscriptions;
    while (*at) {
        struct session_subscription *first = *at;
        if (first->is_removed) {
            *at = first->next;
            free(first);
        } else {
            at = &first->next;
        }
    }
}

/* ---- on the disk ---- */

static void write_subscriptions(struct writer *w, const struct session_kept *kept) {
    uint8_t count = 0;
    uint8_t *at = writer_reserve(w, 1);
    for (const struct session_subscription *s = kept->subscriptions; s; s = s->next) {
        if (s->is_removed)
            continue;
        writer_u8(w, s->qos);
        writer_u16(w, s->filter_size);
        writer_bytes(w, s->filter, s->filter_size);
        count++;
    }
    if (at)
        *at = count;
}

static void write_will(struct writer *w, const struct session_will *will) {
    if (!will)
        return;
    writer_u8(w, KEPT_FIELD_WILL);
    writer_u16(w, will->size_bytes);
    writer_slice(w, will_bytes(will));
}

static void write_last_packet_id(struct writer *w, const struct session_kept *kept) {
    if (kept->last_packet_id == 0)
        return;
    writer_u8(w, KEPT_FIELD_LAST_PACKET_ID);
    writer_u16(w, sizeof(kept->last_packet_id));
    writer_u16(w, kept->last_packet_id);
}

static void write_subscription_ids(struct writer *w, const struct session_kept *kept) {
    uint16_t size = 0;
    bool any = false;
    for (const struct session_subscription *s = kept->subscriptions; s; s = s->next) {
        size += s->is_removed ? 0 : sizeof(s->id);
        any = any || (!s->is_removed && s->id != 0);
    }
    if (!any)
        return;
    writer_u8(w, KEPT_FIELD_SUBSCRIPTION_IDS);
    writer_u16(w, size);
    for (const struct session_subscription *s = kept->subscriptions; s; s = s->next)
        if (!s->is_removed)
            writer_u32(w, s->id);
}

/* What a session without such things does not have is not written: its record is one that an older
 * release can read. */
static void write_fields(struct writer *w, const struct session_kept *kept,
                         const struct session_will *will) {
    write_will(w, will);
    write_last_packet_id(w, kept);
    write_subscription_ids(w, kept);
}

struct stream_mutation kept_mutation(const struct session_kept *kept,
                                     const struct session_will *will, int64_t device_key,
                                     struct kept_bytes *bytes) {
    struct writer key = writer_make(bytes->key, sizeof(bytes->key));
    struct writer value = writer_make(bytes->value, sizeof(bytes->value));
    writer_u64(&key, (uint64_t)device_key);
    if (kept) {
        uint8_t *layout = writer_reserve(&value, 1);
        writer_u64(&value, kept->epoch);
        writer_u32(&value, (uint32_t)kept->stream_epoch);
        writer_u64(&value, (uint64_t)kept->disconnected_ms);
        writer_u32(&value, kept->expiry_s);
        write_subscriptions(&value, kept);
        size_t plain_size = writer_size(&value);
        write_fields(&value, kept, will);
        *layout = writer_size(&value) > plain_size ? LAYOUT_FIELDS : LAYOUT_PLAIN;
    }
    dg_assert(!key.failed && !value.failed);
    return (struct stream_mutation){.name_space = STREAM_STATE_SESSION,
                                    .is_delete = !kept,
                                    .key = slice_make(bytes->key, writer_size(&key)),
                                    .value = slice_make(bytes->value, writer_size(&value))};
}

struct stream_mutation kept_identity_mutation(int64_t device_key, uint64_t epoch,
                                              uint16_t packet_id, bool is_delete,
                                              uint8_t key[KEPT_IDENTITY_KEY_BYTES]) {
    static const uint8_t offset[sizeof(int64_t)];
    const uint64_t numbers[] = {__builtin_bswap64((uint64_t)device_key), __builtin_bswap64(epoch)};
    const uint16_t last = __builtin_bswap16(packet_id);
    _Static_assert(sizeof(numbers) + sizeof(last) == KEPT_IDENTITY_KEY_BYTES, "the whole key");
    memcpy(key, numbers, sizeof(numbers));
    memcpy(key + sizeof(numbers), &last, sizeof(last));
    return (struct stream_mutation){.name_space = STREAM_STATE_QOS2,
                                    .is_delete = is_delete,
                                    .takes_offset = !is_delete,
                                    .key = slice_make(key, KEPT_IDENTITY_KEY_BYTES),
                                    .value = slice_make(offset, is_delete ? 0 : sizeof(offset))};
}

static int read_subscriptions(struct reader *r, struct session_kept *kept) {
    unsigned count = reader_u8(r);
    if (count > LIMIT_MQTT_SUBSCRIPTIONS)
        return DG_ERR_MALFORMED;
    for (unsigned i = 0; i < count && !r->failed; i++) {
        uint8_t qos = reader_u8(r);
        struct slice filter = reader_slice(r, reader_u16(r));
        if (filter.size > LIMIT_MQTT_TOPIC_BYTES)
            return DG_ERR_MALFORMED;
        if (!r->failed && !kept_subscribe(kept, filter, qos))
            return DG_ERR_NO_MEMORY;
    }
    return r->failed ? DG_ERR_MALFORMED : 0;
}

static int read_last_packet_id(struct session_kept *kept, struct slice bytes) {
    struct reader r = reader_make(bytes.data, bytes.size);
    kept->last_packet_id = reader_u16(&r);
    return r.failed || reader_left(&r) > 0 ? DG_ERR_MALFORMED : 0;
}

/* From the end: each subscription that was read became the first of the list. */
static int read_subscription_ids(struct session_kept *kept, struct slice bytes) {
    size_t left = bytes.size;
    for (struct session_subscription *s = kept->subscriptions; s; s = s->next) {
        if (left < sizeof(s->id))
            return DG_ERR_MALFORMED;
        left -= sizeof(s->id);
        struct reader r = reader_make(bytes.data + left, sizeof(s->id));
        s->id = reader_u32(&r);
    }
    return left > 0 ? DG_ERR_MALFORMED : 0;
}

static int read_field(struct session_kept *kept, uint8_t tag, struct slice bytes) {
    switch (tag) {
    case KEPT_FIELD_WILL:
        return kept->will ? DG_ERR_MALFORMED : will_decode(bytes, &kept->will);
    case KEPT_FIELD_LAST_PACKET_ID:
        return read_last_packet_id(kept, bytes);
    case KEPT_FIELD_SUBSCRIPTION_IDS:
        return read_subscription_ids(kept, bytes);
    default:
        return 0; /* of a later release, which does without it too */
    }
}

static int read_fields(struct reader *r, struct session_kept *kept) {
    int err = 0;
    while (err == 0 && reader_left(r) > 0) {
        uint8_t tag = reader_u8(r);
        struct slice bytes = reader_slice(r, reader_u16(r));
        err = r->failed ? DG_ERR_MALFORMED : read_field(kept, tag, bytes);
    }
    return err;
}

int kept_decode(struct slice key, struct slice value, int64_t *ret_device_key,
                struct session_kept **ret_kept) {
    struct reader k = reader_make(key.data, key.size), r = reader_make(value.data, value.size);
    int64_t device_key = (int64_t)reader_u64(&k);
    uint8_t layout = reader_u8(&r);
    bool is_known = layout == LAYOUT_PLAIN || layout == LAYOUT_FIELDS;
    if (k.failed || reader_left(&k) > 0 || device_key == 0 || !is_known)
        return DG_ERR_MALFORMED;
    struct session_kept *kept = kept_new(reader_u64(&r));
    if (!kept)
        return DG_ERR_NO_MEMORY;
    kept->stream_epoch = (int32_t)reader_u32(&r);
    kept->disconnected_ms = (int64_t)reader_u64(&r);
    kept->expiry_s = reader_u32(&r);
    int err = read_subscriptions(&r, kept);
    if (err == 0 && layout == LAYOUT_FIELDS)
        err = read_fields(&r, kept);
    if (err == 0 && reader_left(&r) > 0)
        err = DG_ERR_MALFORMED;
    if (err < 0) {
        kept_free(kept);
        return err;
    }
    kept->last_packet_id = (uint16_t)(kept->last_packet_id + PACKET_ID_LEAP);
    *ret_device_key = device_key;
    *ret_kept = kept;
    return 0;
}

int kept_identity_decode(struct slice key, int64_t *ret_device_key, uint64_t *ret_epoch,
                         uint16_t *ret_packet_id) {
    struct reader r = reader_make(key.data, key.size);
    int64_t device_key = (int64_t)reader_u64(&r);
    uint64_t epoch = reader_u64(&r);
    uint16_t packet_id = reader_u16(&r);
    if (r.failed || reader_left(&r) > 0 || device_key == 0 || packet_id == 0)
        return DG_ERR_MALFORMED;
    *ret_device_key = device_key;
    *ret_epoch = epoch;
    *ret_packet_id = packet_id;
    return 0;
}
