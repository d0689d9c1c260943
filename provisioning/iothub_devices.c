/*
 * The registry of devices as Azure IoT Hub's service API has it. Every change, of one device or of
 * many, is made in the same way: what is there is read, what becomes of it is decided here, and it
 * is written if it still is as it was read.
 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/murmur2.h"
#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "gateway/session/inquiry.h"
#include "provisioning/iothub_device.h"
#include "provisioning/iothub_request.h"
#include "provisioning/iothub_route.h"
#include "provisioning/iothub_show.h"
#include "provisioning/json.h"

enum { ATTEMPTS_MAX = 5 };

/* SQL_IOTHUB_DEVICE */
enum device_column {
    COLUMN_ID,
    COLUMN_VERSION,
    COLUMN_DEVICE_KEY,
    COLUMN_ENABLED,
    COLUMN_REASON,
    COLUMN_STATUS_MS,
    COLUMN_COMMANDS,
    COLUMN_AUTHENTICATION,
    COLUMN_SECRET,
    COLUMN_MASTER,
    COLUMN_SAS_NAME,
    COLUMN_THUMBPRINT,
    COLUMN_SECOND_THUMBPRINT,
    COLUMN_OTHERS,
};
/* IOTHUB_DEVICES_WRITE */
enum written_column { COLUMN_WRITTEN_ID, COLUMN_OUTCOME };

struct change {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    const struct iothub_mode *mode;
    struct etag_condition condition;
    struct iothub_wish asked;
    int err; /* why it was not made */
};

struct changes {
    bool is_bulk;
    unsigned count;
    struct change changes[];
};

static void changes_free(void *context) {
    struct changes *changes = context;
    OPENSSL_cleanse(changes, sizeof(*changes) + changes->count * sizeof(changes->changes[0]));
    free(changes);
}

static struct changes *changes_new(struct provisioning_call *call, unsigned count) {
    struct changes *changes = calloc(1, sizeof(*changes) + count * sizeof(changes->changes[0]));
    if (!changes) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return NULL;
    }
    changes->count = count;
    call->state = changes;
    call->free_state = changes_free;
    return changes;
}

/* ---- showing ---- */

/* False when there are none, or who sealed them is somebody else. */
static bool open_keys(const struct provisioning_call *call, const struct registry_request *result,
                      unsigned row, struct credential_keys *ret_keys) {
    const char *hex = registry_value(result, row, COLUMN_SECRET);
    const char *master_id = registry_value(result, row, COLUMN_MASTER);
    const struct credential_master *master = registry_master(call->registry);
    uint8_t sealed[CREDENTIAL_SEALED_MAX];
    size_t size = hex ? strlen(hex) / 2 : 0;
    if (size == 0 || size > sizeof(sealed) || !master_id ||
        strcmp(master_id, credential_master_id(master)) != 0)
        return false;
    for (size_t i = 0; i < size; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &sealed[i]) != 1)
            return false;
    return credential_open_keys(master, slice_make(sealed, size), ret_keys) == 0;
}

static json_t *describe_key(const struct credential_keys *keys, unsigned index) {
    char text[(CREDENTIAL_SYMMETRIC_MAX + 2) / 3 * 4 + 1];
    struct slice key = credential_key(keys, index);
    if (key.size == 0)
        return json_null();
    credential_base64_encode(key.data, key.size, text);
    json_t *value = json_string(text);
    OPENSSL_cleanse(text, sizeof(text));
    return value;
}

static json_t *describe_authentication(const struct provisioning_call *call,
                                       const struct registry_request *result, unsigned row) {
    struct credential_keys keys = {.keys[0].size_bytes = 0};
    const char *type = registry_value(result, row, COLUMN_AUTHENTICATION);
    if (strcmp(type, iothub_authentication_names[IOTHUB_AUTHENTICATION_SAS]) == 0)
        (void)open_keys(call, result, row, &keys);
    json_t *described = json_pack(
        "{s:{s:o, s:o}, s:{s:s?, s:s?}, s:s}", "symmetricKey", "primaryKey", describe_key(&keys, 0),
        "secondaryKey", describe_key(&keys, 1), "x509Thumbprint", "primaryThumbprint",
        registry_value(result, row, COLUMN_THUMBPRINT), "secondaryThumbprint",
        registry_value(result, row, COLUMN_SECOND_THUMBPRINT), "type", type);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return described;
}

/* A number is never given twice, so it is the generation, too. */
static json_t *describe_generation(int64_t device_key) {
    char text[24];
    snprintf(text, sizeof(text), "%018lld", (long long)device_key);
    return json_string(text);
}

static json_t *describe_device(const struct provisioning_call *call,
                               const struct registry_request *result, unsigned row) {
    char etag[IOTHUB_ETAG_SIZE];
    iothub_format_etag(iothub_number(result, row, COLUMN_VERSION), etag);
    bool is_enabled = registry_value(result, row, COLUMN_ENABLED)[0] == 't';
    return json_pack("{s:s, s:o, s:s, s:n, s:s, s:s?, s:s, s:o, s:n, s:I, s:o, s:{s:b}, s:[]}",
                     "deviceId", registry_value(result, row, COLUMN_ID), "generationId",
                     describe_generation(iothub_number(result, row, COLUMN_DEVICE_KEY)), "etag",
                     etag, "connectionState", "status", is_enabled ? "enabled" : "disabled",
                     "statusReason", registry_value(result, row, COLUMN_REASON),
                     "connectionStateUpdatedTime", "", "statusUpdatedTime",
                     iothub_time(iothub_number(result, row, COLUMN_STATUS_MS)), "lastActivityTime",
                     "cloudToDeviceMessageCount",
                     (json_int_t)iothub_number(result, row, COLUMN_COMMANDS), "authentication",
                     describe_authentication(call, result, row), "capabilities", "iotEdge", false,
                     "parentScopes");
}

/* What was read, as the API has it; NULL after answering. */
static struct iothub_shown *describe_all(struct provisioning_call *call,
                                         const struct registry_request *result) {
    struct iothub_shown *shown = iothub_shown_new(result->row_count);
    int err = shown ? 0 : DG_ERR_NO_MEMORY;
    for (unsigned row = 0; err == 0 && row < result->row_count; row++)
        err = iothub_shown_add(shown, describe_device(call, result, row),
                               iothub_number(result, row, COLUMN_DEVICE_KEY));
    if (err == 0)
        return shown;
    iothub_shown_free(shown);
    call_fail(call, err, NULL);
    return NULL;
}

/* ---- one device ---- */

static void answer_missing(struct provisioning_call *call, const char *id) {
    iothub_refuse(call->exchange, IOTHUB_DeviceNotFound, "device '%s' is not registered", id);
}

static void answer_one(struct provisioning_call *call, struct iothub_shown *shown) {
    json_t *device = json_incref(json_array_get(shown->objects, 0));
    const char *etag = json_string_value(json_object_get(device, "etag"));
    iothub_answer(call->exchange, 200, device, iothub_parse_etag(slice_from_string(etag)));
}

static void then_show_one(struct provisioning_call *call, struct registry_request *result) {
    if (result->row_count == 0) {
        iothub_refuse(call->exchange, IOTHUB_DeviceNotFound, "the device is not registered");
        return;
    }
    struct iothub_shown *shown = describe_all(call, result);
    if (shown)
        iothub_show(call, shown, answer_one);
}

static void show_one(struct provisioning_call *call, const char *id) {
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_DEVICES_GET);
    iothub_request_add_json(&request, json_pack("[s]", id));
    iothub_execute(call, request, then_show_one);
}

void iothub_device_get(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    if (iothub_read_path(call, id))
        show_one(call, id);
}

/* ---- changes: answers ---- */

static json_t *describe_error(const struct change *change) {
    const struct iothub_error_row *row = &iothub_errors[iothub_error_of(change->err)];
    char text[128];
    snprintf(text, sizeof(text), "ErrorCode:%s;%s", row->name, dg_err_text(change->err));
    return json_pack("{s:s, s:i, s:s}", "deviceId", change->id, "errorCode", (int)row->code,
                     "errorStatus", text);
}

static void answer_bulk(struct provisioning_call *call, const struct changes *changes) {
    json_t *errors = json_array();
    bool failed = false;
    for (unsigned i = 0; i < changes->count; i++)
        if (changes->changes[i].err < 0) {
            errors = json_append(errors, describe_error(&changes->changes[i]));
            failed = true;
        }
    json_t *body =
        json_pack("{s:b, s:o, s:[]}", "isSuccessful", !failed, "errors", errors, "warnings");
    iothub_answer(call->exchange, failed ? 400 : 200, body, 0);
}

static void answer_changes(struct provisioning_call *call) {
    const struct changes *changes = call->state;
    const struct change *change = &changes->changes[0];
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    if (changes->is_bulk) {
        answer_bulk(call, changes);
        return;
    }
    memcpy(id, change->id, sizeof(id));
    if (change->err == DG_ERR_NOT_FOUND)
        answer_missing(call, id);
    else if (change->err == DG_ERR_INVALID)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "a device has at most %d credentials",
                      LIMIT_CREDENTIALS_PER_DEVICE);
    else if (change->err < 0)
        call_problem(call, change->err, "device '%s', %s", id, dg_err_text(change->err));
    else if (change->mode->removes)
        iothub_answer(call->exchange, 204, NULL, 0);
    else
        show_one(call, id);
}

/* ---- changes: deciding ---- */

static int find_row(const struct registry_request *result, unsigned column, const char *id) {
    for (unsigned row = 0; row < result->row_count; row++)
        if (strcmp(registry_value(result, row, column), id) == 0)
            return (int)row;
    return -1;
}

/* False: there are keys that nobody here can read. */
static bool read_device(const struct provisioning_call *call, const struct registry_request *result,
                        int row, struct iothub_device *ret_device) {
    *ret_device = (struct iothub_device){.version = 0};
    if (row < 0)
        return true;
    ret_device->version = iothub_number(result, (unsigned)row, COLUMN_VERSION);
    ret_device->is_enabled = registry_value(result, (unsigned)row, COLUMN_ENABLED)[0] == 't';
    ret_device->others = (unsigned)iothub_number(result, (unsigned)row, COLUMN_OTHERS);
    bool has_keys = registry_value(result, (unsigned)row, COLUMN_SECRET) != NULL;
    return !has_keys || open_keys(call, result, (unsigned)row, &ret_device->keys);
}

static json_t *print_secret(const struct provisioning_call *call,
                            const struct credential_keys *keys) {
    uint8_t sealed[CREDENTIAL_SEALED_MAX];
    char hex[2 * CREDENTIAL_SEALED_MAX + 1];
    size_t size;
    if (credential_seal_keys(registry_master(call->registry), keys, sealed, &size) < 0)
        return NULL;
    for (size_t i = 0; i < size; i++)
        snprintf(hex + 2 * i, 3, "%02x", sealed[i]);
    return json_string(hex);
}

static const char *or_null(const char *text) {
    return text[0] ? text : NULL;
}

/* One element of IOTHUB_DEVICES_WRITE's list. */
static json_t *print_change(const struct provisioning_call *call, const struct change *change,
                            const struct iothub_wish *wish, const struct iothub_device *device,
                            bool has_new_keys, const char *sas_name) {
    uint32_t hash = (uint32_t)murmur2_kafka((const uint8_t *)change->id, strlen(change->id));
    return json_pack("{s:s, s:I, s:b, s:I, s:b, s:s?, s:s?, s:s, s:o, s:s?, s:s?}", "id",
                     change->id, "expected", (json_int_t)device->version, "removes",
                     change->mode->removes, "hash", (json_int_t)(hash & 0x7fffffffu), "enabled",
                     wish->status == IOTHUB_STATUS_ENABLED, "reason", wish->reason,
                     "authentication", iothub_authentication_names[wish->authentication], "sas",
                     sas_name ? sas_name : "iothub", "secret",
                     has_new_keys ? print_secret(call, &wish->keys) : json_null(), "first",
                     or_null(wish->thumbprints[0]), "second", or_null(wish->thumbprints[1]));
}

/* Appends what is to be written, or says why nothing is. */
static int decide(const struct provisioning_call *call, struct change *change,
                  const struct registry_request *result, json_t *writes) {
    int row = find_row(result, COLUMN_ID, change->id);
    struct iothub_wish wish = change->asked;
    struct iothub_device device;
    bool has_new_keys = false;
    bool is_readable = read_device(call, result, row, &device);
    int err = iothub_mode_permits(change->mode, &device, &change->condition);
    bool needs_keys = !change->mode->removes && wish.authentication == IOTHUB_AUTHENTICATION_SAS;
    if (err == 0 && needs_keys && !is_readable)
        err = DG_ERR_CORRUPT;
    if (err == 0 && !change->mode->removes)
        err = iothub_wish_complete(&wish, &device, &has_new_keys);
    const char *sas_name = row < 0 ? NULL : registry_value(result, (unsigned)row, COLUMN_SAS_NAME);
    if (err == 0 && json_array_append_new(writes, print_change(call, change, &wish, &device,
                                                               has_new_keys, sas_name)) != 0)
        err = DG_ERR_NO_MEMORY;
    OPENSSL_cleanse(&wish, sizeof(wish));
    OPENSSL_cleanse(&device, sizeof(device));
    return err;
}

/* ---- changes: reading and writing ---- */

static void read_for_changes(struct provisioning_call *call);

/* Somebody else was faster: begin again, unless the client named the version. */
static bool is_to_be_tried_again(struct provisioning_call *call, const struct change *change) {
    const struct changes *changes = call->state;
    return !changes->is_bulk && !(change->mode->matches && change->condition.versions[0] > 0) &&
           ++call->attempts < ATTEMPTS_MAX;
}

static void then_written(struct provisioning_call *call, struct registry_request *result) {
    struct changes *changes = call->state;
    for (unsigned i = 0; i < changes->count; i++) {
        struct change *change = &changes->changes[i];
        int row = find_row(result, COLUMN_WRITTEN_ID, change->id);
        if (change->err < 0 || row < 0 ||
            strcmp(registry_value(result, (unsigned)row, COLUMN_OUTCOME), "precondition") != 0)
            continue;
        if (is_to_be_tried_again(call, change)) {
            read_for_changes(call);
            return;
        }
        change->err = DG_ERR_PRECONDITION;
    }
    answer_changes(call);
}

static void then_decide(struct provisioning_call *call, struct registry_request *result) {
    struct changes *changes = call->state;
    json_t *writes = json_array();
    for (unsigned i = 0; writes && i < changes->count; i++)
        if (changes->changes[i].err == 0)
            changes->changes[i].err = decide(call, &changes->changes[i], result, writes);
    if (json_array_size(writes) == 0) {
        json_decref(writes);
        answer_changes(call);
        return;
    }
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_DEVICES_WRITE);
    iothub_request_add_json(&request, writes);
    iothub_request_add(&request, credential_master_id(registry_master(call->registry)));
    iothub_execute(call, request, then_written);
}

static void read_for_changes(struct provisioning_call *call) {
    const struct changes *changes = call->state;
    json_t *ids = json_array();
    for (unsigned i = 0; i < changes->count; i++)
        if (changes->changes[i].err == 0)
            ids = json_append(ids, json_string(changes->changes[i].id));
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_DEVICES_GET);
    iothub_request_add_json(&request, ids);
    iothub_execute(call, request, then_decide);
}

/* ---- changes: what the client sent ---- */

/* Without If-Match a device is made, with it one is changed. */
void iothub_device_put(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1], detail[CALL_DETAIL_SIZE] = "";
    if (!iothub_read_path(call, id) || !iothub_read_body(call, JSON_OBJECT))
        return;
    struct changes *changes = changes_new(call, 1);
    if (!changes)
        return;
    struct change *change = &changes->changes[0];
    memcpy(change->id, id, sizeof(id));
    bool is_update = iothub_read_if_match(call->exchange, &change->condition);
    change->mode = &iothub_modes[is_update ? IOTHUB_MODE_UPDATE_MATCH : IOTHUB_MODE_CREATE];
    if (iothub_wish_parse(call->body, "deviceId", &change->asked, detail, sizeof(detail)) < 0)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "%s", detail);
    else if (change->asked.id && strcmp(change->asked.id, id) != 0)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "deviceId is not that of the path");
    else
        read_for_changes(call);
}

void iothub_device_delete(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    struct changes *changes = iothub_read_path(call, id) ? changes_new(call, 1) : NULL;
    if (!changes)
        return;
    struct change *change = &changes->changes[0];
    memcpy(change->id, id, sizeof(id));
    change->mode = &iothub_modes[IOTHUB_MODE_DELETE_MATCH];
    if (!iothub_read_if_match(call->exchange, &change->condition))
        change->condition = etag_condition_of(ETAG_EXISTS);
    read_for_changes(call);
}

/* ---- bulk ---- */

/* What would otherwise be done to the device itself, or be forgotten in silence; NULL: nothing. */
static const char *find_unserved(const json_t *object) {
    const json_t *module = json_object_get(object, "moduleId");
    if (module && !json_is_null(module))
        return "modules are not served";
    return json_object_size(json_object_get(object, "tags")) > 0 ||
                   json_object_size(json_object_get(object, "properties")) > 0
               ? "tags and properties are changed one by one, by PATCH /twins/{device}"
               : NULL;
}

/* Without an entity tag, what has to match one matches none. */
static struct etag_condition read_bulk_condition(const json_t *object,
                                                 const struct iothub_mode *mode) {
    const char *etag = json_string_value(json_object_get(object, "eTag"));
    if (!etag) /* as a device that was read has it */
        etag = json_string_value(json_object_get(object, "etag"));
    bool is_any = etag ? strcmp(etag, "*") == 0 : !mode->matches;
    return etag_condition_of(is_any ? ETAG_EXISTS
                                    : iothub_parse_etag(slice_from_string(etag ? etag : "")));
}

/* False with a sentence. */
static bool read_bulk_change(const json_t *object, struct change *change, char *ret_detail,
                             size_t detail_size) {
    const char *mode = json_string_value(json_object_get(object, "importMode"));
    const char *unserved = find_unserved(object);
    if (unserved) {
        snprintf(ret_detail, detail_size, "%s", unserved);
        return false;
    }
    change->mode = iothub_mode_find(mode ? mode : "create");
    if (!change->mode) {
        snprintf(ret_detail, detail_size,
                 "importMode must be one of create, update, createOrUpdate, delete and those with "
                 "IfMatchETag, and twins are changed one by one");
        return false;
    }
    if (iothub_wish_parse(object, "id", &change->asked, ret_detail, detail_size) < 0)
        return false;
    if (!change->asked.id) {
        snprintf(ret_detail, detail_size, "each device needs an id");
        return false;
    }
    change->condition = read_bulk_condition(object, change->mode);
    snprintf(change->id, sizeof(change->id), "%s", change->asked.id);
    return true;
}

static bool is_named_before(const struct changes *changes, unsigned index) {
    for (unsigned i = 0; i < index; i++)
        if (strcmp(changes->changes[i].id, changes->changes[index].id) == 0)
            return true;
    return false;
}

/* Nothing is done when anything of the request is wrong in itself. */
void iothub_devices_bulk(struct provisioning_call *call) {
    char detail[CALL_DETAIL_SIZE] = "";
    if (!iothub_read_body(call, JSON_ARRAY))
        return;
    size_t count = json_array_size(call->body);
    if (count == 0 || count > LIMIT_IOTHUB_BULK) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "1 to %d devices are expected",
                      LIMIT_IOTHUB_BULK);
        return;
    }
    struct changes *changes = changes_new(call, (unsigned)count);
    if (!changes)
        return;
    changes->is_bulk = true;
    for (unsigned i = 0; i < count; i++) {
        if (!read_bulk_change(json_array_get(call->body, i), &changes->changes[i], detail,
                              sizeof(detail))) {
            iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "device %u of the list, %s",
                          i + 1, detail);
            return;
        }
        if (is_named_before(changes, i)) {
            iothub_refuse(call->exchange, IOTHUB_DeviceDefinedMultipleTimes,
                          "device '%s' is named twice", changes->changes[i].id);
            return;
        }
    }
    read_for_changes(call);
}

/* ---- messages to a device ---- */

static void then_purge(struct provisioning_call *call, struct registry_request *result) {
    struct slice id = http_path_parameter(call->exchange, "device");
    if (result->row_count == 0) {
        iothub_refuse(call->exchange, IOTHUB_DeviceNotFound, "the device is not registered");
        return;
    }
    relay_soon(call->worker);
    iothub_answer(call->exchange, 200,
                  json_pack("{s:I, s:s%, s:n}", "totalMessagesPurged",
                            (json_int_t)iothub_number(result, 0, 0), "deviceId",
                            (const char *)id.data, id.size, "moduleId"),
                  0);
}

void iothub_commands_purge(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    if (!iothub_read_path(call, id))
        return;
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_COMMANDS_PURGE);
    iothub_request_add(&request, id);
    iothub_request_add(&request, transitions_instance(call->worker));
    iothub_execute(call, request, then_purge);
}

/* ---- lists and numbers ---- */

static void answer_list(struct provisioning_call *call, struct iothub_shown *shown) {
    unsigned fitting = iothub_shown_fitting(shown);
    while (json_array_size(shown->objects) > fitting)
        json_array_remove(shown->objects, json_array_size(shown->objects) - 1);
    iothub_answer(call->exchange, 200, json_incref(shown->objects), 0);
}

static void then_list(struct provisioning_call *call, struct registry_request *result) {
    struct iothub_shown *shown = describe_all(call, result);
    if (shown)
        iothub_show(call, shown, answer_list);
}

void iothub_device_list(struct provisioning_call *call) {
    struct slice top;
    char limit[8];
    unsigned count = LIMIT_PAGE_ROWS;
    if (http_query_parameter(call->exchange, "top", &top)) {
        count = 0;
        for (size_t i = 0; i < top.size && count <= LIMIT_PAGE_ROWS; i++)
            count = top.data[i] >= '0' && top.data[i] <= '9' ? count * 10 + (top.data[i] - '0')
                                                             : LIMIT_PAGE_ROWS + 1;
        if (count == 0 || count > LIMIT_PAGE_ROWS) {
            iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "top must be 1 to %d",
                          LIMIT_PAGE_ROWS);
            return;
        }
    }
    snprintf(limit, sizeof(limit), "%u", count);
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_DEVICES_LIST);
    iothub_request_add(&request, limit);
    iothub_execute(call, request, then_list);
}

static void then_count(struct provisioning_call *call, struct registry_request *result) {
    int64_t total = result->row_count ? iothub_number(result, 0, 0) : 0;
    int64_t enabled = result->row_count ? iothub_number(result, 0, 1) : 0;
    iothub_answer(call->exchange, 200,
                  json_pack("{s:I, s:I, s:I}", "totalDeviceCount", (json_int_t)total,
                            "enabledDeviceCount", (json_int_t)enabled, "disabledDeviceCount",
                            (json_int_t)(total - enabled)),
                  0);
}

void iothub_device_statistics(struct provisioning_call *call) {
    iothub_execute(call, iothub_request_new(call, STATEMENT_IOTHUB_DEVICES_COUNT), then_count);
}

static void deliver_count(struct worker *worker, struct inquiry *inquiry) {
    struct http_exchange *x = http_find(worker, inquiry->owner);
    if (x)
        iothub_answer(
            x, 200,
            json_pack("{s:I}", "connectedDeviceCount", (json_int_t)inquiry->connection_count), 0);
    inquiry_free(inquiry);
}

void iothub_service_statistics(struct provisioning_call *call) {
    struct inquiry *inquiry = inquiry_new(0);
    if (!inquiry) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    inquiry->tenant_key = call->principal.tenant_key;
    inquiry->owner = http_exchange_id(call->exchange);
    inquiry->answered = deliver_count;
    inquiry_send(call->worker, inquiry);
}
