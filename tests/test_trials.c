/* Trials that go wrong, and processes that are killed. Argument: how many kills, of workers and of supervisors each. */
#include "tests/stored.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>

#include "tests/told_clock.h"
#include "tuner/tune.h"

static int kills = 5;

/* --- kernels: correct ones of a time that their first parameter says; the second one is what they do wrong --- */

enum { FAULT_NONE, HANG, FAULT, ABORT, EXIT, WRONG, MEMORY, KILLED, NO_COMPILE, FAIL, FAULTS };

/* What the fault is stored as. */
static const enum trial_status expected[FAULTS] = {
    [HANG] = TRIAL_TIMEOUT,      [FAULT] = TRIAL_RUNTIME,      [ABORT] = TRIAL_RUNTIME,
    [EXIT] = TRIAL_RUNTIME,      [WRONG] = TRIAL_CORRECTNESS,  [MEMORY] = TRIAL_CONSTRAINT,
    [KILLED] = TRIAL_CONSTRAINT, [NO_COMPILE] = TRIAL_COMPILE, [FAIL] = TRIAL_RUNTIME,
};

enum { SLOWNESS, FAULT_OF };

/* The sanitizer is to behave as malloc and the kernel do. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1:handle_segv=0:handle_abort=0";
}

/* The file that every trial is noted in as it starts; it goes on once nobody else has a lock on the file. */
static const char notes[] = "TILEBOOK_TEST_NOTES";

static void note(const struct plan *plan) {
    char line[MAX_CONFIG_TEXT + 2];
    int file = open(getenv(notes), O_WRONLY | O_CREAT | O_APPEND, 0600);
    config_text(plan->kernel, &plan->config, line);
    strcat(line, "\n");
    if (file < 0 || write(file, line, strlen(line)) < 0 || flock(file, LOCK_EX)) _exit(99);
    close(file);
}

static int prepare(struct plan *plan, struct error *error) {
    const struct kernel *correct = kernel_find(plan->problem.op == OP_FP16_GEMM ? "fp16_gemm/cpu" : "awq_dequant/cpu");
    struct config config;
    struct plan *inner = NULL;
    note(plan);
    if (plan->config.value[FAULT_OF] == NO_COMPILE) return error_set(error, "no such instruction");
    if (config_default(plan->device, correct, &plan->problem, &config, error) ||
        plan_create(plan->device, correct, &plan->problem, &config, &inner, error))
        return -1;
    plan->state = inner;
    plan->workspace_bytes = plan->config.value[FAULT_OF] == MEMORY ? (size_t)1 << 50 : inner->workspace_bytes;
    return 0;
}

static void release(struct plan *plan) {
    plan_destroy(plan->state);
}

static int *volatile nowhere = (int *)8;

static int go_wrong(const struct plan *plan, const struct operands *operands, struct error *error) {
    switch (plan->config.value[FAULT_OF]) {
    case HANG:
        for (;;) pause();
    case FAULT:
        *nowhere = 1;
        break;
    case ABORT:
        abort();
    case EXIT:
        _exit(3);
    case WRONG:
        memset(operands->y, 0, 2 * problem_outputs(&plan->problem));
        break;
    case KILLED:
        raise(SIGKILL);
        break;
    case FAIL:
        return error_set(error, "launch refused");
    }
    return 0;
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    unsigned us = 100 * (unsigned)plan->config.value[SLOWNESS];
    if (plan_run(plan->state, operands, error) || go_wrong(plan, operands, error)) return -1;
    take_us(us);
    usleep(us); /* so that a kill may come anywhere */
    return 0;
}

static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    (void)device, (void)problem;
    return config->value[FAULT_OF] && config->value[SLOWNESS] > 1 ? error_set(why, "one of each fault is enough") : 0;
}

/* The slowest first, as the default, then the faults. */
static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)device, (void)problem;
    return (config->value[FAULT_OF] ? 20 : 30) - config->value[SLOWNESS] * 10 - config->value[FAULT_OF] * 0.1;
}

static const struct kernel faulty = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CPU,
    .name = "faulty",
    .summary = "for tests",
    .parameter_count = 2,
    .parameters = {{"slowness", "100 us", 3, {1, 2, 3}}, {"fault", "what", FAULTS, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}},
    .legal = legal,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};

static const struct kernel steady = {
    .op = OP_AWQ_DEQUANT,
    .backend = BACKEND_CPU,
    .name = "steady",
    .summary = "for tests",
    .parameter_count = 2,
    .parameters = {{"slowness", "100 us", 8, {1, 3, 6, 7, 8, 9, 10, 11}}, {"fault", "none", 1, {0}}},
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};

enum { STEADY_TRIALS = 8, FAULTY_TRIALS = 3 + FAULTS - 1, FINAL_ARMS = 3 /* the default twice */ };

static const struct kernel *const kernels[] = {&faulty, &steady, NULL};

/* --- a tuning with these kernels --- */

static const struct problem gemm = {OP_FP16_GEMM, 2, 64, 128, 0, false, EPILOGUE_NONE};
static const struct problem dequant = {OP_AWQ_DEQUANT, 1, 64, 128, 128, true, EPILOGUE_NONE};

struct outcome {
    int status, fresh, workers;
    int count[TRIAL_STATUSES];
    struct tile_table table;
};

/* `interrupt` may be NULL. */
static struct outcome tune_once(const struct problem *problem, double limit_s, const volatile sig_atomic_t *interrupt) {
    static const volatile sig_atomic_t never = 0;
    struct outcome outcome = {.status = -1};
    struct supervisor supervisor = {.kernels = kernels, .limit_s = limit_s};
    struct progress progress = {.stream = fopen("/dev/null", "w")};
    struct tune_item item = {.problem = *problem, .m_low = 1, .result = {.best = -1, .baseline = -1}};
    struct error error;
    int missing;
    if (supervisor_open(&supervisor, "cpu", &error)) fail_msg("%s", error.text);
    struct tune tune = {.supervisor = &supervisor,
                        .device = &supervisor.device,
                        .scope = {"a CPU", "avx2", "01234567", "cold, calls", "", ""},
                        .measure = measure_quick,
                        .progress = &progress,
                        .items = &item,
                        .count = 1,
                        .interrupted = interrupt ? interrupt : &never};
    if (store_open(in_folder("trials.sqlite"), &tune.store, &error)) fail_msg("%s", error.text);
    outcome.status = tune_run(&tune, &error);
    if (outcome.status < 0) fail_msg("%s", error.text);
    for (int s = 0; s < TRIAL_STATUSES; s++) outcome.count[s] = tune_count(&tune, (enum trial_status)s);
    outcome.fresh = tune.fresh;
    outcome.workers = supervisor.workers;
    assert_int_equal(tune_table(&tune, NULL, &outcome.table, &missing, &error), 0);
    search_result_free(&item.result);
    store_close(tune.store);
    supervisor_close(&supervisor);
    fclose(progress.stream);
    return outcome;
}

/* The same in a process of its own group, which ends with the status. */
static pid_t tune_apart(const struct problem *problem, double limit_s) {
    pid_t child = fork();
    if (child) return child;
    setpgid(0, 0);
    struct outcome outcome = tune_once(problem, limit_s, catch_interrupt());
    tiles_free(&outcome.table);
    _exit(outcome.status);
}

/* Trials that were started, whatever became of them. */
static int started(const char *configuration) {
    char line[256];
    int count = 0;
    FILE *file = fopen(in_folder("notes"), "r");
    while (file && fgets(line, sizeof line, file)) count += strstr(line, configuration) != NULL;
    if (file) fclose(file);
    return count;
}

/* Of the steady kernel, those that take no part in the final. */
static int started_once(void) {
    return started("") - started("slowness=11 ") - started("slowness=1 ");
}

static void sleep_up_to(int milliseconds) {
    usleep((useconds_t)(rand() % milliseconds) * 1000 + 1000);
}

static int fresh_folder(void **state) {
    if (folder_make(state)) return -1;
    return setenv(notes, in_folder("notes"), 1);
}

/* What a tuning of the steady kernel ends in, however it got there. */
static void expect_steady_table(const struct outcome *outcome) {
    assert_int_equal(outcome->status, TUNE_DONE);
    assert_int_equal(outcome->count[TRIAL_OK], STEADY_TRIALS);
    assert_int_equal(outcome->table.count, 1);
    assert_string_equal(outcome->table.rows[0].configuration, "slowness=1 fault=0");
    assert_int_equal(stored_trials(), STEADY_TRIALS);
    assert_int_equal(stored("SELECT max(id) FROM trials"), STEADY_TRIALS); /* none was put twice */
    assert_true(outcome->table.rows[0].us < 0.5 * outcome->table.rows[0].default_us);
    assert_int_equal(stored("SELECT count(*) FROM finals WHERE status = 'ok'"), 1);
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE samples * 4 = length(sample_us)"), STEADY_TRIALS);
}

/* --- tests --- */

static void test_faults_cost_their_configuration(void **state) {
    (void)state;
    struct outcome outcome = tune_once(&gemm, 2, NULL);
    char sql[256];
    for (int fault = 1; fault < FAULTS; fault++) {
        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM trials WHERE configuration = 'slowness=1 fault=%d' AND status = '%s' AND "
                 "message != ''",
                 fault, trial_status_name(expected[fault]));
        if (stored(sql) != 1) fail_msg("fault %d is not stored as %s", fault, trial_status_name(expected[fault]));
    }
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE message LIKE '%signal 11 (Segmentation fault)'"), 1);
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE message LIKE '%exited with code 3'"), 1);
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE message = 'no answer within 2 s of running'"), 1);
    assert_int_equal(stored("SELECT seconds >= 1.9 FROM trials WHERE status = 'timeout'"), 1);
    assert_int_equal(outcome.count[TRIAL_OK], 3);
    assert_int_equal(outcome.fresh, FAULTY_TRIALS);
    assert_string_equal(outcome.table.rows[0].configuration, "slowness=1 fault=0");
    assert_int_equal(started("fault=7"), 2); /* the kill may have come from anyone, once */
    /* All but those that are refused or do not compile cost their worker, the killed one two. */
    assert_int_equal(outcome.workers, 1 + FAULTS - 1 - 2 + 1);
    assert_int_equal(started(""), FAULTY_TRIALS + 1 + FINAL_ARMS);
    tiles_free(&outcome.table);
    outcome = tune_once(&gemm, 2, NULL);
    assert_int_equal(outcome.fresh, 0);
    assert_int_equal(outcome.workers, 1);
    assert_int_equal(started(""), FAULTY_TRIALS + 1 + FINAL_ARMS);
    assert_string_equal(outcome.table.rows[0].configuration, "slowness=1 fault=0");
    tiles_free(&outcome.table);
}

/* One worker makes all trials, as long as none fails. */
static void test_one_worker_for_all(void **state) {
    (void)state;
    struct outcome outcome = tune_once(&dequant, 0, NULL);
    expect_steady_table(&outcome);
    assert_int_equal(outcome.workers, 1);
    tiles_free(&outcome.table);
}

static void test_devices_and_data_that_cannot_be_had(void **state) {
    (void)state;
    struct supervisor supervisor = {.kernels = kernels};
    struct problem huge = {OP_FP16_GEMM, 1, 1 << 30, 1 << 30, 0, false, EPILOGUE_NONE};
    struct config config = {{1}};
    struct trial_result result;
    struct error error;
    assert_int_equal(supervisor_open(&supervisor, "cuda:x", &error), -1);
    assert_non_null(strstr(error.text, "unknown device 'cuda:x'"));
    assert_int_equal(supervisor_open(&supervisor, "cpu", &error), 0);
    assert_int_equal(supervisor_trial(&supervisor, &faulty, &huge, &config, &measure_quick, &result, &error), 1);
    assert_non_null(strstr(error.text, "more than 2^31 - 1 elements"));
    assert_int_equal(supervisor_trial(&supervisor, &faulty, &gemm, &config, &measure_quick, &result, &error), 0);
    assert_int_equal(result.status, TRIAL_OK);
    assert_true(result.us >= 100 && result.samples >= 10 && result.sample_us[0] >= 100);
    free(result.sample_us);
    supervisor_close(&supervisor);
}

/* Kills workers until the tuning is done; how many. A trial is tried twice, so the next kill waits for a stored one. */
static int kill_workers(pid_t supervisor) {
    int count = 0, status, before = -1;
    while (!waitpid(supervisor, &status, WNOHANG)) {
        pid_t worker = child_of(supervisor);
        if (worker && stored_trials() > before) {
            before = stored_trials();
            sleep_up_to(80);
            count += !kill(worker, SIGKILL);
        }
        usleep(2000);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TUNE_DONE);
    return count;
}

static void test_killed_workers(void **state) {
    (void)state;
    for (int done = 0; done < kills;) {
        remove(in_folder("trials.sqlite"));
        remove(in_folder("notes"));
        int count = kill_workers(tune_apart(&dequant, 0));
        assert_true(started_once() <= STEADY_TRIALS - 2 + count);
        struct outcome outcome = tune_once(&dequant, 0, NULL);
        assert_int_equal(outcome.fresh, 0);
        expect_steady_table(&outcome);
        tiles_free(&outcome.table);
        done += count;
    }
}

static void expect_end(pid_t process) {
    int tries = 0;
    for (; !waitpid(process, NULL, WNOHANG) && tries < 3000; tries++) usleep(10000);
    if (tries < 3000) return;
    kill(process, SIGKILL);
    fail_msg("process %d has not ended", (int)process);
}

/* Its worker becomes ours, and ends without being asked to. */
static void kill_supervisor(pid_t supervisor) {
    kill(supervisor, SIGKILL);
    expect_end(supervisor);
    for (pid_t worker; (worker = child_of(getpid()));) expect_end(worker);
}

static void test_killed_supervisors(void **state) {
    (void)state;
    for (int done = 0; done < kills;) {
        int count = 0;
        remove(in_folder("trials.sqlite"));
        remove(in_folder("notes"));
        for (; count < STEADY_TRIALS && done < kills; count++, done++) {
            int before = stored_trials();
            pid_t supervisor = tune_apart(&dequant, 0);
            sleep_up_to(300);
            kill_supervisor(supervisor);
            assert_true(stored_trials() >= before);
        }
        int before = stored_trials();
        struct outcome outcome = tune_once(&dequant, 0, NULL);
        assert_int_equal(outcome.fresh, STEADY_TRIALS - before);
        assert_true(started_once() <= STEADY_TRIALS - 2 + count);
        expect_steady_table(&outcome);
        tiles_free(&outcome.table);
    }
}

static void test_a_hanging_worker_ends_with_its_supervisor(void **state) {
    (void)state;
    pid_t supervisor = tune_apart(&gemm, 600);
    while (!started("fault=1")) usleep(5000);
    kill_supervisor(supervisor);
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE status = 'timeout'"), 0);
}

/* Ctrl-C goes to both: the trial ends well, and nothing is held against it. */
static void test_interrupt_of_the_group(void **state) {
    (void)state;
    int status, file = open(in_folder("notes"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(file, LOCK_EX), 0);
    pid_t supervisor = tune_apart(&dequant, 0);
    while (!started("")) usleep(5000);
    assert_int_equal(kill(-supervisor, SIGINT), 0);
    assert_int_equal(flock(file, LOCK_UN), 0);
    close(file);
    assert_int_equal(waitpid(supervisor, &status, 0), supervisor);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), TUNE_INTERRUPTED);
    assert_int_equal(started(""), 1);
    assert_int_equal(stored_trials(), 1);
    struct outcome outcome = tune_once(&dequant, 0, NULL);
    assert_int_equal(outcome.fresh, STEADY_TRIALS - 1);
    expect_steady_table(&outcome);
    tiles_free(&outcome.table);
}

/* A stop is no hang: the limit does not run meanwhile, even if the worker is the last to go on. */
static void test_stopped_and_continued(void **state) {
    (void)state;
    int status;
    pid_t supervisor = tune_apart(&dequant, 1);
    while (!started("")) usleep(2000);
    assert_int_equal(kill(-supervisor, SIGSTOP), 0);
    usleep(1500000);
    assert_int_equal(kill(supervisor, SIGCONT), 0);
    usleep(200000);
    assert_int_equal(kill(-supervisor, SIGCONT), 0);
    assert_int_equal(waitpid(supervisor, &status, 0), supervisor);
    struct outcome outcome = tune_once(&dequant, 0, NULL);
    expect_steady_table(&outcome);
    tiles_free(&outcome.table);
}

int main(int argc, char **argv) {
    int served = serve_told(argc, argv, kernels);
    if (served >= 0) return served;
    if (argc == 2) kills = atoi(argv[1]);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    srand((unsigned)time(NULL));
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh_folder, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_faults_cost_their_configuration),
        TEST(test_one_worker_for_all),
        TEST(test_devices_and_data_that_cannot_be_had),
        TEST(test_killed_workers),
        TEST(test_killed_supervisors),
        TEST(test_a_hanging_worker_ends_with_its_supervisor),
        TEST(test_interrupt_of_the_group),
        TEST(test_stopped_and_continued),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
