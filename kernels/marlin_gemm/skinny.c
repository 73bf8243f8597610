#include "kernels/marlin_gemm/slot.h"
#include "kernels/skinny.h"

static struct skinny_block block_of(const struct problem *problem, const struct config *config) {
    struct skinny_block block = skinny_block(config);
    int token_tiles = (block.tile_m + 7) / 8;
    block.slot_bytes = marlin_slot_bytes(problem);
    block.registers = token_tiles == 1 ? 102 : token_tiles == 2 ? 160 : 255;
    block.chunk_slots = 350 + (300 + 145.0 * 64 / block.tile_n) * token_tiles; /* the latter for x, which warps share */
    return block;
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    struct skinny_block block = block_of(problem, config);
    return skinny_legal(device, problem, &block, why);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    struct skinny_block block = block_of(problem, config);
    return skinny_estimate(device, problem, &block);
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    struct skinny_block block = block_of(problem, config);
    launch->source = "marlin_gemm/skinny.cu";
    launch->entry = "marlin_gemm";
    marlin_slot_options(problem, launch);
    skinny_launch(device, problem, &block, launch);
}

const struct kernel marlin_gemm_skinny = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CUDA,
    .name = "skinny",
    .summary = "fp16 x int4 in Marlin's layout for few tokens, a ring of weights for each warp (sm_80 on)",
    .bf16 = true,
    .parameter_count = SKINNY_PARAMETERS,
    .parameters =
        {
            [SKINNY_TILE_M] = {"tile_m", "rows of x a block", 5, {1, 4, 8, 16, 32}},
            [SKINNY_TILE_N] = {"tile_n", "columns of y a block", 3, {64, 128, 256}},
            [SKINNY_WARPS_K] =
                {"warps_k", "groups of warps that share a block's depth", 8, {1, 2, 4, 5, 8, 10, 14, 20}},
            [SKINNY_STAGES] = {"stages", "chunks of 128 in a warp's ring", 6, {2, 3, 4, 5, 6, 8}},
            [SKINNY_SPLIT_K] = {"split_k", "blocks of a cluster that share K", 4, {1, 2, 4, 8}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
