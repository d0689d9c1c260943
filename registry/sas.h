/*
 * SAS tokens as a password: "SharedAccessSignature sr=<resource>&sig=<signature>&se=<expiry>",
 * fields in any order. Signed text: the resource as it stands, LF, the expiry's text; HMAC-SHA256
 * with the decoded key. The resource, percent-decoded, must end with "devices/<device id>"; what
 * stands before it (a host name, a tenant) is not looked at, since the signature with the device's
 * own key already says who it is. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"

struct sas_token {
    struct slice resource; /* as it stands */
    struct slice expiry_text;
    int64_t expiry_ms;
    uint8_t signature[32];
};

bool sas_is_token(struct slice password);
DG_NODISCARD int sas_parse(struct slice text, struct sas_token *ret_token);
/* Whether the decoded resource names this device. */
bool sas_names_device(const struct sas_token *token, const char *device);
/* Whether a key of 32 bytes made the signature; constant time. */
bool sas_is_signed_by(const struct sas_token *token, const uint8_t *key);
