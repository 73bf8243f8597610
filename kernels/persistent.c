#include "kernels/persistent.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/estimate.h"
#include "kernels/occupancy.h"

/* As persistent.cuh has them: a stage's two barriers. */
enum { BARRIER_BYTES = 16, GROUP_THREADS = 128, REQUEST_THREADS = 128, SWIZZLE_BYTES = 1024 };
/* Of a cluster: in parts of 16 or 18 SMs larger ones leave some idle, and a launch counts on all. */
enum { MOST_BLOCKS = 2 };
/* By the warpgroups: sums that a thread has registers for, and registers at the start, before they are redistributed.
 */
static const int most_sums[] = {0, 192, 192, 96}, launch_registers[] = {0, 255, 168, 128};

static size_t box_bytes(const struct persistent_block *b) {
    return (size_t)b->tile_m * PERSISTENT_TILE_K * sizeof(uint16_t) + b->weight_bytes;
}

static size_t stage_bytes(const struct persistent_block *b) {
    return (box_bytes(b) + SWIZZLE_BYTES - 1) / SWIZZLE_BYTES * SWIZZLE_BYTES;
}

static size_t shared_bytes(const struct persistent_block *b) {
    return (size_t)b->stages * (stage_bytes(b) + BARRIER_BYTES);
}

static int threads(const struct persistent_block *b) {
    return GROUP_THREADS * b->warpgroups + REQUEST_THREADS;
}

static int cluster(const struct persistent_block *b) {
    return b->cluster_m * b->cluster_n;
}

/* How a launch's tiles are shared out, all counted by clusters, as persistent.cuh does it. */
struct schedule {
    long tiles, clusters, whole, split;
};

static struct schedule schedule_of(const struct device *device, const struct problem *p,
                                   const struct persistent_block *b) {
    struct schedule s;
    long most = device->multiprocessors / cluster(b);
    s.tiles = estimate_blocks(p->m, b->tile_m * b->cluster_m) * estimate_blocks(p->n, b->tile_n * b->cluster_n);
    s.clusters = s.tiles * b->split_k < most ? s.tiles * b->split_k : most;
    s.whole = b->split_k == 1 ? s.tiles : s.tiles / s.clusters * s.clusters;
    s.split = s.tiles - s.whole;
    return s;
}

/* Each tile that is split leaves its parts' sums, behind the counters. */
static size_t workspace_bytes(const struct schedule *s, const struct persistent_block *b) {
    size_t part = (size_t)b->tile_m * (size_t)b->tile_n * sizeof(float);
    return s->split ? WORKSPACE_COUNTER_BYTES + (size_t)(s->split * cluster(b)) * (size_t)b->split_k * part : 0;
}

static int check_tile(const struct persistent_block *b, struct error *why) {
    int sums = b->tile_m * b->tile_n / (b->warpgroups * GROUP_THREADS);
    if (sums > most_sums[b->warpgroups])
        return error_set(why, "%d sums a thread; with %d warpgroups its registers hold %d", sums, b->warpgroups,
                         most_sums[b->warpgroups]);
    return 0;
}

int persistent_legal(const struct device *device, const struct problem *p, const struct persistent_block *b,
                     struct error *why) {
    if (device->compute_capability != 90)
        return error_set(why, "wgmma needs compute capability 9.0 and no other; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    if (p->k % PERSISTENT_TILE_K) return error_set(why, "K=%d is not a multiple of %d", p->k, PERSISTENT_TILE_K);
    if (cluster(b) > MOST_BLOCKS)
        return error_set(why, "clusters of %d: those of more than %d do not fill all parts of the chip", cluster(b),
                         MOST_BLOCKS);
    if (b->split_k > p->k / PERSISTENT_TILE_K)
        return error_set(why, "split_k=%d leaves parts without work: K=%d is %d times %d", b->split_k, p->k,
                         p->k / PERSISTENT_TILE_K, PERSISTENT_TILE_K);
    struct occupancy block = {threads(b), launch_registers[b->warpgroups], shared_bytes(b)};
    return check_tile(b, why) || occupancy_check(device, &block, why) ? -1 : 0;
}

void persistent_launch(const struct device *device, const struct problem *p, const struct persistent_block *b,
                       struct launch *launch) {
    const struct schedule s = schedule_of(device, p, b);
    long items = s.whole + s.split * b->split_k, blocks = (items < s.clusters ? items : s.clusters) * cluster(b);
    launch->grid = (struct device_grid){.blocks = {(unsigned)blocks, 1, 1},
                                        .threads = (unsigned)threads(b),
                                        .cluster = (unsigned)cluster(b),
                                        .overlaps = true};
    launch->shared_bytes = shared_bytes(b);
    launch->workspace_bytes = workspace_bytes(&s, b);
    launch->tensor_count = 1;
    launch->tensors[0] = (struct launch_tensor){
        offsetof(struct operands, x),
        {sizeof(uint16_t), (size_t)p->m, (size_t)p->k, b->tile_m / b->cluster_n, PERSISTENT_TILE_K, true}};
    snprintf(launch->options, sizeof launch->options, "-DSHARED_BYTES=%zu -DSTAGE_BYTES=%zu -DBOX_BYTES=%zu",
             launch->shared_bytes, stage_bytes(b), box_bytes(b));
}

/* --- the estimate: memory, L2 and the matrix unit of the busiest SM overlap; some things are paid once --- */

/* A launch that does nothing, with filling the pipeline and the last stores. */
static const double fixed_us = 4.3;
/* A tile's end, and a part's beside moving its sums, at so many bytes a microsecond. */
static const double tile_us = 1, part_us = 6, sums_rate = 1.6e5;
/* A stage's requests take at least this long to come back, and others of its block are then under way. */
static const double request_us = 0.88;
/* One takes about this long to come back from memory; an SM draws at most this multiple of its part of its rate;
 * L2 delivers about this multiple of it, and of the rate on paper this share is reached. */
static const double latency_us = 1.46, sm_share = 3.2, cache_ratio = 4.2, memory_share = 0.98;

/* Items of the SM with the most, in units of whole tiles. */
static double rounds(const struct schedule *s, const struct persistent_block *b) {
    return (double)estimate_blocks(s->whole, s->clusters) +
           (double)estimate_blocks(s->split * b->split_k, s->clusters) / b->split_k;
}

/* What parts cost the SM with the most: each leaves its sums, and reads as many of its share of the tile. */
static double parts_us(const struct schedule *s, const struct persistent_block *b) {
    double sums_us = b->tile_m * b->tile_n * sizeof(float) / sums_rate;
    if (b->split_k == 1 || !s->split) return 0;
    return (double)estimate_blocks(s->split * b->split_k, s->clusters) * (part_us + 2 * sums_us);
}

static double work_us(const struct device *device, const struct problem *p, const struct schedule *s,
                      const struct persistent_block *b) {
    double rate = device->matrix_tflops * 1e6 / device->multiprocessors * b->rate;
    double products = 2.0 * b->tile_m * b->tile_n * PERSISTENT_TILE_K / rate + b->stage_us;
    double stage = fmax(products, request_us / (b->stages - 1));
    return rounds(s, b) * (p->k / PERSISTENT_TILE_K * stage + tile_us) + parts_us(s, b);
}

/* What L2 delivers: to a cluster what its blocks share once. */
static double cache_bytes(const struct problem *p, const struct schedule *s, const struct persistent_block *b) {
    double x = 2.0 * b->tile_m * PERSISTENT_TILE_K / b->cluster_n;
    double weights = (double)b->weight_bytes / (b->weights_shared ? b->cluster_m : 1);
    return (double)(s->tiles * cluster(b)) * (p->k / PERSISTENT_TILE_K) * (x + weights);
}

double persistent_estimate(const struct device *device, const struct problem *p, const struct persistent_block *b) {
    const struct schedule s = schedule_of(device, p, b);
    const struct estimate_memory memory = {.bytes = problem_bytes(p) / memory_share,
                                           .blocks = (double)((s.whole + s.split * b->split_k) * cluster(b)),
                                           .slots = (double)(s.clusters * cluster(b)),
                                           .under_way = (b->stages - 1) * (double)box_bytes(b),
                                           .latency_us = latency_us,
                                           .sm_share = sm_share};
    const double parts[] = {estimate_memory_us(device, &memory), work_us(device, p, &s, b),
                            cache_bytes(p, &s, b) / (device->memory_gbs * 1e3 * cache_ratio)};
    return fixed_us + estimate_together(parts, 3);
}
