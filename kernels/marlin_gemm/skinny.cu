/* y (M, N) = x (M, K) W for few tokens with x, y fp16 row-major and W 4-bit codes in Marlin's layout, fp32 sums
 * (sm_80 on; SPLIT_K > 1 from sm_90 on). The partition is drawn in cuda/skinny.cuh. Needs K % 128 == 0 and
 * N % 64 == 0; any M.
 *
 * A warp's slot of a chunk   codes    8 Marlin tiles of 512 bytes, 16 a lane
 *                            scales   RUN_COUNT times 128 bytes   } only where several groups share K
 *                            zeros    RUN_COUNT times 32 bytes    } and the latter only with ZEROS
 *
 * Codes become fp16 weights with two instructions a pair: the low 4 bits in the pattern of 1024 are 1024 + q, four
 * bits higher in the pattern of 64 they are 64 + q. What that is too much, and the zero point, is taken off the sums
 * of a run of k with one scale: sum over k of x (q - z) = sum of x (offset + q) - sum of x offset - z * sum of x. The
 * matrix unit makes the two sums over x alone from one more fragment, whose upper rows are offsets and lower are ones.
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
constexpr int TILES = 128 / 16;
constexpr int RUN = GROUP ? GROUP : 128, RUN_COUNT = 128 / RUN; /* a run of k with one scale */
constexpr int SCALES = TILES * 512;
constexpr int ZERO_POINTS = SCALES + (GROUP ? RUN_COUNT * 128 : 0);
constexpr int SLOT_BYTES = ZERO_POINTS + (GROUP && ZEROS ? RUN_COUNT * 32 : 0);

#include "cuda/skinny.cuh"
#include "marlin_gemm/codes.cuh"

/* Requests a warp's slot; columns behind n have no warp (TILE_N beyond it) and become zero. */
__device__ __forceinline__ void request_slot(unsigned to, const struct place &p, const struct arguments &a, int chunk) {
    const int blocks = a.n / 64, block = p.n0 / 64, groups = chunk * RUN_COUNT;
    const bool inside = block < blocks;
    const uint4 *codes = (const uint4 *)a.operands.weights + ((size_t)chunk * TILES * blocks + block) * 32 + p.lane;
#pragma unroll
    for (int i = 0; i < TILES; i++, codes += (size_t)blocks * 32) copy_async(to + i * 512 + p.lane * 16, codes, inside);
    if (!GROUP) return;
    if (p.lane < RUN_COUNT * 8) {
        const uint4 *scales = (const uint4 *)a.operands.scales + ((size_t)(groups + p.lane / 8) * blocks + block) * 8;
        copy_async(to + SCALES + p.lane * 16, scales + p.lane % 8, inside);
    }
    if (ZEROS && p.lane < RUN_COUNT * 2) {
        const uint4 *zeros = (const uint4 *)a.operands.zeros + ((size_t)(groups + p.lane / 2) * blocks + block) * 2;
        copy_async(to + ZERO_POINTS + p.lane * 16, zeros + p.lane % 2, inside);
    }
}

/* Minus the sums over x of a run, for each token: times the offsets in [0] and [1], as they are in [2] and [3]. */
struct offsets {
    float at[TOKEN_TILES][4];
};

/* Adds 32 of k to the sums; `step` counts 32s of the chunk. */
__device__ __forceinline__ void add_step(struct sums &part, struct offsets &offsets, const struct place &p,
                                         unsigned slot, unsigned slice, int step) {
    const unsigned minus[4] = {0xe400e400, 0xbc00bc00, 0xd400d400, 0xbc00bc00}; /* -1024, -1, -64, -1 */
    unsigned w[2][4][4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint4 words = load_shared4(slot + (2 * step + h) * 512 + p.lane * 16);
        decode_offset(w[h][0], words.x), decode_offset(w[h][1], words.y);
        decode_offset(w[h][2], words.z), decode_offset(w[h][3], words.w);
    }
#pragma unroll
    for (int t = 0; t < TOKEN_TILES; t++) {
        unsigned b[4];
        load_matrices(slice + piece_offset(token_row(t, p.lane % 8), 4 * step + p.lane / 8), b);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            multiply(offsets.at[t], minus, b[2 * h], b[2 * h + 1]);
#pragma unroll
            for (int j = 0; j < 4; j++) multiply(part.at[j][t], w[h][j], b[2 * h], b[2 * h + 1]);
        }
    }
}

/* sums += scale * (part - offsets - zero point * sum of x); nibbles j and j + 4 of `zeros` are the zero points of the
 * lane's columns of fragment j. */
__device__ __forceinline__ void add_run(struct sums &sums, const struct sums &part, const struct offsets &offsets,
                                        const unsigned (&scale)[4], unsigned zeros) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float first, second, zero_first, zero_second;
        half2_to_floats(scale[j], first, second);
        half2_to_floats(half2_sub(and_or(zeros >> 4 * j, 0x000f000f, 0x64006400), 0x64006400), zero_first, zero_second);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            const float(&o)[4] = offsets.at[t];
            const float(&s)[4] = part.at[j][t];
            sums.at[j][t][0] += first * (s[0] + (o[0] + zero_first * o[2]));
            sums.at[j][t][1] += first * (s[1] + (o[1] + zero_first * o[3]));
            sums.at[j][t][2] += second * (s[2] + (o[0] + zero_second * o[2]));
            sums.at[j][t][3] += second * (s[3] + (o[1] + zero_second * o[3]));
        }
    }
}

/* Adds a chunk to the sums; `zeros` are the zero points where they hold for all of K. */
__device__ __forceinline__ void add_chunk(struct sums &sums, const struct place &p, unsigned slot, unsigned slice,
                                          unsigned zeros) {
#pragma unroll
    for (int run = 0; run < RUN_COUNT; run++) {
        struct sums part = {};
        struct offsets offsets = {};
#pragma unroll
        for (int step = run * RUN / 32; step < (run + 1) * RUN / 32; step++)
            add_step(part, offsets, p, slot, slice, step);
        unsigned scale[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
        if (GROUP) {
            const uint4 words = load_shared4(slot + SCALES + run * 128 + p.lane / 4 * 16);
            scale[0] = words.x, scale[1] = words.y, scale[2] = words.z, scale[3] = words.w;
            if (ZEROS) zeros = load_shared(slot + ZERO_POINTS + run * 32 + p.lane / 4 * 4);
        }
        add_run(sums, part, offsets, scale, zeros);
    }
}

/* Multiplies the sums by the scales of one group for all of K. */
__device__ __forceinline__ void scale_sums(struct sums &sums, const struct place &p, const void *scales, int n) {
    if (p.n0 >= n) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float first, second;
        load_scales(scales, p.n0, p.lane, j, first, second);
#pragma unroll
        for (int t = 0; t < TOKEN_TILES; t++) {
            sums.at[j][t][0] *= first, sums.at[j][t][1] *= first;
            sums.at[j][t][2] *= second, sums.at[j][t][3] *= second;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) marlin_gemm(const __grid_constant__ struct arguments a) {
    const struct place p = find_place(a.m, a.n, a.k);
    struct sums sums = {};
    unsigned zeros = 0x88888888;
    announce_items(p);
    if (ZEROS && !GROUP && p.n0 < a.n) zeros = ((const unsigned *)a.operands.zeros)[p.n0 / 8 + p.lane / 4];
    run_chunks(
        p, a, [&](unsigned slot, int chunk) { request_slot(slot, p, a, chunk); },
        [&](unsigned slot, unsigned slice) { add_chunk(sums, p, slot, slice, zeros); });
    if (!GROUP) scale_sums(sums, p, a.operands.scales, a.n);
    store_sums(sums, p, a);
}
