/* bantam route: a router behind the doors of a server. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/door_flags.h"
#include "router/config/route_file.h"
#include "router/mcp/mcp_server.h"
#include "router/page/route_page.h"
#include "router/service/route_service.h"
#include "server/doors.h"
#include "server/file_budget.h"

enum { ROUTE_FLAGS_MAX = DOOR_FLAGS_MAX + 8, DESCRIPTION_BYTES_MAX = 8 * YAML_FILE_BYTES_MAX };

struct route_values {
    struct door_flag_values doors;
    int64_t max_requests, max_held_bytes;
    bool is_offline, is_check, mcp;
    struct flag_list mcp_origin;
};

struct running {
    struct route_file file;
    struct route_service *service;
    struct route_page page;
    struct extra_route page_routes[ROUTE_PAGE_ROUTES];
    struct mcp_server *mcp; /* NULL = not wanted */
    struct extra_route mcp_route;
    pthread_mutex_t lock; /* of prices */
    struct buffer prices; /* as JSON */
};

static size_t route_flags(struct route_values *v, struct flag *flags)
{
    static const struct door_ports PORTS = {"50052", "8010", "8012"};
    const struct flag rows[] = {
        {.name = "offline",
         .kind = FLAG_BOOL,
         .target = &v->is_offline,
         .default_text = "false",
         .help = "nothing leaves this machine, whatever the configuration says"},
        {.name = "check",
         .kind = FLAG_BOOL,
         .target = &v->is_check,
         .default_text = "false",
         .help = "read the configuration, print what was understood of it or what is wrong with it, and end"},
        {.name = "mcp",
         .kind = FLAG_BOOL,
         .target = &v->mcp,
         .default_text = "true",
         .help = "answer the Model Context Protocol on the HTTP port, at /mcp"},
        {.name = "mcp-origin",
         .kind = FLAG_LIST,
         .target = &v->mcp_origin,
         .metavar = "ORIGIN",
         .help = "a web page's origin, like https://agents.example, that may use it besides this machine's; "
                 "may be "
                 "repeated"},
        {.name = "max-requests",
         .kind = FLAG_INT,
         .target = &v->max_requests,
         .default_text = "16384",
         .min = 1,
         .max = 1 << 20,
         .help = "requests at once; more are refused at once"},
        {.name = "max-held-bytes",
         .kind = FLAG_INT,
         .target = &v->max_held_bytes,
         .default_text = "2147483648",
         .min = 1 << 20,
         .max = INT64_C(1) << 44,
         .help = "of memory that requests under way may take together, about; more are refused at once"},
    };
    size_t n = sizeof rows / sizeof *rows;
    for (size_t i = 0; i < n; i++)
        flags[i] = rows[i];
    return n + door_flags_fill(&v->doors, &PORTS, flags + n);
}

static err_t print_description(const struct route_config *config, bool is_offline)
{
    struct buffer text = {.limit_bytes = DESCRIPTION_BYTES_MAX};
    if (is_offline)
        (void)puts("offline   nothing leaves this machine: no provider is asked");
    err_t e = err_ok();
    if (route_config_describe(config, &text))
        (void)fputs(text.data, stdout);
    else
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory to describe the configuration");
    buffer_free(&text);
    return e;
}

/* --- what the page and MCP ask */

static err_t tell_state(void *context, struct buffer *out)
{
    return route_service_state(((struct running *)context)->service, out);
}

static err_t tell_explain(void *context, const struct request *request, struct buffer *out)
{
    return route_service_explain(((struct running *)context)->service, request, out);
}

static err_t tell_budget(void *context, const char *tenant, struct buffer *out)
{
    return route_service_budget(((struct running *)context)->service, tenant, out);
}

static err_t tell_prices(void *context, struct buffer *out)
{
    struct running *running = context;
    pthread_mutex_lock(&running->lock);
    bool fits = buffer_append(out, running->prices.data, running->prices.size);
    pthread_mutex_unlock(&running->lock);
    return fits ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the prices");
}

/* --- the file */

static void refresh(void *context, bool in_any_case)
{
    struct running *running = context;
    struct route_config *config = route_file_refresh(&running->file, in_any_case);
    if (config == NULL)
        return;
    char policy_id[sizeof config->policy_id];
    (void)snprintf(policy_id, sizeof policy_id, "%s", config->policy_id);
    struct buffer prices = {.limit_bytes = DESCRIPTION_BYTES_MAX};
    bool has_prices = route_config_prices(config, &prices);
    err_t e = route_service_reload(running->service, config);
    if (e.code == ERR_OK && has_prices) {
        pthread_mutex_lock(&running->lock);
        struct buffer old = running->prices;
        running->prices = prices;
        prices = old;
        pthread_mutex_unlock(&running->lock);
    }
    buffer_free(&prices);
    if (e.code == ERR_OK)
        log_info("route", "%s is read again: policy %s", running->file.path, policy_id);
    else
        log_error("route", "%s: %s; the configuration stays as it was", running->file.path, e.message);
}

/* --- from start to end */

static err_t open_mcp(const struct route_values *values, struct running *running)
{
    const struct mcp_options options = {
        .backend = {running, tell_explain, tell_budget, tell_state, tell_prices},
        .version = BANTAM_VERSION,
        .origins = values->mcp_origin.item,
        .n_origins = values->mcp_origin.count,
    };
    TRY(mcp_server_open(&options, &running->mcp));
    running->mcp_route = mcp_server_route(running->mcp);
    return err_ok();
}

static void join_loop(void *context, struct event_base *base)
{
    route_service_join(((struct running *)context)->service, base);
}

static void leave_loop(void *context)
{
    route_service_leave(((struct running *)context)->service);
}

/* Before the doors are: they take these paths along. */
static err_t open_paths(const struct route_values *values, struct running *running,
                        struct doors_options *doors)
{
    running->page = (struct route_page){tell_state, running};
    route_page_fill(&running->page, running->page_routes);
    doors->operator_extra = (struct extra_routes){running->page_routes, ROUTE_PAGE_ROUTES};
    if (!values->mcp)
        return err_ok();
    TRY(open_mcp(values, running));
    doors->http_extra = (struct extra_routes){&running->mcp_route, 1};
    return err_ok();
}

/* Takes config over. */
static err_t open_and_run(const struct route_values *values, struct running *running,
                          struct route_config *config, struct doors *doors)
{
    const struct route_service_options options = {
        .config = config,
        .is_offline = values->is_offline,
        .max_requests = (uint32_t)values->max_requests,
        .max_held_bytes = (uint64_t)values->max_held_bytes,
        .clock = clock_monotonic(),
    };
    TRY(route_service_open(&options, &running->service));
    err_t e = doors_run(doors, route_service_of(running->service));
    route_service_close(running->service);
    return e;
}

/* Each call to a provider may be a connection, beside those of the doors. */
static void check_file_limit(const struct route_values *values, const struct route_config *config)
{
    const struct doors_options doors = door_flags_options(&values->doors);
    uint64_t max_files = file_budget_raise();
    uint64_t clients = (uint64_t)doors.max_grpc_connections + (doors.http ? doors.max_http_connections : 0);
    uint64_t calls = (uint64_t)values->max_requests, wanted = clients + calls + FILES_RESERVED;
    if (!values->is_offline && config->providers.n > 0 && max_files < wanted)
        log_warn(
            "route",
            "the process may have %llu open files (ulimit -Hn, LimitNOFILE=): %llu connections of clients "
            "and %llu calls to providers at once want %llu, and calls fail where there is none left",
            (unsigned long long)max_files, (unsigned long long)clients, (unsigned long long)calls,
            (unsigned long long)wanted);
}

/* Takes config over. */
static err_t prepare_and_run(const struct route_values *values, struct running *running,
                             struct route_config *config)
{
    struct doors_options options = door_flags_options(&values->doors);
    struct doors *doors = NULL;
    check_file_limit(values, config);
    options.refresh = refresh;
    options.context = running;
    options.http_loops = (struct loop_hooks){join_loop, leave_loop, running};
    err_t e = open_paths(values, running, &options);
    if (e.code == ERR_OK)
        e = doors_prepare(&options, &doors);
    if (e.code == ERR_OK)
        e = open_and_run(values, running, config, doors);
    else
        route_config_free(config);
    doors_close(doors);
    mcp_server_close(running->mcp);
    return e;
}

static err_t route(const struct route_values *values, const char *path)
{
    struct running running = {.lock = PTHREAD_MUTEX_INITIALIZER,
                              .prices = {.limit_bytes = DESCRIPTION_BYTES_MAX}};
    struct route_config *config;
    TRY(route_file_open(path, getenv, &running.file, &config));
    err_t e = print_description(config, values->is_offline);
    if (e.code == ERR_OK && !route_config_prices(config, &running.prices))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the prices of the configuration");
    if (e.code == ERR_OK && !values->is_check)
        e = prepare_and_run(values, &running, config);
    else
        route_config_free(config);
    buffer_free(&running.prices);
    return e;
}

int command_route(int argc, char *argv[])
{
    static struct route_values values;
    struct flag flags[ROUTE_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam route",
        .summary =
            "Routes requests between engines beside it and providers, as a configuration file in YAML says, "
            "behind the doors of a server, until SIGTERM or Ctrl-C. The file is read again when it changes, "
            "and at SIGHUP.",
        .positionals = "CONFIG",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = route_flags(&values, flags),
        .examples = "  bantam route route.yaml\n  bantam route route.yaml --check\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    door_flags_start_log(&values.doors);
    err_t e = route(&values, arguments.positional[0]);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
