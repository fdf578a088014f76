#include "tests/cuda/attention_world.h"

#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/checked.h"
#include "base/float16.h"
#include "base/philox.h"
#include "kernels/kernel_table.h"
#include "tests/cuda/emulator/emu_numbers.h"

/* Random numbers as bf16 and as e4m3: drawing millions anew would take longer than the kernels do. */
enum { RANDOM_VALUES = 4096 };
static struct {
    uint16_t bf16;
    uint8_t e4m3;
} random_values[RANDOM_VALUES];

int attention_set_up(void **state)
{
    (void)state;
    struct rng rng = rng_make(1);
    for (uint32_t i = 0; i < RANDOM_VALUES; i++) {
        float value = rng_normal(&rng);
        random_values[i].bf16 = bf16_from_f32(value);
        for (uint32_t code = 0; code < 256; code++) { /* the nearest */
            if (fabsf(emu_e4m3_values[code] - value) < fabsf(emu_e4m3_values[random_values[i].e4m3] - value))
                random_values[i].e4m3 = (uint8_t)code;
        }
    }
    return 0;
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 40) % RANDOM_VALUES;
}

static float random_element(uint64_t *state, const struct shape *shape, uint16_t *code)
{
    uint32_t i = next_random(state);
    *code = shape->element_bytes == 2 ? random_values[i].bf16 : random_values[i].e4m3;
    return shape->element_bytes == 2 ? bf16_to_f32(*code) : emu_e4m3_values[*code];
}

/* Bytes of a token's key or value in one head stand in pieces of a tile. */
static uint8_t *element_at(const struct world *w, uint8_t *kv, uint32_t block, uint32_t token, uint32_t head,
                           int part, uint32_t i)
{
    const struct shape *shape = &w->shape;
    uint32_t row_pieces = cuda_kv_row_pieces(shape->head_dim, shape->element_bytes);
    uint32_t tile_bytes = cuda_kv_tile_bytes(shape->head_dim, shape->element_bytes);
    return kv + cuda_kv_tile_offset(shape->n_kv_heads, tile_bytes, block, head, (enum cuda_kv_part)part) +
           cuda_kv_element_offset(row_pieces, shape->element_bytes, token, i);
}

static size_t kv_bytes_of(const struct shape *shape)
{
    return BLOCKS_MAX * cuda_kv_block_bytes(shape->n_kv_heads, shape->head_dim, shape->element_bytes);
}

static void fill_token(struct world *w, uint64_t *random, uint32_t block, uint32_t token)
{
    const struct shape *shape = &w->shape;
    uint32_t d = shape->head_dim;
    for (uint32_t head = 0; head < shape->n_kv_heads; head++) {
        for (int part = CUDA_KV_K; part <= CUDA_KV_V; part++) {
            size_t cpu = ((size_t)block * shape->n_kv_heads + head) * kv_head_elements(d);
            for (uint32_t i = 0; i < d; i++) {
                uint16_t code;
                float value = random_element(random, shape, &code);
                if (shape->element_bytes == 1)
                    value *= part == CUDA_KV_K ? ATTENTION_K_SCALE : ATTENTION_V_SCALE;
                memcpy(element_at(w, w->kv, block, token, head, part, i), &code, shape->element_bytes);
                size_t at = part == CUDA_KV_K ? cpu + i * KV_BLOCK_TOKENS + token
                                              : cpu + d * KV_BLOCK_TOKENS + token * round_up(d, LANES) + i;
                w->cpu_kv[at] = value;
                w->cpu_magnitudes[at] = part == CUDA_KV_K ? value : fabsf(value);
            }
        }
    }
}

void world_create(struct world *w, const struct shape *shape, uint32_t n_seqs, const uint32_t *n_context,
                  const uint32_t *n_shared, uint64_t seed)
{
    *w = (struct world){.shape = *shape, .n_seqs = n_seqs};
    struct rng rng = rng_make(seed);
    uint64_t random = seed;
    size_t kv_bytes = kv_bytes_of(shape),
           cpu_elements = BLOCKS_MAX * shape->n_kv_heads * kv_head_elements(shape->head_dim);
    size_t n_q = (size_t)n_seqs * POSITIONS_MAX * width_of(shape);
    w->kv = mem_alloc(kv_bytes);
    w->cpu_kv = mem_alloc(cpu_elements * sizeof(float));
    w->cpu_magnitudes = mem_alloc(cpu_elements * sizeof(float));
    w->q = mem_alloc(n_q * sizeof(uint16_t));
    assert_true(w->kv != NULL && w->cpu_kv != NULL && w->cpu_magnitudes != NULL && w->q != NULL);
    memset(w->kv, FILL_NAN, kv_bytes);
    for (size_t i = 0; i < n_q; i++)
        w->q[i] = random_values[next_random(&random)].bf16;
    uint32_t free_blocks[BLOCKS_MAX], n_free = 0;
    for (uint32_t i = 0; i < BLOCKS_MAX; i++) {
        uint32_t other = rng_below(&rng, i + 1);
        free_blocks[i] = free_blocks[other];
        free_blocks[other] = i;
    }
    for (uint32_t s = 0; s < n_seqs; s++) {
        w->n_context[s] = n_context[s];
        for (uint32_t b = 0; b < BLOCKS_PER_SEQ; b++) {
            bool shared = s > 0 && n_shared != NULL && b < n_shared[s];
            w->tables[s][b] = shared ? w->tables[0][b] : UINT32_MAX; /* unused: read by nobody */
            if (shared || b * CUDA_KV_BLOCK_TOKENS >= n_context[s])
                continue;
            w->tables[s][b] = free_blocks[n_free++];
            for (uint32_t t = 0; t < CUDA_KV_BLOCK_TOKENS && b * CUDA_KV_BLOCK_TOKENS + t < n_context[s]; t++)
                fill_token(w, &random, w->tables[s][b], t);
        }
    }
}

void world_destroy(struct world *w)
{
    mem_free(w->kv), mem_free(w->cpu_kv), mem_free(w->cpu_magnitudes), mem_free(w->q);
}

/* ---- Running a step ---- */

static void fill_step(const struct world *w, const struct rows *rows, uint32_t n, struct step *step)
{
    step->n_rows = 0;
    step->n_seqs = n;
    for (uint32_t i = 0; i < n; i++) {
        step->seqs[i] = (struct step_seq){
            .first_row = step->n_rows, .n_rows = rows[i].n, .n_context = rows[i].first + rows[i].n};
        memcpy(step_block_table(step, 0, i), w->tables[rows[i].seq], sizeof w->tables[0]);
        for (uint32_t r = 0; r < rows[i].n; r++)
            step->rows[step->n_rows++] = (struct step_row){.position = rows[i].first + r, .seq = i};
    }
    assert_true(step->n_rows <= ROWS_MAX);
}

/* NaN for the keys and values of the step's rows. */
static void hide_new_keys(const struct world *w, const struct step *step, uint8_t *kv)
{
    const struct shape *shape = &w->shape;
    for (uint32_t r = 0; r < step->n_rows; r++) {
        const struct step_row *row = &step->rows[r];
        uint32_t block = step_block_table(step, 0, row->seq)[row->position / CUDA_KV_BLOCK_TOKENS];
        for (uint32_t i = 0; i < 2 * shape->n_kv_heads * shape->head_dim; i++)
            memset(element_at(w, kv, block, row->position % CUDA_KV_BLOCK_TOKENS, i / 2 / shape->head_dim,
                              i % 2 ? CUDA_KV_V : CUDA_KV_K, i / 2 % shape->head_dim),
                   FILL_NAN, shape->element_bytes);
    }
}

/* The new key and value of a row as the cache has them, behind q. */
static void copy_new_key(const struct world *w, const struct step *step, uint32_t r, uint16_t *kv)
{
    const struct shape *shape = &w->shape;
    const struct step_row *row = &step->rows[r];
    uint32_t n = shape->n_kv_heads * shape->head_dim;
    uint32_t block = step_block_table(step, 0, row->seq)[row->position / CUDA_KV_BLOCK_TOKENS];
    for (uint32_t i = 0; i < 2 * n; i++) {
        const uint8_t *at =
            element_at(w, w->kv, block, row->position % CUDA_KV_BLOCK_TOKENS, i % n / shape->head_dim,
                       i < n ? CUDA_KV_K : CUDA_KV_V, i % shape->head_dim);
        float scale = i < n ? ATTENTION_K_SCALE : ATTENTION_V_SCALE;
        if (shape->element_bytes == 2)
            memcpy(&kv[i], at, sizeof kv[i]);
        else
            kv[i] = bf16_from_f32(emu_e4m3_values[*at] * scale);
    }
}

/* What the launch in front is to write: q, and the keys and values of the step's rows. */
struct early {
    struct emu_front front;
    struct {
        uint8_t *at, *written, *before; /* before: NaN where it writes */
        size_t bytes;
    } parts[2];
};

static void hide_writes(void *context)
{
    struct early *early = context;
    for (int i = 0; i < 2; i++)
        memcpy(early->parts[i].at, early->parts[i].before, early->parts[i].bytes);
}

static void show_writes(void *context)
{
    struct early *early = context;
    for (int i = 0; i < 2; i++)
        memcpy(early->parts[i].at, early->parts[i].written, early->parts[i].bytes);
}

static void early_make(struct early *early, const struct world *w, const struct step *step, uint16_t *qkv,
                       size_t qkv_bytes)
{
    *early = (struct early){.front = {hide_writes, show_writes, early}};
    early->parts[0].at = w->kv;
    early->parts[0].bytes = kv_bytes_of(&w->shape);
    early->parts[1].at = (uint8_t *)qkv;
    early->parts[1].bytes = qkv_bytes;
    for (int i = 0; i < 2; i++) {
        early->parts[i].written = mem_alloc(early->parts[i].bytes);
        early->parts[i].before = mem_alloc(early->parts[i].bytes);
        memcpy(early->parts[i].written, early->parts[i].at, early->parts[i].bytes);
        memcpy(early->parts[i].before, early->parts[i].at, early->parts[i].bytes);
    }
    memset(early->parts[1].before, FILL_NAN, qkv_bytes);
    hide_new_keys(w, step, early->parts[0].before);
}

static void early_free(struct early *early)
{
    for (int i = 0; i < 2; i++)
        mem_free(early->parts[i].written), mem_free(early->parts[i].before);
}

/* Says of every item that its keys are old. */
static void claim_old_keys(struct attention_work *work)
{
    const struct attention_group *group = &work->groups[0];
    struct attention_item *items = (struct attention_item *)((uint32_t *)work + group->items);
    for (uint32_t i = 0; i < group->n_small + group->n_large; i++)
        items[i].flags |= ATTENTION_ITEM_OLD_KEYS;
}

static uint32_t blocks_of(const struct run_options *options, uint32_t n)
{
    return options->n_blocks > 0 ? options->n_blocks : n;
}

/* Which kernel takes the small items, by what plan. In turn: all have the same bits. */
static enum attention_size choose_form(const struct run_options *options, const struct shape *shape,
                                       struct attention_limits *limits)
{
    static uint32_t turn;
    enum run_form form =
        options->form != RUN_IN_TURN ? options->form : (enum run_form)(1 + turn++ % (RUN_FORMS - 1));
    enum attention_size size = form == RUN_ALONE   ? ATTENTION_STREAMS
                               : form == RUN_TEAMS ? ATTENTION_LONG_STREAMS
                                                   : ATTENTION_SMALL;
    if (attention_kernel_find(shape->head_dim, shape->element_bytes, size) == NULL)
        size = form == RUN_TEAMS ? ATTENTION_STREAMS : ATTENTION_SMALL;
    if (attention_kernel_find(shape->head_dim, shape->element_bytes, size) == NULL)
        size = ATTENTION_SMALL;
    if (form != RUN_BLOCKS)
        limits->warps = form == RUN_ALONE ? 5 : 1000;
    return size;
}

static void launch(const struct run_options *options, const struct shape *shape, enum attention_size size,
                   uint32_t n_items, const struct attention_tile_args *args, const struct emu_front *front)
{
    if (n_items == 0)
        return;
    const struct attention_kernel *kernel =
        attention_kernel_find(shape->head_dim, shape->element_bytes, size);
    assert_non_null(kernel);
    emu_launch(&(struct emu_launch){.kernel = emulated_kernel(kernel->id),
                                    .grid = {blocks_of(options, n_items * shape->n_kv_heads), 1, 1},
                                    .block_threads = kernel->threads,
                                    .shared_bytes = kernel->shared_bytes,
                                    .args = args,
                                    .args_bytes = sizeof *args,
                                    .dependent = true,
                                    .front = front});
}

/* Of large items: every other time the kernel by wgmma, where there is one; both have the same bits. */
static enum attention_size large_size(const struct shape *shape)
{
    static bool by_wgmma;
    by_wgmma = !by_wgmma && attention_kernel_find(shape->head_dim, shape->element_bytes, ATTENTION_WGMMA);
    return by_wgmma ? ATTENTION_WGMMA : ATTENTION_LARGE;
}

struct attention_group attention_run(const struct world *w, const struct rows *rows, uint32_t n,
                                     const struct run_options *options, uint16_t *out)
{
    const struct shape *shape = &w->shape;
    struct step *step;
    struct step_capacity capacity = {.rows = ROWS_MAX,
                                     .seqs = SEQS_MAX,
                                     .outputs = 1,
                                     .copies = 1,
                                     .blocks_per_seq = BLOCKS_PER_SEQ,
                                     .kv_groups = 1};
    assert_int_equal(step_create(&capacity, &step).code, ERR_OK);
    fill_step(w, rows, n, step);
    enum attention_size large = large_size(shape);
    struct attention_limits limits = {
        .heads_per_kv = shape->n_heads / shape->n_kv_heads,
        .large_pairs = attention_kernel_find(shape->head_dim, shape->element_bytes, large)->pairs,
        .n_kv_heads = shape->n_kv_heads,
        .n_partials = options->n_partials,
        .blocks_wanted = options->blocks_wanted,
        .shares_prefixes = options->shares_prefixes};
    enum attention_size small = choose_form(options, shape, &limits);
    struct attention_work *work = mem_alloc(attention_work_bytes(&limits, &capacity));
    assert_non_null(work);
    attention_plan(&limits, step, work);
    if (options->claims_old_keys)
        claim_old_keys(work);
    struct cuda_step cuda_step = {.n_rows = step->n_rows,
                                  .n_seqs = step->n_seqs,
                                  .blocks_per_seq = BLOCKS_PER_SEQ,
                                  .rows = step->rows,
                                  .seqs = step->seqs,
                                  .block_tables = {step->block_tables[0]}};
    uint32_t width = width_of(shape), stride = width + 2 * shape->n_kv_heads * shape->head_dim;
    uint16_t *qkv = mem_alloc((size_t)step->n_rows * stride * 2);
    memset(qkv, FILL_NAN, (size_t)step->n_rows * stride * 2);
    for (uint32_t r = 0; r < step->n_rows; r++) {
        size_t at = (size_t)rows[step->rows[r].seq].seq * POSITIONS_MAX + step->rows[r].position;
        memcpy(qkv + (size_t)r * stride, w->q + at * width, width * 2);
        if (options->turns)
            copy_new_key(w, step, r, qkv + (size_t)r * stride + width);
    }
    size_t n_turned = (size_t)POSITIONS_MAX * shape->head_dim / 2, kv_bytes = kv_bytes_of(shape);
    float *cosines = mem_alloc(n_turned * sizeof(float)), *sines = mem_alloc(n_turned * sizeof(float));
    uint8_t *kv_before = mem_alloc(kv_bytes);
    memcpy(kv_before, w->kv, kv_bytes);
    memset(sines, 0, n_turned * sizeof(float));
    for (size_t i = 0; i < n_turned; i++)
        cosines[i] = 1;
    if (options->turns)
        hide_new_keys(w, step, w->kv);
    memset(out, FILL_NAN, (size_t)step->n_rows * width * 2);
    size_t n_arrivals = (size_t)ROWS_MAX * shape->n_kv_heads;
    struct attention_tile_args args = {
        .step = &cuda_step,
        .work = work,
        .qkv = qkv,
        .out = out,
        .qkv_stride = stride,
        .out_stride = width,
        .n_heads = shape->n_heads,
        .scale = 1.0f / sqrtf((float)shape->head_dim),
        .window = shape->window,
        .soft_cap = shape->soft_cap,
        .kv = {.blocks = w->kv,
               .n_blocks = BLOCKS_MAX,
               .n_kv_heads = shape->n_kv_heads,
               .head_dim = shape->head_dim,
               .element_bytes = shape->element_bytes,
               .k_scale = ATTENTION_K_SCALE,
               .v_scale = ATTENTION_V_SCALE},
        .cosines = options->turns ? cosines : NULL,
        .sines = options->turns ? sines : NULL,
        .partial_o = mem_alloc((size_t)options->n_partials * width * 4 + 16),
        .partial_ml = mem_alloc((size_t)options->n_partials * shape->n_heads * 8 + 16),
        .arrivals = mem_alloc(n_arrivals * sizeof(uint32_t)),
    };
    emu_set_options(&(struct emu_options){
        .seed = options->emulator_seed,
        .n_threads = options->emulator_threads > 0 ? options->emulator_threads : 1,
        .target = small == ATTENTION_LONG_STREAMS || large == ATTENTION_WGMMA ? 90 : 80});
    struct attention_group group = work->groups[0];
    struct early early = {0};
    if (options->is_early)
        early_make(&early, w, step, qkv, (size_t)step->n_rows * stride * 2);
    if (options->turns)
        early.parts[0].bytes = 0; /* the launch in front writes q, k and v alone */
    const struct emu_front *front = options->is_early ? &early.front : NULL;
    launch(options, shape, large, group.n_large, &args, front);
    launch(options, shape, small, group.n_small, &args, front);
    early_free(&early);
    assert_true(!options->turns || group.n_large == 0);
    assert_memory_equal(w->kv, kv_before, kv_bytes);
    mem_free(kv_before), mem_free(cosines), mem_free(sines);
    for (size_t i = 0; i < n_arrivals; i++)
        assert_int_equal(args.arrivals[i], 0);
    mem_free(args.partial_o), mem_free(args.partial_ml), mem_free(args.arrivals), mem_free(qkv),
        mem_free(work);
    step_destroy(step);
    return group;
}
