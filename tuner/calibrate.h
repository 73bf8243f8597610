/* Estimates that have learned from trials. In the logarithm an estimate is off by an amount of its kernel and one of
 * each value of its parameters: their least squares over what was measured of other problems on the same device. What
 * was measured at a nearby m weighs more, and what little was measured of is hardly corrected. */
#ifndef TILEBOOK_CALIBRATE_H
#define TILEBOOK_CALIBRATE_H

#include "tuner/store.h"

struct calibration;

/* For estimates of `problem`. NULL if there is no memory. */
struct calibration *calibration_create(const struct device *device, const struct kernel *const *kernels,
                                       const struct problem *problem);
/* What a configuration of one of the kernels took, in a problem of the same op; not to be added behind
 * calibration_solve. */
void calibration_add(struct calibration *calibration, const struct kernel *kernel, const struct problem *problem,
                     const struct config *config, double us);
void calibration_solve(struct calibration *calibration);
/* From all trials of the scope with times, but those of the problem itself: a search that goes on is to find the order
 * in which it began. NULL with an error. */
struct calibration *calibration_from_store(const struct device *device, const struct kernel *const *kernels,
                                           const struct problem *problem, struct store *store,
                                           const struct store_scope *scope, struct error *error);
/* The kernel's estimate of the problem, corrected. `calibration` may be NULL. */
double calibration_estimate(const struct calibration *calibration, const struct device *device,
                            const struct kernel *kernel, const struct problem *problem, const struct config *config);
void calibration_free(struct calibration *calibration);

#endif
