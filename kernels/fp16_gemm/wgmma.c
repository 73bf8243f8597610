#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/estimate.h"
#include "kernels/kernel.h"
#include "kernels/occupancy.h"

enum { TILE_M, TILE_N, WARPGROUPS, STAGES, CLUSTER, SPLIT_K, ORDER, PARAMETERS };
/* As wgmma.cu has them: rows of a panel, k of a stage, a stage's two barriers, and what the last part says. */
enum { PANEL = 64, TILE_K = 64, BARRIER_BYTES = 16, LAST_BYTES = 16 };
enum { GROUP_THREADS = 128, REQUEST_THREADS = 128 };
/* Sums that a thread has registers for, with 160 registers and with more. */
enum { MOST_SUMS_OF_THREE = 112, MOST_SUMS = 192 };
static const size_t most_workspace = (size_t)256 << 20;

/* A block, as wgmma.cu draws it. */
struct block {
    int tile_m, tile_n, warpgroups, stages, cluster, split_k, order;
};

static struct block block_of(const struct config *config) {
    const int *v = config->value;
    return (struct block){v[TILE_M], v[TILE_N], v[WARPGROUPS], v[STAGES], v[CLUSTER], v[SPLIT_K], v[ORDER]};
}

static int threads(const struct block *b) {
    return GROUP_THREADS * b->warpgroups + REQUEST_THREADS;
}

static size_t stage_bytes(const struct block *b) {
    return (size_t)(b->tile_m + b->tile_n) * TILE_K * sizeof(uint16_t);
}

static size_t shared_bytes(const struct block *b) {
    return (size_t)b->stages * (stage_bytes(b) + BARRIER_BYTES) + LAST_BYTES;
}

/* Of all blocks; those of a cluster lie one below the other. */
static long tiles(const struct problem *p, const struct block *b) {
    return estimate_blocks(p->m, b->tile_m * b->cluster) * b->cluster * estimate_blocks(p->n, b->tile_n);
}

static size_t workspace_bytes(const struct problem *p, const struct block *b) {
    if (b->split_k == 1) return 0;
    size_t part = (size_t)b->tile_m * (size_t)b->tile_n * sizeof(float);
    return WORKSPACE_COUNTER_BYTES + (size_t)tiles(p, b) * (size_t)b->split_k * part;
}

static int check_split(const struct problem *p, const struct block *b, struct error *why) {
    if (b->split_k == 1) return 0;
    if (b->split_k > p->k / TILE_K)
        return error_set(why, "split_k=%d leaves parts without work: K=%d is %d times %d", b->split_k, p->k,
                         p->k / TILE_K, TILE_K);
    if (tiles(p, b) > WORKSPACE_COUNTER_BYTES / 4)
        return error_set(why, "split_k=%d needs a counter for each of %ld tiles; there are %d", b->split_k, tiles(p, b),
                         WORKSPACE_COUNTER_BYTES / 4);
    if (workspace_bytes(p, b) > most_workspace)
        return error_set(why, "split_k=%d needs a workspace of %zu MiB; at most %zu MiB are used", b->split_k,
                         workspace_bytes(p, b) >> 20, most_workspace >> 20);
    return 0;
}

static int legal(const struct device *device, const struct problem *p, const struct config *config, struct error *why) {
    struct block b = block_of(config);
    int rows = PANEL * b.warpgroups, sums = b.tile_m / b.warpgroups * b.tile_n / GROUP_THREADS;
    int most = b.warpgroups == 3 ? MOST_SUMS_OF_THREE : MOST_SUMS;
    if (device->compute_capability != 90)
        return error_set(why, "wgmma needs compute capability 9.0 and no other; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    if (p->k % TILE_K) return error_set(why, "K=%d is not a multiple of %d", p->k, TILE_K);
    if (b.tile_m % rows)
        return error_set(why, "tile_m=%d is not a multiple of %d, what %d warpgroups multiply at a time", b.tile_m,
                         rows, b.warpgroups);
    if (sums > most) return error_set(why, "%d sums a thread; its registers hold %d", sums, most);
    if (p->epilogue == EPILOGUE_SILU_MUL && b.tile_n % 64)
        return error_set(why, "tile_n=%d does not hold whole rows of 32 outputs, for which silu_mul needs 64 columns",
                         b.tile_n);
    struct occupancy block = {threads(&b), b.warpgroups == 1 ? 255 : b.warpgroups == 2 ? 168 : 128, shared_bytes(&b)};
    if (occupancy_check(device, &block, why)) return -1;
    return check_split(p, &b, why);
}

static void launch(const struct device *device, const struct problem *p, const struct config *config,
                   struct launch *launch) {
    struct block b = block_of(config);
    long items = tiles(p, &b) * b.split_k, sms = device->multiprocessors / b.cluster * b.cluster;
    const size_t m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    launch->source = "fp16_gemm/wgmma.cu";
    launch->entry = "fp16_gemm";
    launch->grid = (struct device_grid){.blocks = {(unsigned)(items < sms ? items : sms), 1, 1},
                                        .threads = (unsigned)threads(&b),
                                        .cluster = (unsigned)b.cluster,
                                        .overlaps = true};
    launch->shared_bytes = shared_bytes(&b);
    launch->workspace_bytes = workspace_bytes(p, &b);
    launch->tensor_count = 2;
    launch->tensors[0] =
        (struct launch_tensor){offsetof(struct operands, x), {sizeof(uint16_t), m, k, b.tile_m, TILE_K, true}};
    launch->tensors[1] = (struct launch_tensor){offsetof(struct operands, weights),
                                                {sizeof(uint16_t), n, k, b.tile_n / b.cluster, TILE_K, true}};
    snprintf(launch->options, sizeof launch->options, "-DSHARED_BYTES=%zu", launch->shared_bytes);
}

/* --- the estimate: memory, L2 and the matrix unit of the busiest SM overlap; some things are paid once --- */

/* A launch that does nothing, with filling the pipeline and the last stores. */
static const double fixed_us = 4.0;
/* A tile's stores, and the sums of a part there and back. */
static const double tile_us = 1.0, part_us = 2.0;
/* What of the matrix unit's rate is reached, by the columns of a tile. */
static double rate_share(const struct block *b) {
    return (b->tile_n == 256 ? 0.8 : 0.7) * (b->warpgroups == 1 ? 0.8 : 1);
}
/* A request takes about this long to come back from memory; an SM draws at most this multiple of its part of its rate;
 * L2 delivers about this multiple of it. */
static const double latency_us = 0.8, sm_share = 2, cache_ratio = 1.8;

static double work_us(const struct device *device, const struct problem *p, const struct block *b) {
    double items = (double)tiles(p, b) * b->split_k,
           rounds = ceil(items / (device->multiprocessors / b->cluster * b->cluster));
    double rate = device->matrix_tflops * 1e6 / device->multiprocessors * rate_share(b);
    double flops = 2.0 * b->tile_m * b->tile_n * ((double)p->k / b->split_k);
    return rounds * (flops / rate + tile_us + (b->split_k > 1 ? part_us : 0));
}

static double estimate(const struct device *device, const struct problem *p, const struct config *config) {
    struct block b = block_of(config);
    double items = (double)tiles(p, &b) * b.split_k, loads = items / b.split_k * (p->k / TILE_K);
    const struct estimate_memory memory = {.bytes = problem_bytes(p),
                                           .blocks = items,
                                           .slots = device->multiprocessors,
                                           .under_way = (b.stages - 1) * (double)stage_bytes(&b),
                                           .latency_us = latency_us,
                                           .sm_share = sm_share};
    const double parts[] = {estimate_memory_us(device, &memory), work_us(device, p, &b),
                            loads * (double)stage_bytes(&b) / (device->memory_gbs * 1e3 * cache_ratio)};
    return fixed_us + estimate_together(parts, 3);
}

const struct kernel fp16_gemm_wgmma = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CUDA,
    .name = "wgmma",
    .summary = "fp16 GEMM on wgmma, a warp requests boxes for warpgroups that multiply, persistent (sm_90a)",
    .parameter_count = PARAMETERS,
    .parameters =
        {
            [TILE_M] = {"tile_m", "rows of x a tile", 4, {64, 128, 192, 256}},
            [TILE_N] = {"tile_n", "columns of y a tile", 5, {128, 160, 192, 224, 256}},
            [WARPGROUPS] = {"warpgroups", "that share a tile's rows", 3, {1, 2, 3}},
            [STAGES] = {"stages", "pipeline stages of 64 of k", 5, {3, 4, 5, 6, 8}},
            [CLUSTER] = {"cluster", "tiles below each other that share requests of W", 2, {1, 2}},
            [SPLIT_K] = {"split_k", "parts of K, added up through memory", 6, {1, 2, 3, 4, 6, 8}},
            [ORDER] = {"order", "tiles of rows that a band has", 4, {1, 4, 8, 16}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
