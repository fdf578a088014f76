#include "tests/model/block_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "base/philox.h"
#include "model/block_formats.h"
#include "tests/base/gguf_builder.h"

enum { HIDDEN = 256, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, F32 = 0 };

static uint64_t blocks_bytes;

/* Scales that give weights of about 0.05, whatever the type. */
static void put_scales(uint32_t type, uint8_t *block)
{
    static const struct {
        uint32_t type, scale_at;
        float scale, minimum; /* minimum: of those types that have one, at byte 2 */
    } of[] = {
        {BLOCK_Q4_0, 0, 0.01f, 0},       {BLOCK_Q4_1, 0, 0.01f, -0.075f}, {BLOCK_Q5_0, 0, 0.005f, 0},
        {BLOCK_Q5_1, 0, 0.005f, -0.08f}, {BLOCK_Q8_0, 0, 0.0006f, 0},     {BLOCK_Q4_K, 0, 3e-4f, 2.2e-3f},
        {BLOCK_Q5_K, 0, 1.5e-4f, 2e-3f}, {BLOCK_Q6_K, 208, 3.1e-5f, 0},
    };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        if (of[i].type != type)
            continue;
        uint16_t scale = f16_from_f32(of[i].scale), minimum = f16_from_f32(of[i].minimum);
        memcpy(block + of[i].scale_at, &scale, 2);
        if (of[i].minimum != 0)
            memcpy(block + 2, &minimum, 2);
    }
}

static void put_matrix(struct gguf_builder *b, struct rng *rng, const char *name, uint32_t type,
                       uint64_t n_in, uint64_t n_out, bool broken_scale)
{
    const struct gguf_tensor_format *format = gguf_tensor_format(type);
    size_t n = n_in * n_out / format->block_values, size_bytes = n * format->block_bytes;
    uint8_t *bytes = mem_alloc(size_bytes);
    assert_non_null(bytes);
    for (size_t i = 0; i < size_bytes; i++)
        bytes[i] = (uint8_t)rng_below(rng, 256);
    for (size_t i = 0; i < n; i++)
        put_scales(type, bytes + i * format->block_bytes);
    if (broken_scale)
        memset(bytes + (n / 2) * format->block_bytes + (type == BLOCK_Q6_K ? 208 : 0), 0xff, 2); /* NaN */
    builder_tensor(b, name, type, (uint64_t[]){n_in, n_out}, 2, bytes, size_bytes);
    blocks_bytes += size_bytes;
    mem_free(bytes);
}

static void put_layer(struct gguf_builder *b, struct rng *rng, int layer, const struct block_model *variation)
{
    static float ones[HIDDEN];
    for (size_t i = 0; i < HIDDEN; i++)
        ones[i] = 1.0f;
    const struct {
        const char *name;
        uint32_t type;
        uint64_t n_in, n_out;
        bool broken;
    } matrices[] = {
        {"attn_q", BLOCK_Q4_K, HIDDEN, HEADS * HEAD_DIM, false},
        {"attn_k", BLOCK_Q5_0, HIDDEN, KV_HEADS * HEAD_DIM, false},
        {"attn_v", BLOCK_Q6_K, HIDDEN, KV_HEADS * HEAD_DIM, variation->broken_scale},
        {"attn_output", BLOCK_Q8_0, HEADS * HEAD_DIM, HIDDEN, false},
        {"ffn_gate", layer == 0 ? BLOCK_Q4_1 : BLOCK_Q4_0, HIDDEN, variation->mlp, false},
        {"ffn_up", layer == 0 ? BLOCK_Q5_1 : BLOCK_Q4_0, HIDDEN, variation->mlp, false},
        {"ffn_down", variation->down_type, variation->mlp, HIDDEN, variation->broken_down},
    };
    char name[64];
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrices[i].name);
        put_matrix(b, rng, name, matrices[i].type, matrices[i].n_in, matrices[i].n_out, matrices[i].broken);
    }
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    builder_tensor(b, name, F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
    builder_tensor(b, name, F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
}

uint64_t block_model_write(const struct block_model *changed, char path[BLOCK_MODEL_PATH])
{
    static const struct block_model plain = {BLOCK_MODEL_MLP, BLOCK_Q5_K, false, false};
    const struct block_model *variation = changed == NULL ? &plain : changed;
    static const float ones[HIDDEN] = {[0 ... HIDDEN - 1] = 1.0f};
    struct gguf_builder b = {0};
    struct rng rng = rng_make(31);
    blocks_bytes = 0;
    builder_text(&b, "general.architecture", "llama");
    builder_u32(&b, "llama.context_length", 256);
    builder_u32(&b, "llama.embedding_length", HIDDEN);
    builder_u32(&b, "llama.block_count", 2);
    builder_u32(&b, "llama.feed_forward_length", variation->mlp);
    builder_u32(&b, "llama.attention.head_count", HEADS);
    builder_u32(&b, "llama.attention.head_count_kv", KV_HEADS);
    builder_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_matrix(&b, &rng, "token_embd.weight", BLOCK_Q6_K, HIDDEN, BLOCK_MODEL_VOCAB, false);
    for (int layer = 0; layer < 2; layer++)
        put_layer(&b, &rng, layer, variation);
    builder_tensor(&b, "output_norm.weight", F32, (uint64_t[]){HIDDEN}, 1, ones, sizeof ones);
    struct buffer file = builder_finish(&b);
    builder_write_temporary(&file, path);
    return blocks_bytes;
}
