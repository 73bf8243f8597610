/* y (M, N) = x (M, K) W with x, y row-major, fp16 or bf16, and W 4-bit codes in Marlin's layout, fp32 sums, on Hopper's
 * wgmma with the weights as its register operand (sm_90a). Needs K % TILE_K == 0 and N % 64 == 0; any M.
 *
 *      n: TILE_N columns                   y^T = W^T x^T: the 64 rows of a product are columns of y. Marlin's
 *      +--------+--------+--------+-----   16 (k) x 64 (n) tile is 512 bytes in which lane l's 16 bytes are
 *   m  | warp 0 | warp 1 | warp 2 | ...    its A fragments for four times 16 columns, so each warp of a
 *      +--------+--------+--------+-----   warpgroup owns a tile's 64 columns, and product j of a step has
 *                                          columns 16 j.. of each: 64 n + 16 j + lane / 4 and 8 further on.
 *
 * K is shared by the WARPGROUPS_K groups of a block and by the SPLIT_K blocks of a cluster, each group with a pipeline
 * of its own. A group is WARPGROUPS_N warpgroups, each of which has a part of the products. One more warp (of a
 * warpgroup that has given up its registers) requests all of a block's stages, box by box, so that the groups spend
 * nothing on requests and wait for nobody but it. Their sums meet in shared memory: fragment f of the tile (16 columns
 * of each warp, 8 tokens) is added up by block f % SPLIT_K of the cluster, in the order of k.
 *
 * A stage of a group   x        TILE_K / 64 times TILE_M rows of 64, swizzled for the matrix unit
 *                      codes    TILE_K / 16 rows of 4 Marlin tiles, one a warp
 *                      scales   GROUPS rows of 4 times 128 bytes   } only where several scales share K
 *                      zeros    GROUPS rows of 4 times 32 bytes    } and the latter only with ZEROS
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
#include "cuda/epilogue.cuh"
#include "marlin_gemm/codes.cuh"

constexpr int WARPGROUPS = WARPGROUPS_K * WARPGROUPS_N;
constexpr int TILE_N = 256, WARPS = TILE_N / 64, GROUP_THREADS = 32 * WARPS, THREADS = WARPGROUPS * GROUP_THREADS;
/* Registers that a thread which multiplies may have, and one that requests: together no more than the block began with,
 * or the claim waits for ever. */
constexpr int REQUEST_THREADS = 128,
              GROUP_REGISTERS = WARPGROUPS == 2   ? 240
                                : WARPGROUPS == 3 ? 160
                                                  : 112,
              REQUEST_REGISTERS = WARPGROUPS == 2 ? 24 : 32;
constexpr int PRODUCTS = 4 / WARPGROUPS_N; /* of a step, that a warpgroup has */
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
/* Two barriers a stage, that it is there and that it is free; then what counts the sums that arrive from the cluster.
 */
constexpr int BARRIERS = SHARED_BYTES - 16 - WARPGROUPS_K * STAGES * 16, TRANSFER = SHARED_BYTES - 16;
static_assert(BARRIERS >= WEIGHTS + WARPGROUPS_K * STAGES * WEIGHT_BYTES &&
                  BARRIERS >= PARTS * OWN_FRAGMENTS * GROUP_THREADS * 16,
              "kernels/marlin_gemm/wgmma.c disagrees");

/* The arguments with the maps of x, codes, scales and zero points; those that are not there are not passed. */
struct mapped_arguments {
    struct arguments plain;
    struct tensor_map x, codes, scales, zeros;
};

extern __shared__ __align__(1024) uint4 shared_memory[];

/* fp32 sums of a thread: [16 columns of its warp][fragments of multiply(), 8 tokens each]. */
struct sums {
    float at[PRODUCTS][TILE_M / 2];
};

/* Where a warpgroup works: its block's first row of y and first column, its group's stages of k, its first product. */
struct place {
    int m0, n0;
    int k_first, k_stages; /* in units of TILE_K */
    int group, product;
    int warpgroup, thread, warp, lane;   /* of the block, and the thread in it */
    unsigned x, weights, there, vacated; /* the group's first stage, and its barriers */
};

/* The tiles of rows that share weights run side by side. */
__device__ __forceinline__ struct place find_place(int m, int k, int warpgroup) {
    const int tiles_m = (m + TILE_M - 1) / TILE_M, tile = blockIdx.x / SPLIT_K, stages = k / TILE_K;
    const int group = warpgroup / WARPGROUPS_N;
    struct place p;
    p.group = group, p.product = warpgroup % WARPGROUPS_N * PRODUCTS;
    p.warpgroup = warpgroup, p.thread = threadIdx.x % GROUP_THREADS;
    p.warp = uniform(p.thread / 32), p.lane = p.thread % 32;
    const int part = blockIdx.x % SPLIT_K * WARPGROUPS_K + group;
    p.m0 = tile % tiles_m * TILE_M;
    p.n0 = tile / tiles_m * TILE_N;
    p.k_first = stages * part / PARTS;
    p.k_stages = stages * (part + 1) / PARTS - p.k_first;
    const unsigned memory = shared_address(shared_memory);
    p.x = memory + group * STAGES * X_BYTES;
    p.weights = memory + WEIGHTS + group * STAGES * WEIGHT_BYTES;
    p.there = memory + BARRIERS + group * STAGES * 16;
    p.vacated = p.there + STAGES * 8;
    return p;
}

/* The warp's 64 columns of W, in units of 64. */
__device__ __forceinline__ int warp_block(const struct place &p) {
    return p.n0 / 64 + p.warp;
}

/* --- requests, by one thread; k0 is the stage's first row of W --- */

__device__ __forceinline__ void request_weights(const struct place &p, const struct mapped_arguments &a, int stage,
                                                int k0) {
    const unsigned to = p.weights + stage * WEIGHT_BYTES, barrier = p.there + stage * 8;
    copy_box(to, a.codes, k0 / 16, p.n0, barrier); /* 64 columns of 16 rows are 64 times 8 bytes */
    if (GROUPS) copy_box(to + SCALES, a.scales, k0 / GROUP_ROWS, p.n0, barrier);
    if (GROUPS && ZEROS) copy_box(to + ZERO_POINTS, a.zeros, k0 / GROUP_ROWS, p.n0 / 8, barrier);
}

/* Rows behind the end of x become zero. */
__device__ __forceinline__ void request_tokens(const struct place &p, const struct mapped_arguments &a, int stage,
                                               int k0) {
#pragma unroll
    for (int slab = 0; slab < TILE_K / 64; slab++)
        copy_box(p.x + stage * X_BYTES + slab * SLAB, a.x, p.m0, k0 + slab * 64, p.there + stage * 8);
}

/* The warp that requests: stages in the order of k, each of all groups by turns. Weights do not depend on the launch
 * ahead: one that may overlap it requests all that there is room for before that has ended. */
__device__ __forceinline__ void request_stages(const struct mapped_arguments &a) {
    const bool requests = threadIdx.x % 32 == 0;
    const int most = (a.plain.k / TILE_K + PARTS - 1) / PARTS, early = a.plain.overlaps ? STAGES : 0;
    for (int i = 0; i < early; i++)
        for (int g = 0; g < WARPGROUPS_K; g++) {
            const struct place p = find_place(a.plain.m, a.plain.k, g * WARPGROUPS_N);
            if (!requests || i >= p.k_stages) continue;
            phase_expect(p.there + i * 8, X_BYTES + WEIGHT_BYTES);
            request_weights(p, a, i, (p.k_first + i) * TILE_K);
        }
    programmatic_launch();
    programmatic_wait();
    for (int i = 0, stage = 0, round = 0; i < most; i++) {
        for (int g = 0; g < WARPGROUPS_K; g++) {
            const struct place p = find_place(a.plain.m, a.plain.k, g * WARPGROUPS_N);
            if (i >= p.k_stages) continue;
            if (round) phase_wait(p.vacated + stage * 8, (round - 1) % 2);
            if (!requests) continue;
            const int k0 = (p.k_first + i) * TILE_K;
            if (i >= early) phase_expect(p.there + stage * 8, X_BYTES + WEIGHT_BYTES);
            if (i >= early) request_weights(p, a, stage, k0);
            request_tokens(p, a, stage, k0);
        }
        if (++stage == STAGES) stage = 0, round++;
    }
}

/* --- products --- */

/* Of four words, those of the warpgroup's products. */
__device__ __forceinline__ void load_words(unsigned (&words)[4], unsigned address, const struct place &) {
    const uint4 all = load_shared4(address);
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
}
__device__ __forceinline__ void load_words(unsigned (&words)[2], unsigned address, const struct place &p) {
    load_shared2(address + p.product * 4, words);
}

/* Scales and zero points of a group of the stage: its first product's columns are 0 and 1 of decode(). */
__device__ __forceinline__ void load_columns(struct columns &columns, const struct place &p, unsigned stage,
                                             int group) {
    const int block = group * WARPS + p.warp, lane = p.lane / 4;
    unsigned scales[PRODUCTS];
    load_words(scales, stage + SCALES + block * 128 + lane * 16, p);
#pragma unroll
    for (int j = 0; j < PRODUCTS; j++) columns.scale[j] = scales[j];
    if (ZEROS) set_zeros(columns, load_shared(stage + ZERO_POINTS + block * 32 + lane * 4) >> 4 * p.product);
}

/* The weights of two steps of 16: those that products read, and those that are decoded. */
struct weights {
    unsigned at[2][PRODUCTS][4];
};

/* Adds one stage to the sums. While the products of a step of 16 run, the weights of the next are decoded; those of the
 * last step go on when this returns. The stage `before` is free once the first step's are under way; 0: there is none.
 */
__device__ __forceinline__ void add_stage(struct sums &sums, struct weights &weights, struct columns &columns,
                                          const struct place &p, int stage, unsigned before) {
    constexpr int STEPS = TILE_K / 16;
    const unsigned x = p.x + stage * X_BYTES, from = p.weights + stage * WEIGHT_BYTES;
    const unsigned codes = from + (p.warp * 32 + p.lane) * 16;
    unsigned words[PRODUCTS], ahead[PRODUCTS];
    load_words(ahead, codes, p);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        unsigned(&now)[PRODUCTS][4] = weights.at[step % 2];
        if (GROUP && step * 16 % GROUP_ROWS == 0) load_columns(columns, p, from, step * 16 / GROUP_ROWS);
#pragma unroll
        for (int j = 0; j < PRODUCTS; j++) words[j] = ahead[j];
        if (step + 1 < STEPS) load_words(ahead, codes + (step + 1) * WARPS * 512, p);
#pragma unroll
        for (int j = 0; j < PRODUCTS; j++) decode<GROUP != 0>(now[j], words[j], columns, j);
        const unsigned long long b = swizzled_matrix(x + step / 4 * SLAB) + step % 4 * 2;
        multiply_group_fence();
#pragma unroll
        for (int j = 0; j < PRODUCTS; j++) multiply_group(sums.at[j], now[j], b);
        multiply_group_commit();
        multiply_group_wait<1>();
        if (step == 0 && before && p.lane == 0) phase_arrive(before);
    }
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const void *scales, int n) {
    if (warp_block(p) >= n / 64) return;
#pragma unroll
    for (int j = 0; j < PRODUCTS; j++) {
        float scale[2];
        load_scales(scales, warp_block(p) * 64, p.lane, p.product + j, scale[0], scale[1]);
#pragma unroll
        for (int i = 0; i < TILE_M / 2; i++) sums.at[j][i] *= scale[i / 2 % 2];
    }
}

/* The zero points that hold for all of K: 8, or those stored if there is one group. */
__device__ __forceinline__ void start_columns(struct columns &columns, const struct place &p, const void *zeros,
                                              int n) {
    unsigned word = 0x88888888;
    if (ZEROS && !GROUP && warp_block(p) < n / 64) word = ((const unsigned *)zeros)[warp_block(p) * 8 + p.lane / 4];
    set_zeros(columns, word >> 4 * p.product);
}

/* The sums of this group's part of k. */
__device__ __forceinline__ void add_part(struct sums &sums, const struct place &p, const struct arguments &a) {
    struct columns columns;
    struct weights weights;
    unsigned before = 0;
    start_columns(columns, p, a.operands.zeros, a.n);
    for (int i = 0, stage = 0, parity = 0; i < p.k_stages; i++) {
        phase_wait(p.there + stage * 8, parity);
        add_stage(sums, weights, columns, p, stage, before);
        before = p.vacated + stage * 8;
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    multiply_group_wait<0>();
#pragma unroll
    for (int j = 0; j < PRODUCTS; j++) hold(sums.at[j]);
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
    const int before = p.product * TOKEN_TILES; /* fragments of other warpgroups */
    if (SPLIT_K == 1) {
        barrier(1, THREADS);
    } else {
        cluster_arrive();
        cluster_wait();
    }
#pragma unroll
    for (int i = 0; i < PRODUCTS * TOKEN_TILES; i++) {
        const float *c = sums.at[i / TOKEN_TILES] + i % TOKEN_TILES * 4;
        const float4 value = make_float4(c[0], c[1], c[2], c[3]);
        const int f = before + i;
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
        barrier(1, THREADS);
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
    at.column = warp_block(p) * 64 + f / TOKEN_TILES * 16 + column / 2 * 2;
    at.inside = f < FRAGMENTS && i < OWN_FRAGMENTS && at.row < m && warp_block(p) < n / 64;
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
    constexpr int ROUNDS = (OWN_FRAGMENTS + WARPGROUPS - 1) / WARPGROUPS;
    constexpr bool EARLY = SPLIT_K > 1;
    struct pairs<2> addends[ROUNDS] = {};
#pragma unroll
    for (int r = 0; EARLY && r < ROUNDS; r++) {
        const struct output at = find_output(p, r * WARPGROUPS + p.warpgroup, a.m, a.n);
        if (at.inside) addends[r] = load_addend<2>(a.operands, at.row, a.n, at.column);
    }
    receive_sums();
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const int i = r * WARPGROUPS + p.warpgroup;
        if (i >= OWN_FRAGMENTS) break;
        const struct output at = find_output(p, i, a.m, a.n);
        const struct pairs<2> sums = add_parts(p, i);
        if (!at.inside) continue;
        if (!EARLY) addends[r] = load_addend<2>(a.operands, at.row, a.n, at.column);
        store_outputs<2>(a.operands, at.row, a.n, at.column, sums, addends[r]);
    }
}

/* One thread opens the barriers, before any of them is used. */
__device__ __forceinline__ void open_barriers() {
    const unsigned barriers = shared_address(shared_memory) + BARRIERS;
    if (threadIdx.x == 0)
        for (int i = 0; i < WARPGROUPS_K * STAGES; i++) {
            const int group = i / STAGES, stage = i % STAGES;
            phase_open(barriers + (group * 2 * STAGES + stage) * 8, 1);
            phase_open(barriers + (group * 2 * STAGES + STAGES + stage) * 8, WARPS * WARPGROUPS_N);
        }
    __syncthreads();
}

/* Four warps, of which the first requests. */
__device__ __forceinline__ void request(const struct mapped_arguments &a) {
    if (WARPGROUPS > 1) release_registers<REQUEST_REGISTERS>();
    if (uniform(threadIdx.x / 32) == THREADS / 32) request_stages(a);
    if (SPLIT_K > 1) {
        cluster_arrive();
        cluster_wait();
    }
}

/* The others. */
__device__ __forceinline__ void multiply_part(const struct mapped_arguments &a, int warpgroup) {
    if (WARPGROUPS > 1) claim_registers<GROUP_REGISTERS>();
    const struct place p = find_place(a.plain.m, a.plain.k, warpgroup);
    struct sums sums = {};
    add_part(sums, p, a.plain);
    if (!GROUP) scale_sums(sums, p, a.plain.operands.scales, a.plain.n);
    send_sums(sums, p);
    programmatic_wait();
    finish_sums(p, a.plain);
}

extern "C" __global__ void __launch_bounds__(THREADS + REQUEST_THREADS, 1)
    marlin_gemm(const __grid_constant__ struct mapped_arguments a) {
    announce_sums();
    open_barriers();
    const int warpgroup = uniform(threadIdx.x / GROUP_THREADS);
    if (warpgroup == WARPGROUPS)
        request(a);
    else
        multiply_part(a, warpgroup);
}
