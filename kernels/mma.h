/* The host's side of cuda/mma.cuh: what a block of the mma.sync GEMMs is, may be, and costs. */
#ifndef TILEBOOK_MMA_H
#define TILEBOOK_MMA_H

#include "kernels/kernel.h"

/* The tile parameters, in the order of both kernels' configurations. */
enum { MMA_TILE_M, MMA_TILE_N, MMA_TILE_K, MMA_WARPS_K, MMA_STAGES, MMA_SPLIT_K, MMA_PARAMETERS };

/* A block, as its kernel describes it. */
struct mma_block {
    int tile_m, tile_n, tile_k, warps_k, stages, split_k;
    size_t stage_bytes;    /* shared memory of one stage */
    bool two_sums;         /* keeps a second set of sums beside the first */
    double fragment_slots; /* instructions that bring 16 x 64 weights from shared memory into registers */
};

/* Everything but the kernel's own fields. */
struct mma_block mma_block(const struct config *config);

/* The three functions of a description (kernel.h) as far as they are common; mma_launch appends
 * -DSHARED_BYTES, which the device code compares with its own arithmetic. */
int mma_legal(const struct device *device, const struct problem *problem, const struct mma_block *block,
              struct error *why);
double mma_estimate(const struct device *device, const struct problem *problem, const struct mma_block *block);
void mma_launch(const struct problem *problem, const struct mma_block *block, struct launch *launch);

#endif
