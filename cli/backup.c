/*
 * backup: the stream first, then the registry. So the registry's half is never older than the
 * stream's: every tenant that the stream has data of is known to it, or its number is given out
 * already; were it the other way round, a tenant made after the restore could be given the number,
 * and the data, of another one. And what was revoked meanwhile stays revoked. The other way the
 * halves may differ is harmless: a tenant or device made in between has no events yet.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cli/dump.h"
#include "cli/manifest.h"
#include "cli/progress.h"
#include "common/clock.h"
#include "registry/registry.h"

enum {
    NAME_LENGTH = 16, /* 20261127T215500Z */
    MIB_PER_SECOND = 64,
    CHECKPOINT_WAIT_MS = 120 * 1000,
    KEEP_MAX = 100000,
    NICE = 10,
    DESCRIPTORS = 16,
};
#define PARTIAL ".partial"

struct backup {
    struct cli_run *run;
    struct config *config;
    const char *directory;
    char partial[MANIFEST_PATH_SIZE], final[MANIFEST_PATH_SIZE], before[MANIFEST_PATH_SIZE];
    struct manifest made, of_before; /* of_before: empty without one */
    uint64_t kept_bytes, new_bytes;
    bool no_memory;
    struct progress progress;
};

/* ---- what storage tells -------------------------------------------------------------------------
 */

static bool was_there(void *context, const char *name, uint64_t size_bytes, uint32_t *ret_crc) {
    const struct manifest *before = &((struct backup *)context)->of_before;
    for (unsigned i = 0; i < before->file_count; i++) {
        if (strcmp(before->files[i].name, name) != 0 || before->files[i].size_bytes != size_bytes)
            continue;
        *ret_crc = before->files[i].crc;
        return true;
    }
    return false;
}

static void on_file(void *context, const struct storage_backup_file *file) {
    struct backup *backup = context;
    *(file->way == STORAGE_BACKUP_COPIED ? &backup->new_bytes : &backup->kept_bytes) +=
        file->size_bytes;
    backup->no_memory |= !manifest_add_file(&backup->made, file);
}

static void on_partition(void *context, const struct storage_backup_partition *partition) {
    struct backup *backup = context;
    backup->no_memory |= !manifest_add_partition(&backup->made, partition);
}

static void on_damage(void *context, const char *path, const char *what) {
    struct backup *backup = context;
    backup->made.damage_count++;
    fprintf(stderr, "DAMAGE %s: %s\n", path, what);
}

static void on_progress(void *context, uint64_t read_bytes) {
    progress_add(&((struct backup *)context)->progress, read_bytes);
}

/* ---- the directory of backups -------------------------------------------------------------------
 */

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    return remove(path);
}

static void remove_tree(const char *path) {
    nftw(path, remove_entry, DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

/* Names as this command makes them, never anything else: they may be removed. */
static bool is_ours(const char *name, const char *suffix) {
    static const char pattern[] = "00000000T000000Z";
    for (unsigned i = 0; i < NAME_LENGTH; i++)
        if (pattern[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != pattern[i])
            return false;
    return strcmp(name + NAME_LENGTH, suffix) == 0;
}

static int is_partial(const struct dirent *entry) {
    return is_ours(entry->d_name, PARTIAL);
}

static int is_finished(const struct dirent *entry) {
    return is_ours(entry->d_name, "");
}

static void remove_partials(const struct backup *backup) {
    struct dirent **entries;
    int count = scandir(backup->directory, &entries, is_partial, alphasort);
    for (int i = 0; i < count; i++) {
        char path[MANIFEST_PATH_SIZE];
        snprintf(path, sizeof(path), "%.3000s/%.255s", backup->directory, entries[i]->d_name);
        remove_tree(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* The newest finished one, if its manifest can be read. */
static void find_before(struct backup *backup) {
    struct dirent **entries;
    char error[MANIFEST_ERROR_SIZE];
    int count = scandir(backup->directory, &entries, is_finished, alphasort);
    for (int i = count - 1; i >= 0; i--) {
        char path[MANIFEST_PATH_SIZE];
        snprintf(path, sizeof(path), "%.3000s/%.255s", backup->directory, entries[i]->d_name);
        if (!backup->before[0] && manifest_read(path, &backup->of_before, error) == 0)
            snprintf(backup->before, sizeof(backup->before), "%.3300s/stream", path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* Under the name of an unfinished one first: half a backup never looks like a whole one. */
static void remove_finished(const char *path) {
    char partial[MANIFEST_PATH_SIZE + sizeof(PARTIAL)];
    snprintf(partial, sizeof(partial), "%s" PARTIAL, path);
    remove_tree(rename(path, partial) == 0 ? partial : path);
}

/* Never the one just made, which is not the newest by name if the clock was ahead once. */
static void remove_oldest(const struct backup *backup, int64_t keep) {
    struct dirent **entries;
    int count = scandir(backup->directory, &entries, is_finished, alphasort);
    for (int i = 0; i < count; i++) {
        char path[MANIFEST_PATH_SIZE];
        snprintf(path, sizeof(path), "%.3000s/%.255s", backup->directory, entries[i]->d_name);
        if (i < count - keep && strcmp(path, backup->final) != 0)
            remove_finished(path);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* On the disk that it is to protect, among files that only the gateway may remove. */
static bool is_in_store(const struct backup *backup) {
    char *directory = realpath(backup->directory, NULL);
    char *store = realpath(backup->config->storage_directory, NULL);
    size_t size = store ? strlen(store) : 0;
    bool is_in = directory && store && strncmp(directory, store, size) == 0 &&
                 (directory[size] == '/' || directory[size] == '\0');
    free(directory);
    free(store);
    return is_in;
}

static bool make_directory(const struct backup *backup) {
    bool is_new = mkdir(backup->directory, 0750) == 0;
    if (!is_new && errno != EEXIST) {
        cli_fail(backup->run, 0, "%s: %s", backup->directory, strerror(errno));
        return false;
    }
    if (!is_in_store(backup))
        return true;
    if (is_new)
        rmdir(backup->directory);
    cli_fail(backup->run, 0, "%s lies in the store itself (%s): give a directory on another disk",
             backup->directory, backup->config->storage_directory);
    return false;
}

/* One backup at a time. The descriptor lives as long as the process. False after printing why. */
static bool take_directory(const struct backup *backup) {
    if (!make_directory(backup))
        return false;
    int fd = open(backup->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    cli_fail(backup->run, 0, "%s: %s", backup->directory,
             fd < 0 ? strerror(errno) : "another backup is at work there");
    return false;
}

static void name_by_time(struct backup *backup) {
    char name[NAME_LENGTH + 1];
    struct tm utc;
    time_t seconds = (time_t)(clock_wall_ms() / 1000);
    gmtime_r(&seconds, &utc);
    strftime(name, sizeof(name), "%Y%m%dT%H%M%SZ", &utc);
    snprintf(backup->final, sizeof(backup->final), "%.3000s/%s", backup->directory, name);
    snprintf(backup->partial, sizeof(backup->partial), "%.3000s/%s" PARTIAL, backup->directory,
             name);
}

static bool make_names(struct backup *backup) {
    name_by_time(backup);
    while (access(backup->final, F_OK) == 0) { /* of this second: the next one has another name */
        usleep(100 * 1000);
        name_by_time(backup);
    }
    if (mkdir(backup->partial, 0750) == 0)
        return true;
    cli_fail(backup->run, 0, "%s: %s", backup->partial, strerror(errno));
    return false;
}

/* ---- the two halves -----------------------------------------------------------------------------
 */

/* Behind everybody else: the gateway's reads and writes come first. */
static void step_back(void) {
    enum { WHO_PROCESS = 1, CLASS_IDLE = 3, CLASS_SHIFT = 13 };
    if (nice(NICE) == -1)
        return;
    syscall(SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE << CLASS_SHIFT);
}

static bool back_up_stream(struct backup *backup, int64_t mib_per_second) {
    char target[MANIFEST_PATH_SIZE], error[STORAGE_BACKUP_ERROR_SIZE];
    snprintf(target, sizeof(target), "%.3300s/stream", backup->partial);
    const char *store = backup->config->storage_directory;
    struct storage_backup_options options = {
        .store = store,
        .target = target,
        .before = backup->before[0] ? backup->before : NULL,
        .before_is_damaged = backup->of_before.damage_count > 0,
        .rate_bytes = (uint64_t)mib_per_second << 20,
        .reserve_bytes = (uint64_t)backup->config->storage_reserve,
        .wait_ms = CHECKPOINT_WAIT_MS,
        .context = backup,
        .was_there = was_there,
        .file = on_file,
        .partition = on_partition,
        .damage = on_damage,
        .progress = on_progress,
    };
    backup->progress = progress_begin("read", progress_measure(store));
    int err = storage_backup(&options, &backup->made.stream, error);
    progress_end(&backup->progress);
    if (err == 0 && backup->no_memory)
        err = DG_ERR_NO_MEMORY;
    if (err < 0)
        cli_fail(backup->run, 0, "%s%s", error[0] ? error : dg_err_text(err),
                 cli_has(backup->run, CLI_CONFIG)
                     ? ""
                     : " (no --config was given: defaults and --set hold)");
    if (err == 0 && backup->made.stream.is_late)
        fprintf(stderr,
                "the gateway did not write the checkpoint that it was asked for; this backup is of "
                "its last one\n");
    return err == 0;
}

static bool back_up_registry(struct backup *backup) {
    char path[MANIFEST_PATH_SIZE], error[REGISTRY_ERROR_SIZE] = "";
    const struct config *config = backup->config;
    snprintf(path, sizeof(path), "%.3300s/registry.dump", backup->partial);
    if (registry_read_half(config->registry_conninfo, config->registry_password,
                           &backup->made.registry, error) < 0) {
        cli_fail(backup->run, 0, "%s; --no-registry backs up the stream alone", error);
        return false;
    }
    backup->made.has_registry = true;
    return dump_write(backup->run, config, path) &&
           dump_measure(path, &backup->made.dump_size_bytes, &backup->made.dump_crc);
}

static int sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    return error;
}

static bool finish(struct backup *backup) {
    backup->made.made_ms = clock_wall_ms();
    int error = sync_directory(backup->partial);
    if (error == 0)
        error = manifest_write(&backup->made, backup->partial);
    if (error == 0)
        error = sync_directory(backup->partial);
    if (error == 0 && rename(backup->partial, backup->final) != 0)
        error = errno;
    if (error == 0)
        error = sync_directory(backup->directory);
    if (error != 0)
        cli_fail(backup->run, 0, "%s: %s", backup->partial, strerror(error));
    return error == 0;
}

/* ---- the command --------------------------------------------------------------------------------
 */

static void print_done(const struct backup *backup) {
    const struct manifest *made = &backup->made;
    if (cli_has(backup->run, CLI_JSON)) {
        json_t *line =
            json_pack("{s:s, s:I, s:I, s:I, s:b, s:I}", "backup", backup->final, "partitions",
                      (json_int_t)made->partition_count, "copied_bytes",
                      (json_int_t)backup->new_bytes, "linked_bytes", (json_int_t)backup->kept_bytes,
                      "registry", made->has_registry, "damages", (json_int_t)made->damage_count);
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(line);
        return;
    }
    char taken[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339((int64_t)made->stream.checkpoint_ms, taken);
    printf("%s\nstream as of %.*s: %u partitions, %llu MiB copied, %llu MiB linked\n",
           backup->final, (int)sizeof(taken), taken, made->partition_count,
           (unsigned long long)(backup->new_bytes >> 20),
           (unsigned long long)(backup->kept_bytes >> 20));
    if (made->has_registry)
        printf("registry: %lld tenants, revision %lld\n", (long long)made->registry.tenant_count,
               (long long)made->registry.revision);
    const char *key = backup->config->security_master_key_file;
    if (key[0])
        printf("keep %s as well, elsewhere: without it no device key of the registry is good\n",
               key);
}

static int back_up(struct backup *backup, int64_t keep, int64_t mib_per_second) {
    if (!take_directory(backup))
        return DG_EXIT_UNAVAILABLE;
    remove_partials(backup);
    find_before(backup);
    step_back();
    if (!make_names(backup))
        return DG_EXIT_UNAVAILABLE;
    bool done = back_up_stream(backup, mib_per_second) &&
                (cli_has(backup->run, CLI_NO_REGISTRY) || back_up_registry(backup)) &&
                finish(backup);
    if (!done) {
        remove_tree(backup->partial); /* it may be what fills the disk */
        return DG_EXIT_FAILURE;
    }
    print_done(backup);
    if (keep > 0)
        remove_oldest(backup, keep);
    return backup->made.damage_count > 0
               ? cli_fail(backup->run, DG_EXIT_STORAGE,
                          "the store is damaged: see duragate storage verify; the backup has what "
                          "can be read")
               : DG_EXIT_OK;
}

int backup_run(struct cli_run *run) {
    int64_t keep, mib_per_second;
    if (!cli_number(run, CLI_KEEP, 1, KEEP_MAX, 0, &keep) ||
        !cli_number(run, CLI_MIB_PER_SECOND, 0, 1 << 20, MIB_PER_SECOND, &mib_per_second))
        return DG_EXIT_USAGE;
    struct config *config = cli_load_config(run, run->repeated);
    struct backup *backup = config ? calloc(1, sizeof(*backup)) : NULL;
    if (!backup) {
        config_free(config);
        return DG_EXIT_CONFIG;
    }
    backup->run = run;
    backup->config = config;
    backup->directory = run->operand[0];
    int code = back_up(backup, keep, mib_per_second);
    manifest_free(&backup->made);
    manifest_free(&backup->of_before);
    free(backup);
    config_free(config);
    return code;
}
