/* The host's side of cuda/skinny.cuh: what a block of the GEMMs for few tokens is, may be, and costs. */
#ifndef TILEBOOK_SKINNY_H
#define TILEBOOK_SKINNY_H

#include "kernels/kernel.h"

/* The tile parameters, in the order of both kernels' configurations. */
enum { SKINNY_TILE_M, SKINNY_TILE_N, SKINNY_WARPS_K, SKINNY_STAGES, SKINNY_SPLIT_K, SKINNY_PARAMETERS };

/* Of k, that a warp takes at a time. */
enum { SKINNY_CHUNK = 128 };

/* A block, as its kernel describes it. */
struct skinny_block {
    int tile_m, tile_n, warps_k, stages, split_k;
    size_t slot_bytes;  /* a warp's weights of a chunk */
    int registers;      /* of a thread, about */
    double chunk_slots; /* instructions that a warp spends on a chunk */
};

/* Everything but the kernel's own fields. */
struct skinny_block skinny_block(const struct config *config);

/* The three functions of a description (kernel.h) as far as they are common; skinny_launch appends -DSHARED_BYTES,
 * which the device code compares with its own arithmetic, and -DBLOCKS, those that an SM can hold. */
int skinny_legal(const struct device *device, const struct problem *problem, const struct skinny_block *block,
                 struct error *why);
double skinny_estimate(const struct device *device, const struct problem *problem, const struct skinny_block *block);
void skinny_launch(const struct device *device, const struct problem *problem, const struct skinny_block *block,
                   struct launch *launch);

#endif
