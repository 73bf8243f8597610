/* The descriptions of the CUDA kernels without a GPU: what is legal and why not, what is launched, and
 * whether the defaults are sane. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/kernel.h"
#include "tests/cards.h"

static const struct device l4 = {.backend = BACKEND_CUDA,
                                 .name = "L4",
                                 .compute_capability = 89,
                                 .multiprocessors = 58,
                                 .cache_bytes = 48 << 20,
                                 .shared_block_bytes = 101376,
                                 .shared_sm_bytes = 102400,
                                 .memory_gbs = 300,
                                 .matrix_tflops = 121};

static const struct kernel *get(const char *name) {
    const struct kernel *kernel = kernel_find(name);
    if (!kernel) fail_msg("no kernel %s", name);
    return kernel;
}

static struct config parse(const struct kernel *kernel, const char *text) {
    struct config config;
    struct error error;
    if (config_parse(kernel, text, &config, &error)) fail_msg("%s", error.text);
    return config;
}

static const char marlin[] = "marlin_gemm/mma", fp16[] = "fp16_gemm/mma", awq[] = "awq_dequant/tiled";
static const char warpgroups[] = "marlin_gemm/wgmma", many[] = "marlin_gemm/persistent",
                  fp16_many[] = "fp16_gemm/wgmma";

static void refuses_with_the_rule(void **state) {
    (void)state;
    static const struct {
        const char *kernel, *configuration, *message;
        int m, n, k;
    } cases[] = {
        {marlin, "tile_m=8 tile_n=64 tile_k=256 warps_k=2 stages=2 split_k=1", "tile_k=256 does not divide K=640", 1,
         64, 640},
        {marlin, "tile_m=8 tile_n=64 tile_k=64 warps_k=4 stages=2 split_k=1", "warps_k=4 leaves a warp 16", 1, 64, 640},
        {marlin, "tile_m=128 tile_n=256 tile_k=256 warps_k=4 stages=2 split_k=1", "at most 512", 1, 64, 1024},
        {marlin, "tile_m=128 tile_n=256 tile_k=128 warps_k=2 stages=2 split_k=1", "registers", 1, 64, 640},
        {marlin, "tile_m=128 tile_n=256 tile_k=128 warps_k=1 stages=6 split_k=1", "shared memory", 1, 64, 640},
        {marlin, "tile_m=8 tile_n=64 tile_k=128 warps_k=2 stages=2 split_k=8", "split_k=8 leaves parts", 1, 64, 640},
        {marlin, "tile_m=8 tile_n=64 tile_k=64 warps_k=2 stages=2 split_k=2", "counter", 8, 64 * 16385, 640},
        {warpgroups, "tile_m=16 tile_k=128 warpgroups_n=1 warpgroups_k=1 stages=2 split_k=1",
         "tile_k=128 does not divide K=576", 1, 64, 576},
        {warpgroups, "tile_m=16 tile_k=128 warpgroups_n=1 warpgroups_k=2 stages=2 split_k=4",
         "leave parts without work", 1, 64, 640},
        {warpgroups, "tile_m=64 tile_k=64 warpgroups_n=1 warpgroups_k=3 stages=2 split_k=1", "registers", 1, 64, 640},
        {warpgroups, "tile_m=64 tile_k=128 warpgroups_n=1 warpgroups_k=2 stages=4 split_k=1", "shared memory", 1, 64,
         640},
        {fp16, "tile_m=128 tile_n=256 tile_k=64 warps_k=1 stages=4 split_k=8", "MiB", 4096, 4096, 4096},
        {fp16_many, "tile_m=64 tile_n=64 warpgroups=2 stages=3 cluster_m=1 cluster_n=1 split_k=1 order=1",
         "tile_m=64 is not a multiple of 128", 1, 64, 640},
        {fp16_many, "tile_m=256 tile_n=224 warpgroups=2 stages=3 cluster_m=1 cluster_n=1 split_k=1 order=1",
         "224 sums a thread", 1, 64, 640},
        {fp16_many, "tile_m=128 tile_n=256 warpgroups=2 stages=6 cluster_m=1 cluster_n=1 split_k=1 order=1",
         "shared memory", 1, 64, 640},
        {fp16_many, "tile_m=64 tile_n=64 warpgroups=1 stages=3 cluster_m=1 cluster_n=1 split_k=8 order=1",
         "split_k=8 leaves parts", 1, 64, 448},
        {fp16_many, "tile_m=64 tile_n=64 warpgroups=1 stages=3 cluster_m=2 cluster_n=2 split_k=1 order=1",
         "clusters of 4", 1, 64, 640},
        {many, "tile_m=64 tile_n=192 warpgroups=2 stages=3 cluster_n=1 split_k=1 order=1",
         "tile_n=192 is not a multiple of 128", 1, 64, 640},
        {awq, "tile_k=64 tile_n=64 threads=128", "work for 64 threads", 1, 64, 640},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct kernel *kernel = get(cases[i].kernel);
        struct problem problem = {.op = kernel->op, .m = cases[i].m, .n = cases[i].n, .k = cases[i].k};
        struct config config = parse(kernel, cases[i].configuration);
        struct error why = {""};
        if (kernel->op != OP_FP16_GEMM) problem.group = 128;
        assert_int_equal(config_legal(&h100, kernel, &problem, &config, &why), -1);
        if (!strstr(why.text, cases[i].message)) fail_msg("'%s' lacks '%s'", why.text, cases[i].message);
    }
}

/* What a kernel does not say that it takes. */
static void refuses_bf16_by_default(void **state) {
    (void)state;
    struct kernel kernel = *get(fp16);
    const struct problem problem = {.op = OP_FP16_GEMM, .m = 1, .n = 64, .k = 128, .bf16 = true};
    const struct config config = parse(&kernel, "tile_m=8 tile_n=64 tile_k=64 warps_k=2 stages=2 split_k=1");
    struct error why = {""};
    kernel.bf16 = false;
    assert_int_equal(config_legal(&h100, &kernel, &problem, &config, &why), -1);
    assert_string_equal(why.text, "kernel fp16_gemm/mma takes fp16, not bf16");
}

static void needs_ampere(void **state) {
    (void)state;
    struct device old = h100;
    old.compute_capability = 75;
    static const char *const names[] = {marlin, fp16, awq};
    for (size_t i = 0; i < 3; i++) {
        const struct kernel *kernel = get(names[i]);
        struct problem problem = {.op = kernel->op, .m = 1, .n = 64, .k = 128, .group = i == 1 ? 0 : 128};
        struct config config = config_at(kernel, config_space(kernel) / 2);
        struct error why = {""};
        assert_int_equal(kernel->legal(&old, &problem, &config, &why), -1);
        assert_non_null(strstr(why.text, "7.5"));
    }
}

static void wgmma_is_of_one_generation(void **state) {
    (void)state;
    static const int others[] = {80, 89, 100, 120};
    const struct kernel *kernel = get(warpgroups);
    struct problem problem = {.op = OP_MARLIN_GEMM, .m = 1, .n = 64, .k = 128, .group = 128};
    struct config config = parse(kernel, "tile_m=16 tile_k=64 warpgroups_n=1 warpgroups_k=1 stages=2 split_k=1");
    assert_int_equal(kernel->legal(&h100, &problem, &config, NULL), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct device other = h100;
        struct error why = {""};
        other.compute_capability = others[i];
        assert_int_equal(kernel->legal(&other, &problem, &config, &why), -1);
        assert_non_null(strstr(why.text, "needs compute capability 9.0"));
    }
}

/* By hand: a cluster of 5 for each of two tiles of rows and two of columns, the second of these half empty; the sums of
 * two warpgroups, 16 fragments in shares of at most 4. */
static void launches_clusters(void **state) {
    (void)state;
    const struct kernel *kernel = get(warpgroups);
    struct problem problem = {.op = OP_MARLIN_GEMM, .m = 33, .n = 384, .k = 1280, .group = 128, .zeros = true};
    struct config config = parse(kernel, "tile_m=32 tile_k=64 warpgroups_n=1 warpgroups_k=2 stages=3 split_k=5");
    struct launch launch = {0};
    kernel->launch(&h100, &problem, &config, &launch);
    size_t stage = 32 * 64 * 2 + 64 * 256 / 2 + 256 * 2 + 256 / 2;
    assert_int_equal(launch.grid.blocks[0], 2 * 2 * 5);
    assert_int_equal(launch.grid.cluster, 5);
    assert_int_equal(launch.grid.threads, 256 + 128);
    assert_true(launch.grid.overlaps);
    assert_int_equal(launch.tensor_count, 4);
    size_t sums = (size_t)5 * 2 * 4 * 128 * 16;
    assert_true(2 * 3 * stage < sums);
    assert_int_equal(launch.shared_bytes, sums + 2 * 3 * 16 + 16);
    assert_int_equal(launch.workspace_bytes, 0);
    config = parse(kernel, "tile_m=32 tile_k=64 warpgroups_n=1 warpgroups_k=2 stages=8 split_k=1");
    kernel->launch(&h100, &problem, &config, &launch);
    assert_int_equal(launch.shared_bytes, 2 * 8 * (stage + 16) + 16);
    assert_true(launch.grid.cluster <= 1);
}

/* By hand: 11 tiles of rows and 4 pairs of tiles of columns on 66 pairs of blocks: 44 items in one round. With 30 tiles
 * of rows 120 items, of which 54 do not fill the second round and are split in 2. */
static void persistent_splits_the_last_round(void **state) {
    (void)state;
    const struct kernel *kernel = get(many);
    struct problem problem = {OP_MARLIN_GEMM, 1000, 1000 / 64 * 64, 1280, 128, true, EPILOGUE_NONE};
    const char *text = "tile_m=96 tile_n=128 warpgroups=2 stages=4 cluster_n=2 split_k=1 order=4";
    struct config config = parse(kernel, text);
    struct launch launch = {0};
    kernel->launch(&h100, &problem, &config, &launch);
    size_t box = 96 * 64 * 2 + 64 * 128 / 2 + 128 * 2 + 128 / 2, stage = (box + 1023) / 1024 * 1024;
    assert_int_equal(launch.grid.blocks[0], 11 * 4 * 2);
    assert_int_equal(launch.grid.cluster, 2);
    assert_int_equal(launch.grid.threads, 256 + 128);
    assert_int_equal(launch.shared_bytes, 4 * (stage + 16));
    assert_int_equal(launch.workspace_bytes, 0);
    assert_int_equal(launch.tensor_count, 4);
    assert_int_equal(launch.tensors[0].tensor.box_rows, 96 / 2);
    problem.m = 30 * 96;
    config = parse(kernel, "tile_m=96 tile_n=128 warpgroups=2 stages=4 cluster_n=2 split_k=2 order=4");
    launch = (struct launch){0};
    kernel->launch(&h100, &problem, &config, &launch);
    assert_int_equal(launch.grid.blocks[0], 132);
    assert_int_equal(launch.workspace_bytes, WORKSPACE_COUNTER_BYTES + (size_t)(120 - 66) * 2 * 2 * 96 * 128 * 4);
    problem.group = problem.k;
    launch = (struct launch){0};
    kernel->launch(&h100, &problem, &config, &launch);
    assert_int_equal(launch.tensor_count, 2);
    assert_non_null(strstr(launch.options, "-DBOX_BYTES=16384 "));
}

/* By hand: x 16 x 128 fp16, codes 128 x 128 / 2 bytes, one group's scales and zero points; ten tiles of n,
 * two of m. */
static void launches_what_it_says(void **state) {
    (void)state;
    const struct kernel *kernel = get(marlin);
    struct problem problem = {.op = OP_MARLIN_GEMM, .m = 17, .n = 1216, .k = 1024, .group = 128, .zeros = true};
    struct config config = parse(kernel, "tile_m=16 tile_n=128 tile_k=128 warps_k=2 stages=3 split_k=4");
    struct launch launch = {0};
    kernel->launch(&h100, &problem, &config, &launch);
    size_t stage = 16 * 128 * 2 + 128 * 128 / 2 + 128 * 2 + 128 / 2;
    stage = (stage + 127) / 128 * 128;
    assert_string_equal(launch.source, "marlin_gemm/mma.cu");
    assert_string_equal(launch.entry, "marlin_gemm");
    assert_int_equal(launch.grid.blocks[0], 20);
    assert_int_equal(launch.grid.blocks[1], 4);
    assert_int_equal(launch.grid.blocks[2], 1);
    assert_int_equal(launch.grid.threads, 32 * 2 * 2);
    assert_int_equal(launch.shared_bytes, 3 * stage);
    assert_int_equal(launch.workspace_bytes, WORKSPACE_COUNTER_BYTES + 20 * 4 * 16 * 128 * 4);
    char expected[64];
    snprintf(expected, sizeof expected, "-DGROUP=128 -DZEROS=1 -DSHARED_BYTES=%zu", 3 * stage);
    assert_string_equal(launch.options, expected);
    problem.group = problem.k, problem.zeros = false;
    launch = (struct launch){0};
    kernel->launch(&h100, &problem, &config, &launch);
    assert_int_equal(launch.shared_bytes, 3 * (16 * 128 * 2 + 128 * 128 / 2));
    assert_non_null(strstr(launch.options, "-DGROUP=0 -DZEROS=0"));
}

/* What the hardware and the interfaces bound, for every legal configuration; returns their number. */
static int check_launches(const struct device *device, const struct kernel *kernel, const struct problem *problem) {
    int legal = 0;
    for (long i = 0; i < config_space(kernel); i++) {
        struct config config = config_at(kernel, i);
        struct launch launch = {0};
        if (config_legal(device, kernel, problem, &config, NULL)) continue;
        kernel->launch(device, problem, &config, &launch);
        assert_true(launch.grid.threads % 32 == 0 && launch.grid.threads >= 32 && launch.grid.threads <= 1024);
        assert_true(launch.grid.blocks[0] >= 1 && launch.grid.blocks[1] >= 1 && launch.grid.blocks[1] <= 65535 &&
                    launch.grid.blocks[2] == 1);
        assert_true(launch.shared_bytes <= device->shared_block_bytes);
        assert_true(launch.workspace_bytes == 0 || launch.workspace_bytes > WORKSPACE_COUNTER_BYTES);
        assert_true(strlen(launch.options) + 1 < sizeof launch.options);
        double estimate = kernel->estimate(device, problem, &config);
        assert_true(isfinite(estimate) && estimate > 0);
        legal++;
    }
    return legal;
}

static void launches_within_limits(void **state) {
    (void)state;
    static const char *const names[] = {marlin, fp16, awq};
    static const int ms[] = {1, 17, 129, 8192};
    for (size_t i = 0; i < 3; i++)
        for (size_t m = 0; m < (i == 2 ? 1 : 4); m++) {
            const struct kernel *kernel = get(names[i]);
            struct problem problem = {.op = kernel->op, .m = ms[m], .n = 320, .k = 640};
            if (kernel->op != OP_FP16_GEMM) problem.group = 32, problem.zeros = true;
            int on_h100 = check_launches(&h100, kernel, &problem), on_l4 = check_launches(&l4, kernel, &problem);
            assert_true(on_h100 > 10 && on_l4 > 10 && on_l4 <= on_h100);
        }
}

static void wgmma_launches_within_limits(void **state) {
    (void)state;
    static const int ms[] = {1, 33, 8192};
    for (size_t m = 0; m < sizeof ms / sizeof *ms; m++) {
        struct problem problem = {OP_MARLIN_GEMM, ms[m], 320, 1280, 32, true, EPILOGUE_NONE};
        assert_true(check_launches(&h100, get(warpgroups), &problem) > 10);
        assert_int_equal(check_launches(&l4, get(warpgroups), &problem), 0);
        assert_true(check_launches(&h100, get(many), &problem) > 100);
        assert_int_equal(check_launches(&l4, get(many), &problem), 0);
        problem = (struct problem){OP_FP16_GEMM, ms[m], 320, 1280, 0, false, EPILOGUE_SILU_MUL};
        assert_true(check_launches(&h100, get(fp16_many), &problem) > 100);
        assert_int_equal(check_launches(&l4, get(fp16_many), &problem), 0);
    }
}

/* What config_default picks must be able to keep memory busy at one token and the matrix unit at many. */
static void defaults_are_sane(void **state) {
    (void)state;
    static const char *const names[] = {marlin, fp16};
    static const int shapes[][2] = {{5120, 7168}, {5120, 5120}, {5120, 27648}, {13824, 5120}};
    for (size_t i = 0; i < 2; i++)
        for (size_t s = 0; s < 4; s++) {
            const struct kernel *kernel = get(names[i]);
            struct problem problem = {.op = kernel->op, .m = 1, .k = shapes[s][0], .n = shapes[s][1]};
            struct config one, many;
            struct error error;
            if (i == 0) problem.group = 128, problem.zeros = true;
            if (config_default(&h100, kernel, &problem, &one, &error)) fail_msg("%s", error.text);
            assert_int_equal(one.value[0], 8);
            struct launch launch = {0};
            kernel->launch(&h100, &problem, &one, &launch);
            assert_in_range(launch.grid.blocks[0] * launch.grid.blocks[1], 80, 1000);
            problem.m = 8192;
            if (config_default(&h100, kernel, &problem, &many, &error)) fail_msg("%s", error.text);
            assert_true(many.value[0] * many.value[1] >= 128 * 128);
            assert_true(kernel->estimate(&h100, &problem, &many) < kernel->estimate(&h100, &problem, &one));
        }
}

/* At the row counts that wgmma is for: most SMs have a block, all blocks run at a time, rows of x once. */
static void wgmma_defaults_are_sane(void **state) {
    (void)state;
    static const int shapes[][2] = {{5120, 7168}, {5120, 5120}, {5120, 27648}, {13824, 5120}};
    const struct kernel *kernel = get(warpgroups);
    for (int m = 32; m <= 64; m *= 2)
        for (size_t s = 0; s < 4; s++) {
            struct problem problem = {OP_MARLIN_GEMM, m, shapes[s][1], shapes[s][0], 128, true, EPILOGUE_NONE};
            struct config config;
            struct launch launch = {0};
            struct error error;
            if (config_default(&h100, kernel, &problem, &config, &error)) fail_msg("%s", error.text);
            kernel->launch(&h100, &problem, &config, &launch);
            assert_int_equal(config.value[0], m);
            assert_in_range(launch.grid.blocks[0] * launch.grid.threads / 128, 80, 1000);
        }
}

/* At many rows: large tiles, all SMs. */
static void persistent_defaults_are_sane(void **state) {
    (void)state;
    static const int shapes[][2] = {{5120, 7168}, {5120, 5120}, {5120, 27648}, {13824, 5120}};
    for (size_t i = 0; i < 8; i++) {
        const struct kernel *kernel = get(i % 2 ? many : fp16_many);
        struct problem problem = {.op = kernel->op, .m = 4096, .n = shapes[i / 2][1], .k = shapes[i / 2][0]};
        struct config config;
        struct launch launch = {0};
        struct error error;
        if (i % 2) problem.group = 128, problem.zeros = true;
        if (config_default(&h100, kernel, &problem, &config, &error)) fail_msg("%s", error.text);
        kernel->launch(&h100, &problem, &config, &launch);
        assert_true(config.value[0] * config.value[1] >= 128 * 192);
        assert_in_range(launch.grid.blocks[0], 120, 132);
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_with_the_rule),
        cmocka_unit_test(refuses_bf16_by_default),
        cmocka_unit_test(needs_ampere),
        cmocka_unit_test(wgmma_is_of_one_generation),
        cmocka_unit_test(launches_clusters),
        cmocka_unit_test(wgmma_launches_within_limits),
        cmocka_unit_test(wgmma_defaults_are_sane),
        cmocka_unit_test(persistent_splits_the_last_round),
        cmocka_unit_test(persistent_defaults_are_sane),
        cmocka_unit_test(launches_what_it_says),
        cmocka_unit_test(launches_within_limits),
        cmocka_unit_test(defaults_are_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
