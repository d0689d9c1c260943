/*
 * A device as the service API of Azure IoT Hub has it: what clients send of one, and what is to
 * become of the one that is there. Pure but for memory and random keys.
 */
#pragma once

#include <jansson.h>

#include "common/limits.h"
#include "provisioning/etag.h"
#include "provisioning/iothub_error.h"
#include "registry/credential.h"

enum iothub_authentication {
    IOTHUB_AUTHENTICATION_UNSAID, /* sas of a new device */
    IOTHUB_AUTHENTICATION_SAS,
    IOTHUB_AUTHENTICATION_SELF_SIGNED,
    IOTHUB_AUTHENTICATION_AUTHORITY,
    IOTHUB_AUTHENTICATION_NONE,
    IOTHUB_AUTHENTICATION_COUNT
};
extern const char *const iothub_authentication_names[IOTHUB_AUTHENTICATION_COUNT]; /* [0]: NULL */

enum { IOTHUB_REASON_CHARACTERS = 128 };

/* What a client wants of a device. Texts belong to the JSON it came in. */
struct iothub_wish {
    const char *id;
    enum { IOTHUB_STATUS_UNSAID, IOTHUB_STATUS_ENABLED, IOTHUB_STATUS_DISABLED } status;
    const char *reason; /* NULL: none */
    enum iothub_authentication authentication;
    struct credential_keys keys;              /* size_bytes 0: not given */
    char thumbprints[2][CREDENTIAL_HEX_SIZE]; /* lower case; "": not given */
};

/* Of one object, in which the device's name is called name_member. DG_ERR_INVALID and a sentence
 * without ';' and ':'. The keys in *ret_wish are to be wiped. */
DG_NODISCARD int iothub_wish_parse(const json_t *object, const char *name_member,
                                   struct iothub_wish *ret_wish, char *ret_detail,
                                   size_t detail_size);

/* importMode of a bulk request; PUT and DELETE of one device are of one of these, too. */
struct iothub_mode {
    const char *name;
    bool creates, changes, removes;
    bool matches; /* the entity tag that comes with it must be that of the device */
};
enum iothub_mode_id {
    IOTHUB_MODE_CREATE,
    IOTHUB_MODE_UPDATE,
    IOTHUB_MODE_UPDATE_MATCH,
    IOTHUB_MODE_CREATE_OR_UPDATE,
    IOTHUB_MODE_CREATE_OR_UPDATE_MATCH,
    IOTHUB_MODE_DELETE,
    IOTHUB_MODE_DELETE_MATCH,
    IOTHUB_MODE_COUNT
};
extern const struct iothub_mode iothub_modes[IOTHUB_MODE_COUNT];
/* Names are compared without case; NULL: there is none of this name (or text is NULL). */
const struct iothub_mode *iothub_mode_find(const char *text);

/* A device that is there, as far as a wish is about it. */
struct iothub_device {
    int64_t version; /* 0: there is none */
    bool is_enabled;
    struct credential_keys keys; /* size_bytes 0: none */
    unsigned others;             /* credentials that this API has nothing to do with */
};

/* Whether what is there allows it. 0; DG_ERR_EXISTS, DG_ERR_NOT_FOUND, DG_ERR_PRECONDITION. */
DG_NODISCARD int iothub_mode_permits(const struct iothub_mode *mode,
                                     const struct iothub_device *device,
                                     const struct etag_condition *condition);

/* Completes a wish with what is to stay, and makes keys where some are wanted and none are there.
 * Where nothing was said of authentication, of a device that is there nothing is changed.
 * has_new_keys: others than the device has. DG_ERR_INVALID: too many credentials. */
DG_NODISCARD int iothub_wish_complete(struct iothub_wish *wish, const struct iothub_device *device,
                                      bool *ret_has_new_keys);
