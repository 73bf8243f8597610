/* What is right, computed plainly and in double precision on the device itself, and the data to
 * check it with. Used by the verifier, the benchmarks and the tests, for every kernel alike. */
#ifndef TILEBOOK_REFERENCE_H
#define TILEBOOK_REFERENCE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernel.h"

/* fp16 or bf16, uniform in [low, high]; the same numbers on every backend for the same seed. */
int reference_fill_half(struct device *device, void *to, size_t count, float low, float high, uint64_t seed,
                        struct error *error);
int reference_fill_bf16(struct device *device, void *to, size_t count, float low, float high, uint64_t seed,
                        struct error *error);
/* Uniform random bits: int4 codes and zero points of any layout. */
int reference_fill_bits(struct device *device, void *to, size_t bytes, uint64_t seed, struct error *error);

/* y[problem_outputs] as fp32, from the operands as the op lays them out; sums in double; on a GPU of
 * runs of 64 products, each run summed in fp32. operands->y is not used. */
int reference_run(struct device *device, const struct problem *problem, const struct operands *operands, float *y,
                  struct error *error);

struct comparison {
    double relative_error; /* ||y - ref|| / ||ref||, over the finite elements of y */
    size_t bad;            /* elements of y that are NaN or infinite: unwritten (poisoned) or overflowed */
    size_t first_bad;      /* index of the first */
};
/* Compares y (fp16, or bf16) with the reference (fp32). */
int reference_compare(struct device *device, const void *y, bool bf16, const float *reference, size_t count,
                      struct comparison *comparison, struct error *error);

#endif
