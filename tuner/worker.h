/* One trial on a device: compile, verify, measure. */
#ifndef TILEBOOK_WORKER_H
#define TILEBOOK_WORKER_H

#include "bench/measure.h"
#include "tuner/search.h"

struct worker {
    struct device *device;
    uint64_t seed;
    enum regime regime;
    struct instance *instance; /* of the problem that was tried last; made when a trial needs it */
};

/* Runs one trial. A kernel's failure is a result, and 0 is returned; -1 if the trial says nothing about the
 * kernel: the problem's data cannot be made, or a failed kernel took the device with it. In the latter case
 * result->status is TRIAL_RUNTIME and worth storing, else it is TRIAL_OK with no samples. */
int worker_trial(struct worker *worker, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config, struct trial_result *result, struct error *error);
void worker_close(struct worker *worker);

#endif
