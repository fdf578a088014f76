/* int8 weights with groups by at most 8 bf16 rows: bound by the bytes of the weight, which go from memory to
 * registers and are fragments there. A block takes a slab of 32 outputs, a warp of it a chunk of K; the
 * chunks' sums meet in shared memory. Codes are asked for some steps ahead, those of a block's first slab
 * before the rows are there. The arithmetic is that of linear_tile.h, product by product. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

/* HALVES: of a block, 32 inputs each, that share a group: 4, or 1. */
template <uint32_t HALVES_> struct slab_shape {
    static constexpr enum linear_layout LAYOUT = LINEAR_INT8;
    static constexpr bool IS_WIDE = true;
    static constexpr uint32_t HALVES = HALVES_;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t WORDS = 2; /* 16 bytes of a lane and half */
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    static constexpr uint32_t HALF_BYTES = linear_block_bytes(LAYOUT) / 2; /* of a panel */
    /* Halves that are on their way, and a step of the loop: what registers hold. */
    static constexpr uint32_t AHEAD = 4;
};

/* What a warp reads of a slab: halves of its chunk. */
struct slab_chunk {
    const uint8_t *codes;  /* of the first half, at the lane's piece */
    const uint8_t *scales; /* of group 0, of the lane's four outputs */
    uint32_t first, n;     /* halves */
};

/* Halves on their way or there. */
template <class S> struct slab_ahead {
    vec16 codes[S::AHEAD][S::WORDS];
    vec8 scales[S::AHEAD / S::HALVES];
};

template <class S>
DEVICE struct slab_chunk chunk_of(const struct linear_tile_args &args, const struct linear_job &job,
                                  uint32_t slab)
{
    uint32_t panel = slab * LINEAR_SLAB / LINEAR_PANEL, in_panel = slab % (LINEAR_PANEL / LINEAR_SLAB);
    uint32_t chunk_halves = args.chunk_blocks * 2, n_halves = args.n_in / 32;
    struct slab_chunk chunk;
    chunk.first = warp_id() * chunk_halves;
    chunk.n = chunk.first < n_halves ? smaller(chunk_halves, n_halves - chunk.first) : 0;
    chunk.codes = (const uint8_t *)args.weight + linear_block_offset(S::LAYOUT, job.n_blocks, panel, 0) +
                  (size_t)chunk.first * S::HALF_BYTES + in_panel * (S::HALF_BYTES / 2) + lane_id() * 16;
    chunk.scales = (const uint8_t *)args.weight_scale + (size_t)panel * job.n_groups * S::GROUP_BYTES +
                   (in_panel * LINEAR_SLAB + lane_id() / 4 * 4) * 2;
    return chunk;
}

/* codes: of half 0, at the lane's piece. */
template <class S> DEVICE void load_half(vec16 words[S::WORDS], const uint8_t *codes, uint32_t half)
{
#pragma unroll
    for (uint32_t w = 0; w < S::WORDS; w++)
        words[w] = load_once_16(codes + half * S::HALF_BYTES + w * 512);
}

/* Scales of the group that a half stands in, counted from the first of K. */
template <class S>
DEVICE vec8 load_group_of(const struct linear_tile_args &args, const uint8_t *scales, uint32_t half)
{
    return load_cached_8(scales + (half * 32 >> args.group_shift) * S::GROUP_BYTES);
}

/* The first step, where the chunk has a whole one. */
template <class S>
DEVICE void load_ahead(slab_ahead<S> *ahead, const struct linear_tile_args &args,
                       const struct slab_chunk &chunk)
{
    if (chunk.n < S::AHEAD)
        return;
#pragma unroll
    for (uint32_t i = 0; i < S::AHEAD; i++) {
        load_half<S>(ahead->codes[i], chunk.codes, i);
        if (i % S::HALVES == 0)
            ahead->scales[i / S::HALVES] = load_group_of<S>(args, chunk.scales, chunk.first + i);
    }
}

/* Both steps' operand of a half; x: of half 0, at the lane's inputs. */
DEVICE void load_x(uint32_t b[4], const uint16_t *x, uint32_t half)
{
#pragma unroll
    for (uint32_t r = 0; r < 4; r++)
        b[r] = *(const uint32_t *)(x + half * 32 + r * 8);
}

template <class S>
DEVICE void multiply_half(float acc[SLAB_TILES][4], const vec16 words[S::WORDS], const uint32_t scales[4],
                          const uint32_t b[4])
{
    slab_fragments a;
    fragments_int8(a, words, scales);
#pragma unroll
    for (uint32_t step = 0; step < HALF_STEPS; step++) {
        mma_bf16_16816(acc[0], a[step][0], b + 2 * step);
        mma_bf16_16816(acc[1], a[step][1], b + 2 * step);
    }
}

/* Halves from `first` on, at the end of K, that are no whole step. */
template <class S>
DEVICE void multiply_rest(float acc[SLAB_TILES][4], const struct linear_tile_args &args,
                          const struct slab_chunk &chunk, const uint16_t *x, uint32_t first)
{
    for (uint32_t i = first; i < chunk.n; i++) {
        vec16 words[S::WORDS];
        uint32_t b[4], scales[4];
        load_half<S>(words, chunk.codes, i);
        load_x(b, x, i);
        spread_scales(scales, load_group_of<S>(args, chunk.scales, chunk.first + i));
        multiply_half<S>(acc, words, scales, b);
    }
}

/* The chunk's sums. ahead: its first step. x: the lane's row. */
template <class S>
DEVICE void multiply_chunk(float acc[SLAB_TILES][4], slab_ahead<S> *ahead,
                           const struct linear_tile_args &args, const struct slab_chunk &chunk,
                           const uint16_t *x)
{
    x += chunk.first * 32 + lane_id() % 4 * 2;
    uint32_t b[2][4], first = 0;
    const uint16_t *x_step = x;
    const uint8_t *codes = chunk.codes;
    if (chunk.n >= S::AHEAD)
        load_x(b[0], x, 0);
    for (; first + S::AHEAD <= chunk.n; first += S::AHEAD) {
        bool is_more = first + 2 * S::AHEAD <= chunk.n;
        uint32_t scales[4];
        codes += S::AHEAD * S::HALF_BYTES;
#pragma unroll
        for (uint32_t i = 0; i < S::AHEAD; i++) {
            if (i + 1 < S::AHEAD || is_more)
                load_x(b[(i + 1) % 2], x_step, i + 1);
            if (i % S::HALVES == 0) {
                spread_scales(scales, ahead->scales[i / S::HALVES]);
                if (is_more)
                    ahead->scales[i / S::HALVES] =
                        load_group_of<S>(args, chunk.scales, chunk.first + first + S::AHEAD + i);
            }
            multiply_half<S>(acc, ahead->codes[i], scales, b[i % 2]);
            if (is_more)
                load_half<S>(ahead->codes[i], codes, i);
        }
        x_step += S::AHEAD * 32;
    }
    multiply_rest<S>(acc, args, chunk, x, first);
}

/* sums: [chunks][rows][32 outputs]. */
DEVICE void keep_sums(float *sums, const float acc[SLAB_TILES][4])
{
#pragma unroll
    for (uint32_t e = 0; e < 2; e++) {
        uint32_t row = lane_id() % 4 * 2 + e;
        float four[4] = {acc[0][e], acc[0][e + 2], acc[1][e], acc[1][e + 2]};
        act_store_4(sums + (warp_id() * LINEAR_SLAB_ROWS + row) * LINEAR_SLAB + lane_id() / 4 * 4, four);
    }
}

/* The chunks' sums in ascending order: a thread four outputs of a row. */
template <class S>
DEVICE void add_sums(const float *sums, const struct linear_tile_args &args, const struct linear_job &job,
                     uint32_t slab, uint32_t first_row)
{
    uint32_t row = thread_x() / (LINEAR_SLAB / 4), output = thread_x() % (LINEAR_SLAB / 4) * 4;
    if (row >= LINEAR_SLAB_ROWS || first_row + row >= job.n_rows)
        return;
    float sum[4] = {0, 0, 0, 0}, part[4];
    for (uint32_t chunk = 0; chunk < job.n_chunks; chunk++) {
        act_load_4(part, sums + (chunk * LINEAR_SLAB_ROWS + row) * LINEAR_SLAB + output);
#pragma unroll
        for (uint32_t o = 0; o < 4; o++)
            sum[o] += part[o];
    }
    store_outputs<S, 4>(args, first_row + row, slab * LINEAR_SLAB + output, sum);
}

/* Units: slabs, for each eight rows. A lane whose row is not there reads the last one, which is not stored.
 */
template <class S> DEVICE void run_slabs(const struct linear_tile_args &args, float *sums)
{
    struct linear_job job = make_job<S>(args);
    uint32_t n_slabs = ceil_div(args.n_out, LINEAR_SLAB), slab = block_x() % n_slabs,
             first_row = block_x() / n_slabs * 8;
    slab_ahead<S> ahead = {};
    struct slab_chunk chunk = chunk_of<S>(args, job, slab);
    dependents_launch();
    load_ahead<S>(&ahead, args, chunk);
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    while (first_row < job.n_rows) {
        uint32_t row = smaller(first_row + lane_id() / 4, job.n_rows - 1), of_slab = slab, of_row = first_row;
        float acc[SLAB_TILES][4] = {};
        multiply_chunk<S>(acc, &ahead, args, chunk, (const uint16_t *)args.x + (size_t)row * args.x_stride);
        for (slab += grid_x(); slab >= n_slabs; slab -= n_slabs)
            first_row += LINEAR_SLAB_ROWS;
        if (first_row < job.n_rows) {
            chunk = chunk_of<S>(args, job, slab);
            load_ahead<S>(&ahead, args, chunk);
        }
        if (warp_id() < job.n_chunks)
            keep_sums(sums, acc);
        barrier();
        add_sums<S>(sums, args, job, of_slab, of_row);
        barrier();
    }
}

KERNEL_BOUNDS(linear_int8_slab_r8, struct linear_tile_args, LINEAR_SLAB_THREADS, LINEAR_SLAB_BLOCKS)
{
    float *sums = (float *)shared_dynamic();
    if (args.group_shift >= 7)
        run_slabs<slab_shape<4>>(args, sums);
    else
        run_slabs<slab_shape<1>>(args, sums);
}
