#include "tests/proto/fake_service.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "api/metrics.h"
#include "base/event_count.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/hash.h"

struct fake_choice {
    uint32_t produced, delivered;
    bool finish_delivered;
};

struct stream {
    struct fake_service *fake;
    struct stream *previous, *next;
    char request_id[REQUEST_ID_BYTES_MAX + 1], tenant[REQUEST_TENANT_BYTES_MAX + 1];
    uint32_t prompt[FAKE_MAX_MODEL_LEN];
    size_t n_prompt;
    uint64_t hash;
    uint32_t n, max_tokens, first; /* first: output_prefix_ids */
    int32_t logprobs, prompt_logprobs;
    int64_t deadline_ns;
    bool cancelled, prompt_delivered;
    struct fake_choice choices[SAMPLING_N_MAX];
    uint32_t next_choice, n_done;
    const struct event *script; /* [n_script]; NULL = tokens are drawn */
    size_t n_script, next_event;
    /* of the event given out last */
    uint32_t ids[FAKE_RING_TOKENS];
    struct position_logprobs lps[FAKE_RING_TOKENS], prompt_lps[FAKE_MAX_MODEL_LEN];
    char text[FAKE_RING_TOKENS * 8];
};

struct fake_service {
    struct service service;
    struct service_vtable vtable;
    const struct event *script; /* [n_script] of new streams */
    size_t n_script;
    struct fake_options options;
    struct event_count progress, changed;
    pthread_t thread;
    pthread_mutex_t mutex;
    struct stream *streams;
    bool held, ends, draining, step_running, failed;
    int64_t heartbeat_age_ns;
    enum err_code submit_failure;
    uint32_t fail_at, stall_at;
    uint32_t next_id;
    struct fake_counts counts;
    struct fake_asked asked;
    struct metrics metrics;
};

static struct fake_service *fake_of(struct service *service)
{
    return (struct fake_service *)service;
}

uint32_t fake_token(uint64_t prompt_hash, uint32_t choice, uint32_t position)
{
    uint64_t key[3] = {prompt_hash, choice, position};
    return (uint32_t)(hash64(key, sizeof key, 7) % FAKE_VOCAB_SIZE);
}

uint64_t fake_prompt_hash(const uint32_t *ids, size_t n_ids)
{
    return hash64(ids, n_ids * sizeof *ids, 0);
}

/* --- the loop */

static bool step(struct fake_service *fake)
{
    bool any = false;
    fake->counts.paused = 0;
    for (struct stream *stream = fake->streams; stream; stream = stream->next) {
        bool paused = false;
        for (uint32_t c = 0; c < stream->n && !stream->cancelled; c++) {
            struct fake_choice *choice = &stream->choices[c];
            if (stream->script)
                continue;
            bool room = choice->produced - choice->delivered < FAKE_RING_TOKENS;
            paused = paused || !room;
            bool stalls = stream->first + choice->produced >= fake->stall_at;
            if (!room || stalls || choice->produced == stream->max_tokens)
                continue;
            choice->produced++;
            any = true;
        }
        fake->counts.paused += paused;
        fake->counts.pauses += paused;
    }
    fake->counts.steps++;
    return any;
}

static void *loop_main(void *argument)
{
    struct fake_service *fake = argument;
    struct timespec tick = {.tv_nsec = fake->options.tick_ns};
    for (;;) {
        uint32_t seen = event_count_read(&fake->changed);
        pthread_mutex_lock(&fake->mutex);
        bool ends = fake->ends;
        bool any = !fake->held && step(fake);
        pthread_mutex_unlock(&fake->mutex);
        if (ends)
            return NULL;
        if (any)
            event_count_bump(&fake->progress);
        if (fake->options.tick_ns > 0)
            clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
        else if (!any)
            event_count_wait(&fake->changed, seen, -1);
    }
}

/* --- streams */

static err_t prompt_of(const struct request *request, struct stream *stream)
{
    if (request->prompt_kind == PROMPT_TOKEN_IDS) {
        if (request->n_token_ids > FAKE_MAX_MODEL_LEN)
            return err_new(ERR_INVALID_ARGUMENT, "too many token ids");
        memcpy(stream->prompt, request->token_ids, request->n_token_ids * sizeof(uint32_t));
        stream->n_prompt = request->n_token_ids;
    } else if (request->prompt_kind == PROMPT_TEXT) {
        stream->n_prompt =
            request->text_bytes < FAKE_MAX_MODEL_LEN ? request->text_bytes : FAKE_MAX_MODEL_LEN;
        for (size_t i = 0; i < stream->n_prompt; i++)
            stream->prompt[i] = (unsigned char)request->text[i];
    } else if (request->prompt_kind == PROMPT_MESSAGES) {
        for (size_t i = 0; i < request->n_messages; i++)
            stream->prompt[stream->n_prompt++] =
                (uint32_t)request->messages[i].content_bytes % FAKE_VOCAB_SIZE;
    }
    if (stream->n_prompt == 0)
        return err_new(ERR_INVALID_ARGUMENT, "no prompt");
    stream->hash = fake_prompt_hash(stream->prompt, stream->n_prompt);
    return err_ok();
}

static void link_stream(struct fake_service *fake, struct stream *stream)
{
    stream->next = fake->streams;
    if (fake->streams)
        fake->streams->previous = stream;
    fake->streams = stream;
    fake->counts.live++;
    fake->counts.submitted++;
}

static err_t admit(struct fake_service *fake, struct stream *stream)
{
    enum err_code failure = fake->submit_failure;
    fake->submit_failure = ERR_OK;
    if (failure != ERR_OK)
        return err_new(failure, "made to fail");
    if (fake->draining)
        return err_new(ERR_UNAVAILABLE, "draining");
    if (fake->options.max_streams && fake->counts.live >= fake->options.max_streams)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the queue is full");
    if (stream->request_id[0] == '\0')
        (void)snprintf(stream->request_id, sizeof stream->request_id, "fake-%u", fake->next_id++);
    link_stream(fake, stream);
    return err_ok();
}

static void note_request(const struct request *request, struct fake_asked *asked)
{
    asked->prompt_kind = request->prompt_kind;
    asked->takes_ids_only = request->takes_ids_only;
    size_t at = 0;
    for (size_t i = 0; i < request->n_messages && at < sizeof asked->text; i++)
        at += (size_t)snprintf(asked->text + at, sizeof asked->text - at, "%s: %.*s\n",
                               request->messages[i].role, (int)request->messages[i].content_bytes,
                               request->messages[i].content);
    at = 0;
    for (size_t i = 0; i < request->n_hints && at < sizeof asked->hints; i++)
        at += (size_t)snprintf(asked->hints + at, sizeof asked->hints - at, "%s=%s ", request->hints[i].name,
                               request->hints[i].value);
    if (request->beyond)
        (void)snprintf(asked->beyond, sizeof asked->beyond, "%s", request->beyond);
    if (request->original) {
        char *text = json_dumps(request->original, JSON_COMPACT | JSON_SORT_KEYS);
        ASSERT(text);
        (void)snprintf(asked->original, sizeof asked->original, "%s", text);
        free(text);
    }
}

static err_t fake_submit(struct service *service, const struct request *request, struct stream **out)
{
    struct fake_service *fake = fake_of(service);
    struct stream *stream = mem_alloc(sizeof *stream);
    ASSERT(stream);
    stream->fake = fake;
    struct sampling_params sampling = request->sampling;
    sampling_params_resolve(&sampling, NULL);
    stream->n = sampling.n;
    stream->first = (uint32_t)request->n_output_prefix_ids;
    stream->max_tokens = sampling.max_tokens > stream->first ? sampling.max_tokens - stream->first : 0;
    stream->logprobs = sampling.logprobs;
    stream->prompt_logprobs = sampling.prompt_logprobs;
    stream->deadline_ns = request->deadline_ns;
    if (request->request_id)
        (void)snprintf(stream->request_id, sizeof stream->request_id, "%s", request->request_id);
    struct fake_asked asked = {.priority = request->priority};
    if (request->tenant)
        (void)snprintf(asked.tenant, sizeof asked.tenant, "%s", request->tenant);
    if (request->cache_salt)
        (void)snprintf(asked.cache_salt, sizeof asked.cache_salt, "%s", request->cache_salt);
    note_request(request, &asked);
    memcpy(stream->tenant, asked.tenant, sizeof stream->tenant);
    err_t e = prompt_of(request, stream);
    stream->hash ^= fake->options.salt;
    if (e.code == ERR_OK && (stream->n < 1 || stream->n > SAMPLING_N_MAX))
        e = err_new(ERR_INVALID_ARGUMENT, "n is %u", stream->n);
    if (e.code == ERR_OK) {
        pthread_mutex_lock(&fake->mutex);
        fake->asked = asked;
        stream->script = fake->script;
        stream->n_script = fake->n_script;
        e = admit(fake, stream);
        pthread_mutex_unlock(&fake->mutex);
        event_count_bump(&fake->changed);
    }
    if (e.code != ERR_OK)
        mem_free(stream);
    else
        *out = stream;
    return e;
}

static struct position_logprobs logprob_at(uint32_t token_id, int32_t n_top)
{
    struct position_logprobs position = {.chosen = {token_id, -0.5f}, .rank = 2};
    for (int32_t i = 0; i < n_top; i++)
        position.top[position.n_top++] = (struct token_logprob){(uint32_t)i, -0.25f * (float)(i + 1)};
    return position;
}

static void fill_tokens(struct stream *stream, uint32_t c, struct event *event)
{
    struct fake_choice *choice = &stream->choices[c];
    size_t text_bytes = 0;
    while (choice->delivered < choice->produced) {
        uint32_t id = fake_token(stream->hash, c, stream->first + choice->delivered++);
        stream->ids[event->n_token_ids] = id;
        stream->lps[event->n_token_ids++] = logprob_at(id, stream->logprobs);
        text_bytes +=
            (size_t)snprintf(stream->text + text_bytes, sizeof stream->text - text_bytes, "%u ", id);
    }
    event->token_ids = stream->ids;
    event->text = stream->text;
    event->text_bytes = text_bytes;
    event->logprobs = stream->lps;
    event->n_logprobs = stream->logprobs >= 0 ? event->n_token_ids : 0;
    if (c != 0 || stream->prompt_delivered)
        return;
    stream->prompt_delivered = true;
    event->prompt_token_ids = stream->prompt;
    event->n_prompt_token_ids = stream->n_prompt;
    if (stream->prompt_logprobs >= 0) {
        for (size_t i = 0; i < stream->n_prompt; i++)
            stream->prompt_lps[i] = logprob_at(stream->prompt[i], stream->prompt_logprobs);
        event->prompt_logprobs = stream->prompt_lps;
        event->n_prompt_logprobs = stream->n_prompt;
    }
}

static void fill_finish(struct stream *stream, uint32_t c, struct event *event)
{
    struct fake_choice *choice = &stream->choices[c];
    choice->finish_delivered = true;
    stream->n_done++;
    event->kind = EVENT_FINISHED;
    event->last = stream->n_done == stream->n;
    event->finish_reason = choice->delivered == stream->max_tokens ? FINISH_LENGTH : FINISH_ABORT;
    event->usage = (struct usage){.prompt_tokens = (uint32_t)stream->n_prompt,
                                  .completion_tokens = choice->delivered,
                                  .cached_tokens = 3};
    event->timings = (struct timings){1, 2, 3};
}

/* Tokens and finish come as two events, so that a reader cannot count on one. */
static bool next_of_choice(struct stream *stream, uint32_t c, struct event *out)
{
    struct fake_service *fake = stream->fake;
    struct fake_choice *choice = &stream->choices[c];
    if (choice->finish_delivered)
        return false;
    *out = (struct event){.kind = EVENT_TOKENS, .choice_index = c, .stop_token_id = -1, .text = ""};
    if (choice->produced > fake->fail_at) {
        fill_finish(stream, c, out);
        out->finish_reason = FINISH_ERROR;
        out->error = err_new(ERR_INTERNAL, "made to fail at %u", fake->fail_at);
        return true;
    }
    if (choice->delivered < choice->produced && !stream->cancelled) {
        fill_tokens(stream, c, out);
        return true;
    }
    bool stalls = stream->first + choice->delivered >= fake->stall_at;
    if ((stalls || choice->delivered < stream->max_tokens) && !stream->cancelled)
        return false;
    fill_finish(stream, c, out);
    return true;
}

static bool next_of_script(struct stream *stream, struct event *out)
{
    if (stream->fake->held || stream->next_event == stream->n_script)
        return false;
    *out = stream->script[stream->next_event++];
    stream->n_done = out->last ? stream->n : 0;
    return true;
}

static bool fake_stream_next(struct stream *stream, struct event *out)
{
    struct fake_service *fake = stream->fake;
    bool found = false;
    pthread_mutex_lock(&fake->mutex);
    if (!stream->cancelled && clock_now_ns(clock_monotonic()) >= stream->deadline_ns)
        stream->cancelled = true;
    if (stream->script)
        found = next_of_script(stream, out);
    for (uint32_t i = 0; !stream->script && i < stream->n && !found; i++) {
        uint32_t c = (stream->next_choice + i) % stream->n;
        found = next_of_choice(stream, c, out);
        if (found)
            stream->next_choice = (c + 1) % stream->n;
    }
    pthread_mutex_unlock(&fake->mutex);
    if (found)
        event_count_bump(&fake->changed);
    return found;
}

static void fake_stream_cancel(struct stream *stream)
{
    struct fake_service *fake = stream->fake;
    pthread_mutex_lock(&fake->mutex);
    stream->cancelled = true;
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->progress);
}

static void fake_stream_release(struct stream *stream)
{
    struct fake_service *fake = stream->fake;
    pthread_mutex_lock(&fake->mutex);
    if (stream->previous)
        stream->previous->next = stream->next;
    else
        fake->streams = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    fake->counts.live--;
    fake->counts.released++;
    fake->counts.cancelled += stream->n_done < stream->n;
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->changed);
    mem_free(stream);
}

static const char *fake_stream_request_id(const struct stream *stream)
{
    return stream->request_id;
}

/* --- the rest of the vtable */

static bool fake_abort(struct service *service, const char *tenant, const char *request_id)
{
    struct fake_service *fake = fake_of(service);
    bool found = false;
    pthread_mutex_lock(&fake->mutex);
    for (struct stream *stream = fake->streams; stream && !found; stream = stream->next) {
        found = strcmp(stream->request_id, request_id) == 0 && strcmp(stream->tenant, tenant) == 0;
        stream->cancelled = stream->cancelled || found;
    }
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->progress);
    return found;
}

static struct event_count *fake_progress(struct service *service)
{
    return &fake_of(service)->progress;
}

static const struct model_info *fake_model_info(struct service *service)
{
    (void)service;
    static const uint32_t eos[] = {2, 5};
    static const struct model_info info = {.model = "fake",
                                           .architecture = "FakeForCausalLM",
                                           .dtype = "float32",
                                           .kv_dtype = "int8",
                                           .quantization = "none",
                                           .vocab_size = FAKE_VOCAB_SIZE,
                                           .max_model_len = FAKE_MAX_MODEL_LEN,
                                           .n_parameters = 42,
                                           .has_tokenizer = true,
                                           .has_chat_template = true,
                                           .eos_token_ids = eos,
                                           .n_eos_token_ids = 2,
                                           .bos_token_id = 1,
                                           .fingerprint = "0123456789abcdef",
                                           .weights_fingerprint = "a",
                                           .tokenizer_fingerprint = "b",
                                           .template_fingerprint = "c",
                                           .arithmetic_fingerprint = "d"};
    return &info;
}

static void fake_loads(struct service *service, struct loads *out)
{
    struct fake_service *fake = fake_of(service);
    pthread_mutex_lock(&fake->mutex);
    *out = (struct loads){.requests_running = fake->counts.live,
                          .max_num_seqs = 256,
                          .kv_blocks_total = 1000,
                          .kv_blocks_used = fake->counts.live,
                          .requests_total = fake->counts.submitted,
                          .steps_total = fake->counts.steps,
                          .predicted_ttft_ns = 123000000,
                          .heartbeat_age_ns = fake->heartbeat_age_ns,
                          .step_running = fake->step_running,
                          .failed = fake->failed};
    pthread_mutex_unlock(&fake->mutex);
}

static int64_t fake_now_ns(struct service *service)
{
    (void)service;
    return clock_now_ns(clock_monotonic());
}

static err_t fake_tokenize(struct service *service, const struct request *request, uint32_t **ids,
                           size_t *n_ids)
{
    (void)service;
    if (request->prompt_kind != PROMPT_TEXT)
        return err_new(ERR_INVALID_ARGUMENT, "text only");
    *n_ids = request->text_bytes;
    *ids = mem_alloc_array(request->text_bytes + 1, sizeof(uint32_t));
    for (size_t i = 0; i < request->text_bytes; i++)
        (*ids)[i] = (unsigned char)request->text[i];
    return err_ok();
}

static err_t fake_detokenize(struct service *service, const uint32_t *ids, size_t n_ids,
                             bool skip_special_tokens, struct buffer *text)
{
    (void)service;
    for (size_t i = 0; i < n_ids; i++)
        if (!(skip_special_tokens && ids[i] == 2) && !buffer_append_format(text, "%u ", ids[i]))
            return err_new(ERR_RESOURCE_EXHAUSTED, "too long");
    return err_ok();
}

static void fake_drain(struct service *service)
{
    struct fake_service *fake = fake_of(service);
    pthread_mutex_lock(&fake->mutex);
    fake->draining = true;
    pthread_mutex_unlock(&fake->mutex);
}

static uint32_t fake_in_flight(struct service *service)
{
    return fake_service_counts(fake_of(service)).live;
}

static struct metrics *fake_metrics(struct service *service)
{
    return &fake_of(service)->metrics;
}

static const struct service_vtable fake_vtable = {
    .submit = fake_submit,
    .stream_next = fake_stream_next,
    .stream_cancel = fake_stream_cancel,
    .stream_release = fake_stream_release,
    .stream_request_id = fake_stream_request_id,
    .abort = fake_abort,
    .progress = fake_progress,
    .model_info = fake_model_info,
    .loads = fake_loads,
    .now_ns = fake_now_ns,
    .tokenize = fake_tokenize,
    .detokenize = fake_detokenize,
    .drain = fake_drain,
    .metrics = fake_metrics,
    .in_flight = fake_in_flight,
};

/* --- the test's side */

err_t fake_service_open(const struct fake_options *options, struct fake_service **out)
{
    struct fake_service *fake = mem_alloc(sizeof *fake);
    ASSERT(fake);
    fake->vtable = fake_vtable;
    fake->service.vtable = &fake->vtable;
    fake->options = *options;
    fake->fail_at = fake->stall_at = UINT32_MAX;
    pthread_mutex_init(&fake->mutex, NULL);
    if (pthread_create(&fake->thread, NULL, loop_main, fake) != 0)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no thread");
    *out = fake;
    return err_ok();
}

void fake_service_close(struct fake_service *fake)
{
    pthread_mutex_lock(&fake->mutex);
    fake->ends = true;
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->changed);
    pthread_join(fake->thread, NULL);
    ASSERT(!fake->streams);
    pthread_mutex_destroy(&fake->mutex);
    mem_free(fake);
}

struct service *fake_service_of(struct fake_service *fake)
{
    return &fake->service;
}

void fake_service_hold(struct fake_service *fake, bool held)
{
    pthread_mutex_lock(&fake->mutex);
    fake->held = held;
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->changed);
}

void fake_service_set_heartbeat(struct fake_service *fake, int64_t age_ns, bool step_running)
{
    pthread_mutex_lock(&fake->mutex);
    fake->heartbeat_age_ns = age_ns;
    fake->step_running = step_running;
    pthread_mutex_unlock(&fake->mutex);
}

void fake_service_set_failed(struct fake_service *fake)
{
    pthread_mutex_lock(&fake->mutex);
    fake->failed = true;
    pthread_mutex_unlock(&fake->mutex);
}

void fake_service_fail_submit(struct fake_service *fake, enum err_code code)
{
    pthread_mutex_lock(&fake->mutex);
    fake->submit_failure = code;
    pthread_mutex_unlock(&fake->mutex);
}

void fake_service_fail_at(struct fake_service *fake, uint32_t position)
{
    pthread_mutex_lock(&fake->mutex);
    fake->fail_at = position;
    pthread_mutex_unlock(&fake->mutex);
}

void fake_service_stall_at(struct fake_service *fake, uint32_t position)
{
    pthread_mutex_lock(&fake->mutex);
    fake->stall_at = position;
    pthread_mutex_unlock(&fake->mutex);
    event_count_bump(&fake->changed);
    event_count_bump(&fake->progress);
}

static bool fake_card(struct service *service, size_t i, struct model_card *out)
{
    static const struct model_card cards[FAKE_CARDS] = {{"fake", "bantam", FAKE_MAX_MODEL_LEN},
                                                        {"strong", "mock", 0}};
    (void)service;
    if (i >= FAKE_CARDS)
        return false;
    *out = cards[i];
    return true;
}

void fake_service_pass_on(struct fake_service *fake, const struct event *events, size_t n_events)
{
    pthread_mutex_lock(&fake->mutex);
    fake->script = events;
    fake->n_script = n_events;
    fake->vtable.passes_on = true;
    fake->vtable.model_card = fake_card;
    pthread_mutex_unlock(&fake->mutex);
}

struct fake_asked fake_service_asked(struct fake_service *fake)
{
    pthread_mutex_lock(&fake->mutex);
    struct fake_asked asked = fake->asked;
    pthread_mutex_unlock(&fake->mutex);
    return asked;
}

struct fake_counts fake_service_counts(struct fake_service *fake)
{
    pthread_mutex_lock(&fake->mutex);
    struct fake_counts counts = fake->counts;
    pthread_mutex_unlock(&fake->mutex);
    return counts;
}

void fake_service_wait(struct fake_service *fake, bool (*predicate)(const struct fake_counts *counts))
{
    int64_t limit_ns = clock_now_ns(clock_monotonic()) + INT64_C(60000000000);
    for (;;) {
        uint32_t seen = event_count_read(&fake->changed);
        struct fake_counts counts = fake_service_counts(fake);
        if (predicate(&counts))
            return;
        ASSERT(clock_now_ns(clock_monotonic()) < limit_ns);
        event_count_wait(&fake->changed, seen, 10000000);
    }
}
