// The read floor of a matrix: reads weights, scales and zero points once, and does nothing else.
//
// The operands, one behind the other, are a run of 16-byte vectors, which the GRID blocks go through side by side, so
// that all of them read one region of memory at a time. A thread asks for IN_FLIGHT vectors before it looks at the
// first, and for the next as soon as one has come:
//
//     run     | block 0 | block 1 | ... | block 0 | block 1 | ...      THREADS vectors each
//
// BLOCKS of the grid share an SM. BITS is 4, or 16 for fp16 weights, which have neither scales nor zero points. GROUP
// is the rows that share a scale, 0 if all of K does.
#include "cuda/ptx.cuh"

constexpr unsigned VECTOR = 16, ROUND = GRID * THREADS;

// Where the vectors of each operand end in the run.
struct run {
    const uint4 *weights, *scales, *zeros;
    unsigned weights_end, scales_end, end;
};

// The run of this launch, by the sizes that kernels/kernel.h gives.
__device__ __forceinline__ struct run find_run(const struct arguments &a) {
    const struct operands &o = a.operands;
    const unsigned k = a.k, n = a.n, groups = BITS == 16 ? 0 : GROUP ? k / (GROUP ? GROUP : 1) : 1;
    struct run run = {(const uint4 *)o.weights, (const uint4 *)o.scales, (const uint4 *)o.zeros, 0, 0, 0};
    run.weights_end = k * n / (VECTOR * 8 / BITS);
    run.scales_end = run.weights_end + groups * n / (VECTOR / 2);
    run.end = run.scales_end + (o.zeros ? groups * n / (VECTOR * 2) : 0);
    return run;
}

// Vector `at` of the run, zeros behind its end.
__device__ __forceinline__ uint4 read_vector(const struct run &run, unsigned at) {
    if (at < run.weights_end) return load_streaming4(run.weights + at);
    if (at < run.scales_end) return load_streaming4(run.scales + (at - run.weights_end));
    return at < run.end ? load_streaming4(run.zeros + (at - run.scales_end)) : uint4{0, 0, 0, 0};
}

// The exclusive or of this thread's words.
__device__ __forceinline__ unsigned read_run(const struct run &run) {
    unsigned at = blockIdx.x * THREADS + threadIdx.x, seen = 0;
    uint4 vectors[IN_FLIGHT];
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) vectors[i] = read_vector(run, at + i * ROUND);
    do {
        at += IN_FLIGHT * ROUND;
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) {
            seen ^= vectors[i].x ^ vectors[i].y ^ vectors[i].z ^ vectors[i].w;
            vectors[i] = read_vector(run, at + i * ROUND);
        }
    } while (at < run.end);
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) seen ^= vectors[i].x ^ vectors[i].y ^ vectors[i].z ^ vectors[i].w;
    return seen;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) read_floor(struct arguments a) {
    programmatic_launch();
    const struct run run = find_run(a);
    const unsigned seen = read_run(run);
    programmatic_wait();
    // A launch with m = 0 is checked: it gives the exclusive or of all words. The others hardly ever come here, but
    // the compiler cannot leave their loads out.
    if (a.m == 0 || seen == 0x7113b00c)
        atomicXor((unsigned *)((char *)a.operands.workspace + WORKSPACE_COUNTER_BYTES), seen);
}
