/* bantam serve: a model behind gRPC and HTTP. */
#include "cli/commands.h"
#include "cli/door_flags.h"
#include "cli/engine_flags.h"
#include "engine/engine.h"
#include "server/doors.h"

enum { SERVE_FLAGS_MAX = DOOR_FLAGS_MAX + 1 + ENGINE_FLAGS_MAX };

struct serve_values {
    struct door_flag_values doors;
    struct engine_flag_values engine;
    double tenant_cache_share;
};

static size_t serve_flags(struct serve_values *v, struct flag *flags)
{
    static const struct door_ports PORTS = {"50051", "8000", "8002"};
    size_t n = door_flags_fill(&v->doors, &PORTS, flags);
    flags[n++] = (struct flag){
        .name = "tenant-cache-share",
        .kind = FLAG_DOUBLE,
        .target = &v->tenant_cache_share,
        .default_text = "0.5",
        .min = 0.01,
        .max = 1,
        .metavar = "SHARE",
        .help = "of the KV blocks, how many one tenant of --api-keys-file may keep as cached prefixes"};
    return n + engine_flags_fill(&v->engine, flags + n);
}

static err_t open_and_serve(const struct engine_options *options, struct doors *doors)
{
    struct engine *engine;
    struct engine_options planned = *options;
    planned.caller_bytes += doors_bytes(doors);
    TRY(engine_open(&planned, print_memory_plan, &engine));
    err_t e = doors_run(doors, engine_service(engine));
    engine_close(engine);
    return e;
}

int command_serve(int argc, char *argv[])
{
    static struct serve_values values;
    struct flag flags[SERVE_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam serve",
        .summary =
            "Serves a model (a directory in Hugging Face's layout, or a GGUF file) over gRPC and HTTP, "
            "until SIGTERM or Ctrl-C; what is in flight then finishes.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = serve_flags(&values, flags),
        .examples = "  bantam serve demo/model\n  bantam serve ~/models/llama-3.2-1b --quantization int4 "
                    "--max-model-len 8192\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    door_flags_start_log(&values.doors);
    struct engine_options engine = engine_flags_options(&values.engine, arguments.positional[0]);
    if (values.doors.api_keys_file)
        engine.tenant_cache_share = values.tenant_cache_share;
    struct doors_options options = door_flags_options(&values.doors);
    options.send_timeout_ns = engine.stream_stall_timeout_ns;
    struct doors *doors = NULL;
    err_t e = doors_prepare(&options, &doors);
    if (e.code == ERR_OK)
        e = open_and_serve(&engine, doors);
    doors_close(doors);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
