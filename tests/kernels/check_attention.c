/* Random cases of attention and of the kernels over logits. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "tests/kernels/checkkernel.h"

static enum kv_dtype dtype_of(enum kernel_id id)
{
    return id == KERNEL_attention_f32                                        ? KV_F32
           : id == KERNEL_attention_bf16 || id == KERNEL_attention_tile_bf16 ? KV_BF16
                                                                             : KV_INT8;
}

static void kv_store(enum kv_dtype dtype, struct guarded *kv, size_t index, float value)
{
    if (dtype == KV_F32)
        ((float *)kv->data)[index] = value;
    else if (dtype == KV_BF16)
        ((uint16_t *)kv->data)[index] = bf16_from_f32(value);
    else
        ((int8_t *)kv->data)[index] = (int8_t)fmaxf(-127.0f, fminf(127.0f, rintf(40.0f * value)));
}

static void fill_with_nan(enum kv_dtype dtype, size_t n_elements, struct guarded *kv)
{
    for (size_t i = 0; i < n_elements && dtype != KV_INT8; i++)
        kv_store(dtype, kv, i, NAN);
    if (dtype == KV_INT8) /* as scales: NaN */
        memset(kv->data, 0xff, n_elements);
}

/* Random K and V for positions [0, n_context), times 2^exponent. */
static void fill_kv(struct rng *rng, enum kv_dtype dtype, const struct attention_args *args,
                    const uint32_t *table, uint32_t n_context, int exponent, struct guarded *kv)
{
    size_t d = args->head_dim, d_stride = round_up(d, LANES), lead = kv_head_lead(dtype);
    for (uint32_t position = 0; position < n_context; position++) {
        size_t slot = position % KV_BLOCK_TOKENS;
        size_t head = (size_t)table[position / KV_BLOCK_TOKENS] * args->n_kv_heads + args->kv_head;
        size_t begin = head * kv_head_stride(dtype, d), k0 = begin + lead, v0 = k0 + d * KV_BLOCK_TOKENS;
        for (size_t i = 0; i < d; i++) {
            kv_store(dtype, kv, k0 + i * KV_BLOCK_TOKENS + slot, ldexpf(rng_normal(rng), exponent));
            kv_store(dtype, kv, v0 + slot * d_stride + i, ldexpf(rng_normal(rng), exponent));
        }
        for (size_t i = 0; i < lead / sizeof(uint16_t); i += KV_BLOCK_TOKENS)
            ((uint16_t *)(kv->data + begin))[i + slot] = bf16_from_f32(0.01f + 0.03f * rng_uniform(rng));
    }
}

/* A long context crosses two boundaries of chunks. */
enum { SEQ_BLOCKS = 12, LONG_SEQ_BLOCKS = 2 * ATTENTION_CHUNK_BLOCKS + 8, SEQS_MAX = 4 };

/* Tables of sequences that begin with the same n_shared blocks; every block in a random place. */
static void make_tables(struct rng *rng, uint32_t seq_blocks, uint32_t n_shared,
                        uint32_t tables[SEQS_MAX][LONG_SEQ_BLOCKS])
{
    uint32_t order[SEQS_MAX * LONG_SEQ_BLOCKS];
    for (uint32_t i = 0; i < SEQS_MAX * seq_blocks; i++) {
        uint32_t other = rng_below(rng, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
    for (uint32_t s = 0; s < SEQS_MAX; s++)
        for (uint32_t i = 0; i < seq_blocks; i++)
            tables[s][i] = order[(i < n_shared ? 0 : s) * seq_blocks + i];
}

/* The same in two calls, each for its chunks, which the reference merges: into the queries' out. */
static void attend_cut(struct attention_args args, attention_fn *fn, struct rng *rng)
{
    size_t partial_floats = attention_partial_floats(args.head_dim);
    uint32_t first = UINT32_MAX, last = 0;
    for (uint32_t i = 0; i < args.n_queries; i++) {
        first = args.queries[i].first < first ? args.queries[i].first : first;
        last = args.queries[i].last > last ? args.queries[i].last : last;
    }
    first /= ATTENTION_CHUNK_TOKENS;
    last /= ATTENTION_CHUNK_TOKENS;
    uint32_t n_chunks = last - first + 1, cut = first + rng_below(rng, n_chunks + 1);
    struct guarded partials = guarded_alloc(n_chunks * args.n_queries * partial_floats * sizeof(float));
    float total[HEAD_DIM_MAX];
    for (int half = 0; half < 2; half++) {
        args.first_chunk = half == 0 ? first : cut;
        args.end_chunk = half == 0 ? cut : last + 1;
        args.partials = (float *)partials.data + (args.first_chunk - first) * args.n_queries * partial_floats;
        fn(&args);
    }
    for (uint32_t i = 0; i < args.n_queries; i++) {
        const struct attention_query *query = &args.queries[i];
        uint32_t begin = query->first / ATTENTION_CHUNK_TOKENS,
                 end = query->last / ATTENTION_CHUNK_TOKENS + 1;
        attention_merge_ref(&(struct attention_merge_args){
            .partials = (float *)partials.data + ((begin - first) * args.n_queries + i) * partial_floats,
            .stride = args.n_queries * partial_floats,
            .n_chunks = end - begin,
            .head_dim = args.head_dim,
            .total = total,
            .out = query->out});
    }
    guarded_free(&partials);
}

bool check_attention_merge_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                              char failure[FAILURE_MAX])
{
    (void)id;
    uint32_t d = rng_below(rng, 2) ? 16 * rng_between(rng, 1, 8) : rng_between(rng, 1, 140);
    uint32_t n_chunks = rng_between(rng, 1, 9), n_queries = rng_between(rng, 1, 3);
    size_t partial_floats = attention_partial_floats(d), n = n_chunks * n_queries * partial_floats;
    struct guarded partials = guarded_alloc(n * 4), total = guarded_alloc(round_up(d, LANES) * 4), out[2];
    float *values = (float *)partials.data;
    for (size_t i = 0; i < n; i++)
        values[i] = rng_normal(rng);
    for (size_t i = 0; i < n; i += partial_floats) {
        values[i] = 8.0f * rng_normal(rng);
        values[i + 1] = 1.0f + 200.0f * rng_uniform(rng);
    }
    for (int i = 0; i < 2; i++) {
        out[i] = guarded_alloc(d * 4);
        struct attention_merge_args args = {.partials = values,
                                            .stride = n_queries * partial_floats,
                                            .n_chunks = n_chunks,
                                            .head_dim = d,
                                            .total = (float *)total.data,
                                            .out = (float *)out[i].data};
        ((attention_merge_fn *)(i == 0 ? reference : variant))(&args);
    }
    char what[64];
    snprintf(what, sizeof what, "%u chunks, head_dim %u", n_chunks, d);
    bool same = compare_outputs(&out[0], &out[1], what, failure);
    guarded_free(&partials), guarded_free(&total), guarded_free(&out[0]), guarded_free(&out[1]);
    return same;
}

bool check_attention_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                        char failure[FAILURE_MAX])
{
    enum kv_dtype dtype = dtype_of(id);
    const bool tiles = id == KERNEL_attention_tile_bf16 || id == KERNEL_attention_tile_int8;
    const uint32_t queries_max = tiles ? TILE_QUERIES_MAX : ATTENTION_QUERIES_MAX;
    uint32_t d = rng_below(rng, 2) ? 16 * rng_between(rng, 1, 8) : rng_between(rng, 1, 140);
    if (tiles && rng_below(rng, 8) == 0) /* K needs more of the scratch than V */
        d = rng_between(rng, 257, HEAD_DIM_MAX);
    bool is_long = rng_below(rng, 4) == 0;
    uint32_t seq_blocks = is_long ? LONG_SEQ_BLOCKS : SEQ_BLOCKS, tables[SEQS_MAX][LONG_SEQ_BLOCKS];
    uint32_t n_context = rng_between(rng, 1, seq_blocks * KV_BLOCK_TOKENS - 2);
    uint32_t n_seqs = rng_below(rng, 2) ? 1 : rng_between(rng, 1, SEQS_MAX);
    /* Rows of a prompt, one after the other, see nearly the same. */
    bool is_prompt = rng_below(rng, 3) == 0;
    if (is_prompt && rng_below(rng, 2) && n_context > KV_BLOCK_TOKENS) /* their blocks end among them */
        n_context = n_context / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS + rng_between(rng, 0, 2);
    uint32_t n_queries = rng_between(rng, n_seqs, is_long && !is_prompt ? SEQS_MAX : queries_max);
    struct attention_args args = {.n_kv_heads = is_long ? 1 : rng_between(rng, 1, 3),
                                  .ahead_is_near = rng_below(rng, 2),
                                  .head_dim = d,
                                  .scale = 1.0f / sqrtf((float)d),
                                  .soft_cap = rng_below(rng, 3) == 0 ? 5.0f : 0.0f,
                                  .n_queries = n_queries,
                                  .n_shared = n_seqs == 1 ? 0 : rng_below(rng, seq_blocks + 1)};
    make_tables(rng, seq_blocks, args.n_shared, tables);
    args.kv_head = rng_below(rng, args.n_kv_heads);
    size_t n_elements = SEQS_MAX * seq_blocks * args.n_kv_heads * kv_head_stride(dtype, d);
    size_t element_bytes = dtype == KV_F32 ? 4 : dtype == KV_BF16 ? 2 : 1;
    struct guarded kv = guarded_alloc(round_up(n_elements * element_bytes, 64));
    fill_with_nan(dtype, n_elements, &kv);
    /* Of tiles now and then so small that products are subnormal, or operands. */
    int exponent =
        tiles && dtype == KV_BF16 && rng_below(rng, 5) == 0 ? (int)rng_between(rng, 0, 20) - 136 : 0;
    for (uint32_t s = 0; s < n_seqs; s++)
        fill_kv(rng, dtype, &args, tables[s], n_context, exponent, &kv);
    struct guarded q = guarded_alloc((size_t)n_queries * d * 4);
    fill_normal(rng, (float *)q.data, n_queries * d);
    struct guarded out[2], scratch;
    size_t scratch_floats = tiles ? attention_tile_scratch_floats(d) : attention_scratch_floats(d);
    scratch = guarded_alloc(round_up(scratch_floats * 4, 64));
    memset(scratch.data, 0xff, scratch.size_bytes); /* NaN */
    struct attention_query queries[TILE_QUERIES_MAX];
    const uint32_t heads = rng_between(rng, 1, 8),
                   window = rng_below(rng, 2) ? n_context : rng_between(rng, 1, n_context);
    for (uint32_t i = 0; i < n_queries; i++) {
        uint32_t last = rng_below(rng, 2) ? n_context - 1 : rng_below(rng, n_context);
        uint32_t first = rng_below(rng, 2) ? 0 : rng_below(rng, last + 1);
        if (is_prompt) {
            uint32_t behind = (n_queries - 1 - i) / heads;
            last = behind < n_context ? n_context - 1 - behind : 0;
            first = last < window ? 0 : last + 1 - window;
        }
        queries[i] = (struct attention_query){.q = (float *)q.data + i * d,
                                              .block_table = tables[i * n_seqs / n_queries],
                                              .first = first,
                                              .last = last};
    }
    args.kv = kv.data;
    args.queries = queries;
    args.scratch = (float *)scratch.data;
    bool is_cut = rng_below(rng, 2) == 0; /* the variant against the reference that is not */
    for (int i = 0; i < 2; i++) {
        out[i] = guarded_alloc((size_t)n_queries * d * 4);
        for (uint32_t j = 0; j < n_queries; j++)
            queries[j].out = (float *)out[i].data + j * d;
        if (is_cut && i == 1)
            attend_cut(args, (attention_fn *)variant, rng);
        else
            ((attention_fn *)(i == 0 ? reference : variant))(&args);
    }
    char what[128];
    snprintf(what, sizeof what, "%u queries%s of %u sequences, %u blocks shared, head_dim %u, context %u%s",
             n_queries, is_prompt ? " of a prompt" : "", n_seqs, args.n_shared, d, n_context,
             is_cut ? ", cut" : "");
    bool same = compare_outputs(&out[0], &out[1], what, failure);
    if (!guarded_intact(&scratch)) {
        snprintf(failure, FAILURE_MAX, "%s: wrote before its scratch", what);
        same = false;
    }
    guarded_free(&kv), guarded_free(&q), guarded_free(&scratch), guarded_free(&out[0]), guarded_free(&out[1]);
    return same;
}

/* Logits with some -inf, and ties. */
static struct guarded random_logits(struct rng *rng, size_t n)
{
    struct guarded memory = guarded_alloc(n * 4);
    float *x = (float *)memory.data;
    float scale = ldexpf(1.0f, (int)rng_between(rng, 0, 6) - 2);
    bool coarse = rng_below(rng, 2);
    for (size_t i = 0; i < n; i++) {
        float value = rng_normal(rng) * scale;
        x[i] = rng_below(rng, 10) == 0 ? -INFINITY : coarse ? floorf(value) : value;
    }
    return memory;
}

bool check_logits_stats_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                           char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300);
    struct guarded x = random_logits(rng, n);
    uint32_t spoil = rng_below(rng, 6);
    if (spoil < 2)
        ((float *)x.data)[rng_below(rng, (uint32_t)n)] = spoil == 0 ? NAN : INFINITY;
    struct logits_stats want = ((logits_stats_fn *)reference)((const float *)x.data, n);
    struct logits_stats got = ((logits_stats_fn *)variant)((const float *)x.data, n);
    bool same =
        want.is_malformed == got.is_malformed &&
        (want.is_malformed || (f32_to_bits(want.max) == f32_to_bits(got.max) && want.argmax == got.argmax));
    if (!same)
        snprintf(failure, FAILURE_MAX,
                 "n %zu: %g at %u malformed %d, the reference has %g at %u malformed %d", n, (double)got.max,
                 got.argmax, got.is_malformed, (double)want.max, want.argmax, want.is_malformed);
    guarded_free(&x);
    return same;
}

bool check_exp_sum_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                      char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 3 * EXP_SUM_CHUNK);
    struct guarded x = random_logits(rng, n);
    float max = rng_normal(rng) * 4.0f + 10.0f;
    double want = ((exp_sum_fn *)reference)((const float *)x.data, n, max);
    double got = ((exp_sum_fn *)variant)((const float *)x.data, n, max);
    bool same = memcmp(&want, &got, sizeof want) == 0;
    if (!same)
        snprintf(failure, FAILURE_MAX, "n %zu: %.17g, the reference has %.17g", n, got, want);
    guarded_free(&x);
    return same;
}

bool check_exp_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                      char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300);
    struct guarded x = random_logits(rng, n), out[2] = {guarded_alloc(n * 4), guarded_alloc(n * 4)};
    for (size_t i = 0; i < n; i++)
        ((float *)x.data)[i] *= 4.0f;
    for (int i = 0; i < 2; i++)
        ((exp_row_fn *)(i == 0 ? reference : variant))((const float *)x.data, n, (float *)out[i].data);
    bool same = compare_outputs(&out[0], &out[1], "out", failure);
    guarded_free(&x), guarded_free(&out[0]), guarded_free(&out[1]);
    return same;
}

bool check_count_above_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                          char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300);
    struct guarded x = random_logits(rng, n);
    float value = ((float *)x.data)[rng_below(rng, (uint32_t)n)];
    size_t want = ((count_above_fn *)reference)((const float *)x.data, n, value);
    size_t got = ((count_above_fn *)variant)((const float *)x.data, n, value);
    if (want != got)
        snprintf(failure, FAILURE_MAX, "n %zu: %zu, the reference has %zu", n, got, want);
    guarded_free(&x);
    return want == got;
}

bool check_select_from_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                          char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300), count[2];
    struct guarded x = random_logits(rng, n), values[2], ids[2];
    float cut = rng_below(rng, 4) == 0 ? -3e38f : ((float *)x.data)[rng_below(rng, (uint32_t)n)];
    for (int i = 0; i < 2; i++) {
        values[i] = guarded_alloc(n * 4);
        ids[i] = guarded_alloc(n * 4);
        count[i] = ((select_from_fn *)(i == 0 ? reference : variant))(
            (const float *)x.data, n, cut, (float *)values[i].data, (uint32_t *)ids[i].data);
        /* What lies behind the selected is unspecified. */
        memset(values[i].data + 4 * count[i], 0, 4 * (n - count[i]));
        memset(ids[i].data + 4 * count[i], 0, 4 * (n - count[i]));
    }
    bool same = count[0] == count[1];
    if (!same)
        snprintf(failure, FAILURE_MAX, "n %zu: %zu selected, the reference has %zu", n, count[1], count[0]);
    same = same && compare_outputs(&values[0], &values[1], "values", failure) &&
           compare_outputs(&ids[0], &ids[1], "ids", failure);
    for (int i = 0; i < 2; i++)
        guarded_free(&values[i]), guarded_free(&ids[i]);
    guarded_free(&x);
    return same;
}

bool check_temper_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                     char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300);
    struct guarded x[2] = {random_logits(rng, n), guarded_alloc(n * 4)};
    memcpy(x[1].data, x[0].data, n * 4);
    float max = rng_normal(rng), temperature = 0.01f + rng_uniform(rng) * 2.0f;
    for (int i = 0; i < 2; i++)
        ((temper_fn *)(i == 0 ? reference : variant))((float *)x[i].data, n, max, temperature);
    bool same = compare_outputs(&x[0], &x[1], "out", failure);
    guarded_free(&x[0]), guarded_free(&x[1]);
    return same;
}

bool check_gumbel_argmax_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                            char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 2000);
    struct guarded x = random_logits(rng, n);
    /* Mostly flat logits, so that the draw decides and not the logits. */
    for (size_t i = 0; rng_below(rng, 8) != 0 && i < n; i++)
        ((float *)x.data)[i] *= 0.01f;
    struct gumbel_key key = {rng_u64(rng), rng_u32(rng), rng_below(rng, 3)};
    uint32_t want = ((gumbel_argmax_fn *)reference)((const float *)x.data, n, key);
    uint32_t got = ((gumbel_argmax_fn *)variant)((const float *)x.data, n, key);
    if (want != got)
        snprintf(failure, FAILURE_MAX, "n %zu: token %u, the reference draws %u", n, got, want);
    guarded_free(&x);
    return want == got;
}
