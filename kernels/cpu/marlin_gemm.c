/* y (M, N) = x (M, K) W, W int4 in Marlin's order.
 *
 * A task computes a panel of up to PANEL rows times tile_n columns. It walks K in blocks of tile_k: the
 * panel's x is spread out in scratch as the words of W want it, then, for every 64 columns and every
 * stretch of the block inside one group, register tiles of tile_m rows and 8 * unroll columns add that
 * stretch, scaled, to the sums. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { TILE_M, TILE_N, TILE_K, UNROLL, THREADS };
enum { PANEL = 32, BLOCK_N = 64, SPREAD = 4 };

struct call {
    const struct cpu_vectors *vectors;
    const struct problem *problem;
    const struct operands *operands;
    int tile_m, tile_n, tile_k, unroll;
    int stretch; /* rows of W that are summed before they are scaled */
    int panels;
};

struct scratch {
    float *x;      /* (PANEL, tile_k, SPREAD) */
    float *x_sums; /* (PANEL, tile_k / stretch) */
    float *sums;   /* (PANEL, tile_n), columns by slot */
};

static int stretch_of(const struct problem *problem, int tile_k) {
    return least(problem->group, tile_k);
}

static size_t scratch_floats(int tile_n, int tile_k, int stretch) {
    return (size_t)PANEL * (size_t)(tile_k * SPREAD + tile_k / stretch + tile_n);
}

static struct scratch scratch_at(float *memory, int tile_k, int stretch) {
    struct scratch s = {.x = memory};
    s.x_sums = s.x + (size_t)PANEL * (size_t)tile_k * SPREAD;
    s.sums = s.x_sums + (size_t)PANEL * (size_t)(tile_k / stretch);
    return s;
}

/* Rows [first, first + rows) and [k0, k0 + depth) of x. */
static void spread_x(const struct call *c, const struct scratch *s, int first, int rows, int k0, int depth) {
    const uint16_t *x = c->operands->x;
    for (int row = 0; row < rows; row++) {
        const uint16_t *from = x + (size_t)(first + row) * (size_t)c->problem->k + k0;
        float *to = s->x + (size_t)row * (size_t)c->tile_k * SPREAD;
        float *sums = s->x_sums + row * (c->tile_k / c->stretch);
        for (int k = 0; k < depth; k += c->stretch)
            sums[k / c->stretch] = c->vectors->marlin_expand(from + k, c->problem->bf16, least(c->stretch, depth - k),
                                                             to + (size_t)k * SPREAD);
    }
}

/* The stretch [k0 + k, ...) of W times the panel, for the 64 columns from `column` on. */
static void add_stretch(const struct call *c, const struct scratch *s, int rows, int column, float *sums, int k0, int k,
                        int depth) {
    size_t n = (size_t)c->problem->n, group = (size_t)((k0 + k) / c->problem->group);
    const uint16_t *scales = (const uint16_t *)c->operands->scales + group * n + column;
    const uint32_t *zeros = c->operands->zeros;
    const uint32_t *words = (const uint32_t *)c->operands->weights + (size_t)((k0 + k) / 16) * 2 * n + 2 * column;
    float slot_scales[BLOCK_N], slot_zeros[BLOCK_N];
    c->vectors->marlin_columns(scales, zeros ? zeros + (group * n + column) / 8 : NULL,
                               c->problem->group == c->problem->k, slot_scales, slot_zeros);
    for (int row = 0, step = c->tile_m; row < rows; row += step) {
        while (step > rows - row) step /= 2;
        struct marlin_tile tile = {
            .word_stride = 2 * n,
            .depth = depth / 16,
            .x = s->x + ((size_t)row * (size_t)c->tile_k + (size_t)k) * SPREAD,
            .x_stride = (size_t)c->tile_k * SPREAD,
            .x_sums = s->x_sums + row * (c->tile_k / c->stretch) + k / c->stretch,
            .x_sum_stride = (size_t)(c->tile_k / c->stretch),
            .sum_stride = (size_t)c->tile_n,
        };
        for (int slot = 0; slot < BLOCK_N; slot += 8 * c->unroll) {
            tile.words = words + 2 * slot;
            tile.scales = slot_scales + slot;
            tile.zeros = slot_zeros + slot;
            tile.sums = sums + row * c->tile_n + slot;
            c->vectors->marlin_tile(&tile, step, c->unroll);
        }
    }
}

/* Sums by slot, of columns [column, column + columns), to their place in a row of y. */
static void write_row(const struct call *c, const float *sums, int row, int column, int columns) {
    for (int block = 0; block < columns; block += BLOCK_N) {
        float ordered[BLOCK_N];
        for (int slot = 0; slot < BLOCK_N; slot++)
            ordered[slot % 4 * 16 + slot / 8 + slot / 4 % 2 * 8] = sums[block + slot];
        cpu_store(c->vectors, c->problem, c->operands, row, column + block, BLOCK_N, ordered);
    }
}

static void task(const void *context, int index, void *memory) {
    const struct call *c = context;
    struct scratch s = scratch_at(memory, c->tile_k, c->stretch);
    int first = index % c->panels * PANEL, rows = least(PANEL, c->problem->m - first);
    int column = index / c->panels * c->tile_n, columns = least(c->tile_n, c->problem->n - column);
    memset(s.sums, 0, (size_t)(rows * c->tile_n) * sizeof *s.sums);
    for (int k0 = 0; k0 < c->problem->k; k0 += c->tile_k) {
        int depth = least(c->tile_k, c->problem->k - k0);
        spread_x(c, &s, first, rows, k0, depth);
        for (int n = 0; n < columns; n += BLOCK_N)
            for (int k = 0; k < depth; k += c->stretch)
                add_stretch(c, &s, rows, column + n, s.sums + n, k0, k, least(c->stretch, depth - k));
    }
    for (int row = 0; row < rows; row++) write_row(c, s.sums + row * c->tile_n, first + row, column, columns);
}

static int panels(const struct problem *problem) {
    return (problem->m + PANEL - 1) / PANEL;
}

static int tasks(const struct problem *problem, int tile_n) {
    return panels(problem) * ((problem->n + tile_n - 1) / tile_n);
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)error;
    const int *value = plan->config.value;
    struct call call = {
        .vectors = cpu_vectors(plan->device),
        .problem = &plan->problem,
        .operands = operands,
        .tile_m = value[TILE_M],
        .tile_n = value[TILE_N],
        .tile_k = value[TILE_K],
        .unroll = value[UNROLL],
        .stretch = stretch_of(&plan->problem, value[TILE_K]),
        .panels = panels(&plan->problem),
    };
    cpu_parallel(plan->device, value[THREADS], tasks(&plan->problem, call.tile_n), task, &call);
    return 0;
}

static int prepare(struct plan *plan, struct error *error) {
    const int *value = plan->config.value;
    size_t floats = scratch_floats(value[TILE_N], value[TILE_K], stretch_of(&plan->problem, value[TILE_K]));
    return cpu_reserve(plan->device, value[THREADS], floats * sizeof(float), error);
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    (void)problem;
    const int *value = config->value;
    if (value[TILE_M] * value[UNROLL] > MARLIN_TILE_MOST)
        return error_set(why, "tile_m * unroll is %d; a register tile has at most %d pairs of sums",
                         value[TILE_M] * value[UNROLL], MARLIN_TILE_MOST);
    return cpu_threads_legal(device, value[THREADS], why);
}

/* Vector instructions: each word is decoded once for every tile_m rows (a shift, then a mask and a conversion
 * for each of 8 nibbles), each x is spread once a task, sums are scaled once a stretch. Slower with too few
 * sums to hide the latency, with more than there are registers, and with x beyond the first cache. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    const int *value = config->value;
    const struct cpu_vectors *vectors = cpu_vectors(device);
    double m = problem->m, n = problem->n, k = problem->k;
    double row_tiles = (problem->m + value[TILE_M] - 1) / value[TILE_M];
    int rows = least(value[TILE_M], problem->m), sums = 2 * rows * value[UNROLL];
    double inner = n * k / vectors->lanes * (m + 2.25 * row_tiles + 0.75 * m / value[UNROLL]);
    if (sums < 8) inner *= 1 + (8 - sums) / 16.0;
    if (sums > vectors->registers) inner *= 1.5;
    if (rows * value[TILE_K] > 2048) inner *= 1.05;
    int count = tasks(problem, value[TILE_N]), stretch = stretch_of(problem, value[TILE_K]);
    double spread = 3 * m * k * ((problem->n + value[TILE_N] - 1) / value[TILE_N]);
    double scale = k / stretch * n * (3 + 2 * m);
    return cpu_estimate(device, problem, value[THREADS], count, inner + spread + scale);
}

const struct kernel marlin_gemm_cpu = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CPU,
    .name = "cpu",
    .summary = "int4 words decoded in registers, fp32 vectors, scaled once a group",
    .bf16 = true,
    .parameter_count = 5,
    .parameters =
        {
            {"tile_m", "rows of a register tile", 4, {1, 2, 4, 8}},
            {"tile_n", "columns of a task", 3, {64, 128, 256}},
            {"tile_k", "depth of a block of x in cache", 3, {128, 512, 1024}},
            {"unroll", "columns of a register tile, in eights", 4, {1, 2, 4, 8}},
            {"threads", "threads", 8, {1, 2, 4, 8, 16, 32, 64, 128}},
        },
    .legal = legal,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
};
