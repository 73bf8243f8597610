/* What the warps of the kernels for few tokens request of Marlin's layout for a chunk of 128 of k:
 *
 *      codes    8 Marlin tiles of 512 bytes, 16 a lane
 *      scales   RUN_COUNT times 128 bytes   } only where several groups share K
 *      zeros    RUN_COUNT times 32 bytes    } and the latter only with ZEROS
 *      extra    EXTRA_BYTES, which the including file defines, of its own
 *
 * GROUP is the rows that share a scale, 0 if all of K does; ZEROS whether zero points are stored. */
#ifndef TILEBOOK_MARLIN_SLOT_CUH
#define TILEBOOK_MARLIN_SLOT_CUH

constexpr int TILES = 128 / 16;
constexpr int RUN = GROUP ? GROUP : 128, RUN_COUNT = 128 / RUN; /* a run of k with one scale */
constexpr int SCALES = TILES * 512;
constexpr int ZERO_POINTS = SCALES + (GROUP ? RUN_COUNT * 128 : 0);
constexpr int EXTRA = ZERO_POINTS + (GROUP && ZEROS ? RUN_COUNT * 32 : 0);
constexpr int SLOT_BYTES = EXTRA + EXTRA_BYTES;

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

/* The zero points of a lane's columns where they hold for all of K: 8, or those stored. */
__device__ __forceinline__ unsigned common_zeros(const struct place &p, const struct arguments &a) {
    if (!ZEROS || GROUP || p.n0 >= a.n) return 0x88888888;
    return ((const unsigned *)a.operands.zeros)[p.n0 / 8 + p.lane / 4];
}

/* What a run's sums of x times codes are multiplied by and less by: scales as pairs of columns 16 j + lane / 4 and 8
 * further, zero points in nibbles j and j + 4. */
struct run_columns {
    unsigned scale[4], zeros;
};

/* Those of a run; ones and the common zero points where they hold for all of K. */
__device__ __forceinline__ struct run_columns load_run(const struct place &p, unsigned slot, int run, unsigned common) {
    struct run_columns c = {{0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00}, common};
    if (!GROUP) return c;
    const uint4 words = load_shared4(slot + SCALES + run * 128 + p.lane / 4 * 16);
    c.scale[0] = words.x, c.scale[1] = words.y, c.scale[2] = words.z, c.scale[3] = words.w;
    if (ZEROS) c.zeros = load_shared(slot + ZERO_POINTS + run * 32 + p.lane / 4 * 4);
    return c;
}

/* Scales and zero points of fragment j's two columns as floats. */
__device__ __forceinline__ void find_column_pair(const struct run_columns &c, int j, float (&scale)[2],
                                                 float (&zero)[2]) {
    half2_to_floats(c.scale[j], scale[0], scale[1]);
    half2_to_floats(half2_sub(and_or(c.zeros >> 4 * j, 0x000f000f, 0x64006400), 0x64006400), zero[0], zero[1]);
}

#endif
