/* The registry thread: its life, its mailbox, and what others ask of it. */
#include "registry/registry.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/random.h"
#include "common/thread.h"
#include "registry/directory.h"

/* ---- requests of the API ---- */

static void deliver_request(struct mail *mail, void *receiver) {
    requests_begin(receiver, (struct registry_request *)(void *)mail);
}

void registry_execute(struct registry *registry, struct registry_request *request) {
    request->reply = request->mail.deliver;
    request->mail.deliver = deliver_request;
    mailbox_post(&registry->mailbox, &request->mail);
}

struct registry_request *registry_request_new(enum registry_statement statement) {
    struct registry_request *request = calloc(1, sizeof(*request));
    if (request)
        request->statement = statement;
    return request;
}

int registry_request_add(struct registry_request *request, struct slice value) {
    if (request->parameter_count == REGISTRY_PARAMETERS_MAX)
        return DG_ERR_LIMIT;
    if (value.size && memchr(value.data, 0, value.size))
        return DG_ERR_INVALID; /* PostgreSQL's text has no NUL */
    char *copy = NULL;
    if (value.data && !(copy = strndup((const char *)value.data, value.size)))
        return DG_ERR_NO_MEMORY;
    request->parameters[request->parameter_count++] = copy;
    return 0;
}

static void wipe_free(char *text) {
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void registry_request_free(struct registry_request *request) {
    if (!request)
        return;
    for (unsigned i = 0; i < request->parameter_count; i++)
        wipe_free(request->parameters[i]); /* may be a secret's hash */
    for (unsigned i = 0; request->values && i < request->row_count * request->column_count; i++)
        free(request->values[i]);
    free(request->values);
    free(request->detail);
    free(request);
}

/* ---- logins ---- */

static void deliver_login(struct mail *mail, void *receiver) {
    login_begin(receiver, (struct registry_login *)(void *)mail);
}

void registry_login(struct registry *registry, struct registry_login *login) {
    login->reply = login->mail.deliver;
    login->mail.deliver = deliver_login;
    login->began_ms = clock_monotonic_ms();
    mailbox_post(&registry->mailbox, &login->mail);
}

static void copy_name(struct slice name, char *ret_name) {
    if (name.size)
        memcpy(ret_name, name.data, name.size);
    ret_name[name.size] = '\0';
}

struct registry_login *registry_login_new(enum registry_login_kind kind, struct slice tenant,
                                          struct slice name, struct slice secret) {
    struct registry_login *login = registry_login_fits(kind, tenant, name, secret)
                                       ? calloc(1, sizeof(*login) + secret.size + 1)
                                       : NULL;
    if (!login)
        return NULL;
    copy_name(tenant, login->tenant);
    copy_name(name, login->name);
    login->kind = kind;
    if (secret.size)
        memcpy(login->secret_bytes, secret.data, secret.size);
    login->secret = slice_make(login->secret_bytes, secret.size);
    return login;
}

void registry_login_free(struct registry_login *login) {
    if (!login)
        return;
    explicit_bzero(login->secret_bytes, login->secret.size);
    registry_policy_release(login->identity.policy);
    free(login);
}

void registry_update_free(struct registry_update *update) {
    registry_policy_release(update->policy);
    free(update);
}

/* ---- tenants ---- */

struct tenants_query {
    struct postgres_query query;
    struct registry *registry;
    struct registry_tenant_query *asked;
};

static void tenants_reply(struct registry_tenant_query *query, int err) {
    query->err = err;
    query->mail.deliver = query->reply;
    mailbox_post(query->reply_to, &query->mail);
}

static bool take_tenant(struct registry_tenant_query *query, const struct cache_tenant *tenant) {
    struct registry_tenant *to = &query->tenants[query->tenant_count++];
    *to = (struct registry_tenant){.tenant_key = tenant->key,
                                   .stream_id = tenant->stream_id,
                                   .partition_count = tenant->partition_count};
    memcpy(to->name, tenant->name, sizeof(to->name));
    return true;
}

static void tenants_found(struct postgres_query *query, int err, const PGresult *result,
                          const char *detail) {
    struct tenants_query *q = (struct tenants_query *)(void *)query;
    int rows = err == 0 ? PQntuples(result) : 0;
    q->asked->tenants = calloc((size_t)rows + 1, sizeof(*q->asked->tenants));
    for (int row = 0; q->asked->tenants && row < rows; row++) {
        const struct cache_tenant *tenant = cache_store_tenant(&q->registry->cache, result, row, 0);
        if (tenant)
            take_tenant(q->asked, tenant);
    }
    tenants_reply(q->asked, !q->asked->tenants ? DG_ERR_NO_MEMORY : err);
    free(q);
}

/* From the cache, which hears of every change, for one tenant; a list is always asked for. */
void tenants_begin(struct registry *registry, struct registry_tenant_query *query) {
    const struct cache_tenant *known =
        query->tenant[0] ? cache_find_tenant_by_name(&registry->cache, query->tenant) : NULL;
    struct tenants_query *q = calloc(1, sizeof(*q));
    if (known)
        query->tenants = calloc(1, sizeof(*query->tenants));
    if (known && query->tenants) {
        take_tenant(query, known);
        tenants_reply(query, 0);
        free(q);
        return;
    }
    if (!q || known) {
        free(q);
        tenants_reply(query, DG_ERR_NO_MEMORY);
        return;
    }
    q->registry = registry;
    q->asked = query;
    q->query.statement = STATEMENT_LOGIN_TENANTS;
    q->query.done = tenants_found;
    postgres_send(registry->queries, &q->query, 2,
                  (const char *[]){query->tenant[0] ? query->tenant : NULL, NULL});
}

static void deliver_tenant_query(struct mail *mail, void *receiver) {
    tenants_begin(receiver, (struct registry_tenant_query *)(void *)mail);
}

void registry_find_tenants(struct registry *registry, struct registry_tenant_query *query) {
    query->reply = query->mail.deliver;
    query->mail.deliver = deliver_tenant_query;
    mailbox_post(&registry->mailbox, &query->mail);
}

void registry_tenant_query_free(struct registry_tenant_query *query) {
    if (query)
        free(query->tenants);
    free(query);
}

/* ---- passwords to be hashed ---- */

struct hash_job {
    struct password_job job;
    struct registry_password_hash *hash;
};

static void hash_reply(struct registry_password_hash *hash, int err) {
    hash->err = err;
    hash->mail.deliver = hash->reply;
    mailbox_post(hash->reply_to, &hash->mail);
}

static void deliver_hashed(struct mail *mail, void *receiver) {
    struct hash_job *job = (struct hash_job *)(void *)mail;
    memcpy(job->hash->encoded, job->job.encoded, sizeof(job->hash->encoded));
    hash_reply(job->hash, job->job.err);
    free(job);
}

static void deliver_hash(struct mail *mail, void *receiver) {
    struct registry *registry = receiver;
    struct registry_password_hash *hash = (struct registry_password_hash *)(void *)mail;
    struct hash_job *job = calloc(1, sizeof(*job));
    int err = DG_ERR_NO_MEMORY;
    if (job) {
        job->hash = hash;
        job->job.mail.deliver = deliver_hashed;
        job->job.reply_to = &registry->mailbox;
        job->job.password = slice_make(hash->password, hash->password_size);
        credential_derive_salt(&registry->master, hash->tenant, hash->device, job->job.salt);
        err = password_pool_submit(registry->passwords, &job->job);
    }
    if (err < 0) {
        free(job);
        hash_reply(hash, err);
    }
}

void registry_hash_password(struct registry *registry, struct registry_password_hash *hash) {
    hash->reply = hash->mail.deliver;
    hash->mail.deliver = deliver_hash;
    mailbox_post(&registry->mailbox, &hash->mail);
}

void registry_password_hash_free(struct registry_password_hash *hash) {
    if (hash)
        explicit_bzero(hash, sizeof(*hash));
    free(hash);
}

const struct credential_master *registry_master(const struct registry *registry) {
    return &registry->master;
}

/* ---- condition ---- */

bool registry_is_up(struct registry *registry, const char **ret_why) {
    static const char *const texts[] = {
        [REGISTRY_STARTING] = "PostgreSQL is not connected yet",
        [REGISTRY_UP] = "",
        [REGISTRY_NO_QUERIES] = "PostgreSQL does not answer",
        [REGISTRY_NO_CHANGES] = "changes in PostgreSQL are not being heard",
        [REGISTRY_OLD_SCHEMA] = "the database has an older schema: run duragate migrate",
        [REGISTRY_NEW_SCHEMA] = "the database has a schema that is too new: install its release",
        [REGISTRY_OTHER_SCHEMA] = "a migration was applied in another form than this release has",
    };
    int condition = atomic_load(&registry->condition);
    *ret_why = texts[condition];
    return condition == REGISTRY_UP;
}

int registry_check_schema(struct registry *registry, uint64_t timeout_ms, char *ret_error) {
    enum { LOOK_MS = 5 };
    int fit;
    for (uint64_t waited_ms = 0;
         (fit = atomic_load(&registry->schema)) == SCHEMA_UNKNOWN && waited_ms < timeout_ms;
         waited_ms += LOOK_MS)
        poll(NULL, 0, LOOK_MS);
    if (fit == SCHEMA_UNKNOWN || fit == SCHEMA_UNREACHED || fit == SCHEMA_FITS)
        return 0;
    schema_describe((enum schema_fit)fit, atomic_load(&registry->schema_version), ret_error,
                    REGISTRY_ERROR_SIZE);
    return DG_ERR_UNSUPPORTED_VERSION;
}

int registry_listen(struct registry *registry, struct mailbox *mailbox,
                    const struct registry_receiver *receiver) {
    struct registry_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return DG_ERR_NO_MEMORY;
    *listener = (struct registry_listener){
        .next = atomic_load(&registry->listeners), .mailbox = mailbox, .receiver = *receiver};
    atomic_store(&registry->listeners, listener); /* the registry thread may be reading */
    return 0;
}

struct reconfigure {
    struct mail mail;
    uint64_t query_timeout_ms;
};

static void deliver_reconfigure(struct mail *mail, void *receiver) {
    struct registry *registry = receiver;
    registry->query_timeout_ms = ((struct reconfigure *)(void *)mail)->query_timeout_ms;
    free(mail);
    if (!registry->queries) /* closing */
        return;
    postgres_set_timeout(registry->queries, registry->query_timeout_ms);
    postgres_set_timeout(registry->changes, registry->query_timeout_ms);
    requests_set_timeout(registry);
}

int registry_reconfigure(struct registry *registry, uint64_t query_timeout_ms) {
    struct reconfigure *reconfigure = malloc(sizeof(*reconfigure));
    if (!reconfigure)
        return DG_ERR_NO_MEMORY;
    *reconfigure = (struct reconfigure){.mail.deliver = deliver_reconfigure,
                                        .query_timeout_ms = query_timeout_ms};
    mailbox_post(&registry->mailbox, &reconfigure->mail);
    return 0;
}

static void deliver_floor(struct mail *mail, void *receiver) {
    struct registry *registry = receiver;
    const struct registry_floor *floor = &((struct registry_floor_mail *)(void *)mail)->floor;
    if (!registry->queries) /* closing */
        return;
    postgres_set_floor(registry->queries, floor);
    postgres_set_floor(registry->changes, floor);
    requests_set_floor(registry, floor);
}

void registry_set_floor(struct registry *registry, const struct registry_floor *floor) {
    registry->floor_mail =
        (struct registry_floor_mail){.mail.deliver = deliver_floor, .floor = *floor};
    mailbox_post(&registry->mailbox, &registry->floor_mail.mail);
}

/* ---- the thread ---- */

static void queries_changed(void *context) {
    struct registry *registry = context;
    int version;
    enum schema_fit fit = postgres_schema(registry->queries, &version);
    atomic_store(&registry->schema_version, version); /* first: whoever sees the fit reads it */
    atomic_store(&registry->schema, (int)fit);
    changes_update_condition(registry);
}

static void ignore(void *context, const char *channel, const char *text) {
}

static void on_mail(evutil_socket_t fd, short what, void *context) {
    struct registry *registry = context;
    mailbox_drain(&registry->mailbox);
}

static void deliver_stop(struct mail *mail, void *receiver) {
    struct registry *registry = receiver;
    event_base_loopbreak(registry->base);
}

static void *run(void *context) {
    struct registry *registry = context;
    event_base_dispatch(registry->base);
    /* What is still out comes back before the connections go. */
    requests_close(registry);
    postgres_free(registry->queries);
    postgres_free(registry->changes);
    registry->queries = registry->changes = NULL;
    return NULL;
}

/* The connections, before the thread runs: they begin with its loop. */
static int create_connections(struct registry *registry) {
    struct postgres_options options = {
        .name = "queries",
        .conninfo = registry->conninfo,
        .password = registry->password,
        .timeout_ms = registry->query_timeout_ms,
        .context = registry,
        .ready = queries_changed,
        .lost = queries_changed,
        .notified = ignore,
    };
    int err = postgres_create(registry->base, &options, &registry->queries);
    if (err == 0)
        err = requests_create(registry);
    if (err < 0)
        return err;
    options.name = "changes";
    options.listen = changes_channels;
    options.ready = changes_ready;
    options.lost = changes_lost;
    options.notified = changes_notified;
    return postgres_create(registry->base, &options, &registry->changes);
}

static int create_events(struct registry *registry) {
    registry->mailbox_event = event_new(registry->base, mailbox_fd(&registry->mailbox),
                                        EV_READ | EV_PERSIST, on_mail, registry);
    registry->change_timer = evtimer_new(registry->base, changes_on_timer, registry);
    registry->collect_timer = evtimer_new(registry->base, collect_on_timer, registry);
    if (!registry->mailbox_event || !registry->change_timer || !registry->collect_timer ||
        event_add(registry->mailbox_event, NULL) != 0 ||
        event_add(registry->change_timer, &(struct timeval){.tv_sec = 1}) != 0 ||
        event_add(registry->collect_timer, &(struct timeval){.tv_sec = 1}) != 0)
        return DG_ERR_NO_MEMORY;
    return 0;
}

static int create_parts(struct registry *registry, const struct registry_options *options) {
    registry->conninfo = strdup(options->conninfo);
    registry->password = strdup(options->password);
    registry->query_timeout_ms = options->query_timeout_ms;
    registry->cache.devices_max = options->cache_devices_max;
    registry->cache.master_id = credential_master_id(&registry->master);
    registry->revision = -1;
    registry->retry_revision = INT64_MAX;
    random_bytes(registry->verified_key, sizeof(registry->verified_key));
    registry->base = event_base_new();
    if (!registry->conninfo || !registry->password || !registry->base)
        return DG_ERR_NO_MEMORY;
    int err = mailbox_init(&registry->mailbox, registry);
    if (err == 0)
        err = password_pool_create(&registry->passwords);
    if (err == 0)
        err = create_connections(registry);
    return err == 0 ? create_events(registry) : err;
}

static void free_parts(struct registry *registry) {
    password_pool_free(registry->passwords);
    registry->passwords = NULL;
    if (registry->mailbox.receiver) {
        mailbox_drain(&registry->mailbox); /* answers of the pool, late requests */
        mailbox_free(&registry->mailbox);
    }
    if (registry->mailbox_event)
        event_free(registry->mailbox_event);
    if (registry->change_timer)
        event_free(registry->change_timer);
    if (registry->collect_timer)
        event_free(registry->collect_timer);
    if (registry->base)
        event_base_free(registry->base);
    struct registry_listener *listener = atomic_load(&registry->listeners), *next;
    for (; listener; listener = next) {
        next = listener->next;
        free(listener);
    }
    cache_free(&registry->cache);
    authorities_clear(&registry->authorities);
    free(registry->stale);
    free(registry->conninfo);
    wipe_free(registry->password);
    explicit_bzero(registry, sizeof(*registry));
    free(registry);
}

int registry_open(const struct registry_options *options, struct registry **ret_registry,
                  char *ret_error) {
    struct registry *registry = calloc(1, sizeof(*registry));
    if (!registry)
        return DG_ERR_NO_MEMORY;
    int err = credential_master_load(options->master_key_file, &registry->master, ret_error);
    if (err < 0) {
        free(registry);
        return err;
    }
    err = create_parts(registry, options);
    if (err == 0)
        err = thread_start(&registry->thread, "registry", run, registry);
    if (err < 0) {
        snprintf(ret_error, REGISTRY_ERROR_SIZE, "the registry cannot start: %s", dg_err_text(err));
        requests_close(registry);
        postgres_free(registry->queries);
        postgres_free(registry->changes);
        free_parts(registry);
        return err;
    }
    *ret_registry = registry;
    return 0;
}

void registry_close(struct registry *registry) {
    registry->stop_mail.deliver = deliver_stop;
    mailbox_post(&registry->mailbox, &registry->stop_mail);
    pthread_join(registry->thread, NULL);
    free_parts(registry);
}
