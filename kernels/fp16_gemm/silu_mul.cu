/* The silu_mul epilogue (kernels/kernel.h) as a kernel of its own, behind a library that lacks it: x holds the sums
 * (M, N), rounded to y's type. A thread makes 8 neighbouring elements of y; blocks are (row, columns). N % 16 == 0. */
#include "cuda/epilogue.cuh"

extern "C" __global__ void silu_mul(const __grid_constant__ struct arguments a) {
    const int m = blockIdx.x, c = 16 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (c >= a.n) return;
    const unsigned short *from = (const unsigned short *)a.operands.x + (size_t)m * a.n + c;
    struct pairs<8> sums;
    load_values<8>(from, sums.first);
    load_values<8>(from + 8, sums.second);
    store_outputs<8>(a.operands, m, a.n, c, sums, {});
}
