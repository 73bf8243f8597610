/* Two configurations or kernels against each other, in one process. */
#include <stdlib.h>
#include <string.h>

#include "bench/compare.h"
#include "bench/rounds.h"

enum { ARM_A, ARM_AGAIN, ARM_B, ARMS };

struct duel {
    struct sweep *sweep; /* A's: device, regime, words and the state of the card */
    const struct sweep_point *a, *b;
    struct rounds rounds;
    float *us; /* medians of A's rounds, then of the other arms' */
};

/* Both arms verified on the same data before either is timed. */
static int begin(struct duel *duel, struct error *error) {
    struct device *device = duel->sweep->device;
    const struct sweep_options *options = &duel->sweep->options;
    if (instance_create(device, &duel->a->problem, options->seed, options->cold, &duel->rounds.instance, error))
        return -1;
    for (int arm = 0; arm < ARMS; arm++) {
        const struct sweep_point *point = arm == ARM_B ? duel->b : duel->a;
        if (plan_create(device, point->kernel, &point->problem, &point->config, &duel->rounds.plans[arm], error) ||
            instance_fit(duel->rounds.instance, duel->rounds.plans[arm], error) ||
            instance_verify(duel->rounds.instance, duel->rounds.plans[arm], NULL, error))
            return error_prefix(error, "%s failed", arm == ARM_B ? "B" : "A");
    }
    return 0;
}

static void end(struct duel *duel) {
    for (int arm = 0; arm < ARMS; arm++)
        if (duel->rounds.plans[arm]) plan_destroy(duel->rounds.plans[arm]);
    instance_destroy(duel->rounds.instance);
    free(duel->us);
}

/* 1 if it was interrupted. */
static int fight(struct duel *duel, struct error *error) {
    unsigned long long throttle;
    duel->us = calloc((size_t)ARMS * duel->rounds.rounds, sizeof *duel->us);
    if (!duel->us) return error_set(error, "out of memory");
    if (begin(duel, error)) return -1;
    int result = rounds_run(&duel->rounds, duel->us, &throttle, error);
    if (nvml_watch(&duel->sweep->watch, throttle)) sweep_warn(duel->sweep, throttle);
    return result;
}

/* A's point, and what is different in B's: its kernel, and its configuration. */
static void name_row(const struct sweep_point *a, const struct sweep_point *b, char *name, size_t size) {
    char kernel[64] = "";
    const char *config = strrchr(b->name, '/') + 1;
    if (b->kernel != a->kernel) kernel_full_name(b->kernel, kernel);
    snprintf(name, size, "%s -> %s%s%s", a->name, kernel, *kernel ? "/" : "", config);
}

/* A failure costs only its row; -1 is one that ends all, 1 an interruption. */
static int compare_pair(struct compare *compare, struct sweep *sweep, const struct sweep_point *a,
                        const struct sweep_point *b, int rounds, const volatile sig_atomic_t *stop,
                        struct error *error) {
    char name[2 * SWEEP_NAME];
    struct duel duel = {.sweep = sweep, .a = a, .b = b};
    duel.rounds = (struct rounds){
        .arms = ARMS, .rounds = rounds, .regime = sweep->measuring.regime, .seed = sweep->options.seed, .stop = stop};
    struct error why;
    name_row(a, b, name, sizeof name);
    int result = fight(&duel, &why);
    if (result < 0) {
        struct compare_missing *missing = compare_add_missing(compare, name, why.text);
        if (missing) missing->worse = true;
        result = missing ? 0 : error_set(error, "out of memory");
    } else if (!result) {
        struct compare_row *row = compare_add_row(compare, name);
        result = row ? compare_rounds(duel.us, duel.us + ARM_AGAIN * rounds, duel.us + ARM_B * rounds, rounds,
                                      compare->margin, row, error)
                     : error_set(error, "out of memory");
    }
    end(&duel);
    return result;
}

/* B's point of A's problem, or NULL; of the same kernel, unless the arms were given different ones. */
static const struct sweep_point *find_partner(const struct sweep *a, const struct sweep_point *point,
                                              const struct sweep *b) {
    const char *first = a->options.kernels, *second = b->options.kernels;
    bool same = first == second || (first && second && !strcmp(first, second));
    for (int i = 0; i < b->count; i++) {
        const struct sweep_point *other = &b->points[i];
        if (strcmp(other->layer, point->layer) || !problem_equal(&other->problem, &point->problem)) continue;
        if (!same || other->kernel == point->kernel) return other;
    }
    return NULL;
}

static int add_unpaired(const struct sweep *a, const struct sweep *b, const char *why, struct compare *compare,
                        struct error *error) {
    for (int i = 0; i < a->count; i++)
        if (!find_partner(a, &a->points[i], b) && !compare_add_missing(compare, a->points[i].name, why))
            return error_set(error, "out of memory");
    return 0;
}

int compare_arms(struct sweep *a, struct sweep *b, int rounds, double margin, const volatile sig_atomic_t *stop,
                 struct compare *compare, struct error *error) {
    int result = 0;
    *compare = (struct compare){.margin = margin};
    for (int i = 0; !result && i < a->count; i++) {
        const struct sweep_point *partner = find_partner(a, &a->points[i], b);
        if (partner) result = compare_pair(compare, a, &a->points[i], partner, rounds, stop, error);
    }
    if (result < 0 || add_unpaired(a, b, "only in A", compare, error) ||
        add_unpaired(b, a, "only in B", compare, error))
        return -1;
    return compare->count ? compare_finish(compare, error) : 0;
}
