/* From a checkpoint's order to a kernel's, one thread an element of the result: run once when a model is
 * loaded, so plainness comes before speed. */
#include "formats/layout.cuh"

static __device__ inline long first() {
    return (long)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ inline long step() {
    return (long)gridDim.x * blockDim.x;
}

extern "C" __global__ void repack_weights(const struct layout_repack repack) {
    for (long i = first(); i < repack.count; i += step()) layout_repack_weight(&repack, i);
}

extern "C" __global__ void repack_pairs(const struct layout_repack repack) {
    for (long i = first(); i < repack.count; i += step()) layout_repack_pair(&repack, i);
}

extern "C" __global__ void repack_zeros(const struct layout_repack repack) {
    for (long i = first(); i < repack.count; i += step()) layout_repack_zero(&repack, i);
}

extern "C" __global__ void repack_scales(const struct layout_repack repack) {
    for (long i = first(); i < repack.count; i += step()) layout_repack_scale(&repack, i);
}
