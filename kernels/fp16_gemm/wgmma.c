#include <stddef.h>

#include "kernels/persistent.h"

enum { TILE_M, TILE_N, WARPGROUPS, STAGES, CLUSTER_M, CLUSTER_N, SPLIT_K, ORDER, PARAMETERS };

static struct persistent_block block_of(const struct config *config) {
    const int *v = config->value;
    return (struct persistent_block){
        .tile_m = v[TILE_M],
        .tile_n = v[TILE_N],
        .warpgroups = v[WARPGROUPS],
        .stages = v[STAGES],
        .cluster_m = v[CLUSTER_M],
        .cluster_n = v[CLUSTER_N],
        .split_k = v[SPLIT_K],
        .weight_bytes = (size_t)v[TILE_N] * PERSISTENT_TILE_K * sizeof(uint16_t),
        .weights_shared = true,
        .rate = v[WARPGROUPS] == 1 ? 0.63 : 0.73,
        .stage_us = 0.035,
    };
}

static int legal(const struct device *device, const struct problem *p, const struct config *config, struct error *why) {
    struct persistent_block b = block_of(config);
    int rows = PERSISTENT_PANEL * b.warpgroups;
    if (persistent_legal(device, p, &b, why)) return -1;
    if (b.tile_m % rows)
        return error_set(why, "tile_m=%d is not a multiple of %d, what %d warpgroups multiply at a time", b.tile_m,
                         rows, b.warpgroups);
    if (p->epilogue == EPILOGUE_SILU_MUL && b.tile_n % 64)
        return error_set(why, "tile_n=%d is not a multiple of 64, which make 32 columns of y with silu_mul", b.tile_n);
    return 0;
}

static double estimate(const struct device *device, const struct problem *p, const struct config *config) {
    struct persistent_block b = block_of(config);
    return persistent_estimate(device, p, &b);
}

static void launch(const struct device *device, const struct problem *p, const struct config *config,
                   struct launch *launch) {
    struct persistent_block b = block_of(config);
    launch->source = "fp16_gemm/wgmma.cu";
    launch->entry = "fp16_gemm";
    persistent_launch(device, p, &b, launch);
    launch->tensors[launch->tensor_count++] = (struct launch_tensor){
        offsetof(struct operands, weights),
        {sizeof(uint16_t), (size_t)p->n, (size_t)p->k, b.tile_n / b.cluster_m, PERSISTENT_TILE_K, true}};
}

const struct kernel fp16_gemm_wgmma = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CUDA,
    .name = "wgmma",
    .summary = "fp16 GEMM on wgmma, a warp requests boxes for warpgroups that multiply, persistent (sm_90a)",
    .bf16 = true,
    .parameter_count = PARAMETERS,
    .parameters =
        {
            [TILE_M] = {"tile_m", "rows of x a tile", 4, {64, 128, 192, 256}},
            [TILE_N] = {"tile_n", "columns of y a tile", 7, {64, 96, 128, 160, 192, 224, 256}},
            [WARPGROUPS] = {"warpgroups", "that share a tile's rows", 3, {1, 2, 3}},
            [STAGES] = {"stages", "pipeline stages of 64 of k", 5, {3, 4, 5, 6, 8}},
            [CLUSTER_M] = {"cluster_m", "tiles below each other that share requests of W", 2, {1, 2}},
            [CLUSTER_N] = {"cluster_n", "tiles side by side that share requests of x", 2, {1, 2}},
            [SPLIT_K] = {"split_k", "parts of K of the tiles that do not fill a round", 6, {1, 2, 3, 4, 6, 8}},
            [ORDER] = {"order", "tiles of rows that a band has", 4, {1, 4, 8, 16}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
