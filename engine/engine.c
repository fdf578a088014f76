#include "engine/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/gguf.h"
#include "base/hash.h"
#include "base/model_path.h"
#include "base/philox.h"
#include "base/program_memory.h"
#include "engine/engine_state.h"

enum { DEFAULT_STALL_TIMEOUT_S = 60 };
static const int64_t NS_PER_S = 1000000000;

struct engine_options engine_options_default(void)
{
    return (struct engine_options){
        .model = {.max_num_seqs = 64, .max_num_batched_tokens = 512, .device = "cpu", .isa = "auto"},
        .max_waiting = 1024,
    };
}

/* ---- The service ---- */

static struct engine *of(struct service *service)
{
    return (struct engine *)service;
}

static bool stream_next(struct stream *stream, struct event *out)
{
    return stream_read(stream, out);
}

static void stream_cancel(struct stream *stream)
{
    for (uint32_t i = 0; i < stream->n_choices; i++)
        engine_cancel_choice(stream->engine, &stream->choices[i]);
}

static void stream_release(struct stream *stream)
{
    struct engine *engine = stream->engine;
    stream_cancel(stream);
    engine_count_left(engine, stream);
    request_registry_remove(engine->registry, stream);
    if (atomic_fetch_sub(&stream->references, 1) == 1) {
        stream_destroy(stream);
        atomic_fetch_sub(&engine->n_streams, 1);
    }
    engine_collect_garbage(engine);
}

static const char *stream_request_id(const struct stream *stream)
{
    return stream->request_id;
}

static bool abort_request(struct service *service, const char *tenant, const char *request_id)
{
    return request_registry_find(of(service)->registry, tenant ? tenant : "", request_id, stream_cancel);
}

static struct event_count *progress(struct service *service)
{
    return &of(service)->progress;
}

static const struct model_info *model_info(struct service *service)
{
    return &of(service)->model_info;
}

static int64_t now_ns(struct service *service)
{
    return clock_now_ns(of(service)->clock);
}

static err_t tokenize(struct service *service, const struct request *request, uint32_t **ids, size_t *n_ids)
{
    struct engine *engine = of(service);
    if (!engine->text)
        return err_new(ERR_FAILED_PRECONDITION, "the server runs without a tokenizer");
    if (request->prompt_kind == PROMPT_MESSAGES && !engine->text->chat_template)
        return err_new(ERR_FAILED_PRECONDITION, "the model has no chat template");
    struct token_list list = {.limit = TOKENIZER_TEXT_BYTES_MAX};
    err_t e = engine_tokenize_request(engine, request, &list);
    if (e.code != ERR_OK) {
        token_list_free(&list);
        return e;
    }
    *ids = list.ids;
    *n_ids = list.count;
    return e;
}

static err_t detokenize(struct service *service, const uint32_t *ids, size_t n_ids, bool skip_special_tokens,
                        struct buffer *text)
{
    struct engine *engine = of(service);
    if (!engine->text)
        return err_new(ERR_FAILED_PRECONDITION, "the server runs without a tokenizer");
    return tokenizer_decode(engine->text->tokenizer, ids, n_ids, skip_special_tokens, text);
}

static err_t kv_subscribe(struct service *service, const struct kv_subscribe *request,
                          struct kv_subscription **out)
{
    struct engine *engine = of(service);
    if (!engine->kv_hub)
        return err_new(ERR_UNIMPLEMENTED, "the server runs without a prefix cache");
    uint64_t salt = engine_salt(engine, request->cache_salt, request->tenant);
    return kv_hub_subscribe(engine->kv_hub, salt, request->sees_all, request->start_sequence_number, out);
}

static err_t kv_next(struct service *service, struct kv_subscription *subscription,
                     const struct kv_event_batch **out)
{
    (void)service;
    return kv_subscription_next(subscription, out);
}

static void kv_unsubscribe(struct service *service, struct kv_subscription *subscription)
{
    (void)service;
    kv_subscription_close(subscription);
}

static void drain(struct service *service)
{
    atomic_store(&of(service)->draining, true);
}

static uint32_t in_flight(struct service *service)
{
    return atomic_load(&of(service)->n_streams);
}

static struct metrics *metrics(struct service *service)
{
    return &of(service)->metrics;
}

static const struct service_vtable ENGINE_SERVICE = {
    .submit = engine_submit,
    .stream_next = stream_next,
    .stream_cancel = stream_cancel,
    .stream_release = stream_release,
    .stream_request_id = stream_request_id,
    .abort = abort_request,
    .progress = progress,
    .model_info = model_info,
    .loads = engine_loads,
    .now_ns = now_ns,
    .tokenize = tokenize,
    .detokenize = detokenize,
    .drain = drain,
    .in_flight = in_flight,
    .metrics = metrics,
    .kv_subscribe = kv_subscribe,
    .kv_next = kv_next,
    .kv_unsubscribe = kv_unsubscribe,
};

/* ---- Opening ---- */

static void describe(struct engine *engine)
{
    const struct executor_info *info = engine->info;
    const struct text_assets *text = engine->text;
    uint64_t parts[4] = {info->weights_fingerprint, text ? tokenizer_fingerprint(text->tokenizer) : 0,
                         text ? text->template_fingerprint : 0, info->arithmetic_fingerprint};
    uint64_t all = hash64(parts, sizeof parts, 0);
    for (int i = 0; i < 5; i++)
        (void)snprintf(engine->fingerprints[i], sizeof engine->fingerprints[i], "%016" PRIx64,
                       i < 4 ? parts[i] : all);
    engine->model_info = (struct model_info){
        .model = engine->served_name,
        .architecture = info->architecture,
        .dtype = info->dtype,
        .kv_dtype = info->kv_dtype,
        .quantization = info->quantization,
        .vocab_size = info->vocab_size,
        .max_model_len = info->max_model_len,
        .n_parameters = info->n_parameters,
        .has_tokenizer = text != NULL,
        .has_chat_template = text && text->chat_template,
        .eos_token_ids = engine->eos_ids,
        .n_eos_token_ids = engine->n_eos_ids,
        .bos_token_id = text ? text->bos_token_id : -1,
        .fingerprint = engine->fingerprints[4],
        .weights_fingerprint = engine->fingerprints[0],
        .tokenizer_fingerprint = engine->fingerprints[1],
        .template_fingerprint = engine->fingerprints[2],
        .arithmetic_fingerprint = engine->fingerprints[3],
        .model_path = engine->model_path,
        .sampling_defaults = &engine->model_defaults,
    };
}

static void name_model(struct engine *engine, const char *directory)
{
    const char *name = engine->options.served_model_name;
    size_t size = name ? strlen(name) : 0;
    if (!name) {
        size = directory ? strlen(directory) : 0;
        while (size > 1 && directory[size - 1] == '/')
            size--;
        name = directory ? directory : "model";
        for (size_t i = 0; directory && i < size; i++)
            if (directory[i] == '/' && i + 1 < size)
                name = directory + i + 1;
        size = directory ? size - (size_t)(name - directory) : strlen(name);
        if (size > 5 && strncmp(name + size - 5, ".gguf", 5) == 0)
            size -= 5;
    }
    if (size >= sizeof engine->served_name)
        size = sizeof engine->served_name - 1;
    memcpy(engine->served_name, name, size);
}

static err_t create_loop_state(struct engine *engine)
{
    const struct executor_info *info = engine->info;
    engine->sched_config = engine_sched_config(&engine->options, info);
    engine->sched_config.hash_key[0] = random_seed_u64();
    engine->sched_config.hash_key[1] = random_seed_u64();
    engine->max_choices = engine->sched_config.max_requests;
    if (engine->sched_config.prefix_cache) {
        TRY(kv_hub_create(info->num_kv_blocks, info->block_tokens, clock_now_ns(engine->clock),
                          &engine->kv_hub));
        engine->sched_config.prefix_observer = kv_hub_observer(engine->kv_hub);
    }
    TRY(sched_create(&engine->sched_config, &engine->sched));
    TRY(mpsc_ring_create(sizeof(struct engine_command), engine_command_capacity(engine->max_choices),
                         &engine->commands));
    TRY(request_registry_create(&engine->registry));
    engine->results = mem_alloc_array(info->max_num_seqs, sizeof *engine->results);
    if (!engine->results)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the loop");
    for (uint32_t i = 0; i < engine->sched_config.max_steps_in_flight; i++) {
        TRY(engine->executor.vtable->step_create(engine->executor.context, &engine->flights[i].step));
        engine->flights[i].seqs = mem_alloc_array(info->max_num_seqs, sizeof *engine->flights[i].seqs);
        if (!engine->flights[i].seqs)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the loop");
    }
    return err_ok();
}

static err_t start(struct engine *engine)
{
    engine->salt_key[0] = random_seed_u64();
    engine->salt_key[1] = random_seed_u64();
    atomic_store(&engine->next_request_number, random_seed_u64());
    TRY(create_loop_state(engine));
    describe(engine);
    engine->window_start_ns = clock_now_ns(engine->clock);
    atomic_store(&engine->counters.heartbeat_ns, engine->window_start_ns);
    if (pthread_create(&engine->thread, NULL, engine_loop_main, engine) != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "cannot start the loop's thread");
    engine->thread_started = true;
    (void)pthread_setname_np(engine->thread, "bantam-loop");
    return err_ok();
}

static err_t engine_new(const struct engine_options *options, struct engine **out)
{
    struct engine *engine = mem_alloc(sizeof *engine);
    if (!engine)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the engine");
    engine->service.vtable = &ENGINE_SERVICE;
    engine->options = *options;
    engine->clock = options->clock ? options->clock : clock_monotonic();
    if (engine->options.stream_stall_timeout_ns == 0)
        engine->options.stream_stall_timeout_ns = DEFAULT_STALL_TIMEOUT_S * NS_PER_S;
    *out = engine;
    return err_ok();
}

err_t engine_open_executor(const struct engine_options *options, const struct executor *executor,
                           const struct text_assets *text, struct engine **out)
{
    struct engine *engine;
    TRY(engine_new(options, &engine));
    engine->executor = *executor;
    engine->info = executor->vtable->info(executor->context);
    engine->text = text;
    if (text && text->eos_token_id >= 0)
        engine->eos_ids[engine->n_eos_ids++] = (uint32_t)text->eos_token_id;
    name_model(engine, NULL);
    err_t e = start(engine);
    if (e.code != ERR_OK) {
        engine_close(engine);
        return e;
    }
    *out = engine;
    return e;
}

/* generation_config.json in api's words. What no request may ask for is no default either. */
static err_t apply_generation_config(struct engine *engine)
{
    const struct generation_config *config = model_generation_config(engine->model);
    memcpy(engine->eos_ids, config->eos_token_ids, sizeof engine->eos_ids);
    engine->n_eos_ids = config->n_eos_token_ids;
    struct sampling_params *defaults = &engine->model_defaults;
    if (engine->options.ignore_generation_config)
        return err_ok();
#define DEFAULT(has, bit, field, value)                                                                      \
    if (config->has) {                                                                                       \
        defaults->set |= (bit);                                                                              \
        defaults->field = (value);                                                                           \
    }
    DEFAULT(has_temperature, SAMPLING_TEMPERATURE, temperature, config->temperature)
    DEFAULT(has_top_p, SAMPLING_TOP_P, top_p, config->top_p)
    DEFAULT(has_top_k, SAMPLING_TOP_K, top_k, config->top_k)
    DEFAULT(has_min_p, SAMPLING_MIN_P, min_p, config->min_p)
    DEFAULT(has_repetition_penalty, SAMPLING_REPETITION_PENALTY, repetition_penalty,
            config->repetition_penalty)
    DEFAULT(has_max_new_tokens, SAMPLING_MAX_TOKENS, max_tokens, config->max_new_tokens)
#undef DEFAULT
    struct validate_limits limits = engine_validate_limits(engine);
    err_t e = validate_sampling(defaults, &limits);
    if (e.code == ERR_OK)
        return e;
    return err_new(e.code,
                   "%s/generation_config.json: %s; --generation-config vllm does without the file's values",
                   engine->options.model.directory, e.message);
}

static err_t load(struct engine *engine, void (*on_plan)(const struct memory_plan *plan))
{
    const struct engine_options *options = &engine->options;
    char gguf[GGUF_PATH_MAX];
    if (!options->skip_tokenizer_init) {
        TRY(text_assets_load(options->model.directory, options->chat_template_path, &engine->owned_text));
        engine->text = &engine->owned_text;
    }
    struct model_options model = options->model;
    model.program_bytes = program_memory_bytes() + options->caller_bytes;
    model.engine_bytes = engine_planned_bytes;
    model.engine_context = options;
    TRY(model_load(&model, on_plan, &engine->model));
    TRY(executor_over_model(engine->model, &engine->executor));
    engine->info = engine->executor.vtable->info(engine->executor.context);
    if (engine->text && tokenizer_vocab_size(engine->text->tokenizer) > engine->info->vocab_size)
        return err_new(ERR_INVALID_ARGUMENT, "%s: %s has ids up to %u but the model's vocab_size is %u",
                       options->model.directory,
                       gguf_of_model(options->model.directory, gguf) ? "tokenizer.ggml.tokens"
                                                                     : "tokenizer.json",
                       tokenizer_vocab_size(engine->text->tokenizer) - 1, engine->info->vocab_size);
    TRY(apply_generation_config(engine));
    engine->model_path = mem_strdup(options->model.directory);
    if (!engine->model_path)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the engine");
    name_model(engine, options->model.directory);
    return start(engine);
}

err_t engine_open(const struct engine_options *options, void (*on_plan)(const struct memory_plan *plan),
                  struct engine **out)
{
    struct engine *engine;
    TRY(model_path_check(options->model.directory, true));
    TRY(engine_new(options, &engine));
    err_t e = load(engine, on_plan);
    if (e.code != ERR_OK) {
        engine_close(engine);
        return e;
    }
    *out = engine;
    return e;
}

void engine_close(struct engine *engine)
{
    if (!engine)
        return;
    if (engine->thread_started) {
        atomic_store(&engine->stopping, true);
        event_count_bump(&engine->wake);
        pthread_join(engine->thread, NULL);
        engine_abort_all(engine);
    }
    engine_collect_garbage(engine);
    for (uint32_t i = 0; i < SCHED_STEPS_IN_FLIGHT_MAX; i++) {
        if (engine->flights[i].step)
            engine->executor.vtable->step_destroy(engine->executor.context, engine->flights[i].step);
        mem_free(engine->flights[i].seqs);
    }
    mem_free(engine->results);
    request_registry_destroy(engine->registry);
    mpsc_ring_destroy(engine->commands);
    sched_destroy(engine->sched);
    kv_hub_destroy(engine->kv_hub);
    if (engine->model) {
        executor_over_model_free(&engine->executor);
        model_destroy(engine->model);
    }
    text_assets_free(&engine->owned_text);
    mem_free(engine->model_path);
    mem_free(engine);
}

struct service *engine_service(struct engine *engine)
{
    return &engine->service;
}

const struct memory_plan *engine_memory_plan(const struct engine *engine)
{
    return engine->model ? model_memory_plan(engine->model) : NULL;
}

const char *engine_backend_description(const struct engine *engine)
{
    return engine->model ? model_describe(engine->model)->backend : "stand-in";
}

void engine_loop_stats_read(struct engine *engine, struct engine_loop_stats *out)
{
    const struct engine_counters *counters = &engine->counters;
    *out = (struct engine_loop_stats){
        .steps = atomic_load(&counters->steps),
        .overhead_ns = atomic_load(&counters->overhead_ns),
        .execute_ns = atomic_load(&counters->execute_ns),
        .prefill_rows = atomic_load(&counters->prefill_rows),
        .decode_rows = atomic_load(&counters->decode_rows),
    };
}

void engine_loop_park(struct engine *engine, bool parked)
{
    atomic_store(&engine->parked, parked);
    event_count_bump(&engine->wake);
}
