/* What the decoder's kernels use of the instruction set beyond kernels/cuda/ptx.cuh. */
#ifndef TILEBOOK_DECODER_PTX_CUH
#define TILEBOOK_DECODER_PTX_CUH

#include "cuda/ptx.cuh"

/* A float rounded to an fp16 word. */
__device__ __forceinline__ unsigned short half_from_float(float value) {
    return (unsigned short)half2_from_floats(value, 0);
}

/* Two pairs of fp16 as e4m3 codes, as kv.h has them, in their order (sm_89 on). */
__device__ __forceinline__ unsigned codes_from_halves(unsigned first, unsigned second) {
    unsigned codes;
    asm("{ .reg .b16 f, s; cvt.rn.satfinite.e4m3x2.f16x2 f, %1; cvt.rn.satfinite.e4m3x2.f16x2 s, %2; "
        "mov.b32 %0, {f, s}; }"
        : "=r"(codes)
        : "r"(first), "r"(second));
    return codes;
}

/* Four e4m3 codes as two pairs of fp16, in their order (sm_89 on). */
__device__ __forceinline__ void halves_from_codes(unsigned codes, unsigned &first, unsigned &second) {
    asm("{ .reg .b16 f, s; mov.b32 {f, s}, %2; cvt.rn.f16x2.e4m3x2 %0, f; cvt.rn.f16x2.e4m3x2 %1, s; }"
        : "=r"(first), "=r"(second)
        : "r"(codes));
}

/* The logarithm of a power of two. */
__device__ __forceinline__ int log2_of(int power) {
    return 31 - __clz(power);
}

/* The same value, found before what follows that waits. */
__device__ __forceinline__ size_t computed(size_t value) {
    asm volatile("" : "+l"(value));
    return value;
}

/* load_matrices(), each matrix transposed: lane l receives elements 2 * (l % 4) and the next of column l / 4. */
__device__ __forceinline__ void load_matrices_transposed(unsigned address, unsigned (&pairs)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                 : "r"(address)
                 : "memory");
}

/* An 8x8 fp16 matrix of which lane l gives elements 2 * (l % 4) and the next of row l / 4: it gets those of column
 * l / 4. */
__device__ __forceinline__ unsigned transpose(unsigned pair) {
    unsigned transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pair));
    return transposed;
}

/* 2^value to two units of fp32's last place; 0 for what would be denormal. */
__device__ __forceinline__ float exp2_approximately(float value) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(value));
    return power;
}

/* Whether `value` is true in any lane. */
__device__ __forceinline__ bool warp_any(bool value) {
    return __any_sync(~0u, value);
}

/* What the lane whose number differs in the bits of `mask` has. */
__device__ __forceinline__ int other_lane(int value, int mask) {
    return __shfl_xor_sync(~0u, value, mask);
}
__device__ __forceinline__ unsigned long long other_lane(unsigned long long value, int mask) {
    return __shfl_xor_sync(~0u, value, mask);
}

/* What the lane `step` below has; the lowest keep their own. What lane `lane` has. */
__device__ __forceinline__ unsigned long long lane_below(unsigned long long value, int step) {
    return __shfl_up_sync(~0u, value, step);
}
__device__ __forceinline__ unsigned long long from_lane(unsigned long long value, int lane) {
    return __shfl_sync(~0u, value, lane);
}

/* The lowest lane where `value` is true; -1 if none is. */
__device__ __forceinline__ int first_lane(bool value) {
    return __ffs(__ballot_sync(~0u, value)) - 1;
}

/* a * b, rounded also where a sum follows. */
__device__ __forceinline__ float rounded_product(float a, float b) {
    return __fmul_rn(a, b);
}

#endif
