/* Which tenant a host name stands for. */
#include <criterion/criterion.h>

#include "common/host_map.h"
#include "common/limits.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(host_map, what_is_a_list) {
    char longest[LIMIT_HOST_BYTES + 16] = "", too_long[LIMIT_HOST_BYTES + 16] = "";
    memset(longest, 'h', LIMIT_HOST_BYTES);
    strcpy(longest + LIMIT_HOST_BYTES, "=a");
    memset(too_long, 'h', LIMIT_HOST_BYTES + 1);
    strcpy(too_long + LIMIT_HOST_BYTES + 1, "=a");
    const struct {
        const char *list;
        bool valid;
    } cases[] = {
        {"", true},
        {" , ", true},
        {"hub.example.com=acme", true},
        {"Hub-1.example.com=acme, hub2.example.com=t-2,localhost=acme", true},
        {longest, true},
        {too_long, false},
        {"hub.example.com", false},
        {"hub.example.com=", false},
        {"=acme", false},
        {"hub.example.com=Acme", false},
        {"hub.example.com=acme=x", false},
        {"hub.example.com:443=acme", false},
        {"hub/x=acme", false},
        {"hub=acme,HUB=other", false},
        {"hub = acme", false},
        {"hub=0123456789012345678901234567890123456789012345678901234567890123", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(host_map_is_valid(cases[i].list), cases[i].valid, "'%s'", cases[i].list);
}

Test(host_map, whose_a_host_is) {
    static const char list[] = "hub.example.com=acme, Hub2.example.com=t2";
    static const struct {
        const char *host, *tenant, *name;
    } cases[] = {
        {"hub.example.com", "acme", "hub.example.com"},
        {"HUB.Example.com:8883", "acme", "hub.example.com"},
        {"hub2.example.com", "t2", "Hub2.example.com"},
        {"hub.example.co", NULL, NULL},
        {"hub.example.com.", NULL, NULL},
        {":8883", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice host, tenant;
        bool found = host_map_find(list, slice_from_string(cases[i].host), &host, &tenant);
        cr_assert_eq(found, cases[i].tenant != NULL, "%s", cases[i].host);
        if (!found)
            continue;
        cr_expect(slice_equals_string(tenant, cases[i].tenant), "%s", cases[i].host);
        cr_expect(slice_equals_string(host, cases[i].name), "%s", cases[i].host);
    }
    struct slice host, tenant;
    cr_expect_not(host_map_find("", slice_from_string("hub"), &host, &tenant));
}
