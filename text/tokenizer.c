#include "text/tokenizer.h"

#include <string.h>
#include "base/alloc.h"
#include "base/gguf.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/gguf_tokenizer.h"
#include "text/tokenizer_parts.h"

enum { PATH_BYTES_MAX = 4096 };

err_t tokenizer_parse(const char *json, size_t json_bytes, const char *name, struct tokenizer **out)
{
    *out = NULL;
    if (json_bytes > TOKENIZER_FILE_BYTES_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: %zu bytes, the most is %d", name, json_bytes,
                       TOKENIZER_FILE_BYTES_MAX);
    json_error_t where;
    json_t *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return err_new(ERR_DATA_LOSS, "%s: line %d: %s", name, where.line, where.text);
    struct tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    err_t e = tokenizer ? tokenizer_build(root, tokenizer) : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    json_decref(root);
    if (e.code != ERR_OK) {
        tokenizer_destroy(tokenizer);
        return err_prefix(e, "%s", name);
    }
    tokenizer->fingerprint = hash64(json, json_bytes, 0);
    *out = tokenizer;
    return err_ok();
}

static err_t load_gguf(const char *path, struct tokenizer **out)
{
    struct gguf gguf;
    TRY(gguf_open(path, &gguf));
    err_t e = tokenizer_from_gguf(&gguf, out);
    gguf_close(&gguf);
    return e;
}

err_t tokenizer_load(const char *directory, struct tokenizer **out)
{
    char path[PATH_BYTES_MAX];
    if (gguf_of_model(directory, path))
        return load_gguf(path, out);
    char *json;
    size_t json_bytes;
    *out = NULL;
    TRY(path_join(directory, "tokenizer.json", path, sizeof path));
    TRY(file_read(path, TOKENIZER_FILE_BYTES_MAX, &json, &json_bytes));
    err_t e = tokenizer_parse(json, json_bytes, path, out);
    mem_free(json);
    return e;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    for (size_t i = 0; i < tokenizer->n_added && tokenizer->added_pattern != NULL; i++)
        mem_free(tokenizer->added_pattern[i]);
    mem_free(tokenizer->added_pattern);
    mem_free(tokenizer->added);
    mem_free(tokenizer->token_flags);
    added_trie_free(&tokenizer->raw_tokens);
    added_trie_free(&tokenizer->normalized_tokens);
    normalizer_free(&tokenizer->normalizer);
    pre_tokenizer_free(&tokenizer->pre_tokenizer);
    token_decoder_free(&tokenizer->decoder);
    bpe_free(&tokenizer->bpe);
    vocab_free(&tokenizer->vocab);
    mem_free(tokenizer);
}

uint32_t tokenizer_vocab_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.n_ids;
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocab.n_ids && (tokenizer->token_flags[id] & TOKEN_SPECIAL);
}

int64_t tokenizer_find(const struct tokenizer *tokenizer, const char *token, size_t token_bytes)
{
    return vocab_find(&tokenizer->vocab, token, token_bytes);
}

const char *tokenizer_token(const struct tokenizer *tokenizer, uint32_t id, size_t *token_bytes)
{
    return vocab_text(&tokenizer->vocab, id, token_bytes);
}

uint64_t tokenizer_fingerprint(const struct tokenizer *tokenizer)
{
    return tokenizer->fingerprint;
}

/* One encode call: text -> raw added tokens -> normaliser -> normalised added tokens -> pieces -> merges. */
struct encode_run {
    const struct tokenizer *tokenizer;
    bool parse_special;
    struct token_list *out;
    struct normalizer_scratch normalizer_scratch;
    struct pre_scratch pre_scratch;
    struct bpe_scratch bpe_scratch;
};

static err_t on_token(void *context, uint32_t id)
{
    struct encode_run *run = context;
    return token_list_push(run->out, id);
}

static err_t on_piece(void *context, const struct text_piece *piece)
{
    struct encode_run *run = context;
    return bpe_encode(&run->tokenizer->bpe, &run->bpe_scratch, piece->text, piece->size_bytes, run->out);
}

static err_t on_normalized_text(void *context, const struct text_piece *piece)
{
    struct encode_run *run = context;
    return pre_tokenizer_run(&run->tokenizer->pre_tokenizer, piece, &run->pre_scratch, on_piece, run);
}

static err_t on_raw_text(void *context, const struct text_piece *piece)
{
    struct encode_run *run = context;
    const struct tokenizer *tokenizer = run->tokenizer;
    const struct added_sink sink = {run, on_normalized_text, on_token};
    struct text_piece normalized;
    TRY(normalizer_run(&tokenizer->normalizer, piece, &run->normalizer_scratch, &normalized));
    return added_tokens_split(&tokenizer->normalized_tokens, tokenizer->added, &normalized,
                              run->parse_special, &sink);
}

/* text with each invalid byte sequence as one U+FFFD, and its marks; only for text that is not UTF-8. */
static err_t repair_utf8(const struct text_piece *in, struct buffer *text, struct buffer *marks)
{
    for (size_t i = 0; i < in->size_bytes;) {
        uint32_t code_point;
        size_t length = utf8_decode(in->text + i, in->size_bytes - i, &code_point);
        const char *from = length ? in->text + i : "\xef\xbf\xbd";
        size_t from_bytes = length ? length : 3;
        if (length == 0) { /* the longest beginning of a character, at least one byte */
            length = 1;
            while (length < UTF8_MAX_BYTES && i + length < in->size_bytes &&
                   utf8_complete_prefix(in->text + i, length + 1) == 0)
                length++;
        }
        uint8_t mark = 0;
        for (size_t k = 0; k < length && in->untrusted != NULL; k++)
            mark |= in->untrusted[i + k];
        bool ok = buffer_append(text, from, from_bytes);
        for (size_t k = 0; k < from_bytes && ok; k++)
            ok = buffer_append(marks, &mark, 1);
        if (!ok)
            return err_new(ERR_RESOURCE_EXHAUSTED, "the text does not fit into %zu bytes", text->limit_bytes);
        i += length;
    }
    return err_ok();
}

static err_t encode_text(struct encode_run *run, const struct text_piece *piece)
{
    const struct tokenizer *tokenizer = run->tokenizer;
    const struct added_sink sink = {run, on_raw_text, on_token};
    if (utf8_valid(piece->text, piece->size_bytes))
        return added_tokens_split(&tokenizer->raw_tokens, tokenizer->added, piece, run->parse_special, &sink);
    struct buffer text = {.limit_bytes = NORMALIZED_BYTES_MAX}, marks = text;
    err_t e = repair_utf8(piece, &text, &marks);
    if (e.code == ERR_OK) {
        struct text_piece repaired = {text.data, text.size,
                                      piece->untrusted ? (const uint8_t *)marks.data : NULL, true};
        e = added_tokens_split(&tokenizer->raw_tokens, tokenizer->added, &repaired, run->parse_special,
                               &sink);
    }
    buffer_free(&text);
    buffer_free(&marks);
    return e;
}

static err_t push_all(struct token_list *out, const uint32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        TRY(token_list_push(out, ids[i]));
    return err_ok();
}

err_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t text_bytes,
                       const uint8_t *untrusted, unsigned flags, struct token_list *out)
{
    if (text_bytes > TOKENIZER_TEXT_BYTES_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the text is %zu bytes long, the most is %d", text_bytes,
                       TOKENIZER_TEXT_BYTES_MAX);
    const struct post_processor *post = &tokenizer->post_processor;
    bool add_special = flags & TOKENIZE_ADD_SPECIAL;
    size_t count_before = out->count;
    struct encode_run run = {
        .tokenizer = tokenizer, .parse_special = flags & TOKENIZE_PARSE_SPECIAL, .out = out};
    struct text_piece piece = {text, text_bytes, untrusted, true};
    err_t e = add_special ? push_all(out, post->before, post->n_before) : err_ok();
    if (e.code == ERR_OK)
        e = encode_text(&run, &piece);
    if (e.code == ERR_OK && add_special)
        e = push_all(out, post->after, post->n_after);
    if (e.code != ERR_OK)
        out->count = count_before;
    normalizer_scratch_free(&run.normalizer_scratch);
    pre_scratch_free(&run.pre_scratch);
    bpe_scratch_free(&run.bpe_scratch);
    return e;
}

err_t tokenizer_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t n_ids,
                       bool skip_special_tokens, struct buffer *out)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, skip_special_tokens);
    for (size_t i = 0; i < n_ids; i++) {
        size_t token_bytes;
        if (tokenizer_token(tokenizer, ids[i], &token_bytes) == NULL)
            return err_new(ERR_INVALID_ARGUMENT, "token id %u is no token of this model (%u ids)", ids[i],
                           tokenizer_vocab_size(tokenizer));
        TRY(detokenizer_push(&detokenizer, ids[i], out));
    }
    return detokenizer_flush(&detokenizer, out);
}
