/* The device code of the CUDA kernels, run on the host (tests/emulation) exactly as their descriptions launch
 * it: right on poisoned output, the same bits whatever the order of warps, blocks and copies, and counters
 * left at zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bench/floor.h"
#include "kernels/half.h"
#include "kernels/reference.h"
#include "tests/cards.h"
#include "tests/emulation/load.h"

static struct device *cpu;
static struct error error;

static int open_cpu(void **state) {
    (void)state;
    return device_open("cpu", &cpu, &error);
}

static int close_cpu(void **state) {
    (void)state;
    device_close(cpu);
    return 0;
}

/* What the entry takes, and the emulation's maps. */
struct mapped_arguments {
    struct arguments plain;
    struct {
        _Alignas(64) const void *memory;
        struct device_tensor tensor;
        char rest[72];
    } maps[MAX_TENSORS];
};

static void *load(const struct launch *launch, const char *options, emulate_function **emulate) {
    const char *type = launch->tensor_count ? "struct mapped_arguments" : "struct arguments";
    return emulation_load(launch->source, launch->entry, type, options, emulate);
}

static void check_output(const struct instance *instance, const char *what) {
    size_t count = problem_outputs(&instance->problem);
    struct comparison comparison;
    float *reference = malloc(count * sizeof *reference);
    assert_non_null(reference);
    assert_int_equal(reference_run(cpu, &instance->problem, instance->copies, reference, &error), 0);
    assert_int_equal(
        reference_compare(cpu, instance->copies->y, instance->problem.bf16, reference, count, &comparison, &error), 0);
    free(reference);
    if (comparison.bad || !(comparison.relative_error <= instance_tolerance(&instance->problem)))
        fail_msg("%s: relative error %g, %zu bad from %zu on", what, comparison.relative_error, comparison.bad,
                 comparison.first_bad);
}

/* Runs the launch twice, in other orders; a residual is y itself the second time. */
static void check_runs(const struct instance *instance, const struct launch *launch, emulate_function *emulate,
                       const char *what) {
    const struct problem *p = &instance->problem;
    size_t bytes = 2 * problem_outputs(p);
    uint16_t *y = instance->copies->y, *first = malloc(bytes);
    unsigned *workspace = aligned_alloc(256, launch->workspace_bytes + 256);
    assert_true(first && workspace);
    struct mapped_arguments mapped = {.plain = {instance->copies[0], p->m, p->n, p->k, p->group, 0}};
    struct arguments *arguments = &mapped.plain;
    arguments->operands.workspace = workspace;
    for (int i = 0; i < launch->tensor_count; i++) {
        mapped.maps[i].memory = *(void *const *)((char *)&arguments->operands + launch->tensors[i].operand);
        mapped.maps[i].tensor = launch->tensors[i].tensor;
    }
    memset(workspace, 0xff, launch->workspace_bytes);
    memset(workspace, 0, launch->workspace_bytes ? WORKSPACE_COUNTER_BYTES : 0);
    for (unsigned run = 0; run < 2; run++) {
        memset(y, 0xff, bytes);
        arguments->overlaps = run == 1;
        if (run && p->epilogue == EPILOGUE_RESIDUAL) {
            memcpy(y, arguments->operands.addend, bytes);
            arguments->operands.addend = y;
        }
        assert_int_equal(emulate(&mapped, &launch->grid, run == 0, run), 0);
        check_output(instance, what);
        if (run == 0) memcpy(first, y, bytes);
        if (memcmp(first, y, bytes)) fail_msg("%s: another order gave other bits", what);
        for (size_t i = 0; launch->workspace_bytes && i < WORKSPACE_COUNTER_BYTES / 4; i++)
            if (workspace[i]) fail_msg("%s: counter %zu is left at %u", what, i, workspace[i]);
    }
    free(first);
    free(workspace);
}

/* On a card with so many SMs; `change` may alter the data. */
static void check_with(int sms, void (*change)(struct instance *), const char *name, const char *configuration,
                       struct problem problem) {
    struct device card = h100;
    const struct kernel *kernel = kernel_find(name);
    card.multiprocessors = sms;
    struct config config;
    struct launch launch = {0};
    struct instance *instance = NULL;
    char options[LAUNCH_OPTIONS], what[512], text[128];
    emulate_function *emulate;
    snprintf(what, sizeof what, "%s %s, %s", name, configuration, problem_text(&problem, text));
    if (config_parse(kernel, configuration, &config, &error) ||
        config_legal(&card, kernel, &problem, &config, &error) ||
        instance_create(cpu, &problem, 1, false, &instance, &error))
        fail_msg("%s: %s", what, error.text);
    if (change) change(instance);
    kernel->launch(&card, &problem, &config, &launch);
    launch_options(kernel, &problem, &config, &launch, options);
    void *library = load(&launch, options, &emulate);
    check_runs(instance, &launch, emulate, what);
    dlclose(library);
    instance_destroy(instance);
}

static void check(const char *name, const char *configuration, struct problem problem) {
    check_with(132, NULL, name, configuration, problem);
}

static void marlin_gemm_few_tokens(void **state) {
    (void)state;
    check("marlin_gemm/mma", "tile_m=8 tile_n=64 tile_k=128 warps_k=4 stages=3 split_k=2",
          (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_NONE});
    check("marlin_gemm/mma", "tile_m=16 tile_n=128 tile_k=256 warps_k=2 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 17, 192, 256, 32, false, EPILOGUE_NONE});
}

static void marlin_gemm_many_tokens(void **state) {
    (void)state;
    check("marlin_gemm/mma", "tile_m=128 tile_n=128 tile_k=64 warps_k=1 stages=4 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 129, 64, 256, 128, true, EPILOGUE_NONE});
    check("marlin_gemm/mma", "tile_m=32 tile_n=64 tile_k=128 warps_k=2 stages=6 split_k=4",
          (struct problem){OP_MARLIN_GEMM, 33, 128, 640, 64, false, EPILOGUE_NONE});
}

static void marlin_gemm_one_group(void **state) {
    (void)state;
    check("marlin_gemm/mma", "tile_m=8 tile_n=128 tile_k=64 warps_k=2 stages=2 split_k=4",
          (struct problem){OP_MARLIN_GEMM, 5, 192, 640, 640, true, EPILOGUE_NONE});
}

static void marlin_gemm_warpgroups(void **state) {
    (void)state;
    check("marlin_gemm/wgmma", "tile_m=16 tile_k=64 warpgroups_n=1 warpgroups_k=2 stages=3 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 5, 320, 640, 32, true, EPILOGUE_SILU_MUL});
    check("marlin_gemm/wgmma", "tile_m=32 tile_k=128 warpgroups_n=1 warpgroups_k=1 stages=2 split_k=5",
          (struct problem){OP_MARLIN_GEMM, 33, 64, 640, 64, false, EPILOGUE_RESIDUAL});
    check("marlin_gemm/wgmma", "tile_m=16 tile_k=64 warpgroups_n=1 warpgroups_k=1 stages=3 split_k=3",
          (struct problem){OP_MARLIN_GEMM, 9, 576, 640, 128, true, EPILOGUE_SILU_MUL});
    check("marlin_gemm/wgmma", "tile_m=32 tile_k=128 warpgroups_n=2 warpgroups_k=2 stages=2 split_k=3",
          (struct problem){OP_MARLIN_GEMM, 33, 576, 1280, 128, true, EPILOGUE_RESIDUAL});
    check("marlin_gemm/wgmma", "tile_m=16 tile_k=64 warpgroups_n=2 warpgroups_k=1 stages=3 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 9, 320, 640, 640, true, EPILOGUE_SILU_MUL});
    check("marlin_gemm/wgmma", "tile_m=64 tile_k=64 warpgroups_n=1 warpgroups_k=2 stages=4 split_k=2",
          (struct problem){OP_MARLIN_GEMM, 63, 128, 640, 640, true, EPILOGUE_BIAS});
}

/* Blocks that go through several items, clusters at the end of N, tiles that end outside of y, groups within a stage.
 */
static void marlin_gemm_persistent(void **state) {
    (void)state;
    check_with(2, NULL, "marlin_gemm/persistent",
               "tile_m=96 tile_n=128 warpgroups=2 stages=3 cluster_n=1 split_k=2 order=4",
               (struct problem){OP_MARLIN_GEMM, 130, 320, 640, 128, true, EPILOGUE_SILU_MUL});
    check_with(4, NULL, "marlin_gemm/persistent",
               "tile_m=64 tile_n=64 warpgroups=1 stages=4 cluster_n=2 split_k=3 order=1",
               (struct problem){OP_MARLIN_GEMM, 65, 192, 256, 32, true, EPILOGUE_BIAS});
    check_with(132, NULL, "marlin_gemm/persistent",
               "tile_m=128 tile_n=256 warpgroups=2 stages=3 cluster_n=1 split_k=1 order=8",
               (struct problem){OP_MARLIN_GEMM, 129, 320, 256, 64, false, EPILOGUE_RESIDUAL});
    check_with(1, NULL, "marlin_gemm/persistent",
               "tile_m=64 tile_n=192 warpgroups=3 stages=3 cluster_n=1 split_k=1 order=1",
               (struct problem){OP_MARLIN_GEMM, 9, 256, 128, 128, true, EPILOGUE_NONE});
}

static void fp16_gemm(void **state) {
    (void)state;
    check("fp16_gemm/mma", "tile_m=8 tile_n=64 tile_k=64 warps_k=2 stages=6 split_k=2",
          (struct problem){OP_FP16_GEMM, 3, 128, 320, 0, false, EPILOGUE_NONE});
    check("fp16_gemm/mma", "tile_m=128 tile_n=64 tile_k=128 warps_k=4 stages=2 split_k=1",
          (struct problem){OP_FP16_GEMM, 65, 64, 256, 0, false, EPILOGUE_NONE});
}

/* Few activations are thousands of times larger than the others, as models have them; one chunk is all zero, one of the
 * smallest numbers. */
static void make_outliers(struct instance *instance) {
    uint16_t *x = (uint16_t *)instance->copies->x;
    const bool bf16 = instance->problem.bf16;
    for (int i = 0; i < instance->problem.k; i++) {
        float value = (bf16 ? bf16_to_float(x[i]) : half_to_float(x[i])) / 64;
        if (i % 97 == 5) value = i % 2 ? -3000.f : 5000.f;
        if (i / 128 == 1) value = 0;
        if (i / 128 == 2) value = (float)(i % 7 - 3) / (1 << 24);
        x[i] = bf16 ? bf16_from_float(value) : half_from_float(value);
    }
}

static void gemv_takes_outliers(void **state) {
    (void)state;
    check_with(132, make_outliers, "marlin_gemm/gemv", "tile_m=1 tile_n=64 warps_k=4 stages=2 split_k=1",
               (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_NONE});
    check_with(132, make_outliers, "marlin_gemm/gemv", "tile_m=1 tile_n=64 warps_k=4 stages=2 split_k=1",
               (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_NONE, true});
}

/* Integers have no NaN: what is infinite in x must be seen in y all the same. */
static void gemv_hides_no_infinity(void **state) {
    (void)state;
    const struct kernel *kernel = kernel_find("marlin_gemm/gemv");
    const struct problem problem = {OP_MARLIN_GEMM, 1, 64, 256, 128, true, EPILOGUE_NONE};
    struct config config;
    struct launch launch = {0};
    struct instance *instance;
    char options[LAUNCH_OPTIONS];
    emulate_function *emulate;
    assert_int_equal(config_parse(kernel, "tile_m=1 tile_n=64 warps_k=2 stages=2 split_k=1", &config, &error), 0);
    assert_int_equal(instance_create(cpu, &problem, 1, false, &instance, &error), 0);
    kernel->launch(&h100, &problem, &config, &launch);
    launch_options(kernel, &problem, &config, &launch, options);
    void *library = load(&launch, options, &emulate);
    const struct arguments arguments = {instance->copies[0], problem.m, problem.n, problem.k, problem.group, 0};
    const uint16_t *y = instance->copies->y;
    ((uint16_t *)instance->copies->x)[131] = 0x7c00;
    emulate(&arguments, &launch.grid, false, 0);
    for (int i = 0; i < problem.n; i++) assert_true((y[i] & 0x7c00) == 0x7c00);
    dlclose(library);
    instance_destroy(instance);
}

/* Blocks that go through several items, tiles that end outside of y, bands that are not full. */
static void fp16_gemm_warpgroups(void **state) {
    (void)state;
    check_with(2, NULL, "fp16_gemm/wgmma",
               "tile_m=64 tile_n=128 warpgroups=1 stages=3 cluster_m=1 cluster_n=1 split_k=1 order=4",
               (struct problem){OP_FP16_GEMM, 130, 320, 192, 0, false, EPILOGUE_BIAS});
    check_with(5, NULL, "fp16_gemm/wgmma",
               "tile_m=128 tile_n=128 warpgroups=2 stages=4 cluster_m=2 cluster_n=1 split_k=3 order=1",
               (struct problem){OP_FP16_GEMM, 129, 192, 320, 0, false, EPILOGUE_SILU_MUL});
    check_with(2, NULL, "fp16_gemm/wgmma",
               "tile_m=256 tile_n=96 warpgroups=2 stages=3 cluster_m=1 cluster_n=1 split_k=2 order=8",
               (struct problem){OP_FP16_GEMM, 33, 320, 448, 0, false, EPILOGUE_RESIDUAL});
    check_with(6, NULL, "fp16_gemm/wgmma",
               "tile_m=64 tile_n=64 warpgroups=1 stages=3 cluster_m=1 cluster_n=2 split_k=2 order=1",
               (struct problem){OP_FP16_GEMM, 65, 320, 256, 0, false, EPILOGUE_NONE});
    check_with(132, NULL, "fp16_gemm/wgmma",
               "tile_m=192 tile_n=160 warpgroups=3 stages=4 cluster_m=1 cluster_n=2 split_k=1 order=8",
               (struct problem){OP_FP16_GEMM, 7, 320, 64, 0, false, EPILOGUE_NONE});
}

static void gemv(void **state) {
    (void)state;
    check("marlin_gemm/gemv", "tile_m=1 tile_n=64 warps_k=4 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_RESIDUAL});
    check("marlin_gemm/gemv", "tile_m=1 tile_n=128 warps_k=2 stages=3 split_k=2",
          (struct problem){OP_MARLIN_GEMM, 3, 192, 640, 32, true, EPILOGUE_BIAS});
    check("marlin_gemm/gemv", "tile_m=1 tile_n=256 warps_k=1 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 1, 320, 256, 64, false, EPILOGUE_SILU_MUL});
    check("marlin_gemm/gemv", "tile_m=1 tile_n=64 warps_k=2 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 2, 64, 640, 640, true, EPILOGUE_NONE});
    check("marlin_gemm/gemv", "tile_m=1 tile_n=128 warps_k=2 stages=3 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_BIAS, true});
    check("marlin_gemm/gemv", "tile_m=1 tile_n=64 warps_k=4 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 2, 128, 768, 768, false, EPILOGUE_SILU_MUL, true});
}

static void skinny(void **state) {
    (void)state;
    check("marlin_gemm/skinny", "tile_m=1 tile_n=64 warps_k=2 stages=3 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_NONE});
    check("marlin_gemm/skinny", "tile_m=4 tile_n=128 warps_k=2 stages=2 split_k=2",
          (struct problem){OP_MARLIN_GEMM, 5, 192, 640, 32, true, EPILOGUE_BIAS});
    check("marlin_gemm/skinny", "tile_m=16 tile_n=256 warps_k=1 stages=4 split_k=4",
          (struct problem){OP_MARLIN_GEMM, 17, 320, 640, 64, false, EPILOGUE_SILU_MUL});
    check("marlin_gemm/skinny", "tile_m=32 tile_n=64 warps_k=4 stages=2 split_k=1",
          (struct problem){OP_MARLIN_GEMM, 31, 64, 640, 640, true, EPILOGUE_RESIDUAL});
    check("fp16_gemm/skinny", "tile_m=1 tile_n=64 warps_k=4 stages=3 split_k=2",
          (struct problem){OP_FP16_GEMM, 1, 192, 1152, 0, false, EPILOGUE_RESIDUAL});
    check("fp16_gemm/skinny", "tile_m=8 tile_n=128 warps_k=2 stages=2 split_k=1",
          (struct problem){OP_FP16_GEMM, 9, 192, 640, 0, false, EPILOGUE_SILU_MUL});
    check("fp16_gemm/skinny", "tile_m=64 tile_n=256 warps_k=1 stages=2 split_k=8",
          (struct problem){OP_FP16_GEMM, 63, 320, 1152, 0, false, EPILOGUE_BIAS});
}

/* Tiles that end outside of y in both directions, splits and slices of k. */
static void epilogues(void **state) {
    (void)state;
    static const char few[] = "tile_m=8 tile_n=128 tile_k=64 warps_k=2 stages=2 split_k=2";
    static const char many[] = "tile_m=32 tile_n=256 tile_k=64 warps_k=1 stages=2 split_k=1";
    for (int e = EPILOGUE_BIAS; e < EPILOGUE_COUNT; e++) {
        check("fp16_gemm/mma", few, (struct problem){OP_FP16_GEMM, 5, 192, 192, 0, false, (enum epilogue)e});
        check("marlin_gemm/mma", many, (struct problem){OP_MARLIN_GEMM, 37, 320, 128, 64, true, (enum epilogue)e});
    }
    check("marlin_gemm/mma", few, (struct problem){OP_MARLIN_GEMM, 9, 192, 256, 256, false, EPILOGUE_SILU_MUL});
}

/* One source, another type: every way into the matrix unit and every way out of the sums. */
static void fp16_gemm_in_bf16(void **state) {
    (void)state;
    static const char mma[] = "tile_m=8 tile_n=128 tile_k=64 warps_k=2 stages=2 split_k=2";
    static const char wgmma[] = "tile_m=64 tile_n=64 warpgroups=1 stages=3 cluster_m=1 cluster_n=2 split_k=2 order=1";
    struct problem problem = {.op = OP_FP16_GEMM, .m = 9, .n = 192, .k = 384, .bf16 = true};
    for (int e = 0; e < EPILOGUE_COUNT; e++) {
        problem.epilogue = (enum epilogue)e;
        check("fp16_gemm/mma", mma, problem);
        check_with(6, NULL, "fp16_gemm/wgmma", wgmma, problem);
    }
    check("fp16_gemm/skinny", "tile_m=8 tile_n=128 warps_k=2 stages=2 split_k=1", problem);
    problem.epilogue = EPILOGUE_RESIDUAL;
    check("fp16_gemm/skinny", "tile_m=1 tile_n=64 warps_k=1 stages=3 split_k=2", problem);
}

/* With weights that are scaled, and with sums that are: of a run, or of all of K. */
static void marlin_gemm_in_bf16(void **state) {
    (void)state;
    static const char few[] = "tile_m=8 tile_n=128 tile_k=64 warps_k=2 stages=2 split_k=2";
    static const char many[] = "tile_m=32 tile_n=64 tile_k=128 warps_k=2 stages=2 split_k=1";
    static const char warpgroups[] = "tile_m=16 tile_k=64 warpgroups_n=2 warpgroups_k=1 stages=3 split_k=3";
    static const char persistent[] = "tile_m=64 tile_n=64 warpgroups=1 stages=4 cluster_n=2 split_k=3 order=1";
    struct problem problem = {OP_MARLIN_GEMM, 17, 192, 256, 128, true, EPILOGUE_RESIDUAL, false, true};
    for (int one_group = 0; one_group < 2; one_group++) {
        problem.group = one_group ? problem.k : 32;
        problem.epilogue = one_group ? EPILOGUE_BIAS : EPILOGUE_RESIDUAL;
        check("marlin_gemm/mma", few, problem);
        check("marlin_gemm/mma", many, problem);
        check("marlin_gemm/skinny", "tile_m=8 tile_n=128 warps_k=2 stages=2 split_k=1", problem);
        check("marlin_gemm/wgmma", warpgroups, problem);
        check_with(4, NULL, "marlin_gemm/persistent", persistent, problem);
    }
    problem.epilogue = EPILOGUE_SILU_MUL;
    check_with(4, NULL, "marlin_gemm/persistent", persistent, problem);
}

static void gemv_in_bf16(void **state) {
    (void)state;
    static const char configuration[] = "tile_m=1 tile_n=64 warps_k=4 stages=2 split_k=1";
    struct problem problem = {OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_RESIDUAL, false, true};
    check("marlin_gemm/gemv", configuration, problem);
    check_with(132, make_outliers, "marlin_gemm/gemv", configuration, problem);
    problem.norm = true;
    check("marlin_gemm/gemv", configuration, problem);
}

static void awq_dequant(void **state) {
    (void)state;
    check("awq_dequant/tiled", "tile_k=64 tile_n=128 threads=128",
          (struct problem){OP_AWQ_DEQUANT, 1, 320, 640, 128, true, EPILOGUE_NONE});
    check("awq_dequant/tiled", "tile_k=256 tile_n=256 threads=512",
          (struct problem){OP_AWQ_DEQUANT, 1, 192, 128, 128, false, EPILOGUE_NONE});
}

/* --- the read floor: every word once --- */

static uint32_t words_of(const void *operand, size_t bytes) {
    const uint32_t *words = operand;
    uint32_t all = 0;
    for (size_t i = 0; i < bytes / sizeof *words; i++) all ^= words[i];
    return all;
}

static void check_floor(const char *configuration, int multiprocessors, struct problem problem) {
    struct kernel kernel = floor_kernel;
    struct device device = h100;
    struct config config;
    struct launch launch = {0};
    struct instance *instance = NULL;
    char options[LAUNCH_OPTIONS], what[512], text[128];
    emulate_function *emulate;
    kernel.op = problem.op;
    device.multiprocessors = multiprocessors;
    snprintf(what, sizeof what, "floor %s, %s", configuration, problem_text(&problem, text));
    if (config_parse(&kernel, configuration, &config, &error) ||
        config_legal(&device, &kernel, &problem, &config, &error) ||
        instance_create(cpu, &problem, 1, false, &instance, &error))
        fail_msg("%s: %s", what, error.text);
    kernel.launch(&device, &problem, &config, &launch);
    launch_options(&kernel, &problem, &config, &launch, options);
    void *library = load(&launch, options, &emulate);
    struct arguments arguments = {instance->copies[0], 0, problem.n, problem.k, problem.group, 0};
    struct operand_bytes bytes = problem_operand_bytes(&problem);
    uint32_t *workspace = calloc(1, launch.workspace_bytes), *sum = workspace + WORKSPACE_COUNTER_BYTES / 4;
    assert_non_null(workspace);
    arguments.operands.workspace = workspace;
    emulate(&arguments, &launch.grid, false, 0);
    uint32_t words = words_of(instance->copies->weights, bytes.weights);
    words ^= words_of(instance->copies->scales, bytes.scales) ^ words_of(instance->copies->zeros, bytes.zeros);
    if (*sum != words) fail_msg("%s: the words read give %08x, those in memory %08x", what, *sum, words);
    /* Timed as it is, it leaves its workspace alone. */
    *sum = 0;
    arguments.m = 1;
    emulate(&arguments, &launch.grid, false, 0);
    assert_int_equal(*sum, 0);
    free(workspace);
    dlclose(library);
    instance_destroy(instance);
}

static void read_floor(void **state) {
    (void)state;
    /* Less than a batch a block; several; blocks that cross from one operand to the next, and idle ones. */
    check_floor("blocks=4 threads=512 in_flight=4", 2,
                (struct problem){OP_MARLIN_GEMM, 1, 192, 640, 128, true, EPILOGUE_NONE});
    check_floor("blocks=2 threads=256 in_flight=8", 1,
                (struct problem){OP_MARLIN_GEMM, 1, 512, 1280, 32, false, EPILOGUE_NONE});
    check_floor("blocks=1 threads=256 in_flight=16", 3,
                (struct problem){OP_AWQ_DEQUANT, 1, 320, 1152, 1152, true, EPILOGUE_NONE});
    check_floor("blocks=2 threads=1024 in_flight=4", 132,
                (struct problem){OP_MARLIN_GEMM, 1, 64, 128, 128, true, EPILOGUE_NONE});
    check_floor("blocks=1 threads=512 in_flight=8", 2,
                (struct problem){OP_FP16_GEMM, 1, 192, 640, 0, false, EPILOGUE_NONE});
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(marlin_gemm_few_tokens),
        cmocka_unit_test(marlin_gemm_many_tokens),
        cmocka_unit_test(marlin_gemm_one_group),
        cmocka_unit_test(marlin_gemm_warpgroups),
        cmocka_unit_test(marlin_gemm_persistent),
        cmocka_unit_test(fp16_gemm),
        cmocka_unit_test(fp16_gemm_warpgroups),
        cmocka_unit_test(gemv),
        cmocka_unit_test(gemv_takes_outliers),
        cmocka_unit_test(gemv_hides_no_infinity),
        cmocka_unit_test(skinny),
        cmocka_unit_test(epilogues),
        cmocka_unit_test(fp16_gemm_in_bf16),
        cmocka_unit_test(marlin_gemm_in_bf16),
        cmocka_unit_test(gemv_in_bf16),
        cmocka_unit_test(awq_dequant),
        cmocka_unit_test(read_floor),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
