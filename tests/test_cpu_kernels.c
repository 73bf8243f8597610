/* The CPU kernels against plain sums in double precision, over their configurations, every instruction set
 * that this machine has, and every number of threads that it may use. */
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "kernels/formats/formats.h"
#include "kernels/half.h"
#include "tests/fixtures/golden_formats.h"

extern const struct kernel awq_dequant_cpu, marlin_gemm_cpu, fp16_gemm_cpu;

static const char *const architectures[] = {"avx512f", "avx2", "generic"};
enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };
static struct device *device;

static int open_device(void **state) {
    (void)state;
    struct error error;
    return device_open("cpu", &device, &error);
}

static int close_device(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

/* False, with the device left as it was, where the machine lacks it. */
static bool use_architecture(const char *name) {
    if (!cpu_vectors_find(name)) return false;
    snprintf(device->architecture, sizeof device->architecture, "%s", name);
    return true;
}

static uint64_t random_state;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static uint16_t random_word(float low, float high, bool bf16) {
    float value = low + (high - low) * (float)random_bits() / 0x1p31f;
    return bf16 ? bf16_from_float(value) : half_from_float(value);
}

static float word_value(uint16_t word, bool bf16) {
    return bf16 ? bf16_to_float(word) : half_to_float(word);
}

/* A problem with plain data, its operands and what is right. */
struct task {
    struct problem problem;
    uint8_t *codes, *zeros;
    uint16_t *x, *scales, *w, *addend;
    struct operands operands;
    uint32_t *packed, *packed_zeros;
    uint16_t *packed_scales, *y;
    double *right;
};

static double weight(const struct task *t, int k, int n) {
    const struct problem *p = &t->problem;
    if (p->op == OP_FP16_GEMM) return word_value(t->w[(size_t)n * (size_t)p->k + (size_t)k], p->bf16);
    int at = k / p->group * p->n + n, zero = p->zeros ? t->zeros[at] : 8;
    return half_to_float(t->scales[at]) * (double)(t->codes[k * p->n + n] - zero);
}

/* Column n of row m of y from its row of sums. */
static double finished(const struct task *t, const double *sums, int m, int n) {
    double gate = sums[n / 8 * 16 + n % 8], up = sums[n / 8 * 16 + n % 8 + 8];
    switch (t->problem.epilogue) {
    case EPILOGUE_BIAS:
        return sums[n] + word_value(t->addend[n], t->problem.bf16);
    case EPILOGUE_RESIDUAL:
        return sums[n] + word_value(t->addend[m * t->problem.n + n], t->problem.bf16);
    case EPILOGUE_SILU_MUL:
        return gate / (1 + exp(-gate)) * up;
    default:
        return sums[n];
    }
}

static void fill_right(struct task *t) {
    const struct problem *p = &t->problem;
    int width = p->epilogue == EPILOGUE_SILU_MUL ? p->n / 2 : p->n;
    double *sums = calloc((size_t)(p->m * p->n) * 2, sizeof *sums);
    for (int n = 0; n < p->n; n++)
        for (int k = 0; k < p->k; k++) {
            double w = weight(t, k, n);
            if (p->op == OP_AWQ_DEQUANT)
                t->right[n * p->k + k] = w;
            else
                for (int m = 0; m < p->m; m++) sums[m * p->n + n] += word_value(t->x[m * p->k + k], p->bf16) * w;
        }
    for (int i = 0; p->op != OP_AWQ_DEQUANT && i < p->m * width; i++)
        t->right[i] = finished(t, sums + i / width * p->n, i / width, i % width);
    free(sums);
}

static void pack_operands(struct task *t) {
    const struct problem *p = &t->problem;
    int groups = p->group ? p->k / p->group : 0;
    t->operands = (struct operands){.x = t->x, .weights = t->w, .addend = t->addend, .y = t->y};
    if (p->op == OP_FP16_GEMM) return;
    t->operands.weights = t->packed;
    t->operands.zeros = p->zeros ? t->packed_zeros : NULL;
    t->operands.scales = p->op == OP_AWQ_DEQUANT ? t->scales : t->packed_scales;
    (p->op == OP_AWQ_DEQUANT ? awq_pack : marlin_pack)(t->codes, p->k, p->n, t->packed);
    (p->op == OP_AWQ_DEQUANT ? awq_pack : marlin_pack_zeros)(t->zeros, groups, p->n, t->packed_zeros);
    marlin_pack_scales(t->scales, groups, p->n, t->packed_scales);
}

static struct task task_make(struct problem problem) {
    size_t weights = (size_t)(problem.n * problem.k), outputs = problem_outputs(&problem);
    struct task t = {.problem = problem};
    t.codes = malloc(weights), t.zeros = malloc(weights);
    t.x = malloc((size_t)(problem.m * problem.k) * 2), t.scales = malloc(weights * 2), t.w = malloc(weights * 2);
    t.packed = malloc(weights / 2), t.packed_zeros = malloc(weights / 2);
    t.packed_scales = malloc(weights * 2), t.y = malloc(outputs * 2);
    t.addend = malloc((size_t)(problem.m * problem.n) * 2);
    t.right = calloc(outputs, sizeof *t.right);
    for (size_t i = 0; i < weights; i++) {
        t.codes[i] = (uint8_t)(random_bits() >> 8 & 15);
        t.zeros[i] = (uint8_t)(random_bits() >> 8 & 15);
        t.scales[i] = random_word(0.002f, 0.02f, false);
        t.w[i] = random_word(-1, 1, problem.bf16);
    }
    for (int i = 0; i < problem.m * problem.k; i++) t.x[i] = random_word(-1, 1, problem.bf16);
    for (int i = 0; i < problem.m * problem.n; i++) t.addend[i] = random_word(-1, 1, problem.bf16);
    pack_operands(&t);
    fill_right(&t);
    return t;
}

static void task_free(struct task *t) {
    free(t->codes), free(t->zeros), free(t->x), free(t->scales), free(t->w), free(t->right), free(t->addend);
    free(t->packed), free(t->packed_zeros), free(t->packed_scales), free(t->y);
}

static void run_once(const struct kernel *kernel, const struct task *t, const struct config *config) {
    struct plan *plan;
    struct error error;
    if (plan_create(device, kernel, &t->problem, config, &plan, &error)) fail_msg("%s", error.text);
    assert_int_equal(plan_run(plan, &t->operands, &error), 0);
    plan_destroy(plan);
}

/* Runs into y, poisoned with NaN before. */
static void run(const struct kernel *kernel, const struct task *t, const struct config *config) {
    memset(t->y, 0xff, problem_outputs(&t->problem) * 2);
    run_once(kernel, t, config);
}

static double relative_error(const uint16_t *y, bool bf16, const double *right, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = word_value(y[i], bf16) - right[i];
        difference += d * d;
        norm += right[i] * right[i];
    }
    return sqrt(difference / norm);
}

static void check(const struct kernel *kernel, const struct task *t, const struct config *config) {
    char name[MAX_CONFIG_TEXT], problem[128];
    run(kernel, t, config);
    double error = relative_error(t->y, t->problem.bf16, t->right, problem_outputs(&t->problem));
    if (!(error <= (t->problem.bf16 ? 8e-3 : 1e-3)))
        fail_msg("%s, %s, %s: relative error %g", problem_text(&t->problem, problem), config_text(kernel, config, name),
                 device->architecture, error);
}

/* A residual may be the very matrix that the result goes to. */
static void check_in_place(const struct kernel *kernel, const struct task *t, const struct config *config) {
    struct task in_place = *t;
    size_t bytes = problem_outputs(&t->problem) * 2;
    in_place.y = malloc(bytes);
    memcpy(in_place.y, t->addend, bytes);
    in_place.operands.y = in_place.y, in_place.operands.addend = in_place.y;
    run_once(kernel, &in_place, config);
    assert_memory_equal(in_place.y, t->y, bytes);
    free(in_place.y);
}

/* The legal configuration at or after a place in the space. */
static struct config legal_from(const struct kernel *kernel, const struct problem *problem, long index) {
    long space = config_space(kernel);
    for (long i = 0; i < space; i++) {
        struct config config = config_at(kernel, (index + i) % space);
        if (!config_legal(device, kernel, problem, &config, NULL)) return config;
    }
    fail_msg("no legal configuration");
    return (struct config){{0}};
}

/* The corners of the space, the default, and `samples` others, on every instruction set. */
static void check_problem(const struct kernel *kernel, struct problem problem, int samples) {
    struct task t = task_make(problem);
    struct config config;
    struct error error;
    for (int a = 0; a < ARCHITECTURES; a++) {
        if (!use_architecture(architectures[a])) continue;
        assert_int_equal(config_default(device, kernel, &problem, &config, &error), 0);
        check(kernel, &t, &config);
        for (int i = 0; i < samples; i++) {
            long space = config_space(kernel);
            long index = i == 0 ? 0 : i == 1 ? space - 1 : (long)random_bits() % space;
            config = legal_from(kernel, &problem, index);
            check(kernel, &t, &config);
        }
        if (problem.epilogue == EPILOGUE_RESIDUAL) check_in_place(kernel, &t, &config);
    }
    task_free(&t);
}

/* Every legal configuration once, on this machine's best instruction set. */
static void check_space(const struct kernel *kernel, struct problem problem) {
    struct task t = task_make(problem);
    use_architecture(cpu_vectors_find(NULL)->architecture);
    int checked = 0;
    for (long i = 0; i < config_space(kernel); i++) {
        struct config config = config_at(kernel, i);
        if (config_legal(device, kernel, &problem, &config, NULL)) continue;
        check(kernel, &t, &config);
        checked++;
    }
    assert_true(checked >= 10);
    task_free(&t);
}

/* Every epilogue in bf16. */
static void check_bf16(const struct kernel *kernel, struct problem problem) {
    problem.bf16 = true;
    for (int e = 0; e < EPILOGUE_COUNT; e++) {
        problem.epilogue = (enum epilogue)e;
        check_problem(kernel, problem, 6);
    }
}

static const int every_m[] = {1, 2, 3, 5, 8, 16, 17, 33};
enum { MS = sizeof every_m / sizeof *every_m };

static void fp16_gemm(void **state) {
    (void)state;
    static const int shapes[][2] = {{64, 64}, {192, 128}, {1088, 192}};
    random_state = 1;
    for (int i = 0; i < MS; i++)
        for (int s = 0; s < 3; s++)
            check_problem(&fp16_gemm_cpu,
                          (struct problem){OP_FP16_GEMM, every_m[i], shapes[s][1], shapes[s][0], 0, 0,
                                           (enum epilogue)((i + s) % 4)},
                          6);
    check_bf16(&fp16_gemm_cpu, (struct problem){OP_FP16_GEMM, 5, 128, 192, 0, 0, EPILOGUE_NONE});
    check_space(&fp16_gemm_cpu, (struct problem){OP_FP16_GEMM, 13, 64, 320, 0, 0, EPILOGUE_SILU_MUL});
}

static void marlin_gemm(void **state) {
    (void)state;
    static const int shapes[][2] = {{128, 64}, {384, 192}, {640, 320}};
    random_state = 2;
    for (int i = 0; i < MS; i++)
        for (int s = 0; s < 3; s++)
            for (int g = 0; g < 4; g++) {
                int k = shapes[s][0], group = g < 3 ? 32 << g : k;
                check_problem(&marlin_gemm_cpu,
                              (struct problem){OP_MARLIN_GEMM, every_m[i], shapes[s][1], k, group, (i + s + g) % 2,
                                               EPILOGUE_NONE},
                              4);
            }
    check_bf16(&marlin_gemm_cpu, (struct problem){OP_MARLIN_GEMM, 9, 192, 384, 64, true, EPILOGUE_NONE});
    check_space(&marlin_gemm_cpu, (struct problem){OP_MARLIN_GEMM, 13, 192, 384, 64, true, EPILOGUE_SILU_MUL});
}

static void awq_dequant(void **state) {
    (void)state;
    static const int shapes[][2] = {{128, 64}, {384, 192}, {640, 128}};
    random_state = 3;
    for (int s = 0; s < 3; s++)
        for (int g = 0; g < 4; g++)
            for (int zeros = 0; zeros < 2; zeros++) {
                int k = shapes[s][0], group = g < 3 ? 32 << g : k;
                check_problem(&awq_dequant_cpu,
                              (struct problem){OP_AWQ_DEQUANT, 1, shapes[s][1], k, group, zeros, EPILOGUE_NONE}, 8);
            }
    check_space(&awq_dequant_cpu, (struct problem){OP_AWQ_DEQUANT, 1, 64, 640, 128, true, EPILOGUE_NONE});
}

/* The same words, scales and results as an independent program writes them. */
static void marlin_gemm_on_golden_words(void **state) {
    (void)state;
    static const struct {
        int group;
        const uint16_t *scales;
        const uint32_t *zeros;
        const double *y;
    } cases[] = {
        {GOLDEN_GROUP, golden_marlin_scales, golden_marlin_zeros, golden_y_zeros},
        {GOLDEN_GROUP, golden_marlin_scales, NULL, golden_y_symmetric},
        {GOLDEN_K, golden_marlin_scales_one_group, golden_marlin_zeros, golden_y_one_group},
        {GOLDEN_K, golden_marlin_scales_one_group, NULL, golden_y_one_group_symmetric},
    };
    enum { OUTPUTS = GOLDEN_M * GOLDEN_N };
    uint16_t y[OUTPUTS];
    for (int a = 0; a < ARCHITECTURES; a++) {
        if (!use_architecture(architectures[a])) continue;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct task t = {.problem = {OP_MARLIN_GEMM, GOLDEN_M, GOLDEN_N, GOLDEN_K, cases[i].group, cases[i].zeros,
                                         EPILOGUE_NONE},
                             .operands = {.x = golden_x,
                                          .weights = golden_marlin,
                                          .scales = cases[i].scales,
                                          .zeros = cases[i].zeros,
                                          .y = y},
                             .y = y};
            struct config config = legal_from(&marlin_gemm_cpu, &t.problem, 0);
            run(&marlin_gemm_cpu, &t, &config);
            assert_true(relative_error(y, false, cases[i].y, OUTPUTS) <= 1e-3);
        }
    }
}

/* Each weight is rounded once, so every bit is known. */
static void awq_dequant_rounds_once(void **state) {
    (void)state;
    random_state = 4;
    struct task t = task_make((struct problem){OP_AWQ_DEQUANT, 1, 64, 256, 128, true, EPILOGUE_NONE});
    for (int a = 0; a < ARCHITECTURES; a++) {
        if (!use_architecture(architectures[a])) continue;
        struct config config = legal_from(&awq_dequant_cpu, &t.problem, 17);
        run(&awq_dequant_cpu, &t, &config);
        for (int i = 0; i < 64 * 256; i++)
            if (half_to_float(t.y[i]) || t.right[i]) /* -0 is 0 */
                assert_int_equal(t.y[i], half_from_float((float)t.right[i]));
    }
    task_free(&t);
}

/* Bits must not depend on threads. The pool is there for any number of them, so pretend to have many cores. */
static void check_threads(const struct kernel *kernel, struct problem problem) {
    int cores = device->multiprocessors, last = kernel->parameter_count - 1;
    size_t outputs = problem_outputs(&problem);
    struct task t = task_make(problem);
    uint16_t *first = malloc(outputs * 2);
    struct config config = legal_from(kernel, &problem, 0);
    device->multiprocessors = 16;
    for (int repeat = 0; repeat < 3; repeat++)
        for (int threads = 1; threads <= 16; threads *= 2) {
            config.value[last] = threads;
            run(kernel, &t, &config);
            if (threads == 1 && !repeat) memcpy(first, t.y, outputs * 2);
            assert_memory_equal(t.y, first, outputs * 2);
        }
    device->multiprocessors = cores;
    free(first);
    task_free(&t);
}

static void threads_change_nothing(void **state) {
    (void)state;
    random_state = 5;
    use_architecture(cpu_vectors_find(NULL)->architecture);
    check_threads(&fp16_gemm_cpu, (struct problem){OP_FP16_GEMM, 35, 256, 192, 0, 0, EPILOGUE_NONE});
    check_threads(&marlin_gemm_cpu, (struct problem){OP_MARLIN_GEMM, 35, 448, 256, 128, true, EPILOGUE_NONE});
    check_threads(&awq_dequant_cpu, (struct problem){OP_AWQ_DEQUANT, 1, 128, 512, 128, true, EPILOGUE_NONE});
}

static void refused_configurations(void **state) {
    (void)state;
    struct error error = {""};
    struct config config;
    struct problem fp16 = {OP_FP16_GEMM, 1, 64, 64, 0, 0, EPILOGUE_NONE},
                   awq = {OP_AWQ_DEQUANT, 1, 64, 128, 32, true, EPILOGUE_NONE};
    struct problem marlin = {OP_MARLIN_GEMM, 1, 64, 128, 32, true, EPILOGUE_NONE};
    assert_int_equal(config_parse(&fp16_gemm_cpu, "tile_m=8 tile_n=16 tile_k=256 unroll=4 threads=1", &config, &error),
                     0);
    assert_int_equal(config_legal(device, &fp16_gemm_cpu, &fp16, &config, &error), -1);
    assert_non_null(strstr(error.text, "tile_m * unroll is 32"));
    assert_int_equal(
        config_parse(&marlin_gemm_cpu, "tile_m=8 tile_n=64 tile_k=128 unroll=2 threads=1", &config, &error), 0);
    assert_int_equal(config_legal(device, &marlin_gemm_cpu, &marlin, &config, &error), -1);
    assert_non_null(strstr(error.text, "tile_m * unroll is 16"));
    assert_int_equal(config_parse(&awq_dequant_cpu, "tile_n=8 tile_k=64 unroll=4 threads=1", &config, &error), 0);
    assert_int_equal(config_legal(device, &awq_dequant_cpu, &awq, &config, &error), -1);
    assert_non_null(strstr(error.text, "more than a group of 32"));
    int cores = device->multiprocessors;
    device->multiprocessors = 3;
    config.value[2] = 1, config.value[3] = 4;
    assert_int_equal(config_legal(device, &awq_dequant_cpu, &awq, &config, &error), -1);
    assert_non_null(strstr(error.text, "threads=4 is more than the 3 usable cores"));
    device->multiprocessors = cores;
}

static void device_describes_itself(void **state) {
    (void)state;
    struct device *fresh;
    struct error error;
    assert_int_equal(device_open("cpu", &fresh, &error), 0);
    assert_int_equal(fresh->backend, BACKEND_CPU);
    assert_true(fresh->name[0] && fresh->software[0]);
    assert_string_equal(fresh->architecture, cpu_vectors_find(NULL)->architecture);
    assert_int_equal(strlen(fresh->kernels), 8);
    assert_true(fresh->multiprocessors >= 1 && fresh->cache_bytes && fresh->memory_bytes);
    assert_null(device_alloc(fresh, (size_t)1 << 50, &error));
    assert_non_null(strstr(error.text, "1073741824.0 MiB asked for"));
    void *memory = device_alloc(fresh, 3, &error);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    device_free(fresh, memory);
    device_close(fresh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_describes_itself),
        cmocka_unit_test(marlin_gemm_on_golden_words),
        cmocka_unit_test(marlin_gemm),
        cmocka_unit_test(fp16_gemm),
        cmocka_unit_test(awq_dequant),
        cmocka_unit_test(awq_dequant_rounds_once),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(refused_configurations),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
