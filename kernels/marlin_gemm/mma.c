#include <stdio.h>

#include "kernels/mma.h"

/* The stage as mma.cu draws it: x, codes, and the scales and zero points of the groups it touches. */
static size_t stage_bytes(const struct problem *p, const struct mma_block *b) {
    size_t n = (size_t)b->tile_n, groups = 0;
    if (p->group < p->k) groups = b->tile_k > p->group ? (size_t)(b->tile_k / p->group) : 1;
    size_t bytes = (size_t)b->tile_m * (size_t)b->tile_k * sizeof(uint16_t) + (size_t)b->tile_k * n / 2;
    bytes += groups * n * sizeof(uint16_t) + (p->zeros ? groups * n / 2 : 0);
    return (bytes + 127) / 128 * 128;
}

static struct mma_block block_of(const struct problem *problem, const struct config *config) {
    struct mma_block block = mma_block(config);
    bool scale_sums = block.tile_m <= 16, grouped = problem->group < problem->k;
    block.stage_bytes = stage_bytes(problem, &block);
    block.two_sums = grouped && scale_sums;
    block.fragment_slots = grouped && !scale_sums ? 66 : 10;
    return block;
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    struct mma_block block = block_of(problem, config);
    return mma_legal(device, problem, &block, why);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    struct mma_block block = block_of(problem, config);
    return mma_estimate(device, problem, &block);
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    (void)device;
    struct mma_block block = block_of(problem, config);
    launch->source = "marlin_gemm/mma.cu";
    launch->entry = "marlin_gemm";
    snprintf(launch->options, sizeof launch->options, "-DGROUP=%d -DZEROS=%d",
             problem->group < problem->k ? problem->group : 0, problem->zeros);
    mma_launch(problem, &block, launch);
}

const struct kernel marlin_gemm_mma = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CUDA,
    .name = "mma",
    .summary = "fp16 x int4 in Marlin's layout on mma.sync and cp.async, tokens on the narrow side (sm_80 on)",
    .bf16 = true,
    .parameter_count = MMA_PARAMETERS,
    .parameters =
        {
            [MMA_TILE_M] = {"tile_m", "rows of x a block", 5, {8, 16, 32, 64, 128}},
            [MMA_TILE_N] = {"tile_n", "columns of y a block", 3, {64, 128, 256}},
            [MMA_TILE_K] = {"tile_k", "depth of a pipeline stage", 3, {64, 128, 256}},
            [MMA_WARPS_K] = {"warps_k", "warps that share a stage's depth", 4, {1, 2, 4, 8}},
            [MMA_STAGES] = {"stages", "pipeline stages in shared memory", 4, {2, 3, 4, 6}},
            [MMA_SPLIT_K] = {"split_k", "blocks that share K", 4, {1, 2, 4, 8}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
