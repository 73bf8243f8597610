/* The chain of a decoder's GEMMs without a GPU: the CPU's kernels, with launches and graphs played here. */
#include <math.h>
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
#include "kernels/half.h"

/* --- a device with graphs --- */

struct device_function {
    char entry[32];
};

struct device_graph {
    device_enqueue *enqueue;
    void *context;
};

static struct device *device;
static struct device_functions played;
static struct device_function loaded[4];
static int load_count, launched;
static int graphs, spoilt_from; /* launches of graphs; from this one on they leave something else; 0: none does */
static bool spoil, overlapped;  /* in a launch that does; in the last recording */

static int play_function(struct device *d, const char *source, const char *entry, const char *options,
                         size_t shared_bytes, struct device_function **function, struct error *error) {
    (void)d, (void)shared_bytes, (void)error;
    assert_string_equal(source, "chain.cu");
    assert_string_equal(options, "-DBLOCK=512 -DKEPT=1");
    assert_in_range(load_count, 0, 3);
    *function = &loaded[load_count++];
    snprintf((*function)->entry, sizeof(*function)->entry, "%s", entry);
    return 0;
}

static void play_norm(const uint16_t *x, uint16_t *y, int width) {
    double squares = 0;
    for (int i = 0; i < width; i++) squares += pow(half_to_float(x[i]), 2);
    double scale = 1 / sqrt(squares / width + 1e-6);
    for (int i = 0; i < width; i++) y[i] = half_from_float((float)(half_to_float(x[i]) * scale));
}

static void play_attend(const uint16_t *x, uint16_t *y, int from, int to) {
    for (int i = 0; i < to; i++) {
        int vector = i / 8 % (from / 8), last = from / 8 - 1 - vector;
        y[i] = half_from_float((half_to_float(x[8 * vector + i % 8]) + half_to_float(x[8 * last + i % 8])) / 2);
    }
}

/* As chain.c passes them. */
struct arguments_of_chain {
    const uint16_t *x;
    uint16_t *y;
    int from, to;
};

static int play_launch(struct device *d, const struct device_function *function, const struct device_grid *grid,
                       const void *arguments, struct error *error) {
    (void)d, (void)error;
    bool norm = !strcmp(function->entry, "chain_norm");
    struct arguments_of_chain a = {0};
    memcpy(&a, arguments, norm ? offsetof(struct arguments_of_chain, to) : sizeof a);
    int rows = (int)grid->blocks[norm ? 0 : 1], from = 8 * a.from, to = 8 * a.to;
    assert_true(grid->overlaps && grid->threads == 512);
    assert_true(norm || grid->blocks[0] * 512 * 8 >= (unsigned)to);
    launched++;
    for (int r = 0; r < rows; r++) {
        if (norm)
            play_norm(a.x + r * from, a.y + r * from, from);
        else
            play_attend(a.x + r * from, a.y + r * to, from, to);
    }
    if (spoil) a.y[0] ^= 0x0400;
    return 0;
}

static int play_record(struct device *d, device_enqueue *enqueue, void *context, struct device_graph **graph,
                       struct error *error) {
    (void)error;
    *graph = malloc(sizeof **graph);
    assert_non_null(*graph);
    **graph = (struct device_graph){enqueue, context};
    overlapped = d->overlap;
    return 0;
}

static int play_graph(struct device *d, const struct device_graph *graph, struct error *error) {
    assert_false(d->overlap);
    spoil = spoilt_from && ++graphs >= spoilt_from;
    int result = graph->enqueue(graph->context, error);
    spoil = false;
    return result;
}

static void play_destroy(struct device *d, struct device_graph *graph) {
    (void)d;
    free(graph);
}

static int set_up(void **state) {
    (void)state;
    struct error error;
    if (device_open("cpu", &device, &error)) return -1;
    played = *device->functions;
    played.function = play_function;
    played.launch = play_launch;
    played.graph_record = play_record;
    played.graph_launch = play_graph;
    played.graph_destroy = play_destroy;
    device->functions = &played;
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
    load_count = launched = graphs = spoilt_from = 0;
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
        cmocka_unit_test(wrong_graphs_get_no_time),
        cmocka_unit_test(figures_of_a_time),
        cmocka_unit_test(problems_of_a_model),
        cmocka_unit_test(two_regimes_a_point),
        cmocka_unit_test(tables_choose_kernels),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
