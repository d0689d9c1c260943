#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sys.h"

enum { SECTOR_MAX = 4096, FILES_MAX = 4096, FDS_MAX = 8192, PATH_SIZE = 512 };

struct change {
    struct change *next;
    bool is_truncate;
    uint64_t position; /* truncate: the new size */
    size_t size;
    uint8_t data[];
};

struct file {      /* an inode */
    uint8_t *data; /* what is on disk */
    uint64_t size;
    uint64_t capacity;
    struct change *first, *last; /* volatile */
    bool is_directory;
};

struct entry { /* a name; path below the root, "" for the root */
    char path[PATH_SIZE];
    int live;    /* inode or -1 */
    int durable; /* inode or -1 */
};

static struct {
    struct disk_options options;
    struct sys_table real;
    pthread_mutex_t mutex;
    struct file files[FILES_MAX];
    int file_count;
    struct entry entries[FILES_MAX];
    int entry_count;
    int inode_of[FDS_MAX];
    bool is_dsync[FDS_MAX];
    uint64_t calls;
    uint64_t random;
} disk;

static uint64_t next_random(void) {
    disk.random ^= disk.random << 13;
    disk.random ^= disk.random >> 7;
    disk.random ^= disk.random << 17;
    return disk.random;
}

static bool heads(void) {
    return next_random() >> 40 & 1;
}

/* ---- inodes and names ---------------------------------------------------------------------------
 */

static int new_inode(bool is_directory) {
    if (disk.file_count == FILES_MAX)
        abort();
    disk.files[disk.file_count].is_directory = is_directory;
    return disk.file_count++;
}

/* NULL: not in the store; its parent is not part of what is cut. */
static const char *relative(const char *path) {
    size_t length = strlen(disk.options.live);
    if (strncmp(path, disk.options.live, length) != 0 || strcmp(path + length, "/..") == 0)
        return NULL;
    return path[length] == '/' ? path + length + 1 : path + length;
}

static struct entry *find_entry(const char *path) {
    for (int i = 0; i < disk.entry_count; i++)
        if (strcmp(disk.entries[i].path, path) == 0)
            return &disk.entries[i];
    return NULL;
}

static struct entry *obtain_entry(const char *path) {
    struct entry *entry = find_entry(path);
    if (entry)
        return entry;
    if (disk.entry_count == FILES_MAX || strlen(path) >= PATH_SIZE)
        abort();
    entry = &disk.entries[disk.entry_count++];
    strcpy(entry->path, path);
    entry->live = entry->durable = -1;
    return entry;
}

static void grow(struct file *file, uint64_t size) {
    if (size > file->capacity) {
        uint64_t capacity = size + size / 2 + 4096;
        file->data = realloc(file->data, capacity);
        if (!file->data)
            abort();
        file->capacity = capacity;
    }
    if (size > file->size)
        memset(file->data + file->size, 0, size - file->size);
    if (size > file->size)
        file->size = size;
}

static void put(struct file *file, uint64_t position, const uint8_t *data, size_t size) {
    grow(file, position + size);
    memcpy(file->data + position, data, size);
}

static void truncate_to(struct file *file, uint64_t size) {
    grow(file, size);
    file->size = size;
}

static void add_change(struct file *file, bool is_truncate, uint64_t position, const void *data,
                       size_t size) {
    struct change *change = malloc(sizeof(*change) + size);
    if (!change)
        abort();
    *change = (struct change){.is_truncate = is_truncate, .position = position, .size = size};
    if (size > 0)
        memcpy(change->data, data, size);
    *(file->last ? &file->last->next : &file->first) = change;
    file->last = change;
}

static void make_durable(struct file *file) {
    while (file->first) {
        struct change *change = file->first;
        if (change->is_truncate)
            truncate_to(file, change->position);
        else
            put(file, change->position, change->data, change->size);
        file->first = change->next;
        free(change);
    }
    file->last = NULL;
}

static bool is_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    if (length == 0)
        return path[0] && !strchr(path, '/');
    return strncmp(path, directory, length) == 0 && path[length] == '/' &&
           !strchr(path + length + 1, '/');
}

static void make_entries_durable(int inode) {
    for (int i = 0; i < disk.entry_count; i++) {
        if (disk.entries[i].live != inode)
            continue;
        for (int j = 0; j < disk.entry_count; j++)
            if (is_in(disk.entries[j].path, disk.entries[i].path))
                disk.entries[j].durable = disk.entries[j].live;
        return;
    }
}

/* ---- the cut ------------------------------------------------------------------------------------
 */

/* The head was on this sector of the file's last change. */
static void spoil_sector(struct file *file, uint64_t position) {
    uint8_t garbage[SECTOR_MAX];
    uint64_t start = position / SECTOR_MAX * SECTOR_MAX;
    memset(garbage, 0xee, sizeof(garbage));
    if (start < file->size)
        put(file, start, garbage,
            file->size - start < SECTOR_MAX ? file->size - start : SECTOR_MAX);
}

static void tear(struct file *file, const struct change *change) {
    bool may_spoil = disk.options.sector_bytes == SECTOR_MAX && change == file->last;
    if (change->is_truncate) {
        if (heads())
            truncate_to(file, change->position);
        if (may_spoil && change->position % SECTOR_MAX > 0 && heads())
            spoil_sector(file, change->position); /* the file system clears the sector's rest */
        return;
    }
    unsigned style = next_random() >> 33 & 3; /* 0: none, 1: all, else: a subset */
    for (size_t at = 0, size; at < change->size; at += size) {
        size = disk.options.sector_bytes - (change->position + at) % disk.options.sector_bytes;
        if (size > change->size - at)
            size = change->size - at;
        if (style == 1 || (style > 1 && heads())) {
            put(file, change->position + at, change->data + at, size);
        } else if (may_spoil && style > 1 && heads()) {
            grow(file, change->position + at + size);
            spoil_sector(file, change->position + at);
            style = 0;
        }
    }
}

static void write_image_file(const char *path, const struct file *file) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    uint64_t done = 0;
    while (fd >= 0 && done < file->size) {
        ssize_t count = write(fd, file->data + done, file->size - done);
        if (count <= 0)
            abort();
        done += (uint64_t)count;
    }
    if (fd < 0)
        abort();
    close(fd);
}

/* Names come in order of creation, so a directory stands before what is in it. A file in a
 * directory that was lost is lost. */
static void write_image(void) {
    char path[2 * PATH_SIZE];
    for (int i = 0; i < disk.entry_count; i++) {
        struct entry *entry = &disk.entries[i];
        int inode = entry->live != entry->durable && heads() ? entry->live : entry->durable;
        if (inode < 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", disk.options.image, entry->path);
        if (disk.files[inode].is_directory) {
            if (mkdir(path, 0700) != 0 && errno != ENOENT)
                abort();
            continue;
        }
        char *slash = strrchr(path, '/');
        *slash = '\0';
        bool lost = access(path, F_OK) != 0;
        *slash = '/';
        if (!lost)
            write_image_file(path, &disk.files[inode]);
    }
}

static void cut(void) {
    for (int i = 0; i < disk.file_count; i++)
        for (struct change *change = disk.files[i].first; change; change = change->next)
            tear(&disk.files[i], change);
    write_image();
    _exit(DISK_EXIT_CUT);
}

/* Every changing call comes here with the mutex held; true: the power fails in it. */
static bool count_call(void) {
    return ++disk.calls == disk.options.cut_at;
}

uint64_t disk_calls(void) {
    return disk.calls;
}

/* ---- the calls ----------------------------------------------------------------------------------
 */

static int disk_open(const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&disk.mutex);
    const char *name = relative(path);
    struct entry *entry = name ? obtain_entry(name) : NULL;
    bool exists = entry && entry->live >= 0;
    if (entry && !exists && (flags & O_CREAT) && count_call())
        cut();
    int fd = disk.real.open(path, flags, mode);
    if (fd >= FDS_MAX)
        abort();
    if (fd >= 0 && entry) {
        if (!exists)
            entry->live = new_inode(false);
        if (exists && (flags & O_TRUNC))
            add_change(&disk.files[entry->live], true, 0, NULL, 0);
        disk.inode_of[fd] = entry->live;
        disk.is_dsync[fd] = (flags & O_DSYNC) != 0;
    }
    pthread_mutex_unlock(&disk.mutex);
    return fd;
}

static int disk_close(int fd) {
    pthread_mutex_lock(&disk.mutex);
    disk.inode_of[fd] = -1;
    int result = disk.real.close(fd);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static ssize_t disk_pwrite(int fd, const void *data, size_t size, off_t position) {
    pthread_mutex_lock(&disk.mutex);
    struct file *file = &disk.files[disk.inode_of[fd]];
    add_change(file, false, (uint64_t)position, data, size);
    if (count_call())
        cut();
    if (disk.is_dsync[fd] && !disk.options.lies)
        make_durable(file);
    ssize_t result = disk.real.pwrite(fd, data, size, position);
    if (result != (ssize_t)size)
        abort();
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static int disk_sync(int fd) {
    pthread_mutex_lock(&disk.mutex);
    if (count_call())
        cut();
    int inode = disk.inode_of[fd];
    if (inode < 0) {
        pthread_mutex_unlock(&disk.mutex);
        return 0;
    }
    if (!disk.options.lies && disk.files[inode].is_directory)
        make_entries_durable(inode);
    else if (!disk.options.lies)
        make_durable(&disk.files[inode]);
    pthread_mutex_unlock(&disk.mutex);
    return 0;
}

static int disk_ftruncate(int fd, off_t size) {
    pthread_mutex_lock(&disk.mutex);
    add_change(&disk.files[disk.inode_of[fd]], true, (uint64_t)size, NULL, 0);
    if (count_call())
        cut();
    int result = disk.real.ftruncate(fd, size);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static int disk_rename(const char *from, const char *to) {
    pthread_mutex_lock(&disk.mutex);
    struct entry *source = obtain_entry(relative(from)), *target = obtain_entry(relative(to));
    target->live = source->live;
    source->live = -1;
    if (count_call())
        cut();
    int result = disk.real.rename(from, to);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static int disk_unlink(const char *path) {
    pthread_mutex_lock(&disk.mutex);
    obtain_entry(relative(path))->live = -1;
    if (count_call())
        cut();
    int result = disk.real.unlink(path);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static int disk_mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&disk.mutex);
    struct entry *entry = obtain_entry(relative(path));
    if (entry->live < 0) {
        entry->live = new_inode(true);
        if (count_call())
            cut();
    }
    int result = disk.real.mkdir(path, mode);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

/* ---- start --------------------------------------------------------------------------------------
 */

static void load_file(const char *path, struct file *file) {
    int fd = open(path, O_RDONLY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        abort();
    grow(file, (uint64_t)status.st_size);
    if (status.st_size > 0 && read(fd, file->data, file->size) != (ssize_t)file->size)
        abort();
    close(fd);
}

static void load(const char *name) {
    char path[2 * PATH_SIZE], child[PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%s", disk.options.live, name);
    struct entry *entry = obtain_entry(name);
    DIR *directory = opendir(path);
    entry->live = entry->durable = new_inode(directory != NULL);
    if (!directory) {
        load_file(path, &disk.files[entry->live]);
        return;
    }
    struct dirent *found;
    while ((found = readdir(directory))) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (snprintf(child, sizeof(child), "%s%s%s", name, name[0] ? "/" : "", found->d_name) >=
            (int)sizeof(child))
            abort();
        load(child);
    }
    closedir(directory);
}

void disk_start(const struct disk_options *options) {
    disk.options = *options;
    disk.real = sys;
    disk.random = options->seed * 0x9e3779b97f4a7c15u | 1;
    pthread_mutex_init(&disk.mutex, NULL);
    for (int i = 0; i < FDS_MAX; i++)
        disk.inode_of[i] = -1;
    load("");
    sys.open = disk_open;
    sys.close = disk_close;
    sys.pwrite = disk_pwrite;
    sys.fdatasync = disk_sync;
    sys.fsync = disk_sync;
    sys.ftruncate = disk_ftruncate;
    sys.rename = disk_rename;
    sys.unlink = disk_unlink;
    sys.mkdir = disk_mkdir;
}
