#include "tuner/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UNKNOWNS = 1 + MAX_PARAMETERS * MAX_VALUES };

static const double ridge = 2;     /* trials that say "not off", for each unknown */
static const double least = 0.001; /* weight that is worth adding */

/* The normal equations of a kernel, then their solution in the last column. */
struct correction {
    const struct kernel *kernel;
    int unknowns;
    double row[UNKNOWNS][UNKNOWNS + 1];
};

struct calibration {
    const struct device *device;
    struct problem problem;
    int count;
    struct correction corrections[];
};

static int unknowns_of(const struct kernel *kernel) {
    int count = 1;
    for (int p = 0; p < kernel->parameter_count; p++) count += kernel->parameters[p].count;
    return count;
}

/* Which unknowns a configuration has: the kernel's, and one of each parameter. */
static int find_unknowns(const struct kernel *kernel, const struct config *config, int at[1 + MAX_PARAMETERS]) {
    int before = 1;
    at[0] = 0;
    for (int p = 0; p < kernel->parameter_count; p++) {
        const struct parameter *parameter = &kernel->parameters[p];
        int v = 0;
        while (parameter->values[v] != config->value[p]) v++;
        at[1 + p] = before + v;
        before += parameter->count;
    }
    return 1 + kernel->parameter_count;
}

struct calibration *calibration_create(const struct device *device, const struct kernel *const *kernels,
                                       const struct problem *problem) {
    int count = 0;
    for (int i = 0; kernels[i]; i++) count += kernels[i]->op == problem->op;
    struct calibration *c = calloc(1, sizeof *c + (size_t)count * sizeof *c->corrections);
    if (!c) return NULL;
    c->device = device;
    c->problem = *problem;
    for (int i = 0; kernels[i]; i++) {
        if (kernels[i]->op != problem->op) continue;
        struct correction *correction = &c->corrections[c->count++];
        correction->kernel = kernels[i];
        correction->unknowns = unknowns_of(kernels[i]);
        for (int u = 0; u < correction->unknowns; u++) correction->row[u][u] = ridge;
    }
    return c;
}

static int find_correction(const struct calibration *c, const struct kernel *kernel) {
    int i = c->count - 1;
    while (i >= 0 && c->corrections[i].kernel != kernel) i--;
    return i;
}

/* An octave of m away counts for 0.6, two for 0.14. */
static double weight(int m, int other) {
    double octaves = log2((double)m / other);
    return exp(-octaves * octaves / 2);
}

void calibration_add(struct calibration *c, const struct kernel *kernel, const struct problem *problem,
                     const struct config *config, double us) {
    int found = find_correction(c, kernel), at[1 + MAX_PARAMETERS];
    double estimate = kernel->estimate(c->device, problem, config), w = weight(c->problem.m, problem->m);
    if (found < 0 || !(us > 0) || !(estimate > 0) || w < least) return;
    struct correction *correction = &c->corrections[found];
    int count = find_unknowns(kernel, config, at);
    for (int i = 0; i < count; i++) {
        double *row = correction->row[at[i]];
        for (int j = 0; j < count; j++) row[at[j]] += w;
        row[correction->unknowns] += w * log(us / estimate);
    }
}

/* Gauss-Jordan; the ridge makes it positive definite, so no pivot is small. */
static void solve(struct correction *correction) {
    int n = correction->unknowns;
    for (int i = 0; i < n; i++) {
        double *pivot = correction->row[i];
        for (int j = n; j >= i; j--) pivot[j] /= pivot[i];
        for (int r = 0; r < n; r++) {
            double factor = correction->row[r][i];
            if (r == i || factor == 0) continue;
            for (int j = i; j <= n; j++) correction->row[r][j] -= factor * pivot[j];
        }
    }
}

void calibration_solve(struct calibration *c) {
    for (int i = 0; i < c->count; i++) solve(&c->corrections[i]);
}

double calibration_estimate(const struct calibration *c, const struct device *device, const struct kernel *kernel,
                            const struct problem *problem, const struct config *config) {
    double estimate = kernel->estimate(device, problem, config), off = 0;
    int found = c ? find_correction(c, kernel) : -1, at[1 + MAX_PARAMETERS];
    if (found < 0) return estimate;
    const struct correction *correction = &c->corrections[found];
    int count = find_unknowns(kernel, config, at);
    for (int i = 0; i < count; i++) off += correction->row[at[i]][correction->unknowns];
    return estimate * exp(off);
}

void calibration_free(struct calibration *c) {
    free(c);
}

/* --- from the store --- */

static int add_stored(void *context, const struct problem *problem, const char *kernel, const char *configuration,
                      double us) {
    struct calibration *c = context;
    char name[64];
    struct config config;
    if (problem_equal(problem, &c->problem)) return 0;
    for (int i = 0; i < c->count; i++) {
        const struct kernel *candidate = c->corrections[i].kernel;
        if (strcmp(kernel, kernel_full_name(candidate, name))) continue;
        if (!config_parse(candidate, configuration, &config, NULL)) calibration_add(c, candidate, problem, &config, us);
        return 0;
    }
    return 0;
}

struct calibration *calibration_from_store(const struct device *device, const struct kernel *const *kernels,
                                           const struct problem *problem, struct store *store,
                                           const struct store_scope *scope, struct error *error) {
    struct calibration *c = calibration_create(device, kernels, problem);
    if (!c) {
        error_set(error, "out of memory");
        return NULL;
    }
    if (store_times(store, scope, problem->op, add_stored, c, error)) {
        calibration_free(c);
        return NULL;
    }
    calibration_solve(c);
    return c;
}
