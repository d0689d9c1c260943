#include "provisioning/iothub_device.h"

#include <stdio.h>
#include <strings.h>

#include "common/device_id.h"
#include "common/random.h"

const char *const iothub_authentication_names[] = {
    [IOTHUB_AUTHENTICATION_SAS] = "sas",
    [IOTHUB_AUTHENTICATION_SELF_SIGNED] = "selfSigned",
    [IOTHUB_AUTHENTICATION_AUTHORITY] = "certificateAuthority",
    [IOTHUB_AUTHENTICATION_NONE] = "none",
};

/* ---- what a client sent ---- */

/* One member after the other; the first that is wrong says so. */
struct reading {
    struct iothub_wish *wish;
    char *detail;
    size_t detail_size;
};

static int refuse(struct reading *reading, const char *text) {
    snprintf(reading->detail, reading->detail_size, "%s", text);
    return DG_ERR_INVALID;
}

/* A string; absent or null is NULL. */
static int read_text(struct reading *reading, const json_t *object, const char *name,
                     const char **ret_text) {
    const json_t *value = json_object_get(object, name);
    if (value && !json_is_null(value) && !json_is_string(value)) {
        snprintf(reading->detail, reading->detail_size, "%s must be a string", name);
        return DG_ERR_INVALID;
    }
    *ret_text = json_string_value(value);
    return 0;
}

static int read_status(struct reading *reading, const json_t *object) {
    const char *status = NULL, *reason = NULL;
    int err = read_text(reading, object, "status", &status);
    if (err == 0)
        err = read_text(reading, object, "statusReason", &reason);
    if (err < 0)
        return err;
    size_t characters = 0;
    for (const char *c = reason; c && *c; c++)
        characters += (*c & 0xc0) != 0x80;
    if (characters > IOTHUB_REASON_CHARACTERS)
        return refuse(reading, "statusReason has at most 128 characters");
    reading->wish->reason = reason;
    if (status && strcasecmp(status, "enabled") == 0)
        reading->wish->status = IOTHUB_STATUS_ENABLED;
    else if (status && strcasecmp(status, "disabled") == 0)
        reading->wish->status = IOTHUB_STATUS_DISABLED;
    else if (status)
        return refuse(reading, "status must be enabled or disabled");
    return 0;
}

static int read_key(struct reading *reading, const json_t *object, const char *name,
                    struct credential_symmetric *ret_key) {
    const char *text = NULL;
    int err = read_text(reading, object, name, &text);
    if (err < 0 || !text || !*text)
        return err;
    int size =
        credential_base64_decode(slice_from_string(text), ret_key->bytes, sizeof(ret_key->bytes));
    if (size < CREDENTIAL_SYMMETRIC_MIN)
        return refuse(reading, "keys must be 16 to 64 bytes in base64");
    ret_key->size_bytes = (uint8_t)size;
    return 0;
}

static int read_thumbprint(struct reading *reading, const json_t *object, const char *name,
                           char *ret_thumbprint) {
    const char *text = NULL;
    int err = read_text(reading, object, name, &text);
    size_t size = text ? strlen(text) : 0;
    if (err < 0 || size == 0)
        return err;
    if ((size != 40 && size != 64) || strspn(text, "0123456789abcdefABCDEF") != size)
        return refuse(reading, "thumbprints must be SHA-1 or SHA-256 in hexadecimal");
    for (size_t i = 0; i < size; i++)
        ret_thumbprint[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] | 0x20 : text[i]);
    ret_thumbprint[size] = '\0';
    return 0;
}

static int read_type(struct reading *reading, const json_t *object) {
    struct iothub_wish *wish = reading->wish;
    bool is_pinned = wish->thumbprints[0][0] || wish->thumbprints[1][0];
    const char *type = NULL;
    int err = read_text(reading, object, "type", &type);
    if (err < 0)
        return err;
    wish->authentication =
        is_pinned ? IOTHUB_AUTHENTICATION_SELF_SIGNED : IOTHUB_AUTHENTICATION_SAS;
    for (unsigned i = 1; type && i <= IOTHUB_AUTHENTICATION_COUNT; i++) {
        if (i == IOTHUB_AUTHENTICATION_COUNT)
            return refuse(reading, "authentication.type must be sas, selfSigned, "
                                   "certificateAuthority or none");
        wish->authentication = (enum iothub_authentication)i;
        if (strcasecmp(type, iothub_authentication_names[i]) == 0)
            break;
    }
    if (wish->authentication == IOTHUB_AUTHENTICATION_SELF_SIGNED && !is_pinned)
        return refuse(reading, "selfSigned needs a thumbprint");
    return 0;
}

static int read_authentication(struct reading *reading, const json_t *object) {
    static const char *const keys[] = {"primaryKey", "secondaryKey"};
    static const char *const thumbprints[] = {"primaryThumbprint", "secondaryThumbprint"};
    const json_t *authentication = json_object_get(object, "authentication");
    if (!authentication || json_is_null(authentication))
        return 0;
    if (!json_is_object(authentication))
        return refuse(reading, "authentication must be an object");
    const json_t *key = json_object_get(authentication, "symmetricKey");
    const json_t *thumbprint = json_object_get(authentication, "x509Thumbprint");
    int err = 0;
    for (unsigned i = 0; err == 0 && i < 2; i++)
        err = read_key(reading, key, keys[i], &reading->wish->keys.keys[i]);
    for (unsigned i = 0; err == 0 && i < 2; i++)
        err = read_thumbprint(reading, thumbprint, thumbprints[i], reading->wish->thumbprints[i]);
    return err == 0 ? read_type(reading, authentication) : err;
}

int iothub_wish_parse(const json_t *object, const char *name_member, struct iothub_wish *ret_wish,
                      char *ret_detail, size_t detail_size) {
    struct reading reading = {ret_wish, ret_detail, detail_size};
    *ret_wish = (struct iothub_wish){.id = NULL};
    int err = read_text(&reading, object, name_member, &ret_wish->id);
    if (err == 0)
        err = read_status(&reading, object);
    if (err == 0)
        err = read_authentication(&reading, object);
    if (err < 0)
        return err;
    if (ret_wish->id && !device_id_is_hub(slice_from_string(ret_wish->id)))
        return refuse(&reading, "a device id is 1 to 128 ASCII letters, digits and "
                                "- . + % _ # * ? ! ( ) , = @ $ ' or a colon");
    const json_t *capabilities = json_object_get(object, "capabilities");
    if (json_is_true(json_object_get(capabilities, "iotEdge")))
        return refuse(&reading, "edge devices are not served");
    return 0;
}

/* ---- modes ---- */

const struct iothub_mode iothub_modes[] = {
    [IOTHUB_MODE_CREATE] = {"create", .creates = true},
    [IOTHUB_MODE_UPDATE] = {"update", .changes = true},
    [IOTHUB_MODE_UPDATE_MATCH] = {"updateIfMatchETag", .changes = true, .matches = true},
    [IOTHUB_MODE_CREATE_OR_UPDATE] = {"createOrUpdate", .creates = true, .changes = true},
    [IOTHUB_MODE_CREATE_OR_UPDATE_MATCH] = {"createOrUpdateIfMatchETag", .creates = true,
                                            .changes = true, .matches = true},
    [IOTHUB_MODE_DELETE] = {"delete", .removes = true},
    [IOTHUB_MODE_DELETE_MATCH] = {"deleteIfMatchETag", .removes = true, .matches = true},
};

const struct iothub_mode *iothub_mode_find(const char *text) {
    for (unsigned i = 0; text && i < IOTHUB_MODE_COUNT; i++)
        if (strcasecmp(text, iothub_modes[i].name) == 0)
            return &iothub_modes[i];
    return NULL;
}

int iothub_mode_permits(const struct iothub_mode *mode, const struct iothub_device *device,
                        const struct etag_condition *condition) {
    if (device->version == 0)
        return mode->creates ? 0 : DG_ERR_NOT_FOUND;
    if (!mode->changes && !mode->removes)
        return DG_ERR_EXISTS;
    bool fits = !mode->matches || etag_condition_has(condition, ETAG_EXISTS) ||
                etag_condition_has(condition, device->version);
    return fits ? 0 : DG_ERR_PRECONDITION;
}

/* ---- what becomes of it ---- */

static bool is_same_key(const struct credential_symmetric *a,
                        const struct credential_symmetric *b) {
    return a->size_bytes == b->size_bytes && memcmp(a->bytes, b->bytes, a->size_bytes) == 0;
}

/* Keys that are not given stay, or are made. */
static bool complete_keys(struct credential_keys *wanted, const struct credential_keys *there) {
    bool is_new = false;
    for (unsigned i = 0; i < 2; i++) {
        struct credential_symmetric *key = &wanted->keys[i];
        if (key->size_bytes == 0)
            *key = there->keys[i];
        if (key->size_bytes == 0) {
            key->size_bytes = CREDENTIAL_PAIR_KEY_SIZE;
            random_bytes(key->bytes, key->size_bytes);
        }
        is_new = is_new || !is_same_key(key, &there->keys[i]);
    }
    return is_new;
}

int iothub_wish_complete(struct iothub_wish *wish, const struct iothub_device *device,
                         bool *ret_has_new_keys) {
    bool is_new = device->version == 0;
    if (wish->status == IOTHUB_STATUS_UNSAID)
        wish->status =
            is_new || device->is_enabled ? IOTHUB_STATUS_ENABLED : IOTHUB_STATUS_DISABLED;
    if (is_new && !wish->authentication)
        wish->authentication = IOTHUB_AUTHENTICATION_SAS;
    bool has_keys = wish->authentication == IOTHUB_AUTHENTICATION_SAS;
    bool is_pinned = wish->authentication == IOTHUB_AUTHENTICATION_SELF_SIGNED;
    unsigned count = device->others + (has_keys ? 1 : 0);
    for (unsigned i = 0; i < 2; i++) {
        if (!is_pinned)
            wish->thumbprints[i][0] = '\0';
        count += wish->thumbprints[i][0] != '\0';
    }
    if (count > LIMIT_CREDENTIALS_PER_DEVICE)
        return DG_ERR_INVALID;
    *ret_has_new_keys = has_keys && complete_keys(&wish->keys, &device->keys);
    return 0;
}
