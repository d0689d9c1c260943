/* The JSON of presence events; schemas/events/ describes it. */
#include <stdio.h>

#include "gateway/event/event.h"

/* RFC 8259 7: quotation mark, backslash and control characters are escaped; text is UTF-8. */
static void write_string(struct writer *w, struct slice text) {
    static const char hex[] = "0123456789abcdef";
    writer_u8(w, '"');
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (byte == '"' || byte == '\\') {
            writer_u8(w, '\\');
            writer_u8(w, byte);
        } else if (byte < 0x20 || byte == 0x7f) {
            writer_string(w, "\\u00");
            writer_u8(w, (uint8_t)hex[byte >> 4]);
            writer_u8(w, (uint8_t)hex[byte & 15]);
        } else {
            writer_u8(w, byte);
        }
    }
    writer_u8(w, '"');
}

/* key comes with its punctuation. */
static void write_member(struct writer *w, const char *key, struct slice value) {
    writer_string(w, key);
    write_string(w, value);
}

static void write_number(struct writer *w, const char *key, uint64_t value) {
    char text[24];
    int size = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    writer_string(w, key);
    writer_bytes(w, text, (size_t)size);
}

int event_write_presence(const struct event_presence *presence, struct writer *w) {
    char credential[24];
    snprintf(credential, sizeof credential, "%lld", (long long)presence->credential_key);
    writer_string(w, presence->connected ? "{\"connected\":true" : "{\"connected\":false");
    write_member(w, ",\"reason\":", slice_from_string(presence->reason));
    write_number(w, ",\"reason_code\":", presence->reason_code);
    write_member(w, ",\"client_id\":", presence->client_id);
    write_member(w, ",\"protocol\":", slice_from_string(presence->protocol));
    write_member(w, ",\"peer\":", presence->peer);
    write_member(w, ",\"session_id\":", presence->session_id);
    if (presence->previous_session_id.size > 0) {
        write_member(w, ",\"previous_peer\":", presence->previous_peer);
        write_member(w, ",\"previous_session_id\":", presence->previous_session_id);
    }
    if (!presence->connected)
        write_number(w, ",\"duration_ms\":", presence->duration_ms);
    write_member(w, ",\"credential_key\":", slice_from_string(credential));
    writer_u8(w, '}');
    return w->failed ? DG_ERR_LIMIT : 0;
}
