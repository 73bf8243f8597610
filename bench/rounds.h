/* Plans against each other, by turns: what drifts, drifts for all of them. */
#ifndef TILEBOOK_ROUNDS_H
#define TILEBOOK_ROUNDS_H

#include <signal.h>

#include "bench/measure.h"

enum { MOST_ARMS = 8 };

struct rounds {
    struct instance *instance;
    struct plan *plans[MOST_ARMS]; /* of the instance's problem, verified; one may stand in several arms */
    int arms, rounds;
    enum regime regime;
    double seconds; /* of an arm in a round; 0: as long as an interval of 2% takes, ten milliseconds at least */
    uint64_t seed;  /* of the order within a round */
    const volatile sig_atomic_t *stop; /* not 0: no further round starts; NULL: never */
};

/* Each round measures each arm once, in random order: medians to us[arm * rounds + round], NVML's reasons or-ed into
 * *throttle. 1 if it was stopped. */
int rounds_run(const struct rounds *rounds, float *us, unsigned long long *throttle, struct error *error);

#endif
