/* Two launches as one kernel: the weights, of x's type, into the workspace, then what multiplies them by default. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/choice.h"

/* As dequantize.cu has them: rows and columns of W that a warp owns. */
enum { WARP_ROWS = 64, WARP_COLUMNS = 64, THREADS = 256 };

/* What a plan keeps. The GEMM has the beginning of the workspace, counters included; its weights follow. */
struct parts {
    struct launch launch; /* of dequantize.cu */
    struct device_function *function;
    size_t weights; /* bytes from the workspace's beginning */
    struct plan *gemm;
};

static struct launch first_launch(const struct problem *p) {
    long warps = (long)(p->k / WARP_ROWS) * (p->n / WARP_COLUMNS), of_a_block = THREADS / 32;
    struct launch launch = {.source = "marlin_gemm/dequantize.cu",
                            .entry = "dequantize",
                            .grid = {.blocks = {(unsigned)((warps + of_a_block - 1) / of_a_block), 1, 1},
                                     .threads = THREADS,
                                     .overlaps = true}};
    snprintf(launch.options, sizeof launch.options, "-DGROUP=%d -DZEROS=%d -DTHREADS=%d%s",
             p->group < p->k ? p->group : 0, p->zeros, THREADS, p->bf16 ? " -DBF16" : "");
    return launch;
}

static struct problem second_problem(const struct problem *problem) {
    struct problem p = *problem;
    p.op = OP_FP16_GEMM;
    p.group = 0;
    p.zeros = false;
    return p;
}

/* A peer does not count: it may be gone when a table is read. */
static bool multiplies(const struct device *device, const struct kernel *kernel, const struct problem *problem) {
    if (kernel->op != problem->op || kernel->backend != device->backend || kernel->peer) return false;
    for (long i = 0; i < config_space(kernel); i++) {
        const struct config config = config_at(kernel, i);
        if (!config_legal(device, kernel, problem, &config, NULL)) return true;
    }
    return false;
}

/* That there is a default, which is found by estimating all: far longer than this takes. */
static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    const struct problem second = second_problem(problem);
    char text[128];
    (void)config;
    if (device->compute_capability < 80)
        return error_set(why, "marlin_gemm/dequantize needs compute capability 8.0; %s has %d.%d", device->name,
                         device->compute_capability / 10, device->compute_capability % 10);
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
        if (multiplies(device, *kernel, &second)) return 0;
    return error_set(why, "there is no kernel for %s", problem_text(&second, text));
}

/* The dequantisation reaches about this share of the memory's rate on paper, once it runs. */
static const double memory_share = 0.83, fixed_us = 3;

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    const struct problem second = second_problem(problem);
    struct choice choice;
    (void)config;
    if (choice_default(device, kernel_list(), &second, &choice, NULL)) return INFINITY;
    struct operand_bytes from = problem_operand_bytes(problem), to = problem_operand_bytes(&second);
    double bytes = (double)(from.weights + from.scales + from.zeros + to.weights);
    return fixed_us + bytes / (device->memory_gbs * 1e3 * memory_share) +
           choice.kernel->estimate(device, &second, &choice.config);
}

static int compile(const struct device *device, const struct problem *problem, const struct config *config,
                   struct error *error) {
    const struct problem second = second_problem(problem);
    const struct launch first = first_launch(problem);
    struct choice choice;
    (void)config;
    if (choice_default(device, kernel_list(), &second, &choice, error)) return -1;
    if (device_compile(device, first.source, first.options, error)) return -1;
    return plan_compile(device, choice.kernel, &second, &choice.config, error);
}

/* On failure plan_destroy calls release. The GEMM may not start before the launch ahead of it ends, as others may that
 * read their weights early: here that launch writes them. */
static int prepare(struct plan *plan, struct error *error) {
    enum { ALIGNED = 256 };
    const struct problem second = second_problem(&plan->problem);
    struct choice choice;
    struct parts *parts = plan->state = calloc(1, sizeof *parts);
    if (!parts) return error_set(error, "out of memory");
    if (choice_default(plan->device, kernel_list(), &second, &choice, error)) return -1;
    if (plan_create(plan->device, choice.kernel, &second, &choice.config, &parts->gemm, error)) return -1;
    parts->weights = WORKSPACE_COUNTER_BYTES;
    if (parts->gemm->workspace_bytes) parts->weights = (parts->gemm->workspace_bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
    plan->workspace_bytes = parts->weights + problem_operand_bytes(&second).weights;
    parts->launch = first_launch(&plan->problem);
    return device_function(plan->device, parts->launch.source, parts->launch.entry, parts->launch.options, 0,
                           &parts->function, error);
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    const struct parts *parts = plan->state;
    const struct problem *p = &plan->problem;
    struct operands second = *operands;
    struct arguments first = {{.weights = operands->weights,
                               .scales = operands->scales,
                               .zeros = operands->zeros,
                               .y = (char *)operands->workspace + parts->weights},
                              .n = p->n,
                              .k = p->k,
                              .group = p->group,
                              .overlaps = plan->device->overlap == OVERLAP_WEIGHTS};
    if (device_launch(plan->device, parts->function, &parts->launch.grid, &first, error)) return -1;
    second.weights = first.operands.y;
    second.scales = second.zeros = NULL;
    const enum device_overlap overlap = device_limit_overlap(plan->device, OVERLAP_START);
    int status = plan_run(parts->gemm, &second, error);
    device_overlap(plan->device, overlap);
    return status;
}

static void release(struct plan *plan) {
    struct parts *parts = plan->state;
    if (!parts) return;
    plan_destroy(parts->gemm);
    free(parts);
}

const struct kernel marlin_gemm_dequantize = {
    .op = OP_MARLIN_GEMM,
    .backend = BACKEND_CUDA,
    .name = "dequantize",
    .summary = "Marlin's codes to weights in the workspace, then fp16_gemm's built-in default (sm_80 on)",
    .bf16 = true,
    .legal = legal,
    .estimate = estimate,
    .compile = compile,
    .prepare = prepare,
    .run = run,
    .release = release,
};
