/*
 * SAS tokens as a password: "SharedAccessSignature sr=<resource>&sig=<signature>&se=<expiry>",
 * fields in any order, and &skn=<policy> when the key is that of an access policy. Signed text: the
 * resource as it stands, LF, the expiry's text; HMAC-SHA256 with the decoded key. Natively the
 * resource, percent-decoded, must end with "devices/<device id>"; what stands before it (a host
 * name, a tenant) is not looked at, since the signature with the device's own key already says who
 * it is. For IoT Hub's clients it is held against the resource that is used. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"

struct sas_token {
    struct slice resource; /* as it stands */
    struct slice expiry_text;
    struct slice policy; /* empty: the key is the device's own */
    int64_t expiry_ms;
    uint8_t signature[32];
};

bool sas_is_token(struct slice password);
DG_NODISCARD int sas_parse(struct slice text, struct sas_token *ret_token);
/* Whether the decoded resource names this device. */
bool sas_names_device(const struct sas_token *token, const char *device);
/* Whether it is good for a resource "host/devices/d1" (the host without a port): its own, decoded,
 * is the same or begins it up to a '/'. A scheme, a port and a slash at the end do not count, nor
 * does the case of the host. */
bool sas_covers(const struct sas_token *token, struct slice resource);

/* The host of the resource, without a port, NUL-terminated; false: there is none of such a size. */
bool sas_read_host(const struct sas_token *token, char *ret_host, size_t room);

enum sas_signature { SAS_NOT_SIGNED, SAS_SIGNED, SAS_SIGNED_REENCODED };
/* Whether the key made the signature; constant time. Some clients sign the resource encoded in
 * another way than the token has it: then it is the one that encodeURIComponent makes. */
enum sas_signature sas_is_signed_by(const struct sas_token *token, struct slice key);
