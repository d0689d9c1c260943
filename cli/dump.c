/* The password goes by the environment, not by the command line, which others can see. */
#include "cli/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/crc32c.h"

enum { ARGUMENT_SIZE = 8192, NOT_FOUND_CODE = 127 };

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool run_program(struct cli_run *run, const struct config *config,
                        const char *const *arguments) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (config->registry_password[0])
            setenv("PGPASSWORD", config->registry_password, 1);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(NOT_FOUND_CODE);
    }
    int code = pid < 0 ? -1 : wait_for(pid);
    if (code == NOT_FOUND_CODE)
        cli_fail(run, 0, "%s is not installed (Debian: postgresql-client)", arguments[0]);
    else if (code != 0)
        cli_fail(run, 0, "%s failed, see above", arguments[0]);
    return code == 0;
}

static bool sync_file(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return good;
}

bool dump_write(struct cli_run *run, const struct config *config, const char *path) {
    char file[ARGUMENT_SIZE], database[ARGUMENT_SIZE];
    snprintf(file, sizeof(file), "--file=%s", path);
    snprintf(database, sizeof(database), "--dbname=%s", config->registry_conninfo);
    const char *arguments[] = {
        "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--no-password",
        file,      database,          NULL};
    if (!run_program(run, config, arguments))
        return false;
    if (!sync_file(path)) {
        cli_fail(run, 0, "%s: %s", path, strerror(errno));
        return false;
    }
    return true;
}

bool dump_read(struct cli_run *run, const struct config *config, const char *path) {
    char database[ARGUMENT_SIZE];
    snprintf(database, sizeof(database), "--dbname=%s", config->registry_conninfo);
    const char *arguments[] = {"pg_restore",
                               "--single-transaction",
                               "--exit-on-error",
                               "--no-owner",
                               "--no-privileges",
                               "--no-password",
                               database,
                               path,
                               NULL};
    return run_program(run, config, arguments);
}

bool dump_measure(const char *path, uint64_t *ret_size_bytes, uint32_t *ret_crc) {
    enum { STEP = 64 * 1024 };
    static uint8_t buffer[STEP];
    FILE *file = fopen(path, "re");
    uint64_t size = 0;
    uint32_t crc = 0;
    if (!file)
        return false;
    for (size_t count; (count = fread(buffer, 1, STEP, file)) > 0; size += count)
        crc = crc32c_update(crc, buffer, count);
    bool good = !ferror(file);
    fclose(file);
    *ret_size_bytes = size;
    *ret_crc = crc;
    return good;
}
