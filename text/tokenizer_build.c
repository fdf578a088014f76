/* A parsed tokenizer.json -> struct tokenizer. */
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "text/json_field.h"
#include "text/tokenizer_parts.h"

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the tokenizer");
}

static err_t build_vocab(const json_t *model, struct tokenizer *out)
{
    json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab))
        return err_new(ERR_DATA_LOSS, "\"vocab\" must be an object of token: id");
    size_t n_tokens = json_object_size(vocab);
    if (n_tokens == 0 || n_tokens > TOKENIZER_VOCAB_MAX)
        return err_new(ERR_DATA_LOSS, "\"vocab\" has %zu tokens, expected 1 to %d", n_tokens,
                       TOKENIZER_VOCAB_MAX);
    TRY(vocab_init(&out->vocab, n_tokens));
    const char *token;
    json_t *id;
    json_object_foreach(vocab, token, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= TOKENIZER_VOCAB_MAX)
            return err_new(ERR_DATA_LOSS, "\"vocab\": the id of \"%.64s\" must be a number from 0 to %d",
                           token, TOKENIZER_VOCAB_MAX - 1);
        TRY(vocab_add(&out->vocab, token, strlen(token), (uint32_t)json_integer_value(id)));
    }
    return err_ok();
}

/* Both halves of a merge: "a b" or ["a", "b"]. */
struct merge_text {
    const char *left, *right;
    size_t left_bytes, right_bytes;
};

static err_t merge_text(const json_t *json, size_t rank, struct merge_text *out)
{
    if (json_is_array(json)) {
        const json_t *left = json_array_get(json, 0), *right = json_array_get(json, 1);
        if (json_array_size(json) != 2 || !json_is_string(left) || !json_is_string(right))
            return err_new(ERR_DATA_LOSS, "\"merges\"[%zu] must be two strings", rank);
        *out = (struct merge_text){json_string_value(left), json_string_value(right),
                                   json_string_length(left), json_string_length(right)};
    } else {
        const char *text = json_string_value(json);
        const char *space = text ? strchr(text, ' ') : NULL;
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return err_new(ERR_DATA_LOSS, "\"merges\"[%zu] must be \"a b\" or [\"a\", \"b\"]", rank);
        size_t left_bytes = (size_t)(space - text);
        *out = (struct merge_text){text, space + 1, left_bytes, json_string_length(json) - left_bytes - 1};
    }
    if (out->left_bytes == 0 || out->right_bytes == 0 ||
        out->left_bytes + out->right_bytes > TOKENIZER_TOKEN_BYTES_MAX)
        return err_new(ERR_DATA_LOSS, "\"merges\"[%zu]: a half is empty, or the whole longer than %d bytes",
                       rank, TOKENIZER_TOKEN_BYTES_MAX);
    return err_ok();
}

static err_t add_merge(struct tokenizer *out, const struct merge_text *merge, size_t rank)
{
    char whole[TOKENIZER_TOKEN_BYTES_MAX];
    memcpy(whole, merge->left, merge->left_bytes);
    memcpy(whole + merge->left_bytes, merge->right, merge->right_bytes);
    int64_t left = vocab_find(&out->vocab, merge->left, merge->left_bytes);
    int64_t right = vocab_find(&out->vocab, merge->right, merge->right_bytes);
    int64_t result = vocab_find(&out->vocab, whole, merge->left_bytes + merge->right_bytes);
    if (left < 0 || right < 0 || result < 0)
        return err_new(ERR_DATA_LOSS,
                       "\"merges\"[%zu]: \"%.*s\" and \"%.*s\" or what they make is not in "
                       "the vocabulary",
                       rank, (int)merge->left_bytes, merge->left, (int)merge->right_bytes, merge->right);
    bpe_merges_add(&out->bpe, (uint32_t)left, (uint32_t)right, (uint32_t)rank, (uint32_t)result);
    return err_ok();
}

static err_t build_merges(const json_t *model, struct tokenizer *out)
{
    const json_t *merges;
    TRY(json_field_array(model, "merges", &merges));
    size_t n_merges = json_array_size(merges);
    if (n_merges > TOKENIZER_VOCAB_MAX)
        return err_new(ERR_DATA_LOSS, "\"merges\" has %zu entries, the most is %d", n_merges,
                       TOKENIZER_VOCAB_MAX);
    TRY(bpe_merges_init(&out->bpe, n_merges));
    for (size_t i = 0; i < n_merges; i++) {
        const json_t *json = json_array_get(merges, i);
        struct merge_text merge = {0};
        if (json_is_string(json) && strncmp(json_string_value(json), "#version", 8) == 0)
            continue; /* the first line of a merges.txt */
        TRY(merge_text(json, i, &merge));
        TRY(add_merge(out, &merge, i));
    }
    return err_ok();
}

static err_t refuse_text_option(const json_t *model, const char *key)
{
    const char *text;
    size_t text_bytes;
    TRY(json_field_text(model, key, &text, &text_bytes));
    return text_bytes == 0 ? err_ok() : err_new(ERR_UNIMPLEMENTED, "\"%s\" is \"%s\"", key, text);
}

static err_t build_model_options(const json_t *model, struct tokenizer *out)
{
    const char *type, *unk;
    size_t type_bytes, unk_bytes;
    TRY(json_field_text(model, "type", &type, &type_bytes));
    if (type != NULL && strcmp(type, "BPE") != 0)
        return err_new(ERR_UNIMPLEMENTED, "model type \"%s\" (supported: BPE)", type);
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return err_new(ERR_UNIMPLEMENTED, "\"dropout\": ids would be random");
    TRY(refuse_text_option(model, "continuing_subword_prefix"));
    TRY(refuse_text_option(model, "end_of_word_suffix"));
    TRY(json_field_bool(model, "fuse_unk", false, &out->bpe.fuse_unk));
    TRY(json_field_bool(model, "byte_fallback", false, &out->bpe.byte_fallback));
    TRY(json_field_bool(model, "ignore_merges", false, &out->bpe.ignore_merges));
    TRY(json_field_text(model, "unk_token", &unk, &unk_bytes));
    out->bpe.unk_id = unk ? vocab_find(&out->vocab, unk, unk_bytes) : VOCAB_NONE;
    out->bpe.unk_missing = unk != NULL && out->bpe.unk_id == VOCAB_NONE;
    return err_ok();
}

static err_t build_model(const json_t *root, struct tokenizer *out)
{
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model))
        return err_new(ERR_DATA_LOSS, "\"model\" is missing");
    TRY(build_vocab(model, out));
    TRY(build_model_options(model, out));
    return build_merges(model, out);
}

static err_t added_options(const json_t *json, struct added_token *token)
{
    TRY(json_field_bool(json, "special", false, &token->special));
    TRY(json_field_bool(json, "single_word", false, &token->single_word));
    TRY(json_field_bool(json, "lstrip", false, &token->lstrip));
    TRY(json_field_bool(json, "rstrip", false, &token->rstrip));
    return json_field_bool(json, "normalized", !token->special, &token->normalized);
}

/* Ids as the reference library gives them: the vocabulary's, else the next free one; the file's number is
 * only compared (*n_moved counts). place: by id, where in out->added the token is, + 1. */
static err_t add_token(const json_t *json, struct tokenizer *out, uint32_t *next_id, uint32_t *place,
                       size_t *n_moved)
{
    const char *text;
    size_t text_bytes;
    uint64_t file_id;
    struct added_token token;
    TRY(json_field_text_required(json, "content", &text, &text_bytes));
    TRY(json_field_uint(json, "id", TOKENIZER_VOCAB_MAX - 1, &file_id));
    TRY(added_options(json, &token));
    if (text_bytes == 0)
        return err_ok();
    int64_t known = vocab_find(&out->vocab, text, text_bytes);
    token.id = known == VOCAB_NONE ? *next_id : (uint32_t)known;
    *n_moved += token.id != file_id;
    if (known == VOCAB_NONE) {
        TRY(vocab_add(&out->vocab, text, text_bytes, token.id));
        (*next_id)++;
    }
    if (place[token.id] == 0) /* listed twice: the later one counts */
        place[token.id] = (uint32_t)++out->n_added;
    out->added[place[token.id] - 1] = token;
    return err_ok();
}

static err_t add_tokens(const json_t *list, struct tokenizer *out)
{
    uint32_t next_id = out->vocab.n_tokens;
    size_t n_moved = 0;
    size_t n = json_array_size(list), n_ids = out->vocab.n_ids > next_id + n ? out->vocab.n_ids : next_id + n;
    uint32_t *place = mem_alloc_array(n_ids, sizeof *place);
    err_t e = place ? err_ok() : out_of_memory();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        e = add_token(json_array_get(list, i), out, &next_id, place, &n_moved);
        if (e.code != ERR_OK)
            e = err_prefix(e, "\"added_tokens\"[%zu]", i);
    }
    mem_free(place);
    if (e.code == ERR_OK && n_moved > 0)
        log_warn("text", "%zu added tokens have other ids than the file says, as in the reference library",
                 n_moved);
    return e;
}

static err_t build_added(const json_t *root, struct tokenizer *out)
{
    const json_t *list = json_object_get(root, "added_tokens");
    size_t n = json_array_size(list);
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return err_new(ERR_DATA_LOSS, "\"added_tokens\" must be an array");
    if (n > ADDED_TOKENS_MAX)
        return err_new(ERR_DATA_LOSS, "%zu added tokens, the most is %d", n, ADDED_TOKENS_MAX);
    out->added = mem_alloc_array(n + 1, sizeof *out->added);
    if (out->added == NULL)
        return out_of_memory();
    uint32_t n_model_ids = out->vocab.n_ids;
    TRY(add_tokens(list, out));
    return tokenizer_mark_added(out, n_model_ids);
}

err_t tokenizer_mark_added(struct tokenizer *out, uint32_t n_model_ids)
{
    out->added_pattern = mem_alloc_array(out->n_added + 1, sizeof *out->added_pattern);
    out->token_flags = mem_alloc(out->vocab.n_ids);
    if (out->added_pattern == NULL || out->token_flags == NULL)
        return out_of_memory();
    for (size_t i = 0; i < out->n_added; i++) {
        const struct added_token *token = &out->added[i];
        unsigned flags = token->special ? TOKEN_SPECIAL : 0;
        if (token->id >= n_model_ids)
            flags |= TOKEN_ADDED_ONLY;
        out->token_flags[token->id] = (uint8_t)flags;
    }
    return err_ok();
}

/* What stands in the text where token i is meant: its own text, normalised when it is sought after the
 * normaliser. */
static err_t build_pattern(struct tokenizer *out, size_t i, struct normalizer_scratch *scratch)
{
    const struct added_token *token = &out->added[i];
    struct text_piece piece = {.at_start = true};
    piece.text = vocab_text(&out->vocab, token->id, &piece.size_bytes);
    if (token->normalized)
        TRY(normalizer_run(&out->normalizer, &piece, scratch, &piece));
    out->added_pattern[i] = mem_strndup(piece.size_bytes ? piece.text : "", piece.size_bytes);
    if (out->added_pattern[i] == NULL)
        return out_of_memory();
    struct added_trie *trie = token->normalized ? &out->normalized_tokens : &out->raw_tokens;
    return added_trie_add(trie, out->added_pattern[i], strlen(out->added_pattern[i]), (int32_t)i);
}

static err_t build_patterns(struct tokenizer *out)
{
    struct normalizer_scratch scratch;
    memset(&scratch, 0, sizeof scratch);
    err_t e = err_ok();
    for (size_t i = 0; i < out->n_added && e.code == ERR_OK; i++)
        e = build_pattern(out, i, &scratch);
    normalizer_scratch_free(&scratch);
    return e;
}

/* For decoding: added tokens as they stand in normalised text, the others as the vocabulary has them. */
struct decode_texts {
    const struct tokenizer *tokenizer;
    const char **pattern; /* [vocab.n_ids] NULL = not an added token */
};

static const char *decode_text(const void *context, uint32_t id, size_t *size_bytes)
{
    const struct decode_texts *texts = context;
    const char *text = texts->pattern[id];
    if (text == NULL)
        return vocab_text(&texts->tokenizer->vocab, id, size_bytes);
    *size_bytes = strlen(text);
    return text;
}

static err_t build_decoder(struct tokenizer *out)
{
    struct decode_texts texts = {out, mem_alloc_array(out->vocab.n_ids, sizeof(char *))};
    if (texts.pattern == NULL)
        return out_of_memory();
    for (size_t i = 0; i < out->n_added; i++)
        texts.pattern[out->added[i].id] = out->added_pattern[i];
    err_t e = token_decoder_prepare(&out->decoder, out->vocab.n_ids, decode_text, &texts);
    mem_free(texts.pattern);
    return e;
}

static err_t in_field(err_t e, const char *field)
{
    return e.code == ERR_OK ? e : err_prefix(e, "\"%s\"", field);
}

err_t tokenizer_finish(struct tokenizer *out)
{
    TRY(build_patterns(out));
    TRY(in_field(build_decoder(out), "decoder"));
    out->bpe.vocab = &out->vocab;
    out->bpe.token_flags = out->token_flags;
    out->bpe.byte_level = out->pre_tokenizer.byte_level;
    return bpe_finish(&out->bpe);
}

err_t tokenizer_build(const json_t *root, struct tokenizer *out)
{
    const char *version;
    size_t size_bytes;
    if (!json_is_object(root))
        return err_new(ERR_DATA_LOSS, "expected one JSON object");
    TRY(json_field_text(root, "version", &version, &size_bytes));
    if (version != NULL && strcmp(version, "1.0") != 0)
        return err_new(ERR_UNIMPLEMENTED, "\"version\" is \"%s\", supported is 1.0", version);
    TRY(in_field(build_model(root, out), "model"));
    TRY(in_field(normalizer_parse(json_object_get(root, "normalizer"), &out->normalizer), "normalizer"));
    TRY(in_field(pre_tokenizer_parse(json_object_get(root, "pre_tokenizer"), &out->pre_tokenizer),
                 "pre_tokenizer"));
    TRY(in_field(token_decoder_parse(json_object_get(root, "decoder"), &out->decoder), "decoder"));
    TRY(build_added(root, out));
    TRY(in_field(
        post_processor_parse(json_object_get(root, "post_processor"), &out->vocab, &out->post_processor),
        "post_processor"));
    return tokenizer_finish(out);
}
