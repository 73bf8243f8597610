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

/* Writes what becomes of the sums; a thread has rows r and r + 8 of a panel, and of each 16 columns two pairs. */
__device__ __forceinline__ void store_tile(const struct sums &sums, const struct item &item, const struct arguments &a,
                                           int group) {
    constexpr int COLUMNS = 32 * COLUMNS_OF_Y;
    const int row = item.m0 + group * PANELS * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int p = 0; p < PANELS; p++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < TILE_N / COLUMNS; i++) {
                const int m = row + p * 64 + half * 8, c = item.n0 + i * COLUMNS;
                const float *s = sums.at[p] + i * COLUMNS / 2 + half * 2;
                struct pairs<2> pairs[COLUMNS / 16];
#pragma unroll
                for (int j = 0; j < COLUMNS / 16; j++, s += 8) pairs[j] = {{s[0], s[1]}, {s[4], s[5]}};
                store_quad(a.operands, m, a.n, c, m < a.m && c < a.n, pairs);
            }
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
