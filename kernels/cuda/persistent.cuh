/* What the GEMMs on Hopper's wgmma for many tokens share (sm_90a), on the host kernels/persistent.c. A block of each SM
 * stays and goes through items: a tile of TILE_M rows and TILE_N columns of y, all of k or a part of it. One warp
 * requests stages of 64 of k, box by box and beyond the end of an item, while WARPGROUPS warpgroups multiply:
 *
 *      a stage   x    TILE_M rows of 64, swizzled for the matrix unit
 *                W    64 rows of k, TILE_N columns, as the kernel has them
 *
 * STAGE_BYTES apart, of which requests bring BOX_BYTES.
 *
 * The blocks of a cluster have CLUSTER_M tiles one below the other, with the same columns, and CLUSTER_N of those side
 * by side, with the same rows of x: of what several need, each requests a part for all of them. A stage is free again
 * when all to whom this block sends have left it.
 *
 * Items are counted by clusters. Those under way at a time share rows of x and W in L2: they go in bands of ORDER tiles
 * of rows, down each band's columns in turn. Tiles that do not fill a last round of blocks are split into SPLIT_K parts
 * of k, which leave their sums in the workspace and wait for each other; each adds up a share of the tile, in the order
 * of k. */
#ifndef TILEBOOK_PERSISTENT_CUH
#define TILEBOOK_PERSISTENT_CUH

#include "cuda/epilogue.cuh"

constexpr int GROUP_THREADS = 128, REQUEST_THREADS = 128, THREADS = WARPGROUPS * GROUP_THREADS;
/* Registers that a thread which multiplies may have, and one that requests: together those of an SM. */
constexpr int GROUP_REGISTERS = WARPGROUPS == 2 ? 240 : 160, REQUEST_REGISTERS = WARPGROUPS == 2 ? 24 : 32;
constexpr int TILE_K = 64, STEPS = TILE_K / 16, ROW_BYTES = TILE_K * 2;
constexpr int X_BYTES = TILE_M * ROW_BYTES;
constexpr int CLUSTER = CLUSTER_M * CLUSTER_N;
/* Two barriers a stage, that it is there and that it is free. */
constexpr int BARRIERS = STAGES * STAGE_BYTES;
static_assert(STAGE_BYTES % 1024 == 0 && SHARED_BYTES == BARRIERS + STAGES * 16, "kernels/persistent.c disagrees");

/* The arguments with the maps of what is requested in boxes, x first; those that are not there are not passed. */
struct mapped_arguments {
    struct arguments plain;
    struct tensor_map x, weights, scales, zeros;
};

extern __shared__ __align__(1024) uint4 shared_memory[];

/* The block's place in its cluster. */
__device__ __forceinline__ int rank_m() {
    return blockIdx.x % CLUSTER_M;
}
__device__ __forceinline__ int rank_n() {
    return blockIdx.x % CLUSTER / CLUSTER_M;
}

/* --- items --- */

/* Those of a launch: the tiles of clusters, of which the first `whole` are items of all of k. */
struct schedule {
    int tiles_m, tiles_n, clusters, whole, items, k_stages;
};

__device__ __forceinline__ struct schedule find_schedule(const struct arguments &a) {
    struct schedule s;
    s.tiles_m = (a.m + CLUSTER_M * TILE_M - 1) / (CLUSTER_M * TILE_M);
    s.tiles_n = (a.n + CLUSTER_N * TILE_N - 1) / (CLUSTER_N * TILE_N);
    s.clusters = gridDim.x / CLUSTER;
    const int tiles = s.tiles_m * s.tiles_n;
    s.whole = SPLIT_K == 1 ? tiles : tiles / s.clusters * s.clusters;
    s.items = s.whole + (tiles - s.whole) * SPLIT_K;
    s.k_stages = a.k / TILE_K;
    return s;
}

/* An item: its first row and column of y, its stages of k; of a tile that is split, which one and which part. */
struct item {
    int m0, n0, first, count;
    int split, part; /* split: -1 if the tile is whole */
};

__device__ __forceinline__ struct item find_item(const struct schedule &s, int number) {
    struct item item;
    const int behind = number - s.whole, tile = behind < 0 ? number : s.whole + behind / SPLIT_K;
    const int band = tile / (ORDER * s.tiles_n), inside = tile % (ORDER * s.tiles_n);
    const int rows = min(ORDER, s.tiles_m - band * ORDER);
    item.m0 = ((band * ORDER + inside % rows) * CLUSTER_M + rank_m()) * TILE_M;
    item.n0 = (inside / rows * CLUSTER_N + rank_n()) * TILE_N;
    item.split = behind < 0 ? -1 : behind / SPLIT_K * CLUSTER + (int)(blockIdx.x % CLUSTER);
    item.part = behind < 0 ? 0 : behind % SPLIT_K;
    const int parts = behind < 0 ? 1 : SPLIT_K;
    item.first = s.k_stages * item.part / parts;
    item.count = s.k_stages * (item.part + 1) / parts - item.first;
    return item;
}

/* The block's items, one after the other. */
__device__ __forceinline__ int first_item() {
    return blockIdx.x / CLUSTER;
}

/* --- stages --- */

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

/* Says that this warpgroup has left a stage, to all blocks that request into it. */
__device__ __forceinline__ void leave_stage(const struct position &at) {
    const int thread = threadIdx.x % GROUP_THREADS;
    if (CLUSTER == 1) {
        if (thread == 0) phase_arrive(vacated(at));
    } else if (thread < CLUSTER && (thread % CLUSTER_M == rank_m() || thread / CLUSTER_M == rank_n())) {
        phase_arrive_at(vacated(at), thread);
    }
}

/* Requests rows of a map from `row` on into `to` of all blocks with the same columns of y; each brings its part. */
template <int ROWS>
__device__ __forceinline__ void request_shared_weights(unsigned to, const struct tensor_map &map, int row, int k0,
                                                       unsigned barrier) {
    constexpr int OWN = ROWS / CLUSTER_M;
    if (CLUSTER_M == 1)
        copy_box(to, map, row, k0, barrier);
    else
        copy_box_to_all(to + rank_m() * OWN * ROW_BYTES, map, row + rank_m() * OWN, k0, barrier,
                        ((1 << CLUSTER_M) - 1) << rank_n() * CLUSTER_M);
}

/* A stage's rows of x; rows behind the end of x become zero. */
__device__ __forceinline__ void request_tokens(const struct mapped_arguments &a, const struct item &item,
                                               const struct position &at, int i) {
    constexpr int OWN = TILE_M / CLUSTER_N;
    constexpr unsigned SAME_ROWS = CLUSTER_N == 1 ? 1 : 1 | 1 << CLUSTER_M;
    const int k0 = (item.first + i) * TILE_K;
    if (CLUSTER_N == 1)
        copy_box(stage_address(at), a.x, item.m0, k0, there(at));
    else
        copy_box_to_all(stage_address(at) + rank_n() * OWN * ROW_BYTES, a.x, item.m0 + rank_n() * OWN, k0, there(at),
                        SAME_ROWS << rank_m());
}

/* The kernel's: one thread requests a stage's weights. */
__device__ __forceinline__ void request_weights(const struct mapped_arguments &a, const struct item &item,
                                                const struct position &at, int i);

/* The warp that requests: all stages of the block's items. Weights do not depend on the launch ahead: one that may
 * overlap it requests those of its first stages before that has ended. */
__device__ __forceinline__ void request_items(const struct mapped_arguments &a) {
    const struct schedule s = find_schedule(a.plain);
    const bool requests = threadIdx.x % 32 == 0;
    struct position at = {};
    int early = 0;
    if (a.plain.overlaps) {
        const struct item item = find_item(s, first_item());
        early = min(item.count, STAGES);
        for (int i = 0; i < early; i++) {
            const struct position first = {i, 0};
            if (requests) phase_expect(there(first), BOX_BYTES);
            if (requests) request_weights(a, item, first, i);
        }
    }
    programmatic_launch();
    programmatic_wait();
    for (int number = first_item(); number < s.items; number += s.clusters) {
        const struct item item = find_item(s, number);
        for (int i = 0; i < item.count; i++, early--, advance(at)) {
            if (at.round) phase_wait(vacated(at), (at.round - 1) % 2);
            if (requests && early <= 0) phase_expect(there(at), BOX_BYTES);
            if (requests && early <= 0) request_weights(a, item, at, i);
            if (requests) request_tokens(a, item, at, i);
        }
    }
}

/* --- sums --- */

/* Of a split tile the sums of part p, four of each thread at a time: [split tile][part][four sums][thread], fp32, in
 * the workspace behind the counters. */
template <int FLOATS> __device__ __forceinline__ float4 *find_part(const struct item &item, int part, void *workspace) {
    constexpr int PART = FLOATS / 4 * THREADS;
    float4 *parts = (float4 *)((char *)workspace + WORKSPACE_COUNTER_BYTES);
    return parts + ((size_t)item.split * SPLIT_K + part) * PART + threadIdx.x;
}

/* Leaves this part's sums for the blocks that have the others, and waits until those have left theirs. All blocks run
 * at a time, and parts that follow each other are in different ones. */
template <int FLOATS>
__device__ __forceinline__ void exchange_parts(const float *sums, const struct item &item, void *workspace) {
    unsigned *counter = (unsigned *)workspace + item.split;
    float4 *own = find_part<FLOATS>(item, item.part, workspace);
#pragma unroll
    for (int i = 0; i < FLOATS / 4; i++)
        own[i * THREADS] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
    barrier(1, THREADS);
    if (uniform(threadIdx.x / 32) == 0) {
        if (threadIdx.x == 0) count_arrival(counter);
        __syncwarp();
        wait_for_count(counter, SPLIT_K);
    }
    barrier(1, THREADS);
}

/* Adds up FLOATS sums of all parts, from number `first` on, in the order of k. */
template <int ALL, int FLOATS>
__device__ __forceinline__ void add_parts(float (&sums)[FLOATS], const struct item &item, int first, void *workspace) {
#pragma unroll
    for (int i = 0; i < FLOATS; i++) sums[i] = 0;
#pragma unroll
    for (int part = 0; part < SPLIT_K; part++) {
        const float4 *from = find_part<ALL>(item, part, workspace) + first / 4 * THREADS;
#pragma unroll
        for (int i = 0; i < FLOATS / 4; i++) {
            const float4 other = load_published(from + i * THREADS);
            sums[4 * i] += other.x, sums[4 * i + 1] += other.y, sums[4 * i + 2] += other.z, sums[4 * i + 3] += other.w;
        }
    }
}

/* Behind the last of add_parts(): the last block to come leaves the counter zero again. */
__device__ __forceinline__ void leave_parts(const struct item &item, void *workspace) {
    unsigned *counter = (unsigned *)workspace + item.split;
    barrier(1, THREADS);
    if (threadIdx.x == 0 && count_arrival(counter) == 2 * SPLIT_K - 1) *counter = 0;
}

/* Of a split tile's units, what this part's block finishes: from the first to before the last. */
__device__ __forceinline__ int first_unit(const struct item &item, int units, int parts_on) {
    return units * (item.part + parts_on) / SPLIT_K;
}

/* --- the block --- */

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
            phase_open(vacated(at), WARPGROUPS * (CLUSTER_M + CLUSTER_N - 1));
        }
    __syncthreads();
    meet_cluster();
}

/* The kernel's: warpgroup `group` goes through the block's items. */
__device__ __forceinline__ void multiply_items(const struct mapped_arguments &a, int group);

__device__ __forceinline__ void run_block(const struct mapped_arguments &a) {
    open_barriers();
    const int group = uniform(threadIdx.x / GROUP_THREADS);
    if (group == WARPGROUPS) {
        if (WARPGROUPS > 1) release_registers<REQUEST_REGISTERS>();
        if (uniform(threadIdx.x / 32) == THREADS / 32) request_items(a);
    } else {
        if (WARPGROUPS > 1) claim_registers<GROUP_REGISTERS>();
        programmatic_wait();
        multiply_items(a, group);
    }
    meet_cluster();
}

#endif
