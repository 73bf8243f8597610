/* An element of the KV cache: fp16, or with KV_BYTES 1 an fp8 code (kv.h). HEAD_DIM: 64 or 128. */
#ifndef TILEBOOK_DECODER_KV_CUH
#define TILEBOOK_DECODER_KV_CUH

#include "decoder/ptx.cuh"

#if KV_BYTES == 1
typedef unsigned char kv_element;
#else
typedef unsigned short kv_element;
#endif

/* The codes of a chunk of eight fp16. */
__device__ inline uint2 codes_of(const uint4 &chunk) {
    return {codes_from_halves(chunk.x, chunk.y), codes_from_halves(chunk.z, chunk.w)};
}

/* 16 bytes of elements of the cache, from fp16. */
__device__ inline uint4 elements_of(const uint4 *chunks) {
    if (KV_BYTES == 2) return chunks[0];
    const uint2 low = codes_of(chunks[0]), high = codes_of(chunks[1]);
    return {low.x, low.y, high.x, high.y};
}

/* Writes a chunk of eight fp16 as elements of the cache. */
__device__ inline void store_elements(kv_element *to, const uint4 &chunk) {
    if (KV_BYTES == 1)
        *(uint2 *)to = codes_of(chunk);
    else
        *(uint4 *)to = chunk;
}

#endif
