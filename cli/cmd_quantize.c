/* bantam quantize: a model's weights packed once, for starts that only map them. */
#include <inttypes.h>
#include <stdio.h>
#include "base/clock.h"
#include "cli/commands.h"
#include "cli/weight_flags.h"
#include "engine/packed_model.h"

int command_quantize(int argc, char *argv[])
{
    static struct weight_flag_values values;
    struct flag flags[WEIGHT_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam quantize",
        .summary =
            "Packs a model for the CPU, quantised or as it is, and writes it to a directory that the other "
            "commands "
            "take as a model: they map its weights instead of reading and packing them. MODEL is a directory "
            "in Hugging Face's layout, or a GGUF file; OUT is made, or a packed model that is replaced.",
        .positionals = "MODEL OUT",
        .min_positionals = 2,
        .max_positionals = 2,
        .flags = flags,
        .n_flags = weight_flags_fill(&values, flags),
        .examples = "  bantam quantize demo/model demo-int8 --quantization int8 && bantam chat demo-int8\n"
                    "  bantam quantize model.gguf packed && bantam serve packed\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    const char *out = arguments.positional[1];
    struct model_options options = weight_flags_options(&values, arguments.positional[0]);
    struct model_packed packed;
    int64_t started_ns = clock_now_ns(clock_monotonic());
    err_t e = packed_model_write(&options, out, &packed);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    double seconds = (double)(clock_now_ns(clock_monotonic()) - started_ns) * 1e-9;
    (void)printf("%s: %" PRIu64 " weights, %.1f MiB, in %.1f s\n", out, packed.n_weights,
                 (double)packed.size_bytes / (1 << 20), seconds);
    return 0;
}
