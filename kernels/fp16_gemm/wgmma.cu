/* y (M, N) = x (M, K) W with x, y fp16 row-major and W fp16 (N, K) row-major, fp32 sums, on Hopper's wgmma with both
 * operands in shared memory (sm_90a). Needs K % 64 == 0 and N % 64 == 0; any M. Blocks, items and stages are those of
 * cuda/persistent.cuh; W's part of a stage is TILE_N rows of 64 fp16, swizzled as x, and each warpgroup has
 * TILE_M / WARPGROUPS rows of the tile. */
#include "cuda/persistent.cuh"

constexpr int PANELS = TILE_M / WARPGROUPS / 64; /* of 64 rows, that a warpgroup has */
constexpr int PANEL_SUMS = TILE_N / 2;           /* of a thread */
static_assert(PANELS * 64 * WARPGROUPS == TILE_M && BOX_BYTES == X_BYTES + TILE_N * ROW_BYTES,
              "kernels/fp16_gemm/wgmma.c disagrees");

/* fp32 sums of a thread: [panel][multiply_tiles()'s]. */
struct sums {
    float at[PANELS][PANEL_SUMS];
};

__device__ __forceinline__ void request_weights(const struct mapped_arguments &a, const struct item &item,
                                                const struct position &at, int i) {
    request_shared_weights<TILE_N>(stage_address(at) + X_BYTES, a.weights, item.n0, (item.first + i) * TILE_K,
                                   there(at));
}

/* The sums of an item. A stage is free when the products of the next are under way and its own are done. */
__device__ __forceinline__ void add_stages(struct sums &sums, const struct item &item, struct position &at, int group) {
    struct position before = at;
    for (int i = 0; i < item.count; i++) {
        phase_wait(there(at), at.round % 2);
        const unsigned long long x = swizzled_matrix(stage_address(at) + group * PANELS * 64 * ROW_BYTES);
        const unsigned long long w = swizzled_matrix(stage_address(at) + X_BYTES);
        multiply_group_fence();
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int p = 0; p < PANELS; p++) multiply_tiles(sums.at[p], x + p * 512 + step * 2, w + step * 2);
        multiply_group_commit();
        multiply_group_wait<1>();
        if (i) leave_stage(before);
        before = at;
        advance(at);
    }
    multiply_group_wait<0>();
    if (item.count) leave_stage(before);
#pragma unroll
    for (int p = 0; p < PANELS; p++) hold(sums.at[p]);
}

constexpr int FRAGMENTS = 2 * COLUMNS_OF_Y; /* of 16 columns of W, that make 32 of y */

/* Writes what becomes of one of the two rows that a thread has of a panel, its sums s, s + 1, s + 4, s + 5 of each 16
 * columns. By turning the words of four times 8 columns of y, lane q of a row's four gets 8 neighbouring ones; what is
 * added comes so and is turned back, requested for the whole row before the first of it is used. */
__device__ __forceinline__ void store_panel_row(const float *sums, const struct arguments &a, int m, int n0) {
    const int quad = threadIdx.x % 4;
    unsigned added[TILE_N / 16 / FRAGMENTS][4] = {};
#pragma unroll
    for (int i = 0; EPILOGUE == EPILOGUE_RESIDUAL && i < TILE_N / 16 / FRAGMENTS; i++) {
        const int c = n0 + i * 32 + quad * 8;
        if (m < a.m && c < a.n) load_row(a.operands, m, a.n, c, added[i]);
    }
#pragma unroll
    for (int i = 0; i < TILE_N / 16 / FRAGMENTS; i++) {
        const int c = n0 + i * FRAGMENTS * 16;
        const bool inside = m < a.m && c < a.n;
        unsigned words[4], none;
        if (EPILOGUE == EPILOGUE_RESIDUAL) turn_words<1>(added[i]);
#pragma unroll
        for (int j = 0; j < FRAGMENTS; j++) {
            const float *s = sums + (i * FRAGMENTS + j) * 8;
            struct pairs<2> addend = {};
            if (EPILOGUE == EPILOGUE_BIAS && inside) addend = load_addend<2>(a.operands, m, a.n, c + j * 16 + quad * 2);
            if (EPILOGUE == EPILOGUE_RESIDUAL) {
                half2_to_floats(added[i][j * 2 % 4], addend.first[0], addend.first[1]);
                half2_to_floats(added[i][(j * 2 + 1) % 4], addend.second[0], addend.second[1]);
            }
            finish_pairs({{s[0], s[1]}, {s[4], s[5]}}, addend, words[j * 2 / COLUMNS_OF_Y],
                         COLUMNS_OF_Y == 1 ? words[j * 2 + 1] : none);
        }
        turn_words<1>(words);
        if (inside) store_row(a.operands, m, a.n, c + quad * 8 * COLUMNS_OF_Y, words);
    }
}

/* A thread has rows r and r + 8 of each panel. */
__device__ __forceinline__ void store_tile(const struct sums &sums, const struct item &item, const struct arguments &a,
                                           int group) {
    const int row = item.m0 + group * PANELS * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int p = 0; p < PANELS * 2; p++)
        store_panel_row(sums.at[p / 2] + p % 2 * 2, a, row + p / 2 * 64 + p % 2 * 8, item.n0);
}

__device__ __forceinline__ void multiply_items(const struct mapped_arguments &a, int group) {
    const struct schedule s = find_schedule(a.plain);
    struct position at = {};
    for (int number = first_item(); number < s.items; number += s.clusters) {
        const struct item item = find_item(s, number);
        struct sums sums = {};
        add_stages(sums, item, at, group);
        if (add_parts<PANELS * PANEL_SUMS>(sums.at[0], item, a.plain.operands.workspace))
            store_tile(sums, item, a.plain, group);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS + REQUEST_THREADS, 1)
    fp16_gemm(const __grid_constant__ struct mapped_arguments a) {
    run_block(a);
}
