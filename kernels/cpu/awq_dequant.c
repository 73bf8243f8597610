/* y fp16 (N, K) = the weights of an AWQ matrix (K, N/8), transposed as fp16_gemm reads them.
 *
 * A task covers tile_k rows times tile_n columns of W. Column by column of words, a group's stretch of rows
 * is gathered into scratch; then `unroll` vectors at a time become fp16 and go out along k. */
#include "kernels/cpu/cpu.h"
#include "kernels/half.h"

enum { TILE_N, TILE_K, UNROLL, THREADS };

struct call {
    const struct cpu_vectors *vectors;
    const struct problem *problem;
    const struct operands *operands;
    int tile_n, tile_k, unroll;
    int columns; /* of tasks */
};

/* Scales and zero points of the 8 columns of word column `column` in one group; zeros NULL is 8 everywhere. */
static void read_group(const struct call *c, int group, int column, float scales[8], float zeros[8]) {
    static const int nibble_of_column[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    size_t word = (size_t)group * (size_t)(c->problem->n / 8) + (size_t)column;
    const uint16_t *from = (const uint16_t *)c->operands->scales + 8 * word;
    uint32_t codes = c->operands->zeros ? ((const uint32_t *)c->operands->zeros)[word] : 0x88888888;
    for (int i = 0; i < 8; i++) {
        scales[i] = half_to_float(from[i]);
        zeros[i] = (float)(codes >> 4 * nibble_of_column[i] & 15);
    }
}

/* Rows [k, k + count) of one column of words; all of one group. */
static void dequantize(const struct call *c, int k, int count, int column, uint32_t *words) {
    size_t width = (size_t)c->problem->n / 8, depth = (size_t)c->problem->k;
    const uint32_t *from = (const uint32_t *)c->operands->weights + (size_t)k * width + column;
    float scales[8], zeros[8];
    read_group(c, k / c->problem->group, column, scales, zeros);
    for (int i = 0; i < count; i++) words[i] = from[(size_t)i * width];
    uint16_t *y = (uint16_t *)c->operands->y + (size_t)(8 * column) * depth + k;
    c->vectors->awq_column(words, count, scales, zeros, y, depth, c->unroll);
}

static void task(const void *context, int index, void *scratch) {
    const struct call *c = context;
    int first = index % c->columns * (c->tile_n / 8), k0 = index / c->columns * c->tile_k;
    int end = least(k0 + c->tile_k, c->problem->k), stretch = least(c->tile_k, c->problem->group);
    for (int k = k0; k < end; k += stretch)
        for (int column = first; column < first + c->tile_n / 8; column++)
            dequantize(c, k, least(stretch, end - k), column, scratch);
}

static int tasks(const struct problem *problem, const int *value) {
    return problem->n / value[TILE_N] * ((problem->k + value[TILE_K] - 1) / value[TILE_K]);
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)error;
    const int *value = plan->config.value;
    struct call call = {
        .vectors = cpu_vectors(plan->device),
        .problem = &plan->problem,
        .operands = operands,
        .tile_n = value[TILE_N],
        .tile_k = value[TILE_K],
        .unroll = value[UNROLL],
        .columns = plan->problem.n / value[TILE_N],
    };
    cpu_parallel(plan->device, value[THREADS], tasks(&plan->problem, value), task, &call);
    return 0;
}

static int prepare(struct plan *plan, struct error *error) {
    const int *value = plan->config.value;
    return cpu_reserve(plan->device, value[THREADS], (size_t)value[TILE_K] * sizeof(uint32_t), error);
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    const int *value = config->value;
    if (16 * value[UNROLL] > problem->group)
        return error_set(why, "unroll=%d converts %d rows at a time, more than a group of %d", value[UNROLL],
                         16 * value[UNROLL], problem->group);
    return cpu_threads_legal(device, value[THREADS], why);
}

/* Vector instructions: five a code and what `unroll` does not hide; a load and a store to gather each word,
 * and its share of the lines (128 columns) that a narrow task does not use up; each stretch's scales. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    const int *value = config->value;
    double codes = (double)problem->n * problem->k;
    double convert = codes / cpu_vectors(device)->lanes * (5 + 2.0 / value[UNROLL]);
    double gather = codes / 8 * (2 + 32.0 / value[TILE_N]);
    double start = 40.0 * codes / 8 / least(value[TILE_K], problem->group);
    return cpu_estimate(device, problem, value[THREADS], tasks(problem, value), convert + gather + start);
}

const struct kernel awq_dequant_cpu = {
    .op = OP_AWQ_DEQUANT,
    .backend = BACKEND_CPU,
    .name = "cpu",
    .summary = "words gathered along k, converted in fp32 vectors",
    .parameter_count = 4,
    .parameters =
        {
            {"tile_n", "columns of a task", 4, {8, 16, 32, 64}},
            {"tile_k", "rows of a task", 4, {64, 128, 512, 2048}},
            {"unroll", "vectors converted together", 3, {1, 2, 4}},
            {"threads", "threads", 8, {1, 2, 4, 8, 16, 32, 64, 128}},
        },
    .legal = legal,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
};
