/* What is listed and refused: Produce, because librdkafka will not read without it in the list. The
 * error is final for clients. */
#include "gateway/kafka/session.h"

static const char produce_text[] = "this endpoint is for reading; publish over MQTT";

int kafka_handle_produce(struct kafka_call *call, const void *request) {
    const struct kafka_produce_request *r = request;
    if (r->acks == 0)
        return DG_ERR_NOT_AUTHORIZED; /* no answer can be sent: closing is the only one */
    struct kafka_produce_response response = {0};
    if (!kafka_take_items(call, &response.topics, r->topics.count, sizeof(struct kafka_topic)))
        return DG_ERR_LIMIT;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *asked = (const struct kafka_topic *)r->topics.items + t;
        struct kafka_topic *topic = (struct kafka_topic *)response.topics.items + t;
        topic->name = asked->name;
        if (!kafka_take_items(call, &topic->partitions, asked->partitions.count,
                              sizeof(struct kafka_produce_answer)))
            return DG_ERR_LIMIT;
        const struct kafka_produce_partition *partitions = asked->partitions.items;
        struct kafka_produce_answer *answers = topic->partitions.items;
        for (uint32_t p = 0; p < asked->partitions.count; p++)
            answers[p] = (struct kafka_produce_answer){.index = partitions[p].index,
                                                       .error = KAFKA_ERROR_NOT_AUTHORIZED,
                                                       .base_offset = -1,
                                                       .append_time = -1,
                                                       .log_start = -1,
                                                       .message = slice_from_string(produce_text)};
    }
    return kafka_answer(call, &response);
}
