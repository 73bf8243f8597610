/* The host's side of cuda/persistent.cuh: what a block of the wgmma GEMMs for many tokens is, may be, and costs. */
#ifndef TILEBOOK_PERSISTENT_H
#define TILEBOOK_PERSISTENT_H

#include "kernels/kernel.h"

/* Of k, that a stage has; columns and rows of a product. */
enum { PERSISTENT_TILE_K = 64, PERSISTENT_PANEL = 64 };

/* A block, as its kernel describes it. */
struct persistent_block {
    int tile_m, tile_n, warpgroups, stages, cluster_m, cluster_n, split_k;
    size_t weight_bytes; /* that requests bring for a stage beside x */
    bool weights_shared; /* by the blocks of a cluster with the same columns */
    double rate;         /* the share of the matrix unit's rate that products reach */
    double stage_us;     /* what a stage costs beside them */
};

/* The three functions of a description (kernel.h) as far as they are common. persistent_launch sets everything but the
 * source, the entry and the maps of weights, and begins the options with what device code compares with its own
 * arithmetic. */
int persistent_legal(const struct device *device, const struct problem *problem, const struct persistent_block *block,
                     struct error *why);
double persistent_estimate(const struct device *device, const struct problem *problem,
                           const struct persistent_block *block);
void persistent_launch(const struct device *device, const struct problem *problem, const struct persistent_block *block,
                       struct launch *launch);

#endif
