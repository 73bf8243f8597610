// The most that global memory gives to a kernel that only reads.

struct read_arguments {
    const uint4 *from;
    unsigned long long count; // a multiple of gridDim.x * blockDim.x * IN_FLIGHT
    unsigned *sink;
};

constexpr int IN_FLIGHT = 8;

// Each block reads runs of IN_FLIGHT * blockDim.x vectors; a thread has all IN_FLIGHT loads of a run under way.
extern "C" __global__ void __launch_bounds__(1024) ceiling_read(read_arguments a) {
    unsigned long long run = (unsigned long long)blockDim.x * IN_FLIGHT;
    unsigned seen = 0;
    for (unsigned long long at = blockIdx.x * run; at < a.count; at += gridDim.x * run) {
        uint4 v[IN_FLIGHT];
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++)
            v[i] = __ldcs(a.from + at + (unsigned long long)i * blockDim.x + threadIdx.x);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) seen ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    // The data are random: this hardly ever happens, but the compiler cannot leave the loads out.
    if (seen == 0x7113b00c) *a.sink = seen;
}
