/* The record of a session, as it is read at the start. What can be read is written again the same,
 * and its will makes an event or is refused. */
#include <stdlib.h>

#include "gateway/session/kept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds)
        abort();
}

static void leave_will(const struct session_will *will) {
    static struct event_scratch scratch;
    static struct event_counter counter = {.prefix = "gw1-1-0-", .prefix_size = 8};
    struct will_content content;
    struct device_event event;
    struct stream_record record;
    will_read(will, &content);
    check(will_due_ms(will, 1700000000000, 60) <= 1700000060000);
    if (will_event(&content, NULL, 1700000000000, 1000, &event) == 0 &&
        event_build(&event, &content.source, &counter, &scratch, &record) == 0)
        check(record.value.size == content.payload.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t key[KEPT_KEY_BYTES] = {0, 0, 0, 0, 0, 0, 0, 42};
    static struct kept_bytes bytes;
    int64_t device_key;
    struct session_kept *kept, *again;
    struct slice key_slice = slice_make(key, sizeof(key));
    if (kept_decode(key_slice, slice_make(data, size), &device_key, &kept) < 0)
        return 0;
    check(device_key == 42);
    if (kept->will)
        leave_will(kept->will);
    struct stream_mutation mutation = kept_mutation(kept, kept->will, device_key, &bytes);
    check(kept_decode(mutation.key, mutation.value, &device_key, &again) == 0);
    check(again->epoch == kept->epoch && again->expiry_s == kept->expiry_s);
    check(again->last_packet_id == (uint16_t)(kept->last_packet_id + 0x8000));
    check(!again->will == !kept->will);
    if (kept->will)
        check(slice_equals(will_bytes(again->will), will_bytes(kept->will)));
    kept_free(again);
    kept_free(kept);
    return 0;
}
