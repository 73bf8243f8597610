#include "tuner/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/compare.h"
#include "kernels/choice.h"
#include "tuner/calibrate.h"

/* Two runs of the same code differ by about this much, whatever the samples of one run say. */
#define NOISE_FLOOR 0.01

enum { BY_ESTIMATE = 8 }; /* trials before the leader's neighbours are looked at */
enum { EXPECTED = 16 };   /* candidates that are announced ahead of their turn: more delay a leader's neighbours */

static const double least_trial_s = 0.04; /* a trial's warm-up and samples, whatever is measured */

/* A final's rounds, where time is short: an arm's part of one takes this and what beginning and ending it costs. */
static const double least_round_s = 0.002, full_round_s = 0.012, round_cost_s = 0.002;
enum { LEAST_CALLS = 8, FULL_CALLS = 12 }; /* in it: of warming up, and six samples or ten */

struct candidate {
    const struct kernel *kernel;
    struct config config;
    double estimate;
    size_t order;
};

struct state {
    const struct search *search;
    struct search_result *result;
    struct candidate *space; /* legal ones, the least estimate first */
    size_t space_count, next;
    size_t expected;     /* of the space, announced so far */
    int expected_leader; /* whose neighbours are announced */
    double elapsed_s;
    struct error *error;
};

const char *trial_status_name(enum trial_status status) {
    static const char *const names[TRIAL_STATUSES] = {"ok",      "correctness", "constraint",
                                                      "compile", "runtime",     "timeout"};
    return names[status];
}

static const char *const strategies[STRATEGIES] = {"guided", "racing", "random", "exhaustive"};

const char *strategy_name(enum strategy strategy) {
    return strategies[strategy];
}

int strategy_parse(const char *text, enum strategy *strategy, struct error *error) {
    int code = 0;
    while (code < STRATEGIES && strcmp(text, strategies[code])) code++;
    if (code == STRATEGIES)
        return error_set(error, "unknown strategy '%s'; accepted: guided, racing, random, exhaustive", text);
    *strategy = (enum strategy)code;
    return 0;
}

bool trial_faster(const struct trial_result *a, const struct trial_result *b) {
    bool apart = a->p80_us < b->p20_us || a->high_us < b->low_us;
    return apart && a->us < (1 - NOISE_FLOOR) * b->us;
}

static bool relevant(const struct search *search, const struct kernel *kernel) {
    return kernel->op == search->problem.op && kernel->backend == search->device->backend;
}

/* Legal for every m that the row will cover, as far as both ends tell. */
static bool legal(const struct search *search, const struct kernel *kernel, const struct config *config) {
    struct problem low = search->problem;
    low.m = search->m_low;
    return !config_legal(search->device, kernel, &search->problem, config, NULL) &&
           !config_legal(search->device, kernel, &low, config, NULL);
}

static int compare_candidates(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->estimate != b->estimate) return a->estimate < b->estimate ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

static int append_candidate(struct state *state, const struct candidate *candidate, size_t *capacity) {
    if (state->space_count == *capacity) {
        size_t grown = *capacity ? 2 * *capacity : 256;
        struct candidate *space = realloc(state->space, grown * sizeof *space);
        if (!space) return -1;
        state->space = space;
        *capacity = grown;
    }
    state->space[state->space_count++] = *candidate;
    return 0;
}

static double estimate(const struct search *search, const struct kernel *kernel, const struct config *config) {
    return calibration_estimate(search->calibration, search->device, kernel, &search->problem, config);
}

static int enumerate(struct state *state) {
    const struct search *search = state->search;
    unsigned short seed[] = {(unsigned short)search->problem.m, (unsigned short)search->problem.n,
                             (unsigned short)search->problem.k};
    size_t capacity = 0;
    for (int i = 0; search->kernels[i]; i++) {
        const struct kernel *kernel = search->kernels[i];
        if (!relevant(search, kernel)) continue;
        for (long c = 0, size = config_space(kernel); c < size; c++) {
            struct candidate candidate = {kernel, config_at(kernel, c), 0, state->space_count};
            if (!legal(search, kernel, &candidate.config)) continue;
            candidate.estimate =
                search->strategy == STRATEGY_RANDOM ? erand48(seed) : estimate(search, kernel, &candidate.config);
            if (append_candidate(state, &candidate, &capacity)) return error_set(state->error, "out of memory");
        }
    }
    if (state->space_count) qsort(state->space, state->space_count, sizeof *state->space, compare_candidates);
    return 0;
}

/* The index of the trial; -1 if it was not made. */
static int find_trial(const struct search_result *result, const struct kernel *kernel, const struct config *config) {
    int i = result->count - 1;
    while (i >= 0 && (result->trials[i].kernel != kernel || memcmp(&result->trials[i].config, config, sizeof *config)))
        i--;
    return i;
}

static bool tried(const struct search_result *result, const struct kernel *kernel, const struct config *config) {
    return find_trial(result, kernel, config) >= 0;
}

static bool wins(const struct search *search, const struct trial *trial) {
    return trial->result.status == TRIAL_OK && legal(search, trial->kernel, &trial->config);
}

/* The fastest trial that may win; -1 without one. */
static int leader(const struct search *search, const struct search_result *result) {
    int best = -1;
    for (int i = 0; i < result->count; i++) {
        if (!wins(search, &result->trials[i])) continue;
        if (best < 0 || result->trials[i].result.us < result->trials[best].result.us) best = i;
    }
    return best;
}

/* What the leader is faster than, beyond the noise; 0 for a trial that is to be known as well as the leader, as what
 * has no parameters is and what other searches have found. */
static double beaten_us(const struct state *state, const struct kernel *kernel) {
    const struct search *search = state->search;
    bool races = search->strategy == STRATEGY_RACING && kernel->parameter_count && !search->known;
    int at = races ? leader(search, state->result) : -1;
    return at < 0 ? 0 : state->result->trials[at].result.high_us / (1 - NOISE_FLOOR);
}

static int run_trial(struct state *state, const struct kernel *kernel, const struct config *config, bool is_default) {
    struct search_result *result = state->result;
    if (tried(result, kernel, config)) return 0;
    if (result->count == result->capacity) {
        int capacity = result->capacity ? 2 * result->capacity : 32;
        struct trial *trials = realloc(result->trials, (size_t)capacity * sizeof *trials);
        if (!trials) return error_set(state->error, "out of memory");
        result->trials = trials;
        result->capacity = capacity;
    }
    struct trial trial = {.kernel = kernel, .config = *config, .is_default = is_default};
    const struct search *search = state->search;
    int status =
        search->trial(search->context, kernel, &search->problem, config, beaten_us(state, kernel), &trial.result);
    if (status) {
        free(trial.result.sample_us);
        return status;
    }
    state->elapsed_s += trial.result.seconds;
    trial.elapsed_s = state->elapsed_s;
    result->trials[result->count++] = trial;
    return 0;
}

/* The built-in default, then what has no parameters: the figures that every other one is held against. */
static int run_baselines(struct state *state) {
    const struct search *search = state->search;
    struct choice choice;
    bool any = false;
    int status = 0;
    if (!choice_default(search->device, search->kernels, &search->problem, &choice, state->error)) {
        status = run_trial(state, choice.kernel, &choice.config, true);
        if (!status) state->result->baseline = state->result->incumbent = 0;
    }
    for (int i = 0; search->kernels[i] && !status; i++) {
        const struct kernel *kernel = search->kernels[i];
        const struct config config = {{0}};
        if (!relevant(search, kernel)) continue;
        any = true;
        if (!kernel->parameter_count && legal(search, kernel, &config))
            status = run_trial(state, kernel, &config, false);
    }
    if (any || status) return status;
    return error_set(state->error, "no kernel computes %s on %s; see `tilebook kernels`", op_name(search->problem.op),
                     search->device->id);
}

/* In the place of a search. */
static int run_known(struct state *state) {
    const struct search *search = state->search;
    for (int i = 0; i < search->known_count; i++) {
        const struct trial *known = &search->known[i];
        if (!relevant(search, known->kernel) || !legal(search, known->kernel, &known->config)) continue;
        int status = run_trial(state, known->kernel, &known->config, false);
        if (status) return status;
    }
    int first = find_trial(state->result, search->known->kernel, &search->known->config);
    if (first >= 0) state->result->incumbent = first;
    return 0;
}

static bool within_limits(const struct state *state) {
    const struct search *search = state->search;
    return (!search->trials || state->result->count < search->trials) &&
           (!search->seconds || state->elapsed_s < search->seconds);
}

/* The estimate knows less than a measurement, be it of another m, card or driver. */
static int run_starts(struct state *state) {
    const struct search *search = state->search;
    for (int i = 0; i < search->start_count; i++) {
        const struct search_start *start = &search->starts[i];
        if (!relevant(search, start->kernel) || !legal(search, start->kernel, &start->config)) continue;
        if (!start->always && !within_limits(state)) continue;
        int status = run_trial(state, start->kernel, &start->config, false);
        if (status) return status;
    }
    return 0;
}

static const struct candidate *next_by_estimate(struct state *state) {
    for (; state->next < state->space_count; state->next++) {
        const struct candidate *candidate = &state->space[state->next];
        if (!tried(state->result, candidate->kernel, &candidate->config)) return candidate;
    }
    return NULL;
}

static int value_index(const struct parameter *parameter, int value) {
    int i = 0;
    while (i < parameter->count - 1 && parameter->values[i] != value) i++;
    return i;
}

/* The i-th neighbour of a trial, one parameter a step away; false if there is none, or it is not legal. */
static bool neighbour(const struct search *search, const struct trial *centre, int i, struct candidate *candidate) {
    const struct parameter *parameter = &centre->kernel->parameters[i / 2];
    int index = value_index(parameter, centre->config.value[i / 2]) + (i % 2 ? 1 : -1);
    if (index < 0 || index >= parameter->count) return false;
    *candidate = (struct candidate){.kernel = centre->kernel, .config = centre->config};
    candidate->config.value[i / 2] = parameter->values[index];
    return legal(search, candidate->kernel, &candidate->config);
}

/* The untried legal neighbour of the leader with the least estimate. */
static const struct candidate *next_neighbour(const struct state *state, struct candidate *best) {
    int at = leader(state->search, state->result);
    if (at < 0) return NULL;
    const struct trial *centre = &state->result->trials[at];
    const struct search *search = state->search;
    best->kernel = NULL;
    for (int i = 0; i < 2 * centre->kernel->parameter_count; i++) {
        struct candidate candidate;
        if (!neighbour(search, centre, i, &candidate)) continue;
        if (tried(state->result, candidate.kernel, &candidate.config)) continue;
        candidate.estimate = estimate(search, candidate.kernel, &candidate.config);
        if (!best->kernel || candidate.estimate < best->estimate) *best = candidate;
    }
    return best->kernel ? best : NULL;
}

static void expect(const struct state *state, const struct candidate *candidate) {
    const struct search *search = state->search;
    if (tried(state->result, candidate->kernel, &candidate->config)) return;
    search->expect(search->context, candidate->kernel, &search->problem, &candidate->config);
}

/* Trials that the limits still let through, EXPECTED at most. */
static size_t within_reach(const struct state *state) {
    const struct search *search = state->search;
    double reach = EXPECTED;
    if (search->trials) reach = fmin(reach, search->trials - state->result->count);
    if (search->seconds > 0) reach = fmin(reach, 1 + (search->seconds - state->elapsed_s) / least_trial_s);
    return reach > 0 ? (size_t)reach : 0;
}

static void announce_by_estimate(struct state *state, size_t count) {
    size_t end = state->next + count;
    for (; state->expected < state->space_count && state->expected < end; state->expected++)
        expect(state, &state->space[state->expected]);
}

/* Of the neighbours every second trial takes one, the least estimate first. */
static void announce_neighbours(struct state *state, const struct trial *centre) {
    const struct search *search = state->search;
    struct candidate list[2 * MAX_PARAMETERS];
    size_t count = 0, reach = within_reach(state) / 2 + 1;
    for (int i = 0; i < 2 * centre->kernel->parameter_count; i++) {
        struct candidate *next = &list[count];
        if (!neighbour(search, centre, i, next) || tried(state->result, next->kernel, &next->config)) continue;
        next->estimate = estimate(search, next->kernel, &next->config);
        next->order = count++;
    }
    qsort(list, count, sizeof *list, compare_candidates);
    for (size_t i = 0; i < count && i < reach; i++) expect(state, &list[i]);
}

static bool near_leader(const struct state *state) {
    return state->search->strategy <= STRATEGY_RACING && state->result->count >= BY_ESTIMATE;
}

/* Announces the next by estimate, and the neighbours of a new leader. */
static void announce(struct state *state) {
    if (!state->search->expect) return;
    announce_by_estimate(state, within_reach(state));
    int at = near_leader(state) ? leader(state->search, state->result) : -1;
    if (at < 0 || at == state->expected_leader) return;
    state->expected_leader = at;
    announce_neighbours(state, &state->result->trials[at]);
}

/* What comes next depends on the trials alone and not on the limits: a search with a larger limit goes
 * through the same trials first. */
static int explore(struct state *state) {
    while (within_limits(state)) {
        struct candidate nearest;
        bool near = near_leader(state) && state->result->count % 2;
        announce(state);
        const struct candidate *next = near ? next_neighbour(state, &nearest) : NULL;
        if (!next) next = next_by_estimate(state);
        if (!next) return 0;
        int status = run_trial(state, next->kernel, &next->config, false);
        if (status) return status;
    }
    return 0;
}

/* --- the verdict --- */

/* None unless the fastest is ahead beyond the noise; it is first, then those that are as fast as it is, and faster than
 * the incumbent. */
static void find_finalists(const struct search *search, const struct search_result *result, struct finals *finals) {
    const struct trial *trials = result->trials;
    int first = leader(search, result), most = search->finalists ? search->finalists : FINALISTS;
    if (result->incumbent < 0 || !wins(search, &trials[result->incumbent])) return;
    if (!trial_faster(&trials[first].result, &trials[result->incumbent].result)) return;
    for (int i = 0; i < result->count; i++) {
        if (!wins(search, &trials[i]) || trials[i].result.us >= trials[result->incumbent].result.us) continue;
        if (trial_faster(&trials[first].result, &trials[i].result)) continue;
        int at = finals->count < most ? finals->count++ : most;
        for (; at > 0 && trials[i].result.us < trials[finals->trial[at - 1]].result.us; at--)
            if (at < most) finals->trial[at] = finals->trial[at - 1];
        if (at < most) finals->trial[at] = i;
    }
}

static int judge(struct finals *finals, struct error *error) {
    const float *us = finals->run.sample_us;
    if (finals->run.status != TRIAL_OK) return 0;
    for (int f = 0; f < finals->count; f++) {
        struct compare_row row = {.name = NULL};
        if (compare_rounds(us, us + FINAL_ROUNDS, us + (f + 2) * FINAL_ROUNDS, FINAL_ROUNDS, NOISE_FLOOR, &row, error))
            return -1;
        finals->us[f] = row.b.us;
        finals->ratio[f] = row.ratio;
        finals->faster[f] = row.verdict == VERDICT_FASTER;
        finals->incumbent_us = row.a.us;
    }
    return 0;
}

/* The seconds of an arm's part of a round, 0 for a full one; finalists are dropped, the slowest first, until there is
 * time for the rest. */
static double fit_final(const struct search *search, const struct search_result *result, struct finals *finals) {
    double call_s = finals->count ? 1e-6 * result->trials[result->incumbent].result.us : 0;
    double least_s = fmax(least_round_s, LEAST_CALLS * call_s), full_s = fmax(full_round_s, FULL_CALLS * call_s);
    for (; finals->count && search->final_seconds > 0; finals->count--) {
        double round_s = search->final_seconds / ((finals->count + 2) * FINAL_ROUNDS) - round_cost_s;
        if (round_s >= full_s) break;
        if (round_s >= least_s) return round_s;
    }
    return 0;
}

static int run_final(struct state *state) {
    const struct search *search = state->search;
    struct search_result *result = state->result;
    const struct trial *arms[FINALISTS + 2];
    struct finals finals = {.count = 0};
    if (!search->final) return 0;
    find_finalists(search, result, &finals);
    double round_s = fit_final(search, result, &finals);
    if (!finals.count) return 0;
    arms[0] = arms[1] = &result->trials[result->incumbent];
    for (int f = 0; f < finals.count; f++) arms[f + 2] = &result->trials[finals.trial[f]];
    int status = search->final(search->context, &search->problem, arms, finals.count + 2, round_s, &finals.run);
    if (!status) status = judge(&finals, state->error);
    free(finals.run.sample_us);
    finals.run.sample_us = NULL;
    if (!status) result->finals = finals;
    return status;
}

/* The finalist that is ahead; without one the incumbent, which also wins where the final failed. */
static int final_winner(const struct search_result *result) {
    const struct finals *finals = &result->finals;
    int best = -1;
    for (int f = 0; f < finals->count; f++)
        if (finals->faster[f] && (best < 0 || finals->ratio[f] < finals->ratio[best])) best = f;
    return best < 0 ? result->incumbent : finals->trial[best];
}

static void choose(const struct search *search, struct search_result *result) {
    result->best = leader(search, result);
    if (result->best < 0) return;
    const struct trial *incumbent = result->incumbent < 0 ? NULL : &result->trials[result->incumbent];
    if (result->finals.count)
        result->best = final_winner(result);
    else if (incumbent && wins(search, incumbent) &&
             !trial_faster(&result->trials[result->best].result, &incumbent->result))
        result->best = result->incumbent;
    const struct trial_result *best = &result->trials[result->best].result;
    for (int i = 0; i < result->count; i++)
        result->ties += i != result->best && result->trials[i].result.status == TRIAL_OK &&
                        !trial_faster(best, &result->trials[i].result);
}

void search_replace(struct search_result *result, int trial) {
    const struct trial_result *best = &result->trials[trial].result;
    result->best = trial;
    result->ties = 0;
    for (int i = 0; i < result->count; i++) {
        const struct trial_result *other = &result->trials[i].result;
        result->ties +=
            i != trial && other->status == TRIAL_OK && !trial_faster(best, other) && !trial_faster(other, best);
    }
}

/* Of a trial that worked. */
static double time_of(const struct search_result *result, int trial) {
    const struct finals *finals = &result->finals;
    for (int f = 0; f < finals->count && finals->run.status == TRIAL_OK; f++)
        if (finals->trial[f] == trial) return finals->us[f];
    return trial == result->incumbent && finals->incumbent_us > 0 ? finals->incumbent_us
                                                                  : result->trials[trial].result.us;
}

double search_default_us(const struct search_result *result) {
    if (result->baseline < 0 || result->trials[result->baseline].result.status != TRIAL_OK) return 0;
    return time_of(result, result->baseline);
}

double search_best_us(const struct search_result *result) {
    return time_of(result, result->best);
}

double search_regret(const struct search_result *result) {
    double least = 1;
    if (!result->finals.count && result->best >= 0 && result->incumbent >= 0 &&
        result->trials[result->incumbent].result.status == TRIAL_OK)
        least = result->trials[result->best].result.us / result->trials[result->incumbent].result.us;
    for (int f = 0; f < result->finals.count && result->finals.run.status == TRIAL_OK; f++)
        if (result->finals.faster[f] && result->finals.ratio[f] < least) least = result->finals.ratio[f];
    return 1 / least - 1;
}

static void expect_starts(struct state *state) {
    const struct search *search = state->search;
    for (int i = 0; search->expect && i < search->start_count; i++) {
        const struct candidate start = {.kernel = search->starts[i].kernel, .config = search->starts[i].config};
        if (relevant(search, start.kernel) && legal(search, start.kernel, &start.config)) expect(state, &start);
    }
}

int search_run(const struct search *search, struct search_result *result, struct error *error) {
    *result = (struct search_result){.best = -1, .baseline = -1, .incumbent = -1};
    struct state state = {.search = search, .result = result, .error = error, .expected_leader = -1};
    expect_starts(&state);
    int status = run_baselines(&state);
    if (!status && search->known) {
        status = run_known(&state);
    } else if (!status) {
        status = run_starts(&state);
        if (!status) status = enumerate(&state);
        if (!status) status = explore(&state);
    }
    if (!status) status = run_final(&state);
    choose(search, result);
    free(state.space);
    return status;
}

/* What run_baselines() will try. */
static void expect_baselines(const struct search *search) {
    const struct config none = {{0}};
    struct choice choice;
    if (!choice_default(search->device, search->kernels, &search->problem, &choice, NULL))
        search->expect(search->context, choice.kernel, &search->problem, &choice.config);
    for (int i = 0; search->kernels[i]; i++) {
        const struct kernel *kernel = search->kernels[i];
        if (relevant(search, kernel) && !kernel->parameter_count && legal(search, kernel, &none))
            search->expect(search->context, kernel, &search->problem, &none);
    }
}

int search_outline(const struct search *search, long *space, struct error *error) {
    struct search_result nothing = {.best = -1, .baseline = -1, .incumbent = -1};
    struct state state = {.search = search, .result = &nothing, .error = error, .expected_leader = -1};
    if (search->expect) expect_baselines(search);
    expect_starts(&state);
    int status = enumerate(&state);
    size_t reach = within_reach(&state), starts = (size_t)search->start_count;
    if (!status && search->expect && reach > starts) announce_by_estimate(&state, reach - starts);
    *space = (long)state.space_count;
    free(state.space);
    return status;
}

void search_result_free(struct search_result *result) {
    for (int i = 0; i < result->count; i++) free(result->trials[i].result.sample_us);
    free(result->trials);
    *result = (struct search_result){.best = -1, .baseline = -1, .incumbent = -1};
}
