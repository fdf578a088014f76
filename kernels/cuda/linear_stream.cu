/* int4 and int8 weights by a few bf16 rows: bound by the bytes of the weight, which go from memory to
 * registers and are fragments there. A block takes a slab of 32 outputs, a warp of it a chunk of K; the
 * chunks' sums meet in shared memory. Codes are asked for some steps ahead, those of a block's first slab
 * before the rows are there. No shared memory holds weights, so that blocks of the next kernel find room and
 * ask for theirs. The arithmetic is that of linear_tile.h, product by product. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

/* HALVES: of a block, 32 inputs, that share a group: 4, or 1. */
template <enum linear_layout LAYOUT_, uint32_t ROWS_, uint32_t HALVES_> struct stream_shape {
    static constexpr enum linear_layout LAYOUT = LAYOUT_;
    static constexpr bool IS_WIDE = true;
    static constexpr uint32_t ROWS = ROWS_, ROW_TILES = ROWS / 8, HALVES = HALVES_;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t WORDS =
        linear_is_int4(LAYOUT) ? 1 : 2; /* of 16 bytes, of a lane and half block */
    static constexpr uint32_t PARTS = LAYOUT == LINEAR_UINT4 ? 2 : 1; /* of a group: scales, zero points */
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    static constexpr uint32_t HALF_BYTES = linear_block_bytes(LAYOUT) / 2; /* of a panel */
    static constexpr bool X_AHEAD = ROWS <= 16;
    /* Halves that are on their way, and a step of the loop: what registers hold. */
    static constexpr uint32_t AHEAD = ROWS <= 8 && PARTS == 1 && HALVES == 4 ? 8 / WORDS
                                      : ROWS <= 16 || HALVES == 4            ? 4
                                                                             : 2;
};

/* What a warp reads of a slab: halves (32 inputs) of its chunk. */
struct stream_chunk {
    const uint8_t *codes;  /* of the first half, at the lane's piece */
    const uint8_t *scales; /* of group 0, of the lane's four outputs */
    uint32_t first, n;     /* halves */
};

/* Halves on their way or there. */
template <class S> struct stream_ahead {
    vec16 codes[S::AHEAD][S::WORDS];
    vec8 scales[S::AHEAD / S::HALVES][S::PARTS];
};

template <class S>
DEVICE struct stream_chunk chunk_of(const struct linear_tile_args &args, const struct linear_job &job,
                                    uint32_t slab)
{
    uint32_t panel = slab * LINEAR_SLAB / LINEAR_PANEL, in_panel = slab % (LINEAR_PANEL / LINEAR_SLAB);
    uint32_t chunk_halves = args.chunk_blocks * 2, n_halves = args.n_in / 32;
    struct stream_chunk chunk;
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
DEVICE void load_group_of(vec8 parts[S::PARTS], const struct linear_tile_args &args, const uint8_t *scales,
                          uint32_t half)
{
    const uint8_t *at = scales + (size_t)(half * 32 >> args.group_shift) * S::GROUP_BYTES;
#pragma unroll
    for (uint32_t i = 0; i < S::PARTS; i++)
        parts[i] = load_cached_8(at + i * LINEAR_PANEL * 2);
}

/* Halves from `from` on that there are whole steps of. */
template <class S>
DEVICE void load_ahead(stream_ahead<S> *ahead, const struct linear_tile_args &args,
                       const struct stream_chunk &chunk)
{
    if (chunk.n < S::AHEAD)
        return;
#pragma unroll
    for (uint32_t i = 0; i < S::AHEAD; i++) {
        load_half<S>(ahead->codes[i], chunk.codes, i);
        if (i % S::HALVES == 0)
            load_group_of<S>(ahead->scales[i / S::HALVES], args, chunk.scales, chunk.first + i);
    }
}

/* Where a lane reads its operand of row tile j; rows that are not there read the last one, and are not
 * stored. */
template <class S> struct stream_rows {
    const uint16_t *x[S::ROW_TILES];
};

template <class S>
DEVICE void seek_rows(stream_rows<S> *rows, const struct linear_tile_args &args, uint32_t first_row,
                      uint32_t n_rows, uint32_t half)
{
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
        uint32_t row = smaller(first_row + j * 8 + lane_id() / 4, n_rows - 1);
        rows->x[j] = (const uint16_t *)args.x + (size_t)row * args.x_stride + half * 32 + lane_id() % 4 * 2;
    }
}

/* Both steps' operand of a half, counted from where the rows stand. */
template <class S> DEVICE void load_x(uint32_t b[S::ROW_TILES][4], const stream_rows<S> &rows, uint32_t half)
{
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t r = 0; r < 4; r++)
            b[j][r] = *(const uint32_t *)(rows.x[j] + half * 32 + r * 8);
    }
}

struct stream_scales {
    uint32_t scales[4], minus[4];
};

template <class S> DEVICE void spread_group(struct stream_scales *out, const vec8 parts[S::PARTS])
{
    spread_scales(out->scales, parts[0]);
    if constexpr (S::LAYOUT == LINEAR_UINT4)
        spread_scales(out->minus, parts[1]);
}

template <class S>
DEVICE void multiply_half(float acc[SLAB_TILES][S::ROW_TILES][4], const vec16 words[S::WORDS],
                          const struct stream_scales &scales, const uint32_t b[S::ROW_TILES][4])
{
    slab_fragments a;
    if constexpr (S::LAYOUT == LINEAR_UINT4)
        fragments_uint4(a, words[0], scales.scales, scales.minus);
    else if constexpr (S::LAYOUT == LINEAR_INT4)
        fragments_int4(a, words[0], scales.scales);
    else
        fragments_int8(a, words, scales.scales);
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t step = 0; step < HALF_STEPS; step++) {
            mma_bf16_16816(acc[0][j], a[step][0], b[j] + 2 * step);
            mma_bf16_16816(acc[1][j], a[step][1], b[j] + 2 * step);
        }
    }
}

/* Halves at the end of K that are no whole step, one after another. */
template <class S>
DEVICE void multiply_rest(float acc[SLAB_TILES][S::ROW_TILES][4], const struct linear_tile_args &args,
                          const struct stream_chunk &chunk, const stream_rows<S> &rows, uint32_t first)
{
    for (uint32_t i = first; i < chunk.n; i++) {
        vec16 words[S::WORDS];
        vec8 parts[S::PARTS];
        uint32_t b[S::ROW_TILES][4];
        struct stream_scales scales;
        load_half<S>(words, chunk.codes, i);
        load_group_of<S>(parts, args, chunk.scales, chunk.first + i);
        load_x<S>(b, rows, i - first);
        spread_group<S>(&scales, parts);
        multiply_half<S>(acc, words, scales, b);
    }
}

/* The chunk's sums. ahead: its first halves. */
template <class S>
DEVICE void multiply_chunk(float acc[SLAB_TILES][S::ROW_TILES][4], stream_ahead<S> *ahead,
                           const struct linear_tile_args &args, const struct stream_chunk &chunk,
                           uint32_t first_row, uint32_t n_rows)
{
    stream_rows<S> rows;
    seek_rows<S>(&rows, args, first_row, n_rows, chunk.first);
    uint32_t b[S::ROW_TILES][4], next[S::ROW_TILES][4];
    if (S::X_AHEAD && chunk.n > 0)
        load_x<S>(next, rows, 0);
    const uint8_t *codes = chunk.codes;
    uint32_t first = 0;
    for (; first + S::AHEAD <= chunk.n; first += S::AHEAD) {
        bool is_more = first + 2 * S::AHEAD <= chunk.n;
        codes += S::AHEAD * S::HALF_BYTES;
        struct stream_scales scales;
#pragma unroll
        for (uint32_t i = 0; i < S::AHEAD; i++) {
            if constexpr (S::X_AHEAD) {
                memcpy(b, next, sizeof b);
                if (i + 1 < S::AHEAD || first + S::AHEAD < chunk.n)
                    load_x<S>(next, rows, i + 1);
            } else {
                load_x<S>(b, rows, i);
            }
            if (i % S::HALVES == 0) {
                spread_group<S>(&scales, ahead->scales[i / S::HALVES]);
                if (is_more)
                    load_group_of<S>(ahead->scales[i / S::HALVES], args, chunk.scales,
                                     chunk.first + first + S::AHEAD + i);
            }
            multiply_half<S>(acc, ahead->codes[i], scales, b);
            if (is_more)
                load_half<S>(ahead->codes[i], codes, i);
        }
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++)
            rows.x[j] += S::AHEAD * 32;
    }
    multiply_rest<S>(acc, args, chunk, rows, first);
}

/* sums: [chunks][rows][32 outputs]. */
template <class S> DEVICE void keep_sums(float *sums, const float acc[SLAB_TILES][S::ROW_TILES][4])
{
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t e = 0; e < 2; e++) {
            uint32_t row = j * 8 + lane_id() % 4 * 2 + e;
            float four[4] = {acc[0][j][e], acc[0][j][e + 2], acc[1][j][e], acc[1][j][e + 2]};
            act_store_4(sums + (warp_id() * S::ROWS + row) * LINEAR_SLAB + lane_id() / 4 * 4, four);
        }
    }
}

/* The chunks' sums in ascending order. */
template <class S>
DEVICE void add_sums(const float *sums, const struct linear_tile_args &args, const struct linear_job &job,
                     uint32_t slab, uint32_t first_row)
{
    for (uint32_t i = thread_x(); i < S::ROWS * (LINEAR_SLAB / 4); i += LINEAR_STREAM_THREADS) {
        uint32_t row = i / (LINEAR_SLAB / 4), output = i % (LINEAR_SLAB / 4) * 4;
        if (first_row + row >= job.n_rows)
            return;
        float sum[4] = {0, 0, 0, 0}, part[4];
        for (uint32_t chunk = 0; chunk < job.n_chunks; chunk++) {
            act_load_4(part, sums + (chunk * S::ROWS + row) * LINEAR_SLAB + output);
#pragma unroll
            for (uint32_t o = 0; o < 4; o++)
                sum[o] += part[o];
        }
        store_outputs<S, 4>(args, first_row + row, slab * LINEAR_SLAB + output, sum);
    }
}

template <class S> DEVICE void run_slabs(const struct linear_tile_args &args, float *sums)
{
    struct linear_job job = make_job<S>(args);
    uint32_t n_slabs = ceil_div(args.n_out, LINEAR_SLAB), slab = block_x();
    stream_ahead<S> ahead = {};
    struct stream_chunk chunk = chunk_of<S>(args, job, slab < n_slabs ? slab : 0);
    dependents_launch();
    load_ahead<S>(&ahead, args, chunk);
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    job.n_row_tiles = ceil_div(job.n_rows, S::ROWS);
    /* Row tiles one after another: there is one but in checks. */
    for (; slab < n_slabs * job.n_row_tiles; slab += grid_x()) {
        uint32_t first_row = slab / n_slabs * S::ROWS, of_tile = slab % n_slabs, next = slab + grid_x();
        float acc[SLAB_TILES][S::ROW_TILES][4] = {};
        if (slab >= n_slabs) {
            chunk = chunk_of<S>(args, job, of_tile);
            load_ahead<S>(&ahead, args, chunk);
        }
        multiply_chunk<S>(acc, &ahead, args, chunk, first_row, job.n_rows);
        if (next < n_slabs) {
            chunk = chunk_of<S>(args, job, next);
            load_ahead<S>(&ahead, args, chunk);
        }
        if (warp_id() < job.n_chunks)
            keep_sums<S>(sums, acc);
        barrier();
        add_sums<S>(sums, args, job, of_tile, first_row);
        barrier();
    }
}

template <enum linear_layout LAYOUT, uint32_t ROWS>
DEVICE void linear_stream(const struct linear_tile_args &args)
{
    SHARED(float, sums, [LINEAR_STREAM_CHUNKS * ROWS * LINEAR_SLAB]);
    if (args.group_shift >= 7)
        run_slabs<stream_shape<LAYOUT, ROWS, 4>>(args, sums);
    else
        run_slabs<stream_shape<LAYOUT, ROWS, 1>>(args, sums);
}

#define STREAM_KERNEL(name, rows, layout)                                                                    \
    KERNEL_BOUNDS(linear_##name##_stream_r##rows, struct linear_tile_args, LINEAR_STREAM_THREADS, 2)         \
    {                                                                                                        \
        linear_stream<layout, rows>(args);                                                                   \
    }

STREAM_KERNEL(int4, 8, LINEAR_INT4)
STREAM_KERNEL(int4, 16, LINEAR_INT4)
STREAM_KERNEL(int4, 32, LINEAR_INT4)
STREAM_KERNEL(uint4, 8, LINEAR_UINT4)
STREAM_KERNEL(uint4, 16, LINEAR_UINT4)
STREAM_KERNEL(uint4, 32, LINEAR_UINT4)
STREAM_KERNEL(int8, 8, LINEAR_INT8)
STREAM_KERNEL(int8, 16, LINEAR_INT8)
STREAM_KERNEL(int8, 32, LINEAR_INT8)
