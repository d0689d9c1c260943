#include "gateway/dialect/topics.h"

static const enum native_topic_kind kinds[] = {
    [TOPIC_MAP_TELEMETRY] = NATIVE_TELEMETRY,
    [TOPIC_MAP_EVENT] = NATIVE_EVENT,
    [TOPIC_MAP_REPLY] = NATIVE_REPLY,
    [TOPIC_MAP_STATE_REPORTED] = NATIVE_STATE_REPORTED,
    [TOPIC_MAP_VIA] = NATIVE_VIA,
};

static int classify_natively(struct slice topic, struct topic_meaning *ret_meaning) {
    enum native_topic_kind kind;
    struct slice subject;
    int err = native_classify_topic(topic, &kind, &subject);
    if (err < 0)
        return err;
    ret_meaning->kind = kind;
    ret_meaning->topic = topic;
    ret_meaning->subject = subject;
    ret_meaning->device = ret_meaning->id = ret_meaning->status = slice_make(NULL, 0);
    if (kind == NATIVE_VIA)
        native_via_parts(topic, &ret_meaning->device, &ret_meaning->subject);
    if (kind == NATIVE_REPLY)
        native_reply_parts(topic, &ret_meaning->id, &ret_meaning->status);
    return 0;
}

/* Of NATIVE_VIA the subject is the topic behind the name. */
static int classify_one(const struct topic_map *map, struct slice topic, bool is_behind,
                        struct topic_meaning *ret_meaning) {
    struct topic_match match;
    if (!map || !topic_map_find(map, topic, is_behind, &match))
        return classify_natively(topic, ret_meaning);
    *ret_meaning = (struct topic_meaning){
        .kind = kinds[match.kind],
        .topic = topic,
        .subject = match.kind == TOPIC_MAP_VIA ? match.rest : topic,
        .device = match.names[TOPIC_NAME_DEVICE],
        .id = match.names[TOPIC_NAME_ID],
        .status = match.names[TOPIC_NAME_STATUS],
    };
    return 0;
}

/* What is behind the name of a device. */
static int classify_behind(const struct topic_map *map, struct topic_meaning *meaning) {
    struct slice device = meaning->device;
    int err = classify_one(map, meaning->subject, true, meaning);
    if (err == 0 && meaning->kind == NATIVE_VIA)
        err = DG_ERR_NOT_AUTHORIZED;
    meaning->device = device;
    return err;
}

int topic_classify(const struct topic_map *map, struct slice topic,
                   struct topic_meaning *ret_meaning) {
    struct topic_meaning meaning;
    if (!map && topic.size > 0 && topic.data[0] != '$') { /* most of them, on the hot path */
        *ret_meaning =
            (struct topic_meaning){.kind = NATIVE_TELEMETRY, .subject = topic, .topic = topic};
        return 0;
    }
    int err = classify_one(map, topic, false, &meaning);
    if (__builtin_expect(err == 0 && meaning.kind == NATIVE_VIA, 0))
        err = classify_behind(map, &meaning);
    if (err < 0)
        return err;
    *ret_meaning = meaning;
    return 0;
}

int topic_check_filter(const struct topic_map *map, struct slice filter, struct slice *ret_device) {
    enum topic_map_out out;
    struct slice rest, device = slice_make(NULL, 0);
    if (!map || !topic_map_takes_filter(map, filter, &out, &device)) {
        int err = native_check_filter(filter);
        if (err < 0)
            return err;
        native_via_parts(filter, &device, &rest);
    }
    *ret_device = device;
    return 0;
}

bool topic_split_out(struct slice topic, enum topic_map_out *ret_out,
                     struct slice ret_names[TOPIC_NAME_COUNT]) {
    struct slice rest = {0}, *names = ret_names;
    if (native_split_command(topic, &names[TOPIC_NAME_ID], &names[TOPIC_NAME_NAME])) {
        *ret_out = TOPIC_OUT_COMMAND;
        return true;
    }
    native_via_parts(topic, &names[TOPIC_NAME_DEVICE], &rest);
    if (!slice_equals_string(topic, "$dg/state/desired") &&
        !slice_equals_string(rest, "state/desired"))
        return false;
    *ret_out = rest.size > 0 ? TOPIC_OUT_VIA_STATE_DESIRED : TOPIC_OUT_STATE_DESIRED;
    return true;
}
