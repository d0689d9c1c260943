/*
 * Which tenant a host name stands for, as the configuration says it: "hub.example.com=acme,
 * hub2.example.com=t2". Clients that name a host (IoT Hub's) choose their tenant by it. A list is
 * read where it is asked: it has some entries and is asked once for each login. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/slice.h"

/* Every entry is a host name without a port, '=' and a tenant, no host stands twice; an empty list
 * is one. */
bool host_map_is_valid(const char *list);

/* The entry of a host, compared without case and without a ":port" behind it; false: there is none.
 * What is returned points into the list. */
bool host_map_find(const char *list, struct slice host, struct slice *ret_host,
                   struct slice *ret_tenant);
