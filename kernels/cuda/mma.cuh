/* What the two mma.sync GEMMs share: the partition of y, the pipeline, the sums and their way out.
 *
 * They compute y^T = W^T x^T, so that a warp's 16-row side is columns of y (n) and its 8-wide side tokens
 * (m): one token costs 8 columns of the matrix unit, not 16 rows.
 *
 *        n: TILE_N = 64 * WARPS_N               A block owns TILE_M x TILE_N of y and 1/SPLIT_K of k. Each
 *      +--------+--------+                      warp owns 64 columns, WARP_M tokens and, of every TILE_K
 *   m  | warp 0 | warp 1 |  WARP_M tokens       of k, the warp_k-th slice of WARP_K. Sums over slices are
 *      +--------+--------+                      added in shared memory, over splits by the block that
 *      | warp 2 | warp 3 |                      arrives last; both in a fixed order, so that the same
 *      +--------+--------+  (times WARPS_K)     input gives the same bits.
 *
 * TILE_M, TILE_N, TILE_K, WARPS_K, STAGES and SPLIT_K are the tile parameters; kernels/mma.c is the host's
 * side of the same arithmetic, and SHARED_BYTES its result. */
#ifndef TILEBOOK_MMA_CUH
#define TILEBOOK_MMA_CUH

#include "cuda/epilogue.cuh"

constexpr int WARPS_N = TILE_N / 64;
constexpr int WARPS_M = TILE_M > 64 ? TILE_M / 64 : 1;
constexpr int WARP_M = TILE_M / WARPS_M;
constexpr int WARP_K = TILE_K / WARPS_K;
constexpr int TOKEN_TILES = WARP_M / 8;
constexpr int THREADS = 32 * WARPS_N * WARPS_M * WARPS_K;
constexpr int X_BYTES = TILE_M * TILE_K * 2;
static_assert(THREADS % (TILE_K / 8) == 0, "every thread has one chunk of a row");

/* Rows of y in shared memory are 16 bytes longer, which spreads a warp's stores over the banks. */
constexpr int Y_WIDTH = TILE_N / COLUMNS_OF_Y;
constexpr int Y_PITCH = Y_WIDTH + 8;
constexpr int STAGED_BYTES = 2 * TILE_M * Y_PITCH;
constexpr int REDUCTION_BYTES = WARPS_K / 2 * TILE_M * TILE_N * 4;
constexpr int EPILOGUE_BYTES = REDUCTION_BYTES > STAGED_BYTES ? REDUCTION_BYTES : STAGED_BYTES;

extern __shared__ uint4 shared_memory[];

/* fp32 sums of a warp's 64 x WARP_M part of y^T: [16 columns][8 tokens][fragment of multiply()]. */
struct sums {
    float at[4][TOKEN_TILES][4];
};

/* Where this thread works: its block's first row and column of y, its stages of k, its warp's part. */
struct place {
    int m0, n0;            /* of the block */
    int k_first, k_stages; /* in units of TILE_K */
    int lane, warp_n, warp_m, warp_k;
};

/* Blocks walk down bands of 8 tiles of rows, so that those which run together share x and W in L2. */
__device__ __forceinline__ struct place find_place(int m, int n, int k) {
    const int tiles_m = (m + TILE_M - 1) / TILE_M, tiles_n = (n + TILE_N - 1) / TILE_N;
    int tile_m = 0, tile_n = blockIdx.x;
    if (tiles_m > 1) {
        const int band = tile_n / (8 * tiles_n), inside = tile_n - band * 8 * tiles_n;
        const int height = min(8, tiles_m - 8 * band);
        tile_m = 8 * band + inside % height;
        tile_n = inside / height;
    }
    const int stages = k / TILE_K, split = blockIdx.y, warp = threadIdx.x / 32;
    struct place p;
    p.m0 = tile_m * TILE_M;
    p.n0 = tile_n * TILE_N;
    p.k_first = stages * split / SPLIT_K;
    p.k_stages = stages * (split + 1) / SPLIT_K - p.k_first;
    p.lane = threadIdx.x % 32;
    p.warp_n = warp % WARPS_N;
    p.warp_m = warp / WARPS_N % WARPS_M;
    p.warp_k = warp / (WARPS_N * WARPS_M);
    return p;
}

/* --- a tile of rows, TILE_K values wide --- */

/* Offset in bytes of 8 neighbours (a chunk) of a row. Chunks of 8 successive rows swap places by the row's
 * number, so that neither copies of rows nor load_matrices meet in a bank. */
__device__ __forceinline__ unsigned chunk_offset(int row, int chunk) {
    return (unsigned)(row * (TILE_K / 8) + (chunk ^ (row & 7))) * 16;
}

/* Requests rows first..first+ROWS-1, columns k0..k0+TILE_K-1 of the matrix `from` (rows, k); rows
 * behind its end become zero. A thread keeps its chunk and strides over rows: one address is all it holds. */
template <int ROWS>
__device__ __forceinline__ void request_rows(unsigned to, const void *from, int first, int rows, int k, int k0) {
    constexpr int CHUNKS = TILE_K / 8, STRIDE = THREADS / CHUNKS;
    const int row0 = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const unsigned short *source = (const unsigned short *)from + (size_t)(first + row0) * k + k0 + 8 * chunk;
#pragma unroll
    for (int i = 0; i < ROWS; i += STRIDE, source += (size_t)STRIDE * k) {
        const int row = row0 + i;
        if (ROWS % STRIDE && row >= ROWS) break;
        copy_async(to + chunk_offset(row, chunk), source, first + row < rows);
    }
}

/* B fragments of 8 tokens and 32 of k (two multiply() steps: pairs 0, 1 and 2, 3); `step` counts 32s. */
__device__ __forceinline__ void load_tokens(unsigned x, const struct place &p, int token_tile, int step,
                                            unsigned (&b)[4]) {
    const int row = p.warp_m * WARP_M + 8 * token_tile + p.lane % 8;
    load_matrices(x + chunk_offset(row, 4 * step + p.lane / 8), b);
}

/* --- the pipeline --- */

/* Stages that are requested at once. */
__device__ __forceinline__ int first_stages(const struct place &p) {
    return min(STAGES - 1, p.k_stages);
}

/* Calls request(i, stage) for i = 0..count-1, STAGES - 1 ahead of compute(stage). One barrier a step is
 * enough: behind it every thread's copies of this stage have landed (each waited for its own before it),
 * and every warp has left the stage that the new request overwrites (it was computed one step ago). */
template <class Request, class Compute>
__device__ __forceinline__ void run_pipeline(int count, Request request, Compute compute) {
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < count) request(i, i);
        copy_async_commit();
    }
    int computed = 0, requested = STAGES - 1;
    for (int i = 0; i < count; i++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (i + STAGES - 1 < count) request(i + STAGES - 1, requested);
        copy_async_commit();
        compute(computed);
        computed = computed + 1 == STAGES ? 0 : computed + 1;
        requested = requested + 1 == STAGES ? 0 : requested + 1;
    }
    __syncthreads();
}

/* --- sums on their way out; all threads of the block call these, after the pipeline --- */

/* Adds the sums of the warps that share columns and tokens; warps with warp_k == 0 hold the result. */
__device__ __forceinline__ void reduce_warps(struct sums &sums, const struct place &p) {
    float4 *memory = (float4 *)shared_memory;
#pragma unroll
    for (int half = WARPS_K / 2; half > 0; half /= 2) {
        const int slot = (p.warp_k % half * WARPS_M + p.warp_m) * WARPS_N + p.warp_n;
        float4 *own = memory + slot * (4 * TOKEN_TILES * 32) + p.lane;
        if (p.warp_k >= half && p.warp_k < 2 * half)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int t = 0; t < TOKEN_TILES; t++) {
                    const float(&s)[4] = sums.at[j][t];
                    own[(j * TOKEN_TILES + t) * 32] = make_float4(s[0], s[1], s[2], s[3]);
                }
        __syncthreads();
        if (p.warp_k < half)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int t = 0; t < TOKEN_TILES; t++) {
                    const float4 other = own[(j * TOKEN_TILES + t) * 32];
                    float(&s)[4] = sums.at[j][t];
                    s[0] += other.x, s[1] += other.y, s[2] += other.z, s[3] += other.w;
                }
        __syncthreads();
    }
}

/* Adds the sums of the blocks that share a tile: each writes its own to the workspace, behind the counters,
 * as fp32 [tile][split][warp][fragment][lane]; the last to arrive adds them up in the order of the splits
 * and leaves the counter zero again. True in the block that holds the result. */
__device__ __forceinline__ bool reduce_splits(struct sums &sums, const struct place &p, void *workspace) {
    if (SPLIT_K == 1) return true;
    constexpr int TILE_FLOATS4 = TILE_M * TILE_N / 4, WARP_FLOATS4 = 4 * TOKEN_TILES * 32;
    unsigned *counter = (unsigned *)workspace + blockIdx.x;
    float4 *partial = (float4 *)((char *)workspace + WORKSPACE_COUNTER_BYTES);
    partial += (size_t)blockIdx.x * SPLIT_K * TILE_FLOATS4 + (p.warp_m * WARPS_N + p.warp_n) * WARP_FLOATS4 + p.lane;
    if (p.warp_k == 0)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; t++) {
                const float(&s)[4] = sums.at[j][t];
                partial[blockIdx.y * TILE_FLOATS4 + (j * TOKEN_TILES + t) * 32] = make_float4(s[0], s[1], s[2], s[3]);
            }
    __syncthreads();
    const bool last = threadIdx.x == 0 && count_arrival(counter) == SPLIT_K - 1;
    if (!__syncthreads_or(last)) return false;
    if (threadIdx.x == 0) *counter = 0;
    if (p.warp_k == 0)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; t++) {
                float(&s)[4] = sums.at[j][t];
                s[0] = s[1] = s[2] = s[3] = 0;
#pragma unroll
                for (int split = 0; split < SPLIT_K; split++) {
                    const float4 part = load_published(partial + split * TILE_FLOATS4 + (j * TOKEN_TILES + t) * 32);
                    s[0] += part.x, s[1] += part.y, s[2] += part.z, s[3] += part.w;
                }
            }
    return true;
}

/* Calls move(matrix, staged), 16 bytes each, for what the tile has of a matrix of y's shape and its place in shared
 * memory. */
template <class Move>
__device__ __forceinline__ void for_tile(const struct place &p, const void *matrix, int m, int n, Move move) {
    unsigned short *staged = (unsigned short *)shared_memory;
    const int width = n / COLUMNS_OF_Y, column0 = p.n0 / COLUMNS_OF_Y;
    for (int i = threadIdx.x; i < TILE_M * Y_WIDTH / 8; i += THREADS) {
        const int row = i / (Y_WIDTH / 8), column = i % (Y_WIDTH / 8) * 8;
        if (p.m0 + row < m && column0 + column < width)
            move((uint4 *)((unsigned short *)matrix + (size_t)(p.m0 + row) * width + column0 + column),
                 (uint4 *)(staged + row * Y_PITCH + column));
    }
}

/* One pair of sums to their places in the staged tile, where a residual lies already. */
__device__ __forceinline__ void stage_pair(unsigned short *at, float first, float second, const struct pairs<1> &bias) {
    const bool residual = EPILOGUE == EPILOGUE_RESIDUAL;
    finish(first, second, residual ? value_to_float(at[0]) : bias.first[0],
           residual ? value_to_float(at[8]) : bias.second[0]);
    const unsigned word = values_from_floats(first, second);
    at[0] = (unsigned short)word;
    if (COLUMNS_OF_Y == 1) at[8] = (unsigned short)(word >> 16);
}

/* Writes what becomes of the sums as rows of y, through shared memory, 16 bytes a thread. A residual comes in
 * the same way, whole, before any of y is written: they may be the same matrix. */
__device__ __forceinline__ void store_sums(const struct sums &sums, const struct place &p, const struct arguments &a) {
    if (EPILOGUE == EPILOGUE_RESIDUAL) {
        for_tile(p, a.operands.addend, a.m, a.n, [](const uint4 *from, uint4 *to) { *to = *from; });
        __syncthreads();
    }
    const int c0 = p.warp_n * 64 + p.lane / 4;
    if (p.warp_k == 0 && p.n0 + c0 < a.n)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            struct pairs<1> bias = {};
            if (EPILOGUE == EPILOGUE_BIAS) bias = load_addend<1>(a.operands, 0, a.n, p.n0 + c0 + 16 * j);
#pragma unroll
            for (int t = 0; t < TOKEN_TILES; t++) {
                const int row = p.warp_m * WARP_M + 8 * t + 2 * (p.lane % 4);
                unsigned short *at = (unsigned short *)shared_memory + row * Y_PITCH + output_column(c0 + 16 * j);
                const float(&s)[4] = sums.at[j][t];
                stage_pair(at, s[0], s[2], bias);
                stage_pair(at + Y_PITCH, s[1], s[3], bias);
            }
        }
    __syncthreads();
    for_tile(p, a.operands.y, a.m, a.n, [](uint4 *to, const uint4 *from) { *to = *from; });
}

#endif
