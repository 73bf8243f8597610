#ifdef __x86_64__
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16 };
#define TARGET __attribute__((target("avx512f")))
#define INLINE __attribute__((target("avx512f"), always_inline)) static inline
typedef float vec __attribute__((vector_size(64)));
typedef int32_t int_vec __attribute__((vector_size(64)));
typedef uint32_t word_vec __attribute__((vector_size(64)));

INLINE vec multiply_add(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vec load_half(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)from));
}

INLINE void store_half(vec v, uint16_t *to) {
    _mm256_storeu_si256((void *)to, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/cpu/vector.h"

const struct cpu_vectors cpu_vectors_avx512f = {
    "avx512f", LANES, 32, to_float, to_words, fp16_tile, marlin_expand, marlin_columns, marlin_tile, awq_column,
};
#endif
