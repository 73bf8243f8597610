#include "kernels/skinny.h"

enum { COLUMNS = 64 };

static struct skinny_block block_of(const struct config *config) {
    struct skinny_block block = skinny_block(config);
    int token_tiles = (block.tile_m + 7) / 8;
    block.slot_bytes = SKINNY_CHUNK * COLUMNS * sizeof(uint16_t);
    block.registers = token_tiles <= 2 ? 104 : token_tiles <= 4 ? 168 : 216;
    block.chunk_slots = 730 + 390.0 * token_tiles;
    return block;
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    struct skinny_block block = block_of(config);
    if (problem->k % SKINNY_CHUNK) return error_set(why, "K=%d is not a multiple of %d", problem->k, SKINNY_CHUNK);
    return skinny_legal(device, problem, &block, why);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    struct skinny_block block = block_of(config);
    return skinny_estimate(device, problem, &block);
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    struct skinny_block block = block_of(config);
    launch->source = "fp16_gemm/skinny.cu";
    launch->entry = "fp16_gemm";
    skinny_launch(device, problem, &block, launch);
}

const struct kernel fp16_gemm_skinny = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CUDA,
    .name = "skinny",
    .summary = "fp16 GEMM for few tokens, a ring of weights for each warp (sm_80 on)",
    .bf16 = true,
    .parameter_count = SKINNY_PARAMETERS,
    .parameters =
        {
            [SKINNY_TILE_M] = {"tile_m", "rows of x a block", 6, {1, 4, 8, 16, 32, 64}},
            [SKINNY_TILE_N] = {"tile_n", "columns of y a block", 3, {64, 128, 256}},
            [SKINNY_WARPS_K] = {"warps_k", "groups of warps that share a block's depth", 7, {1, 2, 4, 5, 8, 10, 16}},
            [SKINNY_STAGES] = {"stages", "chunks of 128 in a warp's ring", 4, {1, 2, 3, 4}},
            [SKINNY_SPLIT_K] = {"split_k", "blocks of a cluster that share K", 4, {1, 2, 4, 8}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
