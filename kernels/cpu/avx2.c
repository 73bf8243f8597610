#ifdef __x86_64__
#include <immintrin.h>
#include <stdint.h>

enum { LANES = 8 };
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE __attribute__((target("avx2,fma,f16c"), always_inline)) static inline
typedef float vec __attribute__((vector_size(32)));
typedef int32_t int_vec __attribute__((vector_size(32)));
typedef uint32_t word_vec __attribute__((vector_size(32)));

INLINE vec multiply_add(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vec load_half(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)from));
}

INLINE void store_half(vec v, uint16_t *to) {
    _mm_storeu_si128((void *)to, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/cpu/vector.h"

const struct cpu_vectors cpu_vectors_avx2 = {
    "avx2", LANES, 16, to_float, to_words, fp16_tile, marlin_expand, marlin_columns, marlin_tile, awq_column,
};
#endif
