/* Attention of a step: what the device is told of the work beside the step, and which kernels do it. The
 * choice hangs on the shape and the type of the cache alone, so that a layer has one arithmetic. */
#include "kernels/cuda/cuda_attention_plan.h"
#include "kernels/cuda/cuda_backend.h"

enum {
    /* Of sums of splits; steps that would need more have items that take all splits of their rows. */
    PARTIALS_BYTES_MAX = 64 << 20,
    SHARED_BYTES_OF_A_BLOCK = 1024, /* that the device takes for itself */
    STREAM_ROWS_MIN = 9,            /* of a step: from there on small items go to the kernels by streams */
    /* Of a step: above them large items go to the kernel by wgmma. A power of two, so that a graph, which is
     * captured for such a number of rows, has one kernel. */
    WGMMA_ROWS_ABOVE = 256,
    /* By wgmma a split takes about as long as its rows' q, partial results and merge: prefill is cut where it
     * would occupy less than a third of the card, and has splits enough. */
    WGMMA_CUT_SHARE = 3,
    WGMMA_CUT_SPLITS = 4,
};

/* Whether head_dim has kernels on tensor cores; every one that has them has them for bf16 and e4m3. */
static bool has_tile_kernels(const struct cuda_backend *cuda, uint32_t head_dim)
{
    return !cuda->f32 && attention_kernel_find(head_dim, 2, ATTENTION_SMALL) != NULL;
}

/* Of large items of a step of n_rows; NULL: none for that shape. Those for bf16 and e4m3 have the same pairs.
 */
static const struct attention_kernel *large_kernel(const struct cuda_backend *cuda, uint32_t head_dim,
                                                   uint32_t element_bytes, uint32_t n_rows)
{
    const struct attention_kernel *wgmma = attention_kernel_find(head_dim, element_bytes, ATTENTION_WGMMA);
    if (wgmma != NULL && cuda->properties->capability == 90 && n_rows > WGMMA_ROWS_ABOVE)
        return wgmma;
    return attention_kernel_find(head_dim, element_bytes, ATTENTION_LARGE);
}

static uint32_t max_splits(const struct backend_needs *needs)
{
    return (uint32_t)div_up(needs->step.blocks_per_seq, CUDA_KV_SPLIT_BLOCKS);
}

/* Blocks of a kernel that the card runs at once. */
static uint32_t blocks_at_once(const struct cuda_backend *cuda, const struct attention_kernel *kernel)
{
    const struct device_properties *properties = cuda->properties;
    uint32_t of_shared = (properties->shared_bytes_max + SHARED_BYTES_OF_A_BLOCK) /
                         (kernel->shared_bytes + SHARED_BYTES_OF_A_BLOCK);
    return properties->n_multiprocessors * (of_shared < kernel->blocks ? of_shared : kernel->blocks);
}

/* By streams; NULL: none for that shape. */
static uint32_t count_warps(const struct cuda_backend *cuda, const struct attention_kernel *streams)
{
    return streams != NULL ? blocks_at_once(cuda, streams) * streams->units : 0;
}

static size_t partial_bytes(const struct backend_needs *needs)
{
    return needs->qkv.n_heads * (needs->qkv.head_dim + 2) * sizeof(float);
}

static struct attention_limits limits_of(const struct cuda_backend *cuda, const struct backend_needs *needs,
                                         uint32_t n_rows)
{
    size_t n = (size_t)needs->step.seqs * max_splits(needs), most = PARTIALS_BYTES_MAX / partial_bytes(needs);
    const struct attention_kernel *large = large_kernel(cuda, needs->qkv.head_dim, 2, n_rows);
    bool by_wgmma = large->size == ATTENTION_WGMMA;
    return (struct attention_limits){
        .heads_per_kv = needs->qkv.n_heads / needs->qkv.n_kv_heads,
        .n_kv_heads = needs->qkv.n_kv_heads,
        .warps = count_warps(cuda, attention_kernel_find(needs->qkv.head_dim, 2, ATTENTION_STREAMS)),
        .large_pairs = large->pairs,
        .n_partials = (uint32_t)(n < most ? n : most),
        .blocks_wanted = by_wgmma ? cuda->properties->n_multiprocessors / WGMMA_CUT_SHARE
                                  : 2 * cuda->properties->n_multiprocessors,
        .cut_splits = by_wgmma ? WGMMA_CUT_SPLITS : 2,
        .shares_prefixes = true,
    };
}

/* ---- Memory ---- */

struct attention_scratch {
    uint32_t *arrivals;
    float *partial_ml, *partial_o;
};

static size_t lay_out(const struct cuda_backend *cuda, const struct backend_needs *needs, uint8_t *base,
                      struct attention_scratch *out)
{
    size_t n = limits_of(cuda, needs, 0).n_partials, heads = needs->qkv.n_heads;
    size_t arrivals = cuda_bytes((size_t)needs->step.rows * needs->qkv.n_kv_heads, sizeof(uint32_t));
    size_t ml = cuda_bytes(n * heads * 2, sizeof(float)),
           o = cuda_bytes(n * heads * needs->qkv.head_dim, sizeof(float));
    *out = (struct attention_scratch){(uint32_t *)base, (float *)(base + arrivals),
                                      (float *)(base + arrivals + ml)};
    return arrivals + ml + o;
}

size_t cuda_attention_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    struct attention_scratch unused;
    return has_tile_kernels(cuda, needs->qkv.head_dim) ? lay_out(cuda, needs, NULL, &unused) : 0;
}

size_t cuda_attention_work_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    if (!has_tile_kernels(cuda, needs->qkv.head_dim))
        return 0;
    struct attention_limits limits = limits_of(cuda, needs, 0); /* with the most items */
    return attention_work_bytes(&limits, &needs->step);
}

size_t cuda_attention_work_fill(struct cuda_backend *cuda, const struct step *step, void *work)
{
    cuda->attention_small = cuda->attention_large = false;
    if (!has_tile_kernels(cuda, cuda->needs.qkv.head_dim))
        return 0;
    struct attention_limits limits = limits_of(cuda, &cuda->needs, step->n_rows);
    if (step->n_rows < STREAM_ROWS_MIN)
        limits.warps = 0;
    size_t bytes = attention_plan(&limits, step, work);
    for (uint32_t g = 0; g < step->capacity.kv_groups; g++) {
        const struct attention_group *group = &((const struct attention_work *)work)->groups[g];
        cuda->attention_small |= group->n_small > 0;
        cuda->attention_large |= group->n_large > 0;
    }
    return bytes;
}

/* ---- The op ---- */

static void launch_simple(struct cuda_backend *cuda, const struct act *qkv,
                          const struct attention_params *params, const struct kv *kv, struct act *out)
{
    const struct qkv_shape *shape = &params->shape;
    struct attention_simple_args args = {
        .step = cuda->scratch.step,
        .qkv = qkv->data,
        .out = out->data,
        .qkv_stride = qkv->stride,
        .out_stride = out->stride,
        .n_heads = shape->n_heads,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->head_dim,
        .scale = params->scale,
        .window = params->window,
        .soft_cap = params->soft_cap,
        .kv = kv->cache,
    };
    if (qkv->f32)
        CUDA_LAUNCH(cuda, attention_simple_f32, cuda->rows_max, shape->n_heads, ATTENTION_SIMPLE_THREADS,
                    args);
    else
        CUDA_LAUNCH(cuda, attention_simple_bf16, cuda->rows_max, shape->n_heads, ATTENTION_SIMPLE_THREADS,
                    args);
}

/* Blocks that the card runs at once, or fewer where there are fewer pieces of work. */
static uint32_t count_blocks(const struct cuda_backend *cuda, const struct attention_kernel *kernel)
{
    uint32_t n = blocks_at_once(cuda, kernel);
    size_t pairs = (size_t)cuda->rows_max * cuda->needs.qkv.n_heads;
    size_t pieces = div_up(pairs * max_splits(&cuda->needs), kernel->units);
    return pieces < n ? (uint32_t)pieces : n;
}

static void launch_tiles(struct cuda_backend *cuda, const struct attention_kernel *kernel,
                         const struct attention_tile_args *args)
{
    cuda_launch(cuda, kernel->id, (const uint32_t[3]){count_blocks(cuda, kernel), 1, 1}, kernel->threads,
                kernel->shared_bytes, args, sizeof *args);
}

/* NULL: none for that shape. By streams with longer rings where all that the step can want fits. */
static const struct attention_kernel *small_kernel(const struct cuda_backend *cuda, uint32_t head_dim,
                                                   uint32_t element_bytes)
{
    const struct attention_kernel *streams =
                                      attention_kernel_find(head_dim, element_bytes, ATTENTION_STREAMS),
                                  *longer =
                                      attention_kernel_find(head_dim, element_bytes, ATTENTION_LONG_STREAMS);
    uint32_t n_warps = count_warps(cuda, streams);
    if (n_warps == 0 || cuda->rows_max < STREAM_ROWS_MIN)
        return attention_kernel_find(head_dim, element_bytes, ATTENTION_SMALL);
    struct attention_limits limits = limits_of(cuda, &cuda->needs, cuda->rows_max);
    size_t n_pieces = cuda->rows_max * attention_row_pieces(&limits);
    return n_pieces * attention_team(n_pieces, n_warps) <= count_warps(cuda, longer) ? longer : streams;
}

bool cuda_attention_turns(const struct cuda_backend *cuda, const struct step *step, const struct kv *kv)
{
    return step->n_rows == step->n_seqs && cuda->attention_small && !cuda->attention_large &&
           cuda->rows_max < STREAM_ROWS_MIN && kv->cache.element_bytes <= 2;
}

void cuda_attention(struct backend *backend, const struct step *step, const struct act *qkv,
                    const struct attention_params *params, const struct kv *kv, struct act *out)
{
    const struct qkv_shape *shape = &params->shape;
    ASSERT(shape->n_kv_heads > 0 && shape->n_heads % shape->n_kv_heads == 0);
    ASSERT(qkv->width == (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim);
    ASSERT(out->width == (size_t)shape->n_heads * shape->head_dim && out != qkv && out->f32 == qkv->f32);
    ASSERT(kv->desc.n_kv_heads == shape->n_kv_heads && kv->desc.head_dim == shape->head_dim);
    ASSERT(step->n_rows <= qkv->max_rows && step->n_rows <= out->max_rows);
    ASSERT(kv->desc.group < step->capacity.kv_groups);
    struct cuda_backend *cuda = cuda_of(backend);
    const struct backend_needs *needs = &cuda->needs;
    const struct attention_kernel *small = small_kernel(cuda, shape->head_dim, kv->cache.element_bytes);
    struct cuda_turn turn = cuda->turn;
    bool turns = turn.kv == kv && turn.qkv == qkv;
    if (turns)
        cuda->turn.kv = NULL;
    if (qkv->f32 || small == NULL) {
        ASSERT(!turns);
        launch_simple(cuda, qkv, params, kv, out);
        return;
    }
    ASSERT(params->scale > 0 && shape->head_dim == needs->qkv.head_dim);
    ASSERT(shape->n_heads == needs->qkv.n_heads && shape->n_kv_heads == needs->qkv.n_kv_heads);
    struct attention_scratch scratch;
    (void)lay_out(cuda, needs, cuda->scratch.attention, &scratch);
    struct attention_tile_args args = {
        .step = cuda->scratch.step,
        .work = cuda->scratch.attention_work,
        .qkv = qkv->data,
        .out = out->data,
        .qkv_stride = qkv->stride,
        .out_stride = out->stride,
        .n_heads = shape->n_heads,
        .scale = params->scale,
        .window = params->window,
        .soft_cap = params->soft_cap,
        .kv = kv->cache,
        .cosines = turns ? turn.args.cosines : NULL,
        .sines = turns ? turn.args.sines : NULL,
        .partial_o = scratch.partial_o,
        .partial_ml = scratch.partial_ml,
        .arrivals = scratch.arrivals,
    };
    /* The small ones last: they are many, and fill the card while the last of the large ones run. */
    if (cuda->attention_large)
        launch_tiles(cuda, large_kernel(cuda, shape->head_dim, kv->cache.element_bytes, step->n_rows), &args);
    if (cuda->attention_small)
        launch_tiles(cuda, small, &args);
}
