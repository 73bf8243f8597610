#include "bench/rounds.h"

/* A round must be short beside the drift of a clock; what it lacks in samples the rounds have in number. */
static const struct measure_options round_options = {.warmup_seconds = 0.002,
                                                     .min_seconds = 0.01,
                                                     .max_seconds = 0.1,
                                                     .min_samples = 10,
                                                     .max_samples = 1000,
                                                     .interval = 0.02};

/* A value below `count`, by xorshift. */
static int roll(uint64_t *random, int count) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (int)(*random >> 33) % count;
}

static int measure_arm(const struct rounds *r, int arm, float *us, unsigned long long *throttle, struct error *error) {
    struct measure_options options = round_options;
    struct measurement m;
    options.regime = r->regime;
    if (r->seconds > 0) {
        options.warmup_seconds = r->seconds / 6;
        options.min_seconds = options.max_seconds = r->seconds - options.warmup_seconds;
    }
    if (measure(r->instance, r->plans[arm], &options, &m, error)) return -1;
    *us = (float)m.median_us;
    *throttle |= m.throttle;
    measurement_free(&m);
    return 0;
}

int rounds_run(const struct rounds *r, float *us, unsigned long long *throttle, struct error *error) {
    uint64_t random = (r->seed + 1) * 0x9e3779b97f4a7c15u | 1;
    *throttle = 0;
    for (int round = 0; round < r->rounds; round++) {
        int order[MOST_ARMS];
        if (r->stop && *r->stop) return 1;
        for (int arm = 0; arm < r->arms; arm++) order[arm] = arm;
        for (int left = r->arms; left; left--) {
            int chosen = roll(&random, left), arm = order[chosen];
            order[chosen] = order[left - 1];
            if (measure_arm(r, arm, &us[arm * r->rounds + round], throttle, error)) return -1;
        }
    }
    return 0;
}
