/* From Marlin's 4-bit codes to weights of x's type, as A fragments of the matrix unit. */
#ifndef TILEBOOK_MARLIN_CODES_CUH
#define TILEBOOK_MARLIN_CODES_CUH

#include "cuda/ptx.cuh"

/* What turns a lane's codes of 64 columns into weights; the lane has columns 8 * c + lane / 4, c = 0..7.
 * A code q in the low 4 bits of the pattern of 1024 is 1024 + q, four bits higher 1024 + 16 q; both are
 * exact, and so is subtracting: (1024 + q) - (1024 + z), and (1024 + 16 q) / 16 - (64 + z). bf16 has room for a code
 * in the low 4 bits alone, of the pattern of 128. Scales are fp16 and would lose three bits: where weights are scaled
 * they are so in fp16, and rounded to bf16 then. */
struct columns {
    unsigned low[8];   /* pairs of 1024 + z */
    unsigned high[8];  /* pairs of -(64 + z) */
    unsigned bf16[8];  /* pairs of -(128 + z), in bf16, for weights that are not scaled */
    unsigned scale[4]; /* of columns c = 2 j and 2 j + 1 */
};

/* The patterns of 1, 128 and -128 in bf16. */
constexpr unsigned BF16_ONE = 0x3f803f80, BF16_128 = 0x43004300, BF16_MINUS_128 = 0xc300c300;

/* Zero points from the lane's word: nibbles j and j + 4 are columns 2 j and 2 j + 1. */
__device__ __forceinline__ void set_zeros(struct columns &columns, unsigned word) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned z = word >> 4 * j & 0x000f000f;
        const unsigned low = z | 0x64006400, high = z << 4 | 0xd400d400;
        columns.low[2 * j] = low_halves(low, low);
        columns.low[2 * j + 1] = high_halves(low, low);
        columns.high[2 * j] = low_halves(high, high);
        columns.high[2 * j + 1] = high_halves(high, high);
        columns.bf16[2 * j] = low_halves(z | BF16_MINUS_128, z | BF16_MINUS_128);
        columns.bf16[2 * j + 1] = high_halves(z | BF16_MINUS_128, z | BF16_MINUS_128);
    }
}

/* A word of eight codes as 128 + q in bf16. */
__device__ __forceinline__ void decode_bf16(unsigned (&a)[4], unsigned word) {
    a[0] = and_or(word, 0x000f000f, BF16_128);
    a[2] = and_or(word >> 4, 0x000f000f, BF16_128);
    a[1] = and_or(word >> 8, 0x000f000f, BF16_128);
    a[3] = and_or(word >> 12, 0x000f000f, BF16_128);
}

/* A word of eight codes as the A fragment of columns 16 j.. and 16 of k, times the scales if SCALED. */
template <bool SCALED>
__device__ __forceinline__ void decode(unsigned (&a)[4], unsigned word, const struct columns &columns, int j) {
    const unsigned sixteenth = 0x2c002c00, bits = 0x64006400;
    if (VALUES_ARE_BF16 && !SCALED) {
        decode_bf16(a, word);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = bf16x2_fma(a[i], BF16_ONE, columns.bf16[2 * j + i % 2]);
        return;
    }
    a[0] = half2_sub(and_or(word, 0x000f000f, bits), columns.low[2 * j]);
    a[2] = half2_fma(and_or(word, 0x00f000f0, bits), sixteenth, columns.high[2 * j]);
    word >>= 8;
    a[1] = half2_sub(and_or(word, 0x000f000f, bits), columns.low[2 * j + 1]);
    a[3] = half2_fma(and_or(word, 0x00f000f0, bits), sixteenth, columns.high[2 * j + 1]);
    if (SCALED) {
        const unsigned first = low_halves(columns.scale[j], columns.scale[j]);
        const unsigned second = high_halves(columns.scale[j], columns.scale[j]);
        a[0] = half2_mul(a[0], first), a[2] = half2_mul(a[2], first);
        a[1] = half2_mul(a[1], second), a[3] = half2_mul(a[3], second);
    }
#pragma unroll
    for (int i = 0; VALUES_ARE_BF16 && i < 4; i++) a[i] = values_from_half2(a[i]);
}

/* The same without taking off what the patterns add: q + 1024 in the lower 8 of k, and q + 64 in the upper ones, whose
 * bits count from 16 on in the pattern of 64; in bf16 q + 128 everywhere. */
__device__ __forceinline__ void decode_offset(unsigned (&a)[4], unsigned word) {
    if (VALUES_ARE_BF16) {
        decode_bf16(a, word);
        return;
    }
    a[0] = and_or(word, 0x000f000f, 0x64006400);
    a[2] = and_or(word, 0x00f000f0, 0x54005400);
    word >>= 8;
    a[1] = and_or(word, 0x000f000f, 0x64006400);
    a[3] = and_or(word, 0x00f000f0, 0x54005400);
}

/* The A fragment that makes the sums over x alone: its upper 8 rows are minus what decode_offset() adds, its lower ones
 * -1. */
__device__ __forceinline__ void load_minus_offsets(unsigned (&a)[4]) {
    a[0] = VALUES_ARE_BF16 ? BF16_MINUS_128 : 0xe400e400;    /* -1024 */
    a[2] = VALUES_ARE_BF16 ? BF16_MINUS_128 : 0xd400d400;    /* -64 */
    a[1] = a[3] = VALUES_ARE_BF16 ? 0xbf80bf80 : 0xbc00bc00; /* -1 */
}

/* The scales that hold for all of K of a lane's columns 16 j + lane / 4 and 8 further, of 64 from `column` on. Of every
 * 32 columns, position 8 i + t holds column 2 i + {0, 1, 8, 9, 16, 17, 24, 25}[t]: the two are two positions apart. */
__device__ __forceinline__ void load_scales(const void *scales, int column, int lane, int j, float &first,
                                            float &second) {
    const unsigned short *pair = (const unsigned short *)scales + column + j / 2 * 32 + lane / 8 * 8 + lane / 4 % 2;
    first = half_to_float(pair[j % 2 * 4]), second = half_to_float(pair[j % 2 * 4 + 2]);
}

#endif
