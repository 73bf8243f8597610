/* The search on surfaces that are known: no clock, no device. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tuner/calibrate.h"

static const struct device device = {.backend = BACKEND_CPU, .id = "test"};

/* A convex surface over 10 x 10 x 10 values with its least time at (5, 7, 2). */
static double surface(const struct config *c) {
    double a = c->value[0] - 5, b = c->value[1] - 7, d = c->value[2] - 2;
    return 10 + a * a + 2 * b * b + 3 * d * d;
}

static double flat(const struct config *c) {
    (void)c;
    return 100;
}

/* The default takes a millisecond. */
static double slow_surface(const struct config *c) {
    return surface(c) * 1000 / 145;
}

static double estimate_far_off(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d, (void)p;
    return c->value[0] + c->value[1] + 10 * c->value[2]; /* believes in (0, 0, 0) */
}

static double estimate_true(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d, (void)p;
    return surface(c);
}

static int legal_even(const struct device *d, const struct problem *p, const struct config *c, struct error *why) {
    (void)d;
    if (p->m < 8 && c->value[0] > 4) return error_set(why, "a above 4 needs m from 8");
    return c->value[1] % 2 ? error_set(why, "b is odd") : 0;
}

static int legal_never(const struct device *d, const struct problem *p, const struct config *c, struct error *why) {
    (void)d, (void)p, (void)c;
    return error_set(why, "no day is a good day");
}

static int never_run(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)plan, (void)operands;
    return error_set(error, "not for running");
}

#define DIGITS                                                                                                         \
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }
#define PARAMETERS                                                                                                     \
    {                                                                                                                  \
        {"a", "-", 10, DIGITS}, {"b", "-", 10, DIGITS}, {                                                              \
            "c", "-", 10, DIGITS                                                                                       \
        }                                                                                                              \
    }

static const struct kernel misled = {.op = OP_MARLIN_GEMM,
                                     .backend = BACKEND_CPU,
                                     .name = "misled",
                                     .parameter_count = 3,
                                     .parameters = PARAMETERS,
                                     .estimate = estimate_far_off,
                                     .run = never_run};
static const struct kernel knowing = {.op = OP_MARLIN_GEMM,
                                      .backend = BACKEND_CPU,
                                      .name = "knowing",
                                      .parameter_count = 3,
                                      .parameters = PARAMETERS,
                                      .estimate = estimate_true,
                                      .run = never_run};
static const struct kernel picky = {.op = OP_MARLIN_GEMM,
                                    .backend = BACKEND_CPU,
                                    .name = "picky",
                                    .parameter_count = 3,
                                    .parameters = PARAMETERS,
                                    .legal = legal_even,
                                    .estimate = estimate_far_off,
                                    .run = never_run};
static const struct kernel plain = {
    .op = OP_MARLIN_GEMM, .backend = BACKEND_CPU, .name = "plain", .estimate = estimate_far_off, .run = never_run};
static const struct kernel elsewhere = {
    .op = OP_FP16_GEMM, .backend = BACKEND_CPU, .name = "elsewhere", .estimate = estimate_far_off, .run = never_run};

/* What the trials answer. */
struct oracle {
    double (*time)(const struct config *config);
    double noise;     /* +- share of the time, different at each trial */
    double seconds;   /* cost of a trial */
    double beaten_us; /* as the last one was told */
    int calls, stop_after;
    bool (*fails)(const struct config *config);
};

static int ask(void *context, const struct kernel *kernel, const struct problem *problem, const struct config *config,
               double beaten_us, struct trial_result *result) {
    struct oracle *oracle = context;
    oracle->beaten_us = beaten_us;
    assert_int_equal(kernel->op, problem->op);
    if (oracle->stop_after && oracle->calls == oracle->stop_after) return 5;
    double wave = (double)(oracle->calls++ * 7919 % 201 - 100) / 100;
    *result = (struct trial_result){.seconds = oracle->seconds};
    if (oracle->fails && oracle->fails(config)) {
        result->status = TRIAL_CORRECTNESS;
        result->us = 0.001; /* a wrong kernel may be fast */
        return 0;
    }
    result->us = (kernel->parameter_count ? oracle->time(config) : 50) * (1 + wave * oracle->noise);
    double spread = result->us * (oracle->noise > 0 ? oracle->noise : 0.001);
    result->low_us = result->p20_us = result->us - spread;
    result->high_us = result->p80_us = result->us + spread;
    return 0;
}

static struct search make(const struct kernel *const *kernels, struct oracle *oracle, int trials) {
    return (struct search){.device = &device,
                           .kernels = kernels,
                           .problem = {OP_MARLIN_GEMM, 16, 64, 128, 128, true, EPILOGUE_NONE},
                           .m_low = 1,
                           .trials = trials,
                           .trial = ask,
                           .context = oracle};
}

static void expect_config(const struct trial *trial, int a, int b, int c) {
    if (trial->config.value[0] != a || trial->config.value[1] != b || trial->config.value[2] != c)
        fail_msg("found (%d, %d, %d) and not (%d, %d, %d)", trial->config.value[0], trial->config.value[1],
                 trial->config.value[2], a, b, c);
}

/* What a final answers: each arm's time, times what drifts by `drift` a round, and what it does wrong. */
struct stage {
    struct oracle oracle;
    double us[FINALISTS + 2];
    double drift; /* a round */
    double round_s;
    int finals, arms, stop;
    enum trial_status status;
    struct config seen[FINALISTS + 2];
};

static int ask_stage(void *context, const struct kernel *k, const struct problem *p, const struct config *c,
                     double beaten_us, struct trial_result *result) {
    return ask(&((struct stage *)context)->oracle, k, p, c, beaten_us, result);
}

static int play(void *context, const struct problem *problem, const struct trial *const *arms, int count,
                double round_s, struct trial_result *result) {
    struct stage *stage = context;
    stage->round_s = round_s;
    assert_int_equal(problem->op, OP_MARLIN_GEMM);
    assert_true(arms[0] == arms[1] && arms[0]->is_default);
    stage->finals++;
    stage->arms = count;
    if (stage->stop) return stage->stop;
    *result = (struct trial_result){.status = stage->status, .seconds = 3};
    if (stage->status != TRIAL_OK) return 0;
    result->samples = count * FINAL_ROUNDS;
    result->sample_us = calloc((size_t)result->samples, sizeof *result->sample_us);
    for (int arm = 0; arm < count; arm++) {
        stage->seen[arm] = arms[arm]->config;
        for (int r = 0; r < FINAL_ROUNDS; r++)
            result->sample_us[arm * FINAL_ROUNDS + r] = (float)(stage->us[arm] * (1 + stage->drift * r));
    }
    return 0;
}

static struct search make_stage(const struct kernel *const *kernels, struct stage *stage, int trials) {
    struct search search = make(kernels, &stage->oracle, trials);
    search.trial = ask_stage;
    search.final = play;
    search.context = stage;
    return search;
}

static void test_the_final_decides(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct stage stage = {.oracle = {.time = surface}, .us = {120, 121, 80}, .drift = 0.3};
    struct search search = make_stage(kernels, &stage, 160);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.finals, 1);
    assert_int_equal(stage.arms, 3); /* nothing is as fast as the optimum */
    assert_int_equal(result.finals.count, 1);
    expect_config(&result.trials[result.best], 5, 7, 2);
    assert_true(search_best_us(&result) == (float)(80 * (1 + stage.drift * (FINAL_ROUNDS / 2))));
    assert_true(search_default_us(&result) > search_best_us(&result));
    assert_true(result.finals.ratio[0] > 0.65 && result.finals.ratio[0] < 0.67); /* the drift is none of it */
    search_result_free(&result);
    /* A trial that was lucky. */
    stage.us[2] = 121;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.best, result.baseline);
    assert_true(result.ties >= 1 && search_best_us(&result) == search_default_us(&result));
    search_result_free(&result);
    /* Ahead by less than the default is from itself. */
    stage.us[1] = 100, stage.us[2] = 108;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.best, result.baseline);
    search_result_free(&result);
}

static void test_the_best_of_several_finalists(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct stage stage = {.oracle = {.time = surface, .noise = 0.3}, .us = {120, 120, 90, 80, 100}};
    struct search search = make_stage(kernels, &stage, 100);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.arms, FINALISTS + 2);
    for (int f = 1; f < FINALISTS; f++)
        assert_true(result.trials[result.finals.trial[f - 1]].result.us <=
                    result.trials[result.finals.trial[f]].result.us);
    assert_int_equal(result.best, result.finals.trial[1]);
    assert_memory_equal(&result.trials[result.best].config, &stage.seen[3], sizeof stage.seen[3]);
    search.finalists = 1;
    struct search_result one;
    stage.oracle.calls = 0;
    assert_int_equal(search_run(&search, &one, NULL), 0);
    assert_int_equal(stage.arms, 1 + 2);
    assert_int_equal(one.finals.trial[0], result.finals.trial[0]);
    search_result_free(&one);
    search_result_free(&result);
}

/* Where time is short there are fewer finalists, then shorter rounds, then none; slow calls make rounds longer. */
static void test_a_final_fits_its_time(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct stage stage = {.oracle = {.time = surface, .noise = 0.3}, .us = {120, 120, 90, 80, 100}};
    struct search search = make_stage(kernels, &stage, 100);
    const struct {
        double seconds, round_s;
        int arms;
    } cases[] = {
        {0, 0, 5}, {1, 0, 5}, {0.3, 0.3 / 45 - 0.002, 5}, {0.15, 0.15 / 36 - 0.002, 4}, {0.11, 0.11 / 27 - 0.002, 3}};
    for (int i = 0; i < 5; i++) {
        struct search_result result;
        search.final_seconds = cases[i].seconds;
        stage.oracle.calls = 0;
        assert_int_equal(search_run(&search, &result, NULL), 0);
        assert_int_equal(stage.finals, i + 1);
        assert_int_equal(stage.arms, cases[i].arms);
        assert_true(fabs(stage.round_s - cases[i].round_s) < 1e-9);
        search_result_free(&result);
    }
    struct search_result result;
    search.final_seconds = 0.1;
    stage.oracle.calls = 0;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.finals, 5);
    const struct trial_result *best = &result.trials[result.best].result;
    const struct trial_result *incumbent = &result.trials[result.baseline].result;
    assert_true(trial_faster(best, incumbent)); /* trials decide, and say what the default loses */
    assert_true(search_regret(&result) == 1 / (best->us / incumbent->us) - 1);
    search_result_free(&result);
    /* Calls of a millisecond: a round has eight at least. */
    stage.oracle.time = slow_surface;
    stage.oracle.noise = 0;
    search.final_seconds = 0.3;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.finals, 6);
    assert_int_equal(stage.arms, 3);
    search_result_free(&result);
    search.final_seconds = 0.25;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.finals, 6);
    search_result_free(&result);
}

/* What lies within the noise of the default's trial is not worth a final. */
static void test_no_final_without_a_lead(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct stage stage = {.oracle = {.time = flat, .noise = 0.1}, .us = {120, 120, 90, 80, 100}};
    struct search search = make_stage(kernels, &stage, 100);
    struct search_result result;
    int ahead = 0;
    stage.oracle.calls = 50;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    for (int i = 0; i < result.count; i++) ahead += result.trials[i].result.us < result.trials[0].result.us;
    assert_true(ahead > 0);
    assert_int_equal(stage.finals, 0);
    assert_int_equal(result.best, result.baseline);
    assert_true(search_regret(&result) == 0);
    search_result_free(&result);
}

static void test_a_final_that_fails_or_is_stopped(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL}, *sure[] = {&knowing, NULL};
    struct stage stage = {.oracle = {.time = surface}, .status = TRIAL_RUNTIME};
    struct search search = make_stage(kernels, &stage, 160);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.best, result.baseline);
    assert_true(search_default_us(&result) == result.trials[result.baseline].result.us);
    search_result_free(&result);
    stage.stop = 5; /* what the trials say stays */
    assert_int_equal(search_run(&search, &result, NULL), 5);
    assert_int_equal(result.finals.count, 0);
    expect_config(&result.trials[result.best], 5, 7, 2);
    search_result_free(&result);
    stage.finals = 0;
    search.kernels = sure; /* the default is the fastest: no final */
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(stage.finals, 0);
    assert_int_equal(result.best, result.baseline);
    search_result_free(&result);
}

static void test_finds_the_optimum_in_spite_of_the_estimate(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&elsewhere, &misled, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 160);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 160);
    assert_true(result.trials[0].is_default);
    assert_int_equal(result.baseline, 0);
    expect_config(&result.trials[result.best], 5, 7, 2);
    assert_int_equal(result.ties, 0);
    search_result_free(&result);
}

/* What was announced, before the trial that it is for. */
struct announcements {
    struct oracle oracle;
    const struct kernel *kernels[512];
    struct config expected[512];
    int count, surprises;
};

static void note(void *context, const struct kernel *kernel, const struct problem *problem,
                 const struct config *config) {
    (void)problem;
    struct announcements *notes = context;
    assert_true(kernel == &misled || kernel == &plain);
    assert_in_range(notes->count, 0, 511);
    notes->kernels[notes->count] = kernel;
    notes->expected[notes->count++] = *config;
}

static int ask_and_look_up(void *context, const struct kernel *kernel, const struct problem *problem,
                           const struct config *config, double beaten_us, struct trial_result *result) {
    struct announcements *notes = context;
    bool known = false;
    for (int i = 0; i < notes->count; i++) known |= !memcmp(&notes->expected[i], config, sizeof *config);
    notes->surprises += !known;
    return ask(&notes->oracle, kernel, problem, config, beaten_us, result);
}

static void test_announces_what_it_will_try(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct announcements notes = {.oracle = {.time = surface}};
    struct search quiet = make(kernels, &notes.oracle, 60), telling = quiet;
    struct search_result silent, told;
    telling.trial = ask_and_look_up;
    telling.expect = note;
    telling.context = &notes;
    assert_int_equal(search_run(&quiet, &silent, NULL), 0);
    assert_int_equal(search_run(&telling, &told, NULL), 0);
    /* Only the default comes unannounced, and telling changes nothing. */
    assert_int_equal(notes.surprises, 1);
    assert_int_equal(told.count, silent.count);
    for (int i = 0; i < told.count; i++)
        assert_memory_equal(&told.trials[i].config, &silent.trials[i].config, sizeof(struct config));
    assert_in_range(notes.count, 59, 200);
    search_result_free(&silent);
    search_result_free(&told);
}

/* The default, the starts, then the estimate's first, as many as the limits let through; nothing is tried. */
static void test_outline(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, &elsewhere, NULL};
    const struct search_start starts[] = {{&misled, {{5, 7, 2}}, true}, {.kernel = &elsewhere}};
    struct announcements notes = {.count = 0};
    struct search search = make(kernels, &notes.oracle, 6);
    long space = 0;
    search.starts = starts;
    search.start_count = 2;
    search.expect = note;
    search.context = &notes;
    assert_int_equal(search_outline(&search, &space, NULL), 0);
    assert_int_equal(space, 1000);
    assert_int_equal(notes.count, 2 + 4);
    assert_memory_equal(&notes.expected[0], (&(struct config){{0, 0, 0}}), sizeof(struct config));
    assert_memory_equal(&notes.expected[1], &starts[0].config, sizeof(struct config));
    assert_memory_equal(&notes.expected[3], (&(struct config){{0, 1, 0}}), sizeof(struct config));
    assert_int_equal(notes.oracle.calls, 0);
    search.trials = 0;
    search.seconds = 0.401; /* of 0.04 a trial at least */
    notes.count = 0;
    assert_int_equal(search_outline(&search, &space, NULL), 0);
    assert_int_equal(notes.count, 2 + 9);
    search.expect = NULL;
    search.m_low = 1;
    kernels[0] = &picky;
    assert_int_equal(search_outline(&search, &space, NULL), 0);
    assert_int_equal(space, 5 * 5 * 10);
}

/* A kernel without parameters is tried early, whatever its estimate. */
static void test_outline_of_baselines(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&elsewhere, &misled, &plain, NULL};
    struct announcements notes = {.count = 0};
    struct search search = make(kernels, &notes.oracle, 0);
    long space;
    search.seconds = 0.001;
    search.expect = note;
    search.context = &notes;
    assert_int_equal(search_outline(&search, &space, NULL), 0);
    assert_ptr_equal(notes.kernels[0], &misled);
    assert_ptr_equal(notes.kernels[1], &plain);
}

static void test_a_good_estimate_needs_one_trial(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&knowing, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 1);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 1);
    expect_config(&result.trials[result.best], 5, 7, 2);
    search_result_free(&result);
}

/* Behind the default, in their order, as far as they are legal; beyond the limits only those that are tried always. */
static void test_starts(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&picky, NULL};
    const struct search_start starts[] = {{.kernel = &elsewhere},       {&picky, {{4, 6, 2}}, false},
                                          {&picky, {{4, 5, 2}}, true},                                /* b is odd */
                                          {&picky, {{4, 8, 2}}, false}, {&picky, {{0, 0, 0}}, false}, /* the default */
                                          {&picky, {{3, 8, 2}}, true}};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 5);
    struct search_result result;
    search.starts = starts;
    search.start_count = 6;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 5);
    assert_true(result.trials[0].is_default);
    expect_config(&result.trials[1], 4, 6, 2);
    expect_config(&result.trials[2], 4, 8, 2);
    expect_config(&result.trials[3], 3, 8, 2);
    expect_config(&result.trials[4], 1, 0, 0); /* the estimate's next */
    assert_int_equal(result.best, 1);
    search_result_free(&result);
    search.trials = 2;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 3);
    expect_config(&result.trials[1], 4, 6, 2);
    expect_config(&result.trials[2], 3, 8, 2);
    search_result_free(&result);
}

static void test_baselines_come_first_whatever_the_limit(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, &knowing, &plain, NULL};
    struct oracle oracle = {.time = surface, .seconds = 9};
    struct search search = make(kernels, &oracle, 1);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 2);
    assert_ptr_equal(result.trials[0].kernel, &misled);
    assert_ptr_equal(result.trials[1].kernel, &plain);
    assert_false(result.trials[1].is_default);
    assert_ptr_equal(result.trials[result.best].kernel, &plain);
    search_result_free(&result);
}

static void test_noise_does_not_replace_the_default(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    for (int percent = 1; percent <= 20; percent++) {
        struct oracle oracle = {.time = flat, .noise = percent / 100.0, .calls = percent};
        struct search search = make(kernels, &oracle, 200);
        struct search_result result;
        assert_int_equal(search_run(&search, &result, NULL), 0);
        assert_int_equal(result.best, 0);
        assert_true(result.trials[0].is_default);
        assert_int_equal(result.ties, 199);
        search_result_free(&result);
    }
}

static void test_faster_needs_more_than_the_noise(void **state) {
    (void)state;
    struct trial_result slow = {.us = 100, .p20_us = 98, .p80_us = 102, .low_us = 99, .high_us = 101};
    struct trial_result fast = {.us = 97.5, .p20_us = 96, .p80_us = 98.5, .low_us = 97, .high_us = 98};
    assert_true(trial_faster(&fast, &slow));
    assert_false(trial_faster(&slow, &fast));
    fast.high_us = 99.5;
    assert_false(trial_faster(&fast, &slow));
    fast.p80_us = 97.9;
    assert_true(trial_faster(&fast, &slow));
    fast.us = 99.5; /* apart, but by less than two runs of the same code differ */
    assert_false(trial_faster(&fast, &slow));
}

static bool best_is_wrong(const struct config *c) {
    return c->value[0] == 5 && c->value[1] == 7;
}

static bool all_wrong(const struct config *c) {
    (void)c;
    return true;
}

static void test_failures_are_recorded_and_never_win(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&knowing, NULL};
    struct oracle oracle = {.time = surface, .fails = best_is_wrong};
    struct search search = make(kernels, &oracle, 100);
    struct search_result result;
    int wrong = 0;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    for (int i = 0; i < result.count; i++) wrong += result.trials[i].result.status == TRIAL_CORRECTNESS;
    assert_true(wrong > 0);
    assert_int_equal(result.trials[result.baseline].result.status, TRIAL_CORRECTNESS);
    assert_true(result.best > 0);
    assert_int_equal(result.trials[result.best].result.status, TRIAL_OK);
    assert_true(result.trials[result.best].result.us == 11);
    search_result_free(&result);
    oracle = (struct oracle){.time = surface, .fails = all_wrong};
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 100);
    assert_int_equal(result.best, -1);
    search_result_free(&result);
}

static void test_only_legal_configurations_of_the_whole_range(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&picky, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 0);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 5 * 5 * 10);
    expect_config(&result.trials[result.best], 4, 6, 2);
    search_result_free(&result);
    search.m_low = 8;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 10 * 5 * 10);
    for (int i = 0; i < result.count; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(&result.trials[i].config, &result.trials[j].config, sizeof(struct config));
    search_result_free(&result);
}

static void test_time_limit(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface, .seconds = 0.5};
    struct search search = make(kernels, &oracle, 0);
    search.seconds = 10;
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 20);
    assert_true(result.trials[19].elapsed_s == 10 && result.trials[0].elapsed_s == 0.5);
    search_result_free(&result);
}

static void test_same_results_same_path(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, &plain, NULL};
    struct search_result first, second;
    struct oracle oracle = {.time = surface, .noise = 0.05};
    struct search search = make(kernels, &oracle, 60);
    assert_int_equal(search_run(&search, &first, NULL), 0);
    oracle.calls = 0;
    assert_int_equal(search_run(&search, &second, NULL), 0);
    assert_int_equal(first.count, second.count);
    for (int i = 0; i < first.count; i++)
        assert_memory_equal(&first.trials[i].config, &second.trials[i].config, sizeof(struct config));
    assert_int_equal(first.best, second.best);
    search_result_free(&first);
    search_result_free(&second);
}

static bool same_trials(const struct search_result *a, const struct search_result *b, int count) {
    for (int i = 0; i < count; i++)
        if (memcmp(&a->trials[i].config, &b->trials[i].config, sizeof(struct config))) return false;
    return true;
}

/* Racing goes the same way, and its trials hear what they need not exceed. */
static void test_racing(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface, .noise = 0.01};
    struct search search = make(kernels, &oracle, 100);
    struct search_result guided, racing;
    assert_int_equal(search_run(&search, &guided, NULL), 0);
    assert_true(oracle.beaten_us == 0);
    search.strategy = STRATEGY_RACING;
    oracle.calls = 0;
    assert_int_equal(search_run(&search, &racing, NULL), 0);
    assert_true(same_trials(&guided, &racing, 100));
    double high_us = HUGE_VAL, us = HUGE_VAL;
    for (int i = 0; i < 99; i++) {
        if (racing.trials[i].result.us < us) high_us = racing.trials[i].result.high_us;
        us = fmin(us, racing.trials[i].result.us);
    }
    assert_true(fabs(oracle.beaten_us - high_us / 0.99) < 1e-9 * high_us);
    search_result_free(&racing);
    const struct trial known[] = {{.kernel = &misled, .config = {{5, 7, 2}}},
                                  {.kernel = &misled, .config = {{9, 9, 9}}}};
    search.known = known, search.known_count = 2; /* these are to be compared, not raced */
    assert_int_equal(search_run(&search, &racing, NULL), 0);
    assert_int_equal(racing.count, 3);
    assert_true(oracle.beaten_us == 0);
    search_result_free(&racing);
    search.known = NULL;
    search.trials = 1; /* there is no leader yet */
    assert_int_equal(search_run(&search, &racing, NULL), 0);
    assert_true(oracle.beaten_us == 0);
    search_result_free(&racing);
    search_result_free(&guided);
}

/* Everything once, the least estimate first, whatever leads. */
static void test_exhaustive(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 0);
    struct search_result result;
    search.strategy = STRATEGY_EXHAUSTIVE;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    assert_int_equal(result.count, 1000);
    for (int i = 2; i < 1000; i++)
        assert_true(estimate_far_off(NULL, NULL, &result.trials[i - 1].config) <=
                    estimate_far_off(NULL, NULL, &result.trials[i].config));
    search_result_free(&result);
}

/* Behind the default, which is the estimate's alone. */
static void test_a_calibration_orders(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 2);
    struct search_result result;
    struct calibration *calibration = calibration_create(&device, kernels, &search.problem);
    for (long i = 0; i < config_space(&misled); i++) { /* where c = 0 everything takes a thousand times longer */
        struct config config = config_at(&misled, i);
        double us = estimate_far_off(NULL, NULL, &config) * (config.value[2] ? 1 : 1000);
        calibration_add(calibration, &misled, &search.problem, &config, us);
    }
    calibration_solve(calibration);
    search.calibration = calibration;
    assert_int_equal(search_run(&search, &result, NULL), 0);
    expect_config(&result.trials[0], 0, 0, 0);
    assert_true(result.trials[1].config.value[2] > 0);
    search_result_free(&result);
    calibration_free(calibration);
}

/* In an order that says nothing, is the same each time and another one for another problem. */
static void test_random(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 300);
    struct search_result first, second;
    double sum = 0;
    search.strategy = STRATEGY_RANDOM;
    assert_int_equal(search_run(&search, &first, NULL), 0);
    assert_int_equal(search_run(&search, &second, NULL), 0);
    assert_true(same_trials(&first, &second, 300));
    search_result_free(&second);
    search.problem.m++;
    assert_int_equal(search_run(&search, &second, NULL), 0);
    assert_false(same_trials(&first, &second, 2)); /* the first is the default */
    for (int i = 1; i < 300; i++) sum += estimate_far_off(NULL, NULL, &first.trials[i].config);
    assert_true(fabs(sum / 299 - 54) < 6); /* the mean of all; its standard error is 1.7 */
    search_result_free(&first);
    search_result_free(&second);
}

static void test_strategies_have_names(void **state) {
    (void)state;
    enum strategy strategy;
    struct error error;
    for (int s = 0; s < STRATEGIES; s++) {
        assert_int_equal(strategy_parse(strategy_name((enum strategy)s), &strategy, NULL), 0);
        assert_int_equal(strategy, s);
    }
    assert_int_equal(strategy_parse("genetic", &strategy, &error), -1);
    assert_non_null(strstr(error.text, "'genetic'; accepted: guided, racing, random, exhaustive"));
}

static void test_a_larger_limit_goes_on(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, &plain, NULL};
    struct search_result small, large;
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 15);
    assert_int_equal(search_run(&search, &small, NULL), 0);
    search.trials = 40;
    assert_int_equal(search_run(&search, &large, NULL), 0);
    assert_int_equal(large.count, 40);
    for (int i = 0; i < small.count; i++)
        assert_memory_equal(&small.trials[i].config, &large.trials[i].config, sizeof(struct config));
    search_result_free(&small);
    search_result_free(&large);
}

static void test_stopping_keeps_what_was_found(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&misled, NULL};
    struct oracle oracle = {.time = surface, .stop_after = 7};
    struct search search = make(kernels, &oracle, 60);
    struct search_result result;
    assert_int_equal(search_run(&search, &result, NULL), 5);
    assert_int_equal(result.count, 7);
    assert_true(result.best >= 0);
    search_result_free(&result);
}

static void test_nothing_legal(void **state) {
    (void)state;
    struct kernel hopeless = misled;
    hopeless.legal = legal_never;
    const struct kernel *kernels[] = {&hopeless, NULL, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 10);
    struct search_result result;
    struct error error;
    assert_int_equal(search_run(&search, &result, &error), 0);
    assert_int_equal(result.count, 0);
    assert_int_equal(result.best, -1);
    assert_non_null(strstr(error.text, "no day is a good day"));
    search_result_free(&result);
    kernels[1] = &knowing; /* another kernel can, and its estimate is the default then */
    assert_int_equal(search_run(&search, &result, &error), 0);
    assert_int_equal(result.count, 10);
    assert_int_equal(result.baseline, 0);
    expect_config(&result.trials[result.best], 5, 7, 2);
    search_result_free(&result);
}

static void test_no_kernel(void **state) {
    (void)state;
    const struct kernel *kernels[] = {&elsewhere, NULL};
    struct oracle oracle = {.time = surface};
    struct search search = make(kernels, &oracle, 10);
    struct search_result result;
    struct error error;
    assert_int_equal(search_run(&search, &result, &error), -1);
    assert_non_null(strstr(error.text, "no kernel computes marlin_gemm on test"));
    assert_int_equal(result.best, -1);
    search_result_free(&result);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_the_optimum_in_spite_of_the_estimate),
        cmocka_unit_test(test_the_final_decides),
        cmocka_unit_test(test_the_best_of_several_finalists),
        cmocka_unit_test(test_a_final_fits_its_time),
        cmocka_unit_test(test_no_final_without_a_lead),
        cmocka_unit_test(test_a_final_that_fails_or_is_stopped),
        cmocka_unit_test(test_announces_what_it_will_try),
        cmocka_unit_test(test_outline),
        cmocka_unit_test(test_outline_of_baselines),
        cmocka_unit_test(test_a_good_estimate_needs_one_trial),
        cmocka_unit_test(test_starts),
        cmocka_unit_test(test_baselines_come_first_whatever_the_limit),
        cmocka_unit_test(test_noise_does_not_replace_the_default),
        cmocka_unit_test(test_faster_needs_more_than_the_noise),
        cmocka_unit_test(test_failures_are_recorded_and_never_win),
        cmocka_unit_test(test_only_legal_configurations_of_the_whole_range),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_same_results_same_path),
        cmocka_unit_test(test_racing),
        cmocka_unit_test(test_exhaustive),
        cmocka_unit_test(test_a_calibration_orders),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_strategies_have_names),
        cmocka_unit_test(test_a_larger_limit_goes_on),
        cmocka_unit_test(test_stopping_keeps_what_was_found),
        cmocka_unit_test(test_nothing_legal),
        cmocka_unit_test(test_no_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
