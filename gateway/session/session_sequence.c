/* Producer sequences of MQTT (producers.h): how a publish carries one, and what becomes of it. In
 * MQTT 5 a user property says it; a topic suffix in both versions: what stands first in a topic
 * goes on deciding what the topic is. */
#include "common/assert.h"
#include "gateway/session/session_internal.h"

static const char property_name[] = "dg-seq";
static const char suffix_level[] = "/$seq";

/* The last level when the one before it is "$seq". */
static bool find_suffix(struct slice topic, size_t *ret_topic_size, struct slice *ret_text) {
    const size_t level_size = sizeof(suffix_level) - 1;
    const uint8_t *slash = topic.size > 0 ? memrchr(topic.data, '/', topic.size) : NULL;
    if (!slash || (size_t)(slash - topic.data) < level_size ||
        memcmp(slash - level_size, suffix_level, level_size) != 0)
        return false;
    *ret_topic_size = (size_t)(slash - topic.data) - level_size;
    *ret_text = slice_skip(topic, (size_t)(slash - topic.data) + 1);
    return true;
}

/* Returns how many there are; ret_text: the last. */
static unsigned find_property(const struct mqtt_properties *properties, struct slice *ret_text) {
    struct slice cursor = properties->raw, key, value;
    unsigned found = 0;
    while (mqtt_user_property_next(&cursor, &key, &value))
        if (slice_equals_string(key, property_name)) {
            *ret_text = value;
            found++;
        }
    return found;
}

int session_sequence_take(struct mqtt_publish *publish, struct producer_sequence *ret_sequence) {
    struct slice text;
    unsigned found = 0;
    size_t topic_size;
    if (publish->properties.user_count > 0)
        found = find_property(&publish->properties, &text);
    if (find_suffix(publish->topic, &topic_size, &text)) {
        publish->topic.size = topic_size;
        found++;
    }
    if (found == 0) {
        ret_sequence->sequence = 0;
        return 0;
    }
    return found == 1 ? producer_sequence_parse(text, ret_sequence) : DG_ERR_SEQUENCE;
}

int session_sequence_prepare(struct session *session, const struct producer_sequence *sequence,
                             struct producers_change *change) {
    const struct session_shared *shared = session->shared;
    const struct producers_context context = {.device_key = session->device_key,
                                              .stream_epoch = shared->stream_epoch,
                                              .wall_ms = shared->wall_ms};
    return producers_prepare(&session->producers, sequence, &context, change);
}

uint64_t session_sequence_tag(const struct producers_change *change) {
    return (uint64_t)(change->ticket + 1) << SESSION_TAG_SEQUENCE_BITS;
}

void session_sequence_settle(struct session *session, uint64_t tag, int err) {
    unsigned ticket = (unsigned)(tag >> SESSION_TAG_SEQUENCE_BITS) & SESSION_TAG_TICKET_MASK;
    if (ticket != 0)
        producers_settle(&session->producers, ticket - 1, err);
}
