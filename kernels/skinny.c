#include "kernels/skinny.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/estimate.h"
#include "kernels/occupancy.h"

enum { WARP_THREADS = 32, WARP_COLUMNS = 64, SUMS_PITCH = WARP_COLUMNS + 4 };
enum { MOST_THREADS = 1024, MOST_GROUPS = 15 };
/* What counts the sums that a block is sent, as skinny.cuh has it. */
enum { TRANSFER_BYTES = 16 };

struct skinny_block skinny_block(const struct config *config) {
    const int *value = config->value;
    return (struct skinny_block){.tile_m = value[SKINNY_TILE_M],
                                 .tile_n = value[SKINNY_TILE_N],
                                 .warps_k = value[SKINNY_WARPS_K],
                                 .stages = value[SKINNY_STAGES],
                                 .split_k = value[SKINNY_SPLIT_K]};
}

static long least(long a, long b) {
    return a < b ? a : b;
}

static int warps(const struct skinny_block *b) {
    return b->tile_n / WARP_COLUMNS * b->warps_k;
}

static int threads_of(const struct skinny_block *b) {
    return WARP_THREADS * warps(b);
}

/* Rings, slices of x, and what the cluster's blocks send. */
static size_t shared_bytes(const struct skinny_block *b) {
    size_t tile_m = (size_t)b->tile_m, slots = (size_t)b->stages * b->slot_bytes;
    size_t sums = tile_m * SUMS_PITCH * sizeof(float), ring = slots > sums ? slots : sums;
    size_t slices = (size_t)(b->warps_k * b->stages) * tile_m * SKINNY_CHUNK * sizeof(uint16_t);
    size_t received = b->split_k > 1 ? tile_m * (size_t)b->tile_n * sizeof(float) + TRANSFER_BYTES : 0;
    return (size_t)warps(b) * ring + slices + received;
}

static long tiles(const struct problem *p, const struct skinny_block *b) {
    return estimate_blocks(p->m, b->tile_m) * estimate_blocks(p->n, b->tile_n);
}

static struct occupancy occupancy(const struct skinny_block *b) {
    return (struct occupancy){threads_of(b), b->registers, shared_bytes(b)};
}

static long resident_blocks(const struct device *device, const struct skinny_block *b) {
    struct occupancy block = occupancy(b);
    return occupancy_blocks(device, &block);
}

int skinny_legal(const struct device *device, const struct problem *p, const struct skinny_block *b,
                 struct error *why) {
    int threads = threads_of(b), least_capability = b->split_k > 1 ? 90 : 80;
    if (device->compute_capability < least_capability)
        return error_set(why, "%s needs compute capability %d.%d; %s has %d.%d",
                         b->split_k > 1 ? "a cluster (split_k above 1)" : "mma.sync with cp.async",
                         least_capability / 10, least_capability % 10, device->name, device->compute_capability / 10,
                         device->compute_capability % 10);
    if (b->split_k * b->warps_k > p->k / SKINNY_CHUNK)
        return error_set(why, "split_k=%d times warps_k=%d leaves parts without work: K=%d is %d times %d", b->split_k,
                         b->warps_k, p->k, p->k / SKINNY_CHUNK, SKINNY_CHUNK);
    if (b->tile_n > WARP_COLUMNS && b->warps_k > MOST_GROUPS)
        return error_set(why, "warps_k=%d needs a barrier for each group of warps; a block has %d", b->warps_k,
                         MOST_GROUPS);
    if (threads > MOST_THREADS)
        return error_set(why, "%d threads a block (%d warps); at most %d", threads, threads / WARP_THREADS,
                         MOST_THREADS);
    struct occupancy block = occupancy(b);
    return occupancy_check(device, &block, why);
}

/* Where all blocks have an SM of their own, each takes more than half of one: a launch that overlaps the one ahead of
 * it would else crowd them on the SMs that are idle already, and end when those do. */
static size_t launch_bytes(const struct device *device, const struct skinny_block *b, long blocks) {
    size_t bytes = shared_bytes(b), half = device->shared_sm_bytes / 2;
    return blocks <= device->multiprocessors && bytes < half ? half : bytes;
}

void skinny_launch(const struct device *device, const struct problem *p, const struct skinny_block *b,
                   struct launch *launch) {
    size_t used = strlen(launch->options);
    long blocks = tiles(p, b) * b->split_k;
    launch->grid = (struct device_grid){.blocks = {(unsigned)blocks, 1, 1},
                                        .threads = (unsigned)threads_of(b),
                                        .cluster = (unsigned)b->split_k,
                                        .overlaps = true};
    launch->shared_bytes = launch_bytes(device, b, blocks);
    snprintf(launch->options + used, sizeof launch->options - used, "%s-DSHARED_BYTES=%zu -DBLOCKS=%ld",
             used ? " " : "", launch->shared_bytes, resident_blocks(device, b));
}

/* --- the estimate: memory, L2 and the work of the busiest SM overlap; some things are paid once --- */

/* A request takes about this long to come back from a busy memory. */
static const double latency_us = 0.9;
/* A launch that does nothing, with the first request and the last chunk. */
static const double fixed_us = 2.25;
/* The meetings of a cluster, and bytes a microsecond that an SM sends to its others. */
static const double cluster_us = 1.3, cluster_rate = 9e3;
/* A warp that shares a block's depth adds its sums in this time. */
static const double group_us = 0.03;
/* Few SMs draw at most this multiple of their part of the memory's rate. */
static const double sm_share = 2.1;
/* L2 delivers about this multiple of memory. */
static const double cache_ratio = 1.5;
/* A scheduler of an SM starts this many instructions a microsecond. */
enum { SCHEDULERS = 4 };
static const double scheduler_rate = 2100;
/* A chunk of a lone warp: its chain of products. */
static const double chunk_us = 0.5;

static double slots(const struct device *device, const struct skinny_block *b) {
    return (double)resident_blocks(device, b) * device->multiprocessors;
}

/* What an SM has under way beyond this much only waits, and x behind it. */
static const double useful_bytes = 60e3;
/* That much more makes a launch so much longer. */
static const double waiting_cost = 0.09;

/* Chunks under way: one of the ring is on average half gone. */
static double memory_us(const struct device *device, const struct problem *p, const struct skinny_block *b) {
    const struct estimate_memory memory = {.bytes = problem_bytes(p),
                                           .blocks = (double)tiles(p, b) * b->split_k,
                                           .slots = slots(device, b),
                                           .under_way = warps(b) * (b->stages - 0.5) * (double)b->slot_bytes,
                                           .latency_us = latency_us,
                                           .sm_share = sm_share};
    double on_one = fmin(ceil(memory.blocks / device->multiprocessors), (double)resident_blocks(device, b));
    double waiting = fmax(0, on_one * memory.under_way / useful_bytes - 1);
    return estimate_memory_us(device, &memory) * (1 + waiting_cost * waiting);
}

/* Every tile reads its rows of x again, every row of tiles the weights. */
static double cache_us(const struct device *device, const struct problem *p, const struct skinny_block *b) {
    double chunks = (double)tiles(p, b) * p->k / SKINNY_CHUNK;
    double bytes = (double)b->slot_bytes * b->tile_n / WARP_COLUMNS + 2.0 * least(b->tile_m, p->m) * SKINNY_CHUNK;
    return chunks * bytes / (device->memory_gbs * 1e3 * cache_ratio);
}

static double work_us(const struct device *device, const struct problem *p, const struct skinny_block *b) {
    double blocks = (double)tiles(p, b) * b->split_k, on_one = ceil(blocks / device->multiprocessors);
    double rounds = ceil(blocks / slots(device, b));
    double chunks = (double)estimate_blocks(p->k / SKINNY_CHUNK, b->split_k * b->warps_k);
    double issue = ceil(on_one * warps(b) / SCHEDULERS) * chunks * b->chunk_slots / scheduler_rate;
    return fmax(issue, rounds * chunks * chunk_us);
}

double skinny_estimate(const struct device *device, const struct problem *p, const struct skinny_block *b) {
    const double parts[] = {memory_us(device, p, b), cache_us(device, p, b), work_us(device, p, b)};
    double sent = b->split_k > 1 ? cluster_us + (double)(b->tile_m * b->tile_n) * sizeof(float) / cluster_rate : 0;
    return fixed_us + estimate_together(parts, 3) + sent + group_us * b->warps_k;
}
