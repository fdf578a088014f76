#include "text/pre_tokenizer.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/utf8.h"
#include "text/normalizer.h"
#include "text/unicode_class.h"

void pre_scratch_free(struct pre_scratch *scratch)
{
    for (size_t i = 0; i < PRE_TOKENIZER_STEPS_MAX; i++)
        buffer_free(&scratch->step[i]);
}

struct pre_run {
    const struct pre_tokenizer *pre;
    struct pre_scratch *scratch;
    piece_sink *sink;
    void *context;
};

static err_t run_from(struct pre_run *run, size_t step_index, const struct text_piece *piece);

/* Turns matches and what lies between them, in order, into pieces as the behaviour says. */
struct joiner {
    struct pre_run *run;
    size_t step_index;
    const struct text_piece *in;
    size_t start, end; /* what is held back; start == end: nothing */
    bool held_match;   /* the last stretch was a match */
};

static err_t hand_on(struct joiner *joiner, size_t start, size_t end)
{
    if (start == end)
        return err_ok();
    struct text_piece piece = {joiner->in->text + start, end - start, NULL,
                               joiner->in->at_start && start == 0};
    return run_from(joiner->run, joiner->step_index + 1, &piece);
}

static err_t hand_on_held(struct joiner *joiner)
{
    size_t start = joiner->start, end = joiner->end;
    joiner->start = joiner->end;
    return hand_on(joiner, start, end);
}

static err_t joiner_put(struct joiner *joiner, const struct pre_step *step, size_t start, size_t end,
                        bool is_match)
{
    if (start == end)
        return err_ok();
    is_match ^= step->invert;
    bool joins = false; /* with what is held */
    switch (step->behavior) {
    case SPLIT_REMOVED:
        return is_match ? err_ok() : hand_on(joiner, start, end);
    case SPLIT_ISOLATED:
        return hand_on(joiner, start, end);
    case SPLIT_CONTIGUOUS:
        joins = is_match == joiner->held_match;
        break;
    case SPLIT_WITH_PREVIOUS:
        joins = is_match && !joiner->held_match;
        break;
    case SPLIT_WITH_NEXT:
        joins = !is_match && joiner->held_match;
        break;
    }
    if (!joins) {
        TRY(hand_on_held(joiner));
        joiner->start = start;
    }
    joiner->end = end;
    joiner->held_match = is_match;
    return err_ok();
}

static bool class_matches(const struct pre_step *step, uint32_t code_point)
{
    unsigned classes = unicode_classes(code_point);
    if (step->ascii_punctuation && code_point > 0x20 && code_point < 0x7f &&
        !(classes & (CHAR_LETTER | CHAR_NUMBER)))
        return true;
    return (classes & step->classes) != 0;
}

static size_t match_length(const struct pre_step *step, const struct text_piece *in, size_t position,
                           size_t *character_bytes)
{
    const char *text = in->text + position;
    size_t left = in->size_bytes - position;
    uint32_t code_point = 0;
    *character_bytes = utf8_decode(text, left, &code_point);
    switch (step->kind) {
    case PRE_SPLIT_PATTERN:
        return split_pattern_match(step->pattern, text, left);
    case PRE_SPLIT_TEXT:
        return left >= step->text_bytes && memcmp(text, step->text, step->text_bytes) == 0 ? step->text_bytes
                                                                                           : 0;
    default:
        return class_matches(step, code_point) ? *character_bytes : 0;
    }
}

static err_t run_split(struct pre_run *run, size_t step_index, const struct text_piece *in)
{
    const struct pre_step *step = &run->pre->steps[step_index];
    struct joiner joiner = {.run = run, .step_index = step_index, .in = in};
    size_t done = 0, position = 0, character_bytes;
    while (position < in->size_bytes) {
        size_t length = match_length(step, in, position, &character_bytes);
        if (length == 0) {
            position += character_bytes;
            continue;
        }
        TRY(joiner_put(&joiner, step, done, position, false));
        TRY(joiner_put(&joiner, step, position, position + length, true));
        done = position = position + length;
    }
    TRY(joiner_put(&joiner, step, done, in->size_bytes, false));
    return hand_on_held(&joiner);
}

static err_t run_changed(struct pre_run *run, size_t step_index, const struct text_piece *in, bool ok)
{
    if (!ok)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the pre-tokenised text does not fit into %d bytes",
                       NORMALIZED_BYTES_MAX);
    const struct buffer *buffer = &run->scratch->step[step_index];
    struct text_piece piece = {buffer->data, buffer->size, NULL, in->at_start};
    return run_from(run, step_index + 1, &piece);
}

static err_t run_prefix_space(struct pre_run *run, size_t step_index, const struct text_piece *in)
{
    if (in->text[0] == ' ')
        return run_from(run, step_index + 1, in);
    struct buffer *buffer = &run->scratch->step[step_index];
    buffer->limit_bytes = NORMALIZED_BYTES_MAX;
    buffer_clear(buffer);
    bool ok = buffer_append(buffer, " ", 1) && buffer_append(buffer, in->text, in->size_bytes);
    return run_changed(run, step_index, in, ok);
}

static err_t run_metaspace(struct pre_run *run, size_t step_index, const struct text_piece *in)
{
    const struct pre_step *step = &run->pre->steps[step_index];
    struct buffer *buffer = &run->scratch->step[step_index];
    buffer->limit_bytes = NORMALIZED_BYTES_MAX;
    buffer_clear(buffer);
    bool starts_with = in->text[0] == ' ' || (in->size_bytes >= step->text_bytes &&
                                              memcmp(in->text, step->text, step->text_bytes) == 0);
    bool prepend = step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && in->at_start);
    bool ok = !prepend || starts_with || buffer_append(buffer, step->text, step->text_bytes);
    for (size_t i = 0; i < in->size_bytes && ok;) {
        const char *space = memchr(in->text + i, ' ', in->size_bytes - i);
        size_t end = space ? (size_t)(space - in->text) : in->size_bytes;
        ok = buffer_append(buffer, in->text + i, end - i) &&
             (space == NULL || buffer_append(buffer, step->text, step->text_bytes));
        i = end + 1;
    }
    return run_changed(run, step_index, in, ok);
}

static err_t run_from(struct pre_run *run, size_t step_index, const struct text_piece *piece)
{
    if (step_index == run->pre->n_steps)
        return run->sink(run->context, piece);
    switch (run->pre->steps[step_index].kind) {
    case PRE_PREFIX_SPACE:
        return run_prefix_space(run, step_index, piece);
    case PRE_METASPACE:
        return run_metaspace(run, step_index, piece);
    default:
        return run_split(run, step_index, piece);
    }
}

err_t pre_tokenizer_run(const struct pre_tokenizer *pre, const struct text_piece *in,
                        struct pre_scratch *scratch, piece_sink *sink, void *context)
{
    struct pre_run run = {pre, scratch, sink, context};
    return in->size_bytes == 0 ? err_ok() : run_from(&run, 0, in);
}
