/* How the KV cache holds keys and values: in fp16, as they come, or in fp8, rounded to e4m3: a sign, four bits of
 * exponent, biased by 7, and three of fraction. Its largest number is 448, its least normal one 2^-6; it has no
 * infinities; 0x7f and 0xff are NaN. There is no scale: what is larger becomes 448. */
#ifndef TILEBOOK_DECODER_KV_H
#define TILEBOOK_DECODER_KV_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

struct error;

enum kv_type { KV_FP16, KV_FP8 };

/* "fp16", "fp8" */
const char *kv_name(enum kv_type type);
int kv_parse(const char *text, enum kv_type *type, struct error *error);

/* Bytes of an element. */
static inline size_t kv_bytes(enum kv_type type) {
    return type == KV_FP8 ? 1 : 2;
}

/* Rounds to nearest, ties to even; beyond the largest, infinity too, to that. NaN becomes 0x7f. */
static inline uint8_t e4m3_from_half(uint16_t half) {
    const uint32_t sign = half >> 8 & 0x80;
    float value = half_to_float(half & 0x7fff);
    uint32_t bits;
    if (isnan(value)) return 0x7f;
    if (value >= 448) return (uint8_t)(sign | 0x7e);
    if (value < 0x1p-6f) {
        /* Subnormals are multiples of 2^-9, as fp32's are from 2^14 on. */
        value += 0x1p14f;
        memcpy(&bits, &value, 4);
        return (uint8_t)(sign | (bits - 0x46800000));
    }
    memcpy(&bits, &value, 4);
    return (uint8_t)(sign | (bits - 0x3c000000 + 0x7ffff + (bits >> 20 & 1)) >> 20);
}

/* Exact in fp16, too. */
static inline float e4m3_to_float(uint8_t code) {
    if ((code & 0x7f) == 0x7f) return NAN;
    return half_to_float((uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7)) * 0x1p8f;
}

#endif
