/*
 * Lists of networks in the configuration: addresses and address/bits, IPv4 and IPv6, comma
 * separated ("192.0.2.7, 10.0.0.0/8, 2001:db8::/32"). A list is read where it is asked, so it
 * needs no second form: it has some entries and is asked once for each connection. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Every entry is a network; an empty list is one. */
bool networks_are_valid(const char *list);

/* address: IPv6, or IPv4 as mapped. An entry that is no network holds nobody. */
bool networks_contain(const char *list, const uint8_t address[16]);
