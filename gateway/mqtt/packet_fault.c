#include "gateway/mqtt/packet_fault.h"

#include "common/utf8.h"

struct fault_row {
    int err;
    const char *clause_5;
    const char *clause_3;
    const char *text;
};

static const struct fault_row fault_rows[MQTT_FAULT_COUNT] = {
#define X(name, err, clause_5, clause_3, text) [name] = {err, clause_5, clause_3, text},
    MQTT_FAULTS(X)
#undef X
};

int mqtt_refuse(const struct mqtt_decoder *d, enum mqtt_fault_id id) {
    const struct fault_row *row = &fault_rows[id];
    d->fault->clause = d->version == MQTT_VERSION_3_1_1 ? row->clause_3 : row->clause_5;
    d->fault->text = row->text;
    return row->err;
}

int mqtt_decode_binary(struct mqtt_decoder *d, struct slice *ret_data) {
    uint16_t size = reader_u16(&d->in);
    struct slice data = reader_slice(&d->in, size);
    if (d->in.failed)
        return mqtt_refuse(d, FAULT_TRUNCATED);
    *ret_data = data;
    return 0;
}

int mqtt_decode_text(struct mqtt_decoder *d, struct slice *ret_text) {
    struct slice text;
    int err = mqtt_decode_binary(d, &text);
    if (err < 0)
        return err;
    if (!utf8_is_valid(text.data, text.size)) {
        bool null = memchr(text.data, 0, text.size) != NULL;
        return mqtt_refuse(d, null ? FAULT_UTF8_NULL : FAULT_UTF8);
    }
    *ret_text = text;
    return 0;
}
