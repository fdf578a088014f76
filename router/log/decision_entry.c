#include "router/log/decision_entry.h"

#include <math.h>
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_Init and its like */
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "router/providers/json_text.h"

enum { HASH_BYTES = SHA256_DIGEST_LENGTH, REQUEST_BYTES_MAX = 64 << 20 };

/* A line being written: what does not fit once makes it broken. */
struct line {
    struct buffer *out;
    bool fits;
    char before; /* of the next field: '{' or ',' */
};

static void put(struct line *line, const char *text, size_t size)
{
    line->fits = line->fits && buffer_append(line->out, text, size);
}

static void put_key(struct line *line, const char *name)
{
    char before[2] = {line->before, '"'};
    put(line, before, 2);
    put(line, name, strlen(name));
    put(line, "\":", 2);
    line->before = ',';
}

static void put_text(struct line *line, const char *name, const char *text)
{
    if (text[0] == '\0')
        return;
    put_key(line, name);
    line->fits = line->fits && buffer_append_json_string(line->out, text, strlen(text));
}

static void put_number(struct line *line, const char *name, int64_t number)
{
    put_key(line, name);
    line->fits = line->fits && buffer_append_integer(line->out, number);
}

/* A count that is not known is not written. */
static void put_known(struct line *line, const char *name, int64_t number)
{
    if (number >= 0)
        put_number(line, name, number);
}

static void put_flag(struct line *line, const char *name, bool flag)
{
    if (!flag)
        return;
    put_key(line, name);
    put(line, "true", 4);
}

static void put_share(struct line *line, const char *name, double share)
{
    if (!isfinite(share) || share < 0)
        return;
    put_key(line, name);
    line->fits = line->fits && buffer_append_format(line->out, "%.17g", share);
}

static void open_object(struct line *line, const char *name)
{
    put_key(line, name);
    line->before = '{';
}

static void close_object(struct line *line)
{
    if (line->before == '{')
        put(line, "{", 1);
    put(line, "}", 1);
    line->before = ',';
}

/* ---- Hashes ---- */

/* HMAC (RFC 2104) with SHA-256. Two a line are worth OpenSSL's own functions: its general way to the same
 * hash looks the algorithm up by name each time. */
static void keyed_hash(const struct decision_key *key, const char *bytes, size_t size,
                       uint8_t out[HASH_BYTES])
{
    enum { INNER = 0x36, OUTER = 0x5c };
    uint8_t inner[SHA256_CBLOCK], outer[SHA256_CBLOCK];
    SHA256_CTX context;
    memset(inner, INNER, sizeof inner);
    memset(outer, OUTER, sizeof outer);
    for (size_t i = 0; i < DECISION_KEY_BYTES; i++) {
        inner[i] ^= key->bytes[i];
        outer[i] ^= key->bytes[i];
    }
    SHA256_Init(&context);
    SHA256_Update(&context, inner, sizeof inner);
    SHA256_Update(&context, bytes, size);
    SHA256_Final(out, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, outer, sizeof outer);
    SHA256_Update(&context, out, HASH_BYTES);
    SHA256_Final(out, &context);
}

static void put_hash(struct line *line, const char *what, const struct decision_key *key, const char *bytes,
                     size_t size)
{
    static const char DIGITS[] = "0123456789abcdef";
    uint8_t hash[HASH_BYTES];
    char name[32], text[2 * HASH_BYTES];
    keyed_hash(key, bytes, size, hash);
    for (size_t i = 0; i < HASH_BYTES; i++) {
        text[2 * i] = DIGITS[hash[i] >> 4];
        text[2 * i + 1] = DIGITS[hash[i] & 15];
    }
    (void)snprintf(name, sizeof name, "%s_bytes", what);
    put_number(line, name, (int64_t)size);
    (void)snprintf(name, sizeof name, "%s_hmac", what);
    put_key(line, name);
    put(line, "\"", 1);
    put(line, text, sizeof text);
    put(line, "\"", 1);
}

static void put_request_hash(struct line *line, const json_t *request, const struct decision_key *key)
{
    struct buffer text = {.limit_bytes = REQUEST_BYTES_MAX};
    if (json_text_append_sorted(&text, request).code == ERR_OK)
        put_hash(line, "request", key, text.data ? text.data : "", text.size);
    else
        line->fits = false;
    buffer_free(&text);
}

/* ---- Parts ---- */

static void put_names(struct line *line, const struct decision_entry *entry)
{
    put_text(line, "id", entry->id);
    put_text(line, "request_id", entry->request_id);
    put_text(line, "tenant", entry->tenant);
    put_text(line, "model", entry->model);
    put_text(line, "provider", entry->provider);
    put_text(line, "answered_by", entry->answered_by);
    put_text(line, "tier", entry->tier);
    put_text(line, "reason", entry->reason);
    put_text(line, "rule", entry->rule);
    put_text(line, "cache", entry->cache);
    put_text(line, "policy_id", entry->policy_id);
    put_text(line, "fingerprint", entry->fingerprint);
    put_text(line, "stage", entry->stage);
    put_text(line, "error", entry->error);
    put_text(line, "finish_reason", entry->finish_reason);
}

static void put_counts(struct line *line, const struct decision_entry *entry)
{
    /* As text: it has 64 bits, and JSON's numbers of many programs do not. */
    put_key(line, "seed");
    line->fits = line->fits && buffer_append_format(line->out, "\"%llu\"", (unsigned long long)entry->seed);
    put_flag(line, "local_only", entry->local_only);
    put_flag(line, "escalated", entry->escalated);
    put_flag(line, "hedged", entry->hedged);
    put_number(line, "attempts", entry->attempts);
    put_share(line, "difficulty", entry->difficulty);
    put_share(line, "confidence", entry->confidence);
    put_number(line, "prompt_tokens", (int64_t)entry->prompt_tokens);
    put_known(line, "predicted_ttft_ms", entry->predicted_ttft_ms);
    put_known(line, "queue_us", entry->queue_us);
    put_known(line, "first_token_us", entry->first_token_us);
    put_known(line, "total_us", entry->total_us);
    open_object(line, "usage");
    put_known(line, "input_tokens", entry->usage.input_tokens);
    put_known(line, "cached_tokens", entry->usage.cached_tokens);
    put_known(line, "cache_write_tokens", entry->usage.cache_write_tokens);
    put_known(line, "output_tokens", entry->usage.output_tokens);
    put_known(line, "reasoning_tokens", entry->usage.reasoning_tokens);
    close_object(line);
    put_known(line, "cost_nanodollars", entry->cost);
    put_flag(line, "cost_is_estimate", entry->cost_is_estimate);
    put_known(line, "frontier_cost_nanodollars", entry->frontier_cost);
}

static void put_signals(struct line *line, const struct request_signals *signals)
{
    open_object(line, "signals");
    put_number(line, "turns", signals->n_turns);
    put_number(line, "tools", signals->n_tools);
    put_number(line, "images", signals->n_images);
    put_number(line, "audio", signals->n_audio);
    put_number(line, "files", signals->n_files);
    put_flag(line, "schema", signals->has_schema);
    put_flag(line, "code", signals->has_code);
    put_flag(line, "tool_calls", signals->calls_tools);
    put_text(line, "script", SCRIPT_NAMES[signals->script]);
    put_text(line, "language", LANGUAGE_NAMES[signals->language]);
    put_number(line, "text_bytes", (int64_t)signals->text_bytes);
    put_number(line, "max_tokens", (int64_t)signals->max_tokens);
    close_object(line);
}

static void put_tiers(struct line *line, const struct policy_input *input, size_t n_tiers)
{
    put_key(line, "tiers");
    put(line, "[", 1);
    for (size_t i = 0; i < n_tiers; i++) {
        if (i > 0)
            put(line, ",", 1);
        line->before = '{';
        put_number(line, "context_tokens", (int64_t)input->context_tokens[i]);
        put_known(line, "ttft_ms", input->ttft_ms[i]);
        put_flag(line, "down", input->is_down[i]);
        if (input->cannot_cross[i])
            put_text(line, "cannot_cross", input->cannot_cross[i]);
        close_object(line);
    }
    put(line, "]", 1);
}

static void put_input(struct line *line, const struct policy_input *input, size_t n_tiers)
{
    ASSERT(n_tiers <= POLICY_TIERS_MAX);
    open_object(line, "input");
    put_signals(line, input->signals);
    open_object(line, "hints");
    put_text(line, "route", ROUTE_WISH_NAMES[input->hints->route]);
    put_flag(line, "local_only", input->hints->local_only);
    put_number(line, "complexity", input->hints->complexity);
    put_known(line, "max_cost_nanodollars", input->hints->max_cost);
    put_text(line, "task", input->hints->task);
    close_object(line);
    put_text(line, "verdict", input->verdict == VERDICT_NONE ? "" : POLICY_VERDICT_NAMES[input->verdict]);
    put_text(line, "intent", input->intent);
    put_share(line, "difficulty", input->difficulty);
    put_number(line, "prompt_tokens", (int64_t)input->prompt_tokens);
    if (input->budget_percent > 0)
        put_number(line, "budget_percent", (int64_t)input->budget_percent);
    put_flag(line, "broke", input->is_broke);
    put_tiers(line, input, n_tiers);
    close_object(line);
}

err_t decision_entry_encode(const struct decision_entry *entry, bool content, const struct decision_key *key,
                            struct buffer *out)
{
    bool has_content = content && !entry->local_only;
    struct line line = {.out = out, .fits = true, .before = '{'};
    put_number(&line, "version", DECISION_LINE_VERSION);
    put_number(&line, "unix_ms", entry->unix_ms);
    put_names(&line, entry);
    put_counts(&line, entry);
    if (entry->input)
        put_input(&line, entry->input, entry->n_tiers);
    if (entry->request && has_content) {
        put_key(&line, "request");
        if (line.fits)
            TRY(json_text_append(out, entry->request));
    } else if (entry->request) {
        put_request_hash(&line, entry->request, key);
    }
    if (entry->answer && has_content) {
        put_key(&line, "answer");
        line.fits = line.fits && buffer_append_json_string(out, entry->answer, entry->answer_bytes);
    } else if (entry->answer) {
        put_hash(&line, "answer", key, entry->answer, entry->answer_bytes);
    }
    put(&line, "}", 1);
    if (!line.fits)
        return err_new(ERR_RESOURCE_EXHAUSTED, "a line of the decision log of more than %zu bytes",
                       out->limit_bytes);
    return err_ok();
}
