/* y (M, N) = x (M, K) W^T with W (N, K), all row-major, fp16 or bf16, fp32 sums, on mma.sync and cp.async (sm_80 on).
 * The partition is drawn in cuda/mma.cuh. A stage holds TILE_M rows of x, then TILE_N rows of W, each TILE_K wide.
 * Needs K % TILE_K == 0 and N % 64 == 0; any M. */
#include "cuda/mma.cuh"

constexpr int STAGE_BYTES = X_BYTES + TILE_N * TILE_K * 2;
static_assert(SHARED_BYTES >= STAGES * STAGE_BYTES && SHARED_BYTES >= EPILOGUE_BYTES, "kernels/mma.c disagrees");

/* A fragment of 16 columns of y (rows of W) and 16 of k. */
__device__ __forceinline__ void load_weights(unsigned weights, const struct place &p, int j, int k16,
                                             unsigned (&a)[4]) {
    const int row = p.warp_n * 64 + 16 * j + p.lane % 16;
    load_matrices(weights + chunk_offset(row, 2 * k16 + p.lane / 16), a);
}

/* Adds one stage to the sums. */
__device__ __forceinline__ void add_stage(struct sums &sums, const struct place &p, unsigned stage) {
#pragma unroll
    for (int i = 0; i < WARP_K / 32; i++) {
        const int step = p.warp_k * (WARP_K / 32) + i;
        unsigned a[2][4][4];
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < 4; j++) load_weights(stage + X_BYTES, p, j, 2 * step + h, a[h][j]);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            unsigned b[4];
            load_tokens(stage, p, t, step, b);
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int j = 0; j < 4; j++) multiply(sums.at[j][t], a[h][j], b[2 * h], b[2 * h + 1]);
        }
    }
}

/* Brings the weights of the first stages closer while the launch ahead still runs. */
__device__ __forceinline__ void prefetch_weights(const struct place &p, const struct arguments &a) {
    const unsigned short *from = (const unsigned short *)a.operands.weights + (size_t)p.n0 * a.k + p.k_first * TILE_K;
    for (int i = threadIdx.x; i < min(TILE_N, a.n - p.n0); i += THREADS)
        prefetch_cache(from + (size_t)i * a.k, first_stages(p) * TILE_K * 2);
}

extern "C" __global__ void __launch_bounds__(THREADS) fp16_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    programmatic_launch();
    if (a.overlaps) prefetch_weights(p, a);
    programmatic_wait();
    const unsigned memory = shared_address(shared_memory);
    struct sums sums = {};
    run_pipeline(
        p.k_stages,
        [&](int i, int stage) {
            const unsigned to = memory + stage * STAGE_BYTES;
            const int k0 = (p.k_first + i) * TILE_K;
            request_rows<TILE_N>(to + X_BYTES, a.operands.weights, p.n0, a.n, a.k, k0);
            request_rows<TILE_M>(to, a.operands.x, p.m0, a.m, a.k, k0);
        },
        [&](int stage) { add_stage(sums, p, memory + stage * STAGE_BYTES); });
    reduce_warps(sums, p);
    if (reduce_splits(sums, p, a.operands.workspace)) store_sums(sums, p, a);
}
