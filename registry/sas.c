#include "registry/sas.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "registry/credential.h"

static const char scheme[] = "SharedAccessSignature ";

enum { RESOURCE_MAX = 1024, EXPIRY_DIGITS_MAX = 12 };

bool sas_is_token(struct slice password) {
    return slice_starts_with(password, scheme);
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes; the decoded size, or -1. */
static int decode_percent(struct slice text, uint8_t *ret, size_t room) {
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++, size++) {
        if (size == room)
            return -1;
        ret[size] = text.data[i];
        if (text.data[i] != '%')
            continue;
        int high = i + 2 < text.size ? hex_digit(text.data[i + 1]) : -1;
        int low = i + 2 < text.size ? hex_digit(text.data[i + 2]) : -1;
        if (high < 0 || low < 0)
            return -1;
        ret[size] = (uint8_t)(high << 4 | low);
        i += 2;
    }
    return (int)size;
}

static int parse_signature(struct slice value, uint8_t *ret_signature) {
    uint8_t text[64];
    int size = decode_percent(value, text, sizeof(text));
    if (size < 0 ||
        credential_base64_decode(slice_make(text, (size_t)size), ret_signature, 32) != 32)
        return DG_ERR_MALFORMED;
    return 0;
}

static int parse_expiry(struct slice value, struct sas_token *token) {
    int64_t seconds = 0;
    if (value.size == 0 || value.size > EXPIRY_DIGITS_MAX)
        return DG_ERR_MALFORMED;
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return DG_ERR_MALFORMED;
        seconds = seconds * 10 + (value.data[i] - '0');
    }
    token->expiry_text = value;
    token->expiry_ms = seconds * 1000;
    return 0;
}

static bool is_name(struct slice name, const char *wanted) {
    return name.size == strlen(wanted) &&
           strncasecmp((const char *)name.data, wanted, name.size) == 0;
}

/* One "name=value"; unknown names are passed over. */
static int take_field(struct slice field, struct sas_token *token, unsigned *seen) {
    const uint8_t *equals = field.size ? memchr(field.data, '=', field.size) : NULL;
    if (!equals)
        return DG_ERR_MALFORMED;
    struct slice name = slice_make(field.data, (size_t)(equals - field.data));
    struct slice value = slice_skip(field, name.size + 1);
    if (is_name(name, "sr")) {
        token->resource = value;
        *seen |= 1;
        return value.size > RESOURCE_MAX ? DG_ERR_MALFORMED : 0;
    }
    if (is_name(name, "sig")) {
        *seen |= 2;
        return parse_signature(value, token->signature);
    }
    if (is_name(name, "se")) {
        *seen |= 4;
        return parse_expiry(value, token);
    }
    if (is_name(name, "skn"))
        token->policy = value;
    return 0;
}

int sas_parse(struct slice text, struct sas_token *ret_token) {
    struct sas_token token = {0};
    unsigned seen = 0;
    if (!sas_is_token(text))
        return DG_ERR_MALFORMED;
    text = slice_skip(text, sizeof(scheme) - 1);
    while (text.size > 0) {
        const uint8_t *ampersand = memchr(text.data, '&', text.size);
        size_t size = ampersand ? (size_t)(ampersand - text.data) : text.size;
        int err = take_field(slice_make(text.data, size), &token, &seen);
        if (err < 0)
            return err;
        text = slice_skip(text, ampersand ? size + 1 : size);
    }
    if (seen != 7)
        return DG_ERR_MALFORMED;
    *ret_token = token;
    return 0;
}

bool sas_names_device(const struct sas_token *token, const char *device) {
    static const char collection[] = "devices/";
    uint8_t decoded[RESOURCE_MAX];
    int size = decode_percent(token->resource, decoded, sizeof(decoded));
    size_t device_size = strlen(device), tail = sizeof(collection) - 1 + device_size;
    if (size < 0 || (size_t)size < tail)
        return false;
    const uint8_t *end = decoded + size - tail;
    bool whole_segment = end == decoded || end[-1] == '/';
    return whole_segment && memcmp(end, collection, sizeof(collection) - 1) == 0 &&
           memcmp(end + sizeof(collection) - 1, device, device_size) == 0;
}

/* What is in front of the path: the host without a scheme and a port. */
static struct slice split_host(struct slice resource, struct slice *ret_path) {
    const uint8_t *colons = memmem(resource.data, resource.size, "://", 3);
    if (colons)
        resource = slice_skip(resource, (size_t)(colons - resource.data) + 3);
    while (resource.size > 0 && resource.data[resource.size - 1] == '/')
        resource.size--;
    const uint8_t *slash = resource.size > 0 ? memchr(resource.data, '/', resource.size) : NULL;
    struct slice host = resource;
    if (slash)
        host.size = (size_t)(slash - resource.data);
    *ret_path = slice_skip(resource, host.size);
    const uint8_t *colon = host.size > 0 ? memchr(host.data, ':', host.size) : NULL;
    if (colon)
        host.size = (size_t)(colon - host.data);
    return host;
}

bool sas_read_host(const struct sas_token *token, char *ret_host, size_t room) {
    uint8_t decoded[RESOURCE_MAX];
    struct slice path;
    int size = decode_percent(token->resource, decoded, sizeof(decoded));
    if (size <= 0)
        return false;
    struct slice host = split_host(slice_make(decoded, (size_t)size), &path);
    if (host.size == 0 || host.size >= room || memchr(host.data, 0, host.size))
        return false;
    memcpy(ret_host, host.data, host.size);
    ret_host[host.size] = '\0';
    return true;
}

bool sas_covers(const struct sas_token *token, struct slice resource) {
    uint8_t decoded[RESOURCE_MAX];
    struct slice path, wanted_path;
    int size = decode_percent(token->resource, decoded, sizeof(decoded));
    if (size <= 0)
        return false;
    struct slice host = split_host(slice_make(decoded, (size_t)size), &path);
    struct slice wanted = split_host(resource, &wanted_path);
    return host.size > 0 && host.size == wanted.size &&
           strncasecmp((const char *)host.data, (const char *)wanted.data, host.size) == 0 &&
           path.size <= wanted_path.size &&
           (path.size == 0 || memcmp(path.data, wanted_path.data, path.size) == 0) &&
           (path.size == wanted_path.size || wanted_path.data[path.size] == '/');
}

static bool is_signature_of(const struct sas_token *token, struct slice resource,
                            struct slice key) {
    uint8_t text[3 * RESOURCE_MAX + EXPIRY_DIGITS_MAX + 1], mac[EVP_MAX_MD_SIZE];
    size_t size = resource.size;
    unsigned mac_size = 0;
    memcpy(text, resource.data, size);
    text[size++] = '\n';
    memcpy(text + size, token->expiry_text.data, token->expiry_text.size);
    size += token->expiry_text.size;
    return HMAC(EVP_sha256(), key.data, (int)key.size, text, size, mac, &mac_size) &&
           CRYPTO_memcmp(mac, token->signature, sizeof(token->signature)) == 0;
}

/* As encodeURIComponent does; ret_text: 3 * RESOURCE_MAX. */
static size_t encode_percent(struct slice text, uint8_t *ret_text) {
    static const char hex[] = "0123456789ABCDEF";
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("-_.!~*'()", c));
        if (plain) {
            ret_text[size++] = c;
            continue;
        }
        ret_text[size++] = '%';
        ret_text[size++] = (uint8_t)hex[c >> 4];
        ret_text[size++] = (uint8_t)hex[c & 15];
    }
    return size;
}

enum sas_signature sas_is_signed_by(const struct sas_token *token, struct slice key) {
    uint8_t decoded[RESOURCE_MAX], encoded[3 * RESOURCE_MAX];
    if (is_signature_of(token, token->resource, key))
        return SAS_SIGNED;
    int size = decode_percent(token->resource, decoded, sizeof(decoded));
    if (size <= 0)
        return SAS_NOT_SIGNED;
    size_t encoded_size = encode_percent(slice_make(decoded, (size_t)size), encoded);
    return is_signature_of(token, slice_make(encoded, encoded_size), key) ? SAS_SIGNED_REENCODED
                                                                          : SAS_NOT_SIGNED;
}
