/* submit: everything about a request that can be done outside the loop. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/philox.h"
#include "engine/engine_state.h"
#include "engine/sampling_lists.h"

struct validate_limits engine_validate_limits(const struct engine *engine)
{
    uint32_t max_n =
        engine->info->max_num_seqs < SAMPLING_N_MAX ? engine->info->max_num_seqs : SAMPLING_N_MAX;
    return (struct validate_limits){
        .vocab_size = engine->info->vocab_size,
        .max_model_len = engine->info->max_model_len,
        .max_n = max_n,
        .has_tokenizer = engine->text != NULL,
        .has_chat_template = engine->text && engine->text->chat_template,
    };
}

err_t engine_tokenize_request(struct engine *engine, const struct request *request, struct token_list *ids)
{
    switch (request->prompt_kind) {
    case PROMPT_TEXT:
        return tokenizer_encode(engine->text->tokenizer, request->text, request->text_bytes, NULL,
                                request->no_special_tokens ? 0 : TOKENIZE_ADD_SPECIAL, ids);
    case PROMPT_MESSAGES: {
        struct template_input input = {
            .messages = request->messages,
            .n_messages = request->n_messages,
            .add_generation_prompt = !request->no_generation_prompt,
            .json = request->template_json,
            .json_bytes = request->template_json_bytes,
            .bos_token = engine->text->bos_token,
            .eos_token = engine->text->eos_token,
            .now_unix_s = time(NULL),
        };
        return text_encode_chat(engine->text, &input, ids);
    }
    case PROMPT_TOKEN_IDS:
        ids->ids = mem_alloc_array(request->n_token_ids, sizeof *ids->ids);
        if (!ids->ids)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a prompt");
        memcpy(ids->ids, request->token_ids, request->n_token_ids * sizeof *ids->ids);
        ids->count = ids->capacity = request->n_token_ids;
        return err_ok();
    case PROMPT_NONE:
        break;
    }
    return err_new(ERR_INVALID_ARGUMENT, "the request has no prompt");
}

static err_t queue_full(const struct engine *engine)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "the queue is full (%u requests); try again later",
                   engine->max_choices);
}

/* A request that cannot be answered in time is refused at once, while another server can still be asked. */
static err_t check_deadline(const struct engine *engine, const struct request *request)
{
    if (request->deadline_ns == REQUEST_NO_DEADLINE)
        return err_ok();
    int64_t left_ns = request->deadline_ns - clock_now_ns(engine->clock);
    if (left_ns <= 0)
        return err_new(ERR_DEADLINE_EXCEEDED, "the deadline had passed when the request arrived");
    uint32_t waiting;
    int64_t least_ns = engine_least_wait_ns(engine, &waiting);
    if (left_ns >= least_ns)
        return err_ok();
    return err_new(ERR_DEADLINE_EXCEEDED,
                   "the deadline is in %lld ms, and the first token cannot come before %lld ms: %u requests "
                   "wait",
                   (long long)(left_ns / 1000000), (long long)(least_ns / 1000000), waiting);
}

static err_t check_request(struct engine *engine, const struct request *request)
{
    if (atomic_load(&engine->failed))
        return engine->failure;
    if (atomic_load(&engine->draining))
        return err_new(ERR_UNAVAILABLE, "the server is shutting down");
    if (atomic_load(&engine->n_choices_reserved) >= engine->max_choices)
        return queue_full(engine); /* before any work is spent on it */
    struct validate_limits limits = engine_validate_limits(engine);
    TRY(validate_request(request, &limits));
    bool other_model =
        request->model && request->model[0] && strcmp(request->model, engine->served_name) != 0;
    if (other_model)
        return err_new(ERR_NOT_FOUND, "model \"%s\" is not served here; \"%s\" is", request->model,
                       engine->served_name);
    return check_deadline(engine, request);
}

/* Takes n places among the waiting and running choices. */
static err_t reserve_choices(struct engine *engine, uint32_t n)
{
    uint32_t used = atomic_load(&engine->n_choices_reserved);
    do {
        if (used + n > engine->max_choices)
            return queue_full(engine);
    } while (!atomic_compare_exchange_weak(&engine->n_choices_reserved, &used, used + n));
    return err_ok();
}

static void fill_sampler(const struct sampling_params *params, struct sampler_params *sampler)
{
    sampler->temperature = params->temperature;
    sampler->top_p = params->top_p;
    sampler->min_p = params->min_p;
    sampler->top_k = params->top_k > 0 ? (uint32_t)params->top_k : 0;
    sampler->repetition_penalty = params->repetition_penalty;
    sampler->presence_penalty = params->presence_penalty;
    sampler->frequency_penalty = params->frequency_penalty;
    sampler->seed = params->seed;
    sampler->min_tokens = params->min_tokens;
}

static const char *salt_name(const char *cache_salt, const char *tenant)
{
    return cache_salt ? cache_salt : tenant ? tenant : "";
}

uint64_t engine_salt(const struct engine *engine, const char *cache_salt, const char *tenant)
{
    const char *name = salt_name(cache_salt, tenant);
    return name[0] ? siphash128(engine->salt_key, name, strlen(name)).low : 0;
}

static err_t name_stream(struct engine *engine, const struct request *request, struct stream *stream)
{
    char made[32];
    const char *id = request->request_id;
    if (!id || !id[0]) {
        (void)snprintf(made, sizeof made, "req-%016" PRIx64,
                       atomic_fetch_add(&engine->next_request_number, 1));
        id = made;
    }
    stream->request_id = mem_strdup(id);
    stream->tenant = mem_strdup(request->tenant ? request->tenant : "");
    if (!stream->request_id || !stream->tenant)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a request");
    stream->door = request->door;
    stream->priority = request->priority;
    stream->deadline_ns = request->deadline_ns;
    stream->salt = engine_salt(engine, request->cache_salt, stream->tenant);
    if (engine->kv_hub)
        kv_hub_name_salt(engine->kv_hub, stream->salt, salt_name(request->cache_salt, stream->tenant));
    return err_ok();
}

/* Resolves, checks and copies: from a prompt's ids to a stream that the loop can take. */
static err_t make_stream(struct engine *engine, const struct request *request,
                         const struct token_list *prompt, struct stream **out)
{
    struct sampling_params params = request->sampling;
    sampling_params_resolve(&params, &engine->model_defaults);
    bool chat_length = request->prompt_kind == PROMPT_MESSAGES &&
                       !((request->sampling.set | engine->model_defaults.set) & SAMPLING_MAX_TOKENS);
    if (chat_length)
        params.max_tokens = 0; /* an answer in a chat ends by itself */
    if (!(params.set & SAMPLING_SEED))
        params.seed = random_seed_u64();
    struct validate_limits limits = engine_validate_limits(engine);
    size_t n_ids = validate_truncated(&params, prompt->count, &limits);
    const uint32_t *ids = prompt->ids + (prompt->count - n_ids);
    TRY(validate_resolved(&params, n_ids, request->n_output_prefix_ids, &limits));
    TRY(sched_check_fits(&engine->sched_config, (uint64_t)n_ids + params.max_tokens));
    struct sampler_params sampler = {0};
    fill_sampler(&params, &sampler);
    void *lists = NULL;
    TRY(sampling_lists_own(&params, engine->text ? engine->text->tokenizer : NULL, engine->eos_ids,
                           engine->n_eos_ids, &sampler, &lists));
    struct stream *stream;
    err_t e = sampling_lists_check(&sampler, limits.vocab_size, request->n_output_prefix_ids);
    if (e.code == ERR_OK)
        e = stream_create(engine, &params, lists, ids, n_ids, request->output_prefix_ids,
                          request->n_output_prefix_ids, &stream);
    if (e.code != ERR_OK) {
        mem_free(lists);
        return e;
    }
    for (uint32_t i = 0; i < stream->n_choices; i++) {
        stream->choices[i].sampler = sampler;
        stream->choices[i].sampler.choice_index = i;
    }
    e = name_stream(engine, request, stream);
    if (e.code != ERR_OK) {
        stream_destroy(stream);
        return e;
    }
    *out = stream;
    return e;
}

err_t engine_submit(struct service *service, const struct request *request, struct stream **out)
{
    struct engine *engine = (struct engine *)service;
    engine_collect_garbage(engine);
    TRY(check_request(engine, request));
    struct token_list ids = {.limit = TOKENIZER_TEXT_BYTES_MAX};
    struct stream *stream = NULL;
    err_t e = engine_tokenize_request(engine, request, &ids);
    if (e.code == ERR_OK)
        e = make_stream(engine, request, &ids, &stream);
    token_list_free(&ids);
    if (e.code != ERR_OK)
        return e;
    stream->submitted_ns = clock_now_ns(engine->clock);
    e = reserve_choices(engine, stream->n_choices);
    if (e.code == ERR_OK) {
        e = request_registry_add(engine->registry, stream);
        if (e.code != ERR_OK)
            atomic_fetch_sub(&engine->n_choices_reserved, stream->n_choices);
    }
    if (e.code != ERR_OK) {
        stream_destroy(stream);
        return e;
    }
    atomic_fetch_add(&engine->n_streams, 1);
    engine_count_request(engine, &stream->sampling);
    struct engine_command command = {.kind = COMMAND_SUBMIT, .stream = stream};
    /* The ring holds several commands for every place (COMMANDS_PER_CHOICE), so it cannot be full. */
    bool pushed = mpsc_ring_push(engine->commands, &command);
    ASSERT(pushed);
    event_count_bump(&engine->wake);
    *out = stream;
    return err_ok();
}

void engine_cancel_choice(struct engine *engine, struct choice *choice)
{
    if (atomic_load(&choice->finished) || atomic_exchange(&choice->cancel_requested, true))
        return;
    atomic_fetch_add(&choice->stream->references, 1); /* the command's; the loop drops it */
    struct engine_command command = {.kind = COMMAND_CANCEL, .choice = choice};
    bool pushed = mpsc_ring_push(engine->commands, &command);
    ASSERT(pushed);
    event_count_bump(&engine->wake);
}

void engine_collect_garbage(struct engine *engine)
{
    struct stream *stream = atomic_exchange(&engine->garbage, NULL);
    while (stream) {
        struct stream *next = stream->garbage_next;
        stream_destroy(stream);
        stream = next;
    }
}
