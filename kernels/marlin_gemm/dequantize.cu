/* Marlin's codes (K/16, 2N) to weights (N, K) row-major: y[n,k] = (q - z) * scale, rounded to fp16, and with -DBF16
 * from there to bf16 (sm_80 on).
 *
 * A warp owns 64 x 64 weights, four of Marlin's 16 (k) x 64 (n) tiles one below the other. Lane 4 r + c reads 16 bytes
 * of each tile: word j has the codes of columns 16 j + r and 8 further, of k = 2 c, 2 c + 1, and 8 further.
 *
 *      row 16 j + r of y    0..7    8..15 |  16..23  24..31 |  32..39  40..47 |  48..55  56..63     of the warp's k
 *      tile, its half       0 low  0 high |  1 low   1 high |  2 low   2 high |  3 low   3 high
 *      lane c writes           0       1         2       3  |     0       1         2       3
 *
 * Of every such run of 8 each of the four lanes has a pair. They exchange words, not weights: those of tiles t and
 * t + 2 give one word of their lower halves and one of their upper ones, so that four words have for each lane the two
 * runs that it writes. A store of the warp is 64 bytes of eight rows each, and neighbouring warps continue the rows.
 * Needs K % 64 == 0 and N % 64 == 0. GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero
 * points are stored (else 8). */
#include "marlin_gemm/codes.cuh"

constexpr int TILES = 4, ROWS = 16 * TILES, COLUMNS = 64;
constexpr int GROUP_ROWS = GROUP ? GROUP : 1;
/* Groups that a warp's rows touch: the first 32 and the others may differ. */
constexpr int GROUPS = GROUP == 32 ? 2 : 1;

/* A warp's weights: its first row of W and its block of 64 columns; `inside` unless they lie behind the end. */
struct place {
    int k0, block, lane;
    bool inside;
};

__device__ __forceinline__ struct place find_place(const struct arguments &a) {
    const int number = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, across = a.k / ROWS;
    struct place p;
    p.k0 = number % across * ROWS, p.block = number / across;
    p.lane = threadIdx.x % 32;
    p.inside = p.block < a.n / COLUMNS;
    return p;
}

/* The lane's words of each tile. */
__device__ __forceinline__ void load_words(unsigned (&words)[TILES][4], const struct arguments &a,
                                           const struct place &p) {
    const uint4 *tiles = (const uint4 *)a.operands.weights + p.block * 32 + p.lane;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        const uint4 four = load_streaming4(tiles + (size_t)(p.k0 / 16 + t) * (a.n / 2));
        words[t][0] = four.x, words[t][1] = four.y, words[t][2] = four.z, words[t][3] = four.w;
    }
}

/* Scales and zero points of the lane's columns from row k on. */
__device__ __forceinline__ void load_columns(struct columns &columns, const struct arguments &a, const struct place &p,
                                             int k) {
    const int group = GROUP ? k / GROUP_ROWS : 0, at = group * (a.n / 8) + p.block * 8 + p.lane / 4;
    if (GROUP) {
        const uint4 scales = ((const uint4 *)a.operands.scales)[at];
        columns.scale[0] = scales.x, columns.scale[1] = scales.y;
        columns.scale[2] = scales.z, columns.scale[3] = scales.w;
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float first, second;
            load_scales(a.operands.scales, p.block * COLUMNS, p.lane, j, first, second);
            columns.scale[j] = half2_from_floats(first, second);
        }
    }
    set_zeros(columns, ZEROS ? ((const unsigned *)a.operands.zeros)[at] : 0x88888888);
}

/* Of four lanes, the i-th word of lane c becomes the c-th of lane i. */
__device__ __forceinline__ void transpose(unsigned (&words)[4], int lane) {
#pragma unroll
    for (int mask = 2; mask > 0; mask /= 2) {
        const bool upper = lane & mask;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & mask) continue;
            const unsigned other = other_lane(upper ? words[i] : words[i + mask], mask);
            words[i] = upper ? other : words[i];
            words[i + mask] = upper ? words[i + mask] : other;
        }
    }
}

/* Words j of the tiles as the lane's two runs of 8 codes, for both of j's columns: the first run's in the lower
 * nibbles, word c's codes being its pair c. */
__device__ __forceinline__ void exchange_runs(unsigned (&runs)[4], const unsigned (&words)[TILES][4], int j, int lane) {
    const unsigned lower = 0x0f0f0f0f, upper = 0xf0f0f0f0;
#pragma unroll
    for (int t = 0; t < 2; t++) {
        runs[2 * t] = and_or(words[t][j], lower, words[t + 2][j] << 4 & upper);
        runs[2 * t + 1] = and_or(words[t + 2][j], upper, words[t][j] >> 4 & lower);
    }
    transpose(runs, lane);
}

/* Weights of the lane's two runs: [c] as decode() has pair c of both, columns 16 j + r and 8 further. */
__device__ __forceinline__ void decode_runs(unsigned (&weights)[4][4], const unsigned (&runs)[4],
                                            const struct columns (&columns)[GROUPS], int j) {
#pragma unroll
    for (int c = 0; c < 4; c++) {
        decode<true>(weights[c], runs[c], columns[0], j);
        if (GROUPS == 1) continue;
        unsigned second[4];
        decode<true>(second, runs[c], columns[GROUPS - 1], j);
        weights[c][2] = second[2], weights[c][3] = second[3];
    }
}

/* A run is four pairs; `which` is their place in weights[c]. */
__device__ __forceinline__ void store_run(void *to, const unsigned (&weights)[4][4], int which) {
    *(uint4 *)to = make_uint4(weights[0][which], weights[1][which], weights[2][which], weights[3][which]);
}

extern "C" __global__ void __launch_bounds__(THREADS) dequantize(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a);
    unsigned words[TILES][4];
    struct columns columns[GROUPS];
    if (p.inside) load_words(words, a, p);
#pragma unroll
    for (int g = 0; p.inside && g < GROUPS; g++) load_columns(columns[g], a, p, p.k0 + g * 32);
    /* Words, scales and zero points nobody writes; y the launch ahead may still be reading. */
    programmatic_wait();
    if (!p.inside) return;
    const int column = p.block * COLUMNS + p.lane / 4;
    unsigned short *y = (unsigned short *)a.operands.y + (size_t)column * a.k + p.k0 + p.lane % 4 * 8;
#pragma unroll
    for (int j = 0; j < 4; j++, y += (size_t)16 * a.k) {
        unsigned runs[4], weights[4][4];
        exchange_runs(runs, words, j, p.lane);
        decode_runs(weights, runs, columns, j);
        store_run(y, weights, 0);
        store_run(y + 32, weights, 2);
        store_run(y + (size_t)8 * a.k, weights, 1);
        store_run(y + (size_t)8 * a.k + 32, weights, 3);
    }
}
