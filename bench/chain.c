#include "bench/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As chain.cu has them; rows are counted in vectors of VECTOR fp16. */
enum { BLOCK = 512, VECTOR = 8, MOST_KEPT = 4 };

struct norm_arguments {
    const void *x;
    void *y;
    int width;
};

struct attend_arguments {
    const void *x;
    void *y;
    int from, to;
};

struct chain {
    struct device *device;
    int layers;
    struct instance *gemms[CHAIN_GEMMS]; /* a copy a layer */
    struct plan *plans[CHAIN_GEMMS];
    struct device_function *norm, *attend;
    double error;
    size_t bytes;               /* of the residual stream */
    uint16_t *expected, *found; /* host: what the chain leaves there, one by one and as a graph */
};

/* --- problems --- */

const char *const chain_layers[CHAIN_GEMMS] = {"qkv", "o", "gate_up", "down"};

int chain_problems(const struct shapes *shapes, enum op op, int m, int group, bool zeros,
                   struct problem problems[CHAIN_GEMMS], struct error *error) {
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        const struct shape *shape = NULL;
        for (int i = 0; i < shapes->count; i++)
            if (!strcmp(shapes->list[i].layer, chain_layers[g])) shape = &shapes->list[i];
        if (!shape)
            return error_set(error,
                             "the shapes have no layer %s; a chain needs a model's: qwen2.5-14b, or a directory "
                             "with config.json",
                             chain_layers[g]);
        problems[g] = shape_problem(shape, op, m, group, zeros, shape->epilogue);
        if (problem_check(&problems[g], error)) return error_prefix(error, "layer %s", chain_layers[g]);
    }
    return 0;
}

struct chain_figures chain_figures(const struct chain_gemm gemms[CHAIN_GEMMS], int count, double us) {
    struct chain_figures figures = {.us_layer = us / count};
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        struct operand_bytes bytes = problem_operand_bytes(&gemms[g].problem);
        figures.weight_bytes += (double)count * (double)(bytes.weights + bytes.scales + bytes.zeros);
    }
    figures.gbs = figures.weight_bytes / us / 1e3;
    figures.tokens_s = gemms[0].problem.m / us * 1e6;
    return figures;
}

/* --- the kernels in their order --- */

static const struct operands *first(const struct chain *chain, int gemm) {
    return &chain->gemms[gemm]->copies[0];
}

static const struct problem *problem(const struct chain *chain, int gemm) {
    return &chain->gemms[gemm]->problem;
}

/* The residual stream into the input of a GEMM. */
static int norm(const struct chain *chain, const void *residual, int gemm, struct error *error) {
    const struct norm_arguments arguments = {residual, (void *)first(chain, gemm)->x, problem(chain, gemm)->k / VECTOR};
    const struct device_grid grid = {
        .blocks = {(unsigned)problem(chain, gemm)->m, 1, 1}, .threads = BLOCK, .overlaps = true};
    return device_launch(chain->device, chain->norm, &grid, &arguments, error);
}

static int attend(const struct chain *chain, struct error *error) {
    const struct attend_arguments arguments = {first(chain, CHAIN_QKV)->y, (void *)first(chain, CHAIN_O)->x,
                                               problem(chain, CHAIN_QKV)->n / VECTOR,
                                               problem(chain, CHAIN_O)->k / VECTOR};
    const struct device_grid grid = {
        .blocks = {(unsigned)((arguments.to + BLOCK - 1) / BLOCK), (unsigned)problem(chain, CHAIN_O)->m, 1},
        .threads = BLOCK,
        .overlaps = true};
    return device_launch(chain->device, chain->attend, &grid, &arguments, error);
}

static int run_gemm(const struct chain *chain, int gemm, int layer, const void *addend, void *y, struct error *error) {
    struct operands operands = chain->gemms[gemm]->copies[layer];
    operands.addend = addend;
    operands.y = y;
    return plan_run(chain->plans[gemm], &operands, error);
}

/* The residual stream comes from `from`, which stays, and goes on in o's output. */
static int enqueue_layer(const struct chain *chain, int layer, const void *from, struct error *error) {
    const struct operands *qkv = first(chain, CHAIN_QKV), *down = first(chain, CHAIN_DOWN);
    void *residual = first(chain, CHAIN_O)->y;
    if (norm(chain, from, CHAIN_QKV, error)) return -1;
    if (run_gemm(chain, CHAIN_QKV, layer, qkv->addend, qkv->y, error)) return -1;
    if (attend(chain, error)) return -1;
    if (run_gemm(chain, CHAIN_O, layer, from, residual, error)) return -1;
    if (norm(chain, residual, CHAIN_GATE_UP, error)) return -1;
    if (run_gemm(chain, CHAIN_GATE_UP, layer, NULL, (void *)down->x, error)) return -1;
    return run_gemm(chain, CHAIN_DOWN, layer, residual, residual, error);
}

static int enqueue(void *context, struct error *error) {
    const struct chain *chain = context;
    const struct operands *o = first(chain, CHAIN_O);
    for (int layer = 0; layer < chain->layers; layer++)
        if (enqueue_layer(chain, layer, layer ? o->y : o->addend, error)) return -1;
    return 0;
}

/* --- what it leaves --- */

/* What is read before it was written is NaN, and so is all that follows from it. */
static int poison(const struct chain *chain, struct error *error) {
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        struct operand_bytes bytes = problem_operand_bytes(problem(chain, g));
        if (device_fill(chain->device, (void *)first(chain, g)->x, 0xff, bytes.x, error)) return -1;
        if (device_fill(chain->device, first(chain, g)->y, 0xff, bytes.y, error)) return -1;
    }
    return 0;
}

/* The residual stream behind the last layer, by a graph or, without one, kernel by kernel in the stream. */
static int leave(struct chain *chain, const struct device_graph *graph, uint16_t *host, struct error *error) {
    if (poison(chain, error)) return -1;
    if (graph ? device_graph_launch(chain->device, graph, error) : enqueue(chain, error)) return -1;
    return device_read(chain->device, host, first(chain, CHAIN_O)->y, chain->bytes, error);
}

static int expect(struct chain *chain, struct error *error) {
    if (leave(chain, NULL, chain->expected, error)) return -1;
    for (size_t i = 0; i < chain->bytes / 2; i++)
        if ((chain->expected[i] & 0x7c00) == 0x7c00)
            return error_set(error, "wrong: activation %zu behind the last layer is infinite or NaN", i);
    return 0;
}

static int check(struct chain *chain, const struct device_graph *graph, struct error *error) {
    size_t different = 0;
    if (leave(chain, graph, chain->found, error)) return -1;
    for (size_t i = 0; i < chain->bytes / 2; i++) different += chain->found[i] != chain->expected[i];
    if (!different) return 0;
    return error_set(error, "wrong: %zu of %zu activations behind the last layer are not those of the stream",
                     different, chain->bytes / 2);
}

/* --- making and timing it --- */

static bool complete(const struct chain *chain) {
    bool all = true;
    for (int g = 0; g < CHAIN_GEMMS; g++) all = all && chain->plans[g];
    return all;
}

/* A chain that ran has its activations where the reference's x was. */
int chain_replace(struct chain *chain, int gemm, const struct kernel *kernel, const struct config *config,
                  struct error *error) {
    struct instance *instance = chain->gemms[gemm];
    struct problem same = instance->problem;
    double relative_error;
    if (complete(chain) && instance_change(instance, &same, error)) return -1;
    plan_destroy(chain->plans[gemm]);
    chain->plans[gemm] = NULL;
    if (plan_create(chain->device, kernel, &same, config, &chain->plans[gemm], error)) return -1;
    if (instance_fit(instance, chain->plans[gemm], error)) return -1;
    if (instance_verify(instance, chain->plans[gemm], &relative_error, error)) return -1;
    if (relative_error > chain->error) chain->error = relative_error;
    return complete(chain) ? expect(chain, error) : 0;
}

static int prepare_gemm(struct chain *chain, int g, const struct chain_gemm *gemm, uint64_t seed, struct error *error) {
    if (instance_create_copies(chain->device, &gemm->problem, seed, chain->layers, &chain->gemms[g], error)) return -1;
    return gemm->kernel ? chain_replace(chain, g, gemm->kernel, &gemm->config, error) : 0;
}

static int prepare(struct chain *chain, const struct chain_gemm gemms[CHAIN_GEMMS], uint64_t seed,
                   struct error *error) {
    char options[32];
    int width = gemms[CHAIN_QKV].problem.k / VECTOR, kept = (width + BLOCK - 1) / BLOCK;
    if (kept > MOST_KEPT)
        return error_set(error, "a residual stream of %d; a chain has at most %d", width * VECTOR,
                         MOST_KEPT * BLOCK * VECTOR);
    snprintf(options, sizeof options, "-DBLOCK=%d -DKEPT=%d", BLOCK, kept);
    if (device_function(chain->device, "chain.cu", "chain_norm", options, 0, &chain->norm, error)) return -1;
    if (device_function(chain->device, "chain.cu", "chain_attend", options, 0, &chain->attend, error)) return -1;
    chain->bytes = problem_operand_bytes(&gemms[CHAIN_O].problem).y;
    chain->expected = malloc(chain->bytes);
    chain->found = malloc(chain->bytes);
    if (!chain->expected || !chain->found) return error_set(error, "out of memory");
    for (int g = 0; g < CHAIN_GEMMS; g++)
        if (prepare_gemm(chain, g, &gemms[g], seed * CHAIN_GEMMS + (uint64_t)g, error))
            return error_prefix(error, "layer %s", chain_layers[g]);
    return 0;
}

int chain_create(struct device *device, const struct chain_gemm gemms[CHAIN_GEMMS], int count, uint64_t seed,
                 struct chain **result, struct error *error) {
    struct chain *chain = calloc(1, sizeof *chain);
    *result = NULL;
    if (!chain) return error_set(error, "out of memory");
    *chain = (struct chain){.device = device, .layers = count};
    if (prepare(chain, gemms, seed, error)) {
        chain_destroy(chain);
        return -1;
    }
    *result = chain;
    return 0;
}

void chain_destroy(struct chain *chain) {
    if (!chain) return;
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        plan_destroy(chain->plans[g]);
        instance_destroy(chain->gemms[g]);
    }
    free(chain->expected);
    free(chain->found);
    free(chain);
}

double chain_error(const struct chain *chain) {
    return chain->error;
}

int chain_measure(struct chain *chain, enum regime regime, const struct measure_options *options,
                  struct measurement *measurement, struct error *error) {
    struct device *device = chain->device;
    struct device_graph *graph;
    *measurement = (struct measurement){.samples = 0};
    device_overlap(device, regime == REGIME_PDL ? OVERLAP_WEIGHTS : OVERLAP_NOTHING);
    int result = device_graph_record(device, enqueue, chain, &graph, error);
    device_overlap(device, OVERLAP_NOTHING);
    if (result) return -1;
    result = check(chain, graph, error);
    if (!result) result = measure_graph(device, graph, regime, options, measurement, error);
    if (!result && (result = check(chain, graph, error))) measurement_free(measurement);
    device_graph_destroy(device, graph);
    return result;
}
