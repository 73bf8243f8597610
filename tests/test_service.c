/* Winners that hold between a decoder's other kernels: the search on made-up times, and with a worker whose CPU plays
 * graphs, in which kernels behave otherwise than alone. */
#include "tests/stored.h"

#include <signal.h>
#include <sys/prctl.h>

#include "tests/played.h"
#include "tests/told_clock.h"
#include "tuner/service.h"

/* --- the search --- */

static double (*time_of)(const int chosen[CHAIN_GEMMS], int order);
static int calls, failing; /* failing: this candidate of down does not answer */
static int tried[256][CHAIN_GEMMS];

static int made_up(void *context, const int chosen[CHAIN_GEMMS], int order, struct trial_result *result) {
    (void)context;
    double us = time_of(chosen, order);
    memcpy(tried[calls++], chosen, sizeof *tried);
    assert_int_equal(order, calls);
    if (us < 0) return TUNE_INTERRUPTED;
    *result = (struct trial_result){.us = us, .low_us = 0.999 * us, .high_us = 1.001 * us, .seconds = 0.1};
    result->sample_us = malloc(sizeof(float));
    if (failing && chosen[CHAIN_DOWN] == failing) result->status = TRIAL_TIMEOUT;
    return 0;
}

static struct service search(double (*times)(const int chosen[CHAIN_GEMMS], int order), double seconds) {
    struct service s = {.count = {1, 2, 4, 3}, .seconds = seconds, .measure = made_up};
    time_of = times;
    calls = 0;
    assert_int_equal(service_search(&s), 0);
    assert_int_equal(s.measured, calls);
    assert_float_equal(s.spent_s, 0.1 * calls, 1e-9);
    return s;
}

static void expect_chosen(const struct service *s, int o, int gate_up, int down) {
    const int chosen[CHAIN_GEMMS] = {[CHAIN_O] = o, [CHAIN_GATE_UP] = gate_up, [CHAIN_DOWN] = down};
    assert_memory_equal(s->chosen, chosen, sizeof chosen);
}

/* The best of gate_up and of down are not the first ones; o's other is slower. */
static double plain(const int c[CHAIN_GEMMS], int order) {
    static const double gate_up[] = {500, 510, 475, 480}, down[] = {300, 288, 295}, o[] = {100, 103};
    (void)order;
    return 100 + gate_up[c[CHAIN_GATE_UP]] + down[c[CHAIN_DOWN]] + o[c[CHAIN_O]];
}

static void test_better_chains_are_found(void **state) {
    (void)state;
    static const int first[CHAIN_GEMMS];
    struct service s = search(plain, 0);
    expect_chosen(&s, 0, 2, 1);
    assert_true(s.before.us == 1000 && s.after.us == 963);
    assert_memory_equal(tried[0], first, sizeof first);
    assert_memory_equal(tried[calls - 2], first, sizeof first); /* both once more */
    assert_memory_equal(tried[calls - 1], s.chosen, sizeof first);
}

static double within_noise(const int c[CHAIN_GEMMS], int order) {
    (void)order;
    return 1000 - 1.5 * c[CHAIN_GATE_UP] / 3 - 0.4 * c[CHAIN_DOWN];
}

/* A clock that rises makes whatever comes later faster. */
static double drifting(const int c[CHAIN_GEMMS], int order) {
    (void)c;
    return 1000 * (1 - 0.005 * order);
}

/* Steps that do not add up. */
static double deceiving(const int c[CHAIN_GEMMS], int order) {
    return order > 14 ? 1000 : plain(c, order);
}

static void test_noise_replaces_nothing(void **state) {
    (void)state;
    struct service s = search(within_noise, 0);
    expect_chosen(&s, 0, 0, 0);
    assert_true(s.after.us == s.before.us);
    s = search(drifting, 0);
    expect_chosen(&s, 0, 0, 0);
    s = search(deceiving, 0);
    expect_chosen(&s, 0, 0, 0);
    assert_true(calls > 14 && s.after.us == 1000);
}

/* gate_up's third pays only with down's second, which is tried behind it. */
static double entangled(const int c[CHAIN_GEMMS], int order) {
    (void)order;
    return 1000 - 20 * (c[CHAIN_DOWN] == 1) + (c[CHAIN_GATE_UP] == 2 ? c[CHAIN_DOWN] == 1 ? -50 : 50 : 0);
}

static void test_a_second_pass(void **state) {
    (void)state;
    struct service s = search(entangled, 0);
    expect_chosen(&s, 0, 2, 1);
}

static void test_what_fails_is_out(void **state) {
    (void)state;
    int count = 0;
    failing = 1;
    struct service s = search(plain, 0);
    failing = 0;
    expect_chosen(&s, 0, 2, 2);
    for (int i = 0; i < calls; i++) count += tried[i][CHAIN_DOWN] == 1;
    assert_int_equal(count, 1);
}

static double interrupted_at_5(const int c[CHAIN_GEMMS], int order) {
    return order == 5 ? -1 : plain(c, order);
}

static void test_limits(void **state) {
    (void)state;
    struct service s = search(plain, 0.35);
    assert_true(calls <= 4 + 1 + 2);
    expect_chosen(&s, 0, 2, 0);
    s = (struct service){.count = {2, 2, 2, 2}, .measure = made_up};
    time_of = interrupted_at_5;
    calls = 0;
    assert_int_equal(service_search(&s), TUNE_INTERRUPTED);
    assert_int_equal(s.measured, 4);
    s = (struct service){.count = {1, 1, 1, 1}, .measure = made_up};
    assert_int_equal(service_search(&s), 0);
    assert_int_equal(s.measured, 0);
}

/* --- with a worker --- */

/* A device that plays graphs, and whose cache is no reason for more layers. The linker puts it before the real one. */
int __real_device_open(const char *id, struct device **device, struct error *error);
int __wrap_device_open(const char *id, struct device **device, struct error *error);
int __wrap_device_open(const char *id, struct device **device, struct error *error) {
    if (__real_device_open(id, device, error)) return -1;
    play(*device);
    (*device)->cache_bytes = 1 << 10;
    return 0;
}

/* The sanitizer is to behave as the kernel does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "handle_segv=0";
}

/* What a kernel does in a graph, where the fast ones take half as long; alone all are right. */
enum { SLOW, FAST, HANGS, FAULTS, ERRS, KINDS };

static int *volatile nowhere = (int *)8;

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    int kind = plan->config.value[0];
    if (plan_run(plan->state, operands, error)) return -1;
    while (in_graph && kind == HANGS) pause();
    if (in_graph && kind == FAULTS) *nowhere = 1;
    if (in_graph && kind == ERRS) *(uint16_t *)operands->y ^= 0x0400;
    take_us(in_graph && kind == FAST ? 500 : 1000);
    return 0;
}

static int prepare(struct plan *plan, struct error *error) {
    const struct kernel *correct = kernel_find("fp16_gemm/cpu");
    struct config config;
    struct plan *inner = NULL;
    if (config_default(plan->device, correct, &plan->problem, &config, error) ||
        plan_create(plan->device, correct, &plan->problem, &config, &inner, error))
        return -1;
    plan->state = inner;
    plan->workspace_bytes = inner->workspace_bytes;
    return 0;
}

static void release(struct plan *plan) {
    plan_destroy(plan->state);
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)device, (void)problem;
    return config->value[0];
}

static const struct kernel fickle = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CPU,
    .name = "fickle",
    .summary = "for tests",
    .parameter_count = 1,
    .parameters = {{"kind", "what", KINDS, {SLOW, FAST, HANGS, FAULTS, ERRS}}},
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};

static const struct kernel *const kernels[] = {&fickle, NULL};

static struct shape layers[] = {{"qkv", 128, 256, true, EPILOGUE_BIAS, 0},
                                {"o", 128, 128, true, EPILOGUE_RESIDUAL, 0},
                                {"gate_up", 128, 512, true, EPILOGUE_SILU_MUL, 0},
                                {"down", 256, 128, true, EPILOGUE_RESIDUAL, 0}};
static const struct shapes model = {.model = "small", .group = 64, .count = 4, .list = layers};

static volatile sig_atomic_t interrupted;
static double limit_s = 0.5;

enum { ITEMS = 2 * CHAIN_GEMMS };

/* Each M's items; only gate_up has more than the default, which was the fastest alone, and one that is far behind. */
static struct tune_item make_item(int g, int m) {
    struct problem problem = shape_problem(&layers[g], OP_FP16_GEMM, m, 0, false, layers[g].epilogue);
    int count = g == CHAIN_GATE_UP ? KINDS : 1;
    struct tune_item item = {.problem = problem, .m_low = 1, .result = {.count = count}};
    item.result.trials = calloc((size_t)count, sizeof *item.result.trials);
    for (int i = 0; i < count; i++) {
        double us = 100 + i;
        item.result.trials[i] = (struct trial){&fickle, {{(SLOW + i) % KINDS}}, i == 0, 0, {.us = us, .clock = "none"}};
        item.result.trials[i].result.low_us = item.result.trials[i].result.high_us = us;
        item.result.trials[i].result.p20_us = item.result.trials[i].result.p80_us = us;
    }
    return item;
}

struct outcome {
    int status, workers, ties, in_service;
    char gate_up[64], regime[64];
    double us, default_us;
};

static struct outcome choose(int ms, double seconds) {
    struct supervisor supervisor = {.kernels = kernels, .limit_s = limit_s};
    struct progress progress = {.stream = fopen(in_folder("log"), "w")};
    struct tune_item items[ITEMS];
    struct tile_table table;
    struct error error;
    int missing;
    if (supervisor_open(&supervisor, "cpu", &error)) fail_msg("%s", error.text);
    struct tune tune = {.supervisor = &supervisor,
                        .device = &supervisor.device,
                        .scope = {"a GPU", "sm_90a", "01234567", "cold, pdl", "", ""},
                        .progress = &progress,
                        .items = items,
                        .interrupted = &interrupted};
    for (int g = 0; g < CHAIN_GEMMS; g++)
        for (int i = 0; i < ms; i++) items[tune.count++] = make_item(g, 2 << i);
    assert_int_equal(service_count(&tune, &model), ms);
    if (store_open(in_folder("trials.sqlite"), &tune.store, &error)) fail_msg("%s", error.text);
    struct outcome outcome = {.status = service_run(&tune, &model, seconds, &error)};
    if (outcome.status < 0) fail_msg("%s", error.text);
    const struct tune_item *item = &items[ms * CHAIN_GATE_UP];
    const struct trial *best = &item->result.trials[item->result.best];
    config_text(best->kernel, &best->config, outcome.gate_up);
    outcome.workers = supervisor.workers;
    outcome.ties = item->result.ties;
    outcome.us = search_best_us(&item->result);
    outcome.default_us = search_default_us(&item->result);
    for (int i = 0; i < tune.count; i++) outcome.in_service += items[i].in_service;
    assert_int_equal(tune_table(&tune, NULL, &table, &missing, &error), 0);
    strcpy(outcome.regime, table.regime);
    tiles_free(&table);
    for (int i = 0; i < tune.count; i++) search_result_free(&items[i].result);
    store_close(tune.store);
    supervisor_close(&supervisor);
    fclose(progress.stream);
    return outcome;
}

static long stored_chains(void) {
    return stored("SELECT count(*) FROM chains");
}

static void expect_log(const char *text) {
    expect_shell(0, "cat @/log", text);
}

/* The row's times stay what they were alone. */
static void expect_fast(const struct outcome *outcome) {
    assert_int_equal(outcome->status, TUNE_DONE);
    assert_string_equal(outcome->gate_up, "kind=1");
    assert_true(outcome->us == 101 && outcome->default_us == 100);
    assert_int_equal(outcome->ties, 2); /* the two that lie within a percent of it */
    assert_int_equal(outcome->in_service, CHAIN_GEMMS);
    assert_string_equal(outcome->regime, "cold, pdl, none, in service");
    assert_int_equal(stored("SELECT max(id) FROM chains"), stored_chains()); /* none was put twice */
}

static void test_the_chain_decides(void **state) {
    (void)state;
    struct outcome outcome = choose(1, 0);
    expect_fast(&outcome);
    assert_int_equal(stored("SELECT count(*) FROM chains WHERE status = 'timeout' AND gemms LIKE '%kind=2%'"), 1);
    assert_int_equal(stored("SELECT count(*) FROM chains WHERE status = 'runtime' AND gemms LIKE '%kind=3%' AND "
                            "message LIKE '%signal 11%'"),
                     1);
    assert_int_equal(stored("SELECT count(*) FROM chains WHERE status = 'runtime' AND gemms LIKE '%kind=4%' AND "
                            "message LIKE 'wrong: %'"),
                     1);
    assert_int_equal(stored("SELECT count(*) FROM chains WHERE status = 'ok' AND layers = 12 AND samples >= 6"),
                     stored_chains() - 3);
    assert_int_equal(outcome.workers, 1 + 3);
    expect_log("fp16_gemm m=2 in service: a chain is left out: no answer within|us a layer, before |"
               "    gate_up: fp16_gemm/fickle kind=1 in place of fp16_gemm/fickle kind=0");
    int before = stored_chains();
    outcome = choose(1, 0);
    expect_fast(&outcome);
    assert_int_equal(stored_chains(), before);
    assert_int_equal(outcome.workers, 1); /* nobody failed again */
    expect_log(", 0 of them new)");
}

static void test_budget_and_interrupt(void **state) {
    (void)state;
    struct outcome outcome = choose(2, 1e-6);
    assert_int_equal(outcome.status, TUNE_DONE);
    assert_string_equal(outcome.gate_up, "kind=0");
    assert_int_equal(stored_chains(), 1);
    expect_log("m=4 in service: left out: nothing is left of the budget");
    interrupted = 1;
    outcome = choose(2, 0);
    interrupted = 0;
    assert_int_equal(outcome.status, TUNE_INTERRUPTED);
    assert_int_equal(outcome.in_service, 0);
    assert_string_equal(outcome.regime, "cold, pdl, none");
    assert_int_equal(stored_chains(), 1);
}

static void test_killed_and_resumed(void **state) {
    (void)state;
    pid_t child = fork();
    if (!child) {
        limit_s = 600; /* the fourth chain hangs: there it is found */
        choose(1, 0);
        _exit(0);
    }
    while (stored_chains() < 3 && !waitpid(child, NULL, WNOHANG)) usleep(5000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    int status;
    for (pid_t orphan; (orphan = waitpid(-1, &status, 0)) > 0;) continue; /* its worker, which became ours */
    int before = stored_chains();
    assert_int_equal(before, 3);
    struct outcome outcome = choose(1, 0);
    expect_fast(&outcome);
    assert_true(stored_chains() > before);
}

static void test_what_has_a_chain(void **state) {
    (void)state;
    struct tune_item items[CHAIN_GEMMS];
    struct tune tune = {.items = items, .count = CHAIN_GEMMS};
    struct shapes three = model;
    for (int g = 0; g < CHAIN_GEMMS; g++) items[g] = make_item(g, 64);
    assert_int_equal(service_count(&tune, &model), 1);
    items[CHAIN_O].inserted = true;
    assert_int_equal(service_count(&tune, &model), 0);
    items[CHAIN_O].inserted = false;
    items[CHAIN_DOWN].problem.m = 32;
    assert_int_equal(service_count(&tune, &model), 0);
    for (int g = 0; g < CHAIN_GEMMS; g++) items[g].problem.m = 65;
    assert_int_equal(service_count(&tune, &model), 0);
    for (int g = 0; g < CHAIN_GEMMS; g++) items[g].problem.m = 1;
    three.count = 3;
    assert_int_equal(service_count(&tune, &three), 0);
    assert_int_equal(service_count(&tune, &model), 1);
    for (int g = 0; g < CHAIN_GEMMS; g++) search_result_free(&items[g].result);
}

int main(int argc, char **argv) {
    int served = serve_told(argc, argv, kernels);
    if (served >= 0) return served;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_better_chains_are_found),
        cmocka_unit_test(test_noise_replaces_nothing),
        cmocka_unit_test(test_a_second_pass),
        cmocka_unit_test(test_what_fails_is_out),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_what_has_a_chain),
        TEST(test_the_chain_decides),
        TEST(test_budget_and_interrupt),
        TEST(test_killed_and_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
