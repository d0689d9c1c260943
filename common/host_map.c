#include "common/host_map.h"

#include <strings.h>

#include "common/limits.h"

struct entry {
    struct slice host, tenant; /* tenant.data NULL: there is no '=' */
};

/* Cuts the next entry off; false at the list's end. */
static bool next_entry(const char **at, struct entry *ret_entry) {
    *at += strspn(*at, ", ");
    size_t size = strcspn(*at, ", "), host_size = strcspn(*at, "=, ");
    *ret_entry = (struct entry){.host = slice_make(*at, host_size)};
    if (host_size < size)
        ret_entry->tenant = slice_make(*at + host_size + 1, size - host_size - 1);
    *at += size;
    return size > 0;
}

static bool is_letter_or_digit(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_host(struct slice host) {
    if (host.size == 0 || host.size > LIMIT_HOST_BYTES)
        return false;
    for (size_t i = 0; i < host.size; i++)
        if (!is_letter_or_digit(host.data[i]) && host.data[i] != '-' && host.data[i] != '.')
            return false;
    return true;
}

/* The registry knows which there are; here it is the form that counts. */
static bool is_tenant(struct slice tenant) {
    if (tenant.size == 0 || tenant.size > LIMIT_TENANT_BYTES)
        return false;
    for (size_t i = 0; i < tenant.size; i++)
        if (tenant.data[i] != '-' && !(tenant.data[i] >= 'a' && tenant.data[i] <= 'z') &&
            !(tenant.data[i] >= '0' && tenant.data[i] <= '9'))
            return false;
    return true;
}

bool host_map_is_valid(const char *list) {
    struct entry entry;
    struct slice host, tenant;
    for (const char *at = list; next_entry(&at, &entry);)
        if (!is_host(entry.host) || !is_tenant(entry.tenant) ||
            !host_map_find(list, entry.host, &host, &tenant) || host.data != entry.host.data)
            return false;
    return true;
}

bool host_map_find(const char *list, struct slice host, struct slice *ret_host,
                   struct slice *ret_tenant) {
    struct entry entry;
    const uint8_t *colon = host.size > 0 ? memchr(host.data, ':', host.size) : NULL;
    if (colon)
        host.size = (size_t)(colon - host.data);
    while (next_entry(&list, &entry))
        if (host.size > 0 && host.size == entry.host.size &&
            strncasecmp((const char *)host.data, (const char *)entry.host.data, host.size) == 0) {
            *ret_host = entry.host;
            *ret_tenant = entry.tenant;
            return true;
        }
    return false;
}
