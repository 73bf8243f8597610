/* The device sources that the program carries, and the hashes of what a tile table was measured with. The Makefile
 * makes them; they are there in every build, with a CUDA Toolkit or without. */
#ifndef TILEBOOK_EMBEDDED_H
#define TILEBOOK_EMBEDDED_H

/* Every .cu and .cuh of kernels/ and bench/. */
struct embedded_source {
    const char *name; /* below its room: "marlin_gemm/mma.cu", "cuda/ptx.cuh", "decoder/ops.cu" */
    const char *text; /* NUL-terminated */
};
extern const struct embedded_source embedded_sources[]; /* ended by a NULL name */

/* 8 hex digits each: the CUDA kernels' sources, the CPU kernels'. */
extern const char kernels_hash_cuda[], kernels_hash_cpu[];

#endif
