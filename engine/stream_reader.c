/* The reader's side of a stream: token records -> text and events. */
#include <string.h>
#include "engine/engine_state.h"
#include "engine/stream.h"

/* What one round of popping gathered for a choice. */
struct gathered {
    size_t n_tokens;
    const char *stop_string;
    bool failed; /* text limit: error is set */
    err_t error;
};

/* matched: NULL while stop strings do not count. */
static err_t push_text(struct choice *choice, const struct token_record *record, const char **matched)
{
    struct stream *stream = choice->stream;
    if (!stream->engine->text || (record->stops && !stream->sampling.include_stop_str_in_output))
        return err_ok();
    struct buffer *piece = &stream->piece;
    buffer_clear(piece);
    TRY(detokenizer_push(&choice->detokenizer, record->token_id, piece));
    return stop_matcher_push(&choice->stop_matcher, piece->data, piece->size,
                             stream->sampling.include_stop_str_in_output, &stream->text, matched);
}

/* A stop string does not count while min_tokens asks for more output. n_tokens: not yet in n_delivered. */
static bool stop_counts(const struct choice *choice, size_t n_tokens)
{
    return choice->n_output_prefix + choice->n_delivered + n_tokens >= choice->stream->sampling.min_tokens;
}

static void gather(struct choice *choice, struct gathered *out)
{
    struct stream *stream = choice->stream;
    bool with_logprobs = stream->event_logprobs != NULL;
    struct token_record_with_logprobs item;
    buffer_clear(&stream->text);
    *out = (struct gathered){.n_tokens = 0};
    while (out->n_tokens < CHOICE_RING_TOKENS && !out->stop_string && !out->failed) {
        if (!spsc_ring_pop(choice->ring, with_logprobs ? (void *)&item : (void *)&item.record))
            break;
        stream->event_ids[out->n_tokens] = item.record.token_id;
        if (with_logprobs)
            stream->event_logprobs[out->n_tokens] = item.logprobs;
        out->n_tokens++;
        out->error =
            push_text(choice, &item.record, stop_counts(choice, out->n_tokens) ? &out->stop_string : NULL);
        out->failed = out->error.code != ERR_OK;
    }
    if (out->n_tokens > 0 && atomic_load(&choice->paused))
        event_count_bump(&stream->engine->wake);
}

static void fill_tokens(struct choice *choice, const struct gathered *gathered, struct event *event)
{
    struct stream *stream = choice->stream;
    *event = (struct event){.kind = EVENT_TOKENS, .choice_index = choice->index, .stop_token_id = -1};
    event->token_ids = stream->event_ids;
    event->n_token_ids = gathered->n_tokens;
    if (stream->event_logprobs) {
        event->logprobs = stream->event_logprobs;
        event->n_logprobs = gathered->n_tokens;
    }
    choice->n_delivered += (uint32_t)gathered->n_tokens;
    if (choice->index == 0 && !stream->prompt_delivered) {
        stream->prompt_delivered = true;
        event->prompt_token_ids = choice->tokens;
        event->n_prompt_token_ids = choice->n_prompt;
        if (stream->prompt_logprobs && gathered->n_tokens > 0) {
            event->prompt_logprobs = stream->prompt_logprobs;
            event->n_prompt_logprobs = stream->n_prompt;
        }
    }
}

/* The loop has finished the choice and every record was popped. */
static void fill_finish(struct choice *choice, struct event *event)
{
    struct stream *stream = choice->stream;
    event->kind = EVENT_FINISHED;
    event->finish_reason = choice->finish_reason;
    event->stop_token_id = choice->stop_token_id;
    event->usage = choice->usage;
    event->timings = choice->timings;
    event->error = choice->error;
    if (stream->engine->text && choice->finish_reason != FINISH_ERROR) {
        struct buffer tail = {.limit_bytes = STREAM_TEXT_BYTES_MAX};
        const char *matched = NULL;
        err_t e = detokenizer_flush(&choice->detokenizer, &tail);
        if (e.code == ERR_OK)
            e = stop_matcher_push(&choice->stop_matcher, tail.data, tail.size,
                                  stream->sampling.include_stop_str_in_output, &stream->text,
                                  stop_counts(choice, 0) ? &matched : NULL);
        if (e.code == ERR_OK && !matched)
            e = stop_matcher_flush(&choice->stop_matcher, &stream->text);
        buffer_free(&tail);
        if (matched && event->finish_reason == FINISH_LENGTH) {
            event->finish_reason = FINISH_STOP;
            event->stop_string = matched;
        }
        if (e.code != ERR_OK) {
            event->finish_reason = FINISH_ERROR;
            event->error = e;
        }
    }
}

/* The reader itself ends the choice: a stop string was found, or the text cannot grow. What the loop has
 * drawn beyond is dropped, so the answer does not depend on how far it had got. */
static void fill_own_finish(struct choice *choice, const struct gathered *gathered, struct event *event)
{
    event->kind = EVENT_FINISHED;
    event->finish_reason = gathered->failed ? FINISH_ERROR : FINISH_STOP;
    event->stop_string = gathered->stop_string;
    event->error = gathered->error;
    int64_t now_ns = clock_now_ns(choice->stream->engine->clock);
    event->usage = (struct usage){.prompt_tokens = choice->n_prompt,
                                  .completion_tokens = choice->n_delivered,
                                  .cached_tokens = choice->n_cached,
                                  .preemptions = atomic_load(&choice->n_preemptions)};
    event->timings = (struct timings){.queue_ns = choice->first_scheduled_ns - choice->stream->submitted_ns,
                                      .prefill_ns = choice->first_token_ns - choice->first_scheduled_ns,
                                      .decode_ns = now_ns - choice->first_token_ns};
    engine_cancel_choice(choice->stream->engine, choice);
}

/* True when the choice had something to say. */
static bool read_choice(struct choice *choice, struct event *event)
{
    struct stream *stream = choice->stream;
    /* Read before popping: when it is set, what the ring holds is all there will be. */
    bool finished = atomic_load_explicit(&choice->finished, memory_order_acquire);
    struct gathered gathered;
    gather(choice, &gathered);
    bool drained = finished && spsc_ring_count(choice->ring) == 0;
    if (gathered.n_tokens == 0 && !drained)
        return false;
    fill_tokens(choice, &gathered, event);
    if (gathered.stop_string || gathered.failed)
        fill_own_finish(choice, &gathered, event);
    else if (drained)
        fill_finish(choice, event);
    event->text = stream->text.data ? stream->text.data : "";
    event->text_bytes = stream->text.size;
    if (event->kind == EVENT_FINISHED) {
        choice->reader_done = true;
        engine_count_finish(stream->engine, choice, event);
        stream->n_done++;
        event->last = stream->n_done == stream->n_choices;
    }
    return true;
}

bool stream_read(struct stream *stream, struct event *out)
{
    for (uint32_t i = 0; i < stream->n_choices; i++) {
        struct choice *choice = &stream->choices[(stream->next_choice + i) % stream->n_choices];
        if (choice->reader_done || !read_choice(choice, out))
            continue;
        stream->next_choice = (choice->index + 1) % stream->n_choices;
        return true;
    }
    return false;
}
