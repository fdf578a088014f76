#include "cli/weight_flags.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"

size_t weight_flags_fill(struct weight_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "dtype",
         .kind = FLAG_CHOICE,
         .target = &v->dtype,
         .default_text = "auto",
         .choices = "auto|float32|bfloat16|float16",
         .help = "type of the weights; float32 also keeps KV in float32"},
        {.name = "quantization",
         .kind = FLAG_CHOICE,
         .target = &v->quantization,
         .default_text = "none",
         .choices = "none|int8|int4|w8a8|fp8",
         .help = "quantise the weights while loading: int8 and int4 in groups of inputs, w8a8 (int8) and fp8 "
                 "(GPU) by output; none for a checkpoint that is quantised already"},
        {.name = "quantization-group",
         .kind = FLAG_CHOICE,
         .target = &v->quantization_group,
         .default_text = "32",
         .choices = "32|64|128",
         .help = "inputs that share a scale under --quantization int8 and int4: more are less exact, smaller "
                 "and, "
                 "on a GPU, faster"},
        {.name = "load-format",
         .kind = FLAG_CHOICE,
         .target = &v->load_format,
         .default_text = "auto",
         .choices = "auto|dummy",
         .help = "dummy: random weights from config.json alone"},
        {.name = "dummy-seed",
         .kind = FLAG_INT,
         .target = &v->dummy_seed,
         .default_text = "0",
         .max = 9e15,
         .help = "seed of the dummy weights"},
        {.name = "device",
         .kind = FLAG_STRING,
         .target = &v->device,
         .default_text = "cpu",
         .metavar = "DEVICE",
         .help = "where the model runs: cpu, cuda, cuda:N (the GPU of that number), or auto: cuda where "
                 "there is one, or one for each rank, with room for the model; else cpu"},
        {.name = "threads",
         .kind = FLAG_INT,
         .target = &v->threads,
         .default_text = "0",
         .max = 256,
         .help = "threads for the kernels; 0 = one per usable CPU"},
        {.name = "isa",
         .kind = FLAG_CHOICE,
         .target = &v->isa,
         .default_text = "auto",
         .choices = "auto|scalar|avx2|avxvnni|avx512|avx512vnni|amx",
         .help = "highest instruction set to use; all but amx give the same bits"},
    };
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n <= WEIGHT_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n;
}

static enum model_dtype dtype_of(const char *name)
{
    if (strcmp(name, "float32") == 0)
        return MODEL_DTYPE_F32;
    if (strcmp(name, "bfloat16") == 0)
        return MODEL_DTYPE_BF16;
    return strcmp(name, "float16") == 0 ? MODEL_DTYPE_F16 : MODEL_DTYPE_AUTO;
}

static enum model_quantization quantization_of(const char *name)
{
    if (strcmp(name, "int8") == 0)
        return MODEL_QUANT_INT8;
    if (strcmp(name, "int4") == 0)
        return MODEL_QUANT_INT4;
    if (strcmp(name, "w8a8") == 0)
        return MODEL_QUANT_W8A8;
    return strcmp(name, "fp8") == 0 ? MODEL_QUANT_FP8 : MODEL_QUANT_NONE;
}

struct model_options weight_flags_options(const struct weight_flag_values *v, const char *directory)
{
    return (struct model_options){
        .directory = directory,
        .dtype = dtype_of(v->dtype),
        .quantization = quantization_of(v->quantization),
        .quantization_group = (uint32_t)strtoul(v->quantization_group, NULL, 10),
        .dummy_weights = strcmp(v->load_format, "dummy") == 0,
        .dummy_seed = (uint64_t)v->dummy_seed,
        .device = v->device,
        .isa = v->isa,
        .n_threads = (int)v->threads,
        .show_progress = true,
    };
}
