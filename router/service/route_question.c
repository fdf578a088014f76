#include "router/service/route_question.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/providers/provider_request.h"
#include "router/service/answer_check.h"

enum {
    BYTES_PER_TOKEN = 4,           /* a guess, for decisions, before an engine has counted any */
    BYTES_PER_TOKEN_LEAST = 2,     /* for money */
    TOKENS_PER_TURN = 8,           /* what a template adds */
    TOKENS_PER_PART = 2000,        /* of an image, and the least of a sound or file */
    BASE64_PER_TOKEN_SOUND = 128,  /* a second has 10 tokens or so, and 2 KB where it is pressed hard */
    BASE64_PER_TOKEN_PDF = 8,      /* pages, of which both text and picture are read */
    BASE64_PER_TOKEN_FILE = 2,     /* texts */
    OUTPUT_TOKENS_LIMIT = 4096,    /* where nobody says how long an answer may be */
    PROVIDER_TTFT_GUESS_MS = 1000, /* of a provider that was never asked */
};
#define NS_PER_MS INT64_C(1000000)

/* --- the one form */

static bool set_new(json_t *object, const char *name, json_t *value)
{
    return value && json_object_set_new(object, name, value) == 0;
}

static json_t *messages_of(const struct request *request)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < request->n_messages; i++) {
        const struct chat_message *message = &request->messages[i];
        json_t *one = json_object();
        bool fits = one && set_new(one, "role", json_string(message->role)) &&
                    set_new(one, "content",
                            json_stringn(message->content ? message->content : "", message->content_bytes));
        if (!fits || json_array_append(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
        json_decref(one);
    }
    return list;
}

static json_t *ids_of(const uint32_t *ids, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        (void)json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *texts_of(const char *const *texts, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        (void)json_array_append_new(list, json_string(texts[i]));
    return list;
}

static json_t *biases_of(const struct sampling_params *sampling)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < sampling->n_logit_bias; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%u", sampling->logit_bias[i].token_id);
        (void)json_object_set_new(object, name, json_real((double)sampling->logit_bias[i].bias));
    }
    return object;
}

static bool set_lists(json_t *object, const struct sampling_params *sampling)
{
    return (sampling->n_stop == 0 || set_new(object, "stop", texts_of(sampling->stop, sampling->n_stop))) &&
           (sampling->n_stop_token_ids == 0 ||
            set_new(object, "stop_token_ids",
                    ids_of(sampling->stop_token_ids, sampling->n_stop_token_ids))) &&
           (sampling->n_allowed_token_ids == 0 ||
            set_new(object, "allowed_token_ids",
                    ids_of(sampling->allowed_token_ids, sampling->n_allowed_token_ids))) &&
           (sampling->n_bad_words == 0 ||
            set_new(object, "bad_words", texts_of(sampling->bad_words, sampling->n_bad_words))) &&
           (sampling->n_logit_bias == 0 || set_new(object, "logit_bias", biases_of(sampling)));
}

/* Floats as people write them: 0.7 and not 0.699999988079071. */
static json_t *float_of(float value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.7g", (double)value);
    return json_real(strtod(text, NULL));
}

struct scalar_list {
    json_t *object;
    const struct sampling_params *sampling;
    bool fits;
};

/* Only what is set is made. */
#define SET(field, name, value)                                                                              \
    do {                                                                                                     \
        if (list->sampling->set & (field))                                                                   \
            list->fits = set_new(list->object, name, value) && list->fits;                                   \
    } while (0)

static void set_floats(struct scalar_list *list)
{
    const struct sampling_params *s = list->sampling;
    SET(SAMPLING_TEMPERATURE, "temperature", float_of(s->temperature));
    SET(SAMPLING_TOP_P, "top_p", float_of(s->top_p));
    SET(SAMPLING_TOP_K, "top_k", json_integer(s->top_k));
    SET(SAMPLING_MIN_P, "min_p", float_of(s->min_p));
    SET(SAMPLING_REPETITION_PENALTY, "repetition_penalty", float_of(s->repetition_penalty));
    SET(SAMPLING_PRESENCE_PENALTY, "presence_penalty", float_of(s->presence_penalty));
    SET(SAMPLING_FREQUENCY_PENALTY, "frequency_penalty", float_of(s->frequency_penalty));
}

static void set_counts(struct scalar_list *list)
{
    const struct sampling_params *s = list->sampling;
    SET(SAMPLING_SEED, "seed", json_integer((json_int_t)(s->seed & INT64_MAX)));
    SET(SAMPLING_MAX_TOKENS, "max_tokens", s->max_tokens > 0 ? json_integer(s->max_tokens) : json_null());
    SET(SAMPLING_MIN_TOKENS, "min_tokens", json_integer(s->min_tokens));
    SET(SAMPLING_N, "n", json_integer(s->n));
    SET(SAMPLING_IGNORE_EOS, "ignore_eos", json_boolean(s->ignore_eos));
    SET(SAMPLING_LOGPROBS, "logprobs", json_boolean(s->logprobs >= 0));
    SET(SAMPLING_LOGPROBS, "top_logprobs", s->logprobs > 0 ? json_integer(s->logprobs) : json_null());
    SET(SAMPLING_PROMPT_LOGPROBS, "prompt_logprobs",
        s->prompt_logprobs >= 0 ? json_integer(s->prompt_logprobs) : json_null());
    SET(SAMPLING_SKIP_SPECIAL_TOKENS, "skip_special_tokens", json_boolean(s->skip_special_tokens));
    SET(SAMPLING_INCLUDE_STOP, "include_stop_str_in_output", json_boolean(s->include_stop_str_in_output));
    SET(SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS, "spaces_between_special_tokens",
        json_boolean(s->spaces_between_special_tokens));
    SET(SAMPLING_TRUNCATE_PROMPT_TOKENS, "truncate_prompt_tokens", json_integer(s->truncate_prompt_tokens));
}
#undef SET

static bool set_scalars(json_t *object, const struct sampling_params *sampling)
{
    struct scalar_list list = {object, sampling, true};
    set_floats(&list);
    set_counts(&list);
    return list.fits;
}

/* What came as OpenAI's JSON is what it is; other doors' requests are written in that form. NULL in *out for
 * a request that has no messages, or more for their template: that means something to our models alone. */
static err_t write_json(const struct request *request, json_t **out)
{
    *out = NULL;
    if (request->prompt_kind != PROMPT_MESSAGES || request->n_output_prefix_ids > 0)
        return err_ok();
    if (request->original) {
        *out = json_incref(request->original);
        return err_ok();
    }
    if (request->template_json)
        return err_ok();
    json_t *object = json_object();
    bool fits = object && set_new(object, "messages", messages_of(request)) &&
                set_scalars(object, &request->sampling) && set_lists(object, &request->sampling) &&
                (!request->no_generation_prompt || set_new(object, "add_generation_prompt", json_false()));
    if (fits) {
        *out = object;
        return err_ok();
    }
    json_decref(object);
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
}

/* --- what it shows */

static uint64_t bytes_as_json(const json_t *value)
{
    return json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* Parts of a message that are neither text nor one of those that are counted. */
static uint64_t bytes_of_parts(const json_t *content)
{
    static const char *const COUNTED[] = {"text", "image_url", "input_audio", "file"};
    uint64_t bytes = 0;
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        bool is_counted = false;
        for (size_t j = 0; type && j < sizeof COUNTED / sizeof *COUNTED; j++)
            is_counted = is_counted || strcmp(type, COUNTED[j]) == 0;
        if (!is_counted)
            bytes += bytes_as_json(part);
    }
    return bytes;
}

static uint64_t tokens_of_data(const json_t *data, uint64_t base64_per_token)
{
    uint64_t tokens = json_string_length(data) / base64_per_token;
    return tokens > TOKENS_PER_PART ? tokens : TOKENS_PER_PART;
}

/* Of images, sounds and files: those that come along say how long they are, those by address do not. */
static uint64_t tokens_of_parts(const json_t *request)
{
    uint64_t tokens = 0;
    size_t i, j;
    json_t *message, *part;
    json_array_foreach(json_object_get(request, "messages"), i, message)
    {
        json_array_foreach(json_object_get(message, "content"), j, part)
        {
            const char *type = json_string_value(json_object_get(part, "type"));
            if (type == NULL)
                continue;
            const json_t *sound = json_object_get(json_object_get(part, "input_audio"), "data"),
                         *file = json_object_get(json_object_get(part, "file"), "file_data");
            const char *data = file ? json_string_value(file) : NULL;
            bool is_pdf = data && strncmp(data, "data:application/pdf", 20) == 0;
            if (strcmp(type, "image_url") == 0)
                tokens += TOKENS_PER_PART;
            else if (strcmp(type, "input_audio") == 0)
                tokens += tokens_of_data(sound, BASE64_PER_TOKEN_SOUND);
            else if (strcmp(type, "file") == 0)
                tokens += tokens_of_data(file, is_pdf ? BASE64_PER_TOKEN_PDF : BASE64_PER_TOKEN_FILE);
        }
    }
    return tokens;
}

/* What is sent besides the texts of messages: tools, schemas, calls of tools, and whatever else has a length.
 * read: the bytes of it that stand before a model with its prompt. */
struct beside {
    uint64_t all, read;
};

static struct beside bytes_beside(const json_t *request)
{
    static const char *const READ[] = {"tools", "functions", "response_format", "documents"};
    struct beside bytes = {0, 0};
    size_t i;
    const char *name;
    json_t *value, *message;
    if (request == NULL)
        return bytes;
    json_object_foreach((json_t *)request, name, value)
    {
        bool has_length = json_is_object(value) || json_is_array(value), is_read = false;
        if (!has_length || strcmp(name, "messages") == 0 || strcmp(name, "bantam") == 0)
            continue;
        for (size_t j = 0; j < sizeof READ / sizeof *READ; j++)
            is_read = is_read || strcmp(name, READ[j]) == 0;
        uint64_t size = bytes_as_json(value);
        bytes.all += size;
        bytes.read += is_read ? size : 0;
    }
    uint64_t of_messages = 0;
    json_array_foreach(json_object_get(request, "messages"), i, message)
    {
        json_object_foreach(message, name, value)
        {
            if (strcmp(name, "content") == 0)
                of_messages += bytes_of_parts(value);
            else if (strcmp(name, "role") != 0)
                of_messages += bytes_as_json(value);
        }
    }
    bytes.all += of_messages;
    bytes.read += of_messages;
    return bytes;
}

/* As the engine beside us has lately counted: how many bytes a token has depends on the tokenizer and on what
 * a tenant's people write. */
static uint64_t tokens_of_bytes(const struct route_snapshot *snapshot, const char *tenant, uint64_t bytes)
{
    uint32_t per_kib = upstream_tokens_per_kib(snapshot->tiers[0].upstreams[0].state, tenant);
    return (per_kib > 0 ? bytes * per_kib / 1024 : bytes / BYTES_PER_TOKEN) + 1;
}

static void estimate(const struct route_snapshot *snapshot, const struct request *request,
                     struct route_question *question)
{
    struct beside beside = bytes_beside(question->json ? question->json : request->original);
    uint64_t bytes = question->signals.text_bytes;
    uint64_t parts =
        (uint64_t)question->signals.n_images + question->signals.n_audio + question->signals.n_files;
    question->turn_tokens = request->n_messages * TOKENS_PER_TURN;
    if (request->prompt_kind == PROMPT_TOKEN_IDS) {
        question->prompt_tokens = request->n_token_ids;
    } else {
        uint64_t read = request->prompt_kind == PROMPT_TEXT ? request->text_bytes : bytes + beside.read;
        question->prompt_bytes = parts == 0 ? read : 0;
        question->prompt_tokens =
            tokens_of_bytes(snapshot, question->input.tenant, read) + question->turn_tokens;
    }
    question->input_bound = (bytes + (question->json ? beside.all : 0)) / BYTES_PER_TOKEN_LEAST +
                            question->turn_tokens + tokens_of_parts(question->json) + 1;
    json_int_t n = json_integer_value(json_object_get(question->json, "n"));
    question->n_choices = n > 1 ? (uint64_t)n : 1;
}

static err_t read_hints(const struct request *request, struct route_question *question)
{
    question->hints = ROUTE_HINTS_NONE;
    if (request->original)
        TRY(route_hints_of_body(request->original, &question->hints));
    for (size_t i = 0; i < request->n_hints; i++)
        TRY(route_hint_set(&question->hints, request->hints[i].name, request->hints[i].value));
    return err_ok();
}

static void take_signals(struct route_question *question, const struct request *request)
{
    if (question->json)
        question->signals = request_signals_of(question->json);
    else if (request->original)
        question->signals = request_signals_of(request->original);
    else
        question->signals.text_bytes = request->text_bytes;
    if (question->signals.max_tokens == 0 && (request->sampling.set & SAMPLING_MAX_TOKENS))
        question->signals.max_tokens = request->sampling.max_tokens;
}

/* Whoever names a tier, or a model as the tiers do, wishes it. */
static void read_wish(const struct route_snapshot *snapshot, struct route_question *question)
{
    const struct policy *policy = snapshot_config(snapshot)->policy;
    question->asked_tier = POLICY_TIERS_MAX;
    if (!policy_find_model(policy, question->input.model, &question->asked_tier, &question->asked_model) ||
        question->hints.route != WISH_AUTO)
        return;
    size_t tier = question->asked_tier;
    question->hints.route = tier == 0                       ? WISH_LOCAL
                            : tier == snapshot->n_tiers - 1 ? WISH_FRONTIER
                                                            : WISH_MODEL;
}

size_t route_question_model(const struct route_question *question, size_t tier, size_t position)
{
    if (tier != question->asked_tier || position > question->asked_model)
        return position;
    return position == 0 ? question->asked_model : position - 1;
}

/* --- where it may go */

/* Anthropic's form always has one (request_anthropic.c). Where what is left of the context may be less, some
 * refuse the request for the limit; the context is one itself. */
uint32_t route_question_output_limit(const struct route_question *question,
                                     const struct provider_model *model)
{
    uint32_t limit = model->max_output_tokens > 0 ? model->max_output_tokens : OUTPUT_TOKENS_LIMIT;
    bool is_long = model->context_tokens > 0 && question->input_bound + limit > model->context_tokens;
    if (question->signals.max_tokens > 0 || (is_long && model->kind != PROVIDER_ANTHROPIC))
        return 0;
    return limit;
}

nanodollars route_question_estimate(const struct route_question *question,
                                    const struct route_upstream *upstream)
{
    if (upstream->is_local)
        return 0;
    uint64_t output = question->signals.max_tokens, all;
    if (output == 0)
        output = route_question_output_limit(question, upstream->model);
    if (output == 0)
        output = upstream->model->context_tokens;
    if (__builtin_mul_overflow(output, question->n_choices, &all))
        all = UINT64_MAX;
    uint64_t context = upstream->model->context_tokens, input = question->input_bound;
    return price_estimate(&upstream->model->price, context > 0 && input > context ? context : input, all);
}

static err_t check_provider(const struct question_context *context, const struct request *request,
                            const struct route_question *question, const struct route_upstream *upstream)
{
    if (context->is_offline)
        return err_new(ERR_UNAVAILABLE, "the router runs offline");
    if (request->takes_ids_only)
        return err_new(ERR_UNIMPLEMENTED,
                       "the client's protocol has token ids alone, and providers give none");
    if (question->json == NULL)
        return err_new(ERR_UNIMPLEMENTED, "prompts without messages stay here");
    if (question->hints.max_cost >= 0 &&
        route_question_estimate(question, upstream) > question->hints.max_cost)
        return err_new(ERR_QUOTA_EXCEEDED, "it may cost more than max_cost");
    TRY(provider_request_check(upstream->model, question->json));
    const char *gap = upstream->model->takes_unchecked_schemas
                          ? NULL
                          : answer_check_gap(json_object_get(question->json, "response_format"));
    return gap == NULL
               ? err_ok()
               : err_new(ERR_UNIMPLEMENTED,
                         "the schema of response_format has %s, against which an answer cannot be checked",
                         gap);
}

static uint64_t least_context(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The first model's reason stands for the tier, when none of them can be asked. */
static void keep_reason(struct route_question *question, size_t tier, const char *reason)
{
    if (question->why_not[tier] == NULL)
        question->why_not[tier] = mem_strdup(reason);
}

static void look_at_local(const struct question_context *context, const struct request *request,
                          struct route_question *question, size_t at)
{
    const struct route_tier *tier = &context->snapshot->tiers[at];
    struct local_fleet *fleet = snapshot_fleet(context->snapshot);
    struct policy_input *input = &question->input;
    input->is_down[at] = true;
    for (size_t i = 0; i < tier->tier->n_models; i++) {
        struct local_view view;
        if (!local_fleet_view(fleet, tier->upstreams[i].local, &view))
            continue;
        if (view.has_info)
            input->context_tokens[at] = least_context(input->context_tokens[at], view.info.max_model_len);
        if (request->beyond) {
            keep_reason(question, at, request->beyond);
            continue;
        }
        question->can_take[at] |= (uint8_t)(1u << i);
        if (view.n_up == 0)
            continue;
        input->is_down[at] = false;
        int64_t ttft_ns = local_fleet_predict_ttft_ns(fleet, tier->upstreams[i].local, request);
        if (ttft_ns >= 0 && (input->ttft_ms[at] < 0 || ttft_ns / NS_PER_MS < input->ttft_ms[at]))
            input->ttft_ms[at] = ttft_ns / NS_PER_MS;
    }
}

static void look_at_providers(const struct question_context *context, const struct request *request,
                              struct route_question *question, size_t at)
{
    const struct route_tier *tier = &context->snapshot->tiers[at];
    struct policy_input *input = &question->input;
    input->is_down[at] = true;
    for (size_t i = 0; i < tier->tier->n_models; i++) {
        const struct route_upstream *upstream = &tier->upstreams[i];
        input->context_tokens[at] = least_context(input->context_tokens[at], upstream->model->context_tokens);
        err_t e = check_provider(context, request, question, upstream);
        if (e.code != ERR_OK) {
            keep_reason(question, at, e.message);
            continue;
        }
        question->can_take[at] |= (uint8_t)(1u << i);
        if (upstream_breaker(context->upstreams, upstream->state, context->now_ns) == BREAKER_OPEN ||
            upstream_wait_ns(context->upstreams, upstream->state, context->now_ns) > 0)
            continue;
        int64_t ttft_ns = upstream_first_token_ns(context->upstreams, upstream->state, 0.5);
        if (input->is_down[at])
            input->ttft_ms[at] = ttft_ns < 0 ? PROVIDER_TTFT_GUESS_MS : ttft_ns / NS_PER_MS;
        input->is_down[at] = false;
    }
}

/* What the cheapest call to a provider may cost; -1 = none can be asked. */
static nanodollars cheapest(const struct question_context *context, const struct route_question *question)
{
    nanodollars least = -1;
    for (size_t t = 0; t < context->snapshot->n_tiers; t++) {
        const struct route_tier *tier = &context->snapshot->tiers[t];
        for (size_t i = 0; !tier->tier->is_local && i < tier->tier->n_models; i++) {
            nanodollars cost = route_question_estimate(question, &tier->upstreams[i]);
            if ((question->can_take[t] & 1u << i) && (least < 0 || cost < least))
                least = cost;
        }
    }
    return least;
}

static bool is_over(nanodollars used, nanodollars more, nanodollars limit)
{
    return limit > 0 && money_add(used, more) > limit;
}

static uint64_t percent_of(nanodollars used, nanodollars limit)
{
    enum { PERCENT_MAX = 1000 };
    double percent = limit > 0 ? 100 * (double)used / (double)limit : 0;
    return percent < PERCENT_MAX ? (uint64_t)percent : PERCENT_MAX;
}

/* A ledger that cannot be read lets nobody spend. */
static void look_at_budget(const struct question_context *context, struct route_question *question)
{
    struct policy_input *input = &question->input;
    const struct ledger_budget *budget =
        route_config_budget(snapshot_config(context->snapshot), input->tenant);
    if (budget == NULL || (budget->per_day == 0 && budget->per_month == 0))
        return;
    struct ledger_balance today, this_month;
    if (ledger_balance(context->ledger, input->tenant, &today, &this_month).code != ERR_OK) {
        input->budget_percent = 100;
        input->is_broke = true;
        return;
    }
    nanodollars more = cheapest(context, question), of_day = money_add(today.spent, today.reserved),
                of_month = money_add(this_month.spent, this_month.reserved);
    uint64_t day = percent_of(of_day, budget->per_day), month = percent_of(of_month, budget->per_month);
    input->budget_percent = day > month ? day : month;
    input->is_broke =
        more >= 0 && (is_over(of_day, more, budget->per_day) || is_over(of_month, more, budget->per_month));
}

static void fill_input(const struct question_context *context, const struct request *request,
                       struct route_question *question)
{
    struct policy_input *input = &question->input;
    input->intent = "";
    input->difficulty = -1;
    input->prompt_tokens = question->prompt_tokens;
    for (size_t i = 0; i < context->snapshot->n_tiers; i++) {
        input->ttft_ms[i] = -1;
        if (context->snapshot->tiers[i].tier->is_local)
            look_at_local(context, request, question, i);
        else
            look_at_providers(context, request, question, i);
        if (question->can_take[i] == 0)
            input->cannot_cross[i] = question->why_not[i] ? question->why_not[i] : "it cannot be sent there";
    }
    look_at_budget(context, question);
}

err_t route_question_read(const struct question_context *context, const struct request *request,
                          struct route_question *out)
{
    *out = (struct route_question){.input = {.tenant = request->tenant ? request->tenant : "",
                                             .model = request->model ? request->model : ""}};
    TRY(read_hints(request, out));
    TRY(write_json(request, &out->json));
    take_signals(out, request);
    estimate(context->snapshot, request, out);
    read_wish(context->snapshot, out);
    fill_input(context, request, out);
    return err_ok();
}

void route_question_free(struct route_question *question)
{
    json_decref(question->json);
    for (size_t i = 0; i < POLICY_TIERS_MAX; i++)
        mem_free(question->why_not[i]);
    *question = (struct route_question){0};
}

void route_question_decide(struct route_question *question, const struct question_context *context,
                           struct buffer *trace)
{
    question->input.signals = &question->signals;
    question->input.hints = &question->hints;
    question->decision = policy_decide(snapshot_config(context->snapshot)->policy, &question->input, trace);
}

err_t route_question_refusal(const struct route_question *question)
{
    const struct policy_decision *decision = &question->decision;
    const char *why = question->input.cannot_cross[decision->tier];
    switch (decision->reason) {
    case REASON_BUDGET:
        return err_new(ERR_QUOTA_EXCEEDED, "the budget of tenant \"%.64s\" is spent", question->input.tenant);
    case REASON_CANNOT_CROSS:
        return err_new(ERR_UNIMPLEMENTED, "nobody can answer this request: %.300s", why ? why : "");
    default:
        return err_new(ERR_UNAVAILABLE, "%s",
                       decision->local_only ? "no engine is up, and this request must not leave the machine"
                                            : "nobody is up who could answer this request");
    }
}
