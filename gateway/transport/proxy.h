/*
 * The header of the PROXY protocol, version 2, with which a proxy in front of the gateway names the
 * client whose connection it passes on (HAProxy's proxy-protocol.txt, 2.2). Pure; any thread.
 *
 * Who may send one is not decided here: proxy_arrival.c.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proxy_header {
    bool names_client;       /* false: the proxy speaks for itself (LOCAL), or knows no address */
    struct in6_addr address; /* of the client, IPv4 as mapped */
    uint16_t port;
};

/*
 * How many bytes more the header needs, 0 when it is complete, or DG_ERR_MALFORMED with the reason
 * in ret_why (a constant): not version 2, longer than LIMIT_PROXY_HEADER_BYTES, no stream over IPv4
 * or IPv6, a broken extension, a checksum that does not fit. What is asked for is never beyond the
 * header, so whoever reads no more than that leaves what follows it to others.
 */
ssize_t proxy_decode(const uint8_t *data, size_t size, struct proxy_header *ret_header,
                     const char **ret_why);
