/* Answers: events as chunks of a stream or as parts of a whole. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "proto/openai_pieces.h"

enum { TOKEN_TEXT_BYTES_MAX = 8 << 10, OPENAI_OPENING_BYTES_MAX = 8 << 10 };

/* Joins with &&: each part is false at the buffer's limit. */
#define TEXT(text)  buffer_append(out, (text), sizeof(text) - 1)
#define PRINT(...)  buffer_append_format(out, __VA_ARGS__)
#define STRING(str) buffer_append_json_string(out, (str), strlen(str))

/* --- tokens and logprobs */

static bool decode_ids(struct service *service, const uint32_t *ids, size_t n, struct buffer *out)
{
    return service->vtable->detokenize(service, ids, n, false, out).code == ERR_OK;
}

bool openai_token_text(struct service *service, uint32_t id, struct buffer *out)
{
    /* At the start of a text some tokenizers leave out a blank: behind itself the token has all of its text.
     */
    const uint32_t twice[2] = {id, id};
    struct buffer once = {.limit_bytes = TOKEN_TEXT_BYTES_MAX}, both = {.limit_bytes = TOKEN_TEXT_BYTES_MAX};
    bool good = true;
    if (decode_ids(service, twice, 1, &once) && decode_ids(service, twice, 2, &both)) {
        bool begins = both.size >= once.size &&
                      memcmp(both.data ? both.data : "", once.data ? once.data : "", once.size) == 0;
        good = begins ? buffer_append(out, both.data ? both.data + once.size : "", both.size - once.size)
                      : buffer_append(out, once.data, once.size);
    }
    buffer_free(&once);
    buffer_free(&both);
    return good;
}

/* What the answer calls a token. */
static bool token_name(const struct openai_answer *answer, uint32_t id, struct buffer *name)
{
    buffer_clear(name);
    if (answer->request->return_tokens_as_token_ids || !answer->model->has_tokenizer)
        return buffer_append_format(name, "token_id:%" PRIu32, id);
    return openai_token_text(answer->service, id, name);
}

static const char *text_of(const struct buffer *buffer)
{
    return buffer->data ? buffer->data : "";
}

static size_t count_characters(const struct buffer *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->size; i++)
        n += ((unsigned char)text->data[i] & 0xc0) != 0x80;
    return n;
}

/* JSON has no infinities: clients know -9999 for them. */
static bool encode_logprob(float logprob, struct buffer *out)
{
    if (isnan(logprob))
        return TEXT("null");
    return isinf(logprob) ? TEXT("-9999.0") : PRINT("%.9g", (double)logprob);
}

static size_t top_count(const struct position_logprobs *position, int32_t wanted)
{
    size_t n = wanted < 0 ? 0 : (size_t)wanted;
    return position->n_top < n ? position->n_top : n;
}

/* Entry i of the best, the chosen one behind them unless it is among them; false past the end. */
static bool pick_top(const struct position_logprobs *position, size_t n_top, size_t i,
                     struct token_logprob *out)
{
    if (i < n_top) {
        *out = position->top[i];
        return true;
    }
    for (size_t k = 0; k < n_top; k++)
        if (position->top[k].token_id == position->chosen.token_id)
            return false;
    *out = position->chosen;
    return i == n_top;
}

/* {"text": logprob}: where two tokens have one text the better one stands. */
static bool encode_top_by_text(const struct openai_answer *answer, const struct position_logprobs *position,
                               struct buffer *name, struct buffer *out)
{
    if (isnan(position->chosen.logprob))
        return TEXT("null");
    struct buffer seen = {.limit_bytes = SAMPLING_LOGPROBS_MAX * TOKEN_TEXT_BYTES_MAX};
    size_t n_top = top_count(position, answer->request->logprobs);
    bool good = TEXT("{");
    struct token_logprob entry;
    size_t n_written = 0;
    for (size_t i = 0; good && pick_top(position, n_top, i, &entry); i++) {
        good = token_name(answer, entry.token_id, name);
        bool repeated = false;
        for (size_t at = 0; at < seen.size; at += strlen(seen.data + at) + 1)
            repeated = repeated || strcmp(seen.data + at, text_of(name)) == 0;
        if (!good || repeated)
            continue;
        good = buffer_append(&seen, text_of(name), strlen(text_of(name)) + 1) &&
               (n_written++ == 0 || TEXT(",")) && buffer_append_json_string(out, text_of(name), name->size) &&
               TEXT(":") && encode_logprob(entry.logprob, out);
    }
    buffer_free(&seen);
    return good && TEXT("}");
}

/* Runs of positions: the prompt's when echoed, and the output's. */
struct logprob_runs {
    const struct position_logprobs *positions[2];
    size_t n[2];
};

typedef bool encode_position_fn(const struct openai_answer *answer, struct openai_choice *choice,
                                const struct position_logprobs *position, struct buffer *name,
                                struct buffer *out);

static bool encode_list(const struct openai_answer *answer, struct openai_choice *choice,
                        const struct logprob_runs *runs, encode_position_fn *encode, struct buffer *out)
{
    struct buffer name = {.limit_bytes = TOKEN_TEXT_BYTES_MAX};
    bool good = TEXT("["), first = true;
    for (int run = 0; run < 2; run++)
        for (size_t i = 0; good && i < runs->n[run]; i++) {
            good = (first || TEXT(",")) && encode(answer, choice, &runs->positions[run][i], &name, out);
            first = false;
        }
    buffer_free(&name);
    return good && TEXT("]");
}

static bool encode_token(const struct openai_answer *answer, struct openai_choice *choice,
                         const struct position_logprobs *position, struct buffer *name, struct buffer *out)
{
    (void)choice;
    return token_name(answer, position->chosen.token_id, name) &&
           buffer_append_json_string(out, text_of(name), name->size);
}

static bool encode_chosen(const struct openai_answer *answer, struct openai_choice *choice,
                          const struct position_logprobs *position, struct buffer *name, struct buffer *out)
{
    (void)answer;
    (void)choice;
    (void)name;
    return encode_logprob(position->chosen.logprob, out);
}

static bool encode_top(const struct openai_answer *answer, struct openai_choice *choice,
                       const struct position_logprobs *position, struct buffer *name, struct buffer *out)
{
    (void)choice;
    return encode_top_by_text(answer, position, name, out);
}

static bool encode_offset(const struct openai_answer *answer, struct openai_choice *choice,
                          const struct position_logprobs *position, struct buffer *name, struct buffer *out)
{
    bool good = PRINT("%zu", choice->text_offset);
    if (answer->model->has_tokenizer) {
        buffer_clear(name);
        good = good && openai_token_text(answer->service, position->chosen.token_id, name);
        choice->text_offset += count_characters(name);
    }
    return good;
}

/* {"token", "logprob", "bytes"}, open for more. */
static bool encode_chat_token(const struct openai_answer *answer, const struct token_logprob *token,
                              struct buffer *name, struct buffer *out)
{
    bool good = token_name(answer, token->token_id, name) && TEXT("{\"token\":") &&
                buffer_append_json_string(out, text_of(name), name->size) && TEXT(",\"logprob\":") &&
                encode_logprob(token->logprob, out) && TEXT(",\"bytes\":[");
    for (size_t i = 0; good && i < name->size; i++)
        good = PRINT(i > 0 ? ",%u" : "%u", (unsigned)(unsigned char)name->data[i]);
    return good && TEXT("]");
}

static bool encode_chat_position(const struct openai_answer *answer, struct openai_choice *choice,
                                 const struct position_logprobs *position, struct buffer *name,
                                 struct buffer *out)
{
    (void)choice;
    bool good = encode_chat_token(answer, &position->chosen, name, out) && TEXT(",\"top_logprobs\":[");
    size_t n_top = top_count(position, answer->request->logprobs);
    for (size_t i = 0; good && i < n_top; i++)
        good = (i == 0 || TEXT(",")) && encode_chat_token(answer, &position->top[i], name, out) && TEXT("}");
    return good && TEXT("]}");
}

static bool encode_logprobs(const struct openai_answer *answer, struct openai_choice *choice,
                            const struct event *event, struct buffer *out)
{
    const struct openai_request *request = answer->request;
    struct logprob_runs runs = {
        {event->prompt_logprobs, event->logprobs},
        {request->echo ? event->n_prompt_logprobs : 0, request->prompt_only ? 0 : event->n_logprobs}};
    if (request->logprobs < 0 || runs.n[0] + runs.n[1] == 0)
        return TEXT(",\"logprobs\":null");
    if (request->kind == OPENAI_CHAT)
        return TEXT(",\"logprobs\":{\"content\":") &&
               encode_list(answer, choice, &runs, encode_chat_position, out) && TEXT(",\"refusal\":null}");
    return TEXT(",\"logprobs\":{\"tokens\":") && encode_list(answer, choice, &runs, encode_token, out) &&
           TEXT(",\"token_logprobs\":") && encode_list(answer, choice, &runs, encode_chosen, out) &&
           TEXT(",\"top_logprobs\":") && encode_list(answer, choice, &runs, encode_top, out) &&
           TEXT(",\"text_offset\":") && encode_list(answer, choice, &runs, encode_offset, out) && TEXT("}");
}

/* vLLM's list: null for the first token, then {"id": {"logprob", "rank", "decoded_token"}}. */
static bool encode_prompt_position(const struct openai_answer *answer, struct openai_choice *choice,
                                   const struct position_logprobs *position, struct buffer *name,
                                   struct buffer *out)
{
    (void)choice;
    if (isnan(position->chosen.logprob))
        return TEXT("null");
    bool good = TEXT("{");
    struct token_logprob entry;
    for (size_t i = 0; good && pick_top(position, position->n_top, i, &entry); i++) {
        uint32_t rank = i < position->n_top ? (uint32_t)i + 1 : position->rank;
        good = (i == 0 || TEXT(",")) && token_name(answer, entry.token_id, name) &&
               PRINT("\"%" PRIu32 "\":{\"logprob\":", entry.token_id) && encode_logprob(entry.logprob, out) &&
               PRINT(",\"rank\":%" PRIu32 ",\"decoded_token\":", rank) &&
               buffer_append_json_string(out, text_of(name), name->size) && TEXT("}");
    }
    return good && TEXT("}");
}

static bool encode_prompt_logprobs(const struct openai_answer *answer, const struct event *event,
                                   struct buffer *out)
{
    struct logprob_runs runs = {{event->prompt_logprobs, NULL}, {event->n_prompt_logprobs, 0}};
    return !answer->request->wants_prompt_logprobs ||
           (TEXT(",\"prompt_logprobs\":") && encode_list(answer, NULL, &runs, encode_prompt_position, out));
}

/* --- parts that chunks and wholes share */

static bool encode_ids(const char *field, const uint32_t *ids, size_t n, struct buffer *out)
{
    bool good = PRINT(",\"%s\":[", field);
    for (size_t i = 0; good && i < n; i++)
        good = PRINT(i > 0 ? ",%" PRIu32 : "%" PRIu32, ids[i]);
    return good && TEXT("]");
}

/* The event's text without the quotes around it. */
static bool encode_text(const struct openai_answer *answer, const struct openai_choice *choice,
                        const struct event *event, struct buffer *out)
{
    size_t echo_bytes = answer->request->echo && !choice->started ? choice->echo_bytes : 0;
    size_t text_bytes = answer->request->prompt_only ? 0 : event->text_bytes;
    if (echo_bytes == 0)
        return buffer_append_json_string(out, event->text, text_bytes);
    size_t before = out->size;
    if (!buffer_append_json_string(out, choice->echo_text, echo_bytes))
        return false;
    if (text_bytes == 0)
        return true;
    /* One string out of two: the first's closing quote and the second's opening one go. */
    size_t seam = out->size - 1;
    if (!buffer_append_json_string(out, event->text, text_bytes)) {
        out->size = before;
        return false;
    }
    memmove(out->data + seam, out->data + seam + 2, out->size - seam - 2);
    out->size -= 2;
    out->data[out->size] = '\0';
    return true;
}

/* A time that did not happen, or of which who answered tells nothing, is null. */
static bool encode_ms(const char *field, int64_t ns, struct buffer *out)
{
    return PRINT("\"%s\":", field) && (ns < 0 ? TEXT("null") : PRINT("%.3f", (double)ns * 1e-6));
}

static bool encode_timings(const struct timings *timings, struct buffer *out)
{
    return TEXT(",\"timings\":{") && encode_ms("queue_ms", timings->queue_ns, out) && TEXT(",") &&
           encode_ms("prefill_ms", timings->prefill_ns, out) && TEXT(",") &&
           encode_ms("decode_ms", timings->decode_ns, out) && TEXT("}");
}

/* finish_reason and what else the end of a choice tells. */
static bool encode_finish(const struct openai_answer *answer, const struct event *event, struct buffer *out)
{
    if (event->kind != EVENT_FINISHED)
        return TEXT(",\"finish_reason\":null");
    const char *reason = answer->request->prompt_only ? "length" : finish_reason_name(event->finish_reason);
    if (!PRINT(",\"finish_reason\":\"%s\",\"stop_reason\":", reason))
        return false;
    bool good = event->stop_string ? STRING(event->stop_string)
                : event->stop_token_id >= 0 && event->finish_reason == FINISH_STOP
                    ? PRINT("%" PRId64, event->stop_token_id)
                    : TEXT("null");
    return good && encode_timings(&event->timings, out) &&
           PRINT(",\"preemptions\":%" PRIu32, event->usage.preemptions);
}

static bool encode_token_ids(const struct openai_answer *answer, const struct event *event,
                             struct buffer *out)
{
    const struct openai_request *request = answer->request;
    if (!request->return_token_ids)
        return true;
    if (event->n_prompt_token_ids > 0 && (request->kind == OPENAI_COMPLETION || request->stream) &&
        !encode_ids("prompt_token_ids", event->prompt_token_ids, event->n_prompt_token_ids, out))
        return false;
    return encode_ids("token_ids", event->token_ids, request->prompt_only ? 0 : event->n_token_ids, out);
}

/* What is not known is null, and who answered then stands beside it. */
static bool encode_usage(const struct openai_usage *usage, struct buffer *out)
{
    if (usage->is_unknown)
        return TEXT("\"usage\":null") &&
               (!usage->source || (TEXT(",") && openai_encode_source(usage->source, out)));
    bool good =
        PRINT("\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64
              ",\"total_tokens\":%" PRIu64 ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64 "}",
              usage->prompt_tokens, usage->completion_tokens, usage->prompt_tokens + usage->completion_tokens,
              usage->cached_tokens);
    if (usage->source)
        good = good && TEXT(",") && openai_encode_source(usage->source, out);
    return good && TEXT("}");
}

/* The opening of every message, up to its choices. */
bool openai_answer_prepare(struct openai_answer *answer, const struct answer_source *source)
{
    struct buffer *out = &answer->opening;
    const char *model = source && source->model[0] ? source->model : answer->model->model;
    const char *fingerprint = source ? source->fingerprint : answer->model->fingerprint;
    buffer_clear(out);
    const char *object = answer->request->kind == OPENAI_COMPLETION ? "text_completion"
                         : answer->request->stream                  ? "chat.completion.chunk"
                                                                    : "chat.completion";
    out->limit_bytes = OPENAI_OPENING_BYTES_MAX;
    return TEXT("{\"id\":") && STRING(answer->id) &&
           PRINT(",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", object, answer->created_unix_s) &&
           STRING(model) && TEXT(",\"system_fingerprint\":") &&
           (fingerprint[0] ? STRING(fingerprint) : TEXT("null")) && TEXT(",\"choices\":[");
}

void openai_answer_free(struct openai_answer *answer)
{
    buffer_free(&answer->opening);
}

static bool encode_opening(const struct openai_answer *answer, struct buffer *out)
{
    return buffer_append(out, answer->opening.data, answer->opening.size);
}

/* --- streams */

/* Does a client see anything of it? */
static bool shows(const struct openai_answer *answer, const struct openai_choice *choice,
                  const struct event *event)
{
    bool shows_output = !answer->request->prompt_only, tokens = event->n_token_ids > 0 && shows_output;
    return event->kind == EVENT_FINISHED || !choice->started || (shows_output && event->text_bytes > 0) ||
           (answer->request->kind == OPENAI_CHAT && openai_has_pieces(event)) ||
           (tokens && (answer->request->return_token_ids || answer->request->logprobs >= 0));
}

static bool encode_chunk_body(const struct openai_answer *answer, struct openai_choice *choice,
                              const struct event *event, struct buffer *out)
{
    if (!PRINT("{\"index\":%" PRIu32 ",", choice->index))
        return false;
    if (answer->request->kind == OPENAI_COMPLETION)
        return TEXT("\"text\":") && encode_text(answer, choice, event, out);
    bool good = TEXT("\"delta\":{");
    if (!choice->started)
        good = good && TEXT("\"role\":\"assistant\",");
    good = good && TEXT("\"content\":");
    if (event->text_bytes == 0 && openai_has_pieces(event))
        good = good && TEXT("null");
    else
        good = good && encode_text(answer, choice, event, out);
    return good && openai_encode_delta_pieces(event, out) && TEXT("}");
}

bool openai_encode_chunk(const struct openai_answer *answer, struct openai_choice *choice,
                         const struct event *event, const struct openai_usage *usage, struct buffer *out)
{
    if (!shows(answer, choice, event))
        return true;
    bool good = TEXT("data: ") && encode_opening(answer, out) &&
                encode_chunk_body(answer, choice, event, out) &&
                encode_logprobs(answer, choice, event, out) && encode_token_ids(answer, event, out) &&
                encode_finish(answer, event, out) && TEXT("}]");
    if (usage)
        good = good && TEXT(",") && encode_usage(usage, out);
    else if (answer->request->include_usage)
        good = good && TEXT(",\"usage\":null");
    else if (event->kind == EVENT_FINISHED && event->source)
        good = good && TEXT(",") && openai_encode_source(event->source, out);
    choice->started = true;
    return good && TEXT("}\n\n");
}

bool openai_encode_usage_chunk(const struct openai_answer *answer, const struct openai_usage *usage,
                               struct buffer *out)
{
    return TEXT("data: ") && encode_opening(answer, out) && TEXT("],") && encode_usage(usage, out) &&
           TEXT("}\n\n");
}

bool openai_encode_done(struct buffer *out)
{
    return TEXT("data: [DONE]\n\n");
}

/* --- wholes */

bool openai_encode_begin(const struct openai_answer *answer, struct buffer *out)
{
    return encode_opening(answer, out);
}

bool openai_encode_choice(const struct openai_answer *answer, struct openai_choice *choice,
                          const struct event *event, struct buffer *out)
{
    bool chat = answer->request->kind == OPENAI_CHAT;
    bool good = (choice->index == 0 || TEXT(",")) && PRINT("{\"index\":%" PRIu32 ",", choice->index);
    if (chat)
        good = good && TEXT("\"message\":{\"role\":\"assistant\",\"content\":") &&
               (event->text_bytes == 0 && (event->n_tool_calls > 0 || event->refusal_bytes > 0)
                    ? TEXT("null")
                    : encode_text(answer, choice, event, out)) &&
               openai_encode_message_pieces(event, out) && TEXT("}");
    else
        good = good && TEXT("\"text\":") && encode_text(answer, choice, event, out);
    good = good && encode_logprobs(answer, choice, event, out) &&
           (chat || encode_prompt_logprobs(answer, event, out)) && encode_token_ids(answer, event, out) &&
           encode_finish(answer, event, out) && TEXT("}");
    choice->started = true;
    return good;
}

bool openai_encode_end(const struct openai_answer *answer, const struct event *first,
                       const struct openai_usage *usage, struct buffer *out)
{
    bool good = TEXT("],") && encode_usage(usage, out);
    if (answer->request->kind == OPENAI_CHAT) {
        good = good && encode_prompt_logprobs(answer, first, out);
        if (answer->request->return_token_ids)
            good = good &&
                   encode_ids("prompt_token_ids", first->prompt_token_ids, first->n_prompt_token_ids, out);
    }
    return good && TEXT("}");
}

/* --- the rest */

static bool encode_card(const struct model_card *card, int64_t created_unix_s, struct buffer *out)
{
    return TEXT("{\"id\":") && STRING(card->name) &&
           PRINT(",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":", created_unix_s) &&
           STRING(card->owner) && TEXT(",\"root\":") && STRING(card->name) &&
           TEXT(",\"parent\":null,\"max_model_len\":") &&
           (card->context_tokens > 0 ? PRINT("%" PRIu32, card->context_tokens) : TEXT("null"));
}

static bool encode_fingerprints(const struct model_info *model, struct buffer *out)
{
    return TEXT(",\"fingerprint\":") && STRING(model->fingerprint) &&
           TEXT(",\"fingerprints\":{\"weights\":") && STRING(model->weights_fingerprint) &&
           TEXT(",\"tokenizer\":") && STRING(model->tokenizer_fingerprint) && TEXT(",\"template\":") &&
           STRING(model->template_fingerprint) && TEXT(",\"arithmetic\":") &&
           STRING(model->arithmetic_fingerprint) && TEXT("}");
}

bool openai_model_card(struct service *service, size_t i, struct model_card *out)
{
    if (service->vtable->model_card)
        return service->vtable->model_card(service, i, out);
    const struct model_info *model = service->vtable->model_info(service);
    *out = (struct model_card){model->model, "bantam", model->max_model_len};
    return i == 0;
}

bool openai_encode_model(struct service *service, const struct model_card *card, int64_t created_unix_s,
                         struct buffer *out)
{
    bool good = encode_card(card, created_unix_s, out);
    if (!service->vtable->model_card)
        good = good && encode_fingerprints(service->vtable->model_info(service), out);
    return good && TEXT("}");
}

bool openai_encode_models(struct service *service, int64_t created_unix_s, struct buffer *out)
{
    struct model_card card;
    bool good = TEXT("{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; good && openai_model_card(service, i, &card); i++)
        good = (i == 0 || TEXT(",")) && openai_encode_model(service, &card, created_unix_s, out);
    return good && TEXT("]}");
}

static bool encode_strs(struct service *service, const uint32_t *ids, size_t n_ids, struct buffer *out)
{
    struct buffer name = {.limit_bytes = TOKEN_TEXT_BYTES_MAX};
    bool good = TEXT("[");
    for (size_t i = 0; good && i < n_ids; i++) {
        buffer_clear(&name);
        good = (i == 0 || TEXT(",")) && openai_token_text(service, ids[i], &name) &&
               buffer_append_json_string(out, text_of(&name), name.size);
    }
    buffer_free(&name);
    return good && TEXT("]");
}

bool openai_encode_tokens(struct service *service, const uint32_t *ids, size_t n_ids, bool with_strs,
                          struct buffer *out)
{
    const struct model_info *model = service->vtable->model_info(service);
    return PRINT("{\"count\":%zu,\"max_model_len\":%" PRIu32, n_ids, model->max_model_len) &&
           encode_ids("tokens", ids, n_ids, out) && TEXT(",\"token_strs\":") &&
           (with_strs ? encode_strs(service, ids, n_ids, out) : TEXT("null")) && TEXT("}");
}

bool openai_encode_text(const char *text, size_t text_bytes, struct buffer *out)
{
    return TEXT("{\"prompt\":") && buffer_append_json_string(out, text, text_bytes) && TEXT("}");
}
