#include "common/networks.h"

#include <arpa/inet.h>
#include <string.h>

enum { ENTRY_SIZE = 64, ADDRESS_BITS = 128, MAPPED_BITS = 96 };

struct network {
    uint8_t address[16];
    unsigned bits;
};

/* Cuts the next entry off; false at the list's end. A long one is cut short: no network either. */
static bool next_entry(const char **at, char *ret_entry) {
    *at += strspn(*at, ", ");
    size_t size = strcspn(*at, ", ");
    size_t kept = size < ENTRY_SIZE ? size : ENTRY_SIZE - 1;
    memcpy(ret_entry, *at, kept);
    ret_entry[kept] = '\0';
    *at += size;
    return size > 0;
}

static bool parse_bits(const char *text, unsigned most, unsigned *ret_bits) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3 || text[digits] != '\0')
        return false;
    unsigned bits = 0;
    for (; *text; text++)
        bits = bits * 10 + (unsigned)(*text - '0');
    *ret_bits = bits;
    return bits <= most;
}

static bool parse_network(char *entry, struct network *ret) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    char *slash = strchr(entry, '/');
    if (slash)
        *slash = '\0';
    memcpy(ret->address, mapped, sizeof(mapped));
    unsigned before = MAPPED_BITS;
    if (inet_pton(AF_INET, entry, ret->address + sizeof(mapped)) != 1) {
        before = 0;
        if (inet_pton(AF_INET6, entry, ret->address) != 1)
            return false;
    }
    unsigned bits = ADDRESS_BITS - before;
    if (slash && !parse_bits(slash + 1, bits, &bits))
        return false;
    ret->bits = before + bits;
    return true;
}

static bool has_address(const struct network *network, const uint8_t *address) {
    unsigned bytes = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->address, address, bytes) != 0)
        return false;
    return rest == 0 || (network->address[bytes] ^ address[bytes]) >> (8 - rest) == 0;
}

bool networks_are_valid(const char *list) {
    char entry[ENTRY_SIZE];
    struct network network;
    while (next_entry(&list, entry))
        if (!parse_network(entry, &network))
            return false;
    return true;
}

bool networks_contain(const char *list, const uint8_t address[16]) {
    char entry[ENTRY_SIZE];
    struct network network;
    while (next_entry(&list, entry))
        if (parse_network(entry, &network) && has_address(&network, address))
            return true;
    return false;
}
