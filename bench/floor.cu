// The read floor of a matrix: reads weights, scales and zero points once, and does nothing else.
//
// The operands, one behind the other, are a run of 16-byte vectors. Each of GRID blocks has an even share of it, whole
// lines. A thread asks for IN_FLIGHT vectors before it looks at the first, and for the next as soon as one has come:
//
//     share   | THREADS | THREADS | ... | THREADS |      vector t of each is thread t's
//             '------- IN_FLIGHT times -----------'
//
// BLOCKS of the grid share an SM. BITS is 4, or 16 for fp16 weights, which have neither scales nor zero points. GROUP
// is the rows that share a scale, 0 if all of K does.
#include "cuda/ptx.cuh"

constexpr unsigned VECTOR = 16, LINE = 128 / VECTOR;

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

// Finds vectors of a share that lies in the weights, as nearly all do: what is added to an address is constant.
struct in_weights {
    const uint4 *weights;
    __device__ __forceinline__ const uint4 *operator()(unsigned at, unsigned more) const {
        return weights + at + (size_t)more;
    }
};

// The same in any operand.
struct in_run {
    const struct run &run;
    __device__ __forceinline__ const uint4 *operator()(unsigned at, unsigned more) const {
        at += more;
        return at < run.weights_end  ? run.weights + at
               : at < run.scales_end ? run.scales + (at - run.weights_end)
                                     : run.zeros + (at - run.scales_end);
    }
};

// Vector at + more, zeros from `end` on.
template <class FIND>
__device__ __forceinline__ uint4 read_vector(const FIND &find, unsigned at, unsigned more, unsigned end) {
    return at + more < end ? load_streaming4(find(at, more)) : uint4{0, 0, 0, 0};
}

// The exclusive or of this thread's words of the vectors up to `end`.
template <class FIND> __device__ __forceinline__ unsigned read_share(const FIND &find, unsigned at, unsigned end) {
    uint4 vectors[IN_FLIGHT];
    unsigned seen = 0;
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; i++) vectors[i] = read_vector(find, at, i * THREADS, end);
    do {
        at += IN_FLIGHT * THREADS;
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) {
            seen ^= vectors[i].x ^ vectors[i].y ^ vectors[i].z ^ vectors[i].w;
            vectors[i] = read_vector(find, at, i * THREADS, end);
        }
    } while (at < end);
    return seen;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) read_floor(struct arguments a) {
    programmatic_launch();
    const struct run run = find_run(a);
    const unsigned share = (run.end + GRID * LINE - 1) / (GRID * LINE) * LINE;
    const unsigned first = blockIdx.x * share, end = min(run.end, first + share), at = first + threadIdx.x;
    const unsigned seen =
        end <= run.weights_end ? read_share(in_weights{run.weights}, at, end) : read_share(in_run{run}, at, end);
    programmatic_wait();
    // A launch with m = 0 is checked: it gives the exclusive or of all words. The others hardly ever come here, but
    // the compiler cannot leave their loads out.
    if (a.m == 0 || seen == 0x7113b00c)
        atomicXor((unsigned *)((char *)a.operands.workspace + WORKSPACE_COUNTER_BYTES), seen);
}
