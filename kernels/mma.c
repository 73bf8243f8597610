#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/estimate.h"
#include "kernels/mma.h"
#include "kernels/occupancy.h"

enum { WARP_THREADS = 32, WARP_COLUMNS = 64, WARP_TOKENS = 64 };
enum { MOST_THREADS = 512 };
static const size_t most_workspace = (size_t)64 << 20;

struct mma_block mma_block(const struct config *config) {
    const int *value = config->value;
    return (struct mma_block){.tile_m = value[MMA_TILE_M],
                              .tile_n = value[MMA_TILE_N],
                              .tile_k = value[MMA_TILE_K],
                              .warps_k = value[MMA_WARPS_K],
                              .stages = value[MMA_STAGES],
                              .split_k = value[MMA_SPLIT_K]};
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static int warp_tokens(const struct mma_block *b) {
    return smaller(b->tile_m, WARP_TOKENS);
}

static int threads_of(const struct mma_block *b) {
    return WARP_THREADS * (b->tile_n / WARP_COLUMNS) * (b->tile_m / warp_tokens(b)) * b->warps_k;
}

/* Two sums a token and thread (64 columns over 32 lanes), twice where there are two sets, and room for two
 * steps of weights, a step of tokens, scales, zero points and addresses. */
static int registers(const struct mma_block *b) {
    int tokens = warp_tokens(b);
    return 2 * tokens * (b->two_sums ? 2 : 1) + tokens / 2 + 92;
}

/* Its stages, or the sums on their way out, whichever is more. */
static size_t shared_bytes(const struct mma_block *b) {
    size_t pipeline = (size_t)b->stages * b->stage_bytes;
    size_t reduction = (size_t)(b->warps_k / 2) * (size_t)b->tile_m * (size_t)b->tile_n * sizeof(float);
    size_t staged = (size_t)b->tile_m * (size_t)(b->tile_n + 8) * sizeof(uint16_t);
    size_t epilogue = reduction > staged ? reduction : staged;
    return pipeline > epilogue ? pipeline : epilogue;
}

static struct occupancy occupancy(const struct mma_block *b) {
    return (struct occupancy){threads_of(b), registers(b), shared_bytes(b)};
}

static long tiles(const struct problem *p, const struct mma_block *b) {
    return estimate_blocks(p->m, b->tile_m) * estimate_blocks(p->n, b->tile_n);
}

static size_t workspace_bytes(const struct problem *p, const struct mma_block *b) {
    if (b->split_k == 1) return 0;
    size_t tile = (size_t)b->tile_m * (size_t)b->tile_n * sizeof(float);
    return WORKSPACE_COUNTER_BYTES + (size_t)tiles(p, b) * (size_t)b->split_k * tile;
}

static int check_split(const struct problem *p, const struct mma_block *b, struct error *why) {
    if (b->split_k == 1) return 0;
    if (b->split_k > p->k / b->tile_k)
        return error_set(why, "split_k=%d leaves parts without work: K=%d is %d times tile_k=%d", b->split_k, p->k,
                         p->k / b->tile_k, b->tile_k);
    if (tiles(p, b) > WORKSPACE_COUNTER_BYTES / 4)
        return error_set(why, "split_k=%d needs a counter for each of %ld tiles; there are %d", b->split_k, tiles(p, b),
                         WORKSPACE_COUNTER_BYTES / 4);
    if (workspace_bytes(p, b) > most_workspace)
        return error_set(why, "split_k=%d needs a workspace of %zu MiB; at most %zu MiB are used", b->split_k,
                         workspace_bytes(p, b) >> 20, most_workspace >> 20);
    return 0;
}

int mma_legal(const struct device *device, const struct problem *p, const struct mma_block *b, struct error *why) {
    int threads = threads_of(b);
    if (device->compute_capability < 80)
        return error_set(why, "mma.sync with cp.async needs compute capability 8.0; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    if (p->k % b->tile_k) return error_set(why, "tile_k=%d does not divide K=%d", b->tile_k, p->k);
    if (b->tile_k / b->warps_k < 32)
        return error_set(why, "warps_k=%d leaves a warp %d of tile_k=%d; it needs at least 32", b->warps_k,
                         b->tile_k / b->warps_k, b->tile_k);
    if (threads > MOST_THREADS)
        return error_set(why, "%d threads a block (%d warps); at most %d", threads, threads / WARP_THREADS,
                         MOST_THREADS);
    struct occupancy block = occupancy(b);
    if (occupancy_check(device, &block, why)) return -1;
    return check_split(p, b, why);
}

void mma_launch(const struct problem *p, const struct mma_block *b, struct launch *launch) {
    size_t used = strlen(launch->options);
    launch->grid = (struct device_grid){.blocks = {(unsigned)tiles(p, b), (unsigned)b->split_k, 1},
                                        .threads = (unsigned)threads_of(b),
                                        .overlaps = true};
    launch->shared_bytes = shared_bytes(b);
    launch->workspace_bytes = workspace_bytes(p, b);
    snprintf(launch->options + used, sizeof launch->options - used, "%s-DSHARED_BYTES=%zu", used ? " " : "",
             launch->shared_bytes);
}

/* --- the estimate: memory, L2, requests under way and matrix unit overlap; some things are paid once --- */

/* A request takes about this long to come back from memory. */
static const double latency_us = 0.8;
/* A launch that does nothing, with filling the pipeline and the last stores. */
static const double fixed_us = 4.0;
/* A fence, and the wait for the last block. */
static const double split_us = 1.6;
/* What mma.sync reaches of the theoretical matrix rate. */
static const double mma_share = 0.5;
/* A stage's wait, barrier and request, which a second block on the SM covers. */
static const double turn_us = 0.1;
/* Warps that keep an SM's matrix unit busy. */
static const double busy_warps = 4;
/* An SM draws at most this multiple of its part of the memory's rate. */
static const double sm_share = 2.3;
/* L2 delivers about this multiple of memory. */
static const double cache_ratio = 1.6;

static long resident_blocks(const struct device *device, const struct mma_block *b) {
    struct occupancy block = occupancy(b);
    return occupancy_blocks(device, &block);
}

static double block_count(const struct problem *p, const struct mma_block *b) {
    return (double)tiles(p, b) * b->split_k;
}

static double memory_us(const struct device *device, const struct problem *p, const struct mma_block *b) {
    double weights = (double)b->stage_bytes - 2.0 * b->tile_m * b->tile_k;
    const struct estimate_memory memory = {.bytes = problem_bytes(p),
                                           .blocks = block_count(p, b),
                                           .slots = (double)resident_blocks(device, b) * device->multiprocessors,
                                           .under_way = (b->stages - 1) * weights,
                                           .latency_us = latency_us,
                                           .sm_share = sm_share};
    return estimate_memory_us(device, &memory);
}

/* What the blocks read again and again, and the partial sums, pass through L2. */
static double cache_us(const struct device *device, const struct problem *p, const struct mma_block *b) {
    double loads = (double)tiles(p, b) * (p->k / b->tile_k);
    double partial = b->split_k > 1 ? 2.0 * (double)workspace_bytes(p, b) : 0;
    return (loads * (double)b->stage_bytes + partial) / (device->memory_gbs * 1e3 * cache_ratio);
}

/* Blocks that an SM, the one with the most, runs one after the other. */
static double rounds(const struct device *device, const struct problem *p, const struct mma_block *b) {
    return ceil(block_count(p, b) / ((double)resident_blocks(device, b) * device->multiprocessors));
}

/* A block cannot go faster than its stages come back. */
static double latency_bound_us(const struct device *device, const struct problem *p, const struct mma_block *b) {
    return rounds(device, p, b) * p->k / b->tile_k / b->split_k * latency_us / (b->stages - 1);
}

/* The SM with the most blocks decides. Bringing weights into registers costs issue slots, which few tokens
 * leave uncovered: 16 x 64 weights feed tokens / 2 multiplications of about 6.5 slots each. */
static double matrix_us(const struct device *device, const struct problem *p, const struct mma_block *b) {
    double on_one = ceil(block_count(p, b) / device->multiprocessors), resident = (double)resident_blocks(device, b);
    double flops = 2.0 * b->tile_m * b->tile_n * ((double)p->k / b->split_k);
    double rate = device->matrix_tflops * 1e6 * mma_share / device->multiprocessors;
    double warps = (double)threads_of(b) / WARP_THREADS * (on_one < resident ? on_one : resident);
    double slots = 6.5 * warp_tokens(b) / 2, cover = fmin(1, warps / busy_warps);
    double turns_us = turn_us * p->k / b->tile_k / b->split_k;
    return on_one * (flops / rate * (1 + b->fragment_slots / slots) / cover + turns_us / fmin(on_one, resident));
}

double mma_estimate(const struct device *device, const struct problem *p, const struct mma_block *b) {
    const double parts[] = {memory_us(device, p, b), cache_us(device, p, b), latency_bound_us(device, p, b),
                            matrix_us(device, p, b)};
    return fixed_us + estimate_together(parts, 4) + (b->split_k > 1 ? split_us : 0) + 0.1 * (b->warps_k - 1);
}
