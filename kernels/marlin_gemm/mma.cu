/* y (M, N) = x (M, K) W with x, y row-major, fp16 or bf16, and W 4-bit codes in Marlin's layout, fp32 sums, on mma.sync
 * and cp.async (sm_80 on). The partition is drawn in cuda/mma.cuh. Marlin's 16 (k) x 64 (n) tile is 512 bytes in which
 * lane l's 16 bytes are its A fragments for four times 16 columns: nothing is shuffled, one load feeds four multiply()
 * steps. Needs K % TILE_K == 0 and N % 64 == 0; any M.
 *
 * A stage holds   x       TILE_M rows of TILE_K
 *                 codes   TILE_K / 16 x TILE_N / 64 Marlin tiles, 512 bytes each
 *                 scales  GROUPS x TILE_N / 64 times 128 bytes   } only where several groups share K
 *                 zeros   GROUPS x TILE_N / 64 times 32 bytes    } and the latter only with ZEROS
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
#include "cuda/mma.cuh"
#include "marlin_gemm/codes.cuh"

/* Groups that a stage touches; with one group for all of K its scales and zero points stay out of the stages. */
constexpr int GROUP_ROWS = GROUP ? GROUP : 1;
constexpr int GROUPS = GROUP == 0 ? 0 : TILE_K > GROUP ? TILE_K / GROUP_ROWS : 1;
constexpr int CODES = X_BYTES;
constexpr int SCALES = CODES + TILE_K * TILE_N / 2;
constexpr int ZERO_POINTS = SCALES + GROUPS * TILE_N * 2;
constexpr int STAGE_BYTES = (ZERO_POINTS + GROUPS * ZEROS * TILE_N / 2 + 127) / 128 * 128;
static_assert(SHARED_BYTES >= STAGES * STAGE_BYTES && SHARED_BYTES >= EPILOGUE_BYTES, "kernels/mma.c disagrees");

/* A run of k within a warp's slice that has one scale for each column. */
constexpr int RUN = GROUP == 0 || WARP_K < GROUP ? WARP_K : GROUP;

/* With few tokens it is cheaper to scale the sums of a run than its weights. */
constexpr bool SCALE_SUMS = GROUP != 0 && TILE_M <= 16;
constexpr bool SCALE_WEIGHTS = GROUP != 0 && !SCALE_SUMS;

/* Reads scales and zero points of one run from a stage. */
__device__ __forceinline__ void load_columns(struct columns &columns, const struct place &p, unsigned stage, int k) {
    const int group = GROUPS > 1 ? k / GROUP_ROWS : 0;
    const int block = group * WARPS_N + p.warp_n, lane = p.lane / 4;
    const uint4 scales = load_shared4(stage + SCALES + block * 128 + lane * 16);
    columns.scale[0] = scales.x, columns.scale[1] = scales.y, columns.scale[2] = scales.z, columns.scale[3] = scales.w;
    if (ZEROS) set_zeros(columns, load_shared(stage + ZERO_POINTS + block * 32 + lane * 4));
}

/* Adds 32 of k of a stage to the sums; `step` counts 32s. */
__device__ __forceinline__ void add_step(struct sums &sums, const struct columns &columns, const struct place &p,
                                         unsigned stage, int step) {
    unsigned a[2][4][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int tile = (2 * step + h) * WARPS_N + p.warp_n;
        const uint4 words = load_shared4(stage + CODES + tile * 512 + p.lane * 16);
        decode<SCALE_WEIGHTS>(a[h][0], words.x, columns, 0);
        decode<SCALE_WEIGHTS>(a[h][1], words.y, columns, 1);
        decode<SCALE_WEIGHTS>(a[h][2], words.z, columns, 2);
        decode<SCALE_WEIGHTS>(a[h][3], words.w, columns, 3);
    }
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; t++) {
        unsigned b[4];
        load_tokens(stage, p, t, step, b);
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < 4; j++) multiply(sums.at[j][t], a[h][j], b[2 * h], b[2 * h + 1]);
    }
}

/* sums += scale * part, column by column. */
__device__ __forceinline__ void add_scaled(struct sums &sums, const struct sums &part, const unsigned (&scale)[4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float first, second;
        half2_to_floats(scale[j], first, second);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            sums.at[j][t][0] += first * part.at[j][t][0], sums.at[j][t][1] += first * part.at[j][t][1];
            sums.at[j][t][2] += second * part.at[j][t][2], sums.at[j][t][3] += second * part.at[j][t][3];
        }
    }
}

/* Adds the warp's slice of one stage to the sums. */
__device__ __forceinline__ void add_stage(struct sums &sums, struct columns &columns, const struct place &p,
                                          unsigned stage) {
#pragma unroll
    for (int k = 0; k < WARP_K; k += RUN) {
        struct sums part = {};
        if (GROUP) load_columns(columns, p, stage, p.warp_k * WARP_K + k);
#pragma unroll
        for (int i = 0; i < RUN; i += 32)
            add_step(SCALE_SUMS ? part : sums, columns, p, stage, (p.warp_k * WARP_K + k + i) / 32);
        if (SCALE_SUMS) add_scaled(sums, part, columns.scale);
    }
}

/* Requests ROWS rows of a matrix that lies in blocks of BYTES for every 64 columns, from row `first` and the
 * tile's first column on; columns behind n become zero. */
template <int ROWS, int BYTES>
__device__ __forceinline__ void request_blocks(unsigned to, const void *from, int first, int n0, int n) {
    constexpr int BLOCK = BYTES / 16, CHUNKS = BLOCK * WARPS_N, STRIDE = THREADS / CHUNKS;
    const int row0 = threadIdx.x / CHUNKS, chunk = n0 / 64 * BLOCK + threadIdx.x % CHUNKS, chunks = n / 64 * BLOCK;
    const uint4 *source = (const uint4 *)from + (size_t)(first + row0) * chunks + chunk;
#pragma unroll
    for (int i = 0; i < ROWS; i += STRIDE, source += (size_t)STRIDE * chunks) {
        if (ROWS % STRIDE && row0 + i >= ROWS) break;
        copy_async(to + (i * CHUNKS + threadIdx.x) * 16, source, chunk < chunks);
    }
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const void *scales, int n) {
    const int column = p.n0 + p.warp_n * 64;
    if (column >= n) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float first, second;
        load_scales(scales, column, p.lane, j, first, second);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            sums.at[j][t][0] *= first, sums.at[j][t][1] *= first;
            sums.at[j][t][2] *= second, sums.at[j][t][3] *= second;
        }
    }
}

/* The zero points that hold for all of K: 8, or those stored if there is one group. */
__device__ __forceinline__ void start_columns(struct columns &columns, const struct place &p, const void *zeros,
                                              int n) {
    set_zeros(columns, 0x88888888);
    const int block = p.n0 / 64 + p.warp_n;
    if (ZEROS && !GROUP && block < n / 64) set_zeros(columns, ((const unsigned *)zeros)[block * 8 + p.lane / 4]);
}

/* Brings the codes of the first stages closer while the launch ahead still runs. */
__device__ __forceinline__ void prefetch_codes(const struct place &p, const struct arguments &a) {
    const int row0 = p.k_first * TILE_K / 16, rows = first_stages(p) * (TILE_K / 16), tiles = a.n / 64;
    const char *from = (const char *)a.operands.weights + ((size_t)row0 * tiles + p.n0 / 64) * 512;
    for (int i = threadIdx.x; i < rows; i += THREADS)
        prefetch_cache(from + (size_t)i * tiles * 512, min(TILE_N / 64, tiles - p.n0 / 64) * 512);
}

extern "C" __global__ void __launch_bounds__(THREADS) marlin_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    programmatic_launch();
    if (a.overlaps) prefetch_codes(p, a);
    programmatic_wait();
    const unsigned memory = shared_address(shared_memory);
    struct sums sums = {};
    struct columns columns;
    start_columns(columns, p, a.operands.zeros, a.n);
    run_pipeline(
        p.k_stages,
        [&](int i, int stage) {
            const unsigned to = memory + stage * STAGE_BYTES;
            const int k0 = (p.k_first + i) * TILE_K;
            request_blocks<TILE_K / 16, 512>(to + CODES, a.operands.weights, k0 / 16, p.n0, a.n);
            request_rows<TILE_M>(to, a.operands.x, p.m0, a.m, a.k, k0);
            request_blocks<GROUPS, 128>(to + SCALES, a.operands.scales, k0 / GROUP_ROWS, p.n0, a.n);
            request_blocks<GROUPS * ZEROS, 32>(to + ZERO_POINTS, a.operands.zeros, k0 / GROUP_ROWS, p.n0, a.n);
        },
        [&](int stage) { add_stage(sums, columns, p, memory + stage * STAGE_BYTES); });
    reduce_warps(sums, p);
    if (!GROUP && p.warp_k == 0) scale_sums(sums, p, a.operands.scales, a.n);
    if (reduce_splits(sums, p, a.operands.workspace)) store_sums(sums, p, a);
}
