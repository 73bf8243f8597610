#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "kernels/persistent.h"

enum { TILE_M, TILE_N, WARPGROUPS, STAGES, CLUSTER_N, SPLIT_K, ORDER, PARAMETERS };

/* Of rows with a scale that a stage touches; 0 if all of K has one. */
static int groups_of(const struct problem *p) {
    if (p->group >= p->k) return 0;
    return PERSISTENT_TILE_K > p->group ? PERSISTENT_TILE_K / p->group : 1;
}

static struct persistent_block block_of(const struct problem *p, const struct config *config) {
    const int *v = config->value;
    const size_t n = (size_t)v[TILE_N], a_group = n * sizeof(uint16_t) + (p->zeros ? n / 2 : 0);
    return (struct persistent_block){
        .tile_m = v[TILE_M],
        .tile_n = v[TILE_N],
        .warpgroups = v[WARPGROUPS],
        .stages = v[STAGES],
        .cluster_m = 1,
        .cluster_n = v[CLUSTER_N],
        .split_k = v[SPLIT_K],
        .weight_bytes = n * PERSISTENT_TILE_K / 2 + (size_t)groups_of(p) * a_group,
        .rate = v[WARPGROUPS] == 1 ? 0.73 : 0.77,
        .stage_us = 0.021 + v[TILE_N] * 0.00034,
    };
}

static int legal(const struct device *device, const struct problem *p, const struct config *config, struct error *why) {
    struct persistent_block b = block_of(p, config);
    int columns = PERSISTENT_PANEL * b.warpgroups;
    if (persistent_legal(device, p, &b, why)) return -1;
    if (b.tile_n % columns)
        return error_set(why, "tile_n=%d is not a multiple of %d, what %d warpgroups multiply at a time", b.tile_n,
                         columns, b.warpgroups);
    return 0;
}

static double estimate(const struct device *device, const struct problem *p, const struct config *config) {
    struct persistent_block b = block_of(p, config);
    return persistent_estimate(device, p, &b);
}

/* Codes, and scales and zero points where there are several groups. */
static void add_tensors(const struct problem *p, const struct persistent_block *b, struct launch *launch) {
    const size_t n = (size_t)p->n, k = (size_t)p->k, group = (size_t)p->group;
    const int groups = groups_of(p);
    const struct launch_tensor all[] = {
        /* Of 16 rows 64 columns are 512 bytes. */
        {offsetof(struct operands, weights), {sizeof(uint64_t), k / 16, n, PERSISTENT_TILE_K / 16, b->tile_n, false}},
        {offsetof(struct operands, scales), {sizeof(uint16_t), k / group, n, groups, b->tile_n, false}},
        {offsetof(struct operands, zeros), {sizeof(uint32_t), k / group, n / 8, groups, b->tile_n / 8, false}},
    };
    const int count = groups ? p->zeros ? 3 : 2 : 1;
    for (int i = 0; i < count; i++) launch->tensors[launch->tensor_count++] = all[i];
}

static void launch(const struct device *device, const struct problem *p, const struct config *config,
                   struct launch *launch) {
    struct persistent_block b = block_of(p, config);
    launch->source = "marlin_gemm/persistent.cu";
    launch->entry = "marlin_gemm";
    persistent_launch(device, p, &b, launch);
    add_tensors(p, &b, launch);
    size_t length = strlen(launch->options);
    snprintf(launch->options + length, sizeof launch->options - length, " -DCLUSTER_M=1 -DGROUP=%d -DZEROS=%d",
             p->group < p->k ? p->group : 0, p->zeros);
}

const struct kernel marlin_gemm_persistent = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CUDA,
    .name = "persistent",
    .summary = "fp16 x int4 in Marlin's layout on wgmma for many tokens, weights its register operand (sm_90a)",
    .bf16 = true,
    .parameter_count = PARAMETERS,
    .parameters =
        {
            [TILE_M] = {"tile_m", "rows of x a tile", 6, {64, 96, 128, 160, 192, 256}},
            [TILE_N] = {"tile_n", "columns of y a tile", 4, {64, 128, 192, 256}},
            [WARPGROUPS] = {"warpgroups", "that share a tile's columns", 3, {1, 2, 3}},
            [STAGES] = {"stages", "pipeline stages of 64 of k", 5, {3, 4, 5, 6, 8}},
            [CLUSTER_N] = {"cluster_n", "tiles side by side that share requests of x", 2, {1, 2}},
            [SPLIT_K] = {"split_k", "parts of K of the tiles that do not fill a round", 6, {1, 2, 3, 4, 6, 8}},
            [ORDER] = {"order", "tiles of rows that a band has", 4, {1, 4, 8, 16}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
