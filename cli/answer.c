#include "cli/answer.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"

enum { ANSWER_TEXT_BYTES_MAX = 64 << 20 };

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for an answer");
}

static void *grow(void *block, size_t *capacity, size_t needed, size_t element_bytes)
{
    if (needed <= *capacity)
        return block;
    size_t larger = *capacity ? *capacity : 64;
    while (larger < needed)
        larger *= 2;
    void *grown = mem_realloc(block, larger * element_bytes);
    if (grown)
        *capacity = larger;
    return grown;
}

static err_t add_prompt(struct answer *answer, const struct event *event)
{
    answer->n_prompt = event->n_prompt_token_ids;
    answer->prompt_token_ids = mem_alloc_array(answer->n_prompt, sizeof *answer->prompt_token_ids);
    if (!answer->prompt_token_ids)
        return no_memory();
    memcpy(answer->prompt_token_ids, event->prompt_token_ids,
           answer->n_prompt * sizeof *answer->prompt_token_ids);
    if (event->n_prompt_logprobs == 0)
        return err_ok();
    answer->prompt_logprobs = mem_alloc_array(event->n_prompt_logprobs, sizeof *answer->prompt_logprobs);
    if (!answer->prompt_logprobs)
        return no_memory();
    answer->n_prompt_logprobs = event->n_prompt_logprobs;
    memcpy(answer->prompt_logprobs, event->prompt_logprobs,
           event->n_prompt_logprobs * sizeof *answer->prompt_logprobs);
    return err_ok();
}

err_t answer_add(struct answer *answer, const struct event *event)
{
    if (event->prompt_token_ids && !answer->prompt_token_ids)
        TRY(add_prompt(answer, event));
    size_t n = answer->n_tokens + event->n_token_ids;
    uint32_t *ids = grow(answer->token_ids, &answer->capacity, n, sizeof *ids);
    if (n > 0 && !ids)
        return no_memory();
    answer->token_ids = ids;
    if (event->n_token_ids)
        memcpy(ids + answer->n_tokens, event->token_ids, event->n_token_ids * sizeof *ids);
    answer->n_tokens = n;
    if (event->n_logprobs) {
        size_t total = answer->n_logprobs + event->n_logprobs;
        struct position_logprobs *logprobs =
            grow(answer->logprobs, &answer->logprobs_capacity, total, sizeof *logprobs);
        if (!logprobs)
            return no_memory();
        answer->logprobs = logprobs;
        memcpy(logprobs + answer->n_logprobs, event->logprobs, event->n_logprobs * sizeof *logprobs);
        answer->n_logprobs = total;
    }
    answer->text.limit_bytes = ANSWER_TEXT_BYTES_MAX;
    if (!buffer_append(&answer->text, event->text, event->text_bytes))
        return no_memory();
    if (event->kind == EVENT_FINISHED) {
        answer->finished = true;
        answer->finish_reason = event->finish_reason;
        answer->usage = event->usage;
        answer->timings = event->timings;
        answer->error = event->error;
    }
    return err_ok();
}

void answer_free(struct answer *answer)
{
    mem_free(answer->token_ids);
    mem_free(answer->logprobs);
    mem_free(answer->prompt_token_ids);
    mem_free(answer->prompt_logprobs);
    buffer_free(&answer->text);
    *answer = (struct answer){0};
}

static bool write_ids(const char *name, const uint32_t *ids, size_t n, struct buffer *out)
{
    bool ok = buffer_append_format(out, "\"%s\":[", name);
    for (size_t i = 0; i < n && ok; i++)
        ok = buffer_append_format(out, "%s%" PRIu32, i ? "," : "", ids[i]);
    return ok && buffer_append_text(out, "]");
}

/* Nine digits bring a float back exactly. */
static bool write_logprob(const struct token_logprob *item, struct buffer *out)
{
    if (!isfinite(item->logprob))
        return buffer_append_format(out, "\"token_id\":%" PRIu32 ",\"logprob\":null", item->token_id);
    return buffer_append_format(out, "\"token_id\":%" PRIu32 ",\"logprob\":%.9g", item->token_id,
                                (double)item->logprob);
}

static bool write_logprobs(const char *name, const struct position_logprobs *items, size_t n,
                           struct buffer *out)
{
    bool ok = buffer_append_format(out, ",\"%s\":[", name);
    for (size_t i = 0; i < n && ok; i++) {
        ok = buffer_append_text(out, i ? ",{" : "{") && write_logprob(&items[i].chosen, out) &&
             buffer_append_text(out, ",\"top\":[");
        for (uint32_t t = 0; t < items[i].n_top && ok; t++)
            ok = buffer_append_text(out, t ? ",{" : "{") && write_logprob(&items[i].top[t], out) &&
                 buffer_append_text(out, "}");
        ok = ok && buffer_append_text(out, "]}");
    }
    return ok && buffer_append_text(out, "]");
}

static bool write_ms(const char *name, int64_t ns, const char *separator, struct buffer *out)
{
    if (ns < 0)
        return buffer_append_format(out, "%s\"%s\":null", separator, name);
    return buffer_append_format(out, "%s\"%s\":%.3f", separator, name, (double)ns / 1e6);
}

bool answer_write_json(const struct answer *answer, const struct answer *prompt, uint32_t index,
                       bool with_index, struct buffer *out)
{
    bool ok = buffer_append_text(out, "{");
    if (with_index)
        ok = ok && buffer_append_format(out, "\"index\":%" PRIu32 ",", index);
    ok = ok && write_ids("prompt_token_ids", prompt->prompt_token_ids, prompt->n_prompt, out) &&
         buffer_append_text(out, ",") && write_ids("token_ids", answer->token_ids, answer->n_tokens, out) &&
         buffer_append_text(out, ",\"text\":") &&
         buffer_append_json_string(out, answer->text.data ? answer->text.data : "", answer->text.size) &&
         buffer_append_format(out, ",\"finish_reason\":\"%s\"", finish_reason_name(answer->finish_reason));
    if (answer->finish_reason == FINISH_ERROR)
        ok = ok && buffer_append_text(out, ",\"error\":") &&
             buffer_append_json_string(out, answer->error.message, strlen(answer->error.message));
    ok = ok && write_logprobs("logprobs", answer->logprobs, answer->n_logprobs, out) &&
         write_logprobs("prompt_logprobs", prompt->prompt_logprobs, prompt->n_prompt_logprobs, out);
    ok = ok &&
         buffer_append_format(out,
                              ",\"usage\":{\"prompt_tokens\":%" PRIu32 ",\"completion_tokens\":%" PRIu32
                              ",\"cached_tokens\":%" PRIu32 ",\"preemptions\":%" PRIu32 "}",
                              answer->usage.prompt_tokens, answer->usage.completion_tokens,
                              answer->usage.cached_tokens, answer->usage.preemptions) &&
         buffer_append_text(out, ",\"timings\":{") &&
         write_ms("queue_ms", answer->timings.queue_ns, "", out) &&
         write_ms("prefill_ms", answer->timings.prefill_ns, ",", out) &&
         write_ms("decode_ms", answer->timings.decode_ns, ",", out);
    return ok && buffer_append_text(out, "}}\n");
}
