#include "text/gguf_tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "text/tokenizer_parts.h"
#include "text/unicode_class.h"

/* As tokenizer.ggml.token_type numbers them. */
enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

#define METASPACE "\xe2\x96\x81" /* SentencePiece's visible space */

enum { PAIRS_MAX = 8 * TOKENIZER_VOCAB_MAX }; /* merges that a vocabulary may imply */

/* A merge: two tokens and what they make. */
struct pair {
    uint32_t left, right, result;
};

struct gguf_source {
    const struct gguf *gguf;
    const struct gguf_value *tokens;
    const struct gguf_value *types;  /* NULL = all plain */
    const struct gguf_value *scores; /* SentencePiece */
    bool by_position;                /* merges in the order of ids, not of scores */
    bool respell_spaces;             /* tokens of spaces alone are written with real ones */
};

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the tokenizer");
}

static int32_t type_of(const struct gguf_source *source, uint64_t id)
{
    return source->types ? gguf_i32_at(source->types, id) : 1;
}

/* ---- Vocabulary and added tokens ---- */

/* The text of a run of spaces in visible ones, into out; false for any other text. */
static bool respell(struct gguf_text text, char out[3 * TOKENIZER_TOKEN_BYTES_MAX])
{
    size_t n = text.size_bytes;
    if (n < 2 || n > TOKENIZER_TOKEN_BYTES_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text.data[i] != ' ')
            return false;
        memcpy(out + 3 * i, METASPACE, 3);
    }
    return true;
}

static err_t add_token(const struct gguf_source *source, uint32_t id, struct gguf_text text,
                       struct tokenizer *out)
{
    char spaces[3 * TOKENIZER_TOKEN_BYTES_MAX];
    int32_t type = type_of(source, id);
    bool special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
    bool respelled = source->respell_spaces && respell(text, spaces);
    if (respelled)
        text = (struct gguf_text){spaces, 3 * text.size_bytes};
    if (text.size_bytes == 0)
        return err_ok();
    TRY(vocab_add(&out->vocab, text.data, text.size_bytes, id));
    if (special || (type == TYPE_USER_DEFINED && !respelled))
        out->added[out->n_added++] = (struct added_token){.id = id, .special = special};
    return err_ok();
}

static err_t build_tokens(const struct gguf_source *source, struct tokenizer *out)
{
    uint32_t n = (uint32_t)source->tokens->n_items;
    size_t n_added = 0, at = 0;
    for (uint32_t id = 0; id < n; id++)
        n_added += type_of(source, id) >= TYPE_UNKNOWN && type_of(source, id) <= TYPE_USER_DEFINED;
    if (n_added > ADDED_TOKENS_MAX)
        return err_new(ERR_DATA_LOSS, "%zu control and user-defined tokens, the most is %d", n_added,
                       ADDED_TOKENS_MAX);
    TRY(vocab_init(&out->vocab, n));
    out->added = mem_alloc_array(n_added + 1, sizeof *out->added);
    if (out->added == NULL)
        return out_of_memory();
    for (uint32_t id = 0; id < n; id++) {
        err_t e = add_token(source, id, gguf_next_text(source->tokens, &at), out);
        if (e.code != ERR_OK)
            return err_prefix(e, "\"tokenizer.ggml.tokens\"[%u]", id);
    }
    return out->vocab.n_ids > 0 ? tokenizer_mark_added(out, out->vocab.n_ids)
                                : err_new(ERR_DATA_LOSS, "\"tokenizer.ggml.tokens\" has no token");
}

/* ---- Merges of SentencePiece's BPE ---- */

struct scored {
    float score;
    uint32_t id;
};

/* The best first; of equal ones the first. */
static int compare_scored(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The ids in the order in which their merges come. Caller frees. */
static err_t rank_tokens(const struct gguf_source *source, struct scored **out)
{
    uint32_t n = (uint32_t)source->tokens->n_items;
    struct scored *order = mem_alloc_array(n, sizeof *order);
    *out = order;
    if (order == NULL)
        return out_of_memory();
    for (uint32_t id = 0; id < n; id++) {
        float score = source->by_position ? 0.0f : gguf_f32_at(source->scores, id);
        if (score != score)
            return err_new(ERR_DATA_LOSS, "\"tokenizer.ggml.scores\"[%u] is NaN", id);
        order[id] = (struct scored){score, id};
    }
    if (!source->by_position)
        qsort(order, n, sizeof *order, compare_scored);
    return err_ok();
}

/* Every way to make the token of two others, the longest left half first. */
static err_t add_pairs(const struct tokenizer *tokenizer, uint32_t id, struct buffer *pairs)
{
    size_t size_bytes;
    const char *text = vocab_text(&tokenizer->vocab, id, &size_bytes);
    for (size_t cut = text ? size_bytes : 0; cut-- > 1;) {
        if (((uint8_t)text[cut] & 0xc0) == 0x80)
            continue;
        int64_t left = vocab_find(&tokenizer->vocab, text, cut);
        int64_t right = left < 0 ? -1 : vocab_find(&tokenizer->vocab, text + cut, size_bytes - cut);
        if (right < 0)
            continue;
        struct pair pair = {(uint32_t)left, (uint32_t)right, id};
        if (!buffer_append(pairs, (const char *)&pair, sizeof pair))
            return err_new(ERR_RESOURCE_EXHAUSTED, "the tokens imply more than %d merges", PAIRS_MAX);
    }
    return err_ok();
}

static err_t add_merges(const struct buffer *pairs, struct bpe *bpe)
{
    size_t n = pairs->size / sizeof(struct pair);
    TRY(bpe_merges_init(bpe, n));
    for (size_t i = 0; i < n; i++) {
        struct pair pair;
        memcpy(&pair, pairs->data + i * sizeof pair, sizeof pair);
        bpe_merges_add(bpe, pair.left, pair.right, (uint32_t)i, pair.result);
    }
    return err_ok();
}

static err_t build_scored_merges(const struct gguf_source *source, struct tokenizer *out)
{
    struct scored *order = NULL;
    struct buffer pairs = {.limit_bytes = PAIRS_MAX * sizeof(struct pair)};
    err_t e = rank_tokens(source, &order);
    for (uint32_t i = 0; i < source->tokens->n_items && e.code == ERR_OK; i++)
        e = add_pairs(out, order[i].id, &pairs);
    if (e.code == ERR_OK)
        e = add_merges(&pairs, &out->bpe);
    buffer_free(&pairs);
    mem_free(order);
    return e;
}

/* ---- The parts that a tokenizer.json would name ---- */

static err_t parse_parts(const char *json, struct tokenizer *out)
{
    json_t *root = json_loads(json, 0, NULL);
    ASSERT(root != NULL);
    err_t e = normalizer_parse(json_object_get(root, "normalizer"), &out->normalizer);
    if (e.code == ERR_OK)
        e = pre_tokenizer_parse(json_object_get(root, "pre_tokenizer"), &out->pre_tokenizer);
    if (e.code == ERR_OK)
        e = token_decoder_parse(json_object_get(root, "decoder"), &out->decoder);
    json_decref(root);
    return e;
}

#define DECODE_SPACES                                                                                        \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" METASPACE "\"},\"content\":\" \"},"                   \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}"

static err_t build_sentencepiece(struct gguf_source *source, struct tokenizer *out)
{
    const struct gguf *gguf = source->gguf;
    struct gguf_text architecture = {NULL, 0};
    bool prefix = true;
    TRY(gguf_opt_text(gguf, "general.architecture", &architecture));
    TRY(gguf_get_array(gguf, "tokenizer.ggml.scores", GGUF_F32, TOKENIZER_VOCAB_MAX, &source->scores));
    if (source->scores->n_items != source->tokens->n_items)
        return err_new(ERR_DATA_LOSS, "\"tokenizer.ggml.scores\" must have an item for each token");
    TRY(gguf_opt_bool(gguf, "tokenizer.ggml.add_space_prefix", &prefix));
    /* Gemma's files give runs of spaces real ones and a score that is not their rank, as Transformers has it.
     */
    source->by_position = source->respell_spaces = gguf_text_is(architecture, "gemma") ||
                                                   gguf_text_is(architecture, "gemma2") ||
                                                   gguf_text_is(architecture, "gemma3");
    TRY(build_tokens(source, out));
    TRY(build_scored_merges(source, out));
    uint32_t unknown = UINT32_MAX;
    TRY(gguf_opt_u32(gguf, "tokenizer.ggml.unknown_token_id", 0, out->vocab.n_ids - 1, &unknown));
    out->bpe.unk_id = unknown == UINT32_MAX ? VOCAB_NONE : (int64_t)unknown;
    out->bpe.byte_fallback = true;
    out->bpe.fuse_unk = true;
    if (!prefix)
        return parse_parts("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                           "\"content\":\"" METASPACE "\"},"
                           "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" DECODE_SPACES "]}}",
                           out);
    return parse_parts("{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" METASPACE
                       "\",\"prepend_scheme\":\"first\",\"split\":false},"
                       "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" DECODE_SPACES
                       ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}",
                       out);
}

/* ---- Byte-level BPE ---- */

/* The kinds of tokenizer.ggml.pre: how text is split before it is merged. */
struct pre_kind_name {
    const char *name;
    enum split_pattern pattern;
    bool digits;        /* each digit alone first */
    bool ignore_merges; /* a piece that is a token is that token */
    bool add_bos;       /* unless the file says */
};

static const struct pre_kind_name PRE_KINDS[] = {
    {"gpt-2", SPLIT_GPT2, false, false, false},  {"llama-bpe", SPLIT_LLAMA3, false, true, true},
    {"llama3", SPLIT_LLAMA3, false, true, true}, {"llama-v3", SPLIT_LLAMA3, false, true, true},
    {"qwen2", SPLIT_QWEN2, false, false, false}, {"deepseek-r1-qwen", SPLIT_QWEN2, false, false, false},
    {"smollm", SPLIT_GPT2, true, false, false},  {"gpt-4o", SPLIT_O200K, false, false, false},
    {"tekken", SPLIT_TEKKEN, false, true, true},
};
enum { N_PRE_KINDS = sizeof PRE_KINDS / sizeof PRE_KINDS[0] };

static err_t find_pre_kind(const struct gguf *gguf, const struct pre_kind_name **out)
{
    struct gguf_text name;
    char known[256];
    size_t used = 0;
    TRY(gguf_get_text(gguf, "tokenizer.ggml.pre", &name));
    for (size_t i = 0; i < N_PRE_KINDS; i++) {
        if (gguf_text_is(name, PRE_KINDS[i].name)) {
            *out = &PRE_KINDS[i];
            return err_ok();
        }
        size_t size = strlen(PRE_KINDS[i].name);
        ASSERT(used + size + 3 < sizeof known);
        memcpy(known + used, i ? ", " : "", i ? 2 : 0);
        used += i ? 2 : 0;
        memcpy(known + used, PRE_KINDS[i].name, size);
        used += size;
    }
    known[used] = '\0';
    return err_new(ERR_UNIMPLEMENTED, "\"tokenizer.ggml.pre\" \"%.*s\" is not known; known are %s",
                   (int)(name.size_bytes < 64 ? name.size_bytes : 64), name.data, known);
}

/* "left right" of tokens that are there, and so is what they make. */
static err_t find_pair(const struct vocab *vocab, struct gguf_text text, struct pair *out)
{
    const char *space = text.size_bytes > 1 ? memchr(text.data + 1, ' ', text.size_bytes - 1) : NULL;
    char whole[TOKENIZER_TOKEN_BYTES_MAX];
    if (space == NULL || text.size_bytes > sizeof whole)
        return err_new(ERR_DATA_LOSS, "it must be two tokens with a space in between");
    size_t left_bytes = (size_t)(space - text.data), right_bytes = text.size_bytes - left_bytes - 1;
    memcpy(whole, text.data, left_bytes);
    memcpy(whole + left_bytes, space + 1, right_bytes);
    int64_t left = vocab_find(vocab, text.data, left_bytes);
    int64_t right = vocab_find(vocab, space + 1, right_bytes);
    int64_t result = vocab_find(vocab, whole, left_bytes + right_bytes);
    if (left < 0 || right < 0 || result < 0)
        return err_new(ERR_DATA_LOSS, "\"%.*s\" or what it makes is not in the vocabulary",
                       (int)(text.size_bytes < 100 ? text.size_bytes : 100), text.data);
    *out = (struct pair){(uint32_t)left, (uint32_t)right, (uint32_t)result};
    return err_ok();
}

static err_t build_listed_merges(const struct gguf *gguf, struct tokenizer *out)
{
    const struct gguf_value *merges;
    size_t at = 0;
    TRY(gguf_get_array(gguf, "tokenizer.ggml.merges", GGUF_TEXT, TOKENIZER_VOCAB_MAX, &merges));
    TRY(bpe_merges_init(&out->bpe, merges->n_items));
    for (uint32_t i = 0; i < merges->n_items; i++) {
        struct pair pair = {0};
        err_t e = find_pair(&out->vocab, gguf_next_text(merges, &at), &pair);
        if (e.code != ERR_OK)
            return err_prefix(e, "\"tokenizer.ggml.merges\"[%u]", i);
        bpe_merges_add(&out->bpe, pair.left, pair.right, i, pair.result);
    }
    return err_ok();
}

static err_t build_byte_level(const struct gguf_source *source, const struct pre_kind_name *kind,
                              struct tokenizer *out)
{
    TRY(build_tokens(source, out));
    TRY(build_listed_merges(source->gguf, out));
    out->bpe.unk_id = VOCAB_NONE;
    out->bpe.ignore_merges = kind->ignore_merges;
    TRY(parse_parts("{\"decoder\":{\"type\":\"ByteLevel\"}}", out));
    struct pre_tokenizer *pre = &out->pre_tokenizer;
    if (kind->digits)
        pre->steps[pre->n_steps++] =
            (struct pre_step){.kind = PRE_SPLIT_CLASS, .behavior = SPLIT_ISOLATED, .classes = CHAR_NUMBER};
    pre->steps[pre->n_steps++] =
        (struct pre_step){.kind = PRE_SPLIT_PATTERN, .behavior = SPLIT_ISOLATED, .pattern = kind->pattern};
    pre->byte_level = true;
    return err_ok();
}

/* ---- The whole ---- */

static err_t build_ends(const struct gguf *gguf, bool add_bos, struct tokenizer *out)
{
    bool add_eos = false;
    TRY(gguf_opt_bool(gguf, "tokenizer.ggml.add_bos_token", &add_bos));
    TRY(gguf_opt_bool(gguf, "tokenizer.ggml.add_eos_token", &add_eos));
    if (add_bos) {
        TRY(gguf_get_u32(gguf, "tokenizer.ggml.bos_token_id", 0, out->vocab.n_ids - 1,
                         &out->post_processor.before[0]));
        out->post_processor.n_before = 1;
    }
    if (add_eos) {
        TRY(gguf_get_u32(gguf, "tokenizer.ggml.eos_token_id", 0, out->vocab.n_ids - 1,
                         &out->post_processor.after[0]));
        out->post_processor.n_after = 1;
    }
    return err_ok();
}

static err_t build(const struct gguf *gguf, struct tokenizer *out)
{
    struct gguf_source source = {.gguf = gguf};
    struct gguf_text model;
    bool add_bos = true;
    TRY(gguf_get_text(gguf, "tokenizer.ggml.model", &model));
    TRY(gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_TEXT, TOKENIZER_VOCAB_MAX, &source.tokens));
    TRY(gguf_opt_array(gguf, "tokenizer.ggml.token_type", GGUF_I32, TOKENIZER_VOCAB_MAX, &source.types));
    if (source.types && source.types->n_items != source.tokens->n_items)
        return err_new(ERR_DATA_LOSS, "\"tokenizer.ggml.token_type\" must have an item for each token");
    if (gguf_text_is(model, "llama")) {
        TRY(build_sentencepiece(&source, out));
    } else if (gguf_text_is(model, "gpt2")) {
        const struct pre_kind_name *kind = NULL;
        TRY(find_pre_kind(gguf, &kind));
        TRY(build_byte_level(&source, kind, out));
        add_bos = kind->add_bos;
    } else {
        return err_new(ERR_UNIMPLEMENTED,
                       "\"tokenizer.ggml.model\" \"%.*s\" is not known; known are llama and gpt2",
                       (int)(model.size_bytes < 64 ? model.size_bytes : 64), model.data);
    }
    TRY(build_ends(gguf, add_bos, out));
    return tokenizer_finish(out);
}

/* Over all that decides ids. */
static uint64_t fingerprint(const struct gguf *gguf)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < gguf->n_keys; i++) {
        const struct gguf_key *key = &gguf->keys[i];
        if (key->name.size_bytes < 15 || memcmp(key->name.data, "tokenizer.ggml.", 15) != 0)
            continue;
        hash = hash64(key->name.data, key->name.size_bytes, hash);
        hash = hash64(key->value.data, key->value.size_bytes, hash);
    }
    return hash;
}

err_t tokenizer_from_gguf(const struct gguf *gguf, struct tokenizer **out)
{
    *out = NULL;
    struct tokenizer *tokenizer = mem_alloc(sizeof *tokenizer);
    err_t e = tokenizer ? build(gguf, tokenizer) : out_of_memory();
    if (e.code != ERR_OK) {
        tokenizer_destroy(tokenizer);
        return err_prefix(e, "%s", gguf->path);
    }
    tokenizer->fingerprint = fingerprint(gguf);
    *out = tokenizer;
    return err_ok();
}
