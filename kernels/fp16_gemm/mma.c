#include "kernels/mma.h"

static struct mma_block block_of(const struct config *config) {
    struct mma_block block = mma_block(config);
    block.stage_bytes = (size_t)(block.tile_m + block.tile_n) * (size_t)block.tile_k * sizeof(uint16_t);
    block.fragment_slots = 8;
    return block;
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    struct mma_block block = block_of(config);
    return mma_legal(device, problem, &block, why);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    struct mma_block block = block_of(config);
    return mma_estimate(device, problem, &block);
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    (void)device;
    struct mma_block block = block_of(config);
    launch->source = "fp16_gemm/mma.cu";
    launch->entry = "fp16_gemm";
    mma_launch(problem, &block, launch);
}

const struct kernel fp16_gemm_mma = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CUDA,
    .name = "mma",
    .summary = "fp16 GEMM on mma.sync and cp.async, tokens on the narrow side (sm_80 on)",
    .bf16 = true,
    .parameter_count = MMA_PARAMETERS,
    .parameters =
        {
            [MMA_TILE_M] = {"tile_m", "rows of x a block", 5, {8, 16, 32, 64, 128}},
            [MMA_TILE_N] = {"tile_n", "columns of y a block", 3, {64, 128, 256}},
            [MMA_TILE_K] = {"tile_k", "depth of a pipeline stage", 2, {64, 128}},
            [MMA_WARPS_K] = {"warps_k", "warps that share a stage's depth", 3, {1, 2, 4}},
            [MMA_STAGES] = {"stages", "pipeline stages in shared memory", 4, {2, 3, 4, 6}},
            [MMA_SPLIT_K] = {"split_k", "blocks that share K", 4, {1, 2, 4, 8}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
