/* What becomes of a GEMM's fp32 sums on their way to y (kernels/kernel.h, enum epilogue); -DEPILOGUE says which.
 *
 * Everything is in pairs of columns of W, c and c + 8 with c % 16 < 8: the two that a lane holds of a fragment of
 * multiply(), and with silu_mul a gate and what it multiplies. A thread that has COUNT neighbouring pairs (c % 8 a
 * multiple of COUNT: 1, 2, 4 or 8) moves them in words of 2 * COUNT bytes. A kernel may load the addend long before its
 * sums are ready, but where it overlaps the kernel ahead of it only after it has waited for that. */
#ifndef TILEBOOK_EPILOGUE_CUH
#define TILEBOOK_EPILOGUE_CUH

#include "cuda/ptx.cuh"

/* As in kernels/kernel.h. */
enum epilogue { EPILOGUE_NONE, EPILOGUE_BIAS, EPILOGUE_RESIDUAL, EPILOGUE_SILU_MUL };

constexpr bool HAS_ADDEND = EPILOGUE == EPILOGUE_BIAS || EPILOGUE == EPILOGUE_RESIDUAL;
/* Columns of W that make one of y. */
constexpr int COLUMNS_OF_Y = EPILOGUE == EPILOGUE_SILU_MUL ? 2 : 1;

/* The column of y that column c of W makes, or column c and its partner together. */
__device__ __forceinline__ int output_column(int c) {
    return EPILOGUE == EPILOGUE_SILU_MUL ? c / 16 * 8 + c % 8 : c;
}

/* Of one row: columns c, c + 1, .. of W, and those eight further. */
template <int COUNT> struct pairs { float first[COUNT], second[COUNT]; };

/* COUNT values as one word of memory. */
template <int COUNT> struct alignas(2 * COUNT) neighbours { unsigned short at[COUNT]; };

/* Floats, rounded. */
template <int COUNT> __device__ __forceinline__ struct neighbours<COUNT> round_values(const float (&values)[COUNT]) {
    struct neighbours<COUNT> word;
#pragma unroll
    for (int i = 0; i < COUNT; i++) word.at[i] = (unsigned short)values_from_floats(values[i], 0);
    return word;
}

/* COUNT values of memory as floats. */
template <int COUNT>
__device__ __forceinline__ void load_values(const unsigned short *from, float (&values)[COUNT]) {
    const struct neighbours<COUNT> word = *(const struct neighbours<COUNT> *)from;
#pragma unroll
    for (int i = 0; i < COUNT; i++) values[i] = value_to_float(word.at[i]);
}

/* What is added to row m of y at COUNT neighbouring columns, of n in all; nothing is read where nothing is added. */
template <int COUNT>
__device__ __forceinline__ void load_addends(const struct operands &operands, int m, int n, int c,
                                             float (&addends)[COUNT]) {
    if (!HAS_ADDEND) return;
    const unsigned short *from = (const unsigned short *)operands.addend + c;
    if (EPILOGUE == EPILOGUE_RESIDUAL) from += (size_t)m * n;
    load_values<COUNT>(from, addends);
}

/* The same at pairs of columns. */
template <int COUNT>
__device__ __forceinline__ struct pairs<COUNT> load_addend(const struct operands &operands, int m, int n, int c) {
    struct pairs<COUNT> addend = {};
    load_addends<COUNT>(operands, m, n, c, addend.first);
    load_addends<COUNT>(operands, m, n, c + 8, addend.second);
    return addend;
}

/* One pair of sums into what y gets; with silu_mul that is `first` alone. */
__device__ __forceinline__ void
finish(float &first, float &second, float addend_first, float addend_second) {
    if (HAS_ADDEND) first += addend_first, second += addend_second;
    if (EPILOGUE == EPILOGUE_SILU_MUL) first = silu(first) * second;
}

/* Sums of row m into y (m, n / COLUMNS_OF_Y). */
template <int COUNT>
__device__ __forceinline__ void store_outputs(const struct operands &operands, int m, int n, int c,
                                              struct pairs<COUNT> sums, const struct pairs<COUNT> &addend) {
    unsigned short *y = (unsigned short *)operands.y + (size_t)m * (n / COLUMNS_OF_Y);
    y += output_column(c);
#pragma unroll
    for (int i = 0; i < COUNT; i++) finish(sums.first[i], sums.second[i], addend.first[i], addend.second[i]);
    *(struct neighbours<COUNT> *)y = round_values<COUNT>(sums.first);
    if (EPILOGUE != EPILOGUE_SILU_MUL) *(struct neighbours<COUNT> *)(y + 8) = round_values<COUNT>(sums.second);
}

/* Four words of each of four lanes, DISTANCE apart: afterwards lane q of them has word q of all four, in the order of
 * the lanes. */
template <int DISTANCE> __device__ __forceinline__ void turn_words(unsigned (&words)[4]) {
#pragma unroll
    for (int mask = 1; mask <= 2; mask *= 2) {
        const bool upper = threadIdx.x & mask * DISTANCE;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            unsigned &low = words[mask == 1 ? 2 * i : i], &high = words[mask == 1 ? 2 * i + 1 : i + 2];
            const unsigned other = other_lane(upper ? low : high, mask * DISTANCE);
            low = upper ? other : low, high = upper ? high : other;
        }
    }
}

/* What becomes of two pairs of sums, a word each; with silu_mul that is `first` alone. */
__device__ __forceinline__ void finish_pairs(struct pairs<2> sums, const struct pairs<2> &addend, unsigned &first,
                                             unsigned &second) {
#pragma unroll
    for (int t = 0; t < 2; t++) finish(sums.first[t], sums.second[t], addend.first[t], addend.second[t]);
    first = values_from_floats(sums.first[0], sums.first[1]);
    second = values_from_floats(sums.second[0], sums.second[1]);
}

/* What is added to columns c.. c + 7 of row m of y, a row of its own (EPILOGUE_RESIDUAL). */
__device__ __forceinline__ void load_row(const struct operands &operands, int m, int n, int c, unsigned (&words)[4]) {
    const uint4 row = *(const uint4 *)((const unsigned short *)operands.addend + (size_t)m * n + c);
    words[0] = row.x, words[1] = row.y, words[2] = row.z, words[3] = row.w;
}

/* The 8 columns of y that columns c.. c + 7 of W make, or the 16 from c on together. */
__device__ __forceinline__ void store_row(const struct operands &operands, int m, int n, int c,
                                          const unsigned (&words)[4]) {
    unsigned short *y = (unsigned short *)operands.y + (size_t)m * (n / COLUMNS_OF_Y) + output_column(c);
    *(uint4 *)y = make_uint4(words[0], words[1], words[2], words[3]);
}

#endif
