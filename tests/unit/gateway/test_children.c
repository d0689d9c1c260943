/* What a worker remembers of devices behind gateway devices. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "gateway/session/children.h"
#include "leaks.h"

TestSuite(children, .fini = check_leaks);

static void store(struct children *children, int64_t tenant_key, const char *name, int err,
                  int64_t device_key, const char *via, uint64_t now_ms) {
    struct registry_child_query found = {.tenant_key = tenant_key,
                                         .err = err,
                                         .device_key = device_key,
                                         .partition = 3,
                                         .via = err == 0 ? strdup(via) : NULL};
    strcpy(found.child, name);
    strcpy(found.group, "meters");
    cr_assert_eq(children_store(children, &found, now_ms), 0);
    free(found.via);
}

static int may(struct children *children, int64_t tenant_key, const char *gateway, const char *name,
               uint64_t now_ms) {
    const struct child *child = NULL;
    int err = children_may(children, tenant_key, slice_from_string(gateway),
                           slice_from_string(name), now_ms, &child);
    cr_assert_eq(child != NULL, err == 0);
    return err;
}

Test(children, who_may) {
    struct children children = {0};
    const struct child *child;
    cr_assert_eq(may(&children, 1, "gw", "a", 0), CHILD_UNKNOWN);
    store(&children, 1, "a", 0, 10, "other gw ", 0);
    cr_assert_eq(may(&children, 1, "gw", "a", 1000000), 0);
    cr_assert_eq(may(&children, 2, "gw", "a", 0), CHILD_UNKNOWN, "of another tenant");
    cr_assert_eq(may(&children, 1, "gw", "aa", 0), CHILD_UNKNOWN);
    cr_assert_eq(may(&children, 1, "g", "a", 0), DG_ERR_VIA);
    cr_assert_eq(may(&children, 1, "gw ", "a", 0), DG_ERR_VIA);
    cr_assert_eq(
        children_may(&children, 1, slice_from_string("gw"), slice_from_string("a"), 0, &child), 0);
    cr_assert_eq(child->device_key, 10);
    cr_assert_eq(child->partition, 3);
    cr_assert_str_eq(child->group, "meters");
    children_free(&children);
}

Test(children, a_no_is_forgotten) {
    static const struct {
        int answered, err;
    } cases[] = {
        {DG_ERR_VIA, DG_ERR_VIA},
        {DG_ERR_UNAVAILABLE, DG_ERR_UNAVAILABLE},
        {DG_ERR_NO_MEMORY, DG_ERR_UNAVAILABLE},
        {0, DG_ERR_VIA}, /* another gateway's */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct children children = {0};
        store(&children, 1, "a", cases[i].answered, 10, "gw2 ", 500);
        cr_assert_eq(may(&children, 1, "gw", "a", 500 + LIMIT_CHILD_REFUSED_MS - 1), cases[i].err);
        cr_assert_eq(may(&children, 1, "gw", "a", 500 + LIMIT_CHILD_REFUSED_MS), CHILD_UNKNOWN);
        children_free(&children);
    }
}

Test(children, names_that_no_device_has) {
    struct children children = {0};
    char name[LIMIT_DEVICE_ID_BYTES + 2] = "";
    memset(name, 'x', LIMIT_DEVICE_ID_BYTES + 1);
    cr_assert_eq(may(&children, 1, "gw", name, 0), DG_ERR_VIA);
    cr_assert_eq(may(&children, 1, "gw", name + 1, 0), CHILD_UNKNOWN);
    store(&children, 1, name + 1, 0, 10, "gw ", 0);
    cr_assert_eq(may(&children, 1, "gw", name + 1, 0), 0);
    children_free(&children);
}

Test(children, changes) {
    struct children children = {0};
    store(&children, 1, "a", 0, 10, "gw ", 0);
    store(&children, 1, "b", 0, 11, "gw ", 0);
    children_forget(&children, 10);
    children_forget(&children, 12);
    cr_assert_eq(may(&children, 1, "gw", "a", 0), CHILD_UNKNOWN);
    cr_assert_eq(may(&children, 1, "gw", "b", 0), 0);
    store(&children, 1, "b", 0, 13, "gw ", 0); /* deleted and made again */
    children_forget(&children, 11);
    cr_assert_eq(may(&children, 1, "gw", "b", 0), 0);
    store(&children, 1, "b", DG_ERR_VIA, 0, "", 0);
    cr_assert_eq(may(&children, 1, "gw", "b", 0), DG_ERR_VIA);
    cr_assert_eq(children.count, 1);
    cr_assert_eq(children.by_key.count, 0);
    children_free(&children);
}

Test(children, the_longest_unused_gives_way) {
    struct children children = {0};
    char name[16];
    for (int i = 0; i < LIMIT_CHILDREN_PER_WORKER; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        store(&children, 1, name, 0, i + 1, "gw ", 0);
    }
    cr_assert_eq(may(&children, 1, "gw", "c0", 0), 0);
    store(&children, 1, "new", 0, 1000000, "gw ", 0);
    cr_assert_eq(children.count, LIMIT_CHILDREN_PER_WORKER);
    cr_assert_eq(may(&children, 1, "gw", "c0", 0), 0);
    cr_assert_eq(may(&children, 1, "gw", "new", 0), 0);
    cr_assert_eq(may(&children, 1, "gw", "c1", 0), CHILD_UNKNOWN);
    children_free(&children);
}
