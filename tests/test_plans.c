/* What computes a GEMM of the decoder: the choice is made when it is expected, and shared by numbers of rows that
 * differ little. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bench/decoder/plans.h"

static struct device *cpu;
static struct error error;

static int set_up(void **state) {
    (void)state;
    return device_open("cpu", &cpu, &error);
}

static int tear_down(void **state) {
    (void)state;
    device_close(cpu);
    return 0;
}

static struct problem rows(int m) {
    return (struct problem){OP_MARLIN_GEMM, m, 256, 512, 128, false, EPILOGUE_NONE};
}

static struct config default_for(int m) {
    const struct problem problem = rows(m);
    struct config config;
    assert_int_equal(config_default(cpu, kernel_find("marlin_gemm/cpu"), &problem, &config, &error), 0);
    return config;
}

/* The configuration of the plan for m rows, which plans_print() has as "... m=N KERNEL CONFIGURATION default".
 */
static void configuration_of(const struct plans *plans, int m, char text[256]) {
    char *all = NULL, key[32];
    size_t size;
    FILE *stream = open_memstream(&all, &size);
    assert_non_null(stream);
    plans_print(plans, stream);
    fclose(stream);
    snprintf(key, sizeof key, " m=%d ", m);
    const char *line = strstr(all, key);
    if (!line) fail_msg("'%s' is not in: %s", key, all);
    line += strlen(key);
    snprintf(text, 256, "%.*s", (int)strcspn(line, "\n"), line);
    free(all);
}

/* 257 to 320 rows are looked up as 320, whichever comes first, and also those for which alone something else is best.
 */
static void similar_rows_share_a_configuration(void **state) {
    (void)state;
    char shared[256], other[256], config[MAX_CONFIG_TEXT];
    const struct kernel *kernel = kernel_find("marlin_gemm/cpu");
    const int cores = cpu->multiprocessors;
    cpu->multiprocessors = 2; /* what is chosen depends on their number */
    const struct config best = default_for(320);
    int different = 257;
    while (different < 320 && !memcmp(default_for(different).value, best.value, sizeof best.value)) different++;
    assert_in_range(different, 257, 319);
    snprintf(shared, sizeof shared, "marlin_gemm/cpu %s default", config_text(kernel, &best, config));
    for (int order = 0; order < 2; order++) {
        struct plans *plans = plans_create(cpu, NULL);
        assert_non_null(plans);
        const struct problem problems[2] = {rows(order ? 320 : different), rows(order ? different : 320)};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(plans_expect(plans, &problems[i], &error), 0);
            assert_int_equal(plans_prepare(plans, &problems[i], &error), 0);
        }
        configuration_of(plans, different, other);
        assert_string_equal(other, shared);
        plans_destroy(plans);
    }
    cpu->multiprocessors = cores;
}

/* What is expected need not be prepared; what is run need not have been expected. */
static void expecting_is_free(void **state) {
    (void)state;
    char text[256];
    struct plans *plans = plans_create(cpu, NULL);
    struct problem expected = rows(3), run = {OP_FP16_GEMM, 1, 256, 512, 0, false, EPILOGUE_NONE};
    uint16_t x[512] = {0x3c00}, y[256]; /* 1, 0, 0, .. */
    uint16_t *weights = calloc((size_t)256 * 512, sizeof *weights);
    assert_true(plans && weights);
    weights[7 * 512] = 0x4000;
    assert_int_equal(plans_expect(plans, &expected, &error), 0);
    assert_int_equal(plans_expect(plans, &expected, &error), 0);
    assert_int_equal(plans_run(plans, &run, (struct operands){.x = x, .weights = weights, .y = y}, &error), 0);
    assert_int_equal(y[7], 0x4000);
    assert_int_equal(y[8], 0);
    configuration_of(plans, 3, text);
    plans_destroy(plans);
    free(weights);
}

/* A kernel without norms gets x that is normalised already. */
static void norms_stay_outside(void **state) {
    (void)state;
    struct plans *plans = plans_create(cpu, NULL);
    struct problem problem = {.op = OP_FP16_GEMM, .m = 1, .n = 256, .k = 512, .norm = true}, plain = problem;
    plain.norm = false;
    uint16_t x[512] = {0x3c00}, y[256];
    const float gain[512] = {3};
    uint16_t *weights = calloc((size_t)256 * 512, sizeof *weights);
    assert_true(plans && weights);
    weights[7 * 512] = 0x4000;
    assert_false(plans_norms(plans, &problem));
    assert_false(plans_norms(plans, &plain));
    const struct operands operands = {.x = x, .weights = weights, .y = y, .gain = gain, .epsilon = 1};
    assert_int_equal(plans_run(plans, &problem, operands, &error), 0);
    assert_int_equal(y[7], 0x4000);
    plans_destroy(plans);
    free(weights);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(similar_rows_share_a_configuration),
        cmocka_unit_test(expecting_is_free),
        cmocka_unit_test(norms_stay_outside),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
