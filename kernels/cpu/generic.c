/* What every compiler target has: vectors of four, no conversion instructions. */
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

enum { LANES = 4 };
#define TARGET
#define INLINE __attribute__((always_inline)) static inline
typedef float vec __attribute__((vector_size(16)));
typedef int32_t int_vec __attribute__((vector_size(16)));
typedef uint32_t word_vec __attribute__((vector_size(16)));

INLINE vec multiply_add(vec a, vec b, vec c) {
    return a * b + c;
}

/* half_to_float for four: subnormals become normal when scaled, and the largest exponent is set by hand. */
INLINE vec load_half(const uint16_t *from) {
    word_vec half = {from[0], from[1], from[2], from[3]};
    word_vec magnitude = (half & 0x7fff) << 13;
    word_vec special = (word_vec)((int_vec)magnitude >= 0x0f800000) & 0x7f800000;
    word_vec bits = (word_vec)((vec)magnitude * 0x1p112f) | special | (half & 0x8000) << 16;
    return (vec)bits;
}

INLINE void store_half(vec v, uint16_t *to) {
    for (int i = 0; i < LANES; i++) to[i] = half_from_float(v[i]);
}

#include "kernels/cpu/vector.h"

const struct cpu_vectors cpu_vectors_generic = {
    "generic", LANES, 16, to_float, to_words, fp16_tile, marlin_expand, marlin_columns, marlin_tile, awq_column,
};
