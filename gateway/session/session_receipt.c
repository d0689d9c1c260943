/* Receipts: who asked for them at CONNECT learns with PUBACK or PUBREC where its event is. */
#include <stdio.h>

#include "gateway/session/session_internal.h"

static const char asked_name[] = "dg-receipts";
static const char partition_name[] = "dg-partition";
static const char offset_name[] = "dg-offset";

bool session_wants_receipts(const struct mqtt_properties *properties) {
    struct slice cursor = properties->raw, key, value;
    while (mqtt_user_property_next(&cursor, &key, &value))
        if (slice_equals_string(key, asked_name))
            return slice_equals_string(value, "1");
    return false;
}

static void write_number(struct writer *w, const char *name, uint64_t value) {
    char digits[24];
    int size = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    mqtt_write_user_property(w, slice_from_string(name), slice_make(digits, (size_t)size));
}

bool session_send_receipt(struct session *session, enum mqtt_type type, uint16_t packet_id,
                          int64_t offset) {
    uint8_t section[64], bytes[80];
    struct writer properties = writer_make(section, sizeof(section));
    struct writer w = writer_make(bytes, sizeof(bytes));
    if (offset < 0)
        return false;
    write_number(&properties, partition_name, session->partition);
    write_number(&properties, offset_name, (uint64_t)offset);
    mqtt_write_ack_properties(&w, type, packet_id, 0,
                              slice_make(section, writer_size(&properties)));
    w.failed |= properties.failed;
    return session_send(session, &w);
}

int64_t session_identity_offset(struct session *session, uint16_t packet_id) {
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    if (!(session->flags & SESSION_RECEIPTS) || !(session->flags & SESSION_DURABLE))
        return -1;
    struct stream_mutation identity =
        kept_identity_mutation(session->device_key, session->kept->epoch, packet_id, true, key);
    return session->shared->effects->find_offset(session, identity.key);
}
