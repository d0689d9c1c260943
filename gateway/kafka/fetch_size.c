#include "gateway/kafka/fetch_size.h"

#include "common/limits.h"

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
    return value < low ? low : value > high ? high : value;
}

struct kafka_budget kafka_budget_make(int32_t min_bytes, int32_t max_bytes) {
    int64_t limit = clamp(max_bytes, 0, LIMIT_KAFKA_FETCH_BYTES);
    return (struct kafka_budget){.limit_bytes = limit, .min_bytes = clamp(min_bytes, 0, limit)};
}

uint32_t kafka_budget_room(const struct kafka_budget *budget, int64_t partition_max_bytes) {
    int64_t least = budget->taken_bytes == 0;
    int64_t left = budget->limit_bytes - budget->taken_bytes;
    int64_t room = partition_max_bytes < left ? partition_max_bytes : left;
    return (uint32_t)clamp(room, least, LIMIT_KAFKA_FETCH_BYTES);
}

bool kafka_budget_take(struct kafka_budget *budget, uint32_t room, uint32_t size_bytes) {
    if (budget->taken_bytes > 0 && size_bytes > room)
        return false;
    budget->taken_bytes += size_bytes;
    return true;
}

bool kafka_budget_is_met(const struct kafka_budget *budget) {
    return budget->taken_bytes >= budget->min_bytes;
}
