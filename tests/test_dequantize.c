/* marlin_gemm/dequantize without a GPU: its plan on a device that runs device code by tests/emulation. The first launch
 * writes the weights to the bit, the second multiplies them, and nothing else of the workspace is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bench/instance.h"
#include "kernels/choice.h"
#include "kernels/formats/layout.cuh"
#include "kernels/half.h"
#include "kernels/reference.h"
#include "tests/cards.h"
#include "tests/emulation/load.h"

static struct device *cpu;
static struct error error;

/* --- a device of emulated code --- */

struct device_function {
    char source[64], entry[64], options[LAUNCH_OPTIONS];
    bool first; /* it dequantises */
};

/* As the emulation has them. */
struct map {
    _Alignas(64) const void *memory;
    struct device_tensor tensor;
};

enum { MOST_FUNCTIONS = 2 };
static struct device_function functions[MOST_FUNCTIONS];
static int function_count, launches;
static bool multiplies; /* else only the first launch is run: the other is a compilation too */
static enum device_overlap overlap[2];
static const void *from, *into; /* the weights that the second launch reads, and those that the first wrote */

static int function(struct device *device, const char *source, const char *entry, const char *options,
                    size_t shared_bytes, struct device_function **result, struct error *why) {
    (void)device, (void)shared_bytes, (void)why;
    assert_true(function_count < MOST_FUNCTIONS);
    struct device_function *f = *result = &functions[function_count++];
    snprintf(f->source, sizeof f->source, "%s", source);
    snprintf(f->entry, sizeof f->entry, "%s", entry);
    snprintf(f->options, sizeof f->options, "%s", options);
    f->first = !strcmp(source, "marlin_gemm/dequantize.cu");
    return 0;
}

static void emulate(const struct device_function *f, const struct device_grid *grid, const void *arguments) {
    const char *type = strstr(f->source, "wgmma") ? "struct mapped_arguments" : "struct arguments";
    emulate_function *run;
    void *library = emulation_load(f->source, f->entry, type, f->options, &run);
    run(arguments, grid, true, 1);
    dlclose(library);
}

static int launch(struct device *device, const struct device_function *f, const struct device_grid *grid,
                  const void *arguments, struct error *why) {
    const struct arguments *a = arguments;
    (void)why;
    assert_int_equal(f->first, launches == 0);
    assert_true(grid->overlaps);
    assert_int_equal(a->overlaps, device->overlap == OVERLAP_WEIGHTS);
    overlap[launches++] = device->overlap;
    if (f->first)
        into = a->operands.y;
    else
        from = a->operands.weights;
    if (f->first || multiplies) emulate(f, grid, arguments);
    return 0;
}

static int tensor_map(struct device *device, const struct device_tensor *tensor, const void *memory,
                      struct device_tensor_map *map, struct error *why) {
    const struct map own = {memory, *tensor};
    (void)device, (void)why;
    memcpy(map, &own, sizeof own);
    return 0;
}

static const struct device_functions emulated = {.function = function, .launch = launch, .tensor_map = tensor_map};

/* --- what it leaves --- */

/* (q - z) * scale is exact in fp32. */
static uint16_t weight(const struct problem *p, const struct operands *o, int k, int n) {
    const int group = k / p->group, q = (int)layout_code(o->weights, layout_marlin(k, n, p->n));
    const int z = p->zeros ? (int)layout_code(o->zeros, layout_marlin_zero(group, n, p->n)) : 8;
    const uint16_t *scales = o->scales;
    float scale = half_to_float(scales[layout_marlin_scale(group, n, p->n, p->k / p->group)]);
    const uint16_t half = half_from_float((float)(q - z) * scale);
    return p->bf16 ? bf16_from_float(half_to_float(half)) : half;
}

static void check_weights(const struct problem *p, const struct operands *o) {
    const uint16_t *weights = into;
    char text[128];
    for (int n = 0; n < p->n; n++)
        for (int k = 0; k < p->k; k++) {
            uint16_t found = weights[(size_t)n * (size_t)p->k + (size_t)k], expected = weight(p, o, k, n);
            /* 0 - 0 and what follows from it may have either sign. */
            if (found != expected && (found | expected) != 0x8000)
                fail_msg("%s: weight (%d, %d) is %04x, expected %04x", problem_text(p, text), k, n, found, expected);
        }
}

static void check_y(const struct problem *p, const struct operands *o) {
    size_t count = problem_outputs(p);
    struct comparison comparison;
    float *reference = malloc(count * sizeof *reference);
    assert_non_null(reference);
    assert_int_equal(reference_run(cpu, p, o, reference, &error), 0);
    assert_int_equal(reference_compare(cpu, o->y, p->bf16, reference, count, &comparison, &error), 0);
    free(reference);
    if (comparison.bad || !(comparison.relative_error <= instance_tolerance(p)))
        fail_msg("relative error %g, %zu bad", comparison.relative_error, comparison.bad);
}

/* The weights are the workspace's end, behind what the GEMM has of it, and the counters are zero again. */
static void check_workspace(const struct problem *p, const struct plan *plan, const char *workspace) {
    const size_t weights = 2 * (size_t)p->n * (size_t)p->k;
    assert_ptr_equal(from, into);
    assert_ptr_equal((const char *)into + weights, workspace + plan->workspace_bytes);
    assert_true((const char *)into - workspace >= WORKSPACE_COUNTER_BYTES);
    for (size_t i = 0; i < WORKSPACE_COUNTER_BYTES; i++)
        if (workspace[i]) fail_msg("byte %zu of the counters is left at %d", i, workspace[i]);
    for (size_t i = 0; i < 256; i++) assert_int_equal((unsigned char)workspace[plan->workspace_bytes + i], 0xff);
}

static void check(struct device card, struct problem p) {
    const struct kernel *kernel = kernel_find("marlin_gemm/dequantize");
    const struct config config = {{0}};
    struct instance *instance;
    struct plan *plan = NULL;
    function_count = launches = 0;
    card.functions = &emulated;
    card.overlap = OVERLAP_WEIGHTS;
    if (instance_create(cpu, &p, 1, false, &instance, &error) || plan_create(&card, kernel, &p, &config, &plan, &error))
        fail_msg("%s", error.text);
    struct operands operands = instance->copies[0];
    char *workspace = aligned_alloc(256, (plan->workspace_bytes + 511) / 256 * 256);
    assert_non_null(workspace);
    memset(workspace, 0xff, plan->workspace_bytes + 256);
    memset(workspace, 0, WORKSPACE_COUNTER_BYTES);
    memset(operands.y, 0xff, 2 * problem_outputs(&p));
    operands.workspace = workspace;
    assert_int_equal(plan_run(plan, &operands, &error), 0);
    assert_int_equal(launches, 2);
    assert_int_equal(overlap[0], OVERLAP_WEIGHTS);
    assert_int_equal(overlap[1], OVERLAP_START);
    assert_int_equal(card.overlap, OVERLAP_WEIGHTS);
    check_weights(&p, &operands);
    if (multiplies) check_y(&p, &operands);
    check_workspace(&p, plan, workspace);
    free(workspace);
    plan_destroy(plan);
    instance_destroy(instance);
}

static struct device a100(void) {
    struct device card = h100;
    card.name[0] = 0;
    card.compute_capability = 80;
    card.multiprocessors = 4;
    return card;
}

static void writes_weights(void **state) {
    (void)state;
    multiplies = false;
    check(a100(), (struct problem){OP_MARLIN_GEMM, 1, 128, 256, 64, false, EPILOGUE_BIAS});
    check(a100(), (struct problem){OP_MARLIN_GEMM, 17, 64, 384, 32, true, EPILOGUE_SILU_MUL});
    check(a100(), (struct problem){OP_MARLIN_GEMM, 3, 320, 128, 128, true, EPILOGUE_NONE});
    check(a100(), (struct problem){OP_MARLIN_GEMM, 3, 64, 640, 640, false, EPILOGUE_NONE});
}

/* The last block has warps behind the end. */
static void multiplies_what_it_wrote(void **state) {
    (void)state;
    multiplies = true;
    check(a100(), (struct problem){OP_MARLIN_GEMM, 5, 192, 640, 128, true, EPILOGUE_RESIDUAL});
}

static void writes_bf16(void **state) {
    (void)state;
    struct problem p = {OP_MARLIN_GEMM, 5, 128, 256, 64, true, EPILOGUE_BIAS, false, true};
    multiplies = true;
    check(a100(), p);
}

/* Two SMs of an H100, whose GEMM requests boxes of the workspace. */
static void multiplies_by_boxes(void **state) {
    (void)state;
    struct device card = h100;
    struct choice choice;
    struct problem p = {OP_FP16_GEMM, 256, 256, 1024, 0, false, EPILOGUE_BIAS};
    card.multiprocessors = 2;
    card.memory_gbs *= 2. / h100.multiprocessors;
    card.matrix_tflops *= 2. / h100.multiprocessors;
    assert_int_equal(choice_default(&card, kernel_list(), &p, &choice, &error), 0);
    assert_string_equal(choice.kernel->name, "wgmma");
    multiplies = true;
    check(card, (struct problem){OP_MARLIN_GEMM, p.m, p.n, p.k, 128, true, p.epilogue});
}

/* --- what it says of itself --- */

static void is_legal_where_fp16_gemm_is(void **state) {
    (void)state;
    const struct kernel *kernel = kernel_find("marlin_gemm/dequantize");
    const struct config config = {{0}};
    struct problem p = {OP_MARLIN_GEMM, 1, 64, 128, 128, true, EPILOGUE_NONE};
    struct device card = h100;
    assert_int_equal(config_space(kernel), 1);
    for (int capability = 75; capability <= 120; capability++) {
        struct error why = {""};
        card.compute_capability = capability;
        int status = config_legal(&card, kernel, &p, &config, &why);
        assert_int_equal(status, capability < 80 ? -1 : 0);
        if (status) assert_non_null(strstr(why.text, "needs compute capability 8.0"));
    }
    card.shared_block_bytes = 1024;
    struct error why = {""};
    assert_int_equal(config_legal(&card, kernel, &p, &config, &why), -1);
    assert_non_null(strstr(why.text, "fp16_gemm m=1 n=64 k=128"));
}

/* More than the GEMM alone by at least what moving the weights takes; with few rows far behind the fused ones, and with
 * many nearer to them. */
static void estimates_both_launches(void **state) {
    (void)state;
    const struct kernel *kernel = kernel_find("marlin_gemm/dequantize");
    const struct config config = {{0}};
    static const int shapes[][2] = {{5120, 7168}, {5120, 5120}, {5120, 27648}, {13824, 5120}};
    for (size_t s = 0; s < 4; s++) {
        double ratio[2];
        for (int i = 0; i < 2; i++) {
            struct problem p = {OP_MARLIN_GEMM, i ? 8192 : 1, shapes[s][1], shapes[s][0], 128, true, EPILOGUE_NONE};
            struct problem gemm = {.op = OP_FP16_GEMM, .m = p.m, .n = p.n, .k = p.k};
            struct choice fused, dense;
            assert_int_equal(choice_default(&h100, kernel_list(), &p, &fused, &error), 0);
            assert_int_equal(choice_default(&h100, kernel_list(), &gemm, &dense, &error), 0);
            double both = kernel->estimate(&h100, &p, &config);
            double alone = dense.kernel->estimate(&h100, &gemm, &dense.config);
            assert_true(both - alone > 2.5 * p.n * p.k / (h100.memory_gbs * 1e3));
            assert_ptr_not_equal(fused.kernel, kernel);
            ratio[i] = both / fused.kernel->estimate(&h100, &p, &fused.config);
        }
        assert_true(ratio[0] > 5 && ratio[1] < 1.5);
    }
}

static int open_cpu(void **state) {
    (void)state;
    return device_open("cpu", &cpu, &error);
}

static int close_cpu(void **state) {
    (void)state;
    device_close(cpu);
    return 0;
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_weights),
        cmocka_unit_test(multiplies_what_it_wrote),
        cmocka_unit_test(writes_bf16),
        cmocka_unit_test(multiplies_by_boxes),
        cmocka_unit_test(is_legal_where_fp16_gemm_is),
        cmocka_unit_test(estimates_both_launches),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
