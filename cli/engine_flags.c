#include "cli/engine_flags.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/assert.h"
#include "base/log.h"

size_t engine_flags_fill(struct engine_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "max-model-len",
         .kind = FLAG_INT,
         .target = &v->max_model_len,
         .default_text = "0",
         .max = 1 << 24,
         .help =
             "longest request in tokens, prompt and output; 0 = the model's own, as far as memory reaches"},
        {.name = "max-num-seqs",
         .kind = FLAG_INT,
         .target = &v->max_num_seqs,
         .default_text = "64",
         .min = 1,
         .max = 4096,
         .help = "sequences that run together"},
        {.name = "max-num-batched-tokens",
         .kind = FLAG_INT,
         .target = &v->max_num_batched_tokens,
         .default_text = "512",
         .min = 1,
         .max = 1 << 20,
         .help = "tokens of one step, decode and prefill together"},
        {.name = "long-prefill-token-threshold",
         .kind = FLAG_INT,
         .target = &v->prefill_chunk,
         .default_text = "0",
         .max = 1 << 20,
         .help = "most prompt tokens of one request in a step; 0 = no limit but the step's"},
        {.name = "max-waiting",
         .kind = FLAG_INT,
         .target = &v->max_waiting,
         .default_text = "1024",
         .min = 0,
         .max = 1 << 20,
         .help = "requests that may queue; one more is refused with RESOURCE_EXHAUSTED"},
        {.name = "num-kv-blocks",
         .kind = FLAG_INT,
         .target = &v->num_kv_blocks,
         .default_text = "0",
         .max = 1 << 28,
         .help = "KV blocks of 16 tokens; 0 = as many as --max-num-seqs can use and memory holds"},
        {.name = "memory-limit",
         .kind = FLAG_INT,
         .target = &v->memory_limit_bytes,
         .default_text = "0",
         .max = 1e15,
         .metavar = "BYTES",
         .help =
             "memory for everything, the program included (suffixes k, m, g); 0 = a share of what is free"},
        {.name = "kv-cache-dtype",
         .kind = FLAG_CHOICE,
         .target = &v->kv_cache_dtype,
         .default_text = "auto",
         .choices = "auto|bfloat16|fp8",
         .help = "type of the KV cache; auto: float32 with --dtype float32, else bfloat16; fp8 needs a GPU"},
        {.name = "tensor-parallel-size",
         .kind = FLAG_INT,
         .target = &v->tensor_parallel_size,
         .default_text = "1",
         .min = 1,
         .max = 8,
         .help = "ranks that share the model's heads and MLP: GPUs from that of --device on, or parts of the "
                 "CPU"},
        {.name = "enforce-eager",
         .kind = FLAG_BOOL,
         .target = &v->enforce_eager,
         .default_text = "false",
         .help = "on a GPU: launch kernels one by one instead of as captured graphs"},
        {.name = "batch-invariant",
         .kind = FLAG_BOOL,
         .target = &v->batch_invariant,
         .default_text = "true",
         .help = "on a GPU: a request's bits never hang on its neighbours; --no-batch-invariant gives large "
                 "steps to cuBLASLt, whose bits may"},
        {.name = "steps-in-flight",
         .kind = FLAG_INT,
         .target = &v->steps_in_flight,
         .default_text = "0",
         .max = 2,
         .help = "steps planned ahead of their results, 1 or 2; 0 = the device's best"},
        {.name = "skip-tokenizer-init",
         .kind = FLAG_BOOL,
         .target = &v->skip_tokenizer_init,
         .default_text = "false",
         .help = "serve token ids only; the model needs no tokenizer"},
        {.name = "chat-template",
         .kind = FLAG_STRING,
         .target = &v->chat_template,
         .metavar = "FILE",
         .help = "Jinja template (default: the model's own)"},
        {.name = "generation-config",
         .kind = FLAG_CHOICE,
         .target = &v->generation_config,
         .default_text = "auto",
         .choices = "auto|vllm",
         .help = "auto: sampling defaults from generation_config.json; vllm: the built-in ones"},
        {.name = "served-model-name",
         .kind = FLAG_STRING,
         .target = &v->served_model_name,
         .metavar = "NAME",
         .help = "name that clients may ask for; default: the last part of the model's path, without .gguf"},
        {.name = "enable-prefix-caching",
         .kind = FLAG_BOOL,
         .target = &v->enable_prefix_caching,
         .default_text = "true",
         .help = "reuse the KV of prompts that begin alike"},
        {.name = "scheduling-policy",
         .kind = FLAG_CHOICE,
         .target = &v->scheduling_policy,
         .default_text = "fcfs",
         .choices = "fcfs|priority",
         .help = "who runs first"},
        {.name = "stream-stall-timeout",
         .kind = FLAG_DOUBLE,
         .target = &v->stream_stall_timeout_s,
         .default_text = "60",
         .min = 0.001,
         .max = 86400,
         .metavar = "SECONDS",
         .help = "a client that takes nothing for so long loses its request"},
    };
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n + WEIGHT_FLAGS_MAX <= ENGINE_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n + weight_flags_fill(&v->weights, flags + n);
}

static enum model_kv_cache kv_cache_of(const char *name)
{
    if (strcmp(name, "bfloat16") == 0)
        return MODEL_KV_BF16;
    return strcmp(name, "fp8") == 0 ? MODEL_KV_FP8 : MODEL_KV_AUTO;
}

struct engine_options engine_flags_options(const struct engine_flag_values *v, const char *directory)
{
    struct engine_options options = engine_options_default();
    struct model_options *model = &options.model;
    *model = weight_flags_options(&v->weights, directory);
    model->kv_cache = kv_cache_of(v->kv_cache_dtype);
    model->max_model_len = (uint32_t)v->max_model_len;
    model->max_num_seqs = (uint32_t)v->max_num_seqs;
    model->max_num_batched_tokens = (uint32_t)v->max_num_batched_tokens;
    model->num_kv_blocks = (uint32_t)v->num_kv_blocks;
    model->memory_limit_bytes = (uint64_t)v->memory_limit_bytes;
    model->enforce_eager = v->enforce_eager;
    model->batch_variant = !v->batch_invariant;
    model->n_ranks = (uint32_t)v->tensor_parallel_size;
    options.served_model_name = v->served_model_name;
    options.skip_tokenizer_init = v->skip_tokenizer_init;
    options.chat_template_path = v->chat_template;
    options.ignore_generation_config = strcmp(v->generation_config, "vllm") == 0;
    options.policy = strcmp(v->scheduling_policy, "priority") == 0 ? ENGINE_PRIORITY : ENGINE_FCFS;
    options.disable_prefix_caching = !v->enable_prefix_caching;
    options.prefill_chunk = (uint32_t)v->prefill_chunk;
    options.max_waiting = (uint32_t)v->max_waiting;
    options.steps_in_flight = (uint32_t)v->steps_in_flight;
    options.stream_stall_timeout_ns = (int64_t)(v->stream_stall_timeout_s * 1e9);
    return options;
}

void print_memory_plan(const struct memory_plan *plan)
{
    char text[2048];
    memory_plan_print(plan, text, sizeof text);
    char *rest = text;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (isatty(STDERR_FILENO))
            (void)fprintf(stderr, "%s\n", line);
        else
            log_info("memory", "%s", line);
    }
}
