#include "gateway/transport/proxy.h"

#include <string.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/limits.h"
#include "common/reader.h"

enum { SIGNATURE_BYTES = 12, FIXED_BYTES = 16, VERSION_1_BYTES = 6 };
enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 }; /* with the version in the high half */
enum { FAMILY_UNKNOWN = 0x00, FAMILY_TCP4 = 0x11, FAMILY_TCP6 = 0x21 };
enum { EXTENSION_CRC32C = 0x03, CRC32C_BYTES = 4 };

static const uint8_t signature[SIGNATURE_BYTES] = "\r\n\r\n\0\r\nQUIT\n";
static const uint8_t version_1[] = "PROXY ";

static int refuse(const char **ret_why, const char *why) {
    *ret_why = why;
    return DG_ERR_MALFORMED;
}

static bool begins_with(const uint8_t *data, size_t size, const uint8_t *text, size_t text_size) {
    size_t compared = size < text_size ? size : text_size;
    return compared == 0 || memcmp(data, text, compared) == 0;
}

static ssize_t decode_other(const uint8_t *data, size_t size, const char **ret_why) {
    if (!begins_with(data, size, version_1, VERSION_1_BYTES))
        return refuse(ret_why, "it sent no PROXY protocol header; have it send version 2, or take "
                               "it off server.proxy_sources");
    if (size < VERSION_1_BYTES)
        return (ssize_t)(VERSION_1_BYTES - size);
    return refuse(ret_why, "its PROXY protocol header is of version 1; have it send version 2");
}

/* 2.2.3: the checksum is of the whole header, its own four bytes taken as zero. */
static bool checksum_fits(struct slice header, struct slice sum) {
    static const uint8_t zero[CRC32C_BYTES];
    struct reader r = reader_make(sum.data, sum.size);
    const uint8_t *end = header.data + header.size, *behind = sum.data + sum.size;
    uint32_t crc = crc32c_update(0, header.data, (size_t)(sum.data - header.data));
    crc = crc32c_update(crc, zero, sizeof(zero));
    return crc32c_update(crc, behind, (size_t)(end - behind)) == reader_u32(&r);
}

static int check_extensions(struct slice header, struct reader *r, const char **ret_why) {
    while (reader_left(r) > 0) {
        uint8_t type = reader_u8(r);
        struct slice value = reader_slice(r, reader_u16(r));
        if (r->failed)
            return refuse(ret_why, "an extension of its PROXY protocol header is cut off");
        if (type == EXTENSION_CRC32C &&
            (value.size != CRC32C_BYTES || !checksum_fits(header, value)))
            return refuse(ret_why, "the checksum of its PROXY protocol header does not fit");
    }
    return 0;
}

/* Source address, destination address, source port, destination port; then extensions. */
static int decode_client(struct slice header, uint8_t family, struct proxy_header *ret_header,
                         const char **ret_why) {
    struct proxy_header named = {.names_client = true};
    size_t address_bytes = family == FAMILY_TCP4 ? 4 : 16;
    struct reader r = reader_make(header.data + FIXED_BYTES, header.size - FIXED_BYTES);
    const uint8_t *source = reader_take(&r, address_bytes);
    reader_take(&r, address_bytes);
    named.port = reader_u16(&r);
    reader_u16(&r);
    if (r.failed)
        return refuse(ret_why, "its PROXY protocol header is too short for the addresses");
    if (family == FAMILY_TCP4)
        named.address.s6_addr[10] = named.address.s6_addr[11] = 0xff;
    memcpy(named.address.s6_addr + 16 - address_bytes, source, address_bytes);
    int err = check_extensions(header, &r, ret_why);
    if (err == 0)
        *ret_header = named;
    return err;
}

ssize_t proxy_decode(const uint8_t *data, size_t size, struct proxy_header *ret_header,
                     const char **ret_why) {
    if (!begins_with(data, size, signature, SIGNATURE_BYTES))
        return decode_other(data, size, ret_why);
    if (size < FIXED_BYTES)
        return (ssize_t)(FIXED_BYTES - size);
    struct reader r = reader_make(data + SIGNATURE_BYTES, FIXED_BYTES - SIGNATURE_BYTES);
    uint8_t command = reader_u8(&r), family = reader_u8(&r);
    size_t whole = FIXED_BYTES + (size_t)reader_u16(&r);
    if (command != COMMAND_LOCAL && command != COMMAND_PROXY)
        return refuse(ret_why, "its PROXY protocol header has an unknown version or command");
    if (whole > LIMIT_PROXY_HEADER_BYTES)
        return refuse(ret_why, "its PROXY protocol header is too long");
    if (size < whole)
        return (ssize_t)(whole - size);
    if (command == COMMAND_LOCAL || family == FAMILY_UNKNOWN) {
        *ret_header = (struct proxy_header){.names_client = false};
        return 0; /* 2.2: whatever else stands there is to be ignored */
    }
    if (family != FAMILY_TCP4 && family != FAMILY_TCP6)
        return refuse(ret_why, "its PROXY protocol header is not of TCP over IPv4 or IPv6");
    return decode_client(slice_make(data, whole), family, ret_header, ret_why);
}
