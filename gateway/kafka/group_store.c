/* The layout stands in the header. */
#include "gateway/kafka/group_store.h"

#include <string.h>

#include "common/assert.h"

enum { KEY_FIXED_SIZE = 20, VALUE_FIXED_SIZE = 12 };

struct stream_mutation group_store_encode(const struct group_request *request,
                                          const struct group_offset *offset,
                                          uint8_t key[GROUP_STORE_KEY_MAX],
                                          uint8_t value[GROUP_STORE_VALUE_MAX]) {
    dg_assert(request->group.size <= LIMIT_KAFKA_GROUP_NAME_BYTES);
    dg_assert(offset->metadata.size <= LIMIT_KAFKA_OFFSET_METADATA_BYTES);
    memcpy(key, &request->tenant_key, 8);
    memcpy(key + 8, &offset->stream_id, 8);
    memcpy(key + 16, &offset->partition, 4);
    memcpy(key + KEY_FIXED_SIZE, request->group.data, request->group.size);
    memcpy(value, &offset->offset, 8);
    memcpy(value + 8, &offset->epoch, 4);
    if (offset->metadata.size > 0)
        memcpy(value + VALUE_FIXED_SIZE, offset->metadata.data, offset->metadata.size);
    size_t value_size = VALUE_FIXED_SIZE + offset->metadata.size;
    return (struct stream_mutation){
        .name_space = STREAM_STATE_CONSUMER,
        .is_delete = offset->is_delete,
        .key = slice_make(key, KEY_FIXED_SIZE + request->group.size),
        .value = slice_make(value, offset->is_delete ? 0 : value_size),
    };
}

int group_store_decode(struct slice key, struct slice value, int64_t *ret_tenant_key,
                       struct slice *ret_group, struct group_offset *ret_offset) {
    struct group_offset offset = {0};
    if (key.size <= KEY_FIXED_SIZE || key.size > GROUP_STORE_KEY_MAX ||
        value.size < VALUE_FIXED_SIZE || value.size > GROUP_STORE_VALUE_MAX)
        return DG_ERR_MALFORMED;
    memcpy(ret_tenant_key, key.data, 8);
    memcpy(&offset.stream_id, key.data + 8, 8);
    memcpy(&offset.partition, key.data + 16, 4);
    memcpy(&offset.offset, value.data, 8);
    memcpy(&offset.epoch, value.data + 8, 4);
    offset.metadata = slice_skip(value, VALUE_FIXED_SIZE);
    *ret_group = slice_skip(key, KEY_FIXED_SIZE);
    *ret_offset = offset;
    return 0;
}
