#include "bench/floor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCKS, THREADS, IN_FLIGHT };

/* Bytes that an SM has asked for and not got: fewer leave memory waiting, more do not fit its registers. */
enum { LEAST_IN_FLIGHT = 32 << 10, MOST_IN_FLIGHT = 128 << 10, MOST_THREADS = 2048 };

static int legal(const struct device *device, const struct problem *problem, const struct config *c,
                 struct error *why) {
    (void)device, (void)problem;
    int threads = c->value[BLOCKS] * c->value[THREADS], bytes = threads * c->value[IN_FLIGHT] * 16;
    if (threads > MOST_THREADS)
        return error_set(why, "%d threads an SM; at most %d are resident", threads, MOST_THREADS);
    if (bytes < LEAST_IN_FLIGHT || bytes > MOST_IN_FLIGHT)
        return error_set(why, "%d bytes under way on an SM; between %d and %d are tried", bytes, LEAST_IN_FLIGHT,
                         MOST_IN_FLIGHT);
    return 0;
}

static void launch(const struct device *device, const struct problem *problem, const struct config *config,
                   struct launch *launch) {
    unsigned blocks = (unsigned)(device->multiprocessors * config->value[BLOCKS]);
    launch->source = "floor.cu";
    launch->entry = "read_floor";
    snprintf(launch->options, sizeof launch->options, "-DGRID=%u -DBITS=%d -DGROUP=%d", blocks,
             problem->op == OP_FP16_GEMM ? 16 : 4, problem->group == problem->k ? 0 : problem->group);
    launch->grid =
        (struct device_grid){.blocks = {blocks, 1, 1}, .threads = (unsigned)config->value[THREADS], .overlaps = true};
    launch->workspace_bytes = WORKSPACE_COUNTER_BYTES + sizeof(uint32_t);
}

const struct kernel floor_kernel = {
    .backend = BACKEND_CUDA,
    .name = "floor",
    .summary = "only reads the weights",
    .parameter_count = 3,
    .parameters =
        {
            [BLOCKS] = {"blocks", "blocks an SM", 3, {1, 2, 4}},
            [THREADS] = {"threads", "threads a block", 3, {256, 512, 1024}},
            [IN_FLIGHT] = {"in_flight", "16-byte loads under way a thread", 3, {4, 8, 16}},
        },
    .legal = legal,
    .launch = launch,
};

/* --- is all of it read? --- */

/* The exclusive or of an operand's words, by the host. */
static int add_words(struct device *device, const void *operand, size_t bytes, uint32_t *words, struct error *error) {
    enum { PIECE = 16 << 20 };
    uint32_t *piece = malloc(PIECE);
    int result = piece ? 0 : error_set(error, "out of memory");
    for (size_t at = 0; !result && at < bytes; at += PIECE) {
        size_t count = bytes - at < PIECE ? bytes - at : PIECE;
        result = device_read(device, piece, (const char *)operand + at, count, error);
        for (size_t i = 0; !result && i < count / sizeof *piece; i++) *words ^= piece[i];
    }
    free(piece);
    return result;
}

static int words_of(struct instance *instance, uint32_t *words, struct error *error) {
    const struct operands *o = &instance->copies[0];
    struct operand_bytes bytes = problem_operand_bytes(&instance->problem);
    *words = 0;
    if (add_words(instance->device, o->weights, bytes.weights, words, error)) return -1;
    if (add_words(instance->device, o->scales, bytes.scales, words, error)) return -1;
    return add_words(instance->device, o->zeros, bytes.zeros, words, error);
}

static int check(struct instance *instance, const struct plan *plan, uint32_t words, struct error *error) {
    struct device *device = instance->device;
    struct plan checked = *plan;
    uint32_t found;
    checked.problem.m = 0;
    if (instance_fit(instance, plan, error)) return -1;
    char *sum = (char *)instance->copies[0].workspace + WORKSPACE_COUNTER_BYTES;
    if (device_fill(device, sum, 0, sizeof found, error) || plan_run(&checked, &instance->copies[0], error)) return -1;
    if (device_read(device, &found, sum, sizeof found, error)) return -1;
    if (found == words) return 0;
    return error_set(error, "wrong: the words read give %08x, those in memory %08x", found, words);
}

/* --- timing --- */

static int time_shape(struct instance *instance, const struct kernel *kernel, const struct config *config,
                      uint32_t words, const struct measure_options *options, double *least_us, struct error *error) {
    struct plan *plan;
    struct measurement m;
    if (plan_create(instance->device, kernel, &instance->problem, config, &plan, error)) return -1;
    int result = check(instance, plan, words, error);
    if (!result) result = measure(instance, plan, options, &m, error);
    plan_destroy(plan);
    if (result) return -1;
    *least_us = fmin(*least_us, m.median_us);
    measurement_free(&m);
    return 0;
}

int measure_floor(struct instance *instance, enum regime regime, double pace, double *us, struct error *error) {
    struct kernel kernel = floor_kernel;
    struct measure_options options = measure_quick;
    uint32_t words;
    kernel.op = instance->problem.op;
    options.regime = regime;
    options.pace = pace;
    *us = INFINITY;
    if (words_of(instance, &words, error)) return error_prefix(error, "read floor");
    for (long i = 0; i < config_space(&kernel); i++) {
        struct config config = config_at(&kernel, i);
        char text[MAX_CONFIG_TEXT];
        if (config_legal(instance->device, &kernel, &instance->problem, &config, NULL)) continue;
        if (time_shape(instance, &kernel, &config, words, &options, us, error))
            return error_prefix(error, "read floor, %s", config_text(&kernel, &config, text));
    }
    return 0;
}
