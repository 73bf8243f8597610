#include "tuner/worker.h"

#include <stdio.h>
#include <string.h>

#include "tuner/progress.h"

static int fit_instance(struct worker *worker, const struct problem *problem, struct error *error) {
    if (worker->instance && problem_equal(&worker->instance->problem, problem)) return 0;
    worker_close(worker);
    return instance_create(worker->device, problem, worker->seed, true, &worker->instance, error);
}

static void failed(struct trial_result *result, enum trial_status status, const struct error *why) {
    result->status = status;
    snprintf(result->message, sizeof result->message, "%s", why->text);
}

static void keep(struct trial_result *result, struct measurement *measurement) {
    result->status = TRIAL_OK;
    result->us = measurement->median_us;
    result->p20_us = measurement->p20_us;
    result->p80_us = measurement->p80_us;
    result->min_us = measurement->min_us;
    result->low_us = measurement->low_us;
    result->high_us = measurement->high_us;
    result->samples = measurement->samples;
    result->sm_mhz = measurement->sm_mhz;
    result->memory_mhz = measurement->memory_mhz;
    result->celsius = measurement->celsius;
    result->watts = measurement->watts;
    result->throttle = measurement->throttle;
    snprintf(result->stop, sizeof result->stop, "%s", measurement->stop);
    snprintf(result->clock, sizeof result->clock, "%s", measurement->clock);
    result->sample_us = measurement->sample_us;
    measurement->sample_us = NULL;
}

/* Correct first: what is wrong is never timed. */
static void verify_and_measure(struct worker *worker, const struct plan *plan, struct trial_result *result) {
    struct error why = {""};
    struct measurement measurement = {0};
    struct measure_options options = measure_quick;
    options.regime = worker->regime;
    if (instance_fit(worker->instance, plan, &why)) {
        failed(result, TRIAL_CONSTRAINT, &why);
    } else if (instance_verify(worker->instance, plan, &result->error, &why)) {
        failed(result, strncmp(why.text, "wrong", 5) ? TRIAL_RUNTIME : TRIAL_WRONG, &why);
    } else if (measure(worker->instance, plan, &options, &measurement, &why)) {
        failed(result, TRIAL_RUNTIME, &why);
    } else {
        keep(result, &measurement);
        measurement_free(&measurement);
    }
}

int worker_trial(struct worker *worker, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct trial_result *result, struct error *error) {
    double start = progress_now();
    struct plan *plan = NULL;
    struct error why = {""};
    *result = (struct trial_result){.status = TRIAL_OK};
    if (fit_instance(worker, problem, error)) return -1;
    if (config_legal(worker->device, kernel, problem, config, &why))
        failed(result, TRIAL_CONSTRAINT, &why);
    else if (plan_create(worker->device, kernel, problem, config, &plan, &why))
        failed(result, TRIAL_COMPILE, &why);
    else
        verify_and_measure(worker, plan, result);
    plan_destroy(plan);
    result->seconds = progress_now() - start;
    if (result->status != TRIAL_RUNTIME || !device_synchronize(worker->device, error)) return 0;
    return error_prefix(error, "%s failed (%s) and left the device unusable", kernel->name, result->message);
}

void worker_close(struct worker *worker) {
    instance_destroy(worker->instance);
    worker->instance = NULL;
}
