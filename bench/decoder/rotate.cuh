/* Rotary positions. A thread has a chunk of eight elements, threadIdx.x % CHUNK_PAIRS of a head, and that which it is
 * rotated with, HEAD_DIM / 2 further on. HEAD_DIM: 64 or 128. */
#ifndef TILEBOOK_DECODER_ROTATE_CUH
#define TILEBOOK_DECODER_ROTATE_CUH

#include "decoder/ptx.cuh"

constexpr int CHUNK_PAIRS = HEAD_DIM / 16;

/* By which a thread rotates its chunks. */
struct angles {
    float cosine[8], sine[8];
};

/* Finds the angles of a position, each once, and hands each thread of the block its own. */
__device__ inline struct angles find_angles(const float *frequency, int position) {
    __shared__ __align__(16) float cosines[HEAD_DIM / 2], sines[HEAD_DIM / 2];
    struct angles own;
    const int i = threadIdx.x, first = threadIdx.x % CHUNK_PAIRS * 8;
    if (i < HEAD_DIM / 2) sincosf((float)position * frequency[i], &sines[i], &cosines[i]);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 8; j++) own.cosine[j] = cosines[first + j], own.sine[j] = sines[first + j];
    return own;
}

/* Rotates two elements of a chunk with those of the other. */
__device__ inline void rotate_pairs(unsigned &low, unsigned &high, const float *cosine, const float *sine) {
    float x[2], y[2];
    half2_to_floats(low, x[0], x[1]);
    half2_to_floats(high, y[0], y[1]);
    low = half2_from_floats(x[0] * cosine[0] - y[0] * sine[0], x[1] * cosine[1] - y[1] * sine[1]);
    high = half2_from_floats(y[0] * cosine[0] + x[0] * sine[0], y[1] * cosine[1] + x[1] * sine[1]);
}

/* Rotates a thread's chunks. */
__device__ inline void rotate_chunks(uint4 &low, uint4 &high, const struct angles &by) {
    rotate_pairs(low.x, high.x, by.cosine, by.sine);
    rotate_pairs(low.y, high.y, by.cosine + 2, by.sine + 2);
    rotate_pairs(low.z, high.z, by.cosine + 4, by.sine + 4);
    rotate_pairs(low.w, high.w, by.cosine + 6, by.sine + 6);
}

#endif
