#include "tests/unit/registry/policies.h"

#include <string.h>

#include "tests/unit/registry/logins.h"

/* The next update, if one comes. */
static void wait_update(struct bench *b, unsigned count) {
    for (unsigned i = 0; i < 40 && b->update_count < count; i++)
        bench_run(b, 50);
    CHECK(b->update_count >= count, "no update came");
}

static void set(struct bench *b, const char *column, const char *value) {
    bench_sql(b->conninfo, "update tenant set %s = '%s', version = version + 1 where name = 'acme'",
              column, value);
}

/* A login brings them, and a change reaches those who are connected. */
void policies_check(struct bench *b) {
    struct registry_identity identity;
    bench_sql(b->conninfo, "insert into device (tenant_key, device_id, partition, group_name, via)"
                           " select tenant_key, 'grouped', 1, 'meters', '{gw1,gw2}' from tenant"
                           " where name = 'acme'");
    logins_add_key(b, "grouped", "key", "grouped-secret", NULL);
    set(b, "quota", "{\"messages_per_second\": 7}");
    bench_run(b, 300);
    b->quota = (struct registry_quota){0};
    CHECK(bench_login_secret(b, "acme", "grouped", "grouped-secret", &identity) == 0);
    CHECK(strcmp(identity.group, "meters") == 0);
    CHECK(b->quota.messages_per_second == 7);

    b->update_count = 0;
    set(b, "quota", "{\"messages_per_second\": 8, \"of_a_newer_release\": true}");
    wait_update(b, 1);
    CHECK(b->quota.messages_per_second == 8, "what is not known is passed over");

    set(b, "quota", "{\"messages_per_second\": \"many\"}");
    wait_update(b, 2);
    CHECK(b->quota.messages_per_second == 8, "what cannot be read leaves the one before");

    b->update_count = 0;
    bench_sql(b->conninfo, "update device set group_name = 'pumps' where device_id = 'grouped'");
    wait_update(b, 1);
    CHECK(strcmp(b->group, "pumps") == 0);
    bench_sql(b->conninfo, "update device set metadata = '{\"a\":1}' where device_id = 'grouped'");
    bench_run(b, 300);
    CHECK(b->update_count == 1, "the group is the same");
    set(b, "quota", "{}");
    bench_run(b, 300);
}
