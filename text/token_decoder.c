#include "text/token_decoder.h"

#include <string.h>
#include "base/alloc.h"
#include "text/byte_alphabet.h"
#include "text/json_field.h"
#include "text/pre_tokenizer.h"

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the decoder");
}

static err_t step_new(struct token_decoder *out, const char *type, struct decoder_step **step)
{
    if (out->byte_fallback || out->fused || out->metaspace[0] != '\0')
        return err_new(ERR_UNIMPLEMENTED, "decoder %s after ByteFallback, Fuse or Metaspace", type);
    if (out->n_steps == DECODER_STEPS_MAX)
        return err_new(ERR_DATA_LOSS, "more than %d decoder steps", DECODER_STEPS_MAX);
    *step = &out->steps[out->n_steps++];
    return err_ok();
}

static err_t parse_replace(const json_t *json, struct token_decoder *out)
{
    const char *pattern, *content;
    size_t pattern_bytes, content_bytes;
    bool is_regex;
    struct decoder_step *step;
    TRY(json_field_pattern(json, &pattern, &pattern_bytes, &is_regex));
    TRY(json_field_text_required(json, "content", &content, &content_bytes));
    if (is_regex)
        return err_new(ERR_UNIMPLEMENTED, "decoder Replace with the regular expression \"%s\"", pattern);
    if (pattern_bytes == 0)
        return err_new(ERR_DATA_LOSS, "decoder Replace with an empty pattern");
    TRY(step_new(out, "Replace", &step));
    step->pattern = mem_strdup(pattern);
    step->content = mem_strdup(content);
    return step->pattern && step->content ? err_ok() : out_of_memory();
}

static err_t parse_strip(const json_t *json, struct token_decoder *out)
{
    const char *content;
    size_t content_bytes;
    uint64_t start, stop;
    uint32_t code_point;
    TRY(json_field_text_required(json, "content", &content, &content_bytes));
    TRY(json_field_uint(json, "start", DECODER_STRIP_MAX, &start));
    TRY(json_field_uint(json, "stop", DECODER_STRIP_MAX, &stop));
    if (content_bytes == 0 || utf8_decode(content, content_bytes, &code_point) != content_bytes)
        return err_new(ERR_DATA_LOSS, "decoder Strip: \"content\" must be one character");
    if (out->fused) {
        if (stop > 0)
            return err_new(ERR_UNIMPLEMENTED, "decoder Strip after Fuse with \"stop\" %u", (unsigned)stop);
        if (out->n_text_strip > 0)
            return err_new(ERR_UNIMPLEMENTED, "two decoders Strip after Fuse");
        memcpy(out->text_strip, content, content_bytes + 1);
        out->n_text_strip = start;
        return err_ok();
    }
    struct decoder_step *step;
    TRY(step_new(out, "Strip", &step));
    step->is_strip = true;
    step->strip_start = start;
    step->strip_stop = stop;
    step->content = mem_strdup(content);
    return step->content ? err_ok() : out_of_memory();
}

static err_t parse_metaspace(const json_t *json, struct token_decoder *out)
{
    const char *text;
    size_t text_bytes;
    enum prepend_scheme prepend;
    if (out->n_steps > 0 || out->byte_fallback || out->fused)
        return err_new(ERR_UNIMPLEMENTED, "decoder Metaspace after another one");
    TRY(metaspace_parse(json, &text, &text_bytes, &prepend));
    memcpy(out->metaspace, text, text_bytes + 1);
    out->metaspace_first = prepend != PREPEND_NEVER;
    return err_ok();
}

static err_t parse_into(const json_t *json, unsigned depth, struct token_decoder *out, bool alone)
{
    const char *type;
    const json_t *list;
    TRY(json_field_sequence(json, "decoders", depth, &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(parse_into(json_array_get(list, i), depth + 1, out, alone && json_array_size(list) == 1));
    if (list != NULL)
        return err_ok();
    TRY(json_field_type(json, &type));
    if (strcmp(type, "Replace") == 0)
        return parse_replace(json, out);
    if (strcmp(type, "Strip") == 0)
        return parse_strip(json, out);
    if (strcmp(type, "Metaspace") == 0)
        return parse_metaspace(json, out);
    if (strcmp(type, "ByteFallback") == 0) {
        if (out->byte_fallback || out->fused)
            return err_new(ERR_UNIMPLEMENTED, "decoder ByteFallback after ByteFallback or Fuse");
        out->byte_fallback = true;
        return err_ok();
    }
    if (strcmp(type, "Fuse") == 0) {
        out->fused = true;
        return err_ok();
    }
    if (strcmp(type, "ByteLevel") == 0 && alone) {
        out->kind = DECODE_BYTES;
        return err_ok();
    }
    return err_new(ERR_UNIMPLEMENTED, "decoder type \"%s\"%s", type, alone ? "" : " in a Sequence");
}

err_t token_decoder_parse(const json_t *json, struct token_decoder *out)
{
    memset(out, 0, sizeof *out);
    if (json == NULL || json_is_null(json))
        return err_ok(); /* DECODE_SPACED */
    out->kind = DECODE_CHAIN;
    return parse_into(json, 0, out, true);
}

void token_decoder_free(struct token_decoder *decoder)
{
    for (size_t i = 0; i < decoder->n_steps; i++) {
        mem_free(decoder->steps[i].pattern);
        mem_free(decoder->steps[i].content);
    }
    mem_free(decoder->bytes);
    mem_free(decoder->offset);
    mem_free(decoder->byte);
    memset(decoder, 0, sizeof *decoder);
}

static bool run_replace(const struct decoder_step *step, const struct buffer *in, struct buffer *out)
{
    size_t done = 0, pattern_bytes = strlen(step->pattern);
    while (done < in->size) {
        const char *found = memmem(in->data + done, in->size - done, step->pattern, pattern_bytes);
        if (found == NULL)
            break;
        if (!buffer_append(out, in->data + done, (size_t)(found - in->data) - done) ||
            !buffer_append_text(out, step->content))
            return false;
        done = (size_t)(found - in->data) + pattern_bytes;
    }
    return done == in->size || buffer_append(out, in->data + done, in->size - done);
}

static bool run_strip(const struct decoder_step *step, const struct buffer *in, struct buffer *out)
{
    size_t length = strlen(step->content), start = 0, end = in->size;
    for (size_t n = 0; n < step->strip_start && end - start >= length; n++) {
        if (memcmp(in->data + start, step->content, length) != 0)
            break;
        start += length;
    }
    for (size_t n = 0; n < step->strip_stop && end - start >= length; n++) {
        if (memcmp(in->data + end - length, step->content, length) != 0)
            break;
        end -= length;
    }
    return start == end || buffer_append(out, in->data + start, end - start);
}

/* ByteLevel: the bytes that the token's characters stand for; a token with another character stays. */
static bool run_bytes(const char *text, size_t text_bytes, struct buffer *out)
{
    for (size_t i = 0; i < text_bytes;) {
        uint32_t code_point = 0;
        i += utf8_decode(text + i, text_bytes - i, &code_point);
        int byte = byte_alphabet_decode(code_point);
        if (byte < 0) {
            buffer_clear(out);
            return buffer_append(out, text, text_bytes);
        }
        char c = (char)byte;
        if (!buffer_append(out, &c, 1))
            return false;
    }
    return true;
}

/* The token's text with all steps done, in scratch[0]. */
static bool prepare_text(const struct token_decoder *decoder, const char *text, size_t text_bytes,
                         struct buffer scratch[2])
{
    buffer_clear(&scratch[0]);
    if (decoder->kind == DECODE_BYTES)
        return run_bytes(text, text_bytes, &scratch[0]);
    if (!buffer_append(&scratch[0], text, text_bytes))
        return false;
    for (size_t i = 0; i < decoder->n_steps; i++) {
        const struct decoder_step *step = &decoder->steps[i];
        if (scratch[0].size == 0)
            return true;
        buffer_clear(&scratch[1]);
        bool ok = step->is_strip ? run_strip(step, &scratch[0], &scratch[1])
                                 : run_replace(step, &scratch[0], &scratch[1]);
        if (!ok)
            return false;
        struct buffer other = scratch[0];
        scratch[0] = scratch[1];
        scratch[1] = other;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of <0xNN>, -1 when the text is something else. */
static int16_t fallback_byte(const char *text, size_t text_bytes)
{
    if (text_bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return (int16_t)(high < 0 || low < 0 ? -1 : high << 4 | low);
}

static err_t prepare_all(struct token_decoder *decoder,
                         const char *(*token_text)(const void *, uint32_t, size_t *), const void *context,
                         struct buffer scratch[2], struct buffer *all)
{
    for (uint32_t id = 0; id < decoder->n_ids; id++) {
        size_t size_bytes;
        const char *text = token_text(context, id, &size_bytes);
        decoder->offset[id] = (uint32_t)all->size;
        decoder->byte[id] = -1;
        if (text == NULL || size_bytes == 0)
            continue;
        if (!prepare_text(decoder, text, size_bytes, scratch))
            return err_new(ERR_DATA_LOSS, "token %u does not fit into %d bytes when decoded", id,
                           DECODED_TOKEN_BYTES_MAX);
        if (scratch[0].size == 0)
            continue;
        if (decoder->byte_fallback)
            decoder->byte[id] = fallback_byte(scratch[0].data, scratch[0].size);
        if (!buffer_append(all, scratch[0].data, scratch[0].size))
            return out_of_memory();
    }
    decoder->offset[decoder->n_ids] = (uint32_t)all->size;
    return err_ok();
}

err_t token_decoder_prepare(struct token_decoder *decoder, uint32_t n_ids,
                            const char *(*token_text)(const void *context, uint32_t id, size_t *size_bytes),
                            const void *context)
{
    struct buffer scratch[2] = {{.limit_bytes = DECODED_TOKEN_BYTES_MAX},
                                {.limit_bytes = DECODED_TOKEN_BYTES_MAX}};
    struct buffer all = {.limit_bytes = UINT32_MAX - 1};
    decoder->n_ids = n_ids;
    decoder->offset = mem_alloc_array((size_t)n_ids + 1, sizeof *decoder->offset);
    decoder->byte = mem_alloc_array((size_t)n_ids + 1, sizeof *decoder->byte);
    err_t e = decoder->offset && decoder->byte ? err_ok() : out_of_memory();
    if (e.code == ERR_OK)
        e = prepare_all(decoder, token_text, context, scratch, &all);
    buffer_free(&scratch[0]);
    buffer_free(&scratch[1]);
    decoder->bytes = all.data;
    return e;
}
