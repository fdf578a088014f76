#include "engine/stream.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "engine/engine_state.h"

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a request");
}

static err_t choice_init(struct stream *stream, uint32_t index, const uint32_t *prompt_ids,
                         const uint32_t *output_prefix_ids, size_t n_output_prefix)
{
    struct choice *choice = &stream->choices[index];
    size_t n_prompt = stream->n_prompt;
    choice->stream = stream;
    choice->index = index;
    choice->n_prompt = (uint32_t)n_prompt;
    choice->n_output_prefix = (uint32_t)n_output_prefix;
    choice->n_output = (uint32_t)n_output_prefix;
    choice->first_scheduled_ns = choice->first_token_ns = choice->last_token_ns = -1;
    choice->stalled_since_ns = -1;
    choice->stop_token_id = -1;
    choice->tokens = mem_alloc_array(n_prompt + stream->sampling.max_tokens, sizeof *choice->tokens);
    if (!choice->tokens)
        return no_memory();
    memcpy(choice->tokens, prompt_ids, n_prompt * sizeof *prompt_ids);
    if (n_output_prefix)
        memcpy(choice->tokens + n_prompt, output_prefix_ids, n_output_prefix * sizeof *output_prefix_ids);
    size_t record_bytes = stream->sampling.logprobs >= 0 ? sizeof(struct token_record_with_logprobs)
                                                         : sizeof(struct token_record);
    TRY(spsc_ring_create(record_bytes, CHOICE_RING_TOKENS, &choice->ring));
    stop_matcher_init(&choice->stop_matcher, stream->sampling.stop, stream->sampling.n_stop);
    const struct text_assets *text = stream->engine->text;
    if (!text)
        return err_ok();
    detokenizer_init(&choice->detokenizer, text->tokenizer, stream->sampling.skip_special_tokens);
    choice->detokenizer.joins_special_tokens = !stream->sampling.spaces_between_special_tokens;
    /* What the earlier part of a handed-over answer already sent is not sent again, but may be half of a
     * character or of a stop string. */
    struct buffer piece = {.limit_bytes = STREAM_TEXT_BYTES_MAX};
    struct buffer sent = {.limit_bytes = STREAM_TEXT_BYTES_MAX};
    err_t e = err_ok();
    for (size_t i = 0; i < n_output_prefix && e.code == ERR_OK; i++) {
        const char *matched = NULL;
        buffer_clear(&piece);
        e = detokenizer_push(&choice->detokenizer, output_prefix_ids[i], &piece);
        if (e.code == ERR_OK)
            e = stop_matcher_push(&choice->stop_matcher, piece.data, piece.size, false, &sent,
                                  i + 1 >= stream->sampling.min_tokens ? &matched : NULL);
        if (e.code == ERR_OK && matched)
            e = err_new(ERR_INVALID_ARGUMENT, "output_prefix_ids already contain the stop string \"%s\"",
                        matched);
        buffer_clear(&sent);
    }
    buffer_free(&piece);
    buffer_free(&sent);
    return e;
}

err_t stream_create(struct engine *engine, const struct sampling_params *resolved, void *lists,
                    const uint32_t *prompt_ids, size_t n_prompt, const uint32_t *output_prefix_ids,
                    size_t n_output_prefix, struct stream **out)
{
    struct stream *stream = mem_alloc(sizeof *stream);
    if (!stream)
        return no_memory();
    stream->engine = engine;
    stream->sampling = *resolved;
    stream->n_prompt = (uint32_t)n_prompt;
    stream->n_choices = stream->n_unreleased = resolved->n;
    stream->text.limit_bytes = stream->piece.limit_bytes = STREAM_TEXT_BYTES_MAX;
    atomic_init(&stream->references, 2);
    err_t e = no_memory();
    stream->choices = mem_alloc_array(resolved->n, sizeof *stream->choices);
    stream->event_ids = mem_alloc_array(CHOICE_RING_TOKENS, sizeof *stream->event_ids);
    if (resolved->logprobs >= 0)
        stream->event_logprobs = mem_alloc_array(CHOICE_RING_TOKENS, sizeof *stream->event_logprobs);
    if (resolved->prompt_logprobs >= 0)
        stream->prompt_logprobs = mem_alloc_array(n_prompt, sizeof *stream->prompt_logprobs);
    bool short_of_memory = !stream->choices || !stream->event_ids ||
                           (resolved->logprobs >= 0 && !stream->event_logprobs) ||
                           (resolved->prompt_logprobs >= 0 && !stream->prompt_logprobs);
    if (short_of_memory)
        goto fail;
    for (uint32_t i = 0; i < resolved->n; i++)
        TRY_GOTO(e, choice_init(stream, i, prompt_ids, output_prefix_ids, n_output_prefix), fail);
    stream->lists = lists;
    *out = stream;
    return err_ok();
fail:
    stream_destroy(stream);
    return e;
}

size_t stream_bytes(size_t n_tokens)
{
    return sizeof(struct stream) + sizeof(struct choice) + n_tokens * sizeof(uint32_t) +
           CHOICE_RING_TOKENS * sizeof(uint32_t) +
           spsc_ring_bytes(sizeof(struct token_record), CHOICE_RING_TOKENS) + REQUEST_ID_BYTES_MAX +
           REQUEST_TENANT_BYTES_MAX;
}

void stream_destroy(struct stream *stream)
{
    for (uint32_t i = 0; stream->choices && i < stream->n_choices; i++) {
        struct choice *choice = &stream->choices[i];
        mem_free(choice->tokens);
        spsc_ring_destroy(choice->ring);
        stop_matcher_free(&choice->stop_matcher);
    }
    mem_free(stream->choices);
    mem_free(stream->event_ids);
    mem_free(stream->event_logprobs);
    mem_free(stream->prompt_logprobs);
    mem_free(stream->lists);
    mem_free(stream->request_id);
    mem_free(stream->tenant);
    buffer_free(&stream->text);
    buffer_free(&stream->piece);
    mem_free(stream);
}

void choice_finish(struct choice *choice, enum finish_reason reason, int64_t stop_token_id,
                   const err_t *error)
{
    if (choice->state == CHOICE_FINISHED)
        return;
    choice->state = CHOICE_FINISHED;
    choice->finish_reason = reason;
    choice->stop_token_id = stop_token_id;
    choice->error = error ? *error : err_ok();
    choice->usage = (struct usage){
        .prompt_tokens = choice->n_prompt,
        .completion_tokens = choice->n_output - choice->n_output_prefix,
        .cached_tokens = choice->n_cached,
        .preemptions = choice->n_preemptions,
    };
    choice->timings = (struct timings){.queue_ns = -1, .prefill_ns = -1, .decode_ns = -1};
    if (choice->first_scheduled_ns >= 0)
        choice->timings.queue_ns = choice->first_scheduled_ns - choice->stream->submitted_ns;
    if (choice->first_token_ns >= 0) {
        choice->timings.prefill_ns = choice->first_token_ns - choice->first_scheduled_ns;
        choice->timings.decode_ns = choice->last_token_ns - choice->first_token_ns;
    }
    atomic_store_explicit(&choice->finished, true, memory_order_release);
}
