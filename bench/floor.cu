// The read floor of a matrix: reads weights, scales and zero points once, and does nothing else.
//
// The weights are a run of 16-byte vectors, which the GRID blocks go through side by side, so that all of them read one
// region of memory at a time. A thread asks for IN_FLIGHT vectors before it looks at the first, and for the next as
// soon as one has come; scales and zero points, a few vectors a thread at most, it asks for behind the first of them:
//
//     run     | block 0 | block 1 | ... | block 0 | block 1 | ...      THREADS vectors each
//
// BLOCKS of the grid share an SM. BITS is 4, or 16 for fp16 weights, which have neither scales nor zero points. GROUP
// is the rows that share a scale, 0 if all of K does.
#include "cuda/ptx.cuh"

constexpr unsigned VECTOR = 16, ROUND = GRID * THREADS;

__device__ __forceinline__ unsigned fold(const uint4 &vector) {
    return vector.x ^ vector.y ^ vector.z ^ vector.w;
}

// The exclusive or of what falls to this thread of a short run of `end` vectors.
__device__ __forceinline__ unsigned read_few(const void *run, unsigned end) {
    unsigned seen = 0;
    for (unsigned at = blockIdx.x * THREADS + threadIdx.x; at < end; at += ROUND)
        seen ^= fold(load_streaming4((const uint4 *)run + at));
    return seen;
}

// The exclusive or of this thread's words, by the sizes that kernels/kernel.h gives.
__device__ __forceinline__ unsigned read_all(const struct arguments &a) {
    const unsigned k = a.k, n = a.n, groups = BITS == 16 ? 0 : GROUP ? k / (GROUP ? GROUP : 1) : 1;
    const unsigned end = k * n / (VECTOR * 8 / BITS);
    const uint4 *weights = (const uint4 *)a.operands.weights;
    unsigned at = blockIdx.x * THREADS + threadIdx.x;
    uint4 vectors[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++)
        vectors[i] = at + i * ROUND < end ? load_streaming4(weights + (at + i * ROUND)) : uint4{0, 0, 0, 0};
    unsigned seen = read_few(a.operands.scales, groups * n / (VECTOR / 2));
    if (a.operands.zeros) seen ^= read_few(a.operands.zeros, groups * n / (VECTOR * 2));
    // Whole rounds need not look where the run ends.
    for (at += IN_FLIGHT * ROUND; at + (IN_FLIGHT - 1) * ROUND < end; at += IN_FLIGHT * ROUND) {
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) {
            seen ^= fold(vectors[i]);
            vectors[i] = load_streaming4(weights + (at + i * ROUND));
        }
    }
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) {
        seen ^= fold(vectors[i]);
        if (at + i * ROUND < end) seen ^= fold(load_streaming4(weights + (at + i * ROUND)));
    }
    return seen;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) read_floor(struct arguments a) {
    programmatic_launch();
    const unsigned seen = read_all(a);
    programmatic_wait();
    // A launch with m = 0 is checked: it gives the exclusive or of all words. The others hardly ever come here, but
    // the compiler cannot leave their loads out.
    if (a.m == 0 || seen == 0x7113b00c)
        atomicXor((unsigned *)((char *)a.operands.workspace + WORKSPACE_COUNTER_BYTES), seen);
}
