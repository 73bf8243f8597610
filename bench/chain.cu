// What a decoder runs between its GEMMs, reduced to what the chain needs: each kernel reads all that the one ahead of
// it wrote. Rows are fp16 in vectors of eight. BLOCK: threads of a block; KEPT: vectors of the residual a thread has.

#include "cuda/ptx.cuh"

struct norm_arguments {
    const uint4 *x; // (rows, width)
    uint4 *y;       // (rows, width)
    int width;      // in vectors
};

struct attend_arguments {
    const uint4 *x; // (rows, from)
    uint4 *y;       // (rows, to)
    int from, to;   // in vectors
};

// The sum of squares of a pair.
__device__ __forceinline__ float pair_square(unsigned pair) {
    float low, high;
    half2_to_floats(pair, low, high);
    return low * low + high * high;
}

// A pair, scaled in fp32.
__device__ __forceinline__ unsigned pair_scaled(unsigned pair, float scale) {
    float low, high;
    half2_to_floats(pair, low, high);
    return half2_from_floats(low * scale, high * scale);
}

// The mean of two pairs.
__device__ __forceinline__ unsigned pair_mean(unsigned a, unsigned b) {
    const unsigned halves = 0x38003800;
    return half2_fma(a, halves, half2_mul(b, halves));
}

// The sum over a block, in every thread; always in the same order.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float partial[BLOCK / 32];
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < BLOCK / 32; i++) sum += partial[i];
    return sum;
}

// y = x / sqrt(mean(x^2) + epsilon), one block a row of at most KEPT * BLOCK vectors, which stay in registers.
extern "C" __global__ void __launch_bounds__(BLOCK) chain_norm(const __grid_constant__ struct norm_arguments a) {
    const size_t row = (size_t)blockIdx.x * a.width;
    uint4 own[KEPT];
    float squares = 0;
    programmatic_launch();
    programmatic_wait();
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        if (threadIdx.x + i * BLOCK < a.width) own[i] = a.x[row + threadIdx.x + i * BLOCK];
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        if (threadIdx.x + i * BLOCK < a.width)
            squares += pair_square(own[i].x) + pair_square(own[i].y) + pair_square(own[i].z) + pair_square(own[i].w);
    const float scale = rsqrtf(block_sum(squares) / (8 * a.width) + 1e-6f);
#pragma unroll
    for (int i = 0; i < KEPT; i++)
        if (threadIdx.x + i * BLOCK < a.width)
            a.y[row + threadIdx.x + i * BLOCK] = make_uint4(pair_scaled(own[i].x, scale), pair_scaled(own[i].y, scale),
                                                            pair_scaled(own[i].z, scale), pair_scaled(own[i].w, scale));
}

// Stands for attention: y mixes columns from both ends of a row, so that q, k and v are all read. Blocks: x over the
// row, y over the rows.
extern "C" __global__ void __launch_bounds__(BLOCK) chain_attend(const __grid_constant__ struct attend_arguments a) {
    const int i = blockIdx.x * BLOCK + threadIdx.x;
    programmatic_launch();
    programmatic_wait();
    if (i >= a.to) return;
    const uint4 *row = a.x + (size_t)blockIdx.y * a.from;
    const uint4 first = row[i % a.from], last = row[a.from - 1 - i % a.from];
    a.y[(size_t)blockIdx.y * a.to + i] = make_uint4(pair_mean(first.x, last.x), pair_mean(first.y, last.y),
                                                    pair_mean(first.z, last.z), pair_mean(first.w, last.w));
}
