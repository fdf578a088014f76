/* What a provider answers, in one form whoever it is: pieces of text and tool calls as they come, then why it
 * ended and what it used. Reads streams (one SSE event after the other, sse_reader.h) and whole bodies.
 *
 * An answer is complete when every choice that began has said why it ended. What ends before that is an
 * error, so that a cut answer is never taken for a whole one. One thread. Sources: the API references of
 * OpenAI
 * ("Chat Completions", streaming) and Anthropic ("Messages", streaming). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "base/error.h"
#include "router/providers/provider_kind.h"

enum {
    ANSWER_CHOICES_MAX = 64,
    ANSWER_TOOL_CALLS_MAX = 256, /* of one choice */
    ANSWER_BLOCKS_MAX = 1024,    /* of an Anthropic message */
    ANSWER_NAME_BYTES_MAX = 255, /* of a model's name and the like; what is longer is cut */
};

enum answer_finish {
    ANSWER_UNFINISHED,
    ANSWER_STOP,
    ANSWER_LENGTH,
    ANSWER_TOOL_CALLS,
    ANSWER_CONTENT_FILTER,
};
const char *answer_finish_name(enum answer_finish finish); /* OpenAI's: "stop", ...; "" while unfinished */

enum answer_piece_kind {
    ANSWER_TEXT,
    ANSWER_REFUSAL,
    ANSWER_REASONING,
    ANSWER_TOOL_CALL, /* text: more of its arguments, which are JSON */
    ANSWER_FINISH,
    ANSWER_LOGPROBS,
};

/* Pointers live until the sink returns. */
struct answer_piece {
    enum answer_piece_kind kind;
    uint32_t choice_index;
    const char *text; /* text_bytes of UTF-8, not NUL-terminated */
    size_t text_bytes;
    uint32_t tool_index;             /* ANSWER_TOOL_CALL: counts from 0 in each choice */
    const char *tool_id, *tool_name; /* NULL = told before */
    enum answer_finish finish;       /* ANSWER_FINISH */
    const json_t *logprobs;          /* ANSWER_LOGPROBS: an object in OpenAI's form, of text that follows */
};

/* Tokens as the provider counts them; -1 = it did not say. */
struct answer_usage {
    int64_t input_tokens;       /* those from and into its cache included */
    int64_t cached_tokens;      /* of the input: read from its cache */
    int64_t cache_write_tokens; /* of the input: written to its cache */
    int64_t output_tokens;      /* reasoning included */
    int64_t reasoning_tokens;
};

/* An error from it ends the reading and is what the reader returns. */
struct answer_sink {
    err_t (*take)(void *context, const struct answer_piece *piece);
    void *context;
};

struct answer_reader;

err_t answer_reader_open(enum provider_kind kind, const struct answer_sink *sink,
                         struct answer_reader **out) ERR_MUST_CHECK;
void answer_reader_close(struct answer_reader *reader); /* NULL is fine */

/* One event of a stream. Errors: the provider's own (provider_error.h), DATA_LOSS when it is not what the
 * format has, the sink's. After an error the reader is of no use. */
err_t answer_reader_event(struct answer_reader *reader, const char *data, size_t data_bytes) ERR_MUST_CHECK;
/* The whole body of an answer that was not streamed. */
err_t answer_reader_body(struct answer_reader *reader, const char *body, size_t body_bytes) ERR_MUST_CHECK;
/* Nothing more comes. UNAVAILABLE when the answer is not complete. */
err_t answer_reader_end(struct answer_reader *reader) ERR_MUST_CHECK;

/* The format's own end was read ([DONE], message_stop): what comes after it is ignored. */
bool answer_reader_is_done(const struct answer_reader *reader);
struct answer_usage answer_reader_usage(const struct answer_reader *reader);
const char *answer_reader_model(const struct answer_reader *reader);       /* "" = not told */
const char *answer_reader_id(const struct answer_reader *reader);          /* likewise */
const char *answer_reader_fingerprint(const struct answer_reader *reader); /* OpenAI's system_fingerprint */
/* What a router says that it cost, in nano-dollars: cost_usd of usage.bantam, or of bantam beside a usage
 * that is null; -1 = not told. */
int64_t answer_reader_cost(const struct answer_reader *reader);
