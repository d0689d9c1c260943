/* 64-bit numbers are strings, since JSON's readers do not keep them. */
#include "cli/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

/* ---- building -----------------------------------------------------------------------------------
 */

/* Room for one more in an array that doubles. */
static bool grow(void **items, unsigned count, size_t item_size) {
    if (count & (count - 1))
        return true;
    void *grown = realloc(*items, (count ? 2 * (size_t)count : 1) * item_size);
    if (grown)
        *items = grown;
    return grown != NULL;
}

bool manifest_add_file(struct manifest *manifest, const struct storage_backup_file *file) {
    void *items = manifest->files;
    if (!grow(&items, manifest->file_count, sizeof(*file)))
        return false;
    manifest->files = items;
    manifest->files[manifest->file_count++] = *file;
    return true;
}

bool manifest_add_partition(struct manifest *manifest,
                            const struct storage_backup_partition *partition) {
    void *items = manifest->partitions;
    if (!grow(&items, manifest->partition_count, sizeof(*partition)))
        return false;
    manifest->partitions = items;
    manifest->partitions[manifest->partition_count++] = *partition;
    if (partition->stream_id > manifest->last_stream)
        manifest->last_stream = partition->stream_id;
    return true;
}

void manifest_free(struct manifest *manifest) {
    free(manifest->files);
    free(manifest->partitions);
    *manifest = (struct manifest){0};
}

/* ---- writing ------------------------------------------------------------------------------------
 */

static json_t *text_of(uint64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    return json_string(text);
}

static json_t *hex_of(uint32_t number) {
    char text[12];
    snprintf(text, sizeof(text), "%08x", number);
    return json_string(text);
}

static json_t *registry_json(const struct manifest *manifest) {
    const struct registry_half *half = &manifest->registry;
    return json_pack("{s:i, s:o, s:o, s:o, s:s, s:o, s:o}", "schema_version", half->schema_version,
                     "revision", text_of((uint64_t)half->revision), "last_stream_id",
                     text_of((uint64_t)half->last_stream_id), "tenants",
                     text_of((uint64_t)half->tenant_count), "file", "registry.dump", "size_bytes",
                     text_of(manifest->dump_size_bytes), "crc32c", hex_of(manifest->dump_crc));
}

static json_t *stream_json(const struct manifest *manifest) {
    const struct storage_backup_summary *stream = &manifest->stream;
    json_t *partitions = json_array(), *files = json_array();
    for (unsigned i = 0; i < manifest->partition_count; i++) {
        const struct storage_backup_partition *p = &manifest->partitions[i];
        json_array_append_new(partitions,
                              json_pack("{s:o, s:I, s:o, s:o}", "stream", text_of(p->stream_id),
                                        "partition", (json_int_t)p->partition, "log_start",
                                        text_of((uint64_t)p->log_start), "end",
                                        text_of((uint64_t)p->end)));
    }
    for (unsigned i = 0; i < manifest->file_count; i++) {
        const struct storage_backup_file *f = &manifest->files[i];
        json_array_append_new(files, json_pack("{s:s, s:o, s:o}", "name", f->name, "size_bytes",
                                               text_of(f->size_bytes), "crc32c", hex_of(f->crc)));
    }
    return json_pack("{s:I, s:o, s:I, s:o, s:o, s:I, s:o, s:o}", "format",
                     (json_int_t)stream->version, "fingerprint", hex_of(stream->fingerprint),
                     "epoch", (json_int_t)stream->epoch, "lsn", text_of(stream->lsn), "last_stream",
                     text_of(manifest->last_stream), "damages", (json_int_t)manifest->damage_count,
                     "partitions", partitions, "files", files);
}

static int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    size_t size = strlen(text);
    int error = fd < 0 ? errno : 0;
    while (error == 0 && size > 0) {
        ssize_t written = write(fd, text, size);
        if (written < 0 && errno != EINTR)
            error = errno;
        if (written > 0) {
            text += written;
            size -= (size_t)written;
        }
    }
    if (error == 0 && fsync(fd) != 0)
        error = errno;
    if (fd >= 0)
        close(fd);
    return error;
}

int manifest_write(const struct manifest *manifest, const char *backup) {
    char path[MANIFEST_PATH_SIZE], made[CLOCK_RFC3339_SIZE], taken[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(manifest->made_ms, made);
    clock_format_rfc3339((int64_t)manifest->stream.checkpoint_ms, taken);
    json_t *all = json_pack("{s:i, s:s#, s:s#, s:o}", "manifest", MANIFEST_VERSION, "made_at", made,
                            (int)strnlen(made, sizeof(made)), "stream_as_of", taken,
                            (int)strnlen(taken, sizeof(taken)), "stream", stream_json(manifest));
    if (all && manifest->has_registry)
        json_object_set_new(all, "registry", registry_json(manifest));
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (!text)
        return ENOMEM;
    snprintf(path, sizeof(path), "%s/manifest.json", backup);
    int error = write_file(path, text);
    free(text);
    return error;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

/* Of a member that is a string of digits. */
static bool get_number(const json_t *object, const char *name, uint64_t *ret_number) {
    const char *text = json_string_value(json_object_get(object, name));
    char *end;
    errno = 0;
    unsigned long long number = text ? strtoull(text, &end, 10) : 0;
    if (!text || !*text || *end || errno != 0)
        return false;
    *ret_number = number;
    return true;
}

static bool get_hex(const json_t *object, const char *name, uint32_t *ret_number) {
    const char *text = json_string_value(json_object_get(object, name));
    int used = 0;
    return text && sscanf(text, "%8x%n", ret_number, &used) == 1 && !text[used];
}

/* It becomes a path: digits, and the two slashes and the suffix that storage made. */
static bool is_segment_name(const char *name) {
    unsigned long long numbers[2];
    char base[24];
    int used = 0;
    return name && strlen(name) < STORAGE_FILE_NAME_SIZE &&
           strspn(name, "0123456789/.log") == strlen(name) &&
           sscanf(name, "%20llu/%10llu/%20[0-9].log%n", &numbers[0], &numbers[1], base, &used) ==
               3 &&
           used > 0 && !name[used] && name[0] != '/';
}

static bool read_file(const json_t *item, struct manifest *manifest) {
    struct storage_backup_file file = {0};
    const char *name = json_string_value(json_object_get(item, "name"));
    if (!is_segment_name(name) || !get_number(item, "size_bytes", &file.size_bytes) ||
        !get_hex(item, "crc32c", &file.crc))
        return false;
    snprintf(file.name, sizeof(file.name), "%s", name);
    return manifest_add_file(manifest, &file);
}

static bool read_partition(const json_t *item, struct manifest *manifest) {
    struct storage_backup_partition partition = {
        .partition = (uint32_t)json_integer_value(json_object_get(item, "partition"))};
    uint64_t log_start, end;
    if (!get_number(item, "stream", &partition.stream_id) ||
        !get_number(item, "log_start", &log_start) || !get_number(item, "end", &end))
        return false;
    partition.log_start = (int64_t)log_start;
    partition.end = (int64_t)end;
    return manifest_add_partition(manifest, &partition);
}

static bool read_stream(const json_t *stream, struct manifest *manifest) {
    const json_t *item;
    size_t index;
    bool good = json_is_array(json_object_get(stream, "files")) &&
                json_is_array(json_object_get(stream, "partitions")) &&
                get_number(stream, "lsn", &manifest->stream.lsn) &&
                get_hex(stream, "fingerprint", &manifest->stream.fingerprint);
    manifest->stream.epoch = (int32_t)json_integer_value(json_object_get(stream, "epoch"));
    manifest->stream.version = (uint32_t)json_integer_value(json_object_get(stream, "format"));
    manifest->damage_count = (unsigned)json_integer_value(json_object_get(stream, "damages"));
    json_array_foreach(json_object_get(stream, "files"), index, item) {
        good = good && read_file(item, manifest);
    }
    json_array_foreach(json_object_get(stream, "partitions"), index, item) {
        good = good && read_partition(item, manifest);
    }
    return good;
}

static bool read_registry(const json_t *registry, struct manifest *manifest) {
    uint64_t revision, last_stream_id, tenants;
    if (!registry)
        return true;
    if (!get_number(registry, "revision", &revision) ||
        !get_number(registry, "last_stream_id", &last_stream_id) ||
        !get_number(registry, "tenants", &tenants) ||
        !get_number(registry, "size_bytes", &manifest->dump_size_bytes) ||
        !get_hex(registry, "crc32c", &manifest->dump_crc))
        return false;
    manifest->has_registry = true;
    manifest->registry = (struct registry_half){
        .schema_version = (int32_t)json_integer_value(json_object_get(registry, "schema_version")),
        .revision = (int64_t)revision,
        .last_stream_id = (int64_t)last_stream_id,
        .tenant_count = (int64_t)tenants,
    };
    return true;
}

static int parse(const json_t *all, struct manifest *manifest) {
    json_int_t version = json_integer_value(json_object_get(all, "manifest"));
    const char *made = json_string_value(json_object_get(all, "made_at"));
    if (version > MANIFEST_VERSION)
        return DG_ERR_UNSUPPORTED_VERSION;
    if (!made || clock_parse_rfc3339(made, strlen(made), &manifest->made_ms) < 0 ||
        !read_stream(json_object_get(all, "stream"), manifest) ||
        !read_registry(json_object_get(all, "registry"), manifest))
        return DG_ERR_CORRUPT;
    return 0;
}

int manifest_read(const char *backup, struct manifest *ret_manifest, char *ret_error) {
    char path[MANIFEST_PATH_SIZE];
    struct manifest manifest = {0};
    json_error_t why;
    snprintf(path, sizeof(path), "%s/manifest.json", backup);
    bool is_there = access(path, F_OK) == 0;
    json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    int err = !is_there ? DG_ERR_NOT_FOUND : all ? parse(all, &manifest) : DG_ERR_CORRUPT;
    json_decref(all);
    if (err == 0) {
        *ret_manifest = manifest;
        return 0;
    }
    manifest_free(&manifest);
    snprintf(ret_error, MANIFEST_ERROR_SIZE, "%.300s is no backup that can be used: %s", path,
             err == DG_ERR_NOT_FOUND ? "there is none, or it was never finished"
                                     : dg_err_text(err));
    return err;
}
