/* bench/decoder/ptx.cuh for the host (half_from_float is half.h's). */
#ifndef TILEBOOK_EMULATION_DECODER_PTX_CUH
#define TILEBOOK_EMULATION_DECODER_PTX_CUH

#include "cuda/ptx.cuh"

using std::max;

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

#endif
