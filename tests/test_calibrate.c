/* Estimates that have learned, of a kernel whose errors are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tuner/calibrate.h"

static const struct device device = {.backend = BACKEND_CPU, .id = "test"};
static const struct store_scope scope = {"a CPU", "avx2", "0123abcd", "cold, calls", "", ""};

static double estimate(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d;
    return 10 + p->m + c->value[0] + 0.1 * c->value[1];
}

static int never_run(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)plan, (void)operands;
    return error_set(error, "not for running");
}

#define PARAMETERS                                                                                                     \
    {                                                                                                                  \
        {"a", "-", 3, {1, 2, 4}}, {                                                                                    \
            "b", "-", 3, {                                                                                             \
                8, 16, 32                                                                                              \
            }                                                                                                          \
        }                                                                                                              \
    }
static const struct kernel kernel = {.op = OP_FP16_GEMM,
                                     .backend = BACKEND_CPU,
                                     .name = "one",
                                     .parameter_count = 2,
                                     .parameters = PARAMETERS,
                                     .estimate = estimate,
                                     .run = never_run};
static const struct kernel other = {.op = OP_FP16_GEMM,
                                    .backend = BACKEND_CPU,
                                    .name = "other",
                                    .parameter_count = 2,
                                    .parameters = PARAMETERS,
                                    .estimate = estimate,
                                    .run = never_run};
static const struct kernel *const kernels[] = {&other, &kernel, NULL};

static struct problem problem_at(int m) {
    return (struct problem){OP_FP16_GEMM, m, 64, 128, 0, false, EPILOGUE_NONE};
}

/* What the kernel takes: a = 4 is twice as fast as is thought, b = 8 three times slower. */
static double truth(const struct problem *problem, const struct config *config) {
    double us = 1.5 * estimate(&device, problem, config);
    return us * (config->value[0] == 4 ? 0.5 : 1) * (config->value[1] == 8 ? 3 : 1);
}

/* A whole space, as often as it takes to outweigh the ridge. */
static struct calibration *learn(int m, int times, int target) {
    struct problem wanted = problem_at(target), measured = problem_at(m);
    struct calibration *calibration = calibration_create(&device, kernels, &wanted);
    assert_non_null(calibration);
    for (int t = 0; t < times; t++)
        for (long c = 0; c < config_space(&kernel); c++) {
            struct config config = config_at(&kernel, c);
            calibration_add(calibration, &kernel, &measured, &config, truth(&measured, &config));
        }
    calibration_solve(calibration);
    return calibration;
}

/* How far the worst estimate is off, in the logarithm. */
static double worst(const struct calibration *calibration, int m) {
    struct problem problem = problem_at(m);
    double most = 0;
    for (long c = 0; c < config_space(&kernel); c++) {
        struct config config = config_at(&kernel, c);
        double us = calibration_estimate(calibration, &device, &kernel, &problem, &config);
        most = fmax(most, fabs(log(us / truth(&problem, &config))));
    }
    return most;
}

static void test_learns_what_is_off(void **state) {
    (void)state;
    struct calibration *calibration = learn(16, 200, 16);
    assert_true(worst(NULL, 16) > 1.4); /* log 4.5 */
    assert_true(worst(calibration, 16) < 0.02);
    assert_true(worst(calibration, 64) < 0.02); /* the estimate has the rest */
    /* Of the other kernel nothing is known. */
    struct problem problem = problem_at(16);
    struct config config = {{4, 8}};
    assert_true(calibration_estimate(calibration, &device, &other, &problem, &config) ==
                estimate(&device, &problem, &config));
    calibration_free(calibration);
}

/* One trial of each configuration moves the estimates most of the way, a single trial hardly. */
static void test_little_is_believed_a_little(void **state) {
    (void)state;
    struct problem problem = problem_at(16);
    struct config config = {{4, 8}};
    struct calibration *calibration = learn(16, 1, 16);
    assert_in_range((long)(100 * worst(calibration, 16)), 20, 80);
    calibration_free(calibration);
    calibration = calibration_create(&device, kernels, &problem);
    calibration_add(calibration, &kernel, &problem, &config, 2 * estimate(&device, &problem, &config));
    calibration_solve(calibration);
    /* The configuration's three unknowns share what one trial against a ridge of 2 says: 3 / (3 + 2) of log 2. */
    double off = log(calibration_estimate(calibration, &device, &kernel, &problem, &config) /
                     estimate(&device, &problem, &config));
    assert_true(fabs(off - 0.6 * log(2)) < 1e-12);
    calibration_free(calibration);
}

static void test_far_away_m_say_nothing(void **state) {
    (void)state;
    struct calibration *near = learn(16, 20, 32), *far = learn(16, 20, 1024);
    assert_true(worst(near, 32) < 0.3);
    assert_true(worst(far, 1024) == worst(NULL, 1024));
    calibration_free(near);
    calibration_free(far);
}

/* What took no time, or is of another op, teaches nothing. */
static void test_passes_over(void **state) {
    (void)state;
    static const struct kernel dequant = {.op = OP_AWQ_DEQUANT, .name = "elsewhere", .estimate = estimate};
    struct problem problem = problem_at(16);
    struct config config = {{4, 8}};
    struct calibration *calibration = calibration_create(&device, kernels, &problem);
    calibration_add(calibration, &kernel, &problem, &config, 0);
    calibration_add(calibration, &dequant, &problem, &config, 7);
    calibration_solve(calibration);
    assert_true(worst(calibration, 16) == worst(NULL, 16));
    calibration_free(calibration);
}

/* --- from a store --- */

static char path[96];

static int set_up(void **state) {
    (void)state;
    strcpy(path, "/tmp/tilebook-calibrate-XXXXXX");
    if (!mkdtemp(path)) return -1;
    strcat(path, "/trials.sqlite");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -r $(dirname %s)", path);
    return system(command);
}

static void put(struct store *store, const struct store_scope *where, int m, enum trial_status status) {
    struct error error;
    struct problem problem = problem_at(m);
    for (long c = 0; c < config_space(&kernel); c++) {
        struct config config = config_at(&kernel, c);
        struct trial_result result = {.status = status, .us = truth(&problem, &config)};
        if (store_put(store, where, &kernel, &problem, &config, 1, &result, &error)) fail_msg("%s", error.text);
    }
}

static double worst_of_store(struct store *store, int m) {
    struct error error;
    struct problem problem = problem_at(m);
    struct calibration *calibration = calibration_from_store(&device, kernels, &problem, store, &scope, &error);
    if (!calibration) fail_msg("%s", error.text);
    double most = worst(calibration, m);
    calibration_free(calibration);
    return most;
}

static void test_other_problems_of_the_scope(void **state) {
    (void)state;
    struct store *store;
    struct error error;
    struct store_scope elsewhere = scope;
    elsewhere.kernels = "ffffffff";
    if (store_open(path, &store, &error)) fail_msg("%s", error.text);
    double nothing = worst(NULL, 16);
    put(store, &scope, 16, TRIAL_OK); /* itself */
    put(store, &elsewhere, 17, TRIAL_OK);
    put(store, &scope, 18, TRIAL_CORRECTNESS);
    assert_true(worst_of_store(store, 16) == nothing);
    for (int m = 12; m < 16; m++) put(store, &scope, m, TRIAL_OK);
    assert_true(worst_of_store(store, 16) < 0.3 * nothing);
    store_close(store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_what_is_off),
        cmocka_unit_test(test_little_is_believed_a_little),
        cmocka_unit_test(test_far_away_m_say_nothing),
        cmocka_unit_test(test_passes_over),
        cmocka_unit_test_setup_teardown(test_other_problems_of_the_scope, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
