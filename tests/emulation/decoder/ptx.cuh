/* bench/decoder/ptx.cuh for the host (half_from_float is half.h's). */
#ifndef TILEBOOK_EMULATION_DECODER_PTX_CUH
#define TILEBOOK_EMULATION_DECODER_PTX_CUH

#include "cuda/ptx.cuh"
#include "decoder/kv.h"

using std::max;

static inline unsigned codes_from_halves(unsigned first, unsigned second) {
    return e4m3_from_half((uint16_t)first) | e4m3_from_half((uint16_t)(first >> 16)) << 8 |
           e4m3_from_half((uint16_t)second) << 16 | (unsigned)e4m3_from_half((uint16_t)(second >> 16)) << 24;
}

/* Both halves, from the two lower codes. */
static inline unsigned half2_from_codes(unsigned codes) {
    return half2_from_floats(e4m3_to_float((uint8_t)codes), e4m3_to_float((uint8_t)(codes >> 8)));
}
static inline void halves_from_codes(unsigned codes, unsigned &first, unsigned &second) {
    first = half2_from_codes(codes);
    second = half2_from_codes(codes >> 16);
}

static inline int log2_of(int power) {
    return 31 - __builtin_clz((unsigned)power);
}

static inline size_t computed(size_t value) {
    return value;
}

/* This lane's pair of a transposed matrix, of which lane l has the pair `words[word]` of row l / 4. */
static inline unsigned transposed_pair(const struct exchange *lanes, unsigned word) {
    const unsigned column = threadIdx.x % 32 / 4, row = threadIdx.x % 4 * 2;
    const unsigned low = lanes[row * 4 + column / 2].words[word], high = lanes[(row + 1) * 4 + column / 2].words[word];
    return column % 2 ? high_halves(low, high) : low_halves(low, high);
}

static inline void load_matrices_transposed(unsigned address, unsigned (&pairs)[4]) {
    unsigned rows[4];
    load_matrices(address, rows);
    const struct exchange *lanes = exchange_words({{rows[0], rows[1], rows[2], rows[3]}});
    for (unsigned i = 0; i < 4; i++) pairs[i] = transposed_pair(lanes, i);
    rest_in_warp();
}

static inline unsigned transpose(unsigned pair) {
    const unsigned transposed = transposed_pair(exchange_words({{pair}}), 0);
    rest_in_warp();
    return transposed;
}

static inline float exp2_approximately(float value) {
    return exp2f(value);
}

static inline bool warp_any(bool value) {
    const struct exchange *lanes = exchange_words({{value}});
    for (unsigned i = 0; i < 32; i++) value |= lanes[i].words[0] != 0;
    rest_in_warp();
    return value;
}

static inline int other_lane(int value, int mask) {
    const int other = (int)exchange_words({{(unsigned)value}})[threadIdx.x % 32 ^ mask].words[0];
    rest_in_warp();
    return other;
}

static inline unsigned long long from_lane(unsigned long long value, int lane) {
    const struct exchange *lanes = exchange_words({{(unsigned)value, (unsigned)(value >> 32)}});
    value = lanes[lane].words[0] | (unsigned long long)lanes[lane].words[1] << 32;
    rest_in_warp();
    return value;
}
static inline unsigned long long other_lane(unsigned long long value, int mask) {
    return from_lane(value, threadIdx.x % 32 ^ mask);
}
static inline unsigned long long lane_below(unsigned long long value, int step) {
    const int lane = (int)(threadIdx.x % 32);
    return from_lane(value, lane < step ? lane : lane - step);
}

static inline int first_lane(bool value) {
    const struct exchange *lanes = exchange_words({{value}});
    int lane = -1;
    for (int i = 31; i >= 0; i--)
        if (lanes[i].words[0]) lane = i;
    rest_in_warp();
    return lane;
}

static inline float rounded_product(float a, float b) {
    return a * b;
}

static inline unsigned atomicAdd(unsigned *word, unsigned value) {
    const unsigned before = *word;
    *word += value;
    return before;
}

#endif
