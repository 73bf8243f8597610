/* The queue of what is compiled ahead, with a compiler that notes what it is given and waits to be let go on. */
#include "tests/command.h"

#include <pthread.h>

#include "tuner/tune.h"

static const struct device device = {.backend = BACKEND_CUDA, .id = "test"};

/* The grid follows m, the code does not. */
static void launch(const struct device *d, const struct problem *p, const struct config *c, struct launch *launch) {
    (void)d, (void)c;
    launch->source = "test.cu";
    launch->grid.blocks[0] = (unsigned)p->m;
}

static const struct kernel kernel = {.op = OP_FP16_GEMM,
                                     .backend = BACKEND_CUDA,
                                     .name = "test",
                                     .parameter_count = 1,
                                     .parameters = {{"value", "-", 1, {0}}},
                                     .launch = launch};
static const struct kernel library = {.op = OP_FP16_GEMM, .backend = BACKEND_CUDA, .name = "library"};

static int compile_launches(const struct device *d, const struct problem *p, const struct config *c,
                            struct error *error) {
    (void)d, (void)p, (void)c, (void)error;
    return 0;
}

/* Launches of its own. */
static const struct kernel several = {
    .op = OP_FP16_GEMM, .backend = BACKEND_CUDA, .name = "several", .compile = compile_launches};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int compiled[8192], count; /* in the order they were begun */
    int let;                   /* so many may end */
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int compile(const struct device *d, const struct kernel *k, const struct problem *p, const struct config *c,
                   struct error *error) {
    assert_true(d == &device && (k == &kernel || k == &several) && p->k == 128 && !error);
    pthread_mutex_lock(&gate.mutex);
    int number = gate.count++;
    gate.compiled[number] = c->value[0];
    pthread_cond_broadcast(&gate.changed);
    while (gate.let <= number) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
    return -1; /* nobody is told */
}

static void let(int count) {
    pthread_mutex_lock(&gate.mutex);
    gate.let = count;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.mutex);
}

static void await_begun(int count) {
    pthread_mutex_lock(&gate.mutex);
    while (gate.count < count) pthread_cond_wait(&gate.changed, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);
}

static struct problem at(int m) {
    return (struct problem){OP_FP16_GEMM, m, 64, 128, 0, false, EPILOGUE_NONE};
}

static void plan(struct ahead *ahead, int turn, int value) {
    const struct problem problem = at(turn + 1);
    ahead_plan(ahead, turn, &kernel, &problem, &(struct config){{value}});
}

static void announce(struct ahead *ahead, int value) {
    const struct problem problem = at(1);
    ahead_announce(ahead, &kernel, &problem, &(struct config){{value}});
}

/* One thread, and the first job holds it. */
static struct ahead *begin(void) {
    gate.count = gate.let = 0;
    struct ahead *ahead = ahead_create(&device, compile, 1);
    assert_non_null(ahead);
    plan(ahead, 0, 100);
    await_begun(1);
    return ahead;
}

static void expect_compiled(struct ahead *ahead, const int *values, int count) {
    let(8192);
    ahead_wait(ahead);
    ahead_destroy(ahead);
    assert_int_equal(gate.count, count);
    for (int i = 0; i < count; i++) assert_int_equal(gate.compiled[i], values[i]);
}

static void test_once_and_in_order(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    const struct problem problem = at(1);
    ahead_plan(ahead, 0, &library, &problem, &(struct config){{0}}); /* has no device code */
    for (int turn = 0; turn < 3; turn++)
        for (int value = 1; value <= 2 + turn; value++) plan(ahead, turn, value);
    plan(ahead, 3, 100); /* runs */
    expect_compiled(ahead, (int[]){100, 1, 2, 3, 4}, 5);
}

/* What compiles code without being one launch: each problem once. */
static void test_kernels_of_several_launches(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    const struct config config = {{0}};
    for (int m = 1; m <= 4; m++) {
        const struct problem problem = at(m / 2);
        ahead_plan(ahead, 0, &several, &problem, &config);
    }
    expect_compiled(ahead, (int[]){100, 0, 0, 0}, 4);
    assert_int_equal(plan_compile(&device, &several, &(struct problem){.m = 1}, &config, NULL), 0);
    assert_int_equal(plan_compile(&device, &library, &(struct problem){.m = 1}, &config, NULL), 0);
}

/* The first four of each turn, then the next; what another turn begins with comes early. */
static void test_waves(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    for (int value = 1; value <= 6; value++) plan(ahead, 1, value);
    for (int value = 11; value <= 15; value++) plan(ahead, 2, value);
    plan(ahead, 3, 6);
    expect_compiled(ahead, (int[]){100, 1, 2, 3, 4, 6, 11, 12, 13, 14, 5, 15}, 12);
}

static void test_announced_ones_go_first(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    for (int value = 1; value <= 4; value++) plan(ahead, value, value);
    announce(ahead, 7);
    announce(ahead, 3); /* moves */
    expect_compiled(ahead, (int[]){100, 3, 7, 1, 2, 4}, 6);
}

/* What no later problem needs is forgotten. */
static void test_turns(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    plan(ahead, 0, 1);
    plan(ahead, 1, 2);
    plan(ahead, 2, 3);
    plan(ahead, 2, 1);
    announce(ahead, 7);
    announce(ahead, 3);
    ahead_turn(ahead, 2);
    plan(ahead, 2, 2); /* may come again */
    expect_compiled(ahead, (int[]){100, 1, 3, 2}, 4);
}

static void *take(void *ahead) {
    const struct problem problem = at(9);
    ahead_take(ahead, &library, &problem, &(struct config){{100}});
    ahead_take(ahead, &kernel, &problem, &(struct config){{55}}); /* unknown */
    ahead_take(ahead, &kernel, &problem, &(struct config){{2}});  /* waits: its trial compiles it */
    ahead_take(ahead, &kernel, &problem, &(struct config){{100}});
    assert_int_equal(gate.let, 1);
    return NULL;
}

static void test_trials_take_what_they_need(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    pthread_t trial;
    for (int value = 1; value <= 3; value++) plan(ahead, 0, value);
    assert_int_equal(pthread_create(&trial, NULL, take, ahead), 0);
    let(1);
    pthread_join(trial, NULL);
    expect_compiled(ahead, (int[]){100, 1, 3}, 3);
}

/* Beyond its room the queue drops what comes, but what is announced takes the place of what is planned last; what is
 * done makes room. */
static void test_bounded(void **state) {
    (void)state;
    struct ahead *ahead = begin();
    for (int value = 1000; value < 1000 + 5000; value++) plan(ahead, 1, value);
    announce(ahead, 7);
    let(8192);
    ahead_wait(ahead);
    assert_int_equal(gate.count, 4096);
    assert_int_equal(gate.compiled[1], 7);
    assert_int_equal(gate.compiled[4095], 1000 + 4093);
    plan(ahead, 1, 1000 + 4094);
    ahead_wait(ahead);
    assert_int_equal(gate.count, 4097);
    ahead_destroy(ahead);
}

/* --- a tuning, on a device that cannot run what is compiled for it --- */

static struct {
    pthread_mutex_t mutex;
    int compiled[8];
} notes = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int note(const struct device *d, const struct kernel *k, const struct problem *p, const struct config *c,
                struct error *error) {
    (void)d, (void)k, (void)p, (void)error;
    pthread_mutex_lock(&notes.mutex);
    notes.compiled[c->value[0]]++;
    pthread_mutex_unlock(&notes.mutex);
    return 0;
}

static double estimate(const struct device *d, const struct problem *p, const struct config *c) {
    (void)d, (void)p;
    return 1 + c->value[0];
}

static const struct kernel candidate = {.op = OP_FP16_GEMM,
                                        .backend = BACKEND_CUDA,
                                        .name = "candidate",
                                        .summary = "for tests",
                                        .parameter_count = 1,
                                        .parameters = {{"value", "-", 8, {0, 1, 2, 3, 4, 5, 6, 7}}},
                                        .estimate = estimate,
                                        .launch = launch};
static const struct kernel *const kernels[] = {&candidate, NULL};

/* Trials that were measured. */
static int tune(int trials) {
    static const volatile sig_atomic_t never = 0;
    struct supervisor supervisor = {.kernels = kernels};
    struct progress progress = {.stream = fopen("/dev/null", "w")};
    struct error error;
    if (supervisor_open(&supervisor, "cpu", &error)) fail_msg("%s", error.text);
    supervisor.device.backend = BACKEND_CUDA;
    struct tune tune = {.supervisor = &supervisor,
                        .device = &supervisor.device,
                        .scope = {"a GPU", "sm_90a", "01234567", "cold, stream", "", ""},
                        .measure = measure_quick,
                        .progress = &progress,
                        .trials = trials,
                        .compile = note,
                        .interrupted = &never};
    struct shape shape = {.layer = "128x64", .k = 128, .n = 64};
    struct shapes shapes = {.count = 1, .list = &shape};
    struct tune_plan plan = {
        .shapes = &shapes, .m = (const int[]){1, 8, 64}, .m_count = 3, .ops = {[OP_FP16_GEMM] = true}};
    if (tune_plan(&tune, &plan, &error) || store_open(in_folder("trials.sqlite"), &tune.store, &error) ||
        tune_run(&tune, &error))
        fail_msg("%s", error.text);
    int fresh = tune.fresh;
    tune_free(&tune);
    store_close(tune.store);
    supervisor_close(&supervisor);
    fclose(progress.stream);
    return fresh;
}

/* What serves all m is compiled once; what is stored is not compiled again. */
static void test_tuning(void **state) {
    (void)state;
    int compiled = 0;
    assert_int_equal(tune(4), 12);
    for (int i = 0; i < 8; i++) {
        assert_in_range(notes.compiled[i], 0, i < 4);
        compiled += notes.compiled[i];
        notes.compiled[i] = 0;
    }
    assert_true(compiled > 0);
    assert_int_equal(tune(4), 0);
    for (int i = 0; i < 8; i++) assert_int_equal(notes.compiled[i], 0);
    assert_int_equal(tune(6), 6); /* goes on */
    for (int i = 0; i < 8; i++) assert_in_range(notes.compiled[i], 0, i == 4 || i == 5);
}

int main(int argc, char **argv) {
    struct error error;
    if (argc == 3 && !strcmp(argv[1], WORKER_COMMAND)) return worker_serve(argv[2], kernels, &error) ? 1 : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once_and_in_order),
        cmocka_unit_test(test_kernels_of_several_launches),
        cmocka_unit_test(test_waves),
        cmocka_unit_test(test_announced_ones_go_first),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_trials_take_what_they_need),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test_setup_teardown(test_tuning, folder_make, folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
