#include "tuner/worker.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/rounds.h"

enum { SEED = 1 };

struct worker {
    const struct kernel *const *kernels;
    struct device *device;
    struct instance *instance;            /* of the problem that was tried last; its weights serve all m */
    struct chain *chain;                  /* the last one, in place of an instance */
    struct chain_gemm gemms[CHAIN_GEMMS]; /* of which it is made */
    int layers;
    struct worker_answer answer;
};

/* A supervisor that is gone is found out by the next receive. */
static void send_answer(struct worker *worker, enum worker_stage stage) {
    worker->answer.stage = stage;
    size_t samples = stage == WORKER_RESULT ? (size_t)worker->answer.result.samples : 0;
    size_t bytes = offsetof(struct worker_answer, sample_us) + samples * sizeof *worker->answer.sample_us;
    send(WORKER_SOCKET, &worker->answer, bytes, MSG_NOSIGNAL);
}

static void failed(struct trial_result *result, enum trial_status status, const struct error *why) {
    result->status = status;
    snprintf(result->message, sizeof result->message, "%s", why->text);
}

static void keep(struct worker_answer *answer, const struct measurement *measurement) {
    struct trial_result *result = &answer->result;
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
    memcpy(answer->sample_us, measurement->sample_us, (size_t)measurement->samples * sizeof *answer->sample_us);
}

static void measure_one(struct worker *worker, const struct plan *plan, const struct worker_request *request,
                        struct error *why) {
    struct measurement measurement = {0};
    if (measure(worker->instance, plan, &request->measure, &measurement, why)) {
        failed(&worker->answer.result, TRIAL_RUNTIME, why);
    } else {
        keep(&worker->answer, &measurement);
        measurement_free(&measurement);
    }
}

static void measure_by_turns(struct worker *worker, const struct worker_request *request, struct plan *const *plans,
                             struct error *why) {
    struct worker_answer *answer = &worker->answer;
    struct rounds rounds = {.instance = worker->instance,
                            .arms = request->arms,
                            .rounds = request->rounds,
                            .regime = request->measure.regime,
                            .seconds = request->round_s,
                            .seed = SEED};
    memcpy(rounds.plans, plans, (size_t)request->arms * sizeof *plans);
    if (rounds_run(&rounds, answer->sample_us, &answer->result.throttle, why))
        failed(&answer->result, TRIAL_RUNTIME, why);
    else
        answer->result.samples = request->arms * request->rounds;
}

/* Correct first: what is wrong is never timed. */
static void verify_and_measure(struct worker *worker, const struct worker_request *request, struct plan *const *plans) {
    struct error why = {""};
    struct trial_result *result = &worker->answer.result;
    for (int arm = 0; arm < request->arms && result->status == TRIAL_OK; arm++)
        if (instance_fit(worker->instance, plans[arm], &why))
            failed(result, TRIAL_CONSTRAINT, &why);
        else if (instance_verify(worker->instance, plans[arm], &result->error, &why))
            failed(result, strncmp(why.text, "wrong", 5) ? TRIAL_RUNTIME : TRIAL_CORRECTNESS, &why);
    if (result->status != TRIAL_OK) return;
    if (request->arms == 1)
        measure_one(worker, plans[0], request, &why);
    else
        measure_by_turns(worker, request, plans, &why);
}

static void let_chain_go(struct worker *worker) {
    chain_destroy(worker->chain);
    worker->chain = NULL;
}

static int fit_instance(struct worker *worker, const struct problem *problem, struct error *error) {
    struct instance *old = worker->instance;
    let_chain_go(worker);
    bool shares = old && instance_shares(old, problem);
    int status = shares && !problem_equal(&old->problem, problem) ? instance_change(old, problem, error) : 0;
    if (!shares || status) {
        instance_destroy(old);
        worker->instance = NULL;
    }
    if (!shares) status = instance_create(worker->device, problem, SEED, true, &worker->instance, error);
    if (status) return -1;
    return instance_reference(worker->instance, error);
}

static void make_plan(struct worker *worker, const struct worker_request *request, int arm, struct plan **plan) {
    const struct kernel *kernel = worker->kernels[request->arm[arm].kernel];
    const struct config *config = &request->arm[arm].config;
    struct error why = {""};
    if (config_legal(worker->device, kernel, &request->problem, config, &why))
        failed(&worker->answer.result, TRIAL_CONSTRAINT, &why);
    else if (plan_create(worker->device, kernel, &request->problem, config, plan, &why))
        failed(&worker->answer.result, TRIAL_COMPILE, &why);
}

static void trial(struct worker *worker, const struct worker_request *request) {
    struct worker_answer *answer = &worker->answer;
    struct plan *plans[WORKER_ARMS] = {NULL};
    answer->result = (struct trial_result){.status = TRIAL_OK};
    answer->error.text[0] = 0;
    int lacking = fit_instance(worker, &request->problem, &answer->error);
    send_answer(worker, WORKER_DATA);
    if (lacking) return;
    for (int arm = 0; arm < request->arms && answer->result.status == TRIAL_OK; arm++)
        make_plan(worker, request, arm, &plans[arm]);
    if (answer->result.status == TRIAL_OK) {
        send_answer(worker, WORKER_COMPILE);
        verify_and_measure(worker, request, plans);
    }
    for (int arm = 0; arm < request->arms; arm++) plan_destroy(plans[arm]);
    send_answer(worker, WORKER_RESULT);
}

/* --- chains --- */

/* Weights without kernels, where they are not those of the chain before. */
static int fit_chain(struct worker *worker, const struct worker_request *request, struct error *error) {
    bool same = worker->chain && worker->layers == request->layers;
    for (int g = 0; g < CHAIN_GEMMS; g++) same = same && problem_equal(&worker->gemms[g].problem, &request->chain[g]);
    if (same) return 0;
    let_chain_go(worker);
    instance_destroy(worker->instance);
    worker->instance = NULL;
    worker->layers = request->layers;
    for (int g = 0; g < CHAIN_GEMMS; g++) worker->gemms[g] = (struct chain_gemm){.problem = request->chain[g]};
    return chain_create(worker->device, worker->gemms, request->layers, SEED, &worker->chain, error);
}

/* Replaces the kernels that differ. */
static int furnish_chain(struct worker *worker, const struct worker_request *request, struct error *error) {
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        struct chain_gemm *gemm = &worker->gemms[g];
        const struct kernel *kernel = worker->kernels[request->arm[g].kernel];
        const struct config *config = &request->arm[g].config;
        if (gemm->kernel == kernel && !memcmp(&gemm->config, config, sizeof *config)) continue;
        if (chain_replace(worker->chain, g, kernel, config, error))
            return error_prefix(error, "layer %s", chain_layers[g]);
        gemm->kernel = kernel;
        gemm->config = *config;
    }
    return 0;
}

/* Whatever fails is a failure at run time, behind which comes another worker. Trials have compiled the kernels. */
static void chain_trial(struct worker *worker, const struct worker_request *request) {
    struct worker_answer *answer = &worker->answer;
    struct measurement measurement;
    struct error why;
    answer->result = (struct trial_result){.status = TRIAL_OK};
    answer->error.text[0] = 0;
    int lacking = fit_chain(worker, request, &answer->error);
    send_answer(worker, WORKER_DATA);
    if (lacking) return;
    send_answer(worker, WORKER_COMPILE);
    if (furnish_chain(worker, request, &why) ||
        chain_measure(worker->chain, request->measure.regime, &request->measure, &measurement, &why)) {
        failed(&answer->result, TRIAL_RUNTIME, &why);
    } else {
        keep(answer, &measurement);
        measurement_free(&measurement);
    }
    send_answer(worker, WORKER_RESULT);
}

/* --- serving --- */

/* Also reports why there is none. */
static void open_device(struct worker *worker, const char *id) {
    struct worker_answer *answer = &worker->answer;
    if (!device_open(id, &worker->device, &answer->error)) {
        answer->device = *worker->device;
        answer->device.functions = NULL;
        answer->device.state = NULL;
    }
    send_answer(worker, WORKER_OPEN);
}

int worker_serve(const char *device, const struct kernel *const *kernels, struct error *error) {
    static struct worker worker;
    struct worker_request request;
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(WORKER_SOCKET, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_SEQPACKET)
        return error_set(error, "a worker is started by `tilebook tune`, not by hand");
    worker.kernels = kernels;
    open_device(&worker, device);
    while (worker.device && recv(WORKER_SOCKET, &request, sizeof request, 0) == (ssize_t)sizeof request)
        (request.layers ? chain_trial : trial)(&worker, &request);
    let_chain_go(&worker);
    instance_destroy(worker.instance);
    device_close(worker.device);
    return 0;
}
