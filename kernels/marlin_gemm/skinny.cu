/* y (M, N) = x (M, K) W for few tokens with x, y row-major, fp16 or bf16, and W 4-bit codes in Marlin's layout, fp32
 * sums (sm_80 on; SPLIT_K > 1 from sm_90 on). The partition is drawn in cuda/skinny.cuh. Needs K % 128 == 0 and
 * N % 64 == 0; any M.
 *
 * Codes become weights with at most two instructions a pair: in fp16 the low 4 bits in the pattern of 1024 are
 * 1024 + q, four bits higher in the pattern of 64 they are 64 + q; in bf16 the low 4 bits in the pattern of 128 are
 * 128 + q. What that is too much, and the zero point, is taken off the sums of a run of k with one scale: sum over k of
 * x (q - z) = sum of x (offset + q) - sum of x offset - z * sum of x. The matrix unit makes the two sums over x alone
 * from one more fragment, whose upper rows are offsets and lower are ones.
 */
constexpr int EXTRA_BYTES = 0;

#include "marlin_gemm/slot.cuh"

/* Minus the sums over x of a run, for each token: times the offsets in [0] and [1], as they are in [2] and [3]. */
struct offsets {
    float at[TOKEN_TILES][4];
};

/* Adds 32 of k to the sums; `step` counts 32s of the chunk. */
__device__ __forceinline__ void add_step(struct sums &part, struct offsets &offsets, const struct place &p,
                                         unsigned slot, unsigned slice, int step) {
    unsigned minus[4], w[2][4][4];
    load_minus_offsets(minus);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint4 words = load_shared4(slot + (2 * step + h) * 512 + p.lane * 16);
        decode_offset(w[h][0], words.x), decode_offset(w[h][1], words.y);
        decode_offset(w[h][2], words.z), decode_offset(w[h][3], words.w);
    }
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; t++) {
        unsigned b[4];
        load_matrices(slice + piece_offset(token_row(t, p.lane % 8), 4 * step + p.lane / 8), b);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            multiply(offsets.at[t], minus, b[2 * h], b[2 * h + 1]);
#pragma unroll
            for (int j = 0; j < 4; j++) multiply(part.at[j][t], w[h][j], b[2 * h], b[2 * h + 1]);
        }
    }
}

/* sums += scale * (part - offsets - zero point * sum of x). */
__device__ __forceinline__ void add_run(struct sums &sums, const struct sums &part, const struct offsets &offsets,
                                        const struct run_columns &columns) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float scale[2], zero[2];
        find_column_pair(columns, j, scale, zero);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            const float(&o)[4] = offsets.at[t];
            const float(&s)[4] = part.at[j][t];
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (TILE_M > 1 || i % 2 == 0) /* a lane's odd columns are odd tokens */
                    sums.at[j][t][i] += scale[i / 2] * (s[i] + (o[i % 2] + zero[i / 2] * o[2 + i % 2]));
        }
    }
}

/* Adds a chunk to the sums. */
__device__ __forceinline__ void add_chunk(struct sums &sums, const struct place &p, unsigned slot, unsigned slice,
                                          unsigned zeros) {
#pragma unroll
    for (int run = 0; run < RUN_COUNT; run++) {
        struct sums part = {};
        struct offsets offsets = {};
#pragma unroll
        for (int step = run * RUN / 32; step < (run + 1) * RUN / 32; step++)
            add_step(part, offsets, p, slot, slice, step);
        add_run(sums, part, offsets, load_run(p, slot, run, zeros));
    }
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const void *scales, int n) {
    if (p.n0 >= n) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float first, second;
        load_scales(scales, p.n0, p.lane, j, first, second);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            sums.at[j][t][0] *= first, sums.at[j][t][1] *= first;
            sums.at[j][t][2] *= second, sums.at[j][t][3] *= second;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) marlin_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    struct sums sums = {};
    announce_items(p);
    const unsigned zeros = common_zeros(p, a);
    run_chunks(
        p, a, [&](unsigned slot, int chunk) { request_slot(slot, p, a, chunk); },
        [&](unsigned slot, unsigned slice) { add_chunk(sums, p, slot, slice, zeros); });
    if (!GROUP) scale_sums(sums, p, a.operands.scales, a.n);
    store_sums(sums, p, a);
}
