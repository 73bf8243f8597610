#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/estimate.h"
#include "kernels/kernel.h"
#include "kernels/occupancy.h"

enum { TILE_M, TILE_K, WARPGROUPS_N, WARPGROUPS_K, STAGES, SPLIT_K, PARAMETERS };
/* Of a block; a warpgroup of four warps has all its columns. */
enum { TILE_N = 256, GROUP_THREADS = 128, REQUEST_THREADS = 128, MOST_WARPGROUPS = 4 };
/* What counts a cluster's sums, and a stage's two barriers, as wgmma.cu has them. */
enum { TRANSFER_BYTES = 16, BARRIER_BYTES = 16 };

/* A block, as wgmma.cu draws it. */
struct block {
    int tile_m, tile_k, warpgroups_n, warpgroups_k, stages, split_k;
    int groups;          /* of rows with a scale that a stage touches; 0 if all of K has one */
    size_t weight_bytes; /* of a stage: codes, and those groups' scales and zero points */
};

static struct block block_of(const struct problem *p, const struct config *config) {
    const int *value = config->value;
    struct block b = {
        value[TILE_M], value[TILE_K], value[WARPGROUPS_N], value[WARPGROUPS_K], value[STAGES], value[SPLIT_K], 0, 0};
    if (p->group < p->k) b.groups = b.tile_k > p->group ? b.tile_k / p->group : 1;
    size_t a_group = TILE_N * sizeof(uint16_t) + (p->zeros ? TILE_N / 2 : 0);
    b.weight_bytes = (size_t)b.tile_k * TILE_N / 2 + (size_t)b.groups * a_group;
    return b;
}

static int warpgroups(const struct block *b) {
    return b->warpgroups_n * b->warpgroups_k;
}

/* Those that multiply, and those that request. */
static int threads(const struct block *b) {
    return GROUP_THREADS * warpgroups(b) + REQUEST_THREADS;
}

/* Of a thread that multiplies: two sums a token, two steps of weights, scales, zero points, and addresses. */
static int group_registers(const struct block *b) {
    return (2 * b->tile_m + 96) / b->warpgroups_n;
}

/* At most, when the others have released theirs (wgmma.cu, GROUP_REGISTERS); and of all of them at the start. */
static const int most_registers[] = {0, 255, 240, 160, 112}, launch_registers[] = {0, 255, 168, 128, 96};

static int registers(const struct block *b) {
    return warpgroups(b) == 1 ? group_registers(b) : launch_registers[warpgroups(b)];
}

/* What a block brings to the sums of its cluster, or receives. */
static size_t exchange_bytes(const struct block *b) {
    long fragments = b->tile_m / 2, own = estimate_blocks(fragments, b->split_k);
    return (size_t)(b->split_k * b->warpgroups_k * own) * GROUP_THREADS * 4 * sizeof(float);
}

static size_t shared_bytes(const struct block *b) {
    size_t stage = (size_t)b->tile_m * (size_t)b->tile_k * sizeof(uint16_t) + b->weight_bytes;
    size_t stages = (size_t)(b->warpgroups_k * b->stages), pipelines = stages * stage;
    return (pipelines > exchange_bytes(b) ? pipelines : exchange_bytes(b)) + stages * BARRIER_BYTES + TRANSFER_BYTES;
}

static struct occupancy occupancy(const struct block *b) {
    return (struct occupancy){threads(b), registers(b), shared_bytes(b)};
}

static long block_count(const struct problem *p, const struct block *b) {
    return estimate_blocks(p->m, b->tile_m) * estimate_blocks(p->n, TILE_N) * b->split_k;
}

static int legal(const struct device *device, const struct problem *p, const struct config *config, struct error *why) {
    struct block b = block_of(p, config);
    int parts = b.split_k * b.warpgroups_k;
    if (device->compute_capability != 90)
        return error_set(why, "wgmma needs compute capability 9.0 and no other; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    if (p->k % b.tile_k) return error_set(why, "tile_k=%d does not divide K=%d", b.tile_k, p->k);
    if (parts > p->k / b.tile_k)
        return error_set(why, "split_k=%d and warpgroups_k=%d leave parts without work: K=%d is %d times tile_k=%d",
                         b.split_k, b.warpgroups_k, p->k, p->k / b.tile_k, b.tile_k);
    if (warpgroups(&b) > MOST_WARPGROUPS)
        return error_set(why, "%d warpgroups; a block has at most %d", warpgroups(&b), MOST_WARPGROUPS);
    if (group_registers(&b) > most_registers[warpgroups(&b)])
        return error_set(why, "about %d registers a thread; %d warpgroups have %d each", group_registers(&b),
                         warpgroups(&b), most_registers[warpgroups(&b)]);
    struct occupancy block = occupancy(&b);
    return occupancy_check(device, &block, why);
}

/* What is requested in boxes: x, codes, and scales and zero points where there are several groups. */
static void add_tensors(const struct problem *p, const struct block *b, struct launch *launch) {
    const size_t n = (size_t)p->n, k = (size_t)p->k, group = (size_t)p->group;
    const struct launch_tensor all[] = {
        {offsetof(struct operands, x), {sizeof(uint16_t), (size_t)p->m, k, b->tile_m, 64, true}},
        /* Of 16 rows 64 columns are 512 bytes. */
        {offsetof(struct operands, weights), {sizeof(uint64_t), k / 16, n, b->tile_k / 16, TILE_N, false}},
        {offsetof(struct operands, scales), {sizeof(uint16_t), k / group, n, b->groups, TILE_N, false}},
        {offsetof(struct operands, zeros), {sizeof(uint32_t), k / group, n / 8, b->groups, TILE_N / 8, false}},
    };
    launch->tensor_count = b->groups ? p->zeros ? 4 : 3 : 2;
    for (int i = 0; i < launch->tensor_count; i++) launch->tensors[i] = all[i];
}

static void launch(const struct device *device, const struct problem *p, const struct config *config,
                   struct launch *launch) {
    (void)device;
    struct block b = block_of(p, config);
    launch->source = "marlin_gemm/wgmma.cu";
    launch->entry = "marlin_gemm";
    launch->grid = (struct device_grid){.blocks = {(unsigned)block_count(p, &b), 1, 1},
                                        .threads = (unsigned)threads(&b),
                                        .cluster = (unsigned)b.split_k,
                                        .overlaps = true};
    launch->shared_bytes = shared_bytes(&b);
    add_tensors(p, &b, launch);
    snprintf(launch->options, sizeof launch->options, "-DGROUP=%d -DZEROS=%d -DSHARED_BYTES=%zu",
             p->group < p->k ? p->group : 0, p->zeros, launch->shared_bytes);
}

/* --- the estimate: memory, L2, requests under way and the busiest SM's work overlap; some things are paid once --- */

/* A request takes about this long to come back from memory. */
static const double latency_us = 0.6;
/* A launch that does nothing, with filling the pipeline and the last stores. */
static const double fixed_us = 2.4;
/* Two times across the cluster. */
static const double cluster_us = 1.2;
/* Requesting 16 rows of a tile's weights and bringing them into registers takes a warp this long. */
static const double decode_us = 0.027;
/* Of a step's work this much is hidden where many warpgroups take turns, half of it with two. */
static const double hidden = 0.06;
/* A stage's wait, barrier and request; half of it is covered by a second warpgroup. */
static const double turn_us = 0.19;
/* An SM draws at most this multiple of its part of the memory's rate. */
static const double sm_share = 1.25;
/* L2 delivers about this multiple of memory. */
static const double cache_ratio = 1.3;
/* Bytes a microsecond that an SM exchanges with itself, and with others. */
static const double own_rate = 7.5e4, cluster_rate = 4.1e4;
/* Until the next block of an SM has filled its pipeline. */
static const double restart_us = 1.6;
/* SMs that a cluster can be placed on; some parts of the chip have more, none less. */
enum { PART_SMS = 16 };

static long resident_blocks(const struct device *device, const struct block *b) {
    struct occupancy block = occupancy(b);
    return occupancy_blocks(device, &block);
}

/* Blocks that run at a time. */
static double slots(const struct device *device, const struct block *b) {
    long resident = resident_blocks(device, b), parts = device->multiprocessors / PART_SMS;
    if (b->split_k == 1) return (double)(resident * device->multiprocessors);
    return (double)(parts * (PART_SMS * resident / b->split_k) * b->split_k);
}

/* Stages under way: while one is computed the newest request is on average half a stage old. */
static double stages_ahead(const struct block *b) {
    return b->stages - 1.5;
}

static double memory_us(const struct device *device, const struct problem *p, const struct block *b) {
    const struct estimate_memory memory = {.bytes = problem_bytes(p),
                                           .blocks = (double)block_count(p, b),
                                           .slots = fmax(1, slots(device, b)),
                                           .under_way = b->warpgroups_k * stages_ahead(b) * (double)b->weight_bytes,
                                           .latency_us = latency_us,
                                           .sm_share = sm_share};
    return estimate_memory_us(device, &memory);
}

/* Every tile reads its rows of x again. */
static double cache_us(const struct device *device, const struct problem *p, const struct block *b) {
    double tiles = (double)block_count(p, b) / b->split_k;
    double stage = 2.0 * b->tile_m * b->tile_k + (double)b->weight_bytes;
    return tiles * (p->k / b->tile_k) * stage / (device->memory_gbs * 1e3 * cache_ratio);
}

/* Blocks that the SM with the most has, one behind or beside the other; a cluster stays in its part of the chip. One
 * place is not counted: as many clusters as there are places were measured to take two rounds. */
static double blocks_on_one(const struct device *device, const struct problem *p, const struct block *b) {
    long blocks = block_count(p, b), parts = device->multiprocessors / PART_SMS;
    if (b->split_k == 1 || parts < 1) return (double)estimate_blocks(blocks, device->multiprocessors);
    long places = parts * (PART_SMS / b->split_k) - 1;
    return (double)estimate_blocks(blocks / b->split_k, places > 0 ? places : 1);
}

/* None is faster than its stages come back. */
static double work_us(const struct device *device, const struct problem *p, const struct block *b) {
    double rounds = blocks_on_one(device, p, b);
    double at_once = fmin(rounds, (double)resident_blocks(device, b)) * b->warpgroups_k;
    double steps = (double)estimate_blocks(p->k / b->tile_k, b->split_k * b->warpgroups_k) * (b->tile_k / 16.0);
    double multiply_us = 2.0 * b->tile_m * TILE_N * 16 * device->multiprocessors / (device->matrix_tflops * 1e6);
    double step_us = (decode_us / b->warpgroups_n + multiply_us) * (1 - hidden + hidden / at_once);
    double stage_us = latency_us / stages_ahead(b) / (b->tile_k / 16.0) / at_once;
    double turns_us = turn_us * 16 / b->tile_k / fmin(at_once, 2);
    return rounds * b->warpgroups_k * steps * (fmax(step_us, stage_us) + turns_us);
}

/* A block's end, which nothing covers where it is alone on its SM. */
static double exchange_us(const struct device *device, const struct problem *p, const struct block *b) {
    double bytes = (double)exchange_bytes(b), rounds = blocks_on_one(device, p, b) / (double)resident_blocks(device, b);
    double us = b->split_k == 1 ? bytes / own_rate : cluster_us + bytes / cluster_rate;
    return ceil(rounds) * us + (ceil(rounds) - 1) * restart_us;
}

static double estimate(const struct device *device, const struct problem *p, const struct config *config) {
    struct block b = block_of(p, config);
    const double parts[] = {memory_us(device, p, &b), cache_us(device, p, &b), work_us(device, p, &b)};
    return fixed_us + estimate_together(parts, 3) + exchange_us(device, p, &b);
}

const struct kernel marlin_gemm_wgmma = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CUDA,
    .name = "wgmma",
    .summary = "fp16 x int4 in Marlin's layout on wgmma, weights its register operand, K over a cluster (sm_90a)",
    .bf16 = true,
    .parameter_count = PARAMETERS,
    .parameters =
        {
            [TILE_M] = {"tile_m", "rows of x a block", 3, {16, 32, 64}},
            [TILE_K] = {"tile_k", "depth of a pipeline stage", 2, {64, 128}},
            [WARPGROUPS_N] = {"warpgroups_n", "warpgroups that share a group's columns", 2, {1, 2}},
            [WARPGROUPS_K] = {"warpgroups_k", "groups of a block that share K", 3, {1, 2, 3}},
            [STAGES] = {"stages", "pipeline stages of a group", 5, {2, 3, 4, 6, 8}},
            [SPLIT_K] = {"split_k", "blocks of a cluster that share K", 7, {1, 2, 3, 4, 5, 6, 8}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
