/* What the two GEMMs for few tokens share: the partition of y, the rings, the sums and their way out.
 *
 * Few tokens leave nothing to do but read weights, so every byte of a block's weights should be under way as soon
 * as there is room for it, and no warp should wait for another. y^T = W^T x^T on mma.sync: columns of y are its
 * 16-row side, tokens its 8-wide side.
 *
 *            TILE_N = 64 * WARPS_N            A block owns TILE_M x TILE_N of y and 1/SPLIT_K of k; the SPLIT_K
 *          +-----------+-----------+          blocks that share a tile are a cluster. Of its depth each of
 *   k      | warp 0    | warp 1    | group 0  WARPS_K groups of warps has a run of chunks (CHUNK of k), of its
 *   |      +-----------+-----------+          columns each warp of a group 64. A warp requests its weights into
 *   v      | warp 2    | warp 3    | group 1  a ring of its own, STAGES chunks ahead; only x is shared, by the
 *          +-----------+-----------+          warps of a group.
 *
 * Sums over groups are added in the block's shared memory, sums over blocks in that of the cluster's blocks, each
 * of which finishes a share of the tile; always in the same order, so that the same input gives the same bits.
 *
 * Weights do not depend on the launch ahead. A launch that may overlap it requests its first STAGES chunks before
 * they can be multiplied; another one none, since what an SM requests arrives in order, and x would come
 * behind them.
 *
 * The including file defines SLOT_BYTES, a warp's weights of a chunk. TILE_M, TILE_N, WARPS_K, STAGES
 * and SPLIT_K are the tile parameters; kernels/skinny.c is the host's side of the same arithmetic, SHARED_BYTES its
 * result, BLOCKS how many blocks an SM shall hold. */
#ifndef TILEBOOK_SKINNY_CUH
#define TILEBOOK_SKINNY_CUH

#include "cuda/epilogue.cuh"
#include "cuda/ptx.cuh"

constexpr int WARPS_N = TILE_N / 64, GROUP_THREADS = 32 * WARPS_N, THREADS = GROUP_THREADS * WARPS_K;
constexpr int TOKEN_TILES = (TILE_M + 7) / 8;
constexpr int CHUNK = 128, PIECES = CHUNK / 8;

/* Sums lie as fp32 [row][column]; the pitch spreads a warp's stores over the banks. */
constexpr int SUMS_PITCH = 64 + 4, SUMS_BYTES = TILE_M * SUMS_PITCH * 4;

/* A warp's ring, in the end its sums; then the groups' slices of x; then what the cluster's blocks sent. */
constexpr int RING_BYTES = STAGES * SLOT_BYTES > SUMS_BYTES ? STAGES *SLOT_BYTES : SUMS_BYTES;
constexpr int SLICE_BYTES = TILE_M * CHUNK * 2;
constexpr int SLICES = WARPS_N * WARPS_K * RING_BYTES;
constexpr int RECEIVED = SLICES + WARPS_K * STAGES * SLICE_BYTES;
constexpr int RECEIVED_BYTES = SPLIT_K > 1 ? TILE_M *TILE_N * 4 : 0;
constexpr int TRANSFER = RECEIVED + RECEIVED_BYTES; /* counts what arrives */
static_assert(SHARED_BYTES >= TRANSFER + (SPLIT_K > 1 ? 16 : 0), "kernels/skinny.c disagrees");

extern __shared__ uint4 shared_memory[];

/* fp32 sums of a warp's 64 x TILE_M part of y^T: [16 columns][8 tokens][fragment of multiply()]. */
struct sums {
    float at[4][TOKEN_TILES][4];
};

/* Where this thread works. */
struct place {
    int m0, rows, n0;      /* first row and rows of the block, first column of the warp */
    int first, count;      /* chunks of the group */
    int lane, warp, group; /* the warp's number in the block, and the group's */
    unsigned ring, slices; /* shared addresses */
};

__device__ __forceinline__ struct place find_place(int m, int n, int k) {
    const int tiles_n = (n + TILE_N - 1) / TILE_N, tile = blockIdx.x / SPLIT_K, chunks = k / CHUNK;
    struct place p;
    p.lane = threadIdx.x % 32, p.warp = threadIdx.x / 32, p.group = p.warp / WARPS_N;
    p.m0 = tile / tiles_n * TILE_M;
    p.rows = min(TILE_M, m - p.m0);
    p.n0 = tile % tiles_n * TILE_N + p.warp % WARPS_N * 64;
    const int part = blockIdx.x % SPLIT_K * WARPS_K + p.group;
    p.first = chunks * part / (SPLIT_K * WARPS_K);
    p.count = chunks * (part + 1) / (SPLIT_K * WARPS_K) - p.first;
    const unsigned memory = shared_address(shared_memory);
    p.ring = memory + p.warp * RING_BYTES;
    p.slices = memory + SLICES + p.group * STAGES * SLICE_BYTES;
    return p;
}

/* --- x: slices of TILE_M rows and CHUNK columns --- */

/* Offset in bytes of 8 neighbours (a piece) of a row of CHUNK. Pieces swap places by the row's number: neither
 * load_matrices (8 rows, the same piece of each) nor lanes that read 4 pieces of each of 8 rows meet in a bank. */
__device__ __forceinline__ unsigned piece_offset(int row, int piece) {
    return (unsigned)(row * PIECES + (piece ^ ((row & 1) << 2 | (row >> 1 & 3)))) * 16;
}

/* The row of x, in a slice, that a lane's token has; tokens beyond TILE_M repeat others and are never written. */
__device__ __forceinline__ int token_row(int token_tile, int token) {
    return TILE_M < 8 ? token % TILE_M : 8 * token_tile + token;
}

/* Requests a slice, shared out among the group's threads. Rows behind the end of x keep what the memory held:
 * they do not mix with others. */
__device__ __forceinline__ void request_slice(unsigned to, const struct place &p, const void *x, int k, int chunk) {
    const unsigned short *from = (const unsigned short *)x + (size_t)p.m0 * k + chunk * CHUNK;
#pragma unroll
    for (int i = 0; i < TILE_M * PIECES; i += GROUP_THREADS) {
        const int item = i + threadIdx.x % GROUP_THREADS, row = item / PIECES, piece = item % PIECES;
        if (row < p.rows) copy_async(to + piece_offset(row, piece), from + (size_t)row * k + 8 * piece, true);
    }
}

/* --- the rings --- */

/* Waits for the warps that share x. */
__device__ __forceinline__ void meet_group(const struct place &p) {
    if (WARPS_N == 1)
        __syncwarp();
    else
        barrier(1 + p.group, GROUP_THREADS);
}

/* Calls request(ring address, chunk) for the chunks of this warp's group, as early as there is room, and
 * compute(ring address, slice address) for each in turn. The group meets where x has landed for all, since each
 * waits only for its own part, and where all have left what is requested anew. */
template <class Request, class Compute>
__device__ __forceinline__ void run_chunks(const struct place &p, const struct arguments &a, Request request,
                                           Compute compute) {
    const int early = a.overlaps ? STAGES : 0; /* chunks that do not wait for the launch ahead */
#pragma unroll
    for (int i = 0; i < STAGES; i++)
        if (i < early && i < p.count) request(p.ring + i * SLOT_BYTES, p.first + i);
    programmatic_launch();
    programmatic_wait();
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
        if (early <= i && i < p.count) request(p.ring + i * SLOT_BYTES, p.first + i);
        if (i < p.count) request_slice(p.slices + i * SLICE_BYTES, p, a.operands.x, a.k, p.first + i);
        copy_async_commit();
    }
    for (int i = 0, stage = 0; i < p.count; i++, stage = stage + 1 == STAGES ? 0 : stage + 1) {
        const unsigned slot = p.ring + stage * SLOT_BYTES, slice = p.slices + stage * SLICE_BYTES;
        copy_async_wait<STAGES - 1>();
        meet_group(p);
        compute(slot, slice);
        meet_group(p);
        if (i + STAGES < p.count) {
            request(slot, p.first + i + STAGES);
            request_slice(slice, p, a.operands.x, a.k, p.first + i + STAGES);
        }
        copy_async_commit();
    }
}

/* --- sums on their way out: items of 4 pairs of columns, c and c + 8, of one row --- */

constexpr int ROW_ITEMS = TILE_N / 8, OWN_ITEMS = ROW_ITEMS / SPLIT_K;

/* The first column in the tile of item `item` of a row. */
__device__ __forceinline__ int item_column(int item) {
    return item / 2 * 16 + item % 2 * 4;
}

/* Leaves the warp's sums where its ring was. */
__device__ __forceinline__ void leave_sums(const struct sums &sums, const struct place &p) {
    float *own = (float *)((char *)shared_memory + p.warp * RING_BYTES) + p.lane / 4;
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; t++) {
        const int row = 8 * t + p.lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float(&s)[4] = sums.at[j][t];
            float *at = own + row * SUMS_PITCH + 16 * j;
            if (row < p.rows) at[0] = s[0], at[8] = s[2];
            if (row + 1 < p.rows) at[SUMS_PITCH] = s[1], at[SUMS_PITCH + 8] = s[3];
        }
    }
}

/* The same of the squares of the group's x, of one row, in the pitch behind that row's sums. */
__device__ __forceinline__ void leave_squares(const struct place &p, float lane_squares) {
    float squares = lane_squares;
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) squares += other_lane(squares, mask);
    if (p.lane == 0) *((float *)((char *)shared_memory + p.warp * RING_BYTES) + 64) = squares;
}

/* What makes the sums of row 0 those of a normalised x. */
__device__ __forceinline__ float norm_factor(const struct arguments &a) {
    float squares = 0;
#pragma unroll
    for (int g = 0; g < WARPS_K; g++)
        squares += *((const float *)((const char *)shared_memory + g * WARPS_N * RING_BYTES) + 64);
    return 1 / sqrtf(squares / a.k + a.operands.epsilon);
}

__device__ __forceinline__ void add_four(float (&sum)[4], const float4 &other) {
    sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
}

__device__ __forceinline__ void multiply_four(float (&sum)[4], float factor) {
#pragma unroll
    for (int i = 0; i < 4; i++) sum[i] *= factor;
}

/* An item added up over the groups of this block. */
__device__ __forceinline__ struct pairs<4> add_groups(int row, int item) {
    const int column = item_column(item);
    const char *from = (const char *)shared_memory + column / 64 * RING_BYTES;
    from += (row * SUMS_PITCH + column % 64) * 4;
    struct pairs<4> sum = {};
#pragma unroll
    for (int g = 0; g < WARPS_K; g++, from += WARPS_N * RING_BYTES) {
        add_four(sum.first, *(const float4 *)from);
        add_four(sum.second, *(const float4 *)(from + 8 * 4));
    }
    return sum;
}

/* Items of this block's share are those of the cluster with item % SPLIT_K == rank; they arrive as
 * [sender][row][item / SPLIT_K]. */
__device__ __forceinline__ unsigned
received_at(int sender, int row, int item) {
    return RECEIVED + ((sender * TILE_M + row) * OWN_ITEMS + item / SPLIT_K) * 32;
}

/* Says how much this block will be sent, before any block sends. */
__device__ __forceinline__ void announce_items(const struct place &p) {
    if (SPLIT_K == 1) return;
    if (threadIdx.x == 0) transfer_open(shared_address(shared_memory) + TRANSFER, SPLIT_K * p.rows * OWN_ITEMS * 32);
    cluster_arrive();
}

__device__ __forceinline__ void send_item(const struct pairs<4> &sum, int row, int item) {
    const unsigned memory = shared_address(shared_memory), owner = item % SPLIT_K;
    const unsigned to = cluster_address(memory + received_at(blockIdx.x % SPLIT_K, row, item), owner);
    const unsigned transfer = cluster_address(memory + TRANSFER, owner);
    send_remote4(to, make_float4(sum.first[0], sum.first[1], sum.first[2], sum.first[3]), transfer);
    send_remote4(to + 16, make_float4(sum.second[0], sum.second[1], sum.second[2], sum.second[3]), transfer);
}

/* An item added up over the blocks of the cluster. */
__device__ __forceinline__ struct pairs<4> add_blocks(int row, int item) {
    struct pairs<4> sum = {};
#pragma unroll
    for (int sender = 0; sender < SPLIT_K; sender++) {
        const float4 *from = (const float4 *)((const char *)shared_memory + received_at(sender, row, item));
        add_four(sum.first, from[0]);
        add_four(sum.second, from[1]);
    }
    return sum;
}

/* All threads of the block call this with their sums; with SQUARES, which is for one row and SPLIT_K == 1, after
 * leave_squares(). */
template <bool SQUARES = false>
__device__ __forceinline__ void store_sums(const struct sums &sums, const struct place &p, const struct arguments &a) {
    static_assert(!SQUARES || (TILE_M == 1 && SPLIT_K == 1), "one row, and all of its squares");
    const int tile_n0 = p.n0 - p.warp % WARPS_N * 64, items = min(ROW_ITEMS, (a.n - tile_n0) / 8);
    leave_sums(sums, p);
    __syncthreads();
    if (SPLIT_K > 1) {
        cluster_wait();
        for (int i = threadIdx.x; i < p.rows * ROW_ITEMS; i += THREADS)
            send_item(add_groups(i / ROW_ITEMS, i % ROW_ITEMS), i / ROW_ITEMS, i % ROW_ITEMS);
        transfer_wait(shared_address(shared_memory) + TRANSFER);
    }
    for (int i = threadIdx.x; i < p.rows * OWN_ITEMS; i += THREADS) {
        const int row = i / OWN_ITEMS, item = i % OWN_ITEMS * SPLIT_K + blockIdx.x % SPLIT_K;
        if (item >= items) continue;
        const int m = p.m0 + row, column = tile_n0 + item_column(item);
        const struct pairs<4> addend = load_addend<4>(a.operands, m, a.n, column);
        struct pairs<4> sum = SPLIT_K > 1 ? add_blocks(row, item) : add_groups(row, item);
        if (SQUARES) multiply_four(sum.first, norm_factor(a)), multiply_four(sum.second, norm_factor(a));
        store_outputs<4>(a.operands, m, a.n, column, sum, addend);
    }
}

#endif
