#include "tuner/service.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 2 };

static const double near_best = 1.15; /* of the winner's time, alone */
static const struct measure_options options = {.warmup_seconds = 0.01,
                                               .min_seconds = 0.02,
                                               .max_seconds = 0.04,
                                               .min_samples = 10,
                                               .max_samples = WORKER_SAMPLES,
                                               .interval = 0.002,
                                               .regime = REGIME_PDL};

/* --- the search --- */

static int measure_one(struct service *s, const int chosen[CHAIN_GEMMS], struct trial_result *result) {
    int status = s->measure(s->context, chosen, s->measured + 1, result);
    if (status) return status;
    free(result->sample_us);
    result->sample_us = NULL;
    s->measured++;
    s->spent_s += result->seconds;
    return 0;
}

static bool below(const struct trial_result *a, const struct trial_result *b) {
    return a->status == TRIAL_OK && b->status == TRIAL_OK && a->high_us < b->low_us;
}

/* `now` is what the chosen were measured as last. */
static int try_candidate(struct service *s, int gemm, int candidate, struct trial_result *now, bool *out,
                         bool *replaced) {
    int chosen[CHAIN_GEMMS];
    struct trial_result then, again;
    memcpy(chosen, s->chosen, sizeof chosen);
    chosen[gemm] = candidate;
    int status = measure_one(s, chosen, &then);
    if (status) return status;
    *out = then.status != TRIAL_OK;
    if (!below(&then, now)) return 0;
    if ((status = measure_one(s, s->chosen, &again))) return status;
    *now = below(&then, &again) ? then : again;
    if (!below(&then, &again)) return 0;
    s->chosen[gemm] = candidate;
    *replaced = true;
    return 0;
}

static bool time_is_up(const struct service *s) {
    return s->seconds > 0 && s->spent_s >= s->seconds;
}

static int search_gemm(struct service *s, int gemm, bool out[SERVICE_CANDIDATES], bool *replaced) {
    struct trial_result now;
    if (s->count[gemm] < 2 || s->before.status != TRIAL_OK || time_is_up(s)) return 0;
    int status = measure_one(s, s->chosen, &now);
    if (!status && s->measured == 1) s->before = now;
    for (int c = 0; c < s->count[gemm] && !status && now.status == TRIAL_OK && !time_is_up(s); c++)
        if (c != s->chosen[gemm] && !out[c]) status = try_candidate(s, gemm, c, &now, &out[c], replaced);
    return status;
}

/* The last word on what small steps have added up to. */
static int settle(struct service *s) {
    static const int first[CHAIN_GEMMS];
    s->after = s->before;
    if (!memcmp(s->chosen, first, sizeof first)) return 0;
    int status = measure_one(s, first, &s->before);
    if (!status) status = measure_one(s, s->chosen, &s->after);
    if (status || below(&s->after, &s->before)) return status;
    memset(s->chosen, 0, sizeof s->chosen);
    s->after = s->before;
    return 0;
}

int service_search(struct service *s) {
    static const int order[CHAIN_GEMMS] = {CHAIN_GATE_UP, CHAIN_DOWN, CHAIN_O, CHAIN_QKV};
    bool out[CHAIN_GEMMS][SERVICE_CANDIDATES] = {{false}}, replaced = true;
    int status = 0;
    for (int pass = 0; pass < PASSES && replaced; pass++) {
        replaced = false;
        for (int i = 0; i < CHAIN_GEMMS && !status; i++) status = search_gemm(s, order[i], out[order[i]], &replaced);
    }
    return status ? status : settle(s);
}

/* --- chains among items --- */

/* One of them, with what a search calls back for. */
struct run {
    struct tune *tune;
    struct tune_item *items[CHAIN_GEMMS];
    const struct trial *candidates[CHAIN_GEMMS][SERVICE_CANDIDATES]; /* the winner first */
    int layers, fresh;
    struct service service;
};

static struct tune_item *find_item(const struct tune *tune, const struct problem *problem) {
    for (int i = 0; i < tune->count; i++)
        if (!tune->items[i].inserted && problem_equal(&tune->items[i].problem, problem)) return &tune->items[i];
    return NULL;
}

/* The chain that this item is gate_up of. */
static bool find_chain(const struct tune *tune, const struct shapes *shapes, const struct tune_item *item,
                       struct tune_item *items[CHAIN_GEMMS]) {
    struct problem problems[CHAIN_GEMMS];
    const struct problem *p = &item->problem;
    int group = p->group == p->k ? 0 : p->group;
    if (p->op == OP_AWQ_DEQUANT || p->m > SERVICE_M || item->inserted) return false;
    if (chain_problems(shapes, p->op, p->m, group, p->zeros, problems, NULL)) return false;
    bool all = problem_equal(&problems[CHAIN_GATE_UP], p);
    for (int g = 0; g < CHAIN_GEMMS && all; g++) {
        items[g] = find_item(tune, &problems[g]);
        all = items[g] != NULL;
    }
    return all;
}

int service_count(const struct tune *tune, const struct shapes *shapes) {
    struct tune_item *items[CHAIN_GEMMS];
    int count = 0;
    for (int i = 0; i < tune->count; i++) count += find_chain(tune, shapes, &tune->items[i], items);
    return count;
}

/* As many layers as it takes that none finds its weights in the cache. */
static int count_layers(const struct run *run) {
    size_t layer = 0, cache = 2 * run->tune->device->cache_bytes;
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        struct operand_bytes bytes = problem_operand_bytes(&run->items[g]->problem);
        layer += bytes.weights + bytes.scales + bytes.zeros;
    }
    int count = (int)((cache + layer - 1) / layer);
    return count > SERVICE_LAYERS ? count : SERVICE_LAYERS;
}

/* --- candidates --- */

static bool listed(const struct run *run, int g, const struct trial *trial) {
    for (int c = 0; c < run->service.count[g]; c++)
        if (run->candidates[g][c] == trial) return true;
    return false;
}

/* After the winner not what the row may not have at its lower end. */
static void add_candidate(struct run *run, int g, const struct trial *trial) {
    struct problem low = run->items[g]->problem;
    low.m = run->items[g]->m_low;
    if (trial->result.status != TRIAL_OK || listed(run, g, trial)) return;
    if (run->service.count[g] && config_legal(run->tune->device, trial->kernel, &low, &trial->config, NULL)) return;
    run->candidates[g][run->service.count[g]++] = trial;
}

/* The fastest that is slower than `above`, of those that are near the best; NULL without one. */
static const struct trial *next_trial(const struct search_result *result, double above) {
    const struct trial *next = NULL, *best = &result->trials[result->best];
    for (int i = 0; i < result->count; i++) {
        const struct trial *trial = &result->trials[i];
        if (trial->result.status != TRIAL_OK || trial->result.us <= above) continue;
        if (trial->result.us > near_best * best->result.us) continue;
        if (!next || trial->result.us < next->result.us) next = trial;
    }
    return next;
}

static void find_candidates(struct run *run, int g) {
    const struct search_result *result = &run->items[g]->result;
    const struct trial *next;
    add_candidate(run, g, &result->trials[result->best]);
    if (result->baseline >= 0) add_candidate(run, g, &result->trials[result->baseline]);
    for (double above = 0; run->service.count[g] < SERVICE_CANDIDATES; above = next->result.us) {
        if (!(next = next_trial(result, above))) return;
        add_candidate(run, g, next);
    }
}

/* --- measuring --- */

static void show(const struct run *run) {
    char text[64];
    const struct problem *problem = &run->items[CHAIN_GATE_UP]->problem;
    snprintf(text, sizeof text, "in service: %s m=%d", op_name(problem->op), problem->m);
    progress_show(run->tune->progress, 1, -1, text);
}

static void tell(const struct run *run, const char *what, const char *why) {
    const struct problem *problem = &run->items[CHAIN_GATE_UP]->problem;
    progress_line(run->tune->progress, "%s m=%d in service: %s%s", op_name(problem->op), problem->m, what, why);
}

static int measure_chain(void *context, const int chosen[CHAIN_GEMMS], int order, struct trial_result *result) {
    struct run *run = context;
    struct tune *tune = run->tune;
    struct chain_gemm gemms[CHAIN_GEMMS];
    const struct store_chain chain = {gemms, run->layers, order};
    bool found;
    if (*tune->interrupted) return TUNE_INTERRUPTED;
    show(run);
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        const struct trial *trial = run->candidates[g][chosen[g]];
        gemms[g] = (struct chain_gemm){run->items[g]->problem, trial->kernel, trial->config};
    }
    if (store_find_chain(tune->store, &tune->scope, &chain, result, &found, &tune->error)) return -1;
    if (!found) {
        int status = supervisor_chain(tune->supervisor, gemms, run->layers, &options, result, &tune->error);
        if (status) return status < 0 ? -1 : TUNE_SKIPPED;
        if (store_put_chain(tune->store, &tune->scope, &chain, result, &tune->error)) return -1;
        run->fresh++;
    }
    nvml_watch(&tune->watch, result->throttle);
    if (result->status != TRIAL_OK) tell(run, "a chain is left out: ", result->message);
    return 0;
}

/* --- verdicts --- */

static const char *trial_text(const struct trial *trial, char text[64 + MAX_CONFIG_TEXT]) {
    char name[64], config[MAX_CONFIG_TEXT];
    snprintf(text, 64 + MAX_CONFIG_TEXT, "%s %s", kernel_full_name(trial->kernel, name),
             config_text(trial->kernel, &trial->config, config));
    return text;
}

static void tell_verdict(const struct run *run) {
    const struct service *s = &run->service;
    char text[128], is[64 + MAX_CONFIG_TEXT], was[64 + MAX_CONFIG_TEXT];
    snprintf(text, sizeof text, "%.2f us a layer, before %.2f (%d chains of %d layers, %d of them new)",
             s->after.us / run->layers, s->before.us / run->layers, s->measured, run->layers, run->fresh);
    tell(run, text, "");
    for (int g = 0; g < CHAIN_GEMMS; g++)
        if (s->chosen[g])
            progress_line(run->tune->progress, "    %s: %s in place of %s", chain_layers[g],
                          trial_text(run->candidates[g][s->chosen[g]], is), trial_text(run->candidates[g][0], was));
}

static void apply(const struct run *run) {
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        struct search_result *result = &run->items[g]->result;
        const struct trial *chosen = run->candidates[g][run->service.chosen[g]];
        run->items[g]->in_service = true;
        if (run->service.chosen[g]) search_replace(result, (int)(chosen - result->trials));
    }
}

static int run_chain(struct run *run) {
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        if (run->items[g]->result.best < 0) {
            tell(run, "left out: no configuration works for ", chain_layers[g]);
            return 0;
        }
        find_candidates(run, g);
    }
    run->layers = count_layers(run);
    run->service.measure = measure_chain;
    run->service.context = run;
    int status = service_search(&run->service);
    if (status == TUNE_SKIPPED) tell(run, "left out: ", run->tune->error.text);
    if (status) return status == TUNE_SKIPPED ? 0 : status;
    if (!run->service.measured) tell(run, "nothing to choose from", "");
    if (!run->service.measured || run->service.after.status != TRIAL_OK) return 0;
    tell_verdict(run);
    apply(run);
    return 0;
}

int service_run(struct tune *tune, const struct shapes *shapes, double seconds, struct error *error) {
    int left = service_count(tune, shapes), status = 0;
    double spent_s = 0;
    for (int i = 0; i < tune->count && !status; i++) {
        struct run run = {.tune = tune};
        if (!find_chain(tune, shapes, &tune->items[i], run.items)) continue;
        if (seconds > 0) run.service.seconds = (seconds - spent_s) / left--;
        if (seconds > 0 && spent_s >= seconds)
            tell(&run, "left out: nothing is left of the budget", "");
        else
            status = run_chain(&run);
        spent_s += run.service.spent_s;
    }
    progress_end(tune->progress);
    if (status < 0) *error = tune->error;
    return status;
}
