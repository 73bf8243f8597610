/* y (M, N) = x (M, K) W with x, y row-major, fp16 or bf16, and W 4-bit codes in Marlin's layout, fp32 sums, on Hopper's
 * wgmma with the weights as its register operand (sm_90a), for many tokens. Needs K % 64 == 0, N % 64 == 0, and groups
 * of a multiple of 16 that divide 64 or are a multiple of it; any M.
 *
 * Blocks, items and stages are those of cuda/persistent.cuh. y^T = W^T x^T: the 64 rows of a product are 64 columns of
 * y, its columns all TILE_M tokens. A warpgroup has PANELS times 64 columns. Marlin's 16 (k) x 64 (n) tile is 512 bytes
 * in which lane l's 16 bytes are its A fragments for four times 16 columns: warp w takes those from 16 w on, one word.
 * While the products of a step of 16 run, each warp decodes its weights of the next.
 *
 * W's part of a stage   codes    4 rows of TILE_N / 64 Marlin tiles
 *                       scales   GROUPS rows of TILE_N / 64 times 128 bytes   } only where several scales share K
 *                       zeros    GROUPS rows of TILE_N / 64 times 32 bytes    } and the latter only with ZEROS
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
#include "cuda/persistent.cuh"
#include "marlin_gemm/codes.cuh"

constexpr int BLOCKS = TILE_N / 64, PANELS = BLOCKS / WARPGROUPS; /* of 64 columns: the tile's, and a warpgroup's */
constexpr int PANEL_SUMS = TILE_M / 2, PANEL_UNITS = TILE_M / 32; /* of a thread; of 32 tokens */
constexpr int GROUP_ROWS = GROUP ? GROUP : 1;
constexpr int GROUPS = GROUP == 0 ? 0 : TILE_K > GROUP ? TILE_K / GROUP_ROWS : 1;
constexpr int SCALES = X_BYTES + STEPS * BLOCKS * 512;
constexpr int ZERO_POINTS = SCALES + GROUPS * BLOCKS * 128;
static_assert(PANELS * WARPGROUPS == BLOCKS && BOX_BYTES == ZERO_POINTS + GROUPS * ZEROS * BLOCKS * 32,
              "kernels/marlin_gemm/persistent.c disagrees");

/* fp32 sums of a thread: [64 columns][multiply_group()'s]. */
struct sums {
    float at[PANELS][PANEL_SUMS];
};

/* Which part of a tile a thread has: its first 64 columns of the tile's, its warp's 16 of each. */
struct place {
    int block, warp, lane;
};

__device__ __forceinline__ struct place find_place(int group) {
    return {group * PANELS, (int)uniform(threadIdx.x / 32 % 4), (int)threadIdx.x % 32};
}

__device__ __forceinline__ void request_weights(const struct mapped_arguments &a, const struct item &item,
                                                const struct position &at, int i) {
    const unsigned stage = stage_address(at);
    const int k0 = (item.first + i) * TILE_K;
    copy_box(stage + X_BYTES, a.weights, k0 / 16, item.n0, there(at)); /* of 16 rows a column is 8 bytes */
    if (GROUPS) copy_box(stage + SCALES, a.scales, k0 / GROUP_ROWS, item.n0, there(at));
    if (GROUPS && ZEROS) copy_box(stage + ZERO_POINTS, a.zeros, k0 / GROUP_ROWS, item.n0 / 8, there(at));
}

/* --- products --- */

/* Scales and zero points of a thread's two columns, as columns 0 and 1 of decode(). */
__device__ __forceinline__ void load_columns(struct columns &columns, const struct place &p, unsigned stage, int group,
                                             int panel) {
    const int block = group * BLOCKS + p.block + panel, lane = p.lane / 4;
    columns.scale[0] = load_shared(stage + SCALES + block * 128 + lane * 16 + p.warp * 4);
    if (ZEROS) set_zeros(columns, load_shared(stage + ZERO_POINTS + block * 32 + lane * 4) >> 4 * p.warp);
}

/* The zero points that hold for all of K: 8, or those stored if there is one group. */
__device__ __forceinline__ void start_columns(struct columns &columns, const struct place &p, const struct item &item,
                                              const struct arguments &a, int panel) {
    const int block = item.n0 / 64 + p.block + panel;
    unsigned zeros = 0x88888888;
    if (ZEROS && !GROUP && block < a.n / 64) zeros = ((const unsigned *)a.operands.zeros)[block * 8 + p.lane / 4];
    set_zeros(columns, zeros >> 4 * p.warp);
}

/* The sums of an item. A stage is free when the first products of the next are under way and its own are done. */
__device__ __forceinline__ void add_stages(struct sums &sums, const struct item &item, struct position &at,
                                           const struct place &p, const struct arguments &a) {
    struct columns columns[PANELS];
    struct position before = at;
    unsigned weights[2][PANELS][4];
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) start_columns(columns[panel], p, item, a, panel);
    for (int i = 0; i < item.count; i++) {
        phase_wait(there(at), at.round % 2);
        const unsigned stage = stage_address(at), codes = stage + X_BYTES + (p.block * 32 + p.lane) * 16 + p.warp * 4;
        unsigned words[STEPS][PANELS];
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int panel = 0; panel < PANELS; panel++)
                words[step][panel] = load_shared(codes + (step * BLOCKS + panel) * 512);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            unsigned(&now)[PANELS][4] = weights[step % 2];
#pragma unroll
            for (int panel = 0; panel < PANELS; panel++) {
                if (GROUP && step * 16 % GROUP_ROWS == 0)
                    load_columns(columns[panel], p, stage, step * 16 / GROUP_ROWS, panel);
                decode<GROUP != 0>(now[panel], words[step][panel], columns[panel], 0);
            }
            const unsigned long long x = swizzled_matrix(stage) + step * 2;
            multiply_group_fence();
#pragma unroll
            for (int panel = 0; panel < PANELS; panel++) multiply_group(sums.at[panel], now[panel], x);
            multiply_group_commit();
            multiply_group_wait<1>();
            if (step == 0 && i) leave_stage(before);
        }
        before = at;
        advance(at);
    }
    multiply_group_wait<0>();
    if (item.count) leave_stage(before);
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) hold(sums.at[panel]);
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const struct item &item,
                                           const struct arguments &a) {
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) {
        const int block = item.n0 / 64 + p.block + panel;
        float scale[2];
        if (block >= a.n / 64) continue;
        load_scales(a.operands.scales, block * 64, p.lane, p.warp, scale[0], scale[1]);
#pragma unroll
        for (int i = 0; i < PANEL_SUMS; i++) sums.at[panel][i] *= scale[i / 2 % 2];
    }
}

/* --- sums on their way out --- */

/* A thread has two tokens of a column and of that eight further, four sums; its neighbour in n, lane ^ 4, has the same
 * of the next columns. They share: with silu_mul the lane with the even column takes the first token, both columns and
 * those eight further; else it takes both tokens of the first two columns, the other one those of the columns eight
 * further, so that the two write next to each other. */
__device__ __forceinline__ struct pairs<2> pair_columns(const float *s) {
    const bool odd = threadIdx.x / 4 % 2;
    if (COLUMNS_OF_Y == 2) {
        const float first = other_lane(odd ? s[0] : s[1], 4), second = other_lane(odd ? s[2] : s[3], 4);
        if (odd) return {{first, s[1]}, {second, s[3]}};
        return {{s[0], first}, {s[2], second}};
    }
    const float first = other_lane(odd ? s[0] : s[2], 4), second = other_lane(odd ? s[1] : s[3], 4);
    if (odd) return {{first, s[2]}, {second, s[3]}};
    return {{s[0], first}, {s[1], second}};
}

/* Where a thread's pairs of 8 tokens belong: rows of y and columns of W, from the first of each. */
struct output {
    int row[2], column; /* the first pair's row, and the second's */
};

__device__ __forceinline__ struct output find_output() {
    const int token = threadIdx.x % 4 * 2, odd = threadIdx.x / 4 % 2;
    if (COLUMNS_OF_Y == 2) return {{token + odd, token + odd}, 0};
    return {{token, token + 1}, odd * 8};
}

/* What is added to 32 tokens of a warp's 16 columns: words as turn_words() leaves them, [first or second pair][8
 * tokens].
 */
struct addends {
    unsigned at[2][4];
};

__device__ __forceinline__ void load_rows(struct addends &addends, const struct arguments &a, int m0, int c) {
    const struct output to = find_output();
#pragma unroll
    for (int t = 0; t < 2; t++) {
        const int m = m0 + threadIdx.x % 32 / 8 * 8 + to.row[t];
        if (m < a.m && c < a.n) load_row(a.operands, m, a.n, c + to.column, addends.at[t]);
    }
}

/* A unit: 32 tokens from m0 on of the warp's 16 columns from c on. Of four times 8 tokens a lane has the same ones,
 * with one of four pairs of columns; by turning that it gets all 8 columns of one of the four. */
__device__ __forceinline__ void store_unit(const float *sums, const struct arguments &a, int m0, int c,
                                           struct addends &added) {
    const int pair = threadIdx.x % 32 / 8;
    const struct output to = find_output();
    struct pairs<2> addend = {};
    unsigned words[2][4];
    if (EPILOGUE == EPILOGUE_RESIDUAL) turn_words<8>(added.at[0]), turn_words<8>(added.at[1]);
    if (EPILOGUE == EPILOGUE_BIAS && c < a.n) {
        load_addends<2>(a.operands, 0, a.n, c + to.column + pair * 2, addend.first);
        addend.second[0] = addend.first[0], addend.second[1] = addend.first[1];
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (EPILOGUE == EPILOGUE_RESIDUAL) {
            values_to_floats(added.at[0][j], addend.first[0], addend.first[1]);
            values_to_floats(added.at[1][j], addend.second[0], addend.second[1]);
        }
        finish_pairs(pair_columns(sums + j * 4), addend, words[0][j], words[1][j]);
    }
#pragma unroll
    for (int t = 0; t < 2 / COLUMNS_OF_Y; t++) {
        const int m = m0 + pair * 8 + to.row[t];
        turn_words<8>(words[t]);
        if (m < a.m && c < a.n) store_row(a.operands, m, a.n, c + to.column, words[t]);
    }
}

/* The warp's first column of a panel. */
__device__ __forceinline__ int panel_column(const struct place &p, const struct item &item, int panel) {
    return item.n0 + (p.block + panel) * 64 + p.warp * 16;
}

/* A whole tile; what is added is requested ahead, for a panel at a time. */
__device__ __forceinline__ void store_tile(const struct sums &sums, const struct place &p, const struct item &item,
                                           const struct arguments &a) {
#pragma unroll
    for (int panel = 0; panel < PANELS; panel++) {
        const int c = panel_column(p, item, panel);
        struct addends added[PANEL_UNITS] = {};
#pragma unroll
        for (int i = 0; EPILOGUE == EPILOGUE_RESIDUAL && i < PANEL_UNITS; i++)
            load_rows(added[i], a, item.m0 + i * 32, c);
#pragma unroll
        for (int i = 0; i < PANEL_UNITS; i++) store_unit(sums.at[panel] + i * 16, a, item.m0 + i * 32, c, added[i]);
    }
}

/* This block's share of a split tile. */
__device__ __forceinline__ void finish_parts(const struct place &p, const struct item &item,
                                             const struct arguments &a) {
    constexpr int UNITS = PANELS * PANEL_UNITS;
#pragma unroll 1
    for (int unit = first_unit(item, UNITS, 0); unit < first_unit(item, UNITS, 1); unit++) {
        const int panel = unit / PANEL_UNITS, m0 = item.m0 + unit % PANEL_UNITS * 32;
        const int c = panel_column(p, item, panel);
        struct addends added = {};
        float sums[16];
        if (EPILOGUE == EPILOGUE_RESIDUAL) load_rows(added, a, m0, c);
        add_parts<PANELS * PANEL_SUMS>(sums, item, unit * 16, a.operands.workspace);
        store_unit(sums, a, m0, c, added);
    }
    leave_parts(item, a.operands.workspace);
}

__device__ __forceinline__ void multiply_items(const struct mapped_arguments &a, int group) {
    const struct schedule s = find_schedule(a.plain);
    const struct place p = find_place(group);
    struct position at = {};
    for (int number = first_item(); number < s.items; number += s.clusters) {
        const struct item item = find_item(s, number);
        struct sums sums = {};
        add_stages(sums, item, at, p, a.plain);
        if (!GROUP) scale_sums(sums, p, item, a.plain);
        if (SPLIT_K > 1 && item.split >= 0) {
            exchange_parts<PANELS * PANEL_SUMS>(sums.at[0], item, a.plain.operands.workspace);
            finish_parts(p, item, a.plain);
        } else {
            store_tile(sums, p, item, a.plain);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS + REQUEST_THREADS, 1)
    marlin_gemm(const __grid_constant__ struct mapped_arguments a) {
    run_block(a);
}
