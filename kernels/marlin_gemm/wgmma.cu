/* y (M, N) = x (M, K) W with x, y fp16 row-major and W 4-bit codes in Marlin's layout, fp32 sums, on Hopper's
 * wgmma with the weights as its register operand (sm_90a). Needs K % TILE_K == 0 and N % 64 == 0; any M.
 *
 *      n: TILE_N columns                   y^T = W^T x^T: the 64 rows of a product are columns of y. Marlin's
 *      +--------+--------+--------+-----   16 (k) x 64 (n) tile is 512 bytes in which lane l's 16 bytes are
 *   m  | warp 0 | warp 1 | warp 2 | ...    its A fragments for four times 16 columns, so each warp of a
 *      +--------+--------+--------+-----   warpgroup owns a tile's 64 columns, and product j of a step has
 *                                          columns 16 j.. of each: 64 n + 16 j + lane / 4 and 8 further on.
 *
 * The TILE_N / 256 warpgroups beside each other share x and are a group, with a pipeline and a barrier of its own. K is
 * shared by the WARPGROUPS_K groups of a block and by the SPLIT_K blocks of a cluster. Their sums meet in shared
 * memory: fragment f of the tile (16 columns of each warp, 8 tokens) is added up by block f % SPLIT_K of the cluster,
 * in the order of k.
 *
 * A stage of a group   x        TILE_K / 64 times TILE_M rows of 64 fp16, swizzled for the matrix unit
 *                      codes    TILE_K / 16 x TILE_N / 64 Marlin tiles
 *                      scales   TILE_N / 64 x GROUPS times 128 bytes   } only where several scales share K
 *                      zeros    TILE_N / 64 x GROUPS times 32 bytes    } and the latter only with ZEROS
 * All but x is read by the warp that requested it.
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
#include "cuda/epilogue.cuh"
#include "marlin_gemm/codes.cuh"

constexpr int WARPS = TILE_N / 64, GROUP_THREADS = 32 * WARPS, THREADS = WARPGROUPS_K * GROUP_THREADS;
constexpr int PARTS = SPLIT_K * WARPGROUPS_K;
constexpr int TOKEN_TILES = TILE_M / 8;
constexpr int FRAGMENTS = 4 * TOKEN_TILES;
constexpr int OWN_FRAGMENTS = (FRAGMENTS + SPLIT_K - 1) / SPLIT_K;

constexpr int GROUP_ROWS = GROUP ? GROUP : 1;
constexpr int GROUPS = GROUP == 0 ? 0 : TILE_K > GROUP ? TILE_K / GROUP_ROWS : 1;
constexpr int SLAB = TILE_M * 128; /* bytes of x, 64 columns wide */
constexpr int X_BYTES = TILE_K / 64 * SLAB;
constexpr int SCALES = TILE_K / 16 * WARPS * 512;
constexpr int ZERO_POINTS = SCALES + GROUPS * WARPS * 128;
constexpr int WEIGHT_BYTES = ZERO_POINTS + GROUPS * ZEROS * WARPS * 32;
/* All stages of x come first, because they must lie at multiples of 1024. */
constexpr int WEIGHTS = WARPGROUPS_K * STAGES * X_BYTES;
/* Counts the sums that arrive from the cluster. */
constexpr int TRANSFER = SHARED_BYTES - 16;
static_assert(TRANSFER >= WEIGHTS + WARPGROUPS_K * STAGES * WEIGHT_BYTES &&
                  TRANSFER >= PARTS * OWN_FRAGMENTS * GROUP_THREADS * 16,
              "kernels/marlin_gemm/wgmma.c disagrees");

extern __shared__ __align__(1024) uint4 shared_memory[];

/* fp32 sums of a thread: [16 columns of its warp][fragments of multiply(), 8 tokens each]. */
struct sums {
    float at[4][TILE_M / 2];
};

/* Where this thread works: its block's first row of y, its warp's columns, its group's stages of k. */
struct place {
    int m0, block;         /* columns 64 * block.. */
    int k_first, k_stages; /* in units of TILE_K */
    int group, thread, warp, lane;
    unsigned x, weights; /* its first stage */
};

/* The tiles of rows that share weights run side by side. */
__device__ __forceinline__ struct place find_place(int m, int k) {
    const int tiles_m = (m + TILE_M - 1) / TILE_M, tile = blockIdx.x / SPLIT_K, stages = k / TILE_K;
    struct place p;
    p.group = uniform(threadIdx.x / GROUP_THREADS), p.thread = threadIdx.x % GROUP_THREADS;
    p.warp = uniform(p.thread / 32), p.lane = p.thread % 32;
    const int part = blockIdx.x % SPLIT_K * WARPGROUPS_K + p.group;
    p.m0 = tile % tiles_m * TILE_M;
    p.block = tile / tiles_m * (TILE_N / 64) + p.warp;
    p.k_first = stages * part / PARTS;
    p.k_stages = stages * (part + 1) / PARTS - p.k_first;
    const unsigned memory = shared_address(shared_memory);
    p.x = memory + p.group * STAGES * X_BYTES;
    p.weights = memory + WEIGHTS + p.group * STAGES * WEIGHT_BYTES;
    return p;
}

/* --- requests; k0 is the stage's first row of W --- */

/* The lane's fragments, and what of the warp's scales and zero points falls to it. */
__device__ __forceinline__ void request_weights(unsigned to, const struct place &p, const struct operands &o, int n,
                                                int k0) {
    const int blocks = n / 64;
    const bool inside = p.block < blocks;
    const uint4 *codes = (const uint4 *)o.weights + ((size_t)(k0 / 16) * blocks + p.block) * 32 + p.lane;
    unsigned own = to + (p.warp * 32 + p.lane) * 16;
#pragma unroll
    for (int i = 0; i < TILE_K / 16; i++, codes += (size_t)blocks * 32, own += WARPS * 512)
        copy_async(own, codes, inside);
    if (p.lane < GROUPS * 8) {
        const int group = p.lane / 8;
        const uint4 *scales = (const uint4 *)o.scales + ((size_t)(k0 / GROUP_ROWS + group) * blocks + p.block) * 8;
        copy_async(to + SCALES + (p.warp * GROUPS + group) * 128 + p.lane % 8 * 16, scales + p.lane % 8, inside);
    }
    if (p.lane < GROUPS * ZEROS * 2) {
        const int group = p.lane / 2;
        const uint4 *zeros = (const uint4 *)o.zeros + ((size_t)(k0 / GROUP_ROWS + group) * blocks + p.block) * 2;
        copy_async(to + ZERO_POINTS + (p.warp * GROUPS + group) * 32 + p.lane % 2 * 16, zeros + p.lane % 2, inside);
    }
}

/* The group's rows of x; those behind its end become zero. Chunk c (16 bytes) of row r of a slab lies at
 * c ^ (r & 7). A thread keeps its chunk and strides over rows by a multiple of 8. */
__device__ __forceinline__ void request_tokens(unsigned to, const struct place &p, const void *x, int m, int k,
                                               int k0) {
    constexpr int CHUNKS = TILE_K / 8, STRIDE = GROUP_THREADS / CHUNKS;
    static_assert(STRIDE % 8 == 0, "all rows of a thread have the same place of 8");
    const int row = p.thread / CHUNKS, chunk = p.thread % CHUNKS;
    const unsigned short *from = (const unsigned short *)x + (size_t)(p.m0 + row) * k + k0 + 8 * chunk;
    to += chunk / 8 * SLAB + row * 128 + (chunk % 8 ^ (row & 7)) * 16;
#pragma unroll
    for (int i = 0; i < TILE_M; i += STRIDE, from += (size_t)STRIDE * k)
        if (TILE_M % STRIDE == 0 || row + i < TILE_M) copy_async(to + i * 128, from, p.m0 + row + i < m);
}

/* --- products --- */

/* Scales and zero points of a group of the stage. */
__device__ __forceinline__ void load_columns(struct columns &columns, const struct place &p, unsigned stage,
                                             int group) {
    const int block = p.warp * GROUPS + group, lane = p.lane / 4;
    const uint4 scales = load_shared4(stage + SCALES + block * 128 + lane * 16);
    columns.scale[0] = scales.x, columns.scale[1] = scales.y, columns.scale[2] = scales.z, columns.scale[3] = scales.w;
    if (ZEROS) set_zeros(columns, load_shared(stage + ZERO_POINTS + block * 32 + lane * 4));
}

/* Adds one stage to the sums. While the products of a step of 16 run, the weights of the next are decoded. */
__device__ __forceinline__ void add_stage(struct sums &sums, struct columns &columns, const struct place &p, unsigned x,
                                          unsigned weights) {
    constexpr int STEPS = TILE_K / 16;
    const unsigned codes = weights + (p.warp * 32 + p.lane) * 16;
    unsigned a[2][4][4];
    uint4 words = load_shared4(codes);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        unsigned(&now)[4][4] = a[step % 2];
        if (GROUP && step * 16 % GROUP_ROWS == 0) load_columns(columns, p, weights, step * 16 / GROUP_ROWS);
        const unsigned own[4] = {words.x, words.y, words.z, words.w};
        if (step + 1 < STEPS) words = load_shared4(codes + (step + 1) * WARPS * 512);
#pragma unroll
        for (int j = 0; j < 4; j++) decode<GROUP != 0>(now[j], own[j], columns, j);
        const unsigned long long b = swizzled_matrix(x + step / 4 * SLAB) + step % 4 * 2;
        multiply_group_fence();
#pragma unroll
        for (int j = 0; j < 4; j++) multiply_group(sums.at[j], now[j], b);
        multiply_group_commit();
        multiply_group_wait<1>();
    }
    multiply_group_wait<0>();
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const void *scales, int n) {
    if (p.block >= n / 64) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float scale[2];
        load_scales(scales, p.block * 64, p.lane, j, scale[0], scale[1]);
#pragma unroll
        for (int i = 0; i < TILE_M / 2; i++) sums.at[j][i] *= scale[i / 2 % 2];
    }
}

/* The zero points that hold for all of K: 8, or those stored if there is one group. */
__device__ __forceinline__ void start_columns(struct columns &columns, const struct place &p, const void *zeros,
                                              int n) {
    set_zeros(columns, 0x88888888);
    if (ZEROS && !GROUP && p.block < n / 64) set_zeros(columns, ((const unsigned *)zeros)[p.block * 8 + p.lane / 4]);
}

/* Fills the pipeline, a group of copies for each stage. Weights do not depend on the launch ahead: one that may overlap
 * it requests them all before that has ended; another only the first stage's, since what an SM requests arrives in
 * order, and x would come behind all the rest. */
__device__ __forceinline__ void start_pipeline(const struct place &p, const struct arguments &a) {
    const int early = a.overlaps ? STAGES - 1 : 1;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        if (i < early && i < p.k_stages)
            request_weights(p.weights + i * WEIGHT_BYTES, p, a.operands, a.n, (p.k_first + i) * TILE_K);
    programmatic_launch();
    programmatic_wait();
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        const int k0 = (p.k_first + i) * TILE_K;
        if (early <= i && i < p.k_stages) request_weights(p.weights + i * WEIGHT_BYTES, p, a.operands, a.n, k0);
        if (i < p.k_stages) request_tokens(p.x + i * X_BYTES, p, a.operands.x, a.m, a.k, k0);
        copy_async_commit();
    }
}

/* The sums of this group's part of k. Behind the barrier every thread's copies of a stage have landed and all
 * products of the one before it are done, so that its place is free. */
__device__ __forceinline__ void add_part(struct sums &sums, const struct place &p, const struct arguments &a) {
    struct columns columns;
    start_columns(columns, p, a.operands.zeros, a.n);
    int computed = 0, requested = STAGES - 1;
    for (int i = 0; i < p.k_stages; i++) {
        copy_async_wait<STAGES - 2>();
        publish_to_matrix_unit();
        barrier(WARPGROUPS_K == 1 ? 0 : 1 + p.group, GROUP_THREADS);
        if (i + STAGES - 1 < p.k_stages) {
            const int k0 = (p.k_first + i + STAGES - 1) * TILE_K;
            request_weights(p.weights + requested * WEIGHT_BYTES, p, a.operands, a.n, k0);
            request_tokens(p.x + requested * X_BYTES, p, a.operands.x, a.m, a.k, k0);
        }
        copy_async_commit();
        add_stage(sums, columns, p, p.x + computed * X_BYTES, p.weights + computed * WEIGHT_BYTES);
        computed = computed + 1 == STAGES ? 0 : computed + 1;
        requested = requested + 1 == STAGES ? 0 : requested + 1;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) hold(sums.at[j]);
}

/* --- sums on their way out --- */

/* Says how much this block will be sent. */
__device__ __forceinline__ void announce_sums() {
    const unsigned rank = blockIdx.x % SPLIT_K, own = (FRAGMENTS - rank + SPLIT_K - 1) / SPLIT_K;
    if (SPLIT_K > 1 && threadIdx.x == 0)
        transfer_open(shared_address(shared_memory) + TRANSFER, PARTS * own * GROUP_THREADS * 16);
}

/* Hands each fragment to the block that adds it up, where it lies as [part][fragment / SPLIT_K][thread] over the
 * stages, which by then are free. */
__device__ __forceinline__ void send_sums(const struct sums &sums, const struct place &p) {
    const int part = blockIdx.x % SPLIT_K * WARPGROUPS_K + p.group;
    const int first = part * OWN_FRAGMENTS * GROUP_THREADS + p.thread;
    const unsigned memory = shared_address(shared_memory), own = memory + first * 16;
    if (SPLIT_K == 1) {
        __syncthreads();
    } else {
        cluster_arrive();
        cluster_wait();
    }
#pragma unroll
    for (int f = 0; f < FRAGMENTS; f++) {
        const float *c = sums.at[f / TOKEN_TILES] + f % TOKEN_TILES * 4;
        const float4 value = make_float4(c[0], c[1], c[2], c[3]);
        const int slot = f / SPLIT_K * GROUP_THREADS;
        if (SPLIT_K == 1)
            ((float4 *)shared_memory)[first + slot] = value;
        else
            send_remote4(cluster_address(own, f % SPLIT_K) + slot * 16, value,
                         cluster_address(memory + TRANSFER, f % SPLIT_K));
    }
}

/* Waits for what was sent to this block. */
__device__ __forceinline__ void receive_sums() {
    if (SPLIT_K == 1)
        __syncthreads();
    else
        transfer_wait(shared_address(shared_memory) + TRANSFER);
}

/* The part of a fragment that a thread finishes: two neighbouring columns of a token, and those eight further. Its
 * neighbour in n, lane ^ 4, has the same two tokens: the lane with the even column takes the first. */
struct output {
    int row, column;
    bool inside;
};
__device__ __forceinline__ struct output find_output(const struct place &p, int i, int m, int n) {
    const int f = i * SPLIT_K + blockIdx.x % SPLIT_K, column = p.lane / 4;
    struct output at;
    at.row = p.m0 + f % TOKEN_TILES * 8 + p.lane % 4 * 2 + column % 2;
    at.column = p.block * 64 + f / TOKEN_TILES * 16 + column / 2 * 2;
    at.inside = f < FRAGMENTS && i < OWN_FRAGMENTS && at.row < m && p.block < n / 64;
    return at;
}

/* The sum of all parts of a fragment, in the order of k, as the thread finishes it. */
__device__ __forceinline__ struct pairs<2> add_parts(const struct place &p, int i) {
    const float4 *own = (const float4 *)shared_memory + i * GROUP_THREADS + p.thread;
    float4 sum = own[0];
#pragma unroll
    for (int part = 1; part < PARTS; part++) {
        const float4 other = own[part * OWN_FRAGMENTS * GROUP_THREADS];
        sum.x += other.x, sum.y += other.y, sum.z += other.z, sum.w += other.w;
    }
    const bool odd = p.lane / 4 % 2;
    const float first = other_lane(odd ? sum.x : sum.y, 4), second = other_lane(odd ? sum.z : sum.w, 4);
    if (odd) return {{first, sum.y}, {second, sum.w}};
    return {{sum.x, first}, {sum.z, second}};
}

/* Adds up this block's fragments and writes what becomes of them. In a cluster the addend comes while the sums are
 * sent; a block alone has too many fragments to keep their addends in registers. */
__device__ __forceinline__ void
finish_sums(const struct place &p, const struct arguments &a) {
    constexpr int ROUNDS = (OWN_FRAGMENTS + WARPGROUPS_K - 1) / WARPGROUPS_K;
    constexpr bool EARLY = SPLIT_K > 1;
    struct pairs<2> addends[ROUNDS] = {};
#pragma unroll
    for (int r = 0; EARLY && r < ROUNDS; r++) {
        const struct output at = find_output(p, r * WARPGROUPS_K + p.group, a.m, a.n);
        if (at.inside) addends[r] = load_addend<2>(a.operands, at.row, a.n, at.column);
    }
    receive_sums();
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const int i = r * WARPGROUPS_K + p.group;
        if (i >= OWN_FRAGMENTS) break;
        const struct output at = find_output(p, i, a.m, a.n);
        const struct pairs<2> sums = add_parts(p, i);
        if (!at.inside) continue;
        if (!EARLY) addends[r] = load_addend<2>(a.operands, at.row, a.n, at.column);
        store_outputs<2>(a.operands, at.row, a.n, at.column, sums, addends[r]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) marlin_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.k);
    struct sums sums = {};
    announce_sums();
    start_pipeline(p, a);
    add_part(sums, p, a);
    if (!GROUP) scale_sums(sums, p, a.operands.scales, a.n);
    send_sums(sums, p);
    finish_sums(p, a);
}
