/* The chain of a decoder's GEMMs without a GPU: the CPU's kernels, with launches and graphs played here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bench/chain.h"
#include "bench/sweep.h"
#include "tests/played.h"

static struct device *device;

static int set_up(void **state) {
    (void)state;
    struct error error;
    if (device_open("cpu", &device, &error)) return -1;
    play(device);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

/* --- chains --- */

enum { LAYERS = 3, M = 2 };

static struct shape small[] = {
    {"qkv", 128, 256, true, EPILOGUE_BIAS, 0},         {"o", 128, 128, true, EPILOGUE_RESIDUAL, 0},
    {"gate_up", 128, 512, true, EPILOGUE_SILU_MUL, 0}, {"down", 256, 128, true, EPILOGUE_RESIDUAL, 0},
    {"lm_head", 128, 320, false, EPILOGUE_NONE, 0},
};
static const struct shapes model = {.model = "small", .group = 64, .count = 5, .list = small};

static const struct measure_options quick = {.max_samples = 8, .min_samples = 6, .max_seconds = 1, .interval = 1};

static void choose(enum op op, const char *kernel, struct chain_gemm gemms[CHAIN_GEMMS]) {
    struct problem problems[CHAIN_GEMMS];
    struct error error;
    int group = op == OP_FP16_GEMM ? 0 : 64;
    if (chain_problems(&model, op, M, group, true, problems, &error)) fail_msg("%s", error.text);
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        gemms[g] = (struct chain_gemm){.problem = problems[g], .kernel = kernel_find(kernel)};
        if (config_default(device, gemms[g].kernel, &problems[g], &gemms[g].config, &error)) fail_msg("%s", error.text);
    }
}

static struct chain *make_chain(enum op op, const char *kernel) {
    struct chain_gemm gemms[CHAIN_GEMMS];
    struct chain *chain;
    struct error error;
    launched = graphs = spoilt_from = 0;
    choose(op, kernel, gemms);
    if (chain_create(device, gemms, LAYERS, 1, &chain, &error)) fail_msg("%s", error.text);
    assert_int_equal(launched, 3 * LAYERS);
    assert_true(chain_error(chain) > 0 && chain_error(chain) <= INSTANCE_TOLERANCE);
    return chain;
}

static void graphs_leave_what_the_stream_leaves(void **state) {
    (void)state;
    static const struct {
        enum op op;
        const char *kernel;
    } cases[] = {{OP_MARLIN_GEMM, "marlin_gemm/cpu"}, {OP_FP16_GEMM, "fp16_gemm/cpu"}};
    for (int i = 0; i < 2; i++) {
        struct chain *chain = make_chain(cases[i].op, cases[i].kernel);
        for (enum regime regime = REGIME_GRAPH; regime <= REGIME_PDL; regime++) {
            struct measurement m;
            struct error error;
            if (chain_measure(chain, regime, &quick, &m, &error)) fail_msg("%s", error.text);
            assert_int_equal(m.regime, regime);
            assert_int_equal(m.calls, 1);
            assert_int_equal(overlapped, regime == REGIME_PDL);
            assert_false(device->overlap);
            assert_true(m.samples >= 6 && m.median_us > 0);
            measurement_free(&m);
        }
        chain_destroy(chain);
    }
}

/* Data first, then kernels; another kernel where one ran is held against the reference's own x again. */
static void kernels_are_replaced(void **state) {
    (void)state;
    struct chain_gemm gemms[CHAIN_GEMMS], without[CHAIN_GEMMS];
    struct chain *chain;
    struct measurement m;
    struct error error = {""};
    choose(OP_FP16_GEMM, "fp16_gemm/cpu", gemms);
    memcpy(without, gemms, sizeof gemms);
    for (int g = 0; g < CHAIN_GEMMS; g++) without[g].kernel = NULL;
    launched = spoilt_from = 0;
    if (chain_create(device, without, LAYERS, 1, &chain, &error)) fail_msg("%s", error.text);
    assert_int_equal(launched, 0);
    for (int time = 0; time < 2; time++)
        for (int g = 0; g < CHAIN_GEMMS; g++) {
            if (chain_replace(chain, g, gemms[g].kernel, &gemms[g].config, &error)) fail_msg("%s", error.text);
            if (time == 0 && g < CHAIN_GEMMS - 1) continue;
            if (chain_measure(chain, REGIME_PDL, &quick, &m, &error)) fail_msg("%s", error.text);
            measurement_free(&m);
        }
    assert_true(chain_error(chain) > 0 && chain_error(chain) <= INSTANCE_TOLERANCE);
    struct config bad = {{-1}};
    assert_int_equal(chain_replace(chain, CHAIN_O, gemms[CHAIN_O].kernel, &bad, &error), -1);
    chain_destroy(chain);
}

/* A graph that is wrong at once, and one that is so while it is measured. */
static void wrong_graphs_get_no_time(void **state) {
    (void)state;
    for (int from = 1; from <= 2; from++) {
        struct chain *chain = make_chain(OP_MARLIN_GEMM, "marlin_gemm/cpu");
        struct measurement m;
        struct error error = {""};
        spoilt_from = from;
        assert_int_equal(chain_measure(chain, REGIME_PDL, &quick, &m, &error), -1);
        assert_non_null(strstr(error.text, "of 256 activations behind the last layer are not those of the stream"));
        assert_true(from == 1 ? graphs == 1 : graphs > 6);
        assert_null(m.sample_us);
        chain_destroy(chain);
    }
}

static void figures_of_a_time(void **state) {
    (void)state;
    struct chain_gemm gemms[CHAIN_GEMMS];
    choose(OP_MARLIN_GEMM, "marlin_gemm/cpu", gemms);
    /* 147456 weights: half a byte each, and of every 64 a scale of two bytes and half a byte of zero point. */
    struct chain_figures figures = chain_figures(gemms, 10, 1000);
    assert_float_equal(figures.us_layer, 100, 1e-9);
    assert_float_equal(figures.weight_bytes, 10 * (73728 + 4608 + 1152), 1e-9);
    assert_float_equal(figures.gbs, 0.79488, 1e-9);
    assert_float_equal(figures.tokens_s, 2000, 1e-9);
}

static void problems_of_a_model(void **state) {
    (void)state;
    static struct shape plain[] = {{"128x256", 128, 256, true, EPILOGUE_NONE, 0}};
    static const struct shapes none = {.group = 64, .count = 1, .list = plain};
    struct problem p[CHAIN_GEMMS];
    struct error error = {""};
    assert_int_equal(chain_problems(&none, OP_MARLIN_GEMM, 1, 64, true, p, &error), -1);
    assert_non_null(strstr(error.text, "no layer qkv; a chain needs a model's"));
    assert_int_equal(chain_problems(&model, OP_MARLIN_GEMM, 1, 48, true, p, &error), -1);
    assert_non_null(strstr(error.text, "layer qkv: group size 48"));
    assert_int_equal(chain_problems(&model, OP_MARLIN_GEMM, 5, 64, false, p, &error), 0);
    assert_true(p[CHAIN_QKV].epilogue == EPILOGUE_BIAS && p[CHAIN_O].epilogue == EPILOGUE_RESIDUAL);
    assert_true(p[CHAIN_GATE_UP].epilogue == EPILOGUE_SILU_MUL && p[CHAIN_DOWN].epilogue == EPILOGUE_RESIDUAL);
    assert_true(p[CHAIN_DOWN].k == 256 && p[CHAIN_DOWN].n == 128 && p[CHAIN_DOWN].m == 5 && !p[CHAIN_DOWN].zeros);
}

/* --- the points of a sweep --- */

static struct device h100 = {.backend = BACKEND_CUDA,
                             .id = "cuda:0",
                             .compute_capability = 90,
                             .multiprocessors = 132,
                             .cache_bytes = 50 << 20,
                             .shared_block_bytes = 232448,
                             .shared_sm_bytes = 233472,
                             .memory_gbs = 3352,
                             .matrix_tflops = 989};

static const struct sweep_options two_ms = {
    .ops = "marlin_gemm", .shapes = "qwen2.5-14b", .m = "1,8", .group = -1, .zeros = true, .chain = 48};

static int count_points(const struct sweep_options *options, const struct tile_table *table, struct error *error) {
    struct sweep *sweep;
    if (sweep_create(&h100, options, table, &sweep, error)) return -1;
    int count = sweep->count;
    assert_non_null(sweep->chains);
    sweep_destroy(sweep);
    return count;
}

static void two_regimes_a_point(void **state) {
    (void)state;
    struct sweep_options options = two_ms;
    struct error error = {""};
    assert_int_equal(count_points(&options, NULL, &error), 4);
    options.ops = "fp16_gemm,awq_dequant";
    options.kernels = "fp16_gemm/mma";
    assert_int_equal(count_points(&options, NULL, &error), 4);
    options.ops = "all";
    options.kernels = NULL;
    assert_int_equal(count_points(&options, NULL, &error), 8);
    h100.compute_capability = 80;
    assert_int_equal(count_points(&options, NULL, &error), 4); /* without pdl */
    h100.compute_capability = 90;
    options.ops = "awq_dequant";
    assert_int_equal(count_points(&options, NULL, &error), -1);
    assert_non_null(strstr(error.text, "no kernel of awq_dequant on cuda:0 takes these shapes"));
    options = two_ms;
    options.shapes = "512x512";
    assert_int_equal(count_points(&options, NULL, &error), -1);
    assert_non_null(strstr(error.text, "--chain: the shapes have no layer qkv"));
}

/* A row that holds is taken; one that does not is an error, unless its kernel is not selected. */
static void tables_choose_kernels(void **state) {
    (void)state;
    struct tile_row row = {"marlin_gemm", 5120, 7168, 128, 1, 8, "marlin_gemm/mma", "tile_m=8", 1, 1, 0, 1};
    struct tile_table table = {.regime = "cold, stream", .rows = &row, .count = 1};
    struct sweep_options options = two_ms;
    struct error error = {""};
    assert_int_equal(count_points(&options, &table, &error), -1);
    assert_non_null(strstr(error.text, "--chain: table: marlin_gemm/mma tile_m=8: "));
    options.kernels = "marlin_gemm/wgmma";
    assert_int_equal(count_points(&options, &table, &error), 4);
    options.kernels = NULL;
    strcpy(row.configuration, "tile_m=8 tile_n=64 tile_k=128 warps_k=4 stages=4 split_k=1");
    if (count_points(&options, &table, &error) != 4) fail_msg("%s", error.text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_leave_what_the_stream_leaves),
        cmocka_unit_test(kernels_are_replaced),
        cmocka_unit_test(wrong_graphs_get_no_time),
        cmocka_unit_test(figures_of_a_time),
        cmocka_unit_test(problems_of_a_model),
        cmocka_unit_test(two_regimes_a_point),
        cmocka_unit_test(tables_choose_kernels),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
