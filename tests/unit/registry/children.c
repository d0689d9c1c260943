#include "tests/unit/registry/children.h"

#include <stdlib.h>
#include <string.h>

struct found {
    bool done;
    int err;
    int64_t device_key;
    uint32_t partition;
    bool is_listed;
    char group[LIMIT_GROUP_NAME_BYTES + 1];
};

static void deliver(struct mail *mail, void *receiver) {
    struct registry_child_query *query = (struct registry_child_query *)(void *)mail;
    struct found *found = (struct found *)(uintptr_t)query->owner;
    *found = (struct found){.done = true,
                            .err = query->err,
                            .device_key = query->device_key,
                            .partition = query->partition,
                            .is_listed =
                                query->err == 0 &&
                                registry_is_listed(query->via, slice_from_string(query->gateway))};
    memcpy(found->group, query->group, sizeof(found->group));
    registry_child_query_free(query);
}

static int64_t tenant_key_of(struct bench *b, const char *tenant) {
    return atoll(bench_sql(b->conninfo, "select tenant_key from tenant where name = '%s'", tenant));
}

static struct found ask(struct bench *b, const char *tenant, int64_t tenant_key,
                        const char *gateway, const char *child) {
    struct found found = {0};
    struct registry_child_query *query = calloc(1, sizeof(*query));
    query->mail.deliver = deliver;
    query->reply_to = &b->mailbox;
    query->owner = (uintptr_t)&found;
    query->tenant_key = tenant_key;
    strcpy(query->tenant, tenant);
    strcpy(query->gateway, gateway);
    strcpy(query->child, child);
    registry_find_child(b->registry, query);
    bench_wait(b, &found.done, 20000);
    CHECK(found.done, "%s", child);
    return found;
}

static void set(struct bench *b, const char *what) {
    bench_sql(b->conninfo, "update device set %s where device_id = 'child'", what);
}

/* Each change is told, and what is asked afterwards is answered anew. */
static void check_changes(struct bench *b, int64_t acme, int64_t key) {
    static const struct {
        const char *change;
        int err;
        bool is_listed;
    } cases[] = {
        {"via = '{gw2}'", 0, false},
        {"via = '{gw2,gw1}'", 0, true},
        {"enabled = false", DG_ERR_VIA, false},
        {"enabled = true", 0, true},
        {"group_name = 'pumps'", 0, true},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        b->revocation_count = 0;
        set(b, cases[i].change);
        CHECK(bench_wait_revocation(b, key, 0), "%s", cases[i].change);
        struct found found = ask(b, "acme", acme, "gw1", "child");
        CHECK(found.err == cases[i].err, "%s: %d", cases[i].change, found.err);
        CHECK(found.is_listed == cases[i].is_listed, "%s", cases[i].change);
    }
    CHECK(strcmp(ask(b, "acme", acme, "gw1", "child").group, "pumps") == 0);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "delete from device where device_id = 'child'");
    CHECK(bench_wait_revocation(b, key, 0));
    CHECK(ask(b, "acme", acme, "gw1", "child").err == DG_ERR_VIA);
}

/* A no is not said from the cache: the change that makes it a yes may not have been heard yet. */
static void check_at_once(struct bench *b, int64_t acme, int64_t key) {
    for (unsigned i = 0; i < 10; i++) {
        b->revocation_count = 0;
        set(b, "via = '{}'");
        CHECK(bench_wait_revocation(b, key, 0));
        CHECK(!ask(b, "acme", acme, "gw1", "child").is_listed);
        b->revocation_count = 0;
        set(b, "via = '{gw1}'");
        CHECK(ask(b, "acme", acme, "gw1", "child").is_listed);
        CHECK(bench_wait_revocation(b, key, 0));
    }
}

void children_check(struct bench *b) {
    int64_t acme = tenant_key_of(b, "acme");
    CHECK(ask(b, "acme", acme, "gw1", "child").err == DG_ERR_VIA);
    CHECK(ask(b, "acme", acme, "gw1", "a'; drop table device").err == DG_ERR_VIA);
    CHECK(ask(b, "acme", acme, "gw1", "\xff").err == DG_ERR_VIA);
    CHECK(ask(b, "nobody", acme, "gw1", "child").err == DG_ERR_VIA);
    bench_sql(b->conninfo,
              "insert into device (tenant_key, device_id, partition, group_name, via)"
              " values (%lld, 'child', 3, 'meters', '{gw1}')",
              (long long)acme);
    bench_run(b, 300);
    for (unsigned i = 0; i < 2; i++) { /* from PostgreSQL, then from the cache */
        struct found found = ask(b, "acme", acme, "gw1", "child");
        CHECK(found.err == 0 && found.is_listed && found.partition == 3 && found.device_key != 0);
        CHECK(strcmp(found.group, "meters") == 0);
    }
    CHECK(!ask(b, "acme", acme, "gw2", "child").is_listed);
    CHECK(ask(b, "acme", acme + 1000000, "gw1", "child").err == DG_ERR_VIA, "another tenant's");
    int64_t key = ask(b, "acme", acme, "gw1", "child").device_key;
    check_at_once(b, acme, key);
    check_changes(b, acme, key);
}
