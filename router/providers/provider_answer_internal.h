/* What the readers of the formats share. */
#pragma once

#include <jansson.h>
#include "router/providers/provider_answer.h"

/* One choice's state. */
struct answer_choice {
    bool has_begun;
    enum answer_finish finish;
    uint32_t n_tool_calls;
};

/* One content block of an Anthropic message. */
enum answer_block_kind { BLOCK_NONE, BLOCK_TEXT, BLOCK_THINKING, BLOCK_TOOL, BLOCK_OTHER };
struct answer_block {
    enum answer_block_kind kind;
    uint32_t tool_index;
    bool has_arguments;
};

struct answer_reader {
    enum provider_kind kind;
    struct answer_sink sink;
    bool is_done;
    struct answer_usage usage;
    int64_t cost; /* nano-dollars; -1 = not told */
    struct answer_choice choices[ANSWER_CHOICES_MAX];
    struct answer_block *blocks; /* [n_blocks]; Anthropic's */
    size_t n_blocks;
    char model[ANSWER_NAME_BYTES_MAX + 1], id[ANSWER_NAME_BYTES_MAX + 1],
        fingerprint[ANSWER_NAME_BYTES_MAX + 1];
};

err_t answer_openai_chunk(struct answer_reader *reader, const json_t *root) ERR_MUST_CHECK;
err_t answer_openai_body(struct answer_reader *reader, const json_t *root) ERR_MUST_CHECK;
err_t answer_anthropic_event(struct answer_reader *reader, const json_t *root) ERR_MUST_CHECK;
err_t answer_anthropic_body(struct answer_reader *reader, const json_t *root) ERR_MUST_CHECK;

/* Pieces of one kind; an empty text is no piece. */
err_t answer_give_text(struct answer_reader *reader, uint32_t choice, enum answer_piece_kind kind,
                       const json_t *text) ERR_MUST_CHECK;
/* Of what follows; no object is no piece. */
err_t answer_give_logprobs(struct answer_reader *reader, uint32_t choice,
                           const json_t *logprobs) ERR_MUST_CHECK;
/* id and name may be NULL; arguments: a string, or an object that is written out; NULL = none. */
err_t answer_give_tool(struct answer_reader *reader, uint32_t choice, uint32_t tool_index, const char *id,
                       const char *name, const json_t *arguments) ERR_MUST_CHECK;
/* The first reason counts; a choice that has ended cannot end again. */
err_t answer_give_finish(struct answer_reader *reader, uint32_t choice,
                         enum answer_finish finish) ERR_MUST_CHECK;
void answer_take_name(char out[ANSWER_NAME_BYTES_MAX + 1], const json_t *value);
/* Sets *out where object[name] is a whole number of at least 0: counts are set, never added. */
void answer_take_count(int64_t *out, const json_t *object, const char *name);
