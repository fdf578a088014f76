#include "text/detokenizer.h"

#include <string.h>
#include "base/utf8.h"
#include "text/tokenizer_parts.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special_tokens)
{
    *detokenizer = (struct detokenizer){.tokenizer = tokenizer, .skip_special_tokens = skip_special_tokens};
}

static err_t emit(struct buffer *out, const char *text, size_t text_bytes)
{
    if (text_bytes > 0 && !buffer_append(out, text, text_bytes))
        return err_new(ERR_RESOURCE_EXHAUSTED, "the decoded text does not fit into %zu bytes",
                       out->limit_bytes);
    return err_ok();
}

/* Text on its way out, less what Strip cuts from the start of the whole. */
static err_t emit_stripped(struct detokenizer *detokenizer, const char *text, size_t text_bytes,
                           struct buffer *out)
{
    const struct token_decoder *decoder = &detokenizer->tokenizer->decoder;
    size_t strip_bytes = strlen(decoder->text_strip);
    while (!detokenizer->started && detokenizer->n_stripped < decoder->n_text_strip &&
           text_bytes >= strip_bytes && memcmp(text, decoder->text_strip, strip_bytes) == 0) {
        text += strip_bytes;
        text_bytes -= strip_bytes;
        detokenizer->n_stripped++;
    }
    if (text_bytes > 0)
        detokenizer->started = true;
    return emit(out, text, text_bytes);
}

/* `length` held bytes that never became a character: ByteLevel turns each longest beginning of a character
 * into one U+FFFD, ByteFallback each byte. */
static err_t emit_broken(struct detokenizer *detokenizer, size_t length, struct buffer *out)
{
    size_t n = detokenizer->tokenizer->decoder.kind == DECODE_BYTES ? 1 : length;
    for (size_t i = 0; i < n; i++)
        TRY(emit_stripped(detokenizer, REPLACEMENT, sizeof REPLACEMENT - 1, out));
    return err_ok();
}

static err_t push_byte(struct detokenizer *detokenizer, char byte, struct buffer *out)
{
    detokenizer->held[detokenizer->n_held++] = byte;
    for (;;) {
        size_t n = detokenizer->n_held;
        uint32_t code_point;
        if (utf8_decode(detokenizer->held, n, &code_point) == n) {
            detokenizer->n_held = 0;
            return emit_stripped(detokenizer, detokenizer->held, n, out);
        }
        if (utf8_complete_prefix(detokenizer->held, n) == 0)
            return err_ok(); /* more bytes may complete it */
        if (n == 1) {
            detokenizer->n_held = 0;
            return emit_broken(detokenizer, 1, out);
        }
        TRY(emit_broken(detokenizer, n - 1, out));
        detokenizer->held[0] = byte;
        detokenizer->n_held = 1;
    }
}

static err_t push_bytes(struct detokenizer *detokenizer, const char *text, size_t text_bytes,
                        struct buffer *out)
{
    for (size_t i = 0; i < text_bytes;) {
        size_t ascii = i;
        while (detokenizer->n_held == 0 && ascii < text_bytes && (unsigned char)text[ascii] < 0x80)
            ascii++;
        TRY(emit_stripped(detokenizer, text + i, ascii - i, out));
        i = ascii;
        if (i < text_bytes)
            TRY(push_byte(detokenizer, text[i++], out));
    }
    return err_ok();
}

/* Metaspace: spaces, or nothing in the first token. */
static err_t push_metaspace(struct detokenizer *detokenizer, const char *text, size_t text_bytes,
                            struct buffer *out)
{
    const struct token_decoder *decoder = &detokenizer->tokenizer->decoder;
    size_t length = strlen(decoder->metaspace);
    bool drop = decoder->metaspace_first && !detokenizer->started;
    detokenizer->started = true;
    for (size_t i = 0; i < text_bytes;) {
        const char *found = memmem(text + i, text_bytes - i, decoder->metaspace, length);
        size_t end = found ? (size_t)(found - text) : text_bytes;
        TRY(emit(out, text + i, end - i));
        if (found != NULL && !drop)
            TRY(emit(out, " ", 1));
        i = found ? end + length : end;
    }
    return err_ok();
}

err_t detokenizer_push(struct detokenizer *detokenizer, uint32_t id, struct buffer *out)
{
    const struct tokenizer *tokenizer = detokenizer->tokenizer;
    const struct token_decoder *decoder = &tokenizer->decoder;
    size_t text_bytes;
    bool is_special = tokenizer_is_special(tokenizer, id);
    if (tokenizer_token(tokenizer, id, &text_bytes) == NULL ||
        (detokenizer->skip_special_tokens && is_special))
        return err_ok();
    bool joins = detokenizer->joins_special_tokens && detokenizer->after_special && is_special;
    detokenizer->after_special = is_special;
    const char *text = decoder->bytes + decoder->offset[id];
    text_bytes = decoder->offset[id + 1] - decoder->offset[id];
    if (decoder->kind == DECODE_BYTES)
        return push_bytes(detokenizer, text, text_bytes, out);
    if (decoder->byte[id] >= 0) {
        char byte = (char)decoder->byte[id];
        return push_byte(detokenizer, byte, out);
    }
    TRY(detokenizer_flush(detokenizer, out));
    if (decoder->metaspace[0] != '\0')
        return push_metaspace(detokenizer, text, text_bytes, out);
    if (decoder->kind == DECODE_SPACED) {
        if (detokenizer->started && !joins)
            TRY(emit(out, " ", 1));
        detokenizer->started = true;
    }
    return emit_stripped(detokenizer, text, text_bytes, out);
}

err_t detokenizer_flush(struct detokenizer *detokenizer, struct buffer *out)
{
    size_t n = detokenizer->n_held;
    detokenizer->n_held = 0;
    return n == 0 ? err_ok() : emit_broken(detokenizer, n, out);
}
