/* bantam forget: takes out what a router has kept of a tenant's requests. */
#include <stdio.h>
#include "cli/commands.h"
#include "router/cache/response_store.h"
#include "router/cache/store_of_config.h"
#include "router/config/route_config.h"
#include "router/log/decision_log.h"

static err_t forget_lines(const struct decision_log_options *log, const char *tenant)
{
    uint64_t n_deleted = 0;
    if (log->path == NULL)
        return err_ok();
    err_t e = decision_log_forget(log->path, tenant, &n_deleted);
    if (e.code == ERR_NOT_FOUND) {
        (void)printf("there is no log at %s\n", log->path);
        return err_ok();
    }
    if (e.code == ERR_OK)
        (void)printf("%llu lines are deleted from %s and its renamed files\n", (unsigned long long)n_deleted,
                     log->path);
    return e;
}

/* What is kept does not say whose it is, so that all of it goes. A router's memory goes with the router. */
static err_t forget_answers(const struct cache_config *cache)
{
    struct response_store *store;
    if (cache->kind == CACHE_OFF || cache->kind == CACHE_MEMORY)
        return err_ok();
    TRY(response_store_of_config(cache, &store));
    err_t e = store->vtable->clear(store);
    store->vtable->close(store);
    if (e.code == ERR_OK)
        (void)printf("all answers kept in %s are deleted\n", cache->path ? cache->path : cache->address);
    return e;
}

int command_forget(int argc, char *argv[])
{
    bool answers;
    const struct flag flags[] = {{.name = "answers",
                                  .kind = FLAG_BOOL,
                                  .target = &answers,
                                  .default_text = "true",
                                  .help = "delete the kept answers too, which are everybody's"}};
    const struct flag_command command = {
        .name = "bantam forget",
        .summary = "Deletes a tenant's lines from the decision log of a router's configuration, with its "
                   "renamed files, and all answers that its file or Redis keeps: these do not say whose they "
                   "are. The router must have been stopped. What the tenant has spent stays in the ledger.",
        .positionals = "TENANT CONFIG",
        .min_positionals = 2,
        .max_positionals = 2,
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam forget acme route.yaml\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct route_config *config = NULL;
    err_t e = route_config_read(arguments.positional[1], route_environment_without_keys, &config);
    if (e.code == ERR_OK)
        e = forget_lines(&config->log, arguments.positional[0]);
    if (e.code == ERR_OK && answers)
        e = forget_answers(&config->cache);
    route_config_free(config);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
