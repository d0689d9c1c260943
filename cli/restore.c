/*
 * restore: both halves of a backup, or one of them beside the other as it is. What the halves that
 * meet then are to each other is said, in the words of deploy/runbook.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/dump.h"
#include "cli/manifest.h"
#include "cli/progress.h"
#include "common/clock.h"
#include "registry/registry.h"
#include "storage/verify.h"

/* Epochs are seconds since 2026: so two restores differ also where none can know of the other. */
enum { EPOCH_ZERO_S = 1767225600 };

struct restore {
    struct cli_run *run;
    struct config *config;
    const char *backup;
    struct manifest manifest;
    bool has_now; /* PostgreSQL was asked */
    struct registry_half now;
    struct progress progress;
    unsigned damage_count;
};

static void on_progress(void *context, uint64_t read_bytes) {
    progress_add(&((struct restore *)context)->progress, read_bytes);
}

/* ---- the stream ---------------------------------------------------------------------------------
 */

static int32_t last_epoch(const struct restore *restore) {
    char path[MANIFEST_PATH_SIZE];
    int epoch = 0;
    snprintf(path, sizeof(path), "%.4000s/last_epoch", restore->backup);
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%d", &epoch) != 1)
        epoch = 0;
    if (file)
        fclose(file);
    return epoch;
}

/* A backup may lie where nothing can be written: then the clock alone tells restores apart. */
static void keep_epoch(const struct restore *restore, int32_t epoch) {
    char path[MANIFEST_PATH_SIZE];
    snprintf(path, sizeof(path), "%.4000s/last_epoch", restore->backup);
    FILE *file = fopen(path, "we");
    if (file)
        fprintf(file, "%d\n", epoch);
    if (file)
        fclose(file);
}

static int32_t first_epoch(const struct restore *restore) {
    int64_t by_clock = clock_wall_ms() / 1000 - EPOCH_ZERO_S;
    int64_t epoch = (int64_t)last_epoch(restore) + 1;
    if (by_clock > epoch)
        epoch = by_clock;
    return epoch < INT32_MAX ? (int32_t)epoch : INT32_MAX;
}

static void on_journal(void *context, const struct storage_journal_report *journal) {
}

static void on_partition(void *context, const struct storage_partition_report *partition) {
}

static void on_damage(void *context, const char *path, uint64_t position, const char *what) {
    ((struct restore *)context)->damage_count++;
    fprintf(stderr, "DAMAGE %s at %" PRIu64 ": %s\n", path, position, what);
}

static bool check_store(struct restore *restore) {
    char error[STORAGE_ERROR_SIZE] = "";
    struct storage_report report = {.journal = on_journal,
                                    .partition = on_partition,
                                    .damage = on_damage,
                                    .progress = on_progress,
                                    .context = restore};
    const char *store = restore->config->storage_directory;
    restore->progress = progress_begin("verified", progress_measure(store));
    int err = storage_verify(store, &report, error);
    progress_end(&restore->progress);
    if (err < 0 && err != DG_ERR_CORRUPT)
        cli_fail(restore->run, 0, "%s", error[0] ? error : dg_err_text(err));
    return err == 0 || err == DG_ERR_CORRUPT;
}

static bool restore_stream(struct restore *restore) {
    char backup[MANIFEST_PATH_SIZE], error[STORAGE_BACKUP_ERROR_SIZE];
    snprintf(backup, sizeof(backup), "%.4000s/stream", restore->backup);
    struct storage_restore_options options = {
        .backup = backup,
        .store = restore->config->storage_directory,
        .files = restore->manifest.files,
        .file_count = restore->manifest.file_count,
        .epoch_min = first_epoch(restore),
        .progress = on_progress,
        .context = restore,
    };
    int32_t epoch;
    restore->progress = progress_begin("copied", progress_measure(backup));
    int err = storage_restore(&options, &epoch, error);
    progress_end(&restore->progress);
    if (err < 0) {
        cli_fail(restore->run, 0, "%s", error[0] ? error : dg_err_text(err));
        return false;
    }
    keep_epoch(restore, epoch);
    printf("stream: restored into %s, %u partitions, epoch %d\n", options.store,
           restore->manifest.partition_count, epoch);
    return check_store(restore);
}

/* ---- the registry -------------------------------------------------------------------------------
 */

static bool ask_registry(struct restore *restore, bool must) {
    char error[REGISTRY_ERROR_SIZE] = "";
    const struct config *config = restore->config;
    restore->has_now = registry_read_half(config->registry_conninfo, config->registry_password,
                                          &restore->now, error) == 0;
    if (!restore->has_now && must)
        cli_fail(restore->run, 0, "%s", error);
    else if (!restore->has_now)
        printf("registry: not compared, it does not answer (%s)\n", error);
    return restore->has_now || !must;
}

static bool check_dump(struct restore *restore, char *ret_path) {
    const struct manifest *manifest = &restore->manifest;
    uint64_t size;
    uint32_t crc;
    snprintf(ret_path, MANIFEST_PATH_SIZE, "%.4000s/registry.dump", restore->backup);
    if (!manifest->has_registry) {
        cli_fail(restore->run, 0, "this backup has no registry; --no-registry restores the stream");
        return false;
    }
    if (dump_measure(ret_path, &size, &crc) && size == manifest->dump_size_bytes &&
        crc == manifest->dump_crc)
        return true;
    cli_fail(restore->run, 0, "%s is not what was backed up: use another backup", ret_path);
    return false;
}

/* Before anything is changed. */
static bool prepare_registry(struct restore *restore, char *ret_path) {
    if (!check_dump(restore, ret_path) || !ask_registry(restore, true))
        return false;
    if (restore->now.is_empty)
        return true;
    cli_fail(restore->run, 0,
             "the database is not empty: drop and create it, or keep it with --no-registry");
    return false;
}

static bool restore_registry(struct restore *restore, const char *path) {
    if (!dump_read(restore->run, restore->config, path) || !ask_registry(restore, true))
        return false;
    printf("registry: restored, %lld tenants, revision %lld\n",
           (long long)restore->now.tenant_count, (long long)restore->now.revision);
    return true;
}

/* ---- do they fit? -------------------------------------------------------------------------------
 */

/* The stream has tenants that the registry was never told of. */
static void compare_ids(const struct restore *restore) {
    uint64_t last;
    int err = storage_last_stream(restore->config->storage_directory, &last);
    if (err < 0) {
        printf("stream: not compared (%s)\n", dg_err_text(err));
        return;
    }
    int64_t last_tenant = (int64_t)(last / STREAM_KINDS);
    if (last_tenant <= restore->now.last_stream_id)
        return;
    printf(
        "MISMATCH the registry is older than the stream: tenants with the stream ids %lld to "
        "%lld are in the stream and not in the registry.\n"
        "  Nobody can read their events, and no new tenant gets these numbers: the gateway moves "
        "PostgreSQL's sequences when it starts.\n",
        (long long)restore->now.last_stream_id + 1, (long long)last_tenant);
}

static void compare_revisions(const struct restore *restore, bool stream_is_old) {
    long long then = restore->manifest.registry.revision, now = restore->now.revision;
    if (!restore->manifest.has_registry || now <= then || !stream_is_old)
        return;
    printf("MISMATCH the registry is newer than the stream: it has changed since the backup "
           "(revision %lld, then %lld).\n"
           "  Tenants and devices are as they are now; events since the backup are gone. Consumers "
           "that have read them learn it by the epoch.\n",
           now, then);
}

/* ---- the command --------------------------------------------------------------------------------
 */

static int restore_halves(struct restore *restore) {
    bool with_stream = !cli_has(restore->run, CLI_REGISTRY_ONLY);
    bool with_registry = !cli_has(restore->run, CLI_NO_REGISTRY);
    char dump[MANIFEST_PATH_SIZE];
    if (with_stream && !cli_owns_store(restore->run, restore->config->storage_directory))
        return DG_EXIT_NOPERM;
    if (with_registry && !prepare_registry(restore, dump))
        return DG_EXIT_FAILURE;
    if (with_stream && !restore_stream(restore))
        return DG_EXIT_FAILURE;
    if (with_registry ? !restore_registry(restore, dump) : !ask_registry(restore, false))
        return DG_EXIT_FAILURE;
    if (restore->has_now) {
        compare_ids(restore);
        compare_revisions(restore, with_stream && !with_registry);
    }
    return restore->damage_count == 0
               ? DG_EXIT_OK
               : cli_fail(
                     restore->run, DG_EXIT_STORAGE,
                     "the store was damaged when it was backed up; see duragate storage repair");
}

int restore_run(struct cli_run *run) {
    char error[MANIFEST_ERROR_SIZE];
    struct restore restore = {.run = run, .backup = run->operand[0]};
    if (cli_has(run, CLI_NO_REGISTRY) && cli_has(run, CLI_REGISTRY_ONLY))
        return cli_fail(run, DG_EXIT_USAGE, "--no-registry and --registry-only leave nothing");
    restore.config = cli_load_config(run, run->repeated);
    if (!restore.config)
        return DG_EXIT_CONFIG;
    int code = DG_EXIT_FAILURE;
    if (manifest_read(restore.backup, &restore.manifest, error) < 0)
        cli_fail(run, 0, "%s", error);
    else
        code = restore_halves(&restore);
    manifest_free(&restore.manifest);
    config_free(restore.config);
    return code;
}
