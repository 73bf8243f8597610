/* Trials in another process: starts the worker, watches it, and starts another where one was lost. */
#ifndef TILEBOOK_SUPERVISOR_H
#define TILEBOOK_SUPERVISOR_H

#include <sys/types.h>

#include "tuner/worker.h"

struct supervisor {
    const struct kernel *const *kernels; /* ends with NULL; the worker has the same list */
    double limit_s; /* of verifying and measuring, in one trial; 0: ten seconds and fifty slow calls of the problem */

    struct device device; /* as the worker describes it: nothing runs on it in this process */
    pid_t worker;         /* 0 while there is none */
    int socket;
    int workers;     /* started so far */
    int exit_status; /* of the last worker that ended, as waitpid gives it */
    struct worker_answer answer;
};

/* Starts the first worker, which is this program with the arguments WORKER_COMMAND and the device. -1 if it cannot open
 * the device. `kernels` and `limit_s` are set; the rest is zero. */
int supervisor_open(struct supervisor *supervisor, const char *device, struct error *error);
/* Makes one trial, of WORKER_SAMPLES at most. Whatever it does is its result, and 0 is returned:
 *   no answer in time                       TRIAL_TIMEOUT
 *   the worker ends                         TRIAL_COMPILE before the first call, else TRIAL_RUNTIME
 *   it is killed from outside, then again   TRIAL_CONSTRAINT: the kernel does that to who takes all memory
 * 1 if the data of the problem cannot be made, -1 if no worker can be started: then `error` says why. */
int supervisor_trial(struct supervisor *supervisor, const struct kernel *kernel, const struct problem *problem,
                     const struct config *config, const struct measure_options *options, struct trial_result *result,
                     struct error *error);
/* Measures what trials had times for by turns, FINAL_ROUNDS rounds of up to WORKER_ARMS arms of `round_s` (as in struct
 * rounds) in one process: a result like a trial's, but of times only sample_us, the medians of each arm's rounds one
 * arm behind the other. */
int supervisor_rounds(struct supervisor *supervisor, const struct problem *problem, const struct trial *const *arms,
                      int count, double round_s, enum regime regime, struct trial_result *result, struct error *error);
/* Measures a chain of so many layers as a graph, in options->regime: a result like a trial's, of the whole chain. The
 * worker keeps its weights for the next chain of the same problems. */
int supervisor_chain(struct supervisor *supervisor, const struct chain_gemm gemms[CHAIN_GEMMS], int layers,
                     const struct measure_options *options, struct trial_result *result, struct error *error);
void supervisor_close(struct supervisor *supervisor);

#endif
