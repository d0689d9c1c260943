#include "gateway/command/command_event.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/limits.h"

void command_format_id(int64_t key, char ret_text[COMMAND_ID_SIZE]) {
    snprintf(ret_text, COMMAND_ID_SIZE, "c%" PRIu64, (uint64_t)key % 1000000000000000u);
}

int64_t command_parse_id(struct slice text) {
    int64_t key = 0;
    if (text.size < 2 || text.size >= COMMAND_ID_SIZE || text.data[0] != 'c' || text.data[1] == '0')
        return 0;
    for (size_t i = 1; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return 0;
        key = key * 10 + (text.data[i] - '0');
    }
    return key;
}

static json_t *time_or_null(int64_t ms) {
    return ms != 0 ? json_integer(ms) : json_null();
}

static void set_time(json_t *object, const char *name, int64_t ms) {
    char text[CLOCK_RFC3339_SIZE];
    if (ms == 0)
        return;
    clock_format_rfc3339(ms, text);
    json_object_set_new(object, name, json_stringn(text, sizeof(text)));
}

/* NULL: no memory. */
static json_t *base64(struct slice bytes) {
    unsigned char *text = malloc(bytes.size / 3 * 4 + 5);
    if (!text)
        return NULL;
    int size = EVP_EncodeBlock(text, bytes.data, (int)bytes.size);
    json_t *value = json_stringn((const char *)text, (size_t)size);
    free(text);
    return value;
}

static bool is_json(struct slice text) {
    json_t *value =
        json_loadb((const char *)text.data, text.size,
                   JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
    json_decref(value);
    return value != NULL;
}

/* All but the text of a reply that is JSON. */
static void set_reply(json_t *object, const struct command_facts *facts, bool is_text) {
    if (facts->reply_status == 0)
        return;
    json_object_set_new(object, "reply_status", json_integer(facts->reply_status));
    if (facts->reply_type.size > 0)
        json_object_set_new(
            object, "reply_content_type",
            json_stringn((const char *)facts->reply_type.data, facts->reply_type.size));
    if (facts->reply.size > 0 && !is_text)
        json_object_set_new(object, "reply_base64", base64(facts->reply));
}

static char *dump(json_t *object) {
    char *text = json_dumps(object, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(object);
    return text;
}

/* One more member of an object's text, as it was written: numbers stay what they are, and nothing
 * grows. Takes object over. */
static char *add_text(char *object, const char *name, struct slice value) {
    size_t size = object ? strlen(object) : 0;
    char *longer = object ? malloc(size + strlen(name) + value.size + 8) : NULL;
    if (longer) {
        int head = sprintf(longer, "%.*s,\"%s\":", (int)size - 1, object, name);
        memcpy(longer + head, value.data, value.size);
        memcpy(longer + head + value.size, "}", 2);
    }
    free(object);
    return longer;
}

char *command_write_event(const struct command_facts *facts) {
    char id[COMMAND_ID_SIZE];
    command_format_id(facts->key, id);
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:i}", "command_id", id, "name", facts->name, "state",
                  command_states[facts->state].name, "delivery_count", (int)facts->delivery_count);
    if (!object)
        return NULL;
    set_time(object, "created_at", facts->created_ms);
    set_time(object, "expires_at", facts->expires_ms);
    bool is_text = facts->reply_status != 0 && is_json(facts->reply);
    set_reply(object, facts, is_text);
    if (facts->reason)
        json_object_set_new(object, "reason", json_string(facts->reason));
    char *text = dump(object);
    return is_text ? add_text(text, "reply", facts->reply) : text;
}

char *command_write_row(const struct command_facts *facts) {
    json_t *object =
        json_pack("{s:I, s:s, s:b, s:i, s:o, s:o, s:o}", "k", (json_int_t)facts->key, "s",
                  command_states[facts->state].name, "f", facts->finished_ms != 0, "n",
                  (int)facts->delivery_count, "st", time_or_null(facts->sent_ms), "dt",
                  time_or_null(facts->delivered_ms), "ft", time_or_null(facts->finished_ms));
    if (!object)
        return NULL;
    if (facts->reply_status != 0) {
        json_object_set_new(object, "rs", json_integer(facts->reply_status));
        json_object_set_new(
            object, "rt",
            json_stringn((const char *)facts->reply_type.data, facts->reply_type.size));
        json_object_set_new(object, "rp", base64(facts->reply));
    }
    if (facts->reason)
        json_object_set_new(object, "why", json_string(facts->reason));
    return dump(object);
}
