#include "kernels/reference.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/cuda/reference.cuh"
#include "kernels/half.h"

/* --- on the device (cuda/reference.cu) --- */

enum { THREADS = 256, TILE = 64, COMPARE_BLOCKS = 512 };

static int launch(struct device *device, const char *entry, size_t blocks, const void *arguments, struct error *error) {
    struct device_function *function;
    if (device_function(device, "cuda/reference.cu", entry, "", 0, &function, error)) return -1;
    const struct device_grid grid = {.blocks = {(unsigned)blocks, 1, 1}, .threads = THREADS};
    return device_launch(device, function, &grid, arguments, error);
}

static size_t blocks_for(size_t threads) {
    return (threads + THREADS - 1) / THREADS;
}

static int compare_on_device(struct device *device, struct reference_comparison *comparison,
                             struct reference_sums *total, struct error *error) {
    struct reference_sums sums[COMPARE_BLOCKS];
    comparison->sums = device_alloc(device, sizeof sums, error);
    if (!comparison->sums) return -1;
    int status = launch(device, "reference_compare", COMPARE_BLOCKS, comparison, error) ||
                 device_read(device, sums, comparison->sums, sizeof sums, error);
    device_free(device, comparison->sums);
    if (status) return -1;
    for (int i = 0; i < COMPARE_BLOCKS; i++) {
        total->difference += sums[i].difference;
        total->reference += sums[i].reference;
        total->bad += sums[i].bad;
        if (sums[i].first_bad < total->first_bad) total->first_bad = sums[i].first_bad;
    }
    return 0;
}

/* --- on the host --- */

static void fill_values(const struct reference_fill *fill) {
    uint16_t *to = fill->to;
    for (size_t i = 0; i < fill->count; i++) to[i] = reference_random_word(fill, i);
}

static void fill_bits(const struct reference_fill *fill) {
    unsigned char *to = fill->to;
    uint64_t bits = 0;
    for (size_t i = 0; i < fill->count; i++, bits >>= 8) {
        if (i % 8 == 0) bits = reference_random(fill->seed, i / 8);
        to[i] = (unsigned char)bits;
    }
}

static void dequantize(const struct reference_problem *p) {
    for (int n = 0; n < p->n; n++)
        for (int k = 0; k < p->k; k++) p->y[(size_t)n * (size_t)p->k + (size_t)k] = reference_weight(p, k, n);
}

/* Sum of products that are exact in double; eight sums, so that the compiler may keep them in vectors. */
static double dot(const float *x, const double *w, int count) {
    double sum[8] = {0};
    for (int i = 0; i < count; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += x[i + j] * w[i + j];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* All rows of x times columns n and n + 8 of W, which are decoded to `columns` (2, K). */
static void multiply_pair(const struct reference_problem *p, const float *x, const double *factors, int n,
                          double *columns) {
    double *second = columns + p->k;
    for (int k = 0; k < p->k; k++) columns[k] = reference_weight(p, k, n), second[k] = reference_weight(p, k, n + 8);
    for (int m = 0; m < p->m; m++, x += p->k)
        reference_store(p, m, n, factors[m] * dot(x, columns, p->k), factors[m] * dot(x, second, p->k));
}

/* Two columns of W at a time. K is a multiple of 64. */
static int multiply(const struct reference_problem *p, struct error *error) {
    size_t elements = (size_t)p->m * (size_t)p->k;
    float *x = malloc(elements * sizeof *x);
    double *columns = malloc((2 * (size_t)p->k + (size_t)p->m) * sizeof *columns), *factors = columns + 2 * p->k;
    if (x && columns) {
        for (size_t i = 0; i < elements; i++) x[i] = reference_x(p, (int)(i / (size_t)p->k), (int)(i % (size_t)p->k));
        for (int m = 0; m < p->m; m++) factors[m] = reference_factor(p, m);
        for (int n = 0; n < p->n; n += n % 16 == 7 ? 9 : 1) multiply_pair(p, x, factors, n, columns);
    }
    int status = x && columns ? 0 : error_set(error, "out of memory for a reference of M=%d K=%d", p->m, p->k);
    free(x);
    free(columns);
    return status;
}

static void compare(const struct reference_comparison *c, struct reference_sums *total) {
    for (size_t i = 0; i < c->count; i++) {
        double y = reference_value(c->y[i], c->bf16), reference = c->reference[i];
        if (!isfinite(y)) {
            if (!total->bad++) total->first_bad = i;
            continue;
        }
        total->difference += (y - reference) * (y - reference);
        total->reference += reference * reference;
    }
}

/* --- both --- */

static int fill_random(struct device *device, const struct reference_fill *fill, struct error *error) {
    if (device->backend == BACKEND_CUDA)
        return fill->count ? launch(device, "reference_fill_values", blocks_for(fill->count), fill, error) : 0;
    fill_values(fill);
    return 0;
}

int reference_fill_half(struct device *device, void *to, size_t count, float low, float high, uint64_t seed,
                        struct error *error) {
    return fill_random(device, &(struct reference_fill){to, count, seed, low, high, false}, error);
}

int reference_fill_bf16(struct device *device, void *to, size_t count, float low, float high, uint64_t seed,
                        struct error *error) {
    return fill_random(device, &(struct reference_fill){to, count, seed, low, high, true}, error);
}

int reference_fill_bits(struct device *device, void *to, size_t bytes, uint64_t seed, struct error *error) {
    struct reference_fill fill = {to, bytes, seed, 0, 0, false};
    if (device->backend == BACKEND_CUDA)
        return bytes ? launch(device, "reference_fill_bits", blocks_for((bytes + 7) / 8), &fill, error) : 0;
    fill_bits(&fill);
    return 0;
}

int reference_run(struct device *device, const struct problem *problem, const struct operands *operands, float *y,
                  struct error *error) {
    if (problem_check(problem, error)) return -1;
    static const int layouts[OP_COUNT] = {
        [OP_AWQ_DEQUANT] = REFERENCE_AWQ, [OP_MARLIN_GEMM] = REFERENCE_MARLIN, [OP_FP16_GEMM] = REFERENCE_PLAIN};
    static const int epilogues[EPILOGUE_COUNT] = {[EPILOGUE_NONE] = REFERENCE_NONE,
                                                  [EPILOGUE_BIAS] = REFERENCE_BIAS,
                                                  [EPILOGUE_RESIDUAL] = REFERENCE_RESIDUAL,
                                                  [EPILOGUE_SILU_MUL] = REFERENCE_SILU_MUL};
    struct reference_problem p = {
        .x = operands->x,
        .weights = operands->weights,
        .scales = operands->scales,
        .zeros = problem->zeros ? operands->zeros : NULL,
        .addend = operands->addend,
        .y = y,
        .layout = layouts[problem->op],
        .epilogue = epilogues[problem->epilogue],
        .m = problem->m,
        .n = problem->n,
        .k = problem->k,
        .group = problem->group,
        .gain = problem->norm ? operands->gain : NULL,
        .epsilon = operands->epsilon,
        .bf16 = problem->bf16,
    };
    bool dequantizes = problem->op == OP_AWQ_DEQUANT;
    if (device->backend == BACKEND_CUDA) {
        size_t tiles = (size_t)(p.n / TILE) * (((size_t)p.m + TILE - 1) / TILE);
        return dequantizes ? launch(device, "reference_dequantize", blocks_for(problem_outputs(problem)), &p, error)
                           : launch(device, "reference_gemm", tiles, &p, error);
    }
    if (!dequantizes) return multiply(&p, error);
    dequantize(&p);
    return 0;
}

int reference_compare(struct device *device, const void *y, bool bf16, const float *reference, size_t count,
                      struct comparison *comparison, struct error *error) {
    struct reference_comparison c = {y, reference, count, NULL, bf16};
    struct reference_sums total = {0, 0, 0, count};
    if (device->backend == BACKEND_CUDA) {
        if (compare_on_device(device, &c, &total, error)) return -1;
    } else {
        compare(&c, &total);
    }
    *comparison = (struct comparison){
        /* 0 / 0 where both are all zeros; a reference that is no number must come out as none. */
        .relative_error = total.difference == 0 ? 0 : sqrt(total.difference / total.reference),
        .bad = total.bad,
        .first_bad = total.first_bad,
    };
    return 0;
}
