/* The formulas of the reference, one text for the host (C) and the device (CUDA): random numbers by counter,
 * and the weight at (k, n) from each layout, position by position. Written from the definition of the formats
 * alone, so that an error of the packers or of a kernel cannot hide in it. */
#ifndef TILEBOOK_REFERENCE_CUH
#define TILEBOOK_REFERENCE_CUH

#ifdef __CUDACC__
#define REFERENCE static __device__ inline
#else
#include <math.h>

#include "kernels/half.h"
#define REFERENCE static inline
#endif

enum reference_layout { REFERENCE_PLAIN, REFERENCE_AWQ, REFERENCE_MARLIN };
enum reference_epilogue { REFERENCE_NONE, REFERENCE_BIAS, REFERENCE_RESIDUAL, REFERENCE_SILU_MUL };

/* What an entry of reference.cu takes; pointers and numbers as kernel.h defines them for the op. */
struct reference_problem {
    const unsigned short *x;
    const void *weights;
    const unsigned short *scales;
    const unsigned *zeros; /* NULL: 8 everywhere */
    const unsigned short *addend;
    float *y;
    int layout, epilogue, m, n, k, group;
    const float *gain; /* NULL: x as it is */
    float epsilon;
    int bf16; /* x, addend, and weights that are no codes */
};

struct reference_fill {
    void *to;
    unsigned long long count; /* of elements: 16-bit values, or bytes */
    unsigned long long seed;
    float low, high;
    int bf16; /* values: else fp16 */
};

/* What one block, or one processor, saw of a comparison. */
struct reference_sums {
    double difference, reference; /* sums of squares over the finite elements of y */
    unsigned long long bad, first_bad;
};

struct reference_comparison {
    const unsigned short *y;
    const float *reference;
    unsigned long long count;
    struct reference_sums *sums; /* one a block */
    int bf16;                    /* y; else fp16 */
};

#ifdef __CUDACC__
/* The value of an fp16 word. */
REFERENCE float reference_half_value(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

/* Rounds to fp16, to nearest, ties to even. */
REFERENCE unsigned short reference_half_word(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

/* The same for bf16. */
REFERENCE float reference_bf16_value(unsigned short word) {
    return __uint_as_float((unsigned)word << 16);
}
REFERENCE unsigned short reference_bf16_word(float value) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %1;" : "=r"(pair) : "f"(value));
    return (unsigned short)pair;
}

/* low + span * unit with two roundings: fusing them would give other numbers than the host. */
REFERENCE float reference_scale(float low, float span, float unit) {
    return __fadd_rn(low, __fmul_rn(span, unit));
}
#else
REFERENCE float reference_half_value(unsigned short half) {
    return half_to_float(half);
}

REFERENCE unsigned short reference_half_word(float value) {
    return half_from_float(value);
}

REFERENCE float reference_bf16_value(unsigned short word) {
    return bf16_to_float(word);
}

REFERENCE unsigned short reference_bf16_word(float value) {
    return bf16_from_float(value);
}

REFERENCE float reference_scale(float low, float span, float unit) {
    float product = span * unit;
    return low + product;
}
#endif

/* The value of a word of either type. */
REFERENCE float reference_value(unsigned short word, int bf16) {
    return bf16 ? reference_bf16_value(word) : reference_half_value(word);
}

/* 64 random bits for a seed and an index: a Weyl sequence through splitmix64's finalizer, twice, so that
 * neighbouring seeds share nothing. */
REFERENCE unsigned long long reference_random(unsigned long long seed, unsigned long long index) {
    unsigned long long bits = seed;
    for (int round = 0; round < 2; round++) {
        bits += 0x9e3779b97f4a7c15ull * (round ? index + 1 : 1);
        bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9ull;
        bits = (bits ^ bits >> 27) * 0x94d049bb133111ebull;
        bits ^= bits >> 31;
    }
    return bits;
}

/* Element `index` of a uniform fill: 24 random bits, which an fp32 holds exactly. */
REFERENCE unsigned short reference_random_word(const struct reference_fill *fill, unsigned long long index) {
    float unit = (float)(reference_random(fill->seed, index) >> 40) * 0x1p-24f;
    float value = reference_scale(fill->low, fill->high - fill->low, unit);
    return fill->bf16 ? reference_bf16_word(value) : reference_half_word(value);
}

/* AWQ keeps column 8c + j in nibble j/2 for even j and 4 + j/2 for odd j. */
REFERENCE unsigned reference_awq_nibble(const unsigned *words, int row, int column, int n) {
    unsigned word = words[(long long)row * (n / 8) + column / 8];
    int j = column % 8;
    return word >> 4 * (j % 2 * 4 + j / 2) & 15;
}

/* Marlin's 16 (K) x 64 (N) tile: word 4 * lane + j, where the lane is 4 * (column % 8) + (row % 8) / 2 and j
 * the 16 columns; the nibble takes the row's lowest bit, the column's 8s and the row's 8s. */
REFERENCE unsigned reference_marlin_code(const unsigned *words, int k, int n, int columns) {
    int row = k % 16, column = n % 64;
    int lane = column % 8 * 4 + row % 8 / 2, j = column / 16;
    int nibble = row % 2 * 4 + column / 8 % 2 * 2 + row / 8;
    unsigned word = words[(long long)(k / 16) * 2 * columns + n / 64 * 128 + lane * 4 + j];
    return word >> 4 * nibble & 15;
}

/* Column a + 8 * c of 64 lies in word a, in AWQ's nibble order of c. */
REFERENCE unsigned reference_marlin_zero(const unsigned *words, int group, int n, int columns) {
    unsigned word = words[(long long)group * (columns / 8) + n / 64 * 8 + n % 8];
    int c = n % 64 / 8;
    return word >> 4 * (c % 2 * 4 + c / 2) & 15;
}

/* Where the scale of column n lies in its row. Grouped: column a + 8b of 64 at 8a + b. One group for all of
 * K: column 2i + {0, 1, 8, 9, 16, 17, 24, 25}[t] of 32 at 8i + t. */
REFERENCE int reference_marlin_scale(int n, int single) {
    if (!single) return n / 64 * 64 + n % 8 * 8 + n % 64 / 8;
    int column = n % 32, i = column % 8 / 2, t = column / 8 * 2 + column % 2;
    return n / 32 * 32 + 8 * i + t;
}

/* W[k, n]: exact in fp32 (a code of 5 bits with sign times a scale of 11). */
REFERENCE float reference_weight(const struct reference_problem *p, int k, int n) {
    if (p->layout == REFERENCE_PLAIN)
        return reference_value(((const unsigned short *)p->weights)[(long long)n * p->k + k], p->bf16);
    const unsigned *words = (const unsigned *)p->weights;
    int group = k / p->group;
    unsigned code, zero = 8;
    int column = n;
    if (p->layout == REFERENCE_AWQ) {
        code = reference_awq_nibble(words, k, n, p->n);
        if (p->zeros) zero = reference_awq_nibble(p->zeros, group, n, p->n);
    } else {
        code = reference_marlin_code(words, k, n, p->n);
        if (p->zeros) zero = reference_marlin_zero(p->zeros, group, n, p->n);
        column = reference_marlin_scale(n, p->group == p->k);
    }
    float scale = reference_half_value(p->scales[(long long)group * p->n + column]);
    return (float)((int)code - (int)zero) * scale;
}

/* x[m, k] with the gain, and the number that makes the row's sums those of a normalised x; without a norm x and 1. */
REFERENCE float reference_x(const struct reference_problem *p, int m, int k) {
    float x = reference_value(p->x[(long long)m * p->k + k], p->bf16);
    return p->gain ? x * p->gain[k] : x;
}
REFERENCE double reference_factor(const struct reference_problem *p, int m) {
    double squares = 0;
    if (!p->gain) return 1;
    for (int k = 0; k < p->k; k++) {
        double x = reference_value(p->x[(long long)m * p->k + k], p->bf16);
        squares += x * x;
    }
    return 1 / sqrt(squares / p->k + p->epsilon);
}

/* Writes to row m what becomes of the sums of columns n and n + 8 of W; n % 16 < 8. */
REFERENCE void reference_store(const struct reference_problem *p, int m, int n, double first, double second) {
    long long at = (long long)m * p->n + n, addend = p->epilogue == REFERENCE_RESIDUAL ? at : n;
    if (p->epilogue == REFERENCE_SILU_MUL) {
        p->y[(long long)m * (p->n / 2) + n / 16 * 8 + n % 8] = (float)(first / (1 + exp(-first)) * second);
        return;
    }
    if (p->epilogue != REFERENCE_NONE) {
        first += reference_value(p->addend[addend], p->bf16);
        second += reference_value(p->addend[addend + 8], p->bf16);
    }
    p->y[at] = (float)first;
    p->y[at + 8] = (float)second;
}

#endif
