/* y (M, N) = x (M, K) W, W given as (N, K).
 *
 * A task computes a panel of up to PANEL rows times tile_n columns. It walks K in blocks of tile_k: the
 * panel's x becomes fp32 in scratch, then register tiles of tile_m rows and `unroll` columns add that
 * block's dot products to the sums. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum { TILE_M, TILE_N, TILE_K, UNROLL, THREADS };
enum { PANEL = 32 };

struct call {
    const struct cpu_vectors *vectors;
    const struct problem *problem;
    const struct operands *operands;
    int tile_m, tile_n, tile_k, unroll;
    int panels;
};

/* The fp32 block of x (PANEL, tile_k), then the sums (PANEL, tile_n). */
static size_t scratch_floats(const struct config *config) {
    return (size_t)PANEL * (size_t)(config->value[TILE_K] + config->value[TILE_N]);
}

/* `rows` rows from `row` on, `k` of K from k0 on, all columns of the task. */
static void add_block(const struct call *c, int rows, int column, int k0, int k, const float *x, float *sums) {
    size_t depth = (size_t)c->problem->k;
    const uint16_t *weights = c->operands->weights;
    for (int n = 0; n < c->tile_n; n += c->unroll) {
        for (int row = 0, step = c->tile_m; row < rows; row += step) {
            while (step > rows - row) step /= 2;
            struct fp16_tile tile = {
                .x = x + (size_t)row * (size_t)c->tile_k,
                .x_stride = (size_t)c->tile_k,
                .w = weights + (size_t)(column + n) * depth + k0,
                .w_stride = depth,
                .k = k,
                .bf16 = c->problem->bf16,
                .sums = sums + row * c->tile_n + n,
                .sum_stride = (size_t)c->tile_n,
            };
            c->vectors->fp16_tile(&tile, step, c->unroll);
        }
    }
}

static void task(const void *context, int index, void *scratch) {
    const struct call *c = context;
    int k = c->problem->k;
    int first = index % c->panels * PANEL, rows = least(PANEL, c->problem->m - first);
    int column = index / c->panels * c->tile_n;
    float *x = scratch, *sums = x + (size_t)PANEL * (size_t)c->tile_k;
    memset(sums, 0, (size_t)(rows * c->tile_n) * sizeof *sums);
    for (int k0 = 0; k0 < k; k0 += c->tile_k) {
        int depth = least(c->tile_k, k - k0);
        for (int row = 0; row < rows; row++)
            c->vectors->to_float((const uint16_t *)c->operands->x + (size_t)(first + row) * (size_t)k + k0,
                                 c->problem->bf16, x + (size_t)row * (size_t)c->tile_k, depth);
        add_block(c, rows, column, k0, depth, x, sums);
    }
    for (int row = 0; row < rows; row++)
        cpu_store(c->vectors, c->problem, c->operands, first + row, column, c->tile_n, sums + row * c->tile_n);
}

static int panels(const struct problem *problem) {
    return (problem->m + PANEL - 1) / PANEL;
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
        .panels = panels(&plan->problem),
    };
    cpu_parallel(plan->device, value[THREADS], call.panels * (plan->problem.n / call.tile_n), task, &call);
    return 0;
}

static int prepare(struct plan *plan, struct error *error) {
    return cpu_reserve(plan->device, plan->config.value[THREADS], scratch_floats(&plan->config) * sizeof(float), error);
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    (void)problem;
    const int *value = config->value;
    if (value[TILE_M] * value[UNROLL] > FP16_TILE_MOST)
        return error_set(why, "tile_m * unroll is %d; a register tile has at most %d sums",
                         value[TILE_M] * value[UNROLL], FP16_TILE_MOST);
    return cpu_threads_legal(device, value[THREADS], why);
}

/* Vector instructions: each weight is converted once for every tile_m rows, each x once a task. Slower with too
 * few sums to hide the latency, with more than there are registers, and with x beyond the first cache. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    const int *value = config->value;
    const struct cpu_vectors *vectors = cpu_vectors(device);
    double m = problem->m, n = problem->n, k = problem->k;
    double row_tiles = (problem->m + value[TILE_M] - 1) / value[TILE_M];
    double sums = value[UNROLL] * least(value[TILE_M], problem->m), blocks = (k + value[TILE_K] - 1) / value[TILE_K];
    double inner = n * k / vectors->lanes * (m + 2 * row_tiles + m / value[UNROLL]);
    if (sums < 8) inner *= 1 + (8 - sums) / 16;
    if (sums + value[UNROLL] > vectors->registers - 2) inner *= 1.5;
    if (value[TILE_M] * value[TILE_K] > 8192) inner *= 1.1;
    double rest = 2 * m * k / vectors->lanes * (n / value[TILE_N]) + 8 * m * n * blocks;
    int tasks = panels(problem) * (problem->n / value[TILE_N]);
    return cpu_estimate(device, problem, value[THREADS], tasks, inner + rest);
}

const struct kernel fp16_gemm_cpu = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CPU,
    .name = "cpu",
    .summary = "blocked dot products in fp32 vectors",
    .bf16 = true,
    .parameter_count = 5,
    .parameters =
        {
            {"tile_m", "rows of a register tile", 4, {1, 2, 4, 8}},
            {"tile_n", "columns of a task", 2, {16, 64}},
            {"tile_k", "depth of a block of x in cache", 3, {256, 1024, 4096}},
            {"unroll", "columns of a register tile", 3, {1, 2, 4}},
            {"threads", "threads", 8, {1, 2, 4, 8, 16, 32, 64, 128}},
        },
    .legal = legal,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
};
