#include <stdio.h>

#include "kernels/kernel.h"

enum { TILE_K, TILE_N, THREADS };

static long blocks(const struct problem *p, const struct config *c) {
    long tile_k = c->value[TILE_K], tile_n = c->value[TILE_N];
    return (p->k + tile_k - 1) / tile_k * ((p->n + tile_n - 1) / tile_n);
}

/* Each column of words is 16 bytes longer than its K (tiled.cu). */
static size_t shared_bytes(const struct config *c) {
    return (size_t)(c->value[TILE_N] / 8) * (size_t)(c->value[TILE_K] + 4) * sizeof(uint32_t);
}

static int legal(const struct device *device, const struct problem *problem, const struct config *c,
                 struct error *why) {
    (void)problem;
    int items = c->value[TILE_K] * c->value[TILE_N] / 64;
    if (device->compute_capability < 80)
        return error_set(why, "awq_dequant/tiled needs compute capability 8.0; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    if (items < c->value[THREADS])
        return error_set(why, "tile_k=%d x tile_n=%d is work for %d threads, not %d", c->value[TILE_K],
                         c->value[TILE_N], items, c->value[THREADS]);
    return 0;
}

/* Bytes at the speed of memory, as far as enough reads are under way on each SM; whole waves of blocks. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *c) {
    const double latency_us = 0.8, fixed_us = 3;
    long resident = (long)(device->shared_sm_bytes / (shared_bytes(c) + 1024)), by_threads = 1536 / c->value[THREADS];
    if (by_threads < resident) resident = by_threads;
    double slots = (double)resident * device->multiprocessors, count = (double)blocks(problem, c);
    double read = c->value[TILE_K] * c->value[TILE_N] / 2.0, moved = 5 * read;
    double wave = slots * moved / (device->memory_gbs * 1e3);
    long waves = (long)((count + slots - 1) / slots);
    /* A block reads, then writes; while it reads others write, and what is under way bounds the rate. */
    if (wave < 2 * latency_us) wave = 2 * latency_us;
    double whole = (double)(waves - 1) * wave, rest = count - (double)(waves - 1) * slots;
    double tail = rest * moved / (device->memory_gbs * 1e3);
    return fixed_us + whole + (tail > 2 * latency_us ? tail : 2 * latency_us);
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    (void)device;
    launch->source = "awq_dequant/tiled.cu";
    launch->entry = "awq_dequant";
    snprintf(launch->options, sizeof launch->options, "-DZEROS=%d", problem->zeros);
    launch->grid = (struct device_grid){.blocks = {(unsigned)blocks(problem, config), 1, 1},
                                        .threads = (unsigned)config->value[THREADS],
                                        .overlaps = true};
}

const struct kernel awq_dequant_tiled = {
    .op = OP_AWQ_DEQUANT,
    .backend = BACKEND_CUDA,
    .name = "tiled",
    .summary = "AWQ words to fp16 rows, transposed through shared memory (sm_80 on)",
    .parameter_count = 3,
    .parameters =
        {
            [TILE_K] = {"tile_k", "rows of W a block", 3, {64, 128, 256}},
            [TILE_N] = {"tile_n", "columns of W a block", 3, {64, 128, 256}},
            [THREADS] = {"threads", "threads a block", 3, {128, 256, 512}},
        },
    .legal = legal,
    .estimate = estimate,
    .launch = launch,
};
