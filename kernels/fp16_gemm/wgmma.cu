/* y (M, N) = x (M, K) W with x, y and W (N, K) row-major, fp16 or bf16, fp32 sums, on Hopper's wgmma with both operands
 * in shared memory (sm_90a). Needs K % 64 == 0 and N % 64 == 0; any M. Blocks, items and stages are those of
 * cuda/persistent.cuh; W's part of a stage is TILE_N rows of 64, swizzled as x, and each warpgroup has
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

/* A unit of a panel: as many columns of W as make 32 of y. */
constexpr int FRAGMENTS = 2 * COLUMNS_OF_Y, PANEL_UNITS = TILE_N / 16 / FRAGMENTS, UNIT_SUMS = FRAGMENTS * 8;

/* Writes what becomes of a unit of one of the two rows that a thread has of a panel: sums s, s + 1, s + 4, s + 5 of
 * each 16 columns. By turning the words of four times 8 columns of y, lane q of a row's four gets 8 neighbouring ones;
 * what is added comes so and is turned back. */
__device__ __forceinline__ void store_unit(const float *sums, const struct arguments &a, int m, int c,
                                           unsigned (&added)[4]) {
    const int quad = threadIdx.x % 4;
    const bool inside = m < a.m && c < a.n;
    unsigned words[4], none;
    if (EPILOGUE == EPILOGUE_RESIDUAL) turn_words<1>(added);
#pragma unroll
    for (int j = 0; j < FRAGMENTS; j++) {
        const float *s = sums + j * 8;
        struct pairs<2> addend = {};
        if (EPILOGUE == EPILOGUE_BIAS && inside) addend = load_addend<2>(a.operands, m, a.n, c + j * 16 + quad * 2);
        if (EPILOGUE == EPILOGUE_RESIDUAL) {
            values_to_floats(added[j * 2 % 4], addend.first[0], addend.first[1]);
            values_to_floats(added[(j * 2 + 1) % 4], addend.second[0], addend.second[1]);
        }
        finish_pairs({{s[0], s[1]}, {s[4], s[5]}}, addend, words[j * 2 / COLUMNS_OF_Y],
                     COLUMNS_OF_Y == 1 ? words[j * 2 + 1] : none);
    }
    turn_words<1>(words);
    if (inside) store_row(a.operands, m, a.n, c + quad * 8 * COLUMNS_OF_Y, words);
}

/* What is added to a unit of row m of y. */
__device__ __forceinline__ void load_unit(unsigned (&added)[4], const struct arguments &a, int m, int c) {
    if (EPILOGUE == EPILOGUE_RESIDUAL && m < a.m && c < a.n)
        load_row(a.operands, m, a.n, c + threadIdx.x % 4 * 8, added);
}

/* The first of the two rows that a thread has of a panel; the other one is 8 further on. */
__device__ __forceinline__ int panel_row(const struct item &item, int group, int panel) {
    return item.m0 + (group * PANELS + panel) * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
}

/* A whole tile; what is added is requested ahead, for a row at a time. */
__device__ __forceinline__ void store_tile(const struct sums &sums, const struct item &item, const struct arguments &a,
                                           int group) {
#pragma unroll
    for (int p = 0; p < PANELS * 2; p++) {
        const int m = panel_row(item, group, p / 2) + p % 2 * 8;
        unsigned added[PANEL_UNITS][4] = {};
#pragma unroll
        for (int i = 0; i < PANEL_UNITS; i++) load_unit(added[i], a, m, item.n0 + i * FRAGMENTS * 16);
#pragma unroll
        for (int i = 0; i < PANEL_UNITS; i++)
            store_unit(sums.at[p / 2] + i * UNIT_SUMS + p % 2 * 2, a, m, item.n0 + i * FRAGMENTS * 16, added[i]);
    }
}

/* This block's share of a split tile. */
__device__ __forceinline__ void finish_parts(const struct item &item, const struct arguments &a, int group) {
    constexpr int UNITS = PANELS * PANEL_UNITS;
#pragma unroll 1
    for (int unit = first_unit(item, UNITS, 0); unit < first_unit(item, UNITS, 1); unit++) {
        const int m = panel_row(item, group, unit / PANEL_UNITS), c = item.n0 + unit % PANEL_UNITS * FRAGMENTS * 16;
        unsigned added[2][4] = {};
        float sums[UNIT_SUMS];
        load_unit(added[0], a, m, c), load_unit(added[1], a, m + 8, c);
        add_parts<PANELS * PANEL_SUMS>(sums, item, unit * UNIT_SUMS, a.operands.workspace);
        store_unit(sums, a, m, c, added[0]);
        store_unit(sums + 2, a, m + 8, c, added[1]);
    }
    leave_parts(item, a.operands.workspace);
}

__device__ __forceinline__ void multiply_items(const struct mapped_arguments &a, int group) {
    const struct schedule s = find_schedule(a.plain);
    struct position at = {};
    for (int number = first_item(); number < s.items; number += s.clusters) {
        const struct item item = find_item(s, number);
        struct sums sums = {};
        add_stages(sums, item, at, group);
        if (SPLIT_K > 1 && item.split >= 0) {
            exchange_parts<PANELS * PANEL_SUMS>(sums.at[0], item, a.plain.operands.workspace);
            finish_parts(item, a.plain, group);
        } else {
            store_tile(sums, item, a.plain, group);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS + REQUEST_THREADS, 1)
    fp16_gemm(const __grid_constant__ struct mapped_arguments a) {
    run_block(a);
}
