/* Lists of networks in the configuration. */
#include <arpa/inet.h>
#include <criterion/criterion.h>

#include "common/networks.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool contains(const char *list, const char *text) {
    uint8_t address[16];
    cr_assert_eq(inet_pton(AF_INET6, text, address), 1, "%s", text);
    return networks_contain(list, address);
}

Test(networks, what_is_a_list) {
    static const struct {
        const char *list;
        bool valid;
    } cases[] = {
        {"", true},
        {" , ", true},
        {"192.0.2.7", true},
        {"10.0.0.0/8,2001:db8::/32, ::1", true},
        {"0.0.0.0/0 ::/0", true},
        {"192.0.2", false},
        {"192.0.2.7/33", false},
        {"192.0.2.7/", false},
        {"192.0.2.7/-1", false},
        {"192.0.2.7/8/8", false},
        {"192.0.2.7/0008", false},
        {"2001:db8::/129", false},
        {"[::1]", false},
        {"proxy.example", false},
        {"/8", false},
        {"10.0.0.0/8,x", false},
        {"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(networks_are_valid(cases[i].list), cases[i].valid, "'%s'", cases[i].list);
}

Test(networks, who_is_in_one) {
    static const struct {
        const char *list, *address;
        bool inside;
    } cases[] = {
        {"", "::ffff:192.0.2.7", false},
        {"192.0.2.7", "::ffff:192.0.2.7", true},
        {"192.0.2.7", "::ffff:192.0.2.6", false},
        {"192.0.2.7", "::192.0.2.7", false},
        {"192.0.2.0/23", "::ffff:192.0.3.255", true},
        {"192.0.2.0/23", "::ffff:192.0.4.0", false},
        {"192.0.2.77/25", "::ffff:192.0.2.1", true},
        {"192.0.2.77/25", "::ffff:192.0.2.128", false},
        {"0.0.0.0/0", "::ffff:8.8.8.8", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"10.0.0.0/8, ::1", "::1", true},
        {"x, ::1", "::1", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(contains(cases[i].list, cases[i].address), cases[i].inside, "%s in '%s'",
                     cases[i].address, cases[i].list);
}
