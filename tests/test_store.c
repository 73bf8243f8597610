/* The store of trials: what is put is found, by this process and by others. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <sqlite3.h>
#include <cmocka.h>

#include "tuner/store.h"

static char path[96];
static struct error error;
static const struct store_scope scope = {"a GPU", "sm_90a", "0123abcd", "cold, stream", "driver 1", "GPU-1"};
static const struct problem problem = {OP_MARLIN_GEMM, 16, 7168, 5120, 128, true, EPILOGUE_NONE};
static const struct kernel kernel = {.op = OP_MARLIN_GEMM,
                                     .name = "test",
                                     .parameter_count = 2,
                                     .parameters = {{"a", "-", 2, {1, 2}}, {"b", "-", 2, {3, 4}}}};

static int set_up(void **state) {
    (void)state;
    strcpy(path, "/tmp/tilebook-store-XXXXXX");
    if (!mkdtemp(path)) return -1;
    strcat(path, "/trials.sqlite");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[160];
    snprintf(command, sizeof command, "rm -r $(dirname %s)", path);
    return system(command);
}

static struct store *open_store(void) {
    struct store *store = NULL;
    if (store_open(path, &store, &error)) fail_msg("%s", error.text);
    return store;
}

static void put(struct store *store, struct config config, const struct trial_result *result) {
    if (store_put(store, &scope, &kernel, &problem, &config, 1, result, &error)) fail_msg("%s", error.text);
}

static bool find(struct store *store, const struct store_scope *where, const struct problem *what, struct config config,
                 struct trial_result *result) {
    bool found;
    if (store_find(store, where, &kernel, what, &config, result, &found, &error)) fail_msg("%s", error.text);
    return found;
}

static int query(const char *sql) {
    sqlite3 *database;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(database, sql, -1, &statement, NULL), SQLITE_OK);
    int value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return value;
}

static void execute(const char *sql) {
    sqlite3 *database;
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
}

static void test_what_is_put_is_found_later(void **state) {
    (void)state;
    float samples[3] = {8, 7.5f, 9};
    struct trial_result result = {.status = TRIAL_OK,
                                  .us = 8,
                                  .p20_us = 7.5,
                                  .p80_us = 9,
                                  .min_us = 7.5,
                                  .low_us = 7.6,
                                  .high_us = 8.4,
                                  .error = 2e-4,
                                  .seconds = 0.25,
                                  .samples = 3,
                                  .sample_us = samples,
                                  .stop = "interval",
                                  .clock = "cupti",
                                  .sm_mhz = 1980,
                                  .memory_mhz = 2619,
                                  .celsius = 40,
                                  .watts = 350.5,
                                  .throttle = 1ull << 63};
    struct trial_result wrong = {.status = TRIAL_CORRECTNESS,
                                 .message = "wrong: it's \"off\"",
                                 .error = 0.5,
                                 .seconds = 0.1},
                        back;
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    put(store, (struct config){{2, 4}}, &wrong);
    store_close(store);
    store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &back));
    assert_int_equal(back.status, TRIAL_OK);
    assert_true(back.us == 8 && back.p20_us == 7.5 && back.p80_us == 9 && back.min_us == 7.5 && back.low_us == 7.6);
    assert_true(back.high_us == 8.4 && back.error == 2e-4 && back.seconds == 0.25 && back.samples == 3);
    assert_true(back.sm_mhz == 1980 && back.memory_mhz == 2619 && back.celsius == 40 && back.watts == 350.5);
    assert_true(back.throttle == 1ull << 63);
    assert_null(back.sample_us);
    assert_string_equal(back.stop, "interval");
    assert_string_equal(back.clock, "cupti");
    assert_true(find(store, &scope, &problem, (struct config){{2, 4}}, &back));
    assert_int_equal(back.status, TRIAL_CORRECTNESS);
    assert_string_equal(back.message, wrong.message);
    store_close(store);
    assert_int_equal(query("SELECT length(sample_us) FROM trials WHERE status = 'ok'"), 12);
    assert_int_equal(query("SELECT count(*) FROM trials WHERE software = 'driver 1' AND uuid = 'GPU-1'"), 2);
}

static int remember(void *context, const char *name, const char *configuration) {
    char *lines = context;
    strcat(strcat(strcat(strcat(lines, name), " "), configuration), "\n");
    return strlen(lines) > 100 ? 7 : 0;
}

static void test_replays_in_the_order_of_trials(void **state) {
    (void)state;
    const struct config configs[] = {{{2, 3}}, {{1, 4}}, {{1, 3}}};
    const int orders[] = {3, 1, 2};
    struct trial_result result = {.status = TRIAL_RUNTIME};
    char lines[512] = "";
    struct store *store = open_store();
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_put(store, &scope, &kernel, &problem, &configs[i], orders[i], &result, &error), 0);
    assert_int_equal(store_replay(store, &scope, &problem, remember, lines, &error), 0);
    assert_string_equal(lines, "marlin_gemm/test a=1 b=4\nmarlin_gemm/test a=1 b=3\nmarlin_gemm/test a=2 b=3\n");
    assert_int_equal(store_replay(store, &scope, &problem, remember, lines, &error), 7);
    lines[0] = 0;
    struct problem other = problem;
    other.m++;
    assert_int_equal(store_replay(store, &scope, &other, remember, lines, &error), 0);
    assert_string_equal(lines, "");
    store_close(store);
}

static void test_every_part_of_the_key_counts(void **state) {
    (void)state;
    struct trial_result result = {.us = 1};
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    struct store_scope other = scope;
    other.kernels = "ffffffff";
    assert_false(find(store, &other, &problem, (struct config){{1, 3}}, &result));
    other = scope;
    other.device = "another GPU";
    assert_false(find(store, &other, &problem, (struct config){{1, 3}}, &result));
    other = scope;
    other.regime = "warm";
    assert_false(find(store, &other, &problem, (struct config){{1, 3}}, &result));
    struct problem changed = problem;
    changed.m = 17;
    assert_false(find(store, &scope, &changed, (struct config){{1, 3}}, &result));
    changed = problem;
    changed.zeros = false;
    assert_false(find(store, &scope, &changed, (struct config){{1, 3}}, &result));
    assert_false(find(store, &scope, &problem, (struct config){{1, 4}}, &result));
    other = scope;
    other.software = "driver 2"; /* recorded, not part of the key */
    assert_true(find(store, &other, &problem, (struct config){{1, 3}}, &result));
    store_close(store);
}

static void test_put_replaces_and_forget_removes(void **state) {
    (void)state;
    struct trial_result result = {.us = 1};
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    result.us = 2;
    put(store, (struct config){{1, 3}}, &result);
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    assert_true(result.us == 2);
    struct problem other = problem;
    other.m = 1;
    assert_int_equal(store_forget(store, &scope, &other, &error), 0);
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    assert_int_equal(store_forget(store, &scope, &problem, &error), 0);
    assert_false(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    store_close(store);
}

static void test_epilogues_are_apart(void **state) {
    (void)state;
    struct trial_result result = {.us = 1};
    struct store *store = open_store();
    struct problem other = problem;
    other.epilogue = EPILOGUE_BIAS;
    put(store, (struct config){{1, 3}}, &result);
    assert_false(find(store, &scope, &other, (struct config){{1, 3}}, &result));
    assert_int_equal(store_forget(store, &scope, &other, &error), 0);
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    store_close(store);
}

/* A file of version 1 keeps its trials, which had no epilogue, and its numbers of them. */
static void test_version_1_is_migrated(void **state) {
    (void)state;
    struct trial_result result = {.us = 5, .samples = 2, .stop = "ci", .clock = "cupti"};
    float samples[2] = {4, 6};
    result.sample_us = samples;
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    store_close(store);
    execute("UPDATE trials SET id = 41; CREATE TABLE old AS SELECT * FROM trials; DROP TABLE trials;"
            "ALTER TABLE old RENAME TO trials; ALTER TABLE trials DROP COLUMN epilogue; DROP TABLE finals; DROP TABLE "
            "regrets; DROP TABLE chains;"
            "PRAGMA user_version = 1");
    store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    assert_true(result.us == 5 && result.samples == 2 && !strcmp(result.stop, "ci") && !strcmp(result.clock, "cupti"));
    result.us = 6;
    put(store, (struct config){{1, 3}}, &result);
    store_close(store);
    assert_int_equal(query("PRAGMA user_version"), STORE_VERSION);
    assert_int_equal(query("SELECT count(*) FROM trials"), 1);
    assert_int_equal(query("SELECT count(*) FROM sqlite_schema WHERE type = 'table'"), 4);
    store_close(open_store());
}

static void test_version_2_is_migrated(void **state) {
    (void)state;
    struct trial_result wrong = {.status = TRIAL_CORRECTNESS, .message = "off"}, slow = {.status = TRIAL_TIMEOUT}, back;
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &wrong);
    put(store, (struct config){{2, 3}}, &slow);
    store_close(store);
    execute("UPDATE trials SET status = 'wrong' WHERE status = 'correctness'; DROP TABLE finals; DROP TABLE regrets;"
            "DROP TABLE chains; PRAGMA user_version = 2");
    store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &back));
    assert_int_equal(back.status, TRIAL_CORRECTNESS);
    assert_true(find(store, &scope, &problem, (struct config){{2, 3}}, &back));
    assert_int_equal(back.status, TRIAL_TIMEOUT);
    store_close(store);
    assert_int_equal(query("PRAGMA user_version"), STORE_VERSION);
}

static void test_version_3_is_migrated(void **state) {
    (void)state;
    struct trial_result result = {.us = 5};
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    store_close(store);
    execute("DROP TABLE finals; DROP TABLE regrets; DROP TABLE chains; PRAGMA user_version = 3");
    store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    store_close(store);
    assert_int_equal(query("PRAGMA user_version"), STORE_VERSION);
    assert_int_equal(query("SELECT count(*) FROM finals"), 0);
}

static void test_version_4_is_migrated(void **state) {
    (void)state;
    struct trial_result result = {.us = 5};
    const struct trial row = {.kernel = &kernel, .config = {{1, 3}}}, best = {.kernel = &kernel, .config = {{2, 3}}};
    struct store *store = open_store();
    put(store, (struct config){{1, 3}}, &result);
    store_close(store);
    execute("DROP TABLE regrets; DROP TABLE chains; PRAGMA user_version = 4");
    store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{1, 3}}, &result));
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_put_regret(store, &scope, &problem, &row, &best, 0.02, &error), 0);
    assert_int_equal(query("SELECT count(*) FROM regrets WHERE regret = 0.02 AND configuration != best_configuration"),
                     1);
    assert_int_equal(store_forget(store, &scope, &problem, &error), 0);
    assert_int_equal(query("SELECT count(*) FROM regrets"), 0);
    store_close(store);
    assert_int_equal(query("PRAGMA user_version"), STORE_VERSION);
}

/* Of version 5, which had no chains; each order of a chain is a row of its own. */
static void test_chains_are_kept(void **state) {
    (void)state;
    struct chain_gemm gemms[CHAIN_GEMMS];
    const struct store_chain first = {gemms, 12, 1}, second = {gemms, 12, 2}, deeper = {gemms, 13, 1};
    struct trial_result result = {.us = 5, .low_us = 4, .high_us = 6, .seconds = 0.25, .samples = 2, .stop = "time"},
                        failed = {.status = TRIAL_TIMEOUT, .message = "gone"}, back;
    float samples[] = {4, 6};
    bool found = true;
    result.sample_us = samples;
    for (int g = 0; g < CHAIN_GEMMS; g++) gemms[g] = (struct chain_gemm){problem, &kernel, {{1, 3}}};
    store_close(open_store());
    execute("DROP TABLE chains; PRAGMA user_version = 5");
    struct store *store = open_store();
    assert_int_equal(store_find_chain(store, &scope, &first, &back, &found, &error), 0);
    assert_false(found);
    assert_int_equal(store_put_chain(store, &scope, &first, &result, &error), 0);
    assert_int_equal(store_put_chain(store, &scope, &second, &failed, &error), 0);
    store_close(store);
    store = open_store();
    assert_int_equal(store_find_chain(store, &scope, &first, &back, &found, &error), 0);
    assert_true(found && back.status == TRIAL_OK && back.us == 5 && back.low_us == 4 && back.high_us == 6);
    assert_true(back.seconds == 0.25 && !strcmp(back.stop, "time"));
    assert_int_equal(store_find_chain(store, &scope, &second, &back, &found, &error), 0);
    assert_true(found && back.status == TRIAL_TIMEOUT && !strcmp(back.message, "gone"));
    assert_int_equal(store_find_chain(store, &scope, &deeper, &back, &found, &error), 0);
    assert_false(found);
    gemms[CHAIN_DOWN].config.value[0] = 2;
    assert_int_equal(store_find_chain(store, &scope, &first, &back, &found, &error), 0);
    assert_false(found);
    assert_int_equal(query("SELECT count(*) FROM chains WHERE samples * 4 = length(sample_us)"), 1);
    assert_int_equal(store_forget(store, &scope, &problem, &error), 0);
    assert_int_equal(query("SELECT count(*) FROM chains"), 0);
    store_close(store);
    assert_int_equal(query("PRAGMA user_version"), STORE_VERSION);
}

static void test_finals_are_kept_with_their_rounds(void **state) {
    (void)state;
    enum { COUNT = 3 };
    const struct trial first = {.kernel = &kernel, .config = {{1, 3}}}, other = {.kernel = &kernel, .config = {{2, 3}}};
    const struct trial *arms[COUNT] = {&first, &first, &other}, *swapped[COUNT] = {&other, &other, &first};
    float us[COUNT * FINAL_ROUNDS];
    struct trial_result result = {.samples = COUNT * FINAL_ROUNDS, .seconds = 0.5, .throttle = 8, .sample_us = us},
                        failed = {.status = TRIAL_RUNTIME, .message = "gone", .seconds = 1}, back;
    bool found = true;
    for (int i = 0; i < COUNT * FINAL_ROUNDS; i++) us[i] = (float)i;
    struct store *store = open_store();
    assert_int_equal(store_find_final(store, &scope, &problem, arms, COUNT, &back, &found, &error), 0);
    assert_false(found);
    assert_int_equal(store_put_final(store, &scope, &problem, arms, COUNT, &result, &error), 0);
    assert_int_equal(store_put_final(store, &scope, &problem, swapped, COUNT, &failed, &error), 0);
    store_close(store);
    store = open_store();
    assert_int_equal(store_find_final(store, &scope, &problem, arms, COUNT, &back, &found, &error), 0);
    assert_true(found && back.status == TRIAL_OK && back.samples == COUNT * FINAL_ROUNDS);
    assert_true(back.seconds == 0.5 && back.throttle == 8);
    assert_memory_equal(back.sample_us, us, sizeof us);
    free(back.sample_us);
    assert_int_equal(store_find_final(store, &scope, &problem, swapped, COUNT, &back, &found, &error), 0);
    assert_true(found && back.status == TRIAL_RUNTIME && !back.sample_us);
    assert_string_equal(back.message, "gone");
    execute("UPDATE finals SET round_us = x'00' WHERE status = 'ok'");
    assert_int_equal(store_find_final(store, &scope, &problem, arms, COUNT, &back, &found, &error), 0);
    assert_false(found); /* rounds of another number */
    assert_int_equal(store_forget(store, &scope, &problem, &error), 0);
    assert_int_equal(query("SELECT count(*) FROM finals"), 0);
    store_close(store);
}

static void expect_refused(const char *expected) {
    struct store *store;
    assert_int_equal(store_open(path, &store, &error), -1);
    assert_null(store);
    if (!strstr(error.text, expected) || !strstr(error.text, path)) fail_msg("'%s' lacks '%s'", error.text, expected);
}

static void test_refuses_other_files(void **state) {
    (void)state;
    store_close(open_store());
    execute("PRAGMA user_version = 7");
    expect_refused("version 7, this program reads up to 6");
    assert_int_equal(query("PRAGMA user_version"), 7);
    remove(path);
    execute("CREATE TABLE music (title)");
    expect_refused("not a trial store of tilebook");
    remove(path);
    FILE *file = fopen(path, "w");
    for (int i = 0; i < 1000; i++) fputs("# this is text\n", file);
    fclose(file);
    expect_refused("no SQLite database");
    remove(path);
    strcat(path, "/below");
    expect_refused("unable to open");
    path[strlen(path) - strlen("/below")] = 0;
}

static void test_a_locked_store_says_so(void **state) {
    (void)state;
    sqlite3 *holder;
    struct trial_result result = {.us = 1};
    struct config config = {{1, 3}};
    struct store *store = open_store();
    assert_int_equal(sqlite3_open(path, &holder), SQLITE_OK);
    assert_int_equal(sqlite3_exec(holder, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_put(store, &scope, &kernel, &problem, &config, 1, &result, &error), -1);
    assert_non_null(strstr(error.text, "locked by another process"));
    assert_int_equal(sqlite3_exec(holder, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(holder);
    put(store, config, &result);
    store_close(store);
}

enum { WRITERS = 3, EACH = 60 };

static int write_trials(int writer) {
    struct store *store;
    struct trial_result result = {.us = 1};
    if (store_open(path, &store, &error)) return 1;
    for (int i = 0; i < EACH; i++) {
        struct problem mine = problem;
        struct config config = {{1, 3}};
        mine.m = 1 + writer * EACH + i;
        if (store_put(store, &scope, &kernel, &mine, &config, i, &result, &error)) return 2;
    }
    store_close(store);
    return 0;
}

/* Also the creation is a race here. */
static void test_several_processes(void **state) {
    (void)state;
    for (int i = 0; i < WRITERS; i++)
        if (!fork()) _exit(write_trials(i));
    for (int i = 0; i < WRITERS; i++) {
        int status;
        wait(&status);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(query("SELECT count(*) FROM trials"), WRITERS * EACH);
}

static void test_a_killed_writer_loses_nothing_stored(void **state) {
    (void)state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        struct trial_result result = {.us = 3};
        put(open_store(), (struct config){{2, 3}}, &result);
        _exit(write(ready[1], "x", 1) == 1 && !pause());
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    struct trial_result result;
    struct store *store = open_store();
    assert_true(find(store, &scope, &problem, (struct config){{2, 3}}, &result));
    assert_true(result.us == 3);
    store_close(store);
    close(ready[0]);
    close(ready[1]);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_put_is_found_later),
        TEST(test_replays_in_the_order_of_trials),
        TEST(test_every_part_of_the_key_counts),
        TEST(test_put_replaces_and_forget_removes),
        TEST(test_epilogues_are_apart),
        TEST(test_version_1_is_migrated),
        TEST(test_version_2_is_migrated),
        TEST(test_version_3_is_migrated),
        TEST(test_version_4_is_migrated),
        TEST(test_chains_are_kept),
        TEST(test_finals_are_kept_with_their_rounds),
        TEST(test_refuses_other_files),
        TEST(test_a_locked_store_says_so),
        TEST(test_several_processes),
        TEST(test_a_killed_writer_loses_nothing_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
