/* The rows of `tilebook sweep --chain`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cbench.h"
#include "bench/chain.h"
#include "bench/samples.h"
#include "bench/states.h"
#include "bench/sweep.h"

struct chain_point {
    struct sweep *sweep;
    struct chain_gemm gemms[CHAIN_GEMMS];
    enum regime regime;
    char name[96]; /* chain/OP/layers:L/m:M/graph|pdl */
};

/* The chain of the last point: its neighbour differs by the regime alone. */
struct sweep_chains {
    struct chain_point *points;
    struct chain *chain;
    const struct chain_gemm *gemms; /* of which it was made */
};

/* --- points --- */

/* As the decoder chooses, among the selected kernels; but a row that names one of them and cannot run is an error. */
static int choose_gemm(const struct sweep *sweep, struct chain_gemm *gemm, struct error *error) {
    const struct kernel *selected[MAX_KERNELS + 1] = {NULL};
    struct choice choice;
    int count = 0;
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
        if (sweep_selects(sweep, *kernel)) selected[count++] = *kernel;
    if (choice_make(sweep->device, selected, sweep->table, &gemm->problem, &choice, error)) return -1;
    for (int i = 0; choice.how == CHOICE_REFUSED && i < count; i++) {
        char name[64];
        if (strcmp(choice.row->kernel, kernel_full_name(selected[i], name))) continue;
        return error_set(error, "table: %s %s: %s", name, choice.row->configuration, choice.why);
    }
    gemm->kernel = choice.kernel;
    gemm->config = choice.config;
    if (!sweep->options.misses || choice.how == CHOICE_REFUSED) return 0;
    return misses_note(sweep->options.misses, &gemm->problem, choice.how, error);
}

static int add_chain(struct sweep *sweep, const struct shapes *shapes, enum op op, int m, struct error *error) {
    struct chain_point point = {.sweep = sweep};
    struct problem problems[CHAIN_GEMMS];
    int group = sweep->options.group >= 0 ? sweep->options.group : shapes->group;
    if (chain_problems(shapes, op, m, group, sweep->options.zeros, problems, error)) return -1;
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        point.gemms[g].problem = problems[g];
        if (choose_gemm(sweep, &point.gemms[g], error)) return -1;
    }
    for (enum regime regime = REGIME_GRAPH; regime <= REGIME_PDL; regime++) {
        if (regime_check(regime, sweep->device, NULL)) continue;
        point.regime = regime;
        snprintf(point.name, sizeof point.name, "chain/%s/layers:%d/m:%d/%s", op_name(op), sweep->options.chain, m,
                 regime_name(regime));
        sweep->chains->points[sweep->count++] = point;
    }
    return 0;
}

const char *sweep_chain_name(const struct sweep *sweep, int index) {
    return sweep->chains->points[index].name;
}

static bool has_kernel(const struct sweep *sweep, enum op op) {
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
        if ((*kernel)->op == op && sweep_selects(sweep, *kernel)) return true;
    return false;
}

int sweep_add_chains(struct sweep *sweep, const struct shapes *shapes, const int *m, int m_count, struct error *error) {
    static const enum op ops[] = {OP_MARLIN_GEMM, OP_FP16_GEMM};
    enum { OPS = sizeof ops / sizeof *ops };
    if (sweep->device->backend != BACKEND_CUDA)
        return error_set(error, "--chain needs graphs, which cuda:N has; found device %s", sweep->device->id);
    sweep->chains = calloc(1, sizeof *sweep->chains);
    if (!sweep->chains) return error_set(error, "out of memory");
    sweep->chains->points = calloc((size_t)m_count * OPS * 2, sizeof *sweep->chains->points);
    if (!sweep->chains->points) return error_set(error, "out of memory");
    for (int o = 0; o < OPS; o++)
        for (int i = 0; i < m_count && has_kernel(sweep, ops[o]); i++)
            if (add_chain(sweep, shapes, ops[o], m[i], error)) return error_prefix(error, "--chain");
    return 0;
}

void sweep_free_chains(struct sweep *sweep) {
    if (!sweep->chains) return;
    chain_destroy(sweep->chains->chain);
    free(sweep->chains->points);
    free(sweep->chains);
}

/* --- running a point --- */

static bool same_gemms(const struct chain_gemm *a, const struct chain_gemm *b) {
    for (int g = 0; g < CHAIN_GEMMS; g++)
        if (!problem_equal(&a[g].problem, &b[g].problem)) return false;
    return true;
}

static int use_chain(struct chain_point *point, struct error *error) {
    struct sweep *sweep = point->sweep;
    struct sweep_chains *chains = sweep->chains;
    if (chains->chain && same_gemms(chains->gemms, point->gemms)) return 0;
    chain_destroy(chains->chain);
    chains->chain = NULL;
    chains->gemms = point->gemms;
    return chain_create(sweep->device, point->gemms, sweep->options.chain, sweep->options.seed, &chains->chain, error);
}

static void set_counters(struct cbench_state *state, const struct chain_point *point, const struct measurement *m) {
    const struct sweep *sweep = point->sweep;
    const struct chain_figures figures = chain_figures(point->gemms, sweep->options.chain, m->median_us);
    const struct {
        const char *name;
        double value;
    } counters[] = {
        {"layers", sweep->options.chain},
        {"g", point->gemms[0].problem.group},
        {"z", point->gemms[0].problem.zeros},
        {"m", point->gemms[0].problem.m},
        {"ms", m->median_us / 1e3},
        {"us_layer", figures.us_layer},
        {"us", m->median_us},
        {"p20_us", m->p20_us},
        {"p80_us", m->p80_us},
        {"min_us", m->min_us},
        {"batch_us", m->batch_us},
        {"event_us", m->event_us},
        {"samples", m->samples},
        {"weight_bytes", figures.weight_bytes},
        {"GB/s", figures.gbs},
        {"%bandwidth", 100 * figures.gbs / sweep->ceilings.read_gbs},
        {"tokens/s", figures.tokens_s},
        {"error", chain_error(sweep->chains->chain)},
    };
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (counters[i].value != 0 || !sweep->repeated) cbench_set_counter(state, counters[i].name, counters[i].value);
    if (nvml_impairment(m->throttle)) cbench_set_counter(state, "throttled", 1);
}

/* Which kernels ran: " qkv=marlin_gemm/mma ..." */
static void describe(const struct chain_point *point, char *text, size_t size) {
    size_t used = 0;
    for (int g = 0; g < CHAIN_GEMMS && used < size; g++) {
        char kernel[64], config[MAX_CONFIG_TEXT];
        const struct chain_gemm *gemm = &point->gemms[g];
        config_text(gemm->kernel, &gemm->config, config);
        for (char *c = config; *c; c++)
            if (*c == ' ') *c = ',';
        used += (size_t)snprintf(text + used, size - used, " %s=%s,%s", chain_layers[g],
                                 kernel_full_name(gemm->kernel, kernel), config);
    }
}

static void run_chain(struct cbench_state *state, void *data) {
    struct chain_point *point = data;
    struct sweep *sweep = point->sweep;
    while (cbench_keep_running(state)) {
        struct measurement m;
        struct error error;
        char kernels[1024];
        sweep_show(sweep, point->name);
        struct measure_options measuring = sweep_measuring(sweep);
        if (use_chain(point, &error) || chain_measure(sweep->chains->chain, point->regime, &measuring, &m, &error)) {
            sweep->failures++;
            cbench_skip_with_error(state, error.text);
            break;
        }
        if (nvml_watch(&sweep->watch, m.throttle)) sweep_warn(sweep, m.throttle);
        describe(point, kernels, sizeof kernels);
        set_counters(state, point, &m);
        sweep_label(state, &m, kernels);
        cbench_set_iteration_time(state, m.median_us / 1e6);
        if (sweep->samples) samples_put(sweep->samples, point->name, &m);
        if (sweep->states) states_put(sweep->states, point->name, &m);
        measurement_free(&m);
    }
    sweep_ran(sweep);
}

void sweep_register_chains(struct sweep *sweep) {
    for (int i = 0; i < sweep->count; i++)
        cbench_register(sweep->chains->points[i].name, run_chain, &sweep->chains->points[i]);
}
