/* Devices: the partition is fixed when the device is made; enabled false is the off switch. */
#include <stdio.h>

#include "common/device_id.h"
#include "common/limits.h"
#include "common/murmur2.h"
#include "provisioning/resource.h"

static const struct member members[] = {
    {"enabled", MEMBER_BOOLEAN, false, 0, 0, "true"},
    {"group", MEMBER_NAME, false, NAME_OTHER, 0, NULL},
    {"via", MEMBER_NAMES, false, NAME_DEVICE, LIMIT_VIA_GATEWAYS, "{}"},
    {"metadata", MEMBER_METADATA, false, 0, LIMIT_METADATA_BYTES, "{}"},
    {"tags", MEMBER_METADATA, false, 0, LIMIT_TAGS_BYTES, "{}"},
    {"device_id", MEMBER_READ_ONLY},
    {"partition", MEMBER_READ_ONLY},
    {"version", MEMBER_READ_ONLY},
    {"created_at", MEMBER_READ_ONLY},
    {"updated_at", MEMBER_READ_ONLY},
    {"connection", MEMBER_READ_ONLY},
    {NULL},
};

/* Others may be looked at and changed here, but they are made by the dialect that knows them. */
static int check_name(const struct provisioning_call *call, struct slice device, char *ret_detail,
                      size_t detail_size) {
    if (http_request_method(call->exchange) != HTTP_METHOD_PUT || device_id_is_native(device))
        return 0;
    snprintf(
        ret_detail, detail_size,
        "the name of a device in the path must be %s; one of IoT Hub's alphabet is made by PUT "
        "/devices/{id} of its service API",
        name_rule(NAME_DEVICE));
    return DG_ERR_INVALID;
}

/* The hash as a positive number: PostgreSQL takes it modulo the tenant's partition count in the
 * statement that makes the device, so the count cannot change in between. */
static int bind_hash(struct provisioning_call *call, const json_t *object,
                     struct registry_request *request, char *ret_detail, size_t detail_size) {
    struct slice device = http_path_parameter(call->exchange, "device");
    char text[16];
    int err = check_name(call, device, ret_detail, detail_size);
    if (err < 0)
        return err;
    snprintf(text, sizeof(text), "%u",
             (uint32_t)murmur2_kafka(device.data, device.size) & 0x7fffffffu);
    return registry_request_add(request, slice_from_string(text));
}

const struct provisioning_resource device_resource = {
    .noun = "device",
    .path = {{"tenant", NAME_TENANT}, {"device", NAME_HUB_DEVICE}},
    .members = members,
    .list = STATEMENT_DEVICE_LIST,
    .get = STATEMENT_DEVICE_GET,
    .put = STATEMENT_DEVICE_PUT,
    .update = STATEMENT_DEVICE_PUT,
    .remove = STATEMENT_DEVICE_DELETE,
    .filters = QUERY_REGISTERED,
    .bind_extra = bind_hash,
};
