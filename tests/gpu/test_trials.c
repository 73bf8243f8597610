/* A kernel that takes its device along costs its trial and its worker; the next trial has a sound device again.
 * Argument: "small" says that a sanitizer runs this, which would report what is done here on purpose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tuner/supervisor.h"

enum { SOUND, NOWHERE }; /* where it writes */

static int prepare(struct plan *plan, struct error *error) {
    const struct kernel *correct = kernel_find("awq_dequant/tiled");
    struct config config;
    struct plan *inner;
    if (config_default(plan->device, correct, &plan->problem, &config, error) ||
        plan_create(plan->device, correct, &plan->problem, &config, &inner, error))
        return -1;
    plan->state = inner;
    return 0;
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    struct operands changed = *operands;
    if (plan->config.value[0] == NOWHERE) changed.y = (void *)4096;
    return plan_run(plan->state, &changed, error);
}

static void release(struct plan *plan) {
    plan_destroy(plan->state);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)device, (void)problem, (void)config;
    return 1;
}

static const struct kernel stray = {
    .op = OP_AWQ_DEQUANT,
    .backend = BACKEND_CUDA,
    .name = "stray",
    .summary = "for tests",
    .parameter_count = 1,
    .parameters = {{"writes", "where", 2, {SOUND, NOWHERE}}},
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};

static const struct kernel *const kernels[] = {&stray, NULL};

static struct trial_result try(struct supervisor *supervisor, int writes) {
    const struct problem problem = {OP_AWQ_DEQUANT, 1, 1024, 1024, 128, true, EPILOGUE_NONE};
    const struct config config = {{writes}};
    struct trial_result result;
    struct error error;
    if (supervisor_trial(supervisor, &stray, &problem, &config, &measure_quick, &result, &error))
        fail_msg("%s", error.text);
    print_message("%s in %.3f s: %.2f us %s\n", trial_status_name(result.status), result.seconds, result.us,
                  result.message);
    free(result.sample_us);
    return result;
}

static void illegal_accesses_stay_in_their_trial(void **state) {
    (void)state;
    struct supervisor supervisor = {.kernels = kernels};
    struct error error;
    if (supervisor_open(&supervisor, "cuda:0", &error)) fail_msg("%s", error.text);
    assert_int_equal(try(&supervisor, SOUND).status, TRIAL_OK);
    assert_int_equal(try(&supervisor, SOUND).status, TRIAL_OK);
    assert_int_equal(supervisor.workers, 1);
    for (int i = 0; i < 2; i++) {
        struct trial_result result = try(&supervisor, NOWHERE);
        assert_int_equal(result.status, TRIAL_RUNTIME);
        assert_true(strlen(result.message) > 0);
        assert_int_equal(try(&supervisor, SOUND).status, TRIAL_OK);
        assert_int_equal(supervisor.workers, 2 + i);
    }
    supervisor_close(&supervisor);
}

/* A race: what is far behind ends before the clock has settled, what is ahead is measured as ever. */
static void beaten_trials_are_short(void **state) {
    (void)state;
    const struct problem problem = {.op = OP_AWQ_DEQUANT, .m = 1, .n = 1024, .k = 1024, .group = 128, .zeros = true};
    const struct config config = {{SOUND}};
    struct supervisor supervisor = {.kernels = kernels};
    struct measure_options options = measure_quick;
    struct trial_result result;
    struct error error;
    if (supervisor_open(&supervisor, "cuda:0", &error)) fail_msg("%s", error.text);
    options.beaten_us = 1e6;
    if (supervisor_trial(&supervisor, &stray, &problem, &config, &options, &result, &error)) fail_msg("%s", error.text);
    assert_string_not_equal(result.stop, "beaten");
    options.beaten_us = 0.1 * result.us;
    free(result.sample_us);
    if (supervisor_trial(&supervisor, &stray, &problem, &config, &options, &result, &error)) fail_msg("%s", error.text);
    assert_int_equal(result.status, TRIAL_OK);
    assert_string_equal(result.stop, "beaten");
    assert_true(result.samples >= 6 && result.low_us > options.beaten_us && result.high_us >= result.us);
    free(result.sample_us);
    supervisor_close(&supervisor);
}

int main(int argc, char **argv) {
    struct error error;
    if (argc == 3 && !strcmp(argv[1], WORKER_COMMAND)) return worker_serve(argv[2], kernels, &error) ? 1 : 0;
    if (argc > 1 && !strcmp(argv[1], "small")) return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(illegal_accesses_stay_in_their_trial),
        cmocka_unit_test(beaten_trials_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
