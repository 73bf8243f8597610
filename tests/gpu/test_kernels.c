/* Every CUDA kernel on small problems at the edges of its tiles: right to instance_tolerance() on poisoned
 * output, the same bits again, and counters left at zero.
 * Arguments: none, or "small" (few configurations, for a sanitizer), or KERNEL [CONFIGURATIONS], or "all" KERNEL: all
 * of them, at each M up to 64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "bench/instance.h"
#include "kernels/ahead.h"

enum { CONFIGURATIONS = 64, SMALL_CONFIGURATIONS = 3, PROBLEMS = 16, SMALL_PROBLEMS = 4, MOST_WORDS = 1 << 20 };

static struct device *gpu;
static struct error error;
static const char *only = "";
static bool all;
static int most_configurations = CONFIGURATIONS, most_problems = PROBLEMS;
static uint32_t first[MOST_WORDS], again[MOST_WORDS], counters[WORKSPACE_COUNTER_BYTES / 4];

static void fail_on(const struct plan *plan, const char *what) {
    char configuration[MAX_CONFIG_TEXT], problem[128];
    fail_msg("%s/%s %s, %s: %s", op_name(plan->kernel->op), plan->kernel->name,
             config_text(plan->kernel, &plan->config, configuration), problem_text(&plan->problem, problem), what);
}

static void check_again(const struct plan *plan, const struct operands *operands) {
    size_t bytes = 2 * problem_outputs(&plan->problem);
    if (bytes > sizeof first) return;
    if (device_read(gpu, first, operands->y, bytes, &error) || device_fill(gpu, operands->y, 0xff, bytes, &error) ||
        plan_run(plan, operands, &error) || device_read(gpu, again, operands->y, bytes, &error))
        fail_on(plan, error.text);
    if (memcmp(first, again, bytes)) fail_on(plan, "a second run gave other bits");
}

static void check_counters(const struct plan *plan, const struct operands *operands) {
    if (!plan->workspace_bytes) return;
    if (device_read(gpu, counters, operands->workspace, sizeof counters, &error)) fail_on(plan, error.text);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (counters[i]) fail_on(plan, "left a counter of the workspace behind");
}

/* 0 if the configuration is not legal for this problem. */
static int check(const struct kernel *kernel, const struct problem *problem, const struct config *config) {
    struct plan *plan = NULL;
    struct instance *instance = NULL;
    char configuration[MAX_CONFIG_TEXT], text[128];
    if (config_legal(gpu, kernel, problem, config, NULL)) return 0;
    if (plan_create(gpu, kernel, problem, config, &plan, &error) ||
        instance_create(gpu, problem, 1, false, &instance, &error))
        fail_msg("%s, %s: %s", config_text(kernel, config, configuration), problem_text(problem, text), error.text);
    if (instance_fit(instance, plan, &error) || instance_verify(instance, plan, NULL, &error))
        fail_on(plan, error.text);
    check_again(plan, &instance->copies[0]);
    check_counters(plan, &instance->copies[0]);
    instance_destroy(instance);
    plan_destroy(plan);
    return 1;
}

enum { EDGE_MS = 17, MS_TO_64 = 13, EDGE_NS = 3, EDGE_KS = 4 };

/* The index-th problem at an edge; `variant` chooses epilogue, group and zero points, which cost a compilation each. */
static struct problem edge(enum op op, unsigned index, unsigned variant) {
    static const int ms[] = {1, 2, 3, 5, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 257};
    static const int ns[] = {64, 192, 320}, ks[] = {128, 256, 640, 2048}, groups[] = {128, 0, 32, 64};
    unsigned m = index % EDGE_MS, n = index / EDGE_MS % EDGE_NS, k = index / (EDGE_MS * EDGE_NS) % EDGE_KS;
    struct problem problem = {.op = op, .m = op == OP_AWQ_DEQUANT ? 1 : ms[m], .n = ns[n], .k = ks[k]};
    if (op != OP_AWQ_DEQUANT) problem.epilogue = (enum epilogue)((variant + variant / 4) % EPILOGUE_COUNT);
    if (op == OP_FP16_GEMM) return problem;
    problem.group = groups[variant % 4] ? groups[variant % 4] : problem.k;
    /* At K = 128 a group of 128 is one group. */
    problem.zeros = variant / 16 % 2 == 0;
    return problem;
}

/* Scattered over the space, so that every value of every parameter is met. */
static void sweep(const struct kernel *kernel) {
    long space = config_space(kernel);
    int configurations = 0;
    for (long i = 0; i < space && configurations < most_configurations; i++) {
        struct config config = config_at(kernel, i * 1009 % space);
        int problems = 0;
        for (unsigned p = 0; p < EDGE_MS * EDGE_NS * EDGE_KS && problems < most_problems; p++) {
            unsigned variant = space > 1 ? (unsigned)configurations : p;
            struct problem problem = edge(kernel->op, (p * 59 + (unsigned)i) % (EDGE_MS * EDGE_NS * EDGE_KS), variant);
            problems += check(kernel, &problem, &config);
            problem.norm = kernel->norms;
            if (problem.norm) problems += check(kernel, &problem, &config);
            /* Another compilation: of every fifth configuration, so that epilogues and groups take turns. */
            problem.norm = false, problem.bf16 = kernel->bf16 && configurations % 5 == 0;
            if (problem.bf16) problems += check(kernel, &problem, &config);
        }
        configurations += problems > 0;
    }
    print_message("%s/%s: %d configurations\n", op_name(kernel->op), kernel->name, configurations);
    assert_true(configurations > 0);
}

/* The m-th M for the i-th configuration, at an edge of N and K where that is legal; false without. Its epilogue and
 * group are the same for all M, so that it is compiled once. */
static bool find_edge(const struct kernel *kernel, const struct config *config, unsigned m, long i,
                      struct problem *problem) {
    for (unsigned e = 0; e < EDGE_NS * EDGE_KS; e++) {
        *problem = edge(kernel->op, ((unsigned)i + m + e) % (EDGE_NS * EDGE_KS) * EDGE_MS + m, (unsigned)i);
        if (!config_legal(gpu, kernel, problem, config, NULL)) return true;
    }
    return false;
}

/* The i-th configuration, at each M up to 64; how many of them it was legal for. */
static int check_config(const struct kernel *kernel, long i) {
    const struct config config = config_at(kernel, i);
    struct problem problem;
    int problems = 0;
    for (unsigned m = 0; m < MS_TO_64; m++)
        if (find_edge(kernel, &config, m, i, &problem)) problems += check(kernel, &problem, &config);
    return problems;
}

/* What check_config will compile. */
static void plan_config(struct ahead *ahead, const struct kernel *kernel, long i) {
    const struct config config = config_at(kernel, i);
    struct problem problem;
    for (unsigned m = 0; m < MS_TO_64 && i < config_space(kernel); m++)
        if (find_edge(kernel, &config, m, i, &problem)) ahead_plan(ahead, (int)i, kernel, &problem, &config);
}

static void sweep_all(const struct kernel *kernel) {
    enum { AHEAD = 96 };
    struct ahead *ahead = ahead_create(gpu, plan_compile, (int)sysconf(_SC_NPROCESSORS_ONLN) - 1);
    int configurations = 0, problems = 0;
    assert_non_null(ahead);
    for (long i = 0; i < AHEAD; i++) plan_config(ahead, kernel, i);
    for (long i = 0; i < config_space(kernel); i++) {
        plan_config(ahead, kernel, i + AHEAD);
        ahead_turn(ahead, (int)i);
        int legal = check_config(kernel, i);
        configurations += legal > 0;
        problems += legal;
    }
    ahead_destroy(ahead);
    print_message("%s/%s: all %d configurations, %d problems\n", op_name(kernel->op), kernel->name, configurations,
                  problems);
}

/* Whether the kernel is for this GPU at all; one that is for others says so. */
static bool is_tested(const struct kernel *kernel) {
    struct problem problem = {.op = kernel->op, .m = 1, .n = 256, .k = 2048};
    struct config config;
    char name[64];
    if (kernel->backend != BACKEND_CUDA || !strstr(kernel_full_name(kernel, name), only)) return false;
    if (kernel->op != OP_FP16_GEMM) problem.group = 128;
    return !config_default(gpu, kernel, &problem, &config, &error) || !strstr(error.text, "needs compute capability");
}

static void configurations_are_right(void **state) {
    (void)state;
    int kernels = 0;
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++) {
        if (!is_tested(*kernel)) continue;
        if (all)
            sweep_all(*kernel);
        else
            sweep(*kernel);
        kernels++;
    }
    assert_true(kernels > 0);
}

static void defaults_are_right(void **state) {
    (void)state;
    static const int ms[] = {1, 16, 40, 300, 1100};
    if (all || most_configurations < CONFIGURATIONS) skip();
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++) {
        if (!is_tested(*kernel)) continue;
        bool gemm = (*kernel)->op != OP_AWQ_DEQUANT, quantized = (*kernel)->op != OP_FP16_GEMM;
        for (size_t i = 0; i < (gemm ? sizeof ms / sizeof *ms : 1); i++) {
            struct problem problem = {.op = (*kernel)->op, .m = ms[i], .n = 7168, .k = 5120};
            struct config config;
            if (quantized) problem.group = 128, problem.zeros = true;
            if (gemm) problem.epilogue = (enum epilogue)(i % EPILOGUE_COUNT);
            if (config_default(gpu, *kernel, &problem, &config, &error)) fail_msg("%s", error.text);
            assert_int_equal(check(*kernel, &problem, &config), 1);
            problem.bf16 = (*kernel)->bf16;
            if (problem.bf16) assert_int_equal(check(*kernel, &problem, &config), 1);
        }
    }
}

static int open_gpu(void **state) {
    (void)state;
    if (!device_open("cuda:0", &gpu, &error)) return 0;
    print_error("%s\n", error.text);
    return -1;
}

static int close_gpu(void **state) {
    (void)state;
    device_close(gpu);
    return 0;
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations_are_right),
        cmocka_unit_test(defaults_are_right),
    };
    if (argc > 1 && !strcmp(argv[1], "small"))
        most_configurations = SMALL_CONFIGURATIONS, most_problems = SMALL_PROBLEMS;
    else if (argc > 2 && !strcmp(argv[1], "all"))
        only = argv[2], all = true;
    else if (argc > 1)
        only = argv[1];
    if (argc > 2 && !all) most_configurations = atoi(argv[2]);
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
