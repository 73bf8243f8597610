/* `tilebook tune` on several devices: the CPU twice. Two searches share its cores, so no time counts here. */
#include "tests/stored.h"

#include <signal.h>
#include <sys/prctl.h>

#include "tuner/many.h"

static struct error error;

/* A trial that is stored in place of another one gets a number of its own. */
static void expect_nothing_twice(void) {
    assert_int_equal(stored("SELECT max(id) FROM trials"), stored_trials());
}

#define TUNE "tune --shapes 128x128,128x192 --op awq_dequant,marlin_gemm --m 1,4 --trials 2 --out @/tiles.txt "

/* Table and trials are, byte for byte, what one device makes of the same store, borders and held-out M included. */
static void expect_what_one_device_writes(const char *options) {
    char line[512];
    expect_shell(0, "cp @/tiles.txt @/many.txt && cp @/trials.csv @/many.csv", "");
    snprintf(line, sizeof line, TUNE "%s --device cpu", options);
    expect(0, line, " 0 of them new");
    expect_shell(0, "cmp @/many.txt @/tiles.txt && cmp @/many.csv @/trials.csv", "");
    expect_nothing_twice();
}

static void test_the_table_is_that_of_one_device(void **state) {
    (void)state;
    expect(0, TUNE "--device cpu,cpu",
           "cpu, 1 of 4: [1/1] awq_dequant m=1|cpu, 4 of 4: [2/2] marlin_gemm m=4|6 problems");
    assert_null(strstr(output, " 0 of them new"));
    expect_what_one_device_writes("");
    expect(0, "table lint --device cpu @/tiles.txt", "0 findings");
    expect(0, TUNE "--device cpu,cpu", "rows are tried first| 0 of them new");
    expect_shell(0, "cmp @/many.txt @/tiles.txt", "");
}

/* What a search may take depends on its stretch alone, and is the same when the store is read. */
static void test_a_budget_is_shared(void **state) {
    (void)state;
#define BUDGET "tune --shapes 128x128,128x192 --op marlin_gemm --m 1,4 --budget 1s --out @/tiles.txt --device cpu,cpu"
    expect(0, BUDGET, "4 problems");
    expect_nothing_twice();
    expect_shell(0, "cp @/tiles.txt @/first.txt", "");
    bool used_up = stored("SELECT (SELECT total(seconds) FROM trials) + (SELECT total(seconds) FROM finals) >= 0.97");
    expect(0, BUDGET, used_up ? "tiles.txt is complete, nothing was measured" : " 0 of them new");
    expect_shell(0, "cmp @/first.txt @/tiles.txt", "");
#undef BUDGET
}

static void test_fresh_forgets_once(void **state) {
    (void)state;
#define ONE                                                                                                            \
    "tune --effort quick --shapes 128x128 --op marlin_gemm,fp16_gemm --m 1 --trials 3 --out @/tiles.txt --device "     \
    "cpu,cpu"
    expect(0, ONE, "6 trials, 6 of them new");
    expect(0, ONE " --fresh", "6 trials, 6 of them new");
    expect(0, ONE, "6 trials, 0 of them new");
#undef ONE
}

/* --- processes that end --- */

#define LONG                                                                                                           \
    "--shapes", "128x128,128x192,128x256", "--m", "1,4", "--op", "fp16_gemm", "--effort", "quick", "--trials", "8"
#define LONG_LINE                                                                                                      \
    "tune --shapes 128x128,128x192,128x256 --m 1,4 --op fp16_gemm --effort quick --trials 8 --out @/tiles.txt "        \
    "--device cpu,cpu"
enum { LONG_TRIALS = 48 };

/* A long tuning, in a process of its own, of which a few trials are stored. */
static pid_t tune_apart(void) {
    pid_t child = fork();
    if (!child) {
        char out[128];
        const char *program = getenv("TILEBOOK");
        snprintf(out, sizeof out, "%s", in_folder("tiles.txt"));
        if (!freopen(in_folder("log"), "w", stderr)) _exit(99);
        execl(program, "tilebook", "tune", LONG, "--device", "cpu,cpu", "--out", out, (char *)NULL);
        _exit(99);
    }
    while (stored_trials() < 6) usleep(20000);
    return child;
}

/* Waits for the command; what it left behind is handed to this process, and has to end too. */
static int await_all(pid_t tune) {
    int status;
    waitpid(tune, &status, 0);
    while (wait(NULL) > 0) {
    }
    return status;
}

static void read_log(void) {
    FILE *file = fopen(in_folder("log"), "r");
    output[fread(output, 1, sizeof output - 1, file)] = 0;
    fclose(file);
}

/* What is stored stays, and no other trial is missing than those. */
static void expect_the_rest(long kept) {
    char expected[96];
    snprintf(expected, sizeof expected, "%d trials, %ld of them new", LONG_TRIALS, LONG_TRIALS - kept);
    expect(0, LONG_LINE, expected);
    expect_nothing_twice();
    expect(0, "table lint --device cpu @/tiles.txt", "0 findings");
}

static void test_a_killed_process_costs_its_stretch(void **state) {
    (void)state;
    pid_t tune = tune_apart(), search = child_of(tune);
    assert_true(search > 0);
    kill(search, SIGKILL);
    int status = await_all(tune);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    read_log();
    if (!strstr(output, "cpu: the search was ended by signal 9 (Killed)") ||
        !strstr(output, "2 of 6 problems are open, and no table is written; the same command goes on"))
        fail_msg("%s", output);
    assert_int_not_equal(access(in_folder("tiles.txt"), F_OK), 0);
    assert_true(stored("SELECT count(DISTINCT n) FROM trials") == 3);
    expect_the_rest(stored_trials());
}

static void test_an_interrupt_ends_all(void **state) {
    (void)state;
    pid_t tune = tune_apart();
    kill(tune, SIGINT);
    int status = await_all(tune);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    read_log();
    if (!strstr(output, " of 6 problems are open, ") || !strstr(output, "the same command resumes"))
        fail_msg("%s", output);
    expect_the_rest(stored_trials());
}

static void test_a_killed_command_leaves_nothing_behind(void **state) {
    (void)state;
    pid_t tune = tune_apart();
    assert_true(child_of(tune) > 0);
    kill(tune, SIGKILL);
    assert_true(WIFSIGNALED(await_all(tune)));
    long kept = stored_trials();
    assert_true(kept < LONG_TRIALS);
    expect_the_rest(kept);
}

/* --- which devices --- */

static void expect_pair(const struct device *a, const struct device *b, const char *why) {
    error.text[0] = 0;
    assert_int_equal(many_check_pair(a, b, &error), why ? -1 : 0);
    if (why && !strstr(error.text, why)) fail_msg("%s", error.text);
}

static void test_devices_of_one_kind(void **state) {
    (void)state;
    const struct device first = {BACKEND_CUDA, 0, "cuda:0", "NVIDIA H200", "GPU-1", "sm_90a", .multiprocessors = 132};
    struct device other = first;
    expect_pair(&first, &other, "cuda:0 and cuda:0 are the same GPU");
    strcpy(other.id, "cuda:1");
    strcpy(other.uuid, "GPU-2");
    expect_pair(&first, &other, NULL);
    other.multiprocessors = 60;
    expect_pair(&first, &other, "cuda:0 is NVIDIA H200, sm_90a, 132 SMs, and cuda:1 is NVIDIA H200, sm_90a, 60 SMs");
    other = first;
    strcpy(other.name, "NVIDIA L4");
    expect_pair(&first, &other, "is NVIDIA L4, sm_90a, 132 SMs: a table is of one card");
    const struct device cpu = {.id = "cpu", .name = "a CPU", .architecture = "avx2", .multiprocessors = 2};
    expect_pair(&cpu, &cpu, NULL);
    expect_pair(&first, &cpu, "cpu is a CPU, avx2, 2 cores");
}

static void test_refuses(void **state) {
    (void)state;
    expect(2, "tune --shapes 128x128 --device cpu,auto", "auto chooses one device; several devices are cuda:0,cuda:1");
    expect(2, "tune --shapes 128x128 --device cuda:0,tpu", "unknown device 'tpu'; accepted: |or all");
    expect(2, "tune --shapes 128x128 --device cpu,", "unknown device ''");
    expect(1, "tune --shapes 128x128 --device cpu,cuda:999 --out @/t", "cuda:999: |`--device cpu` works");
    expect(1, "tune --shapes 128x128 --device cpu,cpu --out @/t --store LICENSE", "no SQLite database");
    expect(0, "tune --help", "cuda:0,cuda:1");
}

int main(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_the_table_is_that_of_one_device),
        TEST(test_a_budget_is_shared),
        TEST(test_fresh_forgets_once),
        TEST(test_a_killed_process_costs_its_stretch),
        TEST(test_an_interrupt_ends_all),
        TEST(test_a_killed_command_leaves_nothing_behind),
        TEST(test_devices_of_one_kind),
        TEST(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
