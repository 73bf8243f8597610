/* Argument: "small" says that a sanitizer runs this and holds CUPTI, so that events are the clock. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#include "bench/cupti.h"
#include "bench/floor.h"
#include "bench/measure.h"
#include "bench/nvml.h"

static struct device *device;
static bool sanitized;

/* An fp16 GEMM of about 0.2 ms on a large GPU: long enough that launching it costs nothing beside it. */
static const struct problem long_problem = {.op = OP_FP16_GEMM, .m = 4096, .n = 4096, .k = 4096};

static struct plan *make_plan(const char *name, const struct problem *problem, bool cold, struct instance **instance) {
    const struct kernel *kernel = kernel_find(name);
    struct config config;
    struct plan *plan;
    struct error error = {""};
    assert_non_null(kernel);
    if (config_default(device, kernel, problem, &config, &error)) fail_msg("%s", error.text);
    if (instance_create(device, problem, 1, cold, instance, &error)) fail_msg("%s", error.text);
    if (plan_create(device, kernel, problem, &config, &plan, &error)) fail_msg("%s", error.text);
    if (instance_fit(*instance, plan, &error)) fail_msg("%s", error.text);
    return plan;
}

static void clocks_agree(void **state) {
    (void)state;
    struct instance *instance;
    struct measurement m;
    struct error error = {""};
    struct plan *plan = make_plan("fp16_gemm/mma", &long_problem, false, &instance);
    if (measure(instance, plan, &measure_quick, &m, &error)) fail_msg("%s", error.text);
    print_message("cupti %.2f us, span %.2f us, with gaps %.2f us, events %.2f us, %d samples, stop %s, %d MHz\n",
                  m.median_us, m.span_us, m.batch_us, m.event_us, m.samples, m.stop, m.sm_mhz);
    assert_string_equal(m.clock, sanitized ? "events" : "cupti");
    assert_true(m.median_us > 100);
    if (!sanitized) assert_true(m.event_us > 0.95 * m.batch_us && m.event_us < 1.05 * m.batch_us);
    assert_true(m.event_us > 0.75 * m.median_us && m.event_us < 1.25 * m.median_us);
    assert_true(m.span_us >= 0.999 * m.median_us);
    assert_true(m.sm_mhz > 0);
    measurement_free(&m);
    plan_destroy(plan);
    instance_destroy(instance);
}

/* The same kernel in every regime; long enough that nothing around it counts. */
static void regimes_agree(void **state) {
    (void)state;
    struct instance *instance;
    struct error error = {""};
    struct plan *plan = make_plan("fp16_gemm/mma", &long_problem, true, &instance);
    double stream_us = 0;
    for (enum regime regime = REGIME_STREAM; regime <= REGIME_PDL; regime++) {
        struct measure_options options = measure_quick;
        struct measurement m;
        options.regime = regime;
        if (measure(instance, plan, &options, &m, &error)) fail_msg("%s", error.text);
        print_message("%s: %.2f us, span %.2f us, events %.2f us, %d samples of %d calls\n", regime_name(regime),
                      m.median_us, m.span_us, m.event_us, m.samples, m.calls);
        if (regime == REGIME_STREAM) stream_us = m.median_us;
        assert_int_equal(m.regime, regime);
        assert_true(regime == REGIME_STREAM || (m.calls >= 20 && m.calls % instance->count == 0));
        assert_true(m.median_us > 0.75 * stream_us && m.median_us < 1.25 * stream_us);
        assert_true(m.event_us > 0.75 * stream_us && m.event_us < 1.25 * stream_us);
        measurement_free(&m);
    }
    assert_false(device->overlap);
    plan_destroy(plan);
    instance_destroy(instance);
}

static void every_call_is_found(void **state) {
    (void)state;
    if (sanitized) skip();
    enum { COUNT = 300 };
    static struct cupti_sample samples[COUNT];
    static const uint64_t first = (uint64_t)1 << 40; /* above what measure() uses */
    const struct problem problem = {.op = OP_FP16_GEMM, .m = 16, .n = 1024, .k = 1024};
    struct instance *instance;
    struct error error = {""};
    struct plan *plan = make_plan("fp16_gemm/mma", &problem, true, &instance);
    assert_true(instance->count >= 2);
    assert_int_equal(cupti_open(&error), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(cupti_begin(first + (uint64_t)(round * COUNT + i), &error), 0);
            assert_int_equal(plan_run(plan, &instance->copies[i % instance->count], &error), 0);
            assert_int_equal(cupti_end(&error), 0);
        }
        assert_int_equal(device_synchronize(device, &error), 0);
        if (cupti_collect(first + (uint64_t)(round * COUNT), COUNT, samples, &error)) fail_msg("%s", error.text);
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(samples[i].kernels, 1);
            assert_true(samples[i].sum_us > 0);
            assert_true(samples[i].names == samples[0].names);
        }
    }
    plan_destroy(plan);
    instance_destroy(instance);
}

static void samples_that_did_not_run(void **state) {
    (void)state;
    if (sanitized) skip();
    struct cupti_sample sample;
    struct error error = {""};
    assert_int_equal(cupti_open(&error), 0);
    assert_int_equal(cupti_collect((uint64_t)1 << 50, 1, &sample, &error), -1);
    assert_non_null(strstr(error.text, "no kernel record"));
}

static void right_and_wrong_results(void **state) {
    (void)state;
    const struct problem problem = {.op = OP_MARLIN_GEMM, .m = 16, .n = 1024, .k = 1024, .group = 128, .zeros = true};
    struct instance *instance;
    struct error error = {""};
    double relative_error;
    struct plan *plan = make_plan("marlin_gemm/mma", &problem, true, &instance);
    if (instance_verify(instance, plan, &relative_error, &error)) fail_msg("%s", error.text);
    assert_true(relative_error > 0 && relative_error <= INSTANCE_TOLERANCE);
    const void *weights = instance->copies[0].weights;
    instance->copies[0].weights = instance->copies[1].weights;
    assert_int_equal(instance_verify(instance, plan, &relative_error, &error), -1);
    assert_non_null(strstr(error.text, "relative error"));
    plan_destroy(plan);
    instance->copies[0].weights = weights;
    instance_destroy(instance);
}

static void ceilings_are_plausible(void **state) {
    (void)state;
    if (sanitized) skip();
    struct ceilings ceilings;
    struct error error = {""};
    if (measure_ceilings(device, &ceilings, &error)) fail_msg("%s", error.text);
    print_message("read %.0f GB/s of %.0f, copy %.0f GB/s, matrix %.0f TFLOP/s of %.0f\n", ceilings.read_gbs,
                  device->memory_gbs, ceilings.copy_gbs, ceilings.matrix_tflops, device->matrix_tflops);
    assert_true(ceilings.read_gbs > 0.5 * device->memory_gbs && ceilings.read_gbs <= device->memory_gbs);
    assert_true(ceilings.copy_gbs > 0.5 * device->memory_gbs && ceilings.copy_gbs <= device->memory_gbs);
    assert_true(ceilings.matrix_tflops > 0.2 * device->matrix_tflops);
}

/* It refuses to be timed unless every word was read; small: memcheck sees the tail and the crossings of operands. */
static void floors_are_plausible(void **state) {
    (void)state;
    static const struct problem problems[] = {{OP_MARLIN_GEMM, 1, 5120, 5120, 128, true, EPILOGUE_NONE},
                                              {OP_MARLIN_GEMM, 1, 27648, 5120, 32, false, EPILOGUE_NONE},
                                              {OP_FP16_GEMM, 1, 5120, 13824, 0, false, EPILOGUE_NONE},
                                              {OP_AWQ_DEQUANT, 1, 192, 640, 640, true, EPILOGUE_NONE}};
    for (size_t i = sanitized ? 3 : 0; i < sizeof problems / sizeof *problems; i++) {
        struct instance *instance;
        struct error error = {""};
        double us = 0;
        char text[128];
        if (instance_create(device, &problems[i], 1, true, &instance, &error) ||
            measure_floor(instance, REGIME_STREAM, 0, &us, &error))
            fail_msg("%s", error.text);
        struct operand_bytes bytes = problem_operand_bytes(&problems[i]);
        double gbs = (double)(bytes.weights + bytes.scales + bytes.zeros) / us / 1e3;
        print_message("%s: read floor %.2f us, %.0f GB/s\n", problem_text(&problems[i], text), us, gbs);
        assert_true(us > 0 && gbs < device->memory_gbs);
        assert_true(i == 3 || gbs > 0.3 * device->memory_gbs);
        instance_destroy(instance);
    }
}

static int set_up(void **state) {
    (void)state;
    struct error error = {""};
    if (!device_open("cuda:0", &device, &error)) return 0;
    print_error("%s\n", error.text);
    return -1;
}

static int tear_down(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

int main(int argc, char **argv) {
    sanitized = argc > 1 && !strcmp(argv[1], "small");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_agree),
        cmocka_unit_test(regimes_agree),
        cmocka_unit_test(every_call_is_found),
        cmocka_unit_test(samples_that_did_not_run),
        cmocka_unit_test(right_and_wrong_results),
        cmocka_unit_test(ceilings_are_plausible),
        cmocka_unit_test(floors_are_plausible),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
