/* y (M, N) = x (M, K) W with x, y fp16 row-major and W fp16 (N, K) row-major, fp32 sums, on Hopper's wgmma with both
 * operands in shared memory (sm_90a). Needs K % 64 == 0 and N % 64 == 0; any M.
 *
 * An item is a tile of TILE_M x TILE_N of y and one of SPLIT_K parts of k. A block of each SM goes through the items
 * blockIdx.x, + gridDim.x, .. : one warp requests stages of 64 of k, box by box and beyond the end of an item, while
 * WARPGROUPS warpgroups multiply TILE_M / WARPGROUPS rows each:
 *
 *      a stage   x    TILE_M rows of 64 fp16   } swizzled for the matrix unit
 *                W    TILE_N rows of 64 fp16   }
 *
 * The CLUSTER blocks of a cluster have tiles one below the other, with the same columns: each requests a part of W's
 * rows for all of them. A stage is free when all of them have left it. Items are counted by clusters, and follow each
 * other so that those under way at a time share rows of x and W in L2: in bands of ORDER tiles of rows, down each
 * band's columns of tiles in turn. The parts of a tile leave their sums in the workspace; the last to come adds them up
 * in the order of k. */
#include "cuda/epilogue.cuh"

constexpr int GROUP_THREADS = 128, REQUEST_THREADS = 128, THREADS = WARPGROUPS * GROUP_THREADS;
/* Registers that a thread which multiplies may have, and one that requests: together those of an SM. */
constexpr int GROUP_REGISTERS = WARPGROUPS == 2 ? 240 : 160, REQUEST_REGISTERS = WARPGROUPS == 2 ? 24 : 32;
constexpr int TILE_K = 64, STEPS = TILE_K / 16;
constexpr int ROW_BYTES = TILE_K * 2;
constexpr int WEIGHT_ROWS = TILE_N / CLUSTER;    /* that a block requests */
constexpr int PANELS = TILE_M / WARPGROUPS / 64; /* of 64 rows, that a warpgroup has */
constexpr int X_BYTES = TILE_M * ROW_BYTES, STAGE_BYTES = X_BYTES + TILE_N * ROW_BYTES;
/* Two barriers a stage, that it is there and that it is free; then whether this block was the last to add a part. */
constexpr int BARRIERS = STAGES * STAGE_BYTES, LAST = BARRIERS + STAGES * 16;
static_assert(PANELS * 64 * WARPGROUPS == TILE_M && SHARED_BYTES >= LAST + 16, "kernels/fp16_gemm/wgmma.c disagrees");

/* The arguments with the maps of x and W. */
struct mapped_arguments {
    struct arguments plain;
    struct tensor_map x, weights, unused[2];
};

extern __shared__ __align__(1024) uint4 shared_memory[];

/* fp32 sums of a thread: [panel][multiply_tiles()'s]. */
struct sums {
    float at[PANELS][TILE_N / 2];
};

/* The items of a launch; a tile has a part for each block of a cluster. */
struct schedule {
    int tiles_m, tiles_n, items, k_stages;
};

__device__ __forceinline__ struct schedule find_schedule(const struct arguments &a) {
    struct schedule s;
    s.tiles_m = (a.m + CLUSTER * TILE_M - 1) / (CLUSTER * TILE_M), s.tiles_n = (a.n + TILE_N - 1) / TILE_N;
    s.items = s.tiles_m * s.tiles_n * SPLIT_K;
    s.k_stages = a.k / TILE_K;
    return s;
}

/* An item: its first row and column of y, its stages of k. */
struct item {
    int tile, part, m0, n0, first, count;
};

__device__ __forceinline__ struct item find_item(const struct schedule &s, int number) {
    struct item item;
    item.tile = number / SPLIT_K, item.part = number % SPLIT_K;
    const int band = item.tile / (ORDER * s.tiles_n), inside = item.tile % (ORDER * s.tiles_n);
    const int rows = min(ORDER, s.tiles_m - band * ORDER);
    item.m0 = ((band * ORDER + inside % rows) * CLUSTER + blockIdx.x % CLUSTER) * TILE_M;
    item.n0 = inside / rows * TILE_N;
    item.first = s.k_stages * item.part / SPLIT_K;
    item.count = s.k_stages * (item.part + 1) / SPLIT_K - item.first;
    return item;
}

/* Where a pipeline is: the stage, and how often all have been gone through. */
struct position {
    int stage, round;
};

__device__ __forceinline__ void advance(struct position &at) {
    if (++at.stage == STAGES) at.stage = 0, at.round++;
}

__device__ __forceinline__ unsigned stage_address(const struct position &at) {
    return shared_address(shared_memory) + at.stage * STAGE_BYTES;
}

/* The barriers that end when a stage is there, and when it is free again. */
__device__ __forceinline__ unsigned there(const struct position &at) {
    return shared_address(shared_memory) + BARRIERS + at.stage * 8;
}
__device__ __forceinline__ unsigned vacated(const struct position &at) {
    return there(at) + STAGES * 8;
}

/* --- the warp that requests --- */

__device__ __forceinline__ void request_weights(const struct mapped_arguments &a, const struct item &item,
                                                const struct position &at, int i) {
    const int first = blockIdx.x % CLUSTER * WEIGHT_ROWS, k0 = (item.first + i) * TILE_K;
    const unsigned to = stage_address(at) + X_BYTES + first * ROW_BYTES;
    phase_expect(there(at), STAGE_BYTES);
    if (CLUSTER == 1)
        copy_box(to, a.weights, item.n0, k0, there(at));
    else
        copy_box_to_all<CLUSTER>(to, a.weights, item.n0 + first, k0, there(at));
}

__device__ __forceinline__ void request_tokens(const struct mapped_arguments &a, const struct item &item,
                                               const struct position &at, int i) {
    copy_box(stage_address(at), a.x, item.m0, (item.first + i) * TILE_K, there(at));
}

/* All stages of the block's items. Weights do not depend on the launch ahead: one that may overlap it requests those of
 * its first stages before that has ended. */
__device__ __forceinline__ void request_items(const struct mapped_arguments &a) {
    const struct schedule s = find_schedule(a.plain);
    const bool requests = threadIdx.x % 32 == 0;
    struct position at = {};
    int early = 0;
    if (a.plain.overlaps) {
        const struct item item = find_item(s, blockIdx.x / CLUSTER);
        early = min(item.count, STAGES);
        for (int i = 0; i < early; i++) {
            const struct position first = {i, 0};
            if (requests) request_weights(a, item, first, i);
        }
    }
    programmatic_launch();
    programmatic_wait();
    for (int number = blockIdx.x / CLUSTER; number < s.items; number += gridDim.x / CLUSTER) {
        const struct item item = find_item(s, number);
        for (int i = 0; i < item.count; i++, early--, advance(at)) {
            if (at.round) phase_wait(vacated(at), (at.round - 1) % 2);
            if (requests && early <= 0) request_weights(a, item, at, i);
            if (requests) request_tokens(a, item, at, i);
        }
    }
}

/* --- the warpgroups that multiply --- */

/* Says that this warpgroup has left a stage, to all blocks that request into it. */
__device__ __forceinline__ void leave_stage(const struct position &at) {
    if (threadIdx.x % GROUP_THREADS) return;
    if (CLUSTER == 1)
        phase_arrive(vacated(at));
    else
        for (int rank = 0; rank < CLUSTER; rank++) phase_arrive_at(vacated(at), rank);
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

/* Adds the sums of a tile's parts: each leaves its own in the workspace, behind the counters, as fp32
 * [tile][part][four sums][thread]; the last to come adds them up and leaves the counter zero again. True in the block
 * that has the result. */
__device__ __forceinline__ bool add_parts(struct sums &sums, const struct item &item, void *workspace) {
    if (SPLIT_K == 1) return true;
    constexpr int FOURS = PANELS * TILE_N / 8, PART = FOURS * THREADS;
    const int own = item.tile * CLUSTER + blockIdx.x % CLUSTER;
    unsigned *counter = (unsigned *)workspace + own, *last = (unsigned *)shared_memory + LAST / 4;
    float4 *parts = (float4 *)((char *)workspace + WORKSPACE_COUNTER_BYTES) + (size_t)own * SPLIT_K * PART;
    float *flat = sums.at[0];
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const float *s = flat + 4 * i;
        parts[item.part * PART + i * THREADS + threadIdx.x] = make_float4(s[0], s[1], s[2], s[3]);
    }
    barrier(1, THREADS);
    if (threadIdx.x == 0) *last = count_arrival(counter) == SPLIT_K - 1;
    barrier(1, THREADS);
    const bool result = *last;
    barrier(1, THREADS);
    if (!result) return false;
    if (threadIdx.x == 0) *counter = 0;
    sums = {};
#pragma unroll 1
    for (int part = 0; part < SPLIT_K; part++)
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            float *s = flat + 4 * i;
            const float4 other = load_published(parts + part * PART + i * THREADS + threadIdx.x);
            s[0] += other.x, s[1] += other.y, s[2] += other.z, s[3] += other.w;
        }
    return true;
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
    programmatic_wait();
    for (int number = blockIdx.x / CLUSTER; number < s.items; number += gridDim.x / CLUSTER) {
        const struct item item = find_item(s, number);
        struct sums sums = {};
        add_stages(sums, item, at, group);
        if (add_parts(sums, item, a.plain.operands.workspace)) store_tile(sums, item, a.plain, group);
    }
}

/* Waits for the other blocks: before they are requested for, and before this one, into which they request, ends. */
__device__ __forceinline__ void meet_cluster() {
    if (CLUSTER == 1) return;
    cluster_arrive();
    cluster_wait();
}

/* One thread opens the barriers, before any of them is used. */
__device__ __forceinline__ void open_barriers() {
    if (threadIdx.x == 0)
        for (int stage = 0; stage < STAGES; stage++) {
            const struct position at = {stage, 0};
            phase_open(there(at), 1);
            phase_open(vacated(at), WARPGROUPS * CLUSTER);
        }
    __syncthreads();
    meet_cluster();
}

extern "C" __global__ void __launch_bounds__(THREADS + REQUEST_THREADS, 1)
    fp16_gemm(const __grid_constant__ struct mapped_arguments a) {
    open_barriers();
    const int group = uniform(threadIdx.x / GROUP_THREADS);
    if (group == WARPGROUPS) {
        if (WARPGROUPS > 1) release_registers<REQUEST_REGISTERS>();
        if (uniform(threadIdx.x / 32) == THREADS / 32) request_items(a);
    } else {
        if (WARPGROUPS > 1) claim_registers<GROUP_REGISTERS>();
        multiply_items(a, group);
    }
    meet_cluster();
}
