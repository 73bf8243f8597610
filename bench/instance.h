/* One problem with its data on a device: seeded inputs, weights to rotate over, the reference. */
#ifndef TILEBOOK_INSTANCE_H
#define TILEBOOK_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernel.h"

struct instance {
    struct device *device;
    struct problem problem;
    uint64_t seed;
    struct operands *copies; /* `count` sets that differ in weights, scales and zeros; the rest is shared */
    int count;               /* 1 when warm; cold: enough for twice the cache, at least 2 */
    size_t workspace_bytes;
    float *reference; /* device, fp32; of copies[0]; NULL until it is needed */
};

/* Fresh data: x and addend uniform in [-1,1], of the problem's type, scales uniform fp16, codes and zero points uniform
 * 0..15. */
int instance_create(struct device *device, const struct problem *problem, uint64_t seed, bool cold,
                    struct instance **instance, struct error *error);
/* The same with as many copies as asked for. */
int instance_create_copies(struct device *device, const struct problem *problem, uint64_t seed, int count,
                           struct instance **instance, struct error *error);
void instance_destroy(struct instance *instance);

/* Whether the problem differs at most in m, the epilogue and the norm. Then the instance may become its instance, with
 * the same numbers as a fresh one of this seed; weights and workspace stay. On failure it can only be destroyed. */
bool instance_shares(const struct instance *instance, const struct problem *problem);
int instance_change(struct instance *instance, const struct problem *problem, struct error *error);

/* Makes the shared workspace at least plan->workspace_bytes (counters zeroed), and the weights that the plan wants in a
 * form of its own, for every copy. Before the first run of a plan. */
int instance_fit(struct instance *instance, const struct plan *plan, struct error *error);

/* Makes the reference of copies[0], unless it is there; else the first verify does. */
int instance_reference(struct instance *instance, struct error *error);

/* Five times what rounding y alone costs, which is 2e-4 in fp16 and eight times that in bf16. */
#define INSTANCE_TOLERANCE 1e-3
double instance_tolerance(const struct problem *problem);
/* Poisons y with NaN, runs the plan on copies[0] and compares with the reference: -1 unless every element is
 * written and ||y - ref|| / ||ref|| <= instance_tolerance(problem). *relative_error is set either way (may be NULL). */
int instance_verify(struct instance *instance, const struct plan *plan, double *relative_error, struct error *error);
/* The same on copies[1], which must be there: does each call read the weights that it was given? */
int instance_verify_second(struct instance *instance, const struct plan *plan, struct error *error);

#endif
