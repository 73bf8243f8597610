/* The inner loops in compiler vectors. avx512.c, avx2.c and generic.c include this with LANES, TARGET,
 * multiply_add, load_half and store_half defined; each exports one struct cpu_vectors. */

#include <string.h>

#include "kernels/cpu/cpu.h"

#ifdef __clang__
#if __has_feature(address_sanitizer)
#define UNROLLED /* a sanitizer's checks, unrolled, compile for minutes */
#else
#define UNROLLED _Pragma("clang loop unroll(full)")
#endif
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum { SLOTS = 64, PARTS = 16 / LANES };

typedef float quad __attribute__((vector_size(16)));
typedef uint32_t quad_word __attribute__((vector_size(16)));

INLINE vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE quad load_quad(const float *from) {
    quad v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* Lane i of the result is the sum of the lanes i, i + 4, i + 8, ... */
INLINE quad fold(vec v) {
    quad part[LANES / 4], sum;
    memcpy(part, &v, sizeof v);
    sum = part[0];
    UNROLLED
    for (int i = 1; i < LANES / 4; i++) sum += part[i];
    return sum;
}

/* The nibbles under `mask`, where they lie, as fp32: a code times a power of 16. */
INLINE vec masked(word_vec words, uint32_t mask) {
    return __builtin_convertvector((int_vec)(words & mask), vec);
}

/* bf16 is the upper half of fp32. */
INLINE vec load_bf16(const uint16_t *from) {
    uint16_t words __attribute__((vector_size(2 * LANES)));
    memcpy(&words, from, sizeof words);
    return (vec)(__builtin_convertvector(words, word_vec) << 16);
}

/* Rounds to nearest, ties to even; NaN stays one. */
INLINE void store_bf16(vec v, uint16_t *to) {
    word_vec bits = (word_vec)v, nan = (word_vec)(v != v);
    word_vec rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    word_vec words = (nan & (bits >> 16 | 0x40)) | (~nan & rounded);
    uint16_t narrow __attribute__((vector_size(2 * LANES))) = __builtin_convertvector(words, __typeof__(narrow));
    memcpy(to, &narrow, sizeof narrow);
}

INLINE vec load_word(const uint16_t *from, const bool bf16) {
    return bf16 ? load_bf16(from) : load_half(from);
}

TARGET static void to_float(const uint16_t *from, bool bf16, float *to, int count) {
    for (int i = 0; i < count; i += LANES) {
        vec v = load_word(from + i, bf16);
        memcpy(to + i, &v, sizeof v);
    }
}

TARGET static void to_words(const float *from, uint16_t *to, bool bf16, int count) {
    for (int i = 0; i < count; i += LANES)
        if (bf16)
            store_bf16(load(from + i), to + i);
        else
            store_half(load(from + i), to + i);
}

/* --- fp16_gemm: lanes run along k --- */

INLINE void fp16_inner(const struct fp16_tile *t, const int rows, const int columns, const bool bf16) {
    vec sum[FP16_TILE_MOST];
    UNROLLED
    for (int i = 0; i < rows * columns; i++) sum[i] = (vec){0};
    for (int k = 0; k < t->k; k += LANES) {
        vec w[4];
        UNROLLED
        for (int c = 0; c < columns; c++) w[c] = load_word(t->w + (size_t)c * t->w_stride + k, bf16);
        UNROLLED
        for (int r = 0; r < rows; r++) {
            vec x = load(t->x + (size_t)r * t->x_stride + k);
            UNROLLED
            for (int c = 0; c < columns; c++) sum[r * columns + c] = multiply_add(x, w[c], sum[r * columns + c]);
        }
    }
    UNROLLED
    for (int i = 0; i < rows * columns; i++) {
        quad s = fold(sum[i]);
        t->sums[(size_t)(i / columns) * t->sum_stride + (size_t)(i % columns)] += (s[0] + s[1]) + (s[2] + s[3]);
    }
}

INLINE void fp16_tile_of(const struct fp16_tile *tile, int rows, int columns, const bool bf16) {
    switch (rows << 4 | columns) {
    case 0x11:
        fp16_inner(tile, 1, 1, bf16);
        break;
    case 0x12:
        fp16_inner(tile, 1, 2, bf16);
        break;
    case 0x14:
        fp16_inner(tile, 1, 4, bf16);
        break;
    case 0x21:
        fp16_inner(tile, 2, 1, bf16);
        break;
    case 0x22:
        fp16_inner(tile, 2, 2, bf16);
        break;
    case 0x24:
        fp16_inner(tile, 2, 4, bf16);
        break;
    case 0x41:
        fp16_inner(tile, 4, 1, bf16);
        break;
    case 0x42:
        fp16_inner(tile, 4, 2, bf16);
        break;
    case 0x44:
        fp16_inner(tile, 4, 4, bf16);
        break;
    case 0x81:
        fp16_inner(tile, 8, 1, bf16);
        break;
    case 0x82:
        fp16_inner(tile, 8, 2, bf16);
        break;
    }
}

TARGET static void fp16_tile(const struct fp16_tile *tile, int rows, int columns) {
    if (tile->bf16)
        fp16_tile_of(tile, rows, columns, true);
    else
        fp16_tile_of(tile, rows, columns, false);
}

/* --- marlin_gemm ---
 * Sixteen words of a 16 x 64 tile share `a` (lane / 4 of the GPU's order); word 4t + j of them holds
 *   nibble 0: k = 2t      nibble 4: k = 2t + 1      of column 16j + a, and 8 bits
 *   nibble 1: k = 2t + 8  nibble 5: k = 2t + 9      higher the same of column 16j + a + 8.
 * Masked where it lies a nibble counts 1, 16, 16^4 or 16^5 times its code, and x comes divided by that, which
 * is exact: four x vectors (t by t, each value for j = 0..3) serve both columns. */

static const uint32_t nibble_mask[4] = {0xf, 0xf0, 0xf0000, 0xf00000};

TARGET static float marlin_expand(const uint16_t *x, bool bf16, int k, float *to) {
    static const float scale[4] = {1, 0x1p-4f, 0x1p-16f, 0x1p-20f};
    vec total = {0};
    for (int k0 = 0; k0 < k; k0 += 16, to += 64) {
        float value[16];
        to_float(x + k0, bf16, value, 16);
        UNROLLED
        for (int part = 0; part < PARTS; part++) total += load(value + part * LANES);
        UNROLLED
        for (int i = 0; i < 16; i++) {
            int nibble = i / 4, t = i % 4;
            float v = value[2 * t + nibble / 2 + nibble % 2 * 8] * scale[nibble];
            quad four = {v, v, v, v};
            memcpy(to + 4 * i, &four, sizeof four);
        }
    }
    quad s = fold(total);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

TARGET static void marlin_columns(const uint16_t *scales, const uint32_t *zeros, bool one_group, float *slot_scales,
                                  float *slot_zeros) {
    float scale[SLOTS];
    to_float(scales, false, scale, SLOTS);
    for (int slot = 0; slot < SLOTS; slot += 4) {
        int a = slot / 8, h = slot / 4 % 2;
        const float *s = one_group ? scale + a / 2 * 8 + a % 2 + h * 2 : scale + a * 8 + h;
        quad ordered = one_group ? (quad){s[0], s[4], s[32], s[36]} : (quad){s[0], s[2], s[4], s[6]};
        uint32_t word = zeros ? zeros[a] >> 16 * h : 0x8888;
        quad_word codes = (quad_word){word, word >> 4, word >> 8, word >> 12} & 15;
        quad zero = __builtin_convertvector(codes, quad);
        memcpy(slot_scales + slot, &ordered, sizeof ordered);
        memcpy(slot_zeros + slot, &zero, sizeof zero);
    }
}

/* sums += scale * (sum of codes * x - zero * sum of x), once for the whole group. */
INLINE void marlin_scale(const struct marlin_tile *t, const vec *sum, const int rows, const int unroll) {
    UNROLLED
    for (int i = 0; i < rows * unroll * 2; i++) {
        int row = i / (2 * unroll), slot = i % (2 * unroll) * 4;
        float *to = t->sums + (size_t)row * t->sum_stride + slot;
        float x_sum = t->x_sums[(size_t)row * t->x_sum_stride];
        quad part = fold(sum[i]) - load_quad(t->zeros + slot) * x_sum;
        quad total = load_quad(to) + load_quad(t->scales + slot) * part;
        memcpy(to, &total, sizeof total);
    }
}

INLINE void marlin_inner(const struct marlin_tile *t, const int rows, const int unroll) {
    vec sum[MARLIN_TILE_MOST * 2];
    UNROLLED
    for (int i = 0; i < rows * unroll * 2; i++) sum[i] = (vec){0};
    const uint32_t *from = t->words;
    const float *x = t->x;
    for (int step = 0; step < t->depth; step++, from += t->word_stride, x += 64) {
        UNROLLED
        for (int i = 0; i < unroll * PARTS; i++) {
            int u = i / PARTS, part = i % PARTS * LANES;
            word_vec words;
            memcpy(&words, from + 16 * u + part, sizeof words);
            UNROLLED
            for (int b = 0; b < 8; b++) {
                int nibble = b % 4, h = b / 4;
                vec code = masked(h ? words >> 8 : words, nibble_mask[nibble]);
                UNROLLED
                for (int r = 0; r < rows; r++) {
                    vec *to = &sum[(r * unroll + u) * 2 + h];
                    *to = multiply_add(code, load(x + (size_t)r * t->x_stride + 16 * nibble + part), *to);
                }
            }
        }
    }
    marlin_scale(t, sum, rows, unroll);
}

TARGET static void marlin_tile(const struct marlin_tile *tile, int rows, int unroll) {
    switch (rows << 4 | unroll) {
    case 0x11:
        marlin_inner(tile, 1, 1);
        break;
    case 0x12:
        marlin_inner(tile, 1, 2);
        break;
    case 0x14:
        marlin_inner(tile, 1, 4);
        break;
    case 0x18:
        marlin_inner(tile, 1, 8);
        break;
    case 0x21:
        marlin_inner(tile, 2, 1);
        break;
    case 0x22:
        marlin_inner(tile, 2, 2);
        break;
    case 0x24:
        marlin_inner(tile, 2, 4);
        break;
    case 0x41:
        marlin_inner(tile, 4, 1);
        break;
    case 0x42:
        marlin_inner(tile, 4, 2);
        break;
    case 0x81:
        marlin_inner(tile, 8, 1);
        break;
    }
}

/* --- awq_dequant: lanes run along k --- */

INLINE void awq_inner(const uint32_t *words, const float scales[8], const float zeros[8], uint16_t *y, size_t y_stride,
                      const int unroll) {
    static const uint8_t column_of_nibble[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    word_vec w[4];
    memcpy(w, words, (size_t)unroll * sizeof *w);
    for (int nibble = 0; nibble < 8; nibble++) {
        int column = column_of_nibble[nibble];
        UNROLLED
        for (int u = 0; u < unroll; u++) {
            vec code = masked(w[u] >> (uint32_t)(4 * nibble), 15);
            store_half((code - zeros[column]) * scales[column], y + (size_t)column * y_stride + u * LANES);
        }
    }
}

TARGET static void awq_column(const uint32_t *words, int count, const float scales[8], const float zeros[8],
                              uint16_t *y, size_t y_stride, int unroll) {
    for (int k = 0; k < count; k += unroll * LANES) {
        switch (unroll) {
        case 1:
            awq_inner(words + k, scales, zeros, y + k, y_stride, 1);
            break;
        case 2:
            awq_inner(words + k, scales, zeros, y + k, y_stride, 2);
            break;
        case 4:
            awq_inner(words + k, scales, zeros, y + k, y_stride, 4);
            break;
        }
    }
}
