/* The M ranges of a table, with a kernel whose times by m are known. */
#include "tests/command.h"

#include <sqlite3.h>

#include "tests/told_clock.h"
#include "tuner/ranges.h"

/* --- a kernel that is correct and takes as long as its parameter and m say --- */

enum { LOW = 1, HIGH, ODD, CRAMPED };

/* Where the winners cross: LOW to 12, HIGH from 13, but ODD from 20 to 24. */
static unsigned time_us(int which, int m) {
    if (which == LOW) return m <= 12 ? 300 : 1200;
    if (which == HIGH) return m <= 12 ? 1200 : 400;
    if (which == ODD) return m >= 20 && m <= 24 ? 150 : 600;
    return 1400;
}

struct state {
    struct plan *inner;
    bool written; /* y is right from the first call on; the others only take their time */
};

static int prepare(struct plan *plan, struct error *error) {
    const struct kernel *correct = kernel_find("fp16_gemm/cpu");
    struct state *state = calloc(1, sizeof *state);
    struct config config;
    plan->state = state;
    if (config_default(plan->device, correct, &plan->problem, &config, error) ||
        plan_create(plan->device, correct, &plan->problem, &config, &state->inner, error))
        return -1;
    plan->workspace_bytes = state->inner->workspace_bytes;
    return 0;
}

static int run(const struct plan *plan, const struct operands *operands, struct error *error) {
    struct state *state = plan->state;
    if (!state->written && plan_run(state->inner, operands, error)) return -1;
    state->written = true;
    take_us(time_us(plan->config.value[0], plan->problem.m));
    return 0;
}

static void release(struct plan *plan) {
    struct state *state = plan->state;
    plan_destroy(state->inner);
    free(state);
}

/* CRAMPED is the estimate's favourite, and ODD does not run at m = 3. */
static int legal(const struct device *device, const struct problem *problem, const struct config *config,
                 struct error *why) {
    (void)device;
    return config->value[0] == ODD && problem->m == 3 ? error_set(why, "not at 3") : 0;
}

static double estimate(const struct device *device, const struct problem *problem, const struct config *config) {
    (void)device, (void)problem;
    return 10 - config->value[0];
}

static const struct kernel stepped = {
    .op = OP_FP16_GEMM,
    .backend = BACKEND_CPU,
    .name = "stepped",
    .summary = "for tests",
    .parameter_count = 1,
    .parameters = {{"which", "-", 4, {LOW, HIGH, ODD, CRAMPED}}},
    .legal = legal,
    .estimate = estimate,
    .prepare = prepare,
    .run = run,
    .release = release,
};

static const struct kernel *const kernels[] = {&stepped, NULL};

/* --- a tuning with it --- */

struct outcome {
    struct tile_table table;
    struct ranges_summary ranges;
    int fresh, items;
};

static int weights = 1; /* matrices */

static struct outcome tune_at(const int *m, int count, bool refine, double budget_s, bool forget) {
    static const volatile sig_atomic_t never = 0;
    struct outcome outcome = {.fresh = 0};
    struct supervisor supervisor = {.kernels = kernels};
    struct progress progress = {.stream = fopen("/dev/null", "w")};
    struct error error = {""};
    int missing = -1;
    if (supervisor_open(&supervisor, "cpu", &error)) fail_msg("%s", error.text);
    struct tune tune = {.supervisor = &supervisor,
                        .device = &supervisor.device,
                        .scope = {"a CPU", "avx2", "01234567", "cold, calls", "", ""},
                        .measure = measure_quick,
                        .progress = &progress,
                        .refine = refine,
                        .forget = forget,
                        .budget_s = budget_s,
                        .interrupted = &never};
    struct shape list[] = {{.layer = "128x64", .k = 128, .n = 64}, {.layer = "64x128", .k = 64, .n = 128}};
    struct shapes shapes = {.count = weights, .list = list};
    struct tune_plan plan = {.shapes = &shapes, .m = m, .m_count = count, .ops = {[OP_FP16_GEMM] = true}};
    if (tune_plan(&tune, &plan, &error) || store_open(in_folder("trials.sqlite"), &tune.store, &error) ||
        tune_run(&tune, &error) || tune_table(&tune, NULL, &outcome.table, &missing, &error))
        fail_msg("%s", error.text);
    assert_int_equal(missing, 0);
    outcome.ranges = ranges_summarize(&tune);
    outcome.fresh = tune.fresh;
    outcome.items = tune.count;
    tune_free(&tune);
    store_close(tune.store);
    supervisor_close(&supervisor);
    fclose(progress.stream);
    return outcome;
}

/* "1-12 which=1, 13-19 which=2" */
static void expect_table(const struct tile_table *table, const char *expected) {
    char text[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < table->count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%ld-%ld %s", i ? ", " : "", table->rows[i].m_low,
                                 table->rows[i].m_high, table->rows[i].configuration);
    assert_string_equal(text, expected);
}

static double query(const char *sql) {
    sqlite3 *database;
    sqlite3_stmt *statement = NULL;
    double value = -1;
    if (sqlite3_open(in_folder("trials.sqlite"), &database) == SQLITE_OK &&
        sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_double(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return value;
}

static const int two[] = {1, 32};

static void test_borders_lie_where_winners_cross(void **state) {
    (void)state;
    struct outcome outcome = tune_at(two, 2, false, 0, false);
    expect_table(&outcome.table, "1-1 which=1, 2-32 which=2");
    assert_int_equal(outcome.ranges.tested, 0);
    tiles_free(&outcome.table);
    outcome = tune_at(two, 2, true, 0, false);
    expect_table(&outcome.table, "1-12 which=1, 13-19 which=2, 20-24 which=3, 25-32 which=2");
    assert_int_equal(outcome.ranges.split, 1);
    assert_true(outcome.ranges.tested >= 3 && outcome.ranges.worst <= RANGES_REGRET);
    /* At m = 21 HIGH takes 400 us and ODD 150. */
    double regret = query("SELECT regret FROM regrets WHERE m = 21 AND configuration = 'which=2' AND "
                          "best_configuration = 'which=3'");
    assert_true(regret > 1 && regret < 2.5);
    assert_int_equal((int)query("SELECT count(*) FROM regrets"), outcome.ranges.tested);
    assert_int_equal((int)query("SELECT count(*) FROM regrets WHERE regret > 0.03"), 1);
    for (size_t i = 0; i < outcome.table.count; i++)
        assert_true(outcome.table.rows[i].us < 0.5 * outcome.table.rows[i].default_us);
    tiles_free(&outcome.table);
    /* Nothing is measured twice, and --fresh measures all of it. */
    struct outcome again = tune_at(two, 2, true, 0, false);
    assert_int_equal(again.fresh, 0);
    expect_table(&again.table, "1-12 which=1, 13-19 which=2, 20-24 which=3, 25-32 which=2");
    assert_int_equal(again.items, outcome.items);
    tiles_free(&again.table);
    again = tune_at(two, 2, true, 0, true);
    expect_table(&again.table, "1-12 which=1, 13-19 which=2, 20-24 which=3, 25-32 which=2");
    assert_int_equal(again.fresh, (int)query("SELECT count(*) FROM trials"));
    tiles_free(&again.table);
}

/* Below the first m too; a row of one m has nothing to test. */
static void test_rows_below_the_first_m_and_of_one(void **state) {
    (void)state;
    static const int m[] = {22, 23};
    struct outcome outcome = tune_at(m, 2, true, 0, false);
    /* The row of 1 to 23 loses everything at m = 5 or 3, and is split there. */
    assert_true(outcome.ranges.split >= 1);
    const struct tile_row *row = tiles_find(&outcome.table, "fp16_gemm", 128, 64, 0, 1);
    assert_true(row && row->m_low == 1 && !strcmp(row->configuration, "which=1"));
    for (long at = 1; at <= 23; at++) {
        row = tiles_find(&outcome.table, "fp16_gemm", 128, 64, 0, at);
        assert_true(row && row->m_low <= at && row->m_high >= at);
        assert_false(at == 3 && !strcmp(row->configuration, "which=3"));
    }
    tiles_free(&outcome.table);
    static const int one[] = {1};
    outcome = tune_at(one, 1, true, 0, false);
    assert_int_equal(outcome.ranges.tested, 0);
    tiles_free(&outcome.table);
}

static void test_no_budget_no_borders(void **state) {
    (void)state;
    struct outcome outcome = tune_at(two, 2, true, 1e-3, false);
    assert_int_equal(outcome.items, 2);
    assert_int_equal(outcome.ranges.tested, 0);
    assert_int_equal(outcome.table.rows[outcome.table.count - 1].m_high, 32);
    tiles_free(&outcome.table);
}

/* LOW, the last by estimate, wins at m = 1, and is the first that other weights are tried with behind the default. */
static void test_winners_are_tried_with_other_weights(void **state) {
    (void)state;
    static const int one[] = {1};
    weights = 2;
    struct outcome outcome = tune_at(one, 1, false, 0, false);
    weights = 1;
    assert_int_equal(outcome.fresh, 8);
    assert_int_equal((int)query("SELECT \"order\" FROM trials WHERE k = 128 AND configuration = 'which=1'"), 4);
    assert_int_equal((int)query("SELECT \"order\" FROM trials WHERE k = 64 AND configuration = 'which=1'"), 2);
    tiles_free(&outcome.table);
}

int main(int argc, char **argv) {
    int served = serve_told(argc, argv, kernels);
    if (served >= 0) return served;
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_borders_lie_where_winners_cross),
        TEST(test_rows_below_the_first_m_and_of_one),
        TEST(test_no_budget_no_borders),
        TEST(test_winners_are_tried_with_other_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
