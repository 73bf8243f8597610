// A short sum over RANKS GPUs: each writes what it has into the memory of all others, and adds up what it was sent.
//
//   values  | block 0: CHUNK pairs | block 1 | ...     of this rank; in place, the sum
//   lines   [epoch % 2][sender][pair]                  of every rank: received; of the others: sent
//
// A line is a pair and the epoch in which it was sent, in one word: who sees the epoch sees the pair, without a fence.
// A block waits for the same block of the other ranks alone. Nobody is sent a line that he has not read the last of: a
// rank sends for epoch e + 2 once it has all of e + 1, whose senders were done with e.
#include "cuda/direct.cuh"
#include "cuda/ptx.cuh"

// The pair that the sender has for this place.
static __device__ __forceinline__ unsigned receive(const volatile unsigned long long *line, unsigned epoch) {
    unsigned long long word;
    do word = *line;
    while (word >> 32 != epoch);
    return (unsigned)word;
}

// RANKS is what it is compiled for, so that the addresses of all stay where arguments are.
extern "C" __global__ void direct_all_reduce(struct direct_arguments a) {
    programmatic_launch();
    programmatic_wait();
    unsigned epoch = a.epochs[blockIdx.x] + 1, own[DIRECT_EACH];
    size_t senders = (size_t)(epoch % 2) * RANKS;
    int first = blockIdx.x * DIRECT_CHUNK + threadIdx.x;
    for (int i = 0, pair = first; i < DIRECT_EACH && pair < a.pairs; i++, pair += DIRECT_THREADS) {
        own[i] = a.values[pair];
        unsigned long long word = (unsigned long long)epoch << 32 | own[i];
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++)
            if (rank != a.rank)
                *(volatile unsigned long long *)&a.sent[rank][(senders + a.rank) * DIRECT_PAIRS + pair] = word;
    }
    for (int i = 0, pair = first; i < DIRECT_EACH && pair < a.pairs; i++, pair += DIRECT_THREADS) {
        float low = 0, high = 0, more_low, more_high;
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++) {
            const unsigned long long *line = &a.received[(senders + rank) * DIRECT_PAIRS + pair];
            half2_to_floats(rank == a.rank ? own[i] : receive(line, epoch), more_low, more_high);
            low += more_low;
            high += more_high;
        }
        a.values[pair] = half2_from_floats(low, high);
    }
    __syncthreads();
    if (threadIdx.x == 0) a.epochs[blockIdx.x] = epoch;
}
