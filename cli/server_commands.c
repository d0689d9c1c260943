/* Commands that use the server's own configuration: serve, check-config, migrate, admin create-key.
 */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "common/config.h"
#include "registry/admin.h"
#include "registry/migrate.h"
#include "registry/registry.h"

extern char **environ;

static struct cli_serve serve_arguments(const struct cli_run *run, const char *const *overrides) {
    return (struct cli_serve){
        .config_path = run->option[CLI_CONFIG], .environment = environ, .overrides = overrides};
}

struct config *cli_load_config(struct cli_run *run, const char *const *overrides) {
    char error[CONFIG_ERROR_SIZE];
    struct config *config;
    if (config_load(run->option[CLI_CONFIG], environ, overrides, &config, error) < 0) {
        cli_fail(run, 0, "%s", error);
        return NULL;
    }
    return config;
}

int serve_run(struct cli_run *run) {
    struct cli_serve arguments = serve_arguments(run, run->repeated);
    return run->serve(&arguments);
}

static int print_buffer(struct cli_run *run, struct buffer *out, int err) {
    if (err == 0)
        fwrite(out->data + out->start, 1, buffer_size(out), stdout);
    buffer_free(out);
    return err == 0 ? DG_EXIT_OK : cli_fail(run, DG_EXIT_FAILURE, "%s", dg_err_text(err));
}

int check_config_run(struct cli_run *run) {
    struct buffer out = {0};
    if (cli_has(run, CLI_REFERENCE))
        return print_buffer(run, &out, config_print_reference(&out));
    struct config *config = cli_load_config(run, run->repeated);
    if (!config)
        return DG_EXIT_CONFIG;
    int code = DG_EXIT_OK;
    if (cli_has(run, CLI_PRINT))
        code = print_buffer(run, &out, config_print(config, &out));
    else
        printf("%s: good\n", run->option[CLI_CONFIG] ? run->option[CLI_CONFIG] : "defaults");
    config_free(config);
    return code;
}

static void print_progress(void *context, const char *text) {
    puts(text);
    fflush(stdout);
}

int migrate_run(struct cli_run *run) {
    struct config *config = cli_load_config(run, run->repeated);
    if (!config)
        return DG_EXIT_CONFIG;
    char error[REGISTRY_ERROR_SIZE] = "";
    int err = registry_migrate(config->registry_conninfo, config->registry_password, print_progress,
                               NULL, error);
    config_free(config);
    return err == 0 ? DG_EXIT_OK : cli_fail(run, DG_EXIT_UNAVAILABLE, "%s", error);
}

int admin_create_key_run(struct cli_run *run) {
    const char *no_overrides[] = {NULL};
    struct config *config = cli_load_config(run, no_overrides);
    if (!config)
        return DG_EXIT_CONFIG;
    uint32_t roles = 0;
    int code = DG_EXIT_OK;
    for (unsigned i = 0; i < run->repeated_count; i++) {
        uint32_t role = registry_role_by_name(run->repeated[i]);
        if (role == 0)
            code = cli_fail(run, DG_EXIT_USAGE, "no role '%s'; see --help", run->repeated[i]);
        roles |= role;
    }
    if (code == DG_EXIT_OK && roles == 0)
        code = cli_fail(run, DG_EXIT_USAGE, "give at least one --role, e.g. --role admin");
    char error[REGISTRY_ERROR_SIZE] = "", secret[REGISTRY_SECRET_SIZE];
    struct registry_admin_key key = {
        .key_id = run->operand[0],
        .tenant = run->option[CLI_TENANT],
        .roles = roles,
        .replace = cli_has(run, CLI_REPLACE),
    };
    if (code == DG_EXIT_OK &&
        registry_admin_create_key(config->registry_conninfo, config->registry_password,
                                  config->security_master_key_file, &key, secret, error) < 0)
        code = cli_fail(run, DG_EXIT_UNAVAILABLE, "%s", error);
    if (code == DG_EXIT_OK)
        printf("%s.%s\n", run->operand[0], secret);
    explicit_bzero(secret, sizeof(secret));
    config_free(config);
    return code;
}
