/* y (M, N) = x (M, K) W for few tokens with x, y and W (N, K) row-major, fp16 or bf16, fp32 sums (sm_80 on;
 * SPLIT_K > 1 from sm_90 on). The partition is drawn in cuda/skinny.cuh. Needs K % 128 == 0 and N % 64 == 0; any M.
 *
 * A warp's slot of a chunk is 64 columns of W, 128 of k each, in pieces of 8 of k (16 bytes) as piece_offset places
 * them. A lane takes one piece of a column and of a token at a time: a step of multiply() then has k that are not in
 * order, but the same for W and x. */
constexpr int SLOT_BYTES = 64 * 128 * 2;

#include "cuda/skinny.cuh"

/* Requests a warp's slot, two columns at a time; columns behind n have no warp (TILE_N beyond it) and become zero. */
__device__ __forceinline__ void request_slot(unsigned to, const struct place &p, const struct arguments &a, int chunk) {
    const bool inside = p.n0 < a.n;
    const int column = p.lane / 16, piece = p.lane % 16;
    const unsigned short *from = (const unsigned short *)a.operands.weights;
    from += (size_t)(p.n0 + column) * a.k + chunk * CHUNK + piece * 8;
#pragma unroll
    for (int c = 0; c < 64; c += 2, from += (size_t)2 * a.k)
        copy_async(to + piece_offset(c + column, piece), from, inside);
}

/* Adds a chunk to the sums. */
__device__ __forceinline__ void add_chunk(struct sums &sums, const struct place &p, unsigned slot, unsigned slice) {
#pragma unroll
    for (int h = 0; h < CHUNK / 32; h++) {
        const int column = p.lane / 4, piece = 4 * h + p.lane % 4;
        uint4 b[TOKEN_TILES];
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) b[t] = load_shared4(slice + piece_offset(token_row(t, column), piece));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const uint4 low = load_shared4(slot + piece_offset(16 * j + column, piece));
            const uint4 high = load_shared4(slot + piece_offset(16 * j + 8 + column, piece));
            const unsigned first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; t++) {
                multiply(sums.at[j][t], first, b[t].x, b[t].y);
                multiply(sums.at[j][t], second, b[t].z, b[t].w);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) fp16_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    struct sums sums = {};
    announce_items(p);
    run_chunks(
        p, a, [&](unsigned slot, int chunk) { request_slot(slot, p, a, chunk); },
        [&](unsigned slot, unsigned slice) { add_chunk(sums, p, slot, slice); });
    store_sums(sums, p, a);
}
